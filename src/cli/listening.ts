/*
 * Waits until a program listens on a TCP port. A test connection would disturb programs such as ibv_rc_pingpong, which
 * take the first connection as their peer. So the state is read from /proc/net/tcp, which has no notifications and is
 * polled.
 */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'

/** TCP_LISTEN in the fourth column of /proc/net/tcp. */
const TCP_LISTEN = '0A'
const POLL_MS = 5

const isListening = (port: number): boolean => {
  const portSuffix = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return ['/proc/net/tcp', '/proc/net/tcp6'].some(table => {
    let text: string
    try {
      text = readFileSync(table, 'utf8')
    } catch {
      // A kernel without IPv6 has no /proc/net/tcp6.
      return false
    }
    return text.split('\n').some(line => {
      const [, address = '', , state] = line.trim().split(/\s+/)
      return state === TCP_LISTEN && address.endsWith(portSuffix)
    })
  })
}

/** Resolves with true when a socket listens on the port, with false if `ended` is settled before. */
export const untilListening = async (port: number, ended: Promise<unknown>): Promise<boolean> => {
  let hasEnded = false
  const onEnded = (): void => {
    hasEnded = true
  }
  void ended.then(onEnded, onEnded)
  for (;;) {
    if (isListening(port)) return true
    if (hasEnded) return false
    await new Promise(resolve => setTimeout(resolve, POLL_MS))
  }
}

/** A TCP port that was free a moment ago. */
export const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
