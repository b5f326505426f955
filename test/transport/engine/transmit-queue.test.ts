/*
 * Turns of the users of a device: how long one user's queue pairs delay those of another.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { TURN } from '../../../src/transport/engine/transmit-queue.ts'
import { bthDestQp } from '../../../src/transport/wire/bth.ts'
import { createNode } from './node.ts'
import { sge, WRITE } from './requests.ts'

const NOISY = { rows: 32, bytes: 0x1_0000, owner: 7 }
const READ_TIME = TURN / 4

/**
 * A device on which `noisyOwner` has NOISY.rows queue pairs with long messages, and owner 8 has one with a short
 * message.
 */
const startNoise = (noisyOwner: number) => {
  const node = createNode({ readTime: READ_TIME, maxPackets: 16, maxBytes: 0x5000 })
  const rows = Array.from({ length: NOISY.rows + 1 }, (_, i) => {
    const row = node.createQp(i + 2, { owner: i < NOISY.rows ? noisyOwner : 8 })
    node.connect(row, { destQpn: 0x100 + i, rqPsn: 0 })
    return row
  })
  const short = rows.pop()!
  for (const row of rows) node.post(row, { id: 1, opcode: WRITE, ...sge(0, NOISY.bytes) })
  return { node, short }
}

/** Copies of one poll, and the numbers of the queue pairs (from 0) that it has sent packets of. */
const poll = ({ engine, sink, dmaCalls, sent }: ReturnType<typeof createNode>) => {
  const [reads, packets] = [dmaCalls.reads, sent.length]
  engine.beginPoll()
  engine.pollTransmit(sink, 0)
  const flows = sent.slice(packets).map(({ bytes }) => bthDestQp(new DataView(bytes.buffer), 0) - 0x100)
  return { copies: dmaCalls.reads - reads, queuePairs: [...new Set(flows)] }
}

it('a poll ends after a turn and a copy while queue pairs have several owners, and the other one is next', () => {
  const { node, short } = startNoise(NOISY.owner)
  const noisy = poll(node)
  assert.ok(noisy.copies * READ_TIME <= TURN + READ_TIME, `${noisy.copies} copies`)
  node.post(short, { id: 2, opcode: WRITE, ...sge(0, 64) })
  assert.equal(poll(node).queuePairs[0], NOISY.rows)
  // in the same poll the noisy owner goes on, with its next row
  node.post(short, { id: 3, opcode: WRITE, ...sge(0, 64) })
  assert.equal(poll(node).queuePairs[0], NOISY.rows)
})

it('all rows of all owners are served in turn', () => {
  const { node, short } = startNoise(NOISY.owner)
  node.post(short, { id: 2, opcode: WRITE, ...sge(0, 64) })
  const served = new Set<number>()
  for (let polls = 0; polls < 4 * NOISY.rows && !node.engine.isIdle(); polls++)
    for (const queuePair of poll(node).queuePairs) served.add(queuePair)
  assert.equal(served.size, NOISY.rows + 1)
})

it('a poll sends something, however long its search for posts has taken', () => {
  const { node } = startNoise(NOISY.owner)
  node.post(node.createQp(99, { owner: 8 }))
  node.engine.beginPoll()
  node.dmaCalls.reads += 100
  node.engine.pollTransmit(node.sink, 0)
  assert.ok(node.sent.length > 0)
})

it('queue pairs of one owner have no turns', () => {
  const { node } = startNoise(8)
  assert.ok(poll(node).copies * READ_TIME > 4 * TURN)
})

it('queue pairs of an owner that are gone, and rows that another one gets, take no turns', () => {
  const { node, short } = startNoise(NOISY.owner)
  for (let row = 0; row < NOISY.rows; row++) if (row !== short) node.engine.destroy(row)
  for (let i = 0; i < NOISY.rows; i++) {
    const row = node.createQp(i + 2, { owner: 8 })
    node.connect(row, { destQpn: 0x100 + i, rqPsn: 0 })
    node.post(row, { id: 1, opcode: WRITE, ...sge(0, NOISY.bytes) })
  }
  assert.ok(poll(node).copies * READ_TIME > 4 * TURN)
  node.transmit(0)
  assert.ok(node.engine.isIdle())
})
