/*
 * Refuses connections when the daemon has no descriptors left. A connection that stays in the backlog wakes the daemon
 * continuously. So the daemon keeps one descriptor in reserve. When the daemon closes the reserve, it can accept one
 * connection, answer with accept's error and close the connection.
 */
import { closeSync, openSync } from 'node:fs'
import { accept } from '../../host/net/sockets.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import type { Containment } from '../containment.ts'
import type { RefuseConnection } from './refuse-connection.ts'

interface Reserve {
  /** Call after accept(2) has failed with `error`, EMFILE or ENFILE: refuses the next connection. */
  refuseNext(error: number): void
  close(): void
}

interface ReserveParts {
  readonly listening: number
  readonly refuseConnection: RefuseConnection
  /** Starts or stops accepting connections. While the reserve is in use, no other connection is accepted. */
  setAccepting(isAccepting: boolean): void
  readonly log: (line: string) => void
  readonly guard: Containment['guard']
}

/** Milliseconds between attempts to open the reserve again. */
const RETRY_AFTER = 100

/** The exhausted limit, and how to raise it. */
const limitText = (error: number): { limit: string; advice: string } =>
  error === Errno.ENFILE
    ? { limit: 'in the system (fs.file-max)', advice: 'raise the limit' }
    : { limit: '(RLIMIT_NOFILE)', advice: 'start the daemon with a higher limit (`ulimit -n`)' }

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
    refuseNext(error) {
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
      if (isPowerOfTwo(refusedCount)) {
        const { limit, advice } = limitText(error)
        const count = refusedCount > 1 ? `, ${refusedCount} so far` : ''
        log(
          `userdma daemon: there are no descriptors left ${limit}: a connection was refused with ${errnoName(error)}${count}; end some programs, or ${advice}`,
        )
      }
      refuseConnection(fd, error, refill)
    },
    close() {
      isClosed = true
      clearTimeout(retryTimer)
      if (reserveFd >= 0) closeSync(reserveFd)
    },
  }
}
