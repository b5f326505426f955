/*
 * Requests of tools in a session: queries about the daemon, and subscriptions to calls, packets and findings
 * (uapi/tool.ts).
 */
import { fstatSync } from 'node:fs'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { close } from '../../host/net/sockets.ts'
import { type MessageBuffer, type Request, writeToolReply, writeTrace } from '../../uapi/session-codec.ts'
import {
  type DeviceSpec,
  type QpPlace,
  type ToolRecord,
  type ToolReply,
  type ToolRequest,
  traceTexts,
} from '../../uapi/tool.ts'
import { deviceText, parseDevice } from '../devices/device-spec.ts'
import { qpsOf, statOf, waitsOf } from '../stat.ts'
import type { DaemonState } from '../state.ts'

/** The session as tool requests use it. */
export interface ToolSession {
  readonly buffer: MessageBuffer
  /** Sends the contents of the buffer; false if the socket is full. */
  send(length: number): boolean
  wantWritable(wanted: boolean): void
  readonly user: number
  /** Whether the client may see calls and packets of all processes: true for the daemon's own user. */
  readonly trusted: boolean
  /** Whether the session has ended. */
  readonly closed: boolean
}

export interface ToolRequests {
  /** Takes ownership of the descriptors of the request. */
  handle(request: Request, fds: readonly number[]): void
  onWritable(): void
  close(): void
}

/** Maximum number of texts that wait for a slow tool; further records are dropped and counted. */
const MAX_WAITING = 10_000

type TraceRequest = Extract<ToolRequest, { what: 'trace' }>

const isSpec = (value: unknown): value is DeviceSpec => {
  const { name, address } = (value ?? {}) as Partial<DeviceSpec>
  return typeof name === 'string' && typeof address === 'string'
}

const isPlace = (value: unknown): value is QpPlace => {
  const { device, row } = (value ?? {}) as Partial<QpPlace>
  return typeof device === 'string' && Number.isSafeInteger(row)
}

const parse = (text: string): ToolRequest | undefined => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const fields = value as Partial<Record<string, unknown>>
  const { what, tag = '', pcap = false, set, abi = false, add, remove, from } = fields
  if (what === 'qps') return isPlace(from) ? { what, from } : from === undefined ? { what } : undefined
  if (what === 'findings' || what === 'counts') return { what }
  if (what === 'config' || what === 'stat' || what === 'waits' || (what === 'fault' && set === undefined))
    return { what }
  if (what === 'fault' && typeof set === 'string') return { what, set }
  if (what === 'device' && typeof remove === 'string') return { what, remove }
  if (what === 'device') return isSpec(add) ? { what, add } : undefined
  if (what !== 'trace' || typeof tag !== 'string' || typeof pcap !== 'boolean' || typeof abi !== 'boolean')
    return undefined
  return { what, tag, pcap, abi }
}

export const createToolRequests = (daemon: DaemonState, session: ToolSession): ToolRequests => {
  /** Messages for a tool whose socket is full: each writes itself into the buffer, and returns its length. */
  const waiting: (() => number)[] = []
  /** Ends the subscription; undefined without one. */
  let endSubscription: (() => void) | undefined
  let lost = 0

  const push = (): void => {
    while (waiting.length > 0 && session.send(waiting[0]!())) waiting.shift()
    session.wantWritable(waiting.length > 0)
  }

  const enqueue = (messages: readonly (() => number)[]): void => {
    const idle = waiting.length === 0
    waiting.push(...messages)
    if (idle) push()
  }

  const post = (record: ToolRecord): void => {
    if (waiting.length >= MAX_WAITING) {
      lost++
      return
    }
    const texts = traceTexts(lost === 0 ? record : { ...record, lost })
    lost = 0
    enqueue(texts.map(text => () => writeTrace(session.buffer, text)))
  }

  /** `file`: descriptor of the capture file, kept if the answer is not an error. */
  const startTrace = ({ tag, abi = false }: TraceRequest, file: number | undefined): ToolReply => {
    if (!session.trusted) return { error: 'only the user of this daemon may watch calls and packets' }
    if (endSubscription) return { error: 'this session is subscribed already' }
    let stop = (): void => {}
    if (file !== undefined) {
      if (!fstatSync(file).isFile()) return { error: 'packets can be written to a regular file only' }
      try {
        stop = daemon.network.capture(file)
      } catch (error) {
        return { error: `packets cannot be written to this file: ${String(error)}` }
      }
    }
    const unsubscribe = daemon.trace.subscribe({ tag, abi, post, postFailure: post })
    const ignore = daemon.torment?.listen((torment, device) =>
      post({ time: performance.timeOrigin + nowMicroseconds() / 1000, device, torment }),
    )
    endSubscription = () => {
      unsubscribe()
      ignore?.()
      stop()
      if (file !== undefined) close(file)
    }
    return { tracing: true }
  }

  const notForGuests = { error: 'only the user of this daemon may see findings' }

  const watchFindings = (): ToolReply => {
    if (!session.trusted) return notForGuests
    if (daemon.check === undefined) return { error: 'this daemon does not check programs; start it with --check' }
    if (endSubscription) return { error: 'this session is subscribed already' }
    endSubscription = daemon.check.subscribe(finding => post({ finding }))
    return { tracing: true }
  }

  const setFaults = (text: string): ToolReply | undefined => {
    if (!session.trusted) return { error: 'only the user of this daemon may set faults' }
    try {
      daemon.network.setFaults(text)
      return undefined
    } catch (error) {
      return { error: error instanceof Error ? error.message : String(error) }
    }
  }

  const changeDevices = ({ add, remove }: Extract<ToolRequest, { what: 'device' }>): ToolReply => {
    if (!session.trusted) return { error: 'only the user of this daemon may add and remove devices' }
    try {
      if (add !== undefined) daemon.plug(parseDevice(deviceText(add)))
      if (remove !== undefined) daemon.unplug(remove)
      return { devices: daemon.devices.listed }
    } catch (error) {
      return { error: error instanceof Error ? error.message : String(error) }
    }
  }

  /** Answers a request, and closes its descriptors except that of a started capture. */
  const answer = (request: ToolRequest | undefined, fds: readonly number[]): ToolReply => {
    const file = request?.what === 'trace' && request.pcap ? fds[0] : undefined
    let reply: ToolReply = {
      error:
        'unknown request of a tool: this daemon answers config, stat, qps, waits, fault, device, findings, counts and trace',
    }
    if (request?.what === 'config') reply = { config: { ...daemon.config, fault: daemon.network.faults } }
    else if (request?.what === 'stat') reply = { stat: statOf(daemon) }
    else if (request?.what === 'qps')
      reply = session.trusted
        ? qpsOf(daemon, request.from)
        : { error: 'only the user of this daemon may see queue pairs' }
    else if (request?.what === 'waits')
      reply = session.trusted
        ? { waits: waitsOf(daemon) }
        : { error: 'only the user of this daemon may see what programs wait for' }
    else if (request?.what === 'fault')
      reply = (request.set !== undefined && setFaults(request.set)) || { faults: daemon.network.faultCounts() }
    else if (request?.what === 'device') reply = changeDevices(request)
    else if (request?.what === 'findings') reply = watchFindings()
    else if (request?.what === 'counts')
      reply = session.trusted
        ? {
            counts: daemon.check?.counts ?? [],
            omissions: daemon.check?.omissions ?? [],
            calls: daemon.check?.calls ?? 0,
            ...(daemon.torment && { decisions: daemon.torment.count }),
          }
        : notForGuests
    else if (request?.pcap && file === undefined) reply = { error: 'a capture needs the descriptor of a file' }
    else if (request) reply = startTrace(request, file)
    for (const fd of fds) if (fd !== file || 'error' in reply) close(fd)
    return reply
  }

  return {
    handle(request, fds) {
      // Records of earlier calls precede the answer to a query.
      daemon.trace.settle()
      const wanted = parse(request.text)
      const to = { ...request }
      const reply = (): void => {
        // The number of the socket may belong to another file by now.
        if (session.closed) {
          for (const fd of fds) close(fd)
          return
        }
        const text = JSON.stringify(answer(wanted, fds))
        const tooLong = JSON.stringify({ error: 'the answer is too long for one message' })
        enqueue([() => writeToolReply(session.buffer, to, text) || writeToolReply(session.buffer, to, tooLong)])
      }
      // Programs that have just ended may add findings: their ends are handled first.
      if (wanted?.what === 'counts' && session.trusted && daemon.check !== undefined)
        void daemon.untilEnded(session.user).then(daemon.containment.guard('an answer to a tool', reply))
      else reply()
    },
    onWritable: push,
    close() {
      endSubscription?.()
      endSubscription = undefined
      waiting.length = 0
    },
  }
}
