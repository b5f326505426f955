/*
 * Counters of a device by the names of Linux's counter files (spec/counters.ts).
 */
import type { NetworkDevice } from '../core/driver-contract.ts'
import { counterValues } from '../spec/counters.ts'
import type { DeviceStat } from '../uapi/tool.ts'

/**
 * All counters of a device's statistics, except `faults`. If the device has none, all of `hw_counters` and `counters`
 * are 0, and `port` and `transport` are empty.
 */
export const countersOf = (
  device: Pick<NetworkDevice, 'counters'> | undefined,
): Pick<DeviceStat, 'hw_counters' | 'counters' | 'port' | 'transport'> => {
  const { engine, port, hardware } = device?.counters?.() ?? { engine: {}, port: {} }
  return {
    hw_counters: hardware === undefined ? counterValues('hw_counters', engine, port) : { ...hardware },
    counters: counterValues('counters', engine, port),
    port,
    transport: { ...engine },
  }
}
