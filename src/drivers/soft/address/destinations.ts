/*
 * Destinations of the datagrams of one queue pair: the port's flow (`Send.FLOW` in transport/engine/types.ts) of each
 * WQE. A WQE has the number of an address handle, or an address vector if the user library does not know these numbers.
 *
 * The first request with an address vector opens the vector's flow. These flows are cached, with LRU replacement.
 * Without a path the flow is -1, and the request completes with LOC_QP_OP_ERR, as with Linux's rxe.
 *
 * Before an address handle is destroyed or modified, the device fetches the requests that were posted earlier
 * (`SoftState.catchUpDatagrams`), because other adapters copy the address when a request is posted. A fetched request
 * may still wait for the congestion window or the port. So the flow of the last fetched request stays open until the
 * next request is fetched. By then the packets of the last one are committed or in the current run. Runs are committed
 * before `poll` closes the flows in `releasedFlows`.
 */
import { CallError } from '../../../spec/errno.ts'
import { ROUTE_HOP_LIMIT } from '../../../spec/wire/flow.ts'
import type { Port } from '../../../transport/phy/port.ts'
import { isSameAddress } from '../../../transport/wire/address.ts'
import type { Address, Paths } from './path.ts'

/** The destination of an address handle. */
export interface AddressHandle {
  /** The number in work requests, at least 1. */
  readonly number: number
  /** Id of its protection domain. */
  readonly pd: number
  /** The port's number of the flow. */
  flow: number
  address: Address
}

export interface Destinations {
  /** Id of the queue pair's protection domain. */
  readonly pd: number
  /** Of the queue pair, where `Paths.hasOwnFlows`. */
  qpn: number | undefined
  /** The flow for address handle `number`; -1 if it does not exist, or belongs to another protection domain. */
  byHandle(number: number): number
  /**
   * The flow for an address vector whose destination GID begins at `bytes[gidAt]`; -1 if there is no path. `local`: on
   * InfiniBand, as `localPart` makes it; 0 on RoCE. `hopLimit`: of an adapter that sends it as given.
   */
  byVector(
    port: number,
    sgidIndex: number,
    trafficClass: number,
    flowLabel: number,
    bytes: Uint8Array,
    gidAt: number,
    local?: number,
    hopLimit?: number,
  ): number
  /**
   * A request with this flow is fetched: the flow stays open until a request with another flow is fetched, or
   * `close` is called. -1 (no flow) has no effect.
   */
  hold(flow: number): void
  /**
   * The address of the request that was fetched last; undefined: its address handle was destroyed, or there is none.
   */
  address(): Address | undefined
  /** The queue pair is reset or destroyed: closes all its flows. */
  close(): void
}

/** Maximum number of cached flows of one queue pair. */
const MAX_CACHED_FLOWS = 256

/** The fields of a `Destinations`. */
interface Fields {
  readonly ahs: ReadonlyMap<number, AddressHandle>
  readonly port: Port
  readonly paths: Paths
  /** `SoftState.releasedFlows`. */
  readonly releasedFlows: number[]
  /** -1: none. */
  heldFlow: number
  /** Flows by address vector (bytes as text), least recently used first. Most queue pairs have no cache (R15). */
  cached: Map<string, number> | undefined
  /** The vector that was looked for last, as words, and its flow, which is the newest in `cached`. */
  last: Uint32Array | undefined
  lastFlow: number
  /** The handle whose address is in `last`, and its flow then: another one if it was modified. */
  lastHandle: AddressHandle | undefined
  lastHandleFlow: number
}

/** The address vector of the request that is being fetched. */
const vector = new Uint8Array(28)
const vectorView = new DataView(vector.buffer)
const vectorWords = new Uint32Array(vector.buffer)
const Vector = { PORT: 0, SGID_INDEX: 1, TRAFFIC_CLASS: 2, HOP_LIMIT: 3, FLOW_LABEL: 4, DGID: 8, LOCAL: 24 } as const

/**
 * The part of an address vector that InfiniBand has of its own, as a number: LID, service level, whether there is a
 * GRH.
 */
export const localPart = (dlid: number, sl: number, isGlobal: number): number =>
  dlid | ((sl & 15) << 16) | (isGlobal << 20)

const isVector = (words: Uint32Array): boolean => {
  for (let i = 0; i < words.length; i++) if (words[i] !== vectorWords[i]) return false
  return true
}

/** Of a device with more address handles, none is looked for: a hostile program's requests would take long. */
const MAX_COMPARED = 1024

/**
 * Opens the flow of an address handle with the index and the destination of `vector`: its address was in the index when
 * it was made, and has left. As with handles of rxe, datagrams go on from there. -1: there is no such handle.
 */
const reopenHandle = ({ ahs, port, pd }: Fields & Pick<Destinations, 'pd'>): number => {
  if (ahs.size > MAX_COMPARED) return -1
  const dgid = vector.subarray(Vector.DGID, Vector.DGID + 16)
  for (const ah of ahs.values())
    if (ah.pd === pd && ah.address.sgidIndex === vector[Vector.SGID_INDEX] && isSameAddress(ah.address.dgid, dgid)) {
      port.reopenFlow(ah.flow)
      return ah.flow
    }
  return -1
}

/** The address in `bytes`, which are as `vector`. */
const addressIn = (bytes: Uint8Array, { none }: Paths): Address => {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const local = view.getUint32(Vector.LOCAL)
  return {
    ...none,
    port: bytes[Vector.PORT],
    dgid: bytes.slice(Vector.DGID, Vector.DGID + 16),
    flowLabel: view.getUint32(Vector.FLOW_LABEL),
    sgidIndex: bytes[Vector.SGID_INDEX],
    hopLimit: bytes[Vector.HOP_LIMIT],
    trafficClass: bytes[Vector.TRAFFIC_CLASS],
    dlid: local & 0xffff,
    sl: (local >>> 16) & 15,
    isGlobal: none.isGlobal | (local >>> 20),
  }
}

/** Opens the flow for `vector`. */
const openVector = (fields: Fields & Pick<Destinations, 'pd' | 'qpn'>, hopLimit: number | undefined): number => {
  const { paths, qpn } = fields
  try {
    return paths.open(addressIn(vector, paths), 'work request', { hopLimit, qpn })
  } catch (error) {
    if (error instanceof CallError) return error.code === 'ENODATA' ? reopenHandle(fields) : -1
    throw error
  }
}

const methods: Omit<Destinations, 'pd' | 'qpn'> & ThisType<Fields & Destinations> = {
  byHandle(number) {
    const ah = this.ahs.get(number)
    if (ah === undefined || ah.pd !== this.pd) return -1
    if (this.qpn === undefined) return ah.flow
    if (ah === this.lastHandle && ah.flow === this.lastHandleFlow) return this.lastFlow
    const { port, sgidIndex, trafficClass, flowLabel, dgid } = ah.address
    const flow = this.byVector(port, sgidIndex, trafficClass, flowLabel, dgid, 0)
    // The GID has left its index, or the port has no more flows.
    if (flow < 0) return ah.flow
    this.lastHandle = ah
    this.lastHandleFlow = ah.flow
    return flow
  },
  byVector(port, sgidIndex, trafficClass, flowLabel, bytes, gidAt, local = 0, hopLimit) {
    this.lastHandle = undefined
    vector[Vector.PORT] = port
    vector[Vector.SGID_INDEX] = sgidIndex
    vector[Vector.TRAFFIC_CLASS] = trafficClass
    vector[Vector.HOP_LIMIT] = hopLimit ?? ROUTE_HOP_LIMIT
    vectorView.setUint32(Vector.FLOW_LABEL, flowLabel)
    vectorView.setUint32(Vector.LOCAL, local)
    for (let i = 0; i < 16; i++) vector[Vector.DGID + i] = bytes[gidAt + i]
    // A text of it takes a microsecond.
    if (this.last !== undefined && isVector(this.last)) return this.lastFlow
    const key = String.fromCharCode(...vector)
    this.cached ??= new Map()
    const { cached } = this
    let flow = cached.get(key)
    if (flow === undefined) {
      flow = openVector(this, hopLimit)
      if (flow < 0) return -1
      if (cached.size >= MAX_CACHED_FLOWS) {
        const [oldest] = cached
        cached.delete(oldest[0])
        this.releasedFlows.push(oldest[1])
      }
    } else cached.delete(key)
    cached.set(key, flow)
    this.last ??= new Uint32Array(vectorWords.length)
    this.last.set(vectorWords)
    this.lastFlow = flow
    return flow
  },
  hold(flow) {
    if (flow === this.heldFlow || flow < 0) return
    this.port.reopenFlow(flow)
    if (this.heldFlow >= 0) this.releasedFlows.push(this.heldFlow)
    this.heldFlow = flow
  },
  address() {
    const flow = this.heldFlow
    for (const ah of this.ahs.values()) if (ah.flow === flow) return ah.address
    return this.last !== undefined && flow >= 0 && flow === this.lastFlow
      ? addressIn(new Uint8Array(this.last.buffer), this.paths)
      : undefined
  },
  close() {
    if (this.heldFlow >= 0) this.port.closeFlow(this.heldFlow)
    this.heldFlow = -1
    for (const flow of this.cached?.values() ?? []) this.port.closeFlow(flow)
    this.cached = undefined
    this.last = undefined
    this.lastHandle = undefined
  },
}

export const createDestinations = (
  ahs: ReadonlyMap<number, AddressHandle>,
  port: Port,
  paths: Paths,
  pd: number,
  releasedFlows: number[],
): Destinations =>
  Object.setPrototypeOf(
    {
      ahs,
      port,
      paths,
      pd,
      qpn: undefined,
      releasedFlows,
      heldFlow: -1,
      cached: undefined,
      last: undefined,
      lastFlow: -1,
      lastHandle: undefined,
      lastHandleFlow: -1,
    } satisfies Fields & Pick<Destinations, 'pd' | 'qpn'>,
    methods,
  )
