/*
 * Accesses to memory that is lent, was taken back, or was lent for something else, in virtual time.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { ProgramEvent } from '../../../../src/spec/check/program-events.ts'
import { AccessFlags, QpState } from '../../../../src/spec/enums.ts'
import { LendRight } from '../../../../src/spec/lends.ts'
import { WrOpcode } from '../../../../src/spec/work.ts'
import { LENDS } from '../../../../src/tools/check/lends/lends.ts'
import { LKEY, requestScenario, START } from '../requests.ts'

const { READ, WRITE } = LendRight
const { REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
/** The region's memory begins here in its process. */
const pid = 1
const QPN = 2
/** A key over the second half of the region, then its first 64 bytes. */
const OVER = 0x7700

const PARTS = [
  { key: LKEY, address: START + 2048, length: 2048 },
  { key: LKEY, address: START, length: 64 },
]

const scenario = () => {
  const s = requestScenario({
    memoryOf: (_device, key) =>
      key === LKEY
        ? { space: 1, shift: 0, region: LKEY }
        : key === OVER
          ? { space: 2, shift: -0x1000, region: OVER, parts: PARTS }
          : undefined,
  })
  let lends = 0
  let now = 0
  const lend = (from: number, to: number, more: Partial<ProgramEvent<'lent'>> = {}): number => {
    s.checker.event({
      event: 'lent',
      time: now,
      pid,
      lend: ++lends,
      start: START + from,
      end: START + to,
      rights: READ,
      qpn: 0,
      label: '',
      stack: ['lend'],
      ...more,
    })
    return lends
  }
  const takeBack = (id: number): void =>
    s.checker.event({ event: 'takenBack', time: now, pid, lend: id, stack: ['take back'] })
  const access = (from: number, to: number, right: number = REMOTE_READ, qpn = QPN): void =>
    s.checker.accessed(0, LKEY, 0, START + from, to - from, right, qpn)
  const advance = (microseconds: number): void => {
    now += microseconds
    s.advance(microseconds)
  }
  return { ...s, lend, takeBack, access, advance }
}
type Scenario = ReturnType<typeof scenario>

const NOT = ['not-lent error']

/** What happens, and the findings. */
const rows: readonly (readonly [title: string, run: (s: Scenario) => void, ids: readonly string[]])[] = [
  ['without a lend', s => s.access(0, 4096), []],
  [
    'within a lend',
    s => {
      s.lend(0, 64)
      s.access(0, 64)
    },
    [],
  ],
  [
    'beyond a lend',
    s => {
      s.lend(0, 64)
      s.access(0, 65)
    },
    NOT,
  ],
  [
    'bytes that were never lent',
    s => {
      s.lend(0, 64)
      s.access(100, 101)
    },
    NOT,
  ],
  [
    'another right',
    s => {
      s.lend(0, 64)
      s.access(0, 8, REMOTE_WRITE)
    },
    NOT,
  ],
  [
    'another peer',
    s => {
      s.lend(0, 64, { qpn: QPN })
      s.access(0, 64, REMOTE_READ, QPN + 1)
    },
    NOT,
  ],
  [
    'the peer',
    s => {
      s.lend(0, 64, { qpn: QPN })
      s.access(0, 64)
    },
    [],
  ],
  [
    'after the end',
    s => {
      s.takeBack(s.lend(0, 64))
      s.access(0, 64)
    },
    NOT,
  ],
  [
    'before the time is over',
    s => {
      s.lend(0, 64, { until: 100 })
      s.advance(90)
      s.access(0, 64)
    },
    [],
  ],
  [
    'after the time is over',
    s => {
      s.lend(0, 64, { until: 100 })
      s.advance(110)
      s.access(0, 64)
    },
    NOT,
  ],
  [
    'two lends side by side',
    s => {
      s.lend(0, 64)
      s.lend(64, 128)
      s.access(0, 128)
    },
    [],
  ],
  [
    'a gap between two lends',
    s => {
      s.lend(0, 64)
      s.lend(65, 128)
      s.access(0, 128)
    },
    NOT,
  ],
  [
    'three levels, of which the inner ones end',
    s => {
      s.lend(0, 4096)
      const slab = s.lend(0, 1024)
      s.takeBack(s.lend(0, 64))
      s.takeBack(slab)
      s.access(0, 4096)
    },
    [],
  ],
  [
    'three levels, of which the outer ones end',
    s => {
      const pool = s.lend(0, 4096)
      const slab = s.lend(0, 1024)
      s.lend(0, 64)
      s.takeBack(pool)
      s.takeBack(slab)
      s.access(0, 64)
      s.access(0, 65)
    },
    NOT,
  ],
  [
    'unchecked bytes between lent ones',
    s => {
      s.lend(0, 64)
      s.checker.event({ event: 'unchecked', pid, start: START + 64, end: START + 72 })
      s.lend(72, 128)
      s.access(0, 128)
      s.access(64, 72, REMOTE_WRITE)
    },
    [],
  ],
  [
    'a process whose declarations were lost',
    s => {
      s.takeBack(s.lend(0, 64))
      s.checker.event({ event: 'lendsEnd', pid, lost: 3 })
      s.access(0, 64)
    },
    [],
  ],
  [
    'lends of another process',
    s => {
      s.lend(0, 64, { pid: 2 })
      s.access(100, 200)
    },
    [],
  ],
  [
    'a READ that is outstanding when its bytes are taken back',
    s => {
      const id = s.lend(0, 64)
      s.post({ opcode: WrOpcode.values.RDMA_READ, remote: { address: START, length: 64, rkey: LKEY } })
      s.advance(5)
      s.takeBack(id)
    },
    ['taken-back-early warning'],
  ],
  [
    'a WRITE that has landed and is not acknowledged when its bytes are taken back',
    s => {
      const id = s.lend(0, 64, { rights: WRITE })
      s.post({ remote: { address: START, length: 64, rkey: LKEY } })
      s.access(0, 64, REMOTE_WRITE)
      s.advance(5)
      s.takeBack(id)
    },
    [],
  ],
  [
    'a WRITE that has not landed when its bytes are taken back, and lands later',
    s => {
      const id = s.lend(0, 64, { rights: WRITE })
      s.post({ remote: { address: START, length: 64, rkey: LKEY } })
      s.advance(5)
      s.takeBack(id)
      s.access(0, 64, REMOTE_WRITE)
    },
    ['taken-back-early warning', 'not-lent error'],
  ],
  [
    'bytes that are taken back by one of two lends',
    s => {
      const id = s.lend(0, 64)
      s.lend(0, 64)
      s.post({ opcode: WrOpcode.values.RDMA_READ, remote: { address: START, length: 64, rkey: LKEY } })
      s.advance(5)
      s.takeBack(id)
    },
    [],
  ],
  ...(['modify', 'destroy'] as const).map((method): (typeof rows)[number] => [
    `a request whose queue pair the owner has ended before: ${method}`,
    s => {
      const id = s.lend(0, 64)
      s.post({ opcode: WrOpcode.values.RDMA_READ, remote: { address: START, length: 64, rkey: LKEY } })
      s.advance(5)
      s.call('rc_qp', method, s.peer, method === 'modify' ? { state: QpState.values.ERR } : {})
      s.takeBack(id)
    },
    [],
  ]),
  [
    'a READ by a key over others, of bytes that are taken back',
    s => {
      const id = s.lend(0, 64)
      s.post({ opcode: WrOpcode.values.RDMA_READ, remote: { address: 0x1000 + 2000, length: 100, rkey: OVER } })
      s.advance(5)
      s.takeBack(id)
    },
    ['taken-back-early warning'],
  ],
  [
    'a READ by a key over others, of other bytes than those that are taken back',
    s => {
      const id = s.lend(0, 64)
      s.post({ opcode: WrOpcode.values.RDMA_READ, remote: { address: 0x1000, length: 2048, rkey: OVER } })
      s.advance(5)
      s.takeBack(id)
    },
    [],
  ],
  [
    'a READ that is retransmitted after its end',
    s => {
      const id = s.lend(0, 64)
      const read = s.post({
        opcode: WrOpcode.values.RDMA_READ,
        remote: { address: START, length: 64, rkey: LKEY },
      })
      s.access(0, 64)
      s.end(read)
      s.takeBack(id)
      s.access(0, 64)
    },
    [],
  ],
  [
    'a request that is outstanding when the program relies on it that none is',
    s => {
      s.lend(0, 64)
      s.post({ opcode: WrOpcode.values.RDMA_READ, remote: { address: START, length: 64, rkey: LKEY } })
      s.advance(5)
      assert.equal(s.checker.ask(LENDS)?.unfinished(pid, START, START + 8), 1)
      assert.equal(s.checker.ask(LENDS)?.unfinished(pid, START + 64, START + 72), 0)
      s.end(s.post({ elements: [{ address: START + 64, length: 64, lkey: LKEY }] }))
      const own = s.post({ elements: [{ address: START + 64, length: 64, lkey: LKEY }] })
      assert.equal(s.checker.ask(LENDS)?.unfinished(pid, START + 64, START + 72), 1)
      assert.equal(s.checker.ask(LENDS)?.unfinished(pid, START + 128, START + 136), 0)
      s.end(own)
      s.checker.event({ event: 'expectsFinished', time: 5, pid, start: START, end: START + 8, stack: [] })
    },
    ['taken-back-early warning'],
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

it('a finding names both lends, the request and its post', () => {
  const s = scenario()
  s.takeBack(s.lend(0, 64, { label: 'request 1' }))
  s.advance(1000)
  s.lend(0, 64, { rights: WRITE, label: 'request 2' })
  s.post({ opcode: WrOpcode.values.RDMA_READ, wrId: 7n, remote: { address: START, length: 64, rkey: LKEY } })
  s.access(0, 64)
  const [found] = s.found
  assert.match(
    found?.text ?? '',
    /^READ wr_id 7 of QP .*for reading \(request 1\); taken back 1.00 ms before; since .* lent for writing \(request 2\)/,
  )
  assert.deepEqual(
    found?.moments.map(({ action }) => action),
    ['posted', 'lent (request 1)', 'taken back', 'lent again (request 2)'],
  )
})

it('100,000 lends of the same bytes, and 10,000 accesses that none of them allows', () => {
  const s = scenario()
  const ids = Array.from({ length: 100_000 }, (_, i) => s.lend(i % 64, 4096 - (i % 64), { qpn: i % 2 === 0 ? 0 : QPN }))
  s.access(64, 4032)
  assert.equal(s.found.length, 0)
  for (let i = 0; i < 10_000; i++) s.access(64, 128, REMOTE_WRITE)
  assert.equal(s.checker.counts[0], 10_000)
  for (const id of ids) s.takeBack(id)
  s.access(64, 4032)
  assert.match(s.found.at(-1)?.text ?? '', /taken back/)
  for (let i = 0; i < 10_000; i++) s.access(64, 128)
  assert.deepEqual(s.checker.omissions, [])
})
