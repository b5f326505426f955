import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { formatFaults, hasFaults, noFaults, parseFaults } from '../../src/phy/fault-spec.ts'

describe('fault specification', () => {
  it('reads rates, milliseconds and a seed', () => {
    assert.deepEqual(parseFaults('drop=0.01,dup=.02,reorder=0.5,corrupt=1,delay=2.5,jitter=1,seed=7'), {
      drop: 0.01,
      dup: 0.02,
      reorder: 0.5,
      corrupt: 1,
      delay: 2.5,
      jitter: 1,
      seed: 7,
    })
    assert.deepEqual(parseFaults(' drop = 0.5 , seed = 3 '), { ...noFaults, drop: 0.5, seed: 3 })
    assert.deepEqual(parseFaults(''), noFaults)
  })

  it('says what was wrong, with which value, and what is allowed', () => {
    const refused: [string, RegExp][] = [
      ['drop=2', /drop: "2" is not a share from 0 to 1/],
      ['drop=-0.1', /drop: "-0\.1" is not a share/],
      ['dup=1%', /dup: "1%" is not a share/],
      ['corrupt=0x1', /corrupt: "0x1"/],
      ['drop=1e-2', /drop: "1e-2"/],
      ['delay=20000', /delay: "20000" is not milliseconds from 0 to 10000/],
      ['seed=1.5', /seed: "1\.5" is not an integer/],
      ['loss=0.1', /no "loss"; there are drop, dup, reorder, corrupt, delay, jitter, seed/],
      ['drop', /write drop=VALUE, where VALUE is a share/],
      ['drop=', /write drop=VALUE/],
      ['drop=1=1', /write drop=VALUE/],
      ['drop=0.1,', /there is no ""/],
      ['drop=0.1,drop=0.2', /drop: given twice, as 0\.1 and as 0\.2/],
      ['jitter=1', /jitter=1: more than delay=0/],
    ]
    for (const [text, message] of refused) assert.throws(() => parseFaults(text), message, text)
  })

  it('text and record are inverse', () => {
    const share = fc.integer({ min: 0, max: 1000 }).map(n => n / 1000)
    const spec = fc
      .record({
        drop: share,
        dup: share,
        reorder: share,
        corrupt: share,
        delay: fc.integer({ min: 0, max: 10000 }),
        jitter: fc.integer({ min: 0, max: 10000 }),
        seed: fc.nat(),
      })
      .map(s => ({ ...s, jitter: Math.min(s.jitter, s.delay) }))
    fc.assert(fc.property(spec, s => assert.deepEqual(parseFaults(formatFaults(s)), s)))
    assert.equal(formatFaults(noFaults), '')
    assert.equal(hasFaults(parseFaults('seed=5')), false)
    assert.equal(hasFaults(parseFaults('delay=1')), true)
  })
})
