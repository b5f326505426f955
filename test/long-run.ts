/*
 * Sizes of tests that run in `npm test` with a part of what they do in `npm run test:long`: fewer runs, seeds or
 * combinations, never fewer kinds.
 */

/** Set by scripts/test.mjs. */
const isLong = process.env.USERDMA_LONG_RUN === '1'

/** `long` in `npm run test:long`, else `ordinary`. */
export const inLongRun = <T>(long: T, ordinary: T): T => (isLong ? long : ordinary)

/** All entries of a table in `npm run test:long`, else those that `isOrdinary` accepts. */
export const casesOf = <T>(table: readonly T[], isOrdinary: (one: T, index: number) => boolean): readonly T[] =>
  isLong ? table : table.filter(isOrdinary)

/** A reason for the option `skip` of tests that only `npm run test:long` has; false there. */
export const longOnly: string | false = !isLong && 'only in `npm run test:long`'
