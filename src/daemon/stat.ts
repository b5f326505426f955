/*
 * What lives in the daemon now, for `userdma stat` and for tests that nothing is left behind.
 */
import { stat as coreStat } from '../core/stat.ts'
import type { RxeDevice } from '../drivers/rxe/device.ts'
import { counterValues } from '../spec/counters.ts'
import type { DeviceStat, Stat } from '../uapi/tool.ts'
import type { DaemonState } from './state.ts'

/** What a device counted, by the names that spec/counters.ts uses. */
export const countedBy = ({ state }: Pick<RxeDevice, 'state'>) => ({
  engine: state.engine().counters,
  port: { ...state.port.counters, linkDowned: state.linkDowned },
})

export const statOf = (daemon: DaemonState): Stat => {
  const counts = coreStat(daemon.core)
  const memory = process.memoryUsage()
  const { mapped, mappedBytes } = daemon.pool.counters
  return {
    pid: process.pid,
    // The tool that asks is connected too.
    sessions: daemon.sessions() - 1,
    contexts: daemon.contexts.count,
    rings: daemon.contexts.rings,
    mappings: { count: mapped, bytes: mappedBytes },
    descriptors: daemon.events.count,
    memory: { resident: memory.rss, heap: memory.heapUsed },
    devices: daemon.config.devices.map(({ name, address }): DeviceStat => {
      const rxe = daemon.devices.find(({ device }) => device.name === name)
      const { engine, port } = rxe ? countedBy(rxe) : { engine: {}, port: {} }
      return {
        name,
        address,
        objects: counts.devices[name]?.objects ?? {},
        hw_counters: counterValues('hw_counters', engine, port),
        counters: counterValues('counters', engine, port),
        port,
        transport: { ...engine },
        faults: { ...daemon.network.faultsOf(name) },
      }
    }),
  }
}
