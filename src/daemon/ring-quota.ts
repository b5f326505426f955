/*
 * Quotas of the daemon's mappings and addresses for rings (docs/decisions/rings.md). The system limits the mappings of
 * a process (vm.max_map_count). Without quotas one program could use them all, and nobody could open a device.
 *
 * A process may have half of what no other process has, and at least MINIMUM. So may the processes of a user together.
 * The daemon's own user has no such quota.
 */
import { readFileSync } from 'node:fs'
import { CallError } from '../spec/errno.ts'

const GIB = 2 ** 30

/** Mappings, and bytes of addresses. */
interface Amounts {
  readonly mappings: number
  readonly bytes: number
}

export interface RingQuota {
  /** Charges a mapping of `bytes` bytes. The returned function releases it. Throws CallError ENOMEM beyond the quota. */
  take(bytes: number): () => void
}

export interface RingQuotas {
  /** The quota of a process, for all its contexts together. */
  of(pid: number, uid: number): RingQuota
  readonly charged: Amounts
}

/** A quota without limit. */
export const unlimitedRings: RingQuota = { take: () => () => {} }

const MINIMUM: Amounts = { mappings: 16, bytes: 2 ** 26 }
/** Mappings for the daemon itself. */
const RESERVED = 4096
const RING_BYTES = 64 * GIB
const DIVISOR = 2

const countMappings = (): number => readFileSync('/proc/self/maps', 'latin1').split('\n').length

/** vm.max_map_count, or Linux's default if the system does not tell. */
const maxMapCount = (): number => {
  try {
    return Number(readFileSync('/proc/sys/vm/max_map_count', 'latin1'))
  } catch {
    return 65_530
  }
}

/** Half of the mappings that the system leaves to this process: a range without a file between two is one too. */
const mappingsForRings = (): number => {
  const max = maxMapCount()
  return Math.max(MINIMUM.mappings, Math.floor((max - countMappings() - RESERVED) / 2))
}

interface Account {
  readonly name: string
  mappings: number
  bytes: number
}

const inGib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`

const texts = {
  mappings: { unit: 'mappings of the daemon for rings', format: String, limit: ' (vm.max_map_count)' },
  bytes: { unit: 'of addresses of the daemon for rings', format: inGib, limit: '' },
} as const

/** `available`: for all programs together. `owner`: the user without a user quota, by default the daemon's. */
export const createRingQuotas = (
  available: Amounts = { mappings: mappingsForRings(), bytes: RING_BYTES },
  owner: number | undefined = process.geteuid?.(),
): RingQuotas => {
  const accounts = new Map<string, Account>()
  const total: Account = { name: 'all programs', mappings: 0, bytes: 0 }

  const check = (account: Account, resource: keyof Amounts, more: number): void => {
    const used = account[resource]
    const free = available[resource] - total[resource]
    const max =
      account === total ? available[resource] : Math.max(MINIMUM[resource], Math.floor((free + used) / DIVISOR))
    if (used + more <= max) return
    const { unit, format, limit } = texts[resource]
    throw new CallError(
      'ENOMEM',
      `${account.name} ${account === total ? 'use' : 'uses'} ${format(used)} ${unit} and may use ${format(max)}, but needs ${format(more)} more; all programs may use ${format(available[resource])}${limit}; destroy queues, or create smaller ones`,
    )
  }

  const charge = (account: Account, mappings: number, bytes: number): void => {
    account.mappings += mappings
    account.bytes += bytes
    if (account === total) return
    if (account.mappings > 0) accounts.set(account.name, account)
    else accounts.delete(account.name)
  }

  const accountOf = (name: string): Account => accounts.get(name) ?? { name, mappings: 0, bytes: 0 }

  return {
    of: (pid, uid) => ({
      take(bytes) {
        const charged = [accountOf(`process ${pid}`), total]
        if (uid !== owner) charged.push(accountOf(`user ${uid}`))
        for (const account of charged) {
          check(account, 'mappings', 1)
          check(account, 'bytes', bytes)
        }
        for (const account of charged) charge(account, 1, bytes)
        let isTaken = true
        return () => {
          if (!isTaken) return
          isTaken = false
          for (const account of charged) charge(account, -1, -bytes)
        }
      },
    }),
    get charged() {
      return { mappings: total.mappings, bytes: total.bytes }
    },
  }
}
