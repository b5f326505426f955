/*
 * The cost of lists, without a clock.
 */

type AnyMethod = (this: unknown[], ...args: unknown[]) => unknown

/** Number of elements in the arrays on which `body` calls `shift`, `splice` and `reverse`. */
export const countMoves = async (body: () => unknown): Promise<number> => {
  let moves = 0
  const { shift, splice, reverse } = Array.prototype
  const counting = (original: unknown): AnyMethod =>
    function (...args) {
      moves += this.length
      return (original as AnyMethod).apply(this, args)
    }
  Object.assign(Array.prototype, { shift: counting(shift), splice: counting(splice), reverse: counting(reverse) })
  try {
    await body()
  } finally {
    Object.assign(Array.prototype, { shift, splice, reverse })
  }
  return moves
}
