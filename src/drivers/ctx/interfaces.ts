/*
 * The driver's interfaces (R28, R30): a context by ioctl, write, mmap and read of a descriptor, for programs that do
 * not use classes. They call the methods of the class, so there is one implementation.
 *
 * A descriptor has one context: its own, which ASSIGN creates and which is destroyed with the descriptor, or a context
 * that was created through the device's descriptor (USE), which it releases at the end. `ctx.userdma.2` added expected
 * messages; the earlier version is kept for programs that request it. The provider channel has the device's statistics.
 */
import {
  addParent,
  type CoreObject,
  type DriverOps,
  decodeRecord,
  dropParent,
  encodeRecords,
  findObject,
  invokeNow,
  type OpsCall,
} from '../../core/index.ts'
import {
  CTX_EXPECTED,
  CtxAssign,
  CtxContext,
  CtxExpect,
  CtxInfo,
  CtxInterface,
  CtxIoctl,
  CtxSend,
  CtxStatistics,
} from '../../spec/drivers/ctx.ts'
import { CallError } from '../../spec/errno.ts'
import { at, type Fields, type RecordOf, recordSize, u32 } from '../../spec/schema/schema.ts'
import type { Assigned, CtxState } from './state.ts'

interface Bound {
  object: CoreObject<Assigned> | undefined
  /** Whether ASSIGN created the context on this descriptor. */
  own: boolean
}
type Call = OpsCall<Bound>

const argumentOf = <F extends Fields>({ caller }: Call, fields: F, address: bigint): RecordOf<F> =>
  decodeRecord(fields, caller.copyIn(address, recordSize(fields)))

const objectOf = ({ fd }: Call): CoreObject<Assigned> => {
  const { object } = fd.state.own
  if (object === undefined) throw new CallError('ENODATA', 'the descriptor has no context: ASSIGN or USE one')
  return object
}

const bind = ({ fd }: Call, object: CoreObject<Assigned>, own: boolean): void => {
  addParent(fd, object)
  object.state.ops = fd
  fd.state.own = { object, own }
}

const requireUnbound = ({ fd }: Call): void => {
  if (fd.state.own.object !== undefined) throw new CallError('EBUSY', 'the descriptor has a context already')
}

const assign = (call: Call, address: bigint): number => {
  requireUnbound(call)
  const { context, caller } = call
  const { handle: _handle, ...shape } = argumentOf(call, CtxAssign, address)
  const handle = invokeNow(context, CtxContext, 'create', 0, shape, caller).object as number
  try {
    caller.copyOut(address, encodeRecords(CtxAssign, [{ ...shape, handle }]))
  } catch (error) {
    invokeNow(context, CtxContext, 'destroy', handle, {}, caller)
    throw error
  }
  bind(call, findObject(context, CtxContext.name, handle, 'ASSIGN') as CoreObject<Assigned>, true)
  return 0
}

const Word = { value: at(0, u32(0)) }
const word = (call: Call, address: bigint): number => argumentOf(call, Word, address).value

const use = (call: Call, address: bigint): number => {
  requireUnbound(call)
  const object = findObject(call.context, CtxContext.name, word(call, address), 'USE') as CoreObject<Assigned>
  if (object.state.ops !== undefined) throw new CallError('EBUSY', 'USE: the context has a descriptor already')
  bind(call, object, false)
  return 0
}

/** By request: each returns the ioctl's value. */
const calls: Readonly<Record<number, (call: Call, argument: bigint) => number>> = {
  [CtxIoctl.ASSIGN]: assign,
  [CtxIoctl.USE]: use,
  [CtxIoctl.INFO](call, address) {
    const { out } = invokeNow(call.context, CtxContext, 'query', objectOf(call).handle, {}, call.caller)
    call.caller.copyOut(address, encodeRecords(CtxInfo, [out.info]))
    return 0
  },
  [CtxIoctl.RESET](call) {
    invokeNow(call.context, CtxContext, 'reset', objectOf(call).handle, {}, call.caller)
    return 0
  },
  [CtxIoctl.RECEIVE](call, address) {
    const enable = word(call, address)
    invokeNow(call.context, CtxContext, 'receiveControl', objectOf(call).handle, { enable }, call.caller)
    return 0
  },
  [CtxIoctl.ARM](call) {
    invokeNow(call.context, CtxContext, 'arm', objectOf(call).handle, {}, call.caller)
    return 0
  },
}

const expectCalls: typeof calls = {
  [CtxIoctl.EXPECT](call, address) {
    const announced = argumentOf(call, CtxExpect, address)
    invokeNow(call.context, CtxContext, 'expect', objectOf(call).handle, announced, call.caller)
    return 0
  },
}

const runIoctl = (of: typeof calls, name: string, call: Call, request: number, argument: bigint): number => {
  const run = of[request]
  if (run === undefined) throw new CallError('ENOTTY', `interface ${name} has no ioctl 0x${request.toString(16)}`)
  return run(call, argument)
}

const contextInterface = (name: string, of: typeof calls, takesExpected: boolean): DriverOps<Bound> => ({
  open: () => ({ object: undefined, own: false }),

  ioctl: (call, request, argument) => runIoctl(of, name, call, request, argument),

  write(call, bytes) {
    const head = recordSize(CtxSend)
    if (bytes.length < head)
      throw new CallError('EINVAL', `${bytes.length} bytes are written, a message begins with ${head} bytes`)
    const { to, flags, slot, offset, tag } = decodeRecord(CtxSend, bytes)
    if (flags > (takesExpected ? CTX_EXPECTED : 0))
      throw new CallError('EINVAL', `flags 0x${flags.toString(16)} are not known to ${name}`)
    const data = bytes.subarray(head)
    const args = flags === CTX_EXPECTED ? { to, tag, data, slot, offset } : { to, tag, data }
    invokeNow(call.context, CtxContext, 'send', objectOf(call).handle, args, call.caller)
    return bytes.length
  },

  mmap(call, offset) {
    if (offset !== 0) throw new CallError('EINVAL', `mmap: offset ${offset}: a context's memory begins at 0`)
    return objectOf(call).state.queues.piece
  },

  close(call) {
    const { fd, context, device, caller } = call
    const { object, own } = fd.state.own
    if (object === undefined) return
    object.state.ops = undefined
    object.state.armed = false
    // At the end of the context core destroys everything itself.
    if (context.closed || !device.alive) return
    dropParent(fd, object)
    if (own && object.uses === 0) invokeNow(context, CtxContext, 'destroy', object.handle, {}, caller)
  },
})

const channel: DriverOps = {
  ioctl({ device, caller }, request, address) {
    if (request !== CtxIoctl.STATISTICS)
      throw new CallError('ENOTTY', `the provider channel has no ioctl 0x${request.toString(16)}`)
    const { assigned, counts } = device.state as CtxState
    const { messages, bytes, refused } = counts
    caller.copyOut(
      address,
      encodeRecords(CtxStatistics, [
        {
          assigned: assigned.filter(one => one !== undefined).length,
          messages: BigInt(messages),
          bytes: BigInt(bytes),
          refused: BigInt(refused),
        },
      ]),
    )
    return 0
  },
}

export const interfaces = {
  [CtxInterface.V2]: contextInterface(CtxInterface.V2, { ...calls, ...expectCalls }, true),
  [CtxInterface.V1]: contextInterface(CtxInterface.V1, calls, false),
  [CtxInterface.CHANNEL]: channel,
}
