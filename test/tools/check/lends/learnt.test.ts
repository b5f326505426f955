/*
 * Late accesses to memory that messages have told of, in virtual time: two queue pairs of the owner, whose peers may be
 * one program or two.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { WorkRequest } from '../../../../src/spec/check/requests.ts'
import { AccessFlags, QpState } from '../../../../src/spec/enums.ts'
import { PostQueue } from '../../../../src/spec/session.ts'
import { WrOpcode } from '../../../../src/spec/work.ts'
import { LKEY, requestScenario, START } from '../requests.ts'

const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const { SEND, RDMA_READ } = WrOpcode.values
/** QPNs of the owner's queue pairs. */
const [RAIL_1, RAIL_2] = [2, 12]
const address = { dgid: new Uint8Array(16), sgidIndex: 1 }

const scenario = () => {
  let content = 0
  let now = 0
  const s = requestScenario({ rangeHash: () => content, memoryOf: () => undefined })
  const peer2 = s.create('rc_qp', {}, { qpNum: 11 })
  const owner2 = s.create('rc_qp', {}, { qpNum: RAIL_2 })
  s.call('rc_qp', 'modify', peer2, { state: QpState.values.RTS, destQpn: RAIL_2, address })
  s.call('rc_qp', 'modify', owner2, { state: QpState.values.RTS, destQpn: 11, address })
  const owners = new Map([
    [RAIL_1, s.peer],
    [RAIL_2, owner2],
  ])
  const peers = new Map([
    [RAIL_1, s.qp],
    [RAIL_2, peer2],
  ])
  const advance = (microseconds = 10): void => {
    now += microseconds
    s.advance(microseconds)
  }
  let wrId = 100n
  const tell = (rail: number, from = 0, to = 64): void => {
    advance()
    s.checker.event({
      event: 'advertised',
      time: now,
      pid: 1,
      start: START + from,
      end: START + to,
      device: 0,
      rkey: LKEY,
      qp: owners.get(rail)!,
      message: { opcode: SEND, queue: PostQueue.SEND, number: rail, wrId: wrId++ },
      isReadable: true,
    })
  }
  const post = (rail: number, from = 0, to = 64, changes: Partial<WorkRequest> = {}): WorkRequest => {
    advance()
    const remote = { address: START + from, length: to - from, rkey: LKEY }
    return s.post({ owner: peers.get(rail)!, number: rail - 1, length: to - from, elements: [], remote, ...changes })
  }
  const access = (rail: number, from: number, to: number, right: number): void => {
    advance()
    s.checker.accessed(0, LKEY, 0, START + from, to - from, right, rail)
  }
  return {
    ...s,
    advance,
    tell,
    post,
    access,
    /** A WRITE that lands at once. */
    write(rail: number, from = 0, to = 64): void {
      const request = post(rail, from, to)
      access(rail, from, to, REMOTE_WRITE)
      s.end(request)
    },
    read(rail: number, from = 0, to = 64): void {
      const request = post(rail, from, to, { opcode: RDMA_READ })
      access(rail, from, to, REMOTE_READ)
      s.end(request)
    },
    /** The owner gets a message of the peer of this rail. */
    answer(rail: number): void {
      advance()
      const owner = owners.get(rail)!
      const receive = s.post({ owner, number: rail, queue: PostQueue.RECEIVE, opcode: -1, length: 8, elements: [] })
      s.complete(receive)
    },
    change: () => void content++,
  }
}
type Scenario = ReturnType<typeof scenario>

const LATE = ['late-write warning']

const rows: readonly (readonly [title: string, run: (s: Scenario) => void, ids: readonly string[]])[] = [
  [
    'both write, the second first',
    s => {
      s.tell(RAIL_1)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.write(RAIL_1)
    },
    LATE,
  ],
  [
    'both write, in order',
    s => {
      s.tell(RAIL_1)
      s.tell(RAIL_2)
      s.write(RAIL_1)
      s.write(RAIL_2)
    },
    [],
  ],
  [
    'the second first, and a message since that may have told the first',
    s => {
      s.tell(RAIL_1)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.answer(RAIL_2)
      s.write(RAIL_1)
    },
    [],
  ],
  [
    'the second first, of the first only a part',
    s => {
      s.tell(RAIL_1)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.write(RAIL_1, 0, 32)
    },
    [],
  ],
  [
    'a part that was under way when the second wrote it',
    s => {
      s.tell(RAIL_1)
      const late = s.post(RAIL_1, 0, 32)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.answer(RAIL_2)
      s.access(RAIL_1, 0, 32, REMOTE_WRITE)
      s.end(late)
    },
    LATE,
  ],
  [
    'under way when the second wrote other parts of the same bytes',
    s => {
      s.tell(RAIL_1)
      const late = s.post(RAIL_1, 16, 32)
      s.tell(RAIL_2)
      s.write(RAIL_2, 0, 16)
      s.write(RAIL_2, 32, 64)
      s.access(RAIL_1, 16, 32, REMOTE_WRITE)
      s.end(late)
    },
    [],
  ],
  [
    'its queue pair was destroyed, and its packets still land',
    s => {
      s.tell(RAIL_1)
      s.post(RAIL_1)
      s.checker.requests.queueReset(s.qp)
      s.destroy('rc_qp', s.qp)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.access(RAIL_1, 0, 64, REMOTE_WRITE)
    },
    LATE,
  ],
  [
    'words of 8 bytes',
    s => {
      s.tell(RAIL_1)
      const late = s.post(RAIL_1, 0, 8)
      s.tell(RAIL_2)
      s.write(RAIL_2, 0, 8)
      s.access(RAIL_1, 0, 8, REMOTE_WRITE)
      s.access(RAIL_1, 0, 8, REMOTE_ATOMIC)
      s.end(late)
    },
    [],
  ],
  [
    'the owner sends the bytes while the WRITE is under way',
    s => {
      s.tell(RAIL_1)
      const late = s.post(RAIL_1)
      const elements = [{ address: START, length: 64, lkey: LKEY }]
      const sent = s.post(RAIL_2, 0, 64, { opcode: SEND, remote: undefined, elements })
      s.access(RAIL_1, 0, 64, REMOTE_WRITE)
      s.end(sent)
      s.end(late)
    },
    LATE,
  ],
  [
    'the owner has sent the bytes before',
    s => {
      s.tell(RAIL_1)
      const late = s.post(RAIL_1)
      const elements = [{ address: START, length: 64, lkey: LKEY }]
      s.end(s.post(RAIL_2, 0, 64, { opcode: SEND, remote: undefined, elements }))
      s.access(RAIL_1, 0, 64, REMOTE_WRITE)
      s.end(late)
    },
    [],
  ],
  [
    'a buffer that each request uses in turn',
    s => {
      for (let i = 0; i < 3; i++) {
        s.tell(RAIL_1)
        s.read(RAIL_1)
        s.answer(RAIL_1)
        s.change()
      }
    },
    [],
  ],
  [
    'the buffer is used again without an answer, and then READ',
    s => {
      s.tell(RAIL_1)
      s.change()
      s.tell(RAIL_1)
      s.read(RAIL_1)
      s.read(RAIL_1)
    },
    ['lent-twice note', 'late-read note'],
  ],
  [
    'told again with the same content',
    s => {
      s.tell(RAIL_1)
      s.tell(RAIL_1)
      s.read(RAIL_1)
    },
    [],
  ],
  [
    'told again after an answer without an access',
    s => {
      s.tell(RAIL_1)
      s.answer(RAIL_1)
      s.change()
      s.tell(RAIL_1)
      s.read(RAIL_1)
    },
    [],
  ],
  [
    'bytes that a peer has written since',
    s => {
      s.tell(RAIL_1)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.change()
      s.read(RAIL_1)
    },
    [],
  ],
  [
    'a region that was deregistered meanwhile',
    s => {
      s.tell(RAIL_1)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.destroy('mr', s.region)
      s.register({ start: BigInt(START), iova: BigInt(START), length: 4096n }, LKEY)
      s.write(RAIL_1)
    },
    [],
  ],
  [
    'a process that declares',
    s => {
      const lent = { event: 'lent', time: 0, pid: 1, lend: 1, start: START, end: START + 4096 } as const
      s.checker.event({ ...lent, rights: 7, qpn: 0, label: '', stack: [] })
      s.tell(RAIL_1)
      s.tell(RAIL_2)
      s.write(RAIL_2)
      s.write(RAIL_1)
    },
    [],
  ],
]

for (const [title, run, ids] of rows)
  it(title, () => {
    const s = scenario()
    run(s)
    assert.deepEqual(
      s.found.map(({ id, severity }) => `${id} ${severity}`),
      ids,
    )
  })

it('a finding has both messages and both requests', () => {
  const s = scenario()
  s.tell(RAIL_1)
  s.tell(RAIL_2)
  s.write(RAIL_2)
  s.write(RAIL_1)
  const [found] = s.found
  assert.match(
    found?.text ?? '',
    /^WRITE wr_id \d+ of QP 0x1 .*, which SEND wr_id 100 told its peer .* before: SEND wr_id 101 .* QP 0xc since/,
  )
  assert.deepEqual(
    found?.moments.map(({ action }) => action),
    [
      'posted',
      'told (SEND wr_id 100)',
      'told again (SEND wr_id 101)',
      'posted the other WRITE',
      'the other WRITE landed',
    ],
  )
})

it('many overlapping advertisements', () => {
  const s = scenario()
  for (let i = 0; i < 100_000; i++) s.tell(RAIL_1, i % 64, 4096 - (i % 64))
  s.write(RAIL_1, 64, 128)
  assert.deepEqual(s.found, [])
  assert.ok(s.checker.omissions.some(({ id }) => id === 'advertised'))
})
