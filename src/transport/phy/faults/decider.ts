/*
 * Decisions of fault rules, packet by packet, for one device and one direction. Every rule that matches a packet acts
 * on it. Each rule has its own random sequence, generated from its seed, the number of earlier rules with that seed,
 * the device's name and the direction. The decisions of a rule therefore do not depend on other rules' decisions.
 */

import { createRandom, hashOf } from '../../../base/random.ts'
import {
  type FaultDirection,
  type FaultRule,
  isActive,
  isInRanges,
  type LengthRange,
  type RuleScope,
  targetOf,
} from '../../../faults/rule.ts'
import { opcodeNumbers } from '../../../faults/rules.ts'
import { type FaultRuleCounts, faultKinds, noFaultRuleCounts } from '../../../spec/faults.ts'
import { ackNames, headers, ICRC_BYTES, SYNDROME_KIND_MASK, syndromeKind } from '../../../spec/wire/headers.ts'
import { headerAt, opcodeByNumber, opcodeNumber } from '../../../spec/wire/opcodes.ts'
import { bthDestQp, bthOpcode, bthPadCount } from '../../wire/bth.ts'
import { cmNameIn } from '../../wire/mad/mad.ts'
import type { FlowAddress, Port } from '../port.ts'
import { FlowPlaces, flowKeyOf, MAX_FLOWS, type Place, putBounded, senderOf } from './flows.ts'
import { countHits, DAMAGE, LOSE, WAIT } from './kinds.ts'
import type { LateRequests } from './late-requests.ts'

/** Decisions for the packets of one run, by packet. */
interface Decisions {
  /** Bits of the kinds of faults, and WAIT (kinds.ts). */
  actions: Uint16Array
  /** 32 random bits for the effects on each packet. */
  randomBits: Uint32Array
  /** Delay of each packet, microseconds. */
  delays: Float64Array
  /** Rules whose rate limits apply to each packet: bit n for the nth rule with a rate. */
  rateLimits: Uint32Array
}

export interface FaultDecider {
  /** Whether any rule with an effect applies to this device and direction. */
  readonly hasRules: boolean
  /** Whether any of these rules changes bytes. */
  readonly changesBytes: boolean
  readonly decisions: Decisions
  /** By index in the list of all rules; undefined for rules that do not apply to this device and direction. */
  readonly counts: readonly (FaultRuleCounts | undefined)[]
  /** The state of a rule, for a decider that follows; undefined: it does not apply to this device and direction. */
  stateOf(index: number): RuleState | undefined
  /**
   * Decides about the packets of a run of a flow at `at` in `view`; the last one has `lastBytes`. May replace the
   * arrays of `decisions`. True if a fault applies to any packet.
   */
  decide(view: DataView, at: number, packetBytes: number, count: number, lastBytes: number, flow: FlowAddress): boolean
  /** Decides that no fault applies to the `count` packets of a run. */
  clear(count: number): void
  /**
   * When a packet of `bytes` bytes that arrives at `time` may leave under the rate limits in `rateLimits` (bits as in
   * `Decisions`), µs. Later packets wait for this one.
   */
  departure(rateLimits: number, time: number, bytes: number): number
  /** Flows whose packets wait (HOLD); absent: none do. */
  readonly late?: LateRequests | undefined
}

/** What a rule has done so far. */
interface RuleState {
  readonly random: () => number
  readonly counts: FaultRuleCounts
  /** Matches by queue pair or flow, for rules that count them apart. */
  readonly matches: Map<number, number>
  /** When all earlier packets have been transferred at the limited rate, microseconds. */
  busyUntil: number
}

/** A rule that applies to the device and direction. */
interface ActiveRule {
  readonly rule: FaultRule
  /** Index in the list of all rules. */
  readonly index: number
  /** The bit in `Decisions.rateLimits`; 0: the rule has no rate. */
  readonly rateBit: number
  /** By opcode: 1 if selected; null: all are selected. */
  readonly opcodes: Uint8Array | null
  /** The names of the selected messages of the connection manager; null: all packets. */
  readonly messages: ReadonlySet<string> | null
  /** The selected kinds of acknowledgements (`syndromeKind`); null: all packets. */
  readonly acks: ReadonlySet<number> | null
  /** The selected destination QPNs; null: all. */
  readonly qps: ReadonlySet<number> | null
  /** The router that selected packets cross; null: all packets. */
  readonly router: string | null
  readonly dscps: readonly LengthRange[] | null
  readonly lengths: readonly LengthRange[] | null
  readonly rkeys: ReadonlySet<number> | null
  readonly imms: ReadonlySet<number> | null
  /** Whether the rule selects a place in a flow; null: all. */
  readonly isAt: ((place: Place) => boolean) | null
  /** What is counted apart; undefined: all matches are counted together. */
  readonly keyOf: ((view: DataView, packet: number) => number) | undefined
  readonly state: RuleState
  /** The first match on which the rule acts, from 1, and the last. */
  readonly first: number
  readonly last: number
  /** By kind: its probability times 2^32. The fault applies if a random number is lower. */
  readonly thresholds: readonly number[]
  /** Microseconds per byte at the limited rate; 0: unlimited. */
  readonly byteTime: number
}

/** Packets may leave this many µs earlier than a rate limit allows, because timers may be late. */
const BURST = 1000

const appliesTo = (rule: FaultRule, device: string, direction: FaultDirection): boolean =>
  (rule.device === '' || rule.device === device) && (rule.dir === 'both' || rule.dir === direction)

/** The kind of a packet that is an acknowledgement (`syndromeKind`); -1: it is none. */
const acknowledgementOf = (view: DataView, packet: number): number =>
  bthOpcode(view, packet) === opcodeNumber.RC_ACKNOWLEDGE
    ? view.getUint8(packet + headers.BTH.bytes) & SYNDROME_KIND_MASK
    : -1

/** The bytes of payload; NaN: not known, of an unknown opcode. */
const payloadOf = (view: DataView, packet: number, bytes: number): number =>
  bytes - (opcodeByNumber[bthOpcode(view, packet)]?.headerBytes ?? Number.NaN) - bthPadCount(view, packet) - ICRC_BYTES

/** The rkey that a packet names; undefined: none. */
const rkeyOf = (view: DataView, packet: number): number | undefined => {
  const opcode = bthOpcode(view, packet)
  const at = headerAt.RETH[opcode]! || headerAt.AtomicETH[opcode]!
  // after the address
  return at === 0 ? undefined : view.getUint32(packet + at + 8)
}

const immOf = (view: DataView, packet: number): number | undefined => {
  const at = headerAt.ImmDt[bthOpcode(view, packet)]!
  return at === 0 ? undefined : view.getUint32(packet + at)
}

const has = (selected: ReadonlySet<number>, value: number | undefined): boolean =>
  value !== undefined && selected.has(value)

const setOf = (values: readonly number[]): ReadonlySet<number> | null => (values.length > 0 ? new Set(values) : null)

const placeSelector = ({ message, packet }: FaultRule): ActiveRule['isAt'] => {
  const [messages, packets] = [setOf(message), setOf(packet)]
  if (messages === null && packets === null) return null
  return place =>
    (messages === null || messages.has(place.message)) &&
    (packets === null || packets.has(messages === null ? place.inFlow : place.inMessage))
}

/** By what matches are counted apart. */
const countingKeys = { '': undefined, device: undefined, qp: bthDestQp, flow: flowKeyOf } as const

/** The first and the last match on which a rule acts (`nth`, `every`, `count`). */
const actingMatches = ({ nth, every, count }: FaultRule): Pick<ActiveRule, 'first' | 'last'> => {
  const first = nth || every || 1
  const times = count || (nth > 0 ? 1 : Number.POSITIVE_INFINITY)
  return { first, last: first + (times - 1) * (every || 1) }
}

/**
 * `rules`: all rules; those for other devices or the other direction are ignored. `maxPackets`: the first size of the
 * arrays of `decisions`. `onLoss`: a rule loses, damages or delays a packet to this queue pair. `kept`: the state of
 * the rule with this index in the list, which goes on; undefined: it begins anew. `links`: of the port.
 */
export const createFaultDecider = (
  rules: readonly FaultRule[],
  device: string,
  direction: 'sent' | 'received',
  maxPackets: number,
  onLoss: (qpn: number, rule: FaultRule) => void = () => {},
  kept: (index: number) => RuleState | undefined = () => undefined,
  links?: Port['links'],
): FaultDecider => {
  /** By seed: the number of rules with it so far. */
  const rulesWithSeed = new Map<number, number>()
  let rates = 0
  const activeRules = rules.flatMap((rule, index): ActiveRule[] => {
    if (targetOf(rule) !== 'packet') return []
    const sameSeedRules = rulesWithSeed.get(rule.seed) ?? 0
    rulesWithSeed.set(rule.seed, sameSeedRules + 1)
    if (!isActive(rule) || !appliesTo(rule, device, direction)) return []
    const numbers = opcodeNumbers(rule)
    return [
      {
        rule,
        index,
        rateBit: rule.rate > 0 ? 1 << rates++ : 0,
        opcodes: rule.opcode.length > 0 ? Uint8Array.from({ length: 256 }, (_, o) => +numbers.includes(o)) : null,
        messages: rule.cm.length > 0 ? new Set(rule.cm) : null,
        acks:
          rule.ack.length > 0
            ? new Set(ackNames.flatMap(name => (rule.ack.includes(name) ? syndromeKind[name] : [])))
            : null,
        qps: setOf(rule.qp),
        router: rule.router === '' ? null : rule.router.name,
        dscps: rule.dscp.length > 0 ? rule.dscp : null,
        lengths: rule.length.length > 0 ? rule.length : null,
        rkeys: setOf(rule.rkey),
        imms: setOf(rule.imm),
        isAt: placeSelector(rule),
        keyOf: countingKeys[rule.per],
        state: kept(index) ?? {
          random: createRandom(rule.seed ^ hashOf(`${device} ${direction} ${sameSeedRules}`)),
          counts: noFaultRuleCounts(),
          matches: new Map(),
          busyUntil: Number.NEGATIVE_INFINITY,
        },
        ...actingMatches(rule),
        thresholds: faultKinds.map(kind => rule[kind] * 2 ** 32),
        byteTime: rule.rate > 0 ? 8e6 / rule.rate : 0,
      },
    ]
  })
  const states = new Map(activeRules.map(({ index, state }) => [index, state]))
  const counts: (FaultRuleCounts | undefined)[] = []
  for (const [index, state] of states) counts[index] = state.counts
  const places = activeRules.some(({ isAt }) => isAt !== null) ? new FlowPlaces() : undefined
  const limited = activeRules.filter(({ rateBit }) => rateBit !== 0)

  const makeDecisions = (packets: number): Decisions => ({
    actions: new Uint16Array(packets),
    randomBits: new Uint32Array(packets),
    delays: new Float64Array(packets),
    rateLimits: new Uint32Array(packets),
  })
  const decisions = makeDecisions(activeRules.length > 0 ? maxPackets : 0)
  const isOfScope = (scope: RuleScope, view: DataView, packet: number): boolean =>
    direction === 'received'
      ? scope.receives(device, bthDestQp(view, packet))
      : scope.sends(device, bthDestQp(view, packet), senderOf(view, packet, bthOpcode(view, packet)))

  /** Adds the decisions of a rule about packet `i`, which is at `packet` in `view`. */
  const decideFor = (active: ActiveRule, i: number, view: DataView, packet: number): void => {
    const { rule, thresholds, first, last } = active
    const { random, counts, matches } = active.state
    let match = ++counts.matched
    rule.onMatch?.()
    if (active.keyOf !== undefined) {
      const key = active.keyOf(view, packet)
      match = putBounded(matches, key, (matches.get(key) ?? 0) + 1, MAX_FLOWS)
    }
    if (match < first || match > last || (rule.every > 1 && (match - first) % rule.every !== 0)) return
    let action = 0
    for (let kind = 0; kind < thresholds.length; kind++)
      if (thresholds[kind] > 0 && random() < thresholds[kind]) action |= 1 << kind
    let bits = 0
    if (action !== 0 || rule.jitter > 0) bits = random()
    countHits(counts, action)
    if (rule.delay > 0) {
      action |= WAIT
      decisions.delays[i] += 1000 * (rule.delay + rule.jitter * (2 * (bits / 2 ** 32) - 1))
    }
    if (active.rateBit !== 0) {
      action |= WAIT
      decisions.rateLimits[i] |= active.rateBit
    }
    if ((action & (WAIT | LOSE)) === WAIT) counts.delayed++
    if ((action & (LOSE | DAMAGE | WAIT)) !== 0) onLoss(bthDestQp(view, packet), rule)
    decisions.actions[i] |= action
    decisions.randomBits[i] ^= bits
  }

  return {
    hasRules: activeRules.length > 0,
    changesBytes: activeRules.some(({ thresholds }) =>
      thresholds.some((threshold, kind) => threshold > 0 && (DAMAGE & (1 << kind)) !== 0),
    ),
    decisions,
    counts,
    stateOf: index => states.get(index),
    decide: (view, at, packetBytes, count, lastBytes, flow) => {
      if (decisions.actions.length < count) Object.assign(decisions, makeDecisions(count))
      let anyAction = 0
      for (let i = 0; i < count; i++) {
        decisions.actions[i] = 0
        decisions.randomBits[i] = 0
        decisions.delays[i] = 0
        decisions.rateLimits[i] = 0
        const packet = at + i * packetBytes
        const bytes = i === count - 1 ? lastBytes : packetBytes
        const place = places?.of(view, packet)
        let scope: RuleScope | undefined
        let isInScope = true
        for (let p = 0; p < activeRules.length; p++) {
          const active = activeRules[p]
          const own = active.rule.scope
          // The rules of a scope follow each other.
          if (own !== scope) {
            scope = own
            isInScope = own === undefined || isOfScope(own, view, packet)
          }
          if (!isInScope) continue
          if (active.router !== null && links?.crosses(flow, direction, active.router) !== true) continue
          if (active.dscps !== null && !isInRanges(active.dscps, flow.trafficClass >> 2)) continue
          if (active.opcodes !== null && active.opcodes[bthOpcode(view, packet)] === 0) continue
          if (active.qps !== null && !active.qps.has(bthDestQp(view, packet))) continue
          if (active.messages !== null && !active.messages.has(cmNameIn(view, packet, bytes) ?? '')) continue
          if (active.acks !== null && !active.acks.has(acknowledgementOf(view, packet))) continue
          if (active.lengths !== null && !isInRanges(active.lengths, payloadOf(view, packet, bytes))) continue
          if (active.rkeys !== null && !has(active.rkeys, rkeyOf(view, packet))) continue
          if (active.imms !== null && !has(active.imms, immOf(view, packet))) continue
          if (active.isAt !== null && (place === undefined || !active.isAt(place))) continue
          const wasLost = (decisions.actions[i] & LOSE) !== 0
          decideFor(active, i, view, packet)
          const isLost = (decisions.actions[i] & LOSE) !== 0
          if (active.router !== null && isLost && !wasLost) links?.lostAt(flow, direction, active.router)
        }
        anyAction |= decisions.actions[i]
      }
      return anyAction !== 0
    },
    clear: count => {
      if (decisions.actions.length < count) Object.assign(decisions, makeDecisions(count))
      decisions.actions.fill(0, 0, count)
    },
    departure: (rateLimits, time, bytes) => {
      let leaveTime = time
      for (const { rateBit, byteTime, state } of limited) {
        if ((rateLimits & rateBit) === 0) continue
        leaveTime = Math.max(leaveTime, state.busyUntil - BURST)
        state.busyUntil = Math.max(leaveTime, state.busyUntil) + bytes * byteTime
      }
      return leaveTime
    },
  }
}
