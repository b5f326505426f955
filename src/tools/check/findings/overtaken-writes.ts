/*
 * Finding late-write, without any message that has told of the bytes: a program has written bytes of a peer by one
 * queue pair, then other data to the same bytes by another one that had not written them before, as after a timeout;
 * and the first WRITE lands after the second was complete.
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { SendKind, sendOperations, WcStatus } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { LATEST } from '../latest-requests.ts'
import { WORD } from '../lends/peer-requests.ts'
import { type Access, ago } from '../lends/told.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import { LATE_WRITES } from './late-access.ts'

const { REMOTE_WRITE } = AccessFlags.values

/** Maximum WRITEs that another one has followed, the latest. */
const MAX_ATTEMPTS = 64

/** The later WRITE to the same bytes. `answered`: when it was complete; undefined: it is not. */
interface Later {
  readonly request: WorkRequest
  answered: number | undefined
}

export const createOvertakenDetector = (services: DetectorServices): Detector => {
  const { objects, sources } = services
  /** The oldest outstanding WRITE to each address at peers. */
  const oldest = new Map<number, WorkRequest>()
  const attempts = new Map<WorkRequest, Later>()

  /** The memory of a WRITE: the region, and where it begins in the process. */
  const memoryOf = (request: WorkRequest, owner: KnownObject) => {
    const device = services.targetDeviceOf(request, owner)
    const region = device === undefined ? undefined : objects.region(device, request.remote!.rkey)
    const { start, iova } = region ?? {}
    return region === undefined || start === undefined || iova === undefined
      ? undefined
      : { region, start: request.remote!.address - iova + start }
  }

  /** Whether one program writes other data to the same bytes. */
  const isRetry = (first: WorkRequest, later: WorkRequest): boolean => {
    const [owner, other] = [objects.find(first.owner), objects.find(later.owner)]
    if (owner === undefined || other === undefined || owner.program?.pid !== other.program?.pid) return false
    const [memory, same] = [memoryOf(first, owner), memoryOf(later, other)]
    if (memory === undefined || same === undefined || memory.start !== same.start) return false
    if (memory.region.program?.pid !== same.region.program?.pid) return false
    const isKnown = ({ remote, owner: id }: WorkRequest): boolean =>
      id === later.owner && remote?.address === later.remote!.address
    if (services.ask(LATEST)?.().some(isKnown)) return false
    const [data, otherData] = [sources.digest?.(owner.device, first, true), sources.digest?.(other.device, later, true)]
    return data !== undefined && otherData !== undefined && data !== otherData
  }

  const posted = (request: WorkRequest): void => {
    const { remote, opcode, owner } = request
    if (remote === undefined || remote.length <= WORD || sendOperations[opcode]?.kind !== SendKind.WRITE) return
    const first = oldest.get(remote.address)
    if (first === undefined) oldest.set(remote.address, request)
    else if (first.owner !== owner && first.remote?.length === remote.length && isRetry(first, request)) {
      attempts.set(first, { request, answered: undefined })
      const [before] = attempts.keys()
      if (attempts.size > MAX_ATTEMPTS) attempts.delete(before!)
    }
  }

  const forget = (request: WorkRequest): void => {
    const { remote } = request
    if (remote === undefined) return
    if (oldest.get(remote.address) === request) oldest.delete(remote.address)
    if (attempts.size > 0) attempts.delete(request)
  }

  const report = (first: WorkRequest, { request: later, answered }: Later): void => {
    const [owner, other] = [objects.find(first.owner), objects.find(later.owner)]
    const memory = owner && memoryOf(first, owner)
    if (owner === undefined || memory === undefined || answered === undefined) return
    const bytes = `${first.length} bytes at ${hex(memory.start)} of ${memory.region.name}`
    services.report('late-write', services.occurrenceAtPost(owner, first), {
      text: `${requestText(first)} of ${owner.nameWithProgram} lands in ${bytes} after ${requestText(later)} of QP ${hex(later.number)}, which its program posted later to the same bytes, was complete: now they have the older data`,
      moments: [
        services.postMoment(later, 'posted the later WRITE'),
        moment(`the later WRITE was complete ${ago(services, answered)}`, answered, []),
      ],
      advice:
        'before a request is tried again by another queue pair, destroy the first one or move it to ERR at the end that owns the bytes, or give each attempt bytes of its own',
      objects: [memory.region, owner, other],
    })
  }

  const accessed = ({ access, rkey, address, qpn }: Access): void => {
    if ((access & REMOTE_WRITE) === 0) return
    for (const [first, later] of attempts) {
      const { remote, destQpn = objects.find(first.owner)?.attributes.destQpn } = first
      if (remote?.rkey !== rkey || remote.address !== address || destQpn !== qpn) continue
      attempts.delete(first)
      if (later.answered !== undefined && services.ask(LATE_WRITES)?.has(first) !== true) report(first, later)
    }
  }

  return {
    on: {
      posted,
      ended: forget,
      completed(request, { status }) {
        if (attempts.size === 0 || status !== WcStatus.values.SUCCESS) return
        for (const later of attempts.values()) if (later.request === request) later.answered = sources.now()
      },
      queueReset(owner) {
        for (const request of [...oldest.values(), ...attempts.keys()]) if (request.owner === owner) forget(request)
      },
      accessed: access => attempts.size > 0 && accessed(access),
    },
  }
}
