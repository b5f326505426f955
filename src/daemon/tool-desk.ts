/*
 * The tools' side of one session: questions about the daemon, and the subscription to calls and packets (uapi/tool.ts).
 */
import { fstatSync } from 'node:fs'
import { close } from '../host/sockets.ts'
import { type MessageBuffer, type Request, writeToolReply, writeTrace } from '../uapi/session.ts'
import type { ToolReply, ToolRequest, TraceRecord } from '../uapi/tool.ts'
import { statOf } from './stat.ts'
import type { DaemonState } from './state.ts'

/** What the desk needs of the session that it belongs to. */
export interface Counter {
  readonly buffer: MessageBuffer
  reply(length: number): void
  /** Sends what is in the buffer; false if the client takes no more now. */
  send(length: number): boolean
  wantWritable(wanted: boolean): void
}

export interface ToolDesk {
  /** Descriptors that came with the request are the desk's from here on. */
  handle(request: Request, fds: readonly number[]): void
  onWritable(): void
  close(): void
}

/** Records that wait for a slow tool; more are lost, and counted. */
const MOST_WAITING = 10_000

const parse = (text: string): ToolRequest | undefined => {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && 'what' in value ? (value as ToolRequest) : undefined
  } catch {
    return undefined
  }
}

export const createToolDesk = (daemon: DaemonState, counter: Counter): ToolDesk => {
  const waiting: TraceRecord[] = []
  const undo: (() => void)[] = []
  let lost = 0

  const sendTrace = (record: TraceRecord): boolean => {
    const length = writeTrace(counter.buffer, JSON.stringify(record))
    // A call that does not fit a message is told without its bytes.
    if (length > 0) return counter.send(length)
    const { call: _call, ...rest } = record
    return counter.send(
      writeTrace(counter.buffer, JSON.stringify({ ...rest, reason: rest.reason ?? 'too long to trace' })),
    )
  }

  const push = (): void => {
    while (waiting.length > 0 && sendTrace(waiting[0])) waiting.shift()
    counter.wantWritable(waiting.length > 0)
  }

  const post = (record: TraceRecord): void => {
    if (waiting.length >= MOST_WAITING) {
      lost++
      return
    }
    waiting.push(lost === 0 ? record : { ...record, lost })
    lost = 0
    if (waiting.length === 1) push()
  }

  const startTrace = ({ tag, pcap }: Extract<ToolRequest, { what: 'trace' }>, fds: readonly number[]): ToolReply => {
    const [fd] = fds
    if (pcap && fd === undefined) return { error: 'a capture needs the descriptor of a file' }
    if (pcap && !fstatSync(fd).isFile()) return { error: 'packets can be written to a regular file only' }
    undo.push(daemon.trace.subscribe({ tag: String(tag ?? ''), post }))
    if (pcap) {
      const stop = daemon.network.capture(fd)
      undo.push(() => {
        stop()
        close(fd)
      })
    }
    return { tracing: true }
  }

  const answer = (request: ToolRequest | undefined, fds: readonly number[]): ToolReply => {
    switch (request?.what) {
      case 'config':
        return { config: daemon.config }
      case 'stat':
        return { stat: statOf(daemon) }
      case 'trace':
        return startTrace(request, fds)
      default:
        return { error: 'unknown request of a tool: this daemon answers config, stat and trace' }
    }
  }

  return {
    handle(request, fds) {
      const asked = parse(request.text)
      const reply = answer(asked, fds)
      const kept = 'tracing' in reply && asked?.what === 'trace' && asked.pcap ? 1 : 0
      for (const fd of fds.slice(kept)) close(fd)
      counter.reply(writeToolReply(counter.buffer, request, JSON.stringify(reply)))
    },
    onWritable: push,
    close() {
      for (const one of undo) one()
      undo.length = 0
      waiting.length = 0
    },
  }
}
