/*
 * Reads and writes a machine file (docs/how-to/machines.md): what programs read in sysfs of a machine, as text, without
 * serial numbers and addresses. This file knows what may stand where; daemon/files/machine-tree.ts makes the files of
 * sysfs, and cli/machine/capture.ts reads them. An error names file and line, the value as written, and what is
 * allowed.
 *
 *   userdma machine 1
 *   system vendor="NVIDIA" product="DGXA100"
 *   package 0 cores=0+64..31+95       its cores, each with its processors; `..`: each of them one more
 *   node 0 cpus=0-31,64-95 memory=512G distances=10,32
 *   iommu dmar0
 *   bus 0000:00 node=0                a root bus, and its PCI functions, each below its bridge
 *     0000:00:01.0 060400 8086:352a driver=pcieport speed=32.0 width=16 buses=01-02
 *       0000:01:00.0 020700 15b3:1021 driver=mlx5_core rdma=mlx5_0 layer=infiniband rate=4xNDR net=ib0
 */
import { didYouMean } from '../../base/suggest.ts'
import { LinkSpeed, LinkWidth } from '../../spec/enums.ts'
import { lanesOf, speedName } from '../../spec/link-rate.ts'
import { InputError } from './input-error.ts'
import { readInputFile } from './input-file.ts'

/** A package (socket) of processors. */
interface MachinePackage {
  readonly id: number
  /** The processors of each core. */
  readonly cores: readonly (readonly number[])[]
}

export interface MachineNode {
  readonly id: number
  readonly cpus: readonly number[]
  /** MiB. */
  readonly memory: number
  /** To all nodes, in the order of the file. */
  readonly distances: readonly number[]
}

/** The link of a PCI function: GT/s and lanes. */
interface PciLink {
  readonly speed: PciSpeed
  readonly width: number
  readonly maxSpeed: PciSpeed
  readonly maxWidth: number
}

/** The RDMA device of a function. */
interface MachineAdapter {
  readonly name: string
  readonly isInfiniBand: boolean
  /** `LinkWidth` and `LinkSpeed`; absent: what the driver tells. */
  readonly rate?: PortRate
}

interface PortRate {
  readonly activeWidth: number
  readonly activeSpeed: number
}

type Ids = readonly [vendor: number, device: number]

export interface MachineFunction {
  /** `0000:81:00.0`. */
  readonly address: string
  readonly pciClass: number
  readonly ids: Ids
  readonly subsystem: Ids
  readonly revision: number
  /** Linux's driver of the function. */
  readonly driver?: string
  readonly node: number
  /** Absent for functions without a link of their own. */
  readonly link?: PciLink
  /** The IOMMU group, and its type, such as DMA-FQ. */
  readonly group?: { readonly id: number; readonly type?: string }
  /** The enabled controls of Access Control Services; absent: the function has none. */
  readonly acs?: readonly AcsControl[]
  readonly rdma?: MachineAdapter
  /** The names of its network interfaces. */
  readonly interfaces: readonly string[]
  /** Present for bridges: the first and the last bus below. */
  readonly buses?: readonly [secondary: number, subordinate: number]
  readonly functions: readonly MachineFunction[]
}

export interface MachineBus {
  /** `0000:00`. */
  readonly address: string
  readonly node: number
  readonly functions: readonly MachineFunction[]
}

/** The texts of /sys/class/dmi/id, by the words of the file. */
export const systemFiles = { vendor: 'sys_vendor', product: 'product_name', board: 'board_name' } as const

export interface Machine {
  readonly system: Readonly<Partial<Record<keyof typeof systemFiles, string>>>
  readonly packages: readonly MachinePackage[]
  readonly nodes: readonly MachineNode[]
  /** Names in /sys/class/iommu. */
  readonly iommus: readonly string[]
  readonly buses: readonly MachineBus[]
}

/** By the bits of the control register, from bit 0, with the names of lspci. */
export const acsControls = [
  'SrcValid',
  'TransBlk',
  'ReqRedir',
  'CmpltRedir',
  'UpstreamFwd',
  'EgressCtrl',
  'DirectTrans',
] as const
type AcsControl = (typeof acsControls)[number]

/** GT/s, in the order of the numbers in configuration space, from 1. */
export const linkSpeeds = ['2.5', '5.0', '8.0', '16.0', '32.0', '64.0'] as const
export type PciSpeed = (typeof linkSpeeds)[number]
const WIDTHS = [1, 2, 4, 8, 12, 16, 32] as const

export const NO_NODE = -1
const MAX_BYTES = 2 ** 20
/** Of processors, nodes and functions. */
const MAX_PROCESSORS = 4096
const MAX_NODES = 1024
const MAX_FUNCTIONS = 4096
const MAX_MEMORY = 2 ** 30
/** Characters of a wrong value in a message. */
const MAX_SHOWN = 60
const FIRST_LINE = 'userdma machine 1'
const INDENT = '  '

export const isBridge = ({ pciClass }: Pick<MachineFunction, 'pciClass'>): boolean => pciClass >> 8 === 0x0604

const functionsBelow = ({ functions }: Pick<MachineBus, 'functions'>): MachineFunction[] =>
  functions.flatMap(one => [one, ...functionsBelow(one)])

export const functionsOf = ({ buses }: Pick<Machine, 'buses'>): MachineFunction[] => buses.flatMap(functionsBelow)

export const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')

// ---- lists of numbers ----

/** As in sysfs: `0-3,8`. */
export const listText = (numbers: readonly number[]): string => {
  const parts: string[] = []
  for (let i = 0; i < numbers.length; ) {
    let last = i
    while (numbers[last + 1] === numbers[last]! + 1) last++
    parts.push(last === i ? `${numbers[i]}` : `${numbers[i]}-${numbers[last]}`)
    i = last + 1
  }
  return parts.join(',')
}

/** The inverse; undefined for other texts, and for more numbers than a machine has processors. */
export const numbersOf = (text: string): number[] | undefined => {
  const numbers: number[] = []
  for (const part of text === '' ? [] : text.split(',')) {
    const [, first, last = first] = /^(\d{1,4})(?:-(\d{1,4}))?$/.exec(part) ?? []
    if (first === undefined || Number(last) >= MAX_PROCESSORS || Number(first) <= (numbers.at(-1) ?? -1))
      return undefined
    for (let number = Number(first); number <= Number(last); number++) numbers.push(number)
  }
  return numbers
}

const isNext = (core: readonly number[], before: readonly number[]): boolean =>
  core.length === before.length && core.every((cpu, i) => cpu === before[i]! + 1)

const coresText = (cores: readonly (readonly number[])[]): string => {
  const parts: string[] = []
  for (let i = 0; i < cores.length; ) {
    let last = i
    while (last + 1 < cores.length && isNext(cores[last + 1]!, cores[last]!)) last++
    parts.push(i === last ? cores[i]!.join('+') : `${cores[i]!.join('+')}..${cores[last]!.join('+')}`)
    i = last + 1
  }
  return parts.join(',')
}

/** Undefined if the text is none of `coresText`, and for more processors than a machine has. */
const coresOf = (text: string): number[][] | undefined => {
  const cores: number[][] = []
  let left = MAX_PROCESSORS
  for (const part of text.split(',')) {
    if (!/^\d{1,4}(\+\d{1,4})*(\.\.\d{1,4}(\+\d{1,4})*)?$/.test(part)) return undefined
    const [first = [], last = first] = part.split('..').map(core => core.split('+').map(Number))
    const count = last[0]! - first[0]! + 1
    left -= count * first.length
    if (count < 1 || left < 0) return undefined
    for (let i = 0; i < count; i++) cores.push(first.map(cpu => cpu + i))
    if (cores.at(-1)!.join() !== last.join()) return undefined
  }
  return cores.flat().every(cpu => cpu < MAX_PROCESSORS) ? cores : undefined
}

// ---- reading ----

/** The words of a line: the first ones by their place, then KEY=VALUE in any order. */
class Line {
  readonly #file: string
  readonly #number: number
  readonly #settings = new Map<string, string>()
  readonly #words: string[] = []
  readonly depth: number
  /** Without the indentation; '' for a comment. */
  readonly content: string

  constructor(file: string, number: number, text: string) {
    this.#file = file
    this.#number = number
    const content = text.trim()
    this.depth = text.length - text.trimStart().length
    this.content = content.startsWith('#') ? '' : content
    // the texts of the file are shown by terminals
    if (/\p{Cc}/u.test(content.replaceAll('\t', ' '))) throw this.error('a machine file has no control characters')
    for (const [word, key, quoted, plain] of this.content.matchAll(/([a-z-]+)=(?:"([^"]*)"|(\S*))(?=\s|$)|\S+/g)) {
      if (key === undefined) {
        if (this.#settings.size > 0) throw this.error(`"${word}" stands after settings, which are KEY=VALUE`)
        this.#words.push(word)
        continue
      }
      if (this.#settings.has(key)) throw this.error(`${key}= is given twice`)
      this.#settings.set(key, quoted ?? plain!)
    }
  }

  error(message: string): InputError {
    return new InputError(`${this.#file}:${this.#number}: ${message}`)
  }

  get first(): string {
    return this.#words[0] ?? ''
  }

  /** The words before the settings. Throws unless there are as many as `names` has. */
  words<const N extends readonly string[]>(names: N): { readonly [I in keyof N]: string } {
    if (this.#words.length !== names.length)
      throw this.error(`"${this.#words.join(' ')}": such a line begins with ${names.join(' ')}`)
    return this.#words as unknown as { readonly [I in keyof N]: string }
  }

  /** Throws if the line has a setting that is none of `keys`. */
  allow(keys: readonly string[]): void {
    for (const key of this.#settings.keys())
      if (!keys.includes(key))
        throw this.error(`${key}= is no setting of this line, which has ${keys.join(', ')}${didYouMean(key, keys)}`)
  }

  text(key: string): string | undefined {
    return this.#settings.get(key)
  }

  /** The value that `read` makes of the setting; undefined if it is absent. Throws if `read` returns undefined. */
  read<T>(key: string, read: (text: string) => T | undefined, allowed: string): T | undefined {
    const text = this.#settings.get(key)
    if (text === undefined) return undefined
    const value = read(text)
    const shown = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text
    if (value === undefined) throw this.error(`${key}="${shown}": give ${allowed}`)
    return value
  }

  need<T>(key: string, read: (text: string) => T | undefined, allowed: string): T {
    const value = this.read(key, read, allowed)
    if (value === undefined) throw this.error(`${key}= is missing: give ${allowed}`)
    return value
  }
}

const integerOf =
  (least: number, most: number) =>
  (text: string): number | undefined =>
    /^-?\d{1,10}$/.test(text) && Number(text) >= least && Number(text) <= most ? Number(text) : undefined

const oneOf =
  <T extends string | number>(values: readonly T[]) =>
  (text: string): T | undefined =>
    values.find(value => `${value}` === text)

const nameOf = (text: string): string | undefined => (/^[A-Za-z0-9][\w.-]{0,62}$/.test(text) ? text : undefined)
const namesOf = (text: string): string[] | undefined => {
  const names = text.split(',')
  return names.every(nameOf) ? names : undefined
}
const NAME = 'a name of letters, digits, ".", "_" and "-"'
const NAMES = 'names of letters, digits, ".", "_" and "-" with commas between them'

const idsOf = (text: string): Ids | undefined =>
  /^[\da-f]{4}:[\da-f]{4}$/.test(text)
    ? [Number.parseInt(text.slice(0, 4), 16), Number.parseInt(text.slice(5), 16)]
    : undefined
const IDS = 'VENDOR:DEVICE, each of four hexadecimal digits'

/** MiB. */
const memoryOf = (text: string): number | undefined => {
  const [, digits, unit] = /^(\d{1,10})([MG])$/.exec(text) ?? []
  const memory = Number(digits) * (unit === 'G' ? 1024 : 1)
  return memory <= MAX_MEMORY ? memory : undefined
}

const rateOf = (text: string): PortRate | undefined => {
  const [, lanes, name = ''] = /^(\d+)x([A-Z\d]+)$/.exec(text) ?? []
  const activeWidth = Object.values(LinkWidth.values).find(
    width => width > 0 && `${lanesOf({ activeWidth: width })}` === lanes,
  )
  const activeSpeed = Object.hasOwn(LinkSpeed.values, name)
    ? LinkSpeed.values[name as keyof typeof LinkSpeed.values]
    : 0
  return activeWidth === undefined || activeSpeed === 0 ? undefined : { activeWidth, activeSpeed }
}
const RATE = `LANESxSPEED: 1, 2, 4, 8 or 12 lanes, and ${Object.keys(LinkSpeed.values).slice(1).join(', ')}`

const acsOf = (text: string): AcsControl[] | undefined => {
  if (text === 'off') return []
  const names = text.split('+')
  return names.every(name => acsControls.some(control => control === name)) ? (names as AcsControl[]) : undefined
}

const groupOf = (text: string): NonNullable<MachineFunction['group']> | undefined => {
  const [, id, type] = /^(\d{1,6})(?:\/([A-Za-z-]+))?$/.exec(text) ?? []
  return id === undefined ? undefined : { id: Number(id), ...(type !== undefined && { type }) }
}

/** Of a bridge on bus `own`; 00-00: they have no numbers. */
const busesOf =
  (own: number) =>
  (text: string): readonly [number, number] | undefined => {
    const [, first, last] = /^([\da-f]{2})-([\da-f]{2})$/.exec(text) ?? []
    const [from, to] = [Number.parseInt(first ?? '', 16), Number.parseInt(last ?? '', 16)]
    return (from > own && from <= to) || to === 0 ? [from, to] : undefined
  }

const readLink = (line: Line): PciLink | undefined => {
  const speeds = `one of ${linkSpeeds.join(', ')} (GT/s)`
  const widths = `one of ${WIDTHS.join(', ')} (lanes)`
  const speed = line.read('speed', oneOf(linkSpeeds), speeds)
  const width = line.read('width', oneOf(WIDTHS), widths)
  const maxSpeed = line.read('max-speed', oneOf(linkSpeeds), speeds)
  const maxWidth = line.read('max-width', oneOf(WIDTHS), widths)
  if (speed !== undefined && width !== undefined)
    return { speed, width, maxSpeed: maxSpeed ?? speed, maxWidth: maxWidth ?? width }
  if ((speed ?? width ?? maxSpeed ?? maxWidth) === undefined) return undefined
  throw line.error('a link needs both speed= and width=')
}

const readAdapter = (line: Line): MachineAdapter | undefined => {
  const name = line.read('rdma', nameOf, NAME)
  const layer = line.read('layer', oneOf(['infiniband', 'ethernet']), 'infiniband or ethernet')
  const rate = line.read('rate', rateOf, RATE)
  if (name !== undefined) return { name, isInfiniBand: layer === 'infiniband', ...(rate !== undefined && { rate }) }
  if (layer === undefined && rate === undefined) return undefined
  throw line.error(`${layer === undefined ? 'rate=' : 'layer='} is of the port of an RDMA device: give rdma=NAME too`)
}

const FUNCTION_KEYS = [
  ...['sub', 'rev', 'driver', 'node', 'speed', 'width', 'max-speed', 'max-width', 'iommu', 'acs', 'buses'],
  ...['rdma', 'layer', 'rate', 'net'],
]

interface OpenFunction extends Omit<MachineFunction, 'functions' | 'buses'> {
  readonly line: Line
  readonly functions: OpenFunction[]
  readonly buses: MachineFunction['buses']
}

interface OpenBus extends Omit<MachineBus, 'functions'> {
  readonly functions: OpenFunction[]
}

/** The number of the bus in an address. */
const busNumber = (address: string): number => Number.parseInt(address.slice(5, 7), 16)

const readFunction = (line: Line, parent: OpenBus | OpenFunction, nodeOf: NodeReader): OpenFunction => {
  const [address, pciClass, text] = line.words(['ADDRESS', 'CLASS', 'VENDOR:DEVICE'])
  line.allow(FUNCTION_KEYS)
  if (!/^[\da-f]{4}:[\da-f]{2}:[01][\da-f]\.[0-7]$/.test(address))
    throw line.error(
      `"${address}" is no PCI address: DOMAIN:BUS:DEVICE.FUNCTION in small hexadecimal digits, such as 0000:81:00.0`,
    )
  if (!/^[\da-f]{6}$/.test(pciClass))
    throw line.error(`"${pciClass}" is no class: six hexadecimal digits, such as 060400 for a bridge`)
  const ids = idsOf(text)
  if (ids === undefined) throw line.error(`"${text}": give ${IDS}`)
  const link = readLink(line)
  const group = line.read('iommu', groupOf, 'the number of a group, and its type, such as 12 or 12/DMA-FQ')
  const acs = line.read('acs', acsOf, `off, or some of ${acsControls.join(', ')} with + between them`)
  const driver = line.read('driver', nameOf, NAME)
  const rdma = readAdapter(line)
  return {
    line,
    address,
    pciClass: Number.parseInt(pciClass, 16),
    ids,
    subsystem: line.read('sub', idsOf, IDS) ?? [0, 0],
    revision:
      line.read(
        'rev',
        rev => (/^[\da-f]{2}$/.test(rev) ? Number.parseInt(rev, 16) : undefined),
        'two hexadecimal digits',
      ) ?? 0,
    node: nodeOf(line) ?? parent.node,
    interfaces: line.read('net', namesOf, NAMES) ?? [],
    buses: line.read(
      'buses',
      busesOf(busNumber(address)),
      'the first and the last bus below, such as 01-02, above its own, or 00-00 for none',
    ),
    functions: [],
    ...(driver !== undefined && { driver }),
    ...(link !== undefined && { link }),
    ...(group !== undefined && { group }),
    ...(acs !== undefined && { acs }),
    ...(rdma !== undefined && { rdma }),
  }
}

/** The NUMA node of a line; undefined if the line names none. Throws. */
type NodeReader = (line: Line) => number | undefined

const nodeReader =
  (nodes: readonly MachineNode[]): NodeReader =>
  line =>
    line.read(
      'node',
      text => oneOf([NO_NODE, ...nodes.map(({ id }) => id)])(text),
      `${nodes.map(({ id }) => id).join(', ')} or ${NO_NODE}, which is none`,
    )

/** Whether a function can be there: its bus is that of its parent, or one that its bridge has. */
const checkPlace = (line: Line, { address }: OpenFunction, parent: OpenBus | OpenFunction): void => {
  if (address.slice(0, 4) !== parent.address.slice(0, 4))
    throw line.error(`${address} is of another domain than ${parent.address}, below which it stands`)
  if (!('line' in parent)) {
    if (!address.startsWith(parent.address)) throw line.error(`${address} is not on bus ${parent.address}`)
    return
  }
  if (!isBridge(parent))
    throw line.error(`${address} stands below ${parent.address}, which is no bridge: its class is not 0604`)
  const [first, last] = parent.buses ?? [busNumber(parent.address) + 1, 0xff]
  if (busNumber(address) < first || busNumber(address) > last)
    throw line.error(`${address} stands below ${parent.address}, whose buses are ${hex(first, 2)} to ${hex(last, 2)}`)
}

/** The function with the buses of its bridges. */
const closed = (open: OpenFunction): MachineFunction => {
  const { line: _, buses, functions, ...rest } = open
  const below = functions.map(closed)
  if (!isBridge(open)) return { ...rest, functions: below }
  const numbers = below.flatMap(one => [busNumber(one.address), ...(one.buses ?? [])])
  const found = numbers.length === 0 ? ([0, 0] as const) : ([Math.min(...numbers), Math.max(...numbers)] as const)
  return { ...rest, buses: buses ?? found, functions: below }
}

const readPackage = (line: Line): MachinePackage => {
  const [, id] = line.words(['package', 'N'])
  line.allow(['cores'])
  const number = integerOf(0, MAX_PROCESSORS)(id)
  if (number === undefined) throw line.error(`package "${id}": give a number`)
  return {
    id: number,
    cores: line.need('cores', coresOf, 'cores, such as 0+4..3+7 for four cores of two processors each, or 0..3'),
  }
}

const readNode = (line: Line): MachineNode => {
  const [, id] = line.words(['node', 'N'])
  line.allow(['cpus', 'memory', 'distances'])
  const number = integerOf(0, MAX_NODES - 1)(id)
  if (number === undefined) throw line.error(`node "${id}": give a number from 0 to ${MAX_NODES - 1}`)
  const distance = integerOf(1, 255)
  return {
    id: number,
    cpus: line.need('cpus', numbersOf, 'processors in rising order, such as 0-3,8, or nothing for none'),
    memory: line.need('memory', memoryOf, 'the size of its memory, such as 512G or 7936M'),
    distances: line.need(
      'distances',
      text => {
        const numbers = text.split(',').map(distance)
        return numbers.every(one => one !== undefined) ? numbers : undefined
      },
      'the distances to all nodes, from 1 to 255, such as 10,21',
    ),
  }
}

/** Throws an InputError of `line` if the processors, nodes and functions do not fit together. */
const checkMachine = ({ packages, nodes, buses }: Machine, error: (message: string) => InputError): void => {
  const cpus = packages.flatMap(({ cores }) => cores.flat())
  if (cpus.length === 0) throw error('a machine needs a line that begins with package: it has no processor')
  const twice = cpus.find((cpu, i) => cpus.indexOf(cpu) !== i)
  if (twice !== undefined) throw error(`processor ${twice} is in two cores`)
  if (nodes.length === 0) throw error('a machine needs a line that begins with node: it has no memory')
  const placed = nodes.flatMap(node => node.cpus)
  const again = placed.find((cpu, i) => placed.indexOf(cpu) !== i)
  if (again !== undefined) throw error(`processor ${again} is in two nodes`)
  const foreign = placed.find(cpu => !cpus.includes(cpu))
  if (foreign !== undefined) throw error(`processor ${foreign} is in a node, and in no package`)
  for (const { id, distances } of nodes)
    if (distances.length !== nodes.length)
      throw error(`node ${id} has ${distances.length} distances; there are ${nodes.length} nodes`)
  const places = new Map(buses.map(({ address }) => [address, 'a root bus']))
  for (const { address, buses: [first] = [0] } of functionsOf({ buses })) {
    const bus = `${address.slice(0, 5)}${hex(first, 2)}`
    const other = first === 0 ? undefined : places.get(bus)
    if (other !== undefined) throw error(`bus ${bus} is ${other}, and below ${address} too`)
    if (first !== 0) places.set(bus, `below ${address}`)
  }
}

/** Parses a machine file. `file`: its name, which begins messages. Throws an InputError. */
export const parseMachine = (source: string, file: string): Machine => {
  const lines = source.split('\n').map((text, i) => new Line(file, i + 1, text))
  const [head = lines[0]!, ...rest] = lines.filter(({ content }) => content !== '')
  if (head.content !== FIRST_LINE) throw head.error(`this is no machine file: the first line of one is "${FIRST_LINE}"`)
  let system: Machine['system'] = {}
  const packages: MachinePackage[] = []
  const nodes: MachineNode[] = []
  const iommus: string[] = []
  const buses: OpenBus[] = []
  const nodeOf = nodeReader(nodes)
  /** Where the next function may stand: with the depth of its line. */
  const open: { readonly depth: number; readonly of: OpenBus | OpenFunction }[] = []
  const known = new Map<string, Line>()
  const once = (line: Line, name: string): void => {
    if (known.has(name)) throw line.error(`${name} is there twice`)
    known.set(name, line)
    if (known.size > MAX_FUNCTIONS + MAX_PROCESSORS) throw line.error('a machine has at most 4096 functions')
  }
  const sections: Readonly<Record<string, (line: Line) => void>> = {
    system(line) {
      line.words(['system'])
      const keys = Object.keys(systemFiles) as (keyof typeof systemFiles)[]
      line.allow(keys)
      once(line, 'system')
      system = Object.fromEntries(
        keys.flatMap(key => {
          const text = line.text(key)
          return text === undefined ? [] : [[key, text]]
        }),
      )
    },
    package(line) {
      const one = readPackage(line)
      once(line, `package ${one.id}`)
      packages.push(one)
    },
    node(line) {
      const one = readNode(line)
      once(line, `node ${one.id}`)
      if (buses.length > 0) throw line.error('nodes stand before buses')
      nodes.push(one)
    },
    iommu(line) {
      const [, names] = line.words(['iommu', 'NAMES'])
      line.allow([])
      const found = namesOf(names)
      if (found === undefined) throw line.error(`iommu "${names}": give ${NAMES}`)
      for (const name of found) once(line, `iommu ${name}`)
      iommus.push(...found)
    },
    bus(line) {
      const [, address] = line.words(['bus', 'DOMAIN:BUS'])
      line.allow(['node'])
      if (!/^[\da-f]{4}:[\da-f]{2}$/.test(address))
        throw line.error(`bus "${address}": give DOMAIN:BUS in small hexadecimal digits, such as 0000:00`)
      once(line, `bus ${address}`)
      const bus: OpenBus = { address, node: nodeOf(line) ?? NO_NODE, functions: [] }
      buses.push(bus)
      open.splice(0, open.length, { depth: 0, of: bus })
    },
  }
  for (const line of rest) {
    if (line.depth === 0) {
      const section = Object.hasOwn(sections, line.first) ? sections[line.first] : undefined
      if (section === undefined)
        throw line.error(
          `"${line.first}" is none of ${Object.keys(sections).join(', ')}${didYouMean(line.first, Object.keys(sections))}; functions are indented`,
        )
      section(line)
      continue
    }
    while (open.length > 0 && open.at(-1)!.depth >= line.depth) open.pop()
    const parent = open.at(-1)?.of
    if (parent === undefined) throw line.error(`"${line.first}" is indented, and below no bus`)
    const found = readFunction(line, parent, nodeOf)
    checkPlace(line, found, parent)
    once(line, found.address)
    if (found.rdma !== undefined) once(line, `rdma=${found.rdma.name}`)
    for (const name of found.interfaces) once(line, `net=${name}`)
    parent.functions.push(found)
    open.push({ depth: line.depth, of: found })
  }
  const machine: Machine = {
    system,
    packages,
    nodes,
    iommus,
    buses: buses.map(bus => ({ ...bus, functions: bus.functions.map(closed) })),
  }
  checkMachine(machine, message => new InputError(`${file}: ${message}`))
  return machine
}

/** The machine in a file. Throws an InputError. */
export const readMachine = (file: string): Machine => parseMachine(readInputFile(file, 'machine file', MAX_BYTES), file)

// ---- writing ----

const setting = (key: string, value: string | number | undefined): string[] =>
  value === undefined || value === '' ? [] : [`${key}=${value}`]

const idsText = ([vendor, device]: Ids): string => `${hex(vendor, 4)}:${hex(device, 4)}`

const linkWords = (link: PciLink | undefined): string[] =>
  link === undefined
    ? []
    : [
        `speed=${link.speed}`,
        `width=${link.width}`,
        ...(link.maxSpeed === link.speed ? [] : [`max-speed=${link.maxSpeed}`]),
        ...(link.maxWidth === link.width ? [] : [`max-width=${link.maxWidth}`]),
      ]

const adapterWords = ({ name, isInfiniBand, rate }: MachineAdapter): string[] => [
  `rdma=${name}`,
  ...(isInfiniBand ? ['layer=infiniband'] : []),
  ...(rate === undefined ? [] : [`rate=${lanesOf(rate)}x${speedName(rate)}`]),
]

const functionLines = (found: MachineFunction, parentNode: number, depth: number): string[] => {
  const { address, pciClass, ids, subsystem, revision, driver, node, link, group, acs, rdma, interfaces, buses } = found
  const words = [
    address,
    hex(pciClass, 6),
    idsText(ids),
    ...(subsystem[0] === 0 && subsystem[1] === 0 ? [] : [`sub=${idsText(subsystem)}`]),
    ...(revision === 0 ? [] : [`rev=${hex(revision, 2)}`]),
    ...setting('driver', driver),
    ...(node === parentNode ? [] : [`node=${node}`]),
    ...linkWords(link),
    ...setting('iommu', group && `${group.id}${group.type === undefined ? '' : `/${group.type}`}`),
    ...setting('acs', acs && (acs.length === 0 ? 'off' : acs.join('+'))),
    ...setting('buses', buses?.map(number => hex(number, 2)).join('-')),
    ...(rdma === undefined ? [] : adapterWords(rdma)),
    ...setting('net', interfaces.join(',')),
  ]
  return [
    `${INDENT.repeat(depth)}${words.join(' ')}`,
    ...found.functions.flatMap(one => functionLines(one, node, depth + 1)),
  ]
}

const memoryText = (memory: number): string => (memory % 1024 === 0 ? `${memory / 1024}G` : `${memory}M`)

/** The inverse of `parseMachine`. */
export const machineText = ({ system, packages, nodes, iommus, buses }: Machine): string => {
  const systemWords = Object.entries(system).map(([key, text]) => `${key}="${text}"`)
  const lines = [
    FIRST_LINE,
    ...(systemWords.length === 0 ? [] : [`system ${systemWords.join(' ')}`]),
    ...packages.map(({ id, cores }) => `package ${id} cores=${coresText(cores)}`),
    ...nodes.map(
      ({ id, cpus, memory, distances }) =>
        `node ${id} cpus=${listText(cpus)} memory=${memoryText(memory)} distances=${distances.join(',')}`,
    ),
    ...(iommus.length === 0 ? [] : [`iommu ${iommus.join(',')}`]),
    ...buses.flatMap(bus => [
      `bus ${bus.address}${bus.node === NO_NODE ? '' : ` node=${bus.node}`}`,
      ...bus.functions.flatMap(one => functionLines(one, bus.node, 1)),
    ]),
  ]
  return `${lines.join('\n')}\n`
}
