/*
 * A soft device as seen by other devices of this process, which send to it without packets
 * (transport/loopback/slices.ts): its port's flows and receivers, and the engine's row of each of its QPNs.
 */
import type { Port } from '../../../phy/port.ts'
import type { LocalPeerDevice } from '../../../transport/types.ts'
import type { Numbers } from '../state.ts'

/** Undefined for a port that can only carry packets, such as UDP. The engine sets `state` of the result. */
export const localPeerDeviceOf = (port: Port, { rowOf }: Numbers): LocalPeerDevice | undefined => {
  const { staging, peerAt } = port
  if (staging === undefined || peerAt === undefined || port.isWaiting === undefined) return undefined
  return {
    state: undefined,
    arena: port.arena,
    staging,
    counters: port.counters,
    rowOf,
    // The properties of the port are read at each call: a fault layer replaces them.
    receiverOf: flow => (port.receiverOf?.(flow) ?? null) as LocalPeerDevice | null,
    peerAt,
    isIdle: () => port.isWaiting?.() === false,
  }
}
