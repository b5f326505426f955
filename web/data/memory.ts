/*
 * The memory that the page spends on a session: the bytes of its file that it keeps, and the records made of them.
 * Lists of records share it; those that do not fit are counted, never dropped in silence.
 */

/** Bytes, of all. */
export const MEMORY = 256 * 2 ** 20
/** What calls and sends leave to findings and failures, as a part of all. */
const RESERVED = 1 / 16
/** The file's bytes are kept in what the records leave, at least in this part of all. */
const LEAST_FILE = 1 / 32

export class Memory {
  readonly total: number
  /** Bytes of records, about. */
  records = 0
  readonly #lists: Kept<unknown>[] = []

  constructor(total = MEMORY) {
    this.total = total
  }

  /** Bytes of the file that may be kept now. */
  get forFile(): number {
    return Math.max(this.total * LEAST_FILE, this.total - this.records)
  }

  /**
   * A list of records. `isReserved`: it is of what went wrong. `keepsNewest`: it loses its older half, not what is new.
   */
  list<T>(keepsNewest: boolean, isReserved = false): Kept<T> {
    const list = new Kept<T>(this, keepsNewest, isReserved ? this.total : this.total * (1 - RESERVED))
    this.#lists.push(list)
    return list
  }

  /** Another recording begins: its lists are new. */
  clear(): void {
    this.records = 0
    this.#lists.length = 0
  }

  /** Makes room: of the lists that may lose something, the largest loses its older half. Returns whether one has. */
  makeRoom(): boolean {
    const [largest] = this.#lists
      .filter(({ keepsNewest, entries }) => keepsNewest && entries.length > 1)
      .sort((a, b) => b.bytes - a.bytes)
    largest?.dropOlderHalf()
    return largest !== undefined
  }
}

/** Records in the order of their time, as many as the memory has room for. */
export class Kept<T> {
  readonly entries: T[] = []
  readonly keepsNewest: boolean
  /** Records that were too many: the later ones, or with `keepsNewest` the earlier ones. */
  omitted = 0
  bytes = 0
  readonly #memory: Memory
  readonly #limit: number

  /** `limit`: bytes of all records, above which this list takes none. */
  constructor(memory: Memory, keepsNewest: boolean, limit: number) {
    this.#memory = memory
    this.keepsNewest = keepsNewest
    this.#limit = limit
  }

  /** Also those that were too many. */
  get total(): number {
    return this.entries.length + this.omitted
  }

  /** `bytes`: of the record, about. */
  add(entry: T, bytes: number): void {
    const memory = this.#memory
    if (this.keepsNewest && bytes <= this.#limit) while (memory.records + bytes > this.#limit && memory.makeRoom());
    if (memory.records + bytes > this.#limit) {
      this.omitted++
      return
    }
    this.entries.push(entry)
    this.bytes += bytes
    memory.records += bytes
  }

  dropOlderHalf(): void {
    const { length } = this.entries
    const count = this.entries.splice(0, Math.ceil(length / 2)).length
    const bytes = (this.bytes * count) / length
    this.omitted += count
    this.bytes -= bytes
    this.#memory.records -= bytes
  }
}

/** More are not in records of ours; a file of others may have any. */
const MAX_DEPTH = 16
/** Bytes of an object, array, text or bigint beside its content, and of a field. */
const HEAD = 24
const FIELD = 8

/**
 * The bytes that a record takes in a browser's memory, about. What it shares with other records counts too, so it takes
 * less than that.
 */
export const bytesOf = (value: unknown, depth = 0): number => {
  if (typeof value === 'string') return HEAD + value.length
  if (typeof value === 'bigint') return HEAD
  if (typeof value !== 'object' || value === null || depth > MAX_DEPTH) return 0
  if (ArrayBuffer.isView(value)) return 8 * HEAD + value.byteLength
  let bytes = HEAD
  if (Array.isArray(value)) {
    for (const one of value) bytes += FIELD + bytesOf(one, depth + 1)
    return bytes
  }
  for (const name in value) bytes += FIELD + bytesOf((value as Readonly<Record<string, unknown>>)[name], depth + 1)
  return bytes
}
