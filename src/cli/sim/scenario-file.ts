/*
 * Reads the file of `userdma sim` (docs/how-to/simulate.md): YAML with a topology, links, traffic and controls. An error
 * names the setting by its path, the value as written, and what is allowed.
 */
import { basename, dirname, resolve } from 'node:path'
import { parseDocument } from 'yaml'
import { linkQuantities } from '../../faults/rules.ts'
import { chain, type LinkSettings, type LinkTopology, leafSpine, star } from '../../phy/links/topology.ts'
import { flowCount, flowsOf, type Pattern, patterns, type Scenario } from '../../sim/scenario.ts'
import { type Control, controls, type FlowSpec } from '../../sim/world.ts'
import { LineRate, Marking } from '../../spec/congestion.ts'
import { didYouMean } from '../../trace/suggest.ts'
import { UsageError } from '../fail.ts'
import { readInputFile } from '../input-file.ts'
import { deepAt, MAX_DEPTH, readTopology, type Topology } from '../net/topology-file.ts'

export interface ScenarioFile {
  readonly scenario: Scenario
  readonly controls: readonly Control[]
}

const MAX_FILE_BYTES = 2 ** 18
const MAX_HOSTS = 4096
const MAX_SWITCHES = 1024
const MAX_FLOWS = 100_000
const MAX_MESSAGE = 2 ** 30
/** One hour, µs. */
const MAX_TIME = 3.6e9
const MTUS = [256, 512, 1024, 2048, 4096]
/** Bytes of IPv4, UDP and RoCEv2 headers before the payload of a WRITE's first packet, and of the ICRC. */
const HEADER_BYTES = 28 + 28 + 4

const SIZES: Readonly<Record<string, number>> = { b: 1, kb: 1e3, mb: 1e6, gb: 1e9, kib: 2 ** 10, mib: 2 ** 20 }
const TIMES: Readonly<Record<string, number>> = { ns: 1e-3, us: 1, ms: 1e3, s: 1e6 }

/** A number with one of the units; undefined for any other text. */
const withUnit = (value: unknown, units: Readonly<Record<string, number>>): number | undefined => {
  const [, digits, unit] = /^(\d+\.?\d*|\.\d+)([a-z]+)$/i.exec(String(value)) ?? []
  const scale = unit === undefined ? undefined : units[unit.toLowerCase()]
  return digits === undefined || scale === undefined ? undefined : Number(digits) * scale
}

/** A map of the file, whose settings are read one by one. */
class Section {
  readonly #path: string
  readonly #file: string
  readonly #entries: Readonly<Record<string, unknown>>

  /** Throws a UsageError if `value` is no map, or has other keys than `keys`. */
  constructor(file: string, path: string, value: unknown, keys: readonly string[]) {
    this.#file = file
    this.#path = path
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      this.complain('', `${JSON.stringify(value)}: give a map with ${keys.join(', ')}`)
    this.#entries = value as Record<string, unknown>
    for (const key of Object.keys(this.#entries))
      if (!keys.includes(key))
        this.complain(key, `there is no such setting${didYouMean(key, keys)}; there are ${keys.join(', ')}`)
  }

  complain(key: string, message: string): never {
    const place = [this.#path, key].filter(part => part !== '').join('.')
    throw new UsageError(`${this.#file}: ${place}${place === '' ? '' : ': '}${message}`)
  }
  has(key: string): boolean {
    return this.#entries[key] !== undefined
  }
  keys(): string[] {
    return Object.keys(this.#entries)
  }
  raw(key: string): unknown {
    return this.#entries[key]
  }
  section(key: string, keys: readonly string[]): Section {
    return new Section(this.#file, [this.#path, key].filter(part => part !== '').join('.'), this.raw(key), keys)
  }
  #read<T>(key: string, fallback: T | undefined, parse: (value: unknown) => T | undefined, allowed: string): T {
    const value = this.raw(key)
    if (value === undefined) {
      if (fallback === undefined) this.complain(key, `is missing: give ${allowed}`)
      return fallback as T
    }
    return parse(value) ?? this.complain(key, `${JSON.stringify(value)}: give ${allowed}`)
  }
  integer(key: string, fallback: number | undefined, min: number, max: number): number {
    const isAllowed = (value: unknown) =>
      Number.isInteger(value) && (value as number) >= min && (value as number) <= max
    return this.#read(
      key,
      fallback,
      value => (isAllowed(value) ? (value as number) : undefined),
      `an integer from ${min} to ${max}`,
    )
  }
  size(key: string, fallback: number | undefined, min: number, max: number): number {
    const parse = (value: unknown) => {
      const bytes = withUnit(value, SIZES)
      return bytes !== undefined && Number.isInteger(bytes) && bytes >= min && bytes <= max ? bytes : undefined
    }
    return this.#read(key, fallback, parse, `bytes with a unit (b, kb, mb, gb, kib, mib), from ${min}b to ${max}b`)
  }
  /** µs. */
  time(key: string, fallback: number | undefined, min = 0, max = MAX_TIME): number {
    const parse = (value: unknown) => {
      const time = withUnit(value, TIMES)
      return time !== undefined && time >= min && time <= max ? time : undefined
    }
    return this.#read(
      key,
      fallback,
      parse,
      `a time with a unit (ns, us, ms, s), ${min > 0 ? `from ${min}us ` : ''}up to ${max / 1e6}s`,
    )
  }
  rate(key: string, fallback: number | undefined): number {
    const parse = (value: unknown) => {
      const rate = linkQuantities.rate.read(String(value))
      return rate !== undefined && rate >= LineRate.MIN && rate <= LineRate.MAX ? rate : undefined
    }
    return this.#read(key, fallback, parse, 'a rate from 1mbit to 800gbit, like 40gbit')
  }
  probability(key: string, fallback: number): number {
    const parse = (value: unknown) => linkQuantities.loss.read(String(value))
    return this.#read(key, fallback, parse, linkQuantities.loss.allowed)
  }
  oneOf<T extends string>(key: string, allowed: readonly T[]): T {
    const parse = (value: unknown) => allowed.find(one => one === value)
    return this.#read(key, undefined, parse, allowed.join(', '))
  }
  text(key: string, fallback?: string): string {
    return this.#read(key, fallback, value => (typeof value === 'string' ? value : undefined), 'a text')
  }
  list<T extends string>(key: string, allowed: readonly T[]): readonly T[] {
    const parse = (value: unknown) => {
      const items = Array.isArray(value) ? value : [value]
      const found = items.flatMap(item => allowed.find(one => one === item) ?? [])
      return found.length === items.length && new Set(found).size === found.length && found.length > 0
        ? found
        : undefined
    }
    return this.#read(
      key,
      allowed,
      parse,
      `one or several of ${allowed.join(', ')}, as [${allowed.slice(0, 2).join(', ')}]`,
    )
  }
}

const LINK_KEYS = ['rate', 'delay', 'queue', 'mark', 'loss', 'mtu']
const DEFAULT_LINK: LinkSettings = { rate: LineRate.DEFAULT, delay: 1, queue: 2e6, marking: Marking }

/** `5kb-200kb-1%`, or `none`. */
const readMarking = (section: Section, fallback: LinkSettings['marking']): LinkSettings['marking'] => {
  if (!section.has('mark')) return fallback
  const text = section.text('mark')
  if (text === 'none') return undefined
  const [min, max, share, ...others] = text.split('-')
  const marking = {
    min: withUnit(min, SIZES) ?? Number.NaN,
    max: withUnit(max, SIZES) ?? Number.NaN,
    probability: (share === undefined ? undefined : linkQuantities.loss.read(share)) ?? Number.NaN,
  }
  if (others.length > 0 || !(marking.min < marking.max) || Number.isNaN(marking.probability))
    section.complain('mark', `"${text}": give MIN-MAX-PROBABILITY, for example 5kb-200kb-1%, or none`)
  return marking
}

const readLink = (parent: Section, key: string, fallback: LinkSettings): LinkSettings => {
  if (!parent.has(key)) return fallback
  const section = parent.section(key, LINK_KEYS)
  return {
    rate: section.rate('rate', fallback.rate),
    delay: section.time('delay', fallback.delay),
    queue: section.size('queue', fallback.queue, 1500, 1e9),
    marking: readMarking(section, fallback.marking),
    loss: section.probability('loss', fallback.loss ?? 0),
    ...(section.has('mtu')
      ? { mtu: section.integer('mtu', undefined, 352, 65_535) }
      : fallback.mtu !== undefined && { mtu: fallback.mtu }),
  }
}

/** A topology of `userdma net`; what its links do not say is as in `link`. */
const netTopology = ({ hosts, switches, links }: Topology, link: LinkSettings): LinkTopology => {
  const numbers = new Map([...hosts.map(({ name }) => name), ...switches].map((name, i) => [name, i]))
  return {
    hosts: hosts.length,
    switches: switches.length,
    links: links.flatMap(({ settings: { rate = link.rate, delay, loss = link.loss, mtu }, ends }) =>
      ends.map(([a, b]) => ({
        ...link,
        rate,
        delay: delay === undefined ? link.delay : 1000 * delay,
        loss,
        mtu,
        ends: [numbers.get(a)!, numbers.get(b)!] as const,
      })),
    ),
  }
}

const SHAPES = ['star', 'chain', 'leaf-spine', 'file']

const readShape = (top: Section, file: string, link: LinkSettings, trunk: LinkSettings): LinkTopology => {
  const section = top.section('topology', SHAPES)
  const [shape, ...others] = section.keys()
  if (shape === undefined || others.length > 0) section.complain('', `give one of ${SHAPES.join(', ')}`)
  if (shape === 'star') return star(section.integer('star', undefined, 2, MAX_HOSTS), link)
  if (shape === 'file') return netTopology(readTopology(resolve(dirname(file), section.text('file'))), link)
  if (shape === 'chain') {
    const sizes = section.section('chain', ['switches', 'hosts'])
    const switches = sizes.integer('switches', undefined, 2, MAX_SWITCHES)
    return chain(switches, sizes.integer('hosts', undefined, 1, Math.floor(MAX_HOSTS / switches)), link, trunk)
  }
  const sizes = section.section('leaf-spine', ['leaves', 'spines', 'hosts'])
  const leaves = sizes.integer('leaves', undefined, 1, MAX_SWITCHES / 2)
  const spines = sizes.integer('spines', undefined, 1, MAX_SWITCHES / 2)
  return leafSpine(leaves, spines, sizes.integer('hosts', undefined, 1, Math.floor(MAX_HOSTS / leaves)), link, trunk)
}

const TRAFFIC_KEYS = ['pattern', 'peers', 'message', 'messages', 'depth', 'stagger']

const readTraffic = (top: Section, hosts: number): FlowSpec[] => {
  const section = top.section('traffic', TRAFFIC_KEYS)
  const pattern = section.oneOf('pattern', Object.keys(patterns) as Pattern[])
  const peers = section.integer('peers', 1, 1, Math.max(1, hosts - 1))
  if (pattern !== 'permutation' && section.has('peers')) section.complain('peers', 'is for pattern: permutation')
  const bytes = section.size('message', 65_536, 4, MAX_MESSAGE)
  if (bytes % 4 !== 0) section.complain('message', `${bytes} bytes are not a multiple of 4`)
  const count = flowCount(pattern, hosts, peers)
  if (count > MAX_FLOWS)
    section.complain('pattern', `${pattern} of ${hosts} hosts has ${count} flows; at most ${MAX_FLOWS}`)
  return flowsOf(pattern, hosts, peers, {
    bytes,
    messages: section.has('messages') ? section.integer('messages', undefined, 1, 1e9) : Number.POSITIVE_INFINITY,
    depth: section.integer('depth', 2, 1, 1024),
    stagger: section.time('stagger', 0),
  })
}

const KEYS = [
  'name',
  'topology',
  'link',
  'trunk',
  'traffic',
  'control',
  'time',
  'warm-up',
  'mtu',
  'window',
  'timeout',
  'seed',
  'granularity',
]

/** Parses `source`. `file`: for messages, and the folder of other files. Throws UsageError. */
export const parseScenario = (source: string, file: string): ScenarioFile => {
  if (deepAt(source) !== undefined)
    throw new UsageError(`${file}: there are more than ${MAX_DEPTH} levels of lists and maps`)
  const document = parseDocument(source)
  const [error] = document.errors
  if (error !== undefined) throw new UsageError(`${file}: ${error.message.split('\n')[0]}`)
  // no aliases: a few lines could stand for a huge file
  const top = new Section(file, '', document.toJS({ maxAliasCount: 0 }), KEYS)
  const link = readLink(top, 'link', DEFAULT_LINK)
  const topology = readShape(top, file, link, readLink(top, 'trunk', link))
  const mtu = top.integer('mtu', 1024, 256, 4096)
  if (!MTUS.includes(mtu)) top.complain('mtu', `${mtu}: give one of ${MTUS.join(', ')}`)
  const smallest = topology.links.reduce(
    (least, { mtu = Number.POSITIVE_INFINITY }) => Math.min(least, mtu),
    Number.POSITIVE_INFINITY,
  )
  if (mtu + HEADER_BYTES > smallest)
    top.complain(
      'mtu',
      `${mtu}: packets with headers have ${mtu + HEADER_BYTES} bytes, and a link has an MTU of ${smallest}`,
    )
  const time = top.time('time', 10_000, 1)
  return {
    scenario: {
      name: top.text('name', basename(file).replace(/\.[^.]*$/, '')),
      topology,
      flows: readTraffic(top, topology.hosts),
      time,
      warmUp: top.time('warm-up', time / 2),
      mtu,
      window: top.size('window', 262_144, 8192, 1e9),
      timeout: top.integer('timeout', 10, 1, 31),
      seed: top.integer('seed', 1, 0, 2 ** 32 - 1),
      granularity: top.time('granularity', 0, 0, time / 2),
    },
    controls: top.list('control', Object.keys(controls) as Control[]),
  }
}

/** Reads a file. Throws UsageError. */
export const readScenario = (file: string): ScenarioFile => {
  const source = readInputFile(file, 'scenario', MAX_FILE_BYTES)
  try {
    return parseScenario(source, file)
  } catch (error) {
    if (error instanceof UsageError) throw error
    // too deep, or aliases
    throw new UsageError(`${file}: ${(error as Error).message}`)
  }
}
