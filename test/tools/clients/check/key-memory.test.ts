/*
 * The memory of a key, for the race checks: the key of a region, of a bound window, or of neither.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { invokeNow } from '../../../../src/core/index.ts'
import { bindWindow } from '../../../../src/core/memory/windows.ts'
import { Mr } from '../../../../src/spec/classes/mr.ts'
import { Mw } from '../../../../src/spec/classes/mw.ts'
import { AccessFlags, MrKind, MwType } from '../../../../src/spec/enums.ts'
import { keyMemory } from '../../../../src/tools/clients/check/key-memory.ts'
import { machine, program, register } from '../../../drivers/rxe/machine.ts'

const { LOCAL_WRITE, REMOTE_WRITE, MW_BIND } = AccessFlags.values
/** Index of the only device, and an index without a device. */
const [DEVICE, NO_DEVICE] = [0, 1]
/** The iova of the region minus its start. */
const IOVA_OFFSET = 0x10_0000

const setUp = () => {
  const m = machine(1)
  const memoryOf = keyMemory(index => (index === DEVICE ? m.devices[0]!.device : undefined))
  return { m, memoryOf }
}

it('a key of a region has the address space of the region, and the shift from iova to address', () => {
  const { m, memoryOf } = setUp()
  const [first, second] = [program(m), program(m)]
  const regions = [register(first, 100), register(second, 100), register(first, 100)]
  assert.deepEqual(
    regions.map(({ rkey }) => memoryOf(DEVICE, rkey)),
    regions.map(({ rkey }, i) => ({ space: [1, 2, 1][i], shift: 0, region: rkey })),
  )
  const start = BigInt(first.space.add(new Uint8Array(100)))
  const args = { pd: first.pd, start, length: 100n, iova: start + BigInt(IOVA_OFFSET), access: LOCAL_WRITE }
  const { lkey } = invokeNow(first.context, Mr, 'create', 0, args, first.caller).out
  assert.deepEqual(memoryOf(DEVICE, lkey), { space: 1, shift: -IOVA_OFFSET, region: lkey })
})

it('a key of a region at the iova 2^53 or above, where numbers are not exact, has no memory', () => {
  const { m, memoryOf } = setUp()
  const { space, pd, context, caller } = program(m)
  const start = BigInt(space.add(new Uint8Array(100)))
  const inPage = start % 4096n
  const shifts = [2n ** 53n - 4096n, 2n ** 53n, 2n ** 64n - 8192n].map(page => {
    const args = { pd, start, length: 8n, iova: page + inPage, access: LOCAL_WRITE }
    return memoryOf(DEVICE, invokeNow(context, Mr, 'create', 0, args, caller).out.lkey)?.shift
  })
  assert.deepEqual(shifts, [Number(start - inPage) - (2 ** 53 - 4096), undefined, undefined])
})

it('a key has no memory if the key or the device does not exist, or after the region is destroyed', () => {
  const { m, memoryOf } = setUp()
  const p = program(m)
  const { rkey, handle } = register(p, 100)
  assert.ok(memoryOf(DEVICE, rkey))
  assert.equal(memoryOf(NO_DEVICE, rkey), undefined)
  // another key of the same index, another index
  for (const key of [rkey ^ 1, rkey + 0x100, 0, 0xffff_ffff]) assert.equal(memoryOf(DEVICE, key), undefined)
  invokeNow(p.context, Mr, 'destroy', handle, {}, p.caller)
  assert.equal(memoryOf(DEVICE, rkey), undefined)
})

it('a key of a region of kind NULL has no memory', () => {
  const { m, memoryOf } = setUp()
  const { pd, context, caller } = program(m)
  const args = { pd, start: 0n, length: 100n, iova: 0n, access: LOCAL_WRITE, kind: MrKind.values.NULL }
  assert.equal(memoryOf(DEVICE, invokeNow(context, Mr, 'create', 0, args, caller).out.lkey), undefined)
})

it('a key of a bound window has the memory of the region', () => {
  const { m, memoryOf } = setUp()
  const p = program(m)
  const mr = register(p, 100, LOCAL_WRITE | REMOTE_WRITE | MW_BIND)
  const { rkey } = invokeNow(p.context, Mw, 'create', 0, { pd: p.pd, type: MwType.values.TYPE_2 }, p.caller).out
  assert.equal(memoryOf(DEVICE, rkey), undefined)
  const pdId = p.context.handles.slots.find(object => object?.class.name === 'pd')!.id
  const start = { hi: Math.floor(mr.address / 2 ** 32), lo: mr.address >>> 0 }
  const range = { ...start, lengthHi: 0, lengthLo: 64 }
  const bind = { window: rkey, key: rkey, lkey: mr.lkey, ...range, access: REMOTE_WRITE }
  assert.ok(bindWindow(p.rxe.device.memory, pdId, 0, bind))
  assert.deepEqual(memoryOf(DEVICE, rkey), { space: 1, shift: 0, region: mr.lkey })
})
