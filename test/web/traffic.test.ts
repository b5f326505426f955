/*
 * Sums over time for the page's charts.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SessionEvent } from '../../src/spec/session-events.ts'
import { opcodeNumber, sourceQpnAt } from '../../src/spec/wire/opcodes.ts'
import { connectionsOf, SessionObjects } from '../../src/tools/record/objects.ts'
import { isOf } from '../../web/data/connection-traffic.ts'
import { latencyOfBin, type SeriesName, Traffic } from '../../web/data/traffic.ts'
import { connected, LEFT, packets, posted, RIGHT } from './events.ts'

const window = (time: number, object: number, bytes: number): SessionEvent => ({
  kind: 'counters',
  time,
  device: 0,
  object,
  values: { window: bytes },
})

describe('the window over time', () => {
  it('is the sum of all queue pairs, stays until it changes, and ends with its queue pair', () => {
    const traffic = new Traffic(0)
    traffic.add(window(0, 1, 1000))
    traffic.add(window(1, 2, 500))
    traffic.add(window(3 * 64, 1, 250))
    traffic.add({ kind: 'queueReset', time: 5 * 64, owner: 2 })
    assert.deepEqual(traffic.values('window'), [1500, 1500, 1500, 750, 750, 250])
    assert.equal(traffic.totals.window, 1500)
  })

  it('keeps the newest values when intervals become longer', () => {
    const traffic = new Traffic(0)
    traffic.add(window(0, 1, 1000))
    traffic.add(window(64, 1, 10))
    traffic.add(window(1024 * 64, 1, 20))
    const values = traffic.values('window')
    assert.equal(values.length, 513)
    assert.deepEqual([values[0], values[1], values[511], values[512]], [10, 10, 10, 20])
  })
})

describe('sums over time', () => {
  const sumsOf = (names: readonly SeriesName[], events: readonly SessionEvent[]): number[] => {
    const traffic = new Traffic(0)
    for (const event of events) traffic.add(event)
    for (const name of names)
      if (!['inFlight', 'cqDepth', 'window'].includes(name))
        assert.equal(
          traffic.values(name).reduce((sum, value) => sum + value, 0),
          traffic.totals[name],
        )
    return names.map(name => traffic.totals[name])
  }

  it('count packets once, with the bytes of the last of a run, and lost ones on either side', () => {
    const run = { ...packets(LEFT, 'RC_WRITE_MIDDLE', 1, 0, { count: 3 }), packetBytes: 100, lastBytes: 40 }
    const other = { ...run, direction: 'received' } as const
    assert.deepEqual(
      sumsOf(['packets', 'bytes', 'lost'], [run, { ...other, outcome: 'dropped' }, { ...other, outcome: 'reordered' }]),
      [3, 240, 3],
    )
    assert.deepEqual(sumsOf(['packets', 'bytes', 'lost'], [other, { ...run, outcome: 'wrong icrc' }]), [6, 480, 3])
  })

  it('count as retransmitted what was sent before, also if PSNs wrap; not acknowledgements, and not UD', () => {
    const sent = (psn: number, count: number) => packets(LEFT, 'RC_SEND_ONLY', psn, 0, { count })
    const retransmitted = (...events: SessionEvent[]): number => sumsOf(['retransmitted'], events)[0]
    assert.equal(retransmitted(sent(0xff_fffe, 4), sent(2, 1)), 0)
    assert.equal(retransmitted(sent(0xff_fffe, 4), sent(0, 3)), 2)
    assert.equal(retransmitted(sent(0xff_fffe, 4), sent(0xff_ffff, 2)), 2)
    assert.equal(retransmitted(packets(RIGHT, 'RC_ACKNOWLEDGE', 1, 0), packets(RIGHT, 'RC_ACKNOWLEDGE', 1, 1)), 0)
    assert.equal(retransmitted(packets(LEFT, 'UD_SEND_ONLY', 1, 0), packets(LEFT, 'UD_SEND_ONLY', 1, 1)), 0)
    const response = packets(RIGHT, 'RC_READ_RESP_ONLY', 1, 0)
    assert.equal(retransmitted(response, sent(1, 1), response), 1)
    // Each sender of SRD counts its own packets to a queue pair.
    const srd = (source: number, psn: number): SessionEvent => {
      const event = packets(LEFT, 'SRD_SEND', psn, 0)
      new DataView(event.bytes.buffer).setUint32(sourceQpnAt(opcodeNumber.SRD_SEND), source)
      return event
    }
    assert.equal(retransmitted(srd(1, 0), srd(2, 0), srd(1, 1), srd(2, 1)), 0)
    assert.equal(retransmitted(srd(1, 0), srd(2, 0), srd(1, 0)), 1)
  })

  it('have the bytes in flight, latencies, errors, and the depth of completion queues', () => {
    const traffic = new Traffic(0)
    const complete = (request: number, time: number, status: number): SessionEvent => ({
      kind: 'completed',
      time,
      request,
      owner: LEFT,
      status,
      opcode: 0,
      bytes: 0,
      cq: 5,
      cqPosition: request,
      solicited: false,
      qp: LEFT,
      message: 0,
    })
    const polled = (time: number, count: number): SessionEvent => ({ kind: 'polled', time, cq: 5, count })
    const step = 64
    for (const event of [
      posted(LEFT, 1, 'SEND', 1000, 0),
      posted(LEFT, 2, 'SEND', 500, step),
      complete(1, 2 * step, 0),
      posted(LEFT, 3, 'SEND', 70, 3 * step),
      complete(2, 4 * step, 12),
      polled(5 * step, 2),
    ] satisfies SessionEvent[])
      traffic.add(event)
    assert.deepEqual(traffic.values('inFlight'), [1000, 1500, 500, 570, 70, 0])
    assert.deepEqual(traffic.values('cqDepth'), [0, 0, 1, 0, 2, 0])
    assert.deepEqual(traffic.values('errors'), [0, 0, 0, 0, 1, 0])
    const { posted: posts, completed, inFlight } = traffic.totals
    assert.deepEqual([posts, completed, inFlight], [3, 2, 1500])
    assert.deepEqual(traffic.times, [0, 64e-6, 128e-6, 192e-6, 256e-6, 320e-6])
    const bins = [...traffic.latencies.keys()].filter(bin => traffic.latencies[bin] > 0)
    assert.deepEqual(bins, [28, 30])
    assert.deepEqual([latencyOfBin(28), latencyOfBin(32)], [128, 256])
  })
})

describe('latencies over time', () => {
  it('are those of the sends that ended in an interval, also when intervals become longer', () => {
    const traffic = new Traffic(0)
    const send = (id: number, time: number, latency: number): void => {
      traffic.add(posted(LEFT, id, 'SEND', 8, time))
      traffic.add({ kind: 'ended', time: time + latency, request: id, owner: LEFT })
    }
    for (let id = 1; id <= 99; id++) send(id, 0, 10)
    send(100, 0, 60)
    send(101, 300, 4)
    const near = (value: number | null | undefined, expected: number): void =>
      assert.ok(Math.abs((value ?? 0) / expected - 1) < 0.1, `${value}, not ${expected}`)
    const [first, second] = traffic.percentiles(0.5)
    near(first, 10)
    assert.equal(second, null)
    near(traffic.percentiles(1)[0], 60)
    near(traffic.percentiles(0.5)[Math.floor(304 / 64)], 4)
    // Twice as long: the first interval has those of the first two.
    send(102, 1024 * 64, 4)
    near(traffic.percentiles(0.5)[0], 10)
    near(traffic.percentiles(0.5)[Math.floor(304 / 128)], 4)
    near(traffic.percentiles(1)[512], 4)
  })
})

describe('the sums of a connection', () => {
  it('have the events of its two queue pairs only', () => {
    const objects = new SessionObjects()
    for (const event of connected()) if (event.kind === 'object') objects.add(event)
    const [connection] = connectionsOf(objects)
    const packet = packets(LEFT, 'RC_WRITE_ONLY', 1, 0)
    const send = posted(RIGHT, 1, 'SEND', 8, 0)
    const ours = [packet, send, window(0, LEFT, 1)]
    const foreign: SessionEvent[] = [
      { ...packet, bytes: packet.bytes.map((byte, i) => (i === 7 ? 0x77 : byte)) },
      { ...send, request: { ...send.request, owner: 99 } },
      window(0, 99, 1),
    ]
    assert.deepEqual(
      [...ours, ...foreign].map(event => isOf(connection, event)),
      [true, true, true, false, false, false],
    )
  })
})
