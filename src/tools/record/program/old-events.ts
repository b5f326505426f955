/*
 * Events of recordings that older builds have made, as those of today. Until protocol 5 of sessions, what is now the
 * events of preload libraries (`PreloadEvents` in spec/preload-events.ts) was one event, `misused`, with fields of many
 * meanings; and the text of a wait named its request by the device's number, with the request as it was posted in
 * `own`.
 */
import {
  type CheckedWait,
  type PreloadEvent,
  type ProgramEvent,
  preloadFields,
} from '../../../spec/check/program-events.ts'
import { UNKNOWN_NUMBER } from '../../../spec/session.ts'

/** The fields of `misused`. */
interface Misuse {
  readonly kind: number
  readonly queue: number
  readonly number: number
  readonly wrId: bigint
  readonly index: number
  readonly address: number
  readonly more: number
}

/** By `misused.kind`. */
const byKind: Readonly<Record<number, (misuse: Misuse) => PreloadEvent>> = {
  1: misuse => preloadFields('bufferFreed', { ...misuse }),
  2: misuse => preloadFields('frameReturned', { ...misuse }),
  3: misuse => preloadFields('forkedOutstanding', { ...misuse }),
  4: ({ queue, number, index }) =>
    index === 1 ? { event: 'destroyedInherited', number } : { event: 'usedInherited', queue, number },
  5: ({ number, index }) => ({ event: 'sendChanged', number, index }),
  6: ({ queue, number, wrId, index, address, more: read }) =>
    address === 1
      ? { event: 'asyncOveracknowledged', queue, number, read }
      : {
          event: 'overacknowledged',
          number,
          acknowledged: index,
          read,
          otherCq: wrId === 0n ? UNKNOWN_NUMBER : Number(wrId) - 1,
        },
  7: ({ number, address: start, wrId, index: how, more: isKept }) =>
    how === 6 ? { event: 'reusable', number } : { event: 'gaveBack', number, start, end: Number(wrId), how, isKept },
  8: ({ index, ...misuse }) => preloadFields('postedDead', { ...misuse, part: index }),
  9: ({ number, address, index: entries, more: room }) => ({ event: 'arrayTooShort', number, address, entries, room }),
  10: ({ index: descriptor }) => ({ event: 'closedDescriptor', descriptor }),
  11: ({ queue, number, wrId, index: count, more: opcode }) => ({
    event: 'sharedElements',
    queue,
    number,
    wrId,
    count,
    opcode,
  }),
  12: ({ number, wrId, index: data }) => ({ event: 'immediateInHostOrder', number, wrId, data }),
  13: ({ number, wrId, address }) => ({ event: 'readsOverlap', number, wrId, address }),
  14: ({ queue, number, wrId, index: taken }) => ({ event: 'postedAgain', queue, number, wrId, taken }),
  15: misuse => elementsUnused(misuse, 0),
  16: ({ number, address, index: rkey, more: opcode }) => ({ event: 'otherMember', number, address, rkey, opcode }),
  17: ({ number }) => ({ event: 'polledInHandler', number }),
  18: ({ queue, number, wrId }) => ({ event: 'polledGone', queue, number, wrId }),
  19: misuse => elementsUnused(misuse, 1),
}

const elementsUnused = ({ index: bytes, more: lkey, ...misuse }: Misuse, isLeft: number): PreloadEvent =>
  preloadFields('elementsUnused', { ...misuse, bytes, lkey, isLeft })

type OldWait = ProgramEvent<'waits'> & { readonly own: NonNullable<CheckedWait['posted']> }

const presentWait = ({ own, ...event }: OldWait): ProgramEvent => {
  const { wait } = event
  const text = wait.text.replace(/(?:wr_id|block|request) (\d+)/, (whole, number) =>
    BigInt(number) === wait.request?.wrId ? `wr_id ${own.wrId}` : whole,
  )
  return { ...event, posted: own, wait: { ...wait, text } }
}

/** An event of a recording. Throws if a field has another type. */
export const ofToday = (event: { readonly event?: unknown; readonly own?: unknown }): ProgramEvent | undefined => {
  if (event.event === 'waits' && event.own !== undefined) return presentWait(event as OldWait)
  if (event.event !== 'misused') return event as ProgramEvent
  const { time, device, deviceNumber, context, program, stack, ...misuse } = event as unknown as Misuse &
    Pick<ProgramEvent<'bufferFreed'>, 'time' | 'device' | 'deviceNumber' | 'context' | 'program' | 'stack'>
  const named = byKind[misuse.kind]?.(misuse)
  return named && ({ ...named, time, device, deviceNumber, context, program, stack } as ProgramEvent)
}
