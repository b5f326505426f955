/*
 * Accesses of peers that come too late: for which advertisement an access is, what it has used of it, and what was told
 * since.
 * - `late-write`: the owner has told the same bytes to another peer since, which has written them, or sends them.
 * - `late-read`: the bytes are not those that the advertisement told of, and another one has told of them since.
 */
import type { Moment } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { learnt, type Region } from '../lends/learnt.ts'
import { type PeerRequests, peerRequests, WORD } from '../lends/peer-requests.ts'
import {
  type Access,
  aboutAccess,
  ago,
  bytesText,
  hashOf,
  isOfPeer,
  messageMoment,
  messageText,
  type Told,
  type Written,
} from '../lends/told.ts'
import { hex, type KnownObject, moment } from '../objects.ts'

/** Maximum WRITEs of an advertisement that are remembered, the latest. */
const MAX_WRITTEN = 16

const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

/** How many of its bytes are among those from `start` to before `end`. */
const common = (written: Written, start: number, end: number): number =>
  Math.min(written.end, end) - Math.max(written.start, start)

/** Requests about which it was told that they come too late. */
export const LATE_WRITES: Topic<WeakSet<WorkRequest>> = { name: 'late WRITEs' }

/** Returns what reports that a WRITE comes too late, if something proves it. `newer`: other advertisements since. */
const createLateWrite = (services: DetectorServices, { heard, sendOf }: PeerRequests) => {
  /**
   * Both have written the same bytes wholly, for the first time, and since the WRITE of the second the program of the
   * first has got no message that may tell of it.
   */
  const isUnordered = (told: Told, other: Told, { start, end, request }: Written, since: number): boolean => {
    const isWhole = ({ event }: Told): boolean => event.start === start && event.end === end
    if (told.used > 0 || other.used !== end - start || !isWhole(told) || !isWhole(other)) return false
    const owner = request && services.objects.find(request.owner)
    return owner !== undefined && (heard.get(owner.program?.pid) ?? Number.NEGATIVE_INFINITY) <= since
  }

  const reported = new WeakSet<WorkRequest>()
  services.tell(LATE_WRITES, reported)

  return (told: Told, region: Region, late: Written, newer: readonly Told[]): void => {
    const { start, end, request } = late
    const report = (why: string, moments: readonly Moment[]): void => {
      if (request !== undefined) reported.add(request)
      const does = `lands in ${bytesText(told)}, which ${messageText(told)} told its peer ${ago(services, told.event.time)}: ${why}`
      services.report('late-write', ...aboutAccess(services, told, request, 'WRITE', does, moments))
    }
    for (const other of newer) {
      const written = other.written.findLast(one => common(one, start, end) > WORD)
      if (written === undefined) continue
      const wasUnderWay = request !== undefined && request.time < written.time
      if (!wasUnderWay && !isUnordered(told, other, late, written.time)) continue
      report(
        `${messageText(other)} has told the same bytes to the peer of QP ${hex(other.qpn)} since, which wrote them ${ago(services, written.time)}`,
        [
          messageMoment(services, other, 'told again'),
          ...(written.request === undefined ? [] : [services.postMoment(written.request, 'posted the other WRITE')]),
          moment('the other WRITE landed', written.time, []),
        ],
      )
      return
    }
    const send = request && sendOf(region, start, end, request)
    if (send === undefined) return
    report(`the program sends these bytes by ${requestText(send)}, which is outstanding`, [
      services.postMoment(send, 'posted the send of these bytes'),
    ])
  }
}

/** Reports a READ that gets other bytes than those that `told` told of. `newer`: the advertisements since. */
const checkLateRead = (
  services: DetectorServices,
  told: Told,
  request: WorkRequest | undefined,
  newer: readonly Told[],
): void => {
  const [other] = newer
  if (other === undefined || told.hash === undefined) return
  const { region, event } = told
  const hash = hashOf(services, region, event.start, event.end)
  if (hash === undefined || hash === told.hash) return
  const does = `reads ${bytesText(told)}, which are not those that ${messageText(told)} told its peer ${ago(services, event.time)}: ${messageText(other)} has told the same bytes since, ${ago(services, other.event.time)}`
  const moments = [messageMoment(services, other, 'told again')]
  services.report('late-read', ...aboutAccess(services, told, request, 'READ', does, moments))
}

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

export const createLateAccessDetector = (services: DetectorServices): Detector | undefined => {
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
