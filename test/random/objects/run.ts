/*
 * Runs random programs on core. fast-check shrinks a failing program to a few steps.
 */
import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { Op } from './carriers/carrier.ts'
import { coreCarrier } from './carriers/core-carrier.ts'
import { run } from './random-program.ts'

const nameOf = (op: Op): string => {
  if (op.do === 'call') return `${op.cls.name}.${op.methodName} ${op.fd ?? op.object}`
  return op.do === 'chain' ? `chain of ${op.entries.length}` : op.do
}

/** Numbers of calls. */
interface Tally {
  made: number
  succeeded: number
}

/** Runs one program; `seeds` are the seeds of its steps. */
const runOnCore = (seeds: readonly number[], tally: Tally): void => {
  const { facts, perform } = coreCarrier()
  const steps = run(facts, seeds)
  const done: string[] = []
  try {
    for (let next = steps.next(); !next.done; ) {
      if (next.value.do !== 'compare') done.push(nameOf(next.value))
      const isCall = next.value.do === 'call'
      const answer = perform(next.value)
      if (isCall) tally.made++
      if (isCall && answer.code === 'ok') tally.succeeded++
      next = steps.next(answer)
    }
  } catch (error) {
    throw new Error(`after ${done.slice(-12).join(', ')}: ${(error as Error).message}`, { cause: error })
  }
}

/**
 * Runs `count` programs of 1 to 250 steps; fast-check prints the seeds of a failing program. Asserts that most calls
 * succeed.
 */
export const checkPrograms = (count: number): void => {
  const steps = fc.array(fc.nat(0x7fff_ffff), { minLength: 1, maxLength: 250, size: 'max' })
  const tally: Tally = { made: 0, succeeded: 0 }
  fc.assert(
    fc.property(steps, seeds => runOnCore(seeds, tally)),
    { numRuns: count },
  )
  const { made, succeeded } = tally
  assert.ok(succeeded > made / 2, `only ${succeeded} of ${made} calls succeeded`)
}
