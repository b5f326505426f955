/*
 * `network.explore`: runs a test under the faults of many seeds, each on a network of its own in virtual time. The
 * first seed that fails is run again with fewer and fewer faults. The error has what is left, and the ladder.
 */

import type { EventEmitter } from 'node:events'
import { shrink } from '../../../base/shrink.ts'
import type { FaultRule } from '../../../faults/rule.ts'
import { formatFaults, formatRule } from '../../../faults/rules.ts'
import { nextTurn } from '../../../host/event-loop/next-turn.ts'
import { decisionKind } from '../../../spec/check/torment.ts'
import type { LinkTopology } from '../../../transport/phy/links/graph.ts'
import { checkOptions, type KnownOptions } from '../../verbs/arguments/options.ts'
import type { Device } from '../../verbs/device.ts'
import {
  checkFunction,
  checkInteger,
  formatValue,
  hideFields,
  invalidArgument,
  RdmaError,
  refused,
} from '../../verbs/error.ts'
import type { Explored, ExploredTest, ExploreOptions, LocalNetwork, Network, NetworkOptions } from '../contract.ts'
import {
  type ExploredFault,
  exploredFaults,
  failingPlaces,
  faultsOf,
  lackingOf,
  type ReceivedPackets,
} from './fault-lists.ts'
import { observeRun } from './ladder.ts'

const optionNames: KnownOptions<ExploreOptions> = { seeds: true, first: true, kinds: true, faults: true, limit: true }
const defaultKinds: readonly ExploredFault[] = ['loss', 'delay', 'reorder', 'duplicate']
const MAX_SEED = 2 ** 32 - 1
const MAX_FAULTS = 32
const MAX_LIMIT = 2 ** 31 - 1
const DEFAULT_LIMIT = 600_000
/** Runs of a failed seed with fewer faults and decisions. */
const MAX_SHRINKS = 100

/** A test has failed under `network.explore`. The `cause` is its error. */
export class ExploreError extends Error {
  /** 'ExploreError'. */
  override readonly name: string = 'ExploreError'
  /** The seed of the network. */
  readonly seed: number
  /** The faults without which the test does not fail, as rules of `createNetwork({ fault })`. */
  readonly faults: readonly string[]
  /** The decisions of torment without which it does not fail, for `createNetwork({ torment: { seed, only } })`. */
  readonly torment: readonly string[]
  /** The last packets and failures, a line each. */
  readonly ladder: readonly string[]

  constructor(
    message: string,
    cause: unknown,
    seed: number,
    faults: readonly string[],
    torment: readonly string[],
    ladder: readonly string[],
  ) {
    super(message, { cause })
    this.seed = seed
    this.faults = faults
    this.torment = torment
    this.ladder = ladder
    // The message has it already.
    hideFields(this, 'ladder')
  }
}

interface Run {
  /** Undefined: the test has passed. */
  readonly failure: { readonly error: unknown } | undefined
  readonly received: ReceivedPackets
  readonly packets: number
  readonly milliseconds: number
  readonly lines: readonly string[]
  /** The decisions of torment. */
  readonly decisions: readonly string[]
}

/** What makes a run fail: a fault, or the identity of a decision of torment. */
type Cause = FaultRule | string
const faultRulesOf = (causes: readonly Cause[]): FaultRule[] => causes.filter(cause => typeof cause !== 'string')
const decisionsOf = (causes: readonly Cause[]): string[] => causes.filter(cause => typeof cause === 'string')

/** The kind of a decision; all faults are of one. */
const kindOf = (cause: Cause): string => (typeof cause === 'string' ? decisionKind(cause) : '')

const processEvents = ['uncaughtException', 'unhandledRejection'] as const

/**
 * Runs `body`. Errors that nothing catches are `caught`, and do not reach the program or its test runner, which would
 * not know of the seed.
 */
const catchingAll = async (body: () => Promise<void>, caught: (error: unknown) => void): Promise<void> => {
  if (typeof process !== 'object' || process.rawListeners === undefined) return body()
  const listeners = processEvents.map(event => [event, process.rawListeners(event)] as const)
  for (const event of processEvents) {
    process.removeAllListeners(event)
    process.on(event, caught)
  }
  try {
    await body()
    await nextTurn()
  } finally {
    for (const [event, earlier] of listeners) {
      process.removeAllListeners(event)
      for (const listener of earlier) process.on(event, listener as (error: unknown) => void)
    }
  }
}

/** Real milliseconds that workers which a test has ended get to end. */
const WORKER_TIME = 1000

/** The workers that begin from now on. Node does not list those without a listener among its resources. */
const watchWorkers = () => {
  const alive = new Set<object>()
  const hasProcess = typeof process === 'object' && process.on !== undefined
  const onWorker = (worker: EventEmitter): void => {
    alive.add(worker)
    worker.once('exit', () => alive.delete(worker))
  }
  if (hasProcess) process.on('worker', onWorker)
  return {
    /** Resolves with whether some are left. */
    async areLeft(): Promise<boolean> {
      const deadline = performance.now() + WORKER_TIME
      while (alive.size > 0 && performance.now() < deadline) await nextTurn()
      return alive.size > 0
    },
    stop(): void {
      if (hasProcess) process.off('worker', onWorker)
    },
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : formatValue(error))

/** One run of a test. */
const runOnce = async (
  network: LocalNetwork,
  test: ExploredTest,
  seed: number,
  limit: number,
  hasLadder: boolean,
): Promise<Run> => {
  const { virtualClock: clock } = network
  if (clock === undefined) throw new TypeError('the network of a run is in virtual time')
  const observed = observeRun(network, hasLadder)
  const devices: Device[] = []
  const decisions: string[] = []
  network.decisions?.listen(({ id, held }) => {
    if (held === undefined) decisions.push(id)
  })
  network.onOpened = device => void devices.push(device)
  let failure: Run['failure']
  let isEnding = false
  let milliseconds = 0
  const fail = (error: unknown): void => {
    failure ??= { error }
  }
  const workers = watchWorkers()
  clock.isAlone = true
  clock.onProblem = error => {
    // A program may expect that it is stuck, but what it does outside of the network does not repeat.
    if (error instanceof RdmaError && error.code === 'EOPNOTSUPP') fail(error)
  }
  await catchingAll(
    async () => {
      clock.after(limit, 'passive', () =>
        clock.fail('ECANCELED', `the test has not ended after ${limit} ms of virtual time`),
      )
      try {
        await clock.watch(
          'the test',
          (async () => {
            await test(network, seed)
          })(),
        )
      } catch (error) {
        fail(error)
      }
      // Rejections are unhandled once all promise reactions have run.
      await nextTurn()
      milliseconds = network.now()
      // First: the ports of a worker that ends are listed until then.
      const worker = (await workers.areLeft()) ? ['a worker'] : []
      const left = [...clock.outside(), ...worker]
      workers.stop()
      if (left.length > 0)
        fail(
          refused('EOPNOTSUPP', 'network.explore', `the test has left ${left.join(', ')}, which does not repeat`, ''),
        )
      isEnding = true
      observed.stop()
      // Findings of a check reject.
      for (const device of devices) await device.close().catch(fail)
    },
    error => void (isEnding || fail(error)),
  )
  await network.endRecording?.()
  network.end()
  const { received, packets } = observed
  return { failure, received, packets, milliseconds, lines: observed.lines(), decisions }
}

/** The program's text that makes the network of a failed run; an object or function has the name of its option. */
const replayOf = (options: NetworkOptions, seed: number, left: readonly Cause[]): string => {
  const { clock, fault = '', torment, seed: _, record: __, ...rest } = options
  const only = decisionsOf(left).map(id => `'${id}'`)
  const others = Object.entries({ ...rest, ...(only.length === 0 && { torment }) }).flatMap(([name, value]) =>
    value === undefined
      ? []
      : [typeof value === 'object' || typeof value === 'function' ? name : `${name}: ${JSON.stringify(value)}`],
  )
  const faults = [fault, formatFaults(faultRulesOf(left))].filter(Boolean).join(';')
  const settings = [
    `clock: '${clock}'`,
    ...others,
    `seed: ${seed}`,
    ...(faults === '' ? [] : [`fault: '${faults}'`]),
    ...(only.length === 0 ? [] : [`torment: { seed: ${seed}, only: [${only.join(', ')}] }`]),
  ]
  return `createNetwork({ ${settings.join(', ')} })`
}

const reportOf = (
  options: NetworkOptions,
  seed: number,
  of: string,
  all: readonly Cause[],
  left: readonly Cause[],
  { failure, lines }: Run,
): ExploreError => {
  const faults = faultRulesOf(left).map(formatRule)
  const torment = decisionsOf(left)
  const error = failure?.error
  /** `what`: faults or decisions of torment. */
  const listed = (what: string, names: readonly string[], count: number): string[] =>
    names.length > 0 ? [`${what} (${names.length} of ${count}):`, ...names.map(name => `  ${name}`)] : []
  const text = [
    left.length === 0
      ? `seed ${seed} fails without faults: ${messageOf(error)}`
      : `seed ${seed} ${of} fails: ${messageOf(error)}`,
    ...listed('faults', faults, faultRulesOf(all).length),
    ...listed('torment', torment, decisionsOf(all).length),
    `again: ${replayOf(options, seed, left)}`,
    'ladder:',
    ...lines.map(line => `  ${line}`),
  ].join('\n')
  return new ExploreError(text, error, seed, faults, torment, lines)
}

/** Errors that nothing catches belong to one run: only one `explore` of a process runs at a time. */
let isExploring = false

/**
 * `create`: makes the networks; `networkOptions` and `topology`: those of the network that explores. Rejects
 * with RdmaError EINVAL, EBUSY if another `explore` of the process has not ended, ExploreError.
 */
export const explore = async (
  create: (options: NetworkOptions) => Network,
  networkOptions: NetworkOptions,
  topology: LinkTopology | undefined,
  test: ExploredTest,
  options: ExploreOptions,
): Promise<Explored> => {
  if (isExploring)
    throw refused('EBUSY', 'network.explore', 'another network.explore of this process has not ended', 'await it first')
  isExploring = true
  try {
    return await exploreAlone(create, networkOptions, failingPlaces(topology), test, options)
  } finally {
    isExploring = false
  }
}

const exploreAlone = async (
  create: (options: NetworkOptions) => Network,
  networkOptions: NetworkOptions,
  places: ReturnType<typeof failingPlaces>,
  test: ExploredTest,
  options: ExploreOptions,
): Promise<Explored> => {
  const call = 'network.explore'
  checkOptions(call, 'options', options, optionNames)
  checkFunction(call, 'test', test)
  if (networkOptions.clock !== 'virtual')
    throw invalidArgument(
      call,
      'the network is in real time, where no run repeats',
      "createNetwork({ clock: 'virtual' })",
    )
  const { seeds = 100, first = 1, kinds = defaultKinds, faults: maxFaults = 8, limit = DEFAULT_LIMIT } = options
  checkInteger(call, 'first', first, 0, MAX_SEED)
  checkInteger(call, 'seeds', seeds, 1, MAX_SEED - first + 1)
  checkInteger(call, 'faults', maxFaults, 1, MAX_FAULTS)
  checkInteger(call, 'limit', limit, 1, MAX_LIMIT)
  if (!Array.isArray(kinds) || kinds.length === 0 || !kinds.every(kind => exploredFaults.includes(kind)))
    throw invalidArgument(
      call,
      `kinds ${Array.isArray(kinds) ? `[${kinds.map(formatValue).join(', ')}]` : formatValue(kinds)} is not a list of ${exploredFaults.join(', ')}`,
    )
  for (const kind of kinds) {
    const lacking = lackingOf(kind, places)
    if (lacking !== undefined)
      throw invalidArgument(call, `kinds has '${kind}', for which the network needs ${lacking}`)
  }
  const { record, fault = '', torment: ownTorment, ...rest } = networkOptions
  const run = (
    seed: number,
    causes: readonly Cause[],
    torment: NetworkOptions['torment'],
    hasLadder = false,
  ): Promise<Run> => {
    const text = [fault, formatFaults(faultRulesOf(causes))].filter(Boolean).join(';')
    const options = { ...rest, seed, fault: text, torment, ...(hasLadder && { record }) }
    return runOnce(create(options) as LocalNetwork, test, seed, limit, hasLadder)
  }
  /** A run with only these causes. */
  const runWith = (seed: number, causes: readonly Cause[], hasLadder = false): Promise<Run> => {
    const only = decisionsOf(causes)
    return run(seed, causes, only.length === 0 ? ownTorment : { seed, only }, hasLadder)
  }
  const total = { seeds: 0, packets: 0, virtualTime: 0 }
  const count = ({ packets, milliseconds }: Run): void => {
    total.packets += packets
    total.virtualTime += milliseconds
  }
  // Later runs overwrite the recording.
  const plain = await runWith(first, [], true)
  count(plain)
  if (plain.failure !== undefined) throw reportOf(networkOptions, first, '', [], [], plain)
  const hasTorment = kinds.includes('torment')
  for (let seed = first; seed < first + seeds; seed++) {
    const faults = faultsOf(seed, kinds, maxFaults, plain.received, places)
    const result = await run(seed, faults, hasTorment ? seed : ownTorment)
    count(result)
    total.seeds++
    if (result.failure === undefined) continue
    const causes: readonly Cause[] = hasTorment ? [...faults, ...result.decisions] : faults
    let runs = 0
    const fails = async (left: readonly Cause[]): Promise<boolean | undefined> =>
      runs++ < MAX_SHRINKS ? (await runWith(seed, left)).failure !== undefined : undefined
    const left = await shrink(causes, fails, hasTorment ? [kindOf] : [])
    const last = await runWith(seed, left, true)
    if (last.failure !== undefined)
      throw reportOf(networkOptions, seed, `(number ${total.seeds} of ${seeds})`, causes, left, last)
    const reason = `seed ${seed} fails, and does not fail again with the same faults: the test does not repeat`
    throw new ExploreError(
      `${reason}\n${messageOf(result.failure.error)}`,
      result.failure.error,
      seed,
      faults.map(formatRule),
      decisionsOf(causes),
      [],
    )
  }
  return total
}
