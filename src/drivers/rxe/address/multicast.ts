/*
 * Multicast groups of a soft device (IBA 10.5).
 *
 * As on Linux, attaching a queue pair twice to the same GID and multicast LID has no effect. Attaching it to the same
 * GID with another LID adds a membership. RoCE packets have no LID.
 */
import type { Port } from '../../../phy/port.ts'
import { CallError, type ErrnoName } from '../../../spec/errno.ts'
import { copyOfBytes } from '../../../spec/memory.ts'
import { addressText, isMulticastGid } from '../../../wire/address.ts'

export interface MulticastLimits {
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
   * EINVAL for a GID that is no multicast GID, ENOMEM beyond a limit, EMFILE or ENFILE if the daemon's descriptors are
   * exhausted, EADDRNOTAVAIL if the port cannot join for another reason.
   */
  attach(row: number, gid: Uint8Array, mlid: number): void
  /** EINVAL if the queue pair is not attached with this LID. */
  detach(row: number, gid: Uint8Array, mlid: number): void
  detachAll(row: number): void
  /** Memberships of a queue pair. */
  count(row: number): number
  /** The rows of a group, in the order of attachment; valid until the next change. */
  rowsOf(gid: Uint8Array): readonly number[]
}

interface Group {
  readonly gid: Uint8Array
  rows: number[]
}

const noMembers: readonly number[] = []
const keyOf = (gid: Uint8Array): string => gid.join('.')

export const createGroups = (port: Pick<Port, 'joinGroup' | 'leaveGroup'>, limits: MulticastLimits): Groups => {
  const groups = new Map<string, Group>()
  /** Multicast LIDs by row and by key of the group. */
  const memberships = new Map<number, Map<string, Set<number>>>()
  let totalMemberships = 0
  /**
   * Argument and result of the last `rowsOf`: consecutive runs are often of one flow. The bytes of a flow's GID never
   * change, so the array's identity is compared.
   */
  let lastGid: Uint8Array | undefined
  let lastRows = noMembers

  const join = (gid: Uint8Array): Group => {
    if (groups.size >= limits.groups)
      throw new CallError('ENOMEM', `ud_qp.attachMcast: the device is in ${limits.groups} groups, its maximum`)
    const group = { gid: copyOfBytes(gid), rows: [] }
    try {
      port.joinGroup(group.gid)
    } catch (error) {
      const code = error instanceof CallError ? (error.code as ErrnoName) : 'EADDRNOTAVAIL'
      throw new CallError(code, `ud_qp.attachMcast: group ${addressText(gid)}: ${(error as Error).message}`)
    }
    groups.set(keyOf(gid), group)
    return group
  }

  const leave = (row: number, key: string): void => {
    const group = groups.get(key) as Group
    group.rows = group.rows.filter(member => member !== row)
    lastGid = undefined
    if (group.rows.length > 0) return
    port.leaveGroup(group.gid)
    groups.delete(key)
  }

  const removeMembership = (row: number, key: string, mlid: number): void => {
    const groupsOfRow = memberships.get(row) as Map<string, Set<number>>
    const lids = groupsOfRow.get(key) as Set<number>
    lids.delete(mlid)
    totalMemberships--
    if (lids.size > 0) return
    groupsOfRow.delete(key)
    if (groupsOfRow.size === 0) memberships.delete(row)
    leave(row, key)
  }

  return {
    attach(row, gid, mlid) {
      if (!isMulticastGid(gid))
        throw new CallError('EINVAL', `ud_qp.attachMcast: attribute gid: ${addressText(gid)} is not a multicast GID`)
      const key = keyOf(gid)
      const lids = memberships.get(row)?.get(key)
      if (lids?.has(mlid)) return
      if (totalMemberships >= limits.memberships)
        throw new CallError('ENOMEM', `ud_qp.attachMcast: the device has ${limits.memberships} memberships already`)
      if (lids === undefined) {
        const members = groups.get(key)?.rows.filter(member => member >= 0) ?? noMembers
        if (row >= 0 && members.length >= limits.members)
          throw new CallError(
            'ENOMEM',
            `ud_qp.attachMcast: group ${addressText(gid)} has ${limits.members} queue pairs already`,
          )
        const group = groups.get(key) ?? join(gid)
        group.rows = [...group.rows, row]
        lastGid = undefined
        const groupsOfRow = memberships.get(row) ?? new Map<string, Set<number>>()
        memberships.set(row, groupsOfRow.set(key, new Set()))
      }
      memberships.get(row)?.get(key)?.add(mlid)
      totalMemberships++
    },
    detach(row, gid, mlid) {
      const key = keyOf(gid)
      if (!memberships.get(row)?.get(key)?.has(mlid))
        throw new CallError(
          'EINVAL',
          `ud_qp.detachMcast: the queue pair is not attached to ${addressText(gid)} with multicast LID ${mlid}`,
        )
      removeMembership(row, key, mlid)
    },
    detachAll(row) {
      for (const [key, lids] of [...(memberships.get(row) ?? [])])
        for (const mlid of [...lids]) removeMembership(row, key, mlid)
    },
    count: row => [...(memberships.get(row)?.values() ?? [])].reduce((sum, lids) => sum + lids.size, 0),
    rowsOf(gid) {
      if (gid !== lastGid) {
        lastRows = groups.get(keyOf(gid))?.rows ?? noMembers
        lastGid = gid
      }
      return lastRows
    },
  }
}
