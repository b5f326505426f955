/*
 * Fast path for MIDDLE packets, the bulk of long messages (InfiniBand Architecture Specification, volume 1, clauses
 * 9.7.4 and 9.7.5). They have only a BTH (XRC requests also an XRCETH). As many packets as continue the current WRITE,
 * or the response to the oldest READ, are checked and handled in one step. All other packets take the full checks of
 * transport/engine/responder/responder.ts or transport/engine/completer/completer.ts.
 * state.ts explains short names such as `row`, `base` and `request`.
 */

import { ICRC_BYTES } from '../../spec/wire/headers.ts'
import { headerAt, OPERATION_MASK, opcodeHeaderBytes, operationCode } from '../../spec/wire/opcodes.ts'
import { serviceBits } from '../../spec/wire/services.ts'
import { SendKind } from '../../spec/work.ts'
import type { Arena } from '../wire/arena.ts'
import { BTH_ACKREQ, bthDestQp, bthOpcode, PKEY_FULL_MEMBER } from '../wire/bth.ts'
import { xrcethSrq } from '../wire/extensions.ts'
import { receiveReadMiddles } from './completer/completer.ts'
import { setPayloads } from './dma.ts'
import { QP, RespFlag, WQE } from './fields.ts'
import { PSN_MASK, psnDistance } from './psn.ts'
import { scheduleAck } from './responder/responder.ts'
import { receiveWrite } from './responder/send-write.ts'
import { type EngineState, pkeyOf, readPartPackets } from './state.ts'

const { WRITE, READ } = SendKind
const { WRITE_MIDDLE, READ_RESP_MIDDLE } = operationCode
const HEADER_BYTES = opcodeHeaderBytes
const XRCETH_AT = headerAt.XRCETH

/** Bits of the BTH's first word that are compared: opcode, pad count, version, and P_Key. SE and MigReq may differ. */
const PLAIN_MASK = 0xff3f_ffff | 0
/** As well, where the own P_Key is a full member's: the packet's membership bit. */
const ANY_MEMBER_MASK = PLAIN_MASK & ~PKEY_FULL_MEMBER

/**
 * Counts the packets from `at` on that are for the row and have this opcode and consecutive PSNs from `psn` on. Each
 * has `size` bytes; at most `max` are counted. Sets `s.result.isAckRequested` if one of them has AckReq.
 */
const countMatching = (
  s: EngineState,
  base: number,
  view: DataView,
  at: number,
  size: number,
  max: number,
  opcode: number,
  psn: number,
): number => {
  const w = s.rows
  const qpn = w[base + QP.QPN]
  const pkey = pkeyOf(s, base)
  const mask = (pkey & PKEY_FULL_MEMBER) === 0 ? PLAIN_MASK : ANY_MEMBER_MASK
  const firstWord = ((opcode << 24) | pkey | PKEY_FULL_MEMBER) & mask
  const xrceth = XRCETH_AT[opcode]
  let nextPsn = psn
  let ackBits = 0
  let count = 0
  for (let bth = at; count < max; count++, bth += size) {
    // the third word of a BTH: AckReq and PSN
    const word = view.getUint32(bth + 8)
    if ((view.getUint32(bth) & mask) !== firstWord || bthDestQp(view, bth) !== qpn || (word & PSN_MASK) !== nextPsn)
      break
    if (xrceth !== 0 && xrcethSrq(view, bth + xrceth) !== w[base + QP.RESP_SRQN]) break
    ackBits |= word
    nextPsn = (nextPsn + 1) & PSN_MASK
  }
  s.result.isAckRequested = (ackBits & BTH_ACKREQ) !== 0
  return count
}

/**
 * Handles the packets at `at` that are the next MIDDLEs of the current message: at most `count`, of `size` bytes each.
 * Returns their number; the next packet needs the full checks. The caller has checked the row's peer, and
 * that the state is at least RTR and not ERR.
 */
export const onMiddles = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  size: number,
  count: number,
  now: number,
): number => {
  const operation = bthOpcode(arena.view, at) & OPERATION_MASK
  if (operation === WRITE_MIDDLE) return onWriteMiddles(s, row, arena, at, size, count)
  if (operation === READ_RESP_MIDDLE) return onReadMiddles(s, row, arena, at, size, count, now)
  return 0
}

const onWriteMiddles = (s: EngineState, row: number, arena: Arena, at: number, size: number, count: number): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const mtu = w[base + QP.MTU]
  const opcode = serviceBits[w[base + QP.SERVICE]] | WRITE_MIDDLE
  const headerBytes = HEADER_BYTES[opcode]
  if (w[base + QP.RESP_MESSAGE] !== WRITE || size !== headerBytes + mtu + ICRC_BYTES) return 0
  const remainingBytes = w[base + QP.RESP_WRITE_LEFT] >>> 0
  // The last packet of the message is not a MIDDLE.
  const middles = Math.ceil(remainingBytes / mtu) - 1
  const max = middles < count ? middles : count
  const matching = countMatching(s, base, arena.view, at, size, max, opcode, w[base + QP.RESP_EPSN])
  if (matching === 0) return 0
  w[base + QP.RESP_FLAGS] &= ~(RespFlag.NAK_SENT | RespFlag.NAK_DUE)
  setPayloads(s, arena, at + headerBytes, mtu, size, matching)
  // The flags 0: neither start nor end of the message, and no immediate. The result 0: the WRITE has failed with the
  // first of these packets. The full checks drop and count the others.
  if (receiveWrite(s, row, 0, matching, 0, false, false) === 0) return 1
  scheduleAck(s, row, s.result.isAckRequested)
  return matching
}

const onReadMiddles = (
  s: EngineState,
  row: number,
  arena: Arena,
  at: number,
  size: number,
  count: number,
  now: number,
): number => {
  const w = s.rows
  const base = row * QP.WORDS
  const state = w[base + QP.STATE]
  const mtu = w[base + QP.MTU]
  const opcode = serviceBits[w[base + QP.SERVICE]] | READ_RESP_MIDDLE
  const headerBytes = HEADER_BYTES[opcode]
  const request = w[base + QP.REQ_HEAD]
  if (request === 0 || size !== headerBytes + mtu + ICRC_BYTES) return 0
  if (s.pool[request + WQE.KIND] !== READ) return 0
  const unacked = w[base + QP.COMP_PSN]
  const done = psnDistance(s.pool[request + WQE.FIRST_PSN], unacked)
  // The last packet of the response, or of a part, is not a MIDDLE.
  const part = readPartPackets(s, mtu)
  const middles = Math.min(s.pool[request + WQE.PSNS] - done - 1, part - (done % part) - 1)
  const requested = psnDistance(unacked, w[base + QP.REQ_MAX_PSN])
  const max = Math.min(middles, count, requested)
  const matching = countMatching(s, base, arena.view, at, size, max, opcode, unacked)
  if (matching === 0) return 0
  setPayloads(s, arena, at + headerBytes, mtu, size, matching)
  const received = receiveReadMiddles(s, row, done, now)
  // If the READ has failed, then with the first of these packets.
  return s.rows[base + QP.STATE] === state ? received : 1
}
