/*
 * Waits until a program listens on a TCP port. Connecting would disturb it: programs such as ibv_rc_pingpong take the
 * first connection as their peer. /proc/net shows the state without notifications, so it is polled every few
 * milliseconds.
 */
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'

const LISTEN = '0A'
const INTERVAL = 5

const isListening = (port: number): boolean => {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return ['/proc/net/tcp', '/proc/net/tcp6'].some(table => {
    let text: string
    try {
      text = readFileSync(table, 'utf8')
    } catch {
      // A kernel without IPv6.
      return false
    }
    return text.split('\n').some(line => {
      const [, address = '', , state] = line.trim().split(/\s+/)
      return state === LISTEN && address.endsWith(local)
    })
  })
}

/** Resolves when a socket listens on the port; false if `ended` resolves first. */
export const untilListening = async (port: number, ended: Promise<unknown>): Promise<boolean> => {
  let hasEnded = false
  void ended.then(() => {
    hasEnded = true
  })
  for (;;) {
    if (isListening(port)) return true
    if (hasEnded) return false
    await new Promise(resolve => setTimeout(resolve, INTERVAL))
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
