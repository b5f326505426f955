import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { EADDRNOTAVAIL, EAGAIN, EINVAL, EIO, EMSGSIZE } from '../../../../src/host/errno.ts'
import type { UdpBatches, UdpSocket } from '../../../../src/host/net/udp.ts'
import { ROCE_UDP_PORT } from '../../../../src/spec/wire/headers.ts'
import { createFlowTable } from '../../../../src/transport/phy/flow-table.ts'
import type { FlowAddress } from '../../../../src/transport/phy/port.ts'
import type { Senders } from '../../../../src/transport/phy/udp/senders.ts'
import {
  createUdpSending,
  FLUSH_EARLY_PACKETS,
  MESSAGE_SLOTS,
  SEND_AREA_BYTES,
} from '../../../../src/transport/phy/udp/sending.ts'
import { makeFlow, verifyIcrc } from '../../../../src/transport/wire/icrc.ts'
import { batchArena, flowBetween, ipv4 } from '../helpers.ts'

const ENETUNREACH = 101
/** Of the packets that `sendRun` sends. */
const PACKET_BYTES = 64
/** Maximum packets of a segmented message, here and with an older kernel. */
const MESSAGE_PACKETS = 124
const OLD_KERNEL_PACKETS = 62
/** UDP_MAX_SEGMENTS of an older kernel. */
const OLD_KERNEL_SEGMENTS = 64

/** Sends to a fake kernel. `errnoOf` returns the error for a message, or 0. */
const startSending = (errnoOf: (segment: number, bytes: number, socket: UdpSocket) => number) => {
  const arena = batchArena(SEND_AREA_BYTES)
  const slots = Array.from({ length: MESSAGE_SLOTS }, () => ({ offset: 0, bytes: 0, segment: 0 }))
  /** Sent messages. `segment` is 0 without segmentation. */
  const sent: (readonly [offset: number, bytes: number, segment: number])[] = []
  /** Calls of `onBlocked`: the number of the full socket, or -1 if none is full. */
  const blockedChanges: number[] = []
  const batches: Pick<UdpBatches, 'arena' | 'putMessage' | 'send'> = {
    arena,
    putMessage: (slot, offset, bytes, _destination, segment) => {
      slots[slot] = { offset, bytes, segment }
    },
    send: (socket, first, count) => {
      for (let i = 0; i < count; i++) {
        const { offset, bytes, segment } = slots[first + i]
        const errno = errnoOf(segment, bytes, socket)
        if (errno !== 0) return i > 0 ? i : -errno
        sent.push([offset, bytes, segment])
      }
      return count
    },
  }
  const flows = createFlowTable()
  const counters = {
    sentPackets: 0,
    sentBytes: 0,
    receivedPackets: 0,
    receivedBytes: 0,
    icrcErrors: 0,
    dropped: 0,
    sendCalls: 0,
    segmentedMessages: 0,
    sendErrors: 0,
    lastSendError: 0,
  }
  const senders = { numbersSegments: () => true } as unknown as Senders
  const socket = { fd: -1, version: 4, receiveBuffer: 0 } as const
  const sockets: (UdpSocket | undefined)[] = [socket]
  const sending = createUdpSending(batches as UdpBatches, sockets, flows, senders, counters, {
    canSegment: true,
    tap: () => null,
    onBlocked: socket => blockedChanges.push(socket),
  })
  const address = flowBetween(ipv4(1), ipv4(2))
  const openFlow = (flowAddress: FlowAddress, socketNumber: number): number => {
    const opened = flows.open(0, flowAddress)
    sending.addFlow(opened, socketNumber)
    return opened
  }
  const flow = openFlow(address, 0)
  const icrcFlow = makeFlow({ ...address, destinationPort: ROCE_UDP_PORT })
  const sendRun = (count: number): boolean => {
    const at = sending.reserve(count * PACKET_BYTES)
    if (at < 0) return false
    sending.commit(at, PACKET_BYTES, count, PACKET_BYTES, flow)
    sending.flush()
    return true
  }
  const isSealed = (offset: number, identification: number): boolean =>
    verifyIcrc(arena, offset, PACKET_BYTES, icrcFlow, identification)
  return { sending, flow, openFlow, counters, sent, blockedChanges, sendRun, isSealed, sockets }
}

describe('sending over UDP', () => {
  it('segments runs, with ICRCs for identifications that count from 0 in each message', () => {
    const t = startSending(() => 0)
    assert.ok(t.sendRun(130))
    assert.deepEqual(t.sent, [
      [0, MESSAGE_PACKETS * 64, 64],
      [MESSAGE_PACKETS * 64, 6 * 64, 64],
    ])
    for (let i = 0; i < 130; i++) assert.ok(t.isSealed(64 * i, i % MESSAGE_PACKETS), `packet ${i}`)
    assert.equal(t.counters.sendCalls, 1)
  })

  it('sends messages of fewer segments, sealed again, to a kernel with a lower limit', () => {
    const t = startSending((segment, bytes) => (segment > 0 && bytes > OLD_KERNEL_SEGMENTS * segment ? EINVAL : 0))
    t.sendRun(70)
    const smallerMessages = [
      [0, OLD_KERNEL_PACKETS * 64, 64],
      [OLD_KERNEL_PACKETS * 64, 8 * 64, 64],
    ]
    assert.deepEqual(t.sent, smallerMessages)
    for (let i = 0; i < 70; i++) assert.ok(t.isSealed(64 * i, i % OLD_KERNEL_PACKETS), `packet ${i}`)
    t.sendRun(70)
    assert.deepEqual(
      t.sent,
      [...smallerMessages, ...smallerMessages],
      'the next run is sent in smaller messages at once',
    )
    assert.deepEqual([t.counters.segmentedMessages, t.counters.sendCalls, t.counters.dropped], [3, 4, 0])
  })

  it('sends many packets one by one when the kernel does not segment', () => {
    const t = startSending(segment => (segment > 0 ? EINVAL : 0))
    t.sendRun(64)
    assert.deepEqual(
      t.sent,
      Array.from({ length: 64 }, (_, i) => [64 * i, 64, 0]),
    )
    assert.ok(t.isSealed(63 * 64, 0))
    assert.equal(t.counters.dropped, 0)
  })

  it('sends many queued packets at the next commit, but not the new packets, which a fault layer may still corrupt', () => {
    const t = startSending(() => 0)
    const at = t.sending.reserve(200 * 64)
    const many = FLUSH_EARLY_PACKETS
    t.sending.commit(at, 64, many, 64, t.flow)
    assert.deepEqual(t.sent, [])
    t.sending.commit(at + many * 64, 64, 10, 64, t.flow)
    assert.deepEqual(t.sent, [[at, many * 64, 64]])
    t.sending.flush()
    assert.deepEqual(t.sent, [
      [at, many * 64, 64],
      [at + many * 64, 10 * 64, 64],
    ])
  })

  it('a second reservation of a poll does not contain the packets of the first', () => {
    const t = startSending(() => 0)
    const first = t.sending.reserve(100)
    t.sending.commit(first, 64, 1, 64, t.flow)
    const second = t.sending.reserve(100)
    t.sending.commit(second, 64, 1, 64, t.flow)
    t.sending.flush()
    assert.ok(second >= first + 64)
    assert.deepEqual(t.sent, [
      [first, 64, 0],
      [second, 64, 0],
    ])
  })

  for (const errno of [EIO, EINVAL])
    it(`sends packets one by one, sealed again, after the kernel refused to segment with errno ${errno}`, () => {
      const t = startSending(segment => (segment > 0 ? errno : 0))
      t.sendRun(3)
      assert.deepEqual(t.sent, [
        [0, 64, 0],
        [64, 64, 0],
        [128, 64, 0],
      ])
      for (let i = 0; i < 3; i++) assert.ok(t.isSealed(64 * i, 0))
      t.sendRun(3)
      assert.equal(t.counters.segmentedMessages, 1)
      assert.deepEqual([t.sent.length, t.counters.dropped], [6, 0])
    })

  it('drops packets that are also refused one by one, and segments the next message', () => {
    let isBroken = true
    const t = startSending(() => (isBroken ? EINVAL : 0))
    t.sendRun(3)
    assert.deepEqual([t.counters.dropped, t.counters.sendErrors, t.counters.lastSendError], [3, 3, EINVAL])
    isBroken = false
    t.sendRun(3)
    assert.deepEqual(t.sent, [[0, 3 * 64, 64]], 'the kernel did not refuse to segment')
  })

  it('sends long messages again after a message was refused for another reason than its number of segments', () => {
    let isBroken = true
    const t = startSending(() => (isBroken ? EINVAL : 0))
    t.sendRun(70)
    assert.equal(t.counters.dropped, 70)
    isBroken = false
    t.sendRun(70)
    assert.deepEqual(t.sent, [[0, 70 * 64, 64]])
  })

  it('drops a run with one call when the network is down, and packets from a removed address', () => {
    let errno = ENETUNREACH
    const t = startSending(() => errno)
    t.sendRun(3)
    assert.deepEqual([t.counters.dropped, t.counters.lastSendError, t.counters.sendCalls], [3, ENETUNREACH, 1])
    t.sockets[0] = undefined
    errno = 0
    t.sendRun(3)
    assert.deepEqual([t.counters.dropped, t.counters.lastSendError, t.counters.sendCalls], [6, EADDRNOTAVAIL, 1])
    assert.deepEqual(t.sent, [])
  })

  it('counts as sent only what the system accepted', () => {
    let errno = ENETUNREACH
    const t = startSending(() => errno)
    const sentCounts = () => [t.counters.sentPackets, t.counters.sentBytes]
    t.sendRun(3)
    assert.deepEqual(sentCounts(), [0, 0])
    errno = EAGAIN
    t.sendRun(3)
    assert.deepEqual(sentCounts(), [0, 0])
    errno = 0
    t.sending.sendQueued()
    assert.deepEqual(sentCounts(), [3, 3 * 64])
    // The kernel refuses to segment, and to send more than 32 bytes: only the last packet is that short.
    const s = startSending((segment, bytes) => (segment > 0 || bytes > 32 ? EINVAL : 0))
    const at = s.sending.reserve(160)
    s.sending.commit(at, 64, 3, 32, s.flow)
    s.sending.flush()
    assert.deepEqual([s.counters.sentPackets, s.counters.sentBytes, s.counters.dropped], [1, 32, 2])
    const old = startSending((segment, bytes) => (segment > 0 && bytes > OLD_KERNEL_PACKETS * segment ? EINVAL : 0))
    old.sendRun(70)
    assert.deepEqual([old.counters.sentPackets, old.counters.sentBytes], [70, 70 * 64])
  })

  it('segments again once an interface accepts long packets again', () => {
    let mtu = 50
    const t = startSending(() => (mtu < 64 ? EMSGSIZE : 0))
    t.sendRun(3)
    assert.deepEqual([t.counters.dropped, t.counters.lastSendError], [3, EMSGSIZE])
    mtu = 100
    t.sendRun(3)
    assert.deepEqual(t.sent, [[0, 3 * 64, 64]])
  })

  it('keeps packets while the socket is full, and sends them in order later', () => {
    let isFull = true
    const t = startSending(() => (isFull ? EAGAIN : 0))
    assert.ok(t.sendRun(1))
    assert.deepEqual(t.blockedChanges, [0])
    assert.equal(t.sendRun(1), false, 'no run is accepted while the socket is full')
    assert.equal(t.sending.sendQueued(), false)
    isFull = false
    assert.equal(t.sending.sendQueued(), true)
    assert.deepEqual(t.blockedChanges, [0, -1])
    assert.ok(t.sendRun(2))
    assert.deepEqual(
      t.sent.map(([, bytes]) => bytes),
      [64, 128],
    )
    assert.equal(t.counters.dropped, 0)
  })

  it('reports which socket is full', () => {
    const full = new Set<UdpSocket>()
    const t = startSending((_segment, _bytes, socket) => (full.has(socket) ? EAGAIN : 0))
    const second: UdpSocket = { fd: -2, version: 4, receiveBuffer: 0 }
    t.sockets.push(second)
    const secondFlow = t.openFlow(flowBetween(ipv4(3), ipv4(2)), 1)
    full.add(t.sockets[0] as UdpSocket).add(second)
    const at = t.sending.reserve(128)
    t.sending.commit(at, 64, 1, 64, t.flow)
    t.sending.commit(at + 64, 64, 1, 64, secondFlow)
    t.sending.flush()
    full.delete(t.sockets[0] as UdpSocket)
    t.sending.sendQueued()
    t.sending.sendQueued()
    full.clear()
    t.sending.sendQueued()
    assert.deepEqual(t.blockedChanges, [0, 1, -1])
  })
})
