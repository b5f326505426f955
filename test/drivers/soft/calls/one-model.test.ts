/*
 * Write commands, INVOKE_WRITE, ioctl methods and the object dialect share one object model (R43).
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { addHook, arm, completed, dispatch } from '../../../../src/core/index.ts'
import { findHandle } from '../../../../src/core/objects/handles.ts'
import { MwType } from '../../../../src/spec/enums.ts'
import { errnoName } from '../../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../../src/spec/linux/ioctl.ts'
import type { AnyValues } from '../../../../src/spec/schema/schema.ts'
import type { Answer, Call } from '../../../../src/uapi/call.ts'
import { encodeLinux } from '../../../../src/uapi/linux/encode.ts'
import { encodings } from '../../../../src/uapi/linux/envelope.ts'
import { decodeVerbsIoctl } from '../../../../src/uapi/linux/ioctl.ts'
import { EntryPoint } from '../../../../src/uapi/linux/legacy.ts'
import { decodeWrite } from '../../../../src/uapi/linux/write.ts'
import { encodeCall } from '../../../../src/uapi/object/client.ts'
import { decodeObject } from '../../../../src/uapi/object/dialect.ts'
import { ARENA, AT, arena, rxeClasses, rxeSchema } from '../../../uapi/fake-view.ts'
import { machine, makeChannel, program } from '../../rxe/machine.ts'

const p = program(machine(1))

const callOf = (className: string, methodName: string, object: number, args: AnyValues): Call => {
  const found = rxeClasses.find(({ name }) => name === className)
  assert.ok(found)
  return { class: found, methodName, method: found.methods[methodName], object, args }
}

/** The interfaces that have the call. */
const interfacesOf = (call: Call): string[] => [
  'object',
  ...new Set(encodings(call, rxeSchema, ARENA).map(({ form }) => form)),
]

/** Makes a call through one interface; returns 'OK' or the errno. */
const perform = (form: string, call: Call): string => {
  const memory = arena()
  const caller = { ...p.caller, copyIn: memory.copyIn, copyOut: memory.copyOut }
  let answer: ReturnType<typeof dispatch>
  if (form === 'object') {
    memory.map(AT, encodeCall(call))
    answer = dispatch(p.context, decodeObject, [call.method.call, AT], caller)
  } else {
    const encoding = encodings(call, rxeSchema, ARENA).find(one => one.form === form)
    assert.ok(encoding)
    const image = encodeLinux(call, encoding.legacy)
    memory.map(AT, image.bytes)
    for (const { address, bytes } of image.memory) memory.map(address, bytes)
    answer =
      image.entryPoint === EntryPoint.WRITE
        ? dispatch(p.context, decodeWrite, [AT, image.bytes.length], caller)
        : dispatch(p.context, decodeVerbsIoctl, [RDMA_VERBS_IOCTL, AT], caller)
  }
  const { ret } = answer as Answer
  return ret < 0 ? errnoName(-ret) : 'OK'
}

/** Creates an object through one interface. Returns its handle, the lowest free handle. */
const create = (form: string, className: string, args: AnyValues): number => {
  const freeSlot = p.context.handles.slots.indexOf(undefined)
  const expected = freeSlot < 0 ? p.context.handles.slots.length : freeSlot
  assert.equal(perform(form, callOf(className, 'create', 0, args)), 'OK', `${className}.create by ${form}`)
  assert.equal(findHandle(p.context.handles, expected)?.class.name, className)
  return expected
}

const pdCreators = interfacesOf(callOf('pd', 'create', 0, {}))
const pdDestroyers = interfacesOf(callOf('pd', 'destroy', 0, {}))

describe('an object', () => {
  for (const creator of pdCreators)
    for (const destroyer of pdDestroyers)
      it(`created by ${creator} is destroyed by ${destroyer}, but not while in use`, () => {
        const pd = create(creator, 'pd', {})
        const [otherInterface = 'object'] = pdCreators.filter(form => form !== creator)
        const mw = create(otherInterface, 'mw', { pd, type: MwType.values.TYPE_2 })
        assert.equal(perform(destroyer, callOf('pd', 'destroy', pd, {})), 'EBUSY')
        assert.equal(perform(creator, callOf('mw', 'destroy', mw, {})), 'OK')
        assert.equal(perform(destroyer, callOf('pd', 'destroy', pd, {})), 'OK')
        assert.equal(perform(creator, callOf('pd', 'destroy', pd, {})), 'ENOENT')
      })
})

describe('a completion queue', () => {
  const { fd, queue } = makeChannel(p)
  const args = { cqe: 4, userHandle: 7n, compVector: 0, channel: fd }
  for (const creator of interfacesOf(callOf('cq', 'create', 0, args)))
    for (const destroyer of interfacesOf(callOf('cq', 'destroy', 0, {})))
      it(`created by ${creator} raises an event, which a destroy by ${destroyer} reports`, () => {
        const reported: unknown[] = []
        const unhook = addHook(p.rxe.device, {
          class: 'cq',
          method: 'destroy',
          post: (_call, _object, _args, out) => void reported.push(out?.compEvents),
        })
        const handle = create(creator, 'cq', args)
        const cq = findHandle(p.context.handles, handle)
        assert.ok(cq?.events)
        arm(cq, false)
        completed(cq.events, true)
        const [event, ...more] = queue.take(Number.POSITIVE_INFINITY)
        assert.deepEqual([event?.element === cq.events, more.length], [true, 0])
        assert.equal(perform(destroyer, callOf('cq', 'destroy', handle, {})), 'OK')
        unhook()
        assert.deepEqual(reported, [1])
      })
})

it('at least three interfaces can create a PD, and three can destroy it', () => {
  for (const interfaces of [pdCreators, pdDestroyers]) assert.ok(interfaces.length >= 3, interfaces.join(' '))
})
