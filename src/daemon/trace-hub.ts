/*
 * Who watches calls, and what they are told (R46, issue text "trace"): records in the object dialect, made only while
 * somebody watches.
 *
 * A dialect is wrapped, not changed: the wrapper sees each decoded call and its answer. A tool that reads too slowly
 * loses calls, never silently: the next record says how many.
 *
 * A call that makes descriptors is answered before the program knows their numbers, which it chooses itself. Such a
 * record waits for the program's next message: by then they can be looked up.
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

export type Numbers = () => readonly (number | undefined)[]

export interface TraceHub {
  subscribe(subscriber: Subscriber): () => void
  /**
   * The dialect to use for a call of a process tagged `tag`: the one given, or one that is watched. `numbers` tells the
   * process's numbers of the descriptors that its last call has made, in the order of the answer's installs.
   */
  watch<M extends readonly unknown[]>(
    dialect: Dialect<M>,
    tag: string,
    facts: () => CallerFacts,
    numbers: Numbers,
  ): Dialect<M>
  /** Publishes the record that waits for these numbers; without `numbers` all that wait. */
  settle(numbers?: Numbers): void
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
  const waiting = new Map<Numbers, () => void>()

  const post = (tag: string, record: TraceRecord): void => {
    for (const subscriber of subscribers) if (subscriber.tag === '' || subscriber.tag === tag) subscriber.post(record)
  }

  const publish = (
    tag: string,
    facts: CallerFacts,
    numbers: Numbers,
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
    for (const subscriber of subscribers) if (subscriber.tag === '' || subscriber.tag === tag) return true
    return false
  }

  const watched = (
    view: CallerView,
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
      publish(tag, facts, numbers, answer, started, messagesOf(view, decoded.call, outcome))
      return answer
    },
  })

  return {
    subscribe(subscriber) {
      subscribers.add(subscriber)
      return () => subscribers.delete(subscriber)
    },
    watch(dialect, tag, facts, numbers) {
      if (!isWatched(tag)) return dialect
      return (view, ...message) => {
        const started = now()
        const decoded = dialect(view, ...message)
        if (!isAnswer(decoded)) return watched(view, decoded, tag, facts(), numbers, started)
        publish(tag, facts(), numbers, decoded, started)
        return decoded
      }
    },
    settle(numbers) {
      for (const key of numbers ? [numbers] : [...waiting.keys()]) {
        const tell = waiting.get(key)
        waiting.delete(key)
        tell?.()
      }
    },
  }
}
