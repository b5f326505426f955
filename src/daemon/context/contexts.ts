/*
 * All open contexts with a memory file, and their doorbell sockets (docs/decisions/context-file.md). Through a doorbell
 * socket a program sends tokens: handles of queue pairs to whose send queues the program has posted.
 *
 * A context exists while a program holds a doorbell socket or the memory file of the context. The shim keeps a copy of
 * a doorbell socket for each copy of the program's uverbs descriptor, so fork, dup and exit need no bookkeeping here. A
 * descriptor in transit between programs has no doorbell until the receiver uses the descriptor. So while a context has
 * no doorbell, the daemon checks from time to time whether a program holds the memory file.
 */

import { closeContext, openContext } from '../../core/devices/registry.ts'
import type { Account, Context, Device } from '../../core/model.ts'
import { orRelease, take } from '../../core/objects/limits.ts'
import { EAGAIN, EMSGSIZE } from '../../host/errno.ts'
import { watch } from '../../host/event-loop/poll.ts'
import { oneSlice } from '../../host/event-loop/slices.ts'
import type { RingPool } from '../../host/memory/mapping.ts'
import { fileIdentity, sealsOf } from '../../host/memory/memfd.ts'
import { close, recvBytes, shutdown, socketPair } from '../../host/net/sockets.ts'
import { type Containment, createContainment } from '../containment.ts'
import { ContextMemory } from './context-file.ts'
import type { Freeing } from './freeing.ts'

export interface OpenContext {
  /** Identifies the context in session messages; never reused. */
  readonly number: number
  /** N of node uverbsN; SYSTEM_NODE for the system-wide device. */
  readonly node: number
  readonly context: Context
  readonly memory: ContextMemory
  /** Called after the context's objects are destroyed. */
  readonly whenEnded: Set<() => void>
}

const TOKEN_BYTES = 4
/** Tokens read from a socket in one turn of the event loop. */
const MAX_TOKENS = 64
/** Milliseconds between checks of contexts without doorbells; each interval is twice the previous one. */
const CHECK_INTERVAL = { first: 10, longest: 1000 }

/**
 * `onPosted` is called for each token; the handle may be invalid. `onRung` is called after the tokens of a turn, and
 * when a context may have ended. `isChecked`: maps the contexts' taken counts, for `userdma check`.
 */
export class Contexts {
  readonly #pool: RingPool
  readonly #onPosted: (context: Context, handle: number) => void
  readonly #onRung: () => void
  readonly #containment: Containment
  readonly #isChecked: boolean
  /** Open contexts by number. */
  readonly #contexts = new Map<number, OpenContext>()
  /** Ended contexts whose objects are being destroyed. */
  readonly #ending = new Set<OpenContext>()
  /** The daemon's ends of the doorbell sockets: descriptors, with the functions that close them. */
  readonly #doorbells = new Map<OpenContext, Map<number, () => void>>()
  /** Functions that release the memory files' descriptors from the accounts. */
  readonly #fileReleases = new Map<OpenContext, () => void>()
  readonly #token = new Uint8Array(TOKEN_BYTES)
  readonly #tokenView = new DataView(this.#token.buffer)
  readonly #onDoorbells: (open: OpenContext) => void
  readonly #onClock: (open: OpenContext) => void
  readonly #freeing: Freeing | undefined
  #nextNumber = 1
  readonly #withoutDoorbells = new Set<OpenContext>()
  #checkTimer: NodeJS.Timeout | undefined
  /** Milliseconds for which `#checkTimer` is set; 0: not set. */
  #checkDelay = 0

  constructor(
    pool: RingPool,
    onPosted: (context: Context, handle: number) => void,
    onRung: () => void,
    containment: Containment = createContainment(),
    isChecked = false,
    onDoorbells: (open: OpenContext) => void = () => {},
    onClock: (open: OpenContext) => void = () => {},
    freeing?: Freeing,
  ) {
    this.#freeing = freeing
    this.#onDoorbells = onDoorbells
    this.#onClock = onClock
    this.#pool = pool
    this.#onPosted = onPosted
    this.#onRung = onRung
    this.#containment = containment
    this.#isChecked = isChecked
  }

  /**
   * Opens a device for a client. Returns the context and the client's end of the first doorbell socket; the caller
   * passes the end to the client and then closes it. `account`: charged for the context's descriptors, objects and
   * rings. `isPacked`: the client accepts packed rings (OpenWants.PACKED_RINGS). Throws CallError: EIO if the device
   * was removed, EMFILE or ENFILE beyond the share of descriptors; SystemError if the system refuses a descriptor or
   * mapping.
   */
  open(
    device: Device,
    node: number,
    account: Account,
    isPacked?: boolean,
  ): { readonly open: OpenContext; readonly doorbell: number } {
    const releaseFile = take(account.descriptors, account, 'a context')
    const memory = orRelease(
      releaseFile,
      () => new ContextMemory(this.#pool, isPacked, account, undefined, this.#freeing),
    )
    let context: Context
    try {
      if (this.#isChecked) memory.mapCheckLogs()
      context = openContext(device, { mapped: memory, account })
    } catch (error) {
      memory.close()
      releaseFile()
      throw error
    }
    const open: OpenContext = { number: this.#nextNumber++, node, context, memory, whenEnded: new Set() }
    memory.contextNumber = open.number
    memory.onDoorbells = () => this.#onDoorbells(open)
    memory.onClock = () => this.#onClock(open)
    this.#contexts.set(open.number, open)
    this.#fileReleases.set(open, releaseFile)
    this.#doorbells.set(open, new Map())
    try {
      return { open, doorbell: this.addDoorbell(open, account) }
    } catch (error) {
      this.#end(open)
      throw error
    }
  }

  /** Creates another doorbell socket and returns the client's end. Throws the errors of `open`, except EIO. */
  addDoorbell(open: OpenContext, account: Account): number {
    const contextDoorbells = this.#doorbells.get(open)
    if (!contextDoorbells) throw new Error(`context ${open.number} is closed`)
    const releaseDescriptor = take(account.descriptors, account, 'a doorbell')
    const [ours, theirs] = orRelease(releaseDescriptor, socketPair)
    /** False if it is closed already. */
    const closeDoorbell = (): boolean => {
      if (!contextDoorbells.delete(ours)) return false
      watcher.stop()
      close(ours)
      releaseDescriptor()
      return true
    }
    const onClosed = (): void => {
      if (closeDoorbell() && contextDoorbells.size === 0) this.#onNoDoorbell(open)
    }
    const onHangUp = (): void => {
      onClosed()
      this.#onRung()
    }
    const watcher = watch(
      ours,
      { readable: true },
      this.#containment.guard(
        'a doorbell',
        () => {
          if (this.#drain(open, ours)) this.#onRung()
          else {
            watcher.update({})
            // A job, so that the end of very many contexts is spread over turns of the event loop.
            open.context.device.core.runJob(oneSlice(onHangUp))
          }
        },
        onClosed,
      ),
    )
    contextDoorbells.set(ours, closeDoorbell)
    if (!open.context.device.isAlive) shutdown(ours, 'write')
    return theirs
  }

  byNumber(number: number): OpenContext | undefined {
    return this.#contexts.get(number)
  }

  /**
   * Call when the device was removed: shuts down the daemon's ends of the doorbell sockets, so that programs that only
   * poll notice the removal. The contexts exist until programs close them.
   */
  hangUp(device: Device): void {
    for (const [{ context }, contextDoorbells] of this.#doorbells)
      if (context.device === device) for (const fd of contextDoorbells.keys()) shutdown(fd, 'write')
  }

  of(context: Context): OpenContext | undefined {
    for (const open of this.#contexts.values()) if (open.context === context) return open
    return undefined
  }

  /** The context whose memory file is behind `fd`, a descriptor of the daemon; undefined for other files. */
  byFile(fd: number): OpenContext | undefined {
    // Only files in memory (memfd, tmpfs) have seals. fstat of other files can block.
    if (sealsOf(fd) < 0) return undefined
    const { dev, ino } = fileIdentity(fd)
    for (const open of this.#contexts.values()) if (open.memory.inode === ino && open.memory.dev === dev) return open
    return undefined
  }

  /** Includes contexts whose objects are being destroyed. */
  *withMemory(): Generator<OpenContext> {
    yield* this.#contexts.values()
    yield* this.#ending
  }

  get count(): number {
    return this.#contexts.size
  }

  /** Number of rings of the open contexts, and bytes of the ranges that contain them. */
  get rings(): { count: number; bytes: number } {
    let count = 0
    let bytes = 0
    for (const { memory } of this.#contexts.values()) {
      count += memory.ringCount
      bytes += memory.ringBytes
    }
    return { count, bytes }
  }

  /** Ends the contexts of which no program holds a doorbell or the file. */
  endUnheld(): void {
    for (const open of this.#withoutDoorbells) {
      if (this.#doorbells.get(open)?.size !== 0) this.#withoutDoorbells.delete(open)
      else if (!open.memory.isHeld) this.#end(open)
    }
  }

  closeAll(): void {
    clearTimeout(this.#checkTimer)
    this.#checkDelay = 0
    for (const open of [...this.#contexts.values()]) this.#end(open)
  }

  #checkAfter(delay: number): void {
    clearTimeout(this.#checkTimer)
    this.#checkDelay = delay
    this.#checkTimer = setTimeout(
      this.#containment.guard('the check of contexts without doorbells', () => {
        this.#checkDelay = 0
        this.endUnheld()
        if (this.#withoutDoorbells.size > 0) this.#checkAfter(Math.min(2 * delay, CHECK_INTERVAL.longest))
        this.#onRung()
      }),
      delay,
    )
  }

  #onNoDoorbell(open: OpenContext): void {
    if (!open.memory.isHeld) {
      this.#end(open)
      return
    }
    this.#withoutDoorbells.add(open)
    if (this.#checkDelay !== CHECK_INTERVAL.first) this.#checkAfter(CHECK_INTERVAL.first)
  }

  #end(open: OpenContext): void {
    this.#contexts.delete(open.number)
    this.#ending.add(open)
    this.#withoutDoorbells.delete(open)
    const contextDoorbells = this.#doorbells.get(open)
    this.#doorbells.delete(open)
    const releaseFile = this.#fileReleases.get(open)
    this.#fileReleases.delete(open)
    const ended = (): void =>
      this.#containment.runAll('the end of a context', [
        () => this.#ending.delete(open),
        () => open.memory.close(),
        () => releaseFile?.(),
        ...open.whenEnded,
        this.#onRung,
      ])
    this.#containment.runAll('the end of a context', [
      ...(contextDoorbells?.values() ?? []),
      () => closeContext(open.context, ended),
    ])
  }

  /**
   * Reads up to MAX_TOKENS tokens. False if the client's end is closed, or sent an empty packet. Other packets that are
   * no token are ignored.
   */
  #drain(open: OpenContext, fd: number): boolean {
    for (let tokens = 0; tokens < MAX_TOKENS; tokens++) {
      const length = recvBytes(fd, this.#token)
      if (length === -EAGAIN) return true
      if (length <= 0 && length !== -EMSGSIZE) return false
      if (length === TOKEN_BYTES) this.#onPosted(open.context, this.#tokenView.getUint32(0, true))
    }
    return true
  }
}
