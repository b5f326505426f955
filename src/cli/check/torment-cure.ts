/*
 * `userdma check --torment-search` of a program that fails without torment: which order of two queue pairs' posts cures
 * it. From the posts of a run come the candidates: each post of one queue pair is held until the posts of another, or
 * its own, are done.
 *
 * An order is the cause only if so many runs with it pass as by chance pass in less than 1 of 100 cases, if the program
 * fails in the opposite order, and if it fails so too when what was held waits as long as it did.
 */
import { counted, hex } from '../../base/text.ts'
import { ownFrame } from '../../spec/check/frames.ts'
import { Awaited, MAX_HOLD } from '../../spec/check/torment.ts'
import { orderClause, partsOfName, postOrderClause, type TormentedRequest } from '../../spec/check/torment-orders.ts'
import type { FramesOf, Order, Pair, PairRun } from './torment-pair.ts'

/** A run of the program. */
export interface CureRun extends PairRun {
  /** Why it failed; undefined: it has passed. */
  readonly failure?: string | undefined
}

/** Runs the program once with these decisions; undefined: the search ends. */
type Try = (only: readonly string[]) => Promise<CureRun | undefined>

/** `later`: what is held; `earlier`: until this is done. */
interface Cure extends Pair {
  /** What the runs have shown. */
  readonly evidence: string
}

interface CureSearch {
  readonly cure: Cure | undefined
  /** Orders that were tried, of how many. */
  readonly tried: number
  readonly candidates: number
  /** Runs that must pass with an order. */
  readonly needed: number
  /** Of those that were tried and do not cure: how often what was awaited did not come in time. */
  readonly late: number
  /** Of an order that cured, and is not the cause: why. */
  readonly unproven: string | undefined
}

/** A program that fails at chance passes with this probability as often as one that is cured must. */
const CHANCE = 0.01
const MAX_CANDIDATES = 48
/** Posts of one line of source that are held one by one. */
const MAX_SINGLE = 64
/** Runs in the opposite order, of which two must fail. */
const OPPOSITE_RUNS = 3

/**
 * How many runs must pass with an order, if of so many runs so many have failed: one of the `orders` that are tried
 * may pass by CHANCE. The rate is taken lower: few runs tell it roughly.
 */
export const runsNeeded = (failures: number, runs: number, orders: number): number =>
  Math.max(2, Math.ceil(Math.log(CHANCE / orders) / Math.log(1 - failures / (runs + 2))))

/**
 * `held` and `awaited`: DEVICE/PROCESS/OBJECT of what is posted, or with /send or /receive, of what has completed.
 */
interface Candidate {
  readonly event: TormentedRequest['event']
  readonly held: string
  readonly awaited: string
  /** Of posts: a word of `Awaited`. */
  readonly word?: string
}

const objectOf = ({ name }: TormentedRequest): string => partsOfName(name).object
const keyOf = (one: TormentedRequest): string =>
  one.event === 'posted' ? objectOf(one) : `${objectOf(one)}/${one.isReceive ? 'receive' : 'send'}`
const eventsOf = ({ orders }: CureRun, event: TormentedRequest['event'], key?: string): readonly TormentedRequest[] =>
  orders.filter(one => one.event === event && (key === undefined || keyOf(one) === key))

/** All decisions about what is posted, or completes. */
const decisionsOf = (event: TormentedRequest['event'], key: string): string =>
  event === 'posted' ? `request/${key}/post*` : `completion/${key}*`
/** The next of these has come. */
const nextOf = (event: TormentedRequest['event'], key: string): string =>
  event === 'posted' ? `${key}/${Awaited.NEXT}` : key.replace(/\/(\w+)$/, '/as-many-$1s')
const untilOf = ({ event, awaited, word }: Candidate): string =>
  word === undefined ? nextOf(event, awaited) : `${awaited}/${word}`

/** The last post to `awaited` before each of these posts. */
const postsBefore = (run: CureRun, held: readonly TormentedRequest[], awaited: string): readonly TormentedRequest[] => {
  const posts = eventsOf(run, 'posted')
  return posts.flatMap((one, i) => {
    if (!held.includes(one)) return []
    const before = posts.slice(0, i).findLast(other => objectOf(other) === awaited)
    return before === undefined ? [] : [before]
  })
}

/** Orders of posts of two queue pairs, then of completions: first those that follow each other most often. */
const candidatesOf = (run: CureRun): readonly Candidate[] => {
  const pairsOf = (event: TormentedRequest['event']) => {
    const keys = eventsOf(run, event).map(keyOf)
    const names = [...new Set(keys)]
    const follows = (one: string, other: string): number =>
      keys.filter((key, i) => key === one && keys[i - 1] === other).length
    return names
      .flatMap(held =>
        names.map(awaited => ({ event, held, awaited, count: follows(held, awaited), before: follows(awaited, held) })),
      )
      .sort((a, b) => Number(a.held === a.awaited) - Number(b.held === b.awaited) || b.count - a.count)
  }
  const posts = pairsOf('posted')
  const others = posts.filter(({ held, awaited }) => held !== awaited)
  const withWord = (word: string) => (pair: Candidate) => ({ ...pair, word })
  // Completions that came first, of one process.
  const placeOf = (key: string): string => key.split('/').slice(0, 2).join('/')
  const completions = pairsOf('completed').filter(
    ({ held, awaited, before }) => held !== awaited && before > 0 && placeOf(held) === placeOf(awaited),
  )
  return [
    ...posts.filter(({ count }) => count > 0).map(withWord(Awaited.POSTS)),
    ...others.map(withWord(Awaited.NEXT)),
    ...others.filter(({ count }) => count === 0).map(withWord(Awaited.POSTS)),
    ...completions,
  ].slice(0, MAX_CANDIDATES)
}

/** `SEND wr_id 7 of QP 0x12 (b.c:40)`; of several posts: `each SEND of QP 0x12 (b.c:40)`. */
const postsText = (posts: readonly TormentedRequest[], framesOf: FramesOf, suffix = ''): string => {
  const [first] = posts
  if (first === undefined) return 'what is posted next to the other queue pair'
  const lines = new Set(
    posts.map(({ stack }) => {
      const { file, line } = ownFrame(framesOf(stack)) ?? {}
      return file === undefined ? '' : `${file}:${line}`
    }),
  )
  lines.delete('')
  const names = [...new Set(posts.map(({ text }) => text.split(' ')[0]))]
  const process = ` of ${objectOf(first).split('/')[1]}`
  const where = lines.size === 0 ? '' : ` (${[...lines].join(', ')})`
  const one = posts.length === 1 ? `the ${first.text.split(',')[0]}` : `each ${names.join(' or ')}`
  return `${one} ${suffix}of QP ${hex(first.qpn ?? 0)}${process}${where}`
}

/**
 * `run`: one that fails, of `failures` in `runs`. Finds no order if none is the cause, or if the search ends before.
 */
export const findCure = async (
  run: CureRun,
  failures: number,
  runs: number,
  attempt: Try,
  render: <T>(make: (framesOf: FramesOf) => T) => Promise<T>,
  onStep: (text: string) => void,
): Promise<CureSearch> => {
  const candidates = candidatesOf(run)
  let unproven: string | undefined
  const needed = runsNeeded(failures, runs, Math.max(1, candidates.length))
  let [tried, late] = [0, 0]
  const ends = (cure?: Cure): CureSearch => ({ cure, tried, candidates: candidates.length, needed, late, unproven })

  /** Runs until one fails, or `needed` have passed. `waits`: of what was held until it came. */
  const passes = async (only: readonly string[]) => {
    const waits: number[] = []
    let last: CureRun | undefined
    for (let i = 0; i < needed; i++) {
      last = await attempt(only)
      if (last === undefined || last.failure !== undefined) return { hasPassed: false, waits, last }
      for (const { microseconds, hasCome } of last.held.values()) if (hasCome === true) waits.push(microseconds)
    }
    return { hasPassed: true, waits: waits.sort((a, b) => a - b), last }
  }
  /** Whether two of OPPOSITE_RUNS runs fail as `run` does. `isForced`: by whether what was awaited has come. */
  const fails = async (
    only: readonly string[],
    isForced: (waits: readonly (boolean | undefined)[]) => boolean,
  ): Promise<boolean | undefined> => {
    let failures = 0
    for (let i = 0; i < OPPOSITE_RUNS && failures < 2; i++) {
      const other = await attempt(only)
      if (other === undefined) return undefined
      const waits = [...other.held.values()].map(({ hasCome }) => hasCome)
      if (other.failure === run.failure && isForced(waits)) failures++
    }
    return failures === 2
  }

  /** What makes `awaited` come later. Not completions of receives alone, whose bytes would be there: their messages. */
  const causeOf = (event: TormentedRequest['event'], awaited: string): string => {
    const [received] = awaited.endsWith('/receive') ? eventsOf(run, event, awaited) : []
    const sent = received && eventsOf(run, 'posted').find(({ qpn }) => qpn === received.destQpn)
    return sent === undefined ? decisionsOf(event, awaited) : decisionsOf('posted', objectOf(sent))
  }

  /** Why the order is not the cause; an empty text: it is. `wait`: how long posts were held, microseconds. */
  const refuted = async ({ event, held, awaited }: Candidate, wait: number): Promise<string | undefined> => {
    if (held === awaited) return 'the opposite order cannot be forced on one queue pair'
    const [first, second] = [decisionsOf(event, awaited), decisionsOf(event, held)]
    const inOppositeOrder = await fails([`${first}~${nextOf(event, held)}`], waits =>
      event === 'posted' ? waits.includes(true) : !waits.includes(false),
    )
    if (inOppositeOrder === undefined) return undefined
    if (!inOppositeOrder) return 'that it fails in the opposite order is not proven'
    const later = Math.min(2 * wait, MAX_HOLD)
    const withDelay = await fails([`${second}~${wait}`, `${causeOf(event, awaited)}~${later}`], () => true)
    if (withDelay === undefined) return undefined
    return withDelay ? '' : `it passes too if what waits is delayed by ${wait} µs without that order`
  }

  /** The posts of one line of source suffice, if there are several lines. */
  const narrowed = async (candidate: Candidate, from: CureRun) => {
    const { event, held } = candidate
    const until = untilOf(candidate)
    const all = eventsOf(from, event, held)
    const siteOf = ({ opcode, stack }: TormentedRequest): string => `${opcode} ${stack.join()}`
    const sites = [...new Set(all.map(siteOf))]
    for (const site of sites.length === 1 || event === 'completed' ? [] : sites) {
      const posts = all.filter(one => siteOf(one) === site)
      if (posts.length > MAX_SINGLE) continue
      const only = posts.map(({ name }) => `request/${name}~${until}`)
      if ((await passes(only)).hasPassed) return { only, later: posts }
    }
    return { only: [`${decisionsOf(event, held)}~${until}`], later: all }
  }

  /** What the runs with a candidate have shown, in words. */
  const described = async (candidate: Candidate, last: CureRun, wait: number) => {
    const { event, held, awaited, word } = candidate
    const { only, later } = await narrowed(candidate, last)
    const isPost = event === 'posted'
    const earlier = isPost ? postsBefore(last, later, awaited) : eventsOf(last, event, awaited)
    const clause = isPost
      ? postOrderClause(later[0], earlier[0], held === awaited)
      : orderClause(`completion/${later[0]?.name}`, later[0], earlier[0], earlier[0]?.name ?? '')
    const what = isPost ? '' : 'the completion of '
    return render(framesOf => ({
      later: { id: only[0]!.split('~')[0]!, text: `${what}${postsText(later, framesOf)}` },
      earlier: {
        id: awaited,
        text: `${what}${postsText(earlier, framesOf, word === Awaited.POSTS ? 'posted before ' : '')}`,
      },
      ...{ clause, only },
      evidence: `so held it passes ${needed} of ${counted(needed, 'time')}; it fails in the opposite order, also if what waits is delayed by as much, ${wait} µs`,
    }))
  }

  for (const candidate of candidates) {
    const { event, held, awaited } = candidate
    const what = event === 'posted' ? 'what is posted to' : 'completions of'
    onStep(`whether ${what} ${held} must wait for ${awaited}`)
    const { hasPassed, waits, last } = await passes([`${decisionsOf(event, held)}~${untilOf(candidate)}`])
    if (last === undefined) return ends()
    tried++
    const wait = waits[waits.length >> 1]
    if (!hasPassed && [...last.held.values()].some(({ hasCome }) => hasCome === false)) late++
    if (!hasPassed || wait === undefined) continue
    onStep(`whether it fails in the opposite order of ${held} and ${awaited}`)
    const reason = await refuted(candidate, wait)
    if (reason === undefined) return ends()
    const cure = await described(candidate, last, wait)
    if (reason === '') return ends(cure)
    unproven ??= `it passes ${needed} of ${counted(needed, 'time')} if ${waitText(cure)} (${cure.clause}), but ${reason}`
  }
  return ends()
}

const waitText = ({ later, earlier }: Order): string =>
  `${later.text} waits until ${earlier.text} ${later.id.startsWith('request/') ? 'has been done' : 'has come'}`

export const cureSentence = (cure: Order): string =>
  `it passes if ${waitText(cure)}; nothing orders them (${cure.clause})`
