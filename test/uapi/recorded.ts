/*
 * Recorded calls, and their results: the kernel's bytes, decoded with the tables of spec/linux.
 */

import { RxeAbi } from '../../src/spec/drivers/rxe.ts'
import { InvokeWrite, RDMA_VERBS_IOCTL, UHW_OUT } from '../../src/spec/linux/ioctl.ts'
import { type AnyValues, recordSize } from '../../src/spec/schema/schema.ts'
import {
  type Answer,
  type Call,
  type CallerView,
  type Decoded,
  isAnswer,
  type NewDescriptor,
  type Result,
} from '../../src/uapi/call.ts'
import { type CompiledLayout, compileLayout, type Facts, readCells } from '../../src/uapi/linux/cells.ts'
import { findCommand } from '../../src/uapi/linux/command.ts'
import { decodeVerbsIoctl } from '../../src/uapi/linux/ioctl.ts'
import { findMethod } from '../../src/uapi/linux/ioctl-message.ts'
import { decodeWrite } from '../../src/uapi/linux/write.ts'
import { readRecord, viewOf } from '../../src/uapi/scalar.ts'
import { type LoggedIoctl, type LoggedWrite, MESSAGE_AT, memoryBefore, onUverbs, readAbilog } from './abilog.ts'
import { type FakeView, fakeView } from './fake-view.ts'

/** Decodes a recorded call that `memoryBefore` put into memory. */
export const decodeLogged = (view: CallerView, logged: LoggedIoctl | LoggedWrite): Decoded | Answer =>
  logged.kind === 'ioctl'
    ? decodeVerbsIoctl(view, RDMA_VERBS_IOCTL, MESSAGE_AT)
    : decodeWrite(view, MESSAGE_AT, logged.data.length)

/** `numbers`: the kernel's descriptor numbers by attribute. */
export interface Recorded {
  readonly result: Result
  readonly numbers: ReadonlyMap<string, number>
}

interface Reading {
  readonly out: AnyValues
  readonly numbers: Map<string, number>
  object?: number
}

const readStruct = (reading: Reading, compiled: CompiledLayout, bytes: Uint8Array): void => {
  const struct = new Uint8Array(Math.max(bytes.length, compiled.layout.size))
  struct.set(bytes)
  const values: AnyValues = {}
  const facts: Facts = {}
  readCells(compiled, struct, values, facts, /* isChecked */ false)
  if (facts.object !== undefined) reading.object = facts.object
  for (const { attribute } of compiled.fds) {
    reading.numbers.set(attribute, values[attribute] as number)
    delete values[attribute]
  }
  Object.assign(reading.out, values)
}

const readDriver = (reading: Reading, call: Call, bytes: Uint8Array): void => {
  const layout = RxeAbi.layouts[`${call.class.name}.${call.methodName}`]
  if (layout !== undefined) readStruct(reading, compileLayout('driver', layout.out, call.method.out), bytes)
}

const finish = ({ out, object, numbers }: Reading): Recorded => {
  // The numbers that core gives to fd objects are not recorded, so these are arbitrary.
  const descriptors = [...numbers.keys()].map((attribute, i): NewDescriptor => ({ object: 1000 + i, attribute }))
  return {
    numbers,
    result: {
      out,
      ...(object === undefined ? {} : { object }),
      ...(descriptors.length === 0 ? {} : { descriptors }),
    },
  }
}

/** The result of a call that the kernel accepted. */
export const recordedResult = (call: Call, logged: LoggedIoctl | LoggedWrite): Recorded => {
  const reading: Reading = { out: {}, numbers: new Map() }
  const name = call.class.name
  if (logged.kind === 'write') {
    const found = findCommand(viewOf(logged.data).getUint32(0, true))
    if (found.out !== undefined) {
      // The driver's part of the response follows the core part, whose length is in an extended command's header
      // (out_words).
      const coreBytes = found.command.isExtended
        ? viewOf(logged.data).getUint16(6, true) * 8
        : found.command.minResponseBytes
      readStruct(reading, found.out(name), logged.response!)
      readDriver(reading, call, logged.response!.subarray(coreBytes))
    }
    return finish(reading)
  }
  /** The memory of an attribute after the call; that before the call, if the call did not change it. */
  const memory = (id: number): Uint8Array | undefined => {
    const attribute = logged.attributes.find(a => a.id === id)
    return attribute?.after ?? attribute?.before
  }
  const method = findMethod(logged.object, logged.method)
  if (method.spec.converter === 'invokeWrite') {
    const command = logged.attributes.find(({ id }) => id === InvokeWrite.WRITE_CMD)
    const found = findCommand(Number(command!.data))
    if (found.out !== undefined) readStruct(reading, found.out(name), memory(InvokeWrite.CORE_OUT)!)
  } else if (method.spec.converter !== undefined) {
    // Attribute 2 is the list. The length is attribute 1 of INFO_HANDLES, attribute 3 of QUERY_GID_TABLE.
    const [list, lengthId] = method.spec.converter === 'handles' ? (['handles', 1] as const) : (['entries', 3] as const)
    const { type } = call.method.out[list]
    const length = viewOf(memory(lengthId)!).getUint32(0, true)
    const view = viewOf(memory(2)!)
    if (type.kind !== 'list') throw new Error(`${list} is not a list`)
    const size = recordSize(type.fields)
    reading.out[list] = Array.from({ length }, (_, i) => readRecord(view, i * size, type.fields, ''))
  } else
    for (const attribute of logged.attributes) {
      const compiled = method.attributes.get(attribute.id)
      if (compiled === undefined) continue
      if (compiled.spec.kind === 'out' && compiled.spec.cells.length > 0)
        readStruct(reading, compiled.layout(name), memory(attribute.id)!)
      else if (compiled.spec.kind === 'newHandle') reading.object = Number(attribute.dataAfter ?? attribute.data)
      else if (compiled.spec.kind === 'newFd')
        reading.numbers.set('object', Number(attribute.dataAfter ?? attribute.data))
    }
  const driver = memory(UHW_OUT)
  if (driver !== undefined) readDriver(reading, call, driver)
  return finish(reading)
}

/** The calls on uverbs files. The view gets the context and the handles of the kernel's answers. */
export function* replay(
  name: string,
): Generator<{ logged: LoggedIoctl | LoggedWrite; view: FakeView; decoded: Decoded | Answer; where: string }> {
  let view = fakeView()
  view.hasContext = false
  for (const logged of readAbilog(name).filter(onUverbs)) {
    if (logged.kind === 'open') {
      view = fakeView()
      view.hasContext = false
    }
    if (logged.kind !== 'ioctl' && logged.kind !== 'write') continue
    view.memory = memoryBefore(logged)
    const decoded = decodeLogged(view, logged)
    yield { logged, view, decoded, where: `${name}:${logged.line}` }
    if (isAnswer(decoded) || logged.errno !== 0) continue
    const { call } = decoded
    if (call.class.name === 'device' && call.methodName === 'open') view.hasContext = true
    const { object } = recordedResult(call, logged).result
    if (object !== undefined && call.methodName === 'create') view.handles.set(object, call.class.name)
    if (call.methodName === 'destroy') view.handles.delete(call.object)
  }
}
