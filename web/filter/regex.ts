/*
 * Regular expressions of filters, matched in time proportional to text × pattern (Thompson's simulation of an NFA).
 * JavaScript's own RegExp backtracks: `(a+)+$` on 40 characters would hang the page.
 *
 * It has: literals, `.`, `[a-z]`, `[^…]`, `\d \w \s \D \W \S`, `^`, `$`, groups, `|`, `* + ?` and `{n,m}`. It has no
 * back-references and no look-around. Upper and lower case are equal, as in Wireshark's `matches`.
 */

/** Characters of a pattern at most. */
const MAX_PATTERN = 200
/** States at most: `{n,m}` copies what it repeats. */
const MAX_STATES = 2000

type CharTest = (char: string) => boolean
type State =
  | { readonly kind: 'char'; readonly test: CharTest }
  | { readonly kind: 'split'; a: number; b: number }
  | { readonly kind: 'start' | 'end' | 'match' }
type Node =
  | { readonly kind: 'char'; readonly test: CharTest }
  | { readonly kind: 'start' | 'end' }
  | { readonly kind: 'all' | 'any'; readonly parts: readonly Node[] }
  | { readonly kind: 'repeat'; readonly inner: Node; readonly min: number; readonly max: number }

const CLASSES: Readonly<Record<string, CharTest>> = {
  d: char => char >= '0' && char <= '9',
  w: char => /^[a-z0-9_]$/.test(char),
  s: char => /^\s$/.test(char),
}

const classOf = (letter: string): CharTest | undefined => {
  const test = CLASSES[letter.toLowerCase()]
  if (test === undefined || letter === letter.toLowerCase()) return test
  return char => !test(char)
}

const parse = (pattern: string): Node => {
  let at = 0
  const escaped = (): CharTest => {
    const letter = pattern[at++]
    if (letter === undefined) throw new SyntaxError('it ends in a backslash')
    const test = classOf(letter)
    if (test) return test
    if (/[a-z0-9]/i.test(letter)) throw new SyntaxError(`"\\${letter}" is not supported`)
    return char => char === letter
  }
  const bracket = (): Node => {
    const isNegated = pattern[at] === '^'
    if (isNegated) at++
    const tests: CharTest[] = []
    for (let isFirst = true; isFirst || pattern[at] !== ']'; isFirst = false) {
      const low = pattern[at++]
      if (low === undefined) throw new SyntaxError('a "]" is missing')
      if (low === '\\') tests.push(escaped())
      else if (pattern[at] === '-' && at + 1 < pattern.length && pattern[at + 1] !== ']') {
        const [from, to] = [low.toLowerCase(), pattern[at + 1]!.toLowerCase()]
        if (from > to) throw new SyntaxError(`the range "${low}-${pattern[at + 1]}" is empty`)
        at += 2
        tests.push(char => char >= from && char <= to)
      } else tests.push(char => char === low.toLowerCase())
    }
    at++
    return { kind: 'char', test: char => tests.some(test => test(char)) !== isNegated }
  }
  const atom = (): Node => {
    const char = pattern[at++]!
    if (char === '(') {
      if (pattern[at] === '?') {
        if (pattern[at + 1] !== ':') throw new SyntaxError('look-around and named groups are not supported')
        at += 2
      }
      const inner = any()
      if (pattern[at++] !== ')') throw new SyntaxError('a ")" is missing')
      return inner
    }
    if (char === '[') return bracket()
    if (char === '.') return { kind: 'char', test: () => true }
    if (char === '^') return { kind: 'start' }
    if (char === '$') return { kind: 'end' }
    if (char === '\\') return { kind: 'char', test: escaped() }
    if ('*+?'.includes(char)) throw new SyntaxError(`"${char}" has nothing before it to repeat`)
    const literal = char.toLowerCase()
    return { kind: 'char', test: other => other === literal }
  }
  const repeated = (): Node => {
    let node = atom()
    for (;;) {
      const counts = /^\{(\d{1,4})(?:(,)(\d{0,4}))?\}/.exec(pattern.slice(at, at + 12))
      const char = pattern[at]
      let [min, max] = [0, Number.POSITIVE_INFINITY]
      if (counts) {
        min = Number(counts[1])
        max = counts[2] === undefined ? min : counts[3] === '' ? max : Number(counts[3])
        if (max < min) throw new SyntaxError(`"${counts[0]}" is empty`)
        at += counts[0].length
      } else if (char === '*' || char === '+' || char === '?') {
        if (char === '+') min = 1
        if (char === '?') max = 1
        at++
      } else return node
      // A lazy repetition matches the same texts.
      if (pattern[at] === '?') at++
      node = { kind: 'repeat', inner: node, min, max }
    }
  }
  const all = (): Node => {
    const parts: Node[] = []
    while (at < pattern.length && pattern[at] !== '|' && pattern[at] !== ')') parts.push(repeated())
    return { kind: 'all', parts }
  }
  const any = (): Node => {
    const parts = [all()]
    while (pattern[at] === '|') {
      at++
      parts.push(all())
    }
    return { kind: 'any', parts }
  }
  const node = any()
  if (at < pattern.length) throw new SyntaxError('a "(" is missing')
  return node
}

const compile = (root: Node): State[] => {
  const states: State[] = []
  const push = <S extends State>(state: S): S => {
    if (states.length >= MAX_STATES) throw new SyntaxError(`its repetitions need more than ${MAX_STATES} states`)
    states.push(state)
    return state
  }
  const jump = () => push({ kind: 'split' as const, a: 0, b: -1 })
  // Nested repetitions of nothing make no states: their copies need a bound, too.
  let steps = 0
  const emit = (node: Node): void => {
    if (++steps > 10 * MAX_STATES) throw new SyntaxError(`its repetitions need more than ${MAX_STATES} states`)
    switch (node.kind) {
      case 'all':
        for (const part of node.parts) emit(part)
        return
      case 'any': {
        const ends: { a: number }[] = []
        for (const [i, part] of node.parts.entries()) {
          const isLast = i === node.parts.length - 1
          const split = isLast ? undefined : jump()
          if (split) split.a = states.length
          emit(part)
          if (!isLast) ends.push(jump())
          if (split) split.b = states.length
        }
        for (const end of ends) end.a = states.length
        return
      }
      case 'repeat': {
        for (let i = 0; i < node.min; i++) emit(node.inner)
        if (node.max === Number.POSITIVE_INFINITY) {
          const at = states.length
          const split = jump()
          split.a = states.length
          emit(node.inner)
          jump().a = at
          split.b = states.length
          return
        }
        for (let i = node.min; i < node.max; i++) {
          const split = jump()
          split.a = states.length
          emit(node.inner)
          split.b = states.length
        }
        return
      }
      default:
        push(node)
    }
  }
  emit(root)
  push({ kind: 'match' })
  return states
}

/**
 * Compiles a regular expression; the result tells whether a text has a match anywhere.
 * Throws a SyntaxError with a sentence if the pattern is not valid or longer than `MAX_PATTERN` characters.
 */
export const compileRegex = (pattern: string): ((text: string) => boolean) => {
  if (pattern.length > MAX_PATTERN)
    throw new SyntaxError(`it has ${pattern.length} characters, and ${MAX_PATTERN} are allowed`)
  const states = compile(parse(pattern))
  const seen = new Int32Array(states.length)
  let mark = 0
  return text => {
    const lower = text.toLowerCase()
    let current: number[] = []
    for (let i = 0; i <= lower.length; i++) {
      // A match may start at each character.
      const pending = [0, ...current.reverse()]
      const following: number[] = []
      mark = (mark + 1) | 0
      while (pending.length > 0) {
        const at = pending.pop()!
        if (at < 0 || seen[at] === mark) continue
        seen[at] = mark
        const state = states[at]!
        if (state.kind === 'match') return true
        if (state.kind === 'split') pending.push(state.b, state.a)
        else if (state.kind === 'char') {
          if (i < lower.length && state.test(lower[i]!)) following.push(at + 1)
        } else if (state.kind === 'start' ? i === 0 : i === lower.length) pending.push(at + 1)
      }
      current = following
    }
    return false
  }
}
