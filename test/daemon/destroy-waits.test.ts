/*
 * Destroys that wait until the program acknowledges events.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Caller, CoreObject } from '../../src/core/model.ts'
import { createContainment } from '../../src/daemon/containment.ts'
import { createDestroyWaits, layouts } from '../../src/daemon/destroy-waits.ts'
import { failureText } from '../../src/spec/check/failures.ts'

/** Maximum number of watched destroys of a program. */
const MAX_WAITS = 64

test('destroys that waited for long, and have ended, do not count towards the maximum', () => {
  /** The program's structures, by address. */
  const structures = new Map<bigint, DataView>()
  const caller = { copyIn: (address: bigint) => new Uint8Array(structures.get(address)!.buffer) } as Partial<Caller>
  const scheduled: (() => void)[] = []
  let reports = 0
  const waits = createDestroyWaits(
    () => reports++,
    createContainment(),
    run => scheduled.push(run),
  )
  const destroy = (handle: number): DataView => {
    const userHandle = BigInt(handle) << 12n
    const structure = new DataView(new ArrayBuffer(layouts.cq.counts + 8))
    structure.setUint32(layouts.cq.handle, handle, true)
    structures.set(userHandle, structure)
    const cq = { class: { name: 'cq' }, handle, events: { userHandle } } as Partial<CoreObject>
    waits.add(cq as CoreObject, { compEvents: 1, asyncEvents: 0 }, caller as Caller)
    for (const run of scheduled.splice(0)) run()
    return structure
  }
  for (let handle = 1; handle <= MAX_WAITS; handle++) {
    const structure = destroy(handle)
    assert.equal(reports, handle)
    // the program acknowledges the event
    structure.setUint32(layouts.cq.counts, 1, true)
  }
  destroy(MAX_WAITS + 1)
  assert.equal(reports, MAX_WAITS + 1)
})

test('the destroy of a work queue waits for the acknowledgement of its events', () => {
  const handle = 7
  const structure = new DataView(new ArrayBuffer(256))
  // struct ibv_wq of verbs.h
  structure.setUint32(32, 0x12, true) // wq_num
  structure.setUint32(36, handle, true)
  const caller = { copyIn: (_address: bigint, length: number) => new Uint8Array(structure.buffer, 0, length) }
  const reasons: string[] = []
  const waits = createDestroyWaits(
    ({ failure }) => reasons.push(failureText(failure)),
    createContainment(),
    run => run(),
  )
  const wq = { class: { name: 'wq' }, handle, events: { userHandle: 0x1000n } } as Partial<CoreObject>
  waits.add(wq as CoreObject, { compEvents: 0, asyncEvents: 1 }, caller as Partial<Caller> as Caller)
  assert.match(reasons.join(), /destroy_wq of 0x12 waits: 0 of the 1 events/)
})
