/*
 * Records the calls of programs for subscribers, such as `userdma trace` (R46). A record contains the call as a message
 * of the object dialect, or raw bytes if the call could not be decoded. To see decoded calls and answers, `watch` wraps
 * the dialect of the call.
 *
 * When a call that creates descriptors is answered, the descriptors have no numbers in the program yet. So the record
 * waits for the session's next message, the session's end, or a request of a tool that traces.
 */
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import type { FailureRecord, TraceRecord } from '../../spec/records.ts'
import { type Access, messagesOf } from '../../tools/trace/call-messages.ts'
import { type Answer, type CallerView, type Decoded, isAnswer } from '../../uapi/call.ts'
import { type RecordingView, recordingView } from './trace-messages.ts'

interface Subscriber {
  /** Selects the processes with this tag; empty: all. */
  readonly tag: string
  /** Whether the subscriber wants the raw bytes of every call. */
  readonly abi?: boolean
  post(record: TraceRecord): void
  /** Called with each failure (spec/check/failures.ts). */
  postFailure?(record: FailureRecord): void
}

/** The fields of a record that are known before the call is decoded. */
export type CallerFacts = Pick<TraceRecord, 'pid' | 'tid' | 'fd' | 'command' | 'device' | 'dialect' | 'request'>

/** Looks up the numbers of created descriptors, in the order of `Answer.installs`; undefined: unknown. */
type DescriptorNumbers = () => readonly (number | undefined)[]

/** `ret`: negative errno. */
type Refusal = Pick<TraceRecord, 'ret' | 'reason'>

const isSubscribedTo = (subscriber: Subscriber, tag: string): boolean => subscriber.tag === '' || subscriber.tag === tag

/** `now`: microseconds. `onChange` is called when a subscription begins or ends. */
export class TraceHub {
  readonly #now: () => number
  readonly #onChange: () => void
  readonly #subscribers = new Set<Subscriber>()
  /** Functions that publish a waiting record, by the function that looks up its descriptor numbers. */
  readonly #waiting = new Map<DescriptorNumbers, (refusal?: Refusal) => void>()

  constructor(now: () => number, onChange: () => void = () => {}) {
    this.#now = now
    this.#onChange = onChange
  }

  /** The returned function ends the subscription. */
  subscribe(subscriber: Subscriber): () => void {
    this.#subscribers.add(subscriber)
    this.#onChange()
    return () => {
      this.#subscribers.delete(subscriber)
      this.#onChange()
    }
  }

  get hasSubscribers(): boolean {
    return this.#subscribers.size > 0
  }

  /** Whether processes with this tag have a subscriber. */
  isWatched(tag: string): boolean {
    for (const subscriber of this.#subscribers) if (isSubscribedTo(subscriber, tag)) return true
    return false
  }

  /** Sends a failure to the subscribers for this tag; '': to the subscribers for all processes. */
  postFailure(tag: string, record: FailureRecord): void {
    for (const subscriber of this.#subscribers) if (isSubscribedTo(subscriber, tag)) subscriber.postFailure?.(record)
  }

  /**
   * Returns `dialect`, or a wrapper if `tag` has a subscriber. `numbers` looks up the descriptors that the session's
   * last call created. `accesses`: the list of a `recordingCaller`; without it only the dialect's reads and writes are
   * recorded.
   */
  watch<M extends readonly unknown[]>(
    dialect: Dialect<M>,
    tag: string,
    facts: () => CallerFacts,
    numbers: DescriptorNumbers,
    accesses?: Access[],
  ): Dialect<M> {
    if (!this.isWatched(tag)) return dialect
    return (view, ...message) => {
      const started = this.#now()
      const recording = recordingView(view, accesses)
      const decoded = dialect(recording.view, ...message)
      if (!isAnswer(decoded)) return this.#recordedCall(view, recording, decoded, tag, facts(), numbers, started)
      this.#publish(tag, facts(), numbers, decoded, started, recording)
      return decoded
    }
  }

  /** Publishes the record that waits for these descriptor numbers, or all waiting records. */
  settle(numbers?: DescriptorNumbers): void {
    for (const key of numbers ? [numbers] : [...this.#waiting.keys()]) {
      const publishWaiting = this.#waiting.get(key)
      this.#waiting.delete(key)
      publishWaiting?.()
    }
  }

  /**
   * Publishes the record that waits for these descriptor numbers as a refused call: the caller could not get the
   * descriptors, so the call was undone.
   */
  refuse(numbers: DescriptorNumbers, refusal: Refusal): void {
    const publishWaiting = this.#waiting.get(numbers)
    this.#waiting.delete(numbers)
    publishWaiting?.(refusal)
  }

  #wantsBytes(tag: string): boolean {
    for (const subscriber of this.#subscribers) if (subscriber.abi && isSubscribedTo(subscriber, tag)) return true
    return false
  }

  /** Sends a record. All subscribers get the raw bytes of a call that was not decoded. */
  #post(tag: string, record: TraceRecord): void {
    const { raw, ...withoutRaw } = record
    for (const subscriber of this.#subscribers)
      if (isSubscribedTo(subscriber, tag))
        subscriber.post(subscriber.abi || record.call === undefined ? record : withoutRaw)
  }

  /** Makes a record. Sends it, or lets it wait for the numbers of new descriptors. */
  #publish(
    tag: string,
    facts: CallerFacts,
    numbers: DescriptorNumbers,
    answer: Answer,
    started: number,
    recording: RecordingView,
    call?: TraceRecord['call'],
  ): void {
    const duration = Math.round((this.#now() - started) * 1000) / 1000
    const record: TraceRecord = {
      time: performance.timeOrigin + started / 1000,
      duration,
      ...facts,
      ...(call && { call }),
      ...((call === undefined || this.#wantsBytes(tag)) && { raw: recording.raw() }),
      ret: answer.ret,
      ...(answer.reason !== undefined && { reason: answer.reason.toJSON() }),
      ...(answer.attempt !== undefined && { attempt: answer.attempt }),
    }
    if (answer.installs.length === 0) this.#post(tag, record)
    else
      this.#waiting.set(numbers, refusal => {
        if (refusal !== undefined) {
          this.#post(tag, { ...record, ...refusal })
          return
        }
        const fds = numbers()
        const descriptors = answer.installs.map(({ descriptor: { attribute } }, i) => {
          const fd = fds[i]
          return fd === undefined ? { attribute } : { attribute, fd }
        })
        this.#post(tag, { ...record, descriptors })
      })
  }

  /** Wraps a decoded call: when the call is answered, its record is published. */
  #recordedCall(
    view: CallerView,
    recording: RecordingView,
    decoded: Decoded,
    tag: string,
    facts: CallerFacts,
    numbers: DescriptorNumbers,
    started: number,
  ): Decoded {
    return {
      call: decoded.call,
      legacy: decoded.legacy,
      answer: outcome => {
        const answer = decoded.answer(outcome)
        this.#publish(
          tag,
          facts,
          numbers,
          answer,
          started,
          recording,
          messagesOf(view, decoded.call, outcome, recording.accesses),
        )
        return answer
      },
    }
  }
}
