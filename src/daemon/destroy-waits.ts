/*
 * Finds destroys that wait for the program to acknowledge events. libibverbs' ibv_destroy_cq, _qp and _srq return only
 * when the program has acknowledged every event of the object that it has read. They wait after the daemon's part of
 * the destroy, so the daemon examines the program's memory: the object's user handle is the address of libibverbs'
 * structure for it, which counts the acknowledged events. A structure counts as the object's only while it contains the
 * object's handle.
 */
import type { Caller, CoreObject, EventsRead } from '../core/model.ts'
import { createCause } from '../spec/check/causes.ts'
import type { Failure } from '../spec/check/failures.ts'
import { CallError } from '../spec/errno.ts'
import type { Containment } from './containment.ts'

export interface DestroyWaits {
  /** Watches the destroy of an object; `caller` has read events of it. */
  add(object: CoreObject, read: EventsRead, caller: Caller): void
  /** The caller has ended: its destroys are not watched any more. */
  removeCaller(caller: Caller): void
  /** The destroys that currently wait. */
  current(): readonly DestroyWait[]
}

export interface DestroyWait {
  readonly object: CoreObject
  readonly failure: Failure
}

/** Milliseconds after which a destroy that still waits is reported. */
const REPORT_AFTER = 1000
/** Maximum number of watched destroys of one client. */
const MAX_WAITS = 64

// Byte offsets in struct ibv_cq, ibv_qp and ibv_srq of verbs.h (64 bits): `handle`; `number`, by which users know the
// object (qp_num; the handle otherwise); and, after a mutex and a condition variable, `counts` of acknowledged events:
// comp_events_completed and async_events_completed of a CQ, events_completed (asynchronous ones) of a QP or SRQ.
const MUTEX_BYTES = process.arch === 'arm64' ? 48 : 40
const CONDITION_BYTES = 48
export const layouts = {
  cq: { handle: 24, number: 24, counts: 32 + MUTEX_BYTES + CONDITION_BYTES },
  qp: { handle: 48, number: 52, counts: 64 + MUTEX_BYTES + CONDITION_BYTES },
  srq: { handle: 24, number: 24, counts: 32 + MUTEX_BYTES + CONDITION_BYTES },
} as const

const structureOf = ({ class: { name } }: CoreObject): keyof typeof layouts =>
  name === 'cq' ? 'cq' : name.endsWith('srq') ? 'srq' : 'qp'

/** A destroy that may wait. */
interface Watched {
  readonly object: CoreObject
  readonly read: EventsRead
  readonly caller: Caller
}

/** Why the destroy waits; undefined if it does not wait, or if this cannot be determined. */
const causeOfWait = ({ object, read, caller }: Watched) => {
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
  const firstCount = view.getUint32(counts, true)
  const asyncEvents = structure === 'cq' ? view.getUint32(counts + 4, true) : firstCount
  if (structure === 'cq' && firstCount !== read.compEvents)
    return createCause('UNACKNOWLEDGED', {
      ...facts,
      acknowledged: firstCount,
      read: read.compEvents,
      call: 'ibv_ack_cq_events',
    })
  if (asyncEvents !== read.asyncEvents)
    return createCause('UNACKNOWLEDGED', {
      ...facts,
      acknowledged: asyncEvents,
      read: read.asyncEvents,
      call: 'ibv_ack_async_event',
    })
  return undefined
}

/**
 * `report` is called once for each destroy that still waits after REPORT_AFTER; `schedule` runs a function after that
 * time.
 */
export const createDestroyWaits = (
  report: (wait: DestroyWait) => void,
  containment: Pick<Containment, 'guard'>,
  schedule: (run: () => void) => void = run => void setTimeout(run, REPORT_AFTER).unref(),
): DestroyWaits => {
  const watched = new Set<Watched>()

  /** The wait of a watched destroy. If it does not wait any more: undefined, and it is not watched any more. */
  const waitOf = (destroy: Watched): DestroyWait | undefined => {
    const cause = causeOfWait(destroy)
    if (cause === undefined) {
      watched.delete(destroy)
      return undefined
    }
    const { object } = destroy
    const device = object.context?.device.name ?? ''
    return { object, failure: { kind: 'wait', device, cause } }
  }

  const countOf = (caller: Caller): number => {
    let count = 0
    for (const destroy of watched) if (destroy.caller === caller) count++
    return count
  }

  return {
    add(object, read, caller) {
      const destroy = { object, read, caller }
      if (causeOfWait(destroy) === undefined || countOf(caller) >= MAX_WAITS) return
      watched.add(destroy)
      schedule(
        containment.guard('a destroy that waits', () => {
          const wait = watched.has(destroy) ? waitOf(destroy) : undefined
          if (wait !== undefined) report(wait)
        }),
      )
    },
    removeCaller(caller) {
      for (const destroy of watched) if (destroy.caller === caller) watched.delete(destroy)
    },
    current: () => [...watched].flatMap(destroy => waitOf(destroy) ?? []),
  }
}
