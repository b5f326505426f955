/*
 * The language of class declarations: attributes, records, methods, classes (R1–R5, R9, R12,
 * docs/decisions/one-table-per-fact.md).
 *
 * A declaration is plain data. The types of a handler's arguments and results (`In`, `Out`), the object dialect's
 * codec, validation and traces derive from the declaration. src/uapi/ defines how values are encoded in bytes.
 */
import type { Reason } from '../reason.ts'

// ---- values: enumerations and flag sets ----

/**
 * A closed set of named numbers: the values of an enum, or the bits of a flag set. The object dialect refuses other
 * values.
 */
export interface Enumeration<N extends string = string> {
  readonly name: string
  readonly values: Readonly<Record<N, number>>
}
export const enumeration = <const V extends Readonly<Record<string, number>>>(name: string, values: V) =>
  ({ name, values }) as const

// ---- kinds: the type of an attribute or field ----

interface Limits {
  /** Minimum and maximum; other values are refused with EINVAL. */
  readonly min?: number
  readonly max?: number
}

/**
 * The type of a value. `bytes` has a fixed size, `blob` up to `max` bytes. `list` has up to `max` records. `ref` is the
 * handle of an object of the class, `fd` its file descriptor. `width` is in bytes. In TypeScript a u64 is a bigint, a
 * smaller integer a number. `T` is for inference only.
 */
export type Kind<T = unknown> = { readonly __type?: T } & (
  | ({ readonly kind: 'u8' | 'u16' | 'u32' } & Limits)
  | { readonly kind: 'u64' }
  | { readonly kind: 'bytes'; readonly size: number }
  | { readonly kind: 'blob'; readonly max: number }
  | { readonly kind: 'enum'; readonly enumeration: Enumeration; readonly width: 1 | 2 | 4 }
  | { readonly kind: 'flags'; readonly enumeration: Enumeration; readonly width: 1 | 2 | 4 }
  | { readonly kind: 'ref'; readonly class: string }
  | { readonly kind: 'fd'; readonly class: string }
  | { readonly kind: 'record'; readonly fields: Fields }
  | { readonly kind: 'list'; readonly fields: Fields; readonly max: number }
)

/** A field of a record at a byte offset. Records grow at the end only. */
export interface Field<T = unknown> {
  readonly offset: number
  readonly type: Kind<T>
}
export type Fields = Readonly<Record<string, Field>>

/** The inferred type of `ref` and `fd`. `TypeOf` replaces it by a number, or in handlers by an object. */
declare const REFERENCE: unique symbol
export interface Reference {
  readonly [REFERENCE]: true
}

type TypeOf<K, R> = K extends Kind<infer T> ? ([NonNullable<T>] extends [Reference] ? R : NonNullable<T>) : never

// ---- attributes ----

export interface Attribute<T = unknown, Optional extends boolean = boolean> {
  /** 1 … 0x7fff for core, from 0x8000 for a driver. Unique among the inputs and outputs of the method. */
  readonly id: number
  readonly type: Kind<T>
  readonly optional: Optional
}
export type Attributes = Readonly<Record<string, Attribute>>

type RequiredAttribute<T> = Attribute<T, false>

export const u8 = (id: number, limits: Limits = {}): RequiredAttribute<number> => ({
  id,
  type: { kind: 'u8', ...limits },
  optional: false,
})
export const u16 = (id: number, limits: Limits = {}): RequiredAttribute<number> => ({
  id,
  type: { kind: 'u16', ...limits },
  optional: false,
})
export const u32 = (id: number, limits: Limits = {}): RequiredAttribute<number> => ({
  id,
  type: { kind: 'u32', ...limits },
  optional: false,
})
export const u64 = (id: number): RequiredAttribute<bigint> => ({ id, type: { kind: 'u64' }, optional: false })
/** Exactly `size` bytes, for example a GID (16). */
export const bytes = (id: number, size: number): RequiredAttribute<Uint8Array> => ({
  id,
  type: { kind: 'bytes', size },
  optional: false,
})
/** 0 to `max` bytes, interpreted by the method. */
export const blob = (id: number, max: number): RequiredAttribute<Uint8Array> => ({
  id,
  type: { kind: 'blob', max },
  optional: false,
})
export const enumOf = (id: number, enumeration: Enumeration, width: 1 | 2 | 4 = 4): RequiredAttribute<number> => ({
  id,
  type: { kind: 'enum', enumeration, width },
  optional: false,
})
export const flagsOf = (id: number, enumeration: Enumeration, width: 1 | 2 | 4 = 4): RequiredAttribute<number> => ({
  id,
  type: { kind: 'flags', enumeration, width },
  optional: false,
})
/** The handle of an object of class `name` in the caller's context. */
export const ref = (id: number, name: string): RequiredAttribute<Reference> => ({
  id,
  type: { kind: 'ref', class: name },
  optional: false,
})
/** A file descriptor of the caller for an object of class `name`, for example a completion channel. */
export const fd = (id: number, name: string): RequiredAttribute<Reference> => ({
  id,
  type: { kind: 'fd', class: name },
  optional: false,
})
/** A struct, versioned by its size. A shorter struct is zero-extended. A longer struct must end in zeros. */
export const record = <const F extends Fields>(id: number, fields: F): RequiredAttribute<RecordOf<F>> => ({
  id,
  type: { kind: 'record', fields },
  optional: false,
})
/** 0 to `max` records. */
export const list = <const F extends Fields>(id: number, fields: F, max: number): RequiredAttribute<RecordOf<F>[]> => ({
  id,
  type: { kind: 'list', fields, max },
  optional: false,
})
export const optional = <T>(attribute: Attribute<T>): Attribute<T, true> => ({ ...attribute, optional: true })

/** A field of a record at byte `offset`, with the type of `attribute`, for example `at(8, u32(0))`. */
export const at = <T>(offset: number, attribute: Attribute<T>): Field<T> => ({
  offset,
  type: attribute.type as Kind<T>,
})

export type RecordOf<F extends Fields, R = number> = {
  -readonly [K in keyof F]: F[K] extends Field<infer T> ? TypeOf<Kind<T>, R> : never
}

const zeroOf = (type: Kind): AnyValue => {
  if (type.kind === 'u64') return 0n
  if (type.kind === 'bytes') return new Uint8Array(type.size)
  return type.kind === 'record' ? zeroRecord(type.fields) : 0
}
/** A record whose integers and bytes are all 0. */
export const zeroRecord = <F extends Fields>(fields: F): RecordOf<F> =>
  Object.fromEntries(Object.entries(fields).map(([name, { type }]) => [name, zeroOf(type)])) as RecordOf<F>

// ---- sizes ----

/** Bytes of an encoded value; for `blob` and `list` the maximum. A record has no padding after its last field. */
export const sizeOf = (type: Kind): number => {
  switch (type.kind) {
    case 'u8':
      return 1
    case 'u16':
      return 2
    case 'u32':
    case 'ref':
    case 'fd':
      return 4
    case 'u64':
      return 8
    case 'enum':
    case 'flags':
      return type.width
    case 'bytes':
      return type.size
    case 'blob':
      return type.max
    case 'record':
      return recordSize(type.fields)
    case 'list':
      return type.max * recordSize(type.fields)
  }
}
const recordSizes = new WeakMap<Fields, number>()
export const recordSize = (fields: Fields): number => {
  let size = recordSizes.get(fields)
  if (size === undefined) {
    size = Object.values(fields).reduce((end, field: Field) => Math.max(end, field.offset + sizeOf(field.type)), 0)
    recordSizes.set(fields, size)
  }
  return size
}

// ---- methods and classes ----

/**
 * First call number of each block of 32. COMMON: the methods below, the same in all classes. MANAGEMENT: further
 * control calls of a class. DRIVER_FAST: calls of the data path, and drivers' own methods. EXPERIMENTAL: methods that
 * may change with the next release. Numbers from RESERVED on are not used.
 */
export const Block = { COMMON: 0, MANAGEMENT: 32, DRIVER_FAST: 64, EXPERIMENTAL: 96, RESERVED: 128 } as const
/** Call numbers of block COMMON. */
export const CREATE = 0
export const QUERY = 1
export const MODIFY = 2
export const DESTROY = 3
export const CREATE_FD = 4
export const CHAIN = 5

/**
 * What methods can need: a Linux capability, without the prefix CAP_; RAW_PACKETS: CAP_NET_RAW, or to be the daemon's
 * own user (docs/why/threat-model.md).
 */
export type Capability = 'NET_RAW' | 'RAW_PACKETS'

/** An argument that a device refuses. */
export interface RefusedArgument {
  readonly id: number
  readonly code: 'EINVAL' | 'EOPNOTSUPP'
  /** The message after `class.method: `. */
  readonly why: Reason | string
}

/**
 * What a method is for. `asks`: tells state; `waits`: takes an event, for which programs wait; `transfers`: passes
 * messages or requests, or asks for an event of them; `prepares`: tells with what another object can be connected: none
 * of these changes the object. `resolves`, `connects`, `listens`, `closes`: of connections. `undoes`: ends what another
 * method has begun. `changes`: all else.
 */
export type MethodRole =
  | 'opens'
  | 'creates'
  | 'asks'
  | 'modifies'
  | 'destroys'
  | 'waits'
  | 'transfers'
  | 'prepares'
  | 'resolves'
  | 'connects'
  | 'listens'
  | 'closes'
  | 'undoes'
  | 'changes'

/** By call number, of the common methods. */
const COMMON_ROLES: readonly MethodRole[] = ['creates', 'asks', 'modifies', 'destroys', 'creates']

export interface Method<I extends Attributes = Attributes, O extends Attributes = Attributes> {
  /** The call number: block × 32 + number in the block. */
  readonly call: number
  /** Undefined: of a driver that does not say it. */
  readonly role?: MethodRole
  readonly in: I
  readonly out: O
  /** The driver may add inputs and outputs with ids from 0x8000. */
  readonly driverAttributes: boolean
  /**
   * A chain with UNDO may call the method on any object: the method changes nothing, or only creates objects, and
   * undoing destroys them.
   */
  readonly undoable?: boolean
  /** Callers without it get EPERM. */
  readonly needs?: Capability
  /** Arguments that the device refuses, by name. */
  readonly refused?: Readonly<Record<string, RefusedArgument>>
}
export const method = <const I extends Attributes, const O extends Attributes>(
  call: number,
  declared: { role?: MethodRole; in: I; out: O; driverAttributes?: boolean; undoable?: boolean; needs?: Capability },
): Method<I, O> => {
  const role = declared.role ?? COMMON_ROLES[call]
  return {
    call,
    ...(role !== undefined && { role }),
    in: declared.in,
    out: declared.out,
    driverAttributes: declared.driverAttributes ?? false,
    ...(declared.undoable === true && { undoable: true }),
    ...(declared.needs !== undefined && { needs: declared.needs }),
  }
}

export type Methods = Readonly<Record<string, Method>>

export interface ObjectClass<M extends Methods = Methods> {
  readonly name: string
  /** 1 … 0x7fff common, from 0x8000 driver-private. */
  readonly id: number
  /**
   * How a call names the object. `handle`: by a number in the context. `fd`: by a file descriptor. `fixed`: by a
   * predefined number (a port by its port number; device, interface and system by 0).
   */
  readonly identity: 'handle' | 'fd' | 'fixed'
  /** The system-wide device has the class too. */
  readonly global: boolean
  readonly methods: M
}
export const objectClass = <const M extends Methods>(
  name: string,
  id: number,
  declared: { identity?: ObjectClass['identity']; global?: boolean; methods: M },
): ObjectClass<M> => ({
  name,
  id,
  identity: declared.identity ?? 'handle',
  global: declared.global ?? false,
  methods: declared.methods,
})

// ---- types inferred from declarations ----

type OptionalKeys<A extends Attributes> = { [K in keyof A]: A[K] extends Attribute<infer _, true> ? K : never }[keyof A]
type ValueOf<X, R> = X extends Attribute<infer T> ? TypeOf<Kind<T>, R> : never

/** The values of a set of attributes. `R`: the type of references (a number, or in handlers an object). */
export type Values<A extends Attributes, R = number> = Flat<
  { -readonly [K in Exclude<keyof A, OptionalKeys<A>>]: ValueOf<A[K], R> } & {
    -readonly [K in OptionalKeys<A>]?: ValueOf<A[K], R>
  }
>
/** Merges an intersection into one object type, so that an editor shows the members. */
type Flat<T> = T extends infer U ? { [K in keyof U]: U[K] } : never

export type In<M, R = number> = M extends Method<infer I, Attributes> ? Values<I, R> : never
export type Out<M, R = number> = M extends Method<Attributes, infer O> ? Values<O, R> : never

/** Attribute values of a method that is known only at run time. */
export type AnyValue = number | bigint | Uint8Array | AnyRecord | AnyRecord[]
export interface AnyRecord {
  [field: string]: AnyValue
}
export type AnyValues = { [attribute: string]: AnyValue | undefined }

const checkFields = (path: string, fields: Fields): void => {
  let end = 0
  for (const [name, { offset, type }] of Object.entries(fields).sort(([, a], [, b]) => a.offset - b.offset)) {
    if (offset < end) throw new Error(`${path}.${name}: offset ${offset} overlaps the field before it`)
    if (type.kind === 'ref' || type.kind === 'fd' || type.kind === 'list' || type.kind === 'blob')
      throw new Error(`${path}.${name}: a record cannot contain ${type.kind}`)
    if (type.kind === 'record') checkFields(`${path}.${name}`, type.fields)
    end = offset + sizeOf(type)
  }
}

/**
 * Checks class ids, method numbers and attribute ids (unique), references between classes, and offsets of record
 * fields. Throws an Error with the path of the first fault.
 */
export const checkClasses = (classes: readonly ObjectClass[]): void => {
  const names = new Set(classes.map(c => c.name))
  const ids = new Map<number, string>()
  for (const c of classes) {
    if (ids.has(c.id)) throw new Error(`class ${c.name}: id ${c.id} is that of ${ids.get(c.id)}`)
    ids.set(c.id, c.name)
    const calls = new Map<number, string>()
    for (const [name, m] of Object.entries(c.methods)) {
      const path = `${c.name}.${name}`
      if (!(Number.isInteger(m.call) && m.call >= 0 && m.call < Block.RESERVED))
        throw new Error(
          `${path}: call number ${m.call} is not in 0..${Block.RESERVED - 1}; the blocks above are reserved`,
        )
      if (m.call > CHAIN && m.call < Block.MANAGEMENT)
        throw new Error(`${path}: call number ${m.call} is in block COMMON, but is not a common method`)
      if (calls.has(m.call)) throw new Error(`${path}: call number ${m.call} is that of ${calls.get(m.call)}`)
      calls.set(m.call, name)
      const used = new Map<number, string>()
      for (const [direction, attributes] of [
        ['in', m.in],
        ['out', m.out],
      ] as const)
        for (const [attribute, a] of Object.entries(attributes)) {
          const attributePath = `${path}: ${direction} attribute ${attribute}`
          if (used.has(a.id)) throw new Error(`${attributePath}: id ${a.id} is that of ${used.get(a.id)}`)
          used.set(a.id, attribute)
          if ((a.type.kind === 'ref' || a.type.kind === 'fd') && !names.has(a.type.class))
            throw new Error(`${attributePath}: there is no class ${a.type.class}`)
          if (a.type.kind === 'record' || a.type.kind === 'list') checkFields(attributePath, a.type.fields)
        }
    }
  }
}
