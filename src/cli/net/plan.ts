/*
 * The plan of a net, from its topology: the interfaces of each host with their addresses and devices, and the links
 * between them. All that follows needs no more of the file.
 *
 * A segment is what one broadcast reaches: a link between two hosts, or switches that are joined, with the hosts on
 * them. Each segment gets a subnet of 10.77.0.0/16, unless its links give all addresses. Rate and MTU are properties of
 * interfaces. Delay and loss are faults of the host's device: on a link to a switch in both directions, on a link
 * between hosts of what each receives, so that a packet meets each link once.
 *
 * A router is a host without devices and daemon that forwards: a link to it is of another segment than its other links.
 * Each host and router has a route to each segment (routes.ts). On a link to a router, delay and loss are faults of the
 * host in both directions.
 *
 * Joined switches with InfiniBand hosts are a fabric: its switches are those of a daemon (`--fabric`), to which the
 * hosts' ports are cabled. In its place in the network of IP is one bridge, by the name of one of its switches; there
 * the links between its switches are none: their rate, delay and loss are settings of `--fabric`. The rate of a host's
 * link is a fault of its device too.
 */

import { linkQuantities } from '../../base/quantities.ts'
import { didYouMean } from '../../base/suggest.ts'
import { formatFaults, parseFaults } from '../../faults/rules.ts'
import { conditionsText, type FabricLink, MAX_FABRIC_DELAY } from '../../settings/fabric.ts'
import { deviceName } from '../../spec/drivers/known.ts'
import type {
  Complain,
  HostEntry,
  LinkEntry,
  LinkSettings,
  RouterEntry,
  Topology,
} from '../../tools/topology/net-file.ts'
import { isMappedIpv4, parseAddress, reasonUnusable } from '../../transport/wire/address.ts'
import type { ClockKind } from '../../uapi/tool.ts'
import { UsageError } from '../fail.ts'

/** An interface of a host, with its device. */
export interface PlannedInterface extends Address {
  readonly name: string
  /** Absent: the host has none. */
  readonly device?: string
  /** The other end of its link: a host or switch. */
  readonly peer: string
  readonly link: LinkSettings
  /** The node with the switches of its InfiniBand port. */
  readonly fabric?: string
}

/** `driver` of a host without devices. */
const NO_DRIVER = 'none'

export interface PlannedHost {
  readonly name: string
  /** NO_DRIVER: it has neither devices nor a daemon. */
  readonly driver: string
  /** Absent: Ethernet. */
  readonly layer?: 'infiniband'
  /** Settings of its devices, in the words of `--device`; absent: none. */
  readonly ports?: string
  /** It is a router. */
  readonly forwards?: true
  readonly interfaces: readonly PlannedInterface[]
  /** The fault rules of its daemon; '' for none. */
  readonly faults: string
  /** Names that its programs resolve, with their addresses. */
  readonly names: readonly (readonly [address: string, name: string])[]
}

/** An end of a link: the namespace's node, and the name of the interface there. */
interface PlannedEnd {
  readonly node: string
  readonly interface: string
}

export interface PlannedLink extends LinkSettings {
  readonly ends: readonly [PlannedEnd, PlannedEnd]
}

/** Switches of InfiniBand. */
export interface PlannedFabric {
  /** The node of the network of IP that stands for all of them, where their daemon runs. */
  readonly node: string
  readonly switches: readonly string[]
  /** Between them. */
  readonly links: readonly (readonly [string, string])[]
  /** The host whose port has the manager. */
  readonly manager?: string
  /** In the words of `--fabric`. */
  readonly text: string
}

export interface Plan {
  readonly name: string
  /** And routers. */
  readonly hosts: readonly PlannedHost[]
  /** Those of the network of IP. */
  readonly switches: readonly string[]
  readonly fabrics: readonly PlannedFabric[]
  readonly links: readonly PlannedLink[]
  /** Folders of which each host has its own. */
  readonly folders: readonly string[]
  /** Whether the hosts' daemons check programs. */
  readonly check: boolean
  /** Of programs and daemons of all hosts. Absent: real. */
  readonly clock?: ClockKind
  readonly clockSpin?: false
}

/** Whether a host has devices and a daemon. */
export const hasDaemon = ({ driver }: Pick<PlannedHost, 'driver'>): boolean => driver !== NO_DRIVER

/** The hosts that have a daemon. Throws UsageError if none has. */
export const hostsWithDaemon = ({ name, hosts }: Plan): readonly PlannedHost[] => {
  const found = hosts.filter(hasDaemon)
  if (found.length === 0) throw new UsageError(`no host of the net ${name} has a daemon (driver: none)`)
  return found
}

/** A daemon has at most 32 fault rules, of which a link may need one. */
const MAX_LINKS_OF_HOST = 32
/** 10.77.0.0/16: subnets of 256 addresses. */
const POOL = '10.77'
const POOL_SUBNETS = 256

/** The only driver of InfiniBand ports. */
const FABRIC_DRIVER = 'mlx5'
/**
 * Each has a port of the switches' memory, and so have all links between switches with rate, delay or loss together.
 */
const MAX_FABRIC_DEVICES = 64

/** A host's end of a link. */
interface HostEnd {
  readonly host: string
  readonly peer: string
  readonly entry: LinkEntry
  /** Name of a switch of the segment; undefined: the link joins two hosts or routers. */
  readonly viaSwitch: string | undefined
  /** Number of the link. */
  readonly link: number
  /** ADDRESS/PREFIX; undefined: assigned. */
  readonly given: string | undefined
}

/** Finds which nodes are joined (union-find). */
class Joined {
  readonly #parents = new Map<string, string>()

  rootOf(node: string): string {
    const parent = this.#parents.get(node)
    if (parent === undefined) return node
    const root = this.rootOf(parent)
    this.#parents.set(node, root)
    return root
  }

  /** False if they were joined already. */
  join(a: string, b: string): boolean {
    const [from, to] = [this.rootOf(a), this.rootOf(b)]
    if (from !== to) this.#parents.set(from, to)
    return from !== to
  }
}

/** ADDRESS/PREFIX as text and bits of the 16 bytes of `parseAddress`. */
const parseSubnet = (text: string, entry: LinkEntry) => {
  const complain: Complain = entry.complain
  const { mtu } = entry.settings
  const [, address = '', prefixText = ''] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? []
  const bytes = parseAddress(address)
  const isV4 = bytes !== undefined && isMappedIpv4(bytes)
  const prefix = Number(prefixText)
  const max = isV4 ? 31 : 127
  if (bytes === undefined || !(prefix >= 8 && prefix <= max))
    complain(
      `addresses: "${text}" is no address with the bits of its subnet, from 8 to ${isV4 || bytes === undefined ? '31 (IPv6: 127)' : max}, such as 192.0.2.1/24 or fd00::1/64`,
    )
  const reason = bytes[12] === 127 && isV4 ? 'is an address of the host itself' : reasonUnusable(bytes)
  if (reason !== undefined) complain(`addresses: "${text}" ${reason}`)
  const key = Buffer.from(bytes).toString('hex')
  const bits = BigInt(`0x${key}`)
  const hostBits = (isV4 ? 32 : 128) - prefix
  const hostPart = BigInt.asUintN(hostBits, bits)
  const last = (1n << BigInt(hostBits)) - 1n
  if (isV4 && prefix < 31 && (hostPart === 0n || hostPart === last))
    complain(
      `addresses: "${text}" is the ${hostPart === 0n ? 'first' : 'last'} address of its subnet, which ${hostPart === 0n ? 'names the subnet' : 'is for broadcasts'}; give one between the first and the last`,
    )
  if (!isV4 && mtu < 1280) complain(`addresses: "${text}": IPv6 needs an mtu of 1280 or more, and the link has ${mtu}`)
  // The subnet: the first bits, and how many they are.
  return { address, prefix, key, subnet: `${(bits - hostPart).toString(16)}/${prefix}` }
}

interface Address {
  readonly address: string
  /** Bits of the subnet. */
  readonly prefix: number
}

/**
 * The addresses of the hosts of one segment, which has at least one. `takeSubnets`: the first of so many free subnets
 * of the pool.
 */
const addressesOf = (
  ends: readonly HostEnd[],
  takeSubnets: (count: number, entry: LinkEntry) => number,
): readonly Address[] => {
  if (ends.every(({ given }) => given === undefined)) {
    // All but the first address and the last.
    let bits = 8
    while (2 ** bits - 2 < ends.length) bits++
    const subnet = takeSubnets(2 ** (bits - 8), ends[0]!.entry)
    return ends.map((_, i) => ({
      address: `${POOL}.${subnet + ((i + 1) >> 8)}.${(i + 1) & 0xff}`,
      prefix: 32 - bits,
    }))
  }
  const missing = ends.find(({ given }) => given === undefined)
  if (missing !== undefined)
    missing.entry.complain(
      `host "${missing.host}" has no address: if one host of a segment has one, give all of them one`,
    )
  const parsed = ends.map(({ given, entry }) => parseSubnet(given!, entry))
  parsed.forEach(({ key, subnet }, i) => {
    if (subnet !== parsed[0]!.subnet)
      ends[i]!.entry.complain(
        `addresses: "${ends[i]!.given}" and "${ends[0]!.given}" are not in one subnet, and their hosts share a segment`,
      )
    if (parsed.findIndex(other => other.key === key) !== i)
      ends[i]!.entry.complain(`addresses: two hosts have "${ends[i]!.given}"`)
  })
  return parsed
}

/** Whether the subnets of two addresses share an address. */
const overlap = (a: Address, b: Address): boolean => {
  const [first, second] = [a, b].map(({ address }) => parseAddress(address)!) as [Uint8Array, Uint8Array]
  if (isMappedIpv4(first) !== isMappedIpv4(second)) return false
  const bits = (isMappedIpv4(first) ? 96 : 0) + Math.min(a.prefix, b.prefix)
  const subnet = (bytes: Uint8Array): bigint => BigInt(`0x${Buffer.from(bytes).toString('hex')}`) >> BigInt(128 - bits)
  return subnet(first) === subnet(second)
}

/** The rule for the faults of a link; '' for none. */
const faultOf = ({ device, fabric, link }: PlannedInterface, isSwitched: boolean): string => {
  const { rate, delay, loss } = link
  const limits =
    fabric === undefined || rate === undefined
      ? []
      : ['sent', 'received'].map(dir => `device=${device},dir=${dir},rate=${linkQuantities.rate.write(rate)}`)
  return [lossOf(device, delay, loss, isSwitched), ...limits].filter(rule => rule !== '').join(';')
}

const lossOf = (
  device: string | undefined,
  delay: number | undefined,
  loss: number | undefined,
  isSwitched: boolean,
): string => {
  if (delay === undefined && loss === undefined) return ''
  const effects = [
    ...(loss === undefined ? [] : [`drop=${linkQuantities.loss.write(loss)}`]),
    ...(delay === undefined ? [] : [`delay=${linkQuantities.delay.write(delay)}`]),
  ]
  return [`device=${device}`, `dir=${isSwitched ? 'both' : 'received'}`, ...effects].join(',')
}

/** The node that stands for each InfiniBand switch. Throws UsageError for switches with hosts of both kinds. */
const fabricNodes = ({ hosts, switches, links }: Topology): ReadonlyMap<string, string> => {
  const isSwitch = new Set(switches)
  const hostOf = new Map(hosts.map(host => [host.name, host]))
  const joined = new Joined()
  for (const { ends } of links) for (const [a, b] of ends) if (isSwitch.has(a) && isSwitch.has(b)) joined.join(a, b)
  /** By node: the first host, and its switch. A host without devices is of neither kind. */
  const firsts = new Map<string, { readonly host: HostEntry; readonly at: string }>()
  for (const { ends, complain } of links)
    for (const [a, b] of ends) {
      const [host, at] = isSwitch.has(a) ? [hostOf.get(b), a] : [hostOf.get(a), b]
      if (host === undefined || host.driver?.name === NO_DRIVER) continue
      if (!isSwitch.has(at)) {
        const other = hostOf.get(at)
        if (host.layer === 'infiniband' || other?.layer === 'infiniband')
          complain(
            `hosts "${host.name}" and "${at}" have InfiniBand ports: cable them to a switch, which has their manager`,
          )
        continue
      }
      const first = firsts.get(joined.rootOf(at))
      if (first === undefined) firsts.set(joined.rootOf(at), { host, at })
      else if (first.host.layer !== host.layer) {
        const [ib, roce] = host.layer === 'infiniband' ? [host, first.host] : [first.host, host]
        const where = first.at === at ? `switch "${at}" has` : `switches "${first.at}" and "${at}" are joined, and have`
        complain(
          `${where} host "${ib.name}" of InfiniBand and host "${roce.name}" of Ethernet: a switch has the layer of its hosts; give both the same, or each a switch`,
        )
      }
    }
  return new Map(
    switches.flatMap(name => {
      const node = joined.rootOf(name)
      return firsts.get(node)?.host.layer === 'infiniband' ? [[name, node] as const] : []
    }),
  )
}

/** The links of a topology, each with its interfaces, and the hosts' ends of them. Throws UsageError. */
const linksOf = ({ switches, routers, links }: Topology, fabrics: ReadonlyMap<string, string>) => {
  const isSwitch = new Set(switches)
  const isRouter = new Set(routers.map(({ name }) => name))
  const joined = new Joined()
  const ends: HostEnd[] = []
  const planned: PlannedLink[] = []
  /** Between InfiniBand switches. */
  const fabricLinks: FabricLink[] = []
  const counts = new Map<string, number>()
  /** eth0, eth1 … of a host, port0, port1 … of a switch. */
  const nextInterface = (node: string, { complain }: LinkEntry): string => {
    const count = counts.get(node) ?? 0
    counts.set(node, count + 1)
    if (isSwitch.has(node)) return `port${count}`
    if (count === MAX_LINKS_OF_HOST && !isRouter.has(node))
      complain(`host "${node}" has more than ${MAX_LINKS_OF_HOST} links`)
    return `eth${count}`
  }
  for (const entry of links) {
    const { complain, settings, addresses } = entry
    const given = [...addresses]
    for (const [a, b] of entry.ends) {
      if (fabrics.has(a) && fabrics.has(b)) {
        const { mtu: _, ...conditions } = settings
        if (conditions.delay !== undefined && conditions.delay > MAX_FABRIC_DELAY)
          complain(
            `delay: the link between "${a}" and "${b}", which are InfiniBand switches, has at most ${MAX_FABRIC_DELAY}ms: beyond it no subnet manager gets answers in time`,
          )
        fabricLinks.push({ between: [a, b], conditions })
        continue
      }
      const isInner = [a, b].every(node => isSwitch.has(node) || isRouter.has(node))
      if (isInner && (fabrics.has(a) || fabrics.has(b)))
        complain(`routers forward between Ethernet segments, and one of "${a}" and "${b}" is an InfiniBand switch`)
      if (isInner && (settings.delay ?? settings.loss) !== undefined)
        // No daemon sees the packets.
        complain(
          `the link between "${a}" and "${b}", which are ${isRouter.has(a) || isRouter.has(b) ? 'routers or' : 'Ethernet'} switches, has only rate and mtu; give a link of a host the ${settings.delay === undefined ? 'loss' : 'delay'}`,
        )
      if (isSwitch.has(a) && isSwitch.has(b) && !joined.join(a, b))
        complain(`the link between "${a}" and "${b}" makes a loop of switches, in which packets would circulate`)
      const link = planned.length
      for (const [host, peer] of [
        [a, b],
        [b, a],
      ] as const) {
        if (isSwitch.has(host)) continue
        const viaSwitch = isSwitch.has(peer) ? peer : undefined
        ends.push({ host, peer, entry, viaSwitch, link, given: given.shift() })
      }
      const [nodeA, nodeB] = [fabrics.get(a) ?? a, fabrics.get(b) ?? b]
      planned.push({
        ...settings,
        ends: [
          { node: nodeA, interface: nextInterface(nodeA, entry) },
          { node: nodeB, interface: nextInterface(nodeB, entry) },
        ],
      })
    }
  }
  const segments = new Map<string, HostEnd[]>()
  for (const end of ends) {
    const { viaSwitch } = end
    const key = viaSwitch === undefined ? `link ${end.link}` : (fabrics.get(viaSwitch) ?? joined.rootOf(viaSwitch))
    const segment = segments.get(key)
    if (segment === undefined) segments.set(key, [end])
    else segment.push(end)
  }
  return { planned, ends, fabricLinks, segments: [...segments.values()] }
}

/** The name of a device among the ports of a fabric. */
const portName = (host: string, device: string | undefined): string => `${host} ${device}`

/** The fabrics of a net, as texts of `--fabric`. Throws UsageError. */
const fabricsOf = (
  { switches, manager }: Topology,
  nodes: ReadonlyMap<string, string>,
  links: readonly FabricLink[],
  hosts: readonly PlannedHost[],
): readonly PlannedFabric[] => {
  const found = [...new Set(nodes.values())]
  if (found.length === 0)
    manager?.complain('subnet-manager is of InfiniBand hosts, and there are none; give hosts layer: infiniband')
  const of = (node: string, name: string): boolean => nodes.get(name) === node
  return found.map(node => {
    const ports = hosts.flatMap(({ name, interfaces }) =>
      interfaces.flatMap(({ fabric, peer, device }) => (fabric === node ? [{ host: name, peer, device }] : [])),
    )
    let managerText = manager?.name ?? 'embedded'
    if (managerText !== 'embedded' && managerText !== 'none') {
      const port = ports.find(({ host }) => host === managerText)
      if (port === undefined) {
        const names = [...new Set(ports.map(({ host }) => host))]
        return manager!.complain(
          `subnet-manager "${managerText}" is not one of embedded, none, or a host with a port at "${node}"${didYouMean(managerText, names) || `, as ${names.slice(0, 12).join(', ')}`}`,
        )
      }
      managerText = `@${portName(port.host, port.device)}`
    }
    const own = links.filter(({ between: [a] }) => of(node, a))
    const texts = own.map(({ between, conditions }) =>
      [between.join(':'), conditionsText(conditions)].filter(text => text !== '').join('/'),
    )
    const places = ports.map(({ host, device, peer }) => `${portName(host, device)}:${peer}`)
    const text = [
      ...(own.length === 0 ? [] : [`links=${texts.join('+')}`]),
      `at=${places.join('+')}`,
      `manager=${managerText}`,
    ].join(',')
    const atHost = managerText.startsWith('@') && { manager: manager!.name }
    const pairs = own.map(({ between }) => between)
    return { node, switches: switches.filter(name => of(node, name)), links: pairs, ...atHost, text }
  })
}

/** Returns the first of `count` free subnets of the pool; a subnet begins at a multiple of its size. */
const subnetPool = () => {
  let taken = 0
  return (count: number, { complain }: LinkEntry): number => {
    const start = Math.ceil(taken / count) * count
    taken = start + count
    if (taken > POOL_SUBNETS)
      complain(`there are more segments than subnets in ${POOL}.0.0/16: give addresses to the links from here on`)
    return start
  }
}

/** A router as a host without devices. */
const asHost = ({ name, complain }: RouterEntry): HostEntry => ({
  ...{ name, complain, layer: 'ethernet', ports: '' },
  driver: { name: NO_DRIVER, complain },
})

/** Throws UsageError unless routes can tell the segments of a net with routers apart. */
const checkRoutable = (segments: readonly ReadonlyMap<HostEnd, Address>[]): void => {
  const firsts = segments.map(segment => [...segment][0]!)
  for (const [i, [end, address]] of firsts.entries()) {
    const isV4 = (text: string): boolean => !text.includes(':')
    if (isV4(address.address) !== isV4(firsts[0]![1].address))
      end.entry.complain('addresses: the addresses of a net with routers are all IPv4, or all IPv6')
    const other = firsts.findIndex(([, earlier], j) => j < i && overlap(earlier, address))
    if (other >= 0)
      end.entry.complain(
        `addresses: "${address.address}/${address.prefix}" and "${firsts[other]![1].address}/${firsts[other]![1].prefix}" have overlapping subnets, between which no router could tell apart`,
      )
  }
}

/** Plans a net. Throws UsageError for a topology that cannot be built. */
/** `drivers`: names of those with addresses; the first is the default. */
export const planNet = (topology: Topology, drivers: readonly string[]): Plan => {
  const nodes = fabricNodes(topology)
  const { planned, ends, fabricLinks, segments } = linksOf(topology, nodes)
  const takeSubnets = subnetPool()
  /** The hosts of the segment of an end, with their addresses. */
  const segmentOf = new Map<HostEnd, ReadonlyMap<HostEnd, Address>>()
  for (const segment of segments) {
    const addresses = addressesOf(segment, takeSubnets)
    const addressOf = new Map(segment.map((end, i) => [end, addresses[i]!]))
    for (const end of segment) segmentOf.set(end, addressOf)
  }
  const isRouter = new Set(topology.routers.map(({ name }) => name))
  if (isRouter.size > 0) checkRoutable([...new Set(segmentOf.values())])
  const portsOf = new Map<string, number>()
  const hosts = [...topology.hosts, ...topology.routers.map(asHost)].map(
    ({ name, driver: named, layer, ports, complain }): PlannedHost => {
      const isFabric = layer === 'infiniband'
      const driver = named?.name ?? (isFabric ? FABRIC_DRIVER : drivers[0]!)
      if (driver !== NO_DRIVER && !drivers.includes(driver))
        named?.complain(`driver "${driver}" is not one of ${[...drivers, NO_DRIVER].join(', ')}`)
      if (isFabric && driver !== FABRIC_DRIVER)
        named?.complain(`driver "${driver}" has no InfiniBand ports (layer: infiniband); only ${FABRIC_DRIVER} has`)
      if (driver === NO_DRIVER && ports !== '')
        complain(`host "${name}" has no devices (driver: none) that its settings could be for: ${ports.slice(1)}`)
      const own = ends.filter(({ host }) => host === name)
      if (own.length > 1 && ports.includes('guid='))
        complain(`host "${name}" has several links, whose ports cannot have the same guid; leave it out`)
      if (own.length === 0) complain(`${isRouter.has(name) ? 'router' : 'host'} "${name}" has no link`)
      for (const { entry } of own)
        if (driver === NO_DRIVER && !isRouter.has(name) && (entry.settings.delay ?? entry.settings.loss) !== undefined)
          entry.complain(
            `delay and loss are faults of the daemons of hosts, and host "${name}" has none (driver: none); give it a driver, or use \`userdma fault\` with its own daemons`,
          )
      const names = new Map<string, string>()
      // Its own segments, then those behind routers, in the order of the routers between.
      const reached = new Set(own.map(end => segmentOf.get(end)!))
      for (const segment of reached)
        for (const [{ host }, { address }] of segment) {
          if (!names.has(host)) names.set(host, address)
          for (const end of ends) if (end.host === host && isRouter.has(host)) reached.add(segmentOf.get(end)!)
        }
      for (const { peer, entry } of isFabric ? own : []) {
        const node = nodes.get(peer)!
        if (node !== nodes.get(own[0]!.peer))
          entry.complain(
            `host "${name}" has links to InfiniBand switches "${own[0]!.peer}" and "${peer}", which are not joined; join them, or give it one of the links`,
          )
        portsOf.set(node, (portsOf.get(node) ?? 0) + 1)
        const hasConditions = fabricLinks.some(
          ({ between: [a], conditions }) => nodes.get(a) === node && conditionsText(conditions) !== '',
        )
        const most = MAX_FABRIC_DEVICES - (hasConditions ? 1 : 0)
        if (portsOf.get(node)! > most)
          entry.complain(
            `the InfiniBand switches with "${peer}" have more than ${most} ports of hosts${hasConditions ? ', and links between them with rate, delay or loss' : ''}`,
          )
      }
      const interfaces = own.map(
        (end, i): PlannedInterface => ({
          name: `eth${i}`,
          ...(driver !== NO_DRIVER && { device: deviceName(driver, i) }),
          ...segmentOf.get(end)!.get(end)!,
          peer: end.peer,
          link: end.entry.settings,
          ...(isFabric && { fabric: nodes.get(end.peer)! }),
        }),
      )
      // Two links to one segment share its subnet.
      own.forEach((end, i) => {
        const other = own.findIndex(
          (before, j) =>
            j < i && segmentOf.get(before) !== segmentOf.get(end) && overlap(interfaces[j]!, interfaces[i]!),
        )
        if (other < 0) return
        const [a, b] = [interfaces[i]!, interfaces[other]!].map(({ address, prefix }) => `"${address}/${prefix}"`)
        const { entry } = end.given === undefined ? own[other]! : end
        entry.complain(
          `addresses: ${a} and ${b} of host "${name}" have overlapping subnets; give each of its links another subnet`,
        )
      })
      const rules = own
        .map(({ viaSwitch, peer }, i) =>
          isRouter.has(name) ? '' : faultOf(interfaces[i]!, viaSwitch !== undefined || isRouter.has(peer)),
        )
        .filter(rule => rule !== '')
      const faults = rules.length === 0 ? '' : formatFaults(parseFaults(rules.join(';')))
      return {
        ...{ name, driver, interfaces, faults, names: [...names].map(([host, address]) => [address, host] as const) },
        ...(isFabric && { layer }),
        ...(ports !== '' && { ports }),
        ...(isRouter.has(name) && { forwards: true as const }),
      }
    },
  )
  const { name, folders, check, switches } = topology
  return {
    ...{ name, links: planned, hosts, folders, check },
    switches: switches.filter(each => (nodes.get(each) ?? each) === each),
    fabrics: fabricsOf(topology, nodes, fabricLinks, hosts),
  }
}
