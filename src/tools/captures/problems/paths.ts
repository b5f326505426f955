/*
 * Of the flows between two hosts some lose packets, and others do not. In the headers by which switches choose one of
 * several equal paths these flows differ by UDP source port only, so it is likely that one path loses packets. It is
 * told only where chance would hardly choose the same ports: if all packets were lost alike, the losses would fall upon
 * source ports as their packets do.
 */
import { counted, hex } from '../../../base/text.ts'
import { BurstCause } from '../flows/bursts.ts'
import type { Flow } from '../flows/flow.ts'
import { frameList, isReliable, type ProblemList, times } from './list.ts'
import { lossesOf } from './slowness.ts'

/** It is told if losses that fall upon packets alike were so uneven with at most this probability. */
const MAX_CHANCE = 0.001
/** Source ports of each kind that are named. */
const MAX_NAMED = 8

/** The packets of a flow, and how often some of them were lost. */
interface LossyFlow {
  readonly flow: Flow
  readonly losses: number
  /** Of the packets that were sent again for it; 0: none. */
  readonly firstFrame: number
  readonly lastFrame: number
}

/** Flows with the same UDP source port take the same path. */
interface SourcePort {
  readonly port: number
  readonly flows: Flow[]
  packets: number
  losses: number
}

/** The losses of requests, and of the responses that go the same way. */
const lossesFor = (problems: ProblemList, flow: Flow): LossyFlow => {
  const { repeats, peer } = flow
  const parts = [
    ...(repeats === undefined ? [] : [lossesOf(problems, flow, repeats).lost]),
    ...(peer?.repeats === undefined ? [] : [peer.repeats.of[BurstCause.IMPLIED_NAK]]),
  ].filter(({ bursts }) => bursts > 0)
  return {
    flow,
    losses: parts.reduce((sum, { bursts }) => sum + bursts, 0),
    firstFrame: parts.reduce((first, part) => Math.min(first, part.firstFrame), Number.POSITIVE_INFINITY),
    lastFrame: parts.reduce((last, part) => Math.max(last, part.lastFrame), 0),
  }
}

/**
 * The logarithm of at least the probability that of `losses` so many or more fall upon a share of the packets, if they
 * fall upon all alike (Chernoff's bound of the binomial distribution).
 */
const logChance = (losses: number, hits: number, share: number): number => {
  const hit = hits / losses
  if (hit <= share) return 0
  const missed = hit < 1 ? (1 - hit) * Math.log((1 - hit) / (1 - share)) : 0
  return -losses * (hit * Math.log(hit / share) + missed)
}

/**
 * How many of `ports`, which begin with those that lose most, suffer more than chance explains; 0: chance may do. Any
 * ports might have been the ones, so the chance of some choice is at most the sum of those of all choices.
 */
const lossyPorts = (ports: readonly SourcePort[], packets: number, losses: number): number => {
  let found = 0
  let least = Math.log(MAX_CHANCE)
  let logChoices = Math.log(ports.length - 1)
  let [ownPackets, ownLosses] = [0, 0]
  for (const [i, port] of ports.slice(0, -1).entries()) {
    if (port.losses === 0) break
    ownPackets += port.packets
    ownLosses += port.losses
    logChoices += Math.log((ports.length - i) / (i + 1))
    const chance = logChoices + logChance(losses, ownLosses, ownPackets / packets)
    if (chance >= least) continue
    least = chance
    found = i + 1
  }
  return found
}

const portText = ({ port, flows }: SourcePort): string => {
  const [{ peer, qpn }] = flows
  const more = flows.length > 1 ? ` and ${flows.length - 1} more` : ''
  return `${port} (${peer === undefined ? '' : `QP ${hex(peer.qpn)} to `}QP ${hex(qpn)}${more})`
}

const listText = (ports: readonly SourcePort[], textOf: (port: SourcePort) => string): string => {
  const more = ports.length - MAX_NAMED
  return `${ports.slice(0, MAX_NAMED).map(textOf).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}

const addOfHosts = (problems: ProblemList, all: readonly LossyFlow[]): void => {
  const first = Math.min(...all.map(({ firstFrame }) => firstFrame))
  const last = Math.max(...all.map(({ lastFrame }) => lastFrame))
  // Who had ended before the losses, or began after them, might have had the same.
  const during = all.filter(({ flow }) => flow.lastFrame >= first && flow.firstFrame <= last)
  const byPort = new Map<number, SourcePort>()
  let [packets, losses] = [0, 0]
  for (const { flow, losses: own } of during) {
    const known = byPort.get(flow.sourcePort) ?? { port: flow.sourcePort, flows: [], packets: 0, losses: 0 }
    byPort.set(flow.sourcePort, known)
    known.flows.push(flow)
    known.packets += flow.packets
    known.losses += own
    packets += flow.packets
    losses += own
  }
  if (losses === 0 || byPort.size < 2) return
  const rate = ({ losses, packets }: SourcePort): number => losses / packets
  const ports = [...byPort.values()].sort((a, b) => rate(b) - rate(a) || b.packets - a.packets || a.port - b.port)
  const count = lossyPorts(ports, packets, losses)
  if (count === 0) return
  const [lossy, others] = [ports.slice(0, count), ports.slice(count)]
  const ofOthers = others.reduce((sum, one) => sum + one.losses, 0)
  const [{ flow }] = during
  const share = (100 * lossy.reduce((sum, one) => sum + one.packets, 0)) / packets
  problems.add(
    'lossy-path',
    `${problems.addressText(flow.source)} → ${problems.addressText(flow.destination)}: ${count} of ${counted(ports.length, 'UDP source port')}, with ${share.toFixed(0)} % of the packets, lost some ${times(losses - ofOthers)}: ${listText(lossy, one => `${portText(one)} ${times(one.losses)} in ${counted(one.packets, 'packet')}`)}; ${ofOthers === 0 ? 'never' : `only ${times(ofOthers)}`} ${others.length === 1 ? 'the other' : `the other ${others.length}`}: ${listText(others, portText)}`,
    frameList(first, last),
    losses,
    {},
  )
}

/** `mismatched`: flows whose repeats no path can help. */
export const addOfPaths = (problems: ProblemList, mismatched: ReadonlySet<Flow>): void => {
  const byHosts = new Map<string, LossyFlow[]>()
  for (const flow of problems.analysis.flows) {
    // Of InfiniBand and RoCE v1 the source port is 0.
    if (!isReliable(flow) || flow.sourcePort === 0 || mismatched.has(flow)) continue
    const { source, destination, dscp } = flow
    // Another class may have another queue, or another path.
    const key = `${source}/${destination}/${dscp}`
    const own = lossesFor(problems, flow)
    const list = byHosts.get(key)
    if (list === undefined) byHosts.set(key, [own])
    else list.push(own)
  }
  for (const flows of byHosts.values()) if (flows.length > 1) addOfHosts(problems, flows)
}
