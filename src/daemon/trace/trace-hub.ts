/*
 * Records the calls of programs for subscribers, such as `userdma trace` (R46). A record contains the call as a message
 * of the object dialect, or raw bytes if it could not be decoded, and is made only while there is a subscriber.
 *
 * To see each decoded call and its answer, `watch` wraps the dialect of the call. A tool that reads too slowly loses
 * records; the next record tells how many.
 *
 * A call that creates descriptors is answered before they have numbers in the program. Its record is published later:
 * at the next message of the session, which follows the receipt of the descriptors, at the end of the session, or
 * before a query of a tool is answered.
 */
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import { type Answer, type CallerView, type Decoded, isAnswer } from '../../uapi/call.ts'
import type { FailureRecord, TraceRecord } from '../../uapi/tool.ts'
import { type Access, messagesOf, type RecordingView, recordingView } from './trace-messages.ts'

export interface Subscriber {
  /** The subscriber gets calls and failures of processes with this tag only; of all if it is empty. */
  readonly tag: string
  /** Whether the subscriber wants the raw bytes of every call. */
  readonly abi?: boolean
  post(record: TraceRecord): void
  /** Called with a failure (spec/check/failures.ts) when it occurs. */
  postFailure?(record: FailureRecord): void
}

/** The fields of a record that are known before the call is decoded. */
export type CallerFacts = Pick<TraceRecord, 'pid' | 'tid' | 'fd' | 'command' | 'device' | 'dialect' | 'request'>

/**
 * Looks up the numbers of the descriptors that a call created, in the order of the answer's installs; undefined:
 * unknown.
 */
export type DescriptorNumbers = () => readonly (number | undefined)[]

const isSubscribedTo = (subscriber: Subscriber, tag: string): boolean => subscriber.tag === '' || subscriber.tag === tag

/** `now`: microseconds. */
export class TraceHub {
  readonly #now: () => number
  readonly #subscribers = new Set<Subscriber>()
  /** Functions that publish a record, by the function that looks up its descriptor numbers. */
  readonly #waiting = new Map<DescriptorNumbers, () => void>()

  constructor(now: () => number) {
    this.#now = now
  }

  /** Adds a subscriber; the returned function removes it. */
  subscribe(subscriber: Subscriber): () => void {
    this.#subscribers.add(subscriber)
    return () => this.#subscribers.delete(subscriber)
  }

  /** Whether there is a subscriber for processes with this tag. */
  isWatched(tag: string): boolean {
    for (const subscriber of this.#subscribers) if (isSubscribedTo(subscriber, tag)) return true
    return false
  }

  /** Sends a failure to the subscribers for this tag; '': only to those for all processes. */
  postFailure(tag: string, record: FailureRecord): void {
    for (const subscriber of this.#subscribers) if (isSubscribedTo(subscriber, tag)) subscriber.postFailure?.(record)
  }

  /**
   * The dialect for a call of a process with tag `tag`: `dialect` itself, or a wrapper if the tag has a subscriber.
   * `numbers` looks up the descriptors that the session's last call created. `accesses`: the list to which the caller
   * records its reads and writes (`recordingCaller`); without it the wrapper records those of the dialect only.
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

  /**
   * Publishes the record that waits for these descriptor numbers, if there is one; without `numbers` all waiting
   * records.
   */
  settle(numbers?: DescriptorNumbers): void {
    for (const key of numbers ? [numbers] : [...this.#waiting.keys()]) {
      const publishWaiting = this.#waiting.get(key)
      this.#waiting.delete(key)
      publishWaiting?.()
    }
  }

  #wantsBytes(tag: string): boolean {
    for (const subscriber of this.#subscribers) if (subscriber.abi && isSubscribedTo(subscriber, tag)) return true
    return false
  }

  /**
   * Sends a record. Its raw bytes are only for subscribers who want them, except those of a call that was not decoded.
   */
  #post(tag: string, record: TraceRecord): void {
    const { raw, ...withoutRaw } = record
    for (const subscriber of this.#subscribers)
      if (isSubscribedTo(subscriber, tag))
        subscriber.post(subscriber.abi || record.call === undefined ? record : withoutRaw)
  }

  /** Makes a record and sends it, or lets it wait for the numbers of new descriptors. */
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
      ...(answer.reason !== undefined && { reason: answer.reason }),
      ...(answer.attempt !== undefined && { attempt: answer.attempt }),
    }
    if (answer.installs.length === 0) this.#post(tag, record)
    else
      this.#waiting.set(numbers, () => {
        const fds = numbers()
        const descriptors = answer.installs.map(({ descriptor: { attribute } }, i) => {
          const fd = fds[i]
          return fd === undefined ? { attribute } : { attribute, fd }
        })
        this.#post(tag, { ...record, descriptors })
      })
  }

  /** The decoded call, which publishes its record when it is answered. */
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
