/*
 * Findings about memory that ends while requests use it, by scripts: what the program's library reports, and what the
 * device has done with the request.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Misuse } from '../../src/check/events.ts'
import { MisuseKind, PostQueue } from '../../src/spec/session.ts'
import { LKEY, requestWorld, START } from './requests.ts'

const { FREED, RETURNED, FORKED } = MisuseKind

const misuse = (changes: Partial<Misuse> = {}): Misuse => ({
  time: 0,
  device: 'rxe0',
  deviceNumber: 0,
  context: 0,
  program: { pid: 1, command: 'client' },
  kind: FREED,
  queue: PostQueue.SEND,
  number: 1,
  wrId: 7n,
  index: 0,
  address: START,
  more: 0,
  stack: ['free'],
  ...changes,
})

it('an error while the device may use the memory, a warning until the completion is polled, then nothing', () => {
  for (const [kind, id] of [
    [FREED, 'buffer-freed'],
    [RETURNED, 'frame-returned'],
  ] as const) {
    const w = requestWorld()
    const request = w.post({ wrId: 7n })
    w.checker.misused(misuse({ kind }))
    assert.deepEqual(w.ids(), [`${id} error`])
    w.complete(request)
    w.checker.misused(misuse({ kind }))
    assert.deepEqual(w.ids(), [`${id} error`, `${id} warning`])
    w.poll(1)
    w.checker.misused(misuse({ kind, stack: ['free again'] }))
    assert.equal(w.found.length, 2)
  }
})

it('an unsignaled send is over when the device is done with it, and requests of a reset queue are', () => {
  const w = requestWorld()
  w.end(w.post({ wrId: 7n, isSignaled: false }))
  w.checker.misused(misuse())
  w.post({ wrId: 8n, index: 1 })
  w.checker.requests.forgotten(w.qp)
  w.checker.misused(misuse({ wrId: 8n, index: 0 }))
  assert.deepEqual(w.ids(), [])
})

it('a send that the device has not fetched is found when it does, within a second', () => {
  const w = requestWorld()
  w.checker.misused(misuse())
  assert.deepEqual(w.ids(), [])
  w.post({ wrId: 7n })
  assert.deepEqual(w.ids(), ['buffer-freed error'])
  const late = requestWorld()
  late.checker.misused(misuse())
  late.time(1_000_001)
  late.post({ wrId: 7n })
  assert.deepEqual(late.ids(), [])
  const other = requestWorld()
  other.checker.misused(misuse())
  other.post({ wrId: 8n })
  assert.deepEqual(other.ids(), [])
})

it('memory of a region that is deregistered, or has other addresses, is left out', () => {
  const gone = requestWorld()
  gone.post({ wrId: 7n })
  gone.destroy('mr', gone.region)
  gone.found.length = 0
  gone.checker.misused(misuse())
  assert.deepEqual(gone.ids(), [])
  const moved = requestWorld()
  const LKEY_OF_ZERO = LKEY + 0x100
  moved.register({ start: BigInt(START), iova: 0n, length: 4096n }, LKEY_OF_ZERO)
  moved.post({ wrId: 7n, elements: [{ address: START, length: 64, lkey: LKEY_OF_ZERO }] })
  moved.checker.misused(misuse())
  assert.deepEqual(moved.ids(), [])
})

it('a fork copies private memory of outstanding requests', () => {
  for (const [isCopied, ids] of [
    [true, ['fork-outstanding warning']],
    [undefined, ['fork-outstanding warning']],
    [false, []],
  ] as const) {
    const w = requestWorld({ isCopiedByFork: () => isCopied })
    w.post({ wrId: 7n })
    w.checker.misused(misuse({ kind: FORKED }))
    assert.deepEqual(w.ids(), ids)
  }
})

it("a child's post to its parent's queue is found, also after the parent's requests are over", () => {
  const w = requestWorld()
  const child = { pid: 2, command: 'child' }
  w.checker.misused(misuse({ kind: MisuseKind.INHERITED, program: child }))
  assert.deepEqual(w.ids(), ['context-inherited error'])
  assert.match(
    w.found[0]!.text,
    /^process 2 posts to QP 0x1 of process 1 \(client\), whose context it inherited by fork$/,
  )
})
