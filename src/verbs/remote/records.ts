/*
 * Reads the records of a daemon's event descriptors as they arrive.
 */
import { EAGAIN } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { recvSmall } from '../../host/net/sockets.ts'

/** Bytes of a record of a completion channel, and of an async fd. */
export const COMPLETION_RECORD = 8
export const ASYNC_RECORD = 16

/**
 * Calls `take` with each record of at most `bytes` bytes, valid only during the call; and `ended` when no more can
 * follow.
 */
export const readRecords = (fd: number, bytes: number, take: (record: DataView) => void, ended: () => void): Watch => {
  const record = new Uint8Array(bytes)
  const view = new DataView(record.buffer)
  const one = watch(fd, { readable: true }, () => {
    for (;;) {
      const length = recvSmall(fd, record)
      if (length === -EAGAIN) return
      if (length <= 0) break
      take(length === bytes ? view : new DataView(record.buffer, 0, length))
    }
    one.update({})
    ended()
  })
  return one
}
