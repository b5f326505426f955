/*
 * Limits of a device that users may lower (`--device NAME@ADDRESS,max_qp=10`), with the names of ibv_query_device(3).
 * All but `max_pinned` are what a query returns. Linux's drivers have no name for the pages that an adapter can
 * translate: `max_pinned` is what remains of them for registered memory.
 */
import { isQueuePairClass, isSrqClass } from './classes/ids.ts'

interface DeviceLimit {
  /** The attribute of the device, or the limit of its queues, that is lowered; absent: neither. */
  readonly of?: string
  /** What is counted. */
  readonly what: string
  /** The class whose objects are counted, with others of its kind; absent: no objects are counted. */
  readonly class?: string
  readonly isBytes?: true
  /** The smallest value; default 1. Adapters lack what may be 0. */
  readonly min?: 0
}

const deviceLimits = {
  max_qp: { of: 'maxQp', what: 'queue pairs', class: 'rc_qp' },
  max_cq: { of: 'maxCq', what: 'completion queues', class: 'cq' },
  max_mr: { of: 'maxMr', what: 'memory regions', class: 'mr' },
  max_pd: { of: 'maxPd', what: 'protection domains', class: 'pd' },
  max_mw: { of: 'maxMw', what: 'memory windows', class: 'mw', min: 0 },
  max_ah: { of: 'maxAh', what: 'address handles', class: 'ah', min: 0 },
  max_srq: { of: 'maxSrq', what: 'shared receive queues', class: 'srq', min: 0 },
  max_res_rd_atom: { of: 'maxResRdAtom', what: 'responder resources of all queue pairs together' },
  max_pinned: { what: 'bytes of registered memory', isBytes: true },
  max_qp_wr: { of: 'maxQpWr', what: 'requests of a queue' },
  max_sge: { of: 'maxSge', what: 'elements of a request' },
  max_srq_wr: { of: 'maxSrqWr', what: 'receives of a shared receive queue' },
  max_srq_sge: { of: 'maxSrqSge', what: 'elements of a shared receive' },
  max_inline_data: { of: 'maxInline', what: 'inline data of a request, in bytes', min: 0 },
  max_cqe: { of: 'maxCqe', what: 'completions of a queue' },
  max_qp_rd_atom: { of: 'maxRdAtomic', what: 'READs and atomics of a queue pair, in each direction' },
} as const satisfies Readonly<Record<string, DeviceLimit>>

export type DeviceLimitName = keyof typeof deviceLimits
export const deviceLimitNames = Object.keys(deviceLimits) as readonly DeviceLimitName[]
/** Those of objects. */
type ObjectLimitName = {
  [N in DeviceLimitName]: (typeof deviceLimits)[N] extends { readonly class: string } ? N : never
}[DeviceLimitName]
/** Values of some limits; bytes of those with `isBytes`. */
export type DeviceLimits = Readonly<Partial<Record<DeviceLimitName, number>>>

export const deviceLimit = (name: DeviceLimitName): DeviceLimit => deviceLimits[name]

/** The limit of the objects of a class. Work queues are queue pairs without sends. */
export const limitOfClass = (cls: string): ObjectLimitName | undefined => {
  if (isQueuePairClass(cls) || cls === 'wq') return 'max_qp'
  if (isSrqClass(cls)) return 'max_srq'
  return deviceLimitNames.find(name => deviceLimit(name).class === cls) as ObjectLimitName | undefined
}
