/*
 * Core's own class `driver_ops` (R28, R30): a descriptor for one of the driver's own interfaces, selected by name. The
 * default is the interface with the driver's name.
 */
import { DriverOps } from '../../spec/classes/driver_ops.ts'
import { CallError } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import { driverClass } from '../devices/driver.ts'
import type { OpsCall, OpsState } from '../driver-contract.ts'
import type { CallContext, Device, FdObject } from '../model.ts'

/** In the driver's order: newest version first. */
export const interfaceNames = (device: Device): string[] => Object.keys(device.driver.interfaces ?? {})

const opsCallOf = ({ context, device, caller }: CallContext, fd: FdObject<OpsState>): OpsCall => ({
  fd,
  context,
  device,
  caller,
})

const decodeText = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

export const driverOpsClass = driverClass<typeof DriverOps, OpsState>(DriverOps, {
  create(call, object, { name: bytes }) {
    const { device } = call
    const name = bytes === undefined ? device.driver.name : decodeText(bytes)
    const ops = Object.hasOwn(device.driver.interfaces ?? {}, name) ? device.driver.interfaces?.[name] : undefined
    if (ops === undefined) {
      const names = interfaceNames(device)
      throw new CallError(
        names.length === 0 ? 'EOPNOTSUPP' : 'ENOENT',
        names.length === 0
          ? because`${the.method('driver_ops.create')}: driver ${device.driver.name} has no interfaces of its own`
          : because`${the.method('driver_ops.create')}: driver ${device.driver.name} has no interface "${name}"; it has ${names.join(', ')}`,
      )
    }
    const fd = object as FdObject<OpsState>
    fd.state = { name, ops, interfaceState: undefined }
    fd.state.interfaceState = ops.open?.(opsCallOf(call, fd) as OpsCall<undefined>)
    return {}
  },

  query: (_call, { state }) => ({ name: new TextEncoder().encode(state.name) }),

  destroy(call, object) {
    object.state.ops.close?.(opsCallOf(call, object as FdObject<OpsState>))
    return {}
  },
})
