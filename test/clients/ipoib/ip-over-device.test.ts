/*
 * IP over the device between hosts in virtual time: interfaces and sockets as programs call them, over links that lose
 * packets and devices that are added and removed (R31, R40).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addressText } from '../../../src/wire/address.ts'
import { errnoOf } from '../../drivers/rxe/machine.ts'
import { type Host, twoHosts, type VirtualNetwork } from '../rdma-cm/hosts.ts'
import { Stack } from './stack.ts'

const bytes = (...values: number[]) => Uint8Array.from(values)

/** Two hosts, each with a device and an interface. */
const two = (family: 4 | 6 = 4, fault = '') => {
  const base = family === 4 ? '10.9.0.' : 'fd00:9::'
  const { network, a, b } = twoHosts(fault)
  // Both directions lose packets.
  if (fault !== '') {
    b.unplug(2)
    b.plug(2, fault)
  }
  const [one, other] = [deviceOf(a, 1), deviceOf(b, 2)]
  return { network, a, b, base, one: new Stack(one, `${base}1`), other: new Stack(other, `${base}2`) }
}
const deviceOf = (host: Host, last: number) => {
  const rxe = host.devices.get(`rxe${last}`)
  assert.ok(rxe)
  return rxe.device
}

/** Asserts that the hosts' devices have no IP objects left. */
const assertNothingLeft = ({ clients, devices }: Host): void => {
  assert.equal(clients.use('ipoib').size, 0)
  assert.equal(clients.nextTimeout(), Number.POSITIVE_INFINITY)
  for (const { state } of devices.values()) {
    // Queue pair 1 belongs to the MAD layer.
    assert.deepEqual([...state.coreQueues.byNumber.keys()], [1])
    assert.deepEqual([state.coreQueues.waiting, state.qpns.count()], [0, 0])
  }
}

for (const family of [4, 6] as const)
  it(`two stacks ping each other and exchange datagrams, IPv${family}`, () => {
    const { network, a, b, base, one, other } = two(family)
    for (const [from, to] of [
      [one, `${base}2`],
      [other, `${base}1`],
    ] as const) {
      const echo = from.echo()
      echo.send(to, 3, bytes(1, 2, 3))
      network.settle()
      assert.ok(echo.isReadable)
      const answer = echo.receive()
      assert.deepEqual(
        [addressText(answer!.address), answer!.port, answer!.payload],
        [addressText(from === one ? other.query().address : one.query().address), 3, bytes(1, 2, 3)],
      )
      assert.equal(echo.isReadable, false)
      assert.equal(echo.receive(), undefined)
    }
    const [client, server] = [one.udp(), other.udp(7)]
    client.send(`${base}2`, 7, bytes(4, 5))
    network.settle()
    const request = server.receive()
    assert.deepEqual([request!.port, request!.payload], [client.query().port, bytes(4, 5)])
    server.send(`${base}1`, request!.port, request!.payload)
    network.settle()
    assert.deepEqual(client.receive()!.payload, bytes(4, 5))
    assert.equal(one.query().neighbours, 1)
    one.close()
    other.close()
    for (const host of [a, b]) assertNothingLeft(host)
  })

// ---- a transfer that checks every byte ----

const TOTAL = 1_000_000
const CHUNK = 1400
const WINDOW = 32
const RETRANSMIT = 20_000
const PORT = 9000

/** Byte `i` of the transferred data. */
const byteAt = (i: number): number => (i * 2654435761) >>> 24

/** Sends TOTAL bytes in numbered datagrams; each is acknowledged by its number, and resent until then. */
const transfer = (
  network: VirtualNetwork,
  from: Stack,
  to: Stack,
  destination: string,
  during: (step: number) => void,
) => {
  const [sender, receiver] = [from.udp(), to.udp(PORT)]
  const chunks = Math.ceil(TOTAL / CHUNK)
  const got = new Uint8Array(TOTAL)
  const received = new Set<number>()
  const acknowledged = new Set<number>()
  const sentAt = new Map<number, number>()
  let transmissions = 0
  const send = (number: number): void => {
    const start = number * CHUNK
    const payload = new Uint8Array(4 + Math.min(CHUNK, TOTAL - start))
    new DataView(payload.buffer).setUint32(0, number)
    for (let i = 4; i < payload.length; i++) payload[i] = byteAt(start + i - 4)
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
    for (let one = receiver.receive(); one !== undefined; one = receiver.receive()) {
      const number = new DataView(one.payload.buffer, one.payload.byteOffset).getUint32(0)
      got.set(one.payload.subarray(4), number * CHUNK)
      received.add(number)
      receiver.send(addressText(one.address), one.port, one.payload.slice(0, 4))
    }
    network.settle()
    for (let one = sender.receive(); one !== undefined; one = sender.receive()) {
      const number = new DataView(one.payload.buffer, one.payload.byteOffset).getUint32(0)
      acknowledged.add(number)
      sentAt.delete(number)
    }
    network.now += 1000
  }
  assert.equal(received.size, chunks)
  assert.ok(got.every((byte, i) => byte === byteAt(i)))
  return { transmissions, chunks }
}

for (const family of [4, 6] as const)
  it(`1,000,000 bytes of UDP arrive over a link that loses, duplicates and reorders, while a device is removed and added, IPv${family}`, () => {
    const { network, a, b, base, one, other } = two(family, 'drop=5%,dup=2%,reorder=2%,seed=7')
    let plugged = 0
    const { transmissions, chunks } = transfer(network, one, other, `${base}2`, step => {
      if (step % 7 === 3) {
        // An interface with operations in progress when its device is removed.
        const stack = new Stack(a.plug(9), `${base}9`)
        stack.echo().send(`${base}2`, 1, bytes(1))
        stack.udp().send(`${base}77`, 1, bytes(1))
        plugged++
      }
      if (step % 7 === 6 && a.devices.has('rxe9')) a.unplug(9)
    })
    if (a.devices.has('rxe9')) a.unplug(9)
    assert.ok(plugged > 5, `a device was added only ${plugged} times`)
    assert.ok(transmissions > chunks * 1.02, 'packets were lost')
    one.close()
    other.close()
    for (const host of [a, b]) assertNothingLeft(host)
    assert.deepEqual([a.core.faults, b.core.faults], [0, 0])
  })

describe('a removed device', () => {
  it('ends its interfaces and sockets, with all pending operations', () => {
    const { network, a, b, base, one, other } = two()
    const [udp, echo] = [one.udp(5), one.echo()]
    udp.join('239.1.1.1')
    for (let i = 0; i < 20; i++) udp.send(`${base}77`, 1, bytes(i))
    echo.send(`${base}2`, 1, bytes(1))
    assert.ok(a.clients.nextTimeout() < Number.POSITIVE_INFINITY)
    a.unplug(1)
    assertNothingLeft(a)
    assert.deepEqual([() => udp.receive(), () => echo.send(`${base}2`, 1, bytes()), () => one.query()].map(errnoOf), [
      'EIO',
      'EIO',
      'EIO',
    ])
    udp.close()
    one.close()
    network.runTimers()
    // The address can be used again.
    const again = new Stack(a.plug(1), `${base}1`)
    const socket = again.echo()
    socket.send(`${base}2`, 2, bytes(9))
    network.settle()
    assert.equal(socket.receive()?.port, 2)
    again.close()
    other.close()
    for (const host of [a, b]) assertNothingLeft(host)
  })

  it('can be removed and added a thousand times, and leaves no objects', () => {
    const { network, a, b, base, other } = two()
    const flows = () => network.link.stat().flows
    other.udp(1)
    let before = 0
    for (let i = 0; i < 1000; i++) {
      const stack = new Stack(a.plug(9), `${base}9`)
      stack.udp().send(`${base}2`, 1, bytes(1))
      if (i % 2 === 0) network.settle()
      a.unplug(9)
      if (i === 10) before = flows()
    }
    network.runTimers()
    assert.ok(flows() <= before, `${flows()} flows, ${before} initially`)
    assert.equal(other.query().neighbours, 1)
    a.unplug(1)
    b.unplug(2)
    assert.deepEqual([a.clients.use('ipoib').size, b.clients.use('ipoib').size], [0, 0])
    assert.equal(flows(), 0)
  })
})

describe('an interface', () => {
  it('has an address that is unique on the host, on a device that supports datagrams', () => {
    const { a, base, one } = two()
    assert.equal(
      errnoOf(() => new Stack(deviceOf(a, 1), `${base}1`)),
      'EADDRINUSE',
    )
    assert.equal(
      errnoOf(() => new Stack(deviceOf(a, 1), '224.0.0.1')),
      'EINVAL',
    )
    const { qpn, mtu } = one.linkAttributes
    assert.deepEqual([one.query().qpn, one.query().prefixLength, mtu], [qpn, 24, 4092])
  })

  it('cannot be destroyed while it has sockets', () => {
    const { one } = two()
    const socket = one.udp()
    assert.equal(
      errnoOf(() => one.destroy()),
      'EBUSY',
    )
    socket.close()
    one.destroy()
  })

  it('is one of at most 64 of its user', () => {
    const { a } = twoHosts()
    const stackOf = (user: number, i: number): Stack =>
      new Stack(deviceOf(a, 1), `10.9.${user}.${i + 1}`, 24, { user, charge: () => {}, release: () => {} })
    const [first] = Array.from({ length: 64 }, (_, i) => stackOf(1, i))
    assert.equal(
      errnoOf(() => stackOf(1, 64)),
      'ENOMEM',
    )
    for (const user of [2, 3, 4, 5]) for (let i = 0; i < 64; i++) stackOf(user, i)
    first?.destroy()
    stackOf(1, 64)
  })

  it('reaches other interfaces of the same device', () => {
    const { network, a, base, one } = two()
    const third = new Stack(deviceOf(a, 1), `${base}3`)
    const echo = third.echo()
    echo.send(`${base}1`, 1, bytes(1))
    network.settle()
    assert.equal(echo.receive()?.port, 1)
    assert.notEqual(third.linkAttributes.qpn, one.linkAttributes.qpn)
  })
})

it('a process is charged for the buffers that peers may fill, until they are released', () => {
  const { a } = twoHosts()
  let charged = 0
  const account = {
    user: 0,
    charge(bytes: number) {
      charged += bytes
    },
    release(bytes: number) {
      charged -= bytes
    },
  }
  const stack = new Stack(deviceOf(a, 1), '10.9.0.5', 24, account)
  const ofInterface = charged
  assert.ok(ofInterface >= 256 * 4096, 'packets that wait for neighbours')
  const socket = stack.udp()
  assert.ok(charged - ofInterface >= 212_992, 'datagrams that are not read')
  socket.close()
  assert.equal(charged, ofInterface)
  stack.close()
  assert.equal(charged, 0)
})

describe('a socket', () => {
  it('that is not read keeps 212,992 bytes and drops the rest', () => {
    const { network, base, one, other } = two()
    const [sender, receiver] = [one.udp(), other.udp(7)]
    for (let i = 0; i < 1000; i++) {
      sender.send(`${base}2`, 7, new Uint8Array(1000))
      network.settle()
    }
    const { waiting, overflowed } = receiver.query()
    assert.equal(waiting, Math.floor(212_992 / 1256))
    assert.equal(BigInt(waiting) + overflowed, 1000n)
    let read = 0
    while (receiver.receive() !== undefined) read++
    assert.deepEqual([read, receiver.isReadable], [waiting, false])
    sender.send(`${base}2`, 7, bytes(1))
    network.settle()
    assert.ok(receiver.isReadable)
  })

  it('receives from the groups that it has joined, also on devices with IPv4 addresses', () => {
    const { network, one, other } = two()
    const [sender, member] = [one.udp(), other.udp(7)]
    const send = (): void => {
      sender.send('239.1.2.3', 7, bytes(1))
      network.settle()
    }
    send()
    member.join('239.1.2.3')
    // The same group on the link (239.255.2.3), but another IP group.
    member.join('239.9.2.3')
    send()
    member.leave('239.1.2.3')
    send()
    assert.deepEqual([member.query().waiting, other.query().statistics.foreign], [1, 1n])
  })
})
