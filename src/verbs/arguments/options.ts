/*
 * Checks of options objects. Every property must be known, because a misspelt option would be silently ignored; a
 * missing options object that is required is refused too.
 *
 * Not for data that comes from a peer (endpoints, remote memory), which may have additional properties. Options of
 * requests have a faster check (request-options.ts).
 */
import { formatValue, invalidArgument } from '../error.ts'

/** The names of all options in `O`; the compiler checks that the list is complete. */
export type KnownOptions<O> = { readonly [K in keyof Required<O>]: true }

/** Checks that `value` is an object; `title` names it in the error. Throws RdmaError EINVAL. */
export const checkRecord = (call: string, title: string, value: unknown, hint: string): void => {
  if (value === undefined) throw invalidArgument(call, `${title} is missing`, hint)
  if (typeof value !== 'object' || value === null)
    throw invalidArgument(call, `${title}: ${formatValue(value)} is not an object`, hint)
}

/**
 * Checks that `options` is an object, and that each property is known or undefined; `title` names the object in the
 * error. Throws RdmaError EINVAL.
 */
export const checkOptions = (call: string, title: string, options: object | undefined, known: object): void => {
  if (typeof options !== 'object' || options === null)
    checkRecord(call, title, options, `give an object with ${Object.keys(known).join(', ')}`)
  for (const name in options)
    if (!Object.hasOwn(known, name) && (options as Readonly<Record<string, unknown>>)[name] !== undefined)
      throw invalidArgument(call, `${title}: "${name}" is unknown`, `there are ${Object.keys(known).join(', ')}`)
}
