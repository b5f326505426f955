/*
 * Child processes of rows, controlled by messages.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Unavailable } from './harness.ts'

export interface Child<Order> {
  /** Sends an order; resolves with the answer. Throws Unavailable if the child reports a failure or ends. */
  ask<A>(order: Order): Promise<A>
  /** The next message that is not an answer. Throws as `ask`. */
  hear<A>(): Promise<A>
  stop(): Promise<void>
}

/** The result of `start`. If it fails, closes `started` first. */
export const startAfter = async <T>(started: { close(): Promise<void> }, start: () => Promise<T>): Promise<T> => {
  try {
    return await start()
  } catch (error) {
    await started.close()
    throw error
  }
}

/** Starts dist/bench/sides/`script`. `prefix`: a command that runs the script, for example `ip netns exec NAME`. */
export const startChild = <Order>(script: string, prefix: readonly string[] = []): Child<Order> => {
  const file = fileURLToPath(new URL(`../sides/${script}`, import.meta.url))
  const [command, ...args] = [...prefix, process.execPath, file]
  const child: ChildProcess = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe', 'ipc'] })
  let output = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    output += text
  })
  const exited = once(child, 'exit')
  const hear = async <A>(): Promise<A> => {
    const message = await Promise.race([once(child, 'message'), exited.then(() => undefined)])
    if (message === undefined)
      throw new Unavailable(
        `${script} ended with ${child.exitCode}: ${output.trim().split('\n').slice(-3).join(' | ')}`,
      )
    const [answer] = message as [A & { failed?: string }]
    if (answer.failed !== undefined) throw new Unavailable(`${script}: ${answer.failed}`)
    return answer
  }
  return {
    hear,
    ask(order) {
      const answer = hear()
      child.send(order as object)
      return answer as never
    },
    async stop() {
      if (child.connected) child.disconnect()
      await exited
    },
  }
}
