/*
 * IP over the device between hosts in virtual time (R31, R40).
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createSharedLimits } from '../../../src/daemon/accounts.ts'
import { SOCKET_RECEIVE_BYTES } from '../../../src/spec/classes/device/ip.ts'
import { GSI_QPN } from '../../../src/spec/wire/mad.ts'
import { addressText } from '../../../src/transport/wire/address.ts'
import { ENCAPSULATION_BYTES } from '../../../src/transport/wire/ipoib.ts'
import { accountIn, GUEST, OWNER, ownAccount } from '../../core/accounts.ts'
import { errnoOf } from '../../core/fixture.ts'
import { address } from '../ip-engine/link.ts'
import { type Host, twoHosts, type VirtualNetwork } from '../rdma-cm/hosts.ts'
import { Stack } from './stack.ts'

/** Path MTU of the devices. */
const MTU = 4096
/** Bytes charged for a queued datagram besides the payload (src/services/ip-client/). */
const DATAGRAM_OVERHEAD = 256

const bytes = (...values: number[]) => Uint8Array.from(values)

/** Two hosts, each with a device and an interface. */
const two = (family: 4 | 6 = 4, fault = '') => {
  const base = family === 4 ? '10.9.0.' : 'fd00:9::'
  const { network, a, b } = twoHosts(fault)
  const [deviceA, deviceB] = [deviceOf(a, 1), deviceOf(b, 2)]
  return { network, a, b, base, stackA: new Stack(deviceA, `${base}1`), stackB: new Stack(deviceB, `${base}2`) }
}
const deviceOf = (host: Host, number: number) => {
  const rxe = host.devices.get(`rxe${number}`)
  assert.ok(rxe)
  return rxe.device
}

/** Asserts that a host's devices have no IP objects. */
const assertNothingLeft = ({ clients, devices }: Host): void => {
  assert.equal(clients.use('ipoib').size, 0)
  assert.equal(clients.nextTimeout(), Number.POSITIVE_INFINITY)
  for (const {
    device: { state },
  } of devices.values()) {
    // Queue pair 1 belongs to the MAD layer.
    assert.deepEqual([...state.coreQueues.byNumber.keys()], [GSI_QPN])
    assert.deepEqual([state.coreQueues.waiting, state.qpns.count()], [0, 0])
  }
}

for (const family of [4, 6] as const)
  it(`two stacks ping each other and exchange datagrams, IPv${family}`, () => {
    const { network, a, b, base, stackA, stackB } = two(family)
    for (const [from, to] of [
      [stackA, `${base}2`],
      [stackB, `${base}1`],
    ] as const) {
      const echo = from.echo()
      const sequence = 3
      echo.send(to, sequence, bytes(1, 2, 3))
      network.settle()
      assert.ok(echo.isReadable)
      const answer = echo.receive()!
      assert.deepEqual([answer.address, answer.port, answer.payload], [address(to), sequence, bytes(1, 2, 3)])
      assert.equal(echo.isReadable, false)
      assert.equal(echo.receive(), undefined)
    }
    const [client, server] = [stackA.udp(), stackB.udp(7)]
    client.send(`${base}2`, 7, bytes(4, 5))
    network.settle()
    const request = server.receive()
    assert.deepEqual([request!.port, request!.payload], [client.query().port, bytes(4, 5)])
    server.send(`${base}1`, request!.port, request!.payload)
    network.settle()
    assert.deepEqual(client.receive()!.payload, bytes(4, 5))
    assert.equal(stackA.query().neighbours, 1)
    stackA.close()
    stackB.close()
    for (const host of [a, b]) assertNothingLeft(host)
  })

// ---- transfer of data ----

/** Bytes of the transfer, and of data per datagram. A datagram has its number before the data. */
const TOTAL = 1_000_000
const CHUNK = 1400
const NUMBER_BYTES = 4
/** Maximum number of unacknowledged datagrams. */
const WINDOW = 32
/** Microseconds before an unacknowledged datagram is sent again. */
const RETRANSMIT = 20_000
/** Microseconds between two steps. */
const STEP = 1000
const PORT = 9000

/** Byte `i` of the transfer. The factor is 2^32 divided by the golden ratio, so that neighbours differ much. */
const byteAt = (i: number): number => (i * 2654435761) >>> 24

/** Sends TOTAL bytes in numbered datagrams, and resends unacknowledged datagrams. */
const transfer = (
  network: VirtualNetwork,
  from: Stack,
  to: Stack,
  destination: string,
  during: (step: number) => void,
) => {
  const [sender, receiver] = [from.udp(), to.udp(PORT)]
  const chunks = Math.ceil(TOTAL / CHUNK)
  const arrived = new Uint8Array(TOTAL)
  const received = new Set<number>()
  const acknowledged = new Set<number>()
  const sentAt = new Map<number, number>()
  let transmissions = 0
  const send = (number: number): void => {
    const start = number * CHUNK
    const payload = new Uint8Array(NUMBER_BYTES + Math.min(CHUNK, TOTAL - start))
    new DataView(payload.buffer).setUint32(0, number)
    for (let i = NUMBER_BYTES; i < payload.length; i++) payload[i] = byteAt(start + i - NUMBER_BYTES)
    sender.send(destination, PORT, payload)
    sentAt.set(number, network.now)
    transmissions++
  }
  for (let step = 0, next = 0; acknowledged.size < chunks; step++) {
    assert.ok(step < 100_000, 'the transfer does not end')
    during(step)
    for (const [number, at] of sentAt) if (at + RETRANSMIT <= network.now) send(number)
    while (next < chunks && sentAt.size < WINDOW) send(next++)
    network.settle()
    for (let datagram = receiver.receive(); datagram !== undefined; datagram = receiver.receive()) {
      const number = new DataView(datagram.payload.buffer, datagram.payload.byteOffset).getUint32(0)
      arrived.set(datagram.payload.subarray(NUMBER_BYTES), number * CHUNK)
      received.add(number)
      receiver.send(addressText(datagram.address), datagram.port, datagram.payload.slice(0, NUMBER_BYTES))
    }
    network.settle()
    for (let reply = sender.receive(); reply !== undefined; reply = sender.receive()) {
      const number = new DataView(reply.payload.buffer, reply.payload.byteOffset).getUint32(0)
      acknowledged.add(number)
      sentAt.delete(number)
    }
    network.now += STEP
  }
  assert.equal(received.size, chunks)
  assert.ok(arrived.every((byte, i) => byte === byteAt(i)))
  return { transmissions, chunks }
}

for (const family of [4, 6] as const)
  it(`1,000,000 bytes arrive over a lossy link while a device is removed and added, IPv${family}`, () => {
    const { network, a, b, base, stackA, stackB } = two(family, 'drop=5%,dup=2%,reorder=2%,seed=7')
    let plugCount = 0
    const { transmissions, chunks } = transfer(network, stackA, stackB, `${base}2`, step => {
      // Every seven steps a device is added, and removed three steps later.
      if (step % 7 === 3) {
        const stack = new Stack(a.plug(9), `${base}9`)
        // Operations in progress: an echo request on the lossy link, and a datagram to an address that nobody has.
        stack.echo().send(`${base}2`, 1, bytes(1))
        stack.udp().send(`${base}77`, 1, bytes(1))
        plugCount++
      }
      if (step % 7 === 6 && a.devices.has('rxe9')) a.unplug(9)
    })
    if (a.devices.has('rxe9')) a.unplug(9)
    assert.ok(plugCount > 5, `a device was added only ${plugCount} times`)
    assert.ok(transmissions > chunks * 1.02, `only ${transmissions} transmissions of ${chunks} datagrams`)
    stackA.close()
    stackB.close()
    for (const host of [a, b]) assertNothingLeft(host)
    assert.deepEqual([a.core.faults, b.core.faults], [0, 0])
  })

describe('a removed device', () => {
  it('ends its interfaces and sockets, with all pending operations', () => {
    const { network, a, b, base, stackA, stackB } = two()
    const [udp, echo] = [stackA.udp(5), stackA.echo()]
    udp.join('239.1.1.1')
    // No interface has this address: the datagrams wait for the neighbour.
    for (let i = 0; i < 20; i++) udp.send(`${base}77`, 1, bytes(i))
    echo.send(`${base}2`, 1, bytes(1))
    assert.ok(a.clients.nextTimeout() < Number.POSITIVE_INFINITY)
    a.unplug(1)
    assertNothingLeft(a)
    assert.deepEqual(
      [() => udp.receive(), () => echo.send(`${base}2`, 1, bytes()), () => stackA.query()].map(errnoOf),
      ['EIO', 'EIO', 'EIO'],
    )
    udp.close()
    stackA.close()
    network.runTimers()
    // The address can be reused.
    const again = new Stack(a.plug(1), `${base}1`)
    const socket = again.echo()
    socket.send(`${base}2`, 2, bytes(9))
    network.settle()
    assert.equal(socket.receive()?.port, 2)
    again.close()
    stackB.close()
    for (const host of [a, b]) assertNothingLeft(host)
  })

  it('leaves no objects after a thousand removals and additions', () => {
    const { network, a, b, base, stackB } = two()
    const flows = () => network.link.stat().flows
    stackB.udp(1)
    let flowsAfter11 = 0
    for (let i = 0; i < 1000; i++) {
      const stack = new Stack(a.plug(9), `${base}9`)
      stack.udp().send(`${base}2`, 1, bytes(1))
      if (i % 2 === 0) network.settle()
      a.unplug(9)
      if (i === 10) flowsAfter11 = flows()
    }
    network.runTimers()
    assert.ok(flows() <= flowsAfter11, `${flows()} flows, ${flowsAfter11} after 11 removals`)
    assert.equal(stackB.query().neighbours, 1)
    a.unplug(1)
    b.unplug(2)
    assert.deepEqual([a.clients.use('ipoib').size, b.clients.use('ipoib').size], [0, 0])
    assert.equal(flows(), 0)
  })
})

describe('an interface', () => {
  it('has a unicast address that is unique on the host; a refused interface leaves no queue pair', () => {
    const { a, base, stackA } = two()
    assert.equal(
      errnoOf(() => new Stack(deviceOf(a, 1), `${base}1`)),
      'EADDRINUSE',
    )
    assert.equal(
      errnoOf(() => new Stack(deviceOf(a, 1), '224.0.0.1')),
      'EINVAL',
    )
    stackA.close()
    assertNothingLeft(a)
  })

  it('reports its queue pair number, prefix length and MTU', () => {
    const { stackA } = two()
    const { qpn, mtu } = stackA.linkAttributes
    assert.deepEqual([stackA.query().qpn, stackA.query().prefixLength, mtu], [qpn, 24, MTU - ENCAPSULATION_BYTES])
  })

  it('cannot be destroyed while it has sockets', () => {
    const { stackA } = two()
    const socket = stackA.udp()
    assert.equal(
      errnoOf(() => stackA.destroy()),
      'EBUSY',
    )
    socket.close()
    stackA.destroy()
  })

  it('reaches other interfaces of the same device', () => {
    const { network, a, base, stackA } = two()
    const third = new Stack(deviceOf(a, 1), `${base}3`)
    const echo = third.echo()
    echo.send(`${base}1`, 1, bytes(1))
    network.settle()
    assert.equal(echo.receive()?.port, 1)
    assert.notEqual(third.linkAttributes.qpn, stackA.linkAttributes.qpn)
  })
})

it('a process is charged for what its interface and sockets use, until its release', () => {
  const { a, b, base, network, stackB } = two()
  const account = ownAccount()
  const { memory } = account
  const stack = new Stack(deviceOf(a, 1), `${base}5`, 24, account)
  const ofInterface = memory.used
  const socket = stack.udp(7)
  assert.ok(memory.used < 2 ** 15, `an unused socket costs little: ${memory.used} bytes`)
  // Packets to a neighbour that does not answer, and unread datagrams.
  const before = memory.used
  for (let i = 0; i < 5; i++) socket.send(`${base}99`, 7, new Uint8Array(1000))
  assert.ok(memory.used > before + 5000)
  network.runTimers()
  assert.equal(memory.used, before, 'the packets and the neighbour were dropped')
  for (let i = 0; i < 5; i++) stackB.udp(8 + i).send(`${base}5`, 7, new Uint8Array(1000))
  socket.join('239.1.1.1')
  network.settle()
  const { waiting } = socket.query()
  assert.ok(waiting === 5 && memory.used > before + 5000)
  socket.receive()
  assert.equal(b.devices.size, 1)
  socket.receiveInVain()
  assert.equal(socket.query().waiting, 4)
  stack.close()
  assert.deepEqual([memory.used, memory.held.size], [0, 0])
  assert.ok(ofInterface > 0)
})

it('drops datagrams and packets for which its account has no memory', () => {
  const { a, base, network, stackA, stackB } = two()
  const account = ownAccount(60_000)
  const stack = new Stack(deviceOf(a, 1), `${base}5`, 24, account)
  const socket = stack.udp(7)
  const sender = stackB.udp()
  for (let i = 0; i < 50; i++) {
    sender.send(`${base}5`, 7, new Uint8Array(2000))
    network.settle()
  }
  const { waiting, overflowed } = socket.query()
  assert.deepEqual([waiting > 5 && waiting < 25, BigInt(waiting) + overflowed], [true, 50n])
  const { dropped } = stack.query().statistics
  for (let i = 0; i < 20; i++) socket.send(`${base}${100 + i}`, 7, new Uint8Array(4000))
  assert.ok(stack.query().statistics.dropped > dropped)
  assert.ok(account.memory.used <= 60_000)
  // The interface still answers.
  const echo = stackA.echo()
  while (socket.receive() !== undefined);
  echo.send(`${base}5`, 1, bytes(1))
  network.settle()
  assert.equal(echo.receive()?.port, 1)
  stack.close()
  assert.equal(account.memory.used, 0)
})

it('thousands of sockets of three guest processes leave memory to the owner', () => {
  const { a } = twoHosts()
  const limits = createSharedLimits()
  const stacks = [GUEST, GUEST, GUEST + 1].flatMap((user, i) =>
    Array.from(
      { length: 8 },
      (_, net) => new Stack(deviceOf(a, 1), `10.${i + 1}.${net}.1`, 24, accountIn(limits, user, i + 1)),
    ),
  )
  for (const stack of stacks) for (let i = 0; i < 300; i++) stack.udp()
  const own = new Stack(deviceOf(a, 1), '10.9.0.1', 24, accountIn(limits, OWNER, 9))
  own.udp()
  assert.ok(limits.memory.used < 2 ** 25, `${limits.memory.used} bytes`)
})

describe('a socket', () => {
  it('keeps 212,992 unread bytes, including 256 per datagram, and drops the rest', () => {
    const { network, base, stackA, stackB } = two()
    const [sender, receiver] = [stackA.udp(), stackB.udp(7)]
    for (let i = 0; i < 1000; i++) {
      sender.send(`${base}2`, 7, new Uint8Array(1000))
      network.settle()
    }
    const { waiting, overflowed } = receiver.query()
    assert.equal(waiting, Math.floor(SOCKET_RECEIVE_BYTES / (1000 + DATAGRAM_OVERHEAD)))
    assert.equal(BigInt(waiting) + overflowed, 1000n)
    let read = 0
    while (receiver.receive() !== undefined) read++
    assert.deepEqual([read, receiver.isReadable], [waiting, false])
    sender.send(`${base}2`, 7, bytes(1))
    network.settle()
    assert.ok(receiver.isReadable)
  })

  it('keeps a datagram whose delivery to the program fails', () => {
    const { network, base, stackA, stackB } = two()
    const [sender, receiver] = [stackA.udp(), stackB.udp(7)]
    for (const payload of [bytes(1), bytes(2)]) {
      sender.send(`${base}2`, 7, payload)
      network.settle()
    }
    receiver.receiveInVain()
    assert.deepEqual(receiver.receive()?.payload, bytes(1))
    receiver.receiveInVain()
    assert.ok(receiver.isReadable)
    assert.deepEqual(receiver.receive()?.payload, bytes(2))
    assert.equal(receiver.isReadable, false)
  })

  it('receives only from joined groups, also if two groups share a group of the link', () => {
    const { network, stackA, stackB } = two()
    const [sender, member] = [stackA.udp(), stackB.udp(7)]
    const send = (): void => {
      sender.send('239.1.2.3', 7, bytes(1))
      network.settle()
    }
    send() // stackB is not in the group of the link.
    member.join('239.1.2.3')
    // On devices with IPv4 addresses, both groups have the group 239.255.2.3 on the link.
    member.join('239.9.2.3')
    send() // received
    member.leave('239.1.2.3')
    send() // stackB is still in the group of the link, and counts the datagram as foreign.
    assert.deepEqual([member.query().waiting, stackB.query().statistics.foreign], [1, 1n])
  })
})
