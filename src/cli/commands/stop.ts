/*
 * `userdma stop`: ends a daemon by a request, and waits until its process has ended. No process is signalled: the pid
 * that a socket gives is that of the process that listens, which may be systemd, or 0 if it is in another PID
 * namespace.
 */
import { setTimeout } from 'node:timers/promises'
import { openToolSession } from '../../daemon/client/tool-session.ts'
import { namedSocket, userSocket } from '../../daemon/client/user-socket.ts'
import { watch } from '../../host/event-loop/poll.ts'
import { close, recvBytes, socketPair } from '../../host/net/sockets.ts'

/** Milliseconds after which a daemon counts as hung. */
const END_TIMEOUT = 10_000

/** Resolves when the other end of a socket pair is closed. */
const untilClosed = (fd: number): Promise<'closed'> =>
  new Promise(resolve => {
    const watcher = watch(fd, { readable: true }, () => {
      if (recvBytes(fd, new Uint8Array(1)) !== 0) return
      watcher.stop()
      resolve('closed')
    })
  })

/** The command. Throws an Error if there is no daemon, or it belongs to another user, or does not end. */
export const stop = (options: { readonly socket?: string }): Promise<void> =>
  stopDaemon(namedSocket(options.socket) ?? userSocket())

/** Ends the daemon at a socket. Throws as `stop`. */
export const stopDaemon = async (socket: string): Promise<void> => {
  const client = await openToolSession(socket)
  // The daemon gets one end, which its process closes when it ends.
  const [ours, theirs] = socketPair()
  const late = new AbortController()
  const timeout = setTimeout(END_TIMEOUT, 'late' as const, late).catch(() => undefined)
  try {
    const request = client.request({ kind: 'stop' }, [theirs])
    request.catch(() => {})
    if ((await Promise.race([request, timeout])) !== 'late') {
      close(theirs)
      if ((await Promise.race([untilClosed(ours), timeout])) === 'closed') return
    }
    throw new Error(`the daemon at ${client.socket} has not ended within ${END_TIMEOUT / 1000} s`)
  } finally {
    late.abort()
    client.close()
  }
}
