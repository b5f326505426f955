/*
 * The race engine, in virtual time.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MAX_SLOTS } from '../../../../src/tools/check/races/clock.ts'
import { MAX_CLOCKS, MAX_FENCED, MAX_IN_FLIGHT, Races } from '../../../../src/tools/check/races/races.ts'
import { AccessKind } from '../../../../src/tools/check/races/shadow.ts'
import { collectGarbage } from '../../../tools.ts'
import { aroundWord3, data1, data3, otherData3, result1, result2, word3 } from './buffers.ts'
import { cases } from './cases.ts'
import { script } from './script.ts'

const findingsOf = ({ run }: (typeof cases)[number]): string[] => {
  const steps = script()
  run(steps)
  return [...new Set(steps.races.map(({ id }) => id))]
}

describe('races: cases', () => {
  for (const one of cases)
    it(one.name, () => assert.deepEqual(findingsOf(one), one.race === undefined ? [] : [one.race]))
})

// `found` lists a proven race as `race!`, another one as `race`.
describe('races', () => {
  it('are proven if one thread posts both requests without a wait between, whenever the device fetches them', () => {
    for (const isLate of [false, true]) {
      const s = script()
      for (let i = 0; i < 2; i++) s.write(1, s.qp(), undefined, data3, { isLate })
      s.fetch()
      assert.deepEqual(s.found, ['race!'])
    }
  })

  it('are not proven if the thread may know that the first request is complete', () => {
    const waited = script()
    waited.write(1, waited.qp(), undefined, data3)
    waited.wait(1)
    waited.write(1, waited.qp(), undefined, data3)
    assert.deepEqual(waited.found, ['race'])
    const polledByOther = script()
    polledByOther.poll(2, polledByOther.write(1, polledByOther.qp(), undefined, data3))
    polledByOther.write(1, polledByOther.qp(), undefined, data3)
    assert.deepEqual(polledByOther.found, ['race'])
    for (const isLate of [false, true]) {
      const otherThread = script()
      for (const thread of [1, 2]) otherThread.write(thread, otherThread.qp(), undefined, data3, { isLate })
      otherThread.fetch()
      assert.deepEqual(otherThread.found, ['race'])
    }
  })

  it('of two words, with an atomic or with a receive are never proven', () => {
    const words = script()
    for (let i = 0; i < 2; i++) words.write(1, words.qp(), undefined, word3)
    assert.deepEqual(words.found, ['race'])
    const atomic = script()
    atomic.atomic(1, atomic.qp(), word3, result1)
    atomic.write(1, atomic.qp(), undefined, aroundWord3)
    assert.deepEqual(atomic.found, ['atomic-mixed-with-write'])
    const receiveSecond = script()
    const secondReceive = receiveSecond.receive(1)
    receiveSecond.send(1, receiveSecond.qp(), data1)
    receiveSecond.deliver(receiveSecond.send(2, receiveSecond.qp()), receiveSecond.qp(), secondReceive, data1)
    assert.deepEqual(receiveSecond.found, ['buffer-reused'])
    const receiveFirst = script()
    const firstReceive = receiveFirst.receive(1)
    receiveFirst.write(1, receiveFirst.qp(), data1, data3, { isLate: true })
    receiveFirst.deliver(receiveFirst.send(2, receiveFirst.qp()), receiveFirst.qp(), firstReceive, data1)
    receiveFirst.fetch()
    assert.deepEqual(receiveFirst.found, ['buffer-reused'])
  })

  it('are not ordered by a flag that the second thread writes, nor by a read that may have returned the old flag', () => {
    const s = script()
    const [one, two] = [s.qp(), s.qp()]
    s.poll(1, s.write(1, one, undefined, data3))
    s.write(1, one, undefined, word3)
    s.poll(2, s.write(2, two, undefined, word3))
    s.write(2, two, undefined, data3)
    assert.equal(s.races.length, 2)
    const reader = script()
    const [writing, reading] = [reader.qp(), reader.qp()]
    reader.write(1, writing, undefined, word3)
    reader.poll(2, reader.read(2, reading, word3, result2))
    reader.write(2, reading, undefined, aroundWord3)
    assert.deepEqual(
      reader.races.map(({ first, second }) => [first.request.info, second.request.info]),
      [
        ['WRITE', 'READ'],
        ['WRITE', 'WRITE'],
      ],
    )
  })

  it('have both requests and the shared bytes', () => {
    const s = script()
    s.write(1, s.qp(), undefined, [3, 0x3000, 64])
    s.read(2, s.qp(), [3, 0x3020, 64], data1)
    const [{ first, second, start, end } = assert.fail()] = s.races
    assert.deepEqual([first.request.info, second.request.info], ['WRITE', 'READ'])
    assert.deepEqual([start, end], [0x3020, 0x3040])
  })

  it('a pair of requests that share several intervals is reported once', () => {
    const s = script()
    const qp = s.qp()
    s.write(1, qp, undefined, [3, 0x3000, 64])
    s.poll(1, s.read(1, qp, [3, 0x3010, 8], data1))
    s.write(2, s.qp(), undefined, [3, 0x3000, 64])
    assert.deepEqual(s.races.map(({ first }) => first.request.info).sort(), ['READ', 'WRITE'])
  })

  it('if a queue has no slot in clocks, all threads know what one thread knows about the queue', () => {
    const s = script()
    for (let i = 0; i < MAX_SLOTS; i++) s.qp()
    s.poll(1, s.write(1, s.qp(), undefined, data3))
    s.write(2, s.qp(), undefined, data3)
    assert.deepEqual(s.found, [])
    s.write(1, s.qp(), undefined, otherData3)
    s.write(2, s.qp(), undefined, otherData3)
    assert.deepEqual(s.found, ['race'], 'no thread has polled the completion')
  })

  it('a queue that gets the slot of a closed queue has no completed requests', () => {
    const s = script()
    const gone = s.qp()
    s.poll(1, s.send(1, gone), s.send(1, gone))
    s.engine.close(gone.sends)
    s.write(1, s.qp(), undefined, data3)
    s.write(1, s.qp(), undefined, data3)
    assert.equal(s.races.length, 1)
  })

  it('intervals beyond the maximum are forgotten, and counted', () => {
    let omitted = 0
    const omit = (_: string, count: number): void => {
      omitted += count
    }
    const engine = new Races<string>(() => {}, omit, 1000)
    engine.open(1, true)
    const region = { isDeregistered: false }
    for (let i = 0; i < 3000; i++) {
      const stamp = engine.post(1, i, 0)
      const range = { space: i % 3, start: i * 16, end: i * 16 + 8, kind: AccessKind.WRITE, region }
      engine.fetch(1, stamp, { kind: 'WRITE', isFenced: false, ranges: [range] }, '')
    }
    assert.ok(omitted >= 2000 && omitted < 3000, String(omitted))
  })

  it('an ended request is not kept after a later access to its memory, even if it raced', async () => {
    const s = script()
    const [qp, other] = [s.qp(), s.qp()]
    const raceTenTimes = (): WeakRef<object> => {
      const first = s.write(1, qp, undefined, data3)
      for (let i = 0; i < 10; i++) s.write(1, i % 2 === 0 ? other : qp, undefined, data3)
      return new WeakRef(first)
    }
    const first = raceTenTimes()
    assert.equal(s.races.length, 10)
    s.poll(1, s.send(1, other), s.send(1, qp))
    s.races.length = 0
    // A WeakRef keeps its target until the current job ends.
    await new Promise(setImmediate)
    collectGarbage()
    assert.equal(first.deref(), undefined)
  })

  it('a READ before more fenced requests than are remembered causes no finding', () => {
    const s = script()
    const qp = s.qp()
    s.read(1, qp, data3, data1)
    for (let i = 0; i <= MAX_FENCED; i++) s.send(1, qp, undefined, { isFenced: true })
    s.write(2, s.qp(), undefined, data3)
    assert.deepEqual(s.found, [])
  })

  it('requests with unpolled completions are forgotten, and cause no finding', () => {
    const s = script()
    const [qp, other] = [s.qp(), s.qp()]
    s.write(1, qp, undefined, data3)
    for (let i = 0; i < Math.max(MAX_IN_FLIGHT, MAX_CLOCKS); i++) s.send(1, qp)
    s.write(1, other, undefined, data3)
    assert.deepEqual(s.found, [])
  })
})
