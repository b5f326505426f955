/*
 * `userdma stop`: ends a daemon, and waits until its process has ended.
 */
import { readFileSync } from 'node:fs'
import { setTimeout } from 'node:timers/promises'
import { userText } from '../../host/exposure.ts'
import { openToolSession } from '../../session/tool-session.ts'
import { namedSocket, userSocket } from '../../session/user-socket.ts'

const POLL_MS = 5
/** Milliseconds after which a daemon counts as hung. */
const END_TIMEOUT = 10_000

/** Whether a process runs. A zombie has ended: in a container there may be no process that waits for it. */
const isRunning = (pid: number): boolean => {
  try {
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
  } catch {
    return false
  }
}

/** The command. Throws an Error if there is no daemon, or it belongs to root, or does not end. */
export const stop = async (options: { readonly socket?: string }): Promise<void> => {
  const client = await openToolSession(namedSocket(options.socket) ?? userSocket())
  const { daemon, socket, ended } = client
  try {
    process.kill(daemon, 'SIGTERM')
  } catch (error) {
    client.close()
    const { code } = error as NodeJS.ErrnoException
    throw new Error(
      code === 'EPERM'
        ? `the daemon at ${socket} (process ${daemon}) is not yours; ${userText(0)} can stop it`
        : `the daemon at ${socket} (process ${daemon}) cannot be stopped (${code})`,
      { cause: error },
    )
  }
  const deadline = performance.now() + END_TIMEOUT
  await Promise.race([ended, setTimeout(END_TIMEOUT, undefined, { ref: false })])
  while (isRunning(daemon)) {
    if (performance.now() > deadline)
      throw new Error(`the daemon at ${socket} (process ${daemon}) has not ended within ${END_TIMEOUT / 1000} s`)
    await setTimeout(POLL_MS)
  }
  client.close()
}
