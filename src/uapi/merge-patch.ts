/*
 * Differences of JSON values as merge patches (RFC 7386): an object has the changed fields, null removes a field, and
 * any other value replaces.
 */

const isObject = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** The patch from `before` to `after`; undefined if they are equal. */
export const mergePatch = (before: unknown, after: unknown): unknown => {
  if (!isObject(before) || !isObject(after)) return JSON.stringify(before) === JSON.stringify(after) ? undefined : after
  const changed: [string, unknown][] = []
  for (const [name, value] of Object.entries(after)) {
    const patch = Object.hasOwn(before, name) ? mergePatch(before[name], value) : value
    if (patch !== undefined) changed.push([name, patch])
  }
  for (const name of Object.keys(before)) if (!Object.hasOwn(after, name)) changed.push([name, null])
  return changed.length === 0 ? undefined : Object.fromEntries(changed)
}

/** `value` after a patch. `value` stays as it is. */
export const applyPatch = (value: unknown, patch: unknown): unknown => {
  if (!isObject(patch)) return patch
  const fields = new Map(isObject(value) ? Object.entries(value) : [])
  for (const [name, change] of Object.entries(patch))
    if (change === null) fields.delete(name)
    else fields.set(name, applyPatch(fields.get(name), change))
  return Object.fromEntries(fields)
}
