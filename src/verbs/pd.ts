/*
 * Protection domains in the library (IBA 10.2.3): everything that works on memory is made in one.
 */
import { Pd } from '../spec/classes/pd.ts'
import {
  type Access,
  type FileRegionOptions,
  fileRegionPlan,
  type MemoryRegion,
  nullRegionPlan,
  type Region,
  regionPlan,
  type WholeRegion,
  wholeRegionPlan,
} from './mr/region.ts'
import { type MemoryWindow, windowPlan } from './mr/window.ts'
import { type DeviceContext, type Kind, make, type Plan, plan } from './plan.ts'
import {
  type AwaitableRcOptions,
  type AwaitableRcQueuePair,
  type AwaitableUcOptions,
  type AwaitableUcQueuePair,
  awaitableRcQp,
  awaitableUcQp,
  type RcQueuePair,
  type RcQueuePairOptions,
  rcQpPlan,
  type UcQueuePair,
  type UcQueuePairOptions,
  ucQpPlan,
} from './qp/connected.ts'
import {
  type AddressHandle,
  type AwaitableUdOptions,
  type AwaitableUdQueuePair,
  addressPlan,
  awaitableUdQp,
  closeAddresses,
  type Destination,
  makeAddresses,
  type UdQueuePair,
  type UdQueuePairOptions,
  udQpPlan,
} from './qp/datagram.ts'
import {
  type GsiQueuePair,
  type GsiQueuePairOptions,
  gsiQpPlan,
  type SmiQueuePair,
  type SmiQueuePairOptions,
  smiQpPlan,
} from './qp/management.ts'
import { type XrcInitiator, type XrcInitiatorOptions, xrcInitiatorPlan } from './qp/xrc.ts'
import {
  type SharedReceiveQueue,
  type SrqOptions,
  srqPlan,
  type XrcSharedReceiveQueue,
  type XrcSrqOptions,
  xrcSrqPlan,
} from './srq/shared-receive.ts'
import { defineVerbsClass, VerbsObject } from './verbs-object.ts'

/** A protection domain (IBA 11.2.1). */
export interface ProtectionDomain extends Disposable, Kind<'pd'> {
  /** Handle of the object, as calls and `device.handles` name it. */
  readonly handle: number
  /** Registers a buffer. It must not be resized or transferred while it is. Throws RdmaError. */
  register(buffer: Uint8Array, access?: Access): MemoryRegion
  /**
   * Bytes of a file, by a descriptor of this process: with a daemon it must be a memory file. The file is read and
   * written at each access, and never made longer. Throws RdmaError EBADF, EINVAL.
   */
  registerFile(file: number, options: FileRegionOptions): Region
  /** `length` bytes that are zero whenever they are read: what is written there is thrown away. */
  nullRegion(length: number, access?: Access): Region
  /** All memory of this program: its buffers need no registration of their own. */
  wholeRegion(access?: Access): WholeRegion
  /** A memory window that grants nothing yet; type 2 (default) belongs to the queue pair that binds it. */
  window(type?: 1 | 2): MemoryWindow
  /**
   * Reliable connected. With a `sendCq` requests complete there, and nothing is allocated for them; without one each
   * request answers a promise, and the queue pair owns its completion queue. Throws RdmaError EINVAL, ENOMEM.
   */
  rcQp(options: RcQueuePairOptions): RcQueuePair
  rcQp(options?: AwaitableRcOptions): AwaitableRcQueuePair
  /** Unreliable connected, in the same two ways. */
  ucQp(options: UcQueuePairOptions): UcQueuePair
  ucQp(options?: AwaitableUcOptions): AwaitableUcQueuePair
  /** Unreliable datagrams, in the same two ways. */
  udQp(options: UdQueuePairOptions): UdQueuePair
  udQp(options?: AwaitableUdOptions): AwaitableUdQueuePair
  /** Queue pair 1 of the port, of the general management services; there is one. */
  gsiQp(options: GsiQueuePairOptions): GsiQueuePair
  /** Queue pair 0 of the port, of subnet management. */
  smiQp(options: SmiQueuePairOptions): SmiQueuePair
  /** Sends to shared queues of a peer's XRC domain. */
  xrcInitiator(options: XrcInitiatorOptions): XrcInitiator
  /** A shared receive queue. Throws RdmaError EINVAL, ENOMEM. */
  srq(options?: SrqOptions): SharedReceiveQueue
  /** A shared receive queue that XRC senders name. Throws RdmaError EINVAL, ENOMEM. */
  xrcSrq(options: XrcSrqOptions): XrcSharedReceiveQueue
  /** Where datagrams go. Throws RdmaError EINVAL for an address that is none. */
  addressHandle(to: Destination): AddressHandle
  /** Many with one call, all or none of them (R25). */
  addressHandles(to: readonly Destination[]): readonly AddressHandle[]
  /** The end of many, made here, with one call: all or none of them. */
  closeAddressHandles(handles: readonly AddressHandle[]): void
  /** Throws RdmaError EBUSY while anything is in it. */
  close(): void
}

/** With a `sendCq` completions go there; without one requests are promises. A `sendCq` that is undefined is a mistake. */
const hasCq = (options: object | undefined): boolean =>
  typeof options === 'object' && options !== null && 'sendCq' in options

class Domain extends VerbsObject implements ProtectionDomain {
  get cls(): typeof Pd {
    return Pd
  }

  register(buffer: Uint8Array, access: Access = {}): MemoryRegion {
    return make(this.kit, regionPlan(this.kit, this, buffer, access))
  }

  registerFile(file: number, options: FileRegionOptions): Region {
    return make(this.kit, fileRegionPlan(this.kit, this, file, options))
  }

  nullRegion(length: number, access?: Access): Region {
    return make(this.kit, nullRegionPlan(this.kit, this, length, access))
  }

  wholeRegion(access?: Access): WholeRegion {
    return make(this.kit, wholeRegionPlan(this.kit, this, access))
  }

  window(type: 1 | 2 = 2): MemoryWindow {
    return make(this.kit, windowPlan(this.kit, this, type))
  }

  rcQp(options: RcQueuePairOptions): RcQueuePair
  rcQp(options?: AwaitableRcOptions): AwaitableRcQueuePair
  rcQp(options?: RcQueuePairOptions | AwaitableRcOptions): RcQueuePair | AwaitableRcQueuePair {
    return hasCq(options)
      ? make(this.kit, rcQpPlan(this.kit, this, options as RcQueuePairOptions))
      : awaitableRcQp(this.kit, this, options)
  }

  ucQp(options: UcQueuePairOptions): UcQueuePair
  ucQp(options?: AwaitableUcOptions): AwaitableUcQueuePair
  ucQp(options?: UcQueuePairOptions | AwaitableUcOptions): UcQueuePair | AwaitableUcQueuePair {
    return hasCq(options)
      ? make(this.kit, ucQpPlan(this.kit, this, options as UcQueuePairOptions))
      : awaitableUcQp(this.kit, this, options)
  }

  udQp(options: UdQueuePairOptions): UdQueuePair
  udQp(options?: AwaitableUdOptions): AwaitableUdQueuePair
  udQp(options?: UdQueuePairOptions | AwaitableUdOptions): UdQueuePair | AwaitableUdQueuePair {
    return hasCq(options)
      ? make(this.kit, udQpPlan(this.kit, this, options as UdQueuePairOptions))
      : awaitableUdQp(this.kit, this, options)
  }

  gsiQp(options: GsiQueuePairOptions): GsiQueuePair {
    return make(this.kit, gsiQpPlan(this.kit, this, options))
  }

  smiQp(options: SmiQueuePairOptions): SmiQueuePair {
    return make(this.kit, smiQpPlan(this.kit, this, options))
  }

  xrcInitiator(options: XrcInitiatorOptions): XrcInitiator {
    return make(this.kit, xrcInitiatorPlan(this.kit, this, options))
  }

  srq(options?: SrqOptions): SharedReceiveQueue {
    return make(this.kit, srqPlan(this.kit, this, options))
  }

  xrcSrq(options: XrcSrqOptions): XrcSharedReceiveQueue {
    return make(this.kit, xrcSrqPlan(this.kit, this, options))
  }

  addressHandle(to: Destination): AddressHandle {
    return make(this.kit, addressPlan(this.kit, this, to))
  }

  addressHandles(to: readonly Destination[]): readonly AddressHandle[] {
    return makeAddresses(this.kit, this, to)
  }

  closeAddressHandles(handles: readonly AddressHandle[]): void {
    closeAddresses(this.kit, this, handles)
  }
}
defineVerbsClass(Domain, 'pd', 'ProtectionDomain')

export const pdPlan = (kit: DeviceContext): Plan<ProtectionDomain> =>
  plan(Pd, {}, ({ object: handle }) => new Domain(kit, handle))
