/*
 * Rows "codec": writing and reading the headers of an RDMA WRITE (BTH, RETH) with the accessors of src/transport/wire, compared
 * with Buffer's write* and read* methods and a BigInt address.
 */
import { plainArena } from '../src/transport/wire/arena.ts'
import {
  BTH_ACKREQ,
  BTH_BYTES,
  BTH_MIGREQ,
  bthAckReq,
  bthDestQp,
  bthFlags,
  bthOpcode,
  bthPkey,
  bthPsn,
  putBth,
} from '../src/transport/wire/bth.ts'
import { putReth, rethDmaLen, rethRkey, rethVaHi, rethVaLo } from '../src/transport/wire/extensions.ts'
import type { Bench, Row } from './harness/harness.ts'
import { type Body, perCall } from './loops.ts'

/** RC RDMA_WRITE_ONLY. */
const OPCODE = 0x0a
const PKEY = 0xffff
/** Bytes of a slot for the headers of one packet. */
const SLOT_BYTES = 64
const SLOTS = 64
const { view, bytes } = plainArena(SLOT_BYTES * SLOTS)
const buffer = Buffer.from(bytes.buffer)
/** The offset of the slot of repetition `i`. */
const slotOffset = (i: number): number => (i & (SLOTS - 1)) * SLOT_BYTES

const addresses = Array.from({ length: SLOTS }, (_, i) => 0x7f12_3456_0000n + BigInt(i) * 4096n)
const addressHi = Uint32Array.from(addresses, address => Number(address >> 32n))
const addressLo = Uint32Array.from(addresses, address => Number(address & 0xffff_ffffn))

const encode: Body = times => {
  for (let i = 0; i < times; i++) {
    const header = slotOffset(i)
    const slot = i & (SLOTS - 1)
    putBth(view, header, OPCODE, BTH_MIGREQ, PKEY, i & 0xff_ffff, (i & 0xff_ffff) | BTH_ACKREQ)
    putReth(view, header + BTH_BYTES, addressHi[slot], addressLo[slot], i, 4096)
  }
  return bytes[8]
}

/** Offsets from 12: virtual address, rkey and DMA length of the RETH. */
const encodeWithBuffer: Body = times => {
  for (let i = 0; i < times; i++) {
    const header = slotOffset(i)
    buffer.writeUInt8(OPCODE, header)
    buffer.writeUInt8(BTH_MIGREQ, header + 1)
    buffer.writeUInt16BE(PKEY, header + 2)
    buffer.writeUInt32BE(i & 0xff_ffff, header + 4)
    buffer.writeUInt32BE(((i & 0xff_ffff) | BTH_ACKREQ) >>> 0, header + 8)
    buffer.writeBigUInt64BE(addresses[i & (SLOTS - 1)], header + 12)
    buffer.writeUInt32BE(i, header + 20)
    buffer.writeUInt32BE(4096, header + 24)
  }
  return buffer[8]
}

const decode: Body = times => {
  let sum = 0
  for (let i = 0; i < times; i++) {
    const header = slotOffset(i)
    const reth = header + BTH_BYTES
    sum +=
      bthOpcode(view, header) +
      bthFlags(view, header) +
      bthPkey(view, header) +
      bthDestQp(view, header) +
      bthPsn(view, header)
    sum += rethVaHi(view, reth) + rethVaLo(view, reth) + rethRkey(view, reth) + rethDmaLen(view, reth)
    if (bthAckReq(view, header)) sum++
  }
  return sum
}

const decodeWithBuffer: Body = times => {
  let sum = 0
  for (let i = 0; i < times; i++) {
    const header = slotOffset(i)
    sum += buffer.readUInt8(header) + buffer.readUInt8(header + 1) + buffer.readUInt16BE(header + 2)
    sum += (buffer.readUInt32BE(header + 4) & 0xff_ffff) + (buffer.readUInt32BE(header + 8) & 0xff_ffff)
    const address = buffer.readBigUInt64BE(header + 12)
    sum +=
      Number(address >> 32n) +
      Number(address & 0xffff_ffffn) +
      buffer.readUInt32BE(header + 20) +
      buffer.readUInt32BE(header + 24)
    // The AckReq bit, above the PSN.
    if (buffer.readUInt8(header + 8) & 0x80) sum++
  }
  return sum
}

const compare = (ours: Body, reference: Body): Bench => ({ ours: perCall(ours), reference: perCall(reference) })

export const codecRows: readonly Row[] = [
  {
    name: 'codec encode',
    quantity: 'codec: encode BTH+RETH',
    unit: 'ns',
    better: 'lower',
    cores: 1,
    reference: 'Buffer.write*',
    floor: 0.25,
    aim: 0.1,
    prepare: () => compare(encode, encodeWithBuffer),
  },
  {
    name: 'codec decode',
    quantity: 'codec: decode BTH+RETH',
    unit: 'ns',
    better: 'lower',
    cores: 1,
    reference: 'Buffer.read*',
    floor: 0.25,
    aim: 0.25,
    prepare: () => {
      // Makes headers for `decode`.
      encode(SLOTS)
      return compare(decode, decodeWithBuffer)
    },
  },
]
