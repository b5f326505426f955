/*
 * Who watches calls, and what they are told (R46, issue text "trace"): records in the object dialect, made only while
 * somebody watches.
 *
 * A dialect is wrapped, not changed: the wrapper sees each decoded call and its answer. A tool that reads too slowly
 * loses calls, never silently: the next record says how many.
 */
import type { Dialect } from '../core/dispatch.ts'
import { CallError } from '../spec/errno.ts'
import { type Answer, type Call, type CallerView, type Decoded, isAnswer, type Result } from '../uapi/call.ts'
import { decodeMessage, encodeCall } from '../uapi/object.ts'
import type { TraceRecord } from '../uapi/tool.ts'

export interface Subscriber {
  /** Watches calls of processes with this tag; all, if it is empty. */
  readonly tag: string
  post(record: TraceRecord): void
}

/** What a record says about the caller. */
export type CallerFacts = Pick<TraceRecord, 'pid' | 'tid' | 'fd' | 'command' | 'device' | 'dialect'>

export interface TraceHub {
  subscribe(subscriber: Subscriber): () => void
  /** The dialect to use for a call of a process tagged `tag`: the one given, or one that is watched. */
  watch<M extends readonly unknown[]>(dialect: Dialect<M>, tag: string, facts: () => CallerFacts): Dialect<M>
}

const base64 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')

/** The two messages of a call in the object dialect. What does not encode (a refused value) is told without them. */
const messagesOf = (view: CallerView, call: Call, outcome: Result | CallError): TraceRecord['call'] => {
  const ids = { classId: call.class.id, call: call.method.call }
  try {
    const message = encodeCall(call)
    if (outcome instanceof CallError) return { ...ids, message: base64(message), answer: '' }
    const answer = decodeMessage(view, call.method.call, message).answer(outcome).message
    return { ...ids, message: base64(message), answer: base64(answer) }
  } catch (error) {
    if (!(error instanceof CallError)) throw error
    return { ...ids, message: '', answer: '' }
  }
}

export const createTraceHub = (now: () => number): TraceHub => {
  const subscribers = new Set<Subscriber>()

  const publish = (
    tag: string,
    facts: CallerFacts,
    answer: Answer,
    started: number,
    call?: TraceRecord['call'],
  ): void => {
    const duration = now() - started
    const record: TraceRecord = {
      time: performance.timeOrigin + started / 1000,
      duration,
      ...facts,
      ...(call && { call }),
      ret: answer.ret,
      ...(answer.reason !== undefined && { reason: answer.reason }),
      ...(answer.attempt !== undefined && { attempt: answer.attempt }),
    }
    for (const subscriber of subscribers) if (subscriber.tag === '' || subscriber.tag === tag) subscriber.post(record)
  }

  const isWatched = (tag: string): boolean => {
    for (const subscriber of subscribers) if (subscriber.tag === '' || subscriber.tag === tag) return true
    return false
  }

  const watched = (view: CallerView, decoded: Decoded, tag: string, facts: CallerFacts, started: number): Decoded => ({
    call: decoded.call,
    legacy: decoded.legacy,
    answer(outcome) {
      const answer = decoded.answer(outcome)
      publish(tag, facts, answer, started, messagesOf(view, decoded.call, outcome))
      return answer
    },
  })

  return {
    subscribe(subscriber) {
      subscribers.add(subscriber)
      return () => subscribers.delete(subscriber)
    },
    watch(dialect, tag, facts) {
      if (!isWatched(tag)) return dialect
      return (view, ...message) => {
        const started = now()
        const decoded = dialect(view, ...message)
        if (!isAnswer(decoded)) return watched(view, decoded, tag, facts(), started)
        publish(tag, facts(), decoded, started)
        return decoded
      }
    },
  }
}
