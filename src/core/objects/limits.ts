/*
 * Limits, and the shares of accounts in them: of the objects of a device, of multicast groups, ports, memory,
 * descriptors, and whatever else users share (docs/decisions/shares.md). There is one rule. An account has holders,
 * each a part of the next: a process, its user, and all users but the owner together. A process or user may have half
 * of what is left by others in the same next holder; all users but the owner may have seven eighths of what the owner
 * leaves. So the owner, who runs the daemon, always keeps a reserve, and users leave something to each other.
 */
import { CallError } from '../../spec/errno.ts'
import { coded, type Place } from '../../spec/reason.ts'
import type { Account, Holder, Limit } from '../model.ts'

/** `subject`: what is counted, as in `3 objects of class pd`. */
export const createLimit = (
  subject: string,
  max: number,
  settings: Partial<Omit<Limit, 'subject' | 'max' | 'used' | 'held'>> = {},
): Limit => {
  const { errno = 'ENOMEM' } = settings
  const defaults = { minimum: 1, hasProcessShares: false, format: String, fullErrno: errno, advice: 'destroy some' }
  return { subject, max, ...defaults, errno, ...settings, used: 0, held: new Map() }
}

/**
 * The account of a process. `user`: its uid. `owner`: the uid that runs the daemon. `payer`: the uid whose share it
 * uses. `limits`: of the daemon.
 */
export const createAccount = (
  limits: Omit<Account, 'user' | 'payer' | 'holders'>,
  { pid, user, owner, payer = user }: { pid: number; user: number; owner: number | undefined; payer?: number },
): Account => {
  const half = { part: 1 / 2, hasMinimum: true }
  const ofProcess = { name: `process ${pid}`, ...half, text: 'half of what no other process of its user has' }
  const name = `user ${payer}`
  const ofUser: readonly Holder[] =
    payer === owner
      ? [{ name, part: 1, hasMinimum: false, text: 'all' }]
      : [
          { name, ...half, text: 'half of what no other user has and the owner does not keep' },
          {
            name: `all users but ${owner} together`,
            part: 7 / 8,
            hasMinimum: false,
            text: 'seven eighths of what the owner does not have',
          },
        ]
  return { ...limits, user, payer, holders: [ofProcess, ...ofUser] }
}

const heldBy = ({ held }: Limit, name: string): number => held.get(name) ?? 0

const fullText = ({ subject, format, used, max, name, held }: Limit): string => {
  const [user, most] = [...held]
    .filter(([holder]) => holder.startsWith('user '))
    .reduce((first, next) => (next[1] > first[1] ? next : first), ['', 0])
  const mostText = most === 0 ? '' : `; ${user} has the most of them, ${format(most)}`
  const named = name === undefined ? '' : ` (${name})`
  return `${format(used)} ${subject} are in use, of ${format(max)}${named}${mostText}`
}

/** Index of the innermost holder that has a share in the limit. */
const innermost = ({ hasProcessShares }: Limit): number => (hasProcessShares ? 0 : 1)

/** Charges also beyond shares and limit. `account` undefined: core itself, or a caller in this process. */
export const addTo = (limit: Limit, account: Account | undefined, amount = 1): void => {
  limit.used += amount
  if (account === undefined) return
  for (let i = innermost(limit); i < account.holders.length; i++) {
    const { name } = account.holders[i]!
    const sum = heldBy(limit, name) + amount
    if (sum > 0) limit.held.set(name, sum)
    else limit.held.delete(name)
  }
}

export const removeFrom = (limit: Limit, account: Account | undefined, amount = 1): void =>
  addTo(limit, account, -amount)

/** The outermost holder of an account that may not have `amount` more, and what it may have. */
const exceeded = (
  limit: Limit,
  account: Account,
  amount: number,
): { readonly holder: Holder; readonly available: number } | undefined => {
  let [available, taken] = [limit.max, limit.used]
  for (let i = account.holders.length - 1; i >= innermost(limit); i--) {
    const holder = account.holders[i]!
    const held = heldBy(limit, holder.name)
    available = Math.floor(holder.part * (available - (taken - held)))
    if (holder.hasMinimum) available = Math.max(limit.minimum, available)
    taken = held
    if (held + amount > available) return { holder, available }
  }
  return undefined
}

/** Whether the account may have `amount` more. `account` undefined: as in `addTo`. */
export const hasShare = (limit: Limit, account: Account | undefined, amount: number): boolean =>
  limit.used + amount <= limit.max && (account === undefined || exceeded(limit, account, amount) === undefined)

/** Why the account may not have `amount` more, and the errno; undefined: it may. */
export const refusalOf = (
  limit: Limit,
  account: Account | undefined,
  amount = 1,
): { readonly text: string; readonly errno: Limit['errno'] } | undefined => {
  const { max, used, subject, format, errno, fullErrno } = limit
  const need = amount === 1 ? '' : `; ${format(amount)} more are needed`
  if (used + amount > max) return { text: `${fullText(limit)}${need}`, errno: fullErrno }
  const share = account && exceeded(limit, account, amount)
  if (share === undefined) return undefined
  const { name, text } = share.holder
  return {
    text: `${name} has ${format(heldBy(limit, name))} ${subject} and may have ${format(share.available)}, ${text}${need}`,
    errno,
  }
}

/** Throws CallError, with the limit's errno, unless `hasShare`. `what` begins the message. */
export const requireShare = (limit: Limit, account: Account | undefined, what: Place, amount = 1): void => {
  const refusal = refusalOf(limit, account, amount)
  if (refusal !== undefined)
    throw new CallError(refusal.errno, coded('budget')`${what}: ${refusal.text}; ${limit.advice}`)
}

/** `requireShare`, then `addTo`. */
const charge = (limit: Limit, account: Account | undefined, what: Place, amount = 1): void => {
  requireShare(limit, account, what, amount)
  addTo(limit, account, amount)
}

/** As `charge`. The returned function releases the amount; it has no effect when repeated. */
export const take = (limit: Limit, account: Account | undefined, what: Place, amount = 1): (() => void) => {
  charge(limit, account, what, amount)
  let isTaken = true
  return () => {
    if (isTaken) removeFrom(limit, account, amount)
    isTaken = false
  }
}

/** Runs `make`; if that throws, calls `release`. */
export const orRelease = <T>(release: () => void, make: () => T): T => {
  try {
    return make()
  } catch (error) {
    release()
    throw error
  }
}

// ---- memory: clients in this process have no account, and are not charged ----

export const chargeMemory = (account: Account | undefined, what: Place, bytes: number): void => {
  if (account !== undefined) charge(account.memory, account, what, bytes)
}

/** As `chargeMemory`, but false if the account may not have it. */
export const mayChargeMemory = (account: Account | undefined, bytes: number): boolean => {
  if (account !== undefined && !hasShare(account.memory, account, bytes)) return false
  addMemory(account, bytes)
  return true
}

/** Charges also beyond the share, to undo a release. */
export const addMemory = (account: Account | undefined, bytes: number): void => {
  if (account !== undefined) addTo(account.memory, account, bytes)
}

export const releaseMemory = (account: Account | undefined, bytes: number): void => addMemory(account, -bytes)
