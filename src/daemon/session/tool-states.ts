/*
 * The states of the daemon that tools subscribe to (uapi/tool.ts, `Topics`), each shared by all its subscribers.
 */
import { oneSlice } from '../../host/event-loop/slices.ts'
import type { Devices } from '../devices/devices.ts'
import type { Network } from '../devices/network.ts'
import type { DaemonStat } from '../stat.ts'
import { SharedState } from './shared-state.ts'

/** Maximum states that are kept for tools that are behind; those with very many queue pairs have megabytes. */
const MAX_KEPT = 16
const MAX_KEPT_WITH_QPS = 4

export type ToolStates = Readonly<Record<'stat' | 'statWithQps' | 'devices' | 'faults', SharedState>>

export const createToolStates = (stat: DaemonStat, devices: Devices, network: Network): ToolStates => ({
  stat: new SharedState(() => stat.view(false), MAX_KEPT),
  statWithQps: new SharedState(() => stat.view(true), MAX_KEPT_WITH_QPS),
  devices: new SharedState(() => oneSlice(() => devices.listed), MAX_KEPT),
  faults: new SharedState(() => oneSlice(() => network.faultCounts()), MAX_KEPT),
})
