/*
 * Quotas of the daemon's memory for the objects of one process, of one user's processes, and of all processes
 * (core/objects/object-bytes.ts has the size of each object). Beyond them a create fails with ENOMEM, so that no
 * program can exhaust the daemon. Rings are not counted: their pages, in the context's memory file, are charged to the
 * program that touches them.
 */
import type { MemoryAccount } from '../core/model.ts'
import { CallError } from '../spec/errno.ts'

const MIB = 2 ** 20
/** Maximum bytes of the objects of a process, of a user's processes, and of all: the daemon stays below 2 GiB. */
export const MEMORY_LIMITS = { process: 768 * MIB, user: 1024 * MIB, daemon: 1280 * MIB } as const

export interface MemoryQuotas {
  /** The account of a process, common to all its contexts. */
  of(pid: number, uid: number): MemoryAccount
  /** Bytes charged to all processes, and per process, largest first. */
  readonly bytes: number
  processes(): readonly { readonly pid: number; readonly bytes: number }[]
}

const text = (bytes: number): string => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MiB`

export const createMemoryQuotas = (
  limits: Readonly<Record<keyof typeof MEMORY_LIMITS, number>> = MEMORY_LIMITS,
): MemoryQuotas => {
  let all = 0
  const users = new Map<number, number>()
  const processes = new Map<number, number>()

  const add = (held: Map<number, number>, id: number, bytes: number): void => {
    const sum = (held.get(id) ?? 0) + bytes
    if (sum > 0) held.set(id, sum)
    else held.delete(id)
  }
  const check = (owner: string, held: number, bytes: number, limit: number): void => {
    if (held + bytes > limit)
      throw new CallError(
        'ENOMEM',
        `objects of ${owner} use ${text(held)} of the daemon's memory; ${text(limit)} is the maximum`,
      )
  }

  return {
    of: (pid, uid) => ({
      user: uid,
      charge(bytes) {
        check(`process ${pid}`, processes.get(pid) ?? 0, bytes, limits.process)
        check(`user ${uid}`, users.get(uid) ?? 0, bytes, limits.user)
        check('all programs', all, bytes, limits.daemon)
        all += bytes
        add(users, uid, bytes)
        add(processes, pid, bytes)
      },
      release(bytes) {
        all -= bytes
        add(users, uid, -bytes)
        add(processes, pid, -bytes)
      },
    }),
    get bytes() {
      return all
    },
    processes: () =>
      [...processes].map(([pid, bytes]) => ({ pid, bytes })).sort((a, b) => b.bytes - a.bytes || a.pid - b.pid),
  }
}
