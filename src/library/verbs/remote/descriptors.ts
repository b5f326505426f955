/*
 * Descriptors of a device in a daemon (R28, R37): sockets of this process. ioctl, write and mmap are messages of the
 * session with the descriptor and without a context (`context: 0`), because another program may have passed the
 * descriptor.
 */
import { type Watch, watch } from '../../../host/event-loop/poll.ts'
import { addressOf } from '../../../host/memory/mapping.ts'
import { close } from '../../../host/net/sockets.ts'
import { errnoName } from '../../../spec/errno.ts'
import { decodeReason } from '../../../spec/reason.ts'
import { type Header, type messageBuffer, writeRequest } from '../../../uapi/session-codec.ts'
import type { Descriptors } from '../carrier.ts'
import { refusal } from '../error.ts'
import type { Answer, Session } from './daemon-session.ts'
import { ringPool } from './file-rings.ts'
import { readRecords } from './records.ts'

const PROT_READ = 1
const PROT_WRITE = 2

interface RemoteDescriptors extends Descriptors {
  /** Takes ownership of a descriptor that a call created: `close` or `closeAll` closes the descriptor. */
  add(fd: number): void
  /** See `Carrier.setWaiting`. */
  setWaiting(hasWaiters: boolean): void
  /** Stops reading, and closes all descriptors. */
  closeAll(): void
}

/** `onAnyEnd`: called when `read` has reached the end of a descriptor: the daemon may have ended. */
export const remoteDescriptors = (session: Pick<Session, 'ask'>, onAnyEnd: () => void): RemoteDescriptors => {
  const ownedFds = new Set<number>()
  const watches = new Map<number, Watch>()
  let hasWaiters = false

  type Write = (buffer: ReturnType<typeof messageBuffer>, header: Partial<Header>) => number
  /** Sends a request. `ret`: the result, never negative. Throws RdmaError if the daemon refuses the request. */
  const ask = (call: string, write: Write): Answer & { readonly ret: number } => {
    const { reply, fds } = session.ask(call, write)
    const ret = Number(reply.ret)
    if (ret >= 0) return { reply, fds, ret }
    for (const fd of fds) close(fd)
    throw refusal(errnoName(-ret), -ret, call, reply.text === '' ? 'refused' : decodeReason(reply.text))
  }
  const addWatch = (fd: number, added: Watch): void => {
    if (hasWaiters) added.ref()
    else added.unref()
    watches.set(fd, added)
  }
  return {
    read(fd, maxBytes, onRecord, onEnd) {
      const end = (): void => {
        onAnyEnd()
        onEnd()
      }
      addWatch(fd, readRecords(fd, maxBytes, onRecord, end))
    },
    watch: (fd, onReadable) => addWatch(fd, watch(fd, { readable: true }, onReadable)),
    ioctl(fd, request, argument) {
      const value = typeof argument === 'bigint' ? argument : addressOf(argument)
      return ask('driver_ops.ioctl', (buffer, header) =>
        writeRequest(buffer, 'IOCTL', { ...header, context: 0, fd }, { request, argument: value }),
      ).ret
    },
    write(fd, bytes) {
      const address = addressOf(bytes)
      const length = BigInt(bytes.length)
      return ask('driver_ops.write', (buffer, header) =>
        writeRequest(buffer, 'WRITE', { ...header, context: 0, fd }, { buffer: address, length }),
      ).ret
    },
    map(fd, offset, length, isWritable) {
      const protection = PROT_READ | (isWritable ? PROT_WRITE : 0)
      // `ret` is the offset in the memory file whose descriptor the reply passes.
      const { ret, fds } = ask('driver_ops.map', (buffer, header) =>
        writeRequest(
          buffer,
          'MAP',
          { ...header, context: 0, fd },
          { offset: BigInt(offset), length: BigInt(length), protection },
        ),
      )
      try {
        const mapping = ringPool().map(fds[0]!, ret, length)
        return { bytes: mapping.bytes.subarray(0, length), release: () => ringPool().release(mapping) }
      } finally {
        for (const file of fds) close(file)
      }
    },
    add(fd) {
      ownedFds.add(fd)
    },
    close(fd) {
      // The number may belong to another descriptor now.
      if (!ownedFds.delete(fd)) return
      watches.get(fd)?.stop()
      watches.delete(fd)
      close(fd)
    },
    setWaiting(isWaiting) {
      hasWaiters = isWaiting
      for (const active of watches.values())
        if (isWaiting) active.ref()
        else active.unref()
    },
    closeAll() {
      for (const active of watches.values()) active.stop()
      for (const fd of ownedFds) close(fd)
      watches.clear()
      ownedFds.clear()
    },
  }
}
