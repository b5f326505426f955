/*
 * `--torment` on mlx5 devices: every kind acts but those that libmlx5 leaves no room for (docs/decisions/mlx5.md), and
 * the guarantees of the specification are kept.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createTorment } from '../../../src/drivers/soft/torment/torment.ts'
import { type TormentKind, tormentKinds } from '../../../src/spec/check/torment.ts'
import { CompletionKind } from '../../../src/spec/drivers/mlx5-queues.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { completionsOf } from '../machine.ts'
import { seedWith } from '../rxe/torment/seeds.ts'
import { machine, program, RDMA_READ, RDMA_WRITE, SEND } from './machine.ts'

const { REQUEST, RECEIVE } = CompletionKind
const ABSENT: readonly TormentKind[] = ['queue', 'limit', 'fields']
const ROUNDS = 12
const LENGTH = 900

/** Two connected queue pairs, and the kinds of the decisions so far. */
const start = (kind: TormentKind) => {
  const torment = createTorment({ seed: seedWith(kind, 0.3), maxDecisions: Number.POSITIVE_INFINITY }, plainArena(4096))
  const acted = new Set<TormentKind>()
  torment.decisions.listen(decision => acted.add(decision.kind))
  const m = machine(2, 'drop=0', undefined, undefined, torment)
  const [a, b] = [program(m, 0, { events: true }), program(m, 1, { events: true })]
  const [qa, qb] = [a.queuePair('rc', { inline: 64 }), b.queuePair('rc', { inline: 64 })]
  qa.connect(qb, 1)
  qb.connect(qa, 0)
  return { m, a, b, qa, qb, acted }
}

describe('torment', () => {
  for (const kind of tormentKinds)
    it(`${ABSENT.includes(kind) ? 'does not act' : 'acts, and requests have their effects'}: ${kind}`, () => {
      const { m, a, b, qa, qb, acted } = start(kind)
      for (let i = 0; i < a.bytes.length; i++) a.bytes[i] = (i * 13 + 5) & 0xff
      const expected = a.bytes.slice(0, LENGTH)
      for (let round = 0; round < ROUNDS; round++) {
        a.arm()
        b.arm()
        b.bytes.fill(0)
        const remote = { address: b.address, rkey: b.region.rkey }
        qa.post({ opcode: RDMA_WRITE, data: [a.element(0, LENGTH)], remote })
        qa.post({ opcode: RDMA_READ, data: [a.element(2048, LENGTH)], remote })
        assert.deepEqual(
          completionsOf(m, a, 2).map(completion => completion.kind),
          [REQUEST, REQUEST],
        )
        assert.deepEqual(b.bytes.subarray(0, LENGTH), expected)
        assert.deepEqual(a.bytes.subarray(2048, 2048 + LENGTH), expected)
        // the receive comes late, so that the responder answers RNR first
        qa.post({ opcode: SEND, data: [a.element(0, LENGTH)] })
        for (const device of [...m.devices, ...m.devices]) device.poll(m.time.now)
        qb.receive(b.element(4096, LENGTH))
        assert.equal(completionsOf(m, b, 1)[0]!.kind, RECEIVE)
        assert.equal(completionsOf(m, a, 1)[0]!.kind, REQUEST)
        assert.deepEqual(b.bytes.subarray(4096, 4096 + LENGTH), expected)
      }
      assert.equal(acted.has(kind), !ABSENT.includes(kind), [...acted].join(' '))
      qa.destroy()
      qb.destroy()
    })
})
