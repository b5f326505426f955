/*
 * The switches of InfiniBand ports, and whether they have a subnet manager, as text (`--fabric`): a shape and settings,
 * separated by commas.
 *
 *   manager=none                        nobody configures the subnet: OpenSM may come
 *   manager=@mlx5_0                     the manager is at the port of this device
 *   fat-tree,leaves=4,spines=2          each leaf has a link to each spine
 *   ring,switches=4                     each switch has a link to the next, and the last to the first
 *   links=a:b+b:c,at=mlx5_0:a           these switches, and the switch of a device
 *   links=a:b/delay=5us/loss=1%+b:c     what a link between switches does to packets: rate, delay, loss
 *   …,rate=10gbit,delay=5us             what those do that say nothing else
 *   serve=PATH                          other daemons' ports are cabled to them too, by this socket
 *   socket=PATH                         the switches of the daemon that serves this socket, and nothing else
 *
 * Without switches there are as many as the ports need, in a row. A device without a switch of its own gets the next
 * leaf.
 */
import { linkQuantities } from '../base/quantities.ts'
import { didYouMean } from '../base/suggest.ts'

const fabricManagers = ['embedded', 'none'] as const
/** `{ at }`: at the port of this device. */
type FabricManager = (typeof fabricManagers)[number] | { readonly at: string }

export interface FabricShape {
  /** Empty: as many as the ports need. */
  readonly switches: readonly string[]
  /** Pairs of switches. */
  readonly links: readonly (readonly [string, string])[]
  /** The switches to which devices are cabled. */
  readonly leaves: readonly string[]
}

/** What a link between switches does to packets, in each direction. Absent: nothing. */
export interface LinkConditions {
  /** Bits per second. */
  readonly rate?: number
  /** Milliseconds, one way, at most MAX_FABRIC_DELAY. */
  readonly delay?: number
  /** Probability that a packet is lost. */
  readonly loss?: number
}

/** Milliseconds. A subnet manager gives up after 0.8 s, and asks over several links, there and back. */
export const MAX_FABRIC_DELAY = 100

export interface FabricLink {
  readonly between: readonly [string, string]
  readonly conditions: LinkConditions
}

export interface FabricSpec extends Omit<FabricShape, 'links'> {
  readonly links: readonly FabricLink[]
  readonly manager: FabricManager
  /** The switch of a device, by the device's name. */
  readonly places: ReadonlyMap<string, string>
  /** The socket at which ports of other daemons are served; absent: at none. */
  readonly serve?: string | undefined
  /** The socket of the daemon that has the switches; absent: this one has them. */
  readonly socket?: string | undefined
}

/** In a fabric, and of a list. */
const MAX_SWITCHES = 64
const MAX_LINKS = 2048
/** A ring of two would be two links between the same switches. */
const MIN_RING = 3
/** Of a fat tree; each spine has a port for each leaf. */
const MAX_LEVEL = 32

const fatTree = (leafCount: number, spineCount: number): FabricShape => {
  const numbered = (name: string, count: number): string[] => Array.from({ length: count }, (_, i) => `${name}${i + 1}`)
  const [leaves, spines] = [numbered('leaf', leafCount), numbered('spine', spineCount)]
  return {
    switches: [...leaves, ...spines],
    links: leaves.flatMap(leaf => spines.map(spine => [leaf, spine] as const)),
    leaves,
  }
}

const ringOf = (count: number): FabricShape => {
  const switches = Array.from({ length: count }, (_, i) => `switch${i + 1}`)
  return { switches, links: switches.map((name, i) => [name, switches[(i + 1) % count]!] as const), leaves: switches }
}

export const DEFAULT_FABRIC: FabricSpec = {
  ...{ manager: 'embedded', switches: [], links: [], leaves: [] },
  places: new Map(),
}

/** The settings of each shape, with the range of their numbers. */
export const fabricShapes = {
  'fat-tree': { leaves: [1, MAX_LEVEL], spines: [1, MAX_LEVEL] },
  ring: { switches: [MIN_RING, MAX_SWITCHES] },
} as const
export type ShapeName = keyof typeof fabricShapes

/** The shape with these numbers, in the order of its settings. */
export const shapeOf = (name: ShapeName, numbers: readonly number[]): FabricShape =>
  name === 'ring' ? ringOf(numbers[0]!) : fatTree(numbers[0]!, numbers[1]!)

const isShape = (name: string): name is ShapeName => Object.hasOwn(fabricShapes, name)

const CONDITIONS = ['rate', 'delay', 'loss'] as const
const SETTINGS = ['manager', 'links', 'at', 'leaves', 'spines', 'switches', 'serve', ...CONDITIONS] as const
/** How a fabric begins whose switches another daemon has. */
export const OTHER_SWITCHES = 'socket='

/** `a:b+c:d` */
const readPairs = (setting: string, text: string): (readonly [string, string])[] =>
  text.split('+').map(pair => {
    const names = pair.split(':')
    if (names.length !== 2 || names.includes('') || names[0] === names[1])
      throw new Error(`${setting}="${text}": give pairs of two names, such as ${setting === 'at' ? 'mlx5_0:a' : 'a:b'}`)
    return [names[0]!, names[1]!]
  })

/** Reads one of CONDITIONS. Throws an Error. */
const readCondition = (name: (typeof CONDITIONS)[number], text: string): LinkConditions => {
  const { read, allowed } = linkQuantities[name]
  const value = read(text)
  if (value === undefined) throw new Error(`${name}="${text}" is not ${allowed}`)
  if (name === 'delay' && value > MAX_FABRIC_DELAY)
    throw new Error(
      `delay="${text}": a link between InfiniBand switches has at most ${MAX_FABRIC_DELAY}ms: beyond it no subnet manager gets answers in time`,
    )
  // A delay or a loss of 0 is none.
  return value === 0 ? {} : { [name]: value }
}

/** `rate=10gbit/delay=5us/loss=1%`: some of them, in any order. */
export const conditionsText = (conditions: LinkConditions): string =>
  CONDITIONS.flatMap(name =>
    conditions[name] === undefined ? [] : `${name}=${linkQuantities[name].write(conditions[name])}`,
  ).join('/')

/** Reads `conditionsText`; `common`: what a link has that the text does not name. Throws an Error. */
export const parseConditions = (text: string, common: LinkConditions = {}): LinkConditions => {
  const found = new Map<string, LinkConditions>()
  for (const word of text.split('/')) {
    const at = word.indexOf('=')
    const name = CONDITIONS.find(each => each === word.slice(0, Math.max(0, at)))
    if (name === undefined)
      throw new Error(
        `"${word}" is no setting of a link${didYouMean(word, CONDITIONS) || `; there are ${CONDITIONS.join(', ')}`}, and settings have a "="`,
      )
    if (found.has(name)) throw new Error(`${name} is given twice`)
    found.set(name, readCondition(name, word.slice(at + 1)))
  }
  return Object.assign(
    {},
    ...CONDITIONS.map(name => found.get(name) ?? (common[name] === undefined ? {} : { [name]: common[name] })),
  )
}

/** `a:b/delay=5us+c:d`; `common`: of links that do not say it. */
const readLinks = (text: string, common: LinkConditions): FabricLink[] =>
  text.split('+').map(link => {
    const at = link.indexOf('/')
    const [between] = readPairs('links', at < 0 ? link : link.slice(0, at))
    try {
      return { between: between!, conditions: at < 0 ? common : parseConditions(link.slice(at + 1), common) }
    } catch (error) {
      throw new Error(`links="${link}": ${(error as Error).message}`)
    }
  })

const requirePath = (setting: string, path: string): string => {
  if (!path.startsWith('/')) throw new Error(`${setting}="${path}": give an absolute path`)
  return path
}

/** Reads `text`. Throws an Error that says what is wrong, and what is allowed. */
export const parseFabric = (text: string): FabricSpec => {
  // A path may have any character.
  if (text.startsWith(OTHER_SWITCHES))
    return { ...DEFAULT_FABRIC, socket: requirePath('socket', text.slice(OTHER_SWITCHES.length)) }
  const words = text.split(',')
  const shape = words[0]!.includes('=') ? undefined : words.shift()!
  if (shape !== undefined && !isShape(shape)) {
    const names = Object.keys(fabricShapes)
    throw new Error(
      `"${shape}" is no shape of a fabric${didYouMean(shape, names) || `; there are ${names.join(', ')}`}, and settings have a "="`,
    )
  }
  const given = new Map<string, string>()
  for (const word of words) {
    const at = word.indexOf('=')
    const name = at < 0 ? word : word.slice(0, at)
    if (at < 0 || !(SETTINGS as readonly string[]).includes(name))
      throw new Error(
        `"${word}" is no setting of a fabric${didYouMean(name, SETTINGS) || `; there are ${SETTINGS.join(', ')}`}`,
      )
    if (given.has(name)) throw new Error(`${name} is given twice`)
    given.set(name, word.slice(at + 1))
  }
  const managerText = given.get('manager') ?? 'embedded'
  const manager = /^@./.test(managerText)
    ? { at: managerText.slice(1) }
    : fabricManagers.find(name => name === managerText)
  if (manager === undefined)
    throw new Error(`manager="${managerText}" is not one of ${fabricManagers.join(', ')}, @DEVICE`)
  const own: Readonly<Record<string, readonly [number, number]>> = shape === undefined ? {} : fabricShapes[shape]
  for (const name of ['leaves', 'spines', 'switches'])
    if (given.has(name) && own[name] === undefined)
      throw new Error(`${name} is no setting of ${shape === undefined ? 'a fabric without a shape' : `a ${shape}`}`)
  const numbers = Object.entries(own).map(([name, [min, max]]) => {
    const value = given.get(name) ?? ''
    if (!/^\d{1,4}$/.test(value) || Number(value) < min || Number(value) > max)
      throw new Error(
        given.has(name)
          ? `${name}="${value}": give an integer from ${min} to ${max}`
          : `a ${shape} needs ${name}=, an integer from ${min} to ${max}`,
      )
    return Number(value)
  })
  const common: LinkConditions = Object.assign(
    {},
    ...CONDITIONS.map(name => (given.has(name) ? readCondition(name, given.get(name)!) : {})),
  )
  const [linksText, atText] = [given.get('links'), given.get('at')]
  const links = linksText === undefined ? [] : readLinks(linksText, common)
  const at = atText === undefined ? [] : readPairs('at', atText)
  if (shape !== undefined && links.length > 0) throw new Error(`links are those of the ${shape}; omit links=`)
  const ofShape = shape && shapeOf(shape, numbers)
  const serve = given.get('serve')
  const switches = ofShape?.switches ?? [
    ...new Set([...links.flatMap(({ between }) => between), ...at.map(([, name]) => name)]),
  ]
  if (switches.length > MAX_SWITCHES) throw new Error(`there are more than ${MAX_SWITCHES} switches`)
  if (links.length > MAX_LINKS) throw new Error(`there are more than ${MAX_LINKS} links`)
  for (const name of CONDITIONS)
    if (given.has(name) && shape === undefined && links.length === 0)
      throw new Error(`${name} is of links between switches, and there are none; give a shape or links=`)
  for (const [device, name] of at)
    if (!switches.includes(name)) throw new Error(`at="${device}:${name}": there is no switch "${name}"`)
  return {
    manager,
    switches,
    links: ofShape?.links.map(between => ({ between, conditions: common })) ?? links,
    leaves: ofShape?.leaves ?? switches,
    places: new Map(at),
    ...(serve !== undefined && { serve: requirePath('serve', serve) }),
  }
}

/** The switch of each device, in the order in which they are made; '': the only one, or one of a row. */
export const switchesOf = ({ leaves, places }: FabricSpec, devices: readonly string[]): ReadonlyMap<string, string> => {
  let next = 0
  return new Map(
    devices.map(device => [device, places.get(device) ?? (leaves.length === 0 ? '' : leaves[next++ % leaves.length]!)]),
  )
}

/** Whether the switches of a link have another way to each other. */
export const hasOtherWay = ({ links }: Pick<FabricSpec, 'links'>, link: FabricLink): boolean => {
  const [from, to] = link.between
  const reached = new Set([from])
  for (const at of reached)
    for (const other of links)
      if (other !== link && other.between.includes(at)) for (const name of other.between) reached.add(name)
  return reached.has(to)
}

// ---- the port of a device ----

/** The size of a port's table of partition keys, that of mlx5. */
export const MAX_PKEYS = 128

/** An 8-byte GUID as 16 digits. `setting`: for the message. Throws an Error. */
export const readGuid = (text: string, setting = 'guid'): string => {
  const digits = text.toLowerCase().replace(/^0x/, '').replaceAll(':', '')
  if (!/^[\da-f]{16}$/.test(digits) || /^0+$/.test(digits))
    throw new Error(`${setting}="${text}": a GUID has 16 hexadecimal digits, not all 0, for example 0x0002c90300a1b2c3`)
  return digits
}

/** The bytes of a GUID's digits. */
export const guidBytes = (digits: string): Uint8Array =>
  Uint8Array.from(digits.match(/../g) ?? [], pair => Number.parseInt(pair, 16))

/** Whether a partition can have this key: a full member, or a limited one without the upper bit. */
export const isPartitionKey = (key: number): boolean =>
  Number.isInteger(key) && key > 0 && key <= 0xffff && (key & 0x7fff) !== 0
