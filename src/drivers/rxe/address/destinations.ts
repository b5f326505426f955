/*
 * Destinations of datagrams of one queue pair (transport/types.ts, Send.FLOW): the flow of the port for the number of
 * an address handle, or for an address vector in the request, which providers without such numbers write.
 *
 * Flows for address vectors are opened with their first request and cached, a few for each queue pair; the least
 * recently used one is closed for another. A destination without a path is -1: the request fails (Linux: local QP
 * operation error).
 *
 * A request that was fetched may wait for a window or the port, and its address handle may be destroyed or changed
 * before it is sent. So the queue pair keeps the flow of its last fetched request open: the engine fetches the next
 * request only when the packets of the last one are committed or in the run being built. A run is committed at the
 * latest at the end of a turn of sending, and only then are flows closed that were released during the turn
 * (`released`).
 */
import type { GidTable } from '../../../core/devices/gids.ts'
import type { Port } from '../../../phy/port.ts'
import { Vector } from '../../../spec/drivers/rxe-rings.ts'
import { CallError } from '../../../spec/errno.ts'
import { type Address, flowAddress, noAddress, openPath, sourceOf } from './path.ts'

/** The destination of an address handle. */
export interface AddressHandle {
  /** The number in work requests, from 1 on. */
  readonly number: number
  readonly pd: number
  /** The port's number of the flow. */
  flow: number
  address: Address
}

export interface Destinations {
  /** The flow for address handle `number`; -1 if there is none, or not of this protection domain. */
  byHandle(number: number): number
  /** The flow for the address vector at `at`. */
  byVector(bytes: Uint8Array, at: number): number
  /**
   * A request with this flow is fetched: the flow stays open until the next one is fetched, or `release`. -1: no flow.
   */
  hold(flow: number): void
  /** The send queue is empty: no request is fetched any more. */
  release(): void
  /** Closes all flows. */
  close(): void
}

/** Cached paths of address vectors of one queue pair. */
const MAX_VECTORS = 64

/** State of one queue pair; very many have no open flow (R15). */
interface Fields {
  readonly ahs: ReadonlyMap<number, AddressHandle>
  readonly port: Port
  readonly gids: GidTable
  readonly pd: number
  /** Flows to be closed when the runs of this turn are committed. */
  readonly released: number[]
  /** The flow of the last fetched request; -1: none. */
  held: number
  /** By the vector's bytes as text, least recently used first; made with the first. */
  open: Map<string, number> | undefined
}

const openVector = ({ port, gids }: Fields, vector: Uint8Array): number => {
  const view = new DataView(vector.buffer)
  const address = {
    ...noAddress,
    port: vector[Vector.PORT],
    dgid: vector.slice(Vector.DGID, Vector.DGID + 16),
    flowLabel: view.getUint32(Vector.FLOW_LABEL, true),
    sgidIndex: vector[Vector.SGID_INDEX],
    trafficClass: vector[Vector.TRAFFIC_CLASS],
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
    const vector = bytes.slice(at, at + Vector.BYTES)
    const key = String.fromCharCode(...vector)
    this.open ??= new Map()
    const { open } = this
    let flow = open.get(key)
    if (flow === undefined) {
      flow = openVector(this, vector)
      if (flow < 0) return -1
      if (open.size >= MAX_VECTORS) {
        const [oldest] = open
        open.delete(oldest[0])
        this.released.push(oldest[1])
      }
    } else open.delete(key)
    open.set(key, flow)
    return flow
  },
  hold(flow) {
    if (flow === this.held || flow < 0) return
    this.port.holdFlow(flow)
    if (this.held >= 0) this.released.push(this.held)
    this.held = flow
  },
  release() {
    if (this.held >= 0) this.port.closeFlow(this.held)
    this.held = -1
  },
  close() {
    this.release()
    for (const flow of this.open?.values() ?? []) this.port.closeFlow(flow)
    this.open = undefined
  },
}

export const createDestinations = (
  ahs: ReadonlyMap<number, AddressHandle>,
  port: Port,
  gids: GidTable,
  pd: number,
  released: number[],
): Destinations =>
  Object.setPrototypeOf({ ahs, port, gids, pd, released, held: -1, open: undefined } satisfies Fields, methods)
