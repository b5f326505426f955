/*
 * Calls of a context in a daemon: messages of the object dialect (docs/reference/object-dialect.md) in memory that the
 * daemon accesses (call-memory.ts). Long inputs and outputs are in buffers outside the message.
 */
import { close } from '../../../host/net/sockets.ts'
import { CallError, errnoName } from '../../../spec/errno.ts'
import { because, decodeReason, the } from '../../../spec/reason.ts'
import { type AnyValues, CREATE_FD, type ObjectClass, sizeOf } from '../../../spec/schema/schema.ts'
import type { Call } from '../../../uapi/call.ts'
import { decodeResult, encodeCall, type OutputBuffer } from '../../../uapi/object/client.ts'
import { ioctlRequest } from '../../../uapi/object/dialect.ts'
import { payloadOf } from '../../../uapi/object/format.ts'
import { agreedClass } from '../../../uapi/object/versions.ts'
import { checkValue } from '../../../uapi/scalar.ts'
import { writeRequest } from '../../../uapi/session-codec.ts'
import type { CallResult } from '../carrier.ts'
import { invalidArgument, rdmaError, refusal, rethrow } from '../error.ts'
import { BUFFER_BYTES, callMemory, MAX_BUFFERS, MESSAGE_BYTES } from './call-memory.ts'
import type { Session } from './daemon-session.ts'

/** Longer lists and blobs are outside the message. */
const MAX_INLINE_BYTES = 1024

/** Whether values of this kind may be outside the message. */
const canBeOutside = (kind: string): boolean => kind === 'list' || kind === 'blob'

interface Calls {
  /** Makes a call. Throws RdmaError. */
  (cls: ObjectClass, method: string, object: number, args: AnyValues): CallResult<AnyValues>
  /** Sets the device's declarations: later calls use what both program and device declare (R47). */
  setDeviceClasses(classes: readonly ObjectClass[]): void
}

/**
 * `context`: the context's number at the daemon; `fd`: the context's descriptor in this process, for the trace.
 * `onDescriptor`: called with each descriptor that a call or a call of a chain (chain.ts) has created.
 */
export const createCalls = (
  session: Pick<Session, 'ask' | 'memory'>,
  context: number,
  fd: number,
  onDescriptor?: (fd: number) => void,
): Calls => {
  const memory = session.memory ?? callMemory()
  let deviceClasses: ReadonlyMap<string, ObjectClass> | undefined
  const copyIn = (address: bigint, length: number): Uint8Array => {
    const at = Number(address) - memory.address
    return memory.bytes.slice(at, at + length)
  }

  const make = (programClass: ObjectClass, method: string, object: number, args: AnyValues): CallResult<AnyValues> => {
    const name = `${programClass.name}.${method}`
    const cls =
      deviceClasses === undefined
        ? programClass
        : rethrow(name, () => agreedClass(programClass, deviceClasses?.get(programClass.name), method))
    const declaredMethod = cls.methods[method]!
    // Methods of a descriptor are called on the descriptor (R37).
    const isOnDescriptor = cls.identity === 'fd' && declaredMethod.call !== CREATE_FD
    const target = isOnDescriptor ? { context: 0, fd: object } : { context, fd }
    const call: Call = {
      class: cls,
      methodName: method,
      method: declaredMethod,
      object: isOnDescriptor ? 0 : object,
      args,
    }
    /** Addresses of long inputs, and address and length of long outputs, by attribute. */
    const inputAddresses: Record<string, bigint> = {}
    const outputBuffers: Record<string, OutputBuffer> = {}
    let nextBuffer = MESSAGE_BYTES
    /** Offset of an unused buffer in the memory. */
    const takeBuffer = (): number => {
      if (nextBuffer + BUFFER_BYTES > MESSAGE_BYTES + MAX_BUFFERS * BUFFER_BYTES)
        throw new Error(`${name} has more than ${MAX_BUFFERS} long values`)
      nextBuffer += BUFFER_BYTES
      return nextBuffer - BUFFER_BYTES
    }
    try {
      for (const [attribute, { type }] of Object.entries(call.method.in)) {
        const value = args[attribute]
        if (value === undefined || !canBeOutside(type.kind)) continue
        checkValue(because`${the.method(name)}: ${the.attribute(attribute)}`, type, value)
        const payload = payloadOf(type, value)
        if (payload.length <= MAX_INLINE_BYTES) continue
        if (payload.length > BUFFER_BYTES)
          throw invalidArgument(
            name,
            because`${the.attribute(attribute)}: ${payload.length} bytes, at most ${BUFFER_BYTES}`,
          )
        const at = takeBuffer()
        memory.bytes.set(payload, at)
        inputAddresses[attribute] = BigInt(memory.address + at)
      }
      for (const [attribute, { type }] of Object.entries(call.method.out))
        if (canBeOutside(type.kind) && sizeOf(type) > MAX_INLINE_BYTES)
          outputBuffers[attribute] = {
            address: BigInt(memory.address + takeBuffer()),
            length: Math.min(sizeOf(type), BUFFER_BYTES),
          }
      const message = encodeCall(call, { inputAddresses, outputBuffers })
      memory.bytes.set(message, 0)
      const { reply, fds } = session.ask(name, (buffer, header) =>
        writeRequest(
          buffer,
          'IOCTL',
          { ...header, ...target },
          { request: ioctlRequest(call.method.call), argument: BigInt(memory.address) },
        ),
      )
      const errno = -Number(reply.ret)
      if (errno > 0) {
        for (const passed of fds) close(passed)
        throw refusal(errnoName(errno), errno, name, reply.text === '' ? 'refused' : decodeReason(reply.text))
      }
      // The reply passes new descriptors. Their numbers in this process are written at `installs` in the message.
      for (const [i, { address }] of reply.installs.entries()) {
        memory.view.setUint32(Number(address) - memory.address, fds[i]!, true)
        onDescriptor?.(fds[i]!)
      }
      const { object: newObject = 0, out } = decodeResult(call, memory.bytes.slice(0, message.length), copyIn)
      return { object: newObject, out }
    } catch (error) {
      throw error instanceof CallError ? rdmaError(error, name) : error
    }
  }
  return Object.assign(make, {
    setDeviceClasses(classes: readonly ObjectClass[]): void {
      deviceClasses = new Map(classes.map(cls => [cls.name, cls]))
    },
  })
}
