/*
 * Two ends of a connection for tests of the library, on devices of any carrier.
 */
import { type CompletionQueue, createNetwork, type Device, type Network, open } from '../../src/verbs/index.ts'

/** Opens two devices that reach each other. */
export type OpenTwo = () => Promise<readonly [Device, Device]>

export const openTwoHere =
  (network: Network = createNetwork()): OpenTwo =>
  async () => [await open({ network }), await open({ network })]

export interface EndOptions {
  readonly bytes?: number
  readonly maxSends?: number
  readonly maxSendPieces?: number
}

/** A device, memory of 4096 bytes or as wanted, a CQ and a protection domain. */
export const place = (device: Device, { bytes = 4096 }: EndOptions = {}) => {
  const pd = device.pd()
  const buffer = new Uint8Array(bytes)
  const access = { remoteRead: true, remoteWrite: true, remoteAtomic: true, flushGlobal: true, window: true }
  const mr = pd.register(buffer, access)
  const cq = device.cq({ entries: 64 })
  return { device, pd, buffer, mr, cq }
}

/** One end: a place with an RC queue pair. */
export const end = (device: Device, options: EndOptions = {}) => {
  const { bytes: _, ...queue } = options
  const here = place(device, options)
  return { ...here, qp: here.pd.rcQp({ sendCq: here.cq, ...queue }) }
}

export const pair = async (openTwo: OpenTwo = openTwoHere(), options: EndOptions = {}) => {
  const [one, two] = await openTwo()
  const a = end(one, options)
  const b = end(two)
  a.qp.connect(b.qp.endpoint)
  b.qp.connect(a.qp.endpoint)
  return { a, b }
}

export const closeAll = (...ends: { device: Device }[]) => Promise.all(ends.map(({ device }) => device.close()))

/** The next completion of a queue, as plain values. */
export const next = async (cq: CompletionQueue) => {
  while (!cq.poll()) await cq.wait()
  const { id, statusName, opcodeName, bytes, immediate, invalidated, qpn, sourceQpn, hasGrh } = cq.completion
  return { id, statusName, opcodeName, bytes, immediate, invalidated, qpn, sourceQpn, hasGrh }
}

/** The next completion, in one line. */
export const line = async (cq: CompletionQueue): Promise<string> => {
  const { id, opcodeName, statusName } = await next(cq)
  return statusName === 'SUCCESS' ? `${id} ${opcodeName}` : `${id} ${statusName}`
}
