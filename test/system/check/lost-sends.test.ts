/*
 * Sends that are outstanding, or complete and not polled, when their queue pair ends: all ways to end it, and all types
 * of connected queue pairs (test/programs/check/lost_sends.c).
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { lacking, ownProgram } from '../programs.ts'
import { checkScript } from './checking.ts'

const program = ownProgram('lost_sends')

/** By type, way and fate: the severity of `sends-lost`, or none. */
const severityOf = (type: string, way: string, fate: string): string | undefined => {
  if (fate === 'lost' && type !== 'uc') return way === 'kill' ? 'note' : 'warning'
  // A send of UC is complete when it is sent.
  return fate === 'polled' || way === 'err' ? undefined : 'note'
}

it('lost and unpolled sends are told however their queue pair ends', { skip: lacking(program) }, async t => {
  const all = ['rc', 'uc', 'srq', 'xrc'].flatMap(type =>
    ['destroy', 'reset', 'err', 'close', 'exit', 'exec', 'kill'].flatMap(way =>
      ['lost', 'unpolled', 'polled'].map(fate => ({ type, way, fate })),
    ),
  )
  // Whether the device has executed the send of a killed program depends on the time.
  const cases = all.filter(
    ({ type, way, fate }) => way !== 'kill' || fate === 'polled' || (fate === 'lost' && type !== 'uc'),
  )
  const script = cases.map(({ type, way, fate }) => `${program} ${type} ${way} ${fate}`).join('; ')
  const { found } = await checkScript(t, `exec > /dev/null; ${script}; true`)
  const severities = cases.map(({ type, way, fate }) => {
    const command = `${type}-${way}-${fate.slice(0, 3)}`
    const [one] = found.filter(
      ({ id, program: { command: name } }) => (id === 'sends-lost' || id === 'program-ended') && name === command,
    )
    return `${command}: ${one?.severity}`
  })
  assert.deepEqual(
    severities,
    cases.map(({ type, way, fate }) => `${type}-${way}-${fate.slice(0, 3)}: ${severityOf(type, way, fate)}`),
  )
})
