/*
 * What the parts of the daemon share.
 */

import type { RdmaCm } from '../clients/rdma-cm/rdma-cm.ts'
import type { dispatch } from '../core/dispatch/dispatch.ts'
import type { Core } from '../core/model.ts'
import type { Slices } from '../host/event-loop/slices.ts'
import type { RingPool } from '../host/memory/mapping.ts'
import type { ProcessHandle } from '../host/memory/process.ts'
import type { PeerCredentials } from '../host/net/sockets.ts'
import type { DaemonConfig, DeviceSpec, ListedDevice } from '../uapi/tool.ts'
import type { Containment } from './containment.ts'
import type { Contexts } from './context/contexts.ts'
import type { EventSockets } from './context/event-sockets.ts'
import type { DestroyWaits } from './destroy-waits.ts'
import type { Devices } from './devices/devices.ts'
import type { Network } from './devices/network.ts'
import type { FailureDesk } from './failures.ts'
import type { FdQuotas } from './fd-quota.ts'
import type { Loop } from './loop.ts'
import type { MemoryQuotas } from './memory-quota.ts'
import type { Netlink } from './netlink/netlink.ts'
import type { TurnAway } from './session/turn-away.ts'
import type { TraceHub } from './trace/trace-hub.ts'

export interface DaemonState {
  /** With the devices that there are now. */
  readonly config: DaemonConfig & { readonly devices: readonly ListedDevice[] }
  readonly core: Core
  readonly dispatch: typeof dispatch
  /** Where the daemon's log goes. */
  readonly log: (line: string) => void
  /** Boundaries around what comes from the event loop. */
  readonly containment: Containment
  readonly network: Network
  readonly pool: RingPool
  readonly loop: Loop
  readonly contexts: Contexts
  readonly events: EventSockets
  /** Who may hold how many of our descriptors. */
  readonly shares: FdQuotas
  /** How much of our memory whose objects may take. */
  readonly memory: MemoryQuotas
  /** Long work of calls. */
  readonly slices: Slices
  readonly trace: TraceHub
  /** Sockets of NETLINK_RDMA. */
  readonly netlink: Netlink
  readonly cm: RdmaCm
  /** Whose contexts are whose, and who hears of failures. */
  readonly failures: FailureDesk
  /** Destroys for which programs wait. */
  readonly destroyWaits: DestroyWaits
  /** The files of counters are to be up to date now; 0, or why they are not (errno). */
  readonly refreshCounters: () => number
  /** Folder of the sysfs and device tree, as clients are told. */
  readonly root: string
  /** Memory file of the parked page. */
  readonly parkedFd: number
  readonly devices: Devices
  /** Resolves once what the user's programs had that have ended can be had again; undefined: it can. */
  untilEnded(user: number): Promise<void> | undefined
  /** One more device, one less, while programs run (`Devices.add`, `remove`); their files too. */
  plug(spec: DeviceSpec): void
  unplug(name: string): void
  /** Another name for a device; what programs have open lives on. Throws CallError EINVAL, EEXIST. */
  rename(name: string, to: string): void
  /** Whether the client at the other end of a socket may use this daemon. */
  serves(fd: number, peer: PeerCredentials): boolean
  /** Hangs up a connection, with the reason. */
  readonly turnAway: TurnAway
  /** Connected sessions. */
  readonly sessions: () => number
  readonly sessionsOf: (pid: number) => number
  /** Counts the daemon's turns: what is asked of a process at most once a turn is asked again when it changes. */
  turn: number
  /** The process that makes the present call; undefined between calls. */
  calling: ProcessHandle | undefined
}
