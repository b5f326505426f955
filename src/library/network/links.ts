/*
 * Topologies as programs write them, in the words and units of topology files: an object with hosts, switches and
 * links. Functions make the usual ones. Everything is checked when it is compiled for the links (transport/phy/links/).
 */

import { didYouMean } from '../../base/suggest.ts'
import { InputError } from '../../tools/topology/input-error.ts'
import {
  DEFAULT_LINK,
  describeClasses,
  LINK_KEYS,
  markText,
  readClasses,
  readSettings,
} from '../../tools/topology/link-settings.ts'
import { Section, shown } from '../../tools/topology/section.ts'
import {
  chain,
  type LinkSettings,
  type LinkTopology,
  leafSpine,
  namesOf,
  type Routes,
  separatedHosts,
  star,
} from '../../transport/phy/links/graph.ts'
import { FRAME_BYTES, IP_UDP_BYTES } from '../../transport/phy/links/links.ts'
import { MAX_PACKET_BYTES } from '../../transport/phy/links/packet-carrier.ts'
import { checkText, invalidArgument } from '../verbs/error.ts'

/** A class of packets of a link, which has a queue in each direction. */
export interface LinkClassOptions {
  /** 1 to 32 letters, digits, '_' and '-'. */
  readonly name: string
  /**
   * The DSCPs of its packets: from 0 to 63, a name ('ef', 'af31', 'cs3'), a range ('24..31'), or a list of these.
   * Default: those that no other class has.
   */
  readonly dscp?: number | string | readonly (number | string)[] | undefined
  /**
   * Whether receivers pause the class (PFC) before their buffers are full, so that no packet is lost because of a
   * queue. Default: false, a full queue loses packets.
   */
  readonly lossless?: boolean | undefined
  /** Its share of the link while others have packets too, in proportion: 1 to 100. Default: 1. */
  readonly weight?: number | undefined
  /** As that of the link, which is the default. Of a lossless class it limits only what came by no lossless class. */
  readonly queue?: number | string | undefined
  /** As that of the link, which is the default. */
  readonly mark?: string | undefined
  /**
   * Of a lossless class: the sender is paused when a switch has got more bytes than this from one link and not sent
   * them on. Default: 100kb.
   */
  readonly xoff?: number | string | undefined
  /** Of a lossless class: the pause ends at so many bytes. Default: half of `xoff`. */
  readonly xon?: number | string | undefined
  /**
   * Of a lossless class: what a switch has room for of one link; further packets are lost. Default: `xoff`, and what
   * can come until the pause works.
   */
  readonly buffer?: number | string | undefined
}

/** The properties of a link, in each direction. */
export interface LinkOptions {
  /** Bits per second, from 1e6 to 800e9, or a text such as '10gbit'. Default: 40gbit. */
  readonly rate?: number | string | undefined
  /** One way: milliseconds, or a text such as '5us' (ns, us, ms, s), up to 1 hour. Default: 1us. */
  readonly delay?: number | string | undefined
  /**
   * Bytes that a switch keeps in front of the link, or a text such as '2mb' (b, kb, mb, gb, kib, mib); further packets
   * are lost. It has room for at least one packet. Default: 2mb.
   */
  readonly queue?: number | string | undefined
  /**
   * When a switch marks packets (ECN) of senders that react: 'MIN-MAX-PROBABILITY', none below MIN bytes of queue, then
   * up to PROBABILITY at MAX, all beyond; or 'none'. Default: '5kb-200kb-1%'.
   */
  readonly mark?: string | undefined
  /** Probability that a packet is lost, from 0 to 1, or a text such as '0.1%'. Default: 0. */
  readonly loss?: number | string | undefined
  /** Maximum bytes of an IP packet, from 352 to 65,535; longer ones are lost. Default: any. */
  readonly mtu?: number | undefined
  /**
   * At most 8 classes, with that of all DSCPs which none has: one named 'default' is added if need be. Default: those
   * of the topology; [] is none, so all packets share a queue.
   */
  readonly classes?: readonly LinkClassOptions[] | undefined
}

/** A link between two hosts or switches. */
export interface NetworkLink extends LinkOptions {
  /** Names of its ends. */
  readonly between: readonly [string, string]
}

/**
 * Hosts, switches, routers and links between them. Hosts do not forward packets; switches and routers use all shortest
 * paths: those with the fewest routers, of these those with the fewest links.
 */
export interface NetworkTopology {
  /** Names, or a number: h1, h2 … */
  readonly hosts: number | readonly string[]
  /** Names. Default: none. */
  readonly switches?: readonly string[] | undefined
  /**
   * Names. Default: none. A router forwards between subnets: it takes one from the TTL of each packet, and loses those
   * whose TTL ends. Link-local addresses, groups and RoCE v1 end at it. Each link to it, or switches with one, are a
   * subnet, from which devices get addresses.
   */
  readonly routers?: readonly string[] | undefined
  /** Default: a link from each host to one switch. */
  readonly links?: readonly NetworkLink[] | undefined
  /** The classes of links without `classes` of their own. Default: none. */
  readonly classes?: readonly LinkClassOptions[] | undefined
}

const MAX_HOSTS = 1024
const MAX_SWITCHES = 1024
const MAX_ROUTERS = 1024
const MAX_LINKS = 16_384
/** The switch of a topology without links, as in topology files. */
const ONLY_SWITCH = 'switch'

/** The object for a topology, as a program would write it. */
const describe = (topology: LinkTopology): NetworkTopology => {
  const names = namesOf(topology)
  const firstRouter = topology.hosts + topology.switches
  return {
    hosts: names.slice(0, topology.hosts),
    switches: names.slice(topology.hosts, firstRouter),
    ...(firstRouter < names.length && { routers: names.slice(firstRouter) }),
    links: topology.links.map(({ ends: [a, b], rate, delay, queue, marking, loss, mtu, classes }) => ({
      between: [names[a]!, names[b]!],
      rate,
      delay: delay / 1000,
      queue,
      mark: markText(marking),
      loss: loss ?? 0,
      ...(mtu !== undefined && { mtu }),
      ...(classes !== undefined && { classes: describeClasses(classes) }),
    })),
  }
}

/** What `make` returns; its InputError as RdmaError EINVAL of `call`. */
const checked = <T>(call: string, make: () => T): T => {
  try {
    return make()
  } catch (error) {
    throw error instanceof InputError ? invalidArgument(call, error.message) : error
  }
}

/** Throws InputError. */
const settingsOf = (title: string, link: LinkOptions, fallback: LinkSettings): LinkSettings =>
  readSettings(new Section(undefined, title, link, LINK_KEYS, true), fallback)

const countOf = (name: string, value: number, max: number): number =>
  new Section(undefined, '', { [name]: value }, [name], true).integer(name, undefined, 1, max)

/**
 * All hosts at one switch: hosts h1, h2 …, switch s1. Throws RdmaError EINVAL for invalid options, as the other
 * functions.
 */
export const starTopology = (hosts: number, link: LinkOptions = {}): NetworkTopology =>
  checked('starTopology', () =>
    describe(star(countOf('hosts', hosts, MAX_HOSTS), settingsOf('link', link, DEFAULT_LINK))),
  )

/**
 * Switches s1, s2 … in a row, `hosts` hosts at each. `trunk`: links between switches; what it lacks is as in `link`.
 */
export const chainTopology = (
  switches: number,
  hosts: number,
  link: LinkOptions = {},
  trunk: LinkOptions = {},
): NetworkTopology =>
  checked('chainTopology', () => {
    const settings = settingsOf('link', link, DEFAULT_LINK)
    const rows = countOf('switches', switches, MAX_SWITCHES)
    const perSwitch = countOf('hosts', hosts, Math.floor(MAX_HOSTS / rows))
    return describe(chain(rows, perSwitch, settings, settingsOf('trunk', trunk, settings)))
  })

/**
 * `leaves` switches with `hosts` hosts each, each joined to all of `spines` switches, of which packets take one by
 * their flow. `trunk`: see `chainTopology`.
 */
export const leafSpineTopology = (
  leaves: number,
  spines: number,
  hosts: number,
  link: LinkOptions = {},
  trunk: LinkOptions = {},
): NetworkTopology =>
  checked('leafSpineTopology', () => {
    const settings = settingsOf('link', link, DEFAULT_LINK)
    const rows = countOf('leaves', leaves, MAX_SWITCHES / 2)
    const perLeaf = countOf('hosts', hosts, Math.floor(MAX_HOSTS / rows))
    const middle = countOf('spines', spines, Math.min(MAX_SWITCHES / 2, Math.floor((MAX_LINKS - MAX_HOSTS) / rows)))
    return describe(leafSpine(rows, middle, perLeaf, settings, settingsOf('trunk', trunk, settings)))
  })

/**
 * Reads the topology of a file of `userdma net` or `userdma sim` (docs/how-to/net.md, docs/how-to/simulate.md). What a
 * link of the file does not say is as in `LinkOptions`. Rejects with RdmaError EINVAL.
 */
export const readTopology = async (file: string): Promise<NetworkTopology> => {
  const call = 'readTopology'
  checkText(call, 'file', file)
  const { readTopologyFile } = await import('../../tools/topology/read.ts')
  return checked(call, () => describe(readTopologyFile(file)))
}

const TOPOLOGY_KEYS = ['hosts', 'switches', 'routers', 'links', 'classes']

/** A list of names, or a number of hosts. */
const readNames = (top: Section, key: 'hosts' | 'switches' | 'routers', max: number): readonly string[] => {
  const value = top.raw(key)
  if (key !== 'hosts' && value === undefined) return []
  if (key === 'hosts' && !Array.isArray(value)) {
    const count = top.integer(key, undefined, 1, max)
    return Array.from({ length: count }, (_, i) => `h${i + 1}`)
  }
  if (!Array.isArray(value)) top.complain(key, `${shown(value)} is not a list of names`)
  if (value.length > max) top.complain(key, `there are ${value.length}; ${max} are allowed at most`)
  const wrong = value.findIndex(name => typeof name !== 'string' || name === '')
  if (wrong >= 0) top.complain(`${key}[${wrong}]`, `${shown(value[wrong])} is not a name`)
  return value
}

const shownNames = (names: readonly string[]): string =>
  names.length > 12 ? `${names.slice(0, 12).join(', ')} …` : names.join(', ')

/** The line rate of option `dcqcn`, bits/s; undefined: no rate control. `own`: for `true`. Throws RdmaError EINVAL. */
export const lineRateOf = (call: string, dcqcn: unknown, own: number): number | undefined =>
  dcqcn === undefined || dcqcn === false
    ? undefined
    : dcqcn === true
      ? own
      : checked(call, () => new Section(undefined, '', { dcqcn }, ['dcqcn']).rate('dcqcn', undefined))

/** The topology that option `links` of `createNetwork` describes. Throws RdmaError EINVAL. */
export const compileTopology = (value: unknown): LinkTopology => checked('createNetwork', () => compile(value))

const compile = (value: unknown): LinkTopology => {
  const top: Section = new Section(undefined, 'links', value, TOPOLOGY_KEYS, true)
  const hosts = readNames(top, 'hosts', MAX_HOSTS)
  if (hosts.length === 0) top.complain('hosts', 'there is none')
  const hasLinks = top.has('links')
  const switches = hasLinks || top.has('switches') ? readNames(top, 'switches', MAX_SWITCHES) : [ONLY_SWITCH]
  const routers = readNames(top, 'routers', MAX_ROUTERS)
  const names = [...hosts, ...switches, ...routers]
  const numbers = new Map(names.map((name, i) => [name, i]))
  if (numbers.size < names.length) {
    const twice = names.find((name, i) => numbers.get(name) !== i)
    top.complain('', `two hosts, switches or routers have the name "${twice}"`)
  }
  if (!hasLinks && (switches.length !== 1 || routers.length > 0))
    top.complain(
      'links',
      `is missing: hosts are linked to the only switch by default, and there are ${routers.length > 0 ? 'routers' : switches.length}`,
    )
  const given: unknown = hasLinks ? top.raw('links') : hosts.map(host => ({ between: [host, switches[0]] }))
  if (!Array.isArray(given)) top.complain('links', `${shown(given)} is not a list of links`)
  // Also what a sparse array lacks is checked.
  const links: readonly unknown[] = Array.from(given)
  if (links.length > MAX_LINKS) top.complain('links', `there are ${links.length}; ${MAX_LINKS} are allowed at most`)
  const fallback = { ...DEFAULT_LINK, classes: readClasses(top) }
  return {
    hosts: hosts.length,
    switches: switches.length,
    routers: routers.length,
    names,
    links: links.map((link, i) => {
      const section: Section = new Section(undefined, `links.links[${i}]`, link, ['between', ...LINK_KEYS], true)
      const settings = readSettings(section, fallback)
      const ends = readEnds(section, names, numbers)
      const { mtu = Number.POSITIVE_INFINITY, classes = [] } = settings
      const packet = Math.min(mtu - IP_UDP_BYTES, MAX_PACKET_BYTES) + FRAME_BYTES
      const bytes = Math.min(
        settings.queue,
        ...classes.flatMap(({ queue = [], pause }) => [queue, pause?.xoff ?? []].flat()),
      )
      if (bytes < packet && ends.some(end => end >= hosts.length))
        section.complain(
          'queue',
          `${bytes} bytes${bytes < settings.queue ? ' of a class' : ''}: a packet has up to ${packet} bytes, and would never pass`,
        )
      return { ...settings, ends }
    }),
  }
}

/** Throws RdmaError EINVAL if there is no path between two hosts. */
export const requirePaths = (topology: LinkTopology, routes: Routes): void => {
  const separated = separatedHosts(topology, routes)
  if (separated === undefined) return
  const [from, to] = separated.map(host => namesOf(topology)[host])
  throw invalidArgument('createNetwork', `links: there is no path from ${from} to ${to}; hosts do not forward packets`)
}

const readEnds = (
  section: Section,
  names: readonly string[],
  numbers: ReadonlyMap<string, number>,
): readonly [number, number] => {
  const between = section.raw('between')
  if (!Array.isArray(between) || between.length !== 2)
    section.complain('between', `${shown(between)}: give the names of two hosts, switches or routers`)
  const [a, b] = Array.from(between, name => {
    const number = numbers.get(name)
    if (number === undefined)
      section.complain(
        'between',
        `there is no host, switch or router ${shown(name)}${(typeof name === 'string' && didYouMean(name, names)) || `; there are ${shownNames(names)}`}`,
      )
    return number
  }) as [number, number]
  if (a === b) section.complain('between', `a link has two different ends, not twice "${names[a]}"`)
  return [a, b]
}
