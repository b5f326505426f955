/*
 * What a device of EFA does not look at: of many queue pairs and packets in flight, only those with something to do.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ScanScope } from '../../../src/core/driver-contract.ts'
import { EfaOperation } from '../../../src/spec/drivers/efa-queues.ts'
import { completionsOf } from '../machine.ts'
import { machine, program } from './machine.ts'

const { SEND } = EfaOperation
const COUNT = 100

/** Counts the reads of properties of `objects` from now on; `end` stops counting. */
const countReads = <T extends object>(objects: Iterable<T>, names: readonly (keyof T)[]) => {
  const counter = { reads: 0, end() {} }
  for (const object of objects)
    for (const name of names) {
      let value = object[name]
      Object.defineProperty(object, name, {
        configurable: true,
        get() {
          counter.reads++
          return value
        },
        set(next: typeof value) {
          value = next
        },
      })
    }
  return counter
}

test('the next timeout, and a poll that has nothing to do, look at no packet in flight and at no request that waits', () => {
  const m = machine(2, 'drop=0')
  const [a, b] = [program(m, 0), program(m, 1)]
  const ah = a.handleOf(1)
  b.handleOf(0)
  const device = m.devices[0]!
  // half of them are not answered, as the other device is not polled any more; half of them wait for a receive
  for (let id = 0; id < COUNT; id++) a.post({ id, operation: SEND, ah, qpn: b.qpn, offset: 0, length: 8 })
  for (let turn = 0; turn < 4; turn++) for (const one of m.devices) one.poll(m.time.now)
  for (let id = 0; id < COUNT; id++) a.post({ id, operation: SEND, ah, qpn: b.qpn + 1 + id, offset: 0, length: 8 })
  device.poll(m.time.now)
  const pairs = [...a.state.pairs.values()]
  assert.equal(pairs.length, COUNT + 1)
  assert.equal(a.state.active.size, 2 * COUNT)
  const counter = countReads(pairs, ['dueAt', 'inFlight', 'refused', 'queue', 'requests'])
  const waiting = countReads(a.state.active.values(), ['isWaiting', 'heardAt', 'timer'])
  const due = device.nextTimeout()
  assert.ok(due > m.time.now && due < Number.POSITIVE_INFINITY)
  device.poll(m.time.now)
  assert.deepEqual([counter.reads, waiting.reads], [0, 0])
  // and all end
  for (let id = 0; id < COUNT; id++) b.receive(id, 0, 64)
  completionsOf(m, a, 2 * COUNT)
})

test('a poll looks only at the queue pairs whose programs have rung', () => {
  const m = machine(1)
  const programs = Array.from({ length: COUNT }, () => program(m, 0, { bytes: 4096, entries: 16 }))
  const device = m.devices[0]!
  for (let turn = 0; turn < 40; turn++) device.poll(turn)
  const counter = countReads(
    programs.map(({ state }) => state),
    ['send', 'receive', 'state'],
  )
  for (const scope of [ScanScope.CHANGED, ScanScope.USED, ScanScope.ALL, ScanScope.BEGIN]) device.poll(100, scope)
  assert.equal(counter.reads, 0)
  programs[7]!.receive(1, 0, 64)
  device.poll(101)
  assert.ok(counter.reads > 0 && counter.reads < 20, `${counter.reads} reads`)
})
