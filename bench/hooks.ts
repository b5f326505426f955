/*
 * Rows "hooks": the cost of hooks (R24) on a minimal call, compared with a device that never had a hook. A removed hook
 * must leave no cost: the device uses its original dispatch table.
 */
import { addHook, createCore, invokeNow, noMemory, openContext } from '../src/core/index.ts'
import { createNullDevice, Sink } from '../src/drivers/null/device.ts'
import { Classes } from '../src/spec/classes.ts'
import type { Bench, Row } from './harness/harness.ts'
import { type Body, perCall } from './loops.ts'

const unexpected = (): never => {
  throw new Error('calls of this row point to no memory')
}
const caller = { memory: noMemory, copyIn: unexpected, copyOut: unexpected, descriptor: () => undefined }
const core = createCore()

const prepareCalls = (deviceName: string) => {
  const device = createNullDevice(core, deviceName)
  const context = openContext(device, { isOpened: true })
  const pd = invokeNow(context, Classes.pd, 'create', 0, {}, caller).object as number
  const sink = invokeNow(context, Sink, 'create', 0, { pd }, caller).object as number
  const args = { data: new Uint8Array(1) }
  const body: Body = times => {
    for (let i = 0; i < times; i++) invokeNow(context, Sink, 'take', sink, args, caller)
    return times
  }
  return { device, body }
}

const row = (name: string, quantity: string, floor: number, aim: number, prepare: () => Bench): Row => ({
  name,
  quantity,
  unit: 'ns',
  better: 'lower',
  cores: 1,
  reference: 'a device that never had a hook',
  floor,
  aim,
  prepare,
})

export const hookRows: readonly Row[] = [
  row('hooks off', 'a call on a device whose hook was removed', 1.15, 1.05, () => {
    const [ours, reference] = [prepareCalls('off'), prepareCalls('never')]
    const removeHook = addHook(ours.device, { pre() {} })
    removeHook()
    return { ours: perCall(ours.body), reference: perCall(reference.body) }
  }),
  row('hooks on', 'a call with a hook before and after it', 3, 2, () => {
    const [ours, reference] = [prepareCalls('on'), prepareCalls('without')]
    addHook(ours.device, { pre() {}, post() {} })
    return { ours: perCall(ours.body), reference: perCall(reference.body) }
  }),
]
