/*
 * Time for tools without a bound.
 */
import type { ToolShare } from '../../src/daemon/tool-time.ts'

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
