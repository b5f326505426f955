/*
 * Reasons: why a call was refused, as data. Core and drivers write a sentence with `because`, whose arguments are
 * values and nouns: names of the object model, for which each audience has its own words. Code that decides upon a
 * reason reads its code, arguments and nouns, never its text (docs/decisions/reasons.md).
 */

/** What code decides upon. Other reasons have no code: their template tells them apart. */
export type ReasonCode =
  /** A fault rule refused the call: no mistake of the program. */
  | 'injected'
  /** The value is above a limit that no query returns. Programs find the limit by trying: the call is no mistake. */
  | 'unknown-limit'
  /** The process may not lock more memory (RLIMIT_MEMLOCK). */
  | 'lock-limit'
  /** A limit that objects have in common is used up, or the caller's share of it. */
  | 'budget'
  /** Arguments: the port. */
  | 'port-in-use'
  /** The state of the connection does not allow the call: the peer may have ended it. */
  | 'connection-state'
  /** Arguments: what is used, by how many. */
  | 'in-use'
  /** The context is closed, or its device removed. */
  | 'gone'
  /** Arguments: the value; the enumeration. */
  | 'not-in-enum'
  | 'out-of-range'
  | 'above-device-limit'
  | 'unknown-bits'
  | 'needs-local-write'
  | 'no-such-vector'
  | 'not-global'
  | 'gid-empty'
  | 'gid-families'
  | 'gid-roce-v1'
  | 'no-transition'
  | 'attributes-missing'
  | 'attributes-not-taken'
  | 'wrong-class'

/** Words of an audience, by kind of noun. */
export interface Words {
  /** `class.method`. `linuxName`: Linux's name of the call, if that was made. */
  method(name: string, linuxName?: string): string
  /** The attribute that is wrong, with the field of a record: `cap.maxSendWr`. */
  attribute(path: string): string
  /** A field of an address, which is wrong: `sgidIndex`. */
  addressField(name: string): string
  /** Another mention of an attribute. */
  member(path: string): string
  /** Attributes of `qp.modify`. */
  attributes(...names: string[]): string
  /** The mask of the attributes of `qp.modify`. */
  mask(): string
  /** A value of an enumeration. */
  constant(enumeration: string, name: string): string
  enumeration(name: string): string
}
type NounKind = keyof Words

/** A name of the object model in a reason. As text: the object model's words. */
export class Noun<K extends NounKind = NounKind> {
  readonly kind: K
  readonly names: Parameters<Words[K]>
  constructor(kind: K, names: Parameters<Words[K]>) {
    this.kind = kind
    this.names = names
  }
  in(words: Words): string {
    return (words[this.kind] as (...names: readonly (string | undefined)[]) => string)(...this.names)
  }
  toString(): string {
    return this.in(modelWords)
  }
}

/** The object model's words. */
export const modelWords: Words = {
  method: (name, linuxName) => (linuxName === undefined ? name : `${name} (${linuxName})`),
  attribute: path => `attribute ${path}`,
  addressField: name => `attribute address: ${name}`,
  member: path => path,
  attributes: (...names) => names.join(', '),
  mask: () => 'attribute mask',
  constant: (_, name) => name,
  enumeration: name => name,
}

const noun =
  <K extends NounKind>(kind: K) =>
  (...names: Parameters<Words[K]>): Noun<K> =>
    new Noun(kind, names)

/** The nouns: `the.attribute('cqe')`. */
export const the: { readonly [K in NounKind]: (...names: Parameters<Words[K]>) => Noun<K> } = {
  method: noun('method'),
  attribute: noun('attribute'),
  addressField: noun('addressField'),
  member: noun('member'),
  attributes: noun('attributes'),
  mask: noun('mask'),
  constant: noun('constant'),
  enumeration: noun('enumeration'),
}

/** An argument of a reason. A reason within another is a part of its sentence. */
type Argument = string | number | bigint | undefined | Noun | Reason

/**
 * A reason in JSON: a text alone, or with code or nouns an array. An argument is a value, a noun as an object of its
 * kind, or a reason as an array.
 */
export type ReasonData =
  | string
  | readonly [code: ReasonCode | null, template: readonly string[], ...arguments: unknown[]]

/** Between the method at the start of a reason and the rest. */
const SEPARATOR = ': '

export class Reason {
  readonly #code: ReasonCode | undefined
  /** The constant parts of the sentence, between its arguments. */
  readonly template: readonly string[]
  readonly arguments: readonly Argument[]

  constructor(code: ReasonCode | undefined, template: readonly string[], args: readonly Argument[]) {
    this.#code = code
    this.template = template
    this.arguments = args
  }

  /** The reason with the code: itself, or a part of it. */
  get coded(): Reason | undefined {
    if (this.#code !== undefined) return this
    for (const argument of this.arguments) {
      if (argument instanceof Reason && argument.coded !== undefined) return argument.coded
    }
    return undefined
  }
  get code(): ReasonCode | undefined {
    const { coded } = this
    return coded === undefined ? undefined : coded.#code
  }

  /** Its texts and nouns in order, those of parts too. Never two texts in a row. */
  #parts(found: (string | Noun)[] = []): (string | Noun)[] {
    const add = (text: string): void => {
      const last = found.at(-1)
      if (typeof last === 'string') found[found.length - 1] = last + text
      else if (text !== '') found.push(text)
    }
    for (const [i, text] of this.template.entries()) {
      add(text)
      const argument = this.arguments[i]
      if (argument instanceof Reason) argument.#parts(found)
      else if (argument instanceof Noun) found.push(argument)
      else if (i < this.arguments.length) add(String(argument))
    }
    return found
  }

  get nouns(): readonly Noun[] {
    return this.#parts().filter(part => part instanceof Noun)
  }

  /** The nouns at its start: the method that was called, and the attribute that is wrong. */
  get subject(): { readonly method?: string; readonly attribute?: string } {
    const [first, second, third] = this.#parts()
    const isCall = first instanceof Noun && first.kind === 'method'
    const about = isCall ? (second === SEPARATOR ? third : undefined) : first
    const [path] = about instanceof Noun && about.kind === 'attribute' ? about.names : []
    const attribute = about instanceof Noun && about.kind === 'addressField' ? 'address' : path
    return { ...(isCall && { method: first.names[0]! }), ...(attribute !== undefined && { attribute }) }
  }

  /** The reason with another method at its start, which has one. */
  withMethod(name: string): Reason {
    const [first, ...others] = this.arguments
    const changed = first instanceof Reason ? first.withMethod(name) : the.method(name)
    return new Reason(this.#code, this.template, [changed, ...others])
  }

  /** `without`: the method that is left out at the start. */
  text(words: Words = modelWords, without?: string): string {
    const parts = this.#parts()
    const [first, second, ...others] = parts
    const isLeftOut = first instanceof Noun && first.kind === 'method' && first.names[0] === without
    const hasSeparator = typeof second === 'string' && second.startsWith(SEPARATOR)
    const rest = isLeftOut && hasSeparator ? [second.slice(SEPARATOR.length), ...others] : parts
    return rest.map(part => (typeof part === 'string' ? part : part.in(words))).join('')
  }
  toString(): string {
    return this.text()
  }

  /** With other texts: of its template, and of its arguments that are text. */
  withTexts(change: (text: string) => string): Reason {
    const args = this.arguments.map(argument => {
      if (argument instanceof Reason) return argument.withTexts(change)
      return typeof argument === 'string' ? change(argument) : argument
    })
    return new Reason(this.#code, this.template.map(change), args)
  }

  toJSON(): ReasonData {
    if (this.code === undefined && this.nouns.length === 0) return this.text()
    return [
      this.#code ?? null,
      this.template,
      ...this.arguments.map(argument => {
        if (argument instanceof Noun) return { [argument.kind]: argument.names }
        if (argument instanceof Reason) return argument.toJSON()
        return typeof argument === 'bigint' || argument === undefined ? String(argument) : argument
      }),
    ]
  }
}

/** What begins a sentence. */
export type Place = string | Noun | Reason

/** A tag of templates. */
export type Tag<T> = (template: readonly string[], ...args: Argument[]) => T

/** A reason with a code: `` coded('port-in-use')`port ${port} is in use` ``. */
export const coded =
  (code: ReasonCode): Tag<Reason> =>
  (template, ...args) =>
    new Reason(code, template, args)

/** A reason: `` because`${the.attribute('cqe')}: ${cqe} is above ${max}` ``. */
export const because: Tag<Reason> = (template, ...args) => new Reason(undefined, template, args)

/** Arguments with commas between. */
export const listOf = (items: readonly Argument[]): Reason =>
  new Reason(undefined, items.map((_, i) => (i === 0 ? '' : ', ')).concat(''), items)

/** `place` with the path of a field in it: behind its attribute, if it ends with one. */
export const fieldOf = (place: Place, path: string): Place => {
  if (path === '') return place
  if (place instanceof Noun && place.kind === 'attribute') return the.attribute(`${place.names[0]}${path}`)
  if (!(place instanceof Reason) || place.template.at(-1) !== '') return because`${place}${path}`
  const last = fieldOf(place.arguments.at(-1) as Place, path)
  return new Reason(place.code, place.template, [...place.arguments.slice(0, -1), last])
}

/** The reason for a number out of the range of an attribute. */
export const outOfRange = (method: string, attribute: string, value: number, min: number, max: number): Reason =>
  coded('out-of-range')`${the.method(method)}: ${the.attribute(attribute)}: ${value} is not in ${min} to ${max}`

/** A text as a reason without arguments. */
export const asReason = (reason: Reason | string): Reason =>
  reason instanceof Reason ? reason : new Reason(undefined, [reason], [])

const isTexts = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every(text => typeof text === 'string')

/** Reasons within reasons. */
const MAX_DEPTH = 16

/** A noun of a later release is text. */
const argumentFrom = (data: unknown, depth: number): Argument | undefined => {
  if (typeof data === 'string' || typeof data === 'number') return data
  if (Array.isArray(data)) return reasonFrom(data, depth + 1)
  const [[kind, names] = ['']] = Object.entries(data ?? {})
  if (!isTexts(names)) return undefined
  return Object.hasOwn(modelWords, kind) ? new Noun(kind as NounKind, names as never) : names.join(', ')
}

/** The reason of `Reason.toJSON`, whose sender is not trusted; undefined if it is none. */
export const reasonFrom = (data: unknown, depth = 0): Reason | undefined => {
  if (typeof data === 'string') return asReason(data)
  if (!Array.isArray(data) || depth > MAX_DEPTH) return undefined
  const [code, template, ...rest] = data as readonly unknown[]
  const args = rest.map(argument => argumentFrom(argument, depth))
  const isWhole = isTexts(template) && args.every(argument => argument !== undefined)
  if (!isWhole) return undefined
  return new Reason(typeof code === 'string' ? (code as ReasonCode) : undefined, template, args as Argument[])
}

/** The text of a reason in JSON, in the object model's words. */
export const reasonText = (data: ReasonData): string => reasonFrom(data)?.text() ?? ''

/** A reason as bytes: JSON in UTF-8. What does not fit into `max` bytes becomes text, which may be cut off. */
export const encodeReason = (reason: Reason, max: number): Uint8Array => {
  const encoder = new TextEncoder()
  let text = reason.text()
  let bytes = encoder.encode(JSON.stringify(reason))
  if (bytes.length > max) bytes = encoder.encode(JSON.stringify(text))
  while (bytes.length > max) {
    text = text.slice(0, max - bytes.length)
    bytes = encoder.encode(JSON.stringify(text))
  }
  return bytes
}

/** The reason of `encodeReason`. Other text is a reason without code. */
export const decodeReason = (text: string): Reason => {
  try {
    return reasonFrom(JSON.parse(text)) ?? asReason(text)
  } catch {
    return asReason(text)
  }
}
