/*
 * Destroys that wait until the program acknowledges events.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Caller, Context, CoreObject, EventsRead } from '../../../../src/core/model.ts'
import { createHandles, takeHandle } from '../../../../src/core/objects/handles.ts'
import { createDestroyWaits, layouts } from '../../../../src/daemon/check/waits/destroys.ts'
import { createContainment } from '../../../../src/daemon/containment.ts'
import { failureText } from '../../../../src/spec/check/failures.ts'
import { CallError } from '../../../../src/spec/errno.ts'

/** Maximum number of watched destroys of a program. */
const MAX_WAITS = 64
/** Bytes for any of the structures. */
const STRUCTURE_BYTES = 256

const structureAddress = (number: number): bigint => BigInt(number) << 12n

/** `elapse` lets the time pass after which destroys are reported; `reports` are their texts. */
const setUp = () => {
  const scheduled: (() => void)[] = []
  const reports: string[] = []
  const waits = createDestroyWaits(
    ({ failure }) => reports.push(failureText(failure)),
    createContainment(),
    run => scheduled.push(run),
  )
  const elapse = (): void => {
    for (const run of scheduled.splice(0)) run()
  }
  return { waits, reports, elapse }
}

/** A program, which has a structure for each object. */
const createProgram = ({ waits }: Pick<ReturnType<typeof setUp>, 'waits'>) => {
  /** By address. */
  const structures = new Map<bigint, DataView>()
  const handles = createHandles<CoreObject>()
  const context = { handles, device: { name: 'rxe0' } } as Partial<Context> as Context
  const caller = {
    copyIn(address: bigint, length: number) {
      const structure = structures.get(address)
      if (structure === undefined) throw new CallError('EFAULT', 'nothing is mapped there')
      return new Uint8Array(structure.buffer, 0, length)
    },
  } as Partial<Caller> as Caller
  return {
    caller,
    /**
     * Destroys an object of which the program has read events, and acknowledged none. The handle is also the number of
     * the object's structure.
     */
    destroy(name: keyof typeof layouts, handle: number, read: Partial<EventsRead>) {
      const userHandle = structureAddress(handle)
      const structure = new DataView(new ArrayBuffer(STRUCTURE_BYTES))
      structure.setUint32(layouts[name].handle, handle, true)
      structures.set(userHandle, structure)
      const object = { class: { name }, handle, events: { userHandle }, context } as Partial<CoreObject>
      waits.add(object as CoreObject, { compEvents: 0, asyncEvents: 0, ...read }, caller)
      return { structure, unmap: () => structures.delete(userHandle) }
    },
    closeDevice: () => Object.assign(context, { isClosed: true }),
    /** Creates an object with the lowest free handle in structure number `structure`. */
    create(structure: number): void {
      const handle = handles.slots.length
      takeHandle(handles, {
        handle,
        events: { userHandle: structureAddress(structure) },
      } as Partial<CoreObject> as CoreObject)
    },
  }
}

test('destroys that waited for long, and have ended, do not count towards the maximum', () => {
  const { waits, reports, elapse } = setUp()
  const program = createProgram({ waits })
  for (let handle = 1; handle <= MAX_WAITS; handle++) {
    const { structure } = program.destroy('cq', handle, { compEvents: 1 })
    elapse()
    assert.equal(reports.length, handle)
    // the program acknowledges the event
    structure.setUint32(layouts.cq.counts, 1, true)
  }
  program.destroy('cq', MAX_WAITS + 1, { compEvents: 1 })
  elapse()
  assert.equal(reports.length, MAX_WAITS + 1)
})

test('at most 64 destroys of a program are watched; they do not count towards the maximum of another', () => {
  const { waits, reports, elapse } = setUp()
  const [program, other] = [createProgram({ waits }), createProgram({ waits })]
  for (let handle = 1; handle <= MAX_WAITS + 1; handle++) program.destroy('cq', handle, { compEvents: 1 })
  assert.equal(waits.current().length, MAX_WAITS)
  other.destroy('cq', 1, { compEvents: 1 })
  assert.equal(waits.current().length, MAX_WAITS + 1)
  waits.removeCaller(program.caller)
  assert.equal(waits.current().length, 1)
  elapse()
  assert.equal(reports.length, 1, 'a destroy of a program that has ended is not reported')
})

test('the destroy of a work queue waits for the acknowledgement of its events', () => {
  const { waits, reports, elapse } = setUp()
  const { structure } = createProgram({ waits }).destroy('wq', 7, { asyncEvents: 1 })
  // struct ibv_wq of verbs.h: wq_num, handle
  structure.setUint32(32, 0x12, true)
  assert.equal(structure.getUint32(36, true), 7)
  elapse()
  assert.match(reports.join(), /destroy_wq of 0x12 waits: 0 of the 1 events/)
  structure.setUint32(layouts.wq.counts, 1, true)
  assert.deepEqual(waits.current(), [], 'the program has acknowledged the event')
})

test('a completion queue counts completion events and asynchronous events separately', () => {
  const { waits } = setUp()
  const { structure } = createProgram({ waits }).destroy('cq', 3, { compEvents: 2, asyncEvents: 1 })
  const completionCountAt = layouts.cq.counts
  const asyncCountAt = layouts.cq.counts + 4
  const text = (): string =>
    waits
      .current()
      .map(({ failure }) => failureText(failure))
      .join()
  assert.match(text(), /0 of the 2 events.*ibv_ack_cq_events/)
  structure.setUint32(completionCountAt, 2, true)
  assert.match(text(), /0 of the 1 events.*ibv_ack_async_event/)
  structure.setUint32(asyncCountAt, 1, true)
  assert.equal(text(), '')
})

test('no destroy waits if nothing was read, the structure is of another object, or it cannot be read', () => {
  const { waits, reports, elapse } = setUp()
  const program = createProgram({ waits })
  program.destroy('qp', 1, {})
  assert.deepEqual(waits.current(), [])
  program.destroy('qp', 2, { asyncEvents: 1 }).structure.setUint32(layouts.qp.handle, 9, true)
  program.destroy('srq', 3, { asyncEvents: 1 }).unmap()
  elapse()
  assert.deepEqual([reports, waits.current()], [[], []])
})

test('no destroy waits if a new object has the handle and the structure', () => {
  const { waits, reports, elapse } = setUp()
  const program = createProgram({ waits })
  program.destroy('cq', 0, { compEvents: 1 })
  program.destroy('cq', 1, { compEvents: 1 })
  program.create(0)
  // The handle of the second queue, in a structure of its own: the destroy of the second queue still waits.
  program.create(2)
  assert.equal(waits.current().length, 1)
  elapse()
  assert.match(reports.join(), /^[^,]*destroy_cq of 0x1 waits/)
})

test('no destroy waits if an object of another context has the handle and the structure', () => {
  const { waits, reports, elapse } = setUp()
  const { structure } = createProgram({ waits }).destroy('srq', 0, { asyncEvents: 1 })
  assert.equal(waits.current().length, 1)
  // struct ibv_srq of verbs.h: context
  structure.setBigUint64(0, 0x1000n, true)
  elapse()
  assert.deepEqual([reports, waits.current()], [[], []])
})

test('no destroy waits after the program has closed the device', () => {
  const { waits, reports, elapse } = setUp()
  const { destroy, closeDevice } = createProgram({ waits })
  destroy('cq', 0, { compEvents: 1 })
  closeDevice()
  elapse()
  assert.deepEqual([reports, waits.current()], [[], []])
})

test('rdma_migrate_id waits until all events that were read are acknowledged; later ones do not count', () => {
  const { waits, reports, elapse } = setUp()
  const handles = createHandles<CoreObject>()
  const context = { handles, device: { name: 'rxe0' } } as Partial<Context> as Context
  const structure = new DataView(new ArrayBuffer(layouts.cm_id.handle + 4))
  const caller = { copyIn: () => new Uint8Array(structure.buffer) } as Partial<Caller> as Caller
  const id = { class: { name: 'cm_id' }, handle: 0, events: { userHandle: 1n }, context } as Partial<CoreObject>
  takeHandle(handles, id as CoreObject)
  const move = (): void => waits.add(id as CoreObject, { compEvents: 0, asyncEvents: 2, isMove: true }, caller)
  structure.setUint32(layouts.cm_id.counts, 1, true)
  move()
  // librdmacm sets the new channel before it waits.
  structure.setBigUint64(8, 0x1000n, true)
  elapse()
  assert.match(reports.join(), /^(.*: )?migrate_id of 0x0 waits: 1 of the 2 events .* \(rdma_ack_cm_event\)$/)
  structure.setUint32(layouts.cm_id.counts, 3, true)
  assert.deepEqual(waits.current(), [])
})
