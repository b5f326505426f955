/*
 * The table of senders to a UDP port: what distinguishes senders, what is known about them, and its size.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFlowTable } from '../../../../src/transport/phy/flow-table.ts'
import { createSenders } from '../../../../src/transport/phy/udp/senders.ts'
import { flowBetween, ipv4 } from '../helpers.ts'

const MAX_SENDERS = 4096
const PORT = 0xc000

/** The columns of receive buffer 0, whose packets are from ::ffff:10.0.0.`last`. */
const from = (last: number, port = PORT) => ({
  addresses: [0, 0, 0xffff, (10 << 24) | last],
  ports: [port],
  trafficClasses: [0],
  hopLimits: [64],
})

test('a sender is an address, a port and the local address; a local number may get another address', () => {
  const senders = createSenders(createFlowTable())
  const [here, there] = [ipv4(1), ipv4(2)]
  const find = (source: ReturnType<typeof from>, destination: Uint8Array, localNumber: number): number =>
    senders.findOrAdd(source, 0, destination, localNumber)
  const nextFromKnown = (): number => senders.nextIdentification(find(from(9), here, 0))
  senders.recordIdentification(find(from(9), here, 0), 7)
  assert.equal(nextFromKnown(), 8)
  for (const other of [find(from(9, PORT + 1), here, 0), find(from(8), here, 0), find(from(9), there, 1)])
    assert.equal(senders.nextIdentification(other), 0)
  assert.equal(nextFromKnown(), 8, 'unchanged by the other senders')
  const moved = find(from(9), there, 0)
  assert.equal(senders.nextIdentification(moved), 0)
  assert.equal(senders.recordOf(moved).destination, there)
})

test('a peer numbers the segments of its messages if it has sent identification 0, also a peer with a number above 16', () => {
  const flows = createFlowTable()
  const senders = createSenders(flows)
  const here = ipv4(1)
  const peers = Array.from({ length: 40 }, (_, i) => {
    flows.open(0, flowBetween(here, ipv4(100 + i)))
    const sender = senders.findOrAdd(from(100 + i), 0, here, 0)
    const identification = i % 2
    senders.recordIdentification(sender, identification)
    return senders.peerOf(sender)
  })
  for (const [i, peer] of peers.entries()) assert.equal(senders.numbersSegments(peer), i % 2 === 0, `peer ${i}`)
  senders.forgetPeer(peers[2])
  assert.deepEqual(
    peers.slice(0, 5).map(peer => senders.numbersSegments(peer)),
    [true, false, false, false, true],
  )
})

test('the table is cleared when it is full', () => {
  const senders = createSenders(createFlowTable())
  const here = ipv4(1)
  const add = (port: number): number => senders.findOrAdd(from(9, port), 0, here, 0)
  senders.recordIdentification(add(1), 7)
  for (let port = 2; port < MAX_SENDERS; port++) add(port)
  senders.clearIfFull()
  assert.equal(senders.nextIdentification(add(1)), 8)
  add(MAX_SENDERS)
  senders.clearIfFull()
  assert.equal(senders.nextIdentification(add(1)), 0)
})
