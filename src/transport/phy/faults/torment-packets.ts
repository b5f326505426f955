/*
 * Kind `packet` of torment (spec/check/torment.ts): a fault layer on the port of a device. It duplicates
 * and reorders packets of RC and XRC, and reorders datagrams. Datagrams and UC messages are not lost, because few
 * programs tolerate that. So packets of UC are not reordered: the responder would drop their messages.
 */

import { parseFaults } from '../../../spec/faults/rules.ts'
import { opcodeByNumber } from '../../../spec/wire/opcodes.ts'
import { wrapper } from '../../../spec/wrapper.ts'
import { bthDestQp, bthOpcode } from '../../wire/bth.ts'
import type { Port } from '../port.ts'
import { type FaultPort, withFaults } from './layer.ts'
import type { Decisions } from './torment-decisions.ts'

/** Probabilities that a packet is duplicated or reordered, if that of the kind is 1. */
const DUPLICATED = 0.1
const REORDERED = 0.05
const DATAGRAMS_REORDERED = 0.25

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
    hasSourcePorts: port.hasSourcePorts,
    hasGroupSockets: port.hasGroupSockets,
    get windowBytes() {
      return port.windowBytes
    },
    get sharedWindowBytes() {
      return port.sharedWindowBytes
    },
    counters: port.counters,
    addAddress: port.addAddress,
    removeAddress: port.removeAddress,
    joinGroup: port.joinGroup,
    setInterface: port.setInterface,
    leaveGroup: port.leaveGroup,
    openFlow: port.openFlow,
    reopenFlow: port.reopenFlow,
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

/** The port with the fault layer; undefined if the seed does not use the kind. */
export const withPacketTorment = (port: Port, device: string, decisions: Decisions): FaultPort | undefined => {
  const probability = decisions.probability('packet')
  if (probability === 0 || decisions.isOver) return undefined
  const rules = parseFaults(
    `opcode=RC_*+XRC_*+SRD_*+DC_*,dup=${DUPLICATED * probability},reorder=${REORDERED * probability},seed=${decisions.seed};` +
      `opcode=UD_*,reorder=${DATAGRAMS_REORDERED * probability},seed=${decisions.seed}`,
  )
  const layer = withFaults(delegate(port), device, rules)
  layer.tap = ({ outcome, arena: { view }, offset }) => {
    if (outcome === 'passed') return
    const name = opcodeByNumber[bthOpcode(view, offset)]?.name
    decisions.note('packet', device, () => `${outcome}: ${name} to QP 0x${bthDestQp(view, offset).toString(16)}`)
  }
  return layer
}
