/*
 * Quotas of the daemon's descriptors: a new client always gets some, however many others have taken.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { createFdQuotas, type FdQuota } from '../../src/daemon/fd-quota.ts'

const OWNER = 1000

/** Takes one at a time until refused; returns their number and the error. */
const takeAll = (share: FdQuota): { readonly taken: number; readonly code: string } => {
  for (let taken = 0; ; taken++) {
    try {
      share.take(1)
    } catch (error) {
      return { taken, code: (error as { code: string }).code }
    }
  }
}

test('a process gets a quarter of all, over all its sessions; the message says how many and what to do', () => {
  const shares = createFdQuotas(200, OWNER)
  const release = shares.of(1, OWNER).take(10)
  assert.deepEqual(takeAll(shares.of(1, OWNER)), { taken: 40, code: 'EMFILE' })
  assert.throws(() => shares.of(1, OWNER).take(1), {
    code: 'EMFILE',
    message: /^process 1 uses 50 descriptors of the daemon and may use 50; the daemon has 200 .*close some, or start/,
  })
  release()
  release()
  assert.equal(shares.charged, 40)
  assert.deepEqual(takeAll(shares.of(1, OWNER)), { taken: 10, code: 'EMFILE' })
})

test('each new process gets a quarter of the rest, and at least a few while any are left', () => {
  const shares = createFdQuotas(200, OWNER)
  const taken = Array.from({ length: 10 }, (_, pid) => takeAll(shares.of(pid, OWNER)))
  assert.deepEqual(
    taken.map(one => one.taken),
    [50, 37, 28, 21, 16, 16, 16, 16, 0, 0],
  )
  assert.equal(taken[9].code, 'ENFILE')
})

test('a user other than the daemon’s own gets half of all, however many processes', () => {
  const shares = createFdQuotas(10_000, OWNER)
  for (let pid = 0; pid < 100; pid++) takeAll(shares.of(pid, 7))
  assert.ok(shares.charged <= 5000, `${shares.charged}`)
  assert.throws(() => shares.of(100, 7).take(1), { code: 'EMFILE', message: /^user 7 uses/ })
  const left = 10_000 - shares.charged
  assert.equal(takeAll(shares.of(200, OWNER)).taken, Math.floor(left / 4))
})

test('random use never exceeds the total, and nothing is lost', () => {
  const steps = fc.array(
    fc.record({ pid: fc.nat(5), uid: fc.constantFrom(OWNER, 7), count: fc.nat(30), releases: fc.nat(9) }),
  )
  fc.assert(
    fc.property(fc.nat(300), steps, (room, all) => {
      const shares = createFdQuotas(room, OWNER)
      let held: (() => void)[] = []
      for (const { pid, uid, count, releases } of all) {
        try {
          held.push(shares.of(pid, uid).take(count))
        } catch {
          for (const release of held.splice(0, releases)) release()
        }
        assert.ok(shares.charged <= room)
      }
      for (const release of held.splice(0)) release()
      held = []
      assert.equal(shares.charged, 0)
      assert.equal(takeAll(shares.of(9, OWNER)).taken, Math.min(room, Math.max(16, Math.floor(room / 4))))
    }),
  )
})
