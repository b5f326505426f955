/*
 * UDP sockets, with messages in batches.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import { EAGAIN, EMSGSIZE } from '../../../src/host/errno.ts'
import { watch } from '../../../src/host/event-loop/poll.ts'
import {
  closeUdpSocket,
  createUdpBatches,
  interfaceMtu,
  openUdpSocket,
  type UdpBatches,
  type UdpSocket,
} from '../../../src/host/net/udp.ts'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'
import { until } from '../../limits.ts'
import { loopback } from '../../loopback.ts'

const PORT = ROCE_UDP_PORT
const DEFAULT_HOPS = 64
/** Maximum bytes of a UDP datagram over IPv4. */
const MAX_DATAGRAM = 65_507

const open = (t: { after(body: () => void): void }, address: Uint8Array, port = PORT): UdpSocket => {
  const socket = openUdpSocket(address, port)
  t.after(() => closeUdpSocket(socket))
  return socket
}

const RECEIVES = 8
const batches = (): UdpBatches =>
  createUdpBatches({ staging: 1 << 20, messages: 64, destinations: 4, receives: RECEIVES })

/** Stores message number `slot`, to destination 0. Default: one datagram with the default hop limit. */
const putMessage = (
  memory: UdpBatches,
  slot: number,
  message: { offset?: number; bytes: number; segment?: number; hopLimit?: number; trafficClass?: number },
): void => {
  const { offset = 0, bytes, segment = 0, hopLimit = 0, trafficClass = 0 } = message
  memory.putMessage(slot, offset, bytes, 0, segment, hopLimit, trafficClass)
}

/** Receives until `count` messages are in the buffers from 0 on. */
const receive = async (memory: UdpBatches, socket: UdpSocket, count: number): Promise<void> => {
  let got = 0
  const haveArrived = (): boolean => {
    for (let received = 0; got < count && received >= 0; got += Math.max(0, received)) {
      received = memory.receive(socket, got, RECEIVES - got)
      assert.ok(received > 0 || received === -EAGAIN)
    }
    return got >= count
  }
  await until(haveArrived, () => `${got} of ${count} messages arrived`)
}

const content = (memory: UdpBatches, buffer: number): Buffer => {
  const at = memory.bufferAt(buffer)
  return Buffer.from(memory.arena.bytes.slice(at, at + memory.lengths[buffer]))
}

test('messages arrive with their sender, hop limit and traffic class', async t => {
  const a = open(t, loopback(1))
  const b = open(t, loopback(2))
  const memory = batches()
  memory.setDestination(0, loopback(2), PORT, 0, 0)
  memory.arena.bytes.set(Buffer.from('onetwothree'))
  putMessage(memory, 0, { offset: 0, bytes: 3 })
  putMessage(memory, 1, { offset: 3, bytes: 3, hopLimit: 7 })
  putMessage(memory, 2, { offset: 6, bytes: 5, hopLimit: 255, trafficClass: 0xb8 })
  assert.equal(memory.receive(b, 0, RECEIVES), -EAGAIN)
  assert.equal(memory.send(a, 0, 3), 3)
  await receive(memory, b, 3)
  assert.deepEqual(
    [0, 1, 2].map(i => String(content(memory, i))),
    ['one', 'two', 'three'],
  )
  assert.deepEqual([...memory.hopLimits.subarray(0, 3)], [DEFAULT_HOPS, 7, 255])
  assert.deepEqual([...memory.trafficClasses.subarray(0, 3)], [0, 0, 0xb8])
  assert.deepEqual([...memory.ports.subarray(0, 3)], [PORT, PORT, PORT])
  // The address of the first sender is ::ffff:127.x.y.1.
  assert.deepEqual([...memory.addresses.subarray(0, 3)], [0, 0, 0xffff])
  assert.equal(memory.addresses[3], Buffer.from(loopback(1)).readUInt32BE(12))
  assert.equal(memory.bufferAt(1) % 16, 4, 'the payload after a BTH of 12 bytes is aligned')
})

test('a long message is segmented into datagrams, which arrive coalesced', async t => {
  const a = open(t, loopback(1))
  const b = open(t, loopback(2))
  const memory = batches()
  memory.setDestination(0, loopback(2), PORT, 0, 0)
  const bytes = Buffer.from(Array.from({ length: 60_000 }, (_, i) => i % 251))
  const offset = 64
  memory.arena.bytes.set(bytes, offset)
  putMessage(memory, 0, { offset, bytes: 60_000, segment: 1040, hopLimit: 9, trafficClass: 4 })
  putMessage(memory, 1, { offset, bytes: 100 })
  assert.equal(memory.send(a, 0, 2), 2)
  await receive(memory, b, 2)
  assert.deepEqual([memory.lengths[0], memory.segments[0]], [60_000, 1040])
  assert.ok(content(memory, 0).equals(bytes))
  assert.deepEqual([memory.hopLimits[0], memory.trafficClasses[0]], [9, 4])
  assert.deepEqual([memory.lengths[1], memory.segments[1]], [100, 100])
  assert.equal(memory.hopLimits[1], DEFAULT_HOPS)
})

test('an unsendable message is reported only if it is the first', t => {
  const a = open(t, loopback(1))
  const memory = batches()
  memory.setDestination(0, loopback(1), PORT, 0, 0)
  putMessage(memory, 0, { bytes: 10 })
  putMessage(memory, 1, { bytes: MAX_DATAGRAM + 1 })
  putMessage(memory, 2, { bytes: 10 })
  assert.equal(memory.send(a, 0, 3), 1)
  assert.equal(memory.send(a, 1, 2), -EMSGSIZE)
  assert.equal(memory.send(a, 2, 1), 1)
})

test('IPv6 works like IPv4', async t => {
  const own = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)
  let socket: UdpSocket
  try {
    socket = openUdpSocket(own, 0)
  } catch (error) {
    t.skip(`no IPv6 here: ${error}`)
    return
  }
  closeUdpSocket(socket)
  const a = open(t, own)
  assert.equal(a.version, 6)
  const memory = batches()
  memory.setDestination(0, own, PORT, 0, 0)
  putMessage(memory, 0, { bytes: 5000, segment: 1000, hopLimit: 3, trafficClass: 0x20 })
  assert.equal(memory.send(a, 0, 1), 1)
  await receive(memory, a, 1)
  assert.deepEqual([memory.lengths[0], memory.segments[0]], [5000, 1000])
  assert.deepEqual([memory.hopLimits[0], memory.trafficClasses[0], memory.ports[0]], [3, 0x20, PORT])
  assert.deepEqual([...memory.addresses.subarray(0, 4)], [0, 0, 0, 1])
})

test('an address is bound once, and must exist', t => {
  open(t, loopback(1))
  assert.throws(() => openUdpSocket(loopback(1), PORT), { code: 'EADDRINUSE' })
  const elsewhere = loopback(1)
  elsewhere.set([203, 0, 113, 1], 12)
  assert.throws(() => openUdpSocket(elsewhere, PORT), { code: 'EADDRNOTAVAIL' })
})

test('a watched socket cannot be closed', async t => {
  const a = openUdpSocket(loopback(3), PORT)
  const watching = watch(a.fd, { readable: true }, () => {})
  assert.throws(() => closeUdpSocket(a), /stop the watch first/)
  watching.stop()
  t.after(() => closeUdpSocket(a))
})

test('interfaces report their MTU', () => {
  assert.equal(interfaceMtu('lo'), 65536)
  assert.equal(interfaceMtu('no-such-device0'), undefined)
  assert.equal(interfaceMtu('a name that is far too long'), undefined)
})

const MEMBERSHIPS = '/proc/net/igmp6'
const skipIpv6 = existsSync(MEMBERSHIPS) ? false : 'no IPv6 here'

test('an IPv6 group of any scope is joined on the given interface', { skip: skipIpv6 }, t => {
  const LOOPBACK_INTERFACE = 1
  for (const scope of [1, 2, 5, 14]) {
    const group = Uint8Array.of(0xff, scope, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, process.pid >> 8, process.pid)
    const socket = openUdpSocket(group, PORT, LOOPBACK_INTERFACE)
    t.after(() => closeUdpSocket(socket))
    const line = readFileSync(MEMBERSHIPS, 'utf8')
      .split('\n')
      .find(membership => membership.includes(Buffer.from(group).toString('hex')))
    assert.match(line ?? 'not joined', /^1 +lo /)
  }
})
