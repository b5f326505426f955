/*
 * Filters in the syntax of Wireshark's display filters, as far as a session needs it:
 *
 *   infiniband.bth.psn >= 0x10 && !(userdma.kind == posted)
 *   userdma.retransmission || userdma.outcome == dropped
 *   "wr_id 7"                     the row's text has this
 *
 * A field alone is true if the row has it and it is not 0. Grammar: or := and ("||" and)*; and := not ("&&" not)*;
 * not := "!" not | "(" or ")" | TEXT | FIELD [operator value].
 */

export type FieldValue = string | number | bigint | boolean

/** What a filter is asked about. */
export interface Filtered {
  /** The text that is searched. */
  readonly text: string
  /** Undefined: it has no such field. */
  field(name: string): FieldValue | undefined
}

export type Filter = (row: Filtered) => boolean

/** A sentence for people: what is wrong with the filter. */
export class FilterError extends Error {}

const TOKENS =
  /\s*(?:(&&|\|\||==|!=|<=|>=|<|>|!|\(|\)|\b(?:and|or|not|eq|ne|lt|gt|le|ge|contains)\b)|"([^"]*)"|([^\s"()!<>=&|]+))/gy

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

const COMPARISONS = ['==', '!=', '<', '>', '<=', '>=', 'contains']

const numberIn = (text: string): bigint | number | undefined => {
  if (/^0x[0-9a-f]+$/i.test(text) || /^\d+$/.test(text)) return BigInt(text)
  return /^\d*\.\d+$/.test(text) ? Number(text) : undefined
}

const compare = (operator: string, value: FieldValue, wanted: string): boolean => {
  if (operator === 'contains') return String(value).toLowerCase().includes(wanted.toLowerCase())
  const number = numberIn(wanted)
  const isText = typeof value === 'string' || number === undefined
  const a = isText ? String(value).toLowerCase() : Number(value)
  const b = isText ? wanted.toLowerCase() : Number(number)
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

const isTrue = (value: FieldValue | undefined): boolean =>
  value !== undefined && value !== false && value !== 0 && value !== 0n && value !== ''

/** Compiles a filter; an empty one accepts everything. Throws a FilterError. */
export const compileFilter = (source: string, isField: (name: string) => boolean): Filter => {
  const tokens = tokensOf(source)
  let at = 0
  const next = (): Token | undefined => tokens[at]
  const isNext = (text: string): boolean => next()?.kind === 'operator' && next()?.text === text

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
      const wanted = next()
      if (wanted === undefined || wanted.kind === 'operator')
        throw new FilterError(`"${name} ${operator.text}" needs a value after it`)
      at++
      return row => {
        const value = row.field(name)
        return value !== undefined && compare(operator.text, value, wanted.text)
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
