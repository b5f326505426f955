/*
 * The one dispatch of the checker: each event goes to the detectors that take it, in their order, with the object that
 * it is about. An event of a preload library about an unknown object, or a destroyed one, is dropped, unless its row in
 * `PreloadEvents` (spec/preload-events.ts) says that it is about destroyed ones.
 */
import type { ProgramEvent, ProgramEventName } from '../../spec/check/program-events.ts'
import type { RequestWatcher } from '../../spec/check/requests.ts'
import { type PreloadEventName, PreloadEvents } from '../../spec/preload-events.ts'
import { type Detector, type EventParts, type Takers, TOLD } from './detector.ts'
import { type KnownObject, type KnownObjects, queueOf } from './objects.ts'

type Told = Pick<ProgramEvent<PreloadEventName>, 'event' | 'context' | 'deviceNumber'>

/** Whether it is an event of a preload library about an object. */
const isOfPreload = (event: ProgramEvent): event is ProgramEvent<PreloadEventName> =>
  Object.hasOwn(PreloadEvents, event.event) && 'about' in PreloadEvents[event.event as PreloadEventName]

const ownerOf = (objects: KnownObjects, event: Told): KnownObject | undefined => {
  const { about } = PreloadEvents[event.event]
  const { queue = 0, number = 0 } = event as { readonly queue?: number; readonly number?: number }
  const { context, deviceNumber } = event
  if (about === 'qp') return objects.qp(deviceNumber, number)
  return about === 'queue'
    ? queueOf(objects, { context, deviceNumber, queue, number })
    : objects.byHandle(context, about, number)
}

type Take = (event: unknown, object: unknown) => unknown

export interface Dispatch {
  /** The events of requests. */
  readonly requests: RequestWatcher
  /** `object`: what `calling`, `called` and `unmapped` are about. */
  event(event: ProgramEvent, object?: KnownObject): void
  part<N extends keyof EventParts>(name: N, ...given: Parameters<EventParts[N]>): void
}

export const createDispatch = (objects: KnownObjects, detectors: readonly Detector[]): Dispatch => {
  const takersOf = <N extends keyof Takers>(name: N): Takers[N][] =>
    detectors.flatMap(({ on }) => (on?.[name] === undefined ? [] : [on[name]]))
  const posted = takersOf('posted')
  const ended = takersOf('ended')
  const completed = takersOf('completed')
  const receiveLost = takersOf('receiveLost')
  const receiverNotReady = takersOf('receiverNotReady')
  const polled = takersOf('polled')
  const queueReset = takersOf('queueReset')
  const isKnown = (id: number): boolean => objects.find(id) !== undefined

  const all = new Map<string, Take[]>()
  const give = (name: keyof EventParts | ProgramEventName, event: unknown, object: unknown): void => {
    let takers = all.get(name)
    if (takers === undefined) {
      takers = takersOf(name) as Take[]
      all.set(name, takers)
    }
    for (const take of takers) if (take(event, object) === TOLD) return
  }

  return {
    requests: {
      posted(request) {
        if (isKnown(request.owner)) for (const take of posted) take(request)
      },
      ended(request) {
        if (isKnown(request.owner)) for (const take of ended) take(request)
      },
      completed(request, completion) {
        if (isKnown(request.owner)) for (const take of completed) take(request, completion)
      },
      receiveLost(request) {
        if (isKnown(request.owner)) for (const take of receiveLost) take(request)
      },
      receiverNotReady(qp) {
        if (isKnown(qp)) for (const take of receiverNotReady) take(qp)
      },
      polled(cq, count) {
        if (isKnown(cq)) for (const take of polled) take(cq, count)
      },
      queueReset(owner) {
        if (isKnown(owner)) for (const take of queueReset) take(owner)
      },
    },
    event(event, object) {
      if (!isOfPreload(event)) {
        give(event.event, event, object)
        return
      }
      const { about, isGone = false }: { about: string; isGone?: boolean } = PreloadEvents[event.event]
      const owner = about === 'context' ? undefined : ownerOf(objects, event)
      if (about === 'context' || (owner !== undefined && (owner.destruction !== undefined) === isGone))
        give(event.event, event, owner)
    },
    part(name, ...[event, object]: readonly unknown[]) {
      give(name, event, object)
    },
  }
}
