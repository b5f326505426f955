/*
 * A device for tests of core. It has every common class; its driver implements only CQs and RC queue pairs.
 */
import { coreClasses } from '../../src/core/base/all.ts'
import {
  affiliate,
  type Caller,
  type Context,
  type Core,
  completed,
  createCore,
  createLocalSpace,
  type Device,
  type DeviceDescription,
  type Driver,
  type DriverClass,
  driverClass,
  type FdObject,
  invokeNow,
  type LocalSpace,
  openContext,
  register,
} from '../../src/core/index.ts'
import { DeviceAttributes, ExtendedDeviceAttributes } from '../../src/spec/classes/device/device.ts'
import { PortAttributes } from '../../src/spec/classes/device/port.ts'
import { Classes } from '../../src/spec/classes.ts'
import { CallError, errnoName } from '../../src/spec/errno.ts'
import { zeroRecord } from '../../src/spec/schema/schema.ts'

/** The driver's state of a test device. */
export interface TestState {
  /** Reason, class and handle of each destroyed CQ and queue pair, in order. */
  readonly log: string[]
}

const log = (device: Device, text: string): void => {
  ;(device.state as TestState).log.push(text)
}

export const cqClass = driverClass(Classes.cq, {
  create(_call, object, { cqe, userHandle, channel, asyncFd }) {
    affiliate(object, userHandle, { channel, asyncFd })
    return { cqe }
  },
  destroy(call, object, args, core) {
    log(call.device, `${call.why} cq ${object.handle}`)
    return core(call, object, args)
  },
})

export const qpClass = driverClass(Classes.rc_qp, {
  create(call, object, { cap, userHandle, asyncFd }) {
    affiliate(object, userHandle, { asyncFd })
    // a unique number, not of a special queue pair
    return { cap, qpNum: 16 + call.device.core.nextObject }
  },
  destroy(call, object, args, core) {
    log(call.device, `${call.why} rc_qp ${object.handle}`)
    return core(call, object, args)
  },
})

const otherClasses = coreClasses.filter(cls => cls.class.name !== 'cq' && cls.class.name !== 'rc_qp')

export const testClasses: readonly DriverClass[] = [
  ...otherClasses.map(cls => driverClass(cls.class)),
  cqClass,
  qpClass,
]

export const testDriver = (classes: readonly DriverClass[] = testClasses): Driver<TestState> => ({
  name: 'test',
  // RDMA_DRIVER_RXE
  id: 14,
  classes,
})

export const describeDevice = (
  name: string,
  driver: Driver<TestState> = testDriver(),
  options: Partial<DeviceDescription<TestState>> = {},
): DeviceDescription<TestState> => ({
  name,
  driver,
  state: { log: [] },
  attributes: { ...zeroRecord(DeviceAttributes), physPortCnt: 1 },
  extended: zeroRecord(ExtendedDeviceAttributes),
  ports: [{ ...zeroRecord(PortAttributes), gidTblLen: 8 }],
  numCompVectors: 2,
  ...options,
})

interface TestCaller extends Caller {
  readonly memory: LocalSpace
  /** Core's number of each descriptor, by the caller's number. */
  readonly fds: Map<number, number>
}

export const testCaller = (): TestCaller => {
  const memory = createLocalSpace()
  const fds = new Map<number, number>()
  return {
    memory,
    fds,
    copyIn: (_address, length) => new Uint8Array(length),
    copyOut: () => {},
    descriptor: fd => fds.get(fd),
    // descriptors from 0x100 on are open files
    file: fd => (fd < 0x100 ? undefined : `file ${fd}`),
  }
}

export interface TestSetup {
  readonly core: Core
  readonly device: Device<TestState>
  readonly context: Context
  readonly caller: TestCaller
  readonly log: string[]
}

/** A core with one device and one open context. */
export const openTestDevice = (
  options: Partial<DeviceDescription<TestState>> = {},
  driver = testDriver(),
): TestSetup => {
  const core = createCore()
  const device = register(core, describeDevice('test0', driver, options))
  const context = openContext(device as Device, { isOpened: true })
  return { core, device, context, caller: testCaller(), log: device.state.log }
}

/** The name of the errno with which `call` fails, or 'ok'. */
export const errnoOf = (call: () => unknown): string => {
  try {
    call()
    return 'ok'
  } catch (error) {
    if (error instanceof CallError) return errnoName(error.errno)
    throw error
  }
}

/** Gives the caller the first descriptor of a result, and returns the descriptor's object. */
export const install = (setup: TestSetup, result: { descriptors?: readonly { object: number }[] }): FdObject => {
  const number = result.descriptors![0].object
  setup.caller.fds.set(number, number)
  return setup.core.descriptors.get(number)!
}

/** From now on `core` collects its jobs in `deferredJobs` instead of running them; `runJob` runs one. */
export const deferJobs = (core: Core) => {
  const deferredJobs: Iterator<unknown>[] = []
  const { runJob } = core
  Object.assign(core, { runJob: (job: Iterator<unknown>) => deferredJobs.push(job) })
  return { deferredJobs, runJob }
}

/** A channel with one unread event of a CQ. */
export const channelWithEvent = (setup: TestSetup): { channel: FdObject; cq: number } => {
  const { context, caller } = setup
  const channel = install(setup, invokeNow(context, Classes.comp_channel, 'create', 0, {}, caller))
  const args = { cqe: 4, userHandle: 1n, compVector: 0, channel: channel.handle }
  const { object: cq = -1 } = invokeNow(context, Classes.cq, 'create', 0, args, caller)
  invokeNow(context, Classes.cq, 'reqNotify', cq, { solicitedOnly: 0 }, caller)
  const isSolicited = false
  completed(context.handles.slots[cq]!.events!, isSolicited)
  return { channel, cq }
}

export const cap = { maxSendWr: 16, maxRecvWr: 16, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
