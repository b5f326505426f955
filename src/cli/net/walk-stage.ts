/*
 * The stage of `userdma net walk`: each run plays a scenario without its events on a net that is up, with new daemons
 * on all hosts, so that nothing of one run is in the next.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openToolSession, type ToolSession } from '../../daemon/client/tool-session.ts'
import { parseFabric } from '../../settings/fabric.ts'
import type { Finding } from '../../spec/check/finding.ts'
import type { SurveyFacts } from '../../spec/faults.ts'
import { SessionEnv } from '../../spec/session.ts'
import { outageEventOf, type PlayEvent, type Scenario } from '../../tools/topology/play-file.ts'
import { watchSpinning } from '../clock.ts'
import { stopDaemon } from '../commands/stop.ts'
import { privateFolder, removeFolder } from '../paths.ts'
import { takeCrashes } from '../walk/crashes.ts'
import type { WalkRun } from '../walk/outcome.ts'
import { countingRules, packetRoleNames, type WalkPoint, type WalkPort } from '../walk/points.ts'
import { actedOf, type RunLimits, type Stage, settledConnections, walkPorts } from '../walk/stage.ts'
import { startHostDaemon } from './build.ts'
import { walkOutages } from './outages.ts'
import { hasDaemon, type Plan } from './plan.ts'
import { notReached, type PlayParts, playScenario } from './play.ts'
import { scenarioNet } from './scenario-net.ts'

/** Milliseconds in which programs that hang write their stacks. */
const QUIT_TIME = 2000

/**
 * With a clock that skips, seconds for which programs may wait for retries, beyond those for which they run or spin.
 */
const PATIENCE = 300
/** Between looks, milliseconds. */
const HANG_LOOK = 1000

/** Milliseconds of the machine: the clock of this process may skip. */
const machineTime = (): number => Number(readFileSync('/proc/uptime', 'latin1').split(' ')[0]) * 1000

/** The scenario as it is played for a point: with its events only. `limit`: of each program's time, milliseconds. */
const played = (
  scenario: Scenario,
  events: readonly PlayEvent[],
  limit: (within: number) => number,
  restarts: string | undefined,
): Scenario => ({
  ...scenario,
  events,
  programs: scenario.programs.map(program => ({
    ...program,
    ...(program.host === restarts && program.restart === 'never' && { restart: 'on-failure' as const }),
    ...(program.expect !== undefined && {
      expect: { ...program.expect, within: limit(program.expect.within) },
    }),
  })),
})

const merged = (all: readonly SurveyFacts[]): SurveyFacts => {
  const first = (times: readonly (number | undefined)[]) => times.find(time => time !== undefined)
  const injectedAt = first(all.map(facts => facts.injectedAt))
  const recoveredAt = first(all.map(facts => facts.recoveredAt))
  return {
    told: all.flatMap(({ told }) => told),
    retries: Math.max(0, ...all.map(({ retries }) => retries)),
    relapses: all.flatMap(({ relapses }) => relapses),
    ...(injectedAt !== undefined && { injectedAt }),
    ...(recoveredAt !== undefined && { recoveredAt }),
  }
}

const portsOf = ({ hosts, fabrics }: Plan): readonly WalkPort[] =>
  hosts.flatMap(({ name, interfaces }) =>
    interfaces.flatMap(({ device, fabric: node, peer }) => {
      const fabric = fabrics.find(one => one.node === node)
      if (fabric === undefined || device === undefined) return []
      return walkPorts(name, parseFabric(fabric.text), new Map([[device, peer]]))
    }),
  )

/** `file`: of the scenario. `parts`: without what the stage sets itself. */
export const netStage = (
  file: string,
  scenario: Scenario,
  parts: Omit<PlayParts, 'report' | 'recordFile' | 'atEnd' | 'quitTime'>,
): Stage => {
  const { net, system } = parts
  const hosts = net.state.plan.hosts.filter(hasDaemon)
  const skips = net.state.plan.clock === 'skip'
  const named = scenarioNet(net.state.plan)
  const outages = walkOutages(net.state.plan)
  /** What the play does in the place of a rule for routers. */
  const outageOf = ({ host, rule }: WalkPoint, factor: number): PlayEvent | undefined => {
    const at = named.hosts.find(({ name }) => name === host)
    return at && outageEventOf(rule(factor), at, named)
  }

  /** Ends the daemons of the last run, and starts new ones. */
  const renewDaemons = async (factor: number): Promise<void> => {
    await Promise.all(
      hosts.map(async host => {
        // A daemon that has ended is no error: a run may have killed it.
        await stopDaemon(net.folder.socket(host.name)).catch(() => {})
        await startHostDaemon(net.folder, system, host, { ...net.state.plan, check: true }, factor)
      }),
    )
  }

  const runWith = async (
    sessions: ReadonlyMap<string, ToolSession>,
    point: WalkPoint | undefined,
    { seconds, factor }: RunLimits,
    findings: readonly Finding[],
    crashes: string,
  ): Promise<WalkRun> => {
    const outage = point && outageOf(point, factor)
    for (const [host, session] of sessions) {
      await session.subscribeFindings()
      const { fault } = await session.config()
      const isHere = point?.host === host && outage === undefined
      const own = point === undefined ? countingRules : isHere ? [point.rule(factor)] : []
      await session.faults([fault, ...own].filter(Boolean).join(';'))
      await session.beginSurvey()
    }
    const lines: string[] = []
    const waits: string[] = []
    const left: string[] = []
    const all = [...sessions.values()]
    let isTimedOut = false
    const begin = performance.now()
    const limit = (within: number): number => (skips ? (seconds + PATIENCE) * 1000 : Math.min(within, seconds * 1000))
    const events = outage === undefined ? [] : [outage]
    const told = await playScenario(played(scenario, events, limit, point?.restarts), {
      ...parts,
      ...(skips && {
        watch: found => watchSpinning(net.folder.clock, seconds, found, { now: machineTime, interval: HANG_LOOK }),
      }),
      env: { ...parts.env, [SessionEnv.crashes]: crashes },
      report: line => void lines.push(line.replace(/^ *[\d.]+ /, '')),
      recordFile: () => undefined,
      quitTime: QUIT_TIME,
      async atEnd(isLate) {
        isTimedOut = isLate
        if (isLate) for (const session of all) waits.push(...(await session.waits()).map(({ text }) => text))
        else left.push(...(await settledConnections(all)))
      },
    })
    const duration = performance.now() - begin
    const problems = told.filter(problem => outage === undefined || problem !== notReached(outage))
    // The lines of programs; what the play tells of starts and ends differs.
    const names = scenario.programs.map(({ name }) => `${name}: `)
    const output = lines.filter(line => names.some(name => line.startsWith(name))).join('\n')
    const surveys = new Map<string, Awaited<ReturnType<ToolSession['survey']>>>()
    for (const [host, session] of sessions) {
      await session.counts()
      surveys.set(host, await session.survey())
    }
    const statsOf = async (host: string) => (await sessions.get(host)?.faults()) ?? []
    const counts =
      point === undefined
        ? (
            await Promise.all(
              [...sessions.keys()].map(async host => {
                const stats = await statsOf(host)
                return packetRoleNames.map((role, i) => ({
                  host,
                  role,
                  count: stats[stats.length - packetRoleNames.length + i]?.matched ?? 0,
                }))
              }),
            )
          ).flat()
        : []
    const failed = [...surveys.values()].find(survey => survey.failed !== undefined)?.failed
    return {
      result: {
        failure: problems.length === 0 ? undefined : problems.join('; '),
        output: lines.slice(-20).join('\n'),
        stdout: output,
        stderr: '',
        status: problems.length === 0 ? 0 : 1,
        signal: null,
        isTimedOut,
        duration,
      },
      sites: [...surveys].flatMap(([host, { sites }]) => sites.map(site => ({ ...site, host }))),
      counts,
      ports: portsOf(net.state.plan),
      records: takeCrashes(crashes),
      findings,
      failed,
      facts: merged([...surveys.values()].map(({ facts }) => facts)),
      injected:
        outage !== undefined
          ? Number(problems.length === told.length)
          : point === undefined
            ? 0
            : actedOf(point.rule(factor), (await statsOf(point.host)).at(-1)),
      waits,
      left,
    }
  }

  return {
    hasRestarts: true,
    ...(outages !== undefined && { outages }),
    ...(skips && { now: machineTime }),
    async run(point, limits) {
      const folder = privateFolder()
      const crashes = join(folder, 'crashes')
      writeFileSync(crashes, '')
      const sessions = new Map<string, ToolSession>()
      const findings: Finding[] = []
      try {
        await renewDaemons(limits.factor)
        for (const { name } of hosts) {
          const onFinding = (finding: Finding): void => void findings.push({ ...finding, host: name })
          sessions.set(name, await openToolSession(net.folder.socket(name), { onFinding }))
        }
        return await runWith(sessions, point, limits, findings, crashes)
      } finally {
        for (const session of sessions.values()) session.close()
        removeFolder(folder)
      }
    },
    repeatCommand: point => [
      'userdma',
      'net',
      'play',
      file,
      '--no-events',
      '--fault',
      `${point.host}:${point.rule(1)}`,
      ...(point.restarts === undefined ? [] : ['--restart', point.restarts]),
      '--record',
      'walk',
    ],
  }
}
