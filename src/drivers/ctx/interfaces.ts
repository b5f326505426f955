/*
 * The driver's interfaces (R28, R30): a context (`ctx_context`) by ioctl, write, mmap and read of a descriptor, for
 * programs that do not use classes. The interfaces call the methods of the class. Core implements read: it returns the
 * records that the class posts for ARM.
 *
 * A descriptor has at most one `ctx_context`. The ioctl ASSIGN creates one, which is destroyed with the descriptor,
 * unless another descriptor has bound it meanwhile. The ioctl USE binds one that a class method has created, until the
 * descriptor is closed. Version 2 of the interface (`ctx.userdma.2`) adds expected messages, into buffers that the
 * receiver has announced (EXPECT). The provider channel has the device's statistics.
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
import { callError } from '../../spec/errno.ts'
import { at, type Fields, type RecordOf, recordSize, u32 } from '../../spec/schema/schema.ts'
import { type AssignedContext, type CtxState, openFdOf } from './state.ts'

/** State of a descriptor. */
interface Binding {
  object: CoreObject<AssignedContext> | undefined
  /** Whether ASSIGN has created the context: closing the descriptor destroys it. */
  isOwned: boolean
}
type Call = OpsCall<Binding>

const argumentOf = <F extends Fields>({ caller }: Call, fields: F, address: bigint): RecordOf<F> =>
  decodeRecord(fields, caller.copyIn(address, recordSize(fields)))

const objectOf = ({ fd }: Call): CoreObject<AssignedContext> => {
  const { object } = fd.state.interfaceState
  if (object === undefined) throw callError.ENODATA`the descriptor has no context: ASSIGN or USE one`
  return object
}

const bind = ({ fd }: Call, object: CoreObject<AssignedContext>, isOwned: boolean): void => {
  addParent(fd, object)
  object.state.notifyFd = fd
  // A closed descriptor may have been armed.
  object.state.isArmed = false
  fd.state.interfaceState = { object, isOwned }
}

const requireUnbound = ({ fd }: Call): void => {
  if (fd.state.interfaceState.object !== undefined) throw callError.EBUSY`the descriptor has a context already`
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
  bind(call, findObject(context, CtxContext.name, handle, 'ASSIGN') as CoreObject<AssignedContext>, true)
  return 0
}

const Word = { value: at(0, u32(0)) }
/** The u32 at an ioctl's argument. */
const readWord = (call: Call, address: bigint): number => argumentOf(call, Word, address).value

const use = (call: Call, address: bigint): number => {
  requireUnbound(call)
  const object = findObject(
    call.context,
    CtxContext.name,
    readWord(call, address),
    'USE',
  ) as CoreObject<AssignedContext>
  if (openFdOf(object.state) !== undefined) throw callError.EBUSY`USE: the context has a descriptor already`
  bind(call, object, false)
  return 0
}

/** By request number: the ioctls that both versions have. Each returns the value of ioctl(2). */
const baseIoctls: Readonly<Record<number, (call: Call, argument: bigint) => number>> = {
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
    const enable = readWord(call, address)
    invokeNow(call.context, CtxContext, 'receiveControl', objectOf(call).handle, { enable }, call.caller)
    return 0
  },
  [CtxIoctl.ARM](call) {
    invokeNow(call.context, CtxContext, 'arm', objectOf(call).handle, {}, call.caller)
    return 0
  },
}

/** The ioctls that version 2 added. */
const expectIoctls: typeof baseIoctls = {
  [CtxIoctl.EXPECT](call, address) {
    const announced = argumentOf(call, CtxExpect, address)
    invokeNow(call.context, CtxContext, 'expect', objectOf(call).handle, announced, call.caller)
    return 0
  },
}

const runIoctl = (ioctls: typeof baseIoctls, name: string, call: Call, request: number, argument: bigint): number => {
  const run = ioctls[request]
  if (run === undefined) throw callError.ENOTTY`interface ${name} has no ioctl 0x${request.toString(16)}`
  return run(call, argument)
}

const contextInterface = (
  name: string,
  ioctls: typeof baseIoctls,
  hasExpectedMessages: boolean,
): DriverOps<Binding> => ({
  open: () => ({ object: undefined, isOwned: false }),

  ioctl: (call, request, argument) => runIoctl(ioctls, name, call, request, argument),

  write(call, bytes) {
    const headerBytes = recordSize(CtxSend)
    if (bytes.length < headerBytes)
      throw callError.EINVAL`${bytes.length} bytes are written, a message begins with ${headerBytes} bytes`
    const { destination, flags, slot, offset, tag } = decodeRecord(CtxSend, bytes)
    const knownFlags = hasExpectedMessages ? CTX_EXPECTED : 0
    if ((flags & ~knownFlags) !== 0) throw callError.EINVAL`flags 0x${flags.toString(16)} are not known to ${name}`
    const data = bytes.subarray(headerBytes)
    const args = flags === CTX_EXPECTED ? { destination, tag, data, slot, offset } : { destination, tag, data }
    invokeNow(call.context, CtxContext, 'send', objectOf(call).handle, args, call.caller)
    return bytes.length
  },

  mmap(call, offset) {
    if (offset !== 0) throw callError.EINVAL`mmap: offset ${offset}: a context's memory begins at 0`
    return objectOf(call).state.queues.chunk
  },

  close(call) {
    const { fd, context, device, caller } = call
    const { object, isOwned } = fd.state.interfaceState
    if (object === undefined) return
    // `close` of a descriptor waits until no `ctx_context` has it as `ops`. Meanwhile another descriptor may have bound
    // `object`.
    if (object.state.notifyFd === fd) {
      object.state.notifyFd = undefined
      object.state.isArmed = false
    }
    // core destroys the objects of closed contexts and removed devices
    if (context.isClosed || !device.isAlive) return
    dropParent(fd, object)
    if (isOwned && object.uses === 0) invokeNow(context, CtxContext, 'destroy', object.handle, {}, caller)
  },
})

const providerChannel: DriverOps = {
  ioctl({ device, caller }, request, address) {
    if (request !== CtxIoctl.STATISTICS)
      throw callError.ENOTTY`the provider channel has no ioctl 0x${request.toString(16)}`
    const { assigned, counts } = device.state as CtxState
    const { messages, bytes, refused } = counts
    caller.copyOut(
      address,
      encodeRecords(CtxStatistics, [
        {
          assigned: assigned.filter(context => context !== undefined).length,
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
  [CtxInterface.V2]: contextInterface(CtxInterface.V2, { ...baseIoctls, ...expectIoctls }, true),
  [CtxInterface.V1]: contextInterface(CtxInterface.V1, baseIoctls, false),
  [CtxInterface.CHANNEL]: providerChannel,
}
