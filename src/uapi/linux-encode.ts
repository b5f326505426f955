/*
 * Calls back into Linux's dialects (R41): what `decodeWrite` and `decodeVerbsIoctl` do, backwards.
 *
 * A call and its `legacy` part give the caller's bytes again, every one. A call that never was Linux's gets a plain
 * envelope first (`envelope`): the command or method that its class and method have, attributes in the table's order,
 * outputs at addresses of a given arena.
 */

import { AttributeFlag } from '../spec/classes/ids.ts'
import { CallError } from '../spec/errno.ts'
import { driverLayouts } from '../spec/linux/drivers.ts'
import { InvokeWrite, type IoctlAttribute, ioctlMethods, UHW_OUT } from '../spec/linux/ioctl.ts'
import { EXTENDED, writeCommands } from '../spec/linux/write.ts'
import type { Call } from './call.ts'
import { factsOf } from './caller.ts'
import { isNamed, writeCells } from './cells.ts'
import { ATTRIBUTE, findMethod, HEADER as IOCTL_HEADER } from './ioctl-message.ts'
import { Door, packLegacy, unpackLegacy } from './legacy.ts'
import { findCommand, restoreRequest } from './linux-command.ts'
import { HEADER, requestStart } from './linux-write.ts'
import { viewOf } from './scalar.ts'

/** A system call's bytes: what write() gets or the ioctl's message, and the memory to which its attributes point. */
export interface LinuxImage {
  readonly door: Door
  readonly bytes: Uint8Array
  readonly memory: readonly { readonly address: bigint; readonly bytes: Uint8Array }[]
}

const bad = (why: string): CallError => new CallError('EINVAL', `the legacy attribute ${why}`)

const restoreWrite = (call: Call, part: Uint8Array): LinuxImage => {
  if (part.length < HEADER) throw bad('holds no command')
  const bytes = part.slice()
  const number = viewOf(bytes).getUint32(0, true)
  const found = findCommand(number)
  restoreRequest(found, call, bytes.subarray(requestStart(found.command.extended)))
  return { door: Door.WRITE, bytes, memory: [] }
}

const restoreIoctl = (call: Call, parts: readonly Uint8Array[]): LinuxImage => {
  const bytes = parts[0]?.slice() ?? new Uint8Array()
  const view = viewOf(bytes)
  const count = bytes.length < IOCTL_HEADER ? -1 : view.getUint16(6, true)
  if (bytes.length !== IOCTL_HEADER + count * ATTRIBUTE) throw bad('holds no ioctl')
  const method = findMethod(view.getUint16(2, true), view.getUint16(4, true))
  const facts = factsOf(call)
  const memory: { address: bigint; bytes: Uint8Array }[] = []
  const rest = parts.slice(1)
  const offsets = Array.from({ length: count }, (_, i) => IOCTL_HEADER + i * ATTRIBUTE)
  const command = (): ReturnType<typeof findCommand> => {
    const at = offsets.find(offset => view.getUint16(offset, true) === InvokeWrite.WRITE_CMD)
    if (at === undefined) throw bad('lacks the command')
    return findCommand(view.getUint32(at + 8, true))
  }
  for (const at of offsets) {
    const compiled = method.attributes.get(view.getUint16(at, true))
    if (compiled === undefined) continue
    const { spec } = compiled
    const length = view.getUint16(at + 2, true)
    const value = call.args[spec.name]
    if (spec.kind === 'destroy' || spec.kind === 'handle' || spec.kind === 'fd') {
      const number = spec.name === 'object' ? call.object : value
      if (number !== undefined) view.setBigUint64(at + 8, BigInt(number as number), true)
    } else if (spec.kind === 'flags') {
      if (spec.name !== '' && value !== undefined) view.setUint32(at + 8, value as number, true)
    } else if (spec.kind === 'in') {
      const isRequest = method.spec.converter === 'invokeWrite' && spec.id === InvokeWrite.CORE_IN
      if (spec.cells.length === 0 && !isRequest) continue
      const target = length <= 8 ? bytes.subarray(at + 8, at + 8 + length) : rest.shift()?.slice()
      if (target === undefined || target.length !== length) throw bad(`lacks the memory of attribute ${spec.id}`)
      if (isRequest) restoreRequest(command(), call, target)
      else writeCells(compiled.layout(call.class.name), target.subarray(0, spec.max), call.args, facts)
      if (length > 8) memory.push({ address: view.getBigUint64(at + 8, true), bytes: target })
    }
  }
  return { door: Door.IOCTL, bytes, memory }
}

/** The bytes of the Linux call that `call` and its `legacy` part are. Throws CallError EINVAL if the two do not fit. */
export const encodeLinux = (call: Call, legacy: Uint8Array): LinuxImage => {
  const { door, parts } = unpackLegacy(legacy)
  return door === Door.WRITE ? restoreWrite(call, parts[0] ?? new Uint8Array()) : restoreIoctl(call, parts)
}

// ---- envelopes for calls that never were Linux's ----

/** Bytes of the driver's parts of request and response. */
const driverRooms = (call: Call, driverId: number): { input: number; output: number } => {
  const part = driverLayouts(driverId)?.[`${call.class.name}.${call.methodName}`]
  if (part?.input === 'pointer') return { input: 8, output: 0 }
  return { input: 0, output: part === undefined ? 0 : Math.max(part.room ?? 0, part.out.size) }
}

/** Whether an attribute of an ioctl is one of other classes that the ioctl can be about. */
const isForeign = ({ kind, cells }: IoctlAttribute, { method }: Call): boolean => {
  const own = kind === 'out' ? method.out : method.in
  return cells.length > 0 && cells.every(cell => isNamed(cell) && own[cell.name.split('.')[0]] === undefined)
}

const writeEnvelope = (call: Call, driverId: number, arena: bigint): Uint8Array | undefined => {
  const command = writeCommands.find(c => c.classes.includes(call.class.name) && c.method === call.methodName)
  if (command === undefined) return undefined
  const tail = command.in.tail === undefined ? undefined : (call.args[command.in.tail] as Uint8Array | undefined)
  const start = requestStart(command.extended)
  const { input, output } = driverRooms(call, driverId)
  const bytes = new Uint8Array(start + command.in.size + (tail?.length ?? 0) + input)
  const view = viewOf(bytes)
  // An address for what the driver answers.
  if (input > 0) view.setBigUint64(bytes.length - input, arena, true)
  const unit = command.extended ? 8 : 4
  view.setUint32(0, (command.number + (command.extended ? EXTENDED : 0)) >>> 0, true)
  view.setUint16(4, (command.extended ? bytes.length - start : bytes.length) / unit, true)
  view.setUint16(6, ((command.out?.size ?? 0) + (command.extended ? 0 : output)) / unit, true)
  if (command.extended) view.setUint16(18, output / unit, true)
  if (command.out !== undefined) view.setBigUint64(HEADER, arena, true)
  return packLegacy({ door: Door.WRITE, parts: [bytes] })
}

const ioctlEnvelope = (call: Call, driverId: number, arena: bigint): Uint8Array | undefined => {
  const spec = ioctlMethods.find(m => m.classes.includes(call.class.name) && m.method === call.methodName)
  if (spec === undefined || spec.converter !== undefined) return undefined
  const { output } = driverRooms(call, driverId)
  const all = [...findMethod(spec.object, spec.number).attributes.values()].flatMap(({ spec: attribute }) => {
    if (attribute.id === UHW_OUT) return output === 0 ? [] : [{ attribute, length: output }]
    if (!attribute.mandatory && isForeign(attribute, call)) return []
    const { kind, name, mandatory } = attribute
    const given = name === 'object' || name === '' ? mandatory : call.args[name] !== undefined
    if ((kind === 'fd' || kind === 'handle' || kind === 'flags') && !given) return []
    if (kind === 'in' && attribute.cells.length === 0) return []
    return [{ attribute, length: kind === 'flags' ? 4 : attribute.max }]
  })
  const bytes = new Uint8Array(IOCTL_HEADER + all.length * ATTRIBUTE)
  const view = viewOf(bytes)
  view.setUint16(0, bytes.length, true)
  view.setUint16(2, spec.object, true)
  view.setUint16(4, spec.number, true)
  view.setUint16(6, all.length, true)
  view.setUint32(16, driverId, true)
  const parts: Uint8Array[] = [bytes]
  let address = arena
  all.forEach(({ attribute, length }, i) => {
    const at = IOCTL_HEADER + i * ATTRIBUTE
    view.setUint16(at, attribute.id, true)
    view.setUint16(at + 2, length, true)
    view.setUint16(at + 4, AttributeFlag.MANDATORY, true)
    if (attribute.kind === 'out' || (attribute.kind === 'in' && length > 8)) {
      view.setBigUint64(at + 8, address, true)
      address += BigInt((length + 7) & ~7)
      if (attribute.kind === 'in') parts.push(new Uint8Array(length))
    }
  })
  return packLegacy({ door: Door.IOCTL, parts })
}

/**
 * A `legacy` part for a call of the object dialect: how a program would make it by `door`, with room for outputs from
 * address `arena` on. Undefined if that dialect cannot say the call.
 */
export const envelope = (call: Call, door: Door, driverId: number, arena: bigint): Uint8Array | undefined =>
  door === Door.WRITE ? writeEnvelope(call, driverId, arena) : ioctlEnvelope(call, driverId, arena)
