/*
 * Differences of JSON values as merge patches (RFC 7386): an object has the changed fields, null removes a field, and
 * any other value replaces.
 */

const isObject = (value: unknown): value is { readonly [name: string]: unknown } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const fieldsOf = (value: unknown): ReadonlyMap<string, unknown> | undefined => {
  if (value instanceof Map) return value
  return isObject(value) ? new Map(Object.entries(value)) : undefined
}

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

/** Depth to which `patchPieces` cuts a patch: the fields of a state, and those of each field. */
const CUT_DEPTH = 2

/**
 * The JSON text of `mergePatch(before, after)` in pieces, so that a long one need not be made at once; no text if they
 * are equal. A piece may be empty. A Map is an object of its entries. `before`: undefined: the text is that of `after`.
 */
export function* patchPieces(before: unknown, after: unknown, depth = CUT_DEPTH): Generator<string> {
  const [fields, fieldsBefore] = depth === 0 ? [] : [fieldsOf(after), fieldsOf(before)]
  if (fields === undefined || (before !== undefined && fieldsBefore === undefined)) {
    yield JSON.stringify(before === undefined ? after : mergePatch(before, after)) ?? ''
    return
  }
  let separator = '{'
  for (const [name, value] of fields.entries()) {
    let head = `${separator}${JSON.stringify(name)}:`
    for (const piece of patchPieces(fieldsBefore?.get(name), value, depth - 1)) {
      yield piece === '' ? '' : head + piece
      if (piece === '') continue
      head = ''
      separator = ','
    }
  }
  for (const name of fieldsBefore?.keys() ?? []) {
    if (fields.has(name)) continue
    yield `${separator}${JSON.stringify(name)}:null`
    separator = ','
  }
  if (separator === ',') yield '}'
  else if (before === undefined) yield '{}'
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
