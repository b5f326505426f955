/*
 * The memory of idle objects (R15): of the kinds of which programs have most. objects.long.test.ts has the others.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { longOnly } from '../../long-run.ts'
import { assertSmall, bytesOf, LIMITS } from './idle-objects.ts'

describe('an idle object', { concurrency: 2 }, () => {
  for (const kind of ['mr', 'rc_qp connected', 'library rc_qp'] as const)
    it(`${kind} takes at most ${LIMITS[kind]} bytes`, () => assertSmall(kind))

  it('takes about as many bytes with 40,000 objects as with 2,000', { skip: longOnly }, async () => {
    const [few, many] = [await bytesOf('rc_qp', 2000), await bytesOf('rc_qp', 40_000)]
    assert.ok(Math.abs(many / few - 1) < 0.15, `${few.toFixed(0)} bytes of 2,000, ${many.toFixed(0)} of 40,000`)
  })
})
