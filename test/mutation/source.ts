/*
 * Places in C text where a mistake can be put: statements, calls with their arguments, values of fields. It knows
 * parentheses, comments and strings, which is enough for our own programs; it does not parse C.
 */

/** Part of a text: [from, to). */
export interface Range {
  readonly from: number
  readonly to: number
}

/** Replaces the text of a range. */
export interface Edit extends Range {
  readonly text: string
}

export interface Call extends Range {
  readonly args: readonly Range[]
}

const blank = (text: string): string => text.replace(/[^\n]/g, ' ')

/** Offset after the bracket that closes the one at `open`. */
const closing = (text: string, open: number): number => {
  let depth = 0
  for (let at = open; at < text.length; at++) {
    if ('([{'.includes(text[at]!)) depth++
    else if (')]}'.includes(text[at]!) && --depth === 0) return at + 1
  }
  return text.length
}

/** Offset of the first of `ends` outside of brackets, or of the bracket that closes the one around `from`. */
const untilOneOf = (text: string, from: number, ends: string): number => {
  let at = from
  while (at < text.length && !ends.includes(text[at]!) && !')]}'.includes(text[at]!))
    at = '([{'.includes(text[at]!) ? closing(text, at) : at + 1
  return at
}

const trimmed = (text: string, { from, to }: Range): Range => {
  const part = text.slice(from, to)
  return { from: from + part.length - part.trimStart().length, to: to - (part.length - part.trimEnd().length) }
}

/**
 * The text for searches, of the same length: without comments, strings, and the first argument of FAULT_OR, which is
 * not compiled (docs/findings).
 */
export const searchable = (text: string): string => {
  const bare = text
    .replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, blank)
    .replace(/"(?:[^"\\\n]|\\.)*"/g, found => `"${blank(found.slice(2))}"`)
  let out = bare
  for (const match of bare.matchAll(/\bFAULT_OR\(/g)) {
    const from = match.index + match[0].length
    const to = untilOneOf(bare, from, ',')
    out = out.slice(0, from) + blank(out.slice(from, to)) + out.slice(to)
  }
  return out
}

/** Calls of functions whose names match; definitions and declarations look the same, and are included. */
export const callsOf = (text: string, names: string): Call[] =>
  [...text.matchAll(new RegExp(`(?<![\\w.>])(?:${names})\\(`, 'g'))].map(match => {
    const open = match.index + match[0].length - 1
    const to = closing(text, open)
    const args: Range[] = []
    for (let at = open + 1; at < to - 1; ) {
      const end = untilOneOf(text, at, ',')
      args.push(trimmed(text, { from: at, to: end }))
      at = end + 1
    }
    return { from: match.index, to, args }
  })

/** Statements that call such a function, and at most check or assign its result: from the first word to the semicolon. */
export const statementsWith = (text: string, names: string): Range[] => {
  const found = new Map<number, Range>()
  for (const call of callsOf(text, names)) {
    const behind = Math.max(...[';', '{', '}'].map(end => text.lastIndexOf(end, call.from))) + 1
    // Below a condition, the statement begins in a line of its own.
    for (const begin of [behind, text.lastIndexOf('\n', call.from) + 1]) {
      const { from } = trimmed(text, { from: begin, to: call.from + 1 })
      const end = untilOneOf(text, from, ';')
      if (text[end] !== ';' || !/^(?:(?:check|NEED)\([\s\S]*|[\w.>[\]-]+ = )?$/.test(text.slice(from, call.from)))
        continue
      found.set(from, { from, to: end + 1 })
      break
    }
  }
  return [...found.values()]
}

/** Values that are given to fields: `.field = V` in an initialiser, and `x.field = V;`. */
export const valuesOf = (text: string, field: string): Range[] =>
  [...text.matchAll(new RegExp(`(?:\\.|->)${field} = `, 'g'))].map(match => {
    const from = match.index + match[0].length
    return trimmed(text, { from, to: untilOneOf(text, from, ',;') })
  })

/** An initialiser's `.field = V` with its comma, or a statement. */
export const fieldsOf = (text: string, field: string): Range[] =>
  valuesOf(text, field).map(({ from, to }) => {
    const begin = text.slice(0, from).search(/(?<![\w)\]])\.[\w.]+ = $|[\w.>[\]()-]+ = $/)
    const end = [',', ';'].includes(text[to]!) ? to + 1 : to
    return { from: begin, to: end }
  })

/** Matches of the first group of a pattern, or of the whole pattern if it has no group. */
export const matchesOf = (text: string, pattern: RegExp): Range[] =>
  [...text.matchAll(new RegExp(pattern.source, 'gd'))].map(match => {
    const [from, to] = match.indices![1] ?? match.indices![0]!
    return { from, to }
  })

export const lineAt = (text: string, at: number): number => text.slice(0, at).split('\n').length

export const applyEdit = (text: string, { from, to, text: inserted }: Edit): string =>
  text.slice(0, from) + inserted + text.slice(to)
