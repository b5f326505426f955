/*
 * Memory of the device in the library (class `dm`; rdma-core: ibv_alloc_dm): bytes that lie in the device, and are
 * reached through regions of them, `pd.deviceRegion(dm)`. No device here has any; one of a program's own driver may.
 */
import { Dm } from '../../spec/classes/dm.ts'
import type { Out } from '../../spec/schema/schema.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { invalidArgument } from '../error.ts'
import { type DeviceContext, type HeldObject, type Plan, plan } from '../plan.ts'
import { closeMethods, withMethods } from '../shared-methods.ts'

export interface DeviceMemoryOptions {
  /** Bytes. */
  readonly length: number
  /** It begins at a multiple of so many bytes, a power of two; default 1. */
  readonly alignment?: number
}

export interface DeviceMemory extends Disposable {
  readonly handle: number
  /** Bytes that were asked for. */
  readonly length: number
  /** What the device gave. `alignment`: the power of two. */
  query(): Out<typeof Dm.methods.query>
  /** Throws RdmaError EBUSY while a region of it is registered. */
  close(): void
}

const words: Words<DeviceMemoryOptions> = { length: true, alignment: true }

type Fields = HeldObject & Pick<DeviceMemory, 'length'>

const methods: Omit<DeviceMemory, 'handle' | 'length'> & ThisType<Fields> = {
  query() {
    return this.kit.carrier.call(Dm, 'query', this.handle, {}).out
  },
  ...closeMethods<Fields>(Dm),
}

export const dmPlan = (kit: DeviceContext, options: DeviceMemoryOptions): Plan<DeviceMemory> => {
  checkOptions('dm.create', 'options', options, words)
  const { length, alignment = 1 } = options
  if (!Number.isSafeInteger(length) || length < 1)
    throw invalidArgument('dm.create', `length ${String(length)} is no number of bytes`, 'ask for 1 or more')
  const power = Math.log2(alignment)
  if (!Number.isInteger(power) || power < 0)
    throw invalidArgument('dm.create', `alignment ${String(alignment)} is no power of two`)
  return plan(Dm, { length: BigInt(length), alignment: power }, ({ object: handle }) =>
    withMethods<DeviceMemory>(methods, { kit, handle, isOpen: true, length } satisfies Fields),
  )
}
