/*
 * SRD between queue pairs of EFA devices (docs/decisions/srd.md): direct, and by packets that are lost, duplicated and
 * reordered; the errors of its statuses.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { efaDriver } from '../../../src/drivers/efa/device.ts'
import type { QpObject } from '../../../src/drivers/efa/state.ts'
import { EfaOperation, EfaStatus } from '../../../src/spec/drivers/efa-queues.ts'
import { type Completion, machine, program } from './machine.ts'

const { SEND, RDMA_READ, RDMA_WRITE } = EfaOperation

const fill = (bytes: Uint8Array, seed: number): void => {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 7 + seed + (i >> 8)) & 0xff
}

const links = [
  ['direct', ''],
  ['packets', 'drop=0'],
  ['lost, duplicated and reordered packets', 'drop=0.1,dup=0.1,reorder=0.3,seed=7'],
] as const

for (const [name, fault] of links)
  describe(name, () => {
    const start = (options = {}) => {
      const m = machine(2, fault)
      const [a, b] = [program(m, 0), program(m, 1, options)]
      const ah = a.handleOf(1)
      b.handleOf(0)
      const seen: { a: Completion[]; b: Completion[] } = { a: [], b: [] }
      const wait = (ofA: number, ofB: number): typeof seen => {
        m.runUntil(() => {
          seen.a.push(...a.poll())
          seen.b.push(...b.poll())
          return seen.a.length >= ofA && seen.b.length >= ofB
        })
        return seen
      }
      return { m, a, b, ah, wait }
    }

    it('SENDs arrive once each, with their bytes and immediate data', () => {
      const { a, b, ah, wait } = start()
      fill(a.bytes, 1)
      const count = 100
      for (let i = 0; i < count; i++) b.receive(i, i * 1024, 1024)
      for (let i = 0; i < count; i++)
        a.post({ id: i, operation: SEND, ah, qpn: b.qpn, offset: i * 1024, length: 1000, imm: i })
      const seen = wait(count, count)
      assert.deepEqual(seen.a.map(({ id, status }) => [id, status]).sort(), seen.a.map((_, i) => [i, 0]).sort())
      assert.deepEqual([...seen.b.map(({ imm }) => imm)].sort(), seen.b.map((_, i) => i).sort())
      for (const { id, imm, bytes, status, sourceQpn } of seen.b) {
        assert.deepEqual([status, bytes, sourceQpn], [0, 1000, a.qpn])
        const sent = a.bytes.subarray(imm! * 1024, imm! * 1024 + 1000)
        assert.deepEqual(b.bytes.subarray(id * 1024, id * 1024 + 1000), sent)
      }
    })

    it('a WRITE with immediate data takes a receive, once all its bytes are there', () => {
      const { a, b, ah, wait } = start()
      fill(a.bytes, 3)
      b.receive(9, 0, 16)
      const remote = { address: b.address, rkey: b.region.rkey }
      a.post({ id: 1, operation: RDMA_WRITE, ah, qpn: b.qpn, offset: 0, length: 70_000, imm: 0xabcd, remote })
      const [completion] = wait(0, 1).b
      assert.deepEqual(b.bytes.subarray(0, 70_000), a.bytes.subarray(0, 70_000))
      assert.deepEqual([completion!.id, completion!.imm, completion!.bytes], [9, 0xabcd, 70_000])
    })

    it('an unsolicited WRITE with immediate data takes no receive', () => {
      const { a, b, ah, wait } = start({ unsolicited: true })
      const remote = { address: b.address, rkey: b.region.rkey }
      a.post({ id: 1, operation: RDMA_WRITE, ah, qpn: b.qpn, offset: 0, length: 10, imm: 5, remote })
      assert.deepEqual(wait(1, 1).b[0]!.isUnsolicited, true)
    })

    it('a SEND waits for a receive without end, or as often as rnr_retry says', () => {
      const { m, a, b, ah, wait } = start()
      a.post({ id: 1, operation: SEND, ah, qpn: b.qpn, offset: 0, length: 8 })
      const before = m.time.now
      m.runUntil(() => m.time.now > before + 50_000)
      assert.deepEqual(a.poll(), [])
      b.receive(1, 0, 64)
      assert.equal(wait(1, 1).a[0]!.status, 0)
      const limited = program(m, 0, { rnrRetry: 2 })
      limited.post({ id: 7, operation: SEND, ah: limited.handleOf(1), qpn: b.qpn, offset: 0, length: 8 })
      const ended: Completion[] = []
      m.runUntil(() => ended.push(...limited.poll()) > 0)
      assert.deepEqual([ended[0]!.id, ended[0]!.status], [7, EfaStatus.NOT_READY])
    })

    const refusals: readonly [string, number, (parts: ReturnType<typeof start>) => void][] = [
      ['an unknown queue pair', EfaStatus.BAD_DESTINATION, ({ a, ah }) => a.post(sendOf(ah, 999))],
      ['another Q_Key', EfaStatus.BAD_DESTINATION, ({ a, b, ah }) => a.post({ ...sendOf(ah, b.qpn), qkey: 5 })],
      [
        'an rkey that does not exist',
        EfaStatus.BAD_ADDRESS,
        ({ a, b, ah }) =>
          a.post({ ...sendOf(ah, b.qpn), operation: RDMA_WRITE, remote: { address: b.address, rkey: 1 } }),
      ],
      [
        'a range beyond the region',
        EfaStatus.BAD_ADDRESS,
        ({ a, b, ah }) =>
          a.post({
            ...sendOf(ah, b.qpn),
            operation: RDMA_READ,
            remote: { address: b.address + b.bytes.length, rkey: b.region.rkey },
          }),
      ],
      [
        'a receive that is too short',
        EfaStatus.REMOTE_LENGTH,
        ({ a, b, ah }) => {
          b.receive(1, 0, 4)
          a.post(sendOf(ah, b.qpn))
        },
      ],
      ['an address handle that does not exist', EfaStatus.INVALID_AH, ({ a, b }) => a.post(sendOf(77, b.qpn))],
      [
        'an operation that does not exist',
        EfaStatus.UNSUPPORTED_OPERATION,
        ({ a, b, ah }) => a.post({ ...sendOf(ah, b.qpn), operation: 9 }),
      ],
      [
        'a SEND above the MTU',
        EfaStatus.LOCAL_LENGTH,
        ({ a, b, ah }) => a.post({ ...sendOf(ah, b.qpn), length: 9000 }),
      ],
      [
        'a range of its own that is not registered',
        EfaStatus.INVALID_LKEY,
        ({ a, b, ah }) => a.post({ ...sendOf(ah, b.qpn), offset: a.bytes.length }),
      ],
    ]
    const sendOf = (ah: number, qpn: number) => ({ id: 3, operation: SEND as number, ah, qpn, offset: 0, length: 64 })

    for (const [what, status, act] of refusals)
      it(`${what} fails with status ${status}, and the queue pair continues`, () => {
        const parts = start()
        act(parts)
        const { a, b, ah, wait } = parts
        assert.equal(wait(1, 0).a[0]!.status, status)
        b.receive(2, 0, 64)
        a.post(sendOf(ah, b.qpn))
        assert.equal(wait(2, 0).a[1]!.status, 0)
      })

    it('RDMA needs an address handle of the initiator', () => {
      const m = machine(2, fault)
      const [a, b] = [program(m, 0), program(m, 1)]
      const remote = { address: b.address, rkey: b.region.rkey }
      a.post({ id: 1, operation: RDMA_WRITE, ah: a.handleOf(1), qpn: b.qpn, offset: 0, length: 8, remote })
      const ended: Completion[] = []
      m.runUntil(() => ended.push(...a.poll()) > 0)
      assert.equal(ended[0]!.status, EfaStatus.UNKNOWN_PEER)
    })
  })

it('a context has its own queue pairs for watchers', () => {
  const m = machine(1)
  const [a, b] = [program(m, 0), program(m, 0)]
  const qpnsOf = ({ context }: typeof a) =>
    [...efaDriver.requests.queuesOf!(context)].map(qp => (qp as QpObject).state.qpn)
  assert.deepEqual([qpnsOf(a), qpnsOf(b)], [[a.qpn], [b.qpn]])
})

it('a send that no poll has seen, and one that waits for a receive, are outstanding', () => {
  const { requests } = efaDriver
  const m = machine(2)
  const [a, b] = [program(m, 0), program(m, 1)]
  const [ah] = [a.handleOf(1), b.handleOf(0)]
  const [qp] = [...requests.queuesOf!(a.context)]
  a.post({ id: 1, operation: SEND, ah, qpn: b.qpn, offset: 0, length: 10 })
  assert.equal(requests.pendingSends!(qp as QpObject), 1)
  requests.settle!(qp as QpObject)
  assert.equal(requests.pendingSends!(qp as QpObject), 1)
  b.receive(2, 0, 100)
  m.runUntil(() => a.poll().length === 1)
  assert.equal(requests.pendingSends!(qp as QpObject), 0)
})

it('all handles of an address in a protection domain have one number until the last is destroyed', () => {
  const a = program(machine(2), 0)
  const first = a.handleOf(1)
  assert.equal(a.handleOf(1), first)
  assert.notEqual(a.handleOf(0), first)
})

it('a destination that does not exist is given up', () => {
  const m = machine(2, 'drop=1')
  const [a, b] = [program(m, 0), program(m, 1)]
  a.post({ id: 1, operation: SEND, ah: a.handleOf(1), qpn: b.qpn, offset: 0, length: 8 })
  const ended: Completion[] = []
  m.runUntil(() => ended.push(...a.poll()) > 0)
  assert.equal(ended[0]!.status, EfaStatus.UNREACHABLE)
})
