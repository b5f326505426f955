/*
 * Floods and forged messages of hostile peers (docs/why/threat-model.md).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createRandom } from '../../../src/base/random.ts'
import { CmPortSpace } from '../../../src/spec/enums.ts'
import {
  CM_CLASS,
  CM_CLASS_VERSION,
  cmAnswered,
  MAD_BASE_VERSION,
  MAD_BYTES,
  MAD_METHOD_SEND,
  rejReason,
  transportType,
} from '../../../src/spec/wire/mad.ts'
import { emitCm, emitRdmaCmHeader } from '../../../src/transport/wire/mad/mad.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import {
  GUID,
  listenerAddress,
  PORT,
  req,
  SOURCE_PORT,
  senderOf,
  sidrReq,
  withHeader,
  withoutHeader,
} from './forged.ts'
import { any4, assertNothingLeft, cmOf, establish, ip4, parametersOf, twoHosts } from './hosts.ts'

const BACKLOG = 8
/** Number of messages of a flood. */
const FLOOD = 5000
const { TCP, UDP } = CmPortSpace.values
const QPNS = [0x11, 0x22] as const
/** Offset of the attribute id in a MAD. Ids of CM messages are 0x10 to 0x1a; the flood also has 0x1b. */
const ATTRIBUTE_ID_AT = 16
const FIRST_CM_ATTRIBUTE = 0x10
const CM_ATTRIBUTES = 12

describe('a flood', () => {
  for (const [name, guidOf] of [
    ['one peer', () => GUID],
    ['many peers', (i: number) => GUID + BigInt(i)],
  ] as const)
    it(`of requests from ${name} creates as many identifiers as the backlog allows; other listeners continue`, () => {
      const { network, a, b } = twoHosts()
      const victim = b.listen(ip4(2, PORT), { backlog: BACKLOG })
      const other = b.listen(ip4(2, PORT + 1))
      const send = senderOf(network, a)
      for (let i = 1; i <= FLOOD; i++) send(req(i, guidOf(i)))
      network.settle()
      const requests = b.requests(victim)
      assert.equal(requests.length, BACKLOG)
      assert.deepEqual(b.cm.counts, { identifiers: 2 + BACKLOG, listeners: 2, connections: BACKLOG })
      const { active, passive } = establish(network, a, b, other, QPNS)
      assert.equal(cmOf(passive).state, 'ESTABLISHED')
      a.cm.destroy(active)
      for (const id of [...requests, passive, victim, other]) b.cm.destroy(id)
      assertNothingLeft(network)
    })

  it('of SIDR requests creates as many identifiers as the backlog allows', () => {
    const { network, a, b } = twoHosts()
    const victim = b.listen(ip4(2, PORT), { backlog: BACKLOG, portSpace: UDP })
    const send = senderOf(network, a)
    for (let i = 1; i <= FLOOD; i++) send(sidrReq(i))
    network.settle()
    const requests = b.requests(victim)
    assert.equal(requests.length, BACKLOG)
    assert.equal(b.cm.counts.connections, BACKLOG)
    for (const id of [...requests, victim]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('of rejected requests leaves no objects', () => {
    const { network, a, b } = twoHosts()
    const victim = b.listen(ip4(2, PORT))
    const send = senderOf(network, a)
    for (let i = 1; i <= FLOOD / 4; i++) {
      send(req(i, GUID, { privateData: withoutHeader }))
      send(req(i, GUID, { port: PORT + 1 }))
      send(req(i, GUID, { remoteGid: ipv4(10, 0, 0, 99) }))
      send(sidrReq(i, withoutHeader))
    }
    network.settle()
    assert.deepEqual(b.cm.counts, { identifiers: 1, listeners: 1, connections: 0 })
    b.cm.destroy(victim)
    assertNothingLeft(network)
  })

  it('of random bytes, with or without the header of a CM message, does not prevent a connection', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const send = senderOf(network, a)
    const random = createRandom(3)
    for (let i = 0; i < FLOOD; i++) {
      const mad = Uint8Array.from({ length: MAD_BYTES }, () => random())
      // Three quarters get the header of a CM message, two of them also an attribute id of CM.
      if (i % 4 !== 0) mad.set([MAD_BASE_VERSION, CM_CLASS, CM_CLASS_VERSION, MAD_METHOD_SEND], 0)
      if (i % 4 > 1) mad.set([0, FIRST_CM_ATTRIBUTE + (random() % CM_ATTRIBUTES)], ATTRIBUTE_ID_AT)
      send(mad)
    }
    network.settle()
    const { passive } = establish(network, a, b, listener, QPNS)
    assert.equal(cmOf(passive).state, 'ESTABLISHED')
  })
})

describe('a listener', () => {
  it('rejects requests for another type of queue pair, as Linux does', () => {
    const { network, a, b } = twoHosts()
    const connected = b.listen(ip4(2, PORT))
    const datagrams = b.listen(ip4(2, PORT), { portSpace: UDP })
    const send = senderOf(network, a)
    send(sidrReq(1, withHeader, TCP))
    send(req(2, GUID, { portSpace: UDP }))
    send(req(3, GUID, { transportType: transportType.UC }))
    network.settle()
    assert.deepEqual([b.requests(connected), b.requests(datagrams)], [[], []])
    const { sent } = b.engine.counters
    assert.deepEqual([sent.REJ, sent.SIDR_REP], [2, 1])
    for (const id of [connected, datagrams]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('rejects requests of other hosts with impossible addresses in the header, as Linux does', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(any4(PORT))
    const send = senderOf(network, a)
    const wrong = [
      [127, 0, 0, 1],
      [224, 0, 0, 1],
      [0, 0, 0, 0],
    ].map(octets => Uint8Array.of(...new Uint8Array(12), ...octets))
    const peer = Uint8Array.of(...new Uint8Array(12), 10, 0, 0, 1)
    const headers = [
      ...wrong.map(source => ({ source, destination: listenerAddress })),
      ...[peer, ...wrong].map(destination => ({ source: peer, destination })),
    ]
    headers.forEach((addresses, i) => {
      const privateData = emitRdmaCmHeader({ ipVersion: 4, port: SOURCE_PORT, ...addresses }, new Uint8Array(0))
      send(req(1 + i, GUID, { privateData }))
    })
    network.settle()
    assert.deepEqual(b.requests(listener), [])
    assert.equal(b.engine.counters.sent.REJ, headers.length)
    b.cm.destroy(listener)
    assertNothingLeft(network)
  })
})

describe('a connection', () => {
  it('is not ended by messages with only one of its two ids, nor by another program that uses its queue pair number', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const { active, passive } = establish(network, a, b, listener, QPNS)
    const { localId, remoteId } = cmOf(passive)
    const send = senderOf(network, a)
    const random = createRandom(9)
    for (let i = 0; i < 2000; i++) {
      const ids = { tid: BigInt(random()), localId: random(), remoteId: localId }
      send(emitCm({ name: 'DREQ', ...ids, remoteQpn: QPNS[1] }))
      send(emitCm({ name: 'REJ', ...ids, message: cmAnswered.OTHER, reason: rejReason.TIMEOUT }))
      send(emitCm({ name: 'DREQ', ...ids, localId: remoteId, remoteId: random(), remoteQpn: QPNS[1] }))
    }
    // Another program on the same host cannot end the connection by its queue pair number.
    const otherProgram = a.create()
    a.resolve(otherProgram, ip4(2, PORT))
    assert.throws(
      () => a.cm.connect(otherProgram, parametersOf(QPNS[0])),
      new RegExp(`queue pair ${QPNS[0]} is connected already`),
    )
    network.settle()
    assert.deepEqual([cmOf(active).state, cmOf(passive).state], ['ESTABLISHED', 'ESTABLISHED'])
  })
})
