/*
 * Makes a list of causes shorter as long as an experiment with the rest still fails: for faults of `network.explore`
 * and decisions of torment.
 */

/**
 * Leaves out groups that have a name in common, first all of the first naming, then halves, quarters, single ones.
 * `fails`: whether an experiment with these fails; undefined: no further experiment is possible, and the list so far is
 * the result.
 */
export const shrink = async <T>(
  all: readonly T[],
  fails: (left: readonly T[]) => Promise<boolean | undefined>,
  namings: readonly ((one: T) => string)[] = [],
): Promise<readonly T[]> => {
  let left = all
  /** True: without these it still fails. Undefined: no further experiment is possible. */
  const leaveOut = async (isOut: (one: T, index: number) => boolean): Promise<boolean | undefined> => {
    const fewer = left.filter((one, i) => !isOut(one, i))
    const hasFailed = await fails(fewer)
    if (hasFailed === true) left = fewer
    return hasFailed
  }
  for (const nameOf of namings) {
    const names = [...new Set(left.map(nameOf))]
    if (names.length > 1)
      for (const name of names) if ((await leaveOut(one => nameOf(one) === name)) === undefined) return left
  }
  for (let part = Math.ceil(left.length / 2); part >= 1; part = part === 1 ? 0 : Math.ceil(part / 2))
    for (let start = 0; start < left.length; ) {
      const hasFailed = await leaveOut((_, i) => i >= start && i < start + part)
      if (hasFailed === undefined) return left
      if (!hasFailed) start += part
    }
  return left
}
