/*
 * Faults of one seed of `network.explore`: single packets that are lost, delayed, overtaken or arrive twice, and peers
 * that die. Each fault is a rule with a packet number (`nth`), so that a fault can be left out without a change of the
 * others, and a list is a text for `createNetwork({ fault })`.
 */
import { createRandom, hashOf } from '../../../base/random.ts'
import { type FaultRule, noFaults } from '../../../faults/rule.ts'

/** Packets that each device has received in the run without faults, by its name. */
export type ReceivedPackets = ReadonlyMap<string, number>

/** Part of a range beyond the packets of the run without faults: faults cause more packets. */
const MORE = 1.25
const MAX_LOST = 3
/** Milliseconds. */
const SHORTEST_DELAY = 0.01
const LONGEST_DELAY = 100
/** More packets than a run has. */
const FOR_EVER = 1e9

/** A random number of at least 0 and below 1. */
type Fraction = () => number

const makers = {
  loss: random => ({ drop: 1, count: 1 + Math.floor(random() * MAX_LOST) }),
  /** Short delays are as frequent as long ones. */
  delay: random => ({ delay: Number((SHORTEST_DELAY * (LONGEST_DELAY / SHORTEST_DELAY) ** random()).toPrecision(3)) }),
  reorder: () => ({ reorder: 1 }),
  duplicate: () => ({ dup: 1 }),
  /** From then on the device neither sends nor receives. */
  death: () => ({ dir: 'both', drop: 1, count: FOR_EVER }),
} as const satisfies Readonly<Record<string, (random: Fraction) => Partial<FaultRule>>>

type PacketFault = keyof typeof makers

/** What a seed of `network.explore` decides: kinds of faults, and torment. */
export type ExploredFault = PacketFault | 'torment'
export const exploredFaults: readonly ExploredFault[] = [...(Object.keys(makers) as PacketFault[]), 'torment']

/** The faults of a seed: 1 to `max`, of these kinds. At most one device dies. */
export const faultsOf = (
  seed: number,
  wanted: readonly ExploredFault[],
  max: number,
  packets: ReceivedPackets,
): FaultRule[] => {
  const next = createRandom(seed ^ hashOf('explore'))
  const random: Fraction = () => next() / 2 ** 32
  const oneOf = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!
  const devices = [...packets].filter(([, count]) => count > 0)
  const kinds = wanted.filter(kind => kind !== 'torment')
  if (devices.length === 0 || kinds.length === 0) return []
  let hasDeath = false
  return Array.from({ length: 1 + Math.floor(random() * max) }, () => {
    const [device, count] = oneOf(devices)
    const living = kinds.filter(kind => kind !== 'death')
    const kind = oneOf(hasDeath && living.length > 0 ? living : kinds)
    hasDeath ||= kind === 'death'
    const effect: Partial<FaultRule> = makers[kind](random)
    const nth = 1 + Math.floor(random() * count * MORE)
    return { ...noFaults, device, nth, ...effect, seed: next() }
  })
}
