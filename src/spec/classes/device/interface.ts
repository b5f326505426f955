/*
 * Class `interface`: the device's description of its classes (R13). The only object is object 0, which no call creates.
 *
 * `query` returns lists of small records that refer to each other by index: classes, methods, attributes, types,
 * enumerations and names. uapi/object/description.ts converts between declarations and records. The records of a list
 * never grow: a later release adds a new list, which older clients do not request (R47).
 */
import {
  at,
  blob,
  CHAIN,
  enumeration,
  enumOf,
  flagsOf,
  list,
  method,
  objectClass,
  optional,
  QUERY,
  u8,
  u16,
  u32,
} from '../../schema/schema.ts'
import { ClassId } from '../ids.ts'

/** As `ObjectClass.identity`. */
export const Identity = enumeration('identity', { handle: 0, fd: 1, fixed: 2 })

/** GLOBAL: the system-wide device has the class too. */
export const ClassFlags = enumeration('class_flags', { GLOBAL: 1 })

/** Numbers of the kinds of types (`Kind` in spec/schema/schema.ts). */
export const KindNumber = enumeration('kind', {
  u8: 0,
  u16: 1,
  u32: 2,
  u64: 3,
  bytes: 4,
  blob: 5,
  enum: 6,
  flags: 7,
  ref: 8,
  fd: 9,
  record: 10,
  list: 11,
})

export const Direction = enumeration('direction', { in: 0, out: 1 })
export const MethodFlags = enumeration('method_flags', {
  DRIVER_ATTRIBUTES: 1,
  UNDOABLE: 2,
  NEEDS_NET_RAW: 4,
  NEEDS_RAW_PACKETS: 8,
})
export const AttributeFlags = enumeration('attribute_flags', { OPTIONAL: 1 })
/** MIN, MAX: the type has that limit. */
export const TypeFlags = enumeration('type_flags', { MIN: 1, MAX: 2 })

/** In all rows `name` is the byte offset of a NUL-terminated ASCII text in `names`. */
const ClassRow = {
  name: at(0, u32(0)),
  id: at(4, u16(0)),
  identity: at(6, enumOf(0, Identity, 1)),
  flags: at(7, flagsOf(0, ClassFlags, 1)),
}
const MethodRow = {
  name: at(0, u32(0)),
  /** Index of the class. */
  class: at(4, u16(0)),
  call: at(6, u8(0)),
  flags: at(7, flagsOf(0, MethodFlags, 1)),
}
const AttributeRow = {
  name: at(0, u32(0)),
  /** Indices of method and type. */
  method: at(4, u32(0)),
  type: at(8, u32(0)),
  id: at(12, u16(0)),
  direction: at(14, enumOf(0, Direction, 1)),
  flags: at(15, flagsOf(0, AttributeFlags, 1)),
}
const TypeRow = {
  kind: at(0, enumOf(0, KindNumber, 1)),
  /** enum, flags: bytes of one value. */
  width: at(1, u8(0)),
  flags: at(2, flagsOf(0, TypeFlags, 2)),
  /** bytes: exact length; blob, list: maximum length. */
  size: at(4, u32(0)),
  /**
   * enum, flags: index of the enumeration; ref, fd: offset of the class's name; record, list: index of the first field.
   */
  target: at(8, u32(0)),
  /** record, list: number of fields. */
  count: at(12, u32(0)),
  min: at(16, u32(0)),
  max: at(20, u32(0)),
}
const FieldRow = { name: at(0, u32(0)), offset: at(4, u32(0)), type: at(8, u32(0)) }
/** The enumeration has `count` values, from row `first` on. */
const EnumerationRow = { name: at(0, u32(0)), first: at(4, u32(0)), count: at(8, u32(0)) }
const ValueRow = { name: at(0, u32(0)), value: at(4, u32(0)) }

/** After a failed call the objects that the chain has created stay (STOP) or are destroyed (UNDO). */
export const ChainErrors = enumeration('chain_errors', { STOP: 0, UNDO: 1 })

const NAMES_BYTES = 1 << 20
const CHAIN_BYTES = 1 << 20
/** Most bytes of a reason. */
export const REASON_BYTES = 1024
const MAX_ROWS = 0xffff

export const Interface = objectClass('interface', ClassId.interface, {
  identity: 'fixed',
  global: true,
  methods: {
    query: method(QUERY, {
      in: {},
      out: {
        names: blob(64, NAMES_BYTES),
        classes: list(65, ClassRow, MAX_ROWS),
        methods: list(66, MethodRow, MAX_ROWS),
        attributes: list(67, AttributeRow, MAX_ROWS),
        types: list(68, TypeRow, MAX_ROWS),
        fields: list(69, FieldRow, MAX_ROWS),
        enumerations: list(70, EnumerationRow, MAX_ROWS),
        values: list(71, ValueRow, MAX_ROWS),
      },
    }),
    /**
     * Runs the calls of a chain in order, up to the first failure (R16; layout: uapi/object/chain.ts). A chain with
     * UNDO may contain only calls that create objects or change nothing, and calls on objects that the chain creates.
     * `results`: the entries, with replies in place of requests. `done`: the number of successful entries. `error`
     * (errno) and `reason`: the error of the failed entry; the reason is JSON (spec/reason.ts).
     */
    chain: method(CHAIN, {
      role: 'transfers',
      in: { entries: blob(1, CHAIN_BYTES), onError: enumOf(2, ChainErrors, 1) },
      out: { results: blob(64, CHAIN_BYTES), done: u32(65), error: u32(66), reason: optional(blob(67, REASON_BYTES)) },
    }),
  },
})
