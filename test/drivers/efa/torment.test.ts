/*
 * `--torment` on EFA devices: every kind acts but those that libefa or SRD leave no room for (docs/decisions/torment.md),
 * and what SRD promises is kept.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createTorment } from '../../../src/drivers/soft/torment/torment.ts'
import { type TormentKind, tormentKinds } from '../../../src/spec/check/torment.ts'
import { EfaOperation, EfaStatus } from '../../../src/spec/drivers/efa-queues.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { seedWith } from '../rxe/torment/seeds.ts'
import { type Completion, machine, program } from './machine.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation
const { ERR } = QpState.values
const ABSENT: readonly TormentKind[] = ['queue', 'limit', 'adapter']
const SEEDS = 12
const ROUNDS = 20
const LENGTH = 900

const start = (seed: number, fault: string) => {
  const torment = createTorment({ seed, maxDecisions: Number.POSITIVE_INFINITY }, plainArena(4096))
  const acted = new Set<TormentKind>()
  torment.decisions.listen(decision => acted.add(decision.kind))
  const m = machine(2, fault, torment)
  const [a, b] = [program(m, 0, { channel: true }), program(m, 1, { channel: true })]
  const ah = a.handleOf(1)
  b.handleOf(0)
  const wait = (one: typeof a, count: number): Completion[] => {
    const seen: Completion[] = []
    m.runUntil(() => {
      a.takeEvent()
      b.takeEvent()
      seen.push(...one.poll())
      return seen.length >= count
    })
    assert.equal(seen.length, count)
    return seen
  }
  return { m, a, b, ah, acted, wait, remote: { address: b.address, rkey: b.region.rkey } }
}

/** Reads, writes and sends; in the end a receive that is too short. */
const run = ({ m, a, b, ah, wait, remote }: ReturnType<typeof start>, rounds = ROUNDS, hasErrors = true): void => {
  for (let i = 0; i < a.bytes.length; i++) a.bytes[i] = (i * 13 + 5) & 0xff
  const expected = a.bytes.slice(0, LENGTH)
  for (let round = 0; round < rounds; round++) {
    a.arm()
    b.arm()
    b.bytes.fill(0)
    a.post({ id: 1, operation: RDMA_WRITE, ah, qpn: b.qpn, offset: 0, length: LENGTH, remote })
    assert.deepEqual(
      wait(a, 1).map(({ id, status }) => [id, status]),
      [[1, 0]],
    )
    assert.deepEqual(b.bytes.subarray(0, LENGTH), expected, 'what a completed WRITE has written')
    a.post({ id: 2, operation: RDMA_READ, ah, qpn: b.qpn, offset: 2048, length: LENGTH, remote })
    assert.equal(wait(a, 1)[0]!.status, 0)
    assert.deepEqual(a.bytes.subarray(2048, 2048 + LENGTH), expected, 'what a completed READ has read')
    // the receive comes late, so that the request waits for it first
    a.post({ id: 3, operation: SEND, ah, qpn: b.qpn, offset: 0, length: LENGTH, imm: round })
    for (let i = 0; i < 4; i++) for (const device of m.devices) device.poll(m.time.now)
    m.time.now += 25_000
    for (let i = 0; i < 4; i++) for (const device of m.devices) device.poll(m.time.now)
    b.receive(4, 4096, LENGTH)
    const [received] = wait(b, 1)
    assert.deepEqual([received!.id, received!.status, received!.imm, received!.bytes], [4, 0, round, LENGTH])
    assert.deepEqual(b.bytes.subarray(4096, 4096 + LENGTH), expected, 'what a completed receive has')
    assert.deepEqual(
      wait(a, 1).map(({ id, status }) => [id, status]),
      [[3, 0]],
    )
    if (!hasErrors) continue
    // in error: only id and status tell
    b.receive(5, 8192, 8)
    a.post({ id: 6, operation: SEND, ah, qpn: b.qpn, offset: 0, length: LENGTH })
    assert.deepEqual(
      [wait(b, 1), wait(a, 1)].flat().map(({ id, status, isSend }) => [id, status, isSend]),
      [
        [5, EfaStatus.LOCAL_LENGTH, false],
        [6, EfaStatus.REMOTE_LENGTH, true],
      ],
    )
  }
}

describe('torment of EFA', () => {
  for (const kind of tormentKinds)
    it(`${ABSENT.includes(kind) ? 'does not act' : 'acts, and requests have their effects'}: ${kind}`, () => {
      const started = start(seedWith(kind, 0.3), 'drop=0')
      run(started)
      assert.equal(started.acted.has(kind), !ABSENT.includes(kind), [...started.acted].join(' '))
    })

  for (const [path, fault] of [
    ['direct', ''],
    ['packets', 'drop=0'],
    ['lost, duplicated and reordered packets', 'drop=0.1,dup=0.1,reorder=0.2,seed=3'],
  ] as const) {
    it(`requests have their effects with any seed: ${path}`, () => {
      // a request whose failure is lost is executed again
      const hasErrors = !fault.includes('drop=0.1')
      for (let seed = 1; seed <= SEEDS; seed++) run(start(seed, fault), 4, hasErrors)
    })

    it(`a call ends all delays, and all requests end once: ${path}`, () => {
      for (let seed = 1; seed <= SEEDS; seed++) {
        const { m, a, b, ah, remote } = start(seed, fault)
        for (let id = 0; id < 256; id++)
          a.post({ id, operation: RDMA_WRITE, ah, qpn: b.qpn, offset: id, length: 16, remote })
        for (let i = 0; i < seed; i++) for (const device of m.devices) device.poll(m.time.now)
        a.modify({ state: ERR })
        const ids: number[] = []
        m.runUntil(() => {
          ids.push(...a.poll().map(({ id }) => id))
          return ids.length >= 256
        })
        const expected = Array.from({ length: 256 }, (_, i) => i)
        assert.deepEqual(
          ids.sort((x, y) => x - y),
          expected,
        )
      }
    })
  }
})
