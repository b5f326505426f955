/*
 * Linux's dialects there and back (R41): any call and any result come back from bytes and are the same bytes again.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { QP_CLASSES } from '../../src/spec/classes/qp.ts'
import { RXE_DRIVER_ID } from '../../src/spec/drivers/rxe.ts'
import { RDMA_VERBS_IOCTL } from '../../src/spec/linux/ioctl.ts'
import type { AnyValues } from '../../src/spec/schema.ts'
import { type Answer, type Call, isAnswer } from '../../src/uapi/call.ts'
import { Door } from '../../src/uapi/legacy.ts'
import { encodeLinux, envelope } from '../../src/uapi/linux-encode.ts'
import { decodeVerbsIoctl } from '../../src/uapi/linux-ioctl.ts'
import { decodeWrite } from '../../src/uapi/linux-write.ts'
import { callsOf, everyMethod } from '../spec/arbitrary.ts'
import type { FakeMemory } from './abilog.ts'
import { ARENA, AT, arena, type FakeView, fakeView, rxeClasses } from './fake-view.ts'
import { recordedResult } from './recorded.ts'

const { WRITE, IOCTL } = Door

/** A view that has live objects of the right classes for every handle in a call. */
const viewFor = (call: Call, memory: FakeMemory): FakeView => {
  const view = fakeView(memory)
  for (const [name, { of }] of Object.entries(call.method.in))
    if (of.kind === 'ref' && call.args[name] !== undefined) view.handles.set(call.args[name] as number, of.class)
  if (call.class.identity === 'handle' && call.methodName !== 'create') view.handles.set(call.object, call.class.name)
  view.hasContext = call.methodName !== 'open'
  return view
}

/** Handles that collide in one number would need two classes. */
const distinct = (call: Call): boolean => {
  const classes = new Map<unknown, string>()
  for (const [name, { of }] of Object.entries(call.method.in)) {
    if (of.kind !== 'ref') continue
    const number = call.args[name]
    if ((classes.get(number) ?? of.class) !== of.class) return false
    classes.set(number, of.class)
  }
  return true
}

/** Arguments that a dialect cannot say. */
const unsayable: Readonly<Record<string, readonly string[]>> = {
  [`${WRITE} cq.create`]: ['flags', 'asyncFd'],
  ...Object.fromEntries(QP_CLASSES.map(name => [`${WRITE} ${name}.create`, ['asyncFd']])),
  [`${WRITE} rc_qp.create`]: ['asyncFd'],
  [`${WRITE} srq.create`]: ['asyncFd'],
  [`${WRITE} xrc_ini_qp.create`]: ['asyncFd'],
  [`${WRITE} xrc_tgt_qp.create`]: ['asyncFd', 'qpNum'],
  [`${IOCTL} xrc_tgt_qp.create`]: ['qpNum'],
  [`${WRITE} xrc_srq.create`]: ['asyncFd'],
  [`${WRITE} tm_srq.create`]: ['asyncFd'],
  [`${WRITE} device.open`]: ['wantAsyncFd'],
  [`${IOCTL} device.open`]: ['wantAsyncFd'],
}

for (const { cls, name } of everyMethod(rxeClasses))
  for (const door of [WRITE, IOCTL] as const) {
    const method = `${cls.name}.${name}`
    const [{ call: sample }] = fc.sample(callsOf(cls, name), 1)
    if (envelope(sample, door, RXE_DRIVER_ID, ARENA) === undefined) continue
    test(`${method} by ${door === WRITE ? 'write' : 'ioctl'}: any call and any result come back`, () => {
      fc.assert(
        fc.property(callsOf(cls, name), generated => {
          fc.pre(distinct(generated.call))
          const args: AnyValues = { ...generated.call.args }
          for (const attribute of unsayable[`${door} ${method}`] ?? []) delete args[attribute]
          // Work requests would have to fit the counts.
          if (name === 'postSend') {
            Object.assign(args, { wrCount: 1, sgeCount: 2, wqeSize: 64, requests: new Uint8Array(96).fill(7) })
          }
          if (cls.name === 'port' && door === WRITE)
            generated.call = { ...generated.call, object: generated.call.object & 0xff }
          const call = {
            ...generated.call,
            args,
            object: cls.identity === 'fixed' && cls.name !== 'port' ? 0 : generated.call.object,
          }
          const image = encodeLinux(call, envelope(call, door, RXE_DRIVER_ID, ARENA)!)
          const memory = arena()
          memory.map(AT, image.bytes)
          for (const { address, bytes } of image.memory) memory.map(address, bytes)
          const view = viewFor(call, memory)
          const decoded =
            door === WRITE ? decodeWrite(view, AT, image.bytes.length) : decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, AT)
          assert.ok(!isAnswer(decoded), (decoded as Answer).reason)
          assert.equal(decoded.call.class, call.class)
          assert.equal(decoded.call.methodName, name)
          assert.equal(decoded.call.object, call.object)
          for (const attribute of Object.keys(args))
            assert.deepEqual(decoded.call.args[attribute], args[attribute], attribute)
          // What is there beyond that says nothing: no flags.
          for (const [attribute, value] of Object.entries(decoded.call.args))
            if (args[attribute] === undefined) assert.ok(attribute === 'wantAsyncFd' || Number(value) === 0, attribute)
          // The same bytes again.
          assert.deepEqual(encodeLinux(decoded.call, decoded.legacy()!).bytes, image.bytes)

          if (door === WRITE) {
            const answer = decoded.answer(generated.result)
            assert.equal(answer.ret, image.bytes.length, answer.reason)
            const view = new DataView(image.bytes.buffer)
            const response = memory.copyIn(ARENA, view.getUint16(6, true) * 4)
            const logged = { kind: 'write', data: image.bytes, response } as Parameters<typeof recordedResult>[1]
            const { result } = recordedResult(decoded.call, logged)
            for (const [attribute, value] of Object.entries(result.out)) {
              const given = generated.result.out[attribute]
              // A response may have less of a record (QUERY_PORT has 40 of its 42 bytes).
              if (given !== undefined && typeof value !== 'object') assert.deepEqual(value, given, attribute)
            }
          } else assert.equal(decoded.answer(generated.result).ret, 0)
        }),
        { numRuns: 30 },
      )
    })
  }
