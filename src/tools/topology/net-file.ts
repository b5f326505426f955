/*
 * Reads a topology file (docs/how-to/net.md): hosts, switches, routers and links between them, in YAML. This file knows
 * what may stand where; cli/net/plan.ts gives addresses and devices. An error names file, line and column, the value as
 * written, and what is allowed.
 *
 *   hosts: 8                          h1 to h8, or names, or names with settings
 *   switches: [tor]
 *   routers: [leaf1, spine1]
 *   links:
 *     - { between: [h1, tor], rate: 1gbit, delay: 20us, loss: 0.1%, mtu: 4200 }
 *   classes: [{ name: bulk, dscp: cs1, weight: 2 }]    of links without `classes` of their own
 *   folders: [/var/spool/slurmd]      of which each host has its own
 *   check: true                       the hosts' daemons check programs
 *   fat-tree: { leaves: 4, spines: 2, hosts: 16 }    InfiniBand switches in this shape, or ring: { switches: 4, hosts:
 *                                                    8 }, with
 *                                     rate, delay and loss of the links between them
 *   subnet-manager: none              of InfiniBand hosts (layer: infiniband)
 */

import { basename, isAbsolute, normalize } from 'node:path'
import {
  isAlias,
  isCollection,
  isMap,
  isPair,
  isScalar,
  isSeq,
  Lexer,
  LineCounter,
  type Node,
  Parser,
  parseDocument,
  type YAMLMap,
} from 'yaml'
import { linkQuantities } from '../../base/quantities.ts'
import { didYouMean } from '../../base/suggest.ts'
import { readDeviceLimit } from '../../settings/device-limits.ts'
import { type FabricShape, fabricShapes, type ShapeName, shapeOf } from '../../settings/fabric.ts'
import { deviceLimitNames } from '../../spec/device-limits.ts'
import type { LinkClass } from '../../transport/phy/links/graph.ts'
import { InputError } from './input-error.ts'
import { readInputFile } from './input-file.ts'
import { MAX_MTU, MIN_MTU, readClasses } from './link-settings.ts'
import { type Place, Section } from './section.ts'

export interface HostEntry {
  readonly name: string
  /** Undefined: the default. */
  readonly driver: NamedDriver | undefined
  readonly layer: 'ethernet' | 'infiniband'
  /** Settings of its devices, in the words of `--device`: `,guid=…,pkeys=…,max_qp=…`. */
  readonly ports: string
  readonly complain: Complain
}

export interface RouterEntry {
  readonly name: string
  readonly complain: Complain
}

/** Where the manager of InfiniBand hosts is: in a switch, nowhere, or at the port of a host. */
interface NamedManager {
  readonly name: string
  readonly complain: Complain
}

/**
 * The driver that the file names for the devices of a host. Which there are is known only where the host is planned.
 */
interface NamedDriver {
  readonly name: string
  readonly complain: Complain
}

/** Throws an InputError with a place of the file. */
export type Complain = (message: string) => never

/** The settings of a link. Absent: none. */
export interface LinkSettings {
  /** Bits per second, in each direction. */
  readonly rate?: number
  /** Milliseconds, one way. */
  readonly delay?: number
  /** Probability that a packet is lost, in each direction. */
  readonly loss?: number
  /** Bytes of an IP packet. */
  readonly mtu: number
}

/** One link of the file. A group of hosts stands for a link of each. */
export interface LinkEntry {
  readonly settings: LinkSettings
  /** Absent: none. */
  readonly classes?: readonly LinkClass[] | undefined
  /** Names of hosts, switches or routers. */
  readonly ends: readonly (readonly [string, string])[]
  /** ADDRESS/PREFIX of each host and router of the ends, in their order; empty: assigned. */
  readonly addresses: readonly string[]
  readonly complain: Complain
}

export interface Topology {
  readonly name: string
  readonly hosts: readonly HostEntry[]
  readonly switches: readonly string[]
  readonly routers: readonly RouterEntry[]
  readonly links: readonly LinkEntry[]
  /** Folders of which each host has its own: absolute paths. */
  readonly folders: readonly string[]
  /** Whether the hosts' daemons check programs. */
  readonly check: boolean
  /** Undefined: the default, in a switch. */
  readonly manager: NamedManager | undefined
}

/** The folder of a host's socket has its name: paths of sockets have at most 107 bytes. */
const MAX_NAME = 24
const MAX_FILE_BYTES = 2 ** 20
const MAX_HOSTS = 512
const MAX_SWITCHES = 64
const MAX_ROUTERS = 64
const MAX_LINKS = 2048
const MAX_FOLDERS = 64
/** Of a port. */
const MAX_PKEYS = 128
const DEFAULT_MTU = 1500
/** The switch of a file without links. */
const ONLY_SWITCH = 'switch'

/** As names of hosts (RFC 1123), because programs resolve them. */
const HOST_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?$/
/** What inet_aton(3) reads as an address. */
const NUMBER = /^(?:\d+|0x[\da-f]*)$/i
/** Without a hyphen: a namespace is userdma-NET-HOST. */
const NET_NAME = /^[A-Za-z0-9][A-Za-z0-9_]*$/

export const isNetName = (name: string): boolean => NET_NAME.test(name) && name.length <= MAX_NAME
export const NET_NAME_RULE = `a name of a net has letters, digits and "_", and at most ${MAX_NAME} characters`

const listed = (names: readonly string[]): string => names.join(', ')

/** Levels of lists and maps. The parser's second half calls itself for each. */
export const MAX_DEPTH = 32

/**
 * Line and column where `source` has more than `MAX_DEPTH` levels, as `3:5`; undefined: nowhere. The parser's first
 * half keeps a stack of them.
 */
export const deepAt = (source: string): string | undefined => {
  const parser = new Parser()
  for (const lexeme of new Lexer().lex(source)) {
    for (const _ of parser.next(lexeme));
    // The document is the first.
    if (parser.stack.length <= MAX_DEPTH + 1) continue
    const before = source.slice(0, parser.offset - lexeme.length).split('\n')
    return `${before.length}:${before.at(-1)!.length + 1}`
  }
  return undefined
}

/** The offset of what is at a place: of the key of a setting, or of an item of a list; of the last that exists. */
export const offsetOf = (root: unknown, place: Place): number => {
  let node = root
  let offset = (root as Node | null)?.range?.[0] ?? 0
  for (const step of place) {
    if (!isCollection(node)) break
    const item = node.items.find((one, i) => (isPair(one) ? String(one.key) === step : i === step))
    if (item === undefined) break
    offset = ((isPair(item) ? item.key : item) as Node).range?.[0] ?? offset
    node = isPair(item) ? item.value : item
  }
  return offset
}

/** The text of a file, with the places of its nodes. */
class Reader {
  readonly #file: string
  readonly #source: string
  readonly #lines = new LineCounter()
  readonly root: Node | null
  readonly #resolve: (node: Node) => Node | undefined
  readonly #valueOf: (node: Node) => unknown

  constructor(file: string, source: string) {
    this.#file = file
    this.#source = source
    const deep = deepAt(source)
    if (deep !== undefined)
      throw new InputError(
        `${file}:${deep}: nested too deeply; a topology needs 4 levels, and ${MAX_DEPTH} are allowed`,
      )
    // `entries` looks for equal keys: the parser compares all with all.
    const document = parseDocument(source, { lineCounter: this.#lines, prettyErrors: false, uniqueKeys: false })
    const [error] = [...document.errors, ...document.warnings]
    if (error?.code === 'MULTIPLE_DOCS') this.#failAt(error.pos[0], 'a second document: a topology is one document')
    if (error !== undefined) this.#failAt(error.pos[0], error.message.replace(/\.?\n[\s\S]*$/, ''))
    this.root = document.contents
    this.#resolve = node => (isAlias(node) ? node.resolve(document) : node)
    this.#valueOf = node => node.toJS(document, { maxAliasCount: 0 })
  }

  #placeAt(offset: number): string {
    const { line, col } = this.#lines.linePos(offset)
    return `${this.#file}:${line}:${col}`
  }

  #failAt(offset: number, message: string): never {
    throw new InputError(`${this.#placeAt(offset)}: ${message}`)
  }

  /** The value of a setting as the only one of a section. */
  section(name: string, node: Node | undefined, key: Node): Section {
    let value: unknown
    try {
      value = node === undefined ? null : this.#valueOf(node)
    } catch {
      this.fail(node, `${name}: an alias is not allowed; write it out`)
    }
    // The place begins with the setting itself.
    const at = (place: Place): string => this.#placeAt(offsetOf(node ?? key, place.slice(1)))
    return new Section({ at }, '', { [name]: value }, [name])
  }

  /** The place of an alias is that of its name. */
  fail(node: Node | null | undefined, message: string): never {
    return this.#failAt(node?.range?.[0] ?? 0, message)
  }

  /** What stands at the node, for messages. */
  written(node: Node | null | undefined): string {
    const [from, to] = node?.range ?? [0, 0]
    const text = this.#source.slice(from, to)
    if (text === '') return 'nothing'
    const line = text.replace(/\n[\s\S]*$/, ' …')
    return isScalar(node) || line.length > 60 ? `"${line.length > 60 ? `${line.slice(0, 60)}…` : line}"` : line
  }

  resolved(node: unknown): Node | undefined {
    return node === null || node === undefined ? undefined : this.#resolve(node as Node)
  }

  /** A scalar as written; undefined for anything else, and for an empty one. */
  text(node: unknown): string | undefined {
    const found = this.resolved(node)
    if (!isScalar(found) || found.value === null) return undefined
    return typeof found.value === 'string' ? found.value : (found.source ?? String(found.value))
  }

  /** The values of a map by key, each with the node of its key. Fails for keys that are not in `keys`, if given. */
  entries(map: YAMLMap, what: string, keys?: readonly string[]): Map<string, { key: Node; value: Node | undefined }> {
    const found = new Map<string, { key: Node; value: Node | undefined }>()
    for (const { key, value } of map.items) {
      const name = this.text(key)
      if (name === undefined) this.fail(key as Node, `${this.written(key as Node)} is no key of ${what}`)
      if (keys !== undefined && !keys.includes(name))
        this.fail(
          key as Node,
          `"${name}" is no setting of ${what}${didYouMean(name, keys) || `; there are ${listed(keys)}`}`,
        )
      if (found.has(name)) this.fail(key as Node, `"${name}" is twice in ${what}`)
      found.set(name, { key: key as Node, value: this.resolved(value) })
    }
    return found
  }

  /** An integer. */
  count(node: Node | undefined, key: Node, what: string, min: number, max: number): number {
    const text = this.text(node)
    const value = text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    if (!(value >= min && value <= max))
      this.fail(node ?? key, `${what} ${this.written(node)}: give an integer from ${min} to ${max}`)
    return value
  }
}

type NameKind = 'host' | 'switch' | 'router' | readonly string[]

/** Hosts, switches and routers by name; a group by its name, with its hosts. */
class Names {
  readonly #reader: Reader
  readonly #all = new Map<string, NameKind>()
  /** Names of hosts and routers by their lower case, as programs resolve them. */
  readonly #hosts = new Map<string, string>()

  constructor(reader: Reader) {
    this.#reader = reader
  }

  add(node: Node, name: string, kind: NameKind): void {
    if (!HOST_NAME.test(name) || name.length > MAX_NAME || name.toLowerCase() === 'localhost')
      this.#reader.fail(
        node,
        `name "${name}": a name has letters, digits and "-", at most ${MAX_NAME} characters, and is not "localhost"`,
      )
    if (this.#all.has(name))
      this.#reader.fail(node, `name "${name}": there are two hosts, switches or routers with this name`)
    this.#all.set(name, kind)
    if (kind !== 'host' && kind !== 'router') return
    if (NUMBER.test(name))
      this.#reader.fail(node, `name "${name}": programs take it for an address; a name of a host is not a number`)
    const other = this.#hosts.get(name.toLowerCase())
    if (other !== undefined)
      this.#reader.fail(node, `name "${name}": the host "${other}" differs only in case; programs resolve both alike`)
    this.#hosts.set(name.toLowerCase(), name)
  }

  /** What a name of `between` stands for. */
  find(node: Node | undefined, map: Node): readonly string[] {
    const name = this.#reader.text(node)
    if (name === undefined)
      this.#reader.fail(node ?? map, `${this.#reader.written(node)} is no name of a host, switch or router`)
    const found = this.#all.get(name)
    if (found === undefined) {
      const names = [...this.#all.keys()]
      const allowed = names.length > 12 ? `${listed(names.slice(0, 12))} …` : listed(names)
      this.#reader.fail(
        node,
        `there is no host, switch or router "${name}"${didYouMean(name, names) || `; there are ${allowed}`}`,
      )
    }
    return typeof found === 'string' ? [name] : found
  }

  isSwitch(name: string): boolean {
    return this.#all.get(name) === 'switch'
  }

  isRouter(name: string): boolean {
    return this.#all.get(name) === 'router'
  }
}

const readDriver = (reader: Reader, key: Node, node: Node | undefined): NamedDriver => ({
  name: reader.text(node) ?? reader.written(node),
  complain: message => reader.fail(node ?? key, message),
})

const HOSTS_FORMS =
  'give a number of hosts, a list of names, or names with settings, for example `hosts: 4` or `hosts: { h1: { driver: mlx5 } }`'

/** What all hosts have that settings do not name. */
type HostSettings = Pick<HostEntry, 'driver' | 'layer' | 'ports'>

const HOST_KEYS = ['count', 'driver', 'layer', 'guid', 'pkeys', ...deviceLimitNames] as const

const readLayer = (reader: Reader, key: Node, node: Node | undefined): HostEntry['layer'] => {
  const layer = reader.text(node)
  if (layer !== 'ethernet' && layer !== 'infiniband')
    reader.fail(node ?? key, `layer ${reader.written(node)} is not one of ethernet, infiniband`)
  return layer
}

const readPkeys = (reader: Reader, key: Node, node: Node | undefined): string => {
  const keys = isSeq(node) ? node.items.map(item => reader.text(item) ?? '') : []
  const isKey = (text: string): boolean => /^0x[\da-f]{1,4}$/i.test(text) && (Number(text) & 0x7fff) !== 0
  if (keys.length === 0 || keys.length > MAX_PKEYS || !keys.every(isKey))
    reader.fail(
      node ?? key,
      `pkeys: ${reader.written(node)}: give a list of 1 to ${MAX_PKEYS} partition keys from 0x0001 to 0xffff, such as [0xffff, 0x8001]; 0x8000 is none`,
    )
  return `,pkeys=${keys.join('+')}`
}

/** The limits of a host's devices, in the words of `--device`. */
const readLimits = (reader: Reader, settings: ReturnType<Reader['entries']>): string =>
  deviceLimitNames
    .flatMap(name => {
      const found = settings.get(name)
      if (found === undefined) return []
      try {
        return `,${name}=${readDeviceLimit(name, reader.text(found.value) ?? '')}`
      } catch (error) {
        return reader.fail(found.value ?? found.key, (error as Error).message)
      }
    })
    .join('')

const readHostSettings = (
  reader: Reader,
  settings: ReturnType<Reader['entries']>,
  layer: HostEntry['layer'],
): HostSettings => {
  const [driver, guid, pkeys] = ['driver', 'guid', 'pkeys'].map(name => settings.get(name))
  const named = settings.get('layer')
  const kind = named === undefined ? layer : readLayer(reader, named.key, named.value)
  for (const found of [guid, pkeys])
    if (found !== undefined && kind !== 'infiniband')
      reader.fail(found.key, `${reader.text(found.key)} is a setting of InfiniBand ports: give layer: infiniband too`)
  const guidText = guid && reader.text(guid.value)
  if (guid !== undefined && !/^(?:0x)?(?!0{16})[\da-f]{16}$/i.test(guidText ?? ''))
    reader.fail(guid.value ?? guid.key, `guid ${reader.written(guid.value)}: give 16 hexadecimal digits, not all 0`)
  if (guid !== undefined && settings.has('count'))
    reader.fail(guid.key, 'guid: several hosts cannot have the same; give each a line of its own')
  return {
    driver: driver && readDriver(reader, driver.key, driver.value),
    layer: kind,
    ports: `${guidText === undefined ? '' : `,guid=${guidText}`}${pkeys === undefined ? '' : readPkeys(reader, pkeys.key, pkeys.value)}${readLimits(reader, settings)}`,
  }
}

/** `layer`: of hosts that name none. */
const readHosts = (
  reader: Reader,
  names: Names,
  key: Node,
  node: Node | undefined,
  layer: HostEntry['layer'],
): HostEntry[] => {
  const hosts: HostEntry[] = []
  const plain: HostSettings = { driver: undefined, layer, ports: '' }
  const addHost = (at: Node, name: string, settings = plain): void => {
    names.add(at, name, 'host')
    hosts.push({ name, ...settings, complain: message => reader.fail(at, message) })
    if (hosts.length > MAX_HOSTS) reader.fail(at, `there are more than ${MAX_HOSTS} hosts`)
  }
  /** `count` hosts NAME1, NAME2 … */
  const addMany = (at: Node, name: string, count: number, settings = plain): string[] => {
    const many = Array.from({ length: count }, (_, i) => `${name}${i + 1}`)
    for (const each of many) addHost(at, each, settings)
    return many
  }
  if (isScalar(node)) addMany(node, 'h', reader.count(node, key, 'hosts', 1, MAX_HOSTS))
  else if (isSeq(node))
    for (const item of node.items) addHost(item as Node, reader.text(item) ?? reader.written(item as Node))
  else if (isMap(node))
    for (const [name, { key: at, value }] of reader.entries(node, 'hosts')) {
      if (value === undefined || (isScalar(value) && value.value === null)) {
        addHost(at, name)
        continue
      }
      if (!isMap(value))
        reader.fail(value, `host "${name}": ${reader.written(value)} is no map of settings, such as { driver: mlx5 }`)
      const settings = reader.entries(value, `host "${name}"`, HOST_KEYS)
      const count = settings.get('count')
      const kind = readHostSettings(reader, settings, layer)
      if (count === undefined) addHost(at, name, kind)
      else names.add(at, name, addMany(at, name, reader.count(count.value, count.key, 'count', 1, MAX_HOSTS), kind))
    }
  else reader.fail(node ?? key, `hosts: ${reader.written(node)}: ${HOSTS_FORMS}`)
  if (hosts.length === 0) reader.fail(node, `hosts: there is none; ${HOSTS_FORMS}`)
  return hosts
}

/** The forms of a list of nodes without settings. */
const NODES = {
  switches: { what: 'switch', example: 'tor', most: MAX_SWITCHES },
  routers: { what: 'router', example: 'leaf1', most: MAX_ROUTERS },
} as const

const readNodes = (
  reader: Reader,
  names: Names,
  kind: keyof typeof NODES,
  key: Node,
  node: Node | undefined,
): RouterEntry[] => {
  const { what, example, most } = NODES[kind]
  if (!isSeq(node))
    reader.fail(node ?? key, `${kind}: ${reader.written(node)}: give a list of names, such as [${example}]`)
  if (node.items.length > most) reader.fail(node, `there are more than ${most} ${kind}`)
  return node.items.map(item => {
    const name = reader.text(item) ?? reader.written(item as Node)
    names.add(item as Node, name, what)
    return { name, complain: message => reader.fail(item as Node, message) }
  })
}

const QUANTITIES = ['rate', 'delay', 'loss'] as const
const LINK_KEYS = ['between', ...QUANTITIES, 'mtu', 'addresses', 'classes'] as const

/** What the settings of a link say of rate, delay and loss. A delay or a loss of 0 is none. */
const readQuantities = (reader: Reader, settings: ReturnType<Reader['entries']>): Omit<LinkSettings, 'mtu'> => {
  const quantities = QUANTITIES.map(name => {
    const found = settings.get(name)
    if (found === undefined) return {}
    const text = reader.text(found.value)
    const value = text === undefined ? undefined : linkQuantities[name].read(text)
    if (value === undefined)
      reader.fail(
        found.value ?? found.key,
        `${name} ${reader.written(found.value)} is not ${linkQuantities[name].allowed}`,
      )
    return value === 0 ? {} : { [name]: value }
  })
  return Object.assign({}, ...quantities)
}

/** The links of hosts and groups that `between` names. */
const readEnds = (reader: Reader, names: Names, map: Node, node: Node | undefined): (readonly [string, string])[] => {
  if (!isSeq(node) || node.items.length !== 2)
    reader.fail(node ?? map, `between: ${reader.written(node)}: give two names, such as [h1, tor]`)
  const [first, second] = node.items.map(item => names.find(reader.resolved(item), node)) as [string[], string[]]
  const hasGroup = first.length > 1 || second.length > 1
  const isJoint = (name: string): boolean => names.isSwitch(name) || names.isRouter(name)
  if (hasGroup && ![first, second].some(([name]) => isJoint(name!)))
    reader.fail(node, `between: ${reader.written(node)}: several hosts have links to a switch or router, not to a host`)
  if (first[0] === second[0]) reader.fail(node, `between: ${reader.written(node)}: a link has two different ends`)
  return first.flatMap(a => second.map((b): readonly [string, string] => [a, b]))
}

const readLink = (reader: Reader, names: Names, node: Node | undefined, list: Node): LinkEntry => {
  if (!isMap(node))
    reader.fail(node ?? list, `${reader.written(node)} is no link; a link is like { between: [h1, tor], rate: 1gbit }`)
  const settings = reader.entries(node, 'a link', LINK_KEYS)
  const complain: Complain = message => reader.fail(node, message)
  const between = settings.get('between')
  if (between === undefined) complain('the link has no ends: add between, such as between: [h1, tor]')
  const ends = readEnds(reader, names, between.key, between.value)
  const quantities = readQuantities(reader, settings)
  const mtu = settings.get('mtu')
  const addresses = settings.get('addresses')
  const hostEnds = ends.flat().filter(end => !names.isSwitch(end)).length
  if (addresses !== undefined && !(isSeq(addresses.value) && addresses.value.items.length === hostEnds))
    reader.fail(
      addresses.value ?? addresses.key,
      `addresses: ${reader.written(addresses.value)}: give a list with an address for each of the ${hostEnds} hosts and routers, such as 192.0.2.1/24`,
    )
  const classes = settings.get('classes')
  return {
    ...(classes !== undefined && { classes: readClasses(reader.section('classes', classes.value, classes.key)) }),
    settings: {
      ...quantities,
      mtu: mtu === undefined ? DEFAULT_MTU : reader.count(mtu.value, mtu.key, 'mtu', MIN_MTU, MAX_MTU),
    },
    ends,
    addresses: isSeq(addresses?.value)
      ? addresses.value.items.map(item => reader.text(item) ?? reader.written(item as Node))
      : [],
    complain,
  }
}

const readFolders = (reader: Reader, key: Node, node: Node | undefined): string[] => {
  if (!isSeq(node))
    reader.fail(
      node ?? key,
      `folders: ${reader.written(node)}: give a list of folders, such as [/dev/shm, /var/spool/x]`,
    )
  if (node.items.length > MAX_FOLDERS) reader.fail(node, `there are more than ${MAX_FOLDERS} folders`)
  const paths = node.items.map(item => {
    const path = reader.text(item) ?? ''
    if (path === '/' || normalize(path) !== path || !isAbsolute(path) || path.endsWith('/'))
      reader.fail(
        item as Node,
        `folders: ${reader.written(item as Node)}: give the absolute path of a folder, without "/" at its end`,
      )
    return path
  })
  // A folder before those in it.
  return [...new Set(paths)].sort()
}

const readFlag = (reader: Reader, name: string, key: Node, node: Node | undefined): boolean => {
  const text = reader.text(node)
  if (text !== 'true' && text !== 'false')
    reader.fail(node ?? key, `${name} ${reader.written(node)}: give true or false`)
  return text === 'true'
}

const SHAPES = Object.keys(fabricShapes) as readonly ShapeName[]
const KEYS = [
  'name',
  'hosts',
  'switches',
  'routers',
  'links',
  'classes',
  'folders',
  'check',
  'subnet-manager',
  ...SHAPES,
] as const

/**
 * The setting of a topology that names a shape of InfiniBand switches, and the number of hosts in it, if it has one.
 */
const readShape = (reader: Reader, top: ReturnType<Reader['entries']>) => {
  const [name, second] = SHAPES.filter(each => top.has(each))
  if (name === undefined) return undefined
  const { key, value } = top.get(name)!
  for (const other of [second, 'switches', 'routers', 'links', 'classes'])
    if (other !== undefined && top.has(other))
      reader.fail(
        top.get(other)!.key,
        other === 'routers' || other === 'classes'
          ? `${other}: InfiniBand switches have none, and the ${name} has such; leave one of them out`
          : `${other}: the switches and links are those of the ${name}; leave one of them out`,
      )
  const ranges: Readonly<Record<string, readonly [number, number]>> = fabricShapes[name]
  if (!isMap(value))
    reader.fail(
      value ?? key,
      `${name}: ${reader.written(value)} is no map of settings, such as { ${Object.keys(ranges).join(': 4, ')}: 4, hosts: 16 }`,
    )
  const settings = reader.entries(value, `the ${name}`, [...Object.keys(ranges), 'hosts', ...QUANTITIES])
  const numbers = Object.entries(ranges).map(([setting, [min, max]]) => {
    const found = settings.get(setting)
    if (found === undefined) reader.fail(value, `the ${name} needs ${setting}, an integer from ${min} to ${max}`)
    return reader.count(found.value, found.key, setting, min, max)
  })
  const hosts = settings.get('hosts')
  if (hosts !== undefined && top.has('hosts'))
    reader.fail(hosts.key, `hosts: the topology has hosts already; leave those of the ${name} out`)
  return { key, name, hosts, shape: shapeOf(name, numbers), quantities: readQuantities(reader, settings) }
}

/** The links of hosts to the leaves of a shape, in turn, and those between its switches, with these quantities. */
const shapeLinks = (
  { links, leaves }: FabricShape,
  quantities: Omit<LinkSettings, 'mtu'>,
  hosts: readonly HostEntry[],
  complain: Complain,
): LinkEntry[] => {
  const entry = (ends: LinkEntry['ends'], own: Omit<LinkSettings, 'mtu'> = {}): LinkEntry => ({
    settings: { ...own, mtu: DEFAULT_MTU },
    ends,
    addresses: [],
    complain,
  })
  return [entry(hosts.map(({ name }, i) => [name, leaves[i % leaves.length]!] as const)), entry(links, quantities)]
}

const readManager = (reader: Reader, key: Node, node: Node | undefined): NamedManager => ({
  name: reader.text(node) ?? reader.written(node),
  complain: message => reader.fail(node ?? key, message),
})

/** The name of a net whose file gives none. */
const nameOfFile = (file: string): string =>
  basename(file)
    .replace(/\.[^.]*$/, '')
    .replaceAll(/[^A-Za-z0-9_]/g, '_')

/** Reads `source`. Throws InputError. */
export const parseTopology = (source: string, file: string): Topology => {
  const reader: Reader = new Reader(file, source)
  if (!isMap(reader.root))
    reader.fail(
      reader.root,
      `a topology is a map with hosts, switches, routers and links; the smallest is \`hosts: 2\``,
    )
  const top = reader.entries(reader.root, 'a topology', KEYS)
  const name = top.get('name')
  const text = name === undefined ? nameOfFile(file) : reader.text(name.value)
  if (text === undefined)
    reader.fail(name?.value ?? name?.key, `name: ${reader.written(name?.value)}: ${NET_NAME_RULE}`)
  if (!isNetName(text))
    reader.fail(name?.value ?? reader.root, `name "${text}": ${NET_NAME_RULE}; set it with \`name:\``)
  const names = new Names(reader)
  const shape = readShape(reader, top)
  const hosts = top.get('hosts') ?? shape?.hosts
  if (hosts === undefined) reader.fail(reader.root, 'the topology has no hosts; add, for example, `hosts: 2`')
  const layer = shape === undefined ? 'ethernet' : 'infiniband'
  const hostEntries = readHosts(reader, names, hosts.key, hosts.value, layer)
  const switches = top.get('switches')
  const links = top.get('links')
  const ownFolders = top.get('folders')
  const folders = ownFolders === undefined ? [] : readFolders(reader, ownFolders.key, ownFolders.value)
  const flag = top.get('check')
  const check = flag !== undefined && readFlag(reader, 'check', flag.key, flag.value)
  const managerEntry = top.get('subnet-manager')
  const manager = managerEntry && readManager(reader, managerEntry.key, managerEntry.value)
  const common = { name: text, hosts: hostEntries, folders, check, manager }
  if (shape !== undefined) {
    for (const each of shape.shape.switches) names.add(shape.key, each, 'switch')
    const complain: Complain = message => reader.fail(shape.key, message)
    const { switches: all } = shape.shape
    return {
      ...common,
      switches: all,
      routers: [],
      links: shapeLinks(shape.shape, shape.quantities, hostEntries, complain),
    }
  }
  const routers = top.get('routers')
  const ofAll = top.get('classes')
  const classes = ofAll && readClasses(reader.section('classes', ofAll.value, ofAll.key))
  if (links === undefined) {
    if (routers !== undefined) reader.fail(routers.key, 'there are routers and no links to them: add links')
    if (switches !== undefined) reader.fail(switches.key, 'there are switches and no links to them: add links')
    const ends = hostEntries.map(({ name: host }): readonly [string, string] => [host, ONLY_SWITCH])
    names.add(reader.root, ONLY_SWITCH, 'switch')
    const complain: Complain = message => reader.fail(hosts.key, message)
    return {
      ...common,
      switches: [ONLY_SWITCH],
      routers: [],
      links: [{ settings: { mtu: DEFAULT_MTU }, classes, ends, addresses: [], complain }],
    }
  }
  const entriesOf = (kind: keyof typeof NODES, found: typeof switches): RouterEntry[] =>
    found === undefined ? [] : readNodes(reader, names, kind, found.key, found.value)
  const switchNames = entriesOf('switches', switches).map(({ name }) => name)
  const routerEntries = entriesOf('routers', routers)
  const list = links.value
  if (!isSeq(list))
    reader.fail(list ?? links.key, `links: ${reader.written(list)}: give a list, such as - { between: [h1, tor] }`)
  let count = 0
  const linkEntries = list.items.map(item => {
    const entry = { classes, ...readLink(reader, names, reader.resolved(item), list) }
    count += entry.ends.length
    if (count > MAX_LINKS) reader.fail(list, `there are more than ${MAX_LINKS} links`)
    return entry
  })
  return { ...common, switches: switchNames, routers: routerEntries, links: linkEntries }
}

/** Reads a file. Throws InputError. */
export const readTopology = (file: string): Topology =>
  parseTopology(readInputFile(file, 'topology', MAX_FILE_BYTES), file)
