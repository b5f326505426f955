import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type VirtualTimer, VirtualTimers } from '../../../../src/library/network/virtual/timers.ts'

test('timers fire in the order of their times, and those of one time in the order in which they were set', () => {
  const steps = fc.array(
    fc.oneof(
      { weight: 4, arbitrary: fc.record({ due: fc.nat(20) }) },
      fc.record({ stop: fc.nat(99) }),
      fc.constant({ fire: true }),
    ),
    { maxLength: 200, size: 'max' },
  )
  fc.assert(
    fc.property(steps, list => {
      const timers = new VirtualTimers()
      const set: VirtualTimer[] = []
      const fired: VirtualTimer[] = []
      const waiting = (): VirtualTimer[] => set.filter(({ callback }) => callback !== undefined)
      const fire = (): void => {
        const { first } = timers
        const [expected] = waiting().sort((a, b) => a.due - b.due || a.sequence - b.sequence)
        assert.equal(first, expected)
        if (first === undefined) return
        timers.take(first)()
        assert.equal(fired.at(-1), first)
      }
      for (const step of list)
        if ('due' in step) {
          const timer: VirtualTimer = timers.set(step.due, 'device', () => fired.push(timer))
          set.push(timer)
        } else if ('stop' in step) {
          const timer = set[step.stop]
          if (timer !== undefined) timers.stop(timer)
        } else fire()
      while (timers.first !== undefined) fire()
      assert.equal(waiting().length, 0)
      assert.equal(timers.counts.device, 0)
    }),
  )
})

test('stopped timers do not accumulate', () => {
  const timers = new VirtualTimers()
  const late = timers.set(1e9, 'program', () => {})
  for (let i = 0; i < 100_000; i++) timers.stop(timers.set(1e8, 'program', () => {}))
  assert.equal(timers.first, late)
  assert.ok(timers.size < 5000, String(timers.size))
})
