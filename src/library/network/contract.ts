/*
 * What a network in this process is, for programs (`Network`) and for the files that open devices on it
 * (`LocalNetwork`). It imports nothing that runs devices: a program of a daemon loads only this file of the folder.
 */

import type { Core, Device as CoreDevice } from '../../core/model.ts'
import type { SoftDevice } from '../../drivers/registered.ts'
import type { Clock } from '../../host/event-loop/clock.ts'
import type { LossByRule } from '../../spec/check/probes.ts'
import type { DeviceLimits } from '../../spec/device-limits.ts'
import type { InjectedFaults } from '../../tools/clients/faults/inject.ts'
import type { FaultPort } from '../../transport/phy/faults/layer.ts'
import type { Decisions } from '../../transport/phy/faults/torment-decisions.ts'
import type { LinkTopology } from '../../transport/phy/links/graph.ts'
import type { Path } from '../../transport/phy/memory/port.ts'
import type { Link } from '../../uapi/tool.ts'
import type { CheckOptions } from '../self-check/options.ts'
import type { CarriedFault, DeviceCounters } from '../verbs/carrier.ts'
import type { Device } from '../verbs/device.ts'
import { formatValue, invalidArgument } from '../verbs/error.ts'
import type { AbortOptions } from '../verbs/mailbox.ts'
import type { NetworkTopology } from './links.ts'
import type { SeenPacket, TracedCall } from './observe.ts'
import type { ExploredFault } from './virtual/fault-lists.ts'
import type { VirtualClock } from './virtual/virtual-clock.ts'

/** Connects devices of this process. */
export interface Network {
  /**
   * Adds a device of any driver. `make` creates the device (`createCtxDevice` of userdma/drivers, or your own);
   * `open({ network, device: name })` opens the device. The returned function removes the device, even while it is
   * open. Throws RdmaError EEXIST if the name is in use, EINVAL if `make` does not return a device of its core.
   */
  addDevice(make: (core: Core) => CoreDevice): () => void
  /**
   * Replaces the fault rules, in the syntax of `--fault`; an empty text removes them. Calls of devices in this process
   * cannot be delayed. Throws RdmaError EINVAL.
   */
  setFaults(text: string): void
  /**
   * Takes the link of a soft device down or up, as a cable that is pulled: while it is down its packets are lost, and
   * the port is DOWN. Events PORT_ERR and PORT_ACTIVE. Throws RdmaError EINVAL for an unknown name.
   */
  setLink(device: string, isUp: boolean): void
  /**
   * Takes the links between two switches or routers of `NetworkOptions.links` down or up: what is on them is lost, and
   * the routes are computed anew at once. Throws RdmaError EINVAL for unknown names.
   */
  setLink(between: readonly [string, string], isUp: boolean): void
  /**
   * Takes a router of `NetworkOptions.links` down or up, with all its links, as `setLink`. Throws RdmaError EINVAL for
   * an unknown name.
   */
  setRouter(name: string, isUp: boolean): void
  /**
   * Captures every packet of the network's soft devices to a pcapng file with mode 0600, until the returned function is
   * called. During a capture all messages are sent as packets (`NetworkOptions.path`). Throws RdmaError if the file
   * cannot be written: ENOENT, EACCES …, EINVAL for a symbolic link or another user's file.
   */
  capture(path: string): () => void
  /**
   * Calls `handler` with each packet that soft devices of the network send, until the returned function is called.
   * Meanwhile all messages are sent as packets (`NetworkOptions.path`). An exception of the handler is uncaught.
   */
  packets(handler: (packet: SeenPacket) => void): () => void
  /**
   * Calls `handler` after each call on a device of the network, until the returned function is called. Calls of methods
   * that the device lacks are left out. An exception of the handler does not change the call: it is uncaught.
   */
  trace(handler: (call: TracedCall) => void): () => void
  /** The counts of the links (`NetworkOptions.links`) and of the soft devices since they exist. */
  stats(): NetworkStats
  /** Milliseconds of the network's clock, with fractions: in virtual time since the network was made. */
  now(): number
  /**
   * Resolves after so many milliseconds of the network's clock, 0 to 2^31 - 1. Rejects with the signal's reason, or
   * RdmaError EINVAL.
   */
  sleep(milliseconds: number, options?: AbortOptions): Promise<void>
  /** An AbortSignal that is aborted after so many milliseconds of the network's clock, as AbortSignal.timeout(). */
  timeout(milliseconds: number): AbortSignal
  /**
   * Runs a test under the faults of many seeds, each on a new network with the options of this one, in virtual time.
   * Stops at the first seed that fails, and rejects with ExploreError: the seed, the faults without which it does not
   * fail, and the ladder of packets. `record` of this network gets the session of the failed run. Rejects with
   * RdmaError EINVAL, also for a network in real time. docs/how-to/virtual-time.md
   */
  explore(test: ExploredTest, options?: ExploreOptions): Promise<Explored>
}

/** Options of `createNetwork`. */
export interface NetworkOptions {
  /** Fault rules, see `Network.setFaults`. */
  readonly fault?: string | undefined
  /**
   * What connects the devices: 'memory' of this process (default), or sockets on the devices' addresses, which must be
   * addresses of this machine. 'udp' reaches every RoCE device and needs the package koffi. 'udp-plain' is 'udp'
   * without segmentation by the kernel. 'dgram' reaches only other 'dgram' devices.
   */
  readonly link?: Link | undefined
  /**
   * How messages pass through memory: 'direct' (default) copies them from buffer to buffer, unless packets are captured
   * or a fault rule applies; 'packets' always builds packets. Programs see no difference.
   */
  readonly path?: Path | undefined
  /**
   * Returns random integers from 0 to 2^32 - 1, for memory keys and queue pair numbers. Default: the system's secure
   * generator.
   */
  readonly random?: (() => number) | undefined
  /** Checks all devices that are opened on the network, see `OpenOptions.check`. Default: false. */
  readonly check?: boolean | CheckOptions | undefined
  /**
   * A seed, an integer from 0 to 2^32 - 1. With a seed the devices do what the specification allows and hardware rarely
   * does, as with `userdma check --torment`; with `only`, they make only these decisions of the seed. Default: no seed.
   */
  readonly torment?: number | TormentOptions | undefined
  /**
   * Records the network into a session file (docs/reference/session-file.md) from its first opened device to the end of
   * the process. A text is `file`. While a network is recorded, all messages are sent as packets. Default: no
   * recording.
   */
  readonly record?: string | RecordOptions | undefined
  /**
   * 'real' (default) or 'virtual': time passes only while everything waits, and then at once. The same seed gives the
   * same packets, byte by byte. Devices are joined by memory, and packets take 2 µs, or what `links` say. If nothing
   * can end the waits of the program, they reject with RdmaError EDEADLK. docs/how-to/virtual-time.md
   */
  readonly clock?: 'real' | 'virtual' | undefined
  /**
   * In virtual time: the hosts, switches and links over which packets travel. Each soft device has a host of its own,
   * `OpenOptions.host`. Default: all devices are joined directly. docs/how-to/virtual-time.md
   */
  readonly links?: NetworkTopology | undefined
  /**
   * The switches of devices with an InfiniBand port, and whether there is a subnet manager, in the syntax of
   * `--fabric`: 'fat-tree,leaves=4,spines=2', 'manager=none'. Default: as many switches as the ports need, with a
   * manager, so that a port is ACTIVE when `open` resolves.
   */
  readonly fabric?: string | undefined
  /**
   * Queue pairs of soft devices react to marks of switches with DCQCN: the line rate up to which they send, in bits/s
   * or a text such as '25gbit'; `true`: that of the host's link, without `links` 40gbit. Default: false, as on Linux's
   * rxe.
   */
  readonly dcqcn?: boolean | number | string | undefined
  /**
   * The seed of all random numbers of the network, and of fault rules without a seed of their own: an integer from 0 to
   * 2^32 - 1. Default: 0 in virtual time, otherwise none.
   */
  readonly seed?: number | undefined
  /**
   * In virtual time: what happens when time should pass while the program has real timers, sockets or processes that it
   * did not have before the network. 'refuse' (default): what the program waits for rejects with RdmaError EOPNOTSUPP.
   * 'wait': time passes when they have ended.
   */
  readonly external?: 'refuse' | 'wait' | undefined
}

/** What `network.stats` returns. */
export interface NetworkStats {
  /** Each direction of each link, in the order of the topology; empty without `links`. */
  readonly links: readonly LinkStats[]
  /** In the order of the topology; empty without routers. */
  readonly routers: readonly RouterStats[]
  /**
   * The flows between hosts, in the order of their first packets: which took which path. At most 65,536; empty without
   * `links`.
   */
  readonly flows: readonly FlowStats[]
  /** Soft devices by name. */
  readonly devices: Readonly<Record<string, DeviceStats>>
}

/** A router, from the network's start. */
export interface RouterStats {
  /** As in the topology. */
  readonly name: string
  /** Whether it has a link that is not down. */
  readonly isUp: boolean
  /** Packets that it has forwarded. */
  readonly forwarded: number
  /**
   * Packets that were lost at it: their TTL ended, no router forwards them (link-local addresses, groups, RoCE v1), it
   * had no path to their host.
   */
  readonly lost: { readonly ttl: number; readonly scope: number; readonly route: number }
}

/** The packets that a host has sent to another one with the same addresses and UDP source port. */
export interface FlowStats {
  /** Name of the host that sends. */
  readonly from: string
  /** Name of the host that receives. */
  readonly to: string
  /** Address from which it sends. */
  readonly source: string
  /** Address to which it sends. */
  readonly destination: string
  /** UDP source port. */
  readonly sourcePort: number
  /** The paths that it has had; the last one is that of its last packets. */
  readonly paths: readonly FlowPathStats[]
}

/** A path of a flow. */
export interface FlowPathStats {
  /** Names of switches and routers; undefined: there was no path. */
  readonly through: readonly string[] | undefined
  /** Packets that have left for it. */
  readonly packets: number
  /** Where some of them were lost. */
  readonly lost: readonly LostStats[]
}

/** Packets of a flow that were lost at one place of its path. */
export interface LostStats {
  /** Name of the host, switch or router that sent them to `to`, or did not forward them. */
  readonly from: string
  /** Name of the other end of the link; undefined: they were lost at `from`, also by a rule with `router=`. */
  readonly to: string | undefined
  /**
   * Of a link: its queue was full ('overflow'), 'chance', longer than the 'mtu', 'down'. At a node: the 'ttl' ended, no
   * router forwards the packets ('scope'), there was no path ('route'). Or a 'rule' with `router=`.
   */
  readonly reason: 'overflow' | 'chance' | 'mtu' | 'down' | 'ttl' | 'scope' | 'route' | 'rule'
  /** How many. */
  readonly packets: number
}

/** One direction of a link, from the network's start. */
export interface LinkStats {
  /** Name of the host or switch that sends. */
  readonly from: string
  /** Name of the host or switch that receives. */
  readonly to: string
  /** Packets that were put in front of the link and not lost. */
  readonly packets: number
  /** Their bytes on the link, with Ethernet, IPv4 and UDP headers and the gap between frames. */
  readonly bytes: number
  /** Packets that the switch marked. */
  readonly marked: number
  /**
   * Packets that were lost in front of the link: the queue was full, by chance, longer than the MTU. And those that
   * were on it when it was down.
   */
  readonly lost: { readonly overflow: number; readonly chance: number; readonly mtu: number; readonly down: number }
  /** Bytes that wait in front of the link or are being sent: now, at most, and their mean over time. */
  readonly queue: { readonly now: number; readonly max: number; readonly mean: number }
  /** Share of the time in which the link was busy, 0 to 1. */
  readonly utilization: number
}

/** A soft device. */
export interface DeviceStats {
  /** The host where it is; undefined without `links`. */
  readonly host: string | undefined
  /** As `device.counters()`. */
  readonly counters: DeviceCounters
}

/** Options of a recording. */
export interface RecordOptions {
  /** The session file, which is created with mode 0600, or emptied. */
  readonly file: string
  /** Recorded bytes of each packet's payload, from 0 to 4096. Default: 0. */
  readonly payload?: number | undefined
  /** Maximum bytes of the file, at least 1 MiB: the oldest events are overwritten. Default: no limit. */
  readonly limit?: number | undefined
}

/** Decisions of torment. */
export interface TormentOptions {
  /** An integer from 0 to 2^32 - 1. */
  readonly seed: number
  /** Only these kinds, at each opportunity, by the names of `--torment-kinds`. Default: the seed decides. */
  readonly kinds?: readonly string[] | undefined
  /** The identities of the decisions, as a recording or an `ExploreError` has them. Default: all of the seed. */
  readonly only?: readonly string[] | undefined
}

/** Options of `network.explore`. */
export interface ExploreOptions {
  /** Number of seeds, default 100. */
  readonly seeds?: number | undefined
  /** The first seed, default 1. */
  readonly first?: number | undefined
  /**
   * Kinds of faults, default 'loss', 'delay', 'reorder', 'duplicate'. 'death': from some packet on a device neither
   * sends nor receives; a test then has to expect that requests fail. 'torment': the decisions of
   * `NetworkOptions.torment` with each seed. Of `links`: 'outage', from a completion on a router, or the links between
   * two switches or routers, are down for 1 ms to 1 s; 'blackhole', a router loses one to twenty packets in a row
   * that cross it, and routes stay.
   */
  readonly kinds?: readonly ExploredFault[] | undefined
  /** Maximum faults of a seed, 1 to 32; default 8. */
  readonly faults?: number | undefined
  /** Milliseconds of virtual time after which a run has failed; default 600,000. */
  readonly limit?: number | undefined
}

/** What `network.explore` has done. */
export interface Explored {
  /** Seeds that were run. */
  readonly seeds: number
  /** Packets of all runs. */
  readonly packets: number
  /** Milliseconds of virtual time of all runs. */
  readonly virtualTime: number
}

/** A test of `network.explore`. */
export type ExploredTest = (network: Network, seed: number) => unknown

/** Options of `open` for a new soft device of a network. */
export interface DevicePlace extends PortOptions {
  readonly host?: string | undefined
  readonly dcqcn?: boolean | number | string | undefined
}

/** Options of `open` for the port of a new soft device. */
export interface PortOptions {
  /**
   * Link layer of the port: 'ethernet' (default: RoCE) or 'infiniband', with a LID, on the switches of
   * `NetworkOptions.fabric`. Needs link 'memory'. docs/how-to/infiniband.md
   */
  readonly layer?: 'ethernet' | 'infiniband' | undefined
  /** GUID of an InfiniBand port, 16 hexadecimal digits. Default: made from the address. */
  readonly guid?: string | undefined
  /**
   * Partition keys of an InfiniBand port: 1 to 128, from 1 to 0xffff, 0x8000 excepted. Default: 0xffff, which the
   * network's subnet manager puts before the others.
   */
  readonly pkeys?: readonly number[] | undefined
  /**
   * Limits that are lower than the device's own, by the names of ibv_query_device(3), such as `{ max_qp: 10 }`;
   * `max_pinned` is bytes of registered memory. docs/reference/cli.md#a-device-with-lower-limits
   */
  readonly limits?: DeviceLimits | undefined
}

/** A soft device of the network. */
export interface AttachedDevice {
  readonly network: SoftDevice
  readonly port: FaultPort
  counters(): DeviceCounters
  /** Removes the device; resolves once all its objects are destroyed. */
  remove(): Promise<void>
}

export interface LocalNetwork extends Network {
  /** Fault rules for programs. */
  readonly faults: InjectedFaults
  /** As `NetworkFaults.lossTo`. */
  lossTo(qpns: readonly number[], time: number): LossByRule | undefined
  /** Whether a fault rule may refuse posts. */
  hasPostFaults: boolean
  /** Adds fault rules for a device, which `setFaults` does not replace. Throws RdmaError EINVAL. */
  addFault(device: string, text: string): CarriedFault
  readonly core: Core
  readonly clock: Clock
  /** Called with each device that is opened on the network. */
  onOpened: ((device: Device) => void) | undefined
  /** `clock`, if it is virtual. */
  readonly virtualClock: VirtualClock | undefined
  readonly link: Link
  /** Undefined without `links`. */
  readonly topology: LinkTopology | undefined
  readonly check: boolean | CheckOptions | undefined
  readonly record: string | RecordOptions | undefined
  /** Those of `NetworkOptions.torment`; undefined without it. */
  readonly decisions: Decisions | undefined
  /** Ends the network, whose devices are closed. */
  end(): void
  /** Ends the recording; undefined: there is none yet. */
  endRecording: (() => Promise<void>) | undefined
  /** Number of soft devices that were added, including removed ones. */
  devicesAdded(): number
  /** Adds a soft device. Throws RdmaError, or CallError of core: EEXIST if the name is in use. */
  add(name: string, address: string, place: DevicePlace): AttachedDevice
  /** Before the first InfiniBand port is added. */
  loadSubnet(): Promise<void>
  /** Resolves when the InfiniBand ports are ACTIVE that a manager configures, at the latest after ten seconds. */
  untilConfigured(): Promise<void>
  /** Whether a soft device has this IP address. */
  hasAddress(address: string): boolean
  /**
   * The address of a new device in the subnet of its host; undefined without routers. `host`: as `DevicePlace.host`.
   */
  addressAt(host: string | undefined): string | undefined
  /** The port of a soft device, also of one that is being added. */
  portOf(name: string): FaultPort | undefined
  /** The soft device with this name. */
  softDevice(name: string): AttachedDevice | undefined
  /** Called after each drive in which the devices have worked: the looks of `stallWatch` (stalls.ts). */
  readonly stallWatches: Set<() => void>
  /**
   * Schedules a drive: in a microtask, or in the next turn of the event loop if the budget of this turn is used up.
   * `device`: the only one that has got work; absent: any may have.
   */
  kick(device?: SoftDevice): void
  /** Schedules a drive, which also arms the timers: a call may give the device work, or any if it is absent. */
  touch(device?: SoftDevice): void
  /** Arms the timers of clients and of event thresholds: a call may have set an earlier one. */
  scheduleTimers(): void
  /** See `Carrier.drive`. */
  drive(): boolean
  /** See `Carrier.overdueTurn`. */
  overdueTurn(): Promise<void> | undefined
  /** See `Carrier.awaitsNextTurn`. */
  awaitsNextTurn(): boolean
}

/** The networks that `createNetwork` has made. */
export const networks = new WeakSet<object>()

/** Checks that the value is a network of `createNetwork`. Throws RdmaError EINVAL. */
export const checkNetwork = (call: string, value: unknown): void => {
  if (!networks.has(value as object))
    throw invalidArgument(call, `network ${formatValue(value)} is not a network`, 'make one with createNetwork()')
}

/** Checks that the option `record` has the path of a file. Throws RdmaError EINVAL. */
export const checkRecording = (call: string, record: unknown): void => {
  if (record === undefined) return
  const file = typeof record === 'object' && record !== null && 'file' in record ? record.file : record
  if (typeof file !== 'string' || file === '')
    throw invalidArgument(
      call,
      `record ${formatValue(record)} is not the path of a file`,
      'give a path or { file: path }',
    )
}
