/*
 * One table of cases for the formats and drivers of drivers.ts. A case that a driver lacks is skipped with the reason of
 * its line.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { WcStatus } from '../../../src/spec/work.ts'
import { subjects } from './drivers.ts'
import type { Completion, End, Feature, Options, Pair } from './end.ts'

interface Case {
  readonly name: string
  readonly options?: Options
  readonly needs?: Feature
  /** Runs over packets that are lost, doubled and reordered too. */
  readonly isForLoss?: true
  run(pair: Pair): Promise<void>
}

const LENGTH = 1000

const fill = (bytes: Uint8Array): void => {
  for (let i = 0; i < bytes.length; i++) bytes[i] = (i * 13 + (i >> 8) + 5) & 0xff
}

/** Waits for `count` completions of an end. */
const completions = async (pair: Pair, end: End, count: number): Promise<Completion[]> => {
  const seen: Completion[] = []
  await pair.until(() => {
    seen.push(...end.poll())
    return seen.length >= count
  })
  assert.equal(seen.length, count)
  return seen
}

const byId = (all: readonly Completion[]): (readonly [number, string, boolean])[] =>
  all.map(({ id, status, isReceive }) => [id, status, isReceive] as const).sort(([a], [b]) => a - b)

const idsTo = (count: number, from = 0): number[] => Array.from({ length: count }, (_, i) => from + i)
const ok = (ids: readonly number[], isReceive = false) => ids.map(id => [id, 'ok', isReceive] as const)

/** A SEND and a WRITE of LENGTH bytes each arrive; ids from `id` on. */
const exchange = async (pair: Pair, id: number): Promise<void> => {
  const { a, b } = pair
  b.receive(id, 8192, LENGTH)
  a.send(id, 0, LENGTH)
  assert.deepEqual(byId(await completions(pair, b, 1)), ok([id], true))
  a.write(id + 1, 1024, LENGTH, 16_384)
  assert.deepEqual(byId(await completions(pair, a, 2)), ok([id, id + 1]))
  assert.deepEqual(b.bytes.subarray(8192, 8192 + LENGTH), a.bytes.subarray(0, LENGTH))
  assert.deepEqual(b.bytes.subarray(16_384, 16_384 + LENGTH), a.bytes.subarray(1024, 1024 + LENGTH))
}

const cases: readonly Case[] = [
  {
    name: 'a SEND and a WRITE arrive, and complete with their identifiers',
    isForLoss: true,
    run: pair => exchange(pair, 1),
  },
  {
    name: 'queues wrap around: four times as many requests as they hold',
    isForLoss: true,
    async run(pair) {
      for (let id = 0; id < 4 * pair.a.depth; id += 2) {
        pair.b.bytes.fill(0)
        await exchange(pair, id)
      }
    },
  },
  {
    name: 'a full send queue completes as a whole, three times',
    isForLoss: true,
    options: { entries: 512 },
    async run(pair) {
      const { a, b } = pair
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < a.depth; i++) a.write(i, i * 8, 8, i * 8)
        assert.deepEqual(byId(await completions(pair, a, a.depth)), ok(idsTo(a.depth)))
        assert.deepEqual(b.bytes.subarray(0, a.depth * 8), a.bytes.subarray(0, a.depth * 8))
        b.bytes.fill(0)
      }
    },
  },
  {
    name: 'completions have the order of the requests',
    isForLoss: true,
    needs: 'order',
    async run(pair) {
      const { a, b } = pair
      const count = Math.min(a.depth, 15)
      for (let i = 0; i < count; i++) b.receive(100 + i, i * 64, 64)
      for (let i = 0; i < count; i++) a.send(i, i * 64, 64)
      assert.deepEqual(
        (await completions(pair, a, count)).map(({ id }) => id),
        idsTo(count),
      )
      assert.deepEqual(
        (await completions(pair, b, count)).map(({ id }) => id),
        idsTo(count, 100),
      )
      assert.deepEqual(b.bytes.subarray(0, count * 64), a.bytes.subarray(0, count * 64))
    },
  },
  {
    name: 'a SEND waits for a receive',
    async run(pair) {
      const { a, b } = pair
      a.send(1, 0, LENGTH)
      await pair.settle()
      assert.deepEqual([...a.poll(), ...b.poll()], [])
      b.receive(2, 8192, LENGTH)
      assert.deepEqual(byId(await completions(pair, b, 1)), ok([2], true))
      assert.deepEqual(byId(await completions(pair, a, 1)), ok([1]))
    },
  },
  {
    name: 'ERR flushes sends and receives, each in order, and later posts too',
    isForLoss: true,
    async run(pair) {
      const { a } = pair
      for (let i = 0; i < 5; i++) a.send(i, 0, 8)
      for (let i = 0; i < 5; i++) a.receive(100 + i, 0, 8)
      await pair.settle()
      a.fail()
      const seen = await completions(pair, a, 10)
      a.send(5, 0, 8)
      a.receive(105, 0, 8)
      seen.push(...(await completions(pair, a, 2)))
      assert.ok(seen.every(({ status }) => status === 'flushed'))
      assert.deepEqual(
        seen.flatMap(({ id, isReceive }) => (isReceive ? [] : id)),
        idsTo(6),
      )
      assert.deepEqual(
        seen.flatMap(({ id, isReceive }) => (isReceive ? id : [])),
        idsTo(6, 100),
      )
    },
  },
  {
    name: 'a refused WRITE says so, and changes nothing',
    isForLoss: true,
    async run(pair) {
      const { a, b } = pair
      b.bytes.fill(0)
      a.write(1, 0, LENGTH, 0, true)
      assert.deepEqual(byId(await completions(pair, a, 1)), [[1, 'access', false]])
      assert.ok(b.bytes.every(byte => byte === 0))
    },
  },
  {
    name: 'a refused WRITE ends the connection: what follows is flushed',
    needs: 'connection',
    async run(pair) {
      const { a } = pair
      a.write(1, 0, 8, 0, true)
      for (const id of [2, 3]) a.write(id, 0, 8, 0)
      assert.deepEqual(
        (await completions(pair, a, 3)).map(({ id, status }) => [id, status]),
        [
          [1, 'access'],
          [2, 'flushed'],
          [3, 'flushed'],
        ],
      )
    },
  },
  {
    name: 'a completion queue that overruns keeps what fits, each completion once',
    options: { entries: 8 },
    needs: 'overrun',
    async run(pair) {
      const { a } = pair
      for (let i = 0; i < 12; i++) a.write(i, 0, 8, 0)
      await pair.settle()
      const seen = byId(a.poll())
      assert.ok(seen.every(([id, status, isReceive]) => id < 12 && status === 'ok' && !isReceive))
      assert.equal(new Set(seen.map(([id]) => id)).size, a.entries)
      assert.equal(seen.length, a.entries)
    },
  },
  {
    name: 'one event per arming, and none without',
    needs: 'events',
    async run(pair) {
      const { a } = pair
      let id = 0
      const write = async (): Promise<void> => {
        a.write(id++, 0, 8, 0)
        await pair.settle()
      }
      await write()
      assert.ok(!a.takeEvent(), 'not armed')
      a.poll()
      for (let round = 0; round < 5; round++) {
        a.arm()
        await pair.settle()
        assert.ok(!a.takeEvent(), 'armed, without a completion')
        await write()
        assert.ok(a.takeEvent(), `round ${round}`)
        await write()
        assert.ok(!a.takeEvent(), 'not armed again')
        assert.equal(a.poll().length, 2)
      }
    },
  },
  {
    name: 'no event is lost, whether the arming comes before or after the post',
    needs: 'events',
    async run(pair) {
      const { a } = pair
      for (let id = 0; id < 40; id++) {
        if (id % 2 === 0) a.arm()
        a.write(id, 0, 8, 0)
        if (id % 2 === 1) a.arm()
        await pair.settle()
        assert.ok(a.takeEvent(), `write ${id}`)
        assert.equal(a.poll().length, 1)
      }
    },
  },
  {
    name: 'a completion queue is resized with what it holds',
    options: { entries: 16 },
    needs: 'resize',
    async run(pair) {
      const { a } = pair
      let id = 0
      let expected = 0
      const write = async (count: number): Promise<void> => {
        for (let i = 0; i < count; i++) a.write(id++, 0, 8, 0)
        await pair.settle()
      }
      const check = (count: number): void => {
        assert.deepEqual(
          a.poll(count).map(completion => completion.id),
          idsTo(count, expected),
        )
        expected += count
      }
      await write(10)
      check(3)
      a.resize(64)
      await write(10)
      await write(10)
      check(27)
      await write(5)
      a.resize(8)
      check(5)
      await write(2)
      check(2)
      assert.deepEqual(a.poll(), [])
    },
  },
  {
    name: 'watchers learn of each send when it is fetched, has ended and has completed; of a receive when it is taken',
    needs: 'taps',
    async run(pair) {
      const { a, b, taps } = pair
      const log: string[] = []
      let written = 0
      taps!.requests = {
        loaded: (_qp, { wrId }) => log.push(`loaded ${wrId}`),
        retired: (_qp, count) => log.push(`retired ${count}`),
        taken: () => log.push('taken'),
        completed: (_qp, _cq, { status }) => {
          written++
          log.push(`completed ${status}`)
        },
        receivesPosted() {},
        notReady() {},
        dropped() {},
        beginsToReceive() {},
        reset() {},
      }
      a.write(1, 0, 8, 0)
      await completions(pair, a, 1)
      assert.deepEqual(
        log.map(line => line.replace(/^loaded .*/, 'loaded')),
        ['loaded', 'retired 1', 'completed 0'],
      )
      log.length = 0
      a.receive(2, 0, 64)
      b.send(3, 0, 64)
      await completions(pair, a, 1)
      const ofReceive = log.filter(line => line === 'taken' || line.startsWith('completed'))
      assert.deepEqual(ofReceive.slice(0, 2), ['taken', 'completed 0'])
      assert.ok(written >= 2)
    },
  },
  {
    name: 'a fault rule fails a completion',
    needs: 'taps',
    async run(pair) {
      const { a, taps } = pair
      const status = WcStatus.values.REM_ACCESS_ERR
      taps!.decideCompletion = () => ({ status, rule: 1 }) as never
      a.write(1, 0, 8, 0)
      assert.notEqual((await completions(pair, a, 1))[0]!.status, 'ok')
    },
  },
  {
    name: 'random words in the queues of one end do not stop the device, nor reach memory that is not registered for them',
    needs: 'scribble',
    async run(pair) {
      const { a, b } = pair
      let state = 1
      const random = (): number => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
        return state / 2 ** 32
      }
      const before = b.bytes.slice()
      for (let round = 0; round < 30; round++) {
        a.scribble(random)
        await pair.settle()
      }
      assert.deepEqual(b.bytes, before)
    },
  },
]

const links = [
  { link: 'direct', fault: '' },
  { link: 'packets', fault: 'drop=0' },
  { link: 'lost, doubled and reordered packets', fault: 'drop=0.1,dup=0.1,reorder=0.2,seed=7' },
] as const

for (const { name, open, lacks } of subjects)
  describe(name, () => {
    for (const { link, fault } of links)
      describe(link, { skip: (fault !== '' && lacks?.faults) || false }, () => {
        for (const { name: title, options, needs, isForLoss, run } of cases) {
          if (link === links[2].link && !isForLoss) continue
          const reason = needs === undefined ? undefined : lacks?.[needs]
          it(title, { skip: reason ?? false }, async t => {
            const pair = await open({ ...options, fault }, t)
            fill(pair.a.bytes)
            await run(pair)
          })
        }
      })
  })
