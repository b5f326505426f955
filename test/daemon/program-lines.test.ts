/*
 * Lines of the daemon's log about programs: those of a guest that starts again and again do not fill it.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ProgramLines } from '../../src/daemon/program-lines.ts'

const MINUTE = 60_000_000
const [ONE, OTHER] = [1001, 1002]

const setUp = () => {
  const clock = { now: 5 }
  const written: string[] = []
  const lines = new ProgramLines(
    line => written.push(line),
    () => clock.now,
  )
  /** What is written for programs of a user that start one after the other. */
  const restart = (guest: number | undefined, kind: string, times: number): string[] => {
    written.length = 0
    for (let pid = 1; pid <= times; pid++) lines.write(guest, kind, `process ${pid} (p) is disconnected`)
    return [...written]
  }
  return { clock, lines, restart }
}

test('a guest that starts again and again has one line of a kind in a minute, which says how many were left out', () => {
  const { clock, restart } = setUp()
  assert.deepEqual(restart(ONE, 'waits', 100), ['userdma daemon: process 1 (p) is disconnected'])
  assert.deepEqual(restart(ONE, 'doorbells', 1).length, 1, 'another kind')
  assert.deepEqual(restart(OTHER, 'waits', 1).length, 1, 'another user')
  clock.now += MINUTE - 1
  assert.deepEqual(restart(ONE, 'waits', 3), [])
  clock.now++
  assert.deepEqual(restart(ONE, 'waits', 1), [
    'userdma daemon: process 1 (p) is disconnected (102 more such lines about programs of user 1001 were left out)',
  ])
  clock.now += MINUTE
  assert.deepEqual(restart(ONE, 'waits', 1), ['userdma daemon: process 1 (p) is disconnected'])
})

test("programs of the daemon's own user have all their lines", () => {
  assert.equal(setUp().restart(undefined, 'waits', 100).length, 100)
})

test('many users and kinds leave the newest', () => {
  const { restart } = setUp()
  for (let user = 0; user < 5000; user++) restart(user, 'waits', 1)
  assert.equal(restart(4999, 'waits', 1).length, 0)
  assert.equal(restart(0, 'waits', 1).length, 1)
})

test('a name that a program has chosen forges no line', () => {
  const written: string[] = []
  new ProgramLines(
    line => written.push(line),
    () => 0,
  ).write(ONE, 'waits', 'process 1 (a\nuserdma daemon: b) ends')
  assert.equal(written.join().includes('\n'), false)
})
