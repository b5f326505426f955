/*
 * DMA handles, and regions with one.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { invokeNow } from '../../src/core/index.ts'
import { ExtendedDeviceAttributes } from '../../src/spec/classes/device/device.ts'
import { Classes } from '../../src/spec/classes.ts'
import { AccessFlags, TphMemType } from '../../src/spec/enums.ts'
import { type In, zeroRecord } from '../../src/spec/schema/schema.ts'
import { errnoOf, openTestDevice } from './fixture.ts'

const { dmah: Dmah, mr: Mr, pd: Pd } = Classes
const { LOCAL_WRITE, ON_DEMAND } = AccessFlags.values
const { VM, PM } = TphMemType.values

const setUp = () => {
  const setup = openTestDevice({ extended: { ...zeroRecord(ExtendedDeviceAttributes), odpGeneralCaps: 1n } })
  // processor 1 exists, but not for this caller
  const caller = { ...setup.caller, processors: () => [true, false] }
  const create = (args: In<typeof Dmah.methods.create>) =>
    invokeNow(setup.context, Dmah, 'create', 0, args, caller).object!
  return { ...setup, caller, create }
}

test('a DMA handle has a processing hint, and a processor with a kind of memory or neither', () => {
  const { create } = setUp()
  for (const [args, result] of [
    [{ ph: 3 }, 'ok'],
    [{ ph: 0, cpuId: 0, tphMemType: PM }, 'ok'],
    [{}, 'EINVAL'],
    [{ cpuId: 0, tphMemType: VM }, 'EINVAL'],
    [{ ph: 0, cpuId: 0 }, 'EINVAL'],
    [{ ph: 0, tphMemType: VM }, 'EINVAL'],
    [{ ph: 0, cpuId: 1, tphMemType: VM }, 'EPERM'],
    [{ ph: 0, cpuId: 2, tphMemType: VM }, 'EINVAL'],
    [{ ph: 0, cpuId: 0xffff_ffff, tphMemType: VM }, 'EINVAL'],
  ] as const)
    assert.equal(
      errnoOf(() => create(args)),
      result,
      JSON.stringify(args),
    )
})

test('a region keeps its DMA handle in use, and is not on demand', () => {
  const { context, caller, create } = setUp()
  const dmah = create({ ph: 1 })
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  const start = BigInt(caller.memory.add(new Uint8Array(4096)))
  const register = (access: number) =>
    invokeNow(context, Mr, 'create', 0, { pd, dmah, start, length: 4096n, iova: start, access }, caller).object!
  const destroy = () => errnoOf(() => invokeNow(context, Dmah, 'destroy', dmah, {}, caller))
  assert.equal(
    errnoOf(() => register(LOCAL_WRITE | ON_DEMAND)),
    'EINVAL',
  )
  const mr = register(LOCAL_WRITE)
  assert.equal(destroy(), 'EBUSY')
  invokeNow(context, Mr, 'destroy', mr, {}, caller)
  assert.equal(destroy(), 'ok')
})
