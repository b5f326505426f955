/*
 * Core and rxe driver answer recorded programs as Linux's kernel did (R41, R42).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PROGRAM_LOGS } from '../../uapi/abilog.ts'
import { replay } from './replay.ts'

for (const dialect of ['linux', 'object'] as const) {
  const suffix = dialect === 'linux' ? '' : ' through the object dialect'
  for (const name of PROGRAM_LOGS)
    test(`${name}: core and rxe answer as Linux did${suffix}`, () => {
      // The servers ran on 10.77.0.3, the clients on 10.77.0.2.
      const { calls } = replay(name, name.includes('server') ? 3 : 2, dialect)
      assert.ok(calls >= 15, `${calls} calls`)
    })

  test(`raw.abilog: core and rxe answer hand-made calls as Linux did${suffix}`, () => {
    const { calls, refused } = replay('raw.abilog', 2, dialect)
    assert.equal(calls, 70)
    assert.ok(refused > 40, `${refused} refused`)
  })
}
