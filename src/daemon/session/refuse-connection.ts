/*
 * Connections that cannot become sessions: their HELLO is answered with the reason, and they are closed. If the HELLO
 * has not arrived yet, a few connections are kept for a second to wait for it; further ones are closed immediately.
 */
import { EAGAIN } from '../../host/errno.ts'
import { watch } from '../../host/event-loop/poll.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { close, recvGuarded, send } from '../../host/net/sockets.ts'
import { MessageType } from '../../spec/session.ts'
import { messageBuffer, newRequest, readRequest, writeHelloReply } from '../../uapi/session-codec.ts'
import type { Containment } from '../containment.ts'

/** Maximum connections that wait for their HELLO. */
const MAX_WAITING = 8

/** Milliseconds that a connection may take to send its HELLO. */
const PATIENCE = 1000

/** Answers and closes a connection: `error` is an errno. `ended` is called once it is closed. */
export type RefuseConnection = (fd: number, error: number, ended?: () => void) => void

export const createRefusal = (containment: Containment): RefuseConnection => {
  const buffer = messageBuffer()
  const request = newRequest()
  let waiting = 0

  /** False if the HELLO has not arrived yet. */
  const answer = (fd: number, error: number): boolean => {
    const { length, fds } = recvGuarded(fd, buffer.bytes)
    if (length === -EAGAIN) return false
    for (const extra of fds) close(extra)
    if (length > 0 && readRequest(buffer, length, request) === undefined && request.type === MessageType.HELLO)
      send(fd, buffer.bytes.subarray(0, writeHelloReply(buffer, request, { error, root: '' })))
    return true
  }

  return (fd, error, ended = () => {}) => {
    if (answer(fd, error) || waiting === MAX_WAITING) {
      closeElsewhere(fd)
      ended()
      return
    }
    waiting++
    let open = true
    const end = (): void => {
      if (!open) return
      open = false
      waiting--
      clearTimeout(deadline)
      watcher.stop()
      closeElsewhere(fd)
      ended()
    }
    const deadline = setTimeout(containment.guard('a refused connection', end), PATIENCE)
    const watcher = watch(
      fd,
      { readable: true },
      containment.guard(
        'a refused connection',
        () => {
          if (answer(fd, error)) end()
        },
        end,
      ),
    )
  }
}
