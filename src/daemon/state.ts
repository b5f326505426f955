/*
 * The state that the parts of the daemon share.
 */

import type { InjectedFaults } from '../clients/faults/inject.ts'
import type { RdmaCm } from '../clients/rdma-cm/rdma-cm.ts'
import type { dispatch } from '../core/dispatch/dispatch.ts'
import type { Core, Limit } from '../core/model.ts'
import type { Slices } from '../host/event-loop/slices.ts'
import type { RingPool } from '../host/memory/mapping.ts'
import type { ProcessHandle } from '../host/memory/process.ts'
import type { PeerCredentials } from '../host/net/sockets.ts'
import type { Decisions } from '../phy/faults/torment-decisions.ts'
import type { DaemonConfig, DeviceSpec, ListedDevice } from '../uapi/tool.ts'
import type { SharedLimits } from './accounts.ts'
import type { DaemonChecker } from './check.ts'
import type { Containment } from './containment.ts'
import type { Contexts } from './context/contexts.ts'
import type { EventSockets } from './context/event-sockets.ts'
import type { DestroyWaits } from './destroy-waits.ts'
import type { Devices } from './devices/devices.ts'
import type { Network } from './devices/network.ts'
import type { FailureReports } from './failures.ts'
import type { Loop } from './loop.ts'
import type { Netlink } from './netlink/netlink.ts'
import type { RefuseConnection } from './session/refuse-connection.ts'
import type { SharedState } from './session/shared-state.ts'
import type { ToolTime } from './tool-time.ts'
import type { TraceHub } from './trace/trace-hub.ts'

export interface DaemonState {
  /** The daemon's options, with the current list of devices. */
  readonly config: DaemonConfig & { readonly devices: readonly ListedDevice[] }
  readonly core: Core
  /** Core's `dispatch`, or a test's. */
  readonly dispatch: typeof dispatch
  readonly log: (line: string) => void
  readonly containment: Containment
  readonly network: Network
  /** Maps the contexts' memory files. */
  readonly ringPool: RingPool
  readonly loop: Loop
  readonly contexts: Contexts
  readonly events: EventSockets
  /** What all clients share, besides devices. */
  readonly limits: SharedLimits
  /** For long work of calls. */
  readonly slices: Slices
  /** The time for requests of tools. */
  readonly toolTime: ToolTime
  /** What tools subscribe to. */
  readonly toolStates: Readonly<Record<'stat' | 'statWithQps' | 'devices' | 'faults', SharedState>>
  /** Counts the subscriptions of tools. */
  readonly subscriptions: Limit
  readonly trace: TraceHub
  /** Undefined without `userdma check`. */
  readonly check: DaemonChecker | undefined
  /** The decisions of `--torment`; undefined without the option. */
  readonly torment: Decisions | undefined
  /** The programs' NETLINK_RDMA sockets. */
  readonly netlink: Netlink
  readonly cm: RdmaCm
  readonly failures: FailureReports
  /** Fault rules for programs. */
  readonly faults: InjectedFaults
  readonly destroyWaits: DestroyWaits
  /** Updates the counter files. Returns 0, or the errno of the failure. */
  readonly refreshCounters: () => number
  /** Folder of the sysfs and device tree. */
  readonly root: string
  /** Memory file of the parked page (`ParkedPage` in spec/session.ts). */
  readonly parkedFd: number
  readonly devices: Devices
  /** Resolves when the objects of the user's already closed contexts are destroyed. */
  untilContextsDestroyed(user: number): Promise<void>
  /** Adds a device and its files at run time. Throws as `Devices.add`. */
  plug(spec: DeviceSpec): void
  /** Removes a device and its files at run time. Throws as `Devices.remove`. */
  unplug(name: string): void
  /** Renames a device; open contexts continue. Throws CallError EINVAL, EEXIST. */
  rename(name: string, newName: string): void
  /** Whether the client at the other end of a session's socket may use this daemon. */
  serves(fd: number, peer: PeerCredentials): boolean
  /** Refuses and closes a connection, with the reason. */
  readonly refuseConnection: RefuseConnection
  /** As `refuseConnection`, for users who are not served: they do not use up the waiting places of the others. */
  readonly refuseStranger: RefuseConnection
  /** Ends the daemon, after the current message. */
  stop(): void
  /** Number of connected sessions, of all processes. */
  readonly sessions: () => number
  /** Number of connected sessions of one process. */
  readonly sessionsOf: (pid: number) => number
  /** Grows with each message, slice and turn of the loop. A check of a process is valid until the next change. */
  turn: number
  /** The process whose call runs; undefined between calls. */
  callingProcess: ProcessHandle | undefined
}
