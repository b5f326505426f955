/*
 * Where the time of sends goes: each phase, by sessions of two queue pairs whose events are written out.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { nakCode, syndromeKind } from '../../../src/spec/wire/headers.ts'
import { sourceQpnAt } from '../../../src/spec/wire/opcodes.ts'
import { SendFlags, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { Durations } from '../../../src/tools/record/times/durations.ts'
import { lostText, type RequestTimes, TimesOfRequests } from '../../../src/tools/record/times/request-times.ts'
import { CQ, completed, connected, ended, FIRST_PSN, LEFT, packets, polled, posted, RIGHT } from '../../web/events.ts'

const window = (bytes: number): SessionEvent => ({
  kind: 'counters',
  time: 0,
  device: 0,
  object: LEFT,
  values: { window: bytes },
})

const timesOf = (...events: SessionEvent[]): { requests: RequestTimes[]; times: TimesOfRequests } => {
  const requests: RequestTimes[] = []
  const times = new TimesOfRequests(one => requests.push(one))
  for (const event of [...connected(), ...events]) times.add(event)
  times.end(10_000)
  return { requests, times }
}

/** `phase from-to`, in their order. */
const spans = ({ requests }: { requests: readonly RequestTimes[] }, index = 0): string[] =>
  requests[index]!.spans.map(({ phase, from, to }) => `${phase} ${from}-${to}`)

const rnrNak = 0x20

describe('the phases of a send', () => {
  it('are those of a message of several packets', () => {
    const found = timesOf(
      posted(LEFT, 1, 'RDMA_WRITE', 3072, 100),
      packets(LEFT, 'RC_WRITE_FIRST', FIRST_PSN, 110),
      packets(LEFT, 'RC_WRITE_MIDDLE', FIRST_PSN + 1, 120),
      packets(LEFT, 'RC_WRITE_LAST', FIRST_PSN + 2, 130),
      packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN + 2, 150),
      ended(1, 150),
      completed(1, 1, 155),
      polled(1, 200),
    )
    assert.deepEqual(spans(found), [
      'device 100-110',
      'sending 110-130',
      'answer 130-150',
      'completion 150-155',
      'program 155-200',
    ])
  })

  it('a receiver that is not ready, and a lost packet, interrupt it', () => {
    const found = timesOf(
      posted(LEFT, 1, 'SEND', 64, 100),
      packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 100),
      packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 110, { syndrome: rnrNak }),
      packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 1110, { outcome: 'dropped' }),
      packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 3110),
      packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 3120),
      ended(1, 3120),
      completed(1, 1, 3120),
      polled(1, 3125),
    )
    assert.deepEqual(spans(found), [
      'answer 100-110',
      'receiver 110-1110',
      'loss 1110-3110',
      'answer 3110-3120',
      'program 3120-3125',
    ])
    const [queue] = found.times.queues
    assert.deepEqual(
      [queue?.notReady, queue?.lost, queue?.repeated, queue?.phases.receiver, queue?.phases.loss],
      [1, 1, 2, 1000, 2000],
    )
  })

  it('a NAK tells of a loss, and a reserved code none', () => {
    const untoldWith = (code: number): number | undefined => {
      const found = timesOf(
        posted(LEFT, 1, 'SEND', 64, 100),
        packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 100, { outcome: 'dropped' }),
        packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 110, { syndrome: syndromeKind.NAK | code }),
        packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 3110),
        packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 3120),
        ended(1, 3120),
        completed(1, 1, 3120),
        polled(1, 3125),
      )
      return found.times.queues[0]?.evidence.untold
    }
    assert.deepEqual([untoldWith(nakCode.PSN_SEQUENCE), untoldWith(5)], [0, 3010])
  })

  it('a receiver that is not ready for very long interrupts it all the time', () => {
    const naks = Array.from({ length: 200 }, (_, i) => [
      packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 100 + 10 * i),
      packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 101 + 10 * i, { syndrome: rnrNak }),
    ])
    const found = timesOf(
      posted(LEFT, 1, 'SEND', 64, 100),
      ...naks.flat(),
      packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 2100),
      ended(1, 2200),
      completed(1, 1, 2200),
      polled(1, 2200),
    )
    assert.deepEqual(spans(found), ['answer 100-101', 'receiver 101-2100', 'answer 2100-2200'])
  })

  it('is of the device if a service without acknowledgements ends it before its packet', () => {
    const requests: RequestTimes[] = []
    const times = new TimesOfRequests(one => requests.push(one))
    for (const event of connected() as (SessionEvent & { kind: 'object' })[]) times.add({ ...event, class: 'uc_qp' })
    for (const event of [posted(LEFT, 1, 'SEND', 64, 100), ended(1, 120), completed(1, 1, 120), polled(1, 130)])
      times.add(event)
    assert.deepEqual(spans({ requests }), ['device 100-120', 'program 120-130'])
  })

  it('waits for earlier requests, the window, max_rd_atomic and the fence', () => {
    const withFlags = (event: ReturnType<typeof posted>, flags: number): SessionEvent => ({
      ...event,
      request: { ...event.request, flags },
    })
    const readEnd = (name: 'RDMA_READ' | 'RDMA_WRITE', flags = 2) =>
      timesOf(
        { ...(connected()[2] as SessionEvent & { kind: 'object' }), details: { values: { maxRdAtomic: 1 } } },
        posted(LEFT, 1, 'RDMA_READ', 64, 100),
        packets(LEFT, 'RC_READ_REQUEST', FIRST_PSN, 100),
        withFlags(posted(LEFT, 2, name, 64, 110), flags),
        packets(RIGHT, 'RC_READ_RESP_ONLY', FIRST_PSN, 300),
        ended(1, 300),
        completed(1, 1, 300),
        packets(LEFT, name === 'RDMA_READ' ? 'RC_READ_REQUEST' : 'RC_WRITE_ONLY', FIRST_PSN + 1, 300),
        polled(1, 310),
        ended(2, 400),
        completed(2, 2, 400),
        polled(2, 400),
      )
    assert.deepEqual(spans(readEnd('RDMA_READ'), 1), ['reads 110-300', 'answer 300-400'])
    assert.deepEqual(spans(readEnd('RDMA_WRITE', SendFlags.values.FENCE), 1), ['fence 110-300', 'answer 300-400'])

    const windowed = timesOf(
      window(1024),
      posted(LEFT, 1, 'RDMA_WRITE', 1024, 100),
      posted(LEFT, 2, 'RDMA_WRITE', 1024, 100),
      posted(LEFT, 3, 'RDMA_WRITE', 1024, 100),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 100),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 1, 200),
      ended(1, 201),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 2, 300),
    )
    assert.deepEqual(spans(windowed, 1).slice(0, 1), ['window 100-200'])
    assert.deepEqual(spans(windowed, 2).slice(0, 2), ['turn 100-200', 'window 200-300'])
    assert.ok(windowed.requests[1]?.isOpen)
  })
})

describe('the sums of a queue pair', () => {
  it('count each moment once, as that of the oldest send in the device; without one it is idle', () => {
    const found = timesOf(
      posted(LEFT, 1, 'RDMA_WRITE', 64, 100),
      posted(LEFT, 2, 'RDMA_WRITE', 64, 100),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 100),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 1, 100),
      ended(1, 200),
      completed(1, 1, 200),
      ended(2, 220),
      completed(2, 2, 220),
      polled(2, 250),
      posted(LEFT, 3, 'RDMA_WRITE', 64, 1000),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 2, 1000),
      ended(3, 1100),
      completed(3, 3, 1100),
      polled(3, 1100),
    )
    const [queue] = found.times.queues
    assert.equal(queue?.idle, 750)
    assert.deepEqual([queue?.phases.answer, queue?.phases.program], [220, 30])
    assert.equal(queue?.durations.longest, 150)
  })

  it('are of what a send waits for while an earlier completion is not polled, and of the poll when none is in the device', () => {
    const found = timesOf(
      posted(LEFT, 1, 'RDMA_WRITE', 64, 100),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 100),
      ended(1, 200),
      completed(1, 1, 200),
      posted(LEFT, 2, 'RDMA_WRITE', 64, 300),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 1, 350),
      ended(2, 500),
      completed(2, 2, 500),
      polled(2, 600),
    )
    const [queue] = found.times.queues
    assert.equal(queue?.idle, 0)
    assert.deepEqual([queue?.phases.answer, queue?.phases.device, queue?.phases.program], [250, 50, 200])
  })

  it('are not those of unsignaled sends that ended before the poll of an earlier completion', () => {
    const unsignaled = posted(LEFT, 2, 'RDMA_WRITE', 64, 1000)
    const found = timesOf(
      posted(LEFT, 1, 'RDMA_WRITE', 64, 100),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 100),
      ended(1, 200),
      completed(1, 1, 200),
      { ...unsignaled, request: { ...unsignaled.request, isSignaled: false } },
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 1, 1000),
      ended(2, 1010),
      polled(1, 2000),
    )
    const [queue] = found.times.queues
    assert.deepEqual([queue?.idle, queue?.phases.answer, queue?.phases.program], [0, 110, 1790])
  })
})

it('a READ that asks for its lost responses is a repetition', () => {
  const [created, ready, ...rest] = connected() as (SessionEvent & { kind: 'object' })[]
  const withMtu = { ...ready!, details: { values: { ...ready!.details.values, pathMtu: 3 } } }
  const request = (psn: number, bytes: number, time: number): SessionEvent => {
    const event = packets(LEFT, 'RC_READ_REQUEST', psn, time)
    new DataView(event.bytes.buffer, event.bytes.byteOffset).setUint32(24, bytes)
    return event
  }
  const requests: RequestTimes[] = []
  const times = new TimesOfRequests(one => requests.push(one))
  for (const event of [
    created!,
    withMtu,
    ...rest,
    posted(LEFT, 1, 'RDMA_READ', 4096, 100),
    posted(LEFT, 2, 'RDMA_READ', 4096, 100),
    request(FIRST_PSN, 4096, 100),
    packets(RIGHT, 'RC_READ_RESP_FIRST', FIRST_PSN, 110),
    packets(RIGHT, 'RC_READ_RESP_MIDDLE', FIRST_PSN + 1, 112, { direction: 'received', outcome: 'dropped' }),
    request(FIRST_PSN + 1, 3072, 1000),
    packets(RIGHT, 'RC_READ_RESP_FIRST', FIRST_PSN + 1, 1010),
    ended(1, 1010),
    completed(1, 1, 1010),
    polled(1, 1010),
    request(FIRST_PSN + 4, 4096, 1010),
  ])
    times.add(event)
  times.end(2000)
  assert.deepEqual(spans({ requests }), ['loss 100-1000', 'answer 1000-1010'])
  assert.deepEqual(spans({ requests }, 1).slice(-1), ['answer 1010-2000'])
  assert.deepEqual([times.queues[0]?.repeated, times.queues[0]?.lost], [3, 1])
})

describe('losses', () => {
  const lost = (psn: number, time: number) =>
    packets(LEFT, 'RC_SEND_ONLY', psn, time, { direction: 'received', outcome: 'dropped' })
  const sent = (id: number, psn: number, time: number) => [
    posted(LEFT, id, 'SEND', 64, time),
    packets(LEFT, 'RC_SEND_ONLY', psn, time),
  ]

  it('are repaired when a send ends well, not by what is lost again', () => {
    const first = [...sent(1, FIRST_PSN, 100), lost(FIRST_PSN, 101), packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 200)]
    const hanging = timesOf(...first, lost(FIRST_PSN, 201)).times
    assert.deepEqual(hanging.lossesOf(), { lost: 2, repaired: 0 })
    assert.equal(lostText(hanging.lossesOf()), '2 packets lost')

    const well = [...first, ended(1, 210), completed(1, 1, 210), lost(FIRST_PSN, 220)]
    const over = timesOf(...well).times
    assert.equal(lostText(over.lossesOf([LEFT, RIGHT])), '2 packets lost and repaired')
    assert.deepEqual(over.lossesOf([RIGHT]), { lost: 0, repaired: 0 })

    const failing = timesOf(...well, ...sent(2, FIRST_PSN + 1, 300), lost(FIRST_PSN + 1, 301), {
      ...(completed(2, 2, 400) as SessionEvent & { kind: 'completed' }),
      status: WcStatus.values.RETRY_EXC_ERR,
    }).times
    assert.equal(lostText(failing.lossesOf()), '3 packets lost, 2 of them repaired')
  })

  it('of datagrams are counted on arrival too, and stay lost', () => {
    const arrived = packets(LEFT, 'UD_SEND_ONLY', FIRST_PSN, 101, { direction: 'received', outcome: 'dropped' })
    const at = sourceQpnAt(arrived.bytes[0]!)
    new DataView(arrived.bytes.buffer).setUint32(at, 0x11)
    const found = timesOf(
      posted(LEFT, 1, 'SEND', 64, 100),
      { ...arrived, device: 1 },
      ended(1, 110),
      completed(1, 1, 110),
    )
    assert.deepEqual(found.times.lossesOf(), { lost: 1, repaired: 0 })
  })
})

it('packets of several short messages in one event are of as many sends', () => {
  const withMtu: SessionEvent = {
    ...(connected()[1] as SessionEvent & { kind: 'object' }),
    details: { values: { pathMtu: 3 } },
  }
  for (const [operation, name, answer] of [
    ['RDMA_WRITE', 'RC_WRITE_ONLY', 'RC_ACKNOWLEDGE'],
    ['RDMA_READ', 'RC_READ_REQUEST', 'RC_READ_RESP_ONLY'],
  ] as const) {
    const request = (psn: number, count: number, time: number): SessionEvent => {
      const event = packets(LEFT, name, psn, time, { count })
      if (operation === 'RDMA_READ') new DataView(event.bytes.buffer, event.bytes.byteOffset).setUint32(24, 64)
      return event
    }
    const found = timesOf(
      withMtu,
      ...[1, 2, 3].map(i => posted(LEFT, i, operation, 64, 100)),
      request(FIRST_PSN, 3, 110),
      packets(RIGHT, answer, FIRST_PSN, 140),
      ended(1, 140),
      completed(1, 1, 140),
      polled(1, 140),
      request(FIRST_PSN + 1, 2, 900),
      packets(RIGHT, answer, FIRST_PSN + 1, 910),
      ended(2, 910),
      completed(2, 2, 910),
      polled(2, 910),
    )
    assert.deepEqual(spans(found), ['device 100-110', 'answer 110-140'], operation)
    assert.deepEqual(spans(found, 1), ['device 100-110', 'loss 110-900', 'answer 900-910'], operation)
    assert.deepEqual(spans(found, 2).slice(0, 2), ['device 100-110', 'loss 110-900'], operation)
    assert.equal(found.times.queues[0]?.repeated, 2, operation)
  }
})

it('a READ or atomic whose answer is lost waits for the loss, also if answers of later ones and acknowledgements arrive', () => {
  for (const [operation, request, answer] of [
    ['RDMA_READ', 'RC_READ_REQUEST', 'RC_READ_RESP_ONLY'],
    ['ATOMIC_FETCH_AND_ADD', 'RC_FETCH_ADD', 'RC_ATOMIC_ACK'],
  ] as const) {
    const found = timesOf(
      posted(LEFT, 1, operation, 8, 100),
      posted(LEFT, 2, operation, 8, 100),
      posted(LEFT, 3, 'RDMA_WRITE', 8, 100),
      packets(LEFT, request, FIRST_PSN, 100),
      packets(LEFT, request, FIRST_PSN + 1, 100),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 2, 100),
      packets(RIGHT, answer, FIRST_PSN, 110, { direction: 'received', outcome: 'dropped' }),
      packets(RIGHT, answer, FIRST_PSN + 1, 120),
      packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN + 2, 130),
      packets(LEFT, request, FIRST_PSN, 1000),
      packets(RIGHT, answer, FIRST_PSN, 1010),
      ended(1, 1010),
      completed(1, 1, 1010),
      polled(1, 1010),
    )
    assert.deepEqual(spans(found), ['loss 100-1000', 'answer 1000-1010'], operation)
    assert.deepEqual([found.times.queues[0]?.repeated, found.times.queues[0]?.lost], [1, 1], operation)
  }
})

describe('sends of files with wrong numbers', () => {
  it('are bounded: two with one id, one that completes twice', () => {
    const found = timesOf(
      posted(LEFT, 1, 'SEND', 64, 100),
      posted(LEFT, 1, 'SEND', 64, 200),
      completed(1, 1, 300),
      completed(1, 2, 400),
      polled(1, 500),
      polled(2, 600),
    )
    assert.deepEqual(
      found.requests.map(({ from, to, isOpen }) => [from, to, isOpen]),
      [
        [100, 200, true],
        [200, 500, false],
      ],
    )
  })
})

it('completions of a CQ that is destroyed are not awaited', () => {
  const cqGone: SessionEvent = {
    ...(connected()[0] as SessionEvent & { kind: 'object' }),
    time: 400,
    change: 'destroyed',
    object: CQ,
    class: 'cq',
  }
  const found = timesOf(posted(LEFT, 1, 'SEND', 64, 100), ended(1, 200), completed(1, 1, 200), cqGone)
  assert.deepEqual(
    found.requests.map(({ to }) => to),
    [400],
  )
})

it('ten thousand outstanding sends of a queue pair take no longer for each than a few', () => {
  let looks = 0
  const look = (): number => {
    looks++
    return WrOpcode.values.RDMA_WRITE
  }
  // A number that counts its uses.
  const opcode = { valueOf: look, toString: () => `${look()}` } as unknown as number
  const times = new TimesOfRequests()
  for (const event of connected()) times.add(event)
  const OUTSTANDING = 10_000
  for (let i = 1; i <= 2 * OUTSTANDING; i++) {
    const event = posted(LEFT, i, 'RDMA_WRITE', 64, i)
    times.add({ ...event, request: { ...event.request, opcode } })
    times.add(packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + i, i))
    if (i > OUTSTANDING) times.add(ended(i - OUTSTANDING, i))
  }
  assert.ok(looks < 50 * OUTSTANDING, `${looks}`)
})

it('percentiles are within 5 %', () => {
  const durations = new Durations()
  for (let i = 1; i <= 1000; i++) durations.add(i)
  assert.equal(durations.percentile(1), 1000)
  for (const share of [0.5, 0.9, 0.99])
    assert.ok(Math.abs(durations.percentile(share) / (1000 * share) - 1) < 0.05, `${durations.percentile(share)}`)
  assert.equal(new Durations().percentile(0.5), 0)
})
