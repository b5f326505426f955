/* A share of descriptors that has no end, for tests that are about something else. */
import type { FdQuota } from '../../src/daemon/fd-quota.ts'

export const unbounded: FdQuota = { take: () => () => {} }
