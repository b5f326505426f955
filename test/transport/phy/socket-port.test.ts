/*
 * Common parts of ports with sockets: numbers of addresses, peers of flows, and layer buffers.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createFlowTable } from '../../../src/transport/phy/flow-table.ts'
import { RUN_BYTES } from '../../../src/transport/phy/runs/limits.ts'
import { createAddresses, LAYER_BUFFERS_BYTES, socketPortParts } from '../../../src/transport/phy/socket-port.ts'
import { createSenders } from '../../../src/transport/phy/udp/senders.ts'
import { flowBetween, ipv4 } from './helpers.ts'

const address = (last: number): Uint8Array => Uint8Array.from({ length: 16 }, (_, i) => (i === 15 ? last : 0xfd))

test('an address keeps its number without a socket; the number of a left group is reused first', () => {
  const { setSocket, numberOf, numberIfAdded, freeNumber, sockets, addresses } = createAddresses<string>()
  assert.deepEqual([setSocket(address(1), 'a'), setSocket(address(2), 'group'), setSocket(address(3), 'c')], [0, 1, 2])
  sockets[0] = undefined
  assert.equal(numberIfAdded(address(1)), 0)
  sockets[1] = undefined
  freeNumber(1)
  assert.equal(numberOf(address(2)), -1)
  assert.equal(setSocket(address(1), 'again'), 0)
  assert.equal(numberIfAdded(address(4)), 1)
  // `numberIfAdded` reserves nothing
  assert.equal(setSocket(address(4), 'd'), 1)
  assert.equal(setSocket(address(5), 'e'), 3)
  assert.deepEqual(sockets, ['again', 'd', 'c', 'e'])
  assert.deepEqual(addresses[1], address(4))
})

test('a peer is forgotten with its last flow', () => {
  const flows = createFlowTable()
  const forgotten: number[] = []
  const senders = { ...createSenders(flows), forgetPeer: (peer: number) => forgotten.push(peer) }
  const { closeFlow, reopenFlow, peerOf } = socketPortParts(flows, senders, 0)
  const [first, second] = [64, 32].map(hopLimit => flows.open(0, flowBetween(ipv4(1), ipv4(2), { hopLimit })))
  const other = flows.open(0, flowBetween(ipv4(1), ipv4(3)))
  const peers = [peerOf(ipv4(2)), peerOf(ipv4(3))]
  reopenFlow(first)
  closeFlow(first)
  closeFlow(first)
  assert.deepEqual(forgotten, [])
  closeFlow(second)
  assert.deepEqual(forgotten, [peers[0]])
  closeFlow(other)
  assert.deepEqual(forgotten, peers)
})

test('layer buffers are contiguous from the given offset, and their number is fixed', () => {
  const flows = createFlowTable()
  const { takeLayerBuffer, releaseLayerBuffer } = socketPortParts(flows, createSenders(flows), 4096)
  const buffers = Array.from({ length: LAYER_BUFFERS_BYTES / RUN_BYTES }, () => takeLayerBuffer(RUN_BYTES))
  assert.equal(takeLayerBuffer(1), -1)
  assert.deepEqual(
    buffers.sort((a, b) => a - b),
    buffers.map((_, i) => 4096 + i * RUN_BYTES),
  )
  releaseLayerBuffer(buffers[2])
  assert.equal(takeLayerBuffer(1), buffers[2])
  assert.throws(() => takeLayerBuffer(RUN_BYTES + 1))
})
