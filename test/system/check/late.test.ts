/*
 * Kind `late` of torment with test/programs/check/late_cases.c: what passes by luck fails, and both histories are told;
 * with `right` it passes.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('late_cases')
const srd = ownProgram('late_cases_srd')

const devices = {
  rxe: [],
  mlx5: ['--device', 'mlx5_0@127.0.0.1,driver=mlx5'],
  efa: ['--device', 'efa_0@127.0.0.1,driver=efa'],
} as const

/** The findings about lent memory that are expected, as `found` has them. */
const rows = [
  ['read', 'rxe', ['late-read', 'lent-twice']],
  ['read', 'mlx5', ['late-read', 'lent-twice']],
  ['read', 'efa', ['late-read', 'lent-twice']],
  ['write', 'rxe', ['late-write']],
  ['write', 'mlx5', ['late-write']],
  ['destroyed', 'rxe', ['late-write', 'sends-lost']],
  ['destroyed', 'mlx5', ['late-write', 'sends-lost']],
  ['declared', 'rxe', ['not-lent', 'taken-back-early']],
  ['declared', 'mlx5', ['not-lent', 'taken-back-early']],
] as const

/** With a WRITE or READ request that comes late by a fault rule. */
const delayed = [
  ['rails', 'rxe', ['late-write']],
  ['rails', 'mlx5', ['late-write']],
  // Both send the same on purpose: the program passes, and nothing is told.
  ['same', 'rxe', []],
  ['same', 'mlx5', []],
  ['own-read', 'rxe', ['send-buffer-changed', 'taken-back-early']],
  ['own-read', 'mlx5', ['send-buffer-changed', 'taken-back-early']],
  ['own-read', 'efa', ['send-buffer-changed', 'taken-back-early']],
] as const

/** In the usual run. */
const short = new Set([
  'read efa',
  'write rxe',
  'destroyed mlx5',
  'declared rxe',
  'rails rxe',
  'same mlx5',
  'own-read efa',
])

describe('--torment-kinds late', { skip: lacking(program, srd) }, () => {
  for (const [name, device, ids] of casesOf(rows, ([name, device]) => short.has(`${name} ${device}`)))
    it(`${name} on ${device}`, async t => {
      const path = device === 'efa' ? srd : program
      const options = [...devices[device], '--torment', '1', '--torment-kinds', 'late']
      const script = `${path} ${name} > /dev/null; test $? = 1 && ${path} ${name} right`
      const { found, stderr, status } = await checkScript(t, script, options)
      const about = found.map(({ id }) => id).filter(id => id !== 'cq-too-small')
      assert.deepEqual(about.sort(), ids, stderr)
      for (const { action, frames } of found.flatMap(({ moments }) => moments))
        if (!/landed|accessed|complete/.test(action)) assert.ok(frames.length > 0, action)
      assert.equal(status, ids.some(id => id === 'not-lent') ? 65 : 0, stderr)
    })
})

describe('requests that come after their program gave up', { skip: lacking(program, srd) }, () => {
  const isShort = ([name, device]: (typeof delayed)[number]): boolean =>
    ['rails rxe', 'same mlx5', 'own-read rxe', 'own-read efa'].includes(`${name} ${device}`)
  for (const [name, device, ids] of casesOf(delayed, isShort))
    it(`${name} on ${device}`, async t => {
      const path = device === 'efa' ? srd : program
      const late = ['RC_WRITE*', '*READ*'].map(opcode => `opcode=${opcode},nth=1,delay=300ms`)
      const rules = (device === 'efa' ? ['delay=300ms'] : late).flatMap(rule => ['--fault', rule])
      const script = `${path} ${name} > /dev/null; test $? = ${ids.length > 0 ? 1 : 0} && ${path} ${name} right`
      const { found, stderr, status } = await checkScript(t, script, [...devices[device], ...rules])
      assert.deepEqual(
        found
          .map(({ id }) => id)
          .filter(id => id !== 'cq-too-small')
          .sort(),
        ids,
        stderr,
      )
      assert.equal(status, 0, stderr)
    })
})
