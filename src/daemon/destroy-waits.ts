/*
 * Destroys that wait. libibverbs returns from ibv_destroy_cq, _qp and _srq when the program has acknowledged every
 * event of the object that it has read. The daemon has destroyed the object by then, so it reads the program's memory:
 * libibverbs' user handle is the address of the object's structure, which counts the acknowledged events. A structure
 * is trusted only while it contains the object's handle.
 */
import type { Caller, CoreObject, EventsRead } from '../core/model.ts'
import { because } from '../spec/causes.ts'
import { CallError } from '../spec/errno.ts'
import type { Failure } from '../spec/failures.ts'

export interface DestroyWaits {
  /** An object was destroyed of which `caller` has read events. */
  add(object: CoreObject, read: EventsRead, caller: Caller): void
  /** The caller has ended, and its memory with it. */
  drop(caller: Caller): void
  /** The destroys that wait now. */
  now(): readonly DestroyWait[]
}

export interface DestroyWait {
  readonly object: CoreObject
  readonly failure: Failure
}

/** Milliseconds that a program has to acknowledge before the wait is logged. */
const PATIENCE = 1000
/** Maximum watched destroys of one client. */
const MAX_WAITS = 64

// struct ibv_cq, ibv_qp, ibv_srq of verbs.h, 64 bits: offsets of the handle, of the number that users know, and, after
// a mutex and a condition variable, of the counts of acknowledged events.
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

/** Why the destroy waits; undefined if it does not, or if this cannot be determined. */
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

/** `report` is called once for each destroy that still waits after this time. */
export const createDestroyWaits = (
  report: (wait: DestroyWait) => void,
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
      if (causeOf(one) === undefined || countOf(caller) >= MAX_WAITS) return
      watched.add(one)
      later(() => {
        const wait = watched.has(one) ? look(one) : undefined
        if (wait !== undefined) report(wait)
      })
    },
    drop(caller) {
      for (const one of watched) if (one.caller === caller) watched.delete(one)
    },
    now: () => [...watched].flatMap(one => look(one) ?? []),
  }
}
