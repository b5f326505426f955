/*
 * The window that queue pairs to one peer share (transport/engine/flow-control/peer-window.ts).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { QpState } from '../../../../src/spec/enums.ts'
import { ICRC_BYTES } from '../../../../src/spec/wire/headers.ts'
import { OP_READ, OP_RESPONSE, opcodeFlags } from '../../../../src/spec/wire/opcodes.ts'
import { WcStatus } from '../../../../src/spec/work.ts'
import { PollResult } from '../../../../src/transport/engine/scheduling.ts'
import { PACKET_WEIGHT } from '../../../../src/transport/engine/state.ts'
import { BTH_BYTES } from '../../../../src/transport/wire/bth.ts'
import { createRandom, type LinkOptions, linkNodes } from '../link.ts'
import { createNode, type NodeOptions } from '../node.ts'
import { ERR, FAA, READ, SEND, WRITE } from '../requests.ts'
import { packet } from '../script.ts'

const MTU = 1024
/** Window bytes of a full packet. */
const PACKET_BYTES = MTU + PACKET_WEIGHT
// packets in flight to one peer, and of one queue pair
const SHARED_PACKETS = 16
const QP_PACKETS = 8
const SHARED_WINDOW = SHARED_PACKETS * PACKET_BYTES
const WINDOW = QP_PACKETS * PACKET_BYTES
const { SUCCESS } = WcStatus.values
const { RESET } = QpState.values

const isReadResponse = (bytes: Uint8Array): boolean => {
  const flags = opcodeFlags[bytes[0]]
  return (flags & OP_READ) !== 0 && (flags & OP_RESPONSE) !== 0
}

/**
 * Connects `count` queue pairs of the first node, in `rows`, with queue pairs of the second node. Connections with an
 * index in `unreachable` have no responder and no ACK timeout.
 */
const start = (
  count: number,
  {
    unreachable = [],
    link = {},
    ...nodeOptions
  }: NodeOptions & { readonly unreachable?: readonly number[]; readonly link?: LinkOptions } = {},
) => {
  const options = {
    windowBytes: WINDOW,
    sharedWindowBytes: SHARED_WINDOW,
    boundReads: true,
    memoryBytes: 0x4_0000,
    ...nodeOptions,
  }
  const nodes = [createNode(options), createNode(options)] as const
  const wire = linkNodes(nodes, link, createRandom(1))
  const rows = Array.from({ length: count }, (_, i) => {
    const qpns = [0x100 + i, 0x200 + i]
    const pair = nodes.map((node, side) => node.createQp(qpns[side]))
    nodes.forEach((node, side) => {
      wire.bind(side, qpns[side], pair[side])
      const timeout = unreachable.includes(i) ? 0 : 14
      if (side === 0 || !unreachable.includes(i)) node.connect(pair[side], { destQpn: qpns[1 - side], timeout })
    })
    return pair[0]
  })
  const [node] = nodes
  const { cqes } = node
  /** Peak of bytes in flight, for packets to the second node and READ responses to the first. */
  let peak = 0
  const measure = (): void => {
    const toSecond = [...wire.inFlight.filter(({ to }) => to === 1), ...nodes[0].sent]
    const toFirst = [...wire.inFlight.filter(({ to }) => to === 0), ...nodes[1].sent]
    const inFlight = [...toSecond, ...toFirst.filter(({ bytes }) => isReadResponse(bytes))]
    peak = Math.max(
      peak,
      inFlight.reduce((sum, { bytes }) => sum + bytes.length - (BTH_BYTES + ICRC_BYTES) + PACKET_WEIGHT, 0),
    )
  }
  for (const sender of nodes) {
    const { transmit } = sender
    sender.transmit = now => {
      transmit(now)
      measure()
    }
  }
  return {
    rows,
    cqes,
    node,
    wire,
    peak: () => peak,
    resetPeak: () => {
      peak = 0
    },
    /** Steps until there are `count` completions, time `until` is reached, or nothing is left to do. */
    run: (count: number, until?: number): void => {
      while (cqes.length < count && wire.step(until)) {}
    },
  }
}

const write = (id: number, length: number) => ({ id, opcode: WRITE, sges: [{ at: 0, length }], remote: 0x1_0000 })
const read = (id: number, length: number) => ({ id, opcode: READ, sges: [{ at: 0, length }], remote: 0x1_0000 })

describe('a window shared by queue pairs', () => {
  it('is not exceeded by 40 queue pairs', () => {
    const t = start(40)
    for (const row of t.rows) t.node.post(row, write(row, 20 * MTU), write(row, 3))
    t.run(80)
    assert.equal(t.cqes.length, 80)
    assert.ok(t.cqes.every(({ status }) => status === SUCCESS))
    assert.ok(t.peak() > SHARED_WINDOW / 2, 'the window is used')
    // The last run may exceed the window by one packet, and `peak` counts the RETH of the first packet of a WRITE.
    assert.ok(t.peak() <= SHARED_WINDOW + 2 * PACKET_BYTES, `${t.peak()} bytes were in flight`)
    assert.equal(t.node.engine.counters.retransmissions, 0)
  })

  it('does not limit a single QP below its own window', () => {
    const t = start(1)
    t.node.post(t.rows[0], write(1, 64 * MTU))
    t.run(1)
    assert.ok(t.peak() > WINDOW - MTU && t.peak() <= WINDOW + 2 * MTU, String(t.peak()))
  })

  it('is what a queue pair may have in flight, if its own window is larger', () => {
    for (const [windowBytes, expected] of [
      [WINDOW, WINDOW],
      [2 * SHARED_WINDOW, SHARED_WINDOW],
    ]) {
      const t = start(1, { windowBytes })
      t.node.post(t.rows[0], write(t.rows[0], MTU))
      t.run(1)
      assert.equal(t.node.engine.windowOf(t.rows[0]), expected)
    }
  })

  it('is shared fairly: no QP completes more than three messages ahead of another', () => {
    const t = start(20)
    for (const row of t.rows) for (let i = 0; i < 8; i++) t.node.post(row, write(row, 8 * MTU))
    t.run(160)
    assert.equal(t.cqes.length, 160)
    const completed = new Map<number, number>()
    for (const { id } of t.cqes) {
      completed.set(id, (completed.get(id) ?? 0) + 1)
      const counts = t.rows.map(row => completed.get(row) ?? 0)
      assert.ok(Math.max(...counts) - Math.min(...counts) <= 3, counts.join(' '))
    }
  })

  it('is not exceeded by READs, which wait until their responses fit', () => {
    const t = start(6)
    for (const row of t.rows) t.node.post(row, row % 2 ? read(row, 32 * MTU) : write(row, 32 * MTU), read(row, 10))
    t.run(12)
    assert.equal(t.cqes.filter(({ status }) => status === SUCCESS).length, 12)
    assert.ok(t.peak() > SHARED_WINDOW / 2, 'the window is used')
    assert.ok(t.peak() <= SHARED_WINDOW + 2 * PACKET_BYTES, `${t.peak()} bytes were in flight`)
    assert.equal(t.node.engine.counters.retransmissions, 0)
  })

  it('is not blocked by queue pairs whose peer does not answer', () => {
    const unreachable = [0, 1, 2, 3]
    const t = start(8, { unreachable })
    for (const i of unreachable) t.node.post(t.rows[i], write(i, 64 * MTU))
    t.run(1, 1000)
    assert.equal(t.cqes.length, 0)
    for (const row of t.rows.slice(4)) t.node.post(row, write(row, 20 * MTU))
    t.run(4)
    assert.equal(t.cqes.length, 4)
    // The bytes to the silent peer are written off after two checks, 200 ms apart.
    assert.ok(t.wire.now < 1_000_000, `${t.wire.now} µs`)
  })

  it('is released when queue pairs are destroyed, reset or in error', () => {
    const unreachable = [0, 1, 2, 3]
    const t = start(8, { unreachable })
    for (const row of t.rows) t.node.post(row, write(row, 12 * MTU))
    t.wire.step(0)
    t.node.engine.destroy(t.rows[0])
    t.node.engine.modify(t.rows[1], RESET, {})
    t.node.engine.modify(t.rows[2], ERR, {})
    t.node.engine.modify(t.rows[3], ERR, {})
    // Two WRITEs are flushed and four succeed, before bytes to a silent peer are written off (200 ms).
    t.run(6, 100_000)
    assert.equal(t.cqes.filter(({ status }) => status === SUCCESS).length, 4)
  })

  it('recovers from loss', () => {
    const t = start(30, { link: { drop: 0.05, reorder: 0.05 } })
    for (const row of t.rows) t.node.post(row, write(row, 20 * MTU), read(row, 5000))
    t.run(60)
    assert.ok(t.cqes.length === 60 && t.cqes.every(({ status }) => status === SUCCESS))
  })

  it('grows from half of its maximum, and shrinks once per loss event', () => {
    const link = { drop: 0 }
    const maximum = 0x10_0000
    const options = { sharedWindowBytes: maximum, windowBytes: 0x2_0000, memoryBytes: 0x8_0000, maxPackets: 64 }
    const t = start(30, { ...options, link })
    /** The peak of bytes in flight, as a share of the maximum window. */
    const peakShare = (): number => t.peak() / maximum
    /** Each QP posts `times` WRITEs of 60 packets; all complete. */
    const writeAll = (times: number): void => {
      t.resetPeak()
      for (const row of t.rows) for (let i = 0; i < times; i++) t.node.post(row, write(row, 60 * MTU))
      t.run(t.cqes.length + 30 * times)
    }
    writeAll(1)
    assert.ok(peakShare() > 0.45 && peakShare() < 0.7, `${peakShare()}: the window starts at half of its maximum`)
    writeAll(10)
    assert.ok(peakShare() > 0.95 && peakShare() < 1.05, `${peakShare()}: the window reaches its maximum`)
    link.drop = 1
    for (const row of t.rows) t.node.post(row, write(row, 60 * MTU))
    t.run(Number.POSITIVE_INFINITY, t.wire.now + 100_000) // All packets of 100 ms are lost.
    link.drop = 0
    t.resetPeak()
    t.run(t.cqes.length + 30)
    assert.ok(peakShare() < 0.7, `${peakShare()}: the window is halved`)
    assert.ok(peakShare() > 0.25, `${peakShare()}: the window is halved only once, although many QPs lost packets`)
    assert.ok(t.cqes.every(({ status }) => status === SUCCESS))
  })

  it('is never full of packets of which none requests an ACK', () => {
    const t = start(30, {
      sharedWindowBytes: 0x20_0000,
      windowBytes: 0x10_0000,
      memoryBytes: 0x8_0000,
      maxPackets: 60,
    })
    // The last packet of each WRITE is not full.
    for (const row of t.rows) for (let i = 0; i < 3; i++) t.node.post(row, write(row, 400 * MTU - 3))
    t.run(90)
    assert.equal(t.node.engine.counters.retransmissions, 0)
    assert.ok(t.cqes.length === 90 && t.wire.now < 10_000, `${t.cqes.length} completions after ${t.wire.now} µs`)
  })

  it('has room again when a QP goes to ERR, although it then sends an ACK', () => {
    const node = createNode({ windowBytes: SHARED_WINDOW, sharedWindowBytes: SHARED_WINDOW })
    const [first, second] = [1, 2].map(qpn => node.createQp(qpn))
    for (const row of [first, second]) node.connect(row, { destQpn: 0x21 + row, timeout: 0 })
    node.post(first, write(1, 20 * MTU))
    node.transmit(0)
    assert.equal(node.sent.length, SHARED_PACKETS)
    node.inject(first, packet('WRITE_ONLY', 0, { ackReq: true }, 1), 0)
    node.engine.modify(first, ERR, {})
    node.endBurst()
    node.post(second, write(2, 20 * MTU))
    node.transmit(0)
    assert.equal(node.sent.length, SHARED_PACKETS + 1 + SHARED_PACKETS, 'WRITE of `first`, ACK, WRITE of `second`')
  })

  it('lets a QP send only what the packets of other QPs leave free', () => {
    const node = createNode({ windowBytes: SHARED_WINDOW, sharedWindowBytes: SHARED_WINDOW })
    const [first, second] = [1, 2].map(qpn => node.createQp(qpn))
    for (const row of [first, second]) node.connect(row, { destQpn: 0x21 + row })
    node.post(first, write(1, 10 * MTU))
    node.transmit(0)
    node.post(second, write(2, 20 * MTU))
    node.transmit(0)
    assert.equal(node.sent.length, SHARED_PACKETS)
  })

  it('is used by all QPs, although the port accepts only two runs at a time', () => {
    const t = start(10)
    for (const row of t.rows) t.node.post(row, write(row, 20 * MTU))
    t.node.port.freeRuns = 2
    for (let i = 0; i < 200 && t.cqes.length < 10; i++) {
      t.run(10, t.wire.now + 50)
      t.node.port.freeRuns = 2
    }
    assert.equal(t.cqes.length, 10)
  })

  it('with less than 64 KiB causes no vain polls of a queue pair whose READ needs more than half of it', () => {
    const node = createNode({ windowBytes: 2 * SHARED_WINDOW, sharedWindowBytes: SHARED_WINDOW, boundReads: true })
    const [first, second] = [1, 2].map(qpn => node.createQp(qpn))
    node.connect(first, { destQpn: 0x21 })
    node.connect(second, { destQpn: 0x22 })
    node.post(first, write(1, 7 * MTU))
    node.post(second, read(2, 12 * MTU))
    assert.equal(node.engine.pollTransmit(node.sink, 0), PollResult.DONE)
    assert.equal(node.sent.length, 7, 'the WRITE; the 12 responses of the READ do not fit into the remaining 9 packets')
    node.inject(first, packet('ACKNOWLEDGE', 6, {}, 1), 0)
    node.endBurst()
    assert.equal(node.engine.pollTransmit(node.sink, 0), PollResult.DONE)
    assert.equal(node.sent.length, 7 + 1, 'the READ request')
  })

  it('is not exceeded after the late ACK of bytes that were written off', () => {
    const node = createNode({ windowBytes: WINDOW, sharedWindowBytes: SHARED_WINDOW })
    const rows = [1, 2, 3].map(qpn => node.createQp(qpn))
    for (const row of rows) node.connect(row, { destQpn: 0x21 + row, timeout: 0 })
    for (const row of rows) node.post(row, write(row, QP_PACKETS * MTU))
    node.transmit(0)
    assert.equal(node.sent.length, 2 * QP_PACKETS, 'the WRITEs of two QPs fill the shared window')
    let now = 0
    while (node.sent.length < 3 * QP_PACKETS && now < 1_000_000) {
      now = node.engine.nextTimeout()
      node.engine.onTimeout(now)
      node.transmit(now)
    }
    assert.equal(node.sent.length, 3 * QP_PACKETS, 'those bytes are written off, and the third QP sends')
    for (const row of rows.slice(0, 2)) {
      node.inject(row, packet('ACKNOWLEDGE', QP_PACKETS - 1, {}, row + 1), now)
      node.endBurst()
      node.post(row, write(row, QP_PACKETS * MTU))
    }
    node.transmit(now)
    assert.equal(node.sent.length, 4 * QP_PACKETS, 'only one of the two fits beside the third')
  })

  it('is not held by a queue pair that waits after an RNR NAK', () => {
    const t = start(4)
    const send = (id: number) => ({ id, opcode: SEND, sges: [{ at: 0, length: 8 * MTU }] })
    for (const row of t.rows.slice(0, 2)) t.node.post(row, send(row))
    t.wire.step(0)
    for (const row of t.rows.slice(2)) t.node.post(row, write(row, 8 * MTU))
    t.run(2)
    // the RNR timer of these queue pairs: 640 µs
    assert.ok(t.cqes.length === 2 && t.wire.now < 200, `${t.cqes.length} completions after ${t.wire.now} µs`)
  })

  /** Windows of 481 packets for the peer and 240 packets for a queue pair. */
  const large = { sharedWindowBytes: 0x8_0000, windowBytes: 0x4_0000, memoryBytes: 0x8_0000 }

  it('is free for the next queue pair if one that waits for more bytes is destroyed', () => {
    const unreachable = [0, 1]
    const t = start(4, { unreachable, ...large })
    t.node.post(t.rows[0], write(0, 235 * MTU))
    t.node.post(t.rows[1], write(1, 180 * MTU))
    t.wire.step(0)
    // 481 - 235 - 180 = 66 packets are free; the first part of the READ needs half of `windowBytes`, 120 packets.
    t.node.post(t.rows[2], read(2, 200 * MTU))
    t.node.post(t.rows[3], write(3, 10))
    t.run(1, 1000)
    assert.equal(t.cqes.length, 0)
    t.node.engine.destroy(t.rows[2])
    t.run(1, 10_000)
    assert.deepEqual(
      t.cqes.map(({ id }) => id),
      [3],
    )
  })

  it('causes no vain polls of a queue pair whose READ needs more than is free', () => {
    const t = start(2, { unreachable: [0], windowBytes: 2 * SHARED_WINDOW })
    t.node.post(t.rows[0], write(0, MTU))
    t.wire.step(0)
    t.node.post(t.rows[1], read(1, SHARED_PACKETS * MTU))
    assert.equal(t.node.engine.pollTransmit(t.node.sink, t.wire.now), PollResult.DONE)
    t.run(1, 1000)
    assert.equal(t.cqes.length, 0)
    t.run(1) // until the WRITE's packet is written off
    assert.equal(t.cqes[0].id, 1)
  })

  it('is not blocked by bytes that nobody acknowledges, also for a queue pair that found the port full', () => {
    const unreachable = [0, 1, 2]
    const t = start(4, { unreachable, ...large })
    const { engine, port } = t.node
    engine.modify(t.rows[2], undefined, { timeout: 10, retryCnt: 1 })
    t.node.post(t.rows[0], write(0, 235 * MTU))
    t.node.post(t.rows[1], write(1, 50 * MTU))
    t.node.post(t.rows[2], { id: 2, opcode: FAA, sges: [{ at: 0, length: 8 }], remote: 0x1_0000, compare: 1n })
    t.wire.step(0)
    t.node.post(t.rows[3], write(3, 400 * MTU)) // More than the other rows leave free: row 3 waits for the window.
    t.wire.step()
    t.wire.step()
    port.freeRuns = 0 // The port is full.
    // The retry of the atomic halves the window: the bytes in flight to silent queue pairs fill it.
    t.run(1, 5000)
    port.freeRuns = Number.POSITIVE_INFINITY
    t.run(3)
    assert.ok(t.cqes.some(({ id, status }) => id === 3 && status === SUCCESS))
  })
})
