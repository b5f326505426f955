/*
 * Long messages (RMPP, IBA 13.6) as packet scripts in virtual time.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createRandom } from '../../../src/base/random.ts'
import { MAD_RECEIVED_SEGMENTS } from '../../../src/spec/classes/mad/mad_channel.ts'
import { MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import {
  MAD_HEADER_BYTES,
  MadMethod,
  RMPP_HEADER_END,
  RmppFlag,
  RmppStatus,
  RmppType,
} from '../../../src/spec/wire/management.ts'
import { answerRmpp, emitRmpp, parseRmpp } from '../../../src/transport/wire/mad/management.ts'
import { gid } from '../cm-engine/pair.ts'
import { longMessage, type OnWire, Pair, plainMad, SA_HEADERS, SECOND, segmentText, TID_LOW } from './pair.ts'

const { GET_TABLE, RESPONSE } = MadMethod
const RESPONSE_TABLE = GET_TABLE | RESPONSE
/** Data bytes in a segment of subnet administration. */
const SEGMENT_BYTES = 200
const SA = 3
/**
 * Offsets in a datagram: class version, method, RMPP flags (lower bits of the byte; the status follows), segment number
 * (u32), window or length (u32).
 */
const CLASS_VERSION = 2
const METHOD = 3
const FLAGS = 26
const SEGMENT = 28
const WINDOW = 32
/** Offset of the last byte of the transaction id's upper half, which names the agent. */
const TID_HIGH_END = TID_LOW - 1
const { ACTIVE, FIRST, LAST } = RmppFlag

/** Delivers all datagrams that are not lost; returns all datagrams in order. */
const script = (pair: Pair, isLost: (sent: OnWire) => boolean = () => false): string[] => {
  const seen: string[] = []
  for (let sent = pair.wire.shift(); sent !== undefined; sent = pair.wire.shift()) {
    const isThisLost = isLost(sent)
    seen.push(`${sent.to === pair.b ? '→' : '←'} ${segmentText(sent)}${isThisLost ? ' lost' : ''}`)
    if (!isThisLost) pair.deliver(sent)
  }
  return seen
}

/** Asserts that the message arrived, with the first 8 bytes of its MAD header. */
const assertWhole = (received: Uint8Array | undefined, message: Uint8Array): void => {
  assert.ok(received)
  assert.equal(received.length, message.length)
  assert.deepEqual(received.subarray(SA_HEADERS), message.subarray(SA_HEADERS))
  assert.deepEqual(received.subarray(0, 8), message.subarray(0, 8))
}

describe('a transfer', () => {
  it('sends one segment, then the window; the last segment has the length', () => {
    const pair = new Pair()
    pair.send(pair.b, plainMad(SA, GET_TABLE, 7), SECOND, 0, 'request')
    pair.settle()
    const message = longMessage(RESPONSE_TABLE, 7, 3 * SEGMENT_BYTES + 10)
    message[TID_HIGH_END] = pair.b.host
    pair.send(pair.a, message, 0)
    assert.deepEqual(script(pair), [
      '→ DATA 1 first of 690',
      '← ACK 1 window 65',
      '→ DATA 2',
      '→ DATA 3',
      '→ DATA 4 last of 30',
      '← ACK 4 window 65',
    ])
    assertWhole(pair.b.received[0]?.message, message)
    assert.deepEqual(pair.a.ended, [['message', 'sent']])
    assert.deepEqual(pair.b.ended, [['request', 'answered']])
  })

  it('ignores the RMPP header of the message, except the flag Active', () => {
    const pair = new Pair()
    const message = longMessage(GET_TABLE, 7, 2 * SEGMENT_BYTES)
    message.fill(0, MAD_HEADER_BYTES, RMPP_HEADER_END)
    message[FLAGS] = ACTIVE
    pair.send(pair.a, message, 0)
    assert.deepEqual(script(pair), [
      '→ DATA 1 first of 440',
      '← ACK 1 window 65',
      '→ DATA 2 last of 220',
      '← ACK 2 window 65',
    ])
    assertWhole(pair.b.received[0]?.message, message)

    const plain = plainMad(SA, GET_TABLE, 8)
    const withHeader = plain.slice()
    withHeader.set([9, RmppType.ABORT, FIRST, 5, 6, 7, 8], MAD_HEADER_BYTES)
    pair.send(pair.a, withHeader, 0)
    const [sent] = pair.wire
    assert.deepEqual(sent?.mad.subarray(MAD_HEADER_BYTES), plain.subarray(MAD_HEADER_BYTES))
    pair.settle()
    assert.equal(pair.b.received.length, 2)
  })

  it('is one segment if the message fits, also if empty', () => {
    for (const length of [0, 1, SEGMENT_BYTES]) {
      const pair = new Pair()
      const message = longMessage(GET_TABLE, 7, length)
      pair.send(pair.a, message, 0)
      assert.deepEqual(script(pair), [`→ DATA 1 first last of ${20 + length}`, '← ACK 1 window 1'])
      assertWhole(pair.b.received[0]?.message, message)
    }
  })

  it('gets a window of 64 more segments when its window is used', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, 140 * SEGMENT_BYTES), 0)
    assert.deepEqual(
      script(pair).filter(line => line.includes('ACK')),
      ['← ACK 1 window 65', '← ACK 65 window 129', '← ACK 129 window 193', '← ACK 140 window 193'],
    )
  })

  it('retransmits unacknowledged segments if no ACK arrives in 2 seconds', () => {
    const pair = new Pair()
    const message = longMessage(GET_TABLE, 7, 3 * SEGMENT_BYTES)
    pair.send(pair.a, message, 0, 1)
    let lost = 0
    const isLost = (sent: OnWire) => segmentText(sent) === 'DATA 2' && lost++ === 0
    assert.deepEqual(script(pair, isLost), [
      '→ DATA 1 first of 660',
      '← ACK 1 window 65',
      '→ DATA 2 lost',
      '→ DATA 3 last of 220',
    ])
    pair.tick()
    assert.equal(pair.now, 2 * SECOND)
    assert.deepEqual(script(pair), ['→ DATA 2', '→ DATA 3 last of 220', '← ACK 3 window 65', '← ACK 3 window 65'])
    assertWhole(pair.b.received[0]?.message, message)
    assert.equal(pair.b.received.length, 1)
  })

  it('fails without an ACK after the last retry', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, SEGMENT_BYTES), 0, 2)
    do script(pair, () => true)
    while (pair.a.ended.length === 0 && pair.tick())
    assert.deepEqual([pair.a.ended, pair.now], [[['message', 'timeout']], 6 * SECOND])
  })

  it('sends at most 64 segments per call, for any window of the peer', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, 200 * SEGMENT_BYTES), 0, 0)
    const first = pair.wire.splice(0)[0]!
    const ack = { type: RmppType.ACK, segment: 1, lengthOrWindow: 0xffff_ffff }
    pair.deliver({ to: pair.a, mad: answerRmpp(first.mad, ack) })
    const counts: number[] = []
    do counts.push(pair.wire.splice(0).length)
    while (pair.now < SECOND && pair.tick())
    assert.deepEqual(counts.slice(0, 5), [64, 64, 64, 7, 0])
    assert.deepEqual([pair.now, pair.a.ended], [2 * SECOND, [['message', 'timeout']]])
  })

  it('does not delay other sends until its window is used', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, 500 * SEGMENT_BYTES), 0, 0)
    pair.send(pair.a, plainMad(SA, MadMethod.GET, 8), SECOND, 1)
    const [first] = pair.wire.splice(0) as [OnWire]
    const ack = { type: RmppType.ACK, segment: 1, lengthOrWindow: 0xffff_ffff }
    pair.deliver({ to: pair.a, mad: answerRmpp(first.mad, ack) })
    pair.wire.length = 0
    pair.now = SECOND
    const sentPlain = [1, 2].map(() => {
      pair.a.engine.onTimeout(pair.now, 64)
      return pair.wire.splice(0).some(({ mad }) => mad[METHOD] === MadMethod.GET)
    })
    assert.deepEqual(sentPlain, [false, true])
  })

  it('waits for an ACK as long as for the response, but at most 2 seconds', () => {
    for (const [timeout, seconds] of [
      [SECOND, 1],
      [10 * SECOND, 2],
      [0, 2],
    ] as const) {
      const pair = new Pair()
      pair.send(pair.a, longMessage(GET_TABLE, 7, SEGMENT_BYTES), timeout)
      pair.tick()
      assert.deepEqual([pair.now, pair.a.ended], [seconds * SECOND, [['message', 'timeout']]])
    }
  })

  it('is not sent again if only the response is missing', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, 2 * SEGMENT_BYTES), SECOND, 3)
    script(pair)
    while (pair.a.ended.length === 0 && pair.tick());
    assert.deepEqual([pair.wire, pair.now, pair.a.ended], [[], SECOND, [['message', 'timeout']]])
  })

  it('has all its retries again after each ACK of further segments', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, 9 * SEGMENT_BYTES), 0, 1)
    const [first] = pair.wire as [OnWire]
    const ends: boolean[] = []
    for (let segment = 1; segment <= 3; segment++) {
      pair.tick()
      ends.push(pair.a.ended.length > 0)
      const ack = { type: RmppType.ACK, segment, lengthOrWindow: segment + 1 }
      pair.deliver({ to: pair.a, mad: answerRmpp(first.mad, ack) })
    }
    assert.deepEqual(ends, [false, false, false])
    while (pair.a.ended.length === 0 && pair.tick());
    // Three timeouts, each followed by an ACK; then the last retry, and the timeout that fails the transfer.
    assert.equal(pair.now, (3 + 2) * 2 * SECOND)
  })

  it('is not kept alive by repeated ACKs', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, 9 * SEGMENT_BYTES), 0, 1)
    const first = pair.wire.splice(0)[0]!
    const ack = answerRmpp(first.mad, { type: RmppType.ACK, segment: 1, lengthOrWindow: 2 })
    for (let i = 0; i < 9 && pair.a.ended.length === 0; i++) {
      pair.deliver({ to: pair.a, mad: ack })
      pair.tick()
    }
    assert.deepEqual([pair.a.ended, pair.now], [[['message', 'timeout']], 4 * SECOND])
  })

  it('is not kept alive by ACKs that only grow the window', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, 9 * SEGMENT_BYTES), 0, 1)
    const first = pair.wire.splice(0)[0]!
    for (let window = 2; window < 20 && pair.a.ended.length === 0; window++) {
      const ack = { type: RmppType.ACK, segment: 1, lengthOrWindow: 9 * window }
      pair.deliver({ to: pair.a, mad: answerRmpp(first.mad, ack) })
      pair.now += SECOND
      pair.a.engine.onTimeout(pair.now)
    }
    assert.deepEqual([pair.a.ended, pair.now], [[['message', 'timeout']], 4 * SECOND])
  })

  it('of a response begins with the window that the requester gives, at least one segment', () => {
    for (const window of [0, 3]) {
      const pair = new Pair()
      pair.send(pair.a, longMessage(GET_TABLE, 7, 2 * SEGMENT_BYTES), 10 * SECOND)
      for (const line of ['→ DATA 1', '← ACK 1', '→ DATA 2', '← ACK 2', '→ ACK 0 window 1']) {
        const sent = pair.wire.shift()!
        assert.ok(`${sent.to === pair.b ? '→' : '←'} ${segmentText(sent)}`.startsWith(line))
        if (line.includes('ACK 0')) new DataView(sent.mad.buffer).setUint32(WINDOW, window)
        pair.deliver(sent)
      }
      const response = longMessage(RESPONSE_TABLE, 7, 4 * SEGMENT_BYTES)
      response[TID_HIGH_END] = pair.a.host
      // A response to another peer begins with one segment.
      pair.b.engine.send(
        response.slice(),
        { ...pair.pathOf(pair.b), remoteGid: gid(9) },
        { timeout: 0, retries: 0, tag: 'other' },
        0,
      )
      assert.equal(pair.wire.splice(0).length, 1)
      pair.send(pair.b, response, 0, 0, 'response')
      assert.equal(pair.wire.length, Math.max(1, window))
      // The requester, which gave a window of 1, drops the segments beyond; they are sent again.
      do pair.settle()
      while (pair.b.ended.length === 0 && pair.tick())
      assertWhole(pair.a.received[0]?.message, response)
    }
  })

  it('of a request ends with an ACK of segment 0, the window for the response', () => {
    const pair = new Pair()
    const request = longMessage(GET_TABLE, 7, 2 * SEGMENT_BYTES)
    pair.send(pair.a, request, 10 * SECOND)
    assert.deepEqual(script(pair), [
      '→ DATA 1 first of 440',
      '← ACK 1 window 65',
      '→ DATA 2 last of 220',
      '← ACK 2 window 65',
      '→ ACK 0 window 1',
    ])
    const response = longMessage(RESPONSE_TABLE, 7, 2 * SEGMENT_BYTES)
    response[TID_HIGH_END] = pair.a.host
    pair.send(pair.b, response, 0, 0, 'response')
    assert.equal(script(pair).at(-1), '→ ACK 2 window 65')
    assert.deepEqual([pair.a.ended, pair.b.ended], [[['message', 'answered']], [['response', 'sent']]])
  })

  it('of a request does not answer an ACK of segment 0', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, SEGMENT_BYTES), 10 * SECOND)
    const sent: OnWire[] = []
    const record = (datagram: OnWire): boolean => {
      sent.push(datagram)
      return false
    }
    assert.equal(script(pair, record).at(-1), '→ ACK 0 window 1')
    // A MAD layer without an agent for the request returns the ACK with the method of a response.
    const returned = sent.at(-1)!.mad.slice()
    returned[METHOD] = RESPONSE_TABLE
    pair.deliver({ to: pair.a, mad: returned })
    assert.deepEqual(script(pair), [])
  })

  it('is acknowledged again for 10 seconds after it is complete, if its segments are repeated', () => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, SEGMENT_BYTES), 0)
    const [sent] = pair.wire as [OnWire]
    pair.settle()
    const repeat = (at: number): string[] => {
      pair.now = at
      pair.b.engine.onTimeout(at)
      pair.deliver(sent)
      return pair.wire.splice(0).map(segmentText)
    }
    assert.deepEqual(repeat(10 * SECOND - 1), ['ACK 1 window 1'])
    assert.equal(pair.b.received.length, 1)
    // Now it is a new message.
    assert.deepEqual(repeat(10 * SECOND), ['ACK 1 window 1'])
    assert.equal(pair.b.received.length, 2)
  })

  it('completes if a third of all datagrams is lost and the others are reordered', () => {
    for (let seed = 1; seed <= 20; seed++) {
      const random = createRandom(seed)
      const pair = new Pair()
      const message = longMessage(GET_TABLE, 7, 1 + (random() % 40_000))
      pair.send(pair.a, message, 0, 50)
      do {
        for (let i = pair.wire.length - 1; i > 0; i--) {
          const j = random() % (i + 1)
          const [x, y] = [pair.wire[i]!, pair.wire[j]!]
          pair.wire[i] = y
          pair.wire[j] = x
        }
        pair.settle(() => random() % 3 === 0)
      } while (pair.a.ended.length === 0 && pair.tick())
      assert.equal(pair.b.received.length, 1, `seed ${seed}`)
      assertWhole(pair.b.received[0]?.message, message)
    }
  })
})

describe('protocol errors', () => {
  const startTransfer = (length = 3 * SEGMENT_BYTES) => {
    const pair = new Pair()
    pair.send(pair.a, longMessage(GET_TABLE, 7, length), 0, 3)
    const [first] = pair.wire.splice(0) as [OnWire]
    return { pair, first, path: pair.pathOf(pair.a) }
  }
  const cases: readonly (readonly [title: string, fields: Parameters<typeof answerRmpp>[1], status: number])[] = [
    ['an unknown version', { version: 2, type: RmppType.ACK }, RmppStatus.BAD_VERSION],
    ['an unknown type', { type: 9 }, RmppStatus.BAD_TYPE],
    ['an ACK with a status', { type: RmppType.ACK, status: 1, lengthOrWindow: 1 }, RmppStatus.BAD_STATUS],
    ['a window that ends before its segment', { type: RmppType.ACK, segment: 1 }, RmppStatus.WINDOW_TOO_SMALL],
    [
      'an ACK of a segment that was not sent',
      { type: RmppType.ACK, segment: 2, lengthOrWindow: 9 },
      RmppStatus.SEGMENT_TOO_BIG,
    ],
    ['a STOP with an unknown status', { type: RmppType.STOP, status: 9 }, RmppStatus.BAD_STATUS],
    ['an ABORT with an unknown status', { type: RmppType.ABORT, status: 9 }, RmppStatus.BAD_STATUS],
  ]
  for (const [title, fields, status] of cases)
    it(`${title} is answered with ABORT ${status}, and ends the transfer`, () => {
      const { pair, first, path } = startTransfer()
      pair.a.engine.onMad(answerRmpp(first.mad, fields), path, 0)
      assert.deepEqual(pair.wire.map(segmentText), [`ABORT ${status}`])
      assert.deepEqual(pair.a.ended, [['message', 'aborted']])
    })

  it('a STOP or an ABORT ends the transfer without an answer', () => {
    for (const [type, status] of [
      [RmppType.STOP, RmppStatus.RESX],
      [RmppType.ABORT, RmppStatus.TOO_MANY_RETRIES],
    ] as const) {
      const { pair, first, path } = startTransfer()
      pair.a.engine.onMad(answerRmpp(first.mad, { type, status }), path, 0)
      assert.deepEqual([pair.wire, pair.a.ended], [[], [['message', 'aborted']]])
    }
  })

  it('an ABORT of the sender, or a segment that is refused, drops the segments received before', () => {
    for (const rmpp of [{ type: RmppType.ABORT, status: RmppStatus.UNSPECIFIED }, { version: 2 }]) {
      const { pair, first } = startTransfer()
      pair.deliver(first)
      const header = first.mad.subarray(0, SA_HEADERS)
      pair.deliver({ to: pair.b, mad: emitRmpp(header, { version: 1, flags: ACTIVE, ...rmpp }) })
      pair.a.engine.close()
      pair.wire.length = 0
      const message = longMessage(GET_TABLE, 7, 2 * SEGMENT_BYTES)
      message.fill(0xab, SA_HEADERS)
      pair.send(pair.a, message, 0)
      pair.settle()
      assertWhole(pair.b.received[0]?.message, message)
    }
  })

  it('a segment with a status, or with the flag FIRST and a number other than 1, or the reverse, is refused', () => {
    for (const [segment, flags, status, refusal] of [
      [1, ACTIVE | FIRST, RmppStatus.RESX, RmppStatus.BAD_STATUS],
      [2, ACTIVE | FIRST, RmppStatus.NORMAL, RmppStatus.BAD_SEGMENT],
      [1, ACTIVE, RmppStatus.NORMAL, RmppStatus.BAD_SEGMENT],
    ] as const) {
      const { pair, first } = startTransfer()
      const mad = first.mad.slice()
      new DataView(mad.buffer).setUint32(SEGMENT, segment)
      mad.set([flags, status], FLAGS)
      pair.deliver({ to: pair.b, mad })
      assert.deepEqual(pair.wire.map(segmentText), [`ABORT ${refusal}`])
    }
  })

  it('an impossible length in the last segment counts as 0 or as a whole segment, whichever is nearer', () => {
    for (const [length, bytes] of [
      [0, 0],
      [0xffff_ffff, SEGMENT_BYTES],
    ] as const) {
      const { pair, first } = startTransfer()
      const mad = first.mad.slice()
      mad[FLAGS] = ACTIVE | FIRST | LAST
      new DataView(mad.buffer).setUint32(WINDOW, length)
      pair.deliver({ to: pair.b, mad })
      assert.equal(pair.b.received[0]?.message.length, SA_HEADERS + bytes)
    }
  })

  it('segments of another queue pair or class version of the peer are not those of the message', () => {
    const pair = new Pair()
    const message = longMessage(GET_TABLE, 7, 2 * SEGMENT_BYTES)
    pair.send(pair.a, message, 0)
    pair.deliver(pair.wire.shift()!)
    pair.deliver(pair.wire.shift()!)
    const [last] = pair.wire.splice(0) as [OnWire]
    const forged = last.mad.slice().fill(0xab, SA_HEADERS)
    pair.b.engine.onMad(forged, { ...pair.pathOf(pair.b), qpn: 9 }, 0)
    const otherVersion = forged.slice()
    otherVersion[CLASS_VERSION]! += 1
    pair.deliver({ to: pair.b, mad: otherVersion })
    assert.deepEqual([pair.wire, pair.b.received], [[], []])
    pair.deliver(last)
    assertWhole(pair.b.received[0]?.message, message)
  })

  it('segments beyond the window, and of unknown transfers, are dropped', () => {
    const { pair, first } = startTransfer()
    const beyondWindow = first.mad.slice()
    beyondWindow[FLAGS] = ACTIVE
    new DataView(beyondWindow.buffer).setUint32(SEGMENT, 200)
    pair.deliver({ to: pair.b, mad: beyondWindow })
    assert.equal(pair.wire.length, 0)
    pair.deliver(first)
    pair.wire.length = 0
    pair.deliver({ to: pair.b, mad: beyondWindow })
    assert.equal(pair.wire.length, 0)
  })

  it('many unfinished messages of one peer do not exclude messages of other peers', () => {
    const { pair } = startTransfer()
    const path = pair.pathOf(pair.b)
    const mad = longMessage(GET_TABLE, 7, 0)
    const deliverFirst = (tid: number, remoteGid: Uint8Array) => {
      const first = emitRmpp(mad.subarray(0, SA_HEADERS), { ...parseRmpp(mad), flags: ACTIVE | FIRST, segment: 1 })
      new DataView(first.buffer).setUint32(TID_LOW, tid)
      pair.b.engine.onMad(first, { ...path, remoteGid }, 0)
      return pair.wire.splice(0).map(segmentText)
    }
    for (let tid = 0; tid < 256; tid++) assert.deepEqual(deliverFirst(tid, gid(3)), ['ACK 1 window 65'])
    assert.deepEqual(deliverFirst(256, gid(3)), [`STOP ${RmppStatus.RESX}`])
    assert.deepEqual(deliverFirst(0, gid(4)), [`STOP ${RmppStatus.RESX}`, 'ACK 1 window 65'])
    // The first peer's newest message was stopped, its oldest message is kept.
    assert.deepEqual(deliverFirst(0, gid(3)), ['ACK 1 window 65'])
    assert.deepEqual(deliverFirst(255, gid(3)), [`STOP ${RmppStatus.RESX}`])
  })

  it('256 complete messages do not exclude a new one', () => {
    const { pair, first } = startTransfer()
    const deliver = (tid: number, flags: number): string[] => {
      const mad = first.mad.slice()
      mad[FLAGS] = flags
      new DataView(mad.buffer).setUint32(TID_LOW, tid)
      pair.deliver({ to: pair.b, mad })
      return pair.wire.splice(0).map(segmentText)
    }
    for (let tid = 0; tid < 256; tid++) assert.deepEqual(deliver(tid, ACTIVE | FIRST | LAST), ['ACK 1 window 1'])
    assert.deepEqual(deliver(256, ACTIVE | FIRST), ['ACK 1 window 65'])
  })

  it('a message that is incomplete after 40 seconds gets ABORT; each message beyond 256 causes one STOP', () => {
    const { pair, first } = startTransfer()
    pair.deliver(first)
    pair.wire.length = 0
    pair.now = 40 * SECOND
    pair.b.engine.onTimeout(pair.now)
    assert.deepEqual(pair.wire.splice(0).map(segmentText), [`ABORT ${RmppStatus.TIME_TOO_LONG}`])
    for (let tid = 0; tid < 300; tid++) {
      const mad = first.mad.slice()
      new DataView(mad.buffer).setUint32(TID_LOW, tid)
      pair.deliver({ to: pair.b, mad })
    }
    assert.equal(pair.wire.filter(sent => segmentText(sent) === `STOP ${RmppStatus.RESX}`).length, 300 - 256)
  })

  it('unfinished messages have at most 4 MiB; beyond, the newest message of the peer with the most bytes is stopped', () => {
    const { pair, first } = startTransfer()
    const path = pair.pathOf(pair.b)
    /** Delivers segments until a STOP is sent, to any peer; returns how many caused none. */
    const deliver = (tid: number, remoteGid: Uint8Array, count: number): number => {
      for (let number = 1; number <= count; number++) {
        const segment = first.mad.slice()
        const view = new DataView(segment.buffer)
        view.setUint32(TID_LOW, tid)
        view.setUint32(SEGMENT, number)
        segment[FLAGS] = number === 1 ? ACTIVE | FIRST : ACTIVE
        pair.b.engine.onMad(segment, { ...path, remoteGid }, 0)
        if (pair.wire.splice(0).some(sent => parseRmpp(sent.mad).type === RmppType.STOP)) return number - 1
      }
      return count
    }
    const MAX_SEGMENTS = (4 << 20) / MAD_BYTES
    assert.equal(deliver(1, gid(3), 8000), 8000)
    assert.equal(deliver(2, gid(3), 8000), 8000)
    // The segment of the other peer is kept, the second message is stopped.
    assert.equal(deliver(1, gid(4), 1000), MAX_SEGMENTS - 16_000)
    assert.equal(deliver(2, gid(4), 7000), 7000)
  })

  it('a message of more than 8192 segments is stopped', () => {
    const { pair, first } = startTransfer()
    /** The number of the segment that was answered with STOP. */
    let stopped = 0
    const segment = first.mad.slice()
    const view = new DataView(segment.buffer)
    for (let number = 1; number < 10_000 && stopped === 0; number++) {
      segment[FLAGS] = number === 1 ? ACTIVE | FIRST : ACTIVE
      view.setUint32(SEGMENT, number)
      pair.deliver({ to: pair.b, mad: segment.slice() })
      const stops = pair.wire.splice(0).filter(sent => parseRmpp(sent.mad).type === RmppType.STOP)
      assert.ok(stops.length <= 1, `${stops.length} STOPs`)
      if (stops.length > 0) stopped = number
    }
    assert.equal(stopped, MAD_RECEIVED_SEGMENTS + 1)
  })
})
