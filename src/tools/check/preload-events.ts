/*
 * The dispatch of the events of preload libraries (`PreloadEvents` in spec/preload-events.ts): each goes to the detectors that take
 * it, with the object that it is about. An event about an unknown object, or a destroyed one, is dropped, unless its row
 * says that it is about destroyed ones.
 */
import type { ProgramEvent } from '../../spec/check/program-events.ts'
import { type PreloadEventName, PreloadEvents, preloadEventNames } from '../../spec/preload-events.ts'
import { type KnownObject, type KnownObjects, queueOf } from './objects.ts'

/** The object that an event is about; undefined: none. */
export type PreloadOwner<N extends PreloadEventName> = (typeof PreloadEvents)[N]['about'] extends 'context'
  ? undefined
  : KnownObject

/** What takes events of preload libraries. */
export interface PreloadReceiver {
  readonly on?: {
    readonly [N in PreloadEventName]?: (event: ProgramEvent<N>, owner: PreloadOwner<N>) => void
  }
}

type Told = Pick<ProgramEvent<PreloadEventName>, 'event' | 'context' | 'deviceNumber'>

const ownerOf = (objects: KnownObjects, event: Told): KnownObject | undefined => {
  const { about } = PreloadEvents[event.event]
  const { queue = 0, number = 0 } = event as { readonly queue?: number; readonly number?: number }
  const { context, deviceNumber } = event
  if (about === 'qp') return objects.qp(deviceNumber, number)
  return about === 'queue'
    ? queueOf(objects, { context, deviceNumber, queue, number })
    : objects.byHandle(context, about, number)
}

/** Returns what gives an event to `receivers`, in their order. */
export const preloadDispatch = (
  objects: KnownObjects,
  receivers: Iterable<PreloadReceiver>,
): ((event: ProgramEvent<PreloadEventName>) => void) => {
  const all = [...receivers].map(({ on }) => on as Readonly<Record<string, (event: Told, owner: unknown) => void>>)
  const byName = Object.fromEntries(
    preloadEventNames.map(name => [name, all.flatMap(on => (on?.[name] === undefined ? [] : [on[name]]))]),
  )
  return event => {
    const { about, isGone = false }: { about: string; isGone?: boolean } = PreloadEvents[event.event]
    const owner = about === 'context' ? undefined : ownerOf(objects, event)
    if (about !== 'context' && (owner === undefined || (owner.destruction !== undefined) !== isGone)) return
    for (const receive of byName[event.event]!) receive(event, owner)
  }
}
