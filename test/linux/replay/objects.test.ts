/*
 * Core and the rxe driver answer pyverbs's calls on objects as Linux did.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { replay } from './replay.ts'

/** The last byte of its address. */
const RECORDED_MACHINE = 2

for (const dialect of ['linux', 'object'] as const)
  test(`objects.abilog: core and rxe answer as Linux did, ${dialect} dialect`, () => {
    const { calls, refused, skipped } = replay('objects.abilog', RECORDED_MACHINE, dialect, {
      skipsMissingMethods: true,
      // Linux accepts a path MTU beyond the interface's, userdma refuses it.
      pathMtu: 4096,
      // userdma has XRC initiators, Linux's rxe does not. userdma has no neighbour discovery that could fail. The
      // recorded kernel has no on-demand paging.
      skippedSteps: /unreachable|XRC_SEND|on demand/,
      chosen: {
        // max_mtu and active_mtu, bytes 27 and 28 of attribute 1.
        'port.query': { step: /./, bytes: [[1, 27, 29]] },
        // cur_qp_state, byte 109 of attribute 1: Linux's rxe always returns 0, userdma the state.
        'rc_qp.query': { step: /^query_qp$/, bytes: [[1, 109, 110]] },
      },
    })
    assert.ok(calls > 40, `${calls} calls`)
    assert.ok(refused > 10, `${refused} refused`)
    assert.deepEqual(
      skipped.filter(step => !/XRC_SEND/.test(step)),
      ['reg_mr on demand', 'create_ah unreachable destination'],
    )
  })
