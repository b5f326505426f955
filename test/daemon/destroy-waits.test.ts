/*
 * Destroys that wait until the program acknowledges events.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Caller, CoreObject } from '../../src/core/model.ts'
import { createContainment } from '../../src/daemon/containment.ts'
import { createDestroyWaits, layouts } from '../../src/daemon/destroy-waits.ts'

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
