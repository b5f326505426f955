/*
 * The connection manager in virtual time.
 */
import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { createRandom } from '../../../src/base/random.ts'
import type { CmConnection, CmPath } from '../../../src/services/cm-engine/connection.ts'
import { fromExponent } from '../../../src/services/cm-engine/timeout.ts'
import { aprStatus, cmAnswered, failoverAccepted, rejReason, sidrStatus } from '../../../src/spec/wire/mad.ts'
import { type CmDraft, emitCm } from '../../../src/transport/wire/mad/mad.ts'
import { established, gid, Host, offer, Pair, parsed, pathTo, peerOf, request, SERVICE } from './pair.ts'

let pair: Pair
beforeEach(() => {
  pair = new Pair()
  pair.b.engine.listen(SERVICE)
})

/** The names of the events since the last call. */
const names = (host: Host): string[] => host.events().map(({ name }) => name)
const onlyEvent = (host: Host) => {
  const events = host.events()
  assert.equal(events.length, 1, events.map(({ name }) => name).join())
  return events[0]!
}
/** A connection of host 1, after the REQ is sent. */
const start = (overrides = {}): CmConnection => {
  const active = pair.a.engine.create(pathTo(1, 2))
  pair.a.engine.connect(active, request(0x11, overrides), pair.now)
  return active
}
/** Both ends of a connection, after host 2 has received the REQ. */
const requested = (overrides = {}): [CmConnection, CmConnection] => {
  const active = start(overrides)
  pair.exchange()
  return [active, onlyEvent(pair.b).connection]
}
/** A connection of XRC in ESTABLISHED: at the initiator and at the target. */
const establishedXrc = (): [CmConnection, CmConnection] => {
  const [active, passive] = requested({ transport: 'XRC' })
  pair.b.engine.reply(passive, offer(0x22), pair.now)
  pair.exchange()
  pair.a.engine.ready(active)
  pair.exchange()
  return [active, passive]
}
/** The CA GUID of host 2. */
const CA_GUID_2 = 0x102n
/** A host's CA GUID, which is the ARI of a REJ for a timeout. */
const caGuidBytes = (host: number): Uint8Array => Uint8Array.of(0, 0, 0, 0, 0, 0, 1, host)
const inject = (to: Host, message: CmDraft, from: CmPath = pathTo(to.number, peerOf(to.number))): void =>
  to.engine.onMad(emitCm(message), from, pair.now)

describe('a connection', () => {
  test('passes from REQ to the end of TIMEWAIT', () => {
    const [active, passive] = requested()
    assert.equal(passive.state, 'REQ_RCVD')
    const { startingPsn, responderResources, initiatorDepth } = request(0x11)
    assert.equal(passive.agreed.remoteQpn, 0x11)
    assert.equal(passive.agreed.sqPsn, startingPsn)
    assert.equal(passive.agreed.initiatorDepth, responderResources)
    assert.equal(passive.agreed.responderResources, initiatorDepth)

    pair.b.engine.reply(passive, offer(0x22), pair.now)
    assert.deepEqual(pair.exchange(), ['2:REP'])
    assert.equal(onlyEvent(pair.a).name, 'REP_RECEIVED')
    assert.equal(active.agreed.remoteQpn, 0x22)
    assert.equal(active.agreed.sqPsn, offer(0x22).startingPsn)

    pair.a.engine.ready(active, Uint8Array.of(9))
    assert.deepEqual(pair.exchange(), ['1:RTU'])
    const rtu = onlyEvent(pair.b)
    assert.equal(rtu.name, 'RTU_RECEIVED')
    assert.equal(active.state, 'ESTABLISHED')
    assert.equal(passive.state, 'ESTABLISHED')
    assert.equal(pair.a.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    assert.equal(pair.b.engine.nextTimeout(), Number.POSITIVE_INFINITY)

    pair.b.engine.disconnect(passive, pair.now)
    assert.deepEqual(pair.exchange(), ['2:DREQ'])
    assert.equal(onlyEvent(pair.a).name, 'DREQ_RECEIVED')
    pair.a.engine.confirmDisconnect(active, pair.now)
    assert.deepEqual(pair.exchange(), ['1:DREP'])
    assert.equal(onlyEvent(pair.b).name, 'DREP_RECEIVED')
    assert.equal(active.state, 'TIMEWAIT')
    assert.equal(passive.state, 'TIMEWAIT')
    assert.equal(pair.a.engine.nextTimeout(), fromExponent(active.agreed.ackTimeout))
    pair.expire()
    pair.expire()
    assert.deepEqual([names(pair.a), names(pair.b)], [['TIMEWAIT_EXIT'], ['TIMEWAIT_EXIT']])
    assert.equal(active.state, 'IDLE')
  })

  test('has at each end the limits, retries and ACK timeout that follow from the other end’s message', () => {
    const path = { ...pathTo(1, 2), packetLifeTime: 14 }
    const limits = { responderResources: 3, initiatorDepth: 5, retryCount: 2, rnrRetryCount: 1 }
    const [active, passive] = requested({ path, ...limits })
    const { responderResources, initiatorDepth, retryCount, rnrRetryCount, ackTimeout } = passive.agreed
    assert.deepEqual([responderResources, initiatorDepth, retryCount, rnrRetryCount, ackTimeout], [5, 3, 2, 1, 16])
    const reply = { ...offer(0x22), responderResources: 6, initiatorDepth: 4, rnrRetryCount: 0 }
    pair.b.engine.reply(passive, reply, pair.now)
    pair.exchange()
    assert.deepEqual(active.agreed, {
      localQpn: 0x11,
      remoteQpn: 0x22,
      sqPsn: reply.startingPsn,
      rqPsn: request(0x11).startingPsn,
      responderResources: 4,
      initiatorDepth: 6,
      retryCount: 2,
      rnrRetryCount: 0,
      transport: 'RC',
      // The sum of two packet life times (exponent 14) and the ACK delay (exponent 15).
      ackTimeout: 16,
    })
  })

  test('has transaction ids as in Linux: answers repeat them, and each side has its own for a DREQ', () => {
    const active = start()
    const [req] = parsed(pair.collect())
    pair.exchange()
    const passive = onlyEvent(pair.b).connection
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    assert.equal(parsed(pair.collect())[0]!.tid, req!.tid)
    pair.exchange()
    pair.a.engine.ready(active)
    assert.equal(parsed(pair.collect())[0]!.tid, req!.tid)
    pair.exchange()
    pair.b.engine.disconnect(passive, pair.now)
    const [dreq] = parsed(pair.collect())
    assert.notEqual(dreq!.tid, req!.tid)
    pair.exchange()
    pair.a.engine.confirmDisconnect(active, pair.now)
    assert.equal(parsed(pair.collect())[0]!.tid, dreq!.tid)
  })

  test('enters TIMEWAIT on both sides when both disconnect at the same time', () => {
    const [active, passive] = established(pair)
    pair.a.engine.disconnect(active, pair.now)
    pair.b.engine.disconnect(passive, pair.now)
    assert.deepEqual(pair.exchange().sort(), ['1:DREQ', '2:DREQ'])
    pair.a.engine.confirmDisconnect(active, pair.now)
    pair.b.engine.confirmDisconnect(passive, pair.now)
    pair.exchange()
    assert.equal(active.state, 'TIMEWAIT')
    assert.equal(passive.state, 'TIMEWAIT')
  })

  test('exists twice after both sides have sent a REQ at the same time', () => {
    pair.a.engine.listen(SERVICE)
    const first = start()
    const second = pair.b.engine.create(pathTo(2, 1))
    pair.b.engine.connect(second, request(0x33, { path: pathTo(2, 1) }), pair.now)
    assert.deepEqual(pair.exchange(), ['1:REQ', '2:REQ'])
    const [third, fourth] = [onlyEvent(pair.a).connection, onlyEvent(pair.b).connection]
    pair.a.engine.reply(third, offer(0x12), pair.now)
    pair.b.engine.reply(fourth, offer(0x34), pair.now)
    assert.deepEqual(pair.exchange(), ['1:REP', '2:REP'])
    pair.a.engine.ready(first)
    pair.b.engine.ready(second)
    assert.deepEqual(pair.exchange(), ['1:RTU', '2:RTU'])
    const ends = [first, second, third, fourth]
    for (const { state } of ends) assert.equal(state, 'ESTABLISHED')
    assert.deepEqual(
      ends.map(({ agreed }) => [agreed.localQpn, agreed.remoteQpn]),
      [
        [0x11, 0x34],
        [0x33, 0x12],
        [0x12, 0x33],
        [0x34, 0x11],
      ],
    )
  })

  test('cannot be accepted with the queue pair of an outstanding REQ', () => {
    pair.a.engine.listen(SERVICE)
    const first = start()
    pair.b.engine.connect(pair.b.engine.create(pathTo(2, 1)), request(0x33, { path: pathTo(2, 1) }), pair.now)
    pair.exchange()
    const third = onlyEvent(pair.a).connection
    assert.throws(() => pair.a.engine.reply(third, offer(0x11), pair.now), /queue pair 17 is connected already/)
    assert.deepEqual([first.state, third.state], ['REQ_SENT', 'REQ_RCVD'])
  })

  test('is rejected on both sides after both have sent a REQ without a listener', () => {
    pair = new Pair()
    const first = start()
    const second = pair.b.engine.create(pathTo(2, 1))
    pair.b.engine.connect(second, request(0x33, { path: pathTo(2, 1) }), pair.now)
    assert.deepEqual(pair.exchange(), ['1:REQ', '2:REQ', '2:REJ', '1:REJ'])
    assert.deepEqual([first.state, second.state], ['IDLE', 'IDLE'])
  })

  test('of XRC has the QPN of the target in the REP’s EE context field', () => {
    const [active, passive] = requested({ transport: 'XRC' })
    assert.equal(passive.agreed.transport, 'XRC')
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    const rep = parsed(pair.collect())[0]!
    assert.ok(rep.name === 'REP' && rep.eecn === 0x22 && rep.qpn === 0 && rep.srq)
    pair.exchange()
    assert.equal(active.agreed.remoteQpn, 0x22)
  })

  test('of XRC stays at the initiator when the target is destroyed, which then answers a DREQ', () => {
    const [active, passive] = establishedXrc()
    pair.b.engine.destroy(passive, pair.now)
    assert.deepEqual(pair.exchange(), [])
    assert.deepEqual([active.state, pair.b.engine.size], ['ESTABLISHED', 0])
    pair.a.engine.disconnect(active, pair.now)
    assert.deepEqual(pair.exchange(), ['1:DREQ', '2:DREP'])
    assert.equal(active.state, 'TIMEWAIT')
  })

  test('of XRC is disconnected when the initiator is destroyed', () => {
    const [active, passive] = establishedXrc()
    pair.a.engine.destroy(active, pair.now)
    assert.deepEqual(pair.exchange(), ['1:DREQ'])
    assert.equal(passive.state, 'DREQ_RCVD')
  })

  test('is established by data that overtakes the RTU', () => {
    const [, passive] = requested()
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    pair.exchange()
    pair.b.engine.establish(passive)
    assert.equal(onlyEvent(pair.b).name, 'USER_ESTABLISHED')
    assert.equal(pair.b.engine.nextTimeout(), Number.POSITIVE_INFINITY)
  })
})

describe('losses', () => {
  test('a REQ is retransmitted 15 times, every 4.83 s, then the connection fails', () => {
    const { remoteResponseTimeout, path } = request(0x11)
    const interval = fromExponent(remoteResponseTimeout) + 2 * fromExponent(path.packetLifeTime)
    start()
    let sent = pair.lose().length
    const times: number[] = []
    while (pair.a.engine.nextTimeout() < Number.POSITIVE_INFINITY) {
      const before = pair.now
      pair.expire()
      times.push(pair.now - before)
      const lost = pair.lose()
      // The last message is a REJ, which ends the connection attempt at the peer.
      if (pair.a.engine.nextTimeout() === Number.POSITIVE_INFINITY) assert.deepEqual(lost, ['REJ'])
      else sent += lost.length
    }
    assert.equal(sent, 16)
    assert.equal(times.length, 16)
    for (const time of times) assert.ok(Math.abs(time - interval) < 1)
    assert.deepEqual(names(pair.a), ['REQ_ERROR'])
    assert.equal(pair.a.engine.counters.resent.REQ, 15)
  })

  test('many simultaneous retransmissions are sent in several calls of onTimeout', () => {
    for (let i = 0; i < 200; i++) start({ qpn: 0x100 + i })
    pair.lose()
    const due = pair.a.engine.nextTimeout()
    const parts: number[] = []
    while (pair.a.engine.nextTimeout() <= due) {
      pair.a.engine.onTimeout(due)
      parts.push(pair.lose().length)
    }
    assert.deepEqual(parts, [64, 64, 64, 8])
  })

  test('a REP is retransmitted until the RTU arrives; each REP is answered by an RTU', () => {
    const [active, passive] = requested()
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    pair.exchange()
    pair.a.engine.ready(active)
    assert.deepEqual(pair.lose(), ['RTU'])
    const before = pair.now
    pair.expire()
    assert.equal(pair.now - before, fromExponent(20), 'the timeout follows from the REQ')
    assert.deepEqual(pair.exchange(), ['2:REP', '1:RTU'])
    assert.equal(passive.state, 'ESTABLISHED')
    assert.deepEqual(names(pair.a), ['REP_RECEIVED'])
    assert.equal(pair.a.engine.counters.duplicates.REP, 1)
  })

  test('a connection without an RTU for its REP fails', () => {
    const [, passive] = requested({ maxCmRetries: 2 })
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    pair.lose()
    for (let i = 0; i < 3; i++) {
      pair.b.engine.onTimeout(pair.b.engine.nextTimeout())
      pair.lose()
    }
    assert.deepEqual(names(pair.b), ['REP_ERROR'])
  })

  test('a duplicate REQ is answered with the REP, or not at all before the consumer has replied', () => {
    const active = start()
    const [req] = pair.collect()
    pair.exchange()
    const passive = onlyEvent(pair.b).connection
    pair.deliver(req!)
    assert.deepEqual(pair.exchange(), [])
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    pair.lose()
    pair.deliver(req!)
    assert.deepEqual(pair.exchange(), ['2:REP'])
    assert.equal(active.state, 'REP_RCVD')
    assert.equal(pair.b.engine.counters.duplicates.REQ, 2)
  })

  test('a repeated DREQ is answered again after the connection has ended', () => {
    const [active, passive] = established(pair)
    pair.a.engine.disconnect(active, pair.now)
    pair.exchange()
    pair.b.engine.confirmDisconnect(passive, pair.now)
    pair.lose()
    const timewait = pair.b.engine.nextTimeout()
    assert.ok(timewait < pair.a.engine.nextTimeout())
    pair.b.engine.destroy(passive, pair.now)
    pair.b.engine.onTimeout(timewait)
    assert.equal(pair.b.engine.size, 0)
    pair.expire()
    assert.deepEqual(pair.exchange(), ['1:DREQ', '2:DREP'])
    assert.equal(active.state, 'TIMEWAIT')
  })

  test('a DREQ that is never answered ends in TIMEWAIT', () => {
    const [active] = established(pair)
    pair.a.engine.disconnect(active, pair.now)
    while (active.state === 'DREQ_SENT') {
      pair.lose()
      pair.expire()
    }
    assert.deepEqual(names(pair.a), ['DREQ_ERROR'])
    assert.equal(active.state, 'TIMEWAIT')
  })

  test('an MRA extends the timeout once, and is repeated for a duplicate REQ', () => {
    const active = start()
    const [req] = pair.collect()
    pair.exchange()
    const passive = onlyEvent(pair.b).connection
    pair.b.engine.delay(passive, 24)
    assert.deepEqual(pair.exchange(), ['2:MRA'])
    assert.deepEqual(names(pair.a), ['MRA_RECEIVED'])
    assert.equal(active.state, 'MRA_REQ_RCVD')
    const extended = pair.a.engine.nextTimeout()
    assert.ok(extended > fromExponent(24))
    pair.deliver(req!)
    assert.deepEqual(pair.exchange(), ['2:MRA'])
    assert.deepEqual(names(pair.a), [])
    assert.equal(pair.a.engine.nextTimeout(), extended)
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    pair.exchange()
    assert.equal(active.state, 'REP_RCVD')
  })

  test('the MRA for a duplicate REP has the ids of the current REQ, also after an earlier REQ was rejected', () => {
    const active = start()
    for (const isLast of [false, true]) {
      pair.exchange()
      const passive = onlyEvent(pair.b).connection
      pair.b.engine.reply(passive, offer(0x22), pair.now)
      pair.exchange()
      pair.a.engine.delayOnDuplicate(active, 10)
      pair.expire()
      const [rep] = pair.collect()
      // The first MRA is lost, and the peer repeats its REP.
      pair.deliver(rep!)
      pair.lose()
      pair.deliver(rep!)
      const [mra] = parsed(pair.collect())
      assert.ok(mra?.name === 'MRA')
      assert.deepEqual([mra.localId, mra.remoteId], [active.localId, passive.localId])
      pair.exchange()
      if (isLast) continue
      pair.a.engine.reject(active, { reason: rejReason.CONSUMER_DEFINED }, pair.now)
      pair.exchange()
      pair.b.engine.destroy(passive, pair.now)
      pair.a.events()
      pair.b.events()
      pair.a.engine.connect(active, request(0x11), pair.now)
    }
  })
})

describe('a peer that answers with MRAs', () => {
  const LONGEST = 31

  /** Answers each message of `host` with an MRA; returns the number of messages and the total time. */
  const answerWithMras = (host: Host, mra: CmDraft<'MRA'>): { messages: number; wait: number } => {
    pair.lose()
    const startTime = pair.now
    let messages = 1
    inject(host, mra)
    while (host.engine.nextTimeout() < Number.POSITIVE_INFINITY) {
      pair.now = host.engine.nextTimeout()
      host.engine.onTimeout(pair.now)
      messages += pair.lose().filter(name => name !== 'REJ').length
      inject(host, mra)
    }
    return { messages, wait: Math.round(pair.now - startTime) }
  }
  const longest = (tries: number, ackTimeout: number): number =>
    Math.round(tries * (fromExponent(LONGEST) + fromExponent(ackTimeout)))

  test('the active side waits the longest time for each of its retries', () => {
    const active = start()
    assert.equal(active.agreed.ackTimeout, 17)
    const mra = { name: 'MRA', tid: 1n, localId: 5, remoteId: active.localId, message: cmAnswered.REQ } as const
    assert.deepEqual(answerWithMras(pair.a, { ...mra, serviceTimeout: LONGEST }), {
      messages: 16,
      wait: longest(16, active.agreed.ackTimeout),
    })
    assert.deepEqual(names(pair.a), ['MRA_RECEIVED', 'REQ_ERROR'])
    assert.equal(active.state, 'IDLE')
  })

  test('the passive side waits the longest time for each of its retries', () => {
    const [active, passive] = requested({ maxCmRetries: 3 })
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    const ids = { localId: active.localId, remoteId: passive.localId, message: cmAnswered.REP }
    const { ackTimeout } = passive.agreed
    assert.deepEqual(answerWithMras(pair.b, { name: 'MRA', tid: 1n, ...ids, serviceTimeout: LONGEST }), {
      messages: 4,
      wait: longest(4, ackTimeout),
    })
    assert.deepEqual(names(pair.b), ['MRA_RECEIVED', 'REP_ERROR'])
    assert.equal(pair.b.engine.size, 1)
    pair.b.engine.destroy(passive, pair.now)
    assert.equal(pair.b.engine.size, 0)
  })
})

describe('refusals', () => {
  const refusedWith = (): number => {
    const event = onlyEvent(pair.a)
    assert.equal(event.name, 'REJ_RECEIVED')
    assert.ok(event.message?.name === 'REJ')
    return event.message.reason
  }

  test('a REQ for a service without a listener is rejected', () => {
    const active = start({ serviceId: SERVICE + 1n })
    assert.deepEqual(pair.exchange(), ['1:REQ', '2:REJ'])
    assert.equal(refusedWith(), rejReason.INVALID_SERVICE_ID)
    assert.equal(active.state, 'IDLE')
    assert.equal(pair.b.engine.size, 0)
  })

  test('the consumer rejects a REQ with private data', () => {
    const [active, passive] = requested()
    pair.b.engine.reject(passive, { reason: rejReason.CONSUMER_DEFINED, privateData: Uint8Array.of(7) }, pair.now)
    pair.exchange()
    const { message } = onlyEvent(pair.a)
    assert.ok(message?.name === 'REJ' && message.localId === 0 && message.privateData[0] === 7)
    assert.equal(active.state, 'IDLE')
    pair.b.engine.destroy(passive, pair.now)
    assert.equal(pair.b.engine.size, 0)
  })

  for (const [defect, overrides, reason] of [
    ['a service without a listener, before anything else', { serviceId: 1n, pathMtu: 6 }, rejReason.INVALID_SERVICE_ID],
    ['an unknown transport', { transportType: 2 }, rejReason.INVALID_TRANSPORT_TYPE],
    ['an extended transport other than XRC', { transportType: 3 }, rejReason.INVALID_TRANSPORT_TYPE],
    ['the GID of another device', { remoteGid: gid(9) }, rejReason.INVALID_GID],
    ['a source GID that is not the sender', { localGid: gid(9) }, rejReason.INVALID_GID],
    ['a P_Key of another partition', { pkey: 0x9234 }, rejReason.INVALID_GID],
    [
      'an alternate path to the GID of another device',
      { alternateLocalLid: 0xffff, alternateRemoteGid: gid(9) },
      rejReason.INVALID_ALT_GID,
    ],
    ['an unknown MTU', { pathMtu: 6 }, rejReason.INVALID_MTU],
    ['the reserved MTU 0', { pathMtu: 0 }, rejReason.INVALID_MTU],
  ] as const) {
    test(`a REQ is rejected for ${defect}`, () => {
      start()
      const [req] = parsed(pair.collect())
      pair.lose()
      assert.ok(req?.name === 'REQ')
      inject(pair.b, { ...req, ...overrides })
      const [rej] = parsed(pair.collect())
      assert.ok(rej?.name === 'REJ' && rej.message === cmAnswered.REQ && rej.localId === 0)
      // A REJ of a GID has the correct one as ARI.
      const isGid = reason === rejReason.INVALID_GID || reason === rejReason.INVALID_ALT_GID
      assert.deepEqual(rej.info.subarray(0, rej.infoLength), isGid ? gid(2) : new Uint8Array(0))
      pair.exchange()
      assert.equal(refusedWith(), reason)
      assert.deepEqual(names(pair.b), [])
    })
  }

  test('a limited member of the partition is accepted, and the path has the P_Key of the REQ', () => {
    start()
    const [req] = parsed(pair.collect())
    pair.lose()
    assert.ok(req?.name === 'REQ')
    inject(pair.b, { ...req, pkey: 0x7fff })
    const { name, connection } = onlyEvent(pair.b)
    assert.deepEqual([name, connection.path.pkey], ['REQ_RECEIVED', 0x7fff])
  })

  test('a REP declines the alternate path of a REQ', () => {
    const noAlternatePath = 0
    for (const [i, alternateLocalLid] of [noAlternatePath, 0xffff].entries()) {
      const active = start({ qpn: 0x11 + i })
      const [req] = parsed(pair.collect())
      pair.lose()
      assert.ok(req?.name === 'REQ')
      inject(pair.b, { ...req, alternateLocalLid, alternateRemoteGid: gid(2) })
      pair.b.engine.reply(onlyEvent(pair.b).connection, offer(0x22 + i), pair.now)
      const [rep] = parsed(pair.collect())
      assert.ok(rep?.name === 'REP')
      assert.equal(rep.failoverAccepted, alternateLocalLid === noAlternatePath ? 0 : failoverAccepted.UNSUPPORTED)
      pair.exchange()
      pair.a.engine.destroy(active, pair.now)
      pair.exchange()
      pair.a.events()
      pair.b.events()
    }
  })

  for (const [name, reason] of Object.entries(rejReason)) {
    test(`reason ${name} of a REJ reaches the consumer`, () => {
      const [active, passive] = requested()
      const peer = { localId: passive.localId, remoteId: active.localId, message: cmAnswered.REQ }
      const info = reason === rejReason.TIMEOUT ? caGuidBytes(2) : Uint8Array.of(1, 2, 3)
      const rej = { name: 'REJ', tid: active.tid, ...peer, reason, info, infoLength: info.length } as const
      if (reason === rejReason.TIMEOUT) {
        // The peer sends a REJ for a timeout if its REP is not answered.
        pair.b.engine.reply(passive, offer(0x22), pair.now)
        pair.exchange()
        onlyEvent(pair.a)
      }
      inject(pair.a, { ...rej, privateData: Uint8Array.of(7) })
      const { name: event, message } = onlyEvent(pair.a)
      assert.equal(event, 'REJ_RECEIVED')
      assert.ok(message?.name === 'REJ' && message.reason === reason && message.privateData[0] === 7)
      const entersTimewait = reason === rejReason.STALE_CONN || reason === rejReason.TIMEOUT
      assert.equal(active.state, entersTimewait ? 'TIMEWAIT' : 'IDLE')
    })
  }

  test('a REQ from a connected queue pair is rejected, and the old connection ends as stale', () => {
    const [, passive] = established(pair)
    // The peer has rebooted, and connects with the same queue pair.
    const otherSeed = 3
    const restarted = new Host(1, createRandom(otherSeed))
    const active = restarted.engine.create(pathTo(1, 2))
    restarted.engine.connect(active, request(0x11), pair.now)
    pair.b.engine.onMad(restarted.engine.pollTransmit()!.mad, pathTo(2, 1), pair.now)
    const answers = pair.collect()
    assert.deepEqual(
      parsed(answers).map(({ name }) => name),
      ['REJ', 'DREQ'],
    )
    for (const { mad } of answers) restarted.engine.onMad(mad, pathTo(1, 2), pair.now)
    const { message } = onlyEvent(restarted)
    assert.ok(message?.name === 'REJ' && message.reason === rejReason.STALE_CONN)
    assert.equal(active.state, 'TIMEWAIT')
    assert.equal(passive.state, 'DREQ_SENT')
  })

  test('a REP from a connected queue pair is rejected, and the old connection ends as stale', () => {
    const [active, passive] = established(pair)
    const other = start({ qpn: 0x12 })
    pair.lose()
    const ids = { tid: other.tid, localId: passive.localId ^ 1, remoteId: other.localId }
    inject(pair.a, { name: 'REP', ...ids, caGuid: CA_GUID_2, qpn: passive.agreed.localQpn, startingPsn: 9 })
    const [rej, dreq] = parsed(pair.collect())
    assert.ok(rej?.name === 'REJ' && rej.reason === rejReason.STALE_CONN && dreq?.name === 'DREQ')
    assert.deepEqual([active.state, other.state], ['DREQ_SENT', 'REQ_SENT'])
  })

  test('a REP for an established connection is rejected if its sender has another id', () => {
    const [active, passive] = established(pair)
    const ids = { tid: active.tid, localId: passive.localId ^ 1, remoteId: active.localId }
    inject(pair.a, { name: 'REP', ...ids, caGuid: CA_GUID_2, qpn: 0x55, startingPsn: 9 })
    const [rej] = parsed(pair.collect())
    assert.ok(rej?.name === 'REJ' && rej.reason === rejReason.INVALID_COMM_ID && rej.message === cmAnswered.REP)
    assert.deepEqual([active.state, active.agreed.remoteQpn], ['ESTABLISHED', 0x22])
  })

  test('a REP for an abandoned request is rejected', () => {
    const [active, passive] = requested()
    pair.a.engine.destroy(active, pair.now)
    pair.lose()
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    assert.deepEqual(pair.exchange(), ['2:REP', '1:REJ'])
    assert.deepEqual(names(pair.b), ['REJ_RECEIVED'])
    assert.equal(passive.state, 'IDLE')
  })

  test('a request that the sender cancels ends for the listener', () => {
    const [active, passive] = requested()
    pair.a.engine.destroy(active, pair.now)
    assert.deepEqual(pair.exchange(), ['1:REJ'])
    assert.deepEqual(names(pair.b), ['REJ_RECEIVED'])
    assert.equal(passive.state, 'IDLE')
  })

  test('a dropped request is not answered, and is reported again when the sender repeats it', () => {
    const [active, passive] = requested()
    pair.b.engine.drop(passive)
    assert.deepEqual(pair.exchange(), [])
    pair.expire()
    pair.exchange()
    assert.equal(onlyEvent(pair.b).name, 'REQ_RECEIVED')
    assert.equal(active.state, 'REQ_SENT')
  })

  test('a LAP is answered by an APR: UNSUPPORTED, or INVALID_COMM_ID for an unknown connection', () => {
    const [active, passive] = established(pair)
    const ids = { tid: 5n, localId: active.localId, remoteId: passive.localId }
    inject(pair.b, { name: 'LAP', ...ids })
    inject(pair.b, { name: 'LAP', ...ids, remoteId: 1 })
    const [known, unknown] = parsed(pair.collect())
    assert.ok(known?.name === 'APR' && known.status === aprStatus.UNSUPPORTED)
    assert.ok(unknown?.name === 'APR' && unknown.status === aprStatus.INVALID_COMM_ID)
    assert.equal(passive.state, 'ESTABLISHED')
  })
})

describe('resolution of a service id', () => {
  const resolve = (serviceId: bigint): CmConnection => {
    const resolution = pair.a.engine.create(pathTo(1, 2))
    const path = pathTo(1, 2)
    pair.a.engine.resolve(resolution, { path, serviceId, responseTimeout: 20, maxCmRetries: 3 }, pair.now)
    return resolution
  }

  test('the response has the queue pair and its Q_Key', () => {
    const resolution = resolve(SERVICE)
    pair.exchange()
    const { name, connection } = onlyEvent(pair.b)
    assert.equal(name, 'SIDR_REQ_RECEIVED')
    pair.b.engine.replyToResolve(connection, { status: sidrStatus.SUCCESS, qpn: 0x55, qkey: 0x0123_4567 })
    pair.exchange()
    const { message } = onlyEvent(pair.a)
    assert.ok(message?.name === 'SIDR_REP' && message.serviceId === SERVICE)
    assert.deepEqual([message.qpn, message.qkey], [0x55, 0x0123_4567])
    assert.equal(resolution.state, 'IDLE')
    assert.equal(pair.b.engine.size, 0)
  })

  test('a duplicate SIDR_REQ is not reported', () => {
    resolve(SERVICE)
    const [req] = pair.collect()
    pair.exchange()
    assert.equal(onlyEvent(pair.b).name, 'SIDR_REQ_RECEIVED')
    pair.deliver(req!)
    assert.deepEqual(names(pair.b), [])
  })

  test('a resolution fails without a listener, after a refusal by the consumer, and without an answer', () => {
    resolve(SERVICE + 1n)
    pair.exchange()
    const unsupported = onlyEvent(pair.a).message
    assert.ok(unsupported?.name === 'SIDR_REP' && unsupported.status === sidrStatus.UNSUPPORTED)
    resolve(SERVICE)
    pair.exchange()
    pair.b.engine.destroy(onlyEvent(pair.b).connection, pair.now)
    pair.exchange()
    const refused = onlyEvent(pair.a).message
    assert.ok(refused?.name === 'SIDR_REP' && refused.status === sidrStatus.REJECT)
    resolve(SERVICE)
    for (let i = 0; i < 4; i++) {
      pair.lose()
      pair.expire()
    }
    assert.deepEqual(names(pair.a), ['SIDR_REQ_ERROR'])
  })
})

describe('peers that send wrong values', () => {
  test('a DREQ with a wrong id or queue pair changes nothing', () => {
    const [active, passive] = established(pair)
    const ids = { tid: 1n, localId: active.localId, remoteId: passive.localId }
    inject(pair.b, { name: 'DREQ', ...ids, remoteQpn: 0x99 })
    inject(pair.b, { name: 'DREQ', ...ids, localId: 77, remoteQpn: passive.agreed.localQpn })
    assert.equal(passive.state, 'ESTABLISHED')
    assert.deepEqual(names(pair.b), [])
  })

  test('a REJ for a timeout must have the receiver’s id, unless the sender may lack the REP', () => {
    const timeoutFields = { reason: rejReason.TIMEOUT, message: cmAnswered.OTHER, info: caGuidBytes(1), infoLength: 8 }
    const [active, passive] = established(pair)
    const rej = { name: 'REJ', tid: 1n, localId: active.localId, ...timeoutFields } as const
    inject(pair.b, { ...rej, remoteId: 0 })
    inject(pair.b, { ...rej, remoteId: passive.localId ^ 1 })
    assert.equal(passive.state, 'ESTABLISHED')
    assert.deepEqual(names(pair.b), [])
    inject(pair.b, { ...rej, remoteId: passive.localId })
    assert.equal(passive.state, 'TIMEWAIT')
    pair.b.events()

    const [other, waiting] = requested({ qpn: 0x33 })
    pair.b.engine.reply(waiting, offer(0x44), pair.now)
    inject(pair.b, { ...rej, localId: other.localId, remoteId: 0 })
    assert.equal(waiting.state, 'IDLE')
  })

  test('a REQ with the CA GUID and ids of another peer does not affect this peer’s connection', () => {
    start()
    const [req] = parsed(pair.collect())
    assert.ok(req?.name === 'REQ')
    // The forged REQ of host 3 arrives first, and gets its own connection.
    inject(pair.b, { ...req, localGid: gid(3) }, pathTo(2, 3))
    const forged = onlyEvent(pair.b).connection
    pair.exchange()
    const { name, connection } = onlyEvent(pair.b)
    assert.equal(name, 'REQ_RECEIVED')
    assert.notEqual(connection, forged)
    // From another address the REQ is refused, because its GID is not the sender's.
    inject(pair.b, req, pathTo(2, 4))
    const [rej] = parsed(pair.collect())
    assert.ok(rej?.name === 'REJ' && rej.reason === rejReason.INVALID_GID)
    assert.deepEqual(names(pair.b), [])
  })

  test('a REJ of a message that is not outstanding changes nothing', () => {
    const [active, passive] = established(pair)
    inject(pair.b, {
      name: 'REJ',
      tid: 1n,
      localId: active.localId,
      remoteId: passive.localId,
      message: cmAnswered.REQ,
      reason: rejReason.CONSUMER_DEFINED,
    })
    assert.equal(passive.state, 'ESTABLISHED')
  })

  test('an MRA for a message that is not outstanding changes no timeout', () => {
    const active = start()
    pair.lose()
    const before = pair.a.engine.nextTimeout()
    const remoteId = active.localId
    inject(pair.a, { name: 'MRA', tid: 1n, localId: 5, remoteId, message: cmAnswered.REP, serviceTimeout: 31 })
    assert.equal(pair.a.engine.nextTimeout(), before)
    assert.equal(active.state, 'REQ_SENT')
  })

  test('values that do not fit are refused without any effect', () => {
    const active = pair.a.engine.create(pathTo(1, 2))
    assert.throws(() => pair.a.engine.connect(active, request(1 << 24), 0), /REQ: qpn is number 16777216/)
    assert.throws(
      () => pair.a.engine.connect(active, request(1, { privateData: new Uint8Array(93) }), 0),
      /at most 92 bytes/,
    )
    assert.equal(active.state, 'IDLE')
    assert.deepEqual(pair.lose(), [])
  })

  test('requests to a service id are refused after the end of its listener', () => {
    const { engine } = pair.b
    engine.listen(0x2012n)
    start({ serviceId: 0x2012n })
    pair.exchange()
    assert.equal(onlyEvent(pair.b).connection.serviceId, 0x2012n)
    engine.unlisten(0x2012n)
    const refused = start({ serviceId: 0x2012n, qpn: 0x12 })
    assert.deepEqual(pair.exchange(), ['1:REQ', '2:REJ'])
    assert.equal(refused.state, 'IDLE')
  })
})

test('local ids are random numbers, except 0 and ids in use', () => {
  const HIGH_BITS_OF_TID = 0xaaaa
  const numbers = [HIGH_BITS_OF_TID, 7, 0, 7, 0x8000_0000, 9]
  const { engine } = new Host(1, () => numbers.shift() ?? 0)
  const ids = [0, 1, 2].map(() => engine.create(pathTo(1, 2)).localId)
  assert.deepEqual(ids, [7, 0x8000_0000, 9])
})

describe('queue pairs of connections', () => {
  test('a queue pair with a connection is refused for a second connection', () => {
    const [active, passive] = established(pair)
    const other = pair.a.engine.create(pathTo(1, 2))
    assert.throws(() => pair.a.engine.connect(other, request(0x11), pair.now), /queue pair 17 is connected already/)
    assert.deepEqual(pair.exchange(), [])
    assert.deepEqual([active.state, passive.state, other.state], ['ESTABLISHED', 'ESTABLISHED', 'IDLE'])
    pair.a.engine.connect(other, request(0x12), pair.now)
    pair.exchange()
    assert.throws(() => pair.b.engine.reply(onlyEvent(pair.b).connection, offer(0x22), pair.now), /queue pair 34/)
    pair.a.engine.disconnect(active, pair.now)
    pair.exchange()
    pair.b.engine.confirmDisconnect(passive, pair.now)
    pair.exchange()
    assert.equal(active.state, 'TIMEWAIT')
    const next = pair.a.engine.create(pathTo(1, 2))
    pair.a.engine.connect(next, request(0x11), pair.now)
    assert.equal(next.state, 'REQ_SENT', 'in TIMEWAIT the queue pair is free again')
  })

  test('QPN 0 may be used by several connections', () => {
    established(pair, [0, 0])
    established(pair, [0, 0])
  })

  test('a connection stays in TIMEWAIT for at most 8.6 s, for any ACK timeout of the peer', () => {
    const [, passive] = established(pair)
    passive.agreed.ackTimeout = 31
    pair.b.engine.destroy(passive, 0)
    assert.equal(passive.state, 'TIMEWAIT')
    assert.equal(pair.b.engine.nextTimeout(), fromExponent(21))
  })
})

describe('on a path without delay', () => {
  beforeEach(() => {
    for (const host of [pair.a, pair.b]) host.firstRepetition = 8000
  })

  /** The times at which lost REQs are sent, until `end`. */
  const sendingTimes = (end: number): number[] => {
    const times: number[] = []
    for (; pair.now < end; pair.expire()) if (pair.lose().length > 0) times.push(pair.now)
    return times
  }

  test('a lost message is repeated after milliseconds; the retries stay as they are', () => {
    const active = start()
    const timeout = active.answerTimeout
    const times = sendingTimes(timeout)
    assert.deepEqual(times.slice(0, 6), [0, 8000, 24_000, 56_000, 120_000, 184_000])
    // The repetitions fill the first timeout; then the first retry follows.
    assert.deepEqual([pair.now, pair.lose(), active.pending?.retries], [timeout, ['REQ'], active.maxCmRetries - 1])
  })

  test('a repetition of a rejected REQ gets the same REJ, and is no new request', () => {
    start()
    const [req] = pair.collect()
    pair.exchange()
    const { connection } = onlyEvent(pair.b)
    pair.b.engine.reject(connection, { reason: 28 }, pair.now)
    pair.lose()
    pair.deliver(req!)
    assert.deepEqual([pair.exchange(), names(pair.b), names(pair.a)], [['2:REJ'], [], ['REJ_RECEIVED']])
    // Another request of the same peer is new.
    requested()
  })

  test('after an MRA a message waits as long as the peer asks', () => {
    const [active, passive] = requested()
    pair.b.engine.delay(passive, 20)
    assert.deepEqual(pair.exchange(), ['2:MRA'])
    assert.equal(pair.a.engine.nextTimeout(), pair.now + (active.pending?.timeout ?? 0))
  })
})
