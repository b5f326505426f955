/*
 * Reads the records of a daemon's event descriptors as they arrive.
 */
import { EAGAIN } from '../../../host/errno.ts'
import { type Watch, watch } from '../../../host/event-loop/poll.ts'
import { recvBytes } from '../../../host/net/sockets.ts'

/** Bytes of a record of a completion channel, and of an async fd. */
export const COMPLETION_RECORD = 8
export const ASYNC_RECORD = 16

/**
 * Calls `onRecord` with each record of at most `maxBytes` bytes, and `onEnd` when no more records can follow. A record
 * is valid only during the call.
 */
export const readRecords = (
  fd: number,
  maxBytes: number,
  onRecord: (record: DataView) => void,
  onEnd: () => void,
): Watch => {
  const record = new Uint8Array(maxBytes)
  const view = new DataView(record.buffer)
  const reader = watch(fd, { readable: true }, () => {
    for (;;) {
      const length = recvBytes(fd, record)
      if (length === -EAGAIN) return
      if (length <= 0) break
      onRecord(length === maxBytes ? view : new DataView(record.buffer, 0, length))
    }
    reader.update({})
    onEnd()
  })
  return reader
}
