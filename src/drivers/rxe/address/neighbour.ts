/*
 * A soft device as others of this process see it whose messages need no packets (transport/loopback/slices.ts): what
 * its port knows of flows and receivers, joined with its queue pairs' numbers.
 */
import type { Port } from '../../../phy/port.ts'
import type { LocalPeerDevice } from '../../../transport/types.ts'
import type { Numbers } from '../state.ts'

/** Undefined for a port that carries packets only. The engine that gets it puts its state in. */
export const localPeerDeviceOf = (port: Port, { rowOf }: Numbers): LocalPeerDevice | undefined => {
  const { staging, peerAt, isWaiting } = port
  if (staging === undefined || peerAt === undefined || isWaiting === undefined) return undefined
  return {
    state: undefined,
    arena: port.arena,
    staging,
    counters: port.counters,
    rowOf,
    // the port's own function, which a layer around it exchanges
    at: flow => (port.receiverOf?.(flow) ?? null) as LocalPeerDevice | null,
    peerAt,
    isIdle: () => !isWaiting(),
  }
}
