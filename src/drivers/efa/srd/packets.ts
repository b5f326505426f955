/*
 * The headers of SRD packets (spec/wire/headers.ts) for hot code.
 */

import { EfaOperation } from '../../../spec/drivers/efa-queues.ts'
import { DEFAULT_PKEY, ICRC_BYTES } from '../../../spec/wire/headers.ts'
import { headerAt, opcodeHeaderBytes, opcodeNumber } from '../../../spec/wire/opcodes.ts'
import { BTH_BYTES, BTH_PAD_SHIFT, putBth } from '../../../transport/wire/bth.ts'
import { putReth } from '../../../transport/wire/extensions.ts'
import type { Request } from '../state.ts'

export const Opcode = {
  SEND: opcodeNumber.SRD_SEND,
  SEND_IMM: opcodeNumber.SRD_SEND_IMM,
  WRITE: opcodeNumber.SRD_WRITE,
  WRITE_IMM: opcodeNumber.SRD_WRITE_IMM,
  READ: opcodeNumber.SRD_READ,
  READ_DATA: opcodeNumber.SRD_READ_DATA,
  ACK: opcodeNumber.SRD_ACK,
  REFUSE: opcodeNumber.SRD_REFUSE,
} as const

/** `Request.operation` of the data of a READ, which a responder sends. */
export const READ_DATA = 16

const SRDETH = BTH_BYTES
export const ACK_BYTES = opcodeHeaderBytes[Opcode.ACK]! + ICRC_BYTES
export const REFUSE_BYTES = opcodeHeaderBytes[Opcode.REFUSE]! + ICRC_BYTES

export const opcodeOf = ({ operation, hasImm }: Request): number => {
  if (operation === EfaOperation.SEND) return hasImm ? Opcode.SEND_IMM : Opcode.SEND
  if (operation === EfaOperation.RDMA_WRITE) return hasImm ? Opcode.WRITE_IMM : Opcode.WRITE
  return operation === EfaOperation.RDMA_READ ? Opcode.READ : Opcode.READ_DATA
}

/** Bytes of a packet with `length` bytes of payload. */
export const packetBytes = (opcode: number, length: number): number =>
  opcodeHeaderBytes[opcode]! + ((length + 3) & ~3) + ICRC_BYTES

export const payloadAt = (opcode: number): number => opcodeHeaderBytes[opcode]!

/** Writes all headers of a packet of `request` with `length` bytes of payload from byte `offset` of the message on. */
export const putHeaders = (
  view: DataView,
  at: number,
  opcode: number,
  request: Request,
  epoch: number,
  psn: number,
  offset: number,
  length: number,
): void => {
  const { qp } = request
  putBth(view, at, opcode, (-length & 3) << BTH_PAD_SHIFT, DEFAULT_PKEY, request.destQpn, psn)
  view.setUint32(at + SRDETH, request.qkey)
  view.setUint32(at + SRDETH + 4, qp.qpn)
  view.setUint32(at + SRDETH + 8, epoch)
  view.setUint32(at + SRDETH + 12, request.message)
  view.setUint32(at + SRDETH + 16, offset)
  view.setUint32(at + SRDETH + 20, request.length)
  const reth = headerAt.RETH[opcode]!
  if (reth > 0) putReth(view, at + reth, request.remoteHi, request.remoteLo, request.rkey, request.length)
  const imm = headerAt.ImmDt[opcode]!
  if (imm > 0) view.setUint32(at + imm, request.imm)
}

export const srdQkey = (view: DataView, at: number): number => view.getUint32(at + SRDETH)
export const srdSource = (view: DataView, at: number): number => view.getUint32(at + SRDETH + 4) & 0xff_ffff
export const srdEpoch = (view: DataView, at: number): number => view.getUint32(at + SRDETH + 8)
export const srdMessage = (view: DataView, at: number): number => view.getUint32(at + SRDETH + 12)
export const srdOffset = (view: DataView, at: number): number => view.getUint32(at + SRDETH + 16)
export const srdLength = (view: DataView, at: number): number => view.getUint32(at + SRDETH + 20)

/** An acknowledgement to queue pair `qpn`, whose epoch was `epoch`. `bits`: four words, the lowest first. */
export const putAck = (
  view: DataView,
  at: number,
  qpn: number,
  sourceQpn: number,
  epoch: number,
  psn: number,
  bits: Uint32Array,
): void => {
  putBth(view, at, Opcode.ACK, 0, DEFAULT_PKEY, qpn, psn)
  view.setUint32(at + BTH_BYTES, sourceQpn)
  view.setUint32(at + BTH_BYTES + 4, epoch)
  for (let i = 0; i < 4; i++) view.setUint32(at + BTH_BYTES + 8 + 4 * i, bits[3 - i]!)
}
export const ackSource = (view: DataView, at: number): number => view.getUint32(at + BTH_BYTES) & 0xff_ffff
export const ackEpoch = (view: DataView, at: number): number => view.getUint32(at + BTH_BYTES + 4)
/** Word `i` of the bits, the lowest first. */
export const ackWord = (view: DataView, at: number, i: number): number =>
  view.getUint32(at + BTH_BYTES + 8 + 4 * (3 - i))

/** Refuses packet `psn` of queue pair `qpn`. `status`: `EfaStatus`. */
export const putRefusal = (
  view: DataView,
  at: number,
  qpn: number,
  sourceQpn: number,
  epoch: number,
  psn: number,
  status: number,
  message: number,
): void => {
  putBth(view, at, Opcode.REFUSE, 0, DEFAULT_PKEY, qpn, psn)
  view.setUint32(at + BTH_BYTES, ((status << 24) | sourceQpn) >>> 0)
  view.setUint32(at + BTH_BYTES + 4, epoch)
  view.setUint32(at + BTH_BYTES + 8, message)
}
export const refusalStatus = (view: DataView, at: number): number => view.getUint8(at + BTH_BYTES)
