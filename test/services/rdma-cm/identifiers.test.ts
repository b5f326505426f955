/*
 * Identifiers of rdma_cm between hosts in virtual time (R17, R18).
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { pathRecord } from '../../../src/services/rdma-cm/path-record.ts'
import { qpAttributesFor } from '../../../src/services/rdma-cm/qp-attributes.ts'
import { Family, ipAddress } from '../../../src/services/socket-address.ts'
import type { SocketAddress } from '../../../src/spec/classes/connections/cm_parameters.ts'
import { CmPortSpace, QpState } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { rdmaCmServiceId } from '../../../src/transport/wire/mad/mad.ts'
import { errnoOf } from '../../core/fixture.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import {
  any4,
  any6,
  assertNothingLeft,
  attributesOf,
  byGid,
  cmOf,
  establish,
  type Host,
  ip4,
  ip6,
  parametersOf,
  twoHosts,
  VirtualNetwork,
} from './hosts.ts'

const { IB, IPOIB, TCP, UDP } = CmPortSpace.values
const PORT = 7471
/** Maximum bytes of private data: in a REQ after rdma_cm's header, in a REJ, in a REP. */
const MAX_REQUEST_DATA = 56
const MAX_REJECT_DATA = 148
const MAX_REPLY_DATA = 196
/** Linux's default of net.ipv4.ip_local_port_range. */
const FIRST_ASSIGNED_PORT = 32768
const LAST_ASSIGNED_PORT = 60999

/** A new identifier that is bound to an address. */
const bound = (host: Host, address: SocketAddress, reuseAddress = false) => {
  const id = host.create()
  id.reuseAddress = reuseAddress
  host.cm.bind(id, address)
  return id
}

/** The port of device rxeN. */
const portOf = ({ devices }: Host, number: number) => {
  const port = devices.get(`rxe${number}`)?.device.ports[0]
  assert.ok(port)
  return port
}

/** From now on, long jobs of a host wait in `jobs` until the test passes them to `run`. */
const holdJobs = ({ core }: Host) => {
  const jobs: Iterator<unknown>[] = []
  const { runJob: run } = core
  Object.assign(core, { runJob: (job: Iterator<unknown>) => jobs.push(job) })
  return { jobs, run }
}

describe('a connection', () => {
  it('is established, and disconnected by the active side', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
    assert.deepEqual(a.eventNames(active), ['ADDR_RESOLVED', 'ROUTE_RESOLVED', 'CONNECT_RESPONSE'])
    // As on Linux, this event has no private data: libfabric distinguishes the two sides by private data.
    assert.deepEqual(
      b.take(passive).map(({ name, details }) => [name, details]),
      [['ESTABLISHED', {}]],
    )
    assert.deepEqual(b.cm.counts, { identifiers: 2, listeners: 1, connections: 1 })
    a.cm.disconnect(active)
    network.settle()
    assert.deepEqual(b.eventNames(passive), ['DISCONNECTED'])
    b.cm.disconnect(passive)
    network.settle()
    assert.deepEqual(a.eventNames(active), ['DISCONNECTED'])
    network.runTimers()
    assert.deepEqual([a.eventNames(active), b.eventNames(passive)], [['TIMEWAIT_EXIT'], ['TIMEWAIT_EXIT']])
    a.cm.destroy(active)
    for (const id of [passive, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('is disconnected by both sides at the same time, with one DISCONNECTED on each side', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
    a.take(active)
    b.take(passive)
    a.cm.disconnect(active)
    b.cm.disconnect(passive)
    network.settle()
    a.cm.disconnect(active)
    b.cm.disconnect(passive)
    network.runTimers()
    assert.deepEqual(
      [a.eventNames(active), b.eventNames(passive)],
      [
        ['DISCONNECTED', 'TIMEWAIT_EXIT'],
        ['DISCONNECTED', 'TIMEWAIT_EXIT'],
      ],
    )
    a.cm.destroy(active)
    for (const id of [passive, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('reports DISCONNECTED at one end if the other end is destroyed', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
    b.take(passive)
    a.cm.destroy(active)
    network.settle()
    assert.deepEqual(b.eventNames(passive), ['DISCONNECTED'])
    for (const id of [passive, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('answers a resent request or reply with MRA if the consumer is slow', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const active = a.connect(ip4(2, PORT), 0x11)
    network.settle()
    const [passive] = b.requests(listener)
    assert.ok(passive)
    assert.equal(b.engine.counters.sent.MRA + b.engine.counters.resent.MRA, 0)
    // The REQ is resent, and answered by MRA. Then the active side waits for more than a minute.
    network.tick()
    assert.equal(cmOf(active).state, 'MRA_REQ_RCVD')
    assert.equal(a.engine.counters.received.MRA, 1)
    const sentAt = network.now
    network.tick()
    assert.ok(network.now - sentAt > 60_000_000, `${network.now - sentAt} µs`)
    b.cm.accept(passive, parametersOf(0x22))
    network.settle()
    assert.deepEqual(a.eventNames(active), ['ADDR_RESOLVED', 'ROUTE_RESOLVED', 'CONNECT_RESPONSE'])
    // The active side is also slow.
    network.tick()
    assert.equal(cmOf(passive).state, 'MRA_REP_RCVD')
    a.cm.accept(active, undefined)
    network.settle()
    assert.deepEqual(b.eventNames(passive), ['ESTABLISHED'])
    a.cm.destroy(active)
    for (const id of [passive, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('that is rejected reports private data and reason, may be retried, and leaves no objects', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const active = a.connect(ip4(2, PORT), 0x11)
    const data = Uint8Array.of(1, 2, 3)
    for (let tries = 0; tries < 3; tries++) {
      network.settle()
      const [request] = b.requests(listener)
      assert.ok(request)
      b.cm.reject(request, data, rejReason.CONSUMER_DEFINED)
      network.settle()
      const { name, details } = a.take(active).at(-1)!
      assert.deepEqual([name, details.status], ['REJECTED', rejReason.CONSUMER_DEFINED])
      assert.deepEqual(details.connection?.privateData.subarray(0, 3), data)
      b.cm.destroy(request)
      a.cm.connect(active, parametersOf(0x11))
    }
    a.cm.destroy(active)
    network.settle()
    for (const request of b.requests(listener)) b.cm.destroy(request)
    b.cm.destroy(listener)
    assertNothingLeft(network)
  })

  it('to a link-local address has a source address on the same interface', () => {
    const { network, a } = twoHosts()
    // the index of the interface of both devices
    const scope = 1
    const peer = { ...ipAddress(Uint8Array.of(0xfe, 0x80, ...new Uint8Array(13), 2), PORT), scope }
    const active = a.create()
    a.resolve(active, peer)
    assert.deepEqual(a.eventNames(active), ['ADDR_RESOLVED', 'ROUTE_RESOLVED'])
    const { address, scope: sourceScope } = active.source!
    assert.deepEqual([address, sourceScope], [active.localGid, scope])
    a.cm.destroy(active)
    assertNothingLeft(network)
  })

  it('from a loopback address that no device has reaches only devices of its own host', () => {
    const { network, a } = twoHosts()
    const loopback = (port: number): SocketAddress => ipAddress(ipv4(127, 0, 0, 1), port)
    for (const to of [loopback(PORT), ip4(1, PORT)]) {
      const active = a.create()
      a.cm.resolveAddress(active, to, loopback(0))
      assert.deepEqual(a.eventNames(active), ['ADDR_RESOLVED'])
      assert.deepEqual(active.source?.address, ipv4(127, 0, 0, 1))
      assert.deepEqual([active.localGid, active.remoteGid], [ipv4(10, 0, 0, 1), ipv4(10, 0, 0, 1)])
      a.cm.destroy(active)
    }
    const active = a.create()
    a.cm.resolveAddress(active, ip4(2, PORT), loopback(0))
    const [event] = a.take(active)
    assert.deepEqual([event?.name, event?.details.status], ['ADDR_ERROR', -Errno.ENODEV])
    a.cm.destroy(active)
    assertNothingLeft(network)
  })

  it('to a listener on 127.0.0.1 is accepted from its own host only', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ipAddress(ipv4(127, 0, 0, 1), PORT))
    /** The numbers of requests at the listener and of REJECTED events at the host. */
    const outcomeOf = (active: ReturnType<Host['create']>, host: Host) => {
      network.settle()
      const requests = b.requests(listener)
      const rejected = host.take(active).filter(({ name }) => name === 'REJECTED')
      for (const id of requests) b.cm.destroy(id)
      host.cm.destroy(active)
      return [requests.length, rejected.length]
    }
    assert.deepEqual(outcomeOf(b.connect(ip4(2, PORT), 0x22), b), [1, 0])
    assert.deepEqual(outcomeOf(a.connect(ip4(2, PORT), 0x11), a), [0, 1])
    b.cm.destroy(listener)
    network.settle()
    assertNothingLeft(network)
  })

  it('to a port without a listener is rejected', () => {
    const { network, a } = twoHosts()
    const active = a.connect(ip4(2, PORT), 0x11)
    network.settle()
    const { name, details } = a.take(active).at(-1)!
    assert.deepEqual([name, details.status], ['REJECTED', rejReason.INVALID_SERVICE_ID])
    a.cm.destroy(active)
    assertNothingLeft(network)
  })

  it('to a silent host ends with UNREACHABLE', () => {
    const { network, a, b } = twoHosts()
    const active = a.connect(ip4(2, PORT), 0x11)
    b.unplug(2)
    network.runTimers()
    const { name, details } = a.take(active).at(-1)!
    assert.deepEqual([name, details.status], ['UNREACHABLE', -Errno.ETIMEDOUT])
    a.cm.destroy(active)
    assertNothingLeft(network)
  })

  it('has as much private data as its messages allow', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    for (const [bytes, fits] of [
      [MAX_REQUEST_DATA, true],
      [MAX_REQUEST_DATA + 1, false],
    ] as const) {
      const id = a.create()
      a.resolve(id, ip4(2, PORT))
      const data = new Uint8Array(bytes).fill(7)
      assert.equal(
        errnoOf(() => a.cm.connect(id, parametersOf(0x11, data))),
        fits ? 'ok' : 'EINVAL',
      )
      network.settle()
      const events = b.take(listener)
      assert.equal(events.length, fits ? 1 : 0)
      for (const { details, request } of events) {
        assert.deepEqual(details.connection?.privateData.subarray(0, bytes), data)
        assert.equal(
          errnoOf(() => b.cm.reject(request!, new Uint8Array(MAX_REJECT_DATA + 1), rejReason.CONSUMER_DEFINED)),
          'EINVAL',
        )
        b.cm.accept(request!, parametersOf(0x22, new Uint8Array(MAX_REPLY_DATA)))
        b.cm.destroy(request!)
      }
      a.cm.destroy(id)
    }
    b.cm.destroy(listener)
    assertNothingLeft(network)
  })

  it('is rejected, as on Linux, if its acceptance fails', () => {
    const { network, a, b } = twoHosts()
    for (const portSpace of [TCP, UDP]) {
      const listener = b.listen(ip4(2, PORT), { portSpace })
      const id = a.connect(ip4(2, PORT), 0x11, { portSpace })
      network.settle()
      const [request] = b.requests(listener)
      for (let tries = 0; tries < 2; tries++)
        assert.equal(
          errnoOf(() => b.cm.accept(request!, parametersOf(0x22, new Uint8Array(MAX_REPLY_DATA + 1)))),
          'EINVAL',
        )
      network.settle()
      const ending = portSpace === UDP ? 'UNREACHABLE' : 'REJECTED'
      assert.deepEqual(a.eventNames(id), ['ADDR_RESOLVED', 'ROUTE_RESOLVED', ending])
      a.cm.destroy(id)
      for (const one of [request!, listener]) b.cm.destroy(one)
    }
    assertNothingLeft(network)
  })

  it('survives 30 % packet loss in each direction', () => {
    const resent = [0, 0]
    for (let seed = 0; seed < 10; seed++) {
      const { network, a, b } = twoHosts(`dir=sent,drop=30%,seed=${seed}`)
      const listener = b.listen(ip4(2, PORT))
      const active = a.connect(ip4(2, PORT), 0x11)
      const eventNames: string[] = []
      for (let turn = 0; turn < 200 && !eventNames.includes('ESTABLISHED'); turn++) {
        network.settle()
        for (const request of b.requests(listener)) b.cm.accept(request, parametersOf(0x22))
        for (const { name } of a.take(active)) if (name === 'CONNECT_RESPONSE') a.cm.accept(active, undefined)
        eventNames.push(...b.reported.splice(0).map(({ name }) => name))
        network.tick()
      }
      assert.ok(eventNames.includes('ESTABLISHED'), `seed ${seed}`)
      for (const [i, { engine }] of [a, b].entries())
        resent[i] += Object.values(engine.counters.resent).reduce((sum, count) => sum + count, 0)
    }
    assert.ok(Math.min(...resent) > 0, `messages resent by each side: ${resent.join(', ')}`)
  })
})

describe('listeners', () => {
  it('without an address also listen on later devices', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(any4(PORT))
    b.plug(3)
    for (const last of [2, 3]) {
      const { active, passive } = establish(network, a, b, listener, [last, last], ip4(last, PORT))
      assert.equal(passive.device?.device.name, `rxe${last}`)
      a.cm.destroy(active)
      b.cm.destroy(passive)
    }
    b.cm.destroy(listener)
    assertNothingLeft(network)
  })

  it('at two addresses of a device get only requests to their address', () => {
    const { network, a, b } = twoHosts()
    const four = b.listen(ip4(2, PORT))
    const six = b.listen(ip6(2, PORT))
    const active = [a.connect(ip6(2, PORT), 0x11), a.connect(ip4(2, PORT), 0x12)]
    network.settle()
    const requests = [b.requests(six), b.requests(four)]
    assert.deepEqual(
      requests.map(({ length }) => length),
      [1, 1],
    )
    assert.deepEqual(
      requests.map(([request]) => request.destination?.port),
      active.map(({ source }) => source?.port),
    )
    for (const id of active) a.cm.destroy(id)
    for (const id of [four, six, ...requests.flat()]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('for any IPv6 address accept IPv4 if they are not IPv6-only', () => {
    const { network, a, b } = twoHosts()
    for (const onlyIpv6 of [false, true]) {
      const listener = b.create()
      listener.onlyIpv6 = onlyIpv6
      b.cm.bind(listener, any6(PORT))
      b.cm.listen(listener, 0)
      const active = [a.connect(ip6(2, PORT), 0x11), a.connect(ip4(2, PORT), 0x12)]
      network.settle()
      const requests = b.requests(listener)
      assert.equal(requests.length, onlyIpv6 ? 1 : 2)
      for (const id of active) a.cm.destroy(id)
      for (const id of [listener, ...requests]) b.cm.destroy(id)
      network.runTimers()
    }
    assertNothingLeft(network)
  })

  it('of one device get only requests to that device, with rdma_cm’s header, or without it by GID and service id', () => {
    const { network, a, b } = twoHosts()
    b.plug(3)
    const [byService, byPort] = [byGid(any6(PORT)), any4(PORT)].map((address, i) => {
      const onlyDevice = b.cm.devices.withAddress(ip4(2 + i, 0).address)
      const id = b.create(TCP, 0, onlyDevice)
      b.cm.bind(id, address)
      b.cm.listen(id, 0)
      return id
    })
    assert.ok(byService && byPort)
    for (const [listener, to] of [
      [byService, byGid(ip4(2, PORT))],
      [byPort, ip4(3, PORT)],
    ] as const) {
      const { active, passive } = establish(network, a, b, listener, [0x11, 0x22], to)
      assert.deepEqual([passive.source?.family, passive.source?.port], [to.family, PORT])
      assert.deepEqual([passive.destination?.family, active.source?.family], [to.family, to.family])
      a.cm.destroy(active)
      b.cm.destroy(passive)
    }
    b.plug(4)
    for (const to of [byGid(ip4(4, PORT)), ip4(4, PORT)]) {
      const active = a.connect(to, 0x11)
      network.settle()
      assert.equal(a.eventNames(active).at(-1), 'REJECTED')
      a.cm.destroy(active)
    }
    for (const listener of [byService, byPort]) b.cm.destroy(listener)
    assertNothingLeft(network)
  })

  it('get requests whose path record has the service id, as that of the other side', () => {
    const { network, a, b } = twoHosts()
    for (const to of [ip4(2, PORT), byGid(ip4(2, PORT))]) {
      const listener = b.listen(to)
      const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
      for (const id of [active, passive]) {
        const record = pathRecord(id)[0]?.record
        assert.ok(record)
        assert.equal(new DataView(record.buffer).getBigUint64(0), rdmaCmServiceId(TCP, PORT))
      }
      a.cm.destroy(active)
      for (const id of [passive, listener]) b.cm.destroy(id)
    }
    assertNothingLeft(network)
  })

  it('get requests whose path record has the traffic class and packet life time of the request', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    // not used: the request has the active side's
    listener.tos = 0x11
    const active = a.create()
    active.tos = 0x60
    active.ackTimeout = 20
    a.resolve(active, ip4(2, PORT))
    a.cm.connect(active, parametersOf(0x11))
    network.settle()
    const [passive] = b.requests(listener)
    assert.ok(passive)
    const [sent, received] = [active, passive].map(id => pathRecord(id)[0]?.record)
    // All fields after the GIDs.
    assert.deepEqual(received?.subarray(40), sent?.subarray(40))
    a.cm.destroy(active)
    for (const id of [passive, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('drop requests beyond their backlog; the requests are resent', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT), { backlog: 2 })
    const active = [1, 2, 3].map(qpn => a.connect(ip4(2, PORT), 0x10 + qpn))
    network.settle()
    const first = b.requests(listener)
    assert.equal(first.length, 2)
    network.tick()
    assert.equal(b.requests(listener).length, 0, 'no request has been answered yet')
    for (const [i, request] of first.entries()) b.cm.accept(request, parametersOf(0x20 + i))
    // The REPs are resent before the third REQ.
    network.tick()
    network.tick()
    const third = b.requests(listener)
    assert.equal(third.length, 1)
    for (const id of active) a.cm.destroy(id)
    for (const id of [listener, ...first, ...third]) b.cm.destroy(id)
    assertNothingLeft(network)
  })
})

describe('ports', () => {
  it('are assigned on request, and are unique', () => {
    const { network, a } = twoHosts()
    const ids = Array.from({ length: 200 }, () => bound(a, ip4(1, 0)))
    const ports = ids.map(({ source }) => source?.port ?? 0)
    assert.equal(new Set(ports).size, ports.length)
    for (const port of ports) assert.ok(port >= FIRST_ASSIGNED_PORT && port <= LAST_ASSIGNED_PORT)
    for (const id of ids) a.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('belong to one identifier per address and port space, until the identifier is destroyed', () => {
    const { a } = twoHosts()
    const first = bound(a, ip4(1, PORT))
    assert.equal(
      errnoOf(() => bound(a, ip4(1, PORT))),
      'EADDRINUSE',
    )
    assert.equal(
      errnoOf(() => bound(a, any4(PORT))),
      'EADDRNOTAVAIL',
    )
    const datagrams = a.create(UDP)
    a.cm.bind(datagrams, ip4(1, PORT))
    a.cm.destroy(first)
    const second = bound(a, ip4(1, PORT))
    for (const id of [second, datagrams]) a.cm.destroy(id)
    assert.equal(
      errnoOf(() => bound(a, any4(PORT))),
      'ok',
    )
  })

  it('may be shared if all identifiers allow it, but not with a listener', () => {
    const { a } = twoHosts()
    const [first, second] = [bound(a, ip4(1, PORT), true), bound(a, ip4(1, PORT), true)]
    assert.equal(
      errnoOf(() => bound(a, ip4(1, PORT))),
      'EADDRINUSE',
    )
    for (const one of [first, second])
      assert.equal(
        errnoOf(() => a.cm.listen(one, 0)),
        'EADDRINUSE',
      )
    a.cm.destroy(second)
    a.cm.listen(first, 0)
    assert.equal(
      errnoOf(() => bound(a, ip4(1, PORT), true)),
      'EADDRINUSE',
    )
  })

  it('are per address family for IPv6-only identifiers', () => {
    const { a } = twoHosts()
    const four = bound(a, any4(PORT))
    assert.equal(
      errnoOf(() => bound(a, any6(PORT))),
      'EADDRNOTAVAIL',
    )
    const six = a.create()
    six.onlyIpv6 = true
    a.cm.bind(six, any6(PORT))
    assert.deepEqual([four.source?.port, six.source?.port], [PORT, PORT])
  })

  it('are also reserved as service ids', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    for (const [address, errno] of [
      [ip4(2, PORT), 'EADDRINUSE'],
      [any6(PORT), 'EADDRNOTAVAIL'],
    ] as const)
      assert.equal(
        errnoOf(() => bound(b, byGid(address))),
        errno,
      )
    const other = b.listen(byGid(ip6(2, PORT)))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
    assert.deepEqual(b.requests(other), [])
    a.cm.destroy(active)
    for (const id of [passive, listener, other]) b.cm.destroy(id)
    // A service id has no address family: an IPv6-only wildcard identifier reserves its port against service ids.
    const six = b.create()
    six.onlyIpv6 = true
    b.cm.bind(six, any6(PORT))
    assert.equal(
      errnoOf(() => bound(b, byGid(any6(PORT)))),
      'EADDRNOTAVAIL',
    )
  })

  it('of service ids are in the port space of their identifier; an IB identifier takes that of its service id', () => {
    const { a } = twoHosts()
    const allBits = (1n << 64n) - 1n
    const serviceOf = (serviceId: bigint, serviceMask: bigint): SocketAddress => ({
      ...any6(0),
      family: Family.IB,
      serviceId,
      serviceMask,
    })
    const datagramService = serviceOf(rdmaCmServiceId(UDP, PORT), allBits)
    for (const portSpace of [TCP, IPOIB])
      assert.equal(
        errnoOf(() => a.cm.bind(a.create(portSpace), datagramService)),
        'EPROTONOSUPPORT',
      )
    const holder = a.create(UDP)
    a.cm.bind(holder, datagramService)
    const id = a.create(IB)
    assert.equal(
      errnoOf(() => a.cm.bind(id, datagramService)),
      'EADDRNOTAVAIL',
    )
    assert.equal(id.portSpace, IB)
    a.cm.bind(id, serviceOf(rdmaCmServiceId(TCP, PORT), allBits))
    const any = a.create(UDP)
    a.cm.bind(any, serviceOf(0n, 0n))
    assert.deepEqual([id.portSpace, any.portSpace], [TCP, UDP])
  })

  it('cannot be bound at an address of no device, or at an IPv4 address with the family AF_INET6', () => {
    const { a } = twoHosts()
    for (const address of [ip4(9, PORT), { ...ip4(1, PORT), family: Family.INET6 }])
      assert.equal(
        errnoOf(() => bound(a, address)),
        'EADDRNOTAVAIL',
      )
    assert.equal(
      errnoOf(() => bound(a, byGid(ip4(9, PORT)))),
      'ENODEV',
    )
  })

  it('are refused with the reason: wrong family, or an address of another device than the identifier', () => {
    const { a } = twoHosts()
    assert.throws(() => bound(a, { ...ip4(1, PORT), family: Family.INET6 }), { message: /needs the family AF_INET$/ })
    const id = bound(a, ip4(1, 0))
    assert.ok(id.device)
    const otherDevice = { ...id.device }
    assert.throws(() => a.cm.devices.endToBind(ip4(1, PORT), otherDevice), {
      code: 'EADDRNOTAVAIL',
      message: /belongs to another device/,
    })
  })

  it('of link-local addresses need the scope, also those of groups; an address of no device is ENODEV', () => {
    const { a } = twoHosts()
    const linkLocal = (last: number): SocketAddress =>
      ipAddress(Uint8Array.of(0xfe, 0x80, ...new Uint8Array(13), last), PORT)
    const group = ipAddress(Uint8Array.of(0xff, 0x12, ...new Uint8Array(13), 1), PORT)
    for (const address of [linkLocal(1), linkLocal(9), group])
      assert.equal(
        errnoOf(() => bound(a, address)),
        'EINVAL',
      )
    for (const address of [linkLocal(9), group])
      assert.equal(
        errnoOf(() => bound(a, { ...address, scope: 1 })),
        'ENODEV',
      )
  })

  it('of a link-local address are independent on each interface', () => {
    const { a } = twoHosts()
    const { gids } = portOf(a, 1)
    const linkLocal = gids.entries[0]
    assert.ok(linkLocal)
    a.plug(3)
    portOf(a, 3).gids.entries[0] = { ...linkLocal, ifindex: 2 }
    const [first, second] = [1, 2].map(scope => bound(a, { ...ipAddress(linkLocal.gid, PORT), scope }))
    assert.notEqual(first?.device, second?.device)
    assert.equal(
      errnoOf(() => bound(a, { ...ipAddress(linkLocal.gid, PORT), scope: 2 })),
      'EADDRINUSE',
    )
  })
})

it('a listener of datagrams has queue pair attributes, a listener of connections has none', () => {
  const { a } = twoHosts()
  const [datagrams, connections] = [a.create(UDP), a.create(TCP)]
  for (const id of [datagrams, connections]) {
    a.cm.bind(id, ip4(1, PORT))
    a.cm.listen(id, 0)
  }
  assert.equal(attributesOf(datagrams, QpState.values.RTR).qkey, datagrams.qkey)
  assert.equal(
    errnoOf(() => qpAttributesFor(connections, QpState.values.RTR)),
    'EINVAL',
  )
})

it('a request that the peer withdrew, or that was rejected, has no queue pair attributes and cannot connect', () => {
  const { network, a, b } = twoHosts()
  const listener = b.listen(ip4(2, PORT))
  for (const end of ['withdraw', 'reject']) {
    const active = a.connect(ip4(2, PORT), 0x11)
    network.settle()
    const [request] = b.requests(listener)
    assert.ok(request)
    assert.equal(attributesOf(request, QpState.values.INIT).state, QpState.values.INIT)
    if (end === 'withdraw') a.cm.destroy(active)
    else b.cm.reject(request, new Uint8Array(0), rejReason.CONSUMER_DEFINED)
    network.settle()
    for (const call of [
      () => qpAttributesFor(request, QpState.values.INIT),
      () => b.cm.connect(request, parametersOf(0x22)),
    ])
      assert.equal(errnoOf(call), 'EINVAL', end)
  }
})

it('a disconnected identifier has no queue pair attributes, also after TIMEWAIT', () => {
  const { network, a, b } = twoHosts()
  const listener = b.listen(ip4(2, PORT))
  const { active } = establish(network, a, b, listener, [0x11, 0x22])
  a.cm.disconnect(active)
  const attributes = () => errnoOf(() => qpAttributesFor(active, QpState.values.INIT))
  assert.equal(attributes(), 'EINVAL')
  network.runTimers()
  assert.equal(cmOf(active).state, 'IDLE')
  assert.equal(attributes(), 'EINVAL')
})

it('disconnecting a listener does nothing if it has a device; a listener of all devices has nothing to disconnect', () => {
  const { a } = twoHosts()
  a.cm.disconnect(a.listen(ip4(1, PORT)))
  const wildcard = a.listen(any4(PORT + 1))
  assert.equal(
    errnoOf(() => a.cm.disconnect(wildcard)),
    'EINVAL',
  )
})

it('a notification of data before the RTU establishes the connection; for an established connection it is EISCONN', () => {
  const { network, a, b } = twoHosts()
  const listener = b.listen(ip4(2, PORT))
  const active = a.connect(ip4(2, PORT), 0x11)
  network.settle()
  const [passive] = b.requests(listener)
  assert.ok(passive)
  assert.equal(
    errnoOf(() => b.cm.establish(passive)),
    'EINVAL',
  )
  b.cm.accept(passive, parametersOf(0x22))
  network.settle()
  b.cm.establish(passive)
  assert.deepEqual(b.eventNames(passive), ['ESTABLISHED'])
  assert.equal(
    errnoOf(() => b.cm.establish(passive)),
    'EISCONN',
  )
  a.cm.accept(active, undefined)
  network.settle()
  assert.deepEqual(b.eventNames(passive), [])
  assert.equal(
    errnoOf(() => b.cm.establish(listener)),
    'EINVAL',
  )
})

it('events of a request and its reply have the peer’s limits of READs swapped, and retry counts of at most 7', () => {
  const { network, a, b } = twoHosts()
  const listener = b.listen(ip4(2, PORT))
  const active = a.create()
  a.resolve(active, ip4(2, PORT))
  const limits = { responderResources: 4, initiatorDepth: 3, retryCount: 8, rnrRetryCount: 255 }
  a.cm.connect(active, { ...parametersOf(0x11), ...limits })
  network.settle()
  const [{ details, request }] = b.take(listener)
  const { qpNum, responderResources, initiatorDepth, retryCount, rnrRetryCount } = details.connection!
  assert.deepEqual([qpNum, responderResources, initiatorDepth, retryCount, rnrRetryCount], [0x11, 3, 4, 7, 7])
  b.cm.accept(request!, { ...parametersOf(0x22), responderResources: 2, initiatorDepth: 1, rnrRetryCount: 8 })
  network.settle()
  const reply = a.take(active).at(-1)!.details.connection!
  assert.deepEqual([reply.qpNum, reply.responderResources, reply.initiatorDepth, reply.rnrRetryCount], [0x22, 1, 2, 7])
})

it('a destination to which the system has no route is refused with the system’s errno, without an event', () => {
  const network = new VirtualNetwork()
  let refusal: number = Errno.ENETUNREACH
  const host = network.host({ routing: { sourceOf: () => -refusal } })
  host.plug(1)
  for (refusal of [Errno.ENETUNREACH, Errno.EHOSTUNREACH, Errno.EACCES]) {
    const id = host.create()
    assert.throws(() => host.cm.resolveAddress(id, ip4(9, PORT), undefined), { errno: refusal })
    assert.deepEqual(host.take(id), [])
    assert.equal(id.state, 'ADDR_BOUND')
    host.cm.resolveAddress(id, ip4(1, PORT), undefined)
    assert.deepEqual(host.eventNames(id), ['ADDR_RESOLVED'])
    host.cm.destroy(id)
  }
})

it('an IPv4 address with the family AF_INET6 is no destination', () => {
  const { a } = twoHosts()
  const id = a.create()
  const mapped = { ...ip4(2, PORT), family: Family.INET6 }
  assert.throws(() => a.cm.resolveAddress(id, mapped, undefined), { errno: Errno.ENETUNREACH })
})

describe('a removed device', () => {
  it('gives its identifiers one DEVICE_REMOVAL; identifiers of other devices continue', () => {
    const { network, a, b } = twoHosts()
    b.plug(3)
    const wildcardListener = b.listen(any4(PORT))
    const listener = b.listen(ip4(2, PORT + 1))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
    for (const host of [a, b]) host.reported.length = 0
    b.unplug(2)
    assert.deepEqual(
      [b.eventNames(listener), b.eventNames(passive), b.eventNames(wildcardListener)],
      [['DEVICE_REMOVAL'], ['DEVICE_REMOVAL'], []],
    )
    for (const use of [
      () => b.cm.listen(listener, 0),
      () => b.cm.accept(passive, parametersOf(0x22)),
      () => b.cm.disconnect(passive),
      () => b.cm.connect(passive, parametersOf(0x22)),
      () => b.cm.resolveAddress(passive, ip4(3, PORT), undefined),
    ])
      assert.equal(errnoOf(use), 'EINVAL')
    // A peer detects a silent host only after it sends to the host.
    a.cm.disconnect(active)
    network.runTimers()
    assert.deepEqual(a.eventNames(active), ['DISCONNECTED', 'TIMEWAIT_EXIT'])
    const again = a.connect(ip4(3, PORT), 0x12)
    network.settle()
    const requests = b.requests(wildcardListener)
    assert.equal(requests.length, 1)
    for (const id of [active, again]) a.cm.destroy(id)
    for (const id of [passive, listener, wildcardListener, ...requests]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('leaves no reference from an answered SIDR request to its destroyed identifier', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT), { portSpace: UDP })
    const active = a.connect(ip4(2, PORT), 0x11, { portSpace: UDP })
    network.settle()
    const [passive] = b.requests(listener)
    b.cm.accept(passive!, parametersOf(0x22))
    network.settle()
    b.unplug(2)
    for (const id of [passive!, listener]) b.cm.destroy(id)
    a.cm.destroy(active)
    assertNothingLeft(network)
  })

  it('notifies its identifiers in steps, except identifiers that are destroyed meanwhile', () => {
    const { network, b } = twoHosts()
    const { jobs, run } = holdJobs(b)
    const ids = Array.from({ length: 10 }, (_, i) => b.listen(ip4(2, PORT + i)))
    b.unplug(2)
    assert.deepEqual(
      ids.flatMap(id => b.eventNames(id)),
      [],
    )
    assert.equal(
      errnoOf(() => b.cm.listen(ids[0]!, 0)),
      'EINVAL',
    )
    b.cm.destroy(ids[9]!)
    for (const job of jobs) run(job)
    assert.deepEqual(
      ids.map(id => b.eventNames(id).length),
      [1, 1, 1, 1, 1, 1, 1, 1, 1, 0],
    )
    for (const id of ids.slice(0, 9)) b.cm.destroy(id)
    assertNothingLeft(network)
  })
})

describe('a bond failover', () => {
  it('notifies identifiers in steps, except identifiers that are destroyed meanwhile', () => {
    const { network, a } = twoHosts()
    const { device } = a.devices.get('rxe1')!
    a.cm.hardwareAddressChanged(device, Uint8Array.of(2, 0, 0, 0, 0, 1))
    const ids = Array.from({ length: 10 }, (_, i) => bound(a, ip4(1, PORT + i)))
    const { jobs, run } = holdJobs(a)
    a.cm.hardwareAddressChanged(device, Uint8Array.of(2, 0, 0, 0, 0, 2))
    assert.equal(a.take(ids[0]!).length, 0)
    // two steps, which notify some of the identifiers
    jobs[0]?.next()
    jobs[0]?.next()
    a.cm.destroy(ids[9]!)
    for (const job of jobs) run(job)
    assert.deepEqual(
      ids.map(id => a.eventNames(id)),
      ids.map((_, i) => (i < 9 ? ['ADDR_CHANGE'] : [])),
    )
    for (const id of ids.slice(0, 9)) a.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('gives ADDR_CHANGE to identifiers that were bound with another MAC; connections continue', () => {
    const { network, a, b } = twoHosts()
    const { device } = a.devices.get('rxe1')!
    const [first, second] = [Uint8Array.of(2, 0, 0, 0, 0, 1), Uint8Array.of(2, 0, 0, 0, 0, 2)]
    // This identifier is bound before any MAC is known, and gets no event.
    const early = bound(a, ip4(1, PORT + 1))
    a.cm.hardwareAddressChanged(device, first)
    const listener = b.listen(ip4(2, PORT))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22])
    a.take(active)
    a.cm.hardwareAddressChanged(device, first)
    assert.deepEqual(a.eventNames(active), [])
    a.cm.hardwareAddressChanged(device, second)
    assert.deepEqual(a.eventNames(active), ['ADDR_CHANGE'])
    const late = bound(a, ip4(1, PORT + 2))
    // The connection was made with the first MAC, the later identifier with the second one.
    a.cm.hardwareAddressChanged(device, first)
    assert.deepEqual([a.eventNames(active), a.eventNames(late), a.eventNames(early)], [[], ['ADDR_CHANGE'], []])
    assert.equal(cmOf(active).state, 'ESTABLISHED')
    for (const id of [early, late, active]) a.cm.destroy(id)
    for (const id of [passive, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })
})

describe('a neighbour that gets another MAC', () => {
  /** `macs`: by the last byte of the address. */
  const routing = (macs: Map<number, string>) => ({
    routing: { neighbourOf: (_index: number, address: Uint8Array) => macs.get(address.at(-1)!) },
  })

  it('gives UNREACHABLE to identifiers with a route to the neighbour, once per MAC; connections continue', () => {
    const network = new VirtualNetwork()
    const macs = new Map([[2, 'aa']])
    const [a, b] = [network.host(routing(macs)), network.host()]
    a.plug(1)
    b.plug(2)
    b.plug(3)
    const { device } = a.devices.get('rxe1')!
    const listener = b.listen(any4(PORT))
    const { active, passive } = establish(network, a, b, listener, [0x11, 0x22], ip4(2, PORT))
    const elsewhere = establish(network, a, b, listener, [0x12, 0x23], ip4(3, PORT))
    const withoutRoute = a.create()
    a.cm.resolveAddress(withoutRoute, ip4(2, PORT), undefined)
    const onlyBound = bound(a, ip4(1, PORT + 1))
    const all = [active, elsewhere.active, withoutRoute, onlyBound]
    const eventNames = (): string[][] => all.map(id => a.eventNames(id))
    const change = (last: number, mac: string): string[][] => {
      macs.set(last, mac)
      a.cm.neighbourChanged(device, ip4(last, 0).address, mac)
      return eventNames()
    }
    eventNames()
    assert.deepEqual(change(2, 'aa'), [[], [], [], []])
    macs.set(2, 'bb')
    a.cm.neighbourChanged(device, ip4(2, 0).address, 'bb')
    assert.deepEqual(
      a.take(active).map(({ name, details }) => [name, details.status]),
      [['UNREACHABLE', -Errno.ETIMEDOUT]],
    )
    assert.deepEqual(eventNames(), [[], [], [], []])
    assert.deepEqual(change(2, 'bb'), [[], [], [], []])
    // This is the first MAC of this neighbour.
    assert.deepEqual(change(3, 'cc'), [[], [], [], []])
    assert.deepEqual(change(3, 'dd'), [[], ['UNREACHABLE'], [], []])
    assert.equal(cmOf(active).state, 'ESTABLISHED')
    for (const id of all) a.cm.destroy(id)
    for (const id of [passive, elsewhere.passive, listener]) b.cm.destroy(id)
    assertNothingLeft(network)
  })
})

describe('datagrams', () => {
  it('resolve a service id to a queue pair by SIDR', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT), { portSpace: UDP })
    const active = a.connect(ip4(2, PORT), 0, { portSpace: UDP, data: Uint8Array.of(9) })
    network.settle()
    const [{ details, request }] = b.take(listener)
    assert.equal(details.datagram?.privateData[0], 9)
    // As on Linux, the event of a SIDR_REQ has no address for replies.
    const { isGlobal, port, hopLimit, dgid } = details.datagram!
    assert.deepEqual([isGlobal, port, hopLimit, dgid], [0, 0, 0, new Uint8Array(16)])
    b.cm.accept(request!, { ...parametersOf(0x33, Uint8Array.of(8)), qkey: 0x55 })
    network.settle()
    const event = a.take(active).at(-1)!
    assert.equal(event.name, 'ESTABLISHED')
    const { qpNum, qkey, privateData } = event.details.datagram!
    assert.deepEqual([qpNum, qkey, privateData[0]], [0x33, 0x55, 8])
    // rdma_init_qp_attr of both sides has this Q_Key.
    for (const id of [active, request!]) assert.equal(attributesOf(id, QpState.values.INIT).qkey, 0x55)
    a.cm.destroy(active)
    for (const id of [listener, request!]) b.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('are UNREACHABLE if rejected or unanswered, and may be retried', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT), { portSpace: UDP })
    const active = a.connect(ip4(2, PORT), 0, { portSpace: UDP })
    for (let tries = 0; tries < 3; tries++) {
      network.settle()
      const [request] = b.requests(listener)
      b.cm.reject(request, new Uint8Array(0), 0)
      network.settle()
      assert.equal(a.eventNames(active).at(-1), 'UNREACHABLE')
      b.cm.destroy(request)
      a.cm.connect(active, parametersOf(0))
    }
    b.refusesRequests = true
    network.runTimers()
    assert.equal(a.eventNames(active).at(-1), 'UNREACHABLE')
    a.cm.destroy(active)
    for (const request of b.requests(listener)) b.cm.destroy(request)
    b.cm.destroy(listener)
    assertNothingLeft(network)
  })
})

describe('three hosts', () => {
  it('can connect in a ring on one network', () => {
    const network = new VirtualNetwork()
    const hosts = [1, 2, 3].map(last => {
      const host = network.host()
      host.plug(last)
      return host
    })
    const listeners = hosts.map((host, i) => host.listen(ip4(i + 1, PORT)))
    for (const [i, host] of hosts.entries()) {
      const next = (i + 1) % 3
      const { active, passive } = establish(network, host, hosts[next], listeners[next], [0x11, 0x22])
      host.cm.destroy(active)
      hosts[next].cm.destroy(passive)
    }
    hosts.forEach((host, i) => {
      host.cm.destroy(listeners[i])
    })
    assertNothingLeft(network)
  })
})
