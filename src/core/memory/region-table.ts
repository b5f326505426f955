/*
 * The memory regions and windows of one device: key → row (IBA 10.6.3, docs/decisions/memory-windows.md). windows.ts
 * binds and invalidates windows.
 *
 * A key has an index of 24 bits above a key byte, as in Linux' soft device. Indices are assigned in ascending order and
 * wrap around. The key byte changes with every round, so the freed key of a region is not assigned in the next 255
 * rounds. Index 0 is not used, so key 0 is never valid. The first index and the key bytes are random. Rows are typed
 * arrays that grow. A two-level directory finds a row by index.
 */
import { REMOTE_RIGHTS } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { TWO_32 } from '../../spec/memory.ts'
import type { AddressSpace, Bytes } from './address-space.ts'

// A page of the directory has 4096 consecutive indices.
const PAGE_BITS = 12
const PAGE_SIZE = 1 << PAGE_BITS
const PAGE_MASK = PAGE_SIZE - 1
/** Number of indices, index 0 included. */
const INDICES = 1 << 24
/** Rows of a new table. */
const FIRST_ROWS = 16

/** LOCAL and REMOTE: lkey and rkey of a region whose keys differ. */
export const KeyKind = { REGION: 0, WINDOW_1: 1, WINDOW_2: 2, LOCAL: 3, REMOTE: 4 } as const

/** In `windowRegion`: an unbound window whose last bind was ended by an invalidation. */
export const INVALIDATED = -2

/** A recently used region in memory of this process, for `findBuffer`. */
interface RecentRegion {
  /** 0: unused entry. */
  key: number
  pd: number
  access: number
  iovaHi: number
  iovaLo: number
  length: number
  /** The buffer that contains the region, and the region's offset in it. */
  buffer: Bytes
  offset: number
  /** The buffer's size at caching; a transferred buffer has size 0. */
  size: number
}

/** A ring of the last REMOVED_KEYS removed keys and their address ranges. */
interface RemovedKeys {
  readonly key: Uint32Array
  readonly iovaHi: Uint32Array
  readonly iovaLo: Uint32Array
  readonly length: Float64Array
  /** The next slot to overwrite. */
  next: number
}

/**
 * An access of a peer to memory that is registered with `key`, in the addresses of work requests. `access`:
 * ibv_access_flags.
 */
type AccessWatch = (key: number, hi: number, lo: number, length: number, access: number, qpn: number) => void

/** Of the access in progress. */
export interface Accessor {
  /** False: something else than a queue pair reads the memory, such as the checker. */
  isActive: boolean
  qpn: number
  /** It accesses its own memory for a request of its own. */
  isRequester: boolean
  /** ibv_access_flags for which a peer accesses the memory; 0: none does. */
  watched: number
}

/** What programs lend (userdma check), for torment. */
export interface LentWatch {
  /**
   * Calls `onUse` when the owner of bytes uses them otherwise than it has lent them: it lends them again (of bytes that
   * are written: once another peer accesses them), takes them back, frees or sends them. `hi`, `lo`: the address in
   * requests; `qpn`: the responder's. Undefined: none of these bytes is lent now, or some are watched already. The
   * returned function ends it.
   */
  watch(
    key: number,
    hi: number,
    lo: number,
    length: number,
    qpn: number,
    isRead: boolean,
    onUse: () => void,
  ): (() => void) | undefined
  /** Takes what programs have declared. To be called from time to time while bytes are watched. */
  update(): void
}

/** Columns, indexed by row. Must be read from the table each time: the arrays are replaced when the table grows. */
export interface MemoryTable {
  /**
   * Called before each access of a peer that a key permits; of a key over other keys also with those, for each of its
   * ranges. While it is set, no access takes the fast path between local peers.
   */
  accessWatch: AccessWatch | undefined
  /** Called after the window of a row was bound or unbound. */
  windowWatch: ((row: number) => void) | undefined
  /** Undefined: nobody knows what is lent. */
  lentWatch: LentWatch | undefined
  /** Keys that are given out again at once, the newest last (torment); undefined: as late as possible. */
  freedKeys: number[] | undefined
  /** Whether lkey and rkey of a new region differ (torment); undefined: of none. */
  separatesKeys: ((region: object) => boolean) | undefined
  /** By the row of kind LOCAL of a region: that of kind REMOTE. */
  readonly remoteRows: Map<number, number>
  /** For spaces that tell of errors: the queue pair of the access. */
  readonly accessor: Accessor
  /** Key of a region, or its lkey, or its rkey; rkey of a window; 0 in a free row. */
  key: Uint32Array
  /** `id` of the protection domain's object. */
  pd: Float64Array
  /** ibv_access_flags. */
  access: Uint32Array
  /** Address of the first byte in its address space. */
  startHi: Uint32Array
  startLo: Uint32Array
  /** Address of the first byte in work requests. */
  iovaHi: Uint32Array
  iovaLo: Uint32Array
  /** Bytes, an exact Number. */
  length: Float64Array
  /** Index into `spaces`; -1 for a window that is not bound. */
  space: Int32Array
  /** `KeyKind`. */
  kind: Uint8Array
  /** A bound window, or kind REMOTE: row of its region. An unbound window or a region: -1, or INVALIDATED. */
  windowRegion: Int32Array
  /** A region: number of its bound windows. A window: 0. */
  boundWindows: Uint32Array
  /** QPN that a window of type 2 is bound to. */
  qp: Int32Array
  /** A region's first bound window (bound-windows.ts): row + 1, 0 for none. */
  firstOfRegion: Int32Array
  /** A window's neighbours in the lists of its region and its queue pair: row + 1, 0 for none. */
  nextOfRegion: Int32Array
  previousOfRegion: Int32Array
  nextOfQp: Int32Array
  previousOfQp: Int32Array
  /** A queue pair's first window, by QPN. */
  readonly firstOfQp: Map<number, number>
  readonly spaces: (AddressSpace | undefined)[]
  /** Number of rows that use each space. */
  readonly spaceUses: number[]
  /** The index of each space, and those in `spaces` that are free. */
  readonly spaceIndex: Map<AddressSpace, number>
  readonly freeSpaces: number[]
  /** The directory: pages of row + 1, 0 for none. */
  readonly pages: (Int32Array | undefined)[]
  /** Number of live keys per page. */
  readonly pageUses: Int32Array
  readonly freeRows: number[]
  /** Number of spaces in `spaces` with `locate`: if 0, `findBuffer` finds nothing. */
  locatableSpaces: number
  /** Cached regions for `findBuffer`, by the lowest bits of a key's index. */
  readonly recent: readonly RecentRegion[]
  /** Row of the region that every protection domain may use locally (`addSharedRegion`); -1: there is none. */
  sharedRow: number
  /** Number of windows, bound or not. */
  windows: number
  /** Protection domains, by id, with keys of many short ranges (indirect.ts), and how many of these. */
  readonly scattered: Map<number, number>
  /** Number of accesses to ranges of keys over other keys. */
  rangeAccesses: number
  /** Created when the first key is removed. */
  removed: RemovedKeys | undefined
  /** Number of rows ever used, free ones included. */
  rows: number
  /** Number of live keys. */
  liveKeys: number
  /** Next index to assign, and number of the round. */
  nextIndex: number
  round: number
  /** A secret of two u32, hashed into the key bytes. */
  readonly secret: readonly [number, number]
}

/** Number of cached regions, a power of two: enough for the regions of a sender and a receiver. */
const RECENT_REGIONS = 8
const noBytes: Bytes = { address: 0, bytes: new Uint8Array(0), view: new DataView(new ArrayBuffer(0)) }
/**
 * An unused entry. No protection domain has id 0.5, so key 0 is not found. With 0.5, V8 stores `pd` and `offset` as
 * doubles from the start.
 */
const noRecentRegion = (): RecentRegion => ({
  key: 0,
  pd: 0.5,
  access: 0,
  iovaHi: 0,
  iovaLo: 0,
  length: 0,
  buffer: noBytes,
  offset: 0.5,
  size: 0,
})

/** `random` returns a u32. */
export const createMemoryTable = (random: () => number): MemoryTable => ({
  key: new Uint32Array(FIRST_ROWS),
  pd: new Float64Array(FIRST_ROWS),
  access: new Uint32Array(FIRST_ROWS),
  startHi: new Uint32Array(FIRST_ROWS),
  startLo: new Uint32Array(FIRST_ROWS),
  iovaHi: new Uint32Array(FIRST_ROWS),
  iovaLo: new Uint32Array(FIRST_ROWS),
  length: new Float64Array(FIRST_ROWS),
  space: new Int32Array(FIRST_ROWS),
  kind: new Uint8Array(FIRST_ROWS),
  windowRegion: new Int32Array(FIRST_ROWS),
  boundWindows: new Uint32Array(FIRST_ROWS),
  qp: new Int32Array(FIRST_ROWS),
  firstOfRegion: new Int32Array(FIRST_ROWS),
  nextOfRegion: new Int32Array(FIRST_ROWS),
  previousOfRegion: new Int32Array(FIRST_ROWS),
  nextOfQp: new Int32Array(FIRST_ROWS),
  previousOfQp: new Int32Array(FIRST_ROWS),
  firstOfQp: new Map(),
  spaces: [],
  spaceUses: [],
  spaceIndex: new Map(),
  freeSpaces: [],
  locatableSpaces: 0,
  pages: new Array<Int32Array | undefined>(INDICES / PAGE_SIZE).fill(undefined),
  pageUses: new Int32Array(INDICES / PAGE_SIZE),
  freeRows: [],
  recent: Array.from({ length: RECENT_REGIONS }, noRecentRegion),
  sharedRow: -1,
  windows: 0,
  scattered: new Map(),
  rangeAccesses: 0,
  removed: undefined,
  accessWatch: undefined,
  windowWatch: undefined,
  lentWatch: undefined,
  freedKeys: undefined,
  separatesKeys: undefined,
  remoteRows: new Map(),
  accessor: { isActive: false, qpn: 0, isRequester: false, watched: 0 },
  rows: 0,
  liveKeys: 0,
  nextIndex: 1 + (random() % (INDICES - 1)),
  round: 0,
  secret: [random(), random()],
})

const grow = (table: MemoryTable): void => {
  const size = table.key.length * 2
  const doubled = <T extends Uint8Array | Uint32Array | Int32Array | Float64Array>(old: T): T => {
    const copy = new (old.constructor as new (length: number) => T)(size)
    copy.set(old)
    return copy
  }
  // An allocation may fail: the table changes only after the last one.
  Object.assign(table, {
    key: doubled(table.key),
    pd: doubled(table.pd),
    access: doubled(table.access),
    startHi: doubled(table.startHi),
    startLo: doubled(table.startLo),
    iovaHi: doubled(table.iovaHi),
    iovaLo: doubled(table.iovaLo),
    length: doubled(table.length),
    space: doubled(table.space),
    kind: doubled(table.kind),
    windowRegion: doubled(table.windowRegion),
    boundWindows: doubled(table.boundWindows),
    qp: doubled(table.qp),
    firstOfRegion: doubled(table.firstOfRegion),
    nextOfRegion: doubled(table.nextOfRegion),
    previousOfRegion: doubled(table.previousOfRegion),
    nextOfQp: doubled(table.nextOfQp),
    previousOfQp: doubled(table.previousOfQp),
  })
}

/** The row of the key with this index, with any key byte; -1: none. */
export const rowAt = (table: MemoryTable, index: number): number => {
  const page = table.pages[index >>> PAGE_BITS]
  return page === undefined ? -1 : page[index & PAGE_MASK]! - 1
}

/**
 * The key byte of an index in a round: a hash of the index with a secret (the finalizer of MurmurHash3), so that a key
 * does not disclose the keys of neighbouring indices.
 */
const keyByte = ([first, second]: MemoryTable['secret'], index: number, round: number): number => {
  let mixed = index ^ first
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b) ^ second
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return ((mixed >>> 24) + round) & 0xff
}

const nextFreeKey = (table: MemoryTable): number => {
  const newest = table.freedKeys?.pop()
  if (newest !== undefined) return newest
  for (;;) {
    if (table.nextIndex === INDICES) {
      table.nextIndex = 1
      table.round = (table.round + 1) & 0xff
    }
    const index = table.nextIndex++
    if (rowAt(table, index) < 0) return ((index << 8) | keyByte(table.secret, index, table.round)) >>> 0
  }
}

/** Counts a row that uses `space`, and adds a new space. Returns the index of the space. */
export const acquireSpace = (table: MemoryTable, space: AddressSpace): number => {
  let index = table.spaceIndex.get(space)
  if (index === undefined) {
    index = table.freeSpaces.pop() ?? table.spaces.length
    table.spaces[index] = space
    table.spaceIndex.set(space, index)
    table.spaceUses[index] = 0
    if (space.locate !== undefined) table.locatableSpaces++
  }
  table.spaceUses[index]!++
  return index
}

/** Ends a row's use of the space with this index. No effect for -1. */
export const releaseSpace = (table: MemoryTable, index: number): void => {
  if (index < 0 || --table.spaceUses[index]! > 0) return
  const space = table.spaces[index]
  if (space === undefined) return
  if (space.locate !== undefined) table.locatableSpaces--
  table.spaces[index] = undefined
  table.spaceIndex.delete(space)
  table.freeSpaces.push(index)
}

/**
 * Allocates a row and its key; the caller sets the other columns. Throws ENOMEM when all 2^24 − 1 indices are in use.
 */
export const allocateKeyRow = (table: MemoryTable): number => {
  if (table.liveKeys === INDICES - 1) throw callError.ENOMEM`all ${INDICES - 1} memory keys are in use`
  // First what may fail for lack of memory.
  if (table.freeRows.length === 0 && table.rows === table.key.length) grow(table)
  const key = nextFreeKey(table)
  const page = key >>> (8 + PAGE_BITS)
  table.pages[page] ??= new Int32Array(PAGE_SIZE)
  const row = table.freeRows.pop() ?? table.rows++
  table.pages[page][(key >>> 8) & PAGE_MASK] = row + 1
  table.pageUses[page]!++
  table.liveKeys++
  table.key[row] = key
  return row
}

const recentOf = ({ recent }: MemoryTable, key: number): RecentRegion => recent[(key >>> 8) & (RECENT_REGIONS - 1)]!

const uncacheRegion = (table: MemoryTable, key: number): void => {
  const recent = recentOf(table, key)
  if (recent.key === key) Object.assign(recent, noRecentRegion())
}

// ---- removed keys, for explain.ts ----

const REMOVED_KEYS = 1024
/** The length recorded for the removed key of a window. */
const REMOVED_WINDOW_LENGTH = -1

const recordRemovedKey = (table: MemoryTable, row: number): void => {
  table.removed ??= {
    key: new Uint32Array(REMOVED_KEYS),
    iovaHi: new Uint32Array(REMOVED_KEYS),
    iovaLo: new Uint32Array(REMOVED_KEYS),
    length: new Float64Array(REMOVED_KEYS),
    next: 0,
  }
  const { removed } = table
  const at = removed.next
  removed.next = (at + 1) % REMOVED_KEYS
  removed.key[at] = table.key[row]!
  removed.iovaHi[at] = table.iovaHi[row]!
  removed.iovaLo[at] = table.iovaLo[row]!
  removed.length[at] = isWindow(table, row) ? REMOVED_WINDOW_LENGTH : table.length[row]!
}

/** A recently removed key, with the address range of a region; undefined: unknown. */
export const findRemovedKey = ({ removed }: MemoryTable, key: number) => {
  const at = removed === undefined || key === 0 ? -1 : removed.key.lastIndexOf(key >>> 0)
  if (removed === undefined || at < 0) return undefined
  const length = removed.length[at]!
  return {
    isWindow: length === REMOVED_WINDOW_LENGTH,
    iovaHi: removed.iovaHi[at]!,
    iovaLo: removed.iovaLo[at]!,
    length,
  }
}

export const freeKeyRow = (table: MemoryTable, row: number): void => {
  const key = table.key[row]!
  if (key === 0) throw new Error(`memory row ${row} is removed, but is free already`)
  const page = key >>> (8 + PAGE_BITS)
  table.pages[page]![(key >>> 8) & PAGE_MASK] = 0
  table.pageUses[page]!--
  // The directory page of the next key is kept: it would be allocated again immediately.
  if (table.pageUses[page] === 0 && page !== table.nextIndex >>> PAGE_BITS) table.pages[page] = undefined
  releaseSpace(table, table.space[row]!)
  recordRemovedKey(table, row)
  table.freedKeys?.push(key)
  table.key[row] = 0
  uncacheRegion(table, key)
  table.liveKeys--
  table.freeRows.push(row)
}

/**
 * Adds a region and returns its row. `start` and `iova` are any u64, `length` is an exact Number. Throws ENOMEM if no
 * key is free.
 */
export const addRegion = (
  table: MemoryTable,
  pd: number,
  start: bigint,
  iova: bigint,
  length: number,
  access: number,
  space: AddressSpace,
): number => {
  const row = allocateKeyRow(table)
  table.pd[row] = pd
  table.access[row] = access
  table.kind[row] = KeyKind.REGION
  table.windowRegion[row] = -1
  table.boundWindows[row] = 0
  table.qp[row] = 0
  table.space[row] = -1
  relocateRegion(table, row, start, iova, length, space)
  return row
}

/** Gives a new region, whose key nobody knows yet, another key as rkey, if one is free. */
export const separateKeys = (table: MemoryTable, row: number): void => {
  if (table.liveKeys === INDICES - 1) return
  const remote = allocateKeyRow(table)
  table.kind[remote] = KeyKind.REMOTE
  table.windowRegion[remote] = row
  table.boundWindows[remote] = 0
  table.qp[remote] = 0
  table.space[remote] = -1
  table.kind[row] = KeyKind.LOCAL
  table.remoteRows.set(row, remote)
  copyToRemote(table, row)
}

/** The rkey of a region is its lkey again. */
export const joinKeys = (table: MemoryTable, row: number): void => {
  const remote = table.remoteRows.get(row)
  if (remote === undefined) return
  table.remoteRows.delete(row)
  freeKeyRow(table, remote)
  table.kind[row] = KeyKind.REGION
}

/** A region has changed: what its rkey permits follows, if that is a key of its own. */
export const copyToRemote = (table: MemoryTable, row: number): void => {
  const remote = table.remoteRows.get(row)
  if (remote === undefined) return
  table.pd[remote] = table.pd[row]!
  table.access[remote] = table.access[row]!
  table.startHi[remote] = table.startHi[row]!
  table.startLo[remote] = table.startLo[row]!
  table.iovaHi[remote] = table.iovaHi[row]!
  table.iovaLo[remote] = table.iovaLo[row]!
  table.length[remote] = table.length[row]!
  const before = table.space[remote]!
  // The region uses this space, so it exists.
  table.space[remote] = acquireSpace(table, table.spaces[table.space[row]!]!)
  releaseSpace(table, before)
}

/** The rkey of a region. */
export const rkeyOf = (table: MemoryTable, row: number): number => table.key[table.remoteRows.get(row) ?? row]!

/** A row that the table never frees, for an index below PAGE_SIZE. */
const takeRowFor = (table: MemoryTable, index: number): number => {
  if (table.freeRows.length === 0 && table.rows === table.key.length) grow(table)
  const row = table.freeRows.pop() ?? table.rows++
  table.pages[0] ??= new Int32Array(PAGE_SIZE)
  table.pages[0][index] = row + 1
  table.pageUses[0]!++
  return row
}

/**
 * Adds the one region that requests of every protection domain may use, locally: all addresses, in `space`, without
 * end. Its key is `byte`, of index 0, which no other key has. It is not counted.
 */
export const addSharedRegion = (table: MemoryTable, byte: number, space: AddressSpace): void => {
  const row = takeRowFor(table, 0)
  table.key[row] = byte
  table.pd[row] = -1
  table.access[row] = 0
  table.kind[row] = KeyKind.REGION
  table.windowRegion[row] = -1
  table.boundWindows[row] = 0
  table.qp[row] = 0
  table.space[row] = -1
  relocateRegion(table, row, 0n, 0n, Number.POSITIVE_INFINITY, space)
  table.sharedRow = row
}

/** No region gets a key with this index, at most 4095. */
export const reserveIndex = (table: MemoryTable, index: number): void => {
  const row = takeRowFor(table, index)
  table.key[row] = 0
  table.pd[row] = -1
  table.space[row] = -1
}

/** Sets the key byte of a new region, whose key nobody knows yet, and returns the key. */
export const setKeyByte = (table: MemoryTable, row: number, byte: number): number => {
  table.key[row] = ((table.key[row]! & ~0xff) | (byte & 0xff)) >>> 0
  return table.key[row]!
}

/** Changes the address range of a region but not its key. */
export const relocateRegion = (
  table: MemoryTable,
  row: number,
  start: bigint,
  iova: bigint,
  length: number,
  space: AddressSpace,
): void => {
  table.startHi[row] = Number(start >> 32n)
  table.startLo[row] = Number(start & 0xffffffffn)
  table.iovaHi[row] = Number(iova >> 32n)
  table.iovaLo[row] = Number(iova & 0xffffffffn)
  table.length[row] = length
  uncacheRegion(table, table.key[row]!)
  const before = table.space[row]!
  table.space[row] = acquireSpace(table, space)
  releaseSpace(table, before)
}

/** The row of a live key; -1: none. */
export const findKey = (table: MemoryTable, key: number): number => {
  const row = rowAt(table, key >>> 8)
  return row >= 0 && table.key[row] === key >>> 0 ? row : -1
}

/** Whether a key that is not of kind REGION is one for such an access: a window of type 2 only by its queue pair. */
const kindPermits = (table: MemoryTable, row: number, access: number, qp: number): boolean => {
  const kind = table.kind[row]!
  if ((access & REMOTE_RIGHTS) === 0) return kind === KeyKind.LOCAL
  return kind === KeyKind.WINDOW_2 ? table.qp[row] === qp : kind !== KeyKind.LOCAL
}

export const isWindow = ({ kind }: MemoryTable, row: number): boolean =>
  kind[row] === KeyKind.WINDOW_1 || kind[row] === KeyKind.WINDOW_2

/** The row of the region with this lkey; -1: none. */
export const findRegion = (table: MemoryTable, lkey: number): number => {
  const row = findKey(table, lkey)
  return row >= 0 && !isWindow(table, row) && table.kind[row] !== KeyKind.REMOTE ? row : -1
}

/**
 * The row of `key` if it is of protection domain `pd` and grants every right in `access` to queue pair `qp`; otherwise
 * -1.
 */
export const findKeyWithRights = (table: MemoryTable, pd: number, key: number, access: number, qp: number): number => {
  const row = findKey(table, key)
  if (row < 0 || table.pd[row] !== pd || (table.access[row]! & access) !== access)
    return row >= 0 && row === table.sharedRow && (access & REMOTE_RIGHTS) === 0 ? row : -1
  return table.kind[row] === KeyKind.REGION || kindPermits(table, row, access, qp) ? row : -1
}

/**
 * The row of `key` if it grants the access (`findKeyWithRights`) and contains the `length` bytes at hi:lo; otherwise
 * -1. `length` is an exact Number. Called on the data path.
 */
export const resolve = (
  table: MemoryTable,
  pd: number,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
  qp: number,
): number => {
  const row = findKeyWithRights(table, pd, key, access, qp)
  if (row < 0) return -1
  // Inexact only if far beyond any length.
  const offset = ((hi >>> 0) - table.iovaHi[row]!) * TWO_32 + ((lo >>> 0) - table.iovaLo[row]!)
  return offset >= 0 && offset + length <= table.length[row]! ? row : -1
}

/** Of a resolved row: low half of the address, in the row's address space, of the byte at hi:lo in work requests. */
export const addressLo = (table: MemoryTable, row: number, lo: number): number =>
  (lo - table.iovaLo[row]! + table.startLo[row]!) >>> 0

/** High half of the address of `addressLo`. */
export const addressHi = (table: MemoryTable, row: number, hi: number, lo: number): number => {
  const low = (lo >>> 0) - table.iovaLo[row]! + table.startLo[row]!
  return (hi - table.iovaHi[row]! + table.startHi[row]! + Math.floor(low / TWO_32)) >>> 0
}

/** Loads a key into the cache. False if the key is not a region's, or the region is not in one buffer. */
const cacheRegion = (table: MemoryTable, recent: RecentRegion, key: number, location: Float64Array): boolean => {
  const row = findKey(table, key)
  if (row < 0 || table.kind[row] !== KeyKind.REGION) return false
  const length = table.length[row]!
  const buffer = table.spaces[table.space[row]!]?.locate?.(table.startHi[row]!, table.startLo[row]!, length, location)
  if (buffer === undefined) return false
  recent.key = key
  recent.pd = table.pd[row]!
  recent.access = table.access[row]!
  recent.iovaHi = table.iovaHi[row]!
  recent.iovaLo = table.iovaLo[row]!
  recent.length = length
  recent.buffer = buffer
  recent.offset = location[0]!
  recent.size = buffer.bytes.length
  return true
}

/**
 * `resolve` for a region in a buffer of this process: returns the buffer, and stores the offset in `location[0]`.
 * Returns undefined in all other cases, also for windows and without permission: then the caller uses `resolve`. `key`,
 * `hi` and `lo` must be unsigned.
 */
export const findBuffer = (
  table: MemoryTable,
  pd: number,
  key: number,
  hi: number,
  lo: number,
  length: number,
  access: number,
  location: Float64Array,
): Bytes | undefined => {
  const recent = recentOf(table, key)
  if (recent.key !== key && !cacheRegion(table, recent, key, location)) return undefined
  const { buffer } = recent
  if (recent.pd !== pd || (recent.access & access) !== access || buffer.bytes.length !== recent.size) return undefined
  const offset = (hi - recent.iovaHi) * TWO_32 + (lo - recent.iovaLo)
  if (offset < 0 || offset + length > recent.length) return undefined
  location[0] = recent.offset + offset
  return buffer
}
