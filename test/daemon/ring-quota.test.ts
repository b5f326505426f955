/*
 * Quotas of the daemon's mappings and addresses for rings.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ContextMemory } from '../../src/daemon/context/context-file.ts'
import { createRingQuotas, type RingQuota } from '../../src/daemon/ring-quota.ts'
import { createRingPool } from '../../src/host/memory/mapping.ts'

const [MIB, GIB] = [2 ** 20, 2 ** 30]
/** The daemon's user, and another user. */
const OWNER = 1000
const GUEST = 7
const available = { mappings: 200, bytes: 4 * GIB }

/** Takes mappings of `bytes` until refused; returns their number. */
const takeAll = (quota: RingQuota, bytes: number): number => {
  for (let taken = 0; ; taken++)
    try {
      quota.take(bytes)
    } catch (error) {
      assert.equal((error as { code: string }).code, 'ENOMEM')
      return taken
    }
}

test('a process may take half of the mappings, or of the addresses; the error has the numbers and advice', () => {
  const quotas = createRingQuotas(available, OWNER)
  assert.equal(takeAll(quotas.of(1, OWNER), MIB), 100)
  assert.throws(() => quotas.of(1, OWNER).take(MIB), {
    message:
      'process 1 uses 100 mappings of the daemon for rings and may use 100, but needs 1 more; all programs may use 200 (vm.max_map_count); destroy queues, or create smaller ones',
  })
  assert.throws(() => quotas.of(2, OWNER).take(3 * GIB), {
    message: /^process 2 uses 0.0 GiB of addresses of the daemon for rings and may use 2.0 GiB, but needs 3.0 GiB more/,
  })
  assert.deepEqual(quotas.charged, { mappings: 100, bytes: 100 * MIB })
})

test('the processes of another user together may take half; those of the daemon’s user take the rest', () => {
  const quotas = createRingQuotas(available, OWNER)
  assert.equal(takeAll(quotas.of(1, GUEST), MIB), 100)
  assert.equal(takeAll(quotas.of(2, GUEST), MIB), 0)
  assert.throws(() => quotas.of(2, GUEST).take(MIB), { message: /^user 7 uses 100 mappings/ })
  let rest = 0
  for (let pid = 3; rest < 100; pid++) rest += takeAll(quotas.of(pid, OWNER), MIB)
  assert.throws(() => quotas.of(99, OWNER).take(MIB), { message: /^all programs use 200 mappings/ })
})

test('a context is charged for the parts of its file that the daemon maps, until they are unmapped', () => {
  const quotas = createRingQuotas(available, OWNER)
  const pool = createRingPool()
  const memory = new ContextMemory(pool, false, quotas.of(1, GUEST))
  const [small, other, large] = [1, 5000, 5 * MIB].map(bytes => memory.allocate(bytes))
  assert.deepEqual(quotas.charged, { mappings: 2, bytes: 9 * MIB })
  assert.throws(() => memory.allocate(3 * GIB), { code: 'ENOMEM' })
  memory.free(large!)
  memory.free(small!)
  assert.deepEqual(quotas.charged, { mappings: 1, bytes: MIB })
  memory.free(other!)
  memory.allocate(1)
  memory.close()
  assert.deepEqual(quotas.charged, { mappings: 0, bytes: 0 })
})
