/*
 * Calls of a context in a daemon: messages of the object dialect in memory that the daemon accesses
 * (docs/reference/object-dialect.md; call-memory.ts). Long inputs and outputs are outside the message; the daemon
 * chooses where numbers of new descriptors are stored.
 */
import { close } from '../../host/net/sockets.ts'
import { CallError, errnoName } from '../../spec/errno.ts'
import { type AnyValues, CREATE_FD, type ObjectClass, sizeOf } from '../../spec/schema/schema.ts'
import { agreedClass } from '../../spec/schema/versions.ts'
import type { Call } from '../../uapi/call.ts'
import { decodeResult, encodeCall, type OutputRoom } from '../../uapi/object/client.ts'
import { ioctlRequest } from '../../uapi/object/dialect.ts'
import { payloadOf } from '../../uapi/object/format.ts'
import { writeRequest } from '../../uapi/session-codec.ts'
import type { Answered } from '../carrier.ts'
import { invalidArgument, rdmaError, refusal, rethrow } from '../error.ts'
import { MESSAGE, ownMemory, ROOM, ROOMS } from './call-memory.ts'
import type { Session } from './daemon-session.ts'

/** Longer values are outside the message. */
const LONG = 1024

const isLong = (kind: string): boolean => kind === 'list' || kind === 'blob'

/** Makes a call. Throws RdmaError. */
export interface Calls {
  (cls: ObjectClass, method: string, object: number, args: AnyValues): Answered<AnyValues>
  /** From now on uses the device's own version of each class, with what both sides know of it (R47). */
  learn(classes: readonly ObjectClass[]): void
}

/** Makes calls on context number `context` of the daemon; `fd` is its descriptor here, for the trace. */
export const createCalls = (session: Pick<Session, 'ask' | 'memory'>, context: number, fd: number): Calls => {
  const memory = session.memory ?? ownMemory()
  let own: ReadonlyMap<string, ObjectClass> | undefined
  const copyIn = (address: bigint, length: number): Uint8Array => {
    const at = Number(address) - memory.address
    return memory.bytes.slice(at, at + length)
  }

  const make = (known: ObjectClass, method: string, object: number, args: AnyValues): Answered<AnyValues> => {
    const name = `${known.name}.${method}`
    const cls = own === undefined ? known : rethrow(name, () => agreedClass(known, own?.get(known.name), method))
    const declared = cls.methods[method]!
    // Methods of a descriptor are called on the descriptor (R37).
    const onDescriptor = cls.identity === 'fd' && declared.call !== CREATE_FD
    const to = onDescriptor ? { context: 0, fd: object } : { context, fd }
    const call: Call = { class: cls, methodName: method, method: declared, object: onDescriptor ? 0 : object, args }
    const elsewhere: Record<string, bigint> = {}
    const rooms: Record<string, OutputRoom> = {}
    let next = MESSAGE
    const room = (): number => {
      if (next + ROOM > MESSAGE + ROOMS * ROOM) throw new Error(`${name} has more than ${ROOMS} long values`)
      next += ROOM
      return next - ROOM
    }
    try {
      for (const [attribute, { of }] of Object.entries(call.method.in)) {
        const value = args[attribute]
        if (value === undefined || !isLong(of.kind)) continue
        const payload = payloadOf(of, value)
        if (payload.length <= LONG) continue
        if (payload.length > ROOM)
          throw invalidArgument(name, `attribute ${attribute}: ${payload.length} bytes, at most ${ROOM}`)
        const at = room()
        memory.bytes.set(payload, at)
        elsewhere[attribute] = BigInt(memory.address + at)
      }
      for (const [attribute, { of }] of Object.entries(call.method.out))
        if (isLong(of.kind) && sizeOf(of) > LONG)
          rooms[attribute] = { address: BigInt(memory.address + room()), length: Math.min(sizeOf(of), ROOM) }
      const message = encodeCall(call, { elsewhere, rooms })
      memory.bytes.set(message, 0)
      const { reply, fds } = session.ask(name, (buffer, from) =>
        writeRequest(
          buffer,
          'IOCTL',
          { ...from, ...to },
          { request: ioctlRequest(call.method.call), argument: BigInt(memory.address) },
        ),
      )
      const errno = -Number(reply.ret)
      if (errno > 0) {
        for (const one of fds) close(one)
        throw refusal(errnoName(errno), errno, name, reply.text || 'refused')
      }
      for (const [i, { address }] of reply.installs.entries())
        memory.view.setUint32(Number(address) - memory.address, fds[i]!, true)
      const { object: made = 0, out } = decodeResult(call, memory.bytes.slice(0, message.length), copyIn)
      return { object: made, out }
    } catch (error) {
      throw error instanceof CallError ? rdmaError(error, name) : error
    }
  }
  return Object.assign(make, {
    learn(classes: readonly ObjectClass[]): void {
      own = new Map(classes.map(cls => [cls.name, cls]))
    },
  })
}
