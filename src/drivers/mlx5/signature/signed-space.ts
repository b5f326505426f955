/*
 * The memory of a key with block signatures (signature.ts). Its addresses are those of the wire: offsets in what peers
 * see, with the signatures there. What is read from memory is checked against the signatures in memory, and gets those
 * of the wire; what is written is checked against those of the wire, and gets those of memory. The number of a block is
 * that of its place in the key, so a retransmission, or a READ of a part, gives the same bytes again. A part of a block
 * at the end has no signature.
 *
 * An error changes no data: it is reported, once until the PSV is set again. A PSV that has ended, or is of another
 * protection domain, fails the access.
 */
import type { Bytes } from '../../../core/memory/address-space.ts'
import { type Configurable, IndirectSpace } from '../../../core/memory/indirect.ts'
import type { Accessor, MemoryTable } from '../../../core/memory/region-table.ts'
import { Errno } from '../../../spec/errno.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { LARGEST_BLOCK, LARGEST_SIGNATURE } from './layout.ts'
import {
  compareValues,
  computeValue,
  type Domain,
  decodeValue,
  encodeValue,
  mergeValue,
  type Psv,
  SigFault,
  type Signature,
  type SignatureFault,
} from './signature.ts'

/** Two blocks with the signatures of smaller blocks in them. */
export const SCRATCH_BYTES = 0x4000
/** Ranges of other keys that one block may reach: each costs a copy of its own. */
const MAX_BLOCK_RANGES = 1024
/** Blocks whose signature has arrived in part. */
const MAX_PARTIAL = 16

/** The lengths of elements of requests on the wire. */
export interface WireLengths {
  /** Whether there are keys whose elements have others there. */
  readonly areNeeded: boolean
  /** Sets address and length of the element at `words[at]` (`Sge`) to those on the wire. */
  adjust(words: Uint32Array, at: number): void
}

/** The PSVs of a device. */
export interface PsvTable {
  /** Sets one of the protection domain with this id. False: the domain has none of the number. */
  set(pd: number, number: number, hi: number, lo: number): boolean
}

/** What keys with signatures of one device share. */
export interface SignatureShop {
  /** By number. */
  readonly psvs: ReadonlyMap<number, Psv>
  /** Each of SCRATCH_BYTES. */
  readonly image: Arena
  readonly data: Arena
  /** Number of keys with signatures only on the wire. */
  wireOnly: number
  report(fault: SignatureFault, accessor: Accessor): void
}

/** `amount` units of `block` bytes with `bytes` between them. */
const spread = (offset: number, { block, bytes }: Pick<Domain, 'block' | 'bytes'>): number =>
  offset + Math.floor(offset / block) * bytes

export class SignedSpace extends IndirectSpace {
  override readonly maxRanges = MAX_BLOCK_RANGES
  /** The key; known after the region is made. */
  key = 0
  /** Bytes of the memory that the key has, with the signatures there. */
  memoryBytes = 0
  readonly #shop: SignatureShop
  readonly #accessor: Accessor
  readonly #pd: number
  #signature: Signature | undefined
  #wireBytes = 0
  /** Signatures of the wire that have arrived in part, by block. */
  readonly #partial = new Map<number, Uint8Array>()
  readonly #computed = new Uint32Array(2)
  readonly #read = new Uint32Array(2)

  constructor(table: MemoryTable, pd: number, configurable: Configurable, shop: SignatureShop) {
    super(table, pd, [], configurable)
    this.#pd = pd
    this.#shop = shop
    this.#accessor = table.accessor
  }

  /** Undefined: none. */
  get signature(): Signature | undefined {
    return this.#signature
  }

  set signature(described: Signature | undefined) {
    const signature = (described?.memory ?? described?.wire) && described
    this.#shop.wireOnly += +isWireOnly(signature) - +isWireOnly(this.#signature)
    this.#signature = signature
    this.#partial.clear()
    this.restrict(signature !== undefined)
  }

  override end(): void {
    this.signature = undefined
    super.end()
  }

  /**
   * Sets the bytes of memory, and returns those that the key has on the wire. Undefined: there is no room, or the
   * signature is not for so many.
   */
  resize(memoryBytes: number): number | undefined {
    if (memoryBytes > this.length) return undefined
    const { memory, wire, dataBytes = Number.POSITIVE_INFINITY } = this.#signature ?? {}
    let data = memoryBytes
    if (memory !== undefined) {
      const blocks = Math.floor(memoryBytes / (memory.block + memory.bytes))
      data = blocks * memory.block + Math.min(memory.block, memoryBytes - blocks * (memory.block + memory.bytes))
    }
    if (data > dataBytes) return undefined
    this.memoryBytes = memoryBytes
    this.#wireBytes = wire === undefined ? data : spread(data, wire)
    return this.#wireBytes
  }

  /**
   * Where an address of a request is on the wire: a request counts only data if the signatures are only on the wire, as
   * with adapters.
   */
  wireOffset(offset: number): number {
    const { memory, wire } = this.#signature ?? {}
    return wire === undefined || memory !== undefined ? offset : spread(offset, wire)
  }

  override check(hi: number, lo: number, length: number, needsWrite = false): boolean {
    if (this.#signature === undefined) return super.check(hi, lo, length)
    // writes must come in order
    return !needsWrite && hi * TWO_32 + lo + length <= this.#wireBytes
  }

  override read(hi: number, lo: number, to: Bytes, at: number, chunk: number, stride: number, total: number): number {
    const signature = this.#signature
    if (signature === undefined) return super.read(hi, lo, to, at, chunk, stride, total)
    return this.#visit(signature, hi, lo, total, (unit, done) => {
      const errno = this.#readUnit(signature, unit)
      if (errno !== 0) return errno
      const { data, image } = this.#shop
      const { dataFrom, dataTo, loadedFrom, sigFrom, sigTo } = unit
      copyOut(data.bytes, dataFrom - loadedFrom, dataTo - dataFrom, to, at, chunk, stride, done)
      copyOut(image.bytes, sigFrom, sigTo - sigFrom, to, at, chunk, stride, done + dataTo - dataFrom)
      return 0
    })
  }

  override write(
    hi: number,
    lo: number,
    from: Bytes,
    at: number,
    chunk: number,
    stride: number,
    total: number,
  ): number {
    const signature = this.#signature
    if (signature === undefined) return super.write(hi, lo, from, at, chunk, stride, total)
    return this.#visit(signature, hi, lo, total, (unit, done) => {
      const { data, image } = this.#shop
      const { index, dataFrom, dataTo, sigFrom, sigTo } = unit
      copyIn(from, at, chunk, stride, done, data.bytes, dataTo - dataFrom)
      const errno = this.#writeData(signature, dataFrom, dataTo)
      if (errno !== 0 || sigTo === sigFrom) return errno
      copyIn(from, at, chunk, stride, done + dataTo - dataFrom, image.bytes, sigTo - sigFrom)
      const partial = this.#partialOf(index)
      partial.set(image.bytes.subarray(0, sigTo - sigFrom), sigFrom)
      return sigTo === signature.wire!.bytes ? this.#endWireBlock(signature, index, partial) : 0
    })
  }

  override compareSwap(
    hi: number,
    lo: number,
    compareHi: number,
    compareLo: number,
    swapHi: number,
    swapLo: number,
    original: Uint32Array,
  ): number {
    if (this.#signature !== undefined) return Errno.EFAULT
    return super.compareSwap(hi, lo, compareHi, compareLo, swapHi, swapLo, original)
  }

  override fetchAdd(hi: number, lo: number, addHi: number, addLo: number, original: Uint32Array): number {
    return this.#signature === undefined ? super.fetchAdd(hi, lo, addHi, addLo, original) : Errno.EFAULT
  }

  #psvOf({ psv }: Domain): Psv | undefined {
    const found = this.#shop.psvs.get(psv)
    return found?.pd === this.#pd ? found : undefined
  }

  /** Calls `visit` for each block of a range; `done`: bytes of the range before it. Stops with the first errno. */
  #visit(
    { memory, wire }: Signature,
    hi: number,
    lo: number,
    total: number,
    visit: (unit: Unit, done: number) => number,
  ): number {
    const start = hi * TWO_32 + lo
    if (start + total > this.#wireBytes) return Errno.EFAULT
    for (const domain of [memory, wire])
      if (domain !== undefined && this.#psvOf(domain) === undefined) return Errno.EFAULT
    const block = (wire ?? memory)?.block ?? LARGEST_BLOCK
    const whole = block + (wire?.bytes ?? 0)
    for (let done = 0; done < total; ) {
      const index = Math.floor((start + done) / whole)
      const from = start + done - index * whole
      const to = Math.min(whole, from + total - done)
      const dataFrom = index * block + Math.min(from, block)
      const dataTo = index * block + Math.min(to, block)
      const sigFrom = Math.max(0, from - block)
      const sigTo = Math.max(0, to - block)
      const errno = visit({ index, dataFrom, dataTo, sigFrom, sigTo, loadedFrom: dataFrom }, done)
      if (errno !== 0) return errno
      done += to - from
    }
    return 0
  }

  /** Where data are in memory. */
  #place(offset: number): number {
    const { memory } = this.#signature!
    return memory === undefined ? offset : spread(offset, memory)
  }

  /**
   * Reads data to the beginning of `data`; signatures in memory of blocks that end there go to `signatures`, one behind
   * the other.
   */
  #load(from: number, to: number, signatures?: Uint8Array): number {
    const { image, data } = this.#shop
    const { memory } = this.#signature!
    const first = this.#place(from)
    // with the signature of a block that ends at `to`
    const size = this.#place(to) - first
    const target = memory === undefined ? data : image
    const errno = super.read(Math.floor(first / TWO_32), first >>> 0, target, 0, size, size, size)
    if (errno !== 0 || memory === undefined) return errno
    let count = 0
    for (let at = from; at < to; ) {
      const end = Math.min(to, (Math.floor(at / memory.block) + 1) * memory.block)
      const place = this.#place(at) - first
      data.bytes.set(image.bytes.subarray(place, place + end - at), at - from)
      at = end
      if (end % memory.block !== 0 || signatures === undefined) continue
      const after = this.#place(end) - first
      signatures.set(image.bytes.subarray(after - memory.bytes, after), count++ * memory.bytes)
    }
    return 0
  }

  /** Data of a block to `data`, and its signature of the wire to `image`, as far as the unit has them. */
  #readUnit(signature: Signature, unit: Unit): number {
    const { memory, wire, check } = signature
    const { index, dataFrom, dataTo, sigFrom, sigTo } = unit
    const { data, image } = this.#shop
    const needsValue = sigTo > sigFrom
    const isChecked = memory !== undefined && (check.hi | check.lo) !== 0
    let from = dataFrom
    let to = dataTo
    let firstBlock = 0
    let lastBlock = 0
    if (isChecked) {
      firstBlock = Math.floor(dataFrom / memory.block)
      lastBlock = Math.floor(dataTo / memory.block)
      if (lastBlock > firstBlock) from = firstBlock * memory.block
    }
    if (needsValue) {
      from = Math.min(from, index * wire!.block)
      to = (index + 1) * wire!.block
    }
    unit.loadedFrom = from
    if (to === from) return 0
    const errno = this.#load(from, to, loadedSignatures)
    if (errno !== 0) return errno
    if (isChecked) {
      const firstLoaded = Math.floor(from / memory.block)
      for (let block = firstBlock; block < lastBlock; block++) {
        computeValue(memory, this.#psvOf(memory)!, block, data, block * memory.block - from, this.#computed)
        decodeValue(memory, loadedSignatures, (block - firstLoaded) * memory.bytes, this.#read)
        this.#compare(signature, memory, block)
      }
    }
    if (!needsValue) return 0
    computeValue(wire!, this.#psvOf(wire!)!, index, data, index * wire!.block - from, this.#computed)
    if ((signature.copy.hi | signature.copy.lo) !== 0) {
      const place = (index - Math.floor(from / memory!.block)) * memory!.bytes
      decodeValue(memory!, loadedSignatures, place, this.#read)
      mergeValue(this.#computed, this.#read, signature.copy)
    }
    encodeValue(wire!, this.#computed, image.bytes, 0)
    return 0
  }

  /** Writes the data at the beginning of `data`, and the signatures in memory of the blocks that end there. */
  #writeData(signature: Signature, from: number, to: number): number {
    const { memory, wire, copy } = signature
    const { data } = this.#shop
    if (memory === undefined) return this.#writeMemory(from, data, 0, to - from)
    for (let at = from; at < to; ) {
      const end = Math.min(to, (Math.floor(at / memory.block) + 1) * memory.block)
      const errno = this.#writeMemory(this.#place(at), data, at - from, end - at)
      if (errno !== 0) return errno
      at = end
    }
    // signatures that are copied come later
    if (wire !== undefined && (copy.hi | copy.lo) !== 0) return 0
    for (let block = Math.floor(from / memory.block); block < Math.floor(to / memory.block); block++) {
      const errno = this.#writeSignature(memory, block)
      if (errno !== 0) return errno
    }
    return 0
  }

  /** Writes the signature in memory of a block; `copied`: bits of it. */
  #writeSignature(memory: Domain, block: number, copied?: Uint32Array): number {
    const { data, image } = this.#shop
    const errno = this.#load(block * memory.block, (block + 1) * memory.block)
    if (errno !== 0) return errno
    computeValue(memory, this.#psvOf(memory)!, block, data, 0, this.#computed)
    if (copied !== undefined) mergeValue(this.#computed, copied, this.#signature!.copy)
    encodeValue(memory, this.#computed, image.bytes, 0)
    return this.#writeMemory(this.#place((block + 1) * memory.block) - memory.bytes, image, 0, memory.bytes)
  }

  #writeMemory(place: number, from: Arena, at: number, size: number): number {
    if (size === 0) return 0
    return super.write(Math.floor(place / TWO_32), place >>> 0, from, at, size, size, size)
  }

  /** The signature of a block on the wire, as far as it has arrived. */
  #partialOf(index: number): Uint8Array {
    const known = this.#partial.get(index)
    if (known !== undefined) return known
    if (this.#partial.size === MAX_PARTIAL) this.#partial.delete(this.#partial.keys().next().value!)
    const partial = new Uint8Array(LARGEST_SIGNATURE)
    this.#partial.set(index, partial)
    return partial
  }

  /** A block has arrived with its signature. */
  #endWireBlock(signature: Signature, index: number, partial: Uint8Array): number {
    const { memory, check, copy } = signature
    const wire = signature.wire!
    this.#partial.delete(index)
    const copied = Uint32Array.of(0, 0)
    decodeValue(wire, partial, 0, copied)
    if ((check.hi | check.lo) !== 0) {
      const errno = this.#load(index * wire.block, (index + 1) * wire.block)
      if (errno !== 0) return errno
      computeValue(wire, this.#psvOf(wire)!, index, this.#shop.data, 0, this.#computed)
      this.#read.set(copied)
      this.#compare(signature, wire, index)
    }
    return (copy.hi | copy.lo) === 0 ? 0 : this.#writeSignature(memory!, index, copied)
  }

  /** Compares `#read` with `#computed`. */
  #compare(signature: Signature, domain: Domain, block: number): void {
    const psv = this.#psvOf(domain)!
    if (!this.#accessor.isActive) return
    const fault = psv.isFailed ? SigFault.NONE : compareValues(domain, signature, this.#read, this.#computed)
    if (fault === SigFault.NONE) return
    psv.isFailed = true
    const report = {
      key: this.key,
      fault,
      isWire: domain === signature.wire,
      expected: [this.#read[0]!, this.#read[1]!],
      actual: [this.#computed[0]!, this.#computed[1]!],
      offset: block * (domain.block + domain.bytes),
    } as const
    this.#shop.report(report, this.#accessor)
  }
}

/** Signatures in memory of the blocks that were loaded last. */
const loadedSignatures = new Uint8Array(SCRATCH_BYTES)

/**
 * A part of a block: data, and bytes of its signature on the wire. `loadedFrom`: the data at the beginning of `data`.
 */
interface Unit {
  readonly index: number
  readonly dataFrom: number
  readonly dataTo: number
  readonly sigFrom: number
  readonly sigTo: number
  loadedFrom: number
}

const isWireOnly = (signature: Signature | undefined): boolean =>
  signature?.wire !== undefined && signature.memory === undefined

/** Copies `size` bytes to byte `done` of a strided range. */
const copyOut = (
  from: Uint8Array,
  fromAt: number,
  size: number,
  to: Bytes,
  at: number,
  chunk: number,
  stride: number,
  done: number,
): void => {
  for (let copied = 0; copied < size; ) {
    const position = done + copied
    const inChunk = position % chunk
    const count = Math.min(size - copied, chunk - inChunk)
    const target = at + Math.floor(position / chunk) * stride + inChunk
    to.bytes.set(from.subarray(fromAt + copied, fromAt + copied + count), target)
    copied += count
  }
}

/** Copies `size` bytes from byte `done` of a strided range. */
const copyIn = (
  from: Bytes,
  at: number,
  chunk: number,
  stride: number,
  done: number,
  to: Uint8Array,
  size: number,
): void => {
  for (let copied = 0; copied < size; ) {
    const position = done + copied
    const inChunk = position % chunk
    const count = Math.min(size - copied, chunk - inChunk)
    const source = at + Math.floor(position / chunk) * stride + inChunk
    to.set(from.bytes.subarray(source, source + count), copied)
    copied += count
  }
}
