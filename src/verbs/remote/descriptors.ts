/*
 * Descriptors of a device in a daemon (R28, R37): sockets of this process. Their records are read as they arrive; the
 * driver's own calls are messages of the session about the descriptor, not about a context, since the descriptor may be
 * a duplicate.
 */

import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { addressOf } from '../../host/memory/mapping.ts'
import { close } from '../../host/net/sockets.ts'
import { errnoName } from '../../spec/errno.ts'
import { type Header, type messageBuffer, writeRequest } from '../../uapi/session-codec.ts'
import type { Descriptors } from '../carrier.ts'
import { refusal } from '../error.ts'
import type { Answer, Session } from './daemon-session.ts'
import { ringPool } from './file-rings.ts'
import { readRecords } from './records.ts'

const PROT_READ = 1
const PROT_WRITE = 2

export interface RemoteDescriptors extends Descriptors {
  /** Takes ownership of a descriptor that a call created: it is closed once, here or with all others. */
  made(fd: number): void
  /** Whether records are awaited; otherwise the process may exit. */
  waiting(begins: boolean): void
  /** Stops all reading. */
  closeAll(): void
}

/** `lost`: a descriptor has reached its end, perhaps because the daemon has ended. */
export const remoteDescriptors = (session: Pick<Session, 'ask'>, lost: () => void): RemoteDescriptors => {
  const open = new Set<number>()
  const watches = new Map<number, Watch>()
  let hasWaiters = false

  type Write = (buffer: ReturnType<typeof messageBuffer>, from: Partial<Header>) => number
  const ask = (call: string, write: Write): Answer & { readonly ret: number } => {
    const { reply, fds } = session.ask(call, write)
    const ret = Number(reply.ret)
    if (ret >= 0) return { reply, fds, ret }
    for (const one of fds) close(one)
    throw refusal(errnoName(-ret), -ret, call, reply.text || 'refused')
  }
  const keep = (fd: number, one: Watch): void => {
    if (hasWaiters) one.ref()
    else one.unref()
    watches.set(fd, one)
  }
  return {
    read(fd, maxBytes, take, ended) {
      const markEnded = (): void => {
        lost()
        ended()
      }
      keep(fd, readRecords(fd, maxBytes, take, markEnded))
    },
    watch: (fd, ready) => keep(fd, watch(fd, { readable: true }, ready)),
    ioctl(fd, request, argument) {
      const value = typeof argument === 'bigint' ? argument : addressOf(argument)
      return ask('driver_ops.ioctl', (to, from) =>
        writeRequest(to, 'IOCTL', { ...from, context: 0, fd }, { request, argument: value }),
      ).ret
    },
    write(fd, bytes) {
      const at = addressOf(bytes)
      const length = BigInt(bytes.length)
      return ask('driver_ops.write', (to, from) =>
        writeRequest(to, 'WRITE', { ...from, context: 0, fd }, { buffer: at, length }),
      ).ret
    },
    map(fd, offset, length, writable) {
      const protection = PROT_READ | (writable ? PROT_WRITE : 0)
      const { ret, fds } = ask('driver_ops.mmap', (to, from) =>
        writeRequest(
          to,
          'MAP',
          { ...from, context: 0, fd },
          { offset: BigInt(offset), length: BigInt(length), protection },
        ),
      )
      try {
        const mapping = ringPool().map(fds[0]!, ret, length)
        return { bytes: mapping.bytes.subarray(0, length), release: () => ringPool().release(mapping) }
      } finally {
        for (const one of fds) close(one)
      }
    },
    made(fd) {
      open.add(fd)
    },
    close(fd) {
      // The number may belong to another descriptor now.
      if (!open.delete(fd)) return
      watches.get(fd)?.stop()
      watches.delete(fd)
      close(fd)
    },
    waiting(begins) {
      hasWaiters = begins
      for (const watch of watches.values())
        if (begins) watch.ref()
        else watch.unref()
    },
    closeAll() {
      for (const watch of watches.values()) watch.stop()
      for (const fd of open) close(fd)
      watches.clear()
      open.clear()
    },
  }
}
