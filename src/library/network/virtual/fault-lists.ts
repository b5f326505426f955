/*
 * Faults of one seed of `network.explore`: single packets that are lost, delayed, overtaken or arrive twice, peers that
 * die, and routers and links that do. Each fault is a rule with a packet number (`nth`), so that a fault can be left
 * out without a change of the others, and a list is a text for `createNetwork({ fault })`.
 */
import { createRandom, hashOf } from '../../../base/random.ts'
import { type FaultRule, noFaults } from '../../../faults/rule.ts'
import { type LinkTopology, namesOf } from '../../../transport/phy/links/graph.ts'

/** Packets that each device has received in the run without faults, by its name. */
export type ReceivedPackets = ReadonlyMap<string, number>

/** Part of a range beyond the packets of the run without faults: faults cause more packets. */
const MORE = 1.25
const MAX_LOST = 3
/** Milliseconds. */
const SHORTEST_DELAY = 0.01
const LONGEST_DELAY = 100
const SHORTEST_OUTAGE = 1
const LONGEST_OUTAGE = 1000
/** More packets than a run has. */
const FOR_EVER = 1e9

/** Packets in a row that a router loses. */
const MAX_SWALLOWED = 20

/** A random number of at least 0 and below 1. */
type Fraction = () => number

const oneOf = <T>(list: readonly T[], random: Fraction): T => list[Math.floor(random() * list.length)]!
/** Milliseconds; short times are as frequent as long ones. */
const timeOf = (random: Fraction, shortest: number, longest: number): number =>
  Number((shortest * (longest / shortest) ** random()).toPrecision(3))

const makers = {
  loss: random => ({ drop: 1, count: 1 + Math.floor(random() * MAX_LOST) }),
  delay: random => ({ delay: timeOf(random, SHORTEST_DELAY, LONGEST_DELAY) }),
  reorder: () => ({ reorder: 1 }),
  duplicate: () => ({ dup: 1 }),
  /** From then on the device neither sends nor receives. */
  death: () => ({ dir: 'both', drop: 1, count: FOR_EVER }),
} as const satisfies Readonly<Record<string, (random: Fraction) => Partial<FaultRule>>>

type PacketFault = keyof typeof makers

/** What may fail of links: routers, and the links between two switches or routers. */
interface FailingPlaces {
  readonly routers: readonly string[]
  readonly cables: readonly (readonly [string, string])[]
}

export const failingPlaces = (topology: LinkTopology | undefined): FailingPlaces => {
  if (topology === undefined) return { routers: [], cables: [] }
  const { hosts, switches, links } = topology
  const names = namesOf(topology)
  return {
    routers: names.slice(hosts + switches),
    cables: links
      .filter(({ ends }) => ends.every(end => end >= hosts))
      .map(({ ends: [a, b] }) => [names[a]!, names[b]!] as const),
  }
}

/** Faults of links. `events`: about so many completions or packets of a device there are. */
const placeMakers = {
  /** From a completion on. Their number is not known: early ones are as frequent as late ones. */
  outage: (random, { routers, cables }, events) => {
    const lasts = timeOf(random, SHORTEST_OUTAGE, LONGEST_OUTAGE)
    const at = { completion: ['*'], nth: Math.ceil(events ** random()) }
    const chosen = Math.floor(random() * (routers.length + cables.length))
    return chosen < routers.length
      ? { ...at, router: { name: routers[chosen]!, lasts } }
      : { ...at, cable: { between: cables[chosen - routers.length]!, lasts } }
  },
  blackhole: (random, { routers }, events) => ({
    router: { name: oneOf(routers, random), lasts: undefined },
    nth: Math.ceil(events ** random()),
    count: 1 + Math.floor(random() * MAX_SWALLOWED),
    drop: 1,
  }),
} as const satisfies Readonly<
  Record<string, (random: Fraction, places: FailingPlaces, events: number) => Partial<FaultRule>>
>

type PlaceFault = keyof typeof placeMakers

/** What a seed of `network.explore` decides: kinds of faults, and torment. */
export type ExploredFault = PacketFault | PlaceFault | 'torment'
export const exploredFaults: readonly ExploredFault[] = [
  ...(Object.keys(makers) as PacketFault[]),
  ...(Object.keys(placeMakers) as PlaceFault[]),
  'torment',
]
const isPlaceFault = (kind: ExploredFault): kind is PlaceFault => kind in placeMakers

/** What a kind needs that links do not have; undefined: nothing. */
export const lackingOf = (kind: ExploredFault, { routers, cables }: FailingPlaces): string | undefined => {
  if (kind === 'blackhole' && routers.length === 0) return 'routers in its links'
  const hasNone = routers.length + cables.length === 0
  return kind === 'outage' && hasNone ? 'routers, or links between switches, in its links' : undefined
}

/** The faults of a seed: 1 to `max`, of these kinds. At most one device dies. */
export const faultsOf = (
  seed: number,
  wanted: readonly ExploredFault[],
  max: number,
  packets: ReceivedPackets,
  places: FailingPlaces,
): FaultRule[] => {
  const next = createRandom(seed ^ hashOf('explore'))
  const random: Fraction = () => next() / 2 ** 32
  const devices = [...packets].filter(([, count]) => count > 0)
  const kinds = wanted.filter(kind => kind !== 'torment')
  if (devices.length === 0 || kinds.length === 0) return []
  let hasDeath = false
  return Array.from({ length: 1 + Math.floor(random() * max) }, () => {
    const [device, count] = oneOf(devices, random)
    const living = kinds.filter(kind => kind !== 'death')
    const kind = oneOf(hasDeath && living.length > 0 ? living : kinds, random)
    hasDeath ||= kind === 'death'
    if (isPlaceFault(kind)) return { ...noFaults, ...placeMakers[kind](random, places, count), seed: next() }
    const effect: Partial<FaultRule> = makers[kind](random)
    const nth = 1 + Math.floor(random() * count * MORE)
    return { ...noFaults, device, nth, ...effect, seed: next() }
  })
}
