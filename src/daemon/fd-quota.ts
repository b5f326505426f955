/*
 * Quotas of the daemon's descriptors (docs/decisions/fd-quota.md). Sessions, contexts, event sockets and programs'
 * files take descriptors of the daemon. Without quotas one program could use them all.
 *
 * Each quota is a part of the descriptors that nothing else has, and at least MINIMUM:
 * - A process may have a quarter.
 * - The processes of a user together may have half. The daemon's own user has no such quota.
 * - The multicast groups of all devices together may have a quarter. On ports with sockets each group has a socket,
 *   which belongs to no process: several may be members.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { CallError } from '../spec/errno.ts'

export interface FdQuota {
  /**
   * Charges `count` new descriptors. The returned function releases them. Throws CallError: EMFILE beyond the quota,
   * ENFILE if the daemon has too few left.
   */
  take(count: number): () => void
}

export interface FdQuotas {
  /** The quota of a process, for all its sessions together. */
  of(pid: number, uid: number): FdQuota
  /** The quota of the multicast groups of all devices together. */
  readonly groups: FdQuota
  /** Number of charged descriptors. */
  readonly charged: number
}

/** Runs `make`; if that throws, calls `releaseQuota`. */
export const orRelease = <T>(releaseQuota: () => void, make: () => T): T => {
  try {
    return make()
  } catch (error) {
    releaseQuota()
    throw error
  }
}

/** Enough for a session, and one or two contexts with their events. */
const MINIMUM = 16
/** For the daemon itself: sockets of devices that are added later, programs' ends of sockets until they are passed. */
const RESERVED = 32
/** The quota is the number of descriptors that nothing else has, divided by this. */
const PROCESS_DIVISOR = 4
const USER_DIVISOR = 2
const GROUPS_DIVISOR = 4

/** Of a process, of a user, or of the multicast groups. */
interface Account {
  readonly name: string
  readonly divisor: number
  charged: number
}

/** RLIMIT_NOFILE. Node raises the soft limit to the hard limit at its start. */
const descriptorLimit = (): number => {
  const found = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
  return found === null ? Infinity : Number(found[1])
}

/**
 * `available`: number of descriptors for programs, by default all that this process may still open, minus RESERVED.
 * `owner`: the user without a user quota, by default the daemon's.
 */
export const createFdQuotas = (
  available: number = Math.max(0, descriptorLimit() - readdirSync('/proc/self/fd').length - RESERVED),
  owner: number | undefined = process.geteuid?.(),
): FdQuotas => {
  const accounts = new Map<string, Account>()
  let total = 0

  const charge = (account: Account, count: number): void => {
    account.charged += count
    if (account.charged > 0) accounts.set(account.name, account)
    else accounts.delete(account.name)
  }

  const accountOf = (name: string, divisor: number): Account => accounts.get(name) ?? { name, divisor, charged: 0 }

  const checkQuota = ({ name, divisor, charged: used }: Account, count: number): void => {
    const max = Math.max(MINIMUM, Math.floor((available - total + used) / divisor))
    if (used + count > max)
      throw new CallError(
        'EMFILE',
        `${name} uses ${used} descriptors of the daemon and may use ${max}, but needs ${count} more; the daemon has ${available} for programs (RLIMIT_NOFILE); close some, or start it with a higher limit`,
      )
  }

  /** `accounts` returns the accounts to charge. */
  const quotaOf = (accounts: () => Account[]): FdQuota => ({
    take(count) {
      const accountsToCharge = accounts()
      if (total + count > available)
        throw new CallError(
          'ENFILE',
          `all ${available} descriptors (RLIMIT_NOFILE) of the daemon for programs are in use`,
        )
      for (const account of accountsToCharge) checkQuota(account, count)
      total += count
      for (const account of accountsToCharge) charge(account, count)
      let isTaken = true
      return () => {
        if (!isTaken) return
        isTaken = false
        total -= count
        for (const account of accountsToCharge) charge(account, -count)
      }
    },
  })

  return {
    of: (pid, uid) =>
      quotaOf(() => {
        const ofProcess = accountOf(`process ${pid}`, PROCESS_DIVISOR)
        return uid === owner ? [ofProcess] : [ofProcess, accountOf(`user ${uid}`, USER_DIVISOR)]
      }),
    groups: quotaOf(() => [accountOf('the set of all multicast groups', GROUPS_DIVISOR)]),
    get charged() {
      return total
    },
  }
}
