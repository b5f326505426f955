/*
 * Rules with one match, against a model: each receiver gets a frame once, each counter counts it once, in whatever
 * order rules come and go. matchers.test.ts has the rules of programs.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { ArrivedFrame, Scratch } from '../../../../src/drivers/mlx5/raw/arrived-frame.ts'
import { type FlowRule, Steering } from '../../../../src/drivers/mlx5/raw/steering.ts'
import { FlowType } from '../../../../src/spec/enums.ts'
import { FLOW_KEY_BYTES } from '../../../../src/spec/wire/ethernet.ts'
import { plainArena } from '../../../../src/transport/wire/arena.ts'
import { createFrameKey } from '../../../../src/transport/wire/flow-key.ts'

const frame: ArrivedFrame = { arena: plainArena(64), key: createFrameKey(), at: 0, length: 60, headers: 0 }
const scratch: Scratch = { frame }

describe('rules with one match', () => {
  it('reach each receiver and counter once, until the last of its rules is gone', () => {
    const step = fc.record({ receiver: fc.nat(3), counter: fc.option(fc.nat(3)), removed: fc.option(fc.nat()) })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60, size: 'max' }), steps => {
        const steering = new Steering(7)
        const got: { index: number; tag: number }[] = []
        const receivers = [0, 1, 2, 3].map(index => ({
          receive: (_frame: ArrivedFrame, tag: number) => void got.push({ index, tag }),
        }))
        const counts = new Float64Array(8)
        const live: { receiver: number; counter: number | null; tag: number; remove: () => void }[] = []
        const expected = new Float64Array(8)
        for (const [tag, { receiver, counter, removed }] of steps.entries()) {
          if (removed !== null && live.length > 0) live.splice(removed % live.length, 1)[0]!.remove()
          const rule: FlowRule = {
            type: FlowType.values.NORMAL,
            priority: 0,
            value: new Uint8Array(FLOW_KEY_BYTES),
            mask: new Uint8Array(FLOW_KEY_BYTES).fill(0xff),
            doesNotTrap: false,
            receiver: receivers[receiver],
            tag,
            ...(counter !== null && { counter: { counts, index: counter } }),
          }
          live.push({ receiver, counter, tag, remove: steering.add(rule) })
          got.length = 0
          const reached = new Set(live.map(one => one.receiver))
          assert.equal(steering.deliver(frame, scratch), reached.size)
          assert.deepEqual(new Set(got.map(({ index }) => index)), reached)
          assert.equal(got.length, reached.size)
          for (const { index, tag } of got) assert.ok(live.some(one => one.receiver === index && one.tag === tag))
          for (const used of new Set(live.map(one => one.counter))) {
            if (used === null) continue
            expected[2 * used]!++
            expected[2 * used + 1]! += frame.length
          }
          assert.deepEqual(counts, expected)
        }
        for (const { remove } of live) remove()
        assert.ok(steering.isEmpty)
      }),
    )
  })
})
