/*
 * Event descriptors of a daemon, read as their records come.
 */
import { EAGAIN } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { recvSmall } from '../../host/net/sockets.ts'

/** Bytes of a record of a completion channel, and of an asynchronous descriptor. */
export const COMPLETION_RECORD = 8
export const ASYNC_RECORD = 16

/**
 * Calls `take` with each record, which is only valid during the call, and has at most `bytes` bytes; and `ended` when
 * no more will come.
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
