/*
 * Counters that other objects count into, in the library (class `counters`; rdma-core: ibv_create_counters): rules of
 * steering name a set of them. What each one counts is the device's business. Not what a device and its ports count by
 * themselves: that is `device.counters()`.
 */
import { Counters } from '../spec/classes/counters.ts'
import { CountersFlags } from '../spec/enums.ts'
import { checkOptions, type Words } from './checks/options.ts'
import { type DeviceContext, type HeldObject, type Plan, plan } from './plan.ts'
import { closeMethods, withMethods } from './shared-methods.ts'

export interface ReadOptions {
  /** Values that are a little old will do. */
  readonly cached?: boolean
}

export interface CounterSet extends Disposable {
  readonly handle: number
  /** The values now, in the device's order. */
  read(options?: ReadOptions): readonly bigint[]
  /** Throws RdmaError EBUSY while a rule counts into it. */
  close(): void
}

const words: Words<ReadOptions> = { cached: true }

const methods: Omit<CounterSet, 'handle'> & ThisType<HeldObject> = {
  read(options = {}) {
    checkOptions('counters.query', 'options', options, words)
    const flags = options.cached === true ? CountersFlags.values.PREFER_CACHED : 0
    return this.kit.carrier.call(Counters, 'query', this.handle, { flags }).out.values.map(({ value }) => value)
  },
  ...closeMethods<HeldObject>(Counters),
}

export const counterSetPlan = (kit: DeviceContext): Plan<CounterSet> =>
  plan(Counters, {}, ({ object: handle }) =>
    withMethods<CounterSet>(methods, { kit, handle, isOpen: true } satisfies HeldObject),
  )
