/*
 * The order in which queue pairs send on a slow port: one that accepts one run per poll (transport/engine/engine.ts).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CREDITS_UNLIMITED, syndromeKind } from '../../../src/spec/wire/headers.ts'
import { PACKET_WEIGHT } from '../../../src/transport/engine/state.ts'
import { bthAckReq, bthDestQp, bthPsn } from '../../../src/transport/wire/bth.ts'
import { createNode, type NodeOptions } from './node.ts'
import { MTU, WRITE } from './requests.ts'
import { packet } from './script.ts'

const RUN_PACKETS = 4
/** Time between polls, µs. */
const STEP = 10
const MAX_HEADER_BYTES = 64
const PACKET_BYTES = MTU + PACKET_WEIGHT

/** A node with `qpsByPeer` queue pairs to each peer; the row of a queue pair is also its peer's QPN. */
const startSlow = (qpsByPeer: readonly number[], options: NodeOptions = {}) => {
  const node = createNode({ maxPackets: RUN_PACKETS, maxBytes: RUN_PACKETS * (MTU + MAX_HEADER_BYTES), ...options })
  const qps = qpsByPeer.flatMap((count, peer) =>
    Array.from({ length: count }, (_, i) => ({ peer, qpn: 0x100 * (peer + 1) + i })),
  )
  qps.forEach(({ peer, qpn }, row) => {
    assert.equal(node.createQp(qpn), row)
    node.connect(row, { destQpn: row, peer, flow: peer, timeout: 0 })
  })
  /** Sends one run, because the port then is full; returns the packets. */
  const poll = (now: number) => {
    node.port.freeRuns = 1
    node.transmit(now)
    return node.sent.splice(0).map(({ bytes }) => {
      const view = new DataView(bytes.buffer)
      return { row: bthDestQp(view, 0), psn: bthPsn(view, 0), isAckRequested: bthAckReq(view, 0) }
    })
  }
  return { node, qps, poll }
}

/** Completed messages by row, while each queue pair posts WRITEs of 20 packets, and ACKs arrive one poll later. */
const completionsByRow = (qpsByPeer: readonly number[], options: NodeOptions): number[] => {
  const { node, qps, poll } = startSlow(qpsByPeer, options)
  const request = { opcode: WRITE, sges: [{ at: 0, length: 20 * MTU }], remote: 0x1_0000 }
  qps.forEach((_, row) => {
    node.post(row, ...Array.from({ length: 200 }, () => ({ id: row, ...request })))
  })
  let sent: ReturnType<typeof poll> = []
  for (let now = 0; now < 1000 * STEP; now += STEP) {
    const arrived = sent.filter(({ isAckRequested }) => isAckRequested)
    sent = poll(now)
    for (const { row, psn } of arrived) {
      const ack = packet('ACKNOWLEDGE', psn, { syndrome: syndromeKind.ACK | CREDITS_UNLIMITED }, qps[row].qpn)
      node.inject(row, ack, now, qps[row].peer)
    }
    node.endBurst()
  }
  return qps.map((_, row) => node.cqes.filter(({ id }) => id === row).length)
}

describe('on a slow port', () => {
  for (const [windows, options] of [
    ['their own windows', { windowBytes: 64 * PACKET_BYTES }],
    ['windows of their peers', { windowBytes: 8 * PACKET_BYTES, sharedWindowBytes: 16 * PACKET_BYTES }],
  ] as const)
    for (const qpsByPeer of [
      [1, 1],
      [1, 1, 2],
      [1, 2, 2],
      [3, 3, 3],
      [4, 4, 4, 1],
    ])
      it(`no queue pair with a WRITE starves: ${qpsByPeer} queue pairs to the peers, with ${windows}`, () => {
        const counts = completionsByRow(qpsByPeer, options)
        const average = counts.reduce((sum, count) => sum + count) / counts.length
        assert.ok(Math.min(...counts) * 3 > average, counts.join(' '))
      })

  it('a long READ response does not delay another queue pair', () => {
    const { node, qps, poll } = startSlow([1, 1])
    qps.forEach(({ peer, qpn }, row) => {
      node.inject(row, packet('READ_REQUEST', 0, { dmaLen: 100 * MTU }, qpn), 0, peer)
    })
    node.endBurst()
    const sentByRow = [0, 0]
    for (let i = 1; i <= 20; i++) for (const { row } of poll(i * STEP)) sentByRow[row]++
    // A fair share of 20 runs of RUN_PACKETS is 40 packets.
    assert.ok(Math.min(...sentByRow) > 30, sentByRow.join(' '))
  })
})
