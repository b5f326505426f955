/*
 * Refuses connections when the daemon has no descriptors left. A connection that stays in the backlog wakes the daemon
 * continuously. So the daemon keeps one descriptor in reserve. When the daemon closes the reserve, it can accept one
 * connection, answer with EMFILE and close the connection.
 */
import { closeSync, openSync } from 'node:fs'
import { accept } from '../../host/net/sockets.ts'
import { Errno } from '../../spec/errno.ts'
import type { Containment } from '../containment.ts'
import type { RefuseConnection } from './refuse-connection.ts'

export interface Reserve {
  /** Call after accept(2) has failed with EMFILE or ENFILE: refuses the next connection. */
  refuseNext(): void
  close(): void
}

export interface ReserveParts {
  readonly listening: number
  readonly refuseConnection: RefuseConnection
  /** Starts or stops accepting connections. While the reserve is in use, no other connection is accepted. */
  setAccepting(isAccepting: boolean): void
  readonly log: (line: string) => void
  readonly guard: Containment['guard']
}

/** Milliseconds between attempts to open the reserve again. */
const RETRY_AFTER = 100

const isPowerOfTwo = (count: number): boolean => (count & (count - 1)) === 0

export const createReserve = ({ listening, refuseConnection, setAccepting, log, guard }: ReserveParts): Reserve => {
  /** −1 while the reserve is in use. */
  let reserveFd = openSync('/dev/null', 'r')
  let refusedCount = 0
  let retryTimer: NodeJS.Timeout | undefined
  let isClosed = false

  const refill = guard('the descriptor in reserve', (): void => {
    if (isClosed) return
    try {
      reserveFd = openSync('/dev/null', 'r')
      setAccepting(true)
    } catch {
      retryTimer = setTimeout(refill, RETRY_AFTER)
    }
  })

  return {
    refuseNext() {
      if (reserveFd < 0) return
      closeSync(reserveFd)
      reserveFd = -1
      setAccepting(false)
      const fd = accept(listening)
      if (fd < 0) {
        refill()
        return
      }
      refusedCount++
      if (isPowerOfTwo(refusedCount))
        log(
          `userdma daemon: there are no descriptors left (RLIMIT_NOFILE): a connection was refused with EMFILE${refusedCount > 1 ? `, ${refusedCount} so far` : ''}; end some programs, or start the daemon with a higher limit (\`ulimit -n\`)`,
        )
      refuseConnection(fd, Errno.EMFILE, refill)
    },
    close() {
      isClosed = true
      clearTimeout(retryTimer)
      if (reserveFd >= 0) closeSync(reserveFd)
    },
  }
}
