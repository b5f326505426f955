/*
 * A soft device as other devices of this process see it: they send to it without packets
 * (transport/engine/loopback/slices.ts).
 */

import type { LocalPeerDevice } from '../../../transport/engine/types.ts'
import type { Port } from '../../../transport/phy/port.ts'
import type { Numbers } from '../state.ts'

/** Undefined for a port that only carries packets, such as UDP. The engine sets `state`. */
export const localPeerDeviceOf = (port: Port, { rowOf }: Numbers): LocalPeerDevice | undefined => {
  const { staging, peerAt } = port
  if (staging === undefined || peerAt === undefined || port.isWaiting === undefined) return undefined
  return {
    state: undefined,
    arena: port.arena,
    staging,
    counters: port.counters,
    rowOf,
    // `receiverOf` and `isWaiting` are read at each call: a fault layer replaces them
    receiverOf(flow) {
      const receiver = port.receiverOf?.(flow) ?? null
      // devices of other drivers need packets
      return receiver !== null && 'rowOf' in receiver ? (receiver as LocalPeerDevice) : null
    },
    peerAt,
    isIdle: () => port.isWaiting?.() === false,
  }
}
