/*
 * Protection domains in the library (IBA 10.2.3): everything that works on memory is made in one.
 */
import { Pd } from '../spec/classes/pd.ts'
import { type RcQueuePair, rcQpPlan, type UcQueuePair, ucQpPlan } from './connected.ts'
import { type AddressHandle, addressPlan, type Destination, type UdQueuePair, udQpPlan } from './datagram.ts'
import { type Access, type MemoryRegion, regionPlan } from './memory.ts'
import { closer, type Kit, type MakeAll, make, type Plan, plan } from './plan.ts'
import type { QueuePairOptions, SendQueueOptions } from './queue-pair.ts'
import {
  type SharedReceiveQueue,
  type SrqOptions,
  srqPlan,
  type XrcSharedReceiveQueue,
  type XrcSrqOptions,
  xrcSrqPlan,
} from './shared-receive.ts'
import { type MemoryWindow, windowPlan } from './window.ts'
import { type XrcInitiator, xrcInitiatorPlan } from './xrc.ts'

export interface ProtectionDomain extends Disposable {
  readonly handle: number
  /** Registers a buffer. It must not be resized or transferred while it is. Throws RdmaError. */
  register(buffer: Uint8Array, access?: Access): MemoryRegion
  /** A memory window that grants nothing yet; type 2 (default) belongs to the queue pair that binds it. */
  window(type?: 1 | 2): MemoryWindow
  /** Reliable connected. */
  rcQp(options: QueuePairOptions): RcQueuePair
  /** Unreliable connected. */
  ucQp(options: QueuePairOptions): UcQueuePair
  /** Unreliable datagrams. */
  udQp(options: QueuePairOptions): UdQueuePair
  /** Sends to shared queues of a peer's XRC domain. */
  xrcInitiator(options: SendQueueOptions): XrcInitiator
  srq(options?: SrqOptions): SharedReceiveQueue
  xrcSrq(options: XrcSrqOptions): XrcSharedReceiveQueue
  addressHandle(to: Destination): AddressHandle
  /** Many at once, all or none of them. */
  addressHandles(to: readonly Destination[]): AddressHandle[]
  /** Throws RdmaError EBUSY while anything is in it. */
  close(): void
}

export const pdPlan = (kit: Kit, makeAll: MakeAll): Plan<ProtectionDomain> =>
  plan(Pd, {}, ({ object: handle }) => {
    const { carrier } = kit
    const self = { handle }
    const close = closer(carrier, Pd, handle)
    return {
      handle,
      register: (buffer, access = {}) => make(kit, regionPlan(kit, self, buffer, access)),
      window: (type = 2) => make(kit, windowPlan(kit, self, type)),
      rcQp: options => make(kit, rcQpPlan(kit, self, options)),
      ucQp: options => make(kit, ucQpPlan(kit, self, options)),
      udQp: options => make(kit, udQpPlan(kit, self, options)),
      xrcInitiator: options => make(kit, xrcInitiatorPlan(kit, self, options)),
      srq: options => make(kit, srqPlan(kit, self, options)),
      xrcSrq: options => make(kit, xrcSrqPlan(kit, self, options)),
      addressHandle: to => make(kit, addressPlan(kit, self, to)),
      addressHandles: to => makeAll(to.map(one => addressPlan(kit, self, one))),
      close,
      [Symbol.dispose]: close,
    }
  })
