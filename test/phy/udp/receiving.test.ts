import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { UdpBatches, UdpSocket } from '../../../src/host/net/udp.ts'
import { createFlowTable } from '../../../src/phy/flow-table.ts'
import { emptyRun } from '../../../src/phy/port.ts'
import { createUdpReceiving, RECEIVE_BUFFERS } from '../../../src/phy/udp/receiving.ts'
import { createSenders } from '../../../src/phy/udp/senders.ts'
import { batchArena, ipv4 } from '../helpers.ts'

const BUFFER_BYTES = 2048

/** Receives datagrams with wrong ICRCs, which never end; `length`: bytes of each. */
const startFlooded = (length: number) => {
  let datagrams = 0
  const lengths = new Int32Array(RECEIVE_BUFFERS)
  const segments = new Int32Array(RECEIVE_BUFFERS)
  const batches: Partial<UdpBatches> = {
    arena: batchArena(RECEIVE_BUFFERS * BUFFER_BYTES),
    receive: (_socket, first, count) => {
      datagrams += count
      assert.ok(datagrams < 10_000, '`receive` does not return')
      lengths.fill(length, first, first + count)
      segments.fill(length, first, first + count)
      return count
    },
    bufferAt: buffer => buffer * BUFFER_BYTES,
    lengths,
    segments,
    // ::ffff:0.0.0.0
    addresses: Uint32Array.from({ length: 4 * RECEIVE_BUFFERS }, (_, i) => (i % 4 === 2 ? 0xffff : 0)),
    ports: new Uint16Array(RECEIVE_BUFFERS),
    trafficClasses: new Uint8Array(RECEIVE_BUFFERS),
    hopLimits: new Uint8Array(RECEIVE_BUFFERS),
  }
  const counters = {
    sentPackets: 0,
    sentBytes: 0,
    receivedPackets: 0,
    receivedBytes: 0,
    icrcErrors: 0,
    dropped: 0,
    unexpectedIdentifications: 0,
  }
  const sockets: UdpSocket[] = [{ fd: -1, version: 4, receiveBuffer: 0 }]
  const senders = createSenders(createFlowTable())
  const receiving = createUdpReceiving(batches as UdpBatches, sockets, [ipv4(1)], senders, counters, {
    tap: () => null,
    needsIdentifications: () => false,
  })
  return { receiving, counters }
}

describe('receiving over UDP', () => {
  for (const [kind, length] of [
    ['wrong packets', 1024],
    ['datagrams that are too short', 8],
    ['empty datagrams', 0],
    ['truncated datagrams', -1],
  ] as const)
    it(`a flood of ${kind} ends a poll`, () => {
      const { receiving, counters } = startFlooded(length)
      const run = emptyRun()
      assert.equal(receiving.receive(run), false)
      assert.equal(counters.icrcErrors, 124)
      assert.equal(receiving.receive(run), false)
      assert.equal(counters.icrcErrors, 248, 'the next poll reads again')
    })
})
