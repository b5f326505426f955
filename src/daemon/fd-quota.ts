/*
 * Quotas of the daemon's descriptors (docs/decisions/fd-quota.md: programs are hostile).
 *
 * Sessions, contexts, event sockets and files of programs each take a descriptor, so one program could exhaust them for
 * all. A process may hold a quarter of the descriptors that no other process holds, and a user other than the daemon's
 * own half of those that no other user holds: so every new process gets part of the rest, even if others have used up
 * their quotas. A minimum is granted to every process while any are left. Descriptors are charged to the process that
 * requests them. Node raises the soft limit to the hard limit at its start.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { CallError } from '../spec/errno.ts'

export interface FdQuota {
  /**
   * Charges for `count` new descriptors; the returned function releases them (once). Throws CallError: EMFILE beyond
   * the quota, ENFILE if there are none left.
   */
  take(count: number): () => void
}

export interface FdQuotas {
  /** The quota of a process, common to all its sessions. */
  of(pid: number, uid: number): FdQuota
  /** Descriptors charged to all processes together. */
  readonly held: number
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

/** The minimum per process: a session, and a context or two with their events. */
const MINIMUM = 16
/** Reserved for the daemon: sockets of devices, captures, both ends of descriptors that are passed on. */
const RESERVED = 32
const PROCESS_DIVISOR = 4
const USER_DIVISOR = 2

/** A holder of descriptors: a process, or a user. */
interface Account {
  readonly name: string
  readonly divisor: number
  held: number
}

/** This process's limit of descriptors (RLIMIT_NOFILE). */
const limitOf = (): number => {
  const found = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
  return found === null ? Infinity : Number(found[1])
}

/**
 * `room`: number of descriptors for programs, by default all that this process may still open. `owner`: the user
 * without a limit, by default ours.
 */
export const createFdQuotas = (
  room: number = Math.max(0, limitOf() - readdirSync('/proc/self/fd').length - RESERVED),
  owner: number | undefined = process.getuid?.(),
): FdQuotas => {
  const accounts = new Map<string, Account>()
  let held = 0

  const charge = (account: Account, count: number): void => {
    account.held += count
    if (account.held > 0) accounts.set(account.name, account)
    else accounts.delete(account.name)
  }

  const accountOf = (name: string, divisor: number): Account => accounts.get(name) ?? { name, divisor, held: 0 }

  const checkRoom = ({ name, divisor, held: own }: Account, count: number): void => {
    const max = Math.max(MINIMUM, Math.floor((room - held + own) / divisor))
    if (own + count > max)
      throw new CallError(
        'EMFILE',
        `${name} uses ${own} descriptors of the daemon and may use ${max}; the daemon has ${room} for programs (RLIMIT_NOFILE); close some, or start it with a higher limit`,
      )
  }

  return {
    of: (pid, uid) => ({
      take(count) {
        const charged = [accountOf(`process ${pid}`, PROCESS_DIVISOR)]
        if (uid !== owner) charged.push(accountOf(`user ${uid}`, USER_DIVISOR))
        if (held + count > room)
          throw new CallError('ENFILE', `all ${room} descriptors (RLIMIT_NOFILE) of the daemon for programs are in use`)
        for (const account of charged) checkRoom(account, count)
        held += count
        for (const account of charged) charge(account, count)
        let taken = true
        return () => {
          if (!taken) return
          taken = false
          held -= count
          for (const account of charged) charge(account, -count)
        }
      },
    }),
    get held() {
      return held
    },
  }
}
