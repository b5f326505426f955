/*
 * Block signatures of keys, as requests describe them in a BSF (byte stream format, layout.ts): after each block of
 * data, in memory, on the wire or in both, is a signature, a checksum or a field of T10-DIF (guard, application tag,
 * reference tag). A signature is handled as a value of 64 bits, two u32 (hi, lo): guard, application tag and reference
 * tag, or a CRC of 32 bits in hi, or one of 64 bits. The first values come from a PSV (protection signature value),
 * which other requests set.
 */
import type { Arena } from '../../../transport/wire/arena.ts'
import { crcOfArena } from '../../../transport/wire/crc.ts'
import { crc32c, crc64, crcT10, ipChecksum } from './checksums.ts'
import { Bsf, BsfInline, blockSizes, SigKind, sigKinds } from './layout.ts'

/** A protection signature value of a protection domain. */
export interface Psv {
  readonly pd: number
  hi: number
  lo: number
  /** An error of a signature was reported: others are not until a request sets the value again. */
  isFailed: boolean
}

/** Signatures of the data in memory, or on the wire. */
export interface Domain {
  readonly kind: SigKind
  /** Bytes of data in a block, and of the signature after it. */
  readonly block: number
  readonly bytes: number
  /** Number of the PSV. */
  readonly psv: number
  /** T10-DIF: the reference tag of each block is one more than that of the block before. */
  readonly increments: boolean
  /** T10-DIF: what of a block means that it is not checked (`BsfInline.ESCAPE_…`). */
  readonly escape: number
  /** T10-DIF: bits of the application tag that are checked. */
  readonly tagMask: number
}

export interface Signature {
  readonly memory: Domain | undefined
  readonly wire: Domain | undefined
  /** Of a signature that is read, bits that are checked. */
  readonly check: Mask
  /** If both domains have the same blocks: bits that go from one to the other; the other bits are computed. */
  readonly copy: Mask
  /** Bytes of data that have signatures; a key must not have more. */
  readonly dataBytes: number
}

/** Bits of a signature. */
interface Mask {
  readonly hi: number
  readonly lo: number
}

/** Each bit of a mask in a BSF is a byte of the value, the highest bit the first one. */
const maskOf = (bits: number): Mask => {
  const word = (nibble: number): number =>
    ((nibble & 8 ? 0xff00_0000 : 0) |
      (nibble & 4 ? 0xff_0000 : 0) |
      (nibble & 2 ? 0xff00 : 0) |
      (nibble & 1 && 0xff)) >>>
    0
  return { hi: word(bits >>> 4), lo: word(bits & 0xf) }
}

/** Undefined: the description is malformed, or asks for what the device does not have. */
const domainOf = (view: DataView, psvAt: number, inlineAt: number, block: number | undefined): Domain | undefined => {
  const word = view.getUint32(psvAt)
  const format = word >>> Bsf.FORMAT_SHIFT
  const psv = word & Bsf.PSV_MASK
  if (block === undefined || psv === 0) return undefined
  if (format !== 0) {
    const kind = sigKinds[format & Bsf.FORMAT_MASK]
    if (kind === undefined || (format & Bsf.REPEAT) === 0) return undefined
    const bytes = kind === SigKind.CRC64 ? 8 : 4
    return { kind, block, bytes, psv, increments: false, escape: 0, tagMask: 0xffff }
  }
  const type = view.getUint8(inlineAt + BsfInline.TYPE)
  const flags = view.getUint8(inlineAt + BsfInline.FLAGS)
  const isValid = (view.getUint16(inlineAt) & BsfInline.VALID) !== 0
  if (!isValid || (view.getUint8(inlineAt + BsfInline.REPEAT) & BsfInline.REPEATS) === 0) return undefined
  if (type !== BsfInline.CRC && type !== BsfInline.CHECKSUM) return undefined
  return {
    kind: type === BsfInline.CRC ? SigKind.T10_CRC : SigKind.T10_CHECKSUM,
    block,
    bytes: 8,
    psv,
    increments: (flags & BsfInline.INCREMENTS) !== 0,
    escape: flags & BsfInline.ESCAPE_MASK,
    tagMask: view.getUint16(inlineAt + BsfInline.TAG_MASK),
  }
}

/** The signature that a BSF describes; undefined: it is malformed, or asks for what the device does not have. */
export const signatureOf = (bytes: Uint8Array): Signature | undefined => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, Bsf.BYTES)
  const first = view.getUint8(0)
  if (first >>> Bsf.SIZE_SHIFT !== Bsf.WITH_INLINE || (first & Bsf.TYPE_MASK) !== 0) return undefined
  // signatures of a whole transfer
  for (let at = Bsf.EXTENSION; at < Bsf.WIRE_INLINE; at += 4) if (view.getUint32(at) !== 0) return undefined
  const hasSameBlocks = (first & Bsf.SAME_BLOCKS) !== 0
  const memoryBlock = blockSizes[view.getUint8(Bsf.MEMORY)]
  const wireByte = view.getUint8(Bsf.WIRE)
  const [hasMemory, hasWire] = [view.getUint32(Bsf.MEMORY_PSV) !== 0, view.getUint32(Bsf.WIRE_PSV) !== 0]
  const memory = hasMemory ? domainOf(view, Bsf.MEMORY_PSV, Bsf.MEMORY_INLINE, memoryBlock) : undefined
  const wireBlock = hasSameBlocks ? memoryBlock : blockSizes[wireByte]
  const wire = hasWire ? domainOf(view, Bsf.WIRE_PSV, Bsf.WIRE_INLINE, wireBlock) : undefined
  if (hasMemory !== (memory !== undefined) || hasWire !== (wire !== undefined)) return undefined
  if (hasSameBlocks && (memory === undefined || wire === undefined || memory.bytes !== wire.bytes)) return undefined
  return {
    memory,
    wire,
    check: maskOf(view.getUint8(Bsf.CHECK_MASK)),
    copy: maskOf(hasSameBlocks ? wireByte : 0),
    dataBytes: view.getUint32(Bsf.RAW_BYTES),
  }
}

const scratch = new Uint32Array(2)

/** The value of block `index` with the `block` bytes of data at `at`, as hi and lo, to `into`. */
export const computeValue = (
  { kind, block, increments }: Domain,
  { hi, lo }: Psv,
  index: number,
  arena: Arena,
  at: number,
  into: Uint32Array,
): void => {
  const { bytes } = arena
  const end = at + block
  into[1] = 0
  switch (kind) {
    case SigKind.CRC32:
      into[0] = crcOfArena(arena, at, block, ~hi)
      break
    case SigKind.CRC32C:
      into[0] = crc32c(bytes, at, end, hi)
      break
    case SigKind.CRC64:
      crc64(bytes, at, end, hi, lo, into)
      break
    default: {
      const seed = hi >>> 16
      const guard = kind === SigKind.T10_CRC ? crcT10(bytes, at, end, seed) : ipChecksum(bytes, at, end, seed)
      into[0] = (guard << 16) | (hi & 0xffff)
      into[1] = increments ? lo + index : lo
    }
  }
}

const isT10 = ({ kind }: Domain): boolean => kind === SigKind.T10_CRC || kind === SigKind.T10_CHECKSUM

/** T10-DIF is big-endian, CRCs are little-endian. */
export const encodeValue = (domain: Domain, value: Uint32Array, into: Uint8Array, at: number): void => {
  for (let i = 0; i < domain.bytes; i++) {
    const shift = 8 * (3 - (i & 3))
    if (isT10(domain)) into[at + i] = value[i >> 2]! >>> shift
    else into[at + domain.bytes - 1 - i] = value[i >> 2]! >>> shift
  }
}

export const decodeValue = (domain: Domain, from: Uint8Array, at: number, value: Uint32Array): void => {
  value[0] = 0
  value[1] = 0
  for (let i = 0; i < domain.bytes; i++) {
    const byte = isT10(domain) ? from[at + i]! : from[at + domain.bytes - 1 - i]!
    value[i >> 2] = (value[i >> 2]! << 8) | byte
  }
}

/** The bits of `value` that `mask` names become those of `other`. */
export const mergeValue = (value: Uint32Array, other: Uint32Array, { hi, lo }: Mask): void => {
  value[0] = (value[0]! & ~hi) | (other[0]! & hi)
  value[1] = (value[1]! & ~lo) | (other[1]! & lo)
}

/** What differs. */
export const SigFault = { NONE: 0, GUARD: 1, APPLICATION_TAG: 2, REFERENCE_TAG: 3 } as const
export type SigFault = (typeof SigFault)[keyof typeof SigFault]

/** An error of a signature. `expected`: the signature that was read, `actual`: the computed one; each hi and lo. */
export interface SignatureFault {
  readonly key: number
  readonly fault: SigFault
  readonly isWire: boolean
  readonly expected: readonly [number, number]
  readonly actual: readonly [number, number]
  /** Bytes of the domain before the block. */
  readonly offset: number
}

/** Compares a signature that was read with the computed one. The order is that of T10. */
export const compareValues = (
  domain: Domain,
  { check }: Signature,
  read: Uint32Array,
  computed: Uint32Array,
): SigFault => {
  scratch[0] = (read[0]! ^ computed[0]!) & check.hi
  scratch[1] = (read[1]! ^ computed[1]!) & check.lo
  if (!isT10(domain)) return (scratch[0] | scratch[1]) === 0 ? SigFault.NONE : SigFault.GUARD
  const isEscaped = domain.escape !== 0 && (read[0]! & 0xffff) === 0xffff
  if (isEscaped && (domain.escape === BsfInline.ESCAPE_TAG || read[1] === 0xffff_ffff)) return SigFault.NONE
  if (scratch[0] >>> 16 !== 0) return SigFault.GUARD
  if ((scratch[0] & domain.tagMask) !== 0) return SigFault.APPLICATION_TAG
  return scratch[1] === 0 ? SigFault.NONE : SigFault.REFERENCE_TAG
}
