/*
 * The classes of rdma_cm, called as by programs (R18).
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addFailureHandler } from '../../../src/core/failures.ts'
import { closeContext, closeDescriptor, invokeNow } from '../../../src/core/index.ts'
import { emitAddress, ipAddress, parseAddress } from '../../../src/services/socket-address.ts'
import { failureText } from '../../../src/spec/check/failures.ts'
import { CmChannel } from '../../../src/spec/classes/connections/cm_channel.ts'
import { CmId, CmMulticast } from '../../../src/spec/classes/connections/cm_id.ts'
import type { SocketAddress } from '../../../src/spec/classes/connections/cm_parameters.ts'
import { CmEventType, CmPortSpace } from '../../../src/spec/enums.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { errnoOf } from '../../core/fixture.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { any4, assertNothingLeft, type Host, ip4, twoHosts } from './hosts.ts'
import { Program, typeNames } from './program.ts'

const PORT = 7471
/** A client and a server, on two hosts. */
const twoPrograms = () => {
  const { network, a, b } = twoHosts()
  const [client, server] = [new Program(a), new Program(b)]
  const close = (): void => {
    for (const { context } of [client, server]) closeContext(context)
    assertNothingLeft(network)
  }
  return { network, a, b, client, server, close }
}

it('an identifier holds the GID index of its address, a wildcard none', () => {
  const { network, a, b, client, server, close } = twoPrograms()
  const heldBy = ({ devices }: Host): unknown => [...devices.values()].map(rxe => [...rxe.device.ports[0].gids.users])
  const channel = server.channel()
  const wildcard = server.listen(channel, any4(PORT + 1))
  assert.deepEqual(heldBy(b), [[]])
  server.listen(channel, ip4(2, PORT))
  const active = client.connect(client.channel(), ip4(2, PORT), 0x11)
  network.settle()
  assert.deepEqual([heldBy(a), heldBy(b)], [[[[1, 1]]], [[[1, 2]]]], 'the listener and the request')
  client.resolve(client.create(client.channel()), ip4(2, PORT))
  client.destroy(active)
  server.destroy(wildcard)
  assert.deepEqual(heldBy(a), [[[1, 1]]])
  close()
  assert.deepEqual([heldBy(a), heldBy(b)], [[[]], [[]]])
})

describe('a channel', () => {
  it('delivers requests and connection events, and counts the read events of identifiers', () => {
    const { network, client, server, close } = twoPrograms()
    const [serverChannel, clientChannel] = [server.channel(), client.channel()]
    const listener = server.listen(serverChannel, ip4(2, PORT))
    const active = client.connect(clientChannel, ip4(2, PORT), 0x11)
    network.settle()
    assert.deepEqual(client.readNames(clientChannel), ['ADDR_RESOLVED', 'ROUTE_RESOLVED'])
    const { name, object: request } = server.readEvent(serverChannel)
    assert.equal(name, 'CONNECT_REQUEST')
    server.accept(request, 0x22, 7n)
    network.settle()
    assert.deepEqual(client.readNames(clientChannel), ['CONNECT_RESPONSE'])
    client.accept(active)
    network.settle()
    assert.deepEqual(server.readEvent(serverChannel), { name: 'ESTABLISHED', object: request, userHandle: 7n })
    assert.equal(client.destroy(active), 3)
    network.settle()
    // DISCONNECTED is unread, and is withdrawn.
    assert.equal(server.unread(serverChannel), 1)
    assert.equal(server.destroy(request), 1)
    assert.equal(server.destroy(listener), 1)
    assert.equal(server.unread(serverChannel), 0)
    close()
  })

  it('delivers an event with the user handle of the identifier at the time of the event', () => {
    const { network, client, server, close } = twoPrograms()
    const [serverChannel, clientChannel] = [server.channel(), client.channel()]
    server.listen(serverChannel, ip4(2, PORT))
    const active = client.connect(clientChannel, ip4(2, PORT), 0x11)
    network.settle()
    server.accept(server.readEvent(serverChannel).object, 0x22)
    network.settle()
    client.accept(active, undefined, 6n)
    network.settle()
    closeContext(server.context)
    network.settle()
    assert.deepEqual(
      Array.from({ length: 4 }, () => client.readEvent(clientChannel)).map(({ name, userHandle }) => [
        name,
        userHandle,
      ]),
      [
        ['ADDR_RESOLVED', 0n],
        ['ROUTE_RESOLVED', 0n],
        ['CONNECT_RESPONSE', 0n],
        ['DISCONNECTED', 6n],
      ],
    )
    close()
  })

  it('tells of a listener at the port of a request that is bound to another address', () => {
    for (const [at, listens, told] of [
      [
        ipAddress(ipv4(127, 0, 0, 1), PORT),
        PORT,
        'a connection request of 10.0.0.1 for 10.0.0.2, port 7471 was rejected: CM_ID 0 listens at 127.0.0.1, port 7471',
      ],
      [ip4(2, PORT), PORT, undefined],
      [ipAddress(ipv4(127, 0, 0, 1), PORT), PORT + 1, undefined],
    ] as const) {
      const { network, b, client, server, close } = twoPrograms()
      const texts: string[] = []
      const end = addFailureHandler(b.core, failure => texts.push(failureText(failure)))
      const [serverChannel, clientChannel] = [server.channel(), client.channel()]
      server.listen(serverChannel, at)
      client.connect(clientChannel, ip4(2, listens), 0x11)
      network.settle()
      assert.deepEqual(texts, told === undefined ? [] : [told])
      end()
      close()
    }
  })

  it('reports a rejection without a reason, or with reason 0, as CONSUMER_DEFINED', () => {
    const { network, client, server, close } = twoPrograms()
    const [serverChannel, clientChannel] = [server.channel(), client.channel()]
    server.listen(serverChannel, ip4(2, PORT))
    for (const reason of [{}, { reason: 0 }]) {
      client.connect(clientChannel, ip4(2, PORT), 0x11)
      network.settle()
      const { object } = server.readEvent(serverChannel)
      invokeNow(server.context, CmId, 'reject', object, reason, server.caller)
      network.settle()
      client.readEvent(clientChannel)
      client.readEvent(clientChannel)
      const { out } = invokeNow(client.context, CmChannel, 'getEvent', clientChannel, {}, client.caller)
      assert.deepEqual([typeNames[out.type], out.status], ['REJECTED', rejReason.CONSUMER_DEFINED])
    }
    close()
  })

  it('destroys its identifiers at its close, and notifies the peers', () => {
    const { network, a, b, client, server, close } = twoPrograms()
    const [serverChannel, clientChannel] = [server.channel(), client.channel()]
    server.listen(serverChannel, ip4(2, PORT))
    const active = client.connect(clientChannel, ip4(2, PORT), 0x11)
    network.settle()
    server.accept(server.readEvent(serverChannel).object, 0x22)
    network.settle()
    client.accept(active)
    client.readNames(clientChannel)
    // The second request stays unread.
    client.connect(clientChannel, ip4(2, PORT), 0x12)
    network.settle()
    client.readNames(clientChannel)
    closeDescriptor(b.core, serverChannel)
    network.settle()
    assert.deepEqual(client.readNames(clientChannel).sort(), ['DISCONNECTED', 'REJECTED'])
    assert.deepEqual([b.cm.counts.identifiers, b.cm.counts.listeners, a.cm.counts.identifiers], [0, 0, 2])
    close()
  })

  it('takes identifiers of another channel, with their unread events and requests', () => {
    const { network, client, server, close } = twoPrograms()
    const [oldChannel, newChannel, clientChannel] = [server.channel(), server.channel(), client.channel()]
    const listener = server.listen(oldChannel, ip4(2, PORT))
    client.connect(clientChannel, ip4(2, PORT), 0x11)
    network.settle()
    const { object: first } = server.readEvent(oldChannel)
    client.connect(clientChannel, ip4(2, PORT), 0x12)
    network.settle()
    assert.equal(server.move(listener, newChannel), 1)
    assert.deepEqual([server.unread(oldChannel), server.unread(newChannel)], [0, 1])
    const { object: second } = server.readEvent(newChannel)
    client.connect(clientChannel, ip4(2, PORT), 0x13)
    network.settle()
    assert.equal(server.readEvent(newChannel).name, 'CONNECT_REQUEST')
    // A request whose event was read before the move stays on the old channel.
    server.accept(first, 0x21)
    server.accept(second, 0x22)
    closeContext(client.context)
    network.runTimers()
    assert.deepEqual([server.readNames(oldChannel), server.readNames(newChannel)], [['REJECTED'], ['REJECTED']])
    assert.equal(server.destroy(listener), 3)
    close()
  })

  it('reports the removal of a device; afterwards its identifiers can only be destroyed, and their ports are free', () => {
    const { b, server, close } = twoPrograms()
    const channel = server.channel()
    const listener = server.listen(channel, ip4(2, PORT))
    b.unplug(2)
    assert.deepEqual(server.readNames(channel), ['DEVICE_REMOVAL'])
    const { context, caller } = server
    const address = emitAddress(ip4(2, PORT))
    for (const use of [
      () => server.bind(listener, ip4(2, PORT)),
      () => invokeNow(context, CmId, 'disconnect', listener, {}, caller),
      () => invokeNow(context, CmId, 'query', listener, {}, caller),
      () => server.move(listener, channel),
      () => invokeNow(context, CmMulticast, 'create', 0, { id: listener, userHandle: 0n, address }, caller),
    ])
      assert.equal(errnoOf(use), 'ENXIO')
    b.plug(2)
    const next = server.listen(channel, ip4(2, PORT))
    assert.equal(server.destroy(listener), 1)
    assert.equal(
      errnoOf(() => server.listen(channel, ip4(2, PORT))),
      'EADDRINUSE',
    )
    server.destroy(next)
    close()
  })

  it('reports zero GIDs of an identifier without a device, and then those of its addresses', () => {
    const { client, close } = twoPrograms()
    const id = client.create(client.channel())
    const sourceGid = (): Uint8Array =>
      parseAddress(invokeNow(client.context, CmId, 'queryGids', id, {}, client.caller).out.addresses.source)!.address
    client.bind(id, any4(PORT))
    assert.deepEqual(sourceGid(), new Uint8Array(16))
    client.resolve(id, ip4(2, PORT))
    assert.deepEqual(sourceGid(), ipv4(10, 0, 0, 1))
    close()
  })

  it('queues at most 8 unread events of an identifier; calls that would add more are refused', () => {
    const { client, close } = twoPrograms()
    const channel = client.channel()
    const id = client.create(channel)
    // No interface has this index: resolutions end with ADDR_ERROR, and may be retried.
    const nowhere = { ...ipAddress(Uint8Array.of(0xfe, 0x80, ...new Uint8Array(13), 1), PORT), scope: 99 }
    const outcomes = Array.from({ length: 1000 }, () => errnoOf(() => client.resolve(id, nowhere)))
    assert.deepEqual(outcomes, [...Array(8).fill('ok'), ...Array(992).fill('ENOMEM')])
    assert.deepEqual(client.readNames(channel), Array(8).fill('ADDR_ERROR'))
    assert.equal(
      errnoOf(() => client.resolve(id, nowhere)),
      'ok',
    )
    close()
  })
})

describe('events that programs write', () => {
  const { USER, INTERNAL, ESTABLISHED } = CmEventType.values
  const write = (
    { context, caller }: Program,
    id: number,
    args: { type: number; status?: number; argument?: bigint },
  ) => invokeNow(context, CmId, 'writeEvent', id, args, caller)

  it('reach the channel in order, with status, argument and user handle, and count as read events', () => {
    const { client, close } = twoPrograms()
    const channel = client.channel()
    const id = client.create(channel, 9n)
    write(client, id, { type: USER, status: 0xffff_ff92, argument: 0xfedc_ba98_7654_3210n })
    write(client, id, { type: INTERNAL })
    const read = () => invokeNow(client.context, CmChannel, 'getEvent', channel, {}, client.caller).out
    const common = { userHandle: 9n, object: id }
    assert.deepEqual(read(), {
      ...common,
      type: USER,
      status: 0xffff_ff92,
      argument: 0xfedc_ba98_7654_3210n,
      unread: 1,
    })
    assert.deepEqual(read(), { ...common, type: INTERNAL, status: 0, argument: 0n, unread: 0 })
    write(client, id, { type: USER })
    assert.equal(client.destroy(id), 2)
    assert.equal(client.unread(channel), 0, 'the unread event is withdrawn')
    close()
  })

  it('do not change a connection', () => {
    const { network, client, server, close } = twoPrograms()
    const channel = server.channel()
    server.listen(channel, ip4(2, PORT))
    client.connect(client.channel(), ip4(2, PORT), 0x11)
    network.settle()
    const { object: request } = server.readEvent(channel)
    server.accept(request, 0x22, 7n)
    write(server, request, { type: USER })
    assert.deepEqual(server.readEvent(channel), { name: 'USER', object: request, userHandle: 7n })
    close()
  })

  it('are USER or INTERNAL; other types are refused', () => {
    const { client, close } = twoPrograms()
    const channel = client.channel()
    const id = client.create(channel)
    const [ADDRINFO_RESOLVED, ADDRINFO_ERROR] = [16, 17] // librdmacm makes these of INTERNAL
    for (const type of [ESTABLISHED, ADDRINFO_RESOLVED, ADDRINFO_ERROR, INTERNAL + 1, 0xffff_ffff])
      assert.equal(
        errnoOf(() => write(client, id, { type })),
        'EINVAL',
        `type ${type}`,
      )
    assert.equal(client.unread(channel), 0)
    close()
  })

  it('are refused while 32 events of the identifier are unread', () => {
    const { client, close } = twoPrograms()
    const channel = client.channel()
    const id = client.create(channel)
    const outcome = () => errnoOf(() => write(client, id, { type: USER }))
    assert.deepEqual(Array.from({ length: 34 }, outcome), [...Array(32).fill('ok'), 'ENOMEM', 'ENOMEM'])
    assert.equal(client.readNames(channel).length, 32)
    assert.equal(outcome(), 'ok')
    close()
  })
})

describe('multicast memberships', () => {
  const group = ipAddress(ipv4(239, 1, 2, 3), 0)

  it('are refused for an unbound identifier, one not for datagrams, unknown flags, and the wildcard address', () => {
    const { client, close } = twoPrograms()
    const channel = client.channel()
    const refused = (
      portSpace: number,
      address: SocketAddress | undefined,
      why: RegExp,
      overrides: object = {},
    ): void => {
      const id = client.create(channel, 0n, portSpace)
      if (address !== undefined) client.bind(id, address)
      const args = { id, userHandle: 0n, address: emitAddress(group), ...overrides }
      assert.throws(() => invokeNow(client.context, CmMulticast, 'create', 0, args, client.caller), {
        code: 'EINVAL',
        message: why,
      })
    }
    const { TCP, UDP } = CmPortSpace.values
    refused(UDP, undefined, /in state IDLE without a device/)
    refused(TCP, ip4(1, PORT), /not for datagrams/)
    refused(UDP, ip4(1, PORT), /flags: 2/, { flags: 2 })
    refused(UDP, ip4(1, PORT + 1), /it is a wildcard/, { address: emitAddress(any4(0)) })
    close()
  })

  it('report their join, count the events read, and can be left', () => {
    const { client, close } = twoPrograms()
    const channel = client.channel()
    const id = client.create(channel, 1n, CmPortSpace.values.UDP)
    client.resolve(id, group)
    const membership = client.join(id, group, 9n)
    assert.deepEqual(client.readNames(channel), ['ADDR_RESOLVED', 'MULTICAST_JOIN'])
    assert.equal(client.leave(membership), 1)
    // As recorded on Linux (mckey): the identifier's events include those of its memberships.
    assert.equal(client.move(id, client.channel()), 2)
    assert.equal(client.destroy(id), 2)
    close()
  })

  it('cannot be left after the removal of the device, and are destroyed with their identifier', () => {
    const { a, client, close } = twoPrograms()
    const channel = client.channel()
    const id = client.create(channel, 1n, CmPortSpace.values.UDP)
    client.resolve(id, group)
    const membership = client.join(id, group, 9n)
    a.unplug(1)
    assert.deepEqual(client.readNames(channel), ['ADDR_RESOLVED', 'MULTICAST_JOIN', 'DEVICE_REMOVAL'])
    const leaveError = () => errnoOf(() => client.leave(membership))
    assert.equal(leaveError(), 'ENXIO')
    assert.equal(client.destroy(id), 3)
    assert.equal(leaveError(), 'ENOENT')
    close()
  })

  it('report an address without flow label', () => {
    const { client, close } = twoPrograms()
    const channel = client.channel()
    const id = client.create(channel, 1n, CmPortSpace.values.UDP)
    client.resolve(id, group)
    client.readEvent(channel)
    client.join(id, group, 9n)
    const { out } = invokeNow(client.context, CmChannel, 'getEvent', channel, {}, client.caller)
    assert.deepEqual([out.datagram?.dgid, out.datagram?.flowLabel], [group.address, 0])
    close()
  })

  it('migrate with their identifier, whose events keep their order', () => {
    const { client, close } = twoPrograms()
    const [oldChannel, newChannel] = [client.channel(), client.channel()]
    const id = client.create(oldChannel, 1n, CmPortSpace.values.UDP)
    client.resolve(id, ip4(2, PORT))
    client.join(id, group)
    invokeNow(client.context, CmId, 'resolveRoute', id, {}, client.caller)
    assert.equal(client.move(id, newChannel), 0)
    assert.deepEqual(client.readNames(newChannel), ['ADDR_RESOLVED', 'MULTICAST_JOIN', 'ROUTE_RESOLVED'])
    close()
  })

  it('migrate with their identifier, and are destroyed with it', () => {
    const { a, client, close } = twoPrograms()
    const [oldChannel, newChannel] = [client.channel(), client.channel()]
    const id = client.create(oldChannel, 1n, CmPortSpace.values.UDP)
    client.resolve(id, group)
    client.readEvent(oldChannel)
    const membership = client.join(id, group, 9n)
    client.move(id, newChannel)
    assert.deepEqual(client.readEvent(newChannel), { name: 'MULTICAST_JOIN', object: membership, userHandle: 9n })
    closeDescriptor(a.core, oldChannel)
    client.destroy(id)
    assert.equal(
      errnoOf(() => client.leave(membership)),
      'ENOENT',
    )
    assert.equal(client.context.handles.count, 0)
    close()
  })
})
