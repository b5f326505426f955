/*
 * Fuzz target of the agents on queue pair 1: datagrams of a hostile peer for agents with and without RMPP, between
 * messages that those send themselves, in virtual time (src/mad). An input is a program of pieces {u8 flags, u8 time that
 * passes, u16 bytes, u16 0, u16 0}, bytes.
 */
import assert from 'node:assert/strict'
import type { AgentOptions } from '../../src/mad/agent.ts'
import { MAD_BYTES } from '../../src/spec/wire/mad.ts'
import { MadMethod, RmppType } from '../../src/spec/wire/management.ts'
import { answerRmpp, parseRmpp, respond } from '../../src/wire/management.ts'
import { longMessage, Pair, plainMad, SECOND } from '../mad/pair.ts'
import { HEADER, splitProgram } from './calls.ts'
import type { Target } from './fuzzer.ts'

const { GET, GET_TABLE, RESPONSE } = MadMethod
const SA = 3

const agents: readonly Partial<AgentOptions>[] = [{}, { rmpp: false }, { rmpp: false, ownRmpp: true }]

/** Flags of a piece. AGENT: which agent; SEND: it sends a message as long as the bytes; KNOWN: about what was sent last. */
const Flag = { AGENT: 3, SEND: 4, KNOWN: 8 } as const
const TICK = SECOND / 4
/** Of a message that is sent, for each byte of the piece. */
const SPREAD = 16

const piece = (flags: number, bytes: Uint8Array, time = 0): Uint8Array => {
  const made = new Uint8Array(HEADER + bytes.length)
  made.set([flags, time])
  new DataView(made.buffer).setUint16(2, bytes.length, true)
  made.set(bytes, HEADER)
  return made
}

const seeds = (): Uint8Array[] => {
  const { KNOWN, SEND } = Flag
  const pair = new Pair()
  pair.send(pair.a, longMessage(GET_TABLE, 7, 500), 0)
  const first = pair.wire[0]!.mad
  pair.settle()
  const next = first.slice()
  next.set([1], 26)
  next.set([0, 0, 0, 2], 28)
  const last = next.slice()
  last.set([5], 26)
  last.set([0, 0, 0, 3], 28)
  const ack = (segment: number, window: number) =>
    answerRmpp(first, { type: RmppType.ACK, segment, lengthOrWindow: window })
  const scripts = [
    [piece(0, first), piece(0, next), piece(0, last), piece(0, last)],
    [piece(SEND, new Uint8Array(60)), piece(KNOWN, ack(1, 65)), piece(KNOWN, ack(5, 65)), piece(KNOWN, ack(5, 65), 9)],
    [piece(SEND, new Uint8Array(3)), piece(KNOWN, respond(plainMad(SA, GET, 1), 0))],
    [piece(SEND, new Uint8Array(90)), piece(KNOWN, answerRmpp(first, { type: RmppType.ABORT, status: 118 }))],
    [piece(0, first), piece(0, ack(0, 9)), piece(0, answerRmpp(first, { type: RmppType.STOP, status: 1 }), 200)],
    [piece(1 | SEND, new Uint8Array(2)), piece(1 | KNOWN, respond(plainMad(SA, GET, 1), 12))],
    [piece(2, first), piece(2 | SEND, new Uint8Array(2))],
  ]
  return scripts.map(pieces => new Uint8Array(Buffer.concat(pieces)))
}

const target: Target = {
  name: 'agents',
  split: splitProgram,
  seeds,
  run(bytes, feature) {
    const pairs = agents.map(options => new Pair(options))
    let sent = 0
    for (const one of splitProgram(bytes)) {
      if (one.length < HEADER) continue
      const [flags, time] = [one[0]!, one[1]!]
      const pair = pairs[(flags & Flag.AGENT) % pairs.length]!
      const length = Math.min(one.length - HEADER, new DataView(one.buffer, one.byteOffset).getUint16(2, true))
      const { a } = pair
      pair.now += time * TICK
      a.engine.onTimeout(pair.now)
      if (flags & Flag.SEND) {
        const method = flags & 16 ? GET_TABLE | RESPONSE : GET_TABLE
        const message = longMessage(method, sent++, length * SPREAD)
        const isLong = a.engine.isTransfer(message, SA)
        pair.send(a, isLong ? message : message.slice(0, MAD_BYTES), flags & 32 ? 0 : SECOND, flags >> 6)
        continue
      }
      const mad = new Uint8Array(MAD_BYTES)
      mad.set(one.subarray(HEADER, HEADER + Math.min(length, MAD_BYTES)))
      const known = pair.wire.at(-1)
      if (known !== undefined && flags & Flag.KNOWN) mad.set(known.mad.subarray(8, 16), 8)
      const before = pair.wire.length
      a.engine.onMad(mad, pair.pathOf(a), pair.now)
      const answer = pair.wire.length > before ? parseRmpp(pair.wire.at(-1)!.mad) : undefined
      feature(((answer?.type ?? 0) << 8) | ((answer?.status ?? 0) & 0xff) | (Math.min(a.heard.length, 3) << 12))
    }
    for (const pair of pairs) {
      const { a } = pair
      for (let turns = 0; a.engine.nextTimeout() !== Number.POSITIVE_INFINITY; turns++) {
        assert.ok(turns < 10_000, 'timers without end')
        pair.now = Math.max(pair.now, a.engine.nextTimeout())
        a.engine.onTimeout(pair.now)
      }
      assert.equal(a.engine.outstanding, 0)
      assert.ok(a.ended.length <= sent)
      // Each datagram of the peer is answered at most by a window, or by one of ours sent again.
      assert.ok(pair.wire.length <= 100_000, `${pair.wire.length} datagrams sent`)
    }
  },
}

export const datagramTargets: readonly Target[] = [target]
