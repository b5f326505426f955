/*
 * The search for the order that decides, with programs that are functions of their decisions.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { findPair, type PairTrial, pairSentence } from '../../../src/cli/check/torment-pair.ts'
import { MAX_HOLD, readHold } from '../../../src/spec/check/torment.ts'
import type { TormentedRequest } from '../../../src/spec/check/torment-orders.ts'

const SEND = 'rxe0/p/rc_qp1/send1'
const RECEIVES = [1, 2, 3].map(n => `rxe0/p/rc_qp1/receive${n}`)
const DECISION = `completion/${SEND}`
/** When each receive completes without torment, microseconds. */
const TIMES = [100, 1000, 5000]

const request = (name: string, text: string, stack: readonly string[]): TormentedRequest => ({
  ...{ time: 0, object: 'QP 0x11', event: 'completed', text, stack, count: 1, name },
  ...{ isReceive: name.includes('receive'), opcode: name.includes('receive') ? -1 : 2, qpn: 17 },
})
const orders = [
  request(SEND, 'SEND wr_id 7', ['a.c:40']),
  ...RECEIVES.map((name, i) => request(name, `receive wr_id ${i + 1}`, [])),
]

/** A program whose SEND waits for 8 ms: `fails` says so by its place among the receives, or after how long. */
const programThat =
  (fails: (sent: number, times: readonly number[]) => boolean) =>
  async (only: readonly string[]): Promise<PairTrial | undefined> => {
    let sent = 0
    let hasCome: boolean | undefined
    const times = [...TIMES]
    for (const text of only) {
      const { id, wait, until } = readHold(text)!
      const receive = RECEIVES.indexOf(id.slice(id.indexOf('/') + 1))
      if (receive >= 0) times[receive] = Math.max(times[receive]!, sent) + 1
      else if (until === undefined) sent = wait ?? 8000
      else {
        hasCome = RECEIVES.includes(until)
        sent = hasCome ? times[RECEIVES.indexOf(until)]! + 1 : MAX_HOLD
      }
    }
    const passed = RECEIVES.filter((_, i) => times[i]! < sent)
    const held = { microseconds: sent, passed, passedCount: passed.length, isEarly: false, ...(hasCome && { hasCome }) }
    return { hasFailed: fails(sent, times), run: { held: new Map([[DECISION, held]]), orders } }
  }

const framesOf = (stack: readonly string[]) =>
  stack.map(frame => ({ function: 'main', file: frame.split(':')[0]!, line: Number(frame.split(':')[1]) }))

const search = (attempt: (only: readonly string[]) => Promise<PairTrial | undefined>) =>
  findPair(
    [DECISION],
    attempt,
    async make => make(framesOf),
    () => {},
  )

describe('findPair', () => {
  it('finds which completion a held one must not come after', async () => {
    const { pair } = await search(programThat((sent, times) => sent > times[1]!))
    assert.ok(pair !== undefined)
    assert.match(
      pairSentence(pair),
      /^it fails if the completion of SEND wr_id 7 \(a\.c:40\) comes after the completion of receive wr_id 2; nothing orders them \(IBA 10\.8\.3\.3: completions of the send queue and of the receive queue/,
    )
    assert.deepEqual(pair.only, [`${DECISION}~${RECEIVES[1]}`])
  })
  it('finds none if the time decides', async () => {
    const { pair, failed, passed } = await search(programThat(sent => sent > 3000))
    assert.equal(pair, undefined)
    assert.ok(failed !== undefined && passed !== undefined)
  })
  it('finds none if the other order fails too', async () => {
    const { pair } = await search(programThat((sent, times) => sent > times[1]! || times[1]! > TIMES[1]!))
    assert.equal(pair, undefined)
  })
  it('takes no completion that was polled after the failure', async () => {
    const program = programThat((sent, times) => sent > times[1]!)
    const searchWith = async (
      polled: readonly (number | undefined)[],
      error: number | undefined,
      failedAt?: number,
    ) => {
      const { pair } = await search(async only => {
        const trial = await program(only)
        const own = orders.map((one, i) => ({
          ...one,
          ...(i > 0 && polled[i - 1] !== undefined && { polled: polled[i - 1] }),
        }))
        const failing = { ...request(SEND, 'SEND wr_id 7', []), isError: true as const, polled: error }
        return (
          trial && {
            ...trial,
            run: { ...trial.run, orders: error === undefined ? own : [...own, failing], ...(failedAt && { failedAt }) },
          }
        )
      })
      return pair !== undefined
    }
    assert.equal(await searchWith([100, 1000, 5000], undefined), true)
    assert.equal(await searchWith([100, 1000, 5000], 1001), true)
    assert.equal(await searchWith([100, 1000, 5000], 900), false)
    assert.equal(await searchWith([100, undefined, 5000], 900), false)
    assert.equal(await searchWith([100, 1000, 5000], undefined, 900), false)
  })
  it('ends when the search does', async () => {
    let runs = 0
    const program = programThat(sent => sent > 3000)
    const { pair } = await search(async only => (runs++ < 2 ? program(only) : undefined))
    assert.equal(pair, undefined)
    assert.equal(runs, 4)
  })
})
