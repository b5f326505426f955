/*
 * bench/harness/harness.ts, with simulated measurements and a simulated noise probe.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  digits,
  judge,
  measure,
  median,
  type NoiseSample,
  type Row,
  table,
  Unavailable,
} from '../../../bench/harness/harness.ts'

const quiet: NoiseSample = { quiet: true, text: 'quiet' }
const noisy: NoiseSample = { quiet: false, text: 'noisy' }
const silent = (): void => {}

/** A row with default members: 3 ns against a reference of 4 ns. */
const row = (members: Partial<Row>): Row => ({
  name: 'row',
  quantity: 'a quantity',
  unit: 'ns',
  better: 'lower',
  cores: 0,
  reference: 'a reference',
  floor: 1,
  aim: 0.5,
  prepare: () => ({ ours: () => 3, reference: () => 4 }),
  ...members,
})

/** A measurement that returns these values one after the other, then always the last one. */
const values = (...list: number[]) => {
  let next = 0
  return () => list[Math.min(next++, list.length - 1)]
}

describe('median', () => {
  it('is the middle value, in any order', () => assert.equal(median([9, 1, 5]), 5))
  it('is the mean of the two middle values if their number is even', () => assert.equal(median([1, 9, 3, 5]), 4))
})

describe('judge', () => {
  it('treats limits as upper bounds if lower is better', () => {
    const limits = { better: 'lower', floor: 4, aim: 1.5 } as const
    assert.deepEqual(
      [1.5, 1.6, 4, 4.1].map(ratio => judge(limits, ratio)),
      ['aim reached', 'floor met', 'floor met', 'floor missed'],
    )
  })
  it('treats limits as lower bounds if higher is better', () => {
    const limits = { better: 'higher', floor: 0.6, aim: 0.9 } as const
    assert.deepEqual(
      [0.9, 0.8, 0.6, 0.5].map(ratio => judge(limits, ratio)),
      ['aim reached', 'floor met', 'floor met', 'floor missed'],
    )
  })
})

describe('digits', () => {
  it('keeps three significant digits of numbers of any size', () => {
    assert.deepEqual([0, 0.04217, 0.9999, 5.138, 121.6, 99999].map(digits), [
      '0',
      '0.0422',
      '1.00',
      '5.14',
      '122',
      '100000',
    ])
  })
})

describe('measure', () => {
  it('judges by the median of the rounds’ ratios, not by the ratio of the medians', async () => {
    // The first values belong to the warm-up. The rounds' ratios are 0.5, 0.5, 2, 0.5, 2.
    const bench = { ours: values(99, 1, 2, 8, 4, 8), reference: values(99, 2, 4, 4, 8, 4) }
    const outcome = await measure(row({ prepare: () => bench }), () => quiet, silent)
    assert.equal(outcome.rounds.length, 5)
    assert.equal(outcome.ratio, 0.5)
    assert.equal(outcome.verdict, 'aim reached')
  })

  it('alternates which side goes first', async () => {
    const order: string[] = []
    const side = (name: string) => () => order.push(name)
    await measure(row({ prepare: () => ({ ours: side('o'), reference: side('r') }) }), () => quiet, silent)
    // The warm-up, then five rounds.
    assert.equal(order.join(''), 'or or ro or ro or'.replaceAll(' ', ''))
  })

  it('repeats noisy rounds and leaves them out of the result', async () => {
    // Before and after the first round; then always quiet.
    const probes = [noisy, quiet]
    const bench = { ours: values(1, 100, 1), reference: () => 1 }
    const outcome = await measure(row({ prepare: () => bench }), () => probes.shift() ?? quiet, silent)
    assert.deepEqual(
      outcome.rounds.map(round => round.quiet),
      [false, true, true, true, true, true],
    )
    assert.deepEqual([outcome.ours, outcome.noisy], [1, 0])
  })

  it('counts all rounds if the machine stays noisy, later without a reference, and notes it in the table', async () => {
    const outcome = await measure(row({}), () => noisy, silent)
    // Twice the wanted five rounds are the maximum.
    assert.deepEqual([outcome.rounds.length, outcome.noisy, outcome.ratio], [10, 10, 0.75])
    assert.match(table([outcome])[1], /floor met, 10 of 10 rounds noisy$/)
    const alone = await measure(row({ prepare: () => ({ ours: () => 3 }) }), () => noisy, silent)
    assert.equal(alone.rounds.length, 40)
  })

  it('judges a row without a reference by its value', async () => {
    const outcome = await measure(row({ rounds: 1, prepare: () => ({ ours: () => 0.7 }) }), () => quiet, silent)
    assert.deepEqual([outcome.rounds.length, outcome.ratio, outcome.reference], [1, 0.7, undefined])
    assert.equal(outcome.verdict, 'floor met')
  })

  it('judges a row with `isJudgedByValue` by its value, not by its ratio', async () => {
    const bench = { ours: () => 0.7, reference: () => 0.5 }
    const outcome = await measure(row({ rounds: 1, isJudgedByValue: true, prepare: () => bench }), () => quiet, silent)
    assert.equal(outcome.verdict, 'floor met')
  })

  it('prints every round', async () => {
    const lines: string[] = []
    await measure(
      row({}),
      () => quiet,
      line => lines.push(line),
    )
    assert.equal(lines.filter(line => /round \d: ours 3\.00 ns, reference 4\.00 ns, ratio 0\.750/.test(line)).length, 5)
  })

  it('notes the reason and cleans up if a row cannot be measured', async () => {
    const missing = () => {
      throw new Unavailable('ib_write_bw is not installed')
    }
    const before = await measure(row({ prepare: missing }), () => quiet, silent)
    assert.deepEqual([before.verdict, before.note], ['not measured', 'ib_write_bw is not installed'])
    let closed = 0
    const bench = { ours: missing, close: () => void closed++ }
    const during = await measure(row({ prepare: () => bench }), () => quiet, silent)
    assert.deepEqual([during.verdict, closed], ['not measured', 1])
    assert.match(table([during])[1], /not measured \(ib_write_bw is not installed\)$/)
  })
})
