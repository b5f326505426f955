/*
 * Finds destroys, and moves of identifiers, that wait for the program to acknowledge events. libibverbs'
 * ibv_destroy_cq, _qp, _srq and _wq return only when the program has acknowledged every event that it has read of the
 * object. libibverbs waits after the daemon has destroyed the object. So the daemon reads the counts of acknowledged
 * events from the program's memory, in struct ibv_cq, ibv_qp, ibv_srq or ibv_wq; its address is the object's user
 * handle. The counts are valid only while the structure contains the object's handle and the same struct ibv_context,
 * and no new object of the context has both the handle and the structure.
 *
 * librdmacm's rdma_destroy_id and rdma_migrate_id wait in the same way. Its structure is private: that of rdma-core 24
 * and newer. If the program has another version, the handle is not at this offset, and no wait is found.
 */
import type { Caller, CoreObject, EventsRead } from '../../../core/model.ts'
import { findHandle } from '../../../core/objects/handles.ts'
import { createCause } from '../../../spec/check/causes.ts'
import type { Failure } from '../../../spec/check/failures.ts'
import { isSrqClass } from '../../../spec/classes/ids.ts'
import { CallError } from '../../../spec/errno.ts'
import type { Containment } from '../../containment.ts'

export interface DestroyWaits {
  /** Watches the destroy of an object. `read`: how many events of the object `caller` has read. */
  add(object: CoreObject, read: EventsRead, caller: Caller): void
  /** Stops watching the caller's destroys. */
  removeCaller(caller: Caller): void
  /** The destroys that wait now. */
  current(): readonly DestroyWait[]
}

interface DestroyWait {
  readonly object: CoreObject
  readonly failure: Failure
}

/** Milliseconds after which a destroy that still waits is reported. */
const REPORT_AFTER = 1000
/** Maximum number of watched destroys of one caller. */
const MAX_WAITS = 64

// Byte offsets in struct ibv_cq, ibv_qp, ibv_srq and ibv_wq of verbs.h (64 bits). Each begins with the address of its
// struct ibv_context. `number`: qp_num, wq_num, or the handle of a CQ or SRQ. `counts`: acknowledged events, after a
// mutex and a condition variable: comp_events_completed and async_events_completed of a CQ, events_completed of the
// others. `cm_id`: struct cma_id_private of librdmacm, which begins with struct rdma_cm_id.
const MUTEX_BYTES = process.arch === 'arm64' ? 48 : 40
const CONDITION_BYTES = 48
export const layouts = {
  cq: { handle: 24, number: 24, counts: 32 + MUTEX_BYTES + CONDITION_BYTES },
  qp: { handle: 48, number: 52, counts: 64 + MUTEX_BYTES + CONDITION_BYTES },
  srq: { handle: 24, number: 24, counts: 32 + MUTEX_BYTES + CONDITION_BYTES },
  wq: { handle: 36, number: 32, counts: 56 + MUTEX_BYTES + CONDITION_BYTES },
  cm_id: { handle: 456 + CONDITION_BYTES + MUTEX_BYTES, number: 456 + CONDITION_BYTES + MUTEX_BYTES, counts: 440 },
} as const

const structureOf = ({ class: { name } }: CoreObject): keyof typeof layouts => {
  if (name === 'cq' || name === 'wq' || name === 'cm_id') return name
  return isSrqClass(name) ? 'srq' : 'qp'
}

/** Whether libibverbs has freed the structure, and the program has created an object with the same handle there. */
const isReplaced = ({ object, read }: Watched): boolean => (read.isMove ? !isAlive(object) : isReplacedByNew(object))

const isAlive = ({ context, handle, events }: CoreObject): boolean =>
  context !== undefined && findHandle(context.handles, handle)?.events === events

const isReplacedByNew = ({ context, handle, events }: CoreObject): boolean => {
  const current = context && findHandle(context.handles, handle)
  return current?.events !== undefined && current.events !== events && current.events.userHandle === events?.userHandle
}

interface Watched {
  readonly object: CoreObject
  readonly read: EventsRead
  readonly caller: Caller
  /** The structure's struct ibv_context or channel at the destroy; undefined: the memory cannot be read. */
  readonly owner: bigint | undefined
}

/**
 * The address of the struct ibv_context, of an identifier that of its channel: free() overwrites both. An identifier
 * has a struct ibv_context only with a device.
 */
const ownerIn = (object: CoreObject, view: DataView): bigint =>
  view.getBigUint64(structureOf(object) === 'cm_id' ? 8 : 0, true)

/** The object's structure in the program's memory; undefined if the memory cannot be read. */
const readStructure = (object: CoreObject, caller: Caller): DataView | undefined => {
  const { handle, counts } = layouts[structureOf(object)]
  try {
    const bytes = caller.copyIn(object.events?.userHandle ?? 0n, Math.max(handle + 4, counts + 8))
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  } catch (error) {
    if (error instanceof CallError) return undefined
    throw error
  }
}

/** Why the destroy waits; undefined if it does not wait, or if the memory cannot be read. */
const causeOfWait = (watched: Watched) => {
  const { object, read, caller, owner } = watched
  // A program that has closed the device may have an object of a later context in the structure.
  if (object.context?.isClosed || isReplaced(watched)) return undefined
  const structure = structureOf(object)
  const { handle, number, counts } = layouts[structure]
  const view = readStructure(object, caller)
  if (view?.getUint32(handle, true) !== object.handle) return undefined
  // rdma_migrate_id replaces the channel before it waits.
  if (!read.isMove && ownerIn(object, view) !== owner) return undefined
  const facts = {
    call: read.isMove ? 'migrate' : 'destroy',
    object: structure === 'cm_id' ? 'id' : structure,
    number: view.getUint32(number, true),
  }
  const firstCount = view.getUint32(counts, true)
  const asyncEvents = structure === 'cq' ? view.getUint32(counts + 4, true) : firstCount
  if (structure === 'cq' && firstCount !== read.compEvents)
    return createCause('UNACKNOWLEDGED', {
      ...facts,
      acknowledged: firstCount,
      read: read.compEvents,
      acknowledge: 'ibv_ack_cq_events',
    })
  // The identifier lives on, and gets further events.
  if (read.isMove ? asyncEvents < read.asyncEvents : asyncEvents !== read.asyncEvents)
    return createCause('UNACKNOWLEDGED', {
      ...facts,
      acknowledged: asyncEvents,
      read: read.asyncEvents,
      acknowledge: structure === 'cm_id' ? 'rdma_ack_cm_event' : 'ibv_ack_async_event',
    })
  return undefined
}

/** `report` is called once for each destroy that still waits after REPORT_AFTER. `schedule`: for tests. */
export const createDestroyWaits = (
  report: (wait: DestroyWait) => void,
  containment: Pick<Containment, 'guard'>,
  schedule: (run: () => void) => void = run => void setTimeout(run, REPORT_AFTER).unref(),
): DestroyWaits => {
  const watched = new Set<Watched>()

  /** If the destroy does not wait any more, stops watching it and returns undefined. */
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

  /** Number of the caller's destroys that wait now. */
  const countOf = (caller: Caller): number => {
    let count = 0
    for (const destroy of watched) if (destroy.caller === caller && waitOf(destroy) !== undefined) count++
    return count
  }

  return {
    add(object, read, caller) {
      const view = readStructure(object, caller)
      const destroy = { object, read, caller, owner: view && ownerIn(object, view) }
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
