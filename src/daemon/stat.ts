/*
 * What lives in the daemon now, for `userdma stat` and for tests that nothing is left behind.
 */
import { stat as coreStat } from '../core/stat.ts'
import { countersOf } from '../drivers/rxe/counts.ts'
import type { DeviceStat, Stat } from '../uapi/tool.ts'
import type { DaemonState } from './state.ts'

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
    devices: daemon.devices.listed.map(({ name, address }): DeviceStat => {
      const rxe = daemon.devices.find(name)?.rxe
      return {
        name,
        address,
        objects: counts.devices[name]?.objects ?? {},
        ...countersOf(rxe),
        faults: { ...daemon.network.faultsOf(name) },
      }
    }),
  }
}
