/*
 * Subscribers to traced calls (R46). Records are in the object dialect, and are made only while there is a subscriber.
 *
 * A dialect is wrapped, not changed: the wrapper sees each decoded call and its answer. A tool that reads too slowly
 * loses records; the next record tells how many.
 *
 * A call that creates descriptors is answered before their numbers are known, which the program's kernel assigns. Such
 * a record waits for the program's next message, when the numbers can be looked up.
 */
import type { Dialect } from '../../core/dispatch/dispatch.ts'
import { type Answer, type CallerView, type Decoded, isAnswer } from '../../uapi/call.ts'
import type { FailureRecord, TraceRecord } from '../../uapi/tool.ts'
import { type Access, messagesOf, type RecordingView, recordingView } from './trace-messages.ts'

export interface Subscriber {
  /** Calls of processes with this tag only; all if empty. */
  readonly tag: string
  /** Whether the subscriber wants the raw bytes of every call. */
  readonly abi?: boolean
  post(record: TraceRecord): void
  /** Called with a failure when it occurs. */
  postFailure?(record: FailureRecord): void
}

/** The part of a record that describes the caller. */
export type CallerFacts = Pick<TraceRecord, 'pid' | 'tid' | 'fd' | 'command' | 'device' | 'dialect' | 'request'>

export type Numbers = () => readonly (number | undefined)[]

export interface TraceHub {
  subscribe(subscriber: Subscriber): () => void
  /**
   * The dialect for a call of a process tagged `tag`: `dialect` itself, or wrapped if the tag has a subscriber.
   * `numbers` returns the process's descriptor numbers that its last call created, in the order of the answer's
   * installs. `accesses`: the recorded reads and writes of the caller, if the caller is recorded (`isWatched`);
   * otherwise those through the view are recorded.
   */
  watch<M extends readonly unknown[]>(
    dialect: Dialect<M>,
    tag: string,
    facts: () => CallerFacts,
    numbers: Numbers,
    accesses?: Access[],
  ): Dialect<M>
  /** Sends a failure to subscribers of this tag; a failure without a program only to subscribers of all. */
  postFailure(tag: string, record: FailureRecord): void
  /** Whether there is a subscriber for processes with this tag. */
  isWatched(tag: string): boolean
  /** Publishes the record that waits for these numbers; without `numbers` all waiting records. */
  settle(numbers?: Numbers): void
}

export const createTraceHub = (now: () => number): TraceHub => {
  const subscribers = new Set<Subscriber>()
  const waiting = new Map<Numbers, () => void>()

  const watches = (subscriber: Subscriber, tag: string): boolean => subscriber.tag === '' || subscriber.tag === tag

  const wantsBytes = (tag: string): boolean => {
    for (const subscriber of subscribers) if (subscriber.abi && watches(subscriber, tag)) return true
    return false
  }

  /** The raw bytes of a call that could not be decoded are sent to all subscribers. */
  const post = (tag: string, record: TraceRecord): void => {
    const { raw, ...rest } = record
    for (const subscriber of subscribers)
      if (watches(subscriber, tag)) subscriber.post(subscriber.abi || record.call === undefined ? record : rest)
  }

  const publish = (
    tag: string,
    facts: CallerFacts,
    numbers: Numbers,
    answer: Answer,
    started: number,
    recording: RecordingView,
    call?: TraceRecord['call'],
  ): void => {
    const duration = Math.round((now() - started) * 1000) / 1000
    const record: TraceRecord = {
      time: performance.timeOrigin + started / 1000,
      duration,
      ...facts,
      ...(call && { call }),
      ...((call === undefined || wantsBytes(tag)) && { raw: recording.raw() }),
      ret: answer.ret,
      ...(answer.reason !== undefined && { reason: answer.reason }),
      ...(answer.attempt !== undefined && { attempt: answer.attempt }),
    }
    if (answer.installs.length === 0) post(tag, record)
    else
      waiting.set(numbers, () => {
        const found = numbers()
        const descriptors = answer.installs.map(({ descriptor: { attribute } }, i) => {
          const fd = found[i]
          return fd === undefined ? { attribute } : { attribute, fd }
        })
        post(tag, { ...record, descriptors })
      })
  }

  const isWatched = (tag: string): boolean => {
    for (const subscriber of subscribers) if (watches(subscriber, tag)) return true
    return false
  }

  const watched = (
    view: CallerView,
    recording: RecordingView,
    decoded: Decoded,
    tag: string,
    facts: CallerFacts,
    numbers: Numbers,
    started: number,
  ): Decoded => ({
    call: decoded.call,
    legacy: decoded.legacy,
    answer(outcome) {
      const answer = decoded.answer(outcome)
      publish(
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
  })

  return {
    subscribe(subscriber) {
      subscribers.add(subscriber)
      return () => subscribers.delete(subscriber)
    },
    isWatched,
    postFailure(tag, record) {
      for (const subscriber of subscribers) if (watches(subscriber, tag)) subscriber.postFailure?.(record)
    },
    watch(dialect, tag, facts, numbers, accesses) {
      if (!isWatched(tag)) return dialect
      return (view, ...message) => {
        const started = now()
        const recording = recordingView(view, accesses)
        const decoded = dialect(recording.view, ...message)
        if (!isAnswer(decoded)) return watched(view, recording, decoded, tag, facts(), numbers, started)
        publish(tag, facts(), numbers, decoded, started, recording)
        return decoded
      }
    },
    settle(numbers) {
      for (const key of numbers ? [numbers] : [...waiting.keys()]) {
        const deliver = waiting.get(key)
        waiting.delete(key)
        deliver?.()
      }
    },
  }
}
