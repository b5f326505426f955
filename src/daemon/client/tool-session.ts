/*
 * A tool's session with a daemon (spec/session.ts): HELLO, then requests with JSON bodies. The daemon sends replies,
 * and records that are not replies: those of subscriptions. Messages of a session stay in order: when a reply arrives,
 * all records that the daemon sent before it have arrived.
 */
import { EAGAIN, ECONNRESET } from '../../host/errno.ts'
import { type Watch, watch } from '../../host/event-loop/poll.ts'
import { closeElsewhere } from '../../host/memory/mover.ts'
import { close, send } from '../../host/net/sockets.ts'
import { conditionsText, type LinkConditions } from '../../settings/fabric.ts'
import type { Finding, Story } from '../../spec/check/finding.ts'
import type { GraphProcess } from '../../spec/check/thread-waits.ts'
import type { TormentedRequest } from '../../spec/check/torment-orders.ts'
import type { WaitStat } from '../../spec/check/waits.ts'
import type { FailedProgram, FaultStat, SurveyFacts, SurveySite } from '../../spec/faults.ts'
import type { HealthRow } from '../../spec/health.ts'
import type { LentBytes } from '../../spec/lends.ts'
import type { LendRecord, TormentRecord, TraceEvent } from '../../spec/records.ts'
import { MessageType, SessionLimits } from '../../spec/session.ts'
import type { RecordingEnd } from '../../spec/session-file.ts'
import { newReply, type Reply, writeHello, writeTool } from '../../uapi/session-codec.ts'
import {
  type DaemonConfig,
  type DeviceSpec,
  type FrameSymbol,
  type ListedDevice,
  type ProgramEnd,
  type QpCursor,
  type QpStat,
  type RuleMatches,
  type Stat,
  type ToolRecord,
  type ToolReply,
  type ToolRequest,
  type Topic,
  type TopicRecord,
  type Topics,
  traceReader,
} from '../../uapi/tool.ts'
import { type Channel, helloRefusal, openChannel, type WriteRequest } from './channel.ts'
import { NoDaemonError, RefusalError } from './errors.ts'

/**
 * Maximum devices in one reply to `stat`. With objects of all classes and counters of 15 digits they fill nine tenths
 * of the longest message.
 */
const DEVICES_PER_STAT = 16

export interface ToolSession {
  readonly socket: string
  /** Process id of the daemon. */
  readonly daemon: number
  /** Resolves when the daemon has ended or the session is closed. */
  readonly ended: Promise<void>
  /** Sends a request with descriptors. Rejects if the daemon refuses it. */
  request(request: ToolRequest, fds?: readonly number[]): Promise<ToolReply>
  /**
   * Calls `on` with the records of a topic (uapi/tool.ts): a snapshot, unless it has none, then changes. A slow tool
   * gets `lost` at the place of changes that the daemon has dropped.
   */
  subscribe<T extends Topic>(
    topic: T,
    options: TopicOptions<T>,
    on: (record: TopicRecord<T>) => void,
  ): Promise<Subscription>
  config(): Promise<DaemonConfig>
  stat(): Promise<Stat>
  /** All queue pairs. */
  qps(): Promise<readonly QpStat[]>
  /** What programs wait for, in the order of reports. */
  waits(): Promise<readonly WaitStat[]>
  /** The threads of programs that wait; of programs that are not checked, none. */
  threadWaits(): Promise<readonly GraphProcess[]>
  /**
   * The fault rules with their counts. `set`: rules that replace all present ones. `keeps`: of these, those that were
   * there before go on with their counts and random sequences.
   */
  faults(set?: string, keeps?: boolean): Promise<readonly FaultStat[]>
  /** The fault rules, once one of these has matched so often, or they were changed. */
  untilMatched(matches: readonly RuleMatches[]): Promise<readonly FaultStat[]>
  /**
   * Takes the link of a device, or those between two switches (`a:b`), down or up. `milliseconds`: down for so long.
   */
  setLink(device: string, up: boolean, milliseconds?: number): Promise<void>
  /** What the links between two switches do to packets, for so many milliseconds, or from now on. */
  setConditions(between: readonly [string, string], conditions: LinkConditions, milliseconds?: number): Promise<void>
  /** Begins a new survey of call sites. */
  beginSurvey(): Promise<void>
  /** The call sites of programs since `beginSurvey`, and the process into which a fault was injected. */
  survey(): Promise<{
    readonly sites: readonly SurveySite[]
    readonly failed: FailedProgram | undefined
    readonly facts: SurveyFacts
  }>
  /** Adds or removes a device; returns the resulting list of devices. */
  changeDevices(change: { readonly add: DeviceSpec } | { readonly remove: string }): Promise<readonly ListedDevice[]>
  /**
   * Removes the daemon's devices until the end of the session, and resolves with them when their ports are closed.
   * Rejects while programs use them.
   */
  borrowDevices(): Promise<readonly DeviceSpec[]>
  /**
   * From now on `onTrace` gets calls and failures of programs with this tag, `onTorment` gets decisions of torment, and
   * `onLost` the number of lost ones. `pcap`: a descriptor to which the daemon writes packets. `abi`: with the bytes of
   * the calls.
   */
  trace(tag: string, pcap?: number, abi?: boolean): Promise<void>
  /**
   * `captureError`: the error that has ended the capture of `trace` early; undefined: all packets so far are in the
   * file.
   */
  traceStatus(): Promise<{ readonly captureError: string | undefined }>
  /** Records the events of all the daemon's programs in `fd`, an empty regular file (`ToolRequest`). */
  record(fd: number, options: Omit<Extract<ToolRequest, { readonly kind: 'record' }>, 'kind'>): Promise<void>
  /** The frames of the stacks in the recording, each once. */
  recordedFrames(): Promise<readonly string[]>
  /** Adds to the recording what its frames are. False: it has no room for more. At most 32 KiB of JSON. */
  addSymbols(symbols: readonly FrameSymbol[]): Promise<boolean>
  /** Ends the recording; resolves when the file is written. `program`: how the tool's program has ended. */
  endRecording(program?: ProgramEnd): Promise<RecordingEnd>
  /**
   * Passes all findings so far to `onFinding`, and from now on each new one. `hang`: what a program waits for this many
   * seconds is a finding. `fresh`: only new ones, and mistakes that were found before are new too.
   */
  subscribeFindings(hang?: number, fresh?: boolean): Promise<void>
  /** What programs wait for now becomes findings. */
  reportWaits(): Promise<void>
  /**
   * How often each finding was found, by its number − 1; the records that the checks dropped; the number of checked
   * calls and of decisions of torment. Findings about objects left behind by ended programs precede the reply.
   */
  /** The accesses to the bytes of `--who`, so far. */
  who(): Promise<Story>
  /** What programs have not done with what came to them. */
  health(): Promise<readonly HealthRow[]>
  /** What programs lend now. */
  lent(): Promise<readonly LentBytes[]>
  /** The posts and completions so far, by identities of torment. */
  orders(): Promise<readonly TormentedRequest[]>
  counts(): Promise<Extract<ToolReply, { readonly counts: unknown }>>
  close(): void
}

/** Handlers of the records of `trace` and `subscribeFindings`. */
export interface Handlers {
  /** Calls and failures of traced programs. */
  readonly onTrace?: (record: TraceEvent) => void
  readonly onFinding?: (finding: Finding) => void
  /** Decisions of torment: part of a trace, in order of time with its calls. */
  readonly onTorment?: (record: TormentRecord) => void
  readonly onLent?: (record: LendRecord) => void
  /** This many records of the trace were lost here, because this process read too slowly. */
  readonly onLost?: (count: number) => void
}

interface Subscription {
  readonly id: number
  /** Ends the subscription, after the records that the daemon has sent. Resolves with the number of lost changes. */
  end(): Promise<number>
}

/** The options of `ToolSession.subscribe`. `pcap`: the descriptor of the capture file. */
type TopicOptions<T extends Topic> = {
  readonly [O in keyof Topics[T]['options']]: O extends 'pcap' ? number | undefined : Topics[T]['options'][O]
}

/** A request without a reply yet. */
interface PendingRequest {
  readonly resolve: (reply: Reply) => void
  readonly reject: (error: Error) => void
}

interface UnsentMessage {
  readonly bytes: Uint8Array
  readonly fds: readonly number[]
}

/** Messages of a session with a daemon: requests with their replies, and records. */
interface Exchange {
  /** As in `ToolSession`. */
  readonly ended: Promise<void>
  /**
   * Sends a request with descriptors; resolves with the reply. `onReply` gets it first, before the next message is
   * read.
   */
  exchange(write: WriteRequest, fds?: readonly number[], onReply?: (reply: Reply) => void): Promise<Reply>
  /** The error for requests pending at the session's end, and for later ones. */
  daemonEnded(): NoDaemonError
  /** Closes the session; requests without a reply fail with the error. */
  finish(error: Error): void
}

/** Takes over the channel's descriptor, and begins to read its messages. */
const openExchange = (channel: Channel, onRecord: (record: ToolRecord) => void): Exchange => {
  const { fd, daemon } = channel
  /** Whether the daemon has sent a message. */
  let hasReplied = false
  const daemonEnded = (): NoDaemonError =>
    new NoDaemonError('EIO', `${daemon} ${hasReplied ? 'ended' : 'closed the connection'}`)
  const pending = new Map<number, PendingRequest>()
  const readTrace = traceReader()
  /** Requests that did not fit in the socket yet; they stay in order. */
  const unsent: UnsentMessage[] = []
  let watcher: Watch | undefined
  let end = (): void => {}
  const ended = new Promise<void>(resolve => {
    end = resolve
  })

  const finish = (error: Error): void => {
    if (!watcher) return
    watcher.stop()
    watcher = undefined
    close(fd)
    for (const { reject } of pending.values()) reject(error)
    pending.clear()
    end()
  }

  const flush = (): void => {
    while (watcher && unsent.length > 0) {
      const result = send(fd, unsent[0]!.bytes, unsent[0]!.fds)
      if (result === -EAGAIN) break
      unsent.shift()
      if (result < 0) {
        // Messages that the daemon sent before its end are still in the socket.
        drain()
        finish(daemonEnded())
      }
    }
    watcher?.update({ readable: true, writable: unsent.length > 0 })
  }

  const receive = (reply: Reply, fault: string | undefined): void => {
    if (fault) finish(new Error(`${daemon} sent an invalid message: ${fault}`))
    else if (reply.type === MessageType.TRACE) {
      const record = readTrace(reply.text)
      if (record !== undefined) onRecord(record)
    } else {
      pending.get(reply.serial)?.resolve(reply)
      pending.delete(reply.serial)
    }
  }

  const drain = (): void => {
    while (watcher) {
      const reply = newReply()
      const { length, fds, fault } = channel.receive(reply)
      for (const passed of fds) closeElsewhere(passed)
      if (length === -EAGAIN) return
      // The daemon ended with requests unread. Messages that it sent before follow this error.
      if (length === -ECONNRESET) continue
      hasReplied ||= length > 0
      if (length > 0) receive(reply, fault)
      else finish(daemonEnded())
    }
  }

  watcher = watch(fd, { readable: true }, (readable, writable) => {
    if (readable) drain()
    if (writable) flush()
  })

  return {
    ended,
    exchange: (write, fds = [], onReply) =>
      new Promise((resolve, reject) => {
        if (!watcher) {
          reject(daemonEnded())
          return
        }
        // A copy: the socket may take it later.
        const bytes = channel.encode(write).slice()
        if (bytes.length === 0) {
          reject(new Error(`the request to ${daemon} is longer than ${SessionLimits.bytes} bytes`))
          return
        }
        const accept = (reply: Reply): void => {
          onReply?.(reply)
          resolve(reply)
        }
        pending.set(channel.serial, { resolve: accept, reject })
        unsent.push({ bytes, fds })
        flush()
      }),
    daemonEnded,
    finish,
  }
}

/** What a tool asks for, as users call it, after "refuses". */
const askedText = (request: ToolRequest): string => {
  switch (request.kind) {
    case 'device':
      return request.add === undefined ? `to remove ${request.remove}` : `to add ${request.add.name}`
    case 'fault':
      return request.set === undefined ? 'to show its fault rules' : 'these fault rules'
    case 'link':
      return `to take the link of ${request.device} ${request.up ? 'up' : 'down'}`
    case 'conditions':
      return `to change the link between ${request.between.join(' and ')}`
    case 'borrow':
      return 'to lend its devices'
    case 'subscribe':
      return `the topic ${request.topic}`
    default:
      return `the request ${request.kind}`
  }
}

/** All of an answer that comes in several messages. `ask`: for the part from an index on. */
const allParts = async <T>(
  ask: (from: number) => Promise<{ readonly part: readonly T[]; readonly total: number }>,
): Promise<readonly T[]> => {
  const all: T[] = []
  for (;;) {
    const { part, total } = await ask(all.length)
    all.push(...part)
    if (all.length >= total || part.length === 0) return all
  }
}

/**
 * Opens a session at `socket`. Throws NoDaemonError if no daemon serves it or the daemon ends meanwhile; an Error with
 * a message if the socket cannot be used or the daemon refuses the session, VersionError if it has another version of
 * the protocol.
 */
export const openToolSession = async (socket: string, handlers: Handlers = {}): Promise<ToolSession> => {
  const channel = await openChannel(socket)
  /** By number of the subscription. */
  const receivers = new Map<number, (record: TopicRecord) => void>()
  const { ended, exchange, daemonEnded, finish } = openExchange(channel, record => receivers.get(record.id)?.(record))
  const { onTrace, onFinding, onTorment, onLent, onLost } = handlers
  const request = async (
    toolRequest: ToolRequest,
    fds: readonly number[] = [],
    onReply?: (reply: Reply) => void,
  ): Promise<ToolReply> => {
    const text = JSON.stringify(toolRequest)
    const answer = await exchange((buffer, header) => writeTool(buffer, header, text), fds, onReply)
    const reply = JSON.parse(answer.text) as ToolReply
    if ('error' in reply) throw new RefusalError(socket, askedText(toolRequest), reply.error)
    return reply
  }
  /** The reply with a member `key`. */
  const ask = async <K extends string>(
    key: K,
    toolRequest: ToolRequest,
    ...others: [fds?: readonly number[], onReply?: (reply: Reply) => void]
  ): Promise<Extract<ToolReply, { readonly [_ in K]: unknown }>> => {
    const answer = await request(toolRequest, ...others)
    if (key in answer) return answer as Extract<ToolReply, { readonly [_ in K]: unknown }>
    throw new Error(`the daemon at ${socket} gave an unexpected reply to ${toolRequest.kind}`)
  }
  const subscribe = async <T extends Topic>(
    topic: T,
    options: TopicOptions<T>,
    on: (record: TopicRecord<T>) => void,
  ): Promise<Subscription> => {
    const { pcap, ...others }: { readonly pcap?: number | undefined } = options
    const subscribeRequest = { ...others, kind: 'subscribe', topic, pcap: pcap !== undefined } as ToolRequest
    const { subscribed: id } = await ask(
      'subscribed',
      subscribeRequest,
      pcap === undefined ? [] : [pcap],
      ({ text }) => {
        const reply = JSON.parse(text) as ToolReply
        if ('subscribed' in reply) receivers.set(reply.subscribed, on as (record: TopicRecord) => void)
      },
    )
    return {
      id,
      async end() {
        return (await ask('unsubscribed', { kind: 'unsubscribe', id }, [], () => receivers.delete(id))).lost
      },
    }
  }
  const refusal = helloRefusal(await exchange(writeHello), channel)
  if (refusal !== undefined) {
    finish(refusal)
    throw refusal
  }

  return {
    socket,
    daemon: channel.pid,
    ended,
    request: (toolRequest, fds) => request(toolRequest, fds),
    subscribe,
    async config() {
      return (await ask('config', { kind: 'config' })).config
    },
    async stat() {
      const listed = await ask('config', { kind: 'config' })
      const names = listed.config.devices.map(({ name }) => name)
      const part = async (first: number): Promise<Stat> =>
        (await ask('stat', { kind: 'stat', devices: names.slice(first, first + DEVICES_PER_STAT) })).stat
      const stat = await part(0)
      const devices = [...stat.devices]
      for (let first = DEVICES_PER_STAT; first < names.length; first += DEVICES_PER_STAT)
        devices.push(...(await part(first)).devices)
      return { ...stat, devices }
    },
    async qps() {
      const qps: QpStat[] = []
      for (let cursor: QpCursor | undefined; ; ) {
        const answer = await ask('qps', { kind: 'qps', ...(cursor && { cursor }) })
        qps.push(...answer.qps)
        if (answer.next === undefined) return qps
        cursor = answer.next
      }
    },
    async waits() {
      return (await ask('waits', { kind: 'waits' })).waits
    },
    async threadWaits() {
      return (await ask('processes', { kind: 'thread-waits' })).processes
    },
    async faults(set, keeps = false) {
      const change = set === undefined ? undefined : { set, ...(keeps && { keeps }) }
      return (await ask('faults', { kind: 'fault', ...change })).faults
    },
    async untilMatched(matches) {
      return (await ask('faults', { kind: 'fault-matches', matches })).faults
    },
    async setLink(device, up, milliseconds) {
      await request({ kind: 'link', device, up, ...(milliseconds !== undefined && { milliseconds }) })
    },
    async setConditions(between, conditions, milliseconds) {
      const time = milliseconds !== undefined && { milliseconds }
      await request({ kind: 'conditions', between, conditions: conditionsText(conditions), ...time })
    },
    async beginSurvey() {
      await request({ kind: 'sites' })
    },
    async survey() {
      const sites: SurveySite[] = []
      for (;;) {
        const answer = await ask('sites', { kind: 'sites', from: sites.length })
        sites.push(...answer.sites)
        if (sites.length >= answer.total || answer.sites.length === 0)
          return { sites, failed: answer.failed, facts: answer.facts ?? { told: [], retries: 0, relapses: [] } }
      }
    },
    async changeDevices(change) {
      return (await ask('devices', { kind: 'device', ...change })).devices
    },
    async borrowDevices() {
      return (await ask('borrowed', { kind: 'borrow' })).borrowed
    },
    async trace(tag, pcap, abi = false) {
      await subscribe('trace', { tag, pcap, abi }, record => {
        if ('lost' in record) onLost?.(record.lost)
        else if (!('change' in record)) return
        else if ('torment' in record.change) onTorment?.(record.change)
        else if ('lent' in record.change) onLent?.(record.change)
        else onTrace?.(record.change)
      })
    },
    async traceStatus() {
      const { captureError } = await ask('captureError', { kind: 'capture' })
      return { captureError: captureError ?? undefined }
    },
    async record(fd, options) {
      await ask('recording', { kind: 'record', ...options }, [fd])
    },
    recordedFrames: () =>
      allParts(async from => {
        const { frames: part, total } = await ask('frames', { kind: 'record-frames', from })
        return { part, total }
      }),
    async addSymbols(symbols) {
      return (await ask('hasRoom', { kind: 'record-symbols', symbols })).hasRoom
    },
    async endRecording(program) {
      return (await ask('recorded', { kind: 'end-record', ...(program && { program }) })).recorded
    },
    async subscribeFindings(hang, fresh = false) {
      await subscribe('findings', { ...(hang !== undefined && { hang }), ...(fresh && { fresh }) }, record => {
        if ('snapshot' in record) for (const finding of record.snapshot) onFinding?.(finding)
        else if ('change' in record) onFinding?.(record.change)
      })
    },
    async reportWaits() {
      await request({ kind: 'report-waits' })
    },
    counts: () => ask('counts', { kind: 'counts' }),
    who: () =>
      allParts(async from => {
        const { who: part, total } = await ask('who', { kind: 'who', from })
        return { part, total }
      }),
    health: () =>
      allParts(async from => {
        const { health: part, total } = await ask('health', { kind: 'health', from })
        return { part, total }
      }),
    lent: () =>
      allParts(async from => {
        const { lent: part, total } = await ask('lent', { kind: 'lent', from })
        return { part, total }
      }),
    orders: () =>
      allParts(async from => {
        const { orders: part, total } = await ask('orders', { kind: 'orders', from })
        return { part, total }
      }),
    close: () => finish(daemonEnded()),
  }
}
