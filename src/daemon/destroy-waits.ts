/*
 * Destroys that wait. libibverbs returns from ibv_destroy_cq, _qp and _srq when the program has acknowledged every
 * event that it has read of the object. For the daemon the object is gone by then, so it looks into the program: the
 * user handle of libibverbs is the address of the object's structure, in which the acknowledged events are counted.
 * A structure is believed only while the object's handle stands in it.
 */
import type { Caller, CoreObject, EventsRead } from '../core/model.ts'
import { because } from '../spec/causes.ts'
import { CallError } from '../spec/errno.ts'
import type { Failure } from '../spec/failures.ts'

export interface DestroyWaits {
  /** An object was destroyed of which `caller` has read events. */
  add(object: CoreObject, read: EventsRead, caller: Caller): void
  /** The caller has gone, and its memory with it. */
  drop(caller: Caller): void
  /** Those that wait now. */
  now(): readonly DestroyWait[]
}

export interface DestroyWait {
  readonly object: CoreObject
  readonly failure: Failure
}

/** Milliseconds that a program has to acknowledge before it is told of. */
const PATIENCE = 1000
/** Destroys of one client that are looked after. */
const MOST_WAITS = 64

// struct ibv_cq, ibv_qp, ibv_srq of verbs.h, 64 bits: where the handle stands, the number that people know, and behind
// a mutex and a condition variable the counts of acknowledged events.
const MUTEX = process.arch === 'arm64' ? 48 : 40
const CONDITION = 48
export const layouts = {
  cq: { handle: 24, number: 24, counts: 32 + MUTEX + CONDITION },
  qp: { handle: 48, number: 52, counts: 64 + MUTEX + CONDITION },
  srq: { handle: 24, number: 24, counts: 32 + MUTEX + CONDITION },
} as const

const structureOf = ({ class: { name } }: CoreObject): keyof typeof layouts =>
  name === 'cq' ? 'cq' : name.endsWith('srq') ? 'srq' : 'qp'

interface Watched {
  readonly object: CoreObject
  readonly read: EventsRead
  readonly caller: Caller
}

/** Why the destroy waits; undefined if it does not, or if that cannot be known. */
const causeOf = ({ object, read, caller }: Watched) => {
  const structure = structureOf(object)
  const { handle, number, counts } = layouts[structure]
  let bytes: Uint8Array
  try {
    bytes = caller.copyIn(object.events?.userHandle ?? 0n, counts + 8)
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (view.getUint32(handle, true) !== object.handle) return undefined
  const facts = { object: structure, number: view.getUint32(number, true) }
  const [first, second] = [view.getUint32(counts, true), view.getUint32(counts + 4, true)]
  const asyncs = structure === 'cq' ? second : first
  if (structure === 'cq' && first !== read.compEvents)
    return because('UNACKNOWLEDGED', { ...facts, done: first, read: read.compEvents, call: 'ibv_ack_cq_events' })
  if (asyncs !== read.asyncEvents)
    return because('UNACKNOWLEDGED', { ...facts, done: asyncs, read: read.asyncEvents, call: 'ibv_ack_async_event' })
  return undefined
}

/** `tell` is called once for each destroy that still waits when a program has had its time. */
export const createDestroyWaits = (
  tell: (wait: DestroyWait) => void,
  later: (run: () => void) => void = run => void setTimeout(run, PATIENCE).unref(),
): DestroyWaits => {
  const watched = new Set<Watched>()

  const look = (one: Watched): DestroyWait | undefined => {
    const cause = causeOf(one)
    if (cause === undefined) {
      watched.delete(one)
      return undefined
    }
    const { object } = one
    const device = object.context?.device.name ?? ''
    return { object, failure: { what: 'wait', device, cause } }
  }

  const countOf = (caller: Caller): number => {
    let count = 0
    for (const one of watched) if (one.caller === caller) count++
    return count
  }

  return {
    add(object, read, caller) {
      const one = { object, read, caller }
      if (causeOf(one) === undefined || countOf(caller) >= MOST_WAITS) return
      watched.add(one)
      later(() => {
        const wait = watched.has(one) ? look(one) : undefined
        if (wait !== undefined) tell(wait)
      })
    },
    drop(caller) {
      for (const one of watched) if (one.caller === caller) watched.delete(one)
    },
    now: () => [...watched].flatMap(one => look(one) ?? []),
  }
}
