/*
 * The trace hub, which sends records of calls to its subscribers.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Dialect } from '../../../src/core/dispatch/dispatch.ts'
import { TraceHub } from '../../../src/daemon/trace/trace-hub.ts'
import { because } from '../../../src/spec/reason.ts'
import type { FailureRecord, TraceRecord } from '../../../src/spec/records.ts'
import { type Answer, type CallerView, isAnswer } from '../../../src/uapi/call.ts'
import { decodeWrite } from '../../../src/uapi/linux/write.ts'
import { ARENA, AT, arena, fakeView } from '../../uapi/fake-view.ts'

const facts = () => ({ pid: 1, tid: 1, fd: 3, command: 'x', device: 'rxe0', dialect: 'ioctl' as const })
const view = {} as CallerView

/** A dialect that answers immediately, with a new descriptor for each attribute. */
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

const listen = (hub: TraceHub, tag = ''): TraceRecord[] => {
  const records: TraceRecord[] = []
  hub.subscribe({ tag, post: record => records.push(record) })
  return records
}

test('a call is recorded immediately for subscribers to its tag and to all tags', () => {
  const hub = new TraceHub(() => 0)
  const dialect = answering()
  assert.equal(
    hub.watch(dialect, 'a', facts, () => []),
    dialect,
    'no subscriber',
  )
  const [all, a, b] = [listen(hub), listen(hub, 'a'), listen(hub, 'b')]
  hub.watch(dialect, 'a', facts, () => [])(view)
  assert.deepEqual([all.length, a.length, b.length], [1, 1, 0])
  assert.equal('descriptors' in all[0], false)
})

test('calls of processes that nobody watches are not wrapped; failures go to the same subscribers as calls', () => {
  const hub = new TraceHub(() => 0)
  const failures: string[] = []
  for (const tag of ['a', ''])
    hub.subscribe({ tag, post: () => {}, postFailure: ({ command }) => failures.push(`${tag}: ${command}`) })
  const failure = (command: string) => ({ command }) as FailureRecord
  hub.postFailure('a', failure('first'))
  hub.postFailure('b', failure('second'))
  assert.deepEqual(failures, ['a: first', ': first', ': second'])

  const other = new TraceHub(() => 0)
  const end = other.subscribe({ tag: 'a', post: () => {} })
  assert.deepEqual([other.isWatched('a'), other.isWatched('b')], [true, false])
  end()
  assert.equal(other.isWatched('a'), false)
})

test('a record has the times of the call, and the reason of its refusal', () => {
  let now = 5_000_000
  const hub = new TraceHub(() => now)
  const records = listen(hub)
  const refusing: Dialect<[]> = () => {
    now += 1.23456
    return { ret: -22, installs: [], reason: because`why` }
  }
  hub.watch(refusing, '', facts, () => [])(view)
  const [{ time, duration, ret, reason }] = records
  assert.deepEqual([time, duration, ret, reason], [performance.timeOrigin + 5000, 1.235, -22, 'why'])
})

test('if the caller cannot get the descriptors, the record is that of a refused call', () => {
  const hub = new TraceHub(() => 0)
  const records = listen(hub)
  const fds = () => assert.fail('there are no descriptors')
  hub.watch(answering('object'), '', facts, fds)(view)
  hub.refuse(fds, { ret: -24, reason: 'too many' })
  hub.settle()
  assert.deepEqual(
    records.map(({ ret, reason, descriptors }) => [ret, reason, descriptors]),
    [[-24, 'too many', undefined]],
  )
})

test('subscribers get the bytes of a call on request, and always the bytes of an undecodable call', () => {
  const hub = new TraceHub(() => 0)
  const [plain, abi]: TraceRecord[][] = [[], []]
  hub.subscribe({ tag: '', post: record => plain.push(record) })
  hub.subscribe({ tag: '', abi: true, post: record => abi.push(record) })
  const memory = fakeView(arena())
  // ALLOC_PD: 4 words, with the pointer to a response of 1 word.
  const command = Uint8Array.from([3, 0, 0, 0, 4, 0, 1, 0, ...new Uint8Array(8)])
  new DataView(command.buffer).setBigUint64(8, ARENA, true)
  memory.memory.map(AT, command)
  const watched = hub.watch(decodeWrite, '', facts, () => [])
  const decoded = watched(memory, AT, 16)
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.answer({ object: 9, out: {} }).ret, 16)
  assert.equal(plain[0].raw, undefined)
  // The addresses are AT and ARENA.
  assert.deepEqual(abi[0].raw, {
    in: [['0x100000', Buffer.from(memory.memory.copyIn(AT, 16)).toString('base64'), 16]],
    out: [['0x200000', Buffer.from([9, 0, 0, 0]).toString('base64'), 4]],
  })

  assert.ok(isAnswer(watched(memory, AT, 12)))
  for (const [, record] of [plain, abi]) {
    assert.equal(record.call, undefined)
    assert.equal(record.attempt, 'ALLOC_PD')
    assert.equal(record.raw?.in[0][2], 12)
  }
})

test('the record of a call that creates descriptors is published when the descriptors have numbers', () => {
  const hub = new TraceHub(() => 0)
  const records = listen(hub)
  // A waiting record is identified by the function that returns its descriptors.
  const fdsOfFirst = () => [5, undefined]
  const fdsOfSecond = () => [9]
  hub.watch(answering('object', 'second'), '', facts, fdsOfFirst)(view)
  hub.watch(answering('object'), '', facts, fdsOfSecond)(view)
  assert.equal(records.length, 0)
  hub.settle(fdsOfFirst)
  const expected = [{ attribute: 'object', fd: 5 }, { attribute: 'second' }]
  assert.deepEqual(
    records.map(({ descriptors }) => descriptors),
    [expected],
  )
  hub.settle()
  assert.deepEqual(records[1].descriptors, [{ attribute: 'object', fd: 9 }])
  hub.settle()
  hub.settle(fdsOfFirst)
  assert.equal(records.length, 2, 'each once')
})
