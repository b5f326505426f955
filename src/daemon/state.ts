/*
 * What the parts of the daemon share.
 */
import type { Core } from '../core/model.ts'
import type { RxeDevice } from '../drivers/rxe/device.ts'
import type { RingPool } from '../host/mapping.ts'
import type { ProcessHandle } from '../host/process.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import type { Contexts } from './contexts.ts'
import type { EventSockets } from './event-sockets.ts'
import type { Loop } from './loop.ts'
import type { Network } from './network.ts'
import type { TraceHub } from './trace-hub.ts'

export interface DaemonState {
  readonly config: DaemonConfig
  readonly core: Core
  readonly network: Network
  readonly pool: RingPool
  readonly loop: Loop
  readonly contexts: Contexts
  readonly events: EventSockets
  readonly trace: TraceHub
  /** The files of counters are to be up to date now. */
  readonly refreshCounters: () => void
  /** Folder of the sysfs and device tree, as clients are told. */
  readonly root: string
  /** Memory file of the parked page. */
  readonly parkedFd: number
  readonly devices: readonly RxeDevice[]
  /** Connected sessions. */
  readonly sessions: () => number
  /** Counts the daemon's turns: what is asked of a process at most once a turn is asked again when it changes. */
  turn: number
  /** The process that makes the present call; undefined between calls. */
  calling: ProcessHandle | undefined
}
