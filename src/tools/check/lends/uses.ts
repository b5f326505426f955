/*
 * For which advertisement a peer accesses memory, and what it has used of it. Accesses that come too late are told.
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import { checkLateRead } from './late-read.ts'
import { createLateWrite } from './late-write.ts'
import { learnt, type Region } from './learnt.ts'
import { peerRequests, WORD } from './peer-requests.ts'
import { type Access, isOfPeer, type Told } from './told.ts'

/** Maximum WRITEs of an advertisement that are remembered, the latest. */
const MAX_WRITTEN = 16

const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

/** Whether it is known which queue pair accesses the bytes, not only which program. */
const isExact = ({ receiver }: Told): boolean => receiver?.class !== 'ud_qp'

/** Whether an access of `requester`, undefined if it is unknown, may be for this. */
const isFor = (told: Told, { device, qpn }: Access, requester: KnownObject | undefined): boolean => {
  const { receiver, event } = told
  if (event.device !== device) return false
  if (receiver === undefined) return told.qpn === qpn
  return isExact(told)
    ? requester === receiver
    : requester?.program !== undefined && requester.program.pid === receiver.program?.pid
}

export const createUseDetector = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  const [told, requests] = [learnt(services), peerRequests(services)]
  if (told === undefined || requests === undefined) return undefined
  const checkLateWrite = createLateWrite(services, requests)

  const peerPid = (one: Told): number | undefined => told.peerOf(one)?.program?.pid

  /** Whether the accesses of the two are told apart. */
  const isOther = (one: Told, other: Told): boolean => {
    if (isExact(one) && isExact(other)) return !isOfPeer(one, other)
    const [pid, otherPid] = [peerPid(one), peerPid(other)]
    return pid !== undefined && otherPid !== undefined && pid !== otherPid
  }

  /** A device may tell of an access several times, for its rights and its packets: only the first one counts. */
  const judged = new WeakSet<WorkRequest>()
  let last: Access | undefined

  const isTold = (access: Access, request: WorkRequest | undefined): boolean => {
    const { rkey, address, length, qpn } = access
    const isSame = last?.qpn === qpn && last.rkey === rkey && last.address === address && last.length === length
    last = access
    if (request === undefined) return isSame
    if (judged.has(request)) return true
    judged.add(request)
    return false
  }

  const use = (region: Region, access: Access): void => {
    const { address, length } = access
    const isRead = (access.access & (REMOTE_READ | REMOTE_WRITE | REMOTE_ATOMIC)) === REMOTE_READ
    const request = requests.requestOf(access)
    if (isTold(access, request)) return
    const requester = request && objects.find(request.owner)
    const { pid } = region.object.program ?? {}
    const start = address + region.shift
    const end = start + length
    const overlapping = told.overlapping(pid, start, end)
    let used: Told | undefined
    for (const one of overlapping) {
      const { event } = one
      const isIt = event.start <= start && end <= event.end && isFor(one, access, requester)
      if (isIt && one.used < event.end - event.start && (used === undefined || event.time < used.event.time)) used = one
    }
    if (used !== undefined) {
      const { event, written } = used
      const newer = overlapping.filter(one => one.event.time > event.time)
      if (isRead) checkLateRead(services, used, request, newer)
      else if (length > WORD) {
        const late = { time: sources.now(), start, end, request }
        const mine = used
        checkLateWrite(
          mine,
          region,
          late,
          newer.filter(one => isOther(one, mine)),
        )
        written.push(late)
        if (written.length > MAX_WRITTEN) written.shift()
      }
      used.used += length
    }
    if (isRead) return
    for (const one of overlapping) one.hash = undefined
    requests.heard.set(pid, sources.now())
  }

  return {
    on: {
      accessed(access) {
        if (told.all.size === 0 || access.length === 0) return
        const region = told.regions.of(access.device, access.rkey)
        if (region !== undefined) use(region, access)
      },
    },
  }
}
