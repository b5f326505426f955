/*
 * Filters in the syntax of Wireshark's display filters, as far as a session needs it:
 *
 *   infiniband.bth.psn >= 0x10 && !(userdma.kind == posted)
 *   userdma.retransmission || userdma.outcome == dropped
 *   infiniband.bth.opcode in {4, 0x0a..0x0b}
 *   userdma.kind matches "^(post|comp)"
 *   "wr_id 7"                     the row's text has this
 *
 * A field alone is true if the row has it and it is not 0. Grammar: or := and ("||" and)*; and := not ("&&" not)*;
 * not := "!" not | "(" or ")" | TEXT | FIELD [operator value] | FIELD "in" "{" value [".." value] … "}".
 */
import { compileRegex } from './regex.ts'

export type FieldValue = string | number | bigint | boolean

/** What a filter is asked about. */
export interface Filtered {
  /** The text that is searched. */
  readonly text: string
  /** Undefined: it has no such field. */
  field(name: string): FieldValue | undefined
}

/** Names of the values of a field: opcodes have them. */
export interface ValueNames {
  /** The number of a name; undefined: the field's values have no names. Throws a FilterError for an unknown name. */
  numberOf(field: string, name: string): number | undefined
  nameOf(field: string, value: FieldValue): string | undefined
}

export type Filter = (row: Filtered) => boolean

/** A sentence for people: what is wrong with the filter. */
export class FilterError extends Error {}

const TOKENS =
  /\s*(?:(&&|\|\||==|!=|<=|>=|<|>|!|\(|\)|\b(?:and|or|not|eq|ne|lt|gt|le|ge|contains|matches|in)\b|[{},])|"([^"]*)"|([^\s"(){},!<>=&|]+))/gy

interface Token {
  readonly kind: 'operator' | 'text' | 'word'
  readonly text: string
}

const SYNONYMS: Readonly<Record<string, string>> = {
  and: '&&',
  or: '||',
  not: '!',
  eq: '==',
  ne: '!=',
  lt: '<',
  gt: '>',
  le: '<=',
  ge: '>=',
}

const tokensOf = (source: string): Token[] => {
  const tokens: Token[] = []
  TOKENS.lastIndex = 0
  const text = source.trimEnd()
  while (TOKENS.lastIndex < text.length) {
    const at = TOKENS.lastIndex
    const match = TOKENS.exec(text)
    if (match === null) throw new FilterError(`"${text.slice(at).trim()}" is not understood`)
    const [, operator, quoted, word] = match
    if (operator !== undefined) tokens.push({ kind: 'operator', text: SYNONYMS[operator] ?? operator })
    else if (quoted !== undefined) tokens.push({ kind: 'text', text: quoted })
    else tokens.push({ kind: 'word', text: word! })
  }
  return tokens
}

const COMPARISONS = ['==', '!=', '<', '>', '<=', '>=', 'contains', 'matches', 'in']

const numberIn = (text: string): bigint | number | undefined => {
  if (/^0x[0-9a-f]+$/i.test(text) || /^\d+$/.test(text)) return BigInt(text)
  return /^\d*\.\d+$/.test(text) ? Number(text) : undefined
}

type Test = (value: FieldValue) => boolean

/** Whether a value is in `operator`'s relation to `wanted`. */
const comparison = (operator: string, wanted: string): Test => {
  const text = wanted.toLowerCase()
  if (operator === 'contains') return value => String(value).toLowerCase().includes(text)
  const number = numberIn(wanted)
  const rounded = Number(number)
  return value => {
    const isText = typeof value === 'string' || number === undefined
    const a = isText ? String(value).toLowerCase() : Number(value)
    const b = isText ? text : rounded
    // Values of 64 bits are not exact as Numbers.
    const isEqual = typeof value === 'bigint' && typeof number === 'bigint' ? value === number : a === b
    switch (operator) {
      case '==':
        return isEqual
      case '!=':
        return !isEqual
      case '<':
        return a < b
      case '>':
        return a > b
      case '<=':
        return isEqual || a < b
      default:
        return isEqual || a > b
    }
  }
}

const regexOf = (pattern: string): ((text: string) => boolean) => {
  try {
    return compileRegex(pattern)
  } catch (error) {
    if (error instanceof SyntaxError) throw new FilterError(`the pattern "${pattern}" is not valid: ${error.message}`)
    throw error
  }
}

const isTrue = (value: FieldValue | undefined): boolean =>
  value !== undefined && value !== false && value !== 0 && value !== 0n && value !== ''

/** Compiles a filter; an empty one accepts everything. Throws a FilterError. */
export const compileFilter = (source: string, isField: (name: string) => boolean, names?: ValueNames): Filter => {
  const tokens = tokensOf(source)
  let at = 0
  const next = (): Token | undefined => tokens[at]
  const isNext = (text: string): boolean => next()?.kind === 'operator' && next()?.text === text

  const numbered = (field: string, text: string): string =>
    numberIn(text) === undefined ? String(names?.numberOf(field, text) ?? text) : text

  /** The set after `in`. */
  const members = (name: string): Test => {
    if (!isNext('{')) throw new FilterError(`"${name} in" needs a set after it: {1, 2, 5..9}`)
    at++
    const tests: Test[] = []
    while (!isNext('}')) {
      const token = next()
      if (token === undefined) throw new FilterError(`a "}" is missing after "${name} in {"`)
      at++
      if (token.kind === 'operator') throw new FilterError(`"${token.text}" is no value of the set after "${name} in"`)
      const [low, high, ...rest] = token.kind === 'word' ? token.text.split('..') : [token.text]
      if (low === '' || high === '' || rest.length > 0)
        throw new FilterError(`"${token.text}" is no range: both ends are needed, as in 5..9`)
      const from = numbered(name, low!)
      const to = high === undefined ? undefined : numbered(name, high)
      if (to === undefined) tests.push(comparison('==', from))
      else {
        const [isFrom, isTo] = [comparison('>=', from), comparison('<=', to)]
        tests.push(value => isFrom(value) && isTo(value))
      }
      if (isNext(',')) at++
    }
    at++
    if (tests.length === 0) throw new FilterError(`the set after "${name} in" is empty`)
    return value => tests.some(test => test(value))
  }

  const either = (): Filter => {
    let filter = both()
    while (isNext('||')) {
      at++
      const [a, b] = [filter, both()]
      filter = row => a(row) || b(row)
    }
    return filter
  }
  const both = (): Filter => {
    let filter = single()
    while (isNext('&&')) {
      at++
      const [a, b] = [filter, single()]
      filter = row => a(row) && b(row)
    }
    return filter
  }
  const single = (): Filter => {
    const token = next()
    if (token === undefined) throw new FilterError('the filter ends too early')
    at++
    if (token.kind === 'operator') {
      if (token.text === '!') {
        const inner = single()
        return row => !inner(row)
      }
      if (token.text !== '(') throw new FilterError(`"${token.text}" needs a field before it`)
      const inner = either()
      if (!isNext(')')) throw new FilterError('a ")" is missing')
      at++
      return inner
    }
    const operator = next()
    const isComparison = operator?.kind === 'operator' && COMPARISONS.includes(operator.text)
    if (token.kind === 'word' && (isComparison || isField(token.text))) {
      const name = token.text
      if (!isField(name)) throw new FilterError(`there is no field "${name}"`)
      if (!isComparison) return row => isTrue(row.field(name))
      at++
      if (operator.text === 'in') {
        const isMember = members(name)
        return row => {
          const value = row.field(name)
          return value !== undefined && isMember(value)
        }
      }
      const wanted = next()
      if (wanted === undefined || wanted.kind === 'operator')
        throw new FilterError(`"${name} ${operator.text}" needs a value after it`)
      at++
      if (operator.text === 'matches') {
        const matches = regexOf(wanted.text)
        return row => {
          const value = row.field(name)
          return value !== undefined && matches(names?.nameOf(name, value) ?? String(value))
        }
      }
      const isContained = operator.text === 'contains'
      const isRelated = comparison(operator.text, isContained ? wanted.text : numbered(name, wanted.text))
      return row => {
        const value = row.field(name)
        return value !== undefined && isRelated((isContained ? names?.nameOf(name, value) : undefined) ?? value)
      }
    }
    const text = token.text.toLowerCase()
    return row => row.text.toLowerCase().includes(text)
  }

  if (tokens.length === 0) return () => true
  const filter = either()
  if (at < tokens.length) throw new FilterError(`"${tokens[at]!.text}" needs && or || before it`)
  return filter
}
