/*
 * Starts and controls the other process of the tests in this folder (peer.ts).
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { PeerCalls } from './peer.ts'

interface Peer {
  readonly pid: number
  request<K extends keyof PeerCalls>(call: K, request: PeerCalls[K]['request']): Promise<PeerCalls[K]['answer']>
  /** Kills the process and waits until it is gone (reaped). */
  kill(): Promise<void>
}

const kill = async (child: ChildProcess): Promise<void> => {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.kill('SIGKILL')
  await exit
}

export const startPeer = (): Peer => {
  const child = fork(fileURLToPath(new URL('./peer.js', import.meta.url)))
  return {
    pid: child.pid ?? 0,
    async request(call, request) {
      const answer = once(child, 'message')
      child.send({ call, request })
      const [value] = await Promise.race([
        answer,
        once(child, 'exit').then(() => Promise.reject(new Error(`the peer ended before it answered "${call}"`))),
      ])
      return value
    },
    kill: () => kill(child),
  }
}
