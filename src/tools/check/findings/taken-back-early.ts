/*
 * Memory that its owner takes back, or relies on, while a request of a peer to it is outstanding.
 */
import type { Moment, Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { lentRequests } from '../lends/lent-requests.ts'
import { lentMemory } from '../lends/memory.ts'
import { unfinishedText } from '../lends/text.ts'
import { moment } from '../objects.ts'

export const createTakenBackDetector = (services: DetectorServices): Detector | undefined => {
  const [memory, requests] = [lentMemory(services), lentRequests(services)]
  if (memory === undefined || requests === undefined) return undefined

  const report = (
    unfinished: readonly WorkRequest[],
    what: string,
    moments: readonly Moment[],
    { time, stack }: { readonly time: number; readonly stack: Stack },
    action: string,
    isOwn = false,
  ): void => {
    const [request] = unfinished
    const owner = request && services.objects.find(request.owner)
    const device = request && requests.targetOf(request)
    const region = isOwn
      ? owner && services.objects.region(owner.device, request?.elements[0]?.lkey ?? 0)
      : device === undefined
        ? undefined
        : memory.rangesOf(device, request!.remote!)[0]?.region.object
    if (request === undefined || owner === undefined || region === undefined) return
    services.report(
      'taken-back-early',
      { ...services.occurrenceAt(region, stack, action), time },
      {
        text: `${what} of ${region.name} while ${unfinishedText(request, owner)}${unfinished.length > 1 ? `, the first of ${unfinished.length} requests, is` : ' is'} outstanding`,
        moments: [services.postMoment(request), ...moments],
        objects: [region, owner],
      },
    )
  }

  return {
    on: {
      takenBack(event) {
        const { pid, lend: id, time, stack } = event
        const lender = memory.table.find(pid)
        lender?.settle(time)
        const lend = lender?.takeBack(id, time, stack)
        if (lender === undefined || lend === undefined || !requests.hasSome) return
        const { start, end, rights, qpn: to } = lend
        const unfinished = requests.unfinishedAt(pid, time, (from, until, right, qpn) => {
          if (from >= end || until <= start || (rights & right) === 0 || (to !== 0 && qpn !== undefined && qpn !== to))
            return false
          const [first, last] = [Math.max(from, start), Math.min(until, end)]
          return lender.firstNotLent(right, qpn ?? 0, first, last, () => {}) < last
        })
        const label = lend.label === '' ? '' : ` (${lend.label})`
        const what = `the program takes back ${end - start} bytes${label}`
        report(unfinished, what, [moment('lent', lend.time, lend.stack)], event, 'taken back')
      },
      expectsFinished(event) {
        const { pid, start, end, time } = event
        memory.hasLends = true
        const unfinished = requests.unfinishedAt(pid, time, (from, until) => from < end && until > start)
        const what = `the program relies on it that nobody accesses ${end - start} bytes`
        report(unfinished, what, [], event, 'relied on')
        const own = requests.ownOf(pid, start, end).filter(request => !unfinished.includes(request))
        report(own, what, [], event, 'relied on', true)
      },
    },
  }
}
