/*
 * Multicast groups of a subnet (IBA 15.2.5.17): who has joined, as what. The record of a group is that of its creator.
 */
import { FIRST_MULTICAST_LID, JoinState } from '../../spec/wire/subnet.ts'
import { addressKey } from '../../transport/wire/address.ts'
import type { SaRecord } from '../../transport/wire/mad/subnet.ts'

type McMemberRecord = SaRecord<'MCMemberRecord'>

export interface Group {
  /** With port GID and join state zero. */
  readonly record: McMemberRecord
  /** Join states by the GUID of the port. */
  readonly members: Map<bigint, number>
  /** GUIDs of members that others have joined. */
  readonly proxied: Set<bigint>
  /** Exists without members. */
  readonly isPermanent: boolean
}

/** Groups at most, which also the LIDs limit. */
const MAX_GROUPS = 0x3ffe
/** Memberships of all groups. */
const MAX_MEMBERS = 1 << 20

export class Groups {
  readonly #byGid = new Map<string, Group>()
  readonly #byLid = new Map<number, Group>()
  #members = 0
  #nextMlid = FIRST_MULTICAST_LID

  get all(): IterableIterator<Group> {
    return this.#byGid.values()
  }

  find(mgid: Uint8Array): Group | undefined {
    return this.#byGid.get(addressKey(mgid))
  }

  ofLid(mlid: number): Group | undefined {
    return this.#byLid.get(mlid)
  }

  /** A group with the fields of `record`, which gets a LID. Undefined: there are too many. */
  create(record: McMemberRecord, isPermanent: boolean): Group | undefined {
    if (this.#byLid.size >= MAX_GROUPS) return undefined
    while (this.#byLid.has(this.#nextMlid)) this.#step()
    const mlid = this.#nextMlid
    this.#step()
    const group = {
      record: { ...record, mlid, portGid: new Uint8Array(16), joinState: 0, proxyJoin: false },
      members: new Map<bigint, number>(),
      proxied: new Set<bigint>(),
      isPermanent,
    }
    this.#byLid.set(mlid, group)
    this.#byGid.set(addressKey(record.mgid), group)
    return group
  }

  #step(): void {
    this.#nextMlid = FIRST_MULTICAST_LID + ((this.#nextMlid - FIRST_MULTICAST_LID + 1) % MAX_GROUPS)
  }

  /** Adds join states of a port. Returns all that it has then; undefined: there are too many members. */
  join({ members }: Group, guid: bigint, joinState: number): number | undefined {
    const before = members.get(guid)
    if (before === undefined && this.#members >= MAX_MEMBERS) return undefined
    if (before === undefined) this.#members++
    const state = (before ?? 0) | joinState
    members.set(guid, state)
    return state
  }

  /** Removes join states of a port. Returns whether the group is gone: it has no full member any more. */
  leave(group: Group, guid: bigint, joinState: number): boolean {
    const { members } = group
    const left = (members.get(guid) ?? 0) & ~joinState
    if (left !== 0) members.set(guid, left)
    else if (members.delete(guid)) this.#members--
    if (left === 0) group.proxied.delete(guid)
    if (group.isPermanent || [...members.values()].some(isFull)) return false
    this.#members -= members.size
    this.#byGid.delete(addressKey(group.record.mgid))
    this.#byLid.delete(group.record.mlid)
    return true
  }

  clear(): void {
    this.#byGid.clear()
    this.#byLid.clear()
    this.#members = 0
    this.#nextMlid = FIRST_MULTICAST_LID
  }
}

/** A full member, which keeps the group; one that only sends may be full too (15.2.5.17.1). */
export const isFull = (state: number): boolean => (state & (JoinState.FULL | JoinState.SEND_ONLY_FULL)) !== 0
