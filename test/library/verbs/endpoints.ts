/*
 * Devices of this process or of a daemon, for tests of the library.
 */
import assert from 'node:assert/strict'
import { afterEach, before, describe } from 'node:test'
import { hasNative } from '../../../src/host/native.ts'
import {
  type CompletionQueue,
  createNetwork,
  type Device,
  type DeviceEvent,
  type Network,
  type OpenOptions,
  open,
} from '../../../src/library/index.ts'
import { isEmpty, startDaemon, suiteScope, TWO_DEVICES } from '../../system/programs.ts'

/** Opens two devices that can reach each other. */
export type OpenTwo = () => Promise<readonly [Device, Device]>

/** Opens two devices in this process, on the network `shared` or on a new network. */
export const openTwoInProcess =
  (shared?: Network, options: OpenOptions = {}): OpenTwo =>
  async () => {
    const openOptions = { network: shared ?? createNetwork(), ...options }
    return [await open(openOptions), await open(openOptions)]
  }

/** Runs the tests on devices of this process, with each ring layout, and on devices of a daemon. */
export const eachCarrier = (tests: (openTwo: OpenTwo) => void): void => {
  describe('in this process', () => tests(openTwoInProcess()))
  describe('in this process, with mapped rings', () => tests(openTwoInProcess(undefined, { rings: 'mapped' })))
  describe('on a daemon', { skip: !hasNative() && 'koffi is missing' }, () => {
    const scope = suiteScope()
    let socket = ''
    before(async () => {
      const daemon = await startDaemon(scope, { devices: TWO_DEVICES })
      socket = daemon.socket
      // The daemon must have no objects after all devices are closed.
      scope.after(async () => assert.ok(isEmpty(await daemon.settled(isEmpty))))
    })
    // A failed test leaves its devices open, so the daemon would keep their objects.
    const opened: Device[] = []
    afterEach(async () => {
      for (const device of opened.splice(0)) await device.close()
    })
    tests(async () => {
      const two = [await open({ socket }), await open({ socket, device: 'rxe1' })] as const
      opened.push(...two)
      return two
    })
  })
}

/** The next asynchronous event from this call on; undefined if the device is closed before. */
export const nextEvent = async (device: Device): Promise<DeviceEvent | undefined> => {
  for await (const event of device.events()) return event
  return undefined
}

interface EndOptions {
  readonly maxSendSge?: number
  readonly maxRecvSge?: number
  readonly maxInlineData?: number
}

/** A device with a protection domain, registered memory, and a CQ. */
export const resourcesOn = (device: Device) => {
  const pd = device.pd()
  const buffer = new Uint8Array(4096)
  const access = { remoteRead: true, remoteWrite: true, remoteAtomic: true, flushGlobal: true, mwBind: true }
  const mr = pd.register(buffer, access)
  const cq = device.cq({ entries: 64 })
  return { device, pd, buffer, mr, cq }
}

/** One endpoint: the resources of `resourcesOn`, and an RC queue pair. */
export const endpointOn = (device: Device, options: EndOptions = {}) => {
  const resources = resourcesOn(device)
  return { ...resources, qp: resources.pd.rcQp({ sendCq: resources.cq, ...options }) }
}

/** Two connected endpoints, `a` on the first device and `b` on the second. `options` are for `a`. */
export const pair = async (openTwo: OpenTwo = openTwoInProcess(), options: EndOptions = {}) => {
  const [one, two] = await openTwo()
  const a = endpointOn(one, options)
  const b = endpointOn(two)
  a.qp.connect(b.qp.endpoint)
  b.qp.connect(a.qp.endpoint)
  return { a, b }
}

export const closeAll = (...ends: { device: Device }[]) => Promise.all(ends.map(({ device }) => device.close()))

/** The next completion of a queue, copied into a plain object. */
export const nextCompletion = async (cq: CompletionQueue) => {
  while (!cq.poll()) await cq.wait()
  const { id, statusName, opcodeName, bytes, immediate, invalidated, qpn, sourceQpn, hasGrh } = cq.completion
  return { id, statusName, opcodeName, bytes, immediate, invalidated, qpn, sourceQpn, hasGrh }
}

/** The next completion as text: id and opcode, or id and status of a failure. */
export const completionText = async (cq: CompletionQueue): Promise<string> => {
  const { id, opcodeName, statusName } = await nextCompletion(cq)
  return statusName === 'SUCCESS' ? `${id} ${opcodeName}` : `${id} ${statusName}`
}
