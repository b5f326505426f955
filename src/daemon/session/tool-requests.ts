/*
 * Handles TOOL messages of a session (uapi/tool.ts), which the commands of `userdma` send: queries, changes of devices
 * and faults, recordings, and subscriptions.
 */

import { fstatSync } from 'node:fs'
import { noDeviceText } from '../../base/suggest.ts'
import { isLinked } from '../../core/driver-contract.ts'
import { MAX_DAEMON_RULES } from '../../faults/rules.ts'
import { waitOnTimer } from '../../host/event-loop/timer.ts'
import { closeElsewhere, type PassedFd } from '../../host/memory/mover.ts'
import type { Clients } from '../../services/clients.ts'
import { parseConditions } from '../../settings/fabric.ts'
import type { Story } from '../../spec/check/finding.ts'
import type { GraphProcess } from '../../spec/check/thread-waits.ts'
import type { TormentedRequest } from '../../spec/check/torment-orders.ts'
import { LineRate } from '../../spec/congestion.ts'
import { MAX_LINK_TIME } from '../../spec/faults.ts'
import type { HealthRow } from '../../spec/health.ts'
import type { LentBytes } from '../../spec/lends.ts'
import type { RecordingEnd } from '../../spec/session-file.ts'
import type { InjectedFaults } from '../../tools/clients/faults/inject.ts'
import { symbolFrames } from '../../tools/record/symbol-frames.ts'
import { type Request, writeToolReply } from '../../uapi/session-codec.ts'
import type {
  DaemonConfig,
  DeviceSpec,
  FrameSymbol,
  ListedDevice,
  ProgramEnd,
  QpCursor,
  RuleMatches,
  ToolReply,
  ToolRequest,
} from '../../uapi/tool.ts'
import { peerText } from '../check/other-hosts.ts'
import type { Contexts, OpenContext } from '../context/contexts.ts'
import { deviceText, parseDevice } from '../devices/device-spec.ts'
import { loadFor } from '../devices/devices.ts'
import type { LentDevices } from '../devices/lent-devices.ts'
import { type DaemonRecording, type RecordedParts, recordDaemon } from '../recording.ts'
import type { ToolShare } from '../tool-time.ts'
import { FINDINGS_REFUSED, NOT_CHECKED, parseSubscribe, type SubscribedParts, Subscriptions } from './subscriptions.ts'
import { type Outlet, ToolQueue } from './tool-queue.ts'

interface ToolSession extends Outlet {
  /** The user's time for requests. */
  readonly time: ToolShare
  /** Whether the client may see calls, findings and queue pairs, and change the daemon: only the daemon's user may. */
  readonly isTrusted: boolean
  /** Ends the session. No effect when repeated. */
  close(): void
}

/** While this many requests have no sent reply, a further request ends the session. */
const MAX_REPLIES = 16

/** A site has at most 4 KiB of stack. */
const SITES_PER_REPLY = 8

type RecordRequest = Extract<ToolRequest, { kind: 'record' }>

const UNKNOWN_REQUEST: ToolReply = {
  error:
    'unknown request of a tool: this daemon answers config, stat, qps, waits, thread-waits, health, peer, report-waits, closed, fault, link, sites, device, borrow, counts, who, lent, orders, subscribe, unsubscribe, capture, record, record-frames, record-symbols, end-record and stop',
}

const NO_RECORDING: ToolReply = { error: 'this session has no recording' }
/** Characters of frames in a reply: as JSON, which escapes some, they fit into a message. */
const MAX_FRAMES_REPLY = 2 ** 13
/** Rows that a reply may have. */
const MAX_LINES_REPLY = 256

const NOT_RECORDED: RecordingEnd = { lost: 0, error: 'nothing was recorded' }

const isDeviceSpec = (value: unknown): value is DeviceSpec => {
  const { name, address, driver, dcqcn, pci, limits, vlans } = (value ?? {}) as Partial<DeviceSpec>
  const hasDriver = driver === undefined || typeof driver === 'string'
  const hasRate = dcqcn === undefined || (typeof dcqcn === 'number' && dcqcn >= LineRate.MIN && dcqcn <= LineRate.MAX)
  const hasVlans = vlans === undefined || Array.isArray(vlans)
  const hasRecords = pci !== null && limits !== null && hasVlans
  return typeof name === 'string' && typeof address === 'string' && hasDriver && hasRate && hasRecords
}

const isQpCursor = (value: unknown): value is QpCursor => {
  const { node, row } = (value ?? {}) as Partial<QpCursor>
  return Number.isSafeInteger(node) && Number.isSafeInteger(row) && (row as number) >= 0
}

const isListOfText = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every(element => typeof element === 'string')

/** Maximum characters of the threads of a reply. */
const MAX_THREADS_REPLY = 48_000

/** As many threads as one message has room for; the others count as `others`. */
const fitted = (processes: readonly GraphProcess[]): readonly GraphProcess[] => {
  let room = MAX_THREADS_REPLY
  return processes.flatMap(process => {
    room -= JSON.stringify({ ...process, threads: [] }).length
    if (room < 0) return []
    const { threads } = process
    const end = threads.findIndex(thread => {
      room -= JSON.stringify(thread).length
      return room < 0
    })
    const kept = end < 0 ? threads : threads.slice(0, end)
    return [{ ...process, threads: kept, others: process.others + threads.length - kept.length }]
  })
}

/** Maximum characters of `application` in a request to record. */
const MAX_APPLICATION = 64

const parseRecord = ({
  application,
  payload,
  limit,
  depth,
}: Partial<Record<string, unknown>>): ToolRequest | undefined => {
  const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
  if (typeof application !== 'string' || application.length > MAX_APPLICATION || !isCount(payload)) return undefined
  if ((limit !== undefined && !isCount(limit)) || (depth !== undefined && depth !== 'check')) return undefined
  return { kind: 'record', application, payload, ...(limit !== undefined && { limit }), ...(depth && { depth }) }
}

const parseSymbols = ({ symbols }: Partial<Record<string, unknown>>): ToolRequest | undefined => {
  if (!Array.isArray(symbols)) return undefined
  const valid = symbols.flatMap((symbol: unknown): readonly FrameSymbol[] => {
    const { frame, frames } = (symbol ?? {}) as Partial<Record<string, unknown>>
    const known = symbolFrames(frames)
    return typeof frame === 'string' && known !== undefined ? [{ frame, frames: known }] : []
  })
  return valid.length === symbols.length ? { kind: 'record-symbols', symbols: valid } : undefined
}

/** Maximum characters of a command and of a signal's name. */
const MAX_NAME = 64

const parseEndRecord = ({ program }: Partial<Record<string, unknown>>): ToolRequest | undefined => {
  if (program === undefined) return { kind: 'end-record' }
  const { pid, command, status, signal } = (program ?? {}) as Partial<Record<string, unknown>>
  const isU32 = (value: unknown): value is number => Number.isInteger(value) && (value as number) >>> 0 === value
  const isName = (value: unknown): value is string => typeof value === 'string' && value.length <= MAX_NAME
  const isValid = isU32(pid) && isU32(status) && isName(command) && isName(signal)
  return isValid ? { kind: 'end-record', program: { pid, command, status, signal } } : undefined
}

const parseLink = ({ device, up, milliseconds }: Partial<Record<string, unknown>>): ToolRequest | undefined => {
  if (typeof device !== 'string' || typeof up !== 'boolean') return undefined
  if (milliseconds === undefined) return { kind: 'link', device, up }
  const isTime = typeof milliseconds === 'number' && milliseconds >= 1 && milliseconds <= MAX_LINK_TIME && !up
  return isTime ? { kind: 'link', device, up, milliseconds } : undefined
}

const parseConditionRequest = (fields: Partial<Record<string, unknown>>): ToolRequest | undefined => {
  const { between, conditions, milliseconds } = fields
  if (!Array.isArray(between) || between.length !== 2 || typeof conditions !== 'string') return undefined
  const [a, b] = between as readonly unknown[]
  if (typeof a !== 'string' || typeof b !== 'string') return undefined
  const request = { kind: 'conditions', between: [a, b], conditions } as const
  if (milliseconds === undefined) return request
  const isTime = typeof milliseconds === 'number' && milliseconds >= 1 && milliseconds <= MAX_LINK_TIME
  return isTime ? { ...request, milliseconds } : undefined
}

const parseMatches = ({ matches }: Partial<Record<string, unknown>>): ToolRequest | undefined => {
  if (!Array.isArray(matches) || matches.length > MAX_DAEMON_RULES) return undefined
  const read = matches.map(each => (each ?? {}) as Partial<RuleMatches>)
  const isValid = read.every(({ rule, count }) => Number.isSafeInteger(rule) && Number.isSafeInteger(count))
  return isValid ? { kind: 'fault-matches', matches: read as readonly RuleMatches[] } : undefined
}

/** The request, without unknown fields; undefined if it is invalid. */
const parseRequest = (text: string): ToolRequest | undefined => {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  const fields = value as Partial<Record<string, unknown>>
  const { kind, set, keeps, add, remove, cursor, devices, context, id, from } = fields
  if (kind === 'qps' && cursor === undefined) return { kind }
  if (kind === 'qps') return isQpCursor(cursor) ? { kind, cursor } : undefined
  if (kind === 'stat' && devices === undefined) return { kind }
  if (kind === 'stat') return isListOfText(devices) ? { kind, devices } : undefined
  if (kind === 'subscribe') return parseSubscribe(fields)
  if (kind === 'unsubscribe') return typeof id === 'number' ? { kind, id } : undefined
  if (kind === 'counts' || kind === 'capture' || kind === 'borrow') return { kind }
  if (kind === 'record') return parseRecord(fields)
  if (kind === 'record-frames')
    return Number.isSafeInteger(from) && Number(from) >= 0 ? { kind, from: Number(from) } : undefined
  if (kind === 'record-symbols') return parseSymbols(fields)
  if (kind === 'end-record') return parseEndRecord(fields)
  if (kind === 'stop') return { kind }
  if (
    kind === 'config' ||
    kind === 'waits' ||
    kind === 'thread-waits' ||
    kind === 'report-waits' ||
    (kind === 'fault' && set === undefined)
  )
    return { kind }
  if (kind === 'peer') {
    const { address, qpn, time } = fields
    const isValid = typeof address === 'string' && typeof qpn === 'number' && typeof time === 'number'
    return isValid ? { kind, address, qpn, time } : undefined
  }
  if (kind === 'closed') return typeof context === 'number' ? { kind, context } : undefined
  if (kind === 'fault' && typeof set === 'string') return { kind, set, keeps: keeps === true }
  if (kind === 'fault-matches') return parseMatches(fields)
  if (kind === 'link') return parseLink(fields)
  if (kind === 'conditions') return parseConditionRequest(fields)
  if (kind === 'orders') return typeof from === 'number' ? { kind, from } : undefined
  if (kind === 'who' || kind === 'lent' || kind === 'health')
    return typeof from === 'number' ? { kind, from } : undefined
  if (kind === 'sites' && from === undefined) return { kind }
  if (kind === 'sites') return typeof from === 'number' ? { kind, from } : undefined
  if (kind === 'device' && add === undefined) return typeof remove === 'string' ? { kind, remove } : undefined
  if (kind === 'device') return isDeviceSpec(add) && remove === undefined ? { kind, add } : undefined
  return undefined
}

/** What requests of tools read and change. */
export interface ToolParts extends SubscribedParts, RecordedParts {
  /** The daemon's options, with the current list of devices. */
  readonly config: DaemonConfig & { readonly devices: readonly ListedDevice[] }
  readonly contexts: Contexts
  /** Fault rules for programs. */
  readonly faults: InjectedFaults
  readonly clients: Pick<Clients, 'setCable' | 'setConditions' | 'loadSubnet'>
  readonly lent: LentDevices
  /** Resolves when the objects of the user's already closed contexts are destroyed. */
  untilContextsDestroyed(user: number): Promise<void>
  /** Ends the daemon, after the current message. */
  stop(): void
}

/** How many of the texts fit into one reply. */
const fitting = (texts: readonly string[]): number => {
  let characters = 0
  const end = texts.findIndex(({ length }) => {
    characters += length
    return characters > MAX_FRAMES_REPLY
  })
  return end < 0 ? texts.length : end
}

/** The first lines, as many as fit into one reply. */
const firstLines = <T>(lines: readonly T[]): readonly T[] =>
  lines.slice(0, Math.max(1, fitting(lines.slice(0, MAX_LINES_REPLY).map(line => JSON.stringify(line)))))

export class ToolRequests {
  readonly #daemon: ToolParts
  readonly #session: ToolSession
  readonly #queue: ToolQueue
  readonly #subscriptions: Subscriptions
  /** Callbacks of `OpenContext.whenEnded` that answer requests. */
  readonly #onContextEnd = new Map<() => void, OpenContext>()
  #queuedReplies = 0
  #isClosed = false
  #recording: DaemonRecording | undefined
  /** Of the recording; those of the last request, from 0 on. */
  #whoLines: Story = []
  #lentRows: readonly LentBytes[] = []
  #healthRows: readonly HealthRow[] = []
  #orders: readonly TormentedRequest[] = []
  #frames: readonly string[] = []
  /** The end of the last recording. */
  #recorded: RecordingEnd = NOT_RECORDED

  constructor(daemon: ToolParts, session: ToolSession) {
    this.#daemon = daemon
    this.#session = session
    this.#queue = new ToolQueue(session)
    this.#subscriptions = new Subscriptions(daemon, this.#queue, session.account, session.isTrusted)
  }

  /** Answers a request. Takes over `fds`, the request's descriptors. */
  handle(request: Request, fds: readonly PassedFd[]): void {
    const toolRequest = parseRequest(request.text)
    const takesFile =
      toolRequest?.kind === 'record' ||
      toolRequest?.kind === 'stop' ||
      (toolRequest?.kind === 'subscribe' && toolRequest.topic === 'trace' && toolRequest.pcap)
    const file = takesFile ? fds[0] : undefined
    const { payer } = this.#session.account
    for (const fd of fds) if (fd !== file) closeElsewhere(fd, payer)
    // Send records of earlier calls before the answer.
    this.#subscriptions.settle()
    if (this.#queuedReplies === MAX_REPLIES) {
      closeElsewhere(file ?? -1, payer)
      this.#session.close()
      return
    }
    this.#queuedReplies++
    // A copy: the session reads its next request into the same object.
    const header = { ...request }
    const reply = (made?: ToolReply): void => {
      // After the end of the session, the socket's descriptor number may be another file's.
      if (this.#isClosed) {
        closeElsewhere(file ?? -1, payer)
        return
      }
      const answer = made ?? this.#answer(toolRequest, file)
      const text = JSON.stringify(answer)
      const tooLong = JSON.stringify({ error: 'the answer is too long for one message' })
      const { buffer } = this.#session
      const write = (): number => writeToolReply(buffer, header, text) || writeToolReply(buffer, header, tooLong)
      this.#queue.reply(write, () => this.#queuedReplies--)
      if ('subscribed' in answer) this.#subscriptions.start(answer.subscribed)
    }
    const { isTrusted } = this.#session
    // The release of objects of ended programs may add findings, so it comes before the counts.
    const addsFindings = toolRequest?.kind === 'counts' && isTrusted && this.#daemon.check !== undefined
    if (toolRequest?.kind === 'closed') this.#afterContext(toolRequest.context, reply)
    else if (toolRequest?.kind === 'end-record')
      void this.#endRecording(toolRequest.program).then(recorded => {
        this.#recorded = recorded
        reply()
      })
    else if (toolRequest?.kind === 'borrow' && isTrusted)
      void this.#daemon.lent.lend(this).then(
        borrowed => {
          // The session may have ended meanwhile.
          if (this.#isClosed) this.#daemon.lent.takeBack(this)
          reply({ borrowed })
        },
        (error: Error) => reply({ error: error.message }),
      )
    else if (addsFindings)
      this.#answerLater(
        this.#daemon
          .untilContextsDestroyed(this.#session.account.user)
          .then(() => this.#daemon.check?.hosts.untilAnswered())
          .then(() => reply()),
      )
    else if (toolRequest?.kind === 'waits' && isTrusted)
      this.#answerLater(this.#session.time.run(this.#daemon.stat.waits()).then(waits => reply({ waits })))
    else if (toolRequest?.kind === 'health' && toolRequest.from === 0 && isTrusted)
      this.#answerLater(
        this.#session.time.run(this.#daemon.stat.health()).then(rows => {
          this.#healthRows = rows
          reply()
        }),
      )
    else if (toolRequest?.kind === 'fault-matches' && isTrusted)
      this.#answerLater(this.#daemon.network.untilMatched(toolRequest.matches).then(() => reply()))
    else if (toolRequest?.kind === 'device' && toolRequest.add !== undefined && isTrusted)
      this.#answerLater(
        loadFor([toolRequest.add], this.#daemon.clients)
          .then(() => this.#session.time.run(this.#daemon.devices.removing()))
          .then(() => reply()),
      )
    else reply()
  }

  #answerLater(answered: Promise<void>): void {
    void answered.catch(error => {
      this.#daemon.containment.report('an answer to a tool', error)
      // Otherwise the tool would wait for the answer.
      this.#session.close()
    })
  }

  /** Call when the session's socket has space again. */
  onWritable(): void {
    this.#queue.onWritable()
  }

  close(): void {
    this.#isClosed = true
    for (const [onEnded, { whenEnded }] of this.#onContextEnd) whenEnded.delete(onEnded)
    this.#subscriptions.endAll()
    this.#daemon.lent.takeBack(this)
    void this.#endRecording()
    this.#queue.close()
  }

  /** `file`: descriptor of the session file; stays open unless the answer is an error. */
  #startRecording({ kind: _, ...options }: RecordRequest, file: number | undefined): ToolReply {
    if (!this.#session.isTrusted) return { error: 'only the user of this daemon may record' }
    if (this.#recording !== undefined) return { error: 'this session records already' }
    if (file === undefined) return { error: 'a recording needs the descriptor of a file' }
    try {
      if (!fstatSync(file).isFile()) return { error: 'a recording can be written to a regular file only' }
      this.#recording = recordDaemon(this.#daemon, file, options)
      return { recording: true }
    } catch (error) {
      return { error: `cannot record: ${error instanceof Error ? error.message : String(error)}` }
    }
  }

  #recordedFrames(from: number): ToolReply {
    if (this.#recording === undefined) return NO_RECORDING
    // Stacks that arrive meanwhile may be left out.
    if (from === 0) this.#frames = this.#recording.frames()
    const rest = this.#frames.slice(from)
    return { frames: rest.slice(0, fitting(rest)), total: this.#frames.length }
  }

  #who(from: number): ToolReply {
    if (!this.#session.isTrusted) return { error: FINDINGS_REFUSED }
    if (from === 0) this.#whoLines = this.#daemon.check?.door.who() ?? []
    return { who: firstLines(this.#whoLines.slice(from)), total: this.#whoLines.length }
  }

  #lent(from: number): ToolReply {
    if (!this.#session.isTrusted) return { error: FINDINGS_REFUSED }
    if (this.#daemon.check === undefined) return { error: NOT_CHECKED }
    if (from === 0) this.#lentRows = this.#daemon.check.door.lentBytes()
    return { lent: firstLines(this.#lentRows.slice(from)), total: this.#lentRows.length }
  }

  #ordersFrom(from: number): ToolReply {
    if (!this.#session.isTrusted) return { error: FINDINGS_REFUSED }
    if (from === 0) this.#orders = this.#daemon.check?.door.orders() ?? []
    return { orders: firstLines(this.#orders.slice(from)), total: this.#orders.length }
  }

  #addSymbols(symbols: readonly FrameSymbol[]): ToolReply {
    const recording = this.#recording
    return recording === undefined ? NO_RECORDING : { hasRoom: symbols.every(symbol => recording.addSymbol(symbol)) }
  }

  async #endRecording(program?: ProgramEnd): Promise<RecordingEnd> {
    const recording = this.#recording
    this.#recording = undefined
    return recording === undefined ? this.#recorded : recording.end('the command has ended', program)
  }

  /** Calls `reply` when the objects of the context with this number are destroyed. */
  #afterContext(number: number, reply: () => void): void {
    for (const open of this.#daemon.contexts.withMemory()) {
      if (open.number !== number) continue
      const onEnded = (): void => {
        this.#onContextEnd.delete(onEnded)
        reply()
      }
      this.#onContextEnd.set(onEnded, open)
      open.whenEnded.add(onEnded)
      return
    }
    reply()
  }

  #setFaults(text: string, keeps: boolean): ToolReply | undefined {
    if (!this.#session.isTrusted) return { error: 'only the user of this daemon may set faults' }
    try {
      this.#daemon.network.setFaults(text, keeps)
      return undefined
    } catch (error) {
      return { error: error instanceof Error ? error.message : String(error) }
    }
  }

  #setLink({ device, up, milliseconds }: Extract<ToolRequest, { kind: 'link' }>): ToolReply {
    if (!this.#session.isTrusted) return { error: 'only the user of this daemon may take links down and up' }
    const { devices, faults, clients } = this.#daemon
    const [a = '', b] = device.split(':')
    if (b !== undefined) {
      if (!clients.setCable(a, b, up))
        return { error: `there are no switches "${a}" and "${b}" with a link between them` }
      if (milliseconds !== undefined) void waitOnTimer(milliseconds).then(() => clients.setCable(a, b, true))
      return { linkSet: true }
    }
    const found = devices.find(device)
    if (found === undefined)
      return {
        error: noDeviceText(
          device,
          devices.all.map(({ spec }) => spec.name),
        ),
      }
    if (!isLinked(found.network)) return { error: `the device ${device} has no link` }
    faults.setLink(found.device, up, milliseconds)
    return { linkSet: true }
  }

  #setConditions({ between, conditions, milliseconds }: Extract<ToolRequest, { kind: 'conditions' }>): ToolReply {
    if (!this.#session.isTrusted) return { error: 'only the user of this daemon may change links' }
    const { clients } = this.#daemon
    try {
      if (!clients.setConditions(...between, parseConditions(conditions)))
        return { error: `there are no switches "${between[0]}" and "${between[1]}" with a link between them` }
    } catch (error) {
      return { error: (error as Error).message }
    }
    if (milliseconds !== undefined)
      void waitOnTimer(milliseconds).then(() => clients.setConditions(...between, undefined))
    return { linkSet: true }
  }

  #sites(from: number | undefined): ToolReply {
    if (!this.#session.isTrusted) return { error: 'only the user of this daemon may see call sites' }
    const { faults, network } = this.#daemon
    const isFirst = faults.survey === undefined
    if (from === undefined) faults.beginSurvey()
    if (isFirst) network.rulesChanged()
    const { sites = [], failed, facts: seen } = faults.survey ?? {}
    const facts = seen && { ...seen, relapses: this.#daemon.check?.door.relapses ?? [] }
    const part = from === undefined ? [] : sites.slice(from, from + SITES_PER_REPLY)
    return { sites: part, total: sites.length, ...(failed && { failed }), ...(facts && { facts }) }
  }

  #stop(): ToolReply {
    if (!this.#session.isTrusted) return { error: 'only the user of this daemon may stop it' }
    this.#daemon.stop()
    return { stopping: true }
  }

  #changeDevices({ add, remove }: Extract<ToolRequest, { kind: 'device' }>): ToolReply {
    if (!this.#session.isTrusted) return { error: 'only the user of this daemon may add and remove devices' }
    try {
      if (add !== undefined) this.#daemon.devices.add(parseDevice(deviceText(add)))
      if (remove !== undefined) this.#daemon.devices.remove(remove)
      return { devices: this.#daemon.devices.listed }
    } catch (error) {
      return { error: error instanceof Error ? error.message : String(error) }
    }
  }

  #countFindings(): ToolReply {
    if (!this.#session.isTrusted) return { error: FINDINGS_REFUSED }
    const { check, torment } = this.#daemon
    return {
      counts: check?.door.counts ?? [],
      omissions: check?.door.omissions ?? [],
      calls: check?.door.calls ?? 0,
      ...(torment && { decisions: torment.count, missed: torment.missed }),
    }
  }

  /** `file`: descriptor of the capture file of a trace. */
  #replyTo(request: ToolRequest, file: number | undefined): ToolReply {
    const { isTrusted } = this.#session
    const { config, network, check } = this.#daemon
    switch (request.kind) {
      case 'config':
        return { config: { ...config, fault: network.faults } }
      case 'stat':
        return { stat: this.#daemon.stat.of(request.devices) }
      case 'qps':
        return isTrusted
          ? this.#daemon.stat.qps(request.cursor)
          : { error: 'only the user of this daemon may see queue pairs' }
      case 'waits':
        // `handle` answers the daemon's user.
        return { error: 'only the user of this daemon may see what programs wait for' }
      case 'health':
        if (!isTrusted) return { error: 'only the user of this daemon may see what programs leave undone' }
        return { health: firstLines(this.#healthRows.slice(request.from)), total: this.#healthRows.length }
      case 'thread-waits':
        if (!this.#session.isTrusted) return { error: 'only the user of this daemon may see what threads wait for' }
        return { processes: fitted(check?.threads.processes([]) ?? this.#daemon.stat.programs()) }
      case 'peer':
        if (!isTrusted) return { error: FINDINGS_REFUSED }
        return { peer: (check && peerText(this.#daemon.devices, check.door, request)) ?? null }
      case 'report-waits':
        if (!isTrusted) return { error: FINDINGS_REFUSED }
        check?.waits.reportAll()
        return { waitsReported: true }
      case 'closed':
        return { closed: true }
      case 'fault': {
        const refusal = request.set === undefined ? undefined : this.#setFaults(request.set, request.keeps === true)
        return refusal ?? { faults: network.faultCounts() }
      }
      case 'fault-matches':
        return isTrusted
          ? { faults: network.faultCounts() }
          : { error: 'only the user of this daemon may wait for faults' }
      case 'link':
        return this.#setLink(request)
      case 'conditions':
        return this.#setConditions(request)
      case 'sites':
        return this.#sites(request.from)
      case 'device':
        return this.#changeDevices(request)
      case 'borrow':
        // `handle` answers the daemon's user.
        return { error: 'only the user of this daemon may borrow its devices' }
      case 'counts':
        return this.#countFindings()
      case 'who':
        return this.#who(request.from)
      case 'lent':
        return this.#lent(request.from)
      case 'orders':
        return this.#ordersFrom(request.from)
      case 'capture':
        return { captureError: this.#subscriptions.captureError }
      case 'record':
        return this.#startRecording(request, file)
      case 'record-frames':
        return this.#recordedFrames(request.from)
      case 'record-symbols':
        return this.#addSymbols(request.symbols)
      case 'end-record':
        return { recorded: this.#recorded }
      case 'stop':
        return this.#stop()
      case 'subscribe':
        return this.#subscriptions.open(request, file)
      case 'unsubscribe':
        return this.#subscriptions.end(request.id)
    }
  }

  /**
   * The answer to a request. Closes `file` if that is an error; otherwise a capture, a recording or `stop` keeps it.
   */
  #answer(request: ToolRequest | undefined, file: PassedFd | undefined): ToolReply {
    const reply = request === undefined ? UNKNOWN_REQUEST : this.#replyTo(request, file)
    if (file !== undefined && 'error' in reply) closeElsewhere(file, this.#session.account.payer)
    return reply
  }
}
