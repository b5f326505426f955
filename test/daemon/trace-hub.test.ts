import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Dialect } from '../../src/core/dispatch.ts'
import { createTraceHub } from '../../src/daemon/trace-hub.ts'
import type { Answer, CallerView } from '../../src/uapi/call.ts'
import type { TraceRecord } from '../../src/uapi/tool.ts'

const facts = () => ({ pid: 1, tid: 1, fd: 3, command: 'x', device: 'rxe0', dialect: 'ioctl' as const })
const view = {} as CallerView

/** A dialect that answers at once, with so many new descriptors. */
const answering =
  (...attributes: string[]): Dialect<[]> =>
  () => {
    const installs = attributes.map((attribute, object) => ({
      descriptor: { object, attribute },
      address: 0n,
      width: 4 as const,
    }))
    return { ret: 0, installs } satisfies Answer
  }

const listen = (hub: ReturnType<typeof createTraceHub>, tag = ''): TraceRecord[] => {
  const heard: TraceRecord[] = []
  hub.subscribe({ tag, post: record => heard.push(record) })
  return heard
}

test('a call is told at once, to those who watch its program', () => {
  const hub = createTraceHub(() => 0)
  const dialect = answering()
  assert.equal(
    hub.watch(dialect, 'a', facts, () => []),
    dialect,
    'nobody watches',
  )
  const [all, a, b] = [listen(hub), listen(hub, 'a'), listen(hub, 'b')]
  hub.watch(dialect, 'a', facts, () => [])(view)
  assert.deepEqual([all.length, a.length, b.length], [1, 1, 0])
  assert.equal('descriptors' in all[0], false)
})

test('a call that makes descriptors is told when their numbers are known', () => {
  const hub = createTraceHub(() => 0)
  const heard = listen(hub)
  const one = () => [5, undefined]
  const other = () => [9]
  hub.watch(answering('object', 'second'), '', facts, one)(view)
  hub.watch(answering('object'), '', facts, other)(view)
  assert.equal(heard.length, 0)
  hub.settle(one)
  const expected = [{ attribute: 'object', fd: 5 }, { attribute: 'second' }]
  assert.deepEqual(
    heard.map(({ descriptors }) => descriptors),
    [expected],
  )
  hub.settle()
  assert.deepEqual(heard[1].descriptors, [{ attribute: 'object', fd: 9 }])
  hub.settle()
  hub.settle(one)
  assert.equal(heard.length, 2, 'each once')
})
