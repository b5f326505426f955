/*
 * What a daemon does per operation is bounded: these counts hardly depend on the machine, as times do.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { countOf, LIMITS, type OperationName, type Quantity, withOperation } from '../../../bench/counts.ts'
import { lacking } from '../../system/programs.ts'

const skip = lacking('strace', 'ibv_rc_pingpong', 'ib_write_bw')

describe('a daemon, per operation', { skip }, () => {
  for (const [name, limits] of Object.entries(LIMITS) as [OperationName, (typeof LIMITS)[OperationName]][])
    it(`stays below the floors of ${name}`, async () => {
      const { daemon, perOperation, close } = await withOperation(name)
      try {
        for (const [quantity, [floor]] of Object.entries(limits) as [Quantity, readonly [number, number]][]) {
          const count = await perOperation(countOf(quantity, daemon))
          assert.ok(count <= floor, `${quantity}: ${count} are more than ${floor}`)
        }
      } finally {
        await close()
      }
    })
})
