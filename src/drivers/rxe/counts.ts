/*
 * What a soft device counts: by the names of engine and port, and as the files in which Linux shows it
 * (spec/counters.ts).
 */
import { counterValues } from '../../spec/counters.ts'
import type { DeviceStat } from '../../uapi/tool.ts'
import type { RxeDevice } from './device.ts'

/** What a device counted, by the names that spec/counters.ts uses. */
export const countedBy = ({ state }: Pick<RxeDevice, 'state'>) => ({
  engine: state.engine().counters,
  port: { ...state.port.counters, linkDowned: state.linkDowned },
})

/** Everything that is counted, `faults` excepted, which are the layer's around the port. Zeros without a device. */
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
