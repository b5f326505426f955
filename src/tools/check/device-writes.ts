/*
 * What devices have written to the memory of programs lately, for findings about changed buffers: a change by a device
 * is none of the program. Receives, READs, atomics and copies write to their elements, WRITEs and atomics to memory of
 * the peer. Memory is compared by program and address. What is unknown counts as written.
 */
import type { WorkRequest } from '../../spec/check/requests.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { remoteRights, returnsData, WrOpcode } from '../../spec/work.ts'
import type { DetectorServices } from './detector.ts'
import type { KnownObject } from './objects.ts'

/** Maximum kept writes, the latest. */
const MAX_WRITES = 1024

const { REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const writesElements = (opcode: number): boolean =>
  opcode < 0 || returnsData(opcode) || opcode === WrOpcode.values.MEMCPY
const writesAtPeer = (opcode: number): boolean => (remoteRights(opcode) & (REMOTE_WRITE | REMOTE_ATOMIC)) !== 0

interface Range {
  readonly start: number
  readonly end: number
}

/** `qp`: the id of the queue pair; of a receive of an SRQ, of the queue pair that took it. */
interface Write {
  readonly request: WorkRequest
  readonly qp: number
  /** Microseconds of the end. */
  readonly time: number
}

interface DeviceWrites {
  /** A request has ended. `qp`: as in `Write`. */
  ended(request: WorkRequest, qp: number): void
  /**
   * Whether a device may have written to the buffer of `send`, of queue pair `owner`, since the device fetched the
   * send. `outstanding`: requests that have not ended.
   */
  mayHaveWritten(send: WorkRequest, owner: KnownObject, outstanding: Iterable<readonly WorkRequest[]>): boolean
  /** Whether a message or WRITE of the peer has reached queue pair `qp` since `time`, in microseconds. */
  hasAnswered(qp: KnownObject, time: number): boolean
}

export const createDeviceWrites = (services: DetectorServices): DeviceWrites => {
  const { objects, sources } = services
  /** A ring. */
  const writes: Write[] = []
  let next = 0

  /** The program's addresses of memory that a key names, if it is memory of `program`; undefined: unknown. */
  const rangeOf = (device: number, key: number, address: number, length: number, pid: number): Range | undefined => {
    const region = objects.region(device, key)
    if (region?.start === undefined || region.iova === undefined) return undefined
    if (region.program?.pid !== pid) return { start: 0, end: 0 }
    const start = address - region.iova + region.start
    return { start, end: start + length }
  }

  /** Whether a request writes to one of the ranges of a process. */
  const mayWriteTo = (request: WorkRequest, pid: number, ranges: readonly Range[]): boolean => {
    const owner = objects.find(request.owner)
    const touches = (device: number | undefined, key: number, address: number, length: number): boolean => {
      const range = device === undefined ? undefined : rangeOf(device, key, address, length, pid)
      return range === undefined || ranges.some(({ start, end }) => start < range.end && range.start < end)
    }
    if (
      writesElements(request.opcode) &&
      request.elements.some(({ lkey, address, length }) => touches(owner?.device, lkey, address, length))
    )
      return true
    const { remote } = request
    if (remote === undefined || !writesAtPeer(request.opcode)) return false
    return touches(owner && services.peerDeviceOf(owner), remote.rkey, remote.address, remote.length)
  }

  /** Whether peers that the checker does not see may write to memory of the context. */
  const hasUnseenWriters = (context: number): boolean => {
    const existing = objects.existingIn(context)
    if (!existing.some(({ isRemoteWritable }) => isRemoteWritable)) return false
    return existing.some(object => {
      if (object.attributes.address === undefined) return false
      const device = services.peerDeviceOf(object)
      return device === undefined || sources.hasUnchecked?.(device) === true
    })
  }

  return {
    ended(request, qp) {
      if (!writesElements(request.opcode) && !writesAtPeer(request.opcode)) return
      writes[next] = { request, qp, time: sources.now() }
      next = (next + 1) % MAX_WRITES
    },
    mayHaveWritten(send, owner, outstanding) {
      const oldest = writes.length === MAX_WRITES ? writes[next]! : undefined
      const pid = owner.program?.pid
      if (pid === undefined || hasUnseenWriters(owner.context)) return true
      if (oldest !== undefined && oldest.time >= send.time) return true
      const ranges = send.elements.map(({ address, length }) => ({ start: address, end: address + length }))
      if (writes.some(({ request, time }) => time >= send.time && mayWriteTo(request, pid, ranges))) return true
      for (const requests of outstanding)
        for (const request of requests) if (mayWriteTo(request, pid, ranges)) return true
      return false
    },
    hasAnswered({ id, qpn, device }, since) {
      return writes.some(({ request, qp, time }) => {
        if (time < since) return false
        if (request.opcode < 0) return qp === id
        const peer = objects.find(request.owner)
        return peer === undefined || (peer.attributes.destQpn === qpn && services.peerDeviceOf(peer) === device)
      })
    },
  }
}
