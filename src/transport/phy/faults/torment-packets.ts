/*
 * Kinds `packet` and `late` of torment (spec/check/torment.ts): a fault layer on the port of a device. `packet`
 * duplicates and reorders packets of RC and XRC, and reorders datagrams. Datagrams and UC messages are not lost,
 * because few programs tolerate that. So packets of UC are not reordered: the responder would drop their messages.
 * `late` is in late-requests.ts.
 */

import { wrapper } from '../../../base/wrapper.ts'
import { opcodeByNumber, opcodes } from '../../../spec/wire/opcodes.ts'
import { bthDestQp, bthOpcode, bthPsn, psnDifference } from '../../wire/bth.ts'
import type { Port } from '../port.ts'
import type { FaultDecider } from './decider.ts'
import { senderOf } from './flows.ts'
import { HOLD, OVERTAKE, REPEAT } from './kinds.ts'
import { LateRequests, type LateSite } from './late-requests.ts'
import { type FaultPort, withFaults } from './layer.ts'
import type { Decisions } from './torment-decisions.ts'

/** One of so many packets is duplicated or reordered, if the probability of the kind is 1. */
const DUPLICATED = 10
const REORDERED = 20
const DATAGRAMS_REORDERED = 4
/** Random numbers below this are compared with probabilities. */
const PRECISION = 2 ** 20
/** Maximum number of PSNs of which a flow counts transmissions. */
const MAX_PSNS = 4096

const RELIABLE = 1
const DATAGRAM = 2
/** By opcode: RELIABLE, DATAGRAM, or 0 for a packet that is unchanged. */
const serviceOf = new Uint8Array(256)
for (const { opcode, name } of opcodes)
  if (/^(?:RC|XRC|SRD|DC)_/.test(name)) serviceOf[opcode] = RELIABLE
  else if (/^UD_/.test(name)) serviceOf[opcode] = DATAGRAM

/** Packets to a queue pair that count PSNs together. */
interface Flow {
  /** `request1`, `response1`: several senders are numbered as they come first. */
  readonly name: string
  readonly firstPsn: number
  /** By PSN after the first one. */
  readonly transmissions: Map<number, number>
}

/** Reads the functions of `port` at each call: a fault layer below replaces them when its rules change. */
const delegate = (port: Port): Port =>
  wrapper<Port>({
    arena: port.arena,
    scratch: port.scratch,
    maxPackets: port.maxPackets,
    maxSinglePacketRun: port.maxSinglePacketRun,
    maxFlows: port.maxFlows,
    maxBytes: port.maxBytes,
    pathMtu: port.pathMtu,
    pathBytes: port.pathBytes,
    hasRoceV1: port.hasRoceV1,
    hasGroupSockets: port.hasGroupSockets,
    links: port.links,
    hopLimitOf: port.hopLimitOf,
    routerTo: port.routerTo,
    get windowBytes() {
      return port.windowBytes
    },
    get sharedWindowBytes() {
      return port.sharedWindowBytes
    },
    counters: port.counters,
    addAddress: port.addAddress,
    vlanOf: port.vlanOf,
    removeAddress: port.removeAddress,
    joinGroup: port.joinGroup,
    setInterface: port.setInterface,
    leaveGroup: port.leaveGroup,
    setFabric: port.setFabric,
    openFlow: port.openFlow,
    reopenFlow: port.reopenFlow,
    recordOf: port.recordOf,
    closeFlow: port.closeFlow,
    peerOf: port.peerOf,
    reserve: bytes => port.reserve(bytes),
    commit: (offset, packetBytes, count, lastBytes, flow) => port.commit(offset, packetBytes, count, lastBytes, flow),
    flush: () => port.flush(),
    receive: run => port.receive(run),
    release: () => port.release(),
    get wake() {
      return port.wake
    },
    set wake(wake) {
      port.wake = wake
    },
    get receiver() {
      return port.receiver
    },
    set receiver(receiver) {
      port.receiver = receiver
    },
    staging: port.staging,
    receiverOf: port.receiverOf && (flow => port.receiverOf?.(flow) ?? null),
    peerAt: port.peerAt,
    isWaiting: port.isWaiting && (() => port.isWaiting?.() ?? true),
    // captures are taken at `port`; what the layer sets here is ignored
    tap: null,
    requireSeal: port.requireSeal,
    takeLayerBuffer: port.takeLayerBuffer,
    releaseLayerBuffer: port.releaseLayerBuffer,
    nextTimeout: () => port.nextTimeout(),
    onTimeout: now => port.onTimeout(now),
    close: port.close,
  })

/** What a port does not know of its device. */
export interface TormentSite extends LateSite {
  /** DEVICE/PROCESS/OBJECT of a queue pair; undefined: there is no device yet. */
  objectOf(qpn: number): string | undefined
}

/** Decides by identity. */
const createDecider = (
  device: string,
  decisions: Decisions,
  maxPackets: number,
  site: TormentSite,
): FaultDecider & { readonly late: LateRequests | undefined } => {
  const late = decisions.mayAct('late') ? new LateRequests(decisions, site) : undefined
  const flows = new Map<string, Flow>()
  const senders = new Map<string, number>()
  const arraysFor = (packets: number) => ({
    actions: new Uint16Array(packets),
    randomBits: new Uint32Array(packets),
    delays: new Float64Array(packets),
    rateLimits: new Uint32Array(packets),
  })
  const decided = arraysFor(maxPackets)
  const flowOf = (object: string, opcode: number, sender: number, psn: number): Flow => {
    const direction = opcodeByNumber[opcode]?.role === 'response' ? 'response' : 'request'
    const group = `${object}/${direction}`
    const key = `${group} ${sender}`
    let flow = flows.get(key)
    if (flow === undefined) {
      const number = (senders.get(group) ?? 0) + 1
      senders.set(group, number)
      flow = { name: `${direction}${number}`, firstPsn: psn, transmissions: new Map() }
      flows.set(key, flow)
    }
    return flow
  }

  /** The action about a packet; sets its random bits. */
  const decidePacket = (i: number, view: DataView, packet: number): number => {
    const opcode = bthOpcode(view, packet)
    const service = serviceOf[opcode]
    const mayReorder = service !== 0 && decisions.mayAct('packet')
    if (!mayReorder && late === undefined) return 0
    const qpn = bthDestQp(view, packet)
    const object = site.objectOf(qpn) ?? `${device}/-/qp`
    const psn = bthPsn(view, packet)
    const sender = senderOf(view, packet, opcode)
    const { name, firstPsn, transmissions } = flowOf(object, opcode, sender, psn)
    const relative = psnDifference(psn, firstPsn)
    if (late?.holds({ view, at: packet, qpn, sender, object, flow: name, psn: relative })) return HOLD
    if (!mayReorder) return 0
    const transmission = (transmissions.get(relative) ?? 0) + 1
    transmissions.set(relative, transmission)
    if (transmissions.size > MAX_PSNS) transmissions.delete(transmissions.keys().next().value as number)
    const decision = decisions.decide('packet', object, `${name}.psn${relative}.sent`, transmission, { isAlways: true })
    if (decision === undefined) return 0
    const probability = decisions.probability('packet')
    const hits = (one: number): boolean => decision.below(PRECISION) < (probability * PRECISION) / one
    const action =
      (service === RELIABLE && hits(DUPLICATED) ? REPEAT : 0) |
      (hits(service === RELIABLE ? REORDERED : DATAGRAMS_REORDERED) ? OVERTAKE : 0)
    if (action === 0) return 0
    decided.randomBits[i] = decision.below(2 ** 32)
    const done = [...(action & REPEAT ? ['duplicated'] : []), ...(action & OVERTAKE ? ['reordered'] : [])].join(' and ')
    decision.note(() => `${done}: ${opcodeByNumber[opcode]?.name} to QP 0x${qpn.toString(16)}`)
    return action
  }

  return {
    hasRules: true,
    late,
    changesBytes: false,
    decisions: decided,
    counts: [],
    stateOf: () => undefined,
    decide(view, at, packetBytes, count) {
      if (decided.actions.length < count) Object.assign(decided, arraysFor(count))
      let any = 0
      for (let i = 0; i < count; i++) {
        decided.actions[i] = decidePacket(i, view, at + i * packetBytes)
        any |= decided.actions[i]
      }
      return any !== 0
    },
    clear: count => void decided.actions.fill(0, 0, count),
    departure: (_, time) => time,
  }
}

/** A port with the fault layer, and the requests that wait there; undefined: the seed does not use the kind `late`. */
export interface TormentedPort {
  readonly port: FaultPort
  readonly late: LateRequests | undefined
}

/** Undefined: the seed uses none of these kinds. */
export const withPacketTorment = (
  port: Port,
  device: string,
  decisions: Decisions,
  site: TormentSite,
): TormentedPort | undefined => {
  if (!decisions.mayAct('packet') && !decisions.mayAct('late')) return undefined
  const decider = createDecider(device, decisions, port.maxPackets, site)
  return { port: withFaults(delegate(port), device, [], undefined, decider), late: decider.late }
}
