import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFlowTable } from '../../../src/phy/flow-table.ts'
import { createSenders } from '../../../src/phy/udp/senders.ts'
import { flowBetween, ipv4 } from '../helpers.ts'

/** The columns of one receive buffer, whose packets are from ::ffff:10.0.0.`last`. */
const from = (last: number, port = 0xc000) => ({
  addresses: [0, 0, 0xffff, (10 << 24) | last],
  ports: [port],
  trafficClasses: [0],
  hopLimits: [64],
})

test('a sender is an address, a port and the local address; a local number may get another address', () => {
  const senders = createSenders(createFlowTable())
  const [here, there] = [ipv4(1), ipv4(2)]
  const sender = senders.findOrAdd(from(9), 0, here, 0)
  senders.recordIdentification(sender, 7)
  assert.equal(senders.nextIdentification(senders.findOrAdd(from(9), 0, here, 0)), 8)
  for (const other of [
    senders.findOrAdd(from(9, 0xc001), 0, here, 0),
    senders.findOrAdd(from(8), 0, here, 0),
    senders.findOrAdd(from(9), 0, there, 1),
  ])
    assert.equal(senders.nextIdentification(other), 0)
  // packets to `there` have not changed what is known about packets to `here`
  assert.equal(senders.nextIdentification(senders.findOrAdd(from(9), 0, here, 0)), 8)
  const moved = senders.findOrAdd(from(9), 0, there, 0)
  assert.equal(senders.nextIdentification(moved), 0)
  assert.equal(senders.recordOf(moved).destination, there)
})

test('more than 16 peers that have sent identification 0', () => {
  const flows = createFlowTable()
  const senders = createSenders(flows)
  const here = ipv4(1)
  const peers = Array.from({ length: 40 }, (_, i) => {
    flows.open(0, flowBetween(here, ipv4(100 + i)))
    const sender = senders.findOrAdd(from(100 + i), 0, here, 0)
    senders.recordIdentification(sender, i % 2)
    return senders.peerOf(sender)
  })
  for (const [i, peer] of peers.entries()) assert.equal(senders.numbersSegments(peer), i % 2 === 0, `peer ${i}`)
  senders.forgetPeer(peers[2])
  assert.deepEqual(
    peers.slice(0, 5).map(peer => senders.numbersSegments(peer)),
    [true, false, false, false, true],
  )
})

test('the table is cleared when it has 4096 senders', () => {
  const senders = createSenders(createFlowTable())
  const here = ipv4(1)
  const add = (port: number): number => senders.findOrAdd(from(9, port), 0, here, 0)
  senders.recordIdentification(add(1), 7)
  for (let port = 2; port < 4096; port++) add(port)
  senders.clearIfFull()
  assert.equal(senders.nextIdentification(add(1)), 8)
  add(4096)
  senders.clearIfFull()
  assert.equal(senders.nextIdentification(add(1)), 0)
})
