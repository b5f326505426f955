/*
 * A small device for tests of core/: every common class, with a minimal driver.
 */

import { coreClasses } from '../../src/core/base/all.ts'
import {
  affiliate,
  type Caller,
  type Context,
  type Core,
  createCore,
  createLocalSpace,
  type Device,
  type DeviceDescription,
  type Driver,
  type DriverClass,
  driverClass,
  type FdObject,
  type LocalSpace,
  openContext,
  register,
} from '../../src/core/index.ts'
import { DeviceAttributes, ExtendedDeviceAttributes } from '../../src/spec/classes/device/device.ts'
import { PortAttributes } from '../../src/spec/classes/device/port.ts'
import { Classes } from '../../src/spec/classes.ts'
import { CallError, errnoName } from '../../src/spec/errno.ts'
import { zeroRecord } from '../../src/spec/schema/schema.ts'

/** Calls of the test driver, in order: class, reason and handle of each destroy. */
export interface TestState {
  readonly log: string[]
}

const log = (device: Device, text: string): void => {
  ;(device.state as TestState).log.push(text)
}

export const cqLine = driverClass(Classes.cq, {
  create(_call, object, { cqe, userHandle, channel, asyncFd }) {
    affiliate(object, userHandle, { channel, asyncFd })
    return { cqe }
  },
  destroy(call, object, args, core) {
    log(call.device, `${call.why} cq ${object.handle}`)
    return core(call, object, args)
  },
})

export const qpLine = driverClass(Classes.rc_qp, {
  create(call, object, { cap, userHandle, asyncFd }) {
    affiliate(object, userHandle, { asyncFd })
    return { cap, qpNum: 16 + call.device.core.nextObject }
  },
  destroy(call, object, args, core) {
    log(call.device, `${call.why} rc_qp ${object.handle}`)
    return core(call, object, args)
  },
})

const plainLines = coreClasses.filter(line => line.class.name !== 'cq' && line.class.name !== 'rc_qp')

export const testLines: readonly DriverClass[] = [...plainLines.map(line => driverClass(line.class)), cqLine, qpLine]

export const testDriver = (classes: readonly DriverClass[] = testLines): Driver<TestState> => ({
  name: 'test',
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

export interface TestCaller extends Caller {
  readonly memory: LocalSpace
  /** Descriptor number → number of the fd object. */
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
  const context = openContext(device as Device, { opened: true })
  return { core, device, context, caller: testCaller(), log: device.state.log }
}

/** Errno name of the exception of `call`, 'ok' if there is none; anything but a CallError is rethrown. */
export const errnoOf = (call: () => unknown): string => {
  try {
    call()
    return 'ok'
  } catch (error) {
    if (error instanceof CallError) return errnoName(error.errno)
    throw error
  }
}

/** A result's first descriptor as a descriptor number of the caller (the same number). */
export const install = (setup: TestSetup, result: { descriptors?: readonly { object: number }[] }): FdObject => {
  const number = result.descriptors![0].object
  setup.caller.fds.set(number, number)
  return setup.core.descriptors.get(number)!
}

export const cap = { maxSendWr: 16, maxRecvWr: 16, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
