/*
 * The frames of a symbol as JSON of others: of a file, or of a tool.
 */
import type { SymbolFrame } from '../../spec/session-events.ts'

/** Characters of a name. */
export const MAX_TEXT = 4096
/** Functions that were inlined at one address, at most. */
const MAX_INLINED = 64
/** Lines of source of a frame, and characters of a line, at most. */
const MAX_LINES = 15
export const MAX_SOURCE_LINE = 200

const isText = (value: unknown, longest = MAX_TEXT): value is string =>
  typeof value === 'string' && value.length <= longest
const isLine = (value: unknown): value is number => Number.isInteger(value) && (value as number) >>> 0 === value

const isSource = (value: unknown): value is NonNullable<SymbolFrame['source']> => {
  const { first, lines } = (value ?? {}) as Partial<Record<string, unknown>>
  return (
    isLine(first) &&
    Array.isArray(lines) &&
    lines.length <= MAX_LINES &&
    lines.every(line => isText(line, MAX_SOURCE_LINE))
  )
}

const isFrame = (value: unknown): value is SymbolFrame => {
  const { function: name, file, line, object, source } = (value ?? {}) as Partial<Record<string, unknown>>
  return (
    isText(name) &&
    (file === undefined ? line === undefined : isText(file) && isLine(line)) &&
    (object === undefined || isText(object)) &&
    (source === undefined || isSource(source))
  )
}

/** `value` without other properties; undefined: it is no list of frames. */
export const symbolFrames = (value: unknown): readonly SymbolFrame[] | undefined =>
  Array.isArray(value) && value.length <= MAX_INLINED && value.every(isFrame)
    ? value.map(({ function: name, file, line, object, source }) => ({
        function: name,
        ...(file !== undefined && { file, line }),
        ...(object !== undefined && { object }),
        ...(source !== undefined && { source: { first: source.first, lines: source.lines } }),
      }))
    : undefined
