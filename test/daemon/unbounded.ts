/*
 * An unlimited quota of descriptors, and time without a bound.
 */
import type { FdQuota } from '../../src/daemon/fd-quota.ts'
import type { ToolShare } from '../../src/daemon/tool-time.ts'

export const unbounded: FdQuota = { take: () => () => {} }

/** Jobs run to their ends at once. */
export const unboundedTime: ToolShare = {
  hasTime: true,
  charge: work => work(),
  async run(job) {
    for (;;) {
      const { done, value } = job.next()
      if (done) return value
    }
  },
}
