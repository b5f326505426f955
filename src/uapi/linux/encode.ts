/*
 * Encodes calls in Linux's dialects (R41): the inverse of `decodeWrite` and `decodeVerbsIoctl`.
 *
 * A call and its LEGACY attribute restore all bytes of the caller. envelope.ts makes this attribute for a call that did
 * not come from a Linux dialect.
 */

import { InvokeWrite } from '../../spec/linux/ioctl.ts'
import type { Call } from '../call.ts'
import { payloadOf } from '../object/format.ts'
import { viewOf } from '../scalar.ts'
import { factsOf } from './caller.ts'
import { writeCells } from './cells.ts'
import { findCommand, notOfClass, restoreRequest } from './command.ts'
import { findMethod, INLINE_BYTES, IoctlAttr, IoctlHeader, offsetOf } from './ioctl-message.ts'
import { badLegacy, EntryPoint, unpackLegacy } from './legacy.ts'
import { HEADER, requestIn, WriteHeader } from './write.ts'

/** The buffer of write() or the message of an ioctl, and the memory that attributes point to. */
export interface LinuxImage {
  readonly entryPoint: EntryPoint
  readonly bytes: Uint8Array
  readonly memory: readonly { readonly address: bigint; readonly bytes: Uint8Array }[]
}

const restoreWrite = (call: Call, part: Uint8Array): LinuxImage => {
  if (part.length < HEADER) throw badLegacy('has no command')
  const bytes = part.slice()
  const number = viewOf(bytes).getUint32(WriteHeader.command, true)
  const found = findCommand(number)
  restoreRequest(found, call, requestIn(found.command, bytes))
  return { entryPoint: EntryPoint.WRITE, bytes, memory: [] }
}

const restoreIoctl = (call: Call, parts: readonly Uint8Array[]): LinuxImage => {
  const bytes = parts[0]?.slice() ?? new Uint8Array()
  const view = viewOf(bytes)
  if (bytes.length < IoctlHeader.bytes) throw badLegacy('has no ioctl')
  const count = view.getUint16(IoctlHeader.attributeCount, true)
  if (bytes.length !== offsetOf(count)) throw badLegacy('has no ioctl')
  const method = findMethod(view.getUint16(IoctlHeader.object, true), view.getUint16(IoctlHeader.method, true))
  const { name, classes, converter } = method.spec
  if (converter !== 'invokeWrite' && !classes.includes(call.class.name)) throw badLegacy(notOfClass(name, call))
  const facts = factsOf(call)
  const memory: { address: bigint; bytes: Uint8Array }[] = []
  /** The memory of attributes with arguments in it, in the order of the attributes. */
  const attributeMemory = parts.slice(1)
  const offsets = Array.from({ length: count }, (_, i) => offsetOf(i))
  /** The command in an INVOKE_WRITE. */
  const command = (): ReturnType<typeof findCommand> => {
    const at = offsets.find(offset => view.getUint16(offset + IoctlAttr.id, true) === InvokeWrite.WRITE_CMD)
    if (at === undefined) throw badLegacy('lacks the command')
    return findCommand(view.getUint32(at + IoctlAttr.data, true))
  }
  for (const at of offsets) {
    const compiled = method.attributes.get(view.getUint16(at + IoctlAttr.id, true))
    if (compiled === undefined) continue
    const { spec } = compiled
    const length = view.getUint16(at + IoctlAttr.length, true)
    const dataAt = at + IoctlAttr.data
    const value = call.args[spec.name]
    if (spec.kind === 'destroy' || spec.kind === 'handle' || spec.kind === 'fd') {
      const number = spec.name === 'object' ? call.object : value
      if (number !== undefined) view.setBigUint64(dataAt, BigInt(number as number), true)
    } else if (spec.kind === 'enum') {
      if (value !== undefined) view.setUint8(at + IoctlAttr.reserved, value as number)
    } else if (spec.kind === 'flags') {
      // Flags without a name are not an argument: `bytes` has them.
      if (spec.name !== '' && value !== undefined) view.setUint32(dataAt, value as number, true)
    } else if (spec.kind === 'records') {
      const target = payloadOf(call.method.in[spec.name]!.type, value!)
      if (target.length !== length) throw badLegacy(`has ${length} bytes for ${spec.name}, which have ${target.length}`)
      memory.push({ address: view.getBigUint64(dataAt, true), bytes: target })
    } else if (spec.kind === 'in') {
      const isRequest = method.spec.converter === 'invokeWrite' && spec.id === InvokeWrite.CORE_IN
      if (spec.cells.length === 0 && !isRequest) continue
      const target = length <= INLINE_BYTES ? bytes.subarray(dataAt, dataAt + length) : attributeMemory.shift()?.slice()
      if (target === undefined || target.length !== length) throw badLegacy(`lacks the memory of attribute ${spec.id}`)
      if (isRequest) restoreRequest(command(), call, target)
      else writeCells(compiled.layout(call.class.name), target.subarray(0, spec.max), call.args, facts)
      if (length > INLINE_BYTES) memory.push({ address: view.getBigUint64(dataAt, true), bytes: target })
    }
  }
  return { entryPoint: EntryPoint.IOCTL, bytes, memory }
}

/**
 * The bytes of the Linux call. Throws CallError: EINVAL if `legacy` is malformed or belongs to another call, EOPNOTSUPP
 * for an unknown command, EPROTONOSUPPORT for an unknown method.
 */
export const encodeLinux = (call: Call, legacy: Uint8Array): LinuxImage => {
  const { entryPoint, parts } = unpackLegacy(legacy)
  return entryPoint === EntryPoint.WRITE ? restoreWrite(call, parts[0] ?? new Uint8Array()) : restoreIoctl(call, parts)
}
