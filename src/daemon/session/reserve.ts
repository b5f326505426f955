/*
 * Refuses connections when the daemon has no descriptors left. One descriptor is kept in reserve; when it is closed,
 * one connection can be accepted, answered with EMFILE and closed, then the next one. If connections stayed in the
 * backlog, the listening socket would wake the daemon continuously.
 */
import { closeSync, openSync } from 'node:fs'
import { accept } from '../../host/net/sockets.ts'
import { Errno } from '../../spec/errno.ts'
import type { Containment } from '../containment.ts'
import type { RefuseConnection } from './refuse-connection.ts'

export interface Reserve {
  /** accept(2) has failed with EMFILE or ENFILE: the next connection is refused. */
  refuseNext(): void
  close(): void
}

export interface ReserveParts {
  readonly listening: number
  readonly refuseConnection: RefuseConnection
  /** Starts or stops accepting connections: no further ones are accepted while the reserve is in use. */
  setAccepting(isAccepting: boolean): void
  readonly log: (line: string) => void
  readonly guard: Containment['guard']
}

/** Milliseconds until the next attempt to open the reserve, if there was no descriptor left for it. */
const RETRY_AFTER = 100

const isPowerOfTwo = (count: number): boolean => (count & (count - 1)) === 0

export const createReserve = ({ listening, refuseConnection, setAccepting, log, guard }: ReserveParts): Reserve => {
  /** The descriptor in reserve; -1 while it is in use. */
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
