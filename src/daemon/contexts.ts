/*
 * Open contexts of all processes: memory file, doorbell sockets, lifetime (design.md section 6).
 *
 * A context lives as long as any copy of any of its doorbell sockets is open somewhere: the shim keeps one beside each copy of the
 * program's descriptor, so fork, dup and exit need no bookkeeping here. On the sockets only tokens travel; whatever they say, they mean "look".
 */
import type { Context, Device } from '../core/model.ts'
import { closeContext, openContext } from '../core/registry.ts'
import type { RxeContext } from '../drivers/rxe/context.ts'
import { EAGAIN, EMSGSIZE } from '../host/errno.ts'
import type { RingPool } from '../host/mapping.ts'
import { type Watch, watch } from '../host/poll.ts'
import { close, recvSmall, socketPair } from '../host/sockets.ts'
import { type ContextMemory, createContextMemory } from './context-file.ts'

export interface OpenContext {
  readonly number: number
  readonly node: number
  readonly context: Context
  readonly memory: ContextMemory
}

export interface Contexts {
  /** Opens a device for a client. Throws CallError EIO if the device is gone. */
  open(device: Device, node: number): OpenContext
  /** One more doorbell socket: the client's end, which the caller passes on and then closes. */
  addDoorbell(open: OpenContext): number
  byNumber(number: number): OpenContext | undefined
  byInode(inode: number): OpenContext | undefined
  readonly count: number
  closeAll(): void
}

const TOKEN_BYTES = 4

/** `rung`: a program says that there is work, or a context went away. */
export const createContexts = (pool: RingPool, rung: () => void): Contexts => {
  const contexts = new Map<number, OpenContext>()
  const doorbells = new Map<OpenContext, Map<number, Watch>>()
  const token = new Uint8Array(TOKEN_BYTES)
  let next = 1

  const end = (open: OpenContext): void => {
    contexts.delete(open.number)
    for (const [fd, watcher] of doorbells.get(open) ?? []) {
      watcher.stop()
      close(fd)
    }
    doorbells.delete(open)
    closeContext(open.context)
    open.memory.close()
  }

  /** Empties the socket; false once the client's side is closed. A token of another size is a token all the same. */
  const drain = (fd: number): boolean => {
    for (;;) {
      const length = recvSmall(fd, token)
      if (length === -EAGAIN) return true
      if (length <= 0 && length !== -EMSGSIZE) return false
    }
  }

  return {
    open(device, node) {
      const memory = createContextMemory(pool)
      const context = openContext(device)
      context.state = { rings: memory } satisfies RxeContext
      const open: OpenContext = { number: next++, node, context, memory }
      contexts.set(open.number, open)
      doorbells.set(open, new Map())
      return open
    },
    addDoorbell(open) {
      const watchers = doorbells.get(open)
      if (!watchers) throw new Error(`context ${open.number} is closed`)
      const [ours, theirs] = socketPair()
      const watcher = watch(ours, { readable: true }, () => {
        if (!drain(ours)) {
          watcher.stop()
          watchers.delete(ours)
          close(ours)
          if (watchers.size === 0) end(open)
        }
        rung()
      })
      watchers.set(ours, watcher)
      return theirs
    },
    byNumber: number => contexts.get(number),
    byInode: inode => [...contexts.values()].find(open => open.memory.inode === inode),
    get count() {
      return contexts.size
    },
    closeAll() {
      for (const open of [...contexts.values()]) end(open)
    },
  }
}
