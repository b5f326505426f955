/*
 * Hostile peers: floods of requests from one and from many, unreadable requests, and messages with other connections'
 * ids. Their cost is bounded, and other listeners continue (docs/why/threat-model.md).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CmPortSpace } from '../../../src/spec/enums.ts'
import { CM_CLASS, MAD_BYTES, transportType } from '../../../src/spec/wire/mad.ts'
import { emitCm, emitRdmaCmHeader, rdmaCmServiceId } from '../../../src/wire/mad/mad.ts'
import { randomFrom } from '../../cm/pair.ts'
import { plainRequest } from '../../cm/request.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { assertNothingLeft, establish, type Host, ip4, parametersOf, twoHosts } from './hosts.ts'

const PORT = 7471
const BACKLOG = 8
const FLOOD = 5000
const { TCP, UDP } = CmPortSpace.values

const local = Uint8Array.of(...new Uint8Array(12), 10, 0, 0, 2)
const header = emitRdmaCmHeader({ ipVersion: 4, port: 9, source: local, destination: local }, Uint8Array.of(1))
const noHeader = new Uint8Array(36).fill(0xee)

/** A REQ from a peer that is not simulated by a host. */
const req = (
  number: number,
  caGuid: bigint,
  {
    port = PORT,
    portSpace = TCP as number,
    privateData = header,
    remoteGid = ipv4(10, 0, 0, 2),
    transportType: type = transportType.RC as number,
  } = {},
) =>
  emitCm({
    ...plainRequest,
    tid: BigInt(number),
    localId: number,
    serviceId: rdmaCmServiceId(portSpace, port),
    transportType: type,
    caGuid,
    qpn: 2 + (number % 0xff_fff0),
    localGid: ipv4(10, 0, 0, 1),
    remoteGid,
    localAckTimeout: 31,
    privateData,
  })

const sidrReq = (requestId: number, privateData = header, portSpace: number = UDP) =>
  emitCm({
    name: 'SIDR_REQ',
    tid: BigInt(requestId),
    requestId,
    pkey: 0xffff,
    serviceId: rdmaCmServiceId(portSpace, PORT),
    privateData,
  })

/** Sends from queue pair 1 of `a` to that of `b`. */
const sender = (network: ReturnType<typeof twoHosts>['network'], a: Host) => {
  const { device } = a.devices.get('rxe1')!
  const to = { localGid: ipv4(10, 0, 0, 1), remoteGid: ipv4(10, 0, 0, 2), qpn: 1, pkey: 0xffff }
  const rest = { flowLabel: 1, trafficClass: 0, hopLimit: 64 }
  let sent = 0
  return (mad: Uint8Array): void => {
    a.mads.send(device, mad, { ...to, ...rest })
    if (++sent % 64 === 0) network.settle()
  }
}

describe('a flood', () => {
  for (const [name, guidOf] of [
    ['one peer', () => 7n],
    ['many peers', (i: number) => 0x1000n + BigInt(i)],
  ] as const)
    it(`of requests from ${name} creates as many identifiers as the backlog allows; other listeners continue`, () => {
      const { network, a, b } = twoHosts()
      const victim = b.listen(ip4(2, PORT), { backlog: BACKLOG })
      const other = b.listen(ip4(2, PORT + 1))
      const send = sender(network, a)
      for (let i = 1; i <= FLOOD; i++) send(req(i, guidOf(i)))
      network.settle()
      const requests = b.requests(victim)
      assert.equal(requests.length, BACKLOG)
      assert.deepEqual(b.cm.counts, { identifiers: 2 + BACKLOG, listeners: 2, connections: BACKLOG })
      const { active, passive } = establish(network, a, b, other, [0x11, 0x22])
      assert.equal(passive.connection?.state, 'ESTABLISHED')
      a.cm.destroy(active)
      for (const id of [...requests, passive, victim, other]) b.cm.destroy(id)
      assertNothingLeft(network)
    })

  it('of SIDR requests creates as many identifiers as the backlog allows', () => {
    const { network, a, b } = twoHosts()
    const victim = b.listen(ip4(2, PORT), { backlog: BACKLOG, portSpace: UDP })
    const send = sender(network, a)
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
    const send = sender(network, a)
    for (let i = 1; i <= FLOOD / 4; i++) {
      send(req(i, 7n, { privateData: noHeader }))
      send(req(i, 7n, { port: PORT + 1 }))
      send(req(i, 7n, { remoteGid: ipv4(10, 0, 0, 99) }))
      send(sidrReq(i, noHeader))
    }
    network.settle()
    assert.deepEqual(b.cm.counts, { identifiers: 1, listeners: 1, connections: 0 })
    b.cm.destroy(victim)
    assertNothingLeft(network)
  })

  it('of random bytes, with or without the header of a CM message, does not prevent a connection', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const send = sender(network, a)
    const random = randomFrom(3)
    for (let i = 0; i < FLOOD; i++) {
      const mad = Uint8Array.from({ length: MAD_BYTES }, () => random())
      if (i % 4 !== 0) mad.set([1, CM_CLASS, 2, 3], 0)
      if (i % 4 > 1) mad.set([0, 0x10 + (random() % 12)], 16)
      send(mad)
    }
    network.settle()
    const { passive } = establish(network, a, b, listener, [0x11, 0x22])
    assert.equal(passive.connection?.state, 'ESTABLISHED')
  })
})

describe('a listener', () => {
  it('gets no request for another type of queue pair: the request is rejected, as by Linux', () => {
    const { network, a, b } = twoHosts()
    const connected = b.listen(ip4(2, PORT))
    const datagrams = b.listen(ip4(2, PORT), { portSpace: UDP })
    const send = sender(network, a)
    send(sidrReq(1, header, TCP))
    send(req(2, 7n, { portSpace: UDP }))
    send(req(3, 7n, { transportType: transportType.UC }))
    network.settle()
    assert.deepEqual([b.requests(connected), b.requests(datagrams)], [[], []])
    const { sent } = b.cm.engine.counters
    assert.deepEqual([sent.REJ, sent.SIDR_REP], [2, 1])
    for (const id of [connected, datagrams]) b.cm.destroy(id)
    assertNothingLeft(network)
  })
})

describe('a connection', () => {
  it('is not ended by messages from peers that do not know its ids', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
    const { localId, remoteId } = passive.connection!
    const send = sender(network, a)
    const random = randomFrom(9)
    for (let i = 0; i < 2000; i++) {
      const guessedId = { tid: BigInt(random()), localId: random(), remoteId: localId }
      send(emitCm({ name: 'DREQ', ...guessedId, remoteQpn: 0x22 }))
      send(emitCm({ name: 'REJ', ...guessedId, message: 2, reason: 4 }))
      send(emitCm({ name: 'DREQ', ...guessedId, localId: remoteId, remoteId: random(), remoteQpn: 0x22 }))
    }
    // A program on the same host that names the queue pair cannot end it either.
    const otherProgram = a.create()
    a.resolve(otherProgram, ip4(2, PORT))
    assert.throws(() => a.cm.connect(otherProgram, parametersOf(0x11)), /queue pair 17 is connected already/)
    network.settle()
    assert.deepEqual([active.connection?.state, passive.connection?.state], ['ESTABLISHED', 'ESTABLISHED'])
  })
})
