/*
 * An unlimited quota of descriptors.
 */
import type { FdQuota } from '../../src/daemon/fd-quota.ts'

export const unbounded: FdQuota = { take: () => () => {} }
