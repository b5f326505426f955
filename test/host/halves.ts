/** The upper and the lower 32 bits of an address below 2^53. */
export const halves = (address: number): [high: number, low: number] => [
  Math.floor(address / 2 ** 32),
  address % 2 ** 32,
]
