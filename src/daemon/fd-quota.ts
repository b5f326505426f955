/*
 * How many of the daemon's descriptors a client may hold (docs/decisions/fd-quota.md: programs are hostile).
 *
 * Sessions, contexts, event sockets and files of programs are each a descriptor here, so one program could take all of
 * them and leave none for the others. A process may hold a quarter of what it and nobody else holds, and a user other
 * than the daemon's own half: each that comes finds a part of what is left, however many came before and took all they
 * were given. A few everybody may hold while there are any. What is charged is whoever asked; the descriptors
 * themselves are not known here. Node has raised our soft limit to the hard one before we run.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { CallError } from '../spec/errno.ts'

export interface FdQuota {
  /**
   * Charges for `count` descriptors that are about to be made; what it answers gives them back (more than once does
   * nothing). Throws CallError: EMFILE over the share, ENFILE if there are none left for anybody.
   */
  take(count: number): () => void
}

export interface FdQuotas {
  /** The share of a process; all its sessions have one. */
  of(pid: number, uid: number): FdQuota
  /** Descriptors that are charged to all together. */
  readonly held: number
}

/** What `make` makes; if it throws, what was charged for it is given back. */
export const orRelease = <T>(giveBack: () => void, make: () => T): T => {
  try {
    return make()
  } catch (error) {
    giveBack()
    throw error
  }
}

/** What everybody may hold: a session, and a context or two with their events. */
const FEW = 16
/** Left for ourselves: sockets of devices, captures, both ends of what is passed on. */
const OWN = 32
const OF_PROCESS = 4
const OF_USER = 2

/** Someone who holds descriptors: a process, or all of a user's. */
interface Account {
  readonly name: string
  readonly divisor: number
  held: number
}

/** How many descriptors this process may have in all (RLIMIT_NOFILE). */
const limitOf = (): number => {
  const found = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
  return found === null ? Infinity : Number(found[1])
}

/**
 * `room`: descriptors for clients, by default what this process may open beside those that it has now. `owner`: the
 * user who is not limited as a user; by default ours.
 */
export const createFdQuotas = (
  room: number = Math.max(0, limitOf() - readdirSync('/proc/self/fd').length - OWN),
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
    const most = Math.max(FEW, Math.floor((room - held + own) / divisor))
    if (own + count > most)
      throw new CallError(
        'EMFILE',
        `${name} holds ${own} descriptors of the daemon, and may hold ${most} of the ${room} (RLIMIT_NOFILE) that it has for programs; close some, or start the daemon with a higher limit`,
      )
  }

  return {
    of: (pid, uid) => ({
      take(count) {
        const charged = [accountOf(`process ${pid}`, OF_PROCESS)]
        if (uid !== owner) charged.push(accountOf(`user ${uid}`, OF_USER))
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
