import assert from 'node:assert/strict'
import { test } from 'node:test'
import { mapArena } from '../../src/host/memory/mapping.ts'
import { hasNative } from '../../src/host/native.ts'
import { isCopiedByFork } from '../../src/host/process-status.ts'

test('isCopiedByFork is true for private memory, and undefined for an absent address or process', {
  skip: !hasNative() && 'needs native calls',
}, () => {
  const arena = mapArena(4096)
  assert.equal(isCopiedByFork(process.pid, arena.address), true)
  assert.equal(isCopiedByFork(process.pid, 1), undefined)
  assert.equal(isCopiedByFork(2 ** 30, arena.address), undefined)
})
