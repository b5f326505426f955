/*
 * Protection domains in the library (IBA 10.2.3); they create everything that accesses memory.
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
  /** Registers a buffer, which must not be resized or transferred while it is registered. Throws RdmaError. */
  register(buffer: Uint8Array, access?: Access): MemoryRegion
  /**
   * Registers bytes of a file, by a descriptor of this process; a daemon accepts memory files only. The file is
   * accessed at each request and never grows. Throws RdmaError EBADF, EINVAL.
   */
  registerFile(file: number, options: FileRegionOptions): Region
  /** A region of `length` bytes without memory: reads return zeros, writes are discarded. */
  nullRegion(length: number, access?: Access): Region
  /** Registers the program's whole memory, so that no buffer needs a registration of its own. */
  wholeRegion(access?: Access): WholeRegion
  /** A memory window, not bound yet; type 2 (default) belongs to the queue pair that binds it. */
  window(type?: 1 | 2): MemoryWindow
  /**
   * A reliable connected queue pair. With a `sendCq`, requests complete there without allocation; without one each
   * request returns a promise, and the queue pair owns its completion queue. Throws RdmaError EINVAL, ENOMEM.
   */
  rcQp(options: RcQueuePairOptions): RcQueuePair
  rcQp(options?: AwaitableRcOptions): AwaitableRcQueuePair
  /** An unreliable connected queue pair; `sendCq` as for `rcQp`. */
  ucQp(options: UcQueuePairOptions): UcQueuePair
  ucQp(options?: AwaitableUcOptions): AwaitableUcQueuePair
  /** An unreliable datagram queue pair; `sendCq` as for `rcQp`. */
  udQp(options: UdQueuePairOptions): UdQueuePair
  udQp(options?: AwaitableUdOptions): AwaitableUdQueuePair
  /** Queue pair 1 of the port (general management services); there is one per port. */
  gsiQp(options: GsiQueuePairOptions): GsiQueuePair
  /** Queue pair 0 of the port (subnet management). */
  smiQp(options: SmiQueuePairOptions): SmiQueuePair
  /** An XRC initiator: it sends to SRQs of a peer's XRC domain. */
  xrcInitiator(options: XrcInitiatorOptions): XrcInitiator
  /** A shared receive queue. Throws RdmaError EINVAL, ENOMEM. */
  srq(options?: SrqOptions): SharedReceiveQueue
  /** An SRQ for XRC, named by senders. Throws RdmaError EINVAL, ENOMEM. */
  xrcSrq(options: XrcSrqOptions): XrcSharedReceiveQueue
  /** An address handle: the destination of datagrams. Throws RdmaError EINVAL for an invalid address. */
  addressHandle(to: Destination): AddressHandle
  /** Many address handles with one call, all or none (R25). */
  addressHandles(to: readonly Destination[]): readonly AddressHandle[]
  /** Destroys many address handles of this protection domain with one call, all or none. */
  closeAddressHandles(handles: readonly AddressHandle[]): void
  /** Destroys it. Throws RdmaError EBUSY while it is in use. */
  close(): void
}

/**
 * With a `sendCq` completions go there; without one requests return promises. An explicit `sendCq: undefined` is
 * refused.
 */
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
