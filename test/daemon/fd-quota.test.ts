/*
 * Quotas of the daemon's descriptors.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { createFdQuotas, type FdQuota } from '../../src/daemon/fd-quota.ts'

/** The daemon's user, and another user. */
const OWNER = 1000
const GUEST = 7

/** Takes single descriptors until refused; `taken` is their number, `code` the error of the refusal. */
const takeAll = (quota: FdQuota): { readonly taken: number; readonly code: string } => {
  for (let taken = 0; ; taken++) {
    try {
      quota.take(1)
    } catch (error) {
      return { taken, code: (error as { code: string }).code }
    }
  }
}

test('a process may take a quarter of all descriptors; the error has the number and advice', () => {
  const quotas = createFdQuotas(200, OWNER)
  const release = quotas.of(1, OWNER).take(10)
  assert.deepEqual(takeAll(quotas.of(1, OWNER)), { taken: 40, code: 'EMFILE' })
  assert.throws(() => quotas.of(1, OWNER).take(1), {
    code: 'EMFILE',
    message:
      /^process 1 uses 50 descriptors of the daemon and may use 50, but needs 1 more; the daemon has 200 .*close some, or start/,
  })
  release()
  release() // has no effect
  assert.equal(quotas.charged, 40)
  assert.deepEqual(takeAll(quotas.of(1, OWNER)), { taken: 10, code: 'EMFILE' })
})

test('each new process may take a quarter of the rest, or 16 if a quarter is less', () => {
  const quotas = createFdQuotas(200, OWNER)
  const taken = Array.from({ length: 10 }, (_, pid) => takeAll(quotas.of(pid, OWNER)))
  assert.deepEqual(
    taken.map(result => result.taken),
    [50, 37, 28, 21, 16, 16, 16, 16, 0, 0],
  )
  assert.equal(taken[9].code, 'ENFILE')
})

test('the processes of another user may take at most half of all descriptors', () => {
  const quotas = createFdQuotas(10_000, OWNER)
  for (let pid = 0; pid < 100; pid++) takeAll(quotas.of(pid, GUEST))
  assert.ok(quotas.charged <= 5000, `${quotas.charged}`)
  assert.throws(() => quotas.of(100, GUEST).take(1), { code: 'EMFILE', message: /^user 7 uses/ })
  const free = 10_000 - quotas.charged
  assert.equal(takeAll(quotas.of(200, OWNER)).taken, Math.floor(free / 4))
})

test('all multicast groups together may take a quarter of all descriptors', () => {
  const quotas = createFdQuotas(200, OWNER)
  assert.deepEqual(takeAll(quotas.groups), { taken: 50, code: 'EMFILE' })
  assert.throws(() => quotas.groups.take(1), { message: /^the set of all multicast groups uses 50 descriptors/ })
  assert.deepEqual(takeAll(quotas.of(1, OWNER)), { taken: 37, code: 'EMFILE' })
})

test('random takes and releases never exceed the total, and all descriptors are released', () => {
  const steps = fc.array(
    fc.record({ pid: fc.nat(5), uid: fc.constantFrom(OWNER, GUEST), count: fc.nat(30), releases: fc.nat(9) }),
  )
  fc.assert(
    fc.property(fc.nat(300), steps, (available, all) => {
      const quotas = createFdQuotas(available, OWNER)
      const taken: (() => void)[] = []
      for (const { pid, uid, count, releases } of all) {
        try {
          taken.push(quotas.of(pid, uid).take(count))
        } catch {
          for (const release of taken.splice(0, releases)) release()
        }
        assert.ok(quotas.charged <= available)
      }
      for (const release of taken) release()
      assert.equal(quotas.charged, 0)
      assert.equal(takeAll(quotas.of(9, OWNER)).taken, Math.min(available, Math.max(16, Math.floor(available / 4))))
    }),
  )
})

test('the user without a user quota is the effective user of the daemon', t => {
  t.mock.method(process as { geteuid(): number }, 'geteuid', () => GUEST)
  const quotas = createFdQuotas(100)
  for (let pid = 1; pid <= 4; pid++) assert.equal(takeAll(quotas.of(pid, GUEST)).code, 'EMFILE')
  assert.ok(quotas.charged > 50, 'more than the quota of another user')
})

test('by default programs may have all descriptors of the daemon but the open ones and 32', () => {
  const limit = Number(spawnSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' }).stdout)
  // The list contains its own descriptor, here and in createFdQuotas.
  const open = readdirSync('/proc/self/fd').length
  assert.throws(() => createFdQuotas().groups.take(2 ** 40), {
    code: 'ENFILE',
    message: new RegExp(`^all ${limit - open - 32} descriptors`),
  })
})
