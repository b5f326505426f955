/*
 * A device that has contexts and no verbs (R29). Contexts resemble those of Linux's hfi1: a client gets a context
 * assigned, maps its queues, and sends messages to other contexts of the device.
 *
 * Contexts are objects of the driver's own class `ctx_context` (spec/drivers/ctx.ts). Of core, the driver imports only
 * the public driver interface (core/index.ts).
 */
import {
  type CallContext,
  type Core,
  type CoreObject,
  type Device,
  driverClass,
  encodeRecords,
  type FdObject,
  mappedMemoryOf,
  postRecord,
  type RegisteredDriver,
  register,
} from '../../core/index.ts'
import { DeviceAttributes, ExtendedDeviceAttributes } from '../../spec/classes/device/device.ts'
import { Classes } from '../../spec/classes.ts'
import { CtxContext, type CtxInfo, CtxLimits, CtxRecord } from '../../spec/drivers/ctx.ts'
import { NodeType } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { type RecordOf, zeroRecord } from '../../spec/schema/schema.ts'
import { interfaces } from './interfaces.ts'
import {
  announce,
  createQueues,
  hasUnread,
  offsetsOf,
  putEager,
  putExpected,
  type QueueSizes,
  type Queues,
  resetQueues,
} from './queues.ts'
import { type AssignedContext, type CtxState, openFdOf } from './state.ts'

const infoOf = ({ number, jobKey, isReceiving, queues }: AssignedContext): RecordOf<typeof CtxInfo> => ({
  number,
  jobKey,
  isReceiving: isReceiving ? 1 : 0,
  ...queues.sizes,
  ...offsetsOf(queues),
})

const stateOf = ({ device }: CallContext): CtxState => device.state as CtxState

/** If the receiver is armed and has an open descriptor: disarms it and notifies its client. */
const notify = (receiver: AssignedContext): void => {
  const fd = openFdOf(receiver)
  if (!receiver.isArmed || fd === undefined) return
  receiver.isArmed = false
  const { number, queues } = receiver
  postRecord(fd, encodeRecords(CtxRecord, [{ number, producer: queues.produced }]))
}

const lowestFreeNumber = (slots: readonly unknown[]): number => {
  let number = 0
  while (slots[number] !== undefined) number++
  return number
}

const contextClass = driverClass<typeof CtxContext, AssignedContext>(CtxContext, {
  create(call, object, { jobKey, ops, eagerCount, eagerBytes, expectedCount, expectedBytes }) {
    const state = stateOf(call)
    const number = lowestFreeNumber(state.assigned)
    const sizes: QueueSizes = { eagerCount, eagerBytes, expectedCount, expectedBytes }
    const queues: Queues = createQueues(mappedMemoryOf(call.context), sizes)
    object.state = { number, jobKey, queues, isReceiving: true, isArmed: false, notifyFd: ops as FdObject | undefined }
    state.assigned[number] = object as CoreObject<AssignedContext>
    return { info: infoOf(object.state) }
  },

  query: (_call, { state }) => ({ info: infoOf(state) }),

  destroy(call, { state }) {
    stateOf(call).assigned[state.number] = undefined
    mappedMemoryOf(call.context).free(state.queues.chunk)
    return {}
  },

  reset(_call, { state }) {
    resetQueues(state.queues)
    return {}
  },

  receiveControl(_call, { state }, { enable }) {
    state.isReceiving = enable === 1
    return {}
  },

  expect(_call, { state }, { slot, length }) {
    announce(state.queues, slot, length)
    return {}
  },

  send(call, { state: sender }, { destination, tag, slot, offset = 0, data }) {
    const { assigned, counts } = stateOf(call)
    const receiver = assigned[destination]?.state
    try {
      if (receiver === undefined || receiver.jobKey !== sender.jobKey)
        throw callError.ENXIO`${the.method('ctx_context.send')}: there is no context ${destination} with jobKey ${sender.jobKey}`
      if (!receiver.isReceiving)
        throw callError.EAGAIN`${the.method('ctx_context.send')}: context ${destination} does not receive now`
      if (slot === undefined) putEager(receiver.queues, sender.number, tag, data)
      else if (!putExpected(receiver.queues, sender.number, tag, slot, offset, data)) {
        // a part of a message that is not complete yet
        counts.bytes += data.length
        return {}
      }
    } catch (error) {
      counts.refused++
      throw error
    }
    counts.messages++
    counts.bytes += data.length
    notify(receiver)
    return {}
  },

  arm(_call, { state }) {
    if (openFdOf(state) === undefined)
      throw callError.EINVAL`${the.method('ctx_context.arm')}: there is no open descriptor to notify: pass one to ctx_context.create, or set one with ioctl USE`
    state.isArmed = true
    if (hasUnread(state.queues)) notify(state)
    return {}
  },
})

const { interface: Interface, device: DeviceClass, async_fd: AsyncFd, driver_ops: DriverOps } = Classes

/** All ctx devices share this record. */
export const ctxDriver: RegisteredDriver<CtxState> = {
  name: 'ctx',
  id: 0, // RDMA_DRIVER_UNKNOWN
  nodeType: NodeType.values.UNSPECIFIED,
  classes: [...[Interface, DeviceClass, AsyncFd, DriverOps].map(cls => driverClass(cls)), contextClass],
  createDevice: (core, name) => createCtxDevice(core, name),
  interfaces,
}

/** Registers a device of this driver. Throws CallError EEXIST for a name in use, EINVAL for an invalid name. */
export const createCtxDevice = (core: Core, name: string): Device<CtxState> =>
  register(core, {
    name,
    driver: ctxDriver,
    state: { assigned: [], counts: { messages: 0, bytes: 0, refused: 0 } },
    attributes: zeroRecord(DeviceAttributes),
    extended: zeroRecord(ExtendedDeviceAttributes),
    ports: [],
    numCompVectors: 0,
    limits: { ctx_context: CtxLimits.contexts },
  })
