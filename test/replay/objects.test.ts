/*
 * Every object that pyverbs created on Linux, if this release has its class: completion queues, memory windows, address
 * handles and queue pairs of all types with their errors, resize, each transition and QUERY_QP.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { replay } from './replay.ts'

for (const dialect of ['linux', 'object'] as const)
  test(`objects.abilog: core and rxe answer as Linux did, ${dialect} dialect`, () => {
    const { calls, refused, skipped } = replay('objects.abilog', 2, dialect, {
      skipsMissingMethods: true,
      // Linux accepts a path MTU beyond the interface's, we refuse it.
      pathMtu: 4096,
      // This device has XRC initiators, Linux's rxe does not. Neighbour discovery does not exist here and cannot fail.
      skippedSteps: /unreachable|XRC_SEND/,
      chosen: {
        // max_mtu and active_mtu.
        'port.query': { step: /./, bytes: [[1, 27, 29]] },
        // cur_qp_state: rxe always returns 0, we return the state.
        'rc_qp.query': { step: /^query_qp$/, bytes: [[1, 109, 110]] },
      },
    })
    assert.ok(calls > 40, `${calls} calls`)
    assert.ok(refused > 10, `${refused} refused`)
    // On-demand regions are EOPNOTSUPP since Linux 6.12, and were EINVAL.
    assert.deepEqual(
      skipped.filter(step => !/XRC_SEND/.test(step)),
      ['reg_mr on demand', 'create_ah unreachable destination'],
    )
  })
