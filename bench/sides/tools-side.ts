/*
 * A tool of the row "tools": as many sessions and subscriptions as a process may have.
 */
import { openToolSession, type ToolSession } from '../../src/session/tool-session.ts'

/** The most of a process, and the most subscriptions of a session. */
const SESSIONS = 16
const SUBSCRIPTIONS = 16
/** Milliseconds, the shortest. */
const INTERVAL = 100

/** Subscribes at this socket; without a socket, ends all subscriptions. */
export interface ToolsOrder {
  readonly socket?: string
}

const sessions: ToolSession[] = []

const obey = async ({ socket }: ToolsOrder): Promise<void> => {
  for (const session of sessions.splice(0)) session.close()
  if (socket === undefined) return
  for (let i = 0; i < SESSIONS; i++) {
    const session = await openToolSession(socket)
    sessions.push(session)
    const subscribe = () => session.subscribe('stat', { interval: INTERVAL }, () => {})
    await Promise.all(Array.from({ length: SUBSCRIPTIONS }, subscribe))
  }
}

process.on('message', (order: ToolsOrder) => {
  obey(order).then(
    () => process.send?.({}),
    error => process.send?.({ failed: (error as Error).message }),
  )
})
process.on('disconnect', () => process.exit())
