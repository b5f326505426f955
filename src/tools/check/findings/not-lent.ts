/*
 * Accesses of peers to memory that its owner has not lent, or has lent for something else (`not-lent`). Bytes that are
 * lent for reading are compared with what they were (`lent-changed`).
 */
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { LendHash, LendRight } from '../../../spec/lends.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { hashOfBytes } from '../keys.ts'
import { lentRequests } from '../lends/lent-requests.ts'
import { lentMemory, type Region } from '../lends/memory.ts'
import type { Lend, ProcessLends } from '../lends/table.ts'
import { accessText, historyText, type LendHistory, type LentAccess, lendMoments } from '../lends/text.ts'
import { type KnownObject, moment } from '../objects.ts'

const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

/** LendRight of an access; 0: none needs to be lent. */
const rightOf = (access: number): number =>
  (access & REMOTE_ATOMIC) !== 0
    ? LendRight.ATOMIC
    : (access & REMOTE_WRITE) !== 0
      ? LendRight.WRITE
      : (access & REMOTE_READ) !== 0
        ? LendRight.READ
        : 0

/** Some accesses are compared: the first, fourth, sixteenth … of a lend, or all. */
const isCompared = (accesses: number): boolean => (accesses & (accesses - 1)) === 0 && (accesses & 0x55555555) !== 0

/** A peer reads bytes of a lend: compares them with what they were. */
const compareLent = (services: DetectorServices, lend: Lend, { object, start, end }: Region): void => {
  const { sources } = services
  lend.accesses++
  if (lend.hash === undefined || !(sources.buffers === 'all' || isCompared(lend.accesses))) return
  if (lend.start < start || lend.end > end) return
  const hash = hashOfBytes(services, object, lend.start, Math.min(lend.end, lend.start + LendHash.bytes))
  if (hash === undefined || hash === lend.hash) return
  lend.hash = undefined
  services.report('lent-changed', services.occurrenceAt(object, lend.stack, 'lent'), {
    text: `the program has changed bytes of ${object.name} that it has lent for reading${lend.label === '' ? '' : ` (${lend.label})`}, before a peer has read them`,
    moments: [moment('read', sources.now(), [])],
    objects: [object],
  })
}

export const createNotLentDetector = (services: DetectorServices): Detector | undefined => {
  const { objects, sources } = services
  const [memory, requests] = [lentMemory(services), lentRequests(services)]
  if (memory === undefined || requests === undefined) return undefined
  const { table, keys } = memory
  /** The request of the last finding: an access may be judged several times. */
  let lastTold: WorkRequest | undefined

  /** Where and when: the post of the request, if it is known. */
  const occurrenceOf = (request: WorkRequest | undefined, owner: KnownObject | undefined, region: KnownObject) =>
    request !== undefined && owner !== undefined
      ? { ...services.occurrenceAtPost(owner, request), action: 'posted' }
      : { ...services.occurrenceAt(region, []), action: 'accessed' }

  /** Prefers a lend that would have allowed the access. */
  const historyOf = (lender: ProcessLends, { right, qpn }: LentAccess, at: number): LendHistory => {
    const fits = (lend: Lend): boolean => (lend.rights & right) !== 0 && (lend.qpn === 0 || lend.qpn === qpn)
    const lasting = lender.lasting(at, at + 1)
    let other: Lend | undefined
    for (const lend of table.ended(lender, at)) {
      other ??= lend
      if (!fits(lend)) continue
      const { time } = lend.ended!
      return { last: lend, since: lasting.find(later => later.time >= time) }
    }
    return lasting.length > 0 ? { last: lasting.at(-1), since: undefined } : { last: other, since: undefined }
  }

  const report = (
    lender: ProcessLends,
    { object }: Region,
    access: LentAccess,
    at: number,
    request: WorkRequest | undefined,
  ): void => {
    if (request !== undefined && lastTold === request) return
    if (requests.isRepeated(request)) return
    lastTold = request
    const responder = objects.qp(object.device, access.qpn)
    const owner = request && objects.find(request.owner)
    const history = historyOf(lender, access, at)
    const name = lender.nameOf(at)
    services.report('not-lent', occurrenceOf(request, owner, object), {
      text: `${accessText(access, request, owner, responder)} ${object.name}${name === undefined ? '' : ` (${name})`}: ${historyText(history, access, sources.now(), object)}`,
      details: [
        ...(access.start === at
          ? []
          : [`the first of these bytes that is not lent is ${at - access.start} bytes further`]),
        ...(history.last === undefined && table.hasForgotten ? ['the oldest lends are forgotten'] : []),
      ],
      moments: lendMoments(history),
      objects: [object, owner, responder],
    })
  }

  return {
    on: {
      accessed(access) {
        const { device, rkey, address, length, qpn } = access
        const right = rightOf(access.access)
        if (!memory.hasLends || length === 0 || right === 0) return
        const keyed = keys.of(device, rkey)
        if (keyed === undefined) requests.accessedBelow(access)
        if (keyed === undefined || !keyed.region.isLent) return
        const { region, shift } = keyed
        const lender = table.find(region.object.program?.pid)
        if (lender === undefined || lender.isGivenUp) return
        const now = sources.now()
        lender.settle(now)
        requests.accessed(access, now)
        const start = address + shift
        const end = start + length
        const at = lender.firstNotLent(right, qpn, start, end, lend => {
          if (right === LendRight.READ) compareLent(services, lend, region)
        })
        if (right !== LendRight.READ) lender.written(start, end)
        if (at < end) report(lender, region, { right, qpn, start, length }, at, requests.requestBehind(access))
      },
    },
  }
}
