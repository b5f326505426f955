/*
 * Where the runs of a walk take place: each under a private daemon of its own, so that nothing of one run is in the
 * next; a few processes serve these one after another. Several at a time have network namespaces of their own, since
 * programs choose ports.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ToolSession } from '../../daemon/client/tool-session.ts'
import { DEFAULT_FABRIC, type FabricSpec, hasOtherWay, parseFabric, switchesOf } from '../../settings/fabric.ts'
import type { Finding } from '../../spec/check/finding.ts'
import type { DaemonConfig } from '../../uapi/tool.ts'
import { attempt } from '../attempt.ts'
import { watchHang } from '../clock.ts'
import { type JoinOptions, joinPrivate, privateDaemons } from '../join.ts'
import { isRoot } from '../net/state.ts'
import { tool } from '../net/system.ts'
import { privateFolder, removeFolder } from '../paths.ts'
import { programEnvironment } from '../program/program.ts'
import { takeCrashes } from './crashes.ts'
import type { WalkRun } from './outcome.ts'
import { countingRules, packetRoleNames, type WalkOutages, type WalkPoint, type WalkPort } from './points.ts'

export interface RunLimits {
  readonly seconds: number
  /** What times of retries are multiplied by. */
  readonly factor: number
}

export interface Stage {
  /** The machine's milliseconds, if the clock of this process skips. */
  readonly now?: () => number
  /** Processes that are killed can be started again. */
  readonly hasRestarts?: boolean
  /** Absent: there are no routers. */
  readonly outages?: WalkOutages
  /** Runs the program once. Absent `point`: without failure, and packets are counted. */
  run(point: WalkPoint | undefined, limits: RunLimits): Promise<WalkRun>
  /** The command that repeats the run of a point, with a recording. */
  repeatCommand(point: WalkPoint): readonly string[]
}

/** Milliseconds in which processes that hang write their stacks. */
const QUIT_TIME = 2000
/** Milliseconds for which programs with a clock that skips wait for each other before that is a hang. */
const STEADY = 1000
/** Milliseconds for which connections may end when the program has ended, and between looks. */
const SETTLE_TIME = 600
const SETTLE_LOOK = 100

/** The InfiniBand ports of a host, with the switch of each. */
export const walkPorts = (
  host: string,
  fabric: Pick<FabricSpec, 'manager' | 'links'>,
  switches: ReadonlyMap<string, string>,
): readonly WalkPort[] => {
  const isManaged = fabric.manager !== 'none'
  const hasOtherWays = fabric.links.every(link => hasOtherWay(fabric, link))
  return [...switches].map(([device, at]) => ({ host, device, switch: at, isManaged, hasOtherWays }))
}

/** Those of a daemon that has its switches, by its configuration. */
const ownPorts = ({ devices, fabric }: Pick<DaemonConfig, 'devices' | 'fabric'>): readonly WalkPort[] => {
  const names = devices.filter(({ layer }) => layer === 'infiniband').map(({ name }) => name)
  const spec = fabric === undefined ? DEFAULT_FABRIC : parseFabric(fabric)
  return names.length === 0 || spec.socket !== undefined ? [] : walkPorts('', spec, switchesOf(spec, names))
}

const pause = (milliseconds: number): Promise<void> => new Promise(resolve => void setTimeout(resolve, milliseconds))

/**
 * Connected queue pairs whose peer is gone, of processes that go on. `sessions`: the daemons of all hosts, so that all
 * peers are known.
 */
const lostConnections = async (sessions: readonly ToolSession[]): Promise<readonly string[]> => {
  const lists = await Promise.all(sessions.map(session => session.qps()))
  const all = lists.flat()
  const numbers = new Set(all.map(({ qpn }) => qpn))
  return all
    .filter(
      ({ type, state, peer }) => type === 'rc_qp' && state === 'RTS' && peer !== undefined && !numbers.has(peer.qpn),
    )
    .map(
      ({ command, pid, qpn, peer }) =>
        `process ${pid} (${command}) has queue pair 0x${qpn.toString(16)}, connected to 0x${peer!.qpn.toString(16)}, which is gone`,
    )
}

/** As `lostConnections`, after what takes some time to end. */
export const settledConnections = async (sessions: readonly ToolSession[]): Promise<readonly string[]> => {
  for (let waited = 0; ; waited += SETTLE_LOOK) {
    const lost = await lostConnections(sessions)
    if (lost.length === 0 || waited >= SETTLE_TIME) return lost
    await pause(SETTLE_LOOK)
  }
}

interface CommandStageOptions {
  readonly program: string
  readonly args: readonly string[]
  readonly options: JoinOptions
  /** Each run has a network namespace of its own. */
  readonly isIsolated: boolean
  readonly stop: AbortSignal
}

/** Without root, exec would take the right to set up the loopback interface. */
const isolated = (command: readonly string[]): readonly string[] => [
  tool('unshare'),
  '--net',
  ...(isRoot() ? [] : ['--user', '--map-current-user', '--keep-caps']),
  '--',
  tool('sh'),
  '-c',
  'ip link set lo up && exec "$@"',
  'sh',
  ...command,
]

/** The stage of a command. `close`: when no run is left. */
export const commandStage = (
  { program, args, options, isIsolated, stop }: CommandStageOptions,
  processes = privateDaemons(),
): Stage & { close(): Promise<void> } => ({
  close: () => processes.close(),
  async run(point, { seconds, factor }) {
    const folder = privateFolder()
    const findings: Finding[] = []
    const crashes = join(folder, 'crashes')
    const joined = await joinPrivate(
      processes,
      { ...options, check: true, timers: factor },
      { onFinding: finding => void findings.push(finding) },
    )
    const { client } = joined
    try {
      await client.subscribeFindings()
      const config = await client.config()
      const { fault } = config
      const rules = point === undefined ? countingRules : [point.rule(factor)]
      await client.faults([fault, ...rules].filter(Boolean).join(';'))
      await client.beginSurvey()
      writeFileSync(crashes, '')
      const waits: string[] = []
      const left: string[] = []
      const [command = '', ...words] = isIsolated ? isolated([program, ...args]) : [program, ...args]
      const result = await attempt(command, words, programEnvironment(client.socket, { stacks: true, crashes }), {
        seconds,
        stop,
        quitMilliseconds: QUIT_TIME,
        quitFile: crashes,
        ownSocket: client.socket,
        // Nothing comes from outside of a walk.
        watch: found => watchHang(client.socket, { milliseconds: STEADY, seconds }, found),
        async look(isTimedOut) {
          if (isTimedOut) waits.push(...(await client.waits()).map(({ text }) => text))
          else left.push(...(await settledConnections([client])))
        },
      })
      // Waits for the end of the program's objects; messages stay in order, so all findings have arrived before this
      // reply.
      await client.counts()
      const { sites, failed, facts } = await client.survey()
      const stats = await client.faults()
      return {
        result,
        sites: sites.map(site => ({ ...site, host: '' })),
        counts:
          point === undefined
            ? packetRoleNames.map((role, i) => ({
                host: '',
                role,
                count: stats[stats.length - packetRoleNames.length + i]?.matched ?? 0,
              }))
            : [],
        ports: ownPorts(config),
        records: takeCrashes(crashes),
        findings,
        failed,
        facts,
        injected: point === undefined ? 0 : actedOf(point.rule(factor), stats.at(-1)),
        waits,
        left,
      }
    } finally {
      removeFolder(folder)
      await joined.leave()
    }
  },
  repeatCommand(point) {
    const { device = [], machine, fault = [], fabric, link, path, clock, clockSpin } = options
    return [
      'userdma',
      'run',
      '--private',
      '--record',
      'walk.udr',
      ...device.flatMap(one => ['--device', one]),
      ...(machine === undefined ? [] : ['--machine', machine]),
      ...(fabric === undefined ? [] : ['--fabric', fabric]),
      ...(link === undefined ? [] : ['--link', link]),
      ...(path === undefined ? [] : ['--path', path]),
      ...(clock === undefined ? [] : ['--clock', clock]),
      ...(clockSpin === false ? ['--no-clock-spin'] : []),
      ...[...fault, point.rule(1)].flatMap(rule => ['--fault', rule]),
      '--',
      program,
      ...args,
    ]
  },
})

/** Whether the rule of a point has acted, from its counts: those of packets say only how many it selects. */
export const actedOf = (rule: string, stat: { readonly injected?: number; readonly matched?: number } = {}): number =>
  stat.injected ?? Number((stat.matched ?? 0) >= Number(/nth=(\d+)/.exec(rule)?.[1] ?? 1))
