/*
 * Connections when no descriptors are left. One descriptor is held in reserve: with it each connection is accepted,
 * answered with EMFILE and closed, one after the other. If they stayed in the backlog, the listening socket would wake
 * the daemon continuously.
 */
import { closeSync, openSync } from 'node:fs'
import { accept } from '../../host/net/sockets.ts'
import { Errno } from '../../spec/errno.ts'
import type { Containment } from '../containment.ts'
import type { RefuseConnection } from './refuse-connection.ts'

export interface Reserve {
  /** accept(2) has failed with EMFILE or ENFILE: the next connection is refused. */
  use(): void
  close(): void
}

export interface ReserveParts {
  readonly listening: number
  readonly refuseConnection: RefuseConnection
  /** Whether the daemon may accept connections: not while the reserve is in use. */
  accepting(may: boolean): void
  readonly log: (line: string) => void
  readonly guard: Containment['guard']
}

/** Milliseconds until the next attempt to open the reserve, if another process took the last descriptor. */
const RETRY_AFTER = 100

const isPowerOfTwo = (count: number): boolean => (count & (count - 1)) === 0

export const createReserve = ({ listening, refuseConnection, accepting, log, guard }: ReserveParts): Reserve => {
  let spare = openSync('/dev/null', 'r')
  let count = 0
  let retryTimer: NodeJS.Timeout | undefined
  let closed = false

  const refill = guard('the descriptor in reserve', (): void => {
    if (closed) return
    try {
      spare = openSync('/dev/null', 'r')
      accepting(true)
    } catch {
      retryTimer = setTimeout(refill, RETRY_AFTER)
    }
  })

  return {
    use() {
      if (spare < 0) return
      closeSync(spare)
      spare = -1
      accepting(false)
      const fd = accept(listening)
      if (fd < 0) {
        refill()
        return
      }
      count++
      if (isPowerOfTwo(count))
        log(
          `userdma daemon: there are no descriptors left (RLIMIT_NOFILE): a connection was refused with EMFILE${count > 1 ? `, ${count} so far` : ''}; end some programs, or start the daemon with a higher limit (\`ulimit -n\`)`,
        )
      refuseConnection(fd, Errno.EMFILE, refill)
    },
    close() {
      closed = true
      clearTimeout(retryTimer)
      if (spare >= 0) closeSync(spare)
    },
  }
}
