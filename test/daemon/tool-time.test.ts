/*
 * The time that tools get, with a clock that only the work moves.
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { createAccount } from '../../src/core/objects/limits.ts'
import { createSharedLimits } from '../../src/daemon/accounts.ts'
import { ToolTime } from '../../src/daemon/tool-time.ts'

const OWNER = 1
const GUEST = 2
const SUBORDINATE = 3

const limits = createSharedLimits()
const [owner, guest, subordinate] = [
  [OWNER, OWNER],
  [GUEST, GUEST],
  [SUBORDINATE, GUEST],
].map(([user, payer]) => createAccount(limits, { pid: user, user, payer, owner: OWNER }))

/** `turns`: number of turns with work. `work`: a job of `slices` slices of 0.2 ms each. */
const setUp = (t: TestContext, isBusy: boolean) => {
  let milliseconds = performance.now()
  t.mock.method(performance, 'now', () => milliseconds)
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let turns = 0
  const time = new ToolTime({ isBusy: () => isBusy, beforeSlices: () => turns++ })
  const log: number[] = []
  const work = function* (user: number, slices: number): Generator<void> {
    for (let i = 0; i < slices; i++) {
      milliseconds += 0.2
      log.push(user)
      yield
    }
  }
  const sleep = (duration: number): void => {
    milliseconds += duration
    t.mock.timers.tick(duration)
  }
  /** Runs the event loop until no slice runs in a turn. */
  const settle = async (): Promise<void> => {
    for (let before = -1; before !== turns; ) {
      before = turns
      await new Promise(setImmediate)
      await new Promise(setImmediate)
    }
  }
  return { time, work, log, sleep, settle, turns: () => turns }
}

test('a guest gets what is saved up, then a twentieth of the time; its processes, also with subordinate uids, share it', async t => {
  const { time, work, log, sleep, settle, turns } = setUp(t, false)
  const shares = [guest, guest, subordinate].map(account => time.of(account, true))
  for (const share of shares) void share.run(work(GUEST, 10_000))
  await settle()
  const first = log.length
  assert.ok(first * 0.2 >= 50 && first * 0.2 < 54, `${first} slices`)
  assert.equal(turns(), first, 'a slice longer than the time of a turn is the only one in it')
  for (let i = 0; i < 100; i++) {
    sleep(20)
    await settle()
  }
  const later = (log.length - first) * 0.2
  assert.ok(later > 80 && later < 110, `${later} ms of 2 s`)
})

test('the time of a guest bounds no other user; the daemon’s own user is bounded while queues have work', async t => {
  for (const isBusy of [false, true])
    await t.test(isBusy ? 'busy' : 'idle', async s => {
      const { time, work, log, settle } = setUp(s, isBusy)
      void time.of(guest, true).run(work(GUEST, 1000))
      const owned = time.of(owner, false).run(work(OWNER, 1000))
      await settle()
      const slices = log.filter(user => user === OWNER).length
      if (isBusy) assert.ok(slices < 320, `${slices} slices`)
      else {
        await owned
        assert.equal(slices, 1000)
      }
      assert.deepEqual(log.slice(0, 4), [GUEST, OWNER, GUEST, OWNER], 'users take turns')
    })
})

test('work at once uses up the time of the turn; in the next turn there is time again', async t => {
  const { time, sleep } = setUp(t, false)
  const share = time.of(owner, false)
  assert.equal(share.hasTime, true)
  assert.equal(
    share.charge(() => {
      sleep(0.2)
      return 7
    }),
    7,
  )
  assert.equal(share.hasTime, false)
  await new Promise(setImmediate)
  assert.equal(share.hasTime, true)
})

test('a job that throws rejects, and the others continue', async t => {
  const { time, work } = setUp(t, false)
  const share = time.of(owner, false)
  const failing = share.run(
    (function* () {
      yield
      throw new Error('a failure')
    })(),
  )
  const other = share.run(work(OWNER, 5))
  await assert.rejects(failing, /a failure/)
  await other
})
