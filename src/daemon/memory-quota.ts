/*
 * Quotas of the daemon's memory for the objects of a process, of a user's processes, and of all processes. Beyond a
 * quota, a create fails with ENOMEM. core/objects/object-bytes.ts has the size of each object. Queued management
 * datagrams count too (clients/mad/channel.ts). Rings do not: they are in the context's memory file.
 */
import type { MemoryAccount } from '../core/model.ts'
import { CallError } from '../spec/errno.ts'

const MIB = 2 ** 20
/** Maximum bytes of a process, of a user's processes, and of all processes. */
const MEMORY_LIMITS = { process: 768 * MIB, user: 1024 * MIB, daemon: 1280 * MIB } as const

export interface MemoryQuotas {
  /** The account of a process, for all its contexts together. */
  of(pid: number, uid: number): MemoryAccount
  /** Bytes charged to all processes. */
  readonly bytes: number
  /** Bytes charged to each process, largest first. */
  processes(): readonly { readonly pid: number; readonly bytes: number }[]
}

const formatMib = (bytes: number): string => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MiB`

/** `owner`: the user who has no share (`MemoryAccount.hasShare`), by default the daemon's. */
export const createMemoryQuotas = (
  limits: Readonly<Record<keyof typeof MEMORY_LIMITS, number>> = MEMORY_LIMITS,
  owner: number | undefined = process.geteuid?.(),
): MemoryQuotas => {
  let total = 0
  const users = new Map<number, number>()
  const processes = new Map<number, number>()

  const add = (charged: Map<number, number>, id: number, bytes: number): void => {
    const sum = (charged.get(id) ?? 0) + bytes
    if (sum > 0) charged.set(id, sum)
    else charged.delete(id)
  }
  const check = (owner: string, charged: number, bytes: number, limit: number): void => {
    if (charged + bytes > limit)
      throw new CallError(
        'ENOMEM',
        `objects of ${owner} use ${formatMib(charged)} of the daemon's memory; ${formatMib(limit)} is the maximum`,
      )
  }

  return {
    of(pid, uid) {
      const addToAll = (bytes: number): void => {
        total += bytes
        add(users, uid, bytes)
        add(processes, pid, bytes)
      }
      return {
        user: uid,
        hasShare: uid !== owner,
        charge(bytes) {
          check(`process ${pid}`, processes.get(pid) ?? 0, bytes, limits.process)
          check(`user ${uid}`, users.get(uid) ?? 0, bytes, limits.user)
          check('all programs', total, bytes, limits.daemon)
          addToAll(bytes)
        },
        recharge: addToAll,
        release: bytes => addToAll(-bytes),
      }
    },
    get bytes() {
      return total
    },
    processes: () =>
      [...processes].map(([pid, bytes]) => ({ pid, bytes })).sort((a, b) => b.bytes - a.bytes || a.pid - b.pid),
  }
}
