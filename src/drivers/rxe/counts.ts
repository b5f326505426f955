/*
 * Counters of a soft device: by the names of engine and port, and as the files in which Linux shows them
 * (spec/counters.ts).
 */
import { counterValues } from '../../spec/counters.ts'
import type { DeviceStat } from '../../uapi/tool.ts'
import type { RxeDevice } from './device.ts'

/** Counters by the names of spec/counters.ts. */
export const countedBy = ({ state }: Pick<RxeDevice, 'state'>) => ({
  engine: state.engine().counters,
  port: { ...state.port.counters, linkDowned: state.linkDowned },
})

/** All counters but `faults`, which belongs to the layer around the port. Zeros without a device. */
export const countersOf = (
  rxe: Pick<RxeDevice, 'state'> | undefined,
): Pick<DeviceStat, 'hw_counters' | 'counters' | 'port' | 'transport'> => {
  const { engine, port } = rxe ? countedBy(rxe) : { engine: {}, port: {} }
  return {
    hw_counters: counterValues('hw_counters', engine, port),
    counters: counterValues('counters', engine, port),
    port,
    transport: { ...engine },
  }
}
