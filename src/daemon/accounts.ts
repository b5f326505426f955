/*
 * The accounts of the daemon's clients, and what all of them share (core/objects/limits.ts has the rule): memory of the
 * daemon, its descriptors, and the mappings and addresses of rings (docs/decisions/rings.md). The system limits
 * descriptors and mappings of a process: without shares one program could use them all.
 */
import { readdirSync, readFileSync } from 'node:fs'
import type { Account } from '../core/model.ts'
import { createAccount, createLimit, orRelease, take } from '../core/objects/limits.ts'
import { subordinateRange } from '../host/subordinate-ids.ts'

const [MIB, GIB] = [2 ** 20, 2 ** 30]
/** Of all objects and queued messages. */
const MEMORY_BYTES = 1280 * MIB
const ADDRESS_BYTES = 64 * GIB
/** Each takes about 26 KiB, which `memory` does not count. */
const SESSIONS = 16_384
/** Descriptors for the daemon itself: sockets of devices that are added later, programs' ends of sockets. */
const OWN_DESCRIPTORS = 32
const OWN_MAPPINGS = 4096
/** Linux's default of vm.max_map_count. */
const DEFAULT_MAPPINGS = 65_530

/** What all clients share. */
export type SharedLimits = Omit<Account, 'user' | 'payer' | 'holders'>

const numberIn = (path: string, pattern: RegExp): number => {
  try {
    return Number(pattern.exec(readFileSync(path, 'latin1'))?.[1] ?? Number.NaN)
  } catch {
    return Number.NaN
  }
}

/** RLIMIT_NOFILE, which Node raises to the hard limit at its start, without what is open and OWN_DESCRIPTORS. */
const freeDescriptors = (): number => {
  const limit = numberIn('/proc/self/limits', /^Max open files\s+(\d+)/m) || Infinity
  return Math.max(0, limit - readdirSync('/proc/self/fd').length - OWN_DESCRIPTORS)
}

/** Half of the mappings that the system leaves to this process: a range without a file between two is one too. */
const freeMappings = (): number => {
  const max = numberIn('/proc/sys/vm/max_map_count', /^(\d+)/) || DEFAULT_MAPPINGS
  const used = readFileSync('/proc/self/maps', 'latin1').split('\n').length
  return Math.max(0, Math.floor((max - used - OWN_MAPPINGS) / 2))
}

const inMib = (bytes: number): string => `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 1 : 0)} MiB`
const inGib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`

/** The limits of this process. `max`: instead of the system's and the daemon's maxima. */
export const createSharedLimits = (max: Readonly<Partial<Record<keyof SharedLimits, number>>> = {}): SharedLimits => ({
  memory: createLimit("of the daemon's memory", max.memory ?? MEMORY_BYTES, {
    minimum: MIB,
    hasProcessShares: true,
    format: inMib,
    advice: 'destroy objects, or read what waits',
  }),
  // The minimum is enough for a session, and one or two contexts with their events.
  descriptors: createLimit('descriptors of the daemon', max.descriptors ?? freeDescriptors(), {
    minimum: 16,
    hasProcessShares: true,
    errno: 'EMFILE',
    fullErrno: 'ENFILE',
    advice: 'close some, or start the daemon with a higher RLIMIT_NOFILE',
  }),
  sessions: createLimit('sessions of the daemon', max.sessions ?? SESSIONS, {
    errno: 'EMFILE',
    fullErrno: 'ENFILE',
    advice: 'end programs',
  }),
  mappings: createLimit('mappings of the daemon for rings', max.mappings ?? freeMappings(), {
    minimum: 16,
    hasProcessShares: true,
    advice: 'destroy queues, or set vm.max_map_count higher',
  }),
  addresses: createLimit('of addresses of the daemon for rings', max.addresses ?? ADDRESS_BYTES, {
    minimum: 64 * MIB,
    hasProcessShares: true,
    format: inGib,
    advice: 'destroy queues, or create smaller ones',
  }),
})

/**
 * The uid whose share a user uses. A user with a range of subordinate uids (newuidmap(1)) can run programs as each of
 * them, so they use that user's share. The uids of a range of the owner, or of nobody, share the account of the first.
 */
export const payerOf = (user: number, owner = process.geteuid?.()): number => {
  if (user === owner) return user
  const range = subordinateRange(user)
  if (range === undefined) return user
  return range.user === undefined || range.user === owner ? range.first : range.user
}

/**
 * The user number of the daemon's own user in a container, which is a guest: a negative one, for each container
 * another (`confinementOf`).
 */
export const confinedUser = (confinement: number): number => -1 - confinement

/** The account of a process of a client. */
export const accountOf = (limits: SharedLimits, pid: number, user: number, payer: number): Account =>
  createAccount(limits, { pid, user, payer, owner: process.geteuid?.() })

/** Charges a mapping of `bytes` bytes for rings. The returned function releases it. Throws CallError ENOMEM. */
export const takeRings = (account: Account | undefined, bytes: number): (() => void) => {
  if (account === undefined) return () => {}
  const releaseMapping = take(account.mappings, account, 'rings')
  const releaseAddresses = orRelease(releaseMapping, () => take(account.addresses, account, 'rings', bytes))
  return () => {
    releaseMapping()
    releaseAddresses()
  }
}

/** Bytes of memory of each process, largest first. */
export const memoryOfProcesses = ({ memory }: SharedLimits): { readonly pid: number; readonly bytes: number }[] =>
  [...memory.held]
    .flatMap(([name, bytes]) => {
      const pid = /^process (\d+)$/.exec(name)?.[1]
      return pid === undefined ? [] : [{ pid: Number(pid), bytes }]
    })
    .sort((a, b) => b.bytes - a.bytes || a.pid - b.pid)
