/*
 * Where the datagrams of one queue pair go (transport/types.ts, Send.FLOW): from the number of an address handle, or
 * from an address vector in the request itself, as providers write that know no numbers, to a flow of the port.
 *
 * The latter are opened when they are first seen and kept, a few for each queue pair, the one not used for longest
 * closed for another. What names no path is -1: the request is an error (Linux: local QP operation error).
 */
import type { GidTable } from '../../core/gids.ts'
import type { Port } from '../../phy/port.ts'
import { Vector } from '../../spec/drivers/rxe-rings.ts'
import { CallError } from '../../spec/errno.ts'
import { type Address, flowAddress, noAddress, openPath, sourceOf } from './path.ts'

/** Where datagrams go. */
export interface AddressHandle {
  /** What work requests name it by, from 1 on. */
  readonly number: number
  readonly pd: number
  /** The port's. */
  flow: number
  address: Address
}

export interface Destinations {
  /** The flow for address handle `number`; -1 if there is none, or not of this protection domain. */
  byHandle(number: number): number
  /** The flow for the address vector at `at`. */
  byVector(bytes: Uint8Array, at: number): number
  /** Closes what `byVector` has opened. */
  close(): void
}

/** Paths of address vectors that one queue pair has open at most. */
const MOST = 64

/** What one queue pair has of its own; the rest is the device's. Very many have nothing open (R15). */
interface Fields {
  readonly ahs: ReadonlyMap<number, AddressHandle>
  readonly port: Port
  readonly gids: GidTable
  readonly pd: number
  /** By the vector's bytes, one character each, the last used at the end; made with the first. */
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

const methods: Destinations & ThisType<Fields> = {
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
      if (open.size >= MOST) {
        const [oldest] = open
        open.delete(oldest[0])
        this.port.closeFlow(oldest[1])
      }
    } else open.delete(key)
    open.set(key, flow)
    return flow
  },
  close() {
    for (const flow of this.open?.values() ?? []) this.port.closeFlow(flow)
    this.open = undefined
  },
}

export const createDestinations = (
  ahs: ReadonlyMap<number, AddressHandle>,
  port: Port,
  gids: GidTable,
  pd: number,
): Destinations => Object.setPrototypeOf({ ahs, port, gids, pd, open: undefined } satisfies Fields, methods)
