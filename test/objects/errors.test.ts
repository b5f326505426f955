/*
 * Errors of calls: for every method of every class of a soft device, every mistake that its declaration allows, one at
 * a time (mistakes.ts). The errno is Linux's where Linux has the case, the message names the method and the attribute,
 * and nothing has changed.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Context, type Device, dispatch, openContext, stat, unregister } from '../../src/core/index.ts'
import { errnoName } from '../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../src/spec/linux/ioctl.ts'
import type { AnyValue, Kind, ObjectClass } from '../../src/spec/schema/schema.ts'
import type { Answer, Call } from '../../src/uapi/call.ts'
import {
  decodeIoctl,
  decodeWrite,
  EntryPoint,
  encodeLinux,
  encodings,
  expressibleArguments,
  ioctlRequest,
} from '../../src/uapi/index.ts'
import { encodeCall } from '../../src/uapi/object/client.ts'
import { machine, program } from '../drivers/rxe/machine.ts'
import { createRandomSource } from '../model/random.ts'
import { expressible } from '../uapi/expressible.ts'
import { AREA, AT, createHostileClient, namesOf, objectMessage, runOne } from './hostile/hostile-client.ts'
import { notOf, type Wrong, wrongCalls, wrongInput, wrongOutput } from './mistakes.ts'
import { isCreate, likelyValue, type Names } from './plausible.ts'

// ---- a context that has one object of each class ----

const createObjects = () => {
  const m = machine(1)
  const one = createHostileClient(m, program(m), true)
  const random = createRandomSource(1)
  const classes = (): Set<string> => {
    const { handles, fds } = namesOf(one, random)
    return new Set([...handles.values(), ...fds.values()])
  }
  const wanted = namesOf(one, createRandomSource(0)).classes.filter(
    ({ identity, name }) => identity !== 'fixed' && name !== 'gsi_qp',
  )
  for (let left = 10_000; left > 0 && !wanted.every(({ name }) => classes().has(name)); left--) {
    const message = objectMessage(namesOf(one, random))
    if (message !== undefined && /\.create/.test(message.title)) runOne(one, message)
  }
  for (const { name } of wanted) assert.ok(classes().has(name), name)
  const { schema } = one.context.device
  const names: Names = { ...namesOf(one, createRandomSource(2)) }
  return { m, one, names, classes: wanted.concat(['device', 'port', 'interface'].map(name => schema.className(name)!)) }
}

const objects = createObjects()
const { m, one, names } = objects
const handleOf = (cls: string): number => [...names.handles].find(([, name]) => name === cls)![0]
const fdOf = (cls: string): number => [...names.fds].find(([, name]) => name === cls)![0]
const isThere = (cls: string): boolean => [...names.handles.values(), ...names.fds.values()].includes(cls)

/** A valid value. */
const right = (name: string, of: Kind): AnyValue => {
  if (of.kind === 'ref') return handleOf(of.class)
  return of.kind === 'fd' ? fdOf(of.class) : likelyValue(names, name, of)
}

/** The call with its mandatory arguments and `extra`. */
const goodCall = (cls: ObjectClass, methodName: string, extra?: string): Call => {
  const method = cls.methods[methodName]
  const args = Object.entries(method.in)
    .filter(([name, { optional }]) => !optional || name === extra)
    .map(([name, { of }]) => [name, right(name, of)])
  const object = isCreate(method.call) || cls.identity !== 'handle' ? Number(cls.name === 'port') : handleOf(cls.name)
  return { class: cls, methodName, method, object, args: Object.fromEntries(args) }
}

// ---- the calls ----

const answerOf = (answer: Answer | Promise<Answer>): Answer => {
  assert.ok(!(answer instanceof Promise))
  return answer
}

const make = (call: number, bytes: Uint8Array, context: Context = one.context, fd?: number): Answer => {
  one.memory.message.set(bytes)
  return answerOf(dispatch(context, decodeIoctl, [ioctlRequest(call), AT], one.caller, fd))
}

const assertRefused = ({ ret, reason }: Answer, { title, code, message }: Omit<Wrong, 'bytes'>): void => {
  assert.equal(`${title}: ${ret < 0 ? errnoName(-ret) : 'ok'}`, `${title}: ${code}`, reason)
  assert.match(reason ?? '', message, title)
}

/** The number of the descriptor's object, for methods of descriptors. */
const descriptorOf = ({ identity, name }: ObjectClass, call: number): number | undefined =>
  identity === 'fd' && !isCreate(call) ? one.fds.get(fdOf(name)) : undefined

/** References to classes that the device lacks: no object of them exists. */
const canBeNamed = ({ kind, ...of }: Kind): boolean =>
  (kind !== 'ref' && kind !== 'fd') || isThere((of as { class: string }).class)

const allMethods = objects.classes.flatMap(cls => Object.keys(cls.methods).map(name => [cls, name] as const))

describe('mistakes in a call of the object dialect are reported', () => {
  for (const [cls, methodName] of allMethods)
    it(`${cls.name}.${methodName}`, () => {
      const method = cls.methods[methodName]
      const before = JSON.stringify(stat(m.core).devices)
      const call = goodCall(cls, methodName)
      const wrongValues = [
        ...Object.entries(method.in).flatMap(([name, { of }]) =>
          canBeNamed(of) ? wrongInput(objects, goodCall(cls, methodName, name), name) : [],
        ),
        ...Object.keys(method.out).flatMap(name => wrongOutput(call, name)),
        ...wrongCalls(objects, call),
      ]
      assert.ok(wrongValues.length >= 4)
      const fd = descriptorOf(cls, method.call)
      for (const wrong of wrongValues) assertRefused(make(method.call, wrong.bytes, one.context, fd), wrong)
      assert.equal(JSON.stringify(stat(m.core).devices), before, 'the state has changed')
    })
})

describe('wrong names have Linux’s errnos in its dialects', () => {
  /** Every Linux encoding of the call that can carry `attribute`. */
  const run = (call: Call, attribute: string | undefined): string[] =>
    encodings(call, one.context.device.driver.id, AREA).flatMap(way => {
      const expressed = expressible(way, call)
      const again = encodings(expressed, one.context.device.driver.id, AREA).find(
        ({ name, means }) => name === way.name && means === way.means,
      )
      if (again === undefined || (attribute !== undefined && !expressibleArguments(way).has(attribute))) return []
      const { entryPoint, bytes, memory } = encodeLinux(expressed, again.legacy)
      one.memory.message.set(bytes)
      for (const { address, bytes: more } of memory) one.memory.copyOut(address, more)
      const { ret, reason } = answerOf(
        entryPoint === EntryPoint.WRITE
          ? dispatch(one.context, decodeWrite, [AT, bytes.length], one.caller)
          : dispatch(one.context, decodeIoctl, [RDMA_VERBS_IOCTL, AT], one.caller),
      )
      assert.ok((reason ?? '').length > 10 || ret >= 0)
      return [`${way.means} ${way.name}: ${ret < 0 ? errnoName(-ret) : 'ok'}`]
    })
  for (const [cls, methodName] of allMethods) {
    const { in: inputs } = cls.methods[methodName]
    // A queue pair's class follows from its handle, so another value has to be wrong.
    const other = handleOf(cls.name === 'pd' ? 'mr' : 'pd')
    const wrong: [title: string, code: string, change: (call: Call) => Call, attribute?: string][] = []
    if (cls.identity === 'handle' && !isCreate(cls.methods[methodName].call)) {
      wrong.push(['a handle of a destroyed object', 'ENOENT', call => ({ ...call, object: 4000 })])
      wrong.push(['a handle of another class', 'EINVAL', call => ({ ...call, object: other })])
    }
    for (const [name, { of }] of Object.entries(inputs)) {
      const given = (value: number) => (call: Call) => ({ ...call, args: { ...call.args, [name]: value } })
      if (!canBeNamed(of)) continue
      if (of.kind === 'ref') {
        wrong.push([`${name} gone`, 'ENOENT', given(4000), name])
        wrong.push([`${name} of another class`, 'EINVAL', given(notOf(names.handles, of.class)), name])
      } else if (of.kind === 'fd') {
        wrong.push([`${name} that is not a descriptor`, 'EBADF', given(999), name])
        wrong.push([`${name} of another class`, 'EBADF', given(notOf(names.fds, of.class)), name])
      }
    }
    for (const [title, code, change, attribute] of wrong) {
      const call = change(goodCall(cls, methodName, attribute))
      if (encodings(call, one.context.device.driver.id, AREA).length === 0) continue
      it(`${cls.name}.${methodName}: ${title}`, () => {
        for (const outcome of run(call, attribute)) assert.match(outcome, new RegExp(`: ${code}$`))
      })
    }
  }
})

it('before the context is opened every call is EINVAL, and after device removal EIO', () => {
  const closed = openContext(one.p.rxe.device as Device)
  const calls = allMethods.map(([cls, name]): [ObjectClass, Call] => [cls, goodCall(cls, name)])
  for (const [cls, call] of calls) {
    if (call.methodName === 'open') continue
    const fd = descriptorOf(cls, call.method.call)
    const title = `${cls.name}.${call.methodName}`
    const message = /the descriptor has no context yet: call device\.open first|not open yet/
    assertRefused(make(call.method.call, encodeCall(call), closed, fd), { title, code: 'EINVAL', message })
  }
  unregister(one.p.rxe.device as Device)
  for (const [cls, call] of calls) {
    const fd = descriptorOf(cls, call.method.call)
    const title = `${cls.name}.${call.methodName}`
    const expected = { title, code: 'EIO', message: /the context was closed, or device rxe0 removed/ }
    assertRefused(make(call.method.call, encodeCall(call), one.context, fd), expected)
  }
})
