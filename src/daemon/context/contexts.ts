/*
 * Open contexts of all processes: memory file, doorbell sockets, lifetime (docs/decisions/context-file.md).
 *
 * A context exists while any copy of any of its doorbell sockets is open: the shim keeps one beside each copy of the
 * program's descriptor, so that fork, dup and exit need no bookkeeping here. A descriptor that is passed from one
 * program to another has none in transit, nor until the receiver uses it: a context without doorbells whose memory file
 * is still held is checked from time to time. The sockets carry only tokens, handles of queue pairs; the loop polls the
 * queues in any case. Closing our end tells programs that the device was removed.
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
  readonly number: number
  readonly node: number
  readonly context: Context
  readonly memory: ContextMemory
}

export interface Contexts {
  /**
   * Opens a device for a client: the context, and the client's end of its first doorbell socket, which the caller
   * passes on and then closes. Throws CallError: EIO if the device is gone, EMFILE or ENFILE if `share` has no room;
   * SystemError (EMFILE) if the daemon has no descriptors left.
   */
  open(
    device: Device,
    node: number,
    share: FdQuota,
    packed?: boolean,
    account?: MemoryAccount,
  ): { readonly open: OpenContext; readonly doorbell: number }
  /** One more doorbell socket, otherwise as `open`. */
  addDoorbell(open: OpenContext, share: FdQuota): number
  byNumber(number: number): OpenContext | undefined
  /**
   * The device was removed: closing the doorbell sockets notifies programs that only poll. The contexts end with their
   * last copies.
   */
  hangUp(device: Device): void
  /** The open context with core's number `context`. */
  of(context: Context): OpenContext | undefined
  /** The context of the memory file behind our descriptor; undefined for any other file. */
  byFile(fd: number): OpenContext | undefined
  readonly count: number
  /** Rings of all contexts, and their bytes. */
  readonly rings: { readonly count: number; readonly bytes: number }
  /** Ends the contexts that no program holds by now, without the next check of those whose doorbells are closed. */
  endUnheld(): void
  closeAll(): void
}

const TOKEN_BYTES = 4
/** Maximum tokens read in one call: a socket that is written without end must not block others. */
const DRAIN = 64
/** Milliseconds between two checks of contexts without doorbells: first, and maximum. */
const DRIFT = { first: 10, longest: 1000 }

/**
 * `posted`: a program reports a post to the send queue with this handle. `rung`: after one or more of these, or after a
 * context was closed.
 */
export const createContexts = (
  pool: RingPool,
  posted: (context: Context, handle: number) => void,
  rung: () => void,
  containment: Containment = createContainment(),
): Contexts => {
  const contexts = new Map<number, OpenContext>()
  /** Our ends of the doorbell sockets, and the function that closes each. */
  const doorbells = new Map<OpenContext, Map<number, () => void>>()
  /** The quota that the memory files are charged to. */
  const files = new Map<OpenContext, () => void>()
  const token = new Uint8Array(TOKEN_BYTES)
  const handle = new DataView(token.buffer)
  let next = 1

  const adrift = new Set<OpenContext>()
  let looking: NodeJS.Timeout | undefined

  const endUnheld = (): void => {
    for (const open of adrift) {
      if (doorbells.get(open)?.size !== 0) adrift.delete(open)
      else if (!open.memory.isHeld) end(open)
    }
  }

  const look = (delay: number): void => {
    clearTimeout(looking)
    looking = setTimeout(
      containment.guard('the check of contexts without doorbells', () => {
        looking = undefined
        endUnheld()
        if (adrift.size > 0) look(Math.min(2 * delay, DRIFT.longest))
        rung()
      }),
      delay,
    )
  }

  /** The last doorbell socket is closed. */
  const leave = (open: OpenContext): void => {
    if (!open.memory.isHeld) {
      end(open)
      return
    }
    adrift.add(open)
    look(DRIFT.first)
  }

  const end = (open: OpenContext): void => {
    contexts.delete(open.number)
    adrift.delete(open)
    const contextDoorbells = doorbells.get(open)
    doorbells.delete(open)
    const giveBack = files.get(open)
    files.delete(open)
    const ended = (): void =>
      containment.runAll('the end of a context', [() => open.memory.close(), () => giveBack?.(), rung])
    containment.runAll('the end of a context', [
      ...(contextDoorbells?.values() ?? []),
      () => closeContext(open.context, ended),
    ])
  }

  /** Empties the socket; false once the client's side is closed. */
  const drain = (open: OpenContext, fd: number): boolean => {
    for (let left = DRAIN; left > 0; left--) {
      const length = recvSmall(fd, token)
      if (length === -EAGAIN) return true
      if (length <= 0 && length !== -EMSGSIZE) return false
      if (length === TOKEN_BYTES) posted(open.context, handle.getUint32(0, true))
    }
    return true
  }

  const addDoorbell = (open: OpenContext, share: FdQuota): number => {
    const contextDoorbells = doorbells.get(open)
    if (!contextDoorbells) throw new Error(`context ${open.number} is closed`)
    const giveBack = share.take(1)
    const [ours, theirs] = orRelease(giveBack, socketPair)
    const hangUp = (): void => {
      if (!contextDoorbells.delete(ours)) return
      watcher.stop()
      close(ours)
      giveBack()
    }
    const hungUp = (): void => {
      hangUp()
      if (contextDoorbells.size === 0) leave(open)
      rung()
    }
    const watcher = watch(
      ours,
      { readable: true },
      containment.guard(
        'a doorbell',
        () => {
          if (drain(open, ours)) rung()
          else {
            watcher.update({})
            open.context.device.core.run(oneSlice(hungUp))
          }
        },
        hangUp,
      ),
    )
    contextDoorbells.set(ours, hangUp)
    if (!open.context.device.alive) shutdown(ours, 'write')
    return theirs
  }

  return {
    open(device, node, share, packed, account) {
      const giveBack = share.take(1)
      const memory = orRelease(giveBack, () => createContextMemory(pool, packed))
      let context: Context
      try {
        context = openContext(device, { mapped: memory, ...(account && { account }) })
      } catch (error) {
        memory.close()
        giveBack()
        throw error
      }
      const open: OpenContext = { number: next++, node, context, memory }
      contexts.set(open.number, open)
      files.set(open, giveBack)
      doorbells.set(open, new Map())
      try {
        return { open, doorbell: addDoorbell(open, share) }
      } catch (error) {
        end(open)
        throw error
      }
    },
    addDoorbell,
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
      // Only memory files have seals; other files are not examined further, since that can block.
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
        count += memory.live
        bytes += memory.used
      }
      return { count, bytes }
    },
    endUnheld,
    closeAll() {
      clearTimeout(looking)
      for (const open of [...contexts.values()]) end(open)
    },
  }
}
