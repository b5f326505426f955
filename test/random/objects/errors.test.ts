/*
 * The errno and message of every mistake in mistakes.ts, for every method of a soft device's classes except gsi_qp.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Context, type Device, dispatch, openContext, stat, unregister } from '../../../src/core/index.ts'
import { errnoName } from '../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../src/spec/linux/ioctl.ts'
import type { AnyValue, Kind, ObjectClass } from '../../../src/spec/schema/schema.ts'
import type { Answer, Call } from '../../../src/uapi/call.ts'
import {
  decodeIoctl,
  decodeWrite,
  EntryPoint,
  encodeLinux,
  encodings,
  expressibleArguments,
  ioctlRequest,
} from '../../../src/uapi/index.ts'
import { encodeCall } from '../../../src/uapi/object/client.ts'
import { machine, program } from '../../drivers/rxe/machine.ts'
import { expressible } from '../../uapi/expressible.ts'
import { createRandomSource } from '../model/random.ts'
import {
  BUFFERS_AT,
  clientStateOf,
  createHostileClient,
  MESSAGE_AT,
  objectMessage,
  runOne,
} from './hostile/hostile-client.ts'
import { ABSENT_FD, ABSENT_HANDLE, notOf, type Wrong, wrongCalls, wrongInput, wrongOutput } from './mistakes.ts'
import { type ClientState, isCreate, likelyValue } from './plausible.ts'

// ---- a context that has one object of each class ----

const createObjects = () => {
  const m = machine(1)
  const isOpened = true
  const client = createHostileClient(m, program(m), isOpened)
  const random = createRandomSource(1)
  const existing = (): Set<string> => {
    const { handles, fds } = clientStateOf(client, random)
    return new Set([...handles.values(), ...fds.values()])
  }
  const wanted = clientStateOf(client, createRandomSource(0)).classes.filter(
    ({ identity, name }) => identity !== 'fixed' && name !== 'gsi_qp',
  )
  for (let triesLeft = 10_000; triesLeft > 0 && !wanted.every(({ name }) => existing().has(name)); triesLeft--) {
    const message = objectMessage(clientStateOf(client, random))
    if (message !== undefined && /\.create/.test(message.title)) runOne(client, message)
  }
  for (const { name } of wanted) assert.ok(existing().has(name), name)
  const { schema } = client.context.device
  const state: ClientState = { ...clientStateOf(client, createRandomSource(2)) }
  return {
    m,
    client,
    state,
    classes: wanted.concat(['device', 'port', 'interface'].map(name => schema.classByName(name)!)),
  }
}

const objects = createObjects()
const { m, client, state } = objects
const handleOf = (cls: string): number => [...state.handles].find(([, name]) => name === cls)![0]
const fdOf = (cls: string): number => [...state.fds].find(([, name]) => name === cls)![0]
const hasObjectOf = (cls: string): boolean => [...state.handles.values(), ...state.fds.values()].includes(cls)

const validValue = (name: string, type: Kind): AnyValue => {
  if (type.kind === 'ref') return handleOf(type.class)
  return type.kind === 'fd' ? fdOf(type.class) : likelyValue(state, name, type)
}

/** A valid call with its mandatory arguments and the optional argument `extra`. */
const goodCall = (cls: ObjectClass, methodName: string, extra?: string): Call => {
  const method = cls.methods[methodName]
  const args = Object.entries(method.in)
    .filter(([name, { optional }]) => !optional || name === extra)
    .map(([name, { type }]) => [name, validValue(name, type)])
  const portNumber = cls.name === 'port' ? 1 : 0
  const object = isCreate(method.call) || cls.identity !== 'handle' ? portNumber : handleOf(cls.name)
  return { class: cls, methodName, method, object, args: Object.fromEntries(args) }
}

// ---- the calls ----

const answerOf = (answer: Answer | Promise<Answer>): Answer => {
  assert.ok(!(answer instanceof Promise))
  return answer
}

const sendCall = (call: number, bytes: Uint8Array, context: Context = client.context, fd?: number): Answer => {
  client.memory.message.set(bytes)
  return answerOf(dispatch(context, decodeIoctl, [ioctlRequest(call), MESSAGE_AT], client.caller, fd))
}

const assertRefused = ({ ret, reason }: Answer, { title, code, message }: Omit<Wrong, 'bytes'>): void => {
  assert.equal(`${title}: ${ret < 0 ? errnoName(-ret) : 'ok'}`, `${title}: ${code}`, String(reason))
  assert.match(String(reason), message, title)
}

/** Core's number of the descriptor on which the method is called; undefined if the method needs none. */
const descriptorOf = ({ identity, name }: ObjectClass, call: number): number | undefined =>
  identity === 'fd' && !isCreate(call) ? client.fds.get(fdOf(name)) : undefined

/** False for a reference to a class of which no object exists. */
const hasValidValue = (type: Kind): boolean => (type.kind !== 'ref' && type.kind !== 'fd') || hasObjectOf(type.class)

const allMethods = objects.classes.flatMap(cls => Object.keys(cls.methods).map(name => [cls, name] as const))

describe('each mistake in a call of the object dialect gets its errno and message', () => {
  for (const [cls, methodName] of allMethods)
    it(`${cls.name}.${methodName}`, () => {
      const method = cls.methods[methodName]
      const before = JSON.stringify(stat(m.core).devices)
      const call = goodCall(cls, methodName)
      const mistakes = [
        ...Object.entries(method.in).flatMap(([name, { type }]) =>
          hasValidValue(type) ? wrongInput(state, goodCall(cls, methodName, name), name) : [],
        ),
        ...Object.keys(method.out).flatMap(name => wrongOutput(call, name)),
        ...wrongCalls(state, call),
      ]
      assert.ok(mistakes.length >= 4)
      const fd = descriptorOf(cls, method.call)
      for (const wrong of mistakes) assertRefused(sendCall(method.call, wrong.bytes, client.context, fd), wrong)
      assert.equal(JSON.stringify(stat(m.core).devices), before, 'the state has changed')
    })
})

describe('a wrong handle or descriptor in a Linux dialect gets Linux’s errno', () => {
  /** The result of the call in each Linux encoding that can carry `attribute`. */
  const run = (call: Call, attribute: string | undefined): string[] =>
    encodings(call, client.context.device.schema, BUFFERS_AT).flatMap(encoding => {
      // `expressible` omits the arguments that this encoding cannot carry.
      const expressed = expressible(encoding, call)
      const encodingOfExpressed = encodings(expressed, client.context.device.schema, BUFFERS_AT).find(
        ({ name, form }) => name === encoding.name && form === encoding.form,
      )
      if (
        encodingOfExpressed === undefined ||
        (attribute !== undefined && !expressibleArguments(encoding).has(attribute))
      )
        return []
      const { entryPoint, bytes, memory } = encodeLinux(expressed, encodingOfExpressed.legacy)
      client.memory.message.set(bytes)
      for (const { address, bytes: more } of memory) client.memory.copyOut(address, more)
      const { ret, reason } = answerOf(
        entryPoint === EntryPoint.WRITE
          ? dispatch(client.context, decodeWrite, [MESSAGE_AT, bytes.length], client.caller)
          : dispatch(client.context, decodeIoctl, [RDMA_VERBS_IOCTL, MESSAGE_AT], client.caller),
      )
      assert.ok(ret >= 0 || String(reason).length > 10, 'a refusal has a reason')
      return [`${encoding.form} ${encoding.name}: ${ret < 0 ? errnoName(-ret) : 'ok'}`]
    })
  for (const [cls, methodName] of allMethods) {
    const { in: inputs } = cls.methods[methodName]
    // In Linux's ABI all queue pairs are of one class, so the wrong handle is never of a queue pair.
    const otherClassHandle = handleOf(cls.name === 'pd' ? 'mr' : 'pd')
    const wrong: [title: string, code: string, change: (call: Call) => Call, attribute?: string][] = []
    if (cls.identity === 'handle' && !isCreate(cls.methods[methodName].call)) {
      wrong.push(['a handle of no object', 'ENOENT', call => ({ ...call, object: ABSENT_HANDLE })])
      wrong.push(['a handle of another class', 'EINVAL', call => ({ ...call, object: otherClassHandle })])
    }
    for (const [name, { type }] of Object.entries(inputs)) {
      const withValue = (value: number) => (call: Call) => ({ ...call, args: { ...call.args, [name]: value } })
      if (!hasValidValue(type)) continue
      if (type.kind === 'ref') {
        wrong.push([`${name} of no object`, 'ENOENT', withValue(ABSENT_HANDLE), name])
        wrong.push([`${name} of another class`, 'EINVAL', withValue(notOf(state.handles, type.class)), name])
      } else if (type.kind === 'fd') {
        wrong.push([`${name} that is not a descriptor`, 'EBADF', withValue(ABSENT_FD), name])
        wrong.push([`${name} of another class`, 'EBADF', withValue(notOf(state.fds, type.class)), name])
      }
    }
    for (const [title, code, change, attribute] of wrong) {
      const call = change(goodCall(cls, methodName, attribute))
      if (encodings(call, client.context.device.schema, BUFFERS_AT).length === 0) continue
      it(`${cls.name}.${methodName}: ${title}`, () => {
        const outcomes = run(call, attribute)
        assert.notEqual(outcomes.length, 0)
        for (const outcome of outcomes) assert.match(outcome, new RegExp(`: ${code}$`))
      })
    }
  }
})

it('calls before device.open fail with EINVAL, calls after device removal with EIO', () => {
  const unopened = openContext(client.p.rxe.device as Device)
  const calls = allMethods.map(([cls, name]): [ObjectClass, Call] => [cls, goodCall(cls, name)])
  for (const [cls, call] of calls) {
    if (call.methodName === 'open') continue
    const fd = descriptorOf(cls, call.method.call)
    const title = `${cls.name}.${call.methodName}`
    const message = /the descriptor has no context yet: call device\.open first|not open yet/
    assertRefused(sendCall(call.method.call, encodeCall(call), unopened, fd), { title, code: 'EINVAL', message })
  }
  unregister(client.p.rxe.device as Device)
  for (const [cls, call] of calls) {
    const fd = descriptorOf(cls, call.method.call)
    const title = `${cls.name}.${call.methodName}`
    const expected = { title, code: 'EIO', message: /the context was closed, or device rxe0 removed/ }
    assertRefused(sendCall(call.method.call, encodeCall(call), client.context, fd), expected)
  }
})
