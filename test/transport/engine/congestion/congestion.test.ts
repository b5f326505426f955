/*
 * Marked packets are answered by CNPs, and CNPs slow a queue pair with rate control. The test is the peer.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Service } from '../../../../src/spec/wire/services.ts'
import { WrOpcode } from '../../../../src/spec/work.ts'
import { bytesPerMicrosecond, dcqcnParameters } from '../../../../src/transport/engine/congestion/dcqcn.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { bthOpcode } from '../../../../src/transport/wire/bth.ts'
import { createNode, MEMORY_BYTES, type NodeOptions } from '../node.ts'
import { packet } from '../script.ts'

const QPN = 0x11
const PEER_QPN = 0x22
const PACKET_BYTES = 12 + 1024 + 4
const CNP = 0x81

const startNode = (options: NodeOptions & { service?: number } = {}) => {
  const node = createNode(options)
  const row = node.createQp(QPN, options)
  node.connect(row, { destQpn: PEER_QPN, timeout: 0 })
  const arena = plainArena(0x2000)
  return {
    node,
    row,
    /** The peer's packet arrives, with the mark of a switch. */
    marked(bytes: Uint8Array, now: number, peer = 0): void {
      arena.bytes.set(bytes)
      node.engine.onRun(row, arena, 0, bytes.length, 1, bytes.length, peer, now)
      node.engine.onMarked(row, arena, 0, 1, peer, now)
    },
    /** The CNPs that the engine sends now. */
    cnps(now: number): Uint8Array[] {
      node.sent.length = 0
      node.transmit(now)
      return node.sent.filter(({ bytes }) => bytes[0] === CNP).map(({ bytes }) => bytes)
    },
  }
}

const write = (psn: number, name = 'WRITE_ONLY'): Uint8Array => packet(name, psn, { payload: 4 })

describe('a marked packet', () => {
  it('is answered by a CNP of 32 bytes with BECN, at most one per 50 µs', () => {
    const t = startNode()
    t.marked(write(0), 100)
    const [cnp, ...others] = t.cnps(100)
    assert.equal(others.length, 0)
    const expected = new Uint8Array(32)
    // opcode, P_Key, BECN, DestQP; all else is 0
    expected.set([CNP, 0, 0xff, 0xff, 0x40, 0, 0, PEER_QPN])
    assert.deepEqual(cnp.subarray(0, 28), expected.subarray(0, 28))
    assert.equal(cnp.length, 32)
    t.marked(write(1), 149)
    assert.equal(t.cnps(149).length, 0)
    t.marked(write(2), 150)
    assert.equal(t.cnps(150).length, 1)
    const { ecnMarked, cnpSent, dropped } = t.node.engine.counters
    assert.deepEqual({ ecnMarked, cnpSent, dropped }, { ecnMarked: 3, cnpSent: 2, dropped: 0 })
  })

  it('of UC is answered too; a CNP, a packet of another peer or of a datagram queue pair is not', () => {
    const uc = startNode({ service: Service.UC })
    uc.marked(write(0, 'UC_WRITE_ONLY'), 0)
    assert.equal(uc.cnps(0).length, 1)
    const ud = startNode({ service: Service.UD })
    ud.marked(packet('UD_SEND_ONLY', 0, { payload: 4 }), 0, -1)
    assert.equal(ud.cnps(0).length, 0)
    const rc = startNode()
    rc.marked(write(0), 0, 1)
    rc.marked(packet('CNP', 0, { payload: 16 }), 0)
    assert.equal(rc.cnps(0).length, 0)
  })

  it('waits with the answer for a port that is full', () => {
    const t = startNode()
    t.node.port.freeRuns = 0
    t.marked(write(0), 0)
    assert.equal(t.cnps(0).length, 0)
    t.node.port.freeRuns = 10
    assert.equal(t.cnps(1).length, 1)
  })
})

/** 100 packets of 1040 bytes. */
const MESSAGE = 100 * 1024

/** Lets the engine run until it has nothing to do; returns the time at which each packet was sent. */
const sendTimes = ({ node }: ReturnType<typeof startNode>, isData: (opcode: number) => boolean): number[] => {
  const times: number[] = []
  for (let now = 0; now < Number.POSITIVE_INFINITY; now = node.engine.nextTimeout()) {
    node.engine.onTimeout(now)
    node.sent.length = 0
    node.transmit(now)
    for (const { bytes } of node.sent) if (isData(bthOpcode(new DataView(bytes.buffer), 0))) times.push(now)
  }
  return times
}

const RATE = bytesPerMicrosecond(8e9)
const controlled: NodeOptions = { rateControl: dcqcnParameters(RATE, 0), windowBytes: MEMORY_BYTES }

/** Packets sent one by one in the first 55 µs, after one CNP: at half of the line rate. */
const assertHalfRate = (times: readonly number[]): void => {
  assert.equal(times.length, 100)
  const early = times.filter(time => time < 55)
  for (const [i, time] of early.entries())
    assert.ok(Math.abs(time - (i * PACKET_BYTES) / (RATE / 2)) < 1, `packet ${i} at ${time}`)
  assert.ok(early.length > 20)
}

describe('a CNP', () => {
  it('has a queue pair send at half the rate, packet by packet', () => {
    const t = startNode(controlled)
    t.node.inject(t.row, packet('CNP', 0, { payload: 16 }), 0)
    t.node.post(t.row, { id: 1, opcode: WrOpcode.values.RDMA_WRITE, sges: [{ at: 0, length: MESSAGE }] })
    assertHalfRate(sendTimes(t, () => true))
    assert.equal(t.node.engine.counters.cnpHandled, 1)
  })

  it('slows READ responses', () => {
    const t = startNode(controlled)
    t.node.inject(t.row, packet('CNP', 0, { payload: 16 }), 0)
    t.node.inject(t.row, packet('READ_REQUEST', 0, { dmaLen: MESSAGE }), 0)
    assertHalfRate(sendTimes(t, opcode => opcode >= 0x0d && opcode <= 0x10))
  })

  it('does not delay acknowledgements', () => {
    const t = startNode(controlled)
    t.node.inject(t.row, packet('CNP', 0, { payload: 16 }), 0)
    t.node.post(t.row, { id: 1, opcode: WrOpcode.values.RDMA_WRITE, sges: [{ at: 0, length: MESSAGE }] })
    t.node.transmit(0)
    t.node.inject(t.row, packet('WRITE_ONLY', 0, { payload: 4, ackReq: true }), 1)
    t.node.sent.length = 0
    t.node.transmit(1)
    assert.deepEqual(
      t.node.sent.map(({ bytes }) => bytes[0]),
      [0x11],
    )
  })

  it('is counted and ignored without rate control', () => {
    const t = startNode({ windowBytes: MEMORY_BYTES })
    t.node.inject(t.row, packet('CNP', 0, { payload: 16 }), 0)
    t.node.post(t.row, { id: 1, opcode: WrOpcode.values.RDMA_WRITE, sges: [{ at: 0, length: MESSAGE }] })
    t.node.transmit(0)
    assert.equal(t.node.sent.length, 100)
    const { cnpHandled, cnpIgnored, dropped } = t.node.engine.counters
    assert.deepEqual({ cnpHandled, cnpIgnored, dropped }, { cnpHandled: 0, cnpIgnored: 1, dropped: 0 })
  })

  it('of another peer, or to a datagram queue pair, is dropped', () => {
    const rc = startNode(controlled)
    rc.node.inject(rc.row, packet('CNP', 0, { payload: 16 }), 0, 1)
    assert.deepEqual([rc.node.engine.counters.cnpHandled, rc.node.engine.counters.dropped], [0, 1])
    const ud = startNode({ ...controlled, service: Service.UD })
    ud.node.inject(ud.row, packet('CNP', 0, { payload: 16 }), 0)
    assert.deepEqual([ud.node.engine.counters.cnpHandled, ud.node.engine.counters.dropped], [0, 1])
  })
})
