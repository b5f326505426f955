/*
 * Builds a net from its plan: namespaces, links, addresses, rates, then a daemon on each host. The caller removes what
 * is there after a failure.
 */

import { mkdirSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { setTimeout } from 'node:timers/promises'
import { makeClock } from '../../daemon/clock.ts'
import { parseDevice, specOf } from '../../daemon/devices/device-spec.ts'
import { SessionEnv } from '../../spec/session.ts'
import type { DaemonConfig } from '../../uapi/tool.ts'
import { fullConfig } from '../config.ts'
import { clockLibrary } from '../paths.ts'
import { startInBackground } from '../start.ts'
import { hasDaemon, type Plan, type PlannedFabric, type PlannedHost } from './plan.ts'
import { routesOf } from './routes.ts'
import type { NetFolder } from './state.ts'
import type { NetSystem } from './system.ts'

const BRIDGE = 'br0'
const ETHERNET_HEADER = 14
/** Bytes that a link with a rate takes at once, as seconds of its rate, and at least so many packets. */
const BURST_TIME = 0.001
const BURST_PACKETS = 2
/** What waits for a link with a rate, as seconds of its rate, and at least so many packets; the rest is lost. */
const QUEUE_TIME = 0.05
const QUEUE_PACKETS = 32

/** The line of `tc` that limits what an interface sends. `rate`: bits per second. */
const rateLine = (dev: string, rate: number, mtu: number): string => {
  const packet = mtu + ETHERNET_HEADER
  const burst = Math.ceil(Math.max((rate / 8) * BURST_TIME, BURST_PACKETS * packet))
  const queue = Math.ceil(Math.max((rate / 8) * QUEUE_TIME, QUEUE_PACKETS * packet))
  return `qdisc add dev ${dev} root tbf rate ${Math.round(rate)}bit burst ${burst} limit ${burst + queue}`
}

/** IPv6 addresses are usable at once without duplicate address detection. */
export const addressLine = ({ address, prefix, name }: PlannedHost['interfaces'][number]): string =>
  `address add ${address}/${prefix} dev ${name}${address.includes(':') ? ' nodad' : ''}`

/** The file /etc/hosts of a host. */
const hostsText = ({ names }: Pick<PlannedHost, 'names'>): string =>
  ['127.0.0.1 localhost', '::1 localhost', ...names.map(pair => pair.join(' ')), ''].join('\n')

/** Milliseconds within which interfaces come up: Linux attaches their queues within a second. */
const UP_TIME = 15_000
const UP_INTERVAL = 20

/** Resolves when these interfaces of a node are up: until then Linux drops their packets. */
export const untilUp = async (system: NetSystem, node: string, names: readonly string[]): Promise<void> => {
  const deadline = performance.now() + UP_TIME
  for (;;) {
    const states = system.ip(node, '-oneline', 'link', 'show', 'type', 'veth')
    const up = states.split('\n').filter(line => line.includes(' state UP '))
    if (names.every(name => up.some(line => line.includes(`: ${name}@`)))) return
    if (performance.now() > deadline) throw new Error(`the interfaces of ${node} do not come up:\n${states}`)
    await setTimeout(UP_INTERVAL)
  }
}

/** Runs `work` for all items, a few at a time. */
const forEach = async <T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> => {
  const left = [...items]
  const worker = async (): Promise<void> => {
    for (let item = left.shift(); item !== undefined; item = left.shift()) await work(item)
  }
  // A failure ends the other workers after their present item.
  const workers = Array.from({ length: 2 * availableParallelism() }, () =>
    worker().catch(error => {
      left.length = 0
      throw error
    }),
  )
  const results = await Promise.allSettled(workers)
  for (const result of results) if (result.status === 'rejected') throw result.reason
}

const clockOf = ({ clock, clockSpin }: Pick<Plan, 'clock' | 'clockSpin'>) => ({
  ...(clock !== undefined && { clock }),
  ...(clockSpin === false && { clockSpin }),
})

/** Starts a daemon on a node. */
const startOn = async (folder: NetFolder, system: NetSystem, name: string, config: DaemonConfig): Promise<void> => {
  const { clockPage } = folder
  const [options, variables] =
    config.clock === 'skip' ? [['--clock-page', clockPage], { [SessionEnv.clock]: clockPage }] : [[], {}]
  await startInBackground(folder.socket(name), config, options, command =>
    system.hostCommand({ name }, command, variables),
  )
}

/**
 * Starts the daemon of a host of the net with this plan. `timers`: as `--timers`. Throws an Error that names the host.
 */
export const startHostDaemon = async (
  folder: NetFolder,
  system: NetSystem,
  host: PlannedHost,
  plan: Pick<Plan, 'check' | 'clock' | 'clockSpin'>,
  timers?: number,
): Promise<void> => {
  const { check } = plan
  const { name, driver, layer, ports = '', interfaces, faults } = host
  const { registeredDrivers } = await import('../../drivers/registered.ts')
  const settings = `${layer === undefined ? '' : `,layer=${layer}`}${ports}`
  const devices = interfaces.map(({ device, address }) =>
    settings === ''
      ? specOf(device!, address, driver, registeredDrivers)
      : parseDevice(`${device}@${address},driver=${driver}${settings}`),
  )
  // All ports of a host are at the same switches.
  const node = interfaces[0]?.fabric
  try {
    const config = fullConfig({
      devices,
      ...(node === undefined ? { link: 'udp' } : { fabric: `socket=${folder.ports(node)}` }),
      fault: faults,
      ...(check && { check }),
      ...clockOf(plan),
      ...(timers !== undefined && { timers }),
    })
    await startOn(folder, system, name, config)
  } catch (error) {
    throw new Error(`host ${name}: ${(error as Error).message}`, { cause: error })
  }
}

/** Starts the daemon with InfiniBand switches. Throws an Error that names one of them. */
const startFabric = async (
  folder: NetFolder,
  system: NetSystem,
  { node, text }: PlannedFabric,
  plan: Plan,
): Promise<void> => {
  mkdirSync(folder.hostFolder(node), { mode: 0o700 })
  writeFileSync(folder.hostsFile(node), hostsText({ names: [] }), { mode: 0o644 })
  for (const path of plan.folders) folder.makeOwn(node, path)
  try {
    await startOn(folder, system, node, fullConfig({ fabric: `${text},serve=${folder.ports(node)}`, ...clockOf(plan) }))
  } catch (error) {
    throw new Error(`switch ${node}: ${(error as Error).message}`, { cause: error })
  }
}

/** What the kernel of a router is set to, and of hosts in a net with routers. */
const ROUTED = ['net/ipv4/fib_multipath_hash_policy=1', 'net/ipv6/fib_multipath_hash_policy=1']
/**
 * Answers may come by another path than requests go. A router looks for IPv6 neighbors by its link-local addresses,
 * which are usable at once without duplicate address detection.
 */
const FORWARDING = [
  'net/ipv4/ip_forward=1',
  'net/ipv6/conf/all/forwarding=1',
  'net/ipv6/conf/all/accept_dad=0',
  'net/ipv4/conf/all/rp_filter=0',
  'net/ipv4/conf/default/rp_filter=0',
]

/** Builds the net. `checkpoint` is called between the steps, and may throw. */
export const buildNet = async (
  folder: NetFolder,
  system: NetSystem,
  plan: Plan,
  checkpoint: () => void,
): Promise<void> => {
  const { hosts, switches, fabrics, links, folders } = plan
  if (plan.clock === 'skip') makeClock(folder.clockPage, plan, clockLibrary())
  mkdirSync(folder.thisHost, { mode: 0o700 })
  for (const host of hosts) {
    mkdirSync(folder.hostFolder(host.name), { mode: 0o700 })
    writeFileSync(folder.hostsFile(host.name), hostsText(host), { mode: 0o644 })
    for (const path of folders) folder.makeOwn(host.name, path)
  }
  system.addNamespaces([...switches, ...hosts.map(({ name }) => name)])
  checkpoint()
  system.addLinks(links)
  const endsOf = (node: string) =>
    links.flatMap(({ ends, rate, mtu }) =>
      ends.filter(end => end.node === node).map(end => ({ name: end.interface, rate, mtu })),
    )
  const limitRates = (node: string): void => {
    const limited = endsOf(node).flatMap(({ name, rate, mtu }) => (rate === undefined ? [] : [{ name, rate, mtu }]))
    system.batch(
      'tc',
      node,
      limited.map(({ name, rate, mtu }) => rateLine(name, rate, mtu)),
    )
  }
  for (const node of switches) {
    checkpoint()
    system.batch('ip', node, [
      // Ports forward at once, and groups without a querier are flooded.
      `link add ${BRIDGE} type bridge forward_delay 0 mcast_snooping 0`,
      `link set ${BRIDGE} up`,
      ...endsOf(node).map(({ name }) => `link set ${name} master ${BRIDGE} up`),
    ])
    limitRates(node)
  }
  const routes = routesOf(plan)
  for (const { name, interfaces, forwards } of hosts) {
    checkpoint()
    if (forwards)
      system.set(name, [...FORWARDING, ...interfaces.map(each => `net/ipv6/conf/${each.name}/accept_dad=0`)])
    if (forwards || routes.has(name)) system.set(name, ROUTED)
    system.batch('ip', name, [
      'link set lo up',
      ...interfaces.flatMap(each => [addressLine(each), `link set ${each.name} up`]),
    ])
    limitRates(name)
  }
  for (const [name, lines] of routes) {
    checkpoint()
    system.batch('ip', name, [...lines.values()])
  }
  for (const fabric of fabrics) {
    checkpoint()
    await startFabric(folder, system, fabric, plan)
  }
  // The ports of other hosts wait for their manager.
  const hasManager = ({ name }: PlannedHost): boolean => fabrics.some(({ manager }) => manager === name)
  await forEach([...hosts.filter(hasManager), ...hosts.filter(host => !hasManager(host))], async host => {
    checkpoint()
    await untilUp(
      system,
      host.name,
      host.interfaces.map(({ name }) => name),
    )
    checkpoint()
    if (hasDaemon(host)) await startHostDaemon(folder, system, host, plan)
  })
  checkpoint()
}
