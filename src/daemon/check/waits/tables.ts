/*
 * The wait tables that programs have passed (message WAITS, spec/wait-table.ts): what each of their threads waits for.
 * They are memory files, so reading them never waits for a program. The contents are not trusted.
 */
import { closeSync, fstatSync, readSync } from 'node:fs'
import { basename } from 'node:path'
import type { Mapping, RingPool } from '../../../host/memory/mapping.ts'
import { SEAL_GROW, SEAL_SHRINK, sealsOf } from '../../../host/memory/memfd.ts'
import type { Stack } from '../../../spec/check/finding.ts'
import { LendRing } from '../../../spec/lends.ts'
import { offsetsOf } from '../../../spec/message-layout.ts'
import { Messages } from '../../../spec/session.ts'
import { WaitTable } from '../../../spec/wait-table.ts'
import type { Machine } from '../../../tools/check/waits/loads.ts'

const REQUIRED_SEALS = SEAL_SHRINK | SEAL_GROW
/** The ring of lends is in the file too. */
const FILE_BYTES = LendRing.offset + LendRing.bytes
/** Processes with a table: the oldest are forgotten. */
const MAX_TABLES = 1024

const HEADER = offsetsOf(Messages.waitTable)
const SLOT = offsetsOf(Messages.waitSlot)
const POLL = offsetsOf(Messages.waitPoll)
const FOUND = offsetsOf(Messages.waitFound)
const SIGNAL = offsetsOf(Messages.waitSignal)
const MODULE = offsetsOf(Messages.waitModule)
const MODULE_BYTES = Messages.waitModule.size
const SAMPLE = offsetsOf(Messages.waitSample)

/** A CQ that a thread polls. */
interface TablePoll {
  /** The daemon's number of the context; 0: unknown. */
  readonly context: number
  readonly cq: number
  readonly count: number
}

/** A poll that has found something; `asked` 0: of an extended CQ. */
interface TableFound {
  readonly caller: number
  readonly context: number
  readonly cq: number
  readonly asked: number
  readonly count: number
}

/** A slot in use: `waitSlot` of spec/session.ts. */
export interface TableSlot {
  readonly thread: number
  readonly sequence: number
  readonly kind: number
  readonly flags: number
  readonly object: bigint
  readonly owner: number
  readonly stack: number
  readonly pollStack: number
  /** Return addresses. */
  readonly frames: readonly number[]
  /** The number of a queue pair; 0: none. */
  readonly batch: number
  readonly batchCaller: number
  readonly descriptors: readonly number[]
  readonly descriptorCount: number
  readonly polls: readonly TablePoll[]
  /** The oldest first. */
  readonly found: readonly TableFound[]
}

/** Where a thread was that runs: `waitSample` of spec/session.ts. */
export interface ThreadSample extends Machine {
  readonly thread: number
  readonly sequence: number
  readonly polls: number
  readonly frames: readonly number[]
}

/** Who has last signaled an object, by its address. */
interface LastSignal {
  readonly thread: number
  readonly caller: number
}

interface Module {
  readonly start: number
  readonly end: number
  readonly base: number
  readonly path: string
}

export class WaitTableFile {
  readonly #fd: number
  #isOpen = true
  #modules: readonly Module[] = []
  #moduleCount = 0

  private constructor(fd: number) {
    this.#fd = fd
  }

  /** Takes over `fd`. Undefined: it is no such file, and is closed. */
  static take(fd: number): WaitTableFile | undefined {
    // fstat of other files can block.
    const seals = sealsOf(fd)
    if (seals >= 0 && (seals & REQUIRED_SEALS) === REQUIRED_SEALS && fstatSync(fd).size >= FILE_BYTES)
      return new WaitTableFile(fd)
    closeSync(fd)
    return undefined
  }

  close(): void {
    if (this.#isOpen) closeSync(this.#fd)
    this.#isOpen = false
  }

  /** Maps the ring of lends. */
  lendRing(pool: RingPool): Mapping {
    return pool.map(this.#fd, LendRing.offset, LendRing.bytes)
  }

  #read(length: number, at: number): DataView {
    const bytes = new Uint8Array(length)
    if (this.#isOpen) readSync(this.#fd, bytes, 0, length, at)
    return new DataView(bytes.buffer)
  }

  /** The slots in use. */
  *slots(): Generator<TableSlot> {
    const count = Math.min(this.#read(Messages.waitTable.size, 0).getUint32(HEADER.threads, true), WaitTable.slots)
    const bytes = Messages.waitSlot.size
    const view = this.#read(count * bytes, WaitTable.firstSlot)
    for (let at = 0; at < count * bytes; at += bytes) {
      const u32 = (offset: number): number => view.getUint32(at + offset, true)
      if (u32(SLOT.thread) === 0) continue
      const list = <T>(most: number, length: number, read: (i: number) => T): readonly T[] =>
        Array.from({ length: Math.min(most, length) }, (_, i) => read(i))
      const descriptorCount = u32(SLOT.descriptorCount)
      yield {
        thread: u32(SLOT.thread),
        sequence: u32(SLOT.sequence),
        kind: u32(SLOT.kind),
        flags: u32(SLOT.flags),
        object: view.getBigUint64(at + SLOT.object, true),
        owner: u32(SLOT.owner),
        stack: u32(SLOT.stack),
        pollStack: u32(SLOT.pollStack),
        frames: list(WaitTable.frames, u32(SLOT.depth), i => Number(view.getBigUint64(at + SLOT.frames + 8 * i, true))),
        batch: u32(SLOT.batch),
        batchCaller: Number(view.getBigUint64(at + SLOT.batchCaller, true)),
        descriptorCount,
        descriptors: list(WaitTable.descriptors, descriptorCount, i =>
          view.getInt32(at + SLOT.descriptors + 4 * i, true),
        ),
        polls: list(WaitTable.polls, WaitTable.polls, i => {
          const poll = SLOT.polls + i * Messages.waitPoll.size
          return { context: u32(poll + POLL.context), cq: u32(poll + POLL.cq), count: u32(poll + POLL.count) }
        }).filter(({ count: polled }) => polled > 0),
        found: list(WaitTable.found, WaitTable.found, i => {
          const place = (u32(SLOT.nextFound) + i) % WaitTable.found
          const found = SLOT.found + place * Messages.waitFound.size
          return {
            caller: Number(view.getBigUint64(at + found + FOUND.caller, true)),
            context: u32(found + FOUND.context),
            cq: u32(found + FOUND.cq),
            asked: u32(found + FOUND.asked),
            count: u32(found + FOUND.count),
          }
        }).filter(({ count: completions }) => completions > 0),
      }
    }
  }

  /** The signal at which a thread tells where it is; undefined: none. */
  get sampleSignal(): number | undefined {
    return this.#read(Messages.waitTable.size, 0).getUint32(HEADER.sampleSignal, true) || undefined
  }

  /** The last samples of threads that were running, the latest first. */
  samples(): readonly ThreadSample[] {
    const { samples: places, firstSample, sampleCode, sampleRegisters, frames } = WaitTable
    const written = this.#read(Messages.waitTable.size, 0).getUint32(HEADER.samples, true)
    const bytes = Messages.waitSample.size
    const view = this.#read(places * bytes, firstSample)
    return Array.from({ length: Math.min(places, written) }, (_, i): ThreadSample => {
      const at = ((written - 1 - i) % places) * bytes
      const u64 = (offset: number, index = 0): bigint => view.getBigUint64(at + offset + 8 * index, true)
      const depth = Math.min(frames, view.getUint32(at + SAMPLE.depth, true))
      return {
        thread: view.getUint32(at + SAMPLE.thread, true),
        sequence: view.getUint32(at + SAMPLE.sequence, true),
        polls: view.getUint32(at + SAMPLE.polls, true),
        pc: u64(SAMPLE.pc),
        code: new Uint8Array(view.buffer, at + SAMPLE.code, sampleCode),
        registers: Array.from({ length: sampleRegisters }, (_, n) => u64(SAMPLE.registers, n)),
        frames: Array.from({ length: depth }, (_, n) => Number(u64(SAMPLE.frames, n))),
      }
    }).filter(({ thread }) => thread !== 0)
  }

  /** Undefined: nobody, as far as is known. */
  signalOf(object: bigint): LastSignal | undefined {
    const hash = Math.imul(Number((object >> 3n) & 0xffff_ffffn), 0x9e3779b1) >>> 22
    const view = this.#read(Messages.waitSignal.size, WaitTable.firstSignal + hash * Messages.waitSignal.size)
    if (object === 0n || view.getBigUint64(SIGNAL.object, true) !== object) return undefined
    return { thread: view.getUint32(SIGNAL.thread, true), caller: Number(view.getBigUint64(SIGNAL.caller, true)) }
  }

  #loadModules(): void {
    const count = Math.min(this.#read(Messages.waitTable.size, 0).getUint32(HEADER.modules, true), WaitTable.modules)
    if (count === this.#moduleCount) return
    this.#moduleCount = count
    const view = this.#read(count * MODULE_BYTES, WaitTable.firstModule)
    this.#modules = Array.from({ length: count }, (_, i) => {
      const at = i * MODULE_BYTES
      const number = (offset: number): number => Number(view.getBigUint64(at + offset, true))
      const path = Buffer.from(view.buffer, at + MODULE.path, MODULE_BYTES - MODULE.path).toString('utf8')
      const name = path.slice(0, path.includes('\0') ? path.indexOf('\0') : undefined)
      return { start: number(MODULE.start), end: number(MODULE.end), base: number(MODULE.base), path: name }
    })
  }

  /** The frames of return addresses, without those of our libraries. */
  stackOf(frames: readonly number[]): Stack {
    this.#loadModules()
    return frames.flatMap(frame => {
      // The call, not the instruction after it.
      const address = frame - 1
      const found = this.#modules.find(({ start, end }) => address >= start && address < end)
      if (found === undefined || basename(found.path).startsWith('libuserdma_')) return []
      return [`${found.path}+0x${(address - found.base).toString(16)} `]
    })
  }
}

export interface ProcessTable {
  readonly pid: number
  /** The pid in its own namespace. */
  readonly namespacePid: number
  readonly command: string
  readonly file: WaitTableFile
  /** The session that has passed it. */
  readonly session: object
  hasEnded: boolean
}

/** By pid. */
export class WaitTables {
  readonly #tables = new Map<number, ProcessTable>()

  add(table: Omit<ProcessTable, 'hasEnded'>): void {
    this.#tables.get(table.pid)?.file.close()
    this.#tables.delete(table.pid)
    const [oldest] = this.#tables.values()
    if (oldest !== undefined && this.#tables.size === MAX_TABLES) this.#remove(oldest)
    this.#tables.set(table.pid, { ...table, hasEnded: false })
  }

  #remove(table: ProcessTable): void {
    table.file.close()
    this.#tables.delete(table.pid)
  }

  /** The session of a process has ended. */
  ended(session: object): void {
    for (const table of [...this.#tables.values()]) if (table.session === session) this.#remove(table)
  }

  get all(): Iterable<ProcessTable> {
    return this.#tables.values()
  }
}
