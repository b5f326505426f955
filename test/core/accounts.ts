/*
 * Accounts of processes of the daemon's user and of guests.
 */
import type { Account } from '../../src/core/model.ts'
import { createAccount } from '../../src/core/objects/limits.ts'
import { createSharedLimits, type SharedLimits } from '../../src/daemon/accounts.ts'

/** The daemon's user, and another user. */
export const OWNER = process.geteuid?.() ?? 1000
export const GUEST = 7

export const accountIn = (limits: SharedLimits, user = OWNER, pid = 1): Account =>
  createAccount(limits, { pid, user, owner: OWNER })

/** The account of a process of the daemon's user. `bytes`: of memory for all processes. */
export const ownAccount = (bytes?: number): Account =>
  accountIn(createSharedLimits(bytes === undefined ? {} : { memory: bytes }))
