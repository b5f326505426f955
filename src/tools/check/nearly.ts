/*
 * Values nearly right: whether a wrong address, key or number comes from a right one by a usual mistake. It explains an
 * error that is there, and makes none. A right value is named only if by chance less than one in a million such values
 * would fit what is known; else only the mistake is.
 */
import { swap32 } from '../../spec/memory.ts'
import { CUT_NUMBER, SAME_LAYOUT, SWAPPED } from './advice.ts'
import { hex, type KnownObject, type KnownObjects } from './objects.ts'

/** What a value may have been meant to be: this number, or an address of these bytes. */
interface Known {
  readonly value: bigint
  /** Bytes from `value` on. Absent: it is a number. */
  readonly size?: bigint
  /** What it is, after it in a sentence: `the rkey of MR 0x12`. */
  readonly what: string
  readonly object?: KnownObject
}

/** Bits of addresses, of keys, and of numbers of queue pairs and packets. */
type Bits = 64 | 32 | 24

/** `object`: whose value was meant. */
interface Near {
  readonly line: string
  /** The right value is named, or what the wrong one is. */
  readonly isNamed: boolean
  readonly advice?: string
  readonly object?: KnownObject
}

interface Way {
  /** The right value, if `value` comes from a known one in this way; of a range, one of its addresses. */
  read(value: bigint, known: Known, bits: Bits): bigint | undefined
  /** How likely another value of this kind would fit too, 0 to 1. */
  chance(value: bigint, known: Known, bits: Bits): number
  text(value: string, right: string, what: string, bits: Bits): string
  /** After the value, if none is named that was meant. */
  readonly vague: string
  readonly advice?: string
}

/** A part of the wrong values that fit by chance, at most. */
const CHANCE = 1e-6

const sizeOf = ({ size = 1n }: Known): bigint => size
const isIn = (value: bigint, known: Known): boolean => value >= known.value && value < known.value + sizeOf(known)
/** How many bits a value has. */
const lengthOf = (value: bigint): number => value.toString(2).length
/** The part that a known value is of all with so many bits. */
const partOf = (known: Known, bits: number): number => Number(sizeOf(known)) / 2 ** bits
const bytesText = (bytes: number): string => (bytes === 1 ? 'byte' : `${bytes} bytes`)

const inOtherOrder = (value: bigint, bits: Bits): bigint => {
  const low = swap32(Number(value & 0xffff_ffffn))
  return bits === 64 ? (BigInt(low) << 32n) | BigInt(swap32(Number(value >> 32n))) : BigInt(low)
}

const swapped: Way = {
  read(value, known, bits) {
    const right = inOtherOrder(value, bits)
    if (isIn(right, known)) return right
    // Of a number of 24 bits the highest byte of the word is lost.
    const isCut = bits === 24 && (inOtherOrder(known.value, bits) & 0xff_ffffn) === value
    return isCut ? known.value : undefined
  },
  chance: (value, known, bits) => partOf(known, bits === 24 && value >> 24n > 0n ? 32 : bits),
  text: (value, right, what) => `${value} is ${right}, ${what}, in the other byte order`,
  vague: 'may be in the other byte order',
  advice: SWAPPED,
}

/** Cut to so many bits; of an address, perhaps as a number with a sign. */
const cut = (to: 32 | 16): Way => ({
  read(value, known, bits) {
    const isSigned = bits === 64 && value === BigInt.asUintN(64, BigInt.asIntN(to, value))
    if (!isSigned && value !== BigInt.asUintN(to, value)) return undefined
    const right = known.value + BigInt.asUintN(to, value - known.value)
    return right !== value && isIn(right, known) ? right : undefined
  },
  chance: (_, known, bits) => 2 * partOf(known, bits),
  text: (value, right, what) => `${value} has the lower ${to} bits of ${right}, ${what}: it was cut to ${to} bits`,
  vague: `may be a number that was cut to ${to} bits`,
  ...(to === 16 && { advice: CUT_NUMBER }),
})

/** Read so many bytes too late from a struct: above is what follows. Or too early: below is what precedes. */
const shifted = (bytes: 1 | 2 | 4, isLate: boolean): Way => {
  const by = BigInt(8 * bytes)
  return {
    read(value, known, bits) {
      const kept = bits - 8 * bytes
      if (kept <= 0) return undefined
      const { value: start } = known
      if (!isLate) {
        const right = start + BigInt.asUintN(kept, (value >> by) - start)
        return isIn(right, known) ? right : undefined
      }
      const part = BigInt.asUintN(kept, value)
      return part > 0n && part >= start >> by && part <= (start + sizeOf(known) - 1n) >> by ? start : undefined
    },
    chance(value, known, bits) {
      const length = lengthOf(value)
      if (!isLate) return partOf(known, Math.max(length - 8 * bytes, 0))
      const size = ((known.value + sizeOf(known) - 1n) >> by) - (known.value >> by) + 1n
      return partOf({ ...known, size }, Math.min(length, bits - 8 * bytes))
    },
    text(value, right, what, bits) {
      const kept = bits / 8 - bytes
      const [ofValue, ofRight] = isLate ? ['lower', 'upper'] : ['upper', 'lower']
      return `the ${ofValue} ${bytesText(kept)} of ${value} are the ${ofRight} ones of ${right}, ${what}: it was read ${bytes === 1 ? 'a byte' : `${bytes} bytes`} too ${isLate ? 'late' : 'early'}, as from a struct of another layout`
    },
    vague: `may be shifted by ${bytesText(bytes)}, as from a struct of another layout`,
    advice: SAME_LAYOUT,
  }
}

/** Right, but of another kind or object. */
const other: Way = {
  read: (value, known) => (isIn(value, known) ? value : undefined),
  // small numbers are frequent
  chance: (value, known, bits) => partOf(known, known.size === undefined ? lengthOf(value) : bits),
  text: (value, _, what) => `${value} is ${what}`,
  vague: 'may be another member of the struct in which it was exchanged, such as a length',
}

const SHIFTS = ([4, 2, 1] as const).flatMap(bytes => [shifted(bytes, true), shifted(bytes, false)])
const ways: Readonly<Record<Bits, readonly Way[]>> = {
  64: [swapped, cut(32), ...SHIFTS],
  32: [swapped, cut(16), ...SHIFTS],
  24: [swapped, cut(16)],
}

const findBy = (value: bigint, bits: Bits, knowns: readonly Known[], way: Way): Near | undefined => {
  const known = knowns.find(one => way.read(value, one, bits) !== undefined)
  if (known === undefined) return undefined
  const chance = knowns.reduce((sum, one) => sum + way.chance(value, one, bits), 0)
  const advice = way.advice === undefined ? {} : { advice: way.advice }
  if (chance >= CHANCE) return { line: `${hex(value)} ${way.vague}`, isNamed: false, ...advice }
  const line = way.text(hex(value), hex(way.read(value, known, bits)!), known.what, bits)
  return { line, isNamed: true, ...advice, ...(known.object && { object: known.object }) }
}

/**
 * How a wrong value comes from what was `meant`; or which of the `others`, right values of another kind or object, it
 * is. Undefined: nothing is known.
 */
export const nearly = (
  value: bigint,
  bits: Bits,
  meant: readonly Known[],
  others: readonly Known[] = [],
): Near | undefined => {
  if (value === 0n) return undefined
  const starts = meant.map(({ size: _, ...start }) => start)
  const as = findBy(value, bits, others, other)
  const found = [starts, meant].flatMap(knowns => ways[bits].map(way => findBy(value, bits, knowns, way)))
  return [as, ...found].find(near => near?.isNamed) ?? [...found, as].find(near => near !== undefined)
}

// ---- what is known ----

/** `before`: the text before the name. */
const addressesOf = (objects: readonly KnownObject[], before: string, isOther = false): readonly Known[] =>
  objects.flatMap(object => {
    const { class: kind, iova, size = 0, rkey } = object
    if (kind !== 'mr') return []
    const name = isOther ? object.nameWithProgram : object.name
    const key = rkey ? `, whose rkey is ${hex(rkey)}` : ''
    return iova === undefined
      ? []
      : [{ value: BigInt(iova), size: BigInt(size), what: `${before}${name}${key}`, object }]
  })

/** Numbers of regions and queue pairs that are taken for others: a member of a struct for its neighbour. */
const membersOf = (objects: readonly KnownObject[]): readonly Known[] =>
  objects
    .flatMap(object => {
      const { class: name, iova, size, rkey, qpn, attributes, isQp } = object
      if (isQp)
        return [
          { value: qpn, what: `the number of ${object.name}` },
          { value: attributes.sqPsn, what: `sq_psn of ${object.name}` },
        ]
      if (name !== 'mr' || iova === undefined) return []
      return [
        { value: rkey, what: `the rkey of ${object.name}` },
        { value: size, what: `the length of ${object.name}` },
        { value: iova % 2 ** 32, what: `the lower half of the address of ${object.name}` },
        { value: Math.floor(iova / 2 ** 32), what: `the upper half of the address of ${object.name}` },
      ]
    })
    .flatMap(({ value, what }) => (value ? [{ value: BigInt(value), what }] : []))

/** Lengths from here on are rare, bytes. */
const LARGE = 2n ** 24n

/** An access beyond the range of its key. */
interface WrongAccess {
  readonly start: bigint
  readonly end: bigint
  readonly range: { readonly start: bigint; readonly end: bigint }
  /** The region of the key, if it is known, and the context of the requester. */
  readonly region: KnownObject | undefined
  readonly context: number
}

const SCALED_ONCE =
  "add the index to a pointer of the element's type, or index times size to a number of bytes, not both"

/**
 * An offset that is an index times the square of the length, far behind the range: an index that is one too large is
 * more frequent.
 */
const scaledTwice = (offset: bigint, length: bigint, size: bigint): Near | undefined => {
  const square = length * length
  const isSo = length > 1n && offset >= 2n * size && offset % square === 0n && offset / length + length <= size
  return isSo
    ? {
        line: `the offset ${hex(offset)} is ${offset / square} times ${length} times ${length}: an index may have been multiplied by the size of its element twice`,
        isNamed: false,
        advice: SCALED_ONCE,
      }
    : undefined
}

/** What the address was meant to be, or, if that is in the range, the length. */
export const nearAccess = (
  objects: KnownObjects,
  { start, end, range, region, context }: WrongAccess,
): Near | undefined => {
  const size = range.end - range.start
  const theirs = region === undefined ? [] : objects.existingIn(region.context)
  const own = objects.existingIn(context)
  // Powers of two are frequent lengths: of smaller ones the other byte order is one too.
  if (start >= range.start && start < range.end) {
    const length = end - start
    const isSwapped = length >= LARGE && length < 2n ** 32n && start + inOtherOrder(length, 32) <= range.end
    return isSwapped ? { line: `${hex(length)} ${swapped.vague}`, isNamed: false, advice: SWAPPED } : undefined
  }
  const isOwn = region?.context === context
  const elsewhere = region === undefined ? [] : objects.existingOn(region.device)
  const near = nearly(
    start,
    64,
    [{ value: range.start, size, what: 'which is in the range' }, ...addressesOf(theirs, 'an address of ')],
    [
      ...addressesOf(theirs, 'in '),
      ...(isOwn ? [] : addressesOf(own, 'in the memory of the requester itself, ')),
      ...(region === undefined
        ? []
        : addressesOf(objects.destroyedIn(region.context), 'in memory that is registered no more, ')),
      ...addressesOf(
        elsewhere.filter(one => one.context !== region?.context && one.context !== context),
        'in ',
        true,
      ),
      ...membersOf(theirs),
    ],
  )
  if (near?.isNamed) return near
  const twice = scaledTwice(start - range.start, end - start, size)
  if (twice !== undefined) return twice
  if (start === 0n || start >= size || start + size >= range.start) return near
  return {
    line: `${hex(start)} is less than the length of the range: an offset, an index or a length, and no address`,
    isNamed: false,
  }
}

/** A key that no region has. */
export const nearKey = (objects: KnownObjects, device: number, key: number): Near | undefined => {
  const all = objects.existingOn(device)
  const keys = all.flatMap(object =>
    [...new Set([object.lkey, object.rkey])].flatMap(one =>
      one ? [{ value: BigInt(one >>> 0), what: `a key of ${object.name}`, object }] : [],
    ),
  )
  return nearly(BigInt(key >>> 0), 32, keys, membersOf(all))
}

/** What a finding says of the number of a queue pair that does not exist; empty: nothing is known. */
export const wrongNumber = (
  objects: KnownObjects,
  device: number,
  qpn: number,
): { readonly details?: readonly string[]; readonly advice?: string; readonly meant?: KnownObject } => {
  const all = objects.existingOn(device)
  const numbers = all.flatMap(object =>
    object.isQp && object.qpn
      ? [{ value: BigInt(object.qpn), what: `the number of ${object.nameWithProgram}`, object }]
      : [],
  )
  const near = nearly(BigInt(qpn >>> 0), 24, numbers, membersOf(all))
  if (near === undefined) return {}
  const { line, advice, object } = near
  return { details: [line], ...(advice && { advice }), ...(object && { meant: object }) }
}
