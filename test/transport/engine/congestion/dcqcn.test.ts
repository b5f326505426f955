/*
 * DCQCN's rates against the equations of the paper, written down once more step by step, and the pacing of bytes.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import {
  allowance,
  bytesPerMicrosecond,
  createRateControl,
  cutRate,
  dcqcnParameters,
  forgetRate,
  nextSend,
  rateOf,
  spend,
} from '../../../../src/transport/engine/congestion/dcqcn.ts'

const LINE = bytesPerMicrosecond(40e9)
const ROW = 3

const nearly = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) <= 1e-9 * Math.max(1, expected), `${actual} is not ${expected}`)

describe('the rate of a row', () => {
  it('is line rate, without limit, until a CNP comes', () => {
    const rates = createRateControl(dcqcnParameters(LINE, 0))
    assert.equal(rateOf(rates, ROW, 5), LINE)
    assert.equal(allowance(rates, ROW, 5), Number.POSITIVE_INFINITY)
    spend(rates, ROW, 1e9, 5)
    assert.equal(allowance(rates, ROW, 5), Number.POSITIVE_INFINITY)
  })

  it('is halved by the first CNP, recovers half of the distance in each of five steps, and then rises additively', () => {
    const rates = createRateControl(dcqcnParameters(LINE, 0))
    cutRate(rates, ROW, 1000)
    let rate = LINE / 2
    nearly(rateOf(rates, ROW, 1000), rate)
    let target = LINE
    cutRate(rates, ROW, 1010)
    // alpha is still 1: it rises by 1/256 of the distance to 1
    target = rate
    rate /= 2
    for (let step = 1; step <= 40; step++) {
      const at = 1010 + step * 55
      nearly(rateOf(rates, ROW, at - 0.001), rate)
      if (step >= 5) target += 5
      rate = (rate + target) / 2
      nearly(rateOf(rates, ROW, at), rate)
    }
  })

  it('is cut less if CNPs are rare, because alpha decays, and is forgotten with the queue pair', () => {
    const rates = createRateControl(dcqcnParameters(LINE, 0))
    cutRate(rates, ROW, 0)
    // long enough to be at line rate again
    const rare = 55 * 2000
    assert.equal(rateOf(rates, ROW, rare), LINE)
    assert.equal(allowance(rates, ROW, rare), Number.POSITIVE_INFINITY)
    cutRate(rates, ROW, rare)
    nearly(rateOf(rates, ROW, rare), LINE * (1 - (255 / 256) ** 2000 / 2))
    forgetRate(rates, ROW)
    assert.equal(rateOf(rates, ROW, rare), LINE)
    cutRate(rates, ROW, rare)
    nearly(rateOf(rates, ROW, rare), LINE / 2)
  })

  it('takes steps by sent bytes too, and hyper increase once both have taken more than five', () => {
    const rates = createRateControl(dcqcnParameters(LINE, 0))
    for (let i = 0; i < 6; i++) cutRate(rates, ROW, 0)
    let target = LINE / 32
    let rate = LINE / 64
    for (let step = 1; step <= 7; step++) {
      spend(rates, ROW, 10e6, 0)
      if (step >= 5) target += 5
      rate = (rate + target) / 2
    }
    nearly(rates.rate[ROW], rate)
    for (let step = 1; step <= 7; step++) {
      target += step <= 5 ? 5 : 50 * (step - 5)
      rate = (rate + target) / 2
    }
    nearly(rateOf(rates, ROW, 7 * 55), rate)
  })

  it('stays between the minimum and line rate, whatever happens', () => {
    const event = fc.record({
      wait: fc.double({ min: 0, max: 5000, noNaN: true }),
      isCut: fc.boolean(),
      bytes: fc.nat(2e7),
    })
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60, size: 'max' }), events => {
        const rates = createRateControl(dcqcnParameters(LINE, 0))
        let now = 0
        for (const { wait, isCut, bytes } of events) {
          now += wait
          if (isCut) cutRate(rates, ROW, now)
          if (allowance(rates, ROW, now) > 0) spend(rates, ROW, bytes, now)
          const rate = rateOf(rates, ROW, now)
          assert.ok(rate >= LINE / 1000 && rate <= LINE)
        }
      }),
      { seed: 1 },
    )
  })
})

describe('pacing', () => {
  it('lets bytes pass at the rate: after so many bytes, the next ones wait', () => {
    const rates = createRateControl(dcqcnParameters(LINE, 0))
    cutRate(rates, ROW, 0)
    assert.equal(allowance(rates, ROW, 0), 1)
    spend(rates, ROW, 25_000, 0)
    nearly(nextSend(rates, ROW), 25_000 / (LINE / 2))
    assert.equal(allowance(rates, ROW, nextSend(rates, ROW) - 0.001), 0)
    assert.equal(allowance(rates, ROW, nextSend(rates, ROW)), 1)
  })

  it('lets a row catch up after a delay of at most `burst`', () => {
    const rates = createRateControl(dcqcnParameters(LINE, 20))
    cutRate(rates, ROW, 0)
    spend(rates, ROW, 1, 0)
    nearly(allowance(rates, ROW, 40), 20 * (LINE / 2))
    spend(rates, ROW, 20 * (LINE / 2), 40)
    nearly(nextSend(rates, ROW), 40)
  })
})
