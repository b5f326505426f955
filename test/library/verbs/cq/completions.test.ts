/*
 * Loops over a completion queue, and copies of its completions.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { CompletionRecord } from '../../../../src/library/index.ts'
import { closeAll, pair } from '../endpoints.ts'

test('a second loop over a queue is refused until the first has ended', async () => {
  const { a, b } = await pair()
  a.qp.write(Uint8Array.of(1), b.mr.remote(0, 1), { id: 1 })
  a.qp.write(Uint8Array.of(2), b.mr.remote(0, 1), { id: 2 })
  const ids: number[] = []
  for await (const wc of a.cq) {
    ids.push(wc.id)
    await assert.rejects(a.cq.completions().next(), {
      code: 'EBUSY',
      message: /cq\.completions: another loop reads this queue, and both would lose completions \(EBUSY\); read/,
    })
    if (ids.length === 2) break
  }
  assert.deepEqual(ids, [1, 2])
  const aborted = new AbortController()
  const waiting = a.cq.completions({ signal: aborted.signal }).next()
  aborted.abort()
  await assert.rejects(waiting, { name: 'AbortError' })
  a.qp.write(Uint8Array.of(3), b.mr.remote(0, 1), { id: 3 })
  for await (const wc of a.cq) {
    assert.equal(wc.id, 3)
    break
  }
  await closeAll(a, b)
})

test('copies of completions keep their values; the completion itself shows nothing of the queue', async () => {
  const { a, b } = await pair()
  b.qp.receive(b.mr.slice(0, 8), 7)
  b.qp.receive(b.mr.slice(8, 8), 8)
  a.qp.send(Uint8Array.of(1, 2), { immediate: 5 })
  a.qp.send(Uint8Array.of(3))
  const kept: CompletionRecord[] = []
  for await (const wc of b.cq) {
    kept.push(wc.copy())
    assert.deepEqual([Object.keys(wc), { ...wc }], [[], {}])
    if (kept.length === 2) break
  }
  assert.deepEqual(
    kept.map(({ id, ok, opcodeName, bytes, immediate }) => [id, ok, opcodeName, bytes, immediate]),
    [
      [7, true, 'RECV', 2, 5],
      [8, true, 'RECV', 1, undefined],
    ],
  )
  await closeAll(a, b)
})
