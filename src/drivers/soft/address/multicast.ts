/*
 * Multicast groups of a soft device (IBA 10.5).
 *
 * As on Linux, attaching a queue pair twice to the same GID and multicast LID has no effect. Attaching it to the same
 * GID with another LID adds a membership. RoCE packets have no LID. On InfiniBand the port gets the packets to the LID
 * with which the first queue pair of a group is attached.
 */

import type { Account, Limit } from '../../../core/model.ts'
import { addTo, createLimit, removeFrom, requireShare } from '../../../core/objects/limits.ts'
import { CallError, callError, type ErrnoName } from '../../../spec/errno.ts'
import { copyOfBytes } from '../../../spec/memory.ts'
import { because, the } from '../../../spec/reason.ts'
import type { Port } from '../../../transport/phy/port.ts'
import { addressKey, addressText, isMulticastGid } from '../../../transport/wire/address.ts'

interface MulticastLimits {
  readonly groups: number
  /** Queue pairs of programs in one group. */
  readonly members: number
  /** Of all groups of a device. */
  readonly memberships: number
}

/**
 * `row`: a queue pair's row in the engine, or the negated QPN of a core client's queue pair (core-queues.ts), to which
 * the limit `members` does not apply. Functions throw CallError.
 */
export interface Groups {
  /**
   * EINVAL for a GID that is no multicast GID, ENOMEM beyond the account's share of a limit, EMFILE or ENFILE beyond
   * that of descriptors, EADDRNOTAVAIL if the port cannot join for another reason.
   */
  attach(row: number, gid: Uint8Array, mlid: number, account?: Account): void
  /** EINVAL if the queue pair is not attached with this LID. */
  detach(row: number, gid: Uint8Array, mlid: number): void
  detachAll(row: number): void
  /** Memberships of a queue pair. */
  count(row: number): number
  /** The rows of a group, in the order of attachment; valid until the next change. */
  rowsOf(gid: Uint8Array): readonly number[]
}

interface Group {
  /** By which the network forwards its packets. */
  readonly address: Uint8Array
  rows: number[]
  /** The queue pairs of programs. */
  readonly members: Limit
  /** The account of the first row: it has the group, and the socket of a group on a port with sockets. */
  holder: Account | undefined
}

/** Memberships of a queue pair. */
interface Memberships {
  readonly account: Account | undefined
  /** Multicast LIDs by key of the group. */
  readonly lids: Map<string, Set<number>>
}

const noMembers: readonly number[] = []
const ATTACH = 'ud_qp.attachMcast'

export const createGroups = (
  port: Pick<Port, 'joinGroup' | 'leaveGroup' | 'hasGroupSockets'>,
  limits: MulticastLimits,
  addressOf: (gid: Uint8Array, mlid: number) => Uint8Array = gid => copyOfBytes(gid),
): Groups => {
  const groups = new Map<string, Group>()
  /** By row. */
  const memberships = new Map<number, Memberships>()
  const groupLimit = createLimit('multicast groups', limits.groups)
  const membershipLimit = createLimit('memberships of multicast groups', limits.memberships)
  /**
   * Argument and result of the last `rowsOf`: consecutive runs are often of one flow. The bytes of a flow's GID never
   * change, so the array's identity is compared.
   */
  let lastGid: Uint8Array | undefined
  let lastRows = noMembers

  /** Counts a group as the holder's, or as no longer the holder's, also beyond its share. */
  const count = (holder: Account | undefined, change: 1 | -1): void => {
    addTo(groupLimit, holder, change)
    if (port.hasGroupSockets && holder !== undefined) addTo(holder.descriptors, holder, change)
  }

  const join = (gid: Uint8Array, mlid: number, holder: Account | undefined): Group => {
    requireShare(groupLimit, holder, the.method(ATTACH))
    if (port.hasGroupSockets && holder !== undefined) requireShare(holder.descriptors, holder, the.method(ATTACH))
    const members = createLimit(`queue pairs in group ${addressText(gid)}`, limits.members)
    const group: Group = { address: addressOf(gid, mlid), rows: [], members, holder }
    try {
      port.joinGroup(group.address)
    } catch (error) {
      const code = error instanceof CallError ? (error.code as ErrnoName) : 'EADDRNOTAVAIL'
      throw new CallError(code, because`${the.method(ATTACH)}: group ${addressText(gid)}: ${(error as Error).message}`)
    }
    groups.set(addressKey(gid), group)
    count(holder, 1)
    return group
  }

  const leave = (row: number, key: string, account: Account | undefined): void => {
    const group = groups.get(key) as Group
    group.rows = group.rows.filter(member => member !== row)
    if (row >= 0) removeFrom(group.members, account)
    lastGid = undefined
    count(group.holder, -1)
    const [next] = group.rows
    if (next !== undefined) {
      group.holder = memberships.get(next)?.account
      count(group.holder, 1)
      return
    }
    port.leaveGroup(group.address)
    groups.delete(key)
  }

  const removeMembership = (row: number, key: string, mlid: number): void => {
    const { account, lids: lidsByGroup } = memberships.get(row) as Memberships
    const lids = lidsByGroup.get(key) as Set<number>
    lids.delete(mlid)
    removeFrom(membershipLimit, account)
    if (lids.size > 0) return
    lidsByGroup.delete(key)
    if (lidsByGroup.size === 0) memberships.delete(row)
    leave(row, key, account)
  }

  return {
    attach(row, gid, mlid, account) {
      if (!isMulticastGid(gid))
        throw callError.EINVAL`${the.method('ud_qp.attachMcast')}: ${the.attribute('gid')}: ${addressText(gid)} is not a multicast GID`
      const key = addressKey(gid)
      const lids = memberships.get(row)?.lids.get(key)
      if (lids?.has(mlid)) return
      requireShare(membershipLimit, account, the.method(ATTACH))
      if (lids === undefined) {
        const existing = groups.get(key)
        if (row >= 0 && existing !== undefined) requireShare(existing.members, account, the.method(ATTACH))
        const group = existing ?? join(gid, mlid, account)
        group.rows = [...group.rows, row]
        if (row >= 0) addTo(group.members, account)
        lastGid = undefined
        if (!memberships.has(row)) memberships.set(row, { account, lids: new Map() })
        memberships.get(row)?.lids.set(key, new Set())
      }
      memberships.get(row)?.lids.get(key)?.add(mlid)
      addTo(membershipLimit, account)
    },
    detach(row, gid, mlid) {
      const key = addressKey(gid)
      if (!memberships.get(row)?.lids.get(key)?.has(mlid))
        throw callError.EINVAL`${the.method('ud_qp.detachMcast')}: the queue pair is not attached to ${addressText(gid)} with multicast LID ${mlid}`
      removeMembership(row, key, mlid)
    },
    detachAll(row) {
      for (const [key, lids] of [...(memberships.get(row)?.lids ?? [])])
        for (const mlid of [...lids]) removeMembership(row, key, mlid)
    },
    count: row => [...(memberships.get(row)?.lids.values() ?? [])].reduce((sum, lids) => sum + lids.size, 0),
    rowsOf(gid) {
      if (gid !== lastGid) {
        lastRows = groups.get(addressKey(gid))?.rows ?? noMembers
        lastGid = gid
      }
      return lastRows
    },
  }
}
