/*
 * WRITEs that come too late: the owner has told the same bytes to another peer since, which has written them, or sends them.
 */
import type { Moment } from '../../../spec/check/finding.ts'
import { requestText } from '../buffers.ts'
import type { DetectorServices } from '../detector.ts'
import { hex, moment } from '../objects.ts'
import type { Region } from './learnt.ts'
import { type PeerRequests, WORD } from './peer-requests.ts'
import { aboutAccess, ago, bytesText, messageMoment, messageText, type Told, type Written } from './told.ts'

/** How many of its bytes are among those from `start` to before `end`. */
const common = (written: Written, start: number, end: number): number =>
  Math.min(written.end, end) - Math.max(written.start, start)

/** Returns what reports that a WRITE comes too late, if something proves it. `newer`: other advertisements since. */
export const createLateWrite = (services: DetectorServices, { heard, sendOf }: PeerRequests) => {
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

  return (told: Told, region: Region, late: Written, newer: readonly Told[]): void => {
    const { start, end, request } = late
    const report = (why: string, moments: readonly Moment[]): void => {
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
