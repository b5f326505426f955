/*
 * Counters of a soft device: of engine and port, and by the names of Linux's counter files (spec/counters.ts).
 */
import { counterValues } from '../../spec/counters.ts'
import type { DeviceStat } from '../../uapi/tool.ts'
import type { RxeDevice } from './device.ts'

/** Counters of the engine and of the port, by their names in spec/counters.ts. */
export const countersByLayer = ({ state }: Pick<RxeDevice, 'state'>) => ({
  engine: state.engine().counters,
  port: { ...state.port.counters, linkDowned: state.linkDowned },
})

/**
 * All counters of a device's statistics, except `faults`. If `rxe` is undefined (a device of another driver), all of
 * `hw_counters` and `counters` are 0, and `port` and `transport` are empty.
 */
export const countersOf = (
  rxe: Pick<RxeDevice, 'state'> | undefined,
): Pick<DeviceStat, 'hw_counters' | 'counters' | 'port' | 'transport'> => {
  const { engine, port } = rxe ? countersByLayer(rxe) : { engine: {}, port: {} }
  return {
    hw_counters: counterValues('hw_counters', engine, port),
    counters: counterValues('counters', engine, port),
    port,
    transport: { ...engine },
  }
}
