/*
 * Memory of an analysis depends on queue pairs, not on packets: a generated capture, in chunks.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { CaptureAnalysis } from '../../../src/tools/captures/analysis.ts'
import { CaptureReader } from '../../../src/tools/captures/file.ts'
import { analyse, packetsOfFixture, pcapOf } from './build.ts'

const QUEUE_PAIRS = 2000
const ROUNDS = 10

test('requests and answers of thousands of queue pairs are joined, each with its own counts', () => {
  const packets = packetsOfFixture('write_lat')
  const request = packets.find(({ bytes }) => bytes[42] === 0x0a)!
  const answer = packets.find(({ bytes }) => bytes[42] === 0x11)!
  const analysis = new CaptureAnalysis()
  analysis.reader.push(pcapOf([]))
  /** A record without the header of the file. */
  const record = (of: typeof request, qpn: number, psn: number, ackReq: number): Uint8Array => {
    const bytes = Uint8Array.from(of.bytes)
    const view = new DataView(bytes.buffer)
    view.setUint32(46, qpn)
    view.setUint32(50, psn + ackReq)
    return pcapOf([{ ...of, bytes }]).subarray(24)
  }
  for (let round = 0; round < ROUNDS; round++)
    for (let i = 0; i < QUEUE_PAIRS; i++) {
      const psn = i * 1000 + round
      const toServer = new DataView(request.bytes.buffer, request.bytes.byteOffset).getUint32(26)
      const isReverse = toServer !== new DataView(answer.bytes.buffer, answer.bytes.byteOffset).getUint32(30)
      assert.ok(!isReverse, 'the answer goes to the sender of the request')
      analysis.reader.push(record(request, 0x1_0000 + i, psn, 0x8000_0000))
      analysis.reader.push(record(answer, 0x2_0000 + i, psn, 0))
    }
  analysis.finish()
  const { flows } = analysis
  assert.equal(flows.length, 2 * QUEUE_PAIRS)
  for (const flow of flows.filter(({ requests }) => requests > 0)) {
    assert.equal(flow.peer?.qpn, flow.qpn + 0x1_0000)
    assert.deepEqual([flow.requests, flow.messages?.[1], flow.peer?.answers], [ROUNDS, ROUNDS, ROUNDS])
  }
})

test('a record that claims more bytes than a packet can have ends the file, and takes no memory', () => {
  const file = pcapOf(packetsOfFixture('write_lat').slice(0, 2))
  const claimed = Uint8Array.from(file)
  new DataView(claimed.buffer).setUint32(24 + 8, 0xf000_0000, true)
  const reader = new CaptureReader(() => {})
  reader.push(claimed)
  assert.equal(reader.damage?.offset, 24)
  assert.match(reader.damage?.reason ?? '', /a packet of 4026531840 bytes/)
})

test('packets before the first by the clock are counted, and end nothing', () => {
  const [first, ...others] = packetsOfFixture('write_lat')
  const before = others.map(packet => ({ ...packet, time: first.time! - 1n }))
  const { flows, reader } = analyse(pcapOf([first, ...before]))
  assert.equal(reader.packets, 1 + others.length)
  assert.ok(flows.length > 0)
})
