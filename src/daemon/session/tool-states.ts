/*
 * The states of the daemon that tools subscribe to (uapi/tool.ts, `Topics`), each shared by all its subscribers.
 */
import { oneSlice } from '../../host/event-loop/slices.ts'
import { viewOf } from '../stat.ts'
import type { DaemonState } from '../state.ts'
import { SharedState } from './shared-state.ts'

export const createToolStates = (daemon: () => DaemonState): DaemonState['toolStates'] => ({
  stat: new SharedState(() => viewOf(daemon(), false)),
  statWithQps: new SharedState(() => viewOf(daemon(), true)),
  devices: new SharedState(() => oneSlice(() => daemon().devices.listed)),
  faults: new SharedState(() => oneSlice(() => daemon().network.faultCounts())),
})
