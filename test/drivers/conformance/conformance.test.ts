/*
 * One table of cases for the formats and drivers of drivers.ts. A case that a driver lacks is skipped with the reason
 * of its line.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { tormentKinds } from '../../../src/spec/check/torment.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { startRecorder } from '../../../src/tools/clients/record/recorder.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import { SessionWriter } from '../../../src/tools/record/writer.ts'
import { inLongRun } from '../../long-run.ts'
import { createMemorySink } from '../../tools/record/memory-sink.ts'
import { seedWith } from '../torment-seeds.ts'
import { subjects } from './drivers.ts'
import type { Completion, End, Feature, Options, Pair, Subject } from './end.ts'

interface Case {
  readonly name: string
  readonly options?: Options
  readonly needs?: Feature
  /** Runs over packets that are lost, doubled and reordered too. */
  readonly isForLoss?: true
  run(pair: Pair, subject: Subject): Promise<void>
}

const LENGTH = 1000
const SEEDS = inLongRun(12, 4)

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

/** A SEND, a WRITE and a READ of LENGTH bytes each have their effects; ids from `id` on. */
const exchange = async (pair: Pair, id: number): Promise<void> => {
  const { a, b } = pair
  b.receive(id, 8192, LENGTH)
  a.send(id, 0, LENGTH)
  assert.deepEqual(byId(await completions(pair, b, 1)), ok([id], true))
  a.write(id + 1, 1024, LENGTH, 16_384)
  a.read(id + 2, 32_768, LENGTH, 24_576)
  assert.deepEqual(byId(await completions(pair, a, 3)), ok([id, id + 1, id + 2]))
  assert.deepEqual(b.bytes.subarray(8192, 8192 + LENGTH), a.bytes.subarray(0, LENGTH))
  assert.deepEqual(b.bytes.subarray(16_384, 16_384 + LENGTH), a.bytes.subarray(1024, 1024 + LENGTH))
  assert.deepEqual(a.bytes.subarray(32_768, 32_768 + LENGTH), b.bytes.subarray(24_576, 24_576 + LENGTH))
}

/** Exchanges, with the receive after the SEND, so that the SEND waits for it first. */
const exchangeWithWaits = async (pair: Pair, rounds: number): Promise<void> => {
  const { a, b } = pair
  for (let round = 0; round < rounds; round++) {
    for (const end of [a, b]) {
      end.takeEvent()
      end.arm()
    }
    b.bytes.fill(0)
    a.write(1, 0, LENGTH, 0)
    assert.deepEqual(byId(await completions(pair, a, 1)), ok([1]))
    assert.deepEqual(b.bytes.subarray(0, LENGTH), a.bytes.subarray(0, LENGTH), 'what a completed WRITE has written')
    a.read(2, 2048, LENGTH, 0)
    assert.deepEqual(byId(await completions(pair, a, 1)), ok([2]))
    const read = a.bytes.subarray(2048, 2048 + LENGTH)
    assert.deepEqual(read, a.bytes.subarray(0, LENGTH), 'what a completed READ has read')
    a.send(3, 0, LENGTH)
    await pair.settle()
    b.receive(4, 4096, LENGTH)
    assert.deepEqual(byId(await completions(pair, b, 1)), ok([4], true))
    const received = b.bytes.subarray(4096, 4096 + LENGTH)
    assert.deepEqual(received, a.bytes.subarray(0, LENGTH), 'what a completed receive has')
    assert.deepEqual(byId(await completions(pair, a, 1)), ok([3]))
  }
}

/** After a failure: a connection flushes what follows; without one it is executed. */
const afterFailure = ({ lacks }: Subject): 'ok' | 'flushed' => (lacks?.connection === undefined ? 'flushed' : 'ok')

/** A name of a class of queue pairs, for fault rules. */
const classOf = ({ a, devices }: Pair): string => devices[0].queues!.qpOfNumber(a.qpn)!.class.name

const cases: readonly Case[] = [
  {
    name: 'a SEND, a WRITE and a READ have their effects, and complete with their identifiers',
    isForLoss: true,
    run: pair => exchange(pair, 1),
  },
  {
    name: 'a WRITE and a READ of many packets',
    isForLoss: true,
    async run(pair) {
      const { a, b } = pair
      const length = 30_001
      a.write(1, 0, length, 1)
      assert.deepEqual(byId(await completions(pair, a, 1)), ok([1]))
      assert.deepEqual(b.bytes.subarray(1, 1 + length), a.bytes.subarray(0, length))
      assert.equal(b.bytes[1 + length], 0)
      a.read(2, 32_768, length, 1)
      assert.deepEqual(byId(await completions(pair, a, 1)), ok([2]))
      assert.deepEqual(a.bytes.subarray(32_768, 32_768 + length), a.bytes.subarray(0, length))
    },
  },
  {
    name: 'queues wrap around: four times as many requests as they hold',
    isForLoss: true,
    async run(pair) {
      for (let id = 0; id < 4 * pair.a.depth; id += 3) {
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
    name: 'a full receive queue is taken as a whole, three times',
    isForLoss: true,
    options: { entries: 512 },
    async run(pair) {
      const { a, b } = pair
      for (let round = 0; round < 3; round++) {
        b.bytes.fill(0)
        for (let i = 0; i < b.receives; i++) b.receive(i, i * 8, 8)
        for (let i = 0; i < b.receives; i++) a.send(i, 0, 8)
        assert.deepEqual(byId(await completions(pair, b, b.receives)), ok(idsTo(b.receives), true))
        assert.equal((await completions(pair, a, b.receives)).length, b.receives)
        for (let i = 0; i < b.receives; i++)
          assert.deepEqual(b.bytes.subarray(i * 8, i * 8 + 8), a.bytes.subarray(0, 8), `receive ${i}`)
      }
    },
  },
  {
    name: 'two queue pairs take the receives of a shared queue in their order, each once, and wait for more',
    options: { shared: true },
    needs: 'shared',
    async run(pair) {
      const { a, b } = pair
      const count = b.receives - (b.receives % 2)
      for (let round = 0; round < 4; round++) {
        b.bytes.fill(0)
        for (let i = 0; i < count; i++) b.receive(i, i * 64, 64)
        for (let i = 0; i < count / 2; i++) {
          a.send(i, i * 64, 64)
          a.second!.send(100 + i, i * 64, 64)
        }
        const received = await completions(pair, b, count)
        assert.deepEqual(
          received.map(({ id, status }) => [id, status]),
          idsTo(count).map(id => [id, 'ok']),
        )
        assert.deepEqual(byId(await completions(pair, a, count)), ok([...idsTo(count / 2), ...idsTo(count / 2, 100)]))
        // each message came twice, once by each queue pair
        const messages = (end: End, every: number): string[] =>
          Array.from({ length: count }, (_, i) =>
            end.bytes.subarray(Math.floor(i / every) * 64, Math.floor(i / every) * 64 + 64).join(),
          ).sort()
        assert.deepEqual(messages(b, 1), messages(a, 2))
      }
      a.send(1, 0, 64)
      a.second!.send(2, 0, 64)
      await pair.settle()
      assert.deepEqual([...a.poll(), ...b.poll()], [])
      for (const id of [1, 2]) b.receive(id, 0, 64)
      assert.deepEqual(byId(await completions(pair, b, 2)), ok([1, 2], true))
      assert.deepEqual(byId(await completions(pair, a, 2)), ok([1, 2]))
    },
  },
  {
    name: 'ERR of one queue pair leaves the receives of a shared queue to the other',
    options: { shared: true },
    needs: 'shared',
    async run(pair) {
      const { a, b } = pair
      for (const id of [1, 2, 3]) b.receive(id, 0, 64)
      b.fail()
      await pair.settle()
      assert.deepEqual(b.poll(), [])
      for (const id of [1, 2, 3]) a.second!.send(id, 0, 64)
      assert.deepEqual(byId(await completions(pair, b, 3)), ok([1, 2, 3], true))
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
    name: 'a SEND that is too long for its receive fails at both ends, and takes one receive',
    isForLoss: true,
    async run(pair, subject) {
      const { a, b } = pair
      b.receive(1, 0, 8)
      b.receive(2, 8192, LENGTH)
      a.send(1, 0, LENGTH)
      assert.deepEqual(byId(await completions(pair, a, 1)), [[1, 'failed', false]])
      if (afterFailure(subject) === 'ok') {
        a.send(2, 0, LENGTH)
        assert.deepEqual(byId(await completions(pair, a, 1)), ok([2]))
      }
      assert.deepEqual(byId(await completions(pair, b, 2)), [
        [1, 'failed', true],
        [2, afterFailure(subject), true],
      ])
    },
  },
  {
    name: 'a refused WRITE ends a connection: what follows is flushed; without a connection it is executed',
    async run(pair, subject) {
      const { a } = pair
      a.write(1, 0, 8, 0, true)
      for (const id of [2, 3]) a.write(id, 0, 8, 0)
      const after = afterFailure(subject)
      assert.deepEqual(byId(await completions(pair, a, 3)), [
        [1, 'access', false],
        [2, after, false],
        [3, after, false],
      ])
    },
  },
  {
    name: 'a completion queue that overruns keeps what fits, each completion once, and says so once',
    options: { entries: 8 },
    async run(pair, { lacks }) {
      const { a } = pair
      for (let i = 0; i < 12; i++) a.write(i, 0, 8, 0)
      await pair.settle()
      const seen = byId(a.poll())
      if (lacks?.order === undefined) assert.deepEqual(seen, ok(idsTo(a.entries)))
      else {
        assert.ok(seen.every(([id, status, isReceive]) => id < 12 && status === 'ok' && !isReceive))
        assert.deepEqual([new Set(seen.map(([id]) => id)).size, seen.length], [a.entries, a.entries])
      }
      const overruns = a.asyncEvents().filter(type => type === AsyncEventType.values.CQ_ERR)
      if (lacks?.events === undefined) assert.equal(overruns.length, 1)
      if (lacks?.connection === undefined) return
      a.write(50, 0, 8, 0)
      assert.deepEqual(byId(await completions(pair, a, 1)), ok([50]))
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
    async run(pair) {
      const { a, b } = pair
      const { taps } = pair.devices[0].device
      const log: string[] = []
      let written = 0
      taps.requests = {
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
    name: 'a fault rule fails a completion, as a failure of the request would; the next is not failed',
    async run(pair, subject) {
      const { a } = pair
      pair.setFaults('completion=RDMA_WRITE,status=REM_ACCESS_ERR,count=1')
      a.write(1, 0, 8, 0)
      a.write(2, 0, 8, 0)
      assert.deepEqual(
        (await completions(pair, a, 2)).map(({ status }) => status),
        ['access', afterFailure(subject)],
      )
    },
  },
  {
    name: 'a fault rule fails a call once, which has no effect then',
    async run(pair) {
      const { a } = pair
      pair.setFaults(`call=${classOf(pair)}.modify,errno=ENOMEM,count=1`)
      assert.throws(() => a.fail(), /ENOMEM|fault rule 1/)
      await exchange(pair, 1)
      a.fail()
      a.write(9, 0, 8, 0)
      assert.deepEqual(byId(await completions(pair, a, 1)), [[9, 'flushed', false]])
    },
  },
  {
    name: 'a fault rule refuses a post by class, number and request of its queue',
    async run(pair) {
      const { a, b } = pair
      const rule = (qpn: number, request: string): string =>
        `post=ENOMEM,class=${classOf(pair)},qp=0x${qpn.toString(16)},request=${request},count=1`
      pair.setFaults([rule(a.qpn, 'SEND'), rule(b.qpn, 'RECV')].join(';'))
      assert.throws(() => a.send(1, 0, 8), /ENOMEM/)
      assert.throws(() => b.receive(1, 0, 8), /ENOMEM/)
      await exchange(pair, 10)
      assert.deepEqual([...a.poll(), ...b.poll()], [])
    },
  },
  {
    name: 'a recording has the queue pairs, and of each request that it was posted, has ended and has completed',
    async run(pair) {
      const { a, b, devices } = pair
      const sink = createMemorySink()
      const writer = new SessionWriter(sink, { application: 'test', machine: 'test', origin: 0, payload: 0 })
      const sources = { now: () => 1, program: () => undefined, addTap: () => undefined }
      const recorder = startRecorder(devices[0].device.core, writer, sources)
      await exchange(pair, 1)
      recorder.stop()
      await writer.end(1, 'test')
      const qpns = new Set<number>()
      const posted = new Map<number, boolean>()
      const [ended, completed]: [number[], number[]] = [[], []]
      for await (const event of (await openSession(bytesSource(sink.bytes))).eventsIn())
        if (event.kind === 'object') qpns.add(event.number)
        else if (event.kind === 'posted') posted.set(event.request.id, event.request.opcode < 0)
        else if (event.kind === 'ended') ended.push(event.request)
        else if (event.kind === 'completed') completed.push(event.request)
      assert.ok([a, b].every(({ qpn }) => qpns.has(qpn)))
      const sends = [...posted].flatMap(([request, isReceive]) => (isReceive ? [] : request))
      assert.deepEqual([posted.size, sends.length], [4, 3])
      assert.deepEqual(ended.sort(), sends.sort())
      assert.deepEqual(completed.sort(), [...posted.keys()].sort())
    },
  },
  {
    name: 'a SEND without a receive is told as a wait, until the receive is posted',
    needs: 'waits',
    async run(pair) {
      const { a, b, devices } = pair
      const waits = () =>
        [...new Set(devices)].flatMap(device =>
          [...device.waits!()].flatMap(found =>
            found === undefined ? [] : { id: found.wait.id, qpns: found.wait.qpns },
          ),
        )
      const isWaiting = (): boolean => waits().some(({ id, qpns }) => id === 'endless-rnr' && qpns?.[0] === a.qpn)
      assert.ok(!isWaiting())
      a.send(1, 0, 8)
      await pair.until(isWaiting)
      b.receive(1, 0, 8)
      await completions(pair, b, 1)
      await completions(pair, a, 1)
      assert.ok(!isWaiting())
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
  ...idsTo(SEEDS, 1).map(
    (torment): Case => ({
      name: `torment with seed ${torment} keeps what requests promise`,
      options: { torment },
      needs: 'torment',
      isForLoss: true,
      run: pair => exchangeWithWaits(pair, 3),
    }),
  ),
  ...idsTo(SEEDS, 1).map(
    (torment): Case => ({
      name: `ERR ends all delays of torment with seed ${torment}, and each request ends once`,
      options: { torment, entries: 512 },
      needs: 'torment',
      async run(pair) {
        const { a } = pair
        const count = Math.min(a.depth, 200)
        for (let id = 0; id < count; id++) a.write(id, id, 8, id)
        if (torment % 2 === 0) await pair.settle()
        a.fail()
        const seen = byId(await completions(pair, a, count))
        assert.deepEqual(
          seen.map(([id]) => id),
          idsTo(count),
        )
        assert.ok(seen.every(([, status]) => status === 'ok' || status === 'flushed'))
      },
    }),
  ),
]

/** Each kind of torment acts, if the format and the protocol leave room for it; `late` needs lent memory. */
const tormentCases = ({ without = [] }: Subject): readonly Case[] =>
  tormentKinds
    .filter(kind => kind !== 'late')
    .map(kind => ({
      name: `torment of kind ${kind} ${without.includes(kind) ? 'does not act' : 'acts'}`,
      options: { torment: seedWith(kind, 1) },
      needs: 'torment',
      async run(pair) {
        await exchangeWithWaits(pair, 12)
        pair.b.receive(5, 0, 8)
        pair.a.send(5, 0, LENGTH)
        const failed = [...(await completions(pair, pair.b, 1)), ...(await completions(pair, pair.a, 1))]
        assert.deepEqual(
          failed.map(({ id, status }) => [id, status]),
          [
            [5, 'failed'],
            [5, 'failed'],
          ],
        )
        assert.equal(pair.acted.has(kind), !without.includes(kind), [...pair.acted].join(' '))
      },
    }))

const links = [
  { link: 'direct', fault: '' },
  { link: 'packets', fault: 'drop=0' },
  { link: 'lost, doubled and reordered packets', fault: 'drop=0.1,dup=0.1,reorder=0.2,seed=7' },
] as const

for (const subject of subjects)
  describe(subject.name, () => {
    const { open, lacks } = subject
    for (const { link, fault } of links)
      describe(link, { skip: (fault !== '' && lacks?.faults) || false }, () => {
        const all = link === 'packets' ? [...cases, ...tormentCases(subject)] : cases
        for (const { name, options, needs, isForLoss, run } of all) {
          if (link === links[2].link && !isForLoss) continue
          const reason = needs === undefined ? undefined : lacks?.[needs]
          it(name, { skip: reason ?? false }, async t => {
            const pair = await open({ ...options, fault }, t)
            fill(pair.a.bytes)
            await run(pair, subject)
          })
        }
      })
  })
