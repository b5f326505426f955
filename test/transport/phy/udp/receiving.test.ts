import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { UdpBatches, UdpSocket } from '../../../../src/host/net/udp.ts'
import { ROCE_UDP_PORT } from '../../../../src/spec/wire/headers.ts'
import { createFlowTable } from '../../../../src/transport/phy/flow-table.ts'
import { emptyRun } from '../../../../src/transport/phy/port.ts'
import { createUdpReceiving, RECEIVE_BUFFERS } from '../../../../src/transport/phy/udp/receiving.ts'
import { createSenders } from '../../../../src/transport/phy/udp/senders.ts'
import { makeFlow, sealIcrc } from '../../../../src/transport/wire/icrc.ts'
import { batchArena, ipv4, putSendOnly } from '../helpers.ts'

const BUFFER_BYTES = 2048
/** Packets after which a poll ends (receiving.ts). */
const POLL_PACKETS = 124

/** ::ffff:0.0.0.0 */
const ipv4Any = Uint8Array.from({ length: 16 }, (_, i) => (i === 10 || i === 11 ? 0xff : 0))

/** The source of all datagrams: `ipv4Any`, port 0. */
const source = {
  addresses: Uint32Array.from({ length: 4 * RECEIVE_BUFFERS }, (_, i) => (i % 4 === 2 ? 0xffff : 0)),
  ports: new Uint16Array(RECEIVE_BUFFERS),
  trafficClasses: new Uint8Array(RECEIVE_BUFFERS),
  hopLimits: new Uint8Array(RECEIVE_BUFFERS),
}

/** The receiving half with one socket at ipv4(1). */
const startReceiving = (batches: Partial<UdpBatches>, needsIdentifications: boolean) => {
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
  const receiving = createUdpReceiving(
    { bufferAt: buffer => buffer * BUFFER_BYTES, ...source, ...batches } as UdpBatches,
    sockets,
    [ipv4(1)],
    senders,
    counters,
    { tap: () => null, needsIdentifications: () => needsIdentifications },
  )
  return { receiving, counters }
}

/** Receives datagrams with wrong ICRCs, which never end; `length`: bytes of each. */
const startFlooded = (length: number) => {
  let datagrams = 0
  const lengths = new Int32Array(RECEIVE_BUFFERS)
  const segments = new Int32Array(RECEIVE_BUFFERS)
  const receive: UdpBatches['receive'] = (_socket, first, count) => {
    datagrams += count
    assert.ok(datagrams < 10_000, '`receive` does not return')
    lengths.fill(length, first, first + count)
    segments.fill(length, first, first + count)
    return count
  }
  const needsIdentifications = false
  const arena = batchArena(RECEIVE_BUFFERS * BUFFER_BYTES)
  return startReceiving({ arena, receive, lengths, segments }, needsIdentifications)
}

const PACKET_BYTES = 64

/** Receives one joined datagram: packets with ICRCs for these identifications; undefined: a wrong ICRC. */
const startJoined = (identifications: readonly (number | undefined)[], needsIdentifications: boolean) => {
  const arena = batchArena(RECEIVE_BUFFERS * BUFFER_BYTES)
  const flow = makeFlow({ source: ipv4Any, destination: ipv4(1), sourcePort: 0, destinationPort: ROCE_UDP_PORT })
  for (const [i, identification] of identifications.entries()) {
    putSendOnly(arena.view, i * PACKET_BYTES, i)
    sealIcrc(arena, i * PACKET_BYTES, PACKET_BYTES, flow, identification ?? 0)
    // a byte of the payload
    if (identification === undefined) arena.bytes[i * PACKET_BYTES + 20] ^= 4
  }
  const lengths = new Int32Array(RECEIVE_BUFFERS).fill(identifications.length * PACKET_BYTES)
  const segments = new Int32Array(RECEIVE_BUFFERS).fill(PACKET_BYTES)
  let datagrams = 1
  return startReceiving({ arena, receive: () => (datagrams-- > 0 ? 1 : 0), lengths, segments }, needsIdentifications)
}

describe('receiving over UDP', () => {
  for (const [kind, length] of [
    ['wrong packets', 1024],
    ['datagrams that are too short', 8],
    ['empty datagrams', 0],
    ['truncated datagrams', -1],
  ] as const)
    it(`a poll ends during a flood of ${kind}`, () => {
      const { receiving, counters } = startFlooded(length)
      const run = emptyRun()
      assert.equal(receiving.receive(run), false)
      assert.equal(counters.icrcErrors, POLL_PACKETS)
      assert.equal(receiving.receive(run), false)
      assert.equal(counters.icrcErrors, 2 * POLL_PACKETS, 'the next poll reads again')
    })

  // Packets with these identifications, joined by the kernel (UDP_GRO); undefined: a wrong ICRC. The expected runs are
  // [first identification, packets]: `joined`, or `counting` if identifications must count up within a run.
  for (const { identifications, joined, counting, unexpected } of [
    {
      identifications: [0, 0, 0],
      joined: [[0, 3]],
      counting: [
        [0, 1],
        [0, 1],
        [0, 1],
      ],
      unexpected: 0,
    },
    {
      identifications: [0, 1, 2, 0, 1],
      joined: [[0, 5]],
      counting: [
        [0, 3],
        [0, 2],
      ],
      unexpected: 0,
    },
    {
      identifications: [9, 10, undefined, 12],
      joined: [
        [9, 2],
        [12, 1],
      ],
      counting: [
        [9, 2],
        [12, 1],
      ],
      unexpected: 2,
    },
    { identifications: [undefined, 0, 1], joined: [[0, 2]], counting: [[0, 2]], unexpected: 0 },
  ])
    it(`a joined datagram is divided into runs, identifications ${identifications.map(number => number ?? 'wrong').join(', ')}`, () => {
      for (const needsIdentifications of [false, true]) {
        const { receiving, counters } = startJoined(identifications, needsIdentifications)
        const runs: number[][] = []
        for (const run = emptyRun(); receiving.receive(run); ) {
          assert.deepEqual([run.packetBytes, run.lastBytes], [PACKET_BYTES, PACKET_BYTES])
          runs.push([run.identification, run.count])
        }
        assert.deepEqual(runs, needsIdentifications ? counting : joined)
        const wrong = identifications.filter(number => number === undefined).length
        const { receivedPackets, icrcErrors, unexpectedIdentifications } = counters
        assert.deepEqual(
          { receivedPackets, icrcErrors, unexpectedIdentifications },
          { receivedPackets: identifications.length - wrong, icrcErrors: wrong, unexpectedIdentifications: unexpected },
        )
      }
    })
})
