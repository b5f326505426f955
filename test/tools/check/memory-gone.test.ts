/*
 * Accesses to memory that was given back while its region lived, in virtual time: what test/spec/given-back.ts, whose
 * ways and accesses programs have, does not tell.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { AccessFlags } from '../../../src/spec/enums.ts'
import { GiveBack, PostQueue } from '../../../src/spec/session.ts'
import { WrOpcode } from '../../../src/spec/work.ts'
import { LKEY, requestScenario, START } from './requests.ts'

const { SEND, RDMA_WRITE } = WrOpcode.values
/** A WRITE of other memory to the region, by the peer or the program itself. */
const remote = (offset = 0): Partial<WorkRequest> => ({
  opcode: RDMA_WRITE,
  elements: [],
  remote: { address: START + offset, length: 64, rkey: LKEY },
})

type Scenario = ReturnType<typeof requestScenario>

/** The program gives back the first 1024 bytes of the region, `age` µs ago. */
const giveBack = (s: Scenario, how: number, time: number, isKept = false): void =>
  s.checker.event({
    device: 'rxe0',
    deviceNumber: 0,
    context: 0,
    program: { pid: 7, command: 'program' },
    time,
    number: s.region,
    stack: ['free'],
    ...(how === REUSABLE
      ? { event: 'reusable' }
      : { event: 'gaveBack', how, start: START, end: START + 1024, isKept: isKept ? 1 : 0 }),
  })

const { FREE, REALLOC, DISCARD } = GiveBack
/** Not given back, but had again. */
const REUSABLE = -1

/** What happens, and the findings. */
const rows: readonly (readonly [title: string, run: (s: Scenario) => void, ids: readonly string[]])[] = [
  ...(
    [
      [FREE, 'error'],
      [REALLOC, 'error'],
      [DISCARD, 'warning'],
    ] as const
  ).flatMap(([how, severity]): [string, (s: Scenario) => void, string[]][] => [
    [
      `a write that was outstanding at ${how} ends later`,
      s => {
        const write = s.post(remote())
        s.advance(20)
        giveBack(s, how, 10)
        s.end(write)
      },
      [`memory-gone ${severity}`],
    ],
    [
      `the report of ${how} comes after the write`,
      s => {
        s.advance(20)
        s.end(s.post(remote()))
        giveBack(s, how, 10)
      },
      [`memory-gone ${severity}`],
    ],
  ]),
  [
    'the write was before',
    s => {
      s.end(s.post(remote()))
      s.advance(20)
      giveBack(s, FREE, 10)
    },
    [],
  ],
  [
    'other memory of the region',
    s => {
      giveBack(s, FREE, 10)
      s.advance(20)
      s.post(remote(2048))
    },
    [],
  ],
  [
    'the region was deregistered',
    s => {
      giveBack(s, FREE, 10)
      s.destroy('mr', s.region)
      s.advance(20)
      s.post(remote())
    },
    [],
  ],
  [
    'the program has sent a message since, perhaps of a block that was allocated again',
    s => {
      giveBack(s, FREE, 10)
      s.advance(20)
      s.post({ opcode: SEND, elements: [] })
      s.post(remote())
    },
    ['memory-gone note'],
  ],
  [
    'a request of the program itself uses the region again',
    s => {
      giveBack(s, FREE, 10)
      s.advance(20)
      s.post({ opcode: SEND })
    },
    ['memory-gone note'],
  ],
  [
    'a receive that was outstanding, which buffer-freed tells, gets a message',
    s => {
      const receive = s.post({ queue: PostQueue.RECEIVE, opcode: -1 })
      giveBack(s, FREE, 10)
      s.advance(20)
      s.complete(receive)
    },
    [],
  ],
  [
    'a message of the program, and a write to memory that is kept',
    s => {
      giveBack(s, FREE, 10, true)
      s.advance(20)
      s.post({ opcode: SEND, elements: [] })
      s.post(remote())
    },
    ['memory-gone error'],
  ],
  [
    'the program may have had the memory again',
    s => {
      giveBack(s, FREE, 10, true)
      s.advance(20)
      giveBack(s, REUSABLE, 20)
      s.advance(20)
      s.post({ opcode: SEND })
    },
    ['memory-gone note'],
  ],
  [
    'a peer of SRD accesses it, which may be one whose request tells it',
    s => {
      s.create('driver_qp', {}, { qpNum: 9 })
      giveBack(s, FREE, 10)
      s.advance(20)
      s.checker.accessed(0, LKEY, 0, START, 64, AccessFlags.values.REMOTE_READ, 9)
    },
    [],
  ],
]

for (const [title, run, ids] of rows)
  it(title, () => {
    const s = requestScenario()
    run(s)
    assert.deepEqual(s.ids(), ids)
  })
