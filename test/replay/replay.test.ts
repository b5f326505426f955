/*
 * Core and rxe driver answer recorded programs as Linux's kernel did (R41, R42).
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PROGRAM_LOGS } from '../uapi/abilog.ts'
import { replay } from './replay.ts'

for (const by of ['linux', 'object'] as const) {
  const way = by === 'linux' ? '' : ' through the object dialect'
  for (const name of PROGRAM_LOGS)
    test(`${name}: core and rxe answer as Linux did${way}`, () => {
      const { calls } = replay(name, name.includes('server') ? 3 : 2, by)
      assert.ok(calls >= 15, `${calls} calls`)
    })

  test(`raw.abilog: core and rxe answer hand-made calls as Linux did${way}`, () => {
    const { calls, refused } = replay('raw.abilog', 2, by)
    assert.equal(calls, 70)
    assert.ok(refused > 40, `${refused} refused`)
  })
}
