/*
 * Destinations of the datagrams of one queue pair: the port's flow (`Send.FLOW` in transport/types.ts) for each WQE. A
 * WQE names its destination by the number of an address handle; some user libraries do not know these numbers and write
 * an address vector instead.
 *
 * The flow for an address vector is opened with its first request and cached; of the few cached flows of a queue pair
 * the least recently used one is closed for a new one. Without a path the flow is -1, and the request completes with
 * LOC_QP_OP_ERR, as with Linux's rxe.
 *
 * A fetched request may wait for the congestion window or the port, and its address handle may be destroyed or modified
 * before it is sent. So the queue pair keeps the flow of its last fetched request open: the engine fetches the next
 * request only when the packets of the last one are committed or in the run that is being built. Runs are committed
 * before the device's `poll` ends, and `poll` closes the flows in `releasedFlows` only after that.
 */
import type { GidTable } from '../../../core/devices/gids.ts'
import type { Port } from '../../../phy/port.ts'
import { AddressVector } from '../../../spec/drivers/rxe-rings.ts'
import { CallError } from '../../../spec/errno.ts'
import { type Address, flowAddress, noAddress, openPath, sourceOf } from './path.ts'

/** The destination of an address handle. */
export interface AddressHandle {
  /** The number in work requests, from 1 on. */
  readonly number: number
  /** Id of its protection domain. */
  readonly pd: number
  /** The port's number of the flow. */
  flow: number
  address: Address
}

export interface Destinations {
  /** The flow for address handle `number`; -1 if there is none, or if it is of another protection domain. */
  byHandle(number: number): number
  /** The flow for the address vector at offset `at` of `bytes`; -1 if there is no path. */
  byVector(bytes: Uint8Array, at: number): number
  /**
   * A request with this flow is fetched: the flow stays open until a request with another flow is fetched, or
   * `release`. -1: the request has no flow.
   */
  hold(flow: number): void
  /** The queue pair was reset: it has no fetched request any more. */
  release(): void
  /** The queue pair is destroyed: closes all flows that it keeps open. */
  close(): void
}

/** Maximum number of flows for address vectors that one queue pair caches. */
const MAX_CACHED_FLOWS = 64

/** The fields of a `Destinations`. Most queue pairs send to no address vector, so `cached` is created late (R15). */
interface Fields {
  readonly ahs: ReadonlyMap<number, AddressHandle>
  readonly port: Port
  readonly gids: GidTable
  readonly pd: number
  /** `RxeState.releasedFlows`. */
  readonly releasedFlows: number[]
  /** The flow of the last fetched request; -1: none. */
  heldFlow: number
  /** Flows by address vector (its bytes as text), least recently used first; undefined before the first. */
  cached: Map<string, number> | undefined
}

const openVector = ({ port, gids }: Fields, vector: Uint8Array): number => {
  const view = new DataView(vector.buffer)
  const address = {
    ...noAddress,
    port: vector[AddressVector.PORT],
    dgid: vector.slice(AddressVector.DGID, AddressVector.DGID + 16),
    flowLabel: view.getUint32(AddressVector.FLOW_LABEL, true),
    sgidIndex: vector[AddressVector.SGID_INDEX],
    trafficClass: vector[AddressVector.TRAFFIC_CLASS],
  }
  try {
    return openPath(port, flowAddress(sourceOf(gids, address, 'work request'), address), 'work request')
  } catch (error) {
    if (error instanceof CallError) return -1
    throw error
  }
}

const methods: Destinations & ThisType<Fields & Destinations> = {
  byHandle(number) {
    const ah = this.ahs.get(number)
    return ah === undefined || ah.pd !== this.pd ? -1 : ah.flow
  },
  byVector(bytes, at) {
    const vector = bytes.slice(at, at + AddressVector.BYTES)
    const key = String.fromCharCode(...vector)
    this.cached ??= new Map()
    const { cached } = this
    let flow = cached.get(key)
    if (flow === undefined) {
      flow = openVector(this, vector)
      if (flow < 0) return -1
      if (cached.size >= MAX_CACHED_FLOWS) {
        const [oldest] = cached
        cached.delete(oldest[0])
        this.releasedFlows.push(oldest[1])
      }
    } else cached.delete(key)
    cached.set(key, flow)
    return flow
  },
  hold(flow) {
    if (flow === this.heldFlow || flow < 0) return
    this.port.reopenFlow(flow)
    if (this.heldFlow >= 0) this.releasedFlows.push(this.heldFlow)
    this.heldFlow = flow
  },
  release() {
    if (this.heldFlow >= 0) this.port.closeFlow(this.heldFlow)
    this.heldFlow = -1
  },
  close() {
    this.release()
    for (const flow of this.cached?.values() ?? []) this.port.closeFlow(flow)
    this.cached = undefined
  },
}

export const createDestinations = (
  ahs: ReadonlyMap<number, AddressHandle>,
  port: Port,
  gids: GidTable,
  pd: number,
  releasedFlows: number[],
): Destinations =>
  Object.setPrototypeOf(
    { ahs, port, gids, pd, releasedFlows, heldFlow: -1, cached: undefined } satisfies Fields,
    methods,
  )
