/*
 * Protection domains in the library (IBA 10.2.3): everything that works on memory is made in one.
 */
import { Pd } from '../spec/classes/pd.ts'
import {
  type RcQueuePair,
  type RcQueuePairOptions,
  rcQpPlan,
  type UcQueuePair,
  type UcQueuePairOptions,
  ucQpPlan,
} from './connected.ts'
import {
  type AddressHandle,
  addressPlan,
  closeAddresses,
  type Destination,
  makeAddresses,
  type UdQueuePair,
  type UdQueuePairOptions,
  udQpPlan,
} from './datagram.ts'
import {
  type Access,
  deviceRegionPlan,
  type FileRegionOptions,
  fileRegionPlan,
  type MemoryRegion,
  nullRegionPlan,
  type Region,
  regionPlan,
  type WholeRegion,
  wholeRegionPlan,
} from './memory.ts'
import { closable, type Kit, type MakeAll, make, type Named, type Plan, plan } from './plan.ts'
import {
  type SharedReceiveQueue,
  type SrqOptions,
  srqPlan,
  type XrcSharedReceiveQueue,
  type XrcSrqOptions,
  xrcSrqPlan,
} from './shared-receive.ts'
import { type MemoryWindow, windowPlan } from './window.ts'
import { type XrcInitiator, type XrcInitiatorOptions, xrcInitiatorPlan } from './xrc.ts'

export interface ProtectionDomain extends Disposable {
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
  /** Memory of the device, of an object of class `dm`. */
  deviceRegion(dm: Named, options: FileRegionOptions): Region
  /** A memory window that grants nothing yet; type 2 (default) belongs to the queue pair that binds it. */
  window(type?: 1 | 2): MemoryWindow
  /** Reliable connected. */
  rcQp(options: RcQueuePairOptions): RcQueuePair
  /** Unreliable connected. */
  ucQp(options: UcQueuePairOptions): UcQueuePair
  /** Unreliable datagrams. */
  udQp(options: UdQueuePairOptions): UdQueuePair
  /** Sends to shared queues of a peer's XRC domain. */
  xrcInitiator(options: XrcInitiatorOptions): XrcInitiator
  srq(options?: SrqOptions): SharedReceiveQueue
  xrcSrq(options: XrcSrqOptions): XrcSharedReceiveQueue
  addressHandle(to: Destination): AddressHandle
  /** Many with one call, all or none of them (R25). */
  addressHandles(to: readonly Destination[]): readonly AddressHandle[]
  /** The end of many, made here, with one call: all or none of them. */
  closeAddressHandles(handles: readonly AddressHandle[]): void
  /** Throws RdmaError EBUSY while anything is in it. */
  close(): void
}

export const pdPlan = (kit: Kit, makeAll: MakeAll): Plan<ProtectionDomain> =>
  plan(Pd, {}, ({ object: handle }) => {
    const self: Omit<ProtectionDomain, 'close' | typeof Symbol.dispose> = {
      handle,
      register: (buffer, access = {}) => make(kit, regionPlan(kit, self, buffer, access)),
      registerFile: (file, options) => make(kit, fileRegionPlan(kit, self, file, options)),
      nullRegion: (length, access) => make(kit, nullRegionPlan(kit, self, length, access)),
      wholeRegion: access => make(kit, wholeRegionPlan(kit, self, access)),
      deviceRegion: (dm, options) => make(kit, deviceRegionPlan(kit, self, dm, options)),
      window: (type = 2) => make(kit, windowPlan(kit, self, type)),
      rcQp: options => make(kit, rcQpPlan(kit, self, options)),
      ucQp: options => make(kit, ucQpPlan(kit, self, options)),
      udQp: options => make(kit, udQpPlan(kit, self, options)),
      xrcInitiator: options => make(kit, xrcInitiatorPlan(kit, self, options)),
      srq: options => make(kit, srqPlan(kit, self, options)),
      xrcSrq: options => make(kit, xrcSrqPlan(kit, self, options)),
      addressHandle: to => make(kit, addressPlan(kit, self, to)),
      addressHandles: to => makeAddresses(kit, self, makeAll, to),
      closeAddressHandles: handles => closeAddresses(kit, self, handles),
    }
    return closable(kit, Pd, self)
  })
