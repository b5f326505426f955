/*
 * A private daemon in the process of its command: one Node.js process where there would be two. What the command
 * computes delays the daemon, so it is for commands that do little while the program runs.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { format } from 'node:util'
import { startDaemon } from '../daemon/daemon.ts'
import { setTimerFactor } from '../spec/work.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import { lastLines, type StartedDaemon } from './start.ts'

/** As `startInBackground`, for a daemon that ends with its last client. The caller removes the folder of `socket`. */
export const startInside = async (socket: string, config: DaemonConfig): Promise<StartedDaemon> => {
  const path = join(dirname(socket), 'daemon.log')
  const output = openSync(path, 'wx', 0o600)
  const log = (...words: unknown[]): void => void writeSync(output, `${format(...words)}\n`)
  try {
    setTimerFactor(config.timers ?? 1)
    const daemon = await startDaemon({ socket, config, endWithLastClient: true, parts: { log } })
    const ended = daemon.ended.then(async () => {
      await daemon.close()
      closeSync(output)
    })
    return { ended, lastOutput: () => lastLines(path), ref() {}, kill: () => void daemon.close() }
  } catch (error) {
    closeSync(output)
    throw error
  }
}
