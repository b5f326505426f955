/*
 * Calls of several programs at the same time.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { SessionEnv } from '../../src/spec/session.ts'
import { isEmpty, lacking, ownProgram, run, start, startDaemon } from './programs.ts'

const calls = ownProgram('calls')
const habits = ownProgram('call_habits')

for (const way of ['slot', 'messages'])
  test(`programs that call in a loop, by ${way}, do not starve others`, { skip: lacking(calls) }, async t => {
    const daemon = await startDaemon(t)
    const env = { ...daemon.env, [SessionEnv.calls]: way }
    const endless = [1, 2].map(() => start(t, calls, ['endless'], { env }))
    for (const { printed, child } of endless) {
      await printed(/asking/)
      assert.equal(/userdma-calls/.test(readFileSync(`/proc/${child.pid}/maps`, 'utf8')), way === 'slot')
    }
    const { status, stdout, stderr } = await run(t, calls, ['100'], { env })
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
    assert.match(stdout, /^[\d.]+ usec\/call\n$/)
    for (const { child, ended } of endless) {
      child.kill()
      await ended
    }
    await daemon.settled(isEmpty)
  })

for (const habit of ['closing', 'malloc', 'leaving', 'late'])
  test(`a program that calls with an unusual habit: ${habit}`, { skip: lacking(habits) }, async t => {
    const daemon = await startDaemon(t)
    const { status, stdout, stderr } = await run(
      t,
      habits,
      habit === 'leaving' || habit === 'late' ? [habit, `${daemon.pid}`] : [habit],
      daemon,
    )
    assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: 'done\n', stderr: '' })
    await daemon.settled(isEmpty)
  })
