/*
 * Keeps the table of objects by what programs call, before detectors look at it, and tells them the parts of each call.
 */
import type { CheckedCall, ProgramEvent, ProgramEventName } from '../../spec/check/program-events.ts'
import { QpState } from '../../spec/enums.ts'
import { addressText } from '../../transport/wire/address.ts'
import type { DetectorServices } from './detector.ts'
import type { Dispatch } from './dispatch.ts'
import { noteLostByDestroy } from './lost-work.ts'
import { addressIn, KnownObject, moment, participles, type QpAttributes, stateOf } from './objects.ts'

/** Takes the events that change the table. */
type Keeper = { readonly [N in ProgramEventName]?: (event: ProgramEvent<N>) => void }

export const createKeeper = ({ objects, sources }: DetectorServices, dispatch: Dispatch): Keeper => {
  /** Adds the identifier of a call that no call has created: rdma_cm creates one for each request of a peer. */
  const requestOf = (call: CheckedCall): KnownObject | undefined => {
    const { object, method, time } = call
    if (object?.class.name !== 'cm_id' || method === 'create') return undefined
    const creation = moment('created for a request of the peer', time, [])
    const known = new KnownObject(object, { ...call, args: {}, out: {} }, creation, new Map())
    objects.add(known)
    return known
  }

  const setAttributes = (known: KnownObject, args: CheckedCall['args']): void => {
    const { state } = args as QpAttributes
    if (state === QpState.values.RESET) for (const opener of objects.openersOf(known)) opener.reset()
    // An attribute that is undefined is not changed.
    const isSet = ([, value]: [string, unknown]): boolean => value !== undefined
    Object.assign(known.attributes, Object.fromEntries(Object.entries(args).filter(isSet)))
    const address = addressIn(args)
    if (address !== undefined) known.attributes.address = address
  }

  const created = (call: CheckedCall): void => {
    const { object, args } = call
    if (object === undefined) return
    const creation = moment(participles(call.class).created, call.time, call.stack)
    const known = new KnownObject(object, call, creation, objects.usedBy(args))
    objects.add(known)
    if (known.isQp) setAttributes(known, args)
    dispatch.part('created', call, known)
  }

  const modified = (call: CheckedCall, known: KnownObject): void => {
    if (known.isQp) setAttributes(known, call.args)
    else known.modified(call.args, call.out)
    const state = known.isQp ? (call.args as QpAttributes).state : undefined
    const change = moment(state === undefined ? 'modified' : `modified to ${stateOf(known)}`, call.time, call.stack)
    known.addChange(state === undefined ? change : { ...change, state })
    dispatch.part('modified', call, known)
  }

  const destroyed = (call: CheckedCall, known: KnownObject): void => {
    dispatch.part('ends', call, known)
    const action = {
      call: participles(call.class).destroyed,
      undo: 'rolled back',
      close: 'closed with its device',
      remove: 'removed with its device',
    }[call.why]
    known.wasKilled = call.wasKilled === true
    objects.remove(known, moment(action, call.time, call.stack))
    dispatch.part('destroyed', call, known)
  }

  /** What a call that was not refused changes. */
  const changes: Readonly<Record<string, (call: CheckedCall, known: KnownObject) => void>> = {
    modify: modified,
    destroy: destroyed,
    attachMcast: ({ args }, { groups }) => groups.add(addressText(args.gid as Uint8Array)),
    detachMcast: ({ args }, { groups }) => groups.delete(addressText(args.gid as Uint8Array)),
    bind: ({ time, stack }, known) => known.class === 'cm_id' && known.addChange(moment('bound', time, stack)),
  }

  return {
    calling(event) {
      const known = objects.find(event.object)
      if (known === undefined) return
      noteLostByDestroy(event, known)
      dispatch.event(event, known)
    },
    called(event) {
      const { object, refused, method, why } = event
      const before = object && (objects.find(object.id) ?? requestOf(event))
      if (refused !== undefined) {
        if (why === 'call') dispatch.part('refused', { ...event, refused }, before)
      } else if (method === 'create') created(event)
      else if (before !== undefined) changes[method]?.(event, before)
      const known = before ?? (object && objects.find(object.id))
      if (known === undefined) dispatch.part('asked', event)
      else dispatch.event(event, known)
    },
    contextEnds(event) {
      dispatch.event(event)
      if (event.pendingSends !== undefined) dispatch.part('contextSettled', event)
    },
    unmapped(event) {
      const region = objects.find(event.object)
      if (region === undefined) return
      const { program, start, size } = region
      const stack =
        program && start !== undefined && size !== undefined
          ? sources.unmapStack?.(program, start, start + size)
          : undefined
      if (stack !== undefined) region.addChange(moment('unmapped', sources.now(), stack))
      dispatch.event(event, region)
    },
    internal({ context, class: name, handle }) {
      const known = objects.byHandle(context, name, handle)
      if (known !== undefined) known.isInternal = true
    },
    messages({ context, handle }) {
      const known = objects.byHandle(context, 'rc_qp', handle)
      if (known !== undefined) known.hasMessages = true
    },
  }
}
