/*
 * Finds ranges of C text that mutations edit: statements, calls with their arguments, values of fields. The search
 * knows parentheses, comments and strings, which is enough for the mutated programs; it does not parse C.
 */

/** The characters from `from` up to, but not including, `to`. */
export interface Range {
  readonly from: number
  readonly to: number
}

/** Replaces the text of a range. */
export interface Edit extends Range {
  readonly text: string
}

interface Call extends Range {
  readonly args: readonly Range[]
}

const blank = (text: string): string => text.replace(/[^\n]/g, ' ')

/** Offset after the bracket that closes the bracket at `open`; the end of the text if there is none. */
const closing = (text: string, open: number): number => {
  let depth = 0
  for (let offset = open; offset < text.length; offset++) {
    if ('([{'.includes(text[offset]!)) depth++
    else if (')]}'.includes(text[offset]!) && --depth === 0) return offset + 1
  }
  return text.length
}

/** From `from` on, the offset of the first character of `ends` outside brackets, or of an unmatched closing bracket. */
const untilOneOf = (text: string, from: number, ends: string): number => {
  let offset = from
  while (offset < text.length && !ends.includes(text[offset]!) && !')]}'.includes(text[offset]!))
    offset = '([{'.includes(text[offset]!) ? closing(text, offset) : offset + 1
  return offset
}

const trimmed = (text: string, { from, to }: Range): Range => {
  const part = text.slice(from, to)
  return { from: from + part.length - part.trimStart().length, to: to - (part.length - part.trimEnd().length) }
}

/**
 * The text with comments, strings, and first arguments of FAULT_OR replaced by blanks, so that offsets stay the same.
 * With -DFIXED the first argument of FAULT_OR is not compiled (docs/findings).
 */
export const searchable = (text: string): string => {
  const bare = text
    .replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, blank)
    .replace(/"(?:[^"\\\n]|\\.)*"/g, found => `"${blank(found.slice(1, -1))}"`)
  let result = bare
  for (const match of bare.matchAll(/\bFAULT_OR\(/g)) {
    const from = match.index + match[0].length
    const to = untilOneOf(bare, from, ',')
    result = result.slice(0, from) + blank(result.slice(from, to)) + result.slice(to)
  }
  return result
}

/** Calls of functions whose names match the pattern `names`, and definitions and declarations, which look the same. */
export const callsOf = (text: string, names: string): Call[] =>
  [...text.matchAll(new RegExp(`(?<![\\w.>])(?:${names})\\(`, 'g'))].map(match => {
    const open = match.index + match[0].length - 1
    const to = closing(text, open)
    const args: Range[] = []
    for (let start = open + 1; start < to - 1; ) {
      const end = untilOneOf(text, start, ',')
      args.push(trimmed(text, { from: start, to: end }))
      start = end + 1
    }
    return { from: match.index, to, args }
  })

/**
 * Statements that consist of a call of a function whose name matches `names`, perhaps with a check or assignment of its
 * result: from the first word to the semicolon.
 */
export const statementsWith = (text: string, names: string): Range[] => {
  const found = new Map<number, Range>()
  for (const call of callsOf(text, names)) {
    const afterPrevious = Math.max(...[';', '{', '}'].map(end => text.lastIndexOf(end, call.from))) + 1
    // Below a condition, the statement begins in a line of its own.
    for (const begin of [afterPrevious, text.lastIndexOf('\n', call.from) + 1]) {
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

/** The values V of a field: in initializers (`.field = V`) and assignments (`x.field = V;`). */
export const valuesOf = (text: string, field: string): Range[] =>
  [...text.matchAll(new RegExp(`(?:\\.|->)${field} = `, 'g'))].map(match => {
    const from = match.index + match[0].length
    return trimmed(text, { from, to: untilOneOf(text, from, ',;') })
  })

/** Fields with their values: `.field = V` and the comma in an initializer, or the whole assignment. */
export const fieldsOf = (text: string, field: string): Range[] =>
  valuesOf(text, field).map(({ from, to }) => {
    const begin = text.slice(0, from).search(/[\w.>[\]()-]+ = $/)
    const end = [',', ';'].includes(text[to]!) ? to + 1 : to
    return { from: begin, to: end }
  })

/** Ranges of the first group of a pattern, or of the whole match if the pattern has no group. */
export const matchesOf = (text: string, pattern: RegExp): Range[] =>
  [...text.matchAll(new RegExp(pattern.source, 'gd'))].map(match => {
    const [from, to] = match.indices![1] ?? match.indices![0]!
    return { from, to }
  })

/** Line numbers from 1; `last` is included. */
export interface LineRange {
  readonly first: number
  readonly last: number
}

/** The lines of the mutated text that an edit of `text` changes. */
export const linesOfEdit = (text: string, { from, text: inserted }: Edit): LineRange => {
  const first = text.slice(0, from).split('\n').length
  return { first, last: first + inserted.split('\n').length - 1 }
}

export const applyEdit = (text: string, { from, to, text: inserted }: Edit): string =>
  text.slice(0, from) + inserted + text.slice(to)
