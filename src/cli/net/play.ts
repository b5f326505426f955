/*
 * Plays a scenario on a net that is up (`userdma net play`): starts its programs, lets failures happen at their
 * moments, and says what did not hold. Daemons tell of moments that count; a link that a rule takes down goes down at
 * the very completion or call.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { setMaxListeners } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import { NoDaemonError } from '../../daemon/client/errors.ts'
import { openToolSession, type ToolSession } from '../../daemon/client/tool-session.ts'
import type { FaultStat } from '../../spec/faults.ts'
import { printable } from '../../spec/printable.ts'
import {
  type CountTrigger,
  type LineTrigger,
  type Moment,
  type PlayAction,
  type PlayEvent,
  type PlayProgram,
  ruleOf,
  type Scenario,
} from '../../tools/topology/play-file.ts'
import { messageOf } from '../fail.ts'
import type { RecordFile } from '../record.ts'
import { addressLine, startHostDaemon } from './build.ts'
import { NetOutages } from './outages.ts'
import { hasDaemon, type PlannedHost } from './plan.ts'
import type { ChosenNet } from './state.ts'
import { type NetSystem, tool } from './system.ts'

/** Milliseconds. */
const RESTART_DELAY = 200

export interface PlayParts {
  readonly net: ChosenNet
  readonly system: NetSystem
  /** The environment of programs, and what they get of their host. */
  readonly env: NodeJS.ProcessEnv
  readonly variablesOf: (host: PlannedHost) => NodeJS.ProcessEnv
  /** A line of the report. */
  readonly report: (line: string) => void
  /** The file for the recording of a host's daemon. */
  readonly recordFile: (host: string) => RecordFile | undefined
  /** Programs that are late get SIGQUIT so many milliseconds before they are killed, to write their stacks. */
  readonly quitTime?: number
  /** Begins to look whether programs hang. Returns a function that ends it. */
  readonly watch?: (found: () => void) => () => void
  /** Called when the play is over, before its programs are killed. `isLate`: one has not ended in time. */
  readonly atEnd?: (isLate: boolean) => Promise<void>
  /** Ends the play early. */
  readonly stop: AbortSignal
}

/** A moment that counts, by a rule of the daemon. */
interface Watched {
  readonly trigger: CountTrigger
  /** Milliseconds for which the rule takes the link down then; undefined: it never acts. */
  readonly link: number | undefined
  readonly reached: () => void
  /** What daemons have counted that are gone. */
  counted: number
  isReached: boolean
}

/** The daemon of a host, with the rules of the scenario. */
class HostDaemon {
  #session: ToolSession
  /** Of the net. */
  readonly #rules: readonly string[]
  readonly #watched: Watched[] = []
  readonly #added = new Map<object, string>()
  /** While the daemon is gone. */
  #restarting: Promise<void> | undefined

  constructor(session: ToolSession, rules: string) {
    this.#session = session
    this.#rules = rules === '' ? [] : rules.split(';')
  }

  get session(): ToolSession {
    return this.#session
  }

  /**
   * Kills the daemon, and starts it again after so many milliseconds by `start`. What it has counted counts on. Nothing
   * happens while it is gone already.
   */
  async restart(milliseconds: number, start: () => Promise<void>): Promise<void> {
    if (this.#restarting !== undefined) return
    this.#restarting = this.#restart(milliseconds, start)
    try {
      await this.#restarting
    } finally {
      this.#restarting = undefined
    }
  }

  async #restart(milliseconds: number, start: () => Promise<void>): Promise<void> {
    const { socket, daemon, ended } = this.#session
    const counted = await this.session.faults()
    this.#watched.forEach((watched, i) => {
      watched.counted += this.#countOf(counted, i)
    })
    process.kill(daemon, 'SIGKILL')
    await ended
    await setTimeout(milliseconds, undefined, { ref: false })
    await start()
    this.#session = await openToolSession(socket)
    await this.setRules()
  }

  watch(trigger: CountTrigger, link: number | undefined, reached: () => void): void {
    this.#watched.push({ trigger, link, reached, counted: 0, isReached: false })
  }

  /** Sets all rules. Those that were there go on counting. */
  async setRules(): Promise<void> {
    const watching = this.#watched.map(({ trigger, link, counted, isReached }) =>
      ruleOf({ ...trigger, nth: trigger.nth - counted }, isReached ? undefined : link),
    )
    await this.session.faults([...this.#rules, ...watching, ...this.#added.values()].join(';'), true)
  }

  async add(key: object, rules: string | undefined): Promise<void> {
    if (rules === undefined) this.#added.delete(key)
    else this.#added.set(key, rules)
    await this.#restarting
    await this.setRules()
  }

  get isWatching(): boolean {
    return this.#watched.some(({ isReached }) => !isReached)
  }

  #countOf(all: readonly FaultStat[], i: number): number {
    return all[this.#rules.length + i]?.matched ?? 0
  }

  /** Waits for all moments. `isOver`: the daemon's session ends with the play. */
  async awaitMoments(isOver: () => boolean): Promise<void> {
    while (this.isWatching && !isOver()) {
      const open = this.#watched.flatMap(({ isReached, trigger, counted }, i) =>
        isReached ? [] : [{ rule: this.#rules.length + i, count: trigger.nth - counted }],
      )
      try {
        const all = await this.session.untilMatched(open)
        this.#watched.forEach((watched, i) => {
          if (watched.isReached || watched.counted + this.#countOf(all, i) < watched.trigger.nth) return
          watched.isReached = true
          watched.reached()
        })
      } catch (error) {
        if (isOver()) return
        // The daemon was killed. What a play has killed starts again.
        if (!(error instanceof NoDaemonError)) throw error
        if (this.#restarting === undefined) return
        await this.#restarting
      }
    }
  }
}

/** What each seed of rules without one is. */
const withSeed = (rules: string, seed: number): string =>
  rules
    .split(';')
    .map(rule => (/(?:^|,)\s*seed=/.test(rule) ? rule : `${rule},seed=${seed}`))
    .join(';')

/** What did not hold, if an event has not happened. */
export const notReached = ({ text }: PlayEvent): string => `did not come to this: ${text}`

class RunningProgram {
  readonly program: PlayProgram
  child: ChildProcess | undefined
  hasOutput = false
  isLate = false
  /** What did not hold, once it is known; '': all held. */
  verdict: string | undefined

  constructor(program: PlayProgram) {
    this.program = program
  }

  /** False: the program does not run. */
  signal(signal: NodeJS.Signals): boolean {
    if (this.child?.pid === undefined || this.child.exitCode !== null || this.child.signalCode !== null) return false
    try {
      return process.kill(-this.child.pid, signal)
    } catch {
      // It has ended.
      return false
    }
  }
}

class Play {
  readonly #scenario: Scenario
  readonly #parts: PlayParts
  readonly #begin = performance.now()
  readonly #daemons = new Map<string, HostDaemon>()
  readonly #programs: ReadonlyMap<string, RunningProgram>
  readonly #lines: { readonly trigger: LineTrigger; readonly reached: () => void }[] = []
  readonly #over = new AbortController()
  readonly #problems: string[] = []
  readonly #happened = new Set<PlayEvent>()
  #rulesSet: Promise<void> = Promise.resolve()
  readonly #recordings = new Map<ToolSession, RecordFile>()
  /** Actions that have begun. */
  readonly #acting = new Set<Promise<void>>()
  readonly #outages: NetOutages

  constructor(scenario: Scenario, parts: PlayParts) {
    this.#scenario = scenario
    this.#parts = parts
    this.#outages = new NetOutages(parts.system, parts.net.state.plan)
    this.#programs = new Map(scenario.programs.map(program => [program.name, new RunningProgram(program)]))
    // Each moment listens.
    setMaxListeners(0, this.#over.signal)
  }

  #say(text: string): void {
    const seconds = ((performance.now() - this.#begin) / 1000).toFixed(3)
    this.#parts.report(`${seconds.padStart(8)} ${printable(text)}`)
  }

  get #hosts(): readonly PlannedHost[] {
    return this.#parts.net.state.plan.hosts
  }

  async #open(): Promise<void> {
    for (const { name } of this.#hosts.filter(hasDaemon)) {
      const session = await openToolSession(this.#parts.net.folder.socket(name))
      this.#daemons.set(name, new HostDaemon(session, (await session.config()).fault))
      const recording = this.#parts.recordFile(name)
      await recording?.start(session)
      if (recording !== undefined) this.#recordings.set(session, recording)
    }
  }

  #daemon(host: string): HostDaemon {
    const daemon = this.#daemons.get(host)
    if (daemon === undefined) throw new Error(`host ${host} has no daemon (driver: none)`)
    return daemon
  }

  /** Fulfilled at the moment; rejected when the play is over. `link`: what a rule does then by itself. */
  #until({ when, after }: Moment, link?: number): Promise<void> {
    const { signal } = this.#over
    const delay = (): Promise<void> => setTimeout(after, undefined, { signal })
    if (when === undefined) return delay()
    return new Promise<void>((resolve, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason as Error))
      if (when.kind === 'line') this.#lines.push({ trigger: when, reached: resolve })
      else this.#daemon(when.host).watch(when, link, resolve)
    }).then(delay)
  }

  #onLine(running: RunningProgram, line: string): void {
    const { name, expect } = running.program
    this.#say(`${name}: ${line}`)
    if (expect?.output?.test(line)) running.hasOutput = true
    for (const watched of [...this.#lines]) {
      if (watched.trigger.program !== name || !watched.trigger.pattern.test(line)) continue
      this.#lines.splice(this.#lines.indexOf(watched), 1)
      watched.reached()
    }
  }

  /** Runs a program once; the result is its exit status. */
  #runOnce(running: RunningProgram): Promise<number | NodeJS.Signals> {
    const { host, run } = running.program
    const planned = this.#hosts.find(({ name }) => name === host)!
    const [enter, ...words] = this.#parts.system.hostCommand(
      planned,
      [tool('sh'), '-c', run],
      this.#parts.variablesOf(planned),
    )
    return new Promise((resolve, reject) => {
      const child = spawn(enter!, words, { env: this.#parts.env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
      running.child = child
      for (const stream of [child.stdout, child.stderr])
        createInterface({ input: stream }).on('line', line => this.#onLine(running, line))
      child.once('error', reject)
      // Children that go on would keep the output open.
      child.once('exit', () => {
        try {
          process.kill(-child.pid!, 'SIGKILL')
        } catch {
          // All have ended.
        }
      })
      child.once('close', (status, signal) => resolve(signal ?? status ?? 0))
    })
  }

  async #runProgram(running: RunningProgram): Promise<void> {
    const { name, start, restart, expect } = running.program
    const moment = this.#until(start)
    await Promise.all([this.#rulesSet, moment])
    for (;;) {
      this.#say(`${name} starts`)
      const end = await this.#runOnce(running)
      this.#say(`${name} has ended: ${typeof end === 'number' ? `exit status ${end}` : end}`)
      const isGood = end === (expect?.exit ?? 0)
      if (restart === 'never' || (restart === 'on-failure' && isGood)) {
        if (expect === undefined) return
        const text = typeof end === 'number' ? `exit status ${end}` : `ended by ${end}`
        const lacking = expect.output !== undefined && !running.hasOutput ? `no line matches ${expect.output}` : ''
        this.#judge(running, isGood ? lacking : `${text}, expected ${expect.exit}`)
        return
      }
      await setTimeout(RESTART_DELAY, undefined, { signal: this.#over.signal })
    }
  }

  #judgeLate(running: RunningProgram, problem: string): void {
    running.isLate = true
    this.#judge(running, problem)
  }

  #judge(running: RunningProgram, problem: string): void {
    if (running.verdict !== undefined) return
    running.verdict = problem
    if (problem !== '') this.#problems.push(`${running.program.name}: ${problem}`)
    const isOpen = [...this.#programs.values()].some(one => one.program.expect && one.verdict === undefined)
    if (!isOpen) this.#over.abort(new Error('the play is over'))
  }

  async #act(action: PlayAction): Promise<void> {
    const { system } = this.#parts
    switch (action.kind) {
      case 'kill':
        if (!this.#programs.get(action.program)!.signal('SIGKILL')) this.#say(`${action.program} does not run now`)
        return undefined
      case 'stop': {
        const running = this.#programs.get(action.program)!
        if (!running.signal('SIGSTOP')) return this.#say(`${action.program} does not run now`)
        await setTimeout(action.for, undefined, { ref: false })
        running.signal('SIGCONT')
        return undefined
      }
      case 'link': {
        const { session } = this.#daemon(action.host)
        const { devices } = await session.config()
        for (const { name } of devices.filter(({ name }) => action.device === '' || name === action.device))
          await session.setLink(name, false, action.down)
        return undefined
      }
      case 'path':
      case 'router': {
        const [node, other] = action.kind === 'router' ? [action.name] : action.between
        const end = this.#outages.takeDown(node, other)
        await setTimeout(action.down, undefined, { ref: false })
        return end()
      }
      case 'cable':
      case 'conditions': {
        const { net } = this.#parts
        const { node } = net.state.plan.fabrics.find(({ switches }) => switches.includes(action.between[0]))!
        const session = await openToolSession(net.folder.socket(node))
        try {
          if (action.kind === 'cable') await session.setLink(action.between.join(':'), false, action.down)
          else await session.setConditions(action.between, action.conditions, action.for || undefined)
        } finally {
          session.close()
        }
        return undefined
      }
      case 'daemon': {
        const host = this.#hosts.find(({ name }) => name === action.host)!
        const { net } = this.#parts
        return this.#daemon(action.host).restart(action.gone, () =>
          startHostDaemon(net.folder, system, host, net.state.plan),
        )
      }
      case 'device': {
        const { session } = this.#daemon(action.host)
        const { devices } = await session.config()
        const found = devices.find(({ name }) => action.device === '' || name === action.device)
        if (found === undefined) throw new Error(`host ${action.host} has no device ${action.device}`)
        await session.changeDevices({ remove: found.name })
        await setTimeout(action.gone, undefined, { ref: false })
        await session.changeDevices({ add: found })
        return undefined
      }
      case 'fault': {
        const daemon = this.#daemon(action.host)
        await daemon.add(action, withSeed(action.rules, this.#scenario.seed))
        if (action.for === 0) return undefined
        await setTimeout(action.for, undefined, { ref: false })
        return daemon.add(action, undefined)
      }
      case 'gid':
      case 'address': {
        const planned = this.#hosts.find(({ name }) => name === action.host)
        const found = planned?.interfaces.find(({ name }) => name === action.interface)
        if (found === undefined) throw new Error(`host ${action.host} has no interface ${action.interface}`)
        const { address, prefix, name } = found
        const remove = `address delete ${address}/${prefix} dev ${name}`
        if (action.kind === 'address') {
          system.batch('ip', action.host, [remove])
          await setTimeout(action.gone, undefined, { ref: false })
          return system.batch('ip', action.host, [addressLine(found)])
        }
        // Others take the indices for a moment: 198.18.0.0/15 is for tests of networks (RFC 2544).
        const others = Array.from({ length: action.move }, (_, i) => `198.18.0.${i + 1}/32 dev ${name}`)
        return system.batch('ip', action.host, [
          remove,
          ...others.map(other => `address add ${other}`),
          addressLine(found),
          ...others.map(other => `address delete ${other}`),
        ])
      }
    }
  }

  async #happen(event: PlayEvent): Promise<void> {
    const { moment, action, text } = event
    const { when } = moment
    const isCutByRule =
      action.kind === 'link' &&
      action.device === '' &&
      moment.after === 0 &&
      when?.kind === 'count' &&
      when.canCutLink &&
      when.host === action.host &&
      this.#hosts.find(({ name }) => name === action.host)?.interfaces.length === 1
    await this.#until(moment, isCutByRule ? action.down : undefined)
    this.#happened.add(event)
    this.#say(text)
    if (isCutByRule) return
    const acting = this.#act(action).catch(error => {
      // The net is removed soon.
      if (!this.#over.signal.aborted) this.#problems.push(`${text}: ${messageOf(error)}`)
    })
    this.#acting.add(acting)
    void acting.finally(() => this.#acting.delete(acting))
  }

  /** What did not hold. Throws the reason of `stop`. */
  async run(): Promise<readonly string[]> {
    const over = this.#over.signal
    const onStop = (): void => this.#over.abort(this.#parts.stop.reason)
    this.#parts.stop.addEventListener('abort', onStop)
    const untilOver = async (work: Promise<void>): Promise<void> => {
      try {
        await work
      } catch (error) {
        if (over.aborted) return
        this.#problems.push(messageOf(error))
        this.#over.abort(error)
      }
    }
    const timers: Promise<void>[] = []
    try {
      await this.#open()
      // All moments are known at once; programs start when the rules that watch for them are set.
      this.#rulesSet = Promise.resolve().then(async () => {
        for (const daemon of this.#daemons.values()) if (daemon.isWatching) await daemon.setRules()
      })
      const events = this.#scenario.events.map(event => untilOver(this.#happen(event)))
      const programs = [...this.#programs.values()].map(running => untilOver(this.#runProgram(running)))
      for (const running of this.#programs.values()) {
        const { expect } = running.program
        if (expect === undefined) continue
        const limit = setTimeout(expect.within, undefined, { signal: over, ref: false }).then(() =>
          this.#judgeLate(running, `has not ended within ${expect.within / 1000} s`),
        )
        timers.push(limit.catch(() => {}))
      }
      const endWatch = this.#parts.watch?.(() => {
        for (const running of this.#programs.values()) {
          if (running.program.expect !== undefined && running.verdict === undefined) this.#judgeLate(running, 'hangs')
        }
      })
      over.addEventListener('abort', () => endWatch?.())
      for (const daemon of this.#daemons.values())
        void this.#rulesSet.then(() => untilOver(daemon.awaitMoments(() => over.aborted)))
      if (!over.aborted) await new Promise<void>(resolve => over.addEventListener('abort', () => resolve()))
      const isLate = [...this.#programs.values()].some(({ isLate: late }) => late)
      await this.#parts.atEnd?.(isLate)
      for (const running of this.#programs.values()) running.signal('SIGCONT')
      if (isLate && this.#parts.quitTime !== undefined) {
        for (const running of this.#programs.values()) running.signal('SIGQUIT')
        await setTimeout(this.#parts.quitTime)
      }
      for (const running of this.#programs.values()) running.signal('SIGKILL')
      await Promise.all([...events, ...programs, ...timers])
      await Promise.race([Promise.all(this.#acting), setTimeout(0)])
    } finally {
      this.#over.abort()
      for (const running of this.#programs.values()) running.signal('SIGKILL')
      // The recording of a daemon that was killed has ended with it.
      for (const [session, recording] of this.#recordings) await recording.end(session, true).catch(() => {})
      for (const { session } of this.#daemons.values()) session.close()
      await this.#outages.endAll()
      this.#parts.stop.removeEventListener('abort', onStop)
    }
    this.#parts.stop.throwIfAborted()
    const missed = this.#scenario.events.filter(event => !this.#happened.has(event))
    return [...this.#problems, ...missed.map(notReached)]
  }
}

/** Plays a scenario. Returns what did not hold. Throws an Error if a program cannot be started. */
export const playScenario = (scenario: Scenario, parts: PlayParts): Promise<readonly string[]> =>
  new Play(scenario, parts).run()
