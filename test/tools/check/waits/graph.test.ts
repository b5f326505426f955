/*
 * Who waits for whom: which graphs of threads have a cycle or an end, and that whatever may go on is none.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { GraphProcess, GraphThread } from '../../../../src/spec/check/thread-waits.ts'
import { waitGraph, waitGraphs } from '../../../../src/tools/check/waits/graph.ts'
import { deadlockText, waitLines } from '../../../../src/tools/check/waits/wait-lines.ts'

const thread = (pid: number, tid: number, fields: Partial<GraphThread>): GraphThread => ({
  pid,
  command: 'program',
  tid,
  kind: 'mutex',
  object: 'mutex 0x10',
  action: 'waits for mutex 0x10',
  stack: [],
  since: 0,
  enders: [],
  process: false,
  isOpen: false,
  ...fields,
})

const process = (pid: number, threads: readonly GraphThread[], others = 0, command = 'program'): GraphProcess => ({
  pid,
  command,
  threads,
  others,
})

const join = (pid: number, tid: number, joined: number): GraphThread =>
  thread(pid, tid, {
    kind: 'join',
    object: `thread ${joined}`,
    action: `joins thread ${joined}`,
    enders: [{ pid, tid: joined }],
  })
const events = (pid: number, tid: number): GraphThread =>
  thread(pid, tid, {
    kind: 'async-event',
    action: 'waits in ibv_get_async_event of rxe0',
    process: true,
    reason: 'no event is on its way',
  })
const polls = (pid: number, tid: number, peer: number): GraphThread =>
  thread(pid, tid, { kind: 'poll', action: 'polls CQ 1', process: true, enders: [{ pid: peer }] })

const tidsOf = (processes: readonly GraphProcess[]): readonly number[] => {
  const { first, threads } = waitGraph(processes)
  return first.map(i => threads[i]!.tid)
}

test('a join of a thread that reads events is a chain with an end', () => {
  const processes = [process(1, [join(1, 1, 2), events(1, 2)])]
  const graph = waitGraph(processes)
  assert.equal(graph.shape, 'end')
  assert.deepEqual(tidsOf(processes), [1, 2])
  assert.equal(
    deadlockText(graph),
    'a wait has no end: the main thread joins thread 2; thread 2 waits in ibv_get_async_event of rxe0; no event is on its way',
  )
  assert.deepEqual(waitLines(graph), [
    'the main thread joins thread 2',
    'thread 2 waits in ibv_get_async_event of rxe0: no event is on its way',
  ])
  // of a finding about another process
  assert.match(waitLines(graph, 7)[0]!, /^the main thread of process 1 \(.*\) joins thread 2$/)
})

test('it is none while another thread of the program runs, or waits for a client', () => {
  const threads = [join(1, 1, 2), events(1, 2)]
  assert.equal(waitGraph([process(1, threads, 1)]).shape, 'open')
  const listener = thread(1, 3, { kind: 'cm-event', isOpen: true })
  assert.equal(waitGraph([process(1, [...threads, listener])]).shape, 'open')
})

test('a thread that waits for its own mutex waits for itself', () => {
  const graph = waitGraph([process(1, [thread(1, 5, { enders: [{ pid: 1, tid: 5 }] })], 3)])
  assert.equal(graph.shape, 'cycle')
  assert.equal(deadlockText(graph), 'a thread waits for itself: thread 5 waits for mutex 0x10')
})

test('two mutexes are a cycle, whatever else runs', () => {
  const threads = [thread(1, 2, { enders: [{ pid: 1, tid: 3 }] }), thread(1, 3, { enders: [{ pid: 1, tid: 2 }] })]
  assert.equal(waitGraph([process(1, threads, 4), process(9, [], 1, 'other')]).shape, 'cycle')
  assert.deepEqual(tidsOf([process(1, threads, 4)]), [2, 3])
})

test('a thread that a running thread could let go waits for nobody', () => {
  const threads = [thread(1, 2, { enders: [{ pid: 1, tid: 3 }] }), thread(1, 4, { enders: [{ pid: 1, tid: 2 }] })]
  assert.equal(waitGraph([process(1, threads, 1)]).shape, 'open')
})

test('processes in a ring are a cycle, if they and all programs with them stand still', () => {
  const ring = (others: number): readonly GraphProcess[] => [
    process(1, [polls(1, 1, 2)]),
    process(2, [polls(2, 2, 3)]),
    process(3, [polls(3, 3, 1)], others),
  ]
  assert.equal(waitGraph(ring(0)).shape, 'cycle')
  assert.deepEqual(tidsOf(ring(0)), [1, 2, 3])
  assert.equal(waitGraph(ring(1)).shape, 'open')
  // Of the same program, though it is not connected: they may share memory.
  assert.equal(waitGraph([...ring(0), process(4, [], 1)]).shape, 'open')
  assert.equal(waitGraph([...ring(0), process(4, [], 1, 'other')]).shape, 'cycle')
})

test('a peer of which nothing is known may send', () => {
  assert.equal(waitGraph([process(1, [join(1, 1, 2), polls(1, 2, 77)])]).shape, 'open')
})

test('a loop that polls alone is what other findings say', () => {
  assert.equal(waitGraph([process(1, [thread(1, 1, { kind: 'poll', process: true })])]).shape, 'open')
})

test('thousands of threads are bounded, and those of the cycle are kept', () => {
  const many = Array.from({ length: 10_000 }, (_, i) => thread(1, 100 + i, { kind: 'condition', process: true }))
  const cycle = [thread(1, 2, { enders: [{ pid: 1, tid: 3 }] }), thread(1, 3, { enders: [{ pid: 1, tid: 2 }] })]
  const graph = waitGraph([process(1, [...many, ...cycle])])
  assert.equal(graph.shape, 'cycle')
  assert.deepEqual(
    graph.threads.slice(0, 2).map(({ tid }) => tid),
    [2, 3],
  )
  assert.equal(graph.threads.length + graph.more, 10_002)
})

test('programs that stand still for different reasons have a graph each', () => {
  const [all, ...further] = waitGraphs([
    process(1, [join(1, 1, 2), events(1, 2)]),
    process(3, [{ ...polls(3, 3, 4), command: 'ring' }], 0, 'ring'),
    process(4, [{ ...polls(4, 4, 3), command: 'ring' }], 0, 'ring'),
    process(5, [thread(5, 5, { isOpen: true })]),
  ])
  assert.equal(all.threads.length, 5)
  assert.deepEqual(
    [all, ...further].map(({ shape, first, threads }) => [shape, first.map(i => threads[i]!.pid)]),
    [
      ['cycle', [3, 4]],
      ['end', [1, 1]],
    ],
  )
  assert.deepEqual(
    further.map(({ threads }) => threads.map(({ tid }) => tid)),
    [[1, 2]],
  )
})
