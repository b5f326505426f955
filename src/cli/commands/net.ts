/*
 * `userdma net`: makes a network of hosts on this machine from a file, runs programs on its hosts, shows and removes it
 * (docs/how-to/net.md).
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { didYouMean } from '../../base/suggest.ts'
import { openToolSession } from '../../daemon/client/tool-session.ts'
import { keepClock } from '../../daemon/clock.ts'
import { endBySignal } from '../../host/end-by-signal.ts'
import { jsonText } from '../../spec/printable.ts'
import { SessionEnv } from '../../spec/session.ts'
import { readTopology } from '../../tools/topology/net-file.ts'
import { outageEventOf, type PlayEvent, readScenario } from '../../tools/topology/play-file.ts'
import { countSkipped } from '../clock.ts'
import { type OptionsOf, optionWords } from '../command-line/option.ts'
import { type netExecOptions, netPlayOptions, type netShowOptions, netWalkOptions } from '../command-line/options.ts'
import { type EndSignal, onEndSignal } from '../end-signals.ts'
import { UsageError } from '../fail.ts'
import { isServed } from '../join.ts'
import { buildNet } from '../net/build.ts'
import { ranInside } from '../net/inside.ts'
import { hasDaemon, type Plan, type PlannedHost, planNet } from '../net/plan.ts'
import { playScenario } from '../net/play.ts'
import { scenarioNet } from '../net/scenario-net.ts'
import { lookAtNet, netText } from '../net/show.ts'
import { type ChosenNet, chosenNet, isRoot, NetFolder, type NetState, netNames, runningNet } from '../net/state.ts'
import { NetSystem, requireTools, startHolder, tool } from '../net/system.ts'
import { netStage } from '../net/walk-stage.ts'
import { clockLibrary, userdmaScript } from '../paths.ts'
import { endAs, programEnvironment, runProgram, withoutShim, withPreloaded } from '../program/program.ts'
import { isForCheck, openRecordFile } from '../record.ts'
import { checkProgram } from './run.ts'
import { type WalkOptions, walkAndReport } from './walk.ts'

/** `net up` was interrupted by a signal. */
class Interrupted extends Error {
  override readonly name = 'Interrupted'
}

/** Removes a net: processes, namespaces, files. Of another folder's net with the same name it touches nothing. */
const removeNet = async (folder: NetFolder): Promise<void> => {
  if (folder.otherFolder() === undefined) await new NetSystem(folder, { holder: folder.holder() }).remove()
  folder.remove()
}

/** Makes the net of a plan. Throws Interrupted after `signal` gives one; then and after a failure nothing is left. */
const makeNet = async (folder: NetFolder, file: string, plan: Plan, signal: () => boolean): Promise<void> => {
  const checkpoint = (): void => {
    if (signal()) throw new Interrupted()
  }
  try {
    folder.write({ phase: 'starting', file, plan })
    let state: NetState = { phase: 'starting', file, plan }
    if (!isRoot()) {
      writeFileSync(folder.hostsFile(), '127.0.0.1 localhost\n')
      state = { ...state, holder: await startHolder(folder) }
      folder.write(state)
    }
    await buildNet(folder, new NetSystem(folder, state), plan, checkpoint)
    folder.write({ ...state, phase: 'up' })
  } catch (error) {
    await removeNet(folder)
    throw error
  }
}

/** Names of the drivers with addresses. They are loaded only where they are needed. */
const networkDrivers = async (): Promise<readonly string[]> =>
  (await import('../../drivers/registered.ts')).networkDrivers

/** `net up`. `changes`: of the plan. */
export const netUp = async (file: string, changes: Partial<Plan> = {}): Promise<void> => {
  const plan = { ...planNet(readTopology(file), await networkDrivers()), ...changes }
  requireTools()
  const folder = new NetFolder(plan.name)
  folder.requireUsablePaths(plan)
  let interruption: EndSignal | undefined
  const restoreSignals = onEndSignal(signal => {
    interruption ??= signal
  })
  try {
    await folder.locked(async () => {
      const other = folder.otherFolder()
      if (other !== undefined)
        throw new Error(
          `root has a net ${plan.name} already, in the folder ${other}; give this one another name, or remove that one with \`userdma net down ${plan.name}\` and the XDG_RUNTIME_DIR of its \`net up\``,
        )
      const before = folder.read()
      // After a restart of the machine nothing is left of a net but its folder.
      if (before?.phase === 'up' && new NetSystem(folder, before).hasLeft())
        throw new Error(`the net ${plan.name} is up already; \`userdma net down ${plan.name}\` removes it`)
      // What a killed command has left.
      if (folder.exists() || new NetSystem(folder, {}).hasLeft()) await removeNet(folder)
      await makeNet(folder, resolve(file), plan, () => interruption !== undefined)
    })
  } catch (error) {
    restoreSignals()
    if (interruption !== undefined) endBySignal(interruption)
    throw error
  }
  restoreSignals()
  const { name } = plan
  const hosts = plan.hosts.filter(({ forwards }) => !forwards)
  process.stdout.write(`net ${name} is up: ${hosts.length} ${hosts.length === 1 ? 'host' : 'hosts'}\n`)
}

/** `net down`. Without a name: the only net. */
export const netDown = async (name: string | undefined): Promise<void> => {
  requireTools()
  const [only, ...others] = netNames()
  // `chosenNet` has the message for none or several.
  const folder = new NetFolder(name ?? (others.length === 0 && only ? only : chosenNet(undefined).folder.name))
  if (folder.isOnHost)
    throw new UsageError(`this is a host of the net ${folder.name}; run \`userdma net down\` outside the net`)
  await folder.locked(async () => {
    const hasLeft = folder.otherFolder() === undefined && new NetSystem(folder, {}).hasLeft()
    if (!folder.exists() && !hasLeft) chosenNet(folder.name)
    await removeNet(folder)
  })
}

/**
 * What `net exec` sets for its program on a host with a daemon, and if that checks programs, so that findings have
 * stacks. Throws an Error if the daemon has ended.
 */
const devicesOf = (folder: NetFolder, host: string, isChecked: boolean): NodeJS.ProcessEnv => {
  const socket = folder.socket(host)
  if (!isServed(socket))
    throw new Error(`the daemon of host ${host} has ended; its log is ${folder.hostFolder(host)}/daemon.log`)
  const { LD_PRELOAD, [SessionEnv.stacks]: stacks } = programEnvironment(socket, { stacks: isChecked })
  return { LD_PRELOAD, [SessionEnv.stacks]: stacks, [SessionEnv.socket]: folder.socketOfThisHost }
}

/** What a program on a host gets: the devices of its daemon, and the clock of the net if that skips. */
const variablesOf = ({ folder, state: { plan } }: ChosenNet, host: PlannedHost): NodeJS.ProcessEnv => {
  const skips = plan.clock === 'skip'
  return {
    ...(skips && { LD_PRELOAD: clockLibrary(), [SessionEnv.clock]: folder.clockPage }),
    ...(hasDaemon(host) && devicesOf(folder, host.name, plan.check === true)),
  }
}

/** `net exec`: ends as the program. With `shell`, its words are a line for the host's `sh`, as with ssh. */
export const netExec = async (
  host: string,
  first: string,
  rest: readonly string[],
  options: OptionsOf<typeof netExecOptions>,
) => {
  // What stands after the host is the program's, with or without --.
  const [program, ...args] = first === '--' ? rest : [first, ...rest]
  if (program === undefined) throw new UsageError(`net exec: after ${host} -- stands the program to run`)
  if (program.startsWith('-') && first !== '--')
    throw new UsageError(
      `net exec: options such as "${program}" stand before the host: userdma net exec ${program} … ${host} -- …`,
    )
  const { folder, state } = runningNet(options.net)
  const names = state.plan.hosts.map(({ name }) => name)
  const found = state.plan.hosts.find(({ name }) => name === host)
  if (found === undefined)
    throw new Error(
      `the net ${folder.name} has no host "${host}"${didYouMean(host, names) || `; it has ${names.slice(0, 12).join(', ')}${names.length > 12 ? ' …' : ''}`}`,
    )
  const command = options.shell ? [tool('sh'), '-c', [program, ...args].join(' ')] : [program, ...args]
  if (!options.shell) checkProgram(program, args)
  const system = new NetSystem(folder, state)
  system.requireHolder()
  const [enter, ...words] = system.hostCommand(found, command, variablesOf({ folder, state }, found))
  const { [SessionEnv.socket]: _, ...env } = withoutShim(process.env)
  endAs(await runProgram(enter!, words, env))
}

/** What `net play` changes in its scenario, to repeat a run of `net walk`, and where it records. */
type NetPlayOptions = OptionsOf<typeof netPlayOptions>

/** The scenario of a file, and the path and plan of its net. */
const scenarioOf = (file: string, drivers: readonly string[]) => {
  let path = ''
  let plan: Plan | undefined
  const scenario = readScenario(file, net => {
    path = resolve(dirname(file), net)
    plan = planNet(readTopology(path), drivers)
    return scenarioNet(plan)
  })
  return { scenario, path, plan: plan! }
}

/** What a play needs of a net that is up. */
const partsOf = (net: ChosenNet) => {
  const { [SessionEnv.socket]: _, ...env } = withoutShim(process.env)
  return {
    net,
    system: new NetSystem(net.folder, net.state),
    env,
    variablesOf: (host: PlannedHost) => variablesOf(net, host),
  }
}

/**
 * The host and the rule of `HOST:RULE`. `outage`: what the play does in the place of a rule for routers. Throws
 * UsageError.
 */
const parseHostFault = (
  text: string,
  plan: Plan,
): { readonly host: string; readonly rule: string; readonly outage: PlayEvent | undefined } => {
  const [, name = '', rule = ''] = /^([^:]+):(.*)$/.exec(text) ?? []
  const net = scenarioNet(plan)
  const hosts = net.hosts.filter(one => one.hasDaemon)
  const host = hosts.find(one => one.name === name)
  if (host === undefined)
    throw new UsageError(
      `--fault "${text}": write HOST:RULE, where HOST is one of ${hosts.map(one => one.name).join(', ')}`,
    )
  try {
    return { host: name, rule, outage: outageEventOf(rule, host, net) }
  } catch (error) {
    throw new UsageError(`--fault "${text}": ${(error as Error).message}`)
  }
}

/** Sets `HOST:RULE` on its host, or returns what the play does in its place. */
const setFault = async ({ folder, state }: ChosenNet, text: string): Promise<PlayEvent | undefined> => {
  const { host, rule, outage } = parseHostFault(text, state.plan)
  if (outage !== undefined) return outage
  const session = await openToolSession(folder.socket(host))
  try {
    await session.faults([(await session.config()).fault, rule].filter(Boolean).join(';'))
  } finally {
    session.close()
  }
  return undefined
}

/** Plays on the net, which is up; nothing of the play is left. Throws the reason of `stop`. */
const playOn = async (file: string, net: ChosenNet, options: NetPlayOptions, stop: AbortSignal): Promise<void> => {
  const { record, recordDepth, fault = [], restart, events } = options
  const { scenario } = scenarioOf(file, await networkDrivers())
  const outages: PlayEvent[] = []
  for (const text of fault) {
    const outage = await setFault(net, text)
    if (outage !== undefined) outages.push(outage)
  }
  const programs = scenario.programs.map(program =>
    program.host === restart && program.restart === 'never' ? { ...program, restart: 'on-failure' as const } : program,
  )
  const played = { ...scenario, programs, events: [...(events === false ? [] : scenario.events), ...outages] }
  const problems = await playScenario(played, {
    ...partsOf(net),
    recordFile: host =>
      openRecordFile(
        record === undefined
          ? {}
          : { record: join(record, `${host}.udr`), ...(recordDepth !== undefined && { recordDepth }) },
      ),
    report: line => void process.stdout.write(`${line}\n`),
    stop,
  })
  for (const problem of problems) process.stdout.write(`userdma net play: ${problem}\n`)
  process.stdout.write(problems.length === 0 ? 'userdma net play: all held\n' : '')
  if (problems.length > 0) process.exitCode = 1
}

/** Lets the clock of the net skip, in which this process takes part. */
const keepClockOf = ({ folder, state }: ChosenNet): void => {
  const system = new NetSystem(folder, state)
  const limited = state.plan.links.filter(({ rate }) => rate !== undefined).flatMap(({ ends }) => ends)
  keepClock([...new Set(limited.map(({ node }) => node))].map(node => system.namespacePath(node)))
}

/**
 * Makes the net of a scenario, does `work` on it, and removes it. `words`: the command that does the work, in the net's
 * user namespace if the user is not root, and by the net's clock if that skips. `changes`: of the net's plan.
 */
const onNetOf = async (
  file: string,
  at: string | undefined,
  words: readonly string[],
  changes: Partial<Plan>,
  isVerbose: boolean,
  work: (net: ChosenNet, stop: AbortSignal) => Promise<void>,
): Promise<void> => {
  const controller = new AbortController()
  let interruption: EndSignal | undefined
  const { path, plan } = scenarioOf(file, await networkDrivers())
  if (at === undefined) await netUp(path, changes)
  const net = runningNet(at === undefined ? plan.name : undefined, at)
  const { folder, state } = net
  const restoreSignals = onEndSignal(signal => {
    interruption ??= signal
    controller.abort(new Interrupted())
  })
  try {
    const skips = state.plan.clock === 'skip'
    const enter = at === undefined ? new NetSystem(folder, state).enter : []
    if (at !== undefined && skips) keepClockOf(net)
    if (at !== undefined || (enter.length === 0 && !skips)) await work(net, controller.signal)
    else {
      const own = [process.execPath, userdmaScript, 'net', ...words, '--at', folder.path]
      const [program, ...args] = [...enter, ...own]
      const env = { ...withPreloaded(process.env, clockLibrary()), [SessionEnv.clock]: folder.clockPage }
      const tellSkipped = countSkipped(folder.clock, isVerbose)
      process.exitCode = (await runProgram(program!, args, skips ? env : process.env)).status
      tellSkipped()
    }
  } catch (error) {
    if (!(error instanceof Interrupted)) throw error
  } finally {
    if (at === undefined) await folder.locked(() => removeNet(folder))
    restoreSignals()
  }
  if (interruption !== undefined) endBySignal(interruption)
}

/** As `mkdir -p`: mkdirSync of Node loops for ever where no folder can be made, as in /proc. Throws UsageError. */
const makeFolder = (path: string): void => {
  if (existsSync(path)) return
  const parent = dirname(resolve(path))
  makeFolder(parent)
  try {
    mkdirSync(path)
  } catch (error) {
    throw new UsageError(`--record: cannot make the folder ${path}: ${(error as NodeJS.ErrnoException).code}`)
  }
}

/** `net play`: makes the net of a scenario, plays it, and removes the net. Exit status 1: something did not hold. */
export const netPlay = async (file: string, options: NetPlayOptions): Promise<void> => {
  const { at, ...play } = options
  const { record, fault = [], restart } = play
  const { plan } = scenarioOf(file, await networkDrivers())
  const { hosts } = plan
  for (const text of fault) parseHostFault(text, plan)
  if (restart !== undefined && !hosts.some(({ name }) => name === restart))
    throw new UsageError(`--restart "${restart}": give one of ${hosts.map(({ name }) => name).join(', ')}`)
  if (record !== undefined) makeFolder(record)
  const words = [
    'play',
    resolve(file),
    ...optionWords(netPlayOptions, { ...play, ...(record !== undefined && { record: resolve(record) }) }),
  ]
  // The daemons of the hosts check programs then, whose stacks are recorded too.
  const changes = { ...(isForCheck(options) && { check: true }), ...clockOf(options) }
  await onNetOf(file, at, words, changes, options.verbose === true, (net, stop) => playOn(file, net, options, stop))
}

/** What options of the clock change in a net's plan. */
const clockOf = ({ clock, clockSpin }: Pick<NetPlayOptions, 'clock' | 'clockSpin'>): Partial<Plan> =>
  clock === 'skip' ? { clock, ...(clockSpin === false && { clockSpin }) } : {}

/** `net walk`: makes the net of a scenario, and walks over its programs, without the failures of the file. */
export const netWalk = async (file: string, options: WalkOptions): Promise<void> => {
  const { at, clock: given, clockSpin, ...walkOptions } = options
  // Shorter timers are of no use to a clock that skips.
  const clock = given ?? (options.timers === undefined ? 'skip' : 'real')
  if ((options.jobs ?? 1) !== 1)
    throw new UsageError(`--jobs "${options.jobs}": all runs are on the hosts of one net, so give 1`)
  const words = ['walk', resolve(file), ...optionWords(netWalkOptions, { ...walkOptions, clock })]
  const changes = { check: true, ...clockOf({ clock, ...(clockSpin !== undefined && { clockSpin }) }) }
  await onNetOf(file, at, words, changes, false, async net => {
    await walkAndReport(
      {
        name: file,
        inputs: [['the scenario', file]],
        defaultJobs: 1,
        isConfirmed: clock === 'real',
        stage: async (_jobs, stop) =>
          netStage(file, scenarioOf(file, await networkDrivers()).scenario, { ...partsOf(net), stop }),
      },
      walkOptions,
    )
  })
}

/** `net show`. */
export const netShow = async (name: string | undefined, options: OptionsOf<typeof netShowOptions>): Promise<void> => {
  const { folder, state } = chosenNet(name, options.at)
  const given = [...(options.json ? ['--json'] : []), ...(options.flows ? ['--flows'] : [])]
  if (await ranInside(folder, state, ['net', 'show', folder.name, ...given])) return
  if (options.flows) {
    const { flowsText, netFlows } = await import('../net/flows.ts')
    const flows = await netFlows(folder, new NetSystem(folder, state), state.plan)
    process.stdout.write(options.json ? `${jsonText(flows, 2)}\n` : flowsText(flows) || 'no queue pairs over routers\n')
    return
  }
  const shown = await lookAtNet(folder, state)
  process.stdout.write(options.json ? `${jsonText(shown, 2)}\n` : netText(shown))
}
