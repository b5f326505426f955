/*
 * Refuses connections that cannot become sessions: answers HELLO with an errno, and closes the connection. Up to
 * MAX_WAITING connections may wait for their HELLO; more are closed without an answer.
 */
import { EAGAIN } from '../../host/errno.ts'
import { watch } from '../../host/event-loop/poll.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { peerCredentials, recvGuarded, send } from '../../host/net/sockets.ts'
import { MessageType } from '../../spec/session.ts'
import { messageBuffer, newRequest, readRequest, writeHelloReply } from '../../uapi/session-codec.ts'
import type { Containment } from '../containment.ts'

const MAX_WAITING = 8

/** Milliseconds for which a refused connection is kept to wait for its HELLO. */
const HELLO_TIMEOUT = 1000

/** `error`: an errno. `ended` is called once the connection is closed. */
export type RefuseConnection = (fd: number, error: number, ended?: () => void) => void

export const createRefusal = (containment: Containment): RefuseConnection => {
  const buffer = messageBuffer()
  const request = newRequest()
  let waiting = 0

  /** Answers the HELLO. False if nothing has arrived yet. */
  const answer = (fd: number, error: number): boolean => {
    const { length, fds } = recvGuarded(fd, buffer.bytes)
    if (length === -EAGAIN) return false
    for (const extra of fds) closeElsewhere(extra, peerCredentials(fd).uid)
    if (length > 0 && readRequest(buffer, length, request) === undefined && request.type === MessageType.HELLO)
      send(fd, buffer.bytes.subarray(0, writeHelloReply(buffer, request, { error, root: '' })))
    return true
  }

  return (fd, error, ended = () => {}) => {
    if (answer(fd, error) || waiting === MAX_WAITING) {
      closeElsewhere(fd, peerCredentials(fd).uid)
      ended()
      return
    }
    waiting++
    let isOpen = true
    const end = (): void => {
      if (!isOpen) return
      isOpen = false
      waiting--
      clearTimeout(deadline)
      watcher.stop()
      closeElsewhere(fd, peerCredentials(fd).uid)
      ended()
    }
    const deadline = setTimeout(containment.guard('a refused connection', end), HELLO_TIMEOUT)
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
