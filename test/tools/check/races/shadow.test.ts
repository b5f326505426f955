/*
 * Shadow memory is compared with a model that stores the accesses of each byte.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Clock } from '../../../../src/tools/check/races/clock.ts'
import { type Access, AccessKind, isWord, isWrite, Shadow } from '../../../../src/tools/check/races/shadow.ts'

interface Request {
  readonly queue: object
}
type TestAccess = Access<Request>

const region = { isDeregistered: false }
const queues = [{}, {}, {}]
const SPACES = 2
const BYTES = 24

const accessOf = (kind: number, start: number, end: number, { space = 0, queue = 0 } = {}): TestAccess => ({
  range: { space, start, end, kind, region },
  request: { queue: queues[queue]! },
})

/** A shadow memory; `access` returns the interval, and the earlier accesses to bytes of the range. */
const shadowOf = (max?: number) => {
  const omitted: [id: string, count: number][] = []
  const shadow = new Shadow<Request>((id, count) => omitted.push([id, count]), max)
  const access = (added: TestAccess) => {
    const earlier = new Set<TestAccess>()
    const interval = shadow.access(added, undefined, found => earlier.add(found))
    return { interval, earlier }
  }
  return { shadow, omitted, access }
}

/** A byte of the model. `interval`: the number of its interval; 0: none. */
interface ModelByte {
  interval: number
  write: TestAccess | undefined
  /** Reads and atomics since `write`, the last one of each kind and queue. */
  others: TestAccess[]
}

const modelOf = () => {
  const spaces = Array.from({ length: SPACES }, () =>
    Array.from({ length: BYTES }, (): ModelByte => ({ interval: 0, write: undefined, others: [] })),
  )
  let intervals = 0
  /** Splits the interval at an address. */
  const split = (bytes: readonly ModelByte[], address: number): void => {
    const { interval = 0 } = bytes[address] ?? {}
    if (interval === 0 || bytes[address - 1]?.interval !== interval) return
    intervals++
    for (let i = address; bytes[i]?.interval === interval; i++) bytes[i]!.interval = intervals
  }
  return {
    /** Number of intervals. */
    size: (): number =>
      spaces.reduce((sum, bytes) => sum + new Set(bytes.flatMap(({ interval }) => interval || [])).size, 0),
    /** Returns the earlier accesses to bytes of the range. */
    access(added: TestAccess): Set<TestAccess> {
      const { space, start, end, kind } = added.range
      const bytes = spaces[space]!
      const covered = bytes.slice(start, end)
      if (covered.length === 0) return new Set()
      const earlier = new Set(covered.flatMap(({ write, others }) => (write ? [write, ...others] : others)))
      for (const address of [start, end]) split(bytes, address)
      const isNewInterval = isWrite(added.range) && kind !== AccessKind.ATOMIC
      let isGap = false
      if (isNewInterval) intervals++
      for (const byte of covered) {
        if (isNewInterval) Object.assign(byte, { interval: intervals, write: added, others: [] })
        else {
          if (byte.interval === 0 && !isGap) intervals++
          isGap = byte.interval === 0
          if (isGap) byte.interval = intervals
          const isReplaced = ({ range, request }: TestAccess): boolean =>
            range.kind === kind && request.queue === added.request.queue
          byte.others = [...byte.others.filter(other => !isReplaced(other)), added]
        }
      }
      return earlier
    },
  }
}

describe('shadow memory', () => {
  it('finds the earlier accesses to each byte', () => {
    const kinds = Object.values(AccessKind)
    const step = fc.record({
      kind: fc.constantFrom(...kinds),
      start: fc.nat(BYTES),
      length: fc.nat(10),
      space: fc.nat(SPACES - 1),
      queue: fc.nat(queues.length - 1),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40, size: 'max' }), steps => {
        const { shadow, access } = shadowOf()
        const model = modelOf()
        for (const { kind, start, length, space, queue } of steps) {
          const added = accessOf(kind, start, Math.min(start + length, BYTES), { space, queue })
          assert.deepEqual(access(added).earlier, model.access(added))
          assert.equal(shadow.size, model.size())
        }
      }),
    )
  })

  it('returns the interval of a range that has one interval', () => {
    const { access } = shadowOf()
    const boundsOf = (kind: number, start: number, end: number) => {
      const { interval } = access(accessOf(kind, start, end))
      return interval && [interval.start, interval.end]
    }
    assert.equal(boundsOf(AccessKind.WRITE, 8, 8), undefined)
    assert.deepEqual(boundsOf(AccessKind.ATOMIC, 8, 16), [8, 16])
    assert.deepEqual(boundsOf(AccessKind.READ, 8, 12), [8, 12])
    assert.equal(boundsOf(AccessKind.READ, 8, 16), undefined)
    assert.deepEqual(boundsOf(AccessKind.WRITE, 0, 16), [0, 16])
  })

  it('forgets the clock of a word that is split', () => {
    const [lower, upper] = [
      { start: 8, end: 12 },
      { start: 12, end: 16 },
    ]
    for (const [half, other] of [
      [lower, upper],
      [upper, lower],
    ] as const) {
      const { access } = shadowOf()
      const word = access(accessOf(AccessKind.ATOMIC, 8, 16)).interval!
      word.syncClock = new Clock(0)
      assert.equal(access(accessOf(AccessKind.READ, 8, 16)).interval?.syncClock, word.syncClock)
      assert.equal(access(accessOf(AccessKind.READ, half.start, half.end)).interval?.syncClock, undefined)
      assert.equal(access(accessOf(AccessKind.READ, other.start, other.end)).interval?.syncClock, undefined)
    }
  })

  it('forgets the half of the intervals with the oldest accesses if there are too many, and counts them', () => {
    for (const kind of [AccessKind.READ, AccessKind.WRITE]) {
      const { shadow, omitted, access } = shadowOf(4)
      for (const start of [0, 16, 32, 48]) access(accessOf(kind, start, start + 8))
      // From now on, the access at 16 is the oldest.
      access(accessOf(kind, 0, 8))
      assert.deepEqual([shadow.size, omitted], [4, []])
      access(accessOf(kind, 64, 72, { space: 1 }))
      assert.deepEqual([shadow.size, omitted], [2, [['race-memory', 3]]], 'those at 16, 32 and 48 are forgotten')
      const earlierAt = (start: number, space: number) =>
        access(accessOf(AccessKind.READ, start, start + 8, { space, queue: 1 })).earlier.size
      assert.deepEqual([earlierAt(0, 0), earlierAt(64, 1)], [1, 1])
      assert.equal(earlierAt(16, 0), 0)
    }
  })
})

it('a word has 1, 2, 4 or 8 bytes, and is aligned', () => {
  const isWordFrom = (start: number, end: number): boolean => isWord(accessOf(AccessKind.READ, start, end).range)
  for (const length of [1, 2, 4, 8]) {
    assert.ok(isWordFrom(8, 8 + length))
    assert.equal(isWordFrom(9, 9 + length), length === 1)
  }
  for (const length of [3, 6, 16]) assert.equal(isWordFrom(0, length), false)
  assert.equal(isWordFrom(4, 12), false)
})
