/*
 * Memory of a device (class `dm`). A driver whose `dm` objects have this state needs no code for regions of it: core's
 * class `mr` registers them (core/base/mr.ts).
 */
import type { AddressSpace } from './address-space.ts'

export interface DeviceMemory {
  /** Where regions read and write. */
  readonly space: AddressSpace
  /** Address of the first byte in `space`, an exact Number. */
  readonly start: number
  /** Bytes. */
  readonly length: number
}
