/*
 * The subscriptions of a tool's session (uapi/tool.ts, `Topics`): which changes of the daemon go into its queue.
 */

import { fstatSync } from 'node:fs'
import type { Account, Limit } from '../../core/model.ts'
import { addTo, removeFrom, requireShare } from '../../core/objects/limits.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import { close } from '../../host/net/sockets.ts'
import { CallError } from '../../spec/errno.ts'
import type { LendRecord, TormentRecord, TraceEvent } from '../../spec/records.ts'
import type { Decisions } from '../../transport/phy/faults/torment-decisions.ts'
import {
  MAX_INTERVAL,
  MIN_INTERVAL,
  recordTexts,
  type SubscribeRequest,
  type ToolReply,
  traceTexts,
} from '../../uapi/tool.ts'
import type { DaemonChecker } from '../check/checker.ts'
import type { Containment } from '../containment.ts'
import type { Devices } from '../devices/devices.ts'
import type { Network } from '../devices/network.ts'
import type { TraceHub } from '../trace/trace-hub.ts'
import type { SharedState } from './shared-state.ts'
import type { Feed, Source, ToolQueue } from './tool-queue.ts'
import type { ToolStates } from './tool-states.ts'

/** Of a session. */
const MAX_SUBSCRIPTIONS = 16
/** Milliseconds: a state that was read so short a time ago is not read again at the end of an interval. */
const MAX_AGE = MIN_INTERVAL / 2
/** Maximum findings in a snapshot; the others follow as changes. A record of longer findings would not be sent. */
const MAX_SNAPSHOT = 100

export const FINDINGS_REFUSED = 'only the user of this daemon may see findings'
export const NOT_CHECKED = 'this daemon does not check programs; start it with --check'

type Fields = Partial<Record<string, unknown>>
type Request<T extends SubscribeRequest['topic']> = Extract<SubscribeRequest, { readonly topic: T }>

const isInteger = (value: unknown): value is number => Number.isSafeInteger(value)
const isBoolean = (value: unknown): value is boolean => typeof value === 'boolean'

/** The request, without unknown fields; undefined if it is invalid. */
export const parseSubscribe = (fields: Fields): SubscribeRequest | undefined => {
  const { topic, tag = '', pcap = false, abi = false, hang, interval, qps = false, fresh = false } = fields
  const kind = 'subscribe'
  switch (topic) {
    case 'trace':
      return typeof tag === 'string' && isBoolean(pcap) && isBoolean(abi) ? { kind, topic, tag, pcap, abi } : undefined
    case 'findings':
      if (!isBoolean(fresh)) return undefined
      return { kind, topic, ...(typeof hang === 'number' && { hang }), ...(fresh && { fresh }) }
    case 'stat':
      return isInteger(interval) && isBoolean(qps) ? { kind, topic, interval, qps } : undefined
    case 'devices':
      return { kind, topic }
    case 'faults':
      return isInteger(interval) ? { kind, topic, interval } : undefined
    default:
      return undefined
  }
}

interface Subscription {
  readonly feed: Feed
  /** Of a topic with a snapshot. */
  readonly source?: Source
  /** Call when the answer is queued: what follows it. */
  start?(): void
  end(): void
}

/** What tools subscribe to. */
export interface SubscribedParts {
  readonly devices: Devices
  readonly network: Network
  readonly trace: TraceHub
  /** Undefined without `userdma check`. */
  readonly check: DaemonChecker | undefined
  /** The decisions of `--torment`; undefined without the option. */
  readonly torment: Decisions | undefined
  readonly toolStates: ToolStates
  /** Counts the subscriptions of tools. */
  readonly subscriptions: Limit
  readonly containment: Containment
}

export class Subscriptions {
  readonly #daemon: SubscribedParts
  readonly #queue: ToolQueue
  readonly #account: Account
  readonly #isTrusted: boolean
  readonly #open = new Map<number, Subscription>()
  #lastId = 0
  /** Number of traces among the subscriptions. */
  #traces = 0
  /** Why the last capture ended early: the code of a system's error, or the text of another error; null: it did not. */
  captureError: string | null = null

  constructor(daemon: SubscribedParts, queue: ToolQueue, account: Account, isTrusted: boolean) {
    this.#daemon = daemon
    this.#queue = queue
    this.#account = account
    this.#isTrusted = isTrusted
  }

  /**
   * Opens a subscription. `file`: descriptor of the capture file; stays open unless the answer is an error. Call
   * `start` when the answer is queued.
   */
  open(request: SubscribeRequest, file: number | undefined): ToolReply {
    if (this.#open.size === MAX_SUBSCRIPTIONS)
      return { error: `this session has ${MAX_SUBSCRIPTIONS} subscriptions, the maximum; end one first` }
    const { subscriptions } = this.#daemon
    try {
      requireShare(subscriptions, this.#account, `subscribe ${request.topic}`)
    } catch (error) {
      if (error instanceof CallError) return { error: error.message }
      throw error
    }
    const feed = { id: this.#lastId + 1, lost: 0 }
    const opened = this.#subscribe(request, feed, file)
    if (typeof opened === 'string') return { error: opened }
    addTo(subscriptions, this.#account)
    this.#lastId = feed.id
    this.#open.set(feed.id, { feed, ...opened })
    return { subscribed: feed.id }
  }

  /** Queues the snapshot, or what precedes the first change. */
  start(id: number): void {
    const { source, start } = this.#open.get(id) ?? {}
    if (source !== undefined) this.#queue.wake(source)
    start?.()
  }

  /** Ends a subscription. */
  end(id: number): ToolReply {
    const subscription = this.#open.get(id)
    if (subscription === undefined) return { error: `this session has no subscription ${id}` }
    this.#open.delete(id)
    removeFrom(this.#daemon.subscriptions, this.#account)
    subscription.end()
    if (subscription.source !== undefined) this.#queue.end(subscription.source)
    return { unsubscribed: id, lost: subscription.feed.lost }
  }

  endAll(): void {
    for (const id of [...this.#open.keys()]) this.end(id)
  }

  /** Sends the records of calls that wait for descriptors, if this session traces. */
  settle(): void {
    if (this.#traces > 0) this.#daemon.trace.settle()
  }

  /** A string: why it is refused. */
  #subscribe(request: SubscribeRequest, feed: Feed, file: number | undefined): Omit<Subscription, 'feed'> | string {
    switch (request.topic) {
      case 'trace':
        return this.#trace(request, feed, file)
      case 'findings':
        return this.#watchFindings(request, feed)
      case 'stat':
        return this.#watchStat(request, feed)
      case 'devices':
        return this.#watchDevices(feed)
      case 'faults':
        return this.#atIntervals(request.interval, feed, this.#daemon.toolStates.faults)
    }
  }

  #trace(
    { tag, pcap, abi = false }: Request<'trace'>,
    feed: Feed,
    file: number | undefined,
  ): Omit<Subscription, 'feed'> | string {
    if (!this.#isTrusted) return 'only the user of this daemon may watch calls and packets'
    if (pcap && file === undefined) return 'a capture needs the descriptor of a file'
    const stopCapture = file === undefined ? () => {} : this.#capture(file)
    if (typeof stopCapture === 'string') return stopCapture
    const post = (change: TraceEvent | TormentRecord | LendRecord): void =>
      this.#queue.post(feed, { id: feed.id, change })
    const unsubscribe = this.#daemon.trace.subscribe({ tag, abi, post, postFailure: post })
    const stopLends = this.#daemon.check?.door.traceLends(tag, post)
    let stopTorment: (() => void) | undefined
    this.#traces++
    return {
      // The listener gets the decisions about the devices' limits at once.
      start: () => {
        stopTorment = this.#daemon.torment?.listen((torment, device) =>
          post({ time: performance.timeOrigin + nowMicroseconds() / 1000, device, torment }),
        )
      },
      end: () => {
        this.#traces--
        unsubscribe()
        stopLends?.()
        stopTorment?.()
        stopCapture()
      },
    }
  }

  /** Captures packets in the file. The returned function ends that and closes it; a string: why it is refused. */
  #capture(file: number): (() => void) | string {
    try {
      if (!fstatSync(file).isFile()) return 'packets can be written to a regular file only'
      const { network, devices } = this.#daemon
      // A later device has no tap, so the receiver captures its packets.
      const captured = new Set(devices.linked)
      this.captureError = null
      const stop = network.capture(
        file,
        address => devices.hasAddress(address, captured),
        error => {
          this.captureError = error instanceof Error && 'code' in error ? String(error.code) : String(error)
        },
      )
      return () => {
        stop()
        close(file)
      }
    } catch (error) {
      return `packets cannot be written to this file: ${String(error)}`
    }
  }

  #watchFindings({ hang, fresh = false }: Request<'findings'>, { id }: Feed): Omit<Subscription, 'feed'> | string {
    const { check } = this.#daemon
    if (!this.#isTrusted) return FINDINGS_REFUSED
    if (check === undefined) return NOT_CHECKED
    if (hang !== undefined) check.waits.reportAfter(hang)
    let sent = fresh ? check.door.beginFresh() : undefined
    const source: Source = {
      *next() {
        yield
        if (sent === undefined) {
          const snapshot = check.door.findings.slice(0, MAX_SNAPSHOT)
          sent = snapshot.length
          return traceTexts({ id, snapshot })
        }
        const change = check.door.findings[sent]
        if (change === undefined) return undefined
        sent++
        return traceTexts({ id, change })
      },
    }
    const wake = (): void => {
      // The snapshot has the earlier ones.
      if (sent !== undefined) this.#queue.wake(source)
    }
    return { source, end: check.subscribe(wake) }
  }

  #watchStat({ interval, qps = false }: Request<'stat'>, feed: Feed): Omit<Subscription, 'feed'> | string {
    if (qps && !this.#isTrusted) return 'only the user of this daemon may see queue pairs and what programs wait for'
    const { stat, statWithQps } = this.#daemon.toolStates
    return this.#atIntervals(interval, feed, qps ? statWithQps : stat)
  }

  #watchDevices({ id }: Feed): Omit<Subscription, 'feed'> {
    const { devices, toolStates } = this.#daemon
    const { source, expect, end } = this.#follow(id, toolStates.devices)
    const refresh = (): void => expect(0)
    const listener = { added: refresh, renamed: refresh, removed: refresh }
    devices.listeners.add(listener)
    return {
      source,
      end: () => {
        devices.listeners.delete(listener)
        end()
      },
    }
  }

  /** `interval`: milliseconds between a record and the next. */
  #atIntervals(interval: number, { id }: Feed, state: SharedState): Omit<Subscription, 'feed'> | string {
    if (interval < MIN_INTERVAL || interval > MAX_INTERVAL)
      return `interval ${interval} is not from ${MIN_INTERVAL} to ${MAX_INTERVAL} milliseconds`
    const { source, expect, end } = this.#follow(id, state, () => timer.refresh())
    const timer = setTimeout(
      this.#daemon.containment.guard('a subscription', () => expect(MAX_AGE)),
      interval,
    ).unref()
    return {
      source,
      end: () => {
        clearTimeout(timer)
        end()
      },
    }
  }

  /**
   * A state: its record is made when it can be sent, first as a snapshot, and after each `expect` (`maxAge` in
   * milliseconds) as a merge patch, if it has changed. `isTaken` is called when the tool has got that.
   */
  #follow(id: number, state: SharedState, isTaken = (): void => {}) {
    const follower = state.follow()
    const source: Source = {
      *next() {
        const parts = yield* state.next(follower)
        if (parts === undefined) isTaken()
        return parts && recordTexts(id, parts)
      },
    }
    return {
      source,
      expect: (maxAge: number): void => {
        state.expect(follower, maxAge * 1000)
        this.#queue.wake(source)
      },
      end: () => state.end(follower),
    }
  }
}
