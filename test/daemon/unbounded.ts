/* A share of descriptors that has no end, for tests that are about something else. */
import type { Share } from '../../src/daemon/shares.ts'

export const unbounded: Share = { take: () => () => {} }
