/*
 * The state of a device's port from that of its network interface, as a change and the event for programs (IBA 11.6.3).
 */
import { type DeviceLink, type LinkState, NO_EVENT, type PortEvent } from '../../core/driver-contract.ts'
import type { PortAttributes } from '../../spec/classes/device/port.ts'
import { AsyncEventType, PhysState, PortState } from '../../spec/enums.ts'
import type { RecordOf } from '../../spec/schema/schema.ts'

const { PORT_ACTIVE, PORT_ERR } = AsyncEventType.values
const { ACTIVE, DOWN } = PortState.values
const { LINK_UP, POLLING, DISABLED } = PhysState.values

interface PortChange {
  readonly isActive: boolean
  /** The port was active, and is no longer. */
  readonly wentDown: boolean
  /** Undefined: nothing has changed. */
  readonly event: PortEvent | undefined
}

/** Sets the port's state. */
export const setPortState = (
  attributes: RecordOf<typeof PortAttributes>,
  { isUp, hasCarrier }: LinkState,
): PortChange => {
  const isActive = isUp && hasCarrier
  const wasActive = attributes.state === ACTIVE
  const inactive = isUp ? POLLING : DISABLED
  const physState = isActive ? LINK_UP : inactive
  const isOtherPhysState = attributes.physState !== physState
  attributes.state = isActive ? ACTIVE : DOWN
  attributes.physState = physState
  const quiet = isOtherPhysState ? NO_EVENT : undefined
  const changed = isActive ? PORT_ACTIVE : PORT_ERR
  return { isActive, wentDown: wasActive && !isActive, event: wasActive === isActive ? quiet : changed }
}

/** `set` with a carrier that faults can take away. */
export const withCarrier = (
  set: (link: LinkState) => PortEvent | undefined,
): Pick<DeviceLink, 'setState' | 'setCarrier'> => {
  let last: LinkState = { isUp: true, hasCarrier: true }
  let isCut = false
  const apply = (): PortEvent | undefined => set({ ...last, hasCarrier: last.hasCarrier && !isCut })
  return {
    setState(link) {
      last = link
      return apply()
    },
    setCarrier(hasCarrier) {
      isCut = !hasCarrier
      return apply()
    },
  }
}
