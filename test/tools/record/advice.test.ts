/*
 * The advice of `userdma explain --slow` and the page: for each, a recording where it is right, and one with the same
 * dominating phase where it is wrong.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { PostedEvent, SessionEvent } from '../../../src/spec/session-events.ts'
import { SendFlags } from '../../../src/spec/work.ts'
import { adviceOf } from '../../../src/tools/record/times/advice.ts'
import { type Phase, rankedPhases } from '../../../src/tools/record/times/phases.ts'
import { TimesOfRequests } from '../../../src/tools/record/times/request-times.ts'
import { completed, connected, ended, FIRST_PSN, LEFT, packets, polled, posted, RIGHT } from '../../web/events.ts'

type ObjectEvent = SessionEvent & { readonly kind: 'object' }

/** The end of send `number`, which is its position in the CQ too, polled at once. */
const done = (number: number, time: number): SessionEvent[] => [
  ended(number, time),
  completed(number, number, time),
  polled(number, time),
]
const post = (
  number: number,
  time: number,
  options: { flags?: number; address?: number; name?: 'SEND' | 'RDMA_WRITE' | 'RDMA_READ'; length?: number } = {},
): PostedEvent & { readonly time: number } => {
  const { flags = 2, address, name = 'RDMA_WRITE', length = 64 } = options
  const event = posted(LEFT, number, name, length, time)
  const elements = address === undefined ? [] : [{ address, length, lkey: 1 }]
  return { ...event, request: { ...event.request, flags, elements } }
}
const receive = (time: number): SessionEvent => {
  const event = posted(RIGHT, 1000 + time, 'SEND', 64, time)
  return { ...event, request: { ...event.request, opcode: -1 } }
}
const values = (more: Record<string, unknown>): SessionEvent => ({
  ...(connected()[2] as ObjectEvent),
  details: { values: more },
})
const rnrNak = 0x20
const sequenceNak = 0x60

const adviceFor = (phase: Phase, events: readonly SessionEvent[]): string | undefined => {
  const times = new TimesOfRequests()
  for (const event of [...connected(), ...events]) times.add(event)
  times.end(events.at(-1)!.time)
  const queue = times.queues.find(({ qp }) => qp.object.id === LEFT)!
  assert.equal(rankedPhases(queue.phases)[0]?.[0], phase, JSON.stringify(queue.phases))
  return adviceOf(queue)
}

/** Sends one at a time. */
function oneByOne(name: 'RDMA_WRITE' | 'RDMA_READ', packet: 'RC_WRITE_ONLY' | 'RC_READ_REQUEST'): SessionEvent[] {
  return [0, 1, 2, 3].flatMap(i => [
    post(i + 1, 1000 * i, { name }),
    packets(LEFT, packet, FIRST_PSN + i, 1000 * i),
    ...done(i + 1, 1000 * i + 900),
  ])
}

/** A fenced WRITE of `address` behind a READ into 0x1000. */
function fenced(address: number): SessionEvent[] {
  return [
    post(1, 0, { name: 'RDMA_READ', address: 0x1000 }),
    packets(LEFT, 'RC_READ_REQUEST', FIRST_PSN, 0),
    post(2, 0, { flags: 2 | SendFlags.values.FENCE, address }),
    ended(1, 900),
    completed(1, 1, 900),
    polled(1, 900),
    packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 1, 900),
    ...done(2, 905),
  ]
}

/** READs that are posted at once, and sent one after the other but the last, which waits for the first. */
function reads(count: number): SessionEvent[] {
  const numbers = Array.from({ length: count }, (_, i) => i + 1)
  const sent = (number: number, time: number) => packets(LEFT, 'RC_READ_REQUEST', FIRST_PSN + number - 1, time)
  return [
    ...numbers.map(number => post(number, 0, { name: 'RDMA_READ' })),
    ...numbers.slice(0, -1).map(number => sent(number, 0)),
    ...done(1, 900),
    sent(count, 900),
    ...numbers.slice(1).flatMap(number => done(number, 900 + number)),
  ]
}

/** Two WRITEs, of which the window takes one; a lost packet before them. */
function windowed(isLossy: boolean): SessionEvent[] {
  return [
    { kind: 'counters', time: 0, device: 0, object: LEFT, values: { window: 1024 } },
    post(1, 0, { length: 1024 }),
    post(2, 0, { length: 1024 }),
    packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 0, isLossy ? { outcome: 'dropped' } : {}),
    ...(isLossy ? [packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 5)] : []),
    packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 1, 899),
    ...done(1, 900),
    ...done(2, 910),
  ]
}

/** A local invalidation. */
function local(number: number, time: number): SessionEvent {
  return posted(LEFT, number, 'LOCAL_INV', 0, time)
}

/** A SEND that is sent again after 1000 µs; the peer has posted its receive at `at`. */
function notReady(at: number): SessionEvent[] {
  return [
    post(1, 0, { name: 'SEND' }),
    packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 0),
    packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 1, { syndrome: rnrNak }),
    receive(at),
    packets(LEFT, 'RC_SEND_ONLY', FIRST_PSN, 1000),
    packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 1001),
    ...done(1, 1001),
  ]
}

/** A WRITE that is sent again after 1000 µs. `isTold`: after a NAK. */
function lossy(outcome: 'dropped' | 'passed', isTold: boolean): SessionEvent[] {
  return [
    post(1, 0),
    packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 0, { outcome }),
    ...(isTold ? [packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 990, { syndrome: sequenceNak })] : []),
    packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 1000),
    packets(RIGHT, 'RC_ACKNOWLEDGE', FIRST_PSN, 1005),
    ...done(1, 1005),
  ]
}

/** Advice, the phase that it is about, and a recording where it is right, and some where it is not. */
const CASES: readonly {
  readonly advice: RegExp
  readonly phase: Phase
  readonly right: readonly SessionEvent[]
  /** What is said then; undefined: nothing. */
  readonly wrong: readonly (readonly [of: string, events: readonly SessionEvent[], instead: RegExp | undefined])[]
}[] = [
  {
    advice: /post several requests before waiting for the first/,
    phase: 'answer',
    right: [0, 1, 2, 3].flatMap(i => [
      post(i + 1, 1000 * i),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + i, 1000 * i),
      ...done(i + 1, 1000 * i + 900),
    ]),
    wrong: [
      [
        '300 sends that were posted at once',
        [
          ...Array.from({ length: 300 }, (_, i) => post(i + 1, 0)),
          ...Array.from({ length: 300 }, (_, i) => packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + i, 1)),
          ...Array.from({ length: 300 }, (_, i) => done(i + 1, 900 + i)).flat(),
        ],
        undefined,
      ],
      ['one send', [post(1, 0), packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 1), ...done(1, 900)], undefined],
    ],
  },
  {
    advice: /messages before it are long/,
    phase: 'turn',
    right: [
      post(1, 0, { length: 100_000 }),
      post(2, 0, { length: 100_000 }),
      packets(LEFT, 'RC_WRITE_FIRST', FIRST_PSN, 1),
      ...done(1, 10),
      packets(LEFT, 'RC_WRITE_LAST', FIRST_PSN + 1, 900),
      packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 2, 900),
      ...done(2, 910),
    ],
    wrong: [
      [
        'short messages',
        [
          post(1, 0),
          post(2, 0),
          packets(LEFT, 'RC_WRITE_FIRST', FIRST_PSN, 1),
          ...done(1, 10),
          packets(LEFT, 'RC_WRITE_LAST', FIRST_PSN + 1, 900),
          packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + 2, 900),
          ...done(2, 910),
        ],
        undefined,
      ],
    ],
  },
  {
    advice: /set IBV_SEND_FENCE only on requests that need the data/,
    phase: 'answer',
    right: fenced(0x9000),
    wrong: [['a request that sends what the READ has fetched', fenced(0x1000), undefined]],
  },
  {
    advice: /larger max_rd_atomic/,
    phase: 'answer',
    right: [values({ maxRdAtomic: 1 }), ...reads(2)],
    wrong: [
      ['as many slots as adapters have', [values({ maxRdAtomic: 16 }), ...reads(17)], undefined],
      [
        'READs that wait for no slot, one at a time',
        [values({ maxRdAtomic: 4 }), ...oneByOne('RDMA_READ', 'RC_READ_REQUEST')],
        /post several requests/,
      ],
    ],
  },
  {
    advice: /the window shrinks with each loss/,
    phase: 'answer',
    right: windowed(true),
    wrong: [['no loss', windowed(false), undefined]],
  },
  {
    advice: /process that runs the device was busy/,
    phase: 'device',
    right: [post(1, 0), packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN, 900), ...done(1, 910)],
    // The device says no more of it than when it ended.
    wrong: [['a request without packets', [local(1, 0), ...done(1, 900)], undefined]],
  },
  {
    advice: /post the peer's receives earlier/,
    phase: 'receiver',
    right: notReady(950),
    wrong: [['a receive that comes soon, before a long timer ends', notReady(50), /smaller min_rnr_timer/]],
  },
  {
    advice: /smaller min_rnr_timer/,
    phase: 'receiver',
    right: notReady(50),
    wrong: [['a receive that is missing for most of the time', notReady(950), /receives earlier/]],
  },
  {
    advice: /a shorter timeout of the queue pair/,
    phase: 'loss',
    right: lossy('dropped', false),
    wrong: [
      ['a NAK that told the loss', lossy('dropped', true), /^find where packets are lost$/],
      ['no packet that was lost: the answer was late', lossy('passed', false), undefined],
    ],
  },
  {
    advice: /poll earlier/,
    phase: 'program',
    right: [
      ...[1, 2, 3, 4].map(i => post(i, 0)),
      ...[0, 1, 2, 3].map(i => packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + i, 1)),
      ...[1, 2, 3, 4].flatMap(i => [ended(i, 1 + i), completed(i, i, 1 + i)]),
      // A completion of another queue pair: the device looks, and finds none polled.
      completed(99, 5, 900),
      polled(4, 1000),
    ],
    wrong: [
      [
        'a program that thinks before it posts: the device notices the poll only then',
        [0, 1, 2, 3].flatMap(i => [
          ...(i === 0 ? [] : [polled(i, 1000 * i)]),
          post(i + 1, 1000 * i),
          packets(LEFT, 'RC_WRITE_ONLY', FIRST_PSN + i, 1000 * i),
          ended(i + 1, 1000 * i + 5),
          completed(i + 1, i + 1, 1000 * i + 5),
        ]),
        undefined,
      ],
    ],
  },
]

describe('advice', () => {
  for (const { advice, phase, right, wrong } of CASES) {
    it(`${advice.source}: if it is right`, () => assert.match(adviceFor(phase, right) ?? '', advice))
    for (const [of, events, instead] of wrong)
      it(`not ${advice.source}: ${of}`, () => {
        const given = adviceFor(phase, events)
        assert.doesNotMatch(given ?? '', advice)
        if (instead === undefined) assert.equal(given, undefined)
        else assert.match(given ?? '', instead)
      })
  }

  it('is none for the packets of a long message', () => {
    const own = [
      post(1, 0, { length: 100_000 }),
      packets(LEFT, 'RC_WRITE_FIRST', FIRST_PSN, 1),
      packets(LEFT, 'RC_WRITE_LAST', FIRST_PSN + 1, 900),
      ...done(1, 910),
    ]
    assert.equal(adviceFor('sending', own), undefined)
  })
})
