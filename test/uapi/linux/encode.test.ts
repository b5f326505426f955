/*
 * Round trips of Linux's dialects (R41): every command by write() and within INVOKE_WRITE, every ioctl method without a
 * converter, for every class.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CallError } from '../../../src/spec/errno.ts'
import { ioctlMethods } from '../../../src/spec/linux/ioctl.ts'
import { DriverQpTypes } from '../../../src/spec/linux/structs.ts'
import { EXTENDED, writeCommands } from '../../../src/spec/linux/write.ts'
import { type Answer, type Call, type Decoded, isAnswer, type Result } from '../../../src/uapi/call.ts'
import { encodeLinux, type LinuxImage } from '../../../src/uapi/linux/encode.ts'
import { type Encoding, encodings } from '../../../src/uapi/linux/envelope.ts'
import { EntryPoint } from '../../../src/uapi/linux/legacy.ts'
import { WriteHeader } from '../../../src/uapi/linux/write.ts'
import { callsOf } from '../../spec/arbitrary.ts'
import type { FakeMemory } from '../abilog.ts'
import { expressible } from '../expressible.ts'
import { ARENA, AT, arena, type FakeView, fakeView, rxeSchema } from '../fake-view.ts'
import { recordedResult } from '../recorded.ts'
import { assertSurvives, decode } from '../round-trip.ts'

/** A view with a live object of the right class for every handle in a call. */
const viewFor = (call: Call, memory: FakeMemory): FakeView => {
  const view = fakeView(memory)
  for (const [name, { type }] of Object.entries(call.method.in))
    if (type.kind === 'ref' && call.args[name] !== undefined) view.handles.set(call.args[name] as number, type.class)
  if (call.class.identity === 'handle' && call.methodName !== 'create') view.handles.set(call.object, call.class.name)
  view.hasContext = call.methodName !== 'open'
  return view
}

/** False if two arguments have the same handle for objects of two classes. */
const hasDistinctHandles = (call: Call): boolean => {
  const classes = new Map<unknown, string>()
  for (const [name, { type }] of Object.entries(call.method.in)) {
    if (type.kind !== 'ref' || call.args[name] === undefined) continue
    const number = call.args[name]
    if ((classes.get(number) ?? type.class) !== type.class) return false
    classes.set(number, type.class)
  }
  return true
}

const mapped = (image: LinuxImage): FakeMemory => {
  const memory = arena()
  memory.map(AT, image.bytes)
  for (const { address, bytes } of image.memory) memory.map(address, bytes)
  return memory
}

type Change = readonly [where: number, byte: number]
/** The image with changed bytes, also in the memory of attributes. */
const changed = (image: LinuxImage, changes: readonly Change[]): LinuxImage => {
  const parts = [image.bytes, ...image.memory.map(({ bytes }) => bytes)].map(bytes => bytes.slice())
  const size = parts.reduce((sum, { length }) => sum + length, 0)
  for (const [where, byte] of changes) {
    let at = where % size
    for (const part of parts) {
      if (at >= 0 && at < part.length) part[at] = byte
      at -= part.length
    }
  }
  const [bytes, ...memory] = parts
  return { ...image, bytes, memory: image.memory.map((one, i) => ({ ...one, bytes: memory[i] })) }
}

const assertAnswers = (view: FakeView, decoded: Decoded, image: LinuxImage, result: Result): void => {
  const answer = decoded.answer(result)
  if (image.entryPoint === EntryPoint.IOCTL) {
    assert.equal(answer.ret, 0, String(answer.reason))
    return
  }
  assert.equal(answer.ret, image.bytes.length, String(answer.reason))
  const header = new DataView(image.bytes.buffer, image.bytes.byteOffset)
  const isExtended = header.getUint32(WriteHeader.command, true) >= EXTENDED
  const outWords = header.getUint16(WriteHeader.outWords, true)
  const room = isExtended ? 8 * (outWords + header.getUint16(WriteHeader.providerOutWords, true)) : 4 * outWords
  const logged = { kind: 'write', data: image.bytes, response: view.memory.copyIn(ARENA, room) }
  const { result: read } = recordedResult(decoded.call, logged as Parameters<typeof recordedResult>[1])
  for (const [attribute, value] of Object.entries(read.out)) {
    const expected = result.out[attribute]
    // A response may have only a part of a record: QUERY_PORT has 40 of 42 bytes.
    if (expected !== undefined && typeof value !== 'object') assert.deepEqual(value, expected, attribute)
  }
}

const kinds: readonly { name: string; form: Encoding['form']; classes: readonly string[]; method: string }[] = [
  ...writeCommands.flatMap(({ name, classes, method }) =>
    (['write', 'invoke'] as const).map(form => ({ name, form, classes, method })),
  ),
  ...ioctlMethods.flatMap(({ name, classes, method, converter }) =>
    method === undefined || converter !== undefined ? [] : [{ name, form: 'ioctl' as const, classes, method }],
  ),
]

for (const { name, form, classes, method } of kinds)
  test(`${form} ${name}: calls survive the round trip, and results are answered`, () => {
    for (const className of classes) {
      // the driver's bytes select the class (test/drivers/mlx5/dc.test.ts)
      if (method === 'create' && DriverQpTypes[className] !== undefined) continue
      const cls = rxeSchema.classByName(className)!
      const change = fc.tuple(fc.nat(0xffff), fc.nat(255))
      const someChanges = fc.array(change, { minLength: 1, maxLength: 4 })
      fc.assert(
        fc.property(callsOf(cls, method), someChanges, (generated, changes) => {
          const call = expressible({ name, form }, generated.call)
          fc.pre(hasDistinctHandles(call))
          const encoding = encodings(call, rxeSchema, ARENA).find(one => one.name === name && one.form === form)
          // A mandatory attribute of the ioctl may be optional in the class.
          fc.pre(encoding !== undefined)
          const image = encodeLinux(call, encoding.legacy)
          const view = viewFor(call, mapped(image))
          const decoded = decode(view, image)
          assert.ok(!isAnswer(decoded), String((decoded as Answer).reason))
          assert.equal(decoded.call.class, cls)
          assert.equal(decoded.call.methodName, method)
          assert.equal(decoded.call.object, call.object)
          for (const attribute of Object.keys(call.args))
            assert.deepEqual(decoded.call.args[attribute], call.args[attribute], attribute)
          // Decoding may add flags that the call did not have; they are 0.
          for (const [attribute, value] of Object.entries(decoded.call.args))
            if (call.args[attribute] === undefined) assert.equal(Number(value), 0, attribute)
          assertSurvives(view, decoded, image)
          assertAnswers(view, decoded, image, generated.result)

          // If the image is also valid with changed bytes, that call survives too.
          const changedImage = changed(image, changes)
          const changedView = viewFor(call, mapped(changedImage))
          const changedCall = decode(changedView, changedImage)
          if (isAnswer(changedCall)) return
          try {
            assertSurvives(changedView, changedCall, changedImage)
          } catch (error) {
            // The codec of the object dialect refuses unknown flag bits; in Linux's dialects the handler does.
            if (!(error instanceof CallError)) throw error
          }
        }),
        { numRuns: 6 + Math.ceil(24 / classes.length) },
      )
    }
  })
