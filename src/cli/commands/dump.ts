/*
 * `userdma dump PID`: a program with a flight recorder hangs, or is of interest: its flight recorder writes a session
 * file.
 */
import { rmSync } from 'node:fs'
import { connect } from 'node:net'
import { UsageError } from '../fail.ts'
import { flightSockets } from '../flight-sockets.ts'

/** Milliseconds until an answer. */
const TIMEOUT = 60_000

interface Answer {
  readonly file?: string
  readonly reason?: string
}

/** Undefined: nobody listens there. Who listens and is stopped, or ends before it has answered, gets a reason. */
const ask = (socket: string, pid: string): Promise<Answer | undefined> =>
  new Promise(resolve => {
    let text = ''
    const connection = connect(socket, () => connection.write(`${pid}\n`))
    connection.setTimeout(TIMEOUT, () => connection.destroy())
    connection.on('data', part => {
      text += part.toString()
    })
    connection.on('error', error => {
      const { code } = error as NodeJS.ErrnoException
      // Its command was killed.
      if (code === 'ECONNREFUSED') rmSync(socket, { force: true })
      if (code === 'ECONNREFUSED' || code === 'ENOENT') resolve(undefined)
    })
    connection.on('close', () => {
      try {
        resolve(JSON.parse(text) as Answer)
      } catch {
        resolve({ reason: `the flight recorder at ${socket} does not answer` })
      }
    })
  })

/** The command. Throws UsageError. */
export const dump = async (pid: string): Promise<void> => {
  if (!/^[1-9]\d{0,9}$/.test(pid)) throw new UsageError(`dump "${pid}": give the number of a process`)
  const sockets = flightSockets()
  let reason = 'no program of yours runs with `userdma run --host --flight-recorder`'
  for (const socket of sockets) {
    const answer = await ask(socket, pid)
    if (answer?.file !== undefined) {
      process.stdout.write(`${answer.file}\n`)
      return
    }
    reason = answer?.reason ?? reason
  }
  throw new UsageError(`dump ${pid}: ${reason}`)
}
