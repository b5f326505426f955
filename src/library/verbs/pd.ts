/*
 * Protection domains (IBA 10.2.3) create memory regions, windows, queue pairs, SRQs and address handles.
 */
import { Pd } from '../../spec/classes/pd.ts'
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
import { defineVerbsClass, VerbsObject } from './objects/verbs-object.ts'
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

/** A protection domain (IBA 11.2.1). */
export interface ProtectionDomain extends Disposable, Kind<'pd'> {
  /** Handle of the object, for `device.call` and `device.handles`. */
  readonly handle: number
  /** Registers a buffer. Do not resize or transfer the buffer while it is registered. Throws RdmaError. */
  register<B extends Uint8Array>(buffer: B, access?: Access): MemoryRegion<B>
  /**
   * Registers bytes of a file, by a file descriptor of this process. A daemon accepts only memory files
   * (memfd_create(2)) and dma-bufs. Requests read and write the file, but never make it longer. Throws RdmaError EBADF,
   * EACCES, EINVAL, also beyond the end of the file, and EFAULT without write access to it: local write is the default.
   */
  registerFile(file: number, options: FileRegionOptions): Region
  /** A region of `length` bytes without memory: READs return zeros, WRITEs are discarded. */
  nullRegion(length: number, access?: Access): Region
  /** Registers the program's whole memory: `slice` and `remote` of the region accept every buffer. */
  wholeRegion(access?: Access): WholeRegion
  /** An unbound memory window. A window of type 2 (default) belongs to the queue pair that binds it. */
  window(type?: 1 | 2): MemoryWindow
  /**
   * A reliable connected queue pair. Each request returns a promise, and the queue pair has its own completion queue.
   * Throws RdmaError EINVAL, ENOMEM.
   */
  rcQp(options?: AwaitableRcOptions): AwaitableRcQueuePair
  /** @deprecated Use `polledRcQp`; removed in 1.0. */
  rcQp(options: RcQueuePairOptions): RcQueuePair
  /**
   * A reliable connected queue pair whose requests complete in completion queues of the program: nothing is allocated
   * for a request. Throws RdmaError EINVAL, ENOMEM.
   */
  polledRcQp(options: RcQueuePairOptions): RcQueuePair
  /** An unreliable connected queue pair; each request returns a promise, see `rcQp`. */
  ucQp(options?: AwaitableUcOptions): AwaitableUcQueuePair
  /** @deprecated Use `polledUcQp`; removed in 1.0. */
  ucQp(options: UcQueuePairOptions): UcQueuePair
  /** An unreliable connected queue pair with completion queues of the program, see `polledRcQp`. */
  polledUcQp(options: UcQueuePairOptions): UcQueuePair
  /** An unreliable datagram queue pair; each request returns a promise, see `rcQp`. */
  udQp(options?: AwaitableUdOptions): AwaitableUdQueuePair
  /** @deprecated Use `polledUdQp`; removed in 1.0. */
  udQp(options: UdQueuePairOptions): UdQueuePair
  /** An unreliable datagram queue pair with completion queues of the program, see `polledRcQp`. */
  polledUdQp(options: UdQueuePairOptions): UdQueuePair
  /** Queue pair 1 of the port (general management services); there is one per port. */
  gsiQp(options: GsiQueuePairOptions): GsiQueuePair
  /** Queue pair 0 of the port (subnet management). */
  smiQp(options: SmiQueuePairOptions): SmiQueuePair
  /** An XRC initiator: it sends to SRQs of a peer's XRC domain. */
  xrcInitiator(options: XrcInitiatorOptions): XrcInitiator
  /** A shared receive queue. Throws RdmaError EINVAL, ENOMEM. */
  srq(options?: SrqOptions): SharedReceiveQueue
  /** An SRQ for XRC: senders name the SRQ by its `srqNumber`. Throws RdmaError EINVAL, ENOMEM. */
  xrcSrq(options: XrcSrqOptions): XrcSharedReceiveQueue
  /** An address handle: the destination of datagrams. Throws RdmaError EINVAL for an invalid address. */
  addressHandle(destination: Destination): AddressHandle
  /**
   * Creates many address handles, all or none: up to 32,768 with one call of the device if it supports this and
   * no destination has `dmac` or `vlan`.
   */
  addressHandles(destinations: readonly Destination[]): readonly AddressHandle[]
  /**
   * Destroys many address handles of this protection domain, up to 32,768 with one call of the device. Each call of the
   * device destroys all or none.
   */
  closeAddressHandles(handles: readonly AddressHandle[]): void
  /** Destroys the protection domain. Throws RdmaError EBUSY while it is in use. */
  close(): void
}

/** Whether the program has passed a `sendCq`. */
const hasSendCq = <T extends object>(options: T | undefined): options is Extract<T, { readonly sendCq: unknown }> =>
  (options as { readonly sendCq?: unknown } | undefined)?.sendCq !== undefined

class PdObject extends VerbsObject implements ProtectionDomain {
  get cls(): typeof Pd {
    return Pd
  }

  register<B extends Uint8Array>(buffer: B, access: Access = {}): MemoryRegion<B> {
    return make(this.context, regionPlan(this.context, this, buffer, access))
  }

  registerFile(file: number, options: FileRegionOptions): Region {
    return make(this.context, fileRegionPlan(this.context, this, file, options))
  }

  nullRegion(length: number, access?: Access): Region {
    return make(this.context, nullRegionPlan(this.context, this, length, access))
  }

  wholeRegion(access?: Access): WholeRegion {
    return make(this.context, wholeRegionPlan(this.context, this, access))
  }

  window(type: 1 | 2 = 2): MemoryWindow {
    return make(this.context, windowPlan(this.context, this, type))
  }

  rcQp(options?: AwaitableRcOptions): AwaitableRcQueuePair
  rcQp(options: RcQueuePairOptions): RcQueuePair
  rcQp(options?: RcQueuePairOptions | AwaitableRcOptions): RcQueuePair | AwaitableRcQueuePair {
    return hasSendCq(options) ? this.polledRcQp(options) : awaitableRcQp(this.context, this, options)
  }

  polledRcQp(options: RcQueuePairOptions): RcQueuePair {
    return make(this.context, rcQpPlan(this.context, this, options))
  }

  ucQp(options?: AwaitableUcOptions): AwaitableUcQueuePair
  ucQp(options: UcQueuePairOptions): UcQueuePair
  ucQp(options?: UcQueuePairOptions | AwaitableUcOptions): UcQueuePair | AwaitableUcQueuePair {
    return hasSendCq(options) ? this.polledUcQp(options) : awaitableUcQp(this.context, this, options)
  }

  polledUcQp(options: UcQueuePairOptions): UcQueuePair {
    return make(this.context, ucQpPlan(this.context, this, options))
  }

  udQp(options?: AwaitableUdOptions): AwaitableUdQueuePair
  udQp(options: UdQueuePairOptions): UdQueuePair
  udQp(options?: UdQueuePairOptions | AwaitableUdOptions): UdQueuePair | AwaitableUdQueuePair {
    return hasSendCq(options) ? this.polledUdQp(options) : awaitableUdQp(this.context, this, options)
  }

  polledUdQp(options: UdQueuePairOptions): UdQueuePair {
    return make(this.context, udQpPlan(this.context, this, options))
  }

  gsiQp(options: GsiQueuePairOptions): GsiQueuePair {
    return make(this.context, gsiQpPlan(this.context, this, options))
  }

  smiQp(options: SmiQueuePairOptions): SmiQueuePair {
    return make(this.context, smiQpPlan(this.context, this, options))
  }

  xrcInitiator(options: XrcInitiatorOptions): XrcInitiator {
    return make(this.context, xrcInitiatorPlan(this.context, this, options))
  }

  srq(options?: SrqOptions): SharedReceiveQueue {
    return make(this.context, srqPlan(this.context, this, options))
  }

  xrcSrq(options: XrcSrqOptions): XrcSharedReceiveQueue {
    return make(this.context, xrcSrqPlan(this.context, this, options))
  }

  addressHandle(destination: Destination): AddressHandle {
    return make(this.context, addressPlan(this.context, this, destination))
  }

  addressHandles(destinations: readonly Destination[]): readonly AddressHandle[] {
    return makeAddresses(this.context, this, destinations)
  }

  closeAddressHandles(handles: readonly AddressHandle[]): void {
    closeAddresses(this.context, this, handles)
  }
}
defineVerbsClass(PdObject, 'pd', 'ProtectionDomain')

export const pdPlan = (context: DeviceContext): Plan<ProtectionDomain> =>
  plan(Pd, {}, ({ object: handle }) => new PdObject(context, handle))
