/*
 * Limits in number: of objects of a device, of groups, of whatever users share. They have one rule: each user other
 * than the owner may have half of what no other user has, and at least one. So the owner's program can have all that a
 * device reports, and other users leave something to each other (docs/decisions/shares.md).
 */
import { CallError } from '../../spec/errno.ts'
import type { Limit, MemoryAccount } from '../model.ts'

/** Undefined: core itself, or a caller in this process, without a share. */
type Holder = Pick<MemoryAccount, 'user' | 'hasShare'> | undefined

/** `subject`: what is counted, in the plural. */
export const createLimit = (subject: string, max: number): Limit => ({ subject, max, live: 0, users: new Map() })

const heldBy = ({ users }: Limit, user: number): number => users.get(user) ?? 0

const refusalOf = (limit: Limit, holder: Holder): string | undefined => {
  const { subject, max, live, users } = limit
  if (live >= max) {
    const [user, held] = [...users].reduce((most, next) => (next[1] > most[1] ? next : most), [0, 0])
    const most = held === 0 ? '' : `; user ${user} has the most of them, ${held}`
    return `there are ${live} ${subject}, the maximum${most}; destroy some`
  }
  if (holder?.hasShare !== true) return undefined
  const held = heldBy(limit, holder.user)
  const share = Math.max(1, Math.floor((max - live + held) / 2))
  if (held < share) return undefined
  return `user ${holder.user} has ${held} ${subject} and may have ${share}, half of those that no other user has; destroy some`
}

/** Counts one more, also beyond the limit. */
export const addTo = (limit: Limit, holder: Holder): void => {
  limit.live++
  if (holder !== undefined) limit.users.set(holder.user, heldBy(limit, holder.user) + 1)
}

/** Throws CallError ENOMEM if the holder may not have one more. `name`: of the class or call, for the message. */
export const requireBelow = (limit: Limit, holder: Holder, name: string): void => {
  const refusal = refusalOf(limit, holder)
  if (refusal !== undefined) throw new CallError('ENOMEM', `${name}: ${refusal}`)
}

/** Counts one less. */
export const removeFrom = (limit: Limit, holder: Holder): void => {
  limit.live--
  if (holder === undefined) return
  const held = heldBy(limit, holder.user) - 1
  if (held > 0) limit.users.set(holder.user, held)
  else limit.users.delete(holder.user)
}
