/*
 * The GID table of one port (IBA 4.1.1), filled by the driver.
 */
import { GidType, LinkLayer } from '../../spec/enums.ts'
import { callError, codedError } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'

/** A VLAN interface over that of a device. */
export interface VlanInterface {
  /** 1 to 4094. */
  readonly id: number
  readonly name: string
  /** 0: the system has no such interface. */
  readonly index: number
}

export interface GidTableEntry {
  /** 16 bytes, network order. */
  readonly gid: Uint8Array
  /** GidType: 0 IB, 1 RoCE v1, 2 RoCE v2. */
  readonly type: number
  /** Index of the network interface, 0 without one. */
  readonly ifindex: number
  /** The interface, if it is not the device's own. */
  readonly vlan?: VlanInterface | undefined
}

export interface GidTable {
  /** Port number, from 1. */
  readonly port: number
  readonly entries: (GidTableEntry | undefined)[]
  /** Entries from this index on are empty. */
  end: number
  /** How many queue pairs and address handles hold an index, by index. Absent: none. */
  readonly users: Map<number, number>
}

/** Whether paths from the device are by LIDs, on InfiniBand, and not by GIDs alone. */
export const hasLids = ({
  ports,
}: {
  readonly ports: readonly { readonly attributes: { readonly linkLayer: number } }[]
}): boolean => ports[0]!.attributes.linkLayer === LinkLayer.values.INFINIBAND

export const createGidTable = (port: number, length: number): GidTable => ({
  port,
  entries: new Array<GidTableEntry | undefined>(length).fill(undefined),
  end: 0,
  users: new Map(),
})

/**
 * A queue pair or address handle holds an index from the call that names it until it names another one or is destroyed.
 * If its GID leaves meanwhile, the entry is empty, but not free: as on Linux's RoCE devices, no other GID takes the
 * index before the last user has released it, and a GID that returns gets another one.
 */
export const holdGid = ({ users }: GidTable, index: number): void => void users.set(index, (users.get(index) ?? 0) + 1)

/** The end of a `holdGid`. */
export const releaseGid = ({ users }: GidTable, index: number): void => {
  const left = (users.get(index) ?? 0) - 1
  if (left > 0) users.set(index, left)
  else users.delete(index)
}

/** Whether a GID may take the index. */
export const isFreeIndex = ({ entries, users }: GidTable, index: number): boolean =>
  entries[index] === undefined && !users.has(index)

const requireIndex = (table: GidTable, index: number): void => {
  if (!(Number.isInteger(index) && index >= 0 && index < table.entries.length))
    throw callError.EINVAL`GID index ${index}: port ${table.port} has indices 0 to ${table.entries.length - 1}`
}

/**
 * Sets an entry, of which a copy is kept, or clears it with `undefined`. Throws EINVAL for an index outside the table,
 * and an Error for a GID that does not have 16 bytes.
 */
export const setGid = (table: GidTable, index: number, entry: GidTableEntry | undefined): void => {
  requireIndex(table, index)
  if (entry !== undefined && entry.gid.length !== 16) throw new Error(`a GID has 16 bytes, not ${entry.gid.length}`)
  table.entries[index] = entry === undefined ? undefined : { ...entry, gid: copyOfBytes(entry.gid) }
  if (entry !== undefined) table.end = Math.max(table.end, index + 1)
  else while (table.end > 0 && table.entries[table.end - 1] === undefined) table.end--
}

/**
 * The entry at an index, which must not be changed. Throws EINVAL for an index outside the table, ENODATA if the entry
 * is empty.
 */
export const getGid = (table: GidTable, index: number): GidTableEntry => {
  requireIndex(table, index)
  const entry = table.entries[index]
  if (entry === undefined) throw codedError('ENODATA', 'gid-empty')`GID index ${index} of port ${table.port} is empty`
  return entry
}

const { ROCE_V1 } = GidType.values

const isSame = (a: Uint8Array, b: Uint8Array): boolean => {
  for (let i = 0; i < 16; i++) if (a[i] !== b[i]) return false
  return true
}

/**
 * The first index with this GID, and with this type if given; otherwise that of RoCE v1 only if there is no other. -1:
 * none.
 */
export const findGid = ({ entries, end }: GidTable, gid: Uint8Array, type?: number): number => {
  let ofV1 = -1
  for (let i = 0; i < end; i++) {
    const entry = entries[i]
    if (entry === undefined || (type !== undefined && entry.type !== type) || !isSame(entry.gid, gid)) continue
    if (type !== undefined || entry.type !== ROCE_V1) return i
    if (ofV1 < 0) ofV1 = i
  }
  return ofV1
}

/** Whether port 1 of a device has the GID. */
export const hasGid = (
  { ports }: { readonly ports: readonly { readonly gids: GidTable }[] },
  gid: Uint8Array,
): boolean => findGid(ports[0]!.gids, gid) >= 0
