/*
 * What classes of completion queues share, in any format.
 */
import { requireOpen } from '../../../core/dispatch/invoke.ts'
import type { CallContext } from '../../../core/model.ts'
import { type CqObject, stateOf } from '../state.ts'

const noThreshold = { count: 0, period: 0 }

/**
 * Calls `answer` once the engine has all requests that were posted before the call. The promise rejects with CallError
 * EIO if the context was closed or the device removed meanwhile. `isInProcess`: the context's caller is in this
 * process.
 */
export const afterCatchUp = <T>(call: CallContext, isInProcess: boolean, answer: () => T): T | Promise<T> => {
  const caughtUp = stateOf(call).catchUpAll(isInProcess)
  if (caughtUp === undefined) return answer()
  return caughtUp.then(() => {
    requireOpen(call)
    return answer()
  })
}

/** What a query returns. */
export const describeCq = ({ state, events }: CqObject) => {
  const { kind, completions, errors, compVector } = state
  const { count, period } = events?.state?.threshold ?? noThreshold
  const counts = { completions: BigInt(completions), errors: BigInt(errors) }
  return { cqe: state.capacity, kind, ...counts, compVector, count, period }
}
