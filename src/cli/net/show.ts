/*
 * The output of `userdma net show`: a row for each interface of a host.
 */
import { setTimeout } from 'node:timers/promises'
import { linkQuantities } from '../../base/quantities.ts'
import { openToolSession } from '../../daemon/client/tool-session.ts'
import type { LinkSettings } from '../../tools/topology/net-file.ts'
import { hasDaemon, type PlannedInterface } from './plan.ts'
import type { NetFolder, NetState } from './state.ts'

/** What a daemon says about itself. */
type DaemonState =
  | { readonly state: 'running'; readonly pid: number }
  | { readonly state: 'ended' | 'silent' }
  /** The host has none. */
  | { readonly state: 'none' }

/** An interface of a host, for `--json`. */
interface ShownInterface extends Omit<PlannedInterface, 'link' | 'fabric'>, LinkSettings {}

interface ShownHost {
  readonly name: string
  readonly driver: string
  readonly socket: string
  readonly daemon: DaemonState
  readonly interfaces: readonly ShownInterface[]
}

interface ShownNet {
  readonly name: string
  readonly phase: NetState['phase']
  readonly file: string
  readonly switches: readonly string[]
  readonly routers: readonly string[]
  /** And routers. */
  readonly hosts: readonly ShownHost[]
}

/** Milliseconds for all daemons to answer; a stopped one never does. */
const ANSWER_TIME = 3000

const daemonState = async (socket: string): Promise<DaemonState> => {
  try {
    const client = await openToolSession(socket)
    client.close()
    return { state: 'running', pid: client.daemon }
  } catch {
    return { state: 'ended' }
  }
}

/** Asks all daemons of a net. */
export const lookAtNet = async (folder: NetFolder, { phase, file, plan }: NetState): Promise<ShownNet> => {
  const late = new AbortController()
  const silence = setTimeout(ANSWER_TIME, { state: 'silent' } as const, late)
  silence.catch(() => {})
  const hosts = await Promise.all(
    plan.hosts.map(async ({ name, driver, interfaces }): Promise<ShownHost> => {
      const socket = folder.socket(name)
      return {
        name,
        driver,
        socket,
        daemon: hasDaemon({ driver }) ? await Promise.race([daemonState(socket), silence]) : { state: 'none' },
        interfaces: interfaces.map(({ link, fabric: _, ...rest }) => ({ ...rest, ...link })),
      }
    }),
  )
  late.abort()
  const others = plan.fabrics.flatMap(({ switches }) => switches)
  const switches = [...plan.switches.filter(name => !others.includes(name)), ...others]
  const routers = plan.hosts.flatMap(({ name, forwards }) => (forwards ? name : []))
  return { name: plan.name, phase, file, switches, routers, hosts }
}

const HEADS = ['HOST', 'DEVICE', 'ADDRESS', 'INTERFACE', 'PEER', 'RATE', 'DELAY', 'LOSS', 'MTU', 'DAEMON']

const daemonText = (daemon: DaemonState): string =>
  daemon.state === 'running'
    ? `process ${daemon.pid}`
    : { ended: 'ended', silent: 'does not answer', none: '-' }[daemon.state]

const quantityText = (name: 'rate' | 'loss', value: number | undefined): string =>
  value === undefined ? '-' : linkQuantities[name].write(value)

export const netText = ({ name, phase, file, switches, routers, hosts }: ShownNet): string => {
  const rows = hosts.flatMap(({ name: host, daemon, interfaces }) =>
    interfaces.map(({ device, address, prefix, name: dev, peer, rate, delay, loss, mtu }, i) => [
      i === 0 ? host : '',
      device ?? '-',
      `${address}/${prefix}`,
      dev,
      peer,
      quantityText('rate', rate),
      delay === undefined ? '-' : `${linkQuantities.delay.write(delay)}ms`,
      quantityText('loss', loss),
      String(mtu),
      i === 0 ? daemonText(daemon) : '',
    ]),
  )
  const widths = HEADS.map((head, i) => Math.max(head.length, ...rows.map(row => row[i]!.length)))
  const lines = [HEADS, ...rows].map(row =>
    row
      .map((cell, i) => cell.padEnd(widths[i]!))
      .join('  ')
      .trimEnd(),
  )
  const state = phase === 'up' ? 'up' : 'not complete: its `net up` is at work or was killed'
  const own = hosts.length - routers.length
  const count = `${own} ${own === 1 ? 'host' : 'hosts'}`
  const listed = (one: string, several: string, names: readonly string[]): string =>
    names.length === 0 ? '' : `, ${names.length === 1 ? one : several} ${names.join(', ')}`
  const joints = listed('switch', 'switches', switches) + listed('router', 'routers', routers)
  return `net ${name} (${state}), ${count}${joints}, from ${file}\n${lines.join('\n')}\n`
}
