/*
 * The states of the daemon that tools subscribe to (uapi/tool.ts, `Topics`), each shared by all its subscribers.
 */
import { oneSlice } from '../../host/event-loop/slices.ts'
import { viewOf } from '../stat.ts'
import type { DaemonState } from '../state.ts'
import { SharedState } from './shared-state.ts'

/** Maximum states that are kept for tools that are behind; those with very many queue pairs have megabytes. */
const MAX_KEPT = 16
const MAX_KEPT_WITH_QPS = 4

export const createToolStates = (daemon: () => DaemonState): DaemonState['toolStates'] => ({
  stat: new SharedState(() => viewOf(daemon(), false), MAX_KEPT),
  statWithQps: new SharedState(() => viewOf(daemon(), true), MAX_KEPT_WITH_QPS),
  devices: new SharedState(() => oneSlice(() => daemon().devices.listed), MAX_KEPT),
  faults: new SharedState(() => oneSlice(() => daemon().network.faultCounts()), MAX_KEPT),
})
