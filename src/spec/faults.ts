/*
 * Injected network faults: the settings of a fault rule, as `--fault` and `userdma fault set` take them.
 * phy/faults/kinds.ts implements the kinds.
 */

/** Kinds of faults that affect a share of the packets, in the order of the decisions for each packet. */
export const FaultKinds = {
  drop: { counter: 'dropped', example: 'drop=1%', help: 'share that is lost (1% or 0.01)' },
  corrupt: {
    counter: 'corrupted',
    example: 'corrupt=1%',
    help: 'share in which one to three bits are flipped',
  },
  dup: { counter: 'duplicated', example: 'dup=1%', help: 'share that arrives twice' },
  reorder: {
    counter: 'reordered',
    example: 'reorder=1%',
    help: 'share that is overtaken by up to eight later packets (dir=sent: and the rest of the burst)',
  },
} as const

export type FaultKind = keyof typeof FaultKinds
export const faultKinds = Object.keys(FaultKinds) as readonly FaultKind[]

/** All settings of a rule, in the order of its text: selectors, then effects. */
export const FaultSettings = {
  device: { example: 'device=rxe0', help: 'one device only' },
  dir: { example: 'dir=received|sent|both', help: 'packets that the device receives (the default) or sends' },
  qp: { example: 'qp=0x12', help: 'packets to this queue pair (several: 0x12+0x13)' },
  opcode: { example: 'opcode=RC_ACKNOWLEDGE', help: 'packets with this opcode (RC_READ_RESP_*, 0x11; several with +)' },
  ...FaultKinds,
  delay: { example: 'delay=5ms', help: 'delay of every packet' },
  jitter: { example: 'jitter=1ms', help: 'random variation of the delay, plus or minus' },
  rate: { example: 'rate=10mbit', help: 'bits per second; packets beyond a queue of 1000 are lost' },
  seed: { example: 'seed=7', help: 'seed of the random sequence: the same seed and packets give the same faults' },
} as const

type Counter = (typeof FaultKinds)[FaultKind]['counter']

/** Packets that matched a rule, and packets that each kind affected. */
export type FaultRuleCounts = Record<'matched' | Counter, number>

/** Packets of a device by outcome. `overflowed`: dropped because there was no room to delay them. */
export type FaultCounters = Record<Counter | 'delayed' | 'overflowed', number>

const zeros = (): Record<Counter, number> =>
  Object.fromEntries(faultKinds.map(kind => [FaultKinds[kind].counter, 0])) as Record<Counter, number>

export const noFaultRuleCounts = (): FaultRuleCounts => ({ matched: 0, ...zeros() })
/** The sum of a rule's counts over ports or directions. */
export const sumFaultRuleCounts = (counts: readonly FaultRuleCounts[]): FaultRuleCounts => {
  const sum = noFaultRuleCounts()
  for (const ruleCounts of counts)
    for (const [name, count] of Object.entries(ruleCounts)) sum[name as keyof FaultRuleCounts] += count
  return sum
}

export const noFaultCounts = (): FaultCounters => ({ ...zeros(), delayed: 0, overflowed: 0 })

/** What happened to a packet at a port. The outcomes after 'wrong icrc' are injected faults. */
export const packetOutcomes = [
  'passed',
  'wrong icrc',
  'dropped',
  'corrupted',
  'duplicated',
  'reordered',
  'delayed',
] as const
export type PacketOutcome = (typeof packetOutcomes)[number]
