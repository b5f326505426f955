/*
 * The search for the order that cures, with programs that are functions of what is held.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type CureRun, cureSentence, findCure, runsNeeded } from '../../../src/cli/check/torment-cure.ts'
import { readHold, type TormentHeld } from '../../../src/spec/check/torment.ts'
import type { TormentedRequest } from '../../../src/spec/check/torment-orders.ts'

const [DATA, FLAG] = ['rxe0/p/rc_qp1', 'rxe0/p/rc_qp2']
const ROUNDS = 3
/** What a post of DATA takes, and what FLAG waits when the program has posted it, microseconds. */
const DATA_TIME = 500

const posted = (object: string, nth: number, text: string, qpn: number, line: string): TormentedRequest => ({
  ...{ time: nth, object: `QP 0x${qpn}`, event: 'posted', text: `${text} wr_id ${nth}`, stack: [line], count: 1 },
  ...{ name: `${object}/post${nth}`, isReceive: false, opcode: text === 'SEND' ? 2 : 0, qpn },
})
const postsOf = (rounds: number): readonly TormentedRequest[] =>
  Array.from({ length: rounds }, (_, i) => [
    posted(DATA, i + 1, 'WRITE', 16, 'a.c:38'),
    posted(FLAG, 2 * i + 1, 'SEND', 17, 'a.c:40'),
    posted(FLAG, 2 * i + 2, 'SEND', 17, 'a.c:44'),
  ]).flat()

/** A run in which the SENDs of line 40 come before the WRITEs are done, unless they are held. */
const runOf = (only: readonly string[], fails: (isOrdered: boolean, flagWait: number) => boolean): CureRun => {
  const held = new Map<string, TormentHeld>()
  let [dataWait, flagWait, isOrdered] = [0, 0, false]
  for (const text of only) {
    const { id, wait, until } = readHold(text)!
    const isData = id.includes(DATA)
    if (!isData && id !== `request/${FLAG}/post*` && !id.endsWith('post1')) continue
    if (wait !== undefined) [dataWait, flagWait] = isData ? [wait, flagWait] : [dataWait, wait]
    if (until === undefined) continue
    const isOther = until.startsWith(`${isData ? FLAG : DATA}/`)
    if (isOther) held.set(id, { microseconds: DATA_TIME, passed: [], passedCount: 0, isEarly: false, hasCome: true })
    if (isOther && !isData) [isOrdered, flagWait] = [true, DATA_TIME]
  }
  if (flagWait >= dataWait + DATA_TIME) isOrdered = true
  return { held, orders: postsOf(ROUNDS), failure: fails(isOrdered, flagWait) ? 'exit status 3' : undefined }
}

const framesOf = (stack: readonly string[]) =>
  stack.map(frame => ({ function: 'main', file: frame.split(':')[0]!, line: Number(frame.split(':')[1]) }))

const search = async (fails: (isOrdered: boolean, flagWait: number) => boolean, most = Number.POSITIVE_INFINITY) => {
  let runs = 0
  const found = await findCure(
    runOf([], () => true),
    3,
    3,
    async only => (runs++ < most ? runOf(only, fails) : undefined),
    async make => make(framesOf),
    () => {},
  )
  return { ...found, runs }
}

describe('findCure', () => {
  it('finds the order, and the line of source that must wait', async () => {
    const { cure } = await search(isOrdered => !isOrdered)
    assert.ok(cure !== undefined)
    assert.match(
      cureSentence(cure),
      /^it passes if each SEND of QP 0x11 of p \(a\.c:40\) waits until each WRITE posted before of QP 0x10 of p \(a\.c:38\) has been done; nothing orders them \(IBA 10\.8\.3\.3: requests of different queue pairs/,
    )
    assert.deepEqual(
      cure.only,
      [1, 3, 5].map(n => `request/${FLAG}/post${n}~${DATA}/posts-done`),
    )
  })
  it('takes no delay that cures without the order for the cause', async () => {
    const { cure, unproven } = await search((_, flagWait) => flagWait < DATA_TIME)
    assert.equal(cure, undefined)
    assert.match(
      unproven ?? '',
      /^it passes (\d+) of \1 times if each SEND .*, but it passes too if what waits is delayed/,
    )
  })
  it('takes no order for the cause if the program passes in the opposite one', async () => {
    let runs = 0
    const { cure } = await search(isOrdered => !isOrdered && runs++ < 2)
    assert.equal(cure, undefined)
  })
  it('finds none in a program that fails in each order', async () => {
    const { cure, tried, candidates } = await search(() => true)
    assert.deepEqual([cure, tried], [undefined, candidates])
  })
  it('says how far it came if the search ends', async () => {
    const { cure, tried, candidates } = await search(() => true, 1)
    assert.deepEqual([cure, tried], [undefined, 1])
    assert.ok(candidates > 1)
  })
})

it('so many runs must pass as pass by chance in one of 100 cases', () => {
  for (const [failures, runs, orders] of [
    [3, 3, 1],
    [3, 5, 1],
    [1, 10, 6],
  ] as const)
    assert.ok(orders * (1 - failures / (runs + 2)) ** runsNeeded(failures, runs, orders) <= 0.01)
})
