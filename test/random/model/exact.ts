/*
 * An attacker that knows all PSNs and keys sends one packet to an idle RC queue pair. With right fields the packet
 * takes effect once; with a wrong field it has no effect or moves the queue pair to ERR. Afterwards the PSNs of the
 * ends differ, and the pair is reset.
 */
import assert from 'node:assert/strict'
import { QpState } from '../../../src/spec/enums.ts'
import { type PacketSpec, packet } from '../../transport/engine/script.ts'
import { type End, TARGET_BYTES, WORDS } from './pair.ts'
import type { RandomSource } from './random.ts'
import { badKey } from './requests.ts'

const { RTS, SQD, ERR } = QpState.values

/** 'write': data in the target; 'message': a received message; 'word': a changed atomic word; 'read': a response. */
type Effect = 'write' | 'message' | 'word' | 'read' | 'none' | 'error'

interface Attack {
  readonly name: string
  readonly packet: string
  readonly effect: Effect
  /** The packet's PSN minus the expected PSN. */
  readonly psn: number
  change?(spec: PacketSpec, end: End, random: RandomSource): void
}

const wrongKey = (spec: PacketSpec, _end: End, random: RandomSource): void => {
  spec.rkey = badKey(random)
}
const readOnly = (spec: PacketSpec, end: End): void => {
  spec.rkey = end.sourceKey
  spec.remote = end.areas.source
}
const attacks: readonly Attack[] = [
  { name: 'WRITE', packet: 'WRITE_ONLY', effect: 'write', psn: 0 },
  { name: 'WRITE with an earlier PSN', packet: 'WRITE_ONLY', effect: 'none', psn: -1 },
  { name: 'WRITE with a later PSN', packet: 'WRITE_ONLY', effect: 'none', psn: 1 },
  { name: 'WRITE with the most distant PSN', packet: 'WRITE_ONLY', effect: 'none', psn: 0x80_0000 },
  { name: 'WRITE, wrong key', packet: 'WRITE_ONLY', effect: 'error', psn: 0, change: wrongKey },
  { name: 'WRITE, read-only key', packet: 'WRITE_ONLY', effect: 'error', psn: 0, change: readOnly },
  { name: 'WRITE, wrong key, with an earlier PSN', packet: 'WRITE_ONLY', effect: 'none', psn: -3, change: wrongKey },
  { name: 'MIDDLE without a FIRST', packet: 'WRITE_MIDDLE', effect: 'error', psn: 0 },
  { name: 'SEND', packet: 'SEND_ONLY', effect: 'message', psn: 0 },
  { name: 'SEND with an earlier PSN', packet: 'SEND_ONLY', effect: 'none', psn: -1 },
  { name: 'FETCH_ADD', packet: 'FETCH_ADD', effect: 'word', psn: 0 },
  { name: 'FETCH_ADD with an earlier PSN', packet: 'FETCH_ADD', effect: 'none', psn: -1 },
  { name: 'FETCH_ADD, wrong key', packet: 'FETCH_ADD', effect: 'error', psn: 0, change: wrongKey },
  { name: 'READ', packet: 'READ_REQUEST', effect: 'read', psn: 0 },
  { name: 'READ, wrong key', packet: 'READ_REQUEST', effect: 'error', psn: 0, change: wrongKey },
  { name: 'a response without a request', packet: 'READ_RESP_ONLY', effect: 'none', psn: 0 },
  { name: 'an acknowledgement without a request', packet: 'ACKNOWLEDGE', effect: 'none', psn: 5 },
]

const ADDED = 0x1_0000_0001n

/** A random attack on `end`. `check` asserts its effect, after the packet was delivered. */
export const attack = (end: End, random: RandomSource) => {
  const chosen = random.pick(attacks)
  const { memory, engine } = end.host
  const isAtomic = chosen.packet === 'FETCH_ADD'
  const isWrite = chosen.packet.startsWith('WRITE')
  const data = new Uint8Array(chosen.packet === 'WRITE_MIDDLE' ? end.pair.mtu : 1 + random.int(200))
  random.fill(data)
  const word = random.int(WORDS)
  const offset = isAtomic ? TARGET_BYTES + 8 * word : random.int(TARGET_BYTES - data.length)
  const spec: PacketSpec = {
    remote: end.areas.target + offset,
    rkey: end.target.key,
    ackReq: true,
    dmaLen: data.length,
  }
  if (isWrite || chosen.packet === 'SEND_ONLY') spec.payload = data
  if (isAtomic) spec.swap = ADDED
  chosen.change?.(spec, end, random)
  const before = engine.query(end.row)
  /** The target, and the atomic words after it. */
  const readTarget = () => memory.bytes.slice(end.areas.target, end.areas.target + TARGET_BYTES + 8 * WORDS)
  const expected = readTarget()
  const { received } = end
  const hasReceive = end.host.queues[end.row].receives.length > 0
  return {
    name: chosen.name,
    bytes: packet(chosen.packet, before.rqPsn + chosen.psn, spec, end.qpn),
    check(): void {
      const after = engine.query(end.row)
      const isReceived = chosen.effect === 'message' && hasReceive
      const isAccepted = ['write', 'word', 'read'].includes(chosen.effect) || isReceived
      const view = new DataView(expected.buffer)
      if (chosen.effect === 'write') expected.set(data, offset)
      if (chosen.effect === 'word')
        view.setBigUint64(offset, BigInt.asUintN(64, view.getBigUint64(offset, true) + ADDED), true)
      assert.ok(Buffer.compare(readTarget(), expected) === 0, `${end.name}: ${chosen.name}: the target`)
      assert.equal(after.state === ERR, chosen.effect === 'error', `${end.name}: ${chosen.name}: state ${after.state}`)
      if (chosen.effect === 'error') return
      assert.equal(
        after.rqPsn,
        (before.rqPsn + (isAccepted ? 1 : 0)) & 0xff_ffff,
        `${end.name}: ${chosen.name}: next PSN`,
      )
      assert.equal(end.received, received + (isReceived ? 1 : 0), chosen.name)
      if (!isReceived) return
      const { at } = end.receives[received].sges[0]
      assert.deepEqual(memory.bytes.slice(at, at + data.length), data, `${end.name}: ${chosen.name}: the message`)
    },
  }
}

/** Whether the effect of an attack is known. */
export const canBeAttacked = (end: End): boolean => {
  const { state } = end.host.engine.query(end.row)
  return state === RTS || state === SQD
}
