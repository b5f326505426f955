/*
 * An unlimited quota of descriptors, for tests of other parts.
 */
import type { FdQuota } from '../../src/daemon/fd-quota.ts'

export const unbounded: FdQuota = { take: () => () => {} }
