/*
 * A tool of the row "tools": as many sessions and subscriptions as a process may have. It reads the records, and does
 * nothing with them: the row is about the daemon's time, and the tools share the processors with the programs.
 */

import { openChannelBlocking } from '../../src/daemon/client/channel.ts'
import { type Watch, watch } from '../../src/host/event-loop/poll.ts'
import { close, MAX_MESSAGE, recv, send } from '../../src/host/net/sockets.ts'
import { writeHello, writeTool } from '../../src/uapi/session-codec.ts'

/** The most of a process, and the most subscriptions of a session. */
const SESSIONS = 16
const SUBSCRIPTIONS = 16
/** Milliseconds, the shortest. */
const INTERVAL = 100
const REQUEST = JSON.stringify({ kind: 'subscribe', topic: 'stat', interval: INTERVAL, qps: false })

/** Subscribes at this socket; without a socket, ends all subscriptions. */
export interface ToolsOrder {
  readonly socket?: string
}

const sessions: { readonly fd: number; readonly watcher: Watch }[] = []
const buffer = Buffer.alloc(MAX_MESSAGE)

/** Opens a session; resolves when all its subscriptions are open. */
const openSession = (socket: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const channel = openChannelBlocking(socket)
    const { fd } = channel
    send(fd, channel.encode(writeHello))
    for (let i = 0; i < SUBSCRIPTIONS; i++)
      send(
        fd,
        channel.encode((to, header) => writeTool(to, header, REQUEST)),
      )
    let subscribed = 0
    const read = (): void => {
      for (let { length } = recv(fd, buffer); length > 0; { length } = recv(fd, buffer)) {
        if (subscribed === SUBSCRIPTIONS) continue
        const text = buffer.toString('latin1', 0, length)
        if (text.includes('"error"')) reject(new Error(text))
        if (text.includes('"subscribed"') && ++subscribed === SUBSCRIPTIONS) resolve()
      }
    }
    sessions.push({ fd, watcher: watch(fd, { readable: true }, read) })
  })

const obey = async ({ socket }: ToolsOrder): Promise<void> => {
  for (const { fd, watcher } of sessions.splice(0)) {
    watcher.stop()
    close(fd)
  }
  if (socket !== undefined) await Promise.all(Array.from({ length: SESSIONS }, () => openSession(socket)))
}

process.on('message', (order: ToolsOrder) => {
  obey(order).then(
    () => process.send?.({}),
    error => process.send?.({ failed: (error as Error).message }),
  )
})
process.on('disconnect', () => process.exit())
