/*
 * Open contexts of all processes: memory file, doorbell sockets, lifetime (docs/decisions/context-file.md).
 *
 * A context exists while a program holds any of its doorbell sockets or its memory file. The shim keeps one doorbell
 * socket for each copy of the program's uverbs descriptor, so that fork, dup and exit need no bookkeeping here. A
 * descriptor in transit between programs has no doorbell until the receiver uses it. So when a context has no doorbell
 * any more, it is checked from time to time whether a program holds its memory file. The sockets carry only tokens: the
 * handle of a queue pair to whose send queue the program has posted. Shutting down the daemon's end tells programs that
 * the device was removed.
 */

import { closeContext, openContext } from '../../core/devices/registry.ts'
import type { Context, Device, MemoryAccount } from '../../core/model.ts'
import { EAGAIN, EMSGSIZE } from '../../host/errno.ts'
import { watch } from '../../host/event-loop/poll.ts'
import { oneSlice } from '../../host/event-loop/slices.ts'
import type { RingPool } from '../../host/memory/mapping.ts'
import { fileIdentity, sealsOf } from '../../host/memory/memfd.ts'
import { close, recvSmall, shutdown, socketPair } from '../../host/net/sockets.ts'
import { type Containment, createContainment } from '../containment.ts'
import { type FdQuota, orRelease } from '../fd-quota.ts'
import { type ContextMemory, createContextMemory } from './context-file.ts'

export interface OpenContext {
  /** Identifies the context in messages of sessions; never reused. */
  readonly number: number
  /** N of its node uverbsN; SYSTEM_NODE for the system-wide device. */
  readonly node: number
  readonly context: Context
  readonly memory: ContextMemory
}

export interface Contexts {
  /**
   * Opens a device for a client. Returns the context and the client's end of its first doorbell socket, which the
   * caller passes on and then closes. `isPacked`: the client accepts packed rings (OpenWants.PACKED_RINGS). Throws
   * CallError: EIO if the device was removed, EMFILE or ENFILE if `quota` is exhausted; SystemError if the system
   * refuses a descriptor.
   */
  open(
    device: Device,
    node: number,
    quota: FdQuota,
    isPacked?: boolean,
    account?: MemoryAccount,
  ): { readonly open: OpenContext; readonly doorbell: number }
  /** Creates another doorbell socket; returns the client's end, as `open`, and throws as `open`, except EIO. */
  addDoorbell(open: OpenContext, quota: FdQuota): number
  byNumber(number: number): OpenContext | undefined
  /**
   * The device was removed: shuts down the daemon's ends of the doorbell sockets, which notifies programs that only
   * poll. The contexts exist until programs close them.
   */
  hangUp(device: Device): void
  /** The open context of core's `context`. */
  of(context: Context): OpenContext | undefined
  /** All contexts that have a memory file: also those whose objects are being destroyed. */
  readonly withMemory: Iterable<OpenContext>
  /** The context of the memory file behind one of our descriptors; undefined for any other file. */
  byFile(fd: number): OpenContext | undefined
  readonly count: number
  /** Number of rings of the open contexts, and bytes of the ranges that contain them. */
  readonly rings: { readonly count: number; readonly bytes: number }
  /** Ends contexts without doorbells whose file no program holds, without waiting for the next check. */
  endUnheld(): void
  closeAll(): void
}

const TOKEN_BYTES = 4
/** Maximum tokens read from a socket in one turn: a program that writes without pause must not block others. */
const MAX_TOKENS = 64
/** Milliseconds between checks of contexts without doorbells: the first interval, and the maximum. */
const CHECK_INTERVAL = { first: 10, longest: 1000 }

/**
 * `onPosted` is called with the handle of a queue pair to whose send queue a program has posted; `onRung` after any
 * number of such calls, and when a context has ended.
 */
export const createContexts = (
  pool: RingPool,
  onPosted: (context: Context, handle: number) => void,
  onRung: () => void,
  containment: Containment = createContainment(),
): Contexts => {
  const contexts = new Map<number, OpenContext>()
  /** Contexts whose objects are being destroyed. */
  const ending = new Set<OpenContext>()
  /** By open context: the functions that close the daemon's ends of its doorbell sockets, by descriptor. */
  const doorbells = new Map<OpenContext, Map<number, () => void>>()
  /** Functions that release the memory files' descriptors from the quota. */
  const quotaReleases = new Map<OpenContext, () => void>()
  const token = new Uint8Array(TOKEN_BYTES)
  const tokenView = new DataView(token.buffer)
  let nextNumber = 1

  const withoutDoorbells = new Set<OpenContext>()
  let checkTimer: NodeJS.Timeout | undefined

  const endUnheld = (): void => {
    for (const open of withoutDoorbells) {
      if (doorbells.get(open)?.size !== 0) withoutDoorbells.delete(open)
      else if (!open.memory.isHeld) end(open)
    }
  }

  const checkAfter = (delay: number): void => {
    clearTimeout(checkTimer)
    checkTimer = setTimeout(
      containment.guard('the check of contexts without doorbells', () => {
        checkTimer = undefined
        endUnheld()
        if (withoutDoorbells.size > 0) checkAfter(Math.min(2 * delay, CHECK_INTERVAL.longest))
        onRung()
      }),
      delay,
    )
  }

  /** The last doorbell socket of a context was closed: ends the context, or checks later whether it can end. */
  const onNoDoorbell = (open: OpenContext): void => {
    if (!open.memory.isHeld) {
      end(open)
      return
    }
    withoutDoorbells.add(open)
    checkAfter(CHECK_INTERVAL.first)
  }

  const end = (open: OpenContext): void => {
    contexts.delete(open.number)
    ending.add(open)
    withoutDoorbells.delete(open)
    const contextDoorbells = doorbells.get(open)
    doorbells.delete(open)
    const releaseQuota = quotaReleases.get(open)
    quotaReleases.delete(open)
    const ended = (): void =>
      containment.runAll('the end of a context', [
        () => ending.delete(open),
        () => open.memory.close(),
        () => releaseQuota?.(),
        onRung,
      ])
    containment.runAll('the end of a context', [
      ...(contextDoorbells?.values() ?? []),
      () => closeContext(open.context, ended),
    ])
  }

  /**
   * Reads up to MAX_TOKENS pending tokens; false once the client's side is closed. Packets of other lengths are
   * ignored.
   */
  const drain = (open: OpenContext, fd: number): boolean => {
    for (let tokens = 0; tokens < MAX_TOKENS; tokens++) {
      const length = recvSmall(fd, token)
      if (length === -EAGAIN) return true
      if (length <= 0 && length !== -EMSGSIZE) return false
      if (length === TOKEN_BYTES) onPosted(open.context, tokenView.getUint32(0, true))
    }
    return true
  }

  const addDoorbell = (open: OpenContext, quota: FdQuota): number => {
    const contextDoorbells = doorbells.get(open)
    if (!contextDoorbells) throw new Error(`context ${open.number} is closed`)
    const releaseQuota = quota.take(1)
    const [ours, theirs] = orRelease(releaseQuota, socketPair)
    /** Closes the daemon's end; false if it is closed already. */
    const closeDoorbell = (): boolean => {
      if (!contextDoorbells.delete(ours)) return false
      watcher.stop()
      close(ours)
      releaseQuota()
      return true
    }
    const onClosed = (): void => {
      if (closeDoorbell() && contextDoorbells.size === 0) onNoDoorbell(open)
    }
    const onHangUp = (): void => {
      onClosed()
      onRung()
    }
    const watcher = watch(
      ours,
      { readable: true },
      containment.guard(
        'a doorbell',
        () => {
          if (drain(open, ours)) onRung()
          else {
            watcher.update({})
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

  return {
    open(device, node, quota, isPacked, account) {
      const releaseQuota = quota.take(1)
      const memory = orRelease(releaseQuota, () => createContextMemory(pool, isPacked))
      let context: Context
      try {
        context = openContext(device, { mapped: memory, ...(account && { account }) })
      } catch (error) {
        memory.close()
        releaseQuota()
        throw error
      }
      const open: OpenContext = { number: nextNumber++, node, context, memory }
      contexts.set(open.number, open)
      quotaReleases.set(open, releaseQuota)
      doorbells.set(open, new Map())
      try {
        return { open, doorbell: addDoorbell(open, quota) }
      } catch (error) {
        end(open)
        throw error
      }
    },
    addDoorbell,
    withMemory: {
      *[Symbol.iterator]() {
        yield* contexts.values()
        yield* ending
      },
    },
    byNumber: number => contexts.get(number),
    hangUp(device) {
      for (const [{ context }, contextDoorbells] of doorbells)
        if (context.device === device) for (const fd of contextDoorbells.keys()) shutdown(fd, 'write')
    },
    of(context) {
      for (const open of contexts.values()) if (open.context === context) return open
      return undefined
    },
    byFile(fd) {
      // Only memory files have seals. Other files are not examined further, since that can block.
      if (sealsOf(fd) < 0) return undefined
      const { dev, ino } = fileIdentity(fd)
      for (const open of contexts.values()) if (open.memory.inode === ino && open.memory.dev === dev) return open
      return undefined
    },
    get count() {
      return contexts.size
    },
    get rings() {
      let count = 0
      let bytes = 0
      for (const { memory } of contexts.values()) {
        count += memory.ringCount
        bytes += memory.ringBytes
      }
      return { count, bytes }
    },
    endUnheld,
    closeAll() {
      clearTimeout(checkTimer)
      for (const open of [...contexts.values()]) end(open)
    },
  }
}
