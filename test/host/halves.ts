/** The halves of an address below 2^53, as copies between processes get it. */
export const halves = (address: number): [high: number, low: number] => [
  Math.floor(address / 2 ** 32),
  address % 2 ** 32,
]
