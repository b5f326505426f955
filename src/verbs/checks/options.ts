/*
 * Options, which programs write by hand: a record whose words are all known. A misspelt one would be ignored, and what
 * it was to change would not happen, without a word. Where a record is left out that is needed, that is said as well.
 *
 * Not for what comes from elsewhere (endpoints, remote memory: a peer may tell more). Requests, which are many, have
 * their own check (request-options.ts).
 */
import { formatValue, invalidArgument } from '../error.ts'

/** All words of options `O`: the compiler sees to it that none is missing and none too many. */
export type Words<O> = { readonly [K in keyof Required<O>]: true }

/** That `value` is an object; `what` is what a sentence calls it. Throws RdmaError EINVAL. */
export const checkRecord = (call: string, what: string, value: unknown, hint: string): void => {
  if (value === undefined) throw invalidArgument(call, `${what} is missing`, hint)
  if (typeof value !== 'object' || value === null)
    throw invalidArgument(call, `${what}: ${formatValue(value)} is no object`, hint)
}

/** That `options` is an object and has no words but these. Throws RdmaError EINVAL. */
export const checkOptions = (call: string, what: string, options: object | undefined, words: object): void => {
  if (typeof options !== 'object' || options === null)
    checkRecord(call, what, options, `it is an object with ${Object.keys(words).join(', ')}`)
  for (const name in options)
    if (!Object.hasOwn(words, name) && (options as Readonly<Record<string, unknown>>)[name] !== undefined)
      throw invalidArgument(call, `${what}: "${name}" is unknown`, `there are ${Object.keys(words).join(', ')}`)
}
