/*
 * Scripts for the race engine: threads post, devices fetch and deliver, threads poll, in virtual time.
 */
import { type NewRequest, type Race, Races, type Request, type Stamp } from '../../../src/check/races/races.ts'
import { AccessKind, type Range } from '../../../src/check/races/shadow.ts'

/** A range of memory: its process, first address and bytes. */
export type Place = readonly [process: number, start: number, length: number]

export type Made = Request<string>

/** A queue pair: its send queue, and the messages that it receives. */
export interface Qp {
  readonly sends: number
  readonly receives: number
}

interface Options {
  readonly isFenced?: boolean
  /** The device fetches it only with the script's `fetch`. */
  readonly isLate?: boolean
}

interface Late {
  readonly qp: Qp
  readonly stamp: Stamp
  readonly what: NewRequest
}

export const script = () => {
  const races: Race<string>[] = []
  const engine = new Races<string>(
    race => races.push(race),
    () => {},
  )
  const region = { isGone: false }
  const acquired = new Map<number, number>()
  const late: Late[] = []
  let time = 1000
  let ids = 0
  const now = (): number => ++time
  const range = ([space, start, length]: Place, kind: number): Range => ({
    space,
    start,
    end: start + length,
    kind,
    region,
  })
  const post = (thread: number): Stamp => engine.post(thread, now(), acquired.get(thread) ?? 0)
  const send = (
    kind: NewRequest['kind'],
    thread: number,
    qp: Qp,
    ranges: readonly Range[],
    { isFenced = false, isLate = false }: Options = {},
  ): Made => {
    const stamp = post(thread)
    const what = { kind, isFenced, ranges }
    if (isLate) {
      late.push({ qp, stamp, what })
      return undefined as never
    }
    return engine.fetch(qp.sends, stamp, what, kind, now())!
  }
  const steps = {
    engine,
    races,
    region,
    /** Ids of the races in order of discovery, with `!` if proven. */
    get found(): string[] {
      return [...new Set(races.map(({ id, isProven }) => (isProven ? `${id}!` : id)))]
    },
    qp(isReliable = true): Qp {
      const qp = { sends: ++ids, receives: ++ids }
      engine.open(qp.sends, isReliable)
      engine.open(qp.receives, true)
      return qp
    },
    write: (thread: number, qp: Qp, from: Place | undefined, to: Place, options?: Options): Made =>
      send(
        'WRITE',
        thread,
        qp,
        [...(from ? [range(from, AccessKind.SOURCE)] : []), range(to, AccessKind.WRITE)],
        options,
      ),
    read: (thread: number, qp: Qp, from: Place, to: Place, options?: Options): Made =>
      send('READ', thread, qp, [range(from, AccessKind.READ), range(to, AccessKind.RESULT)], options),
    atomic: (thread: number, qp: Qp, on: Place, result: Place, options?: Options): Made =>
      send('ATOMIC', thread, qp, [range(on, AccessKind.ATOMIC), range(result, AccessKind.RESULT)], options),
    send: (thread: number, qp: Qp, from?: Place, options?: Options): Made =>
      send('SEND', thread, qp, from ? [range(from, AccessKind.SOURCE)] : [], options),
    /** The device fetches the requests with `isLate`. */
    fetch(): Made[] {
      return late.splice(0).map(({ qp, stamp, what }) => engine.fetch(qp.sends, stamp, what, what.kind, now())!)
    },
    /** A thread posts a receive. */
    receive: post,
    /** A message arrives at a queue pair and fills a receive. */
    deliver: (sender: Made | undefined, qp: Qp, stamp: Stamp, into?: Place): Made =>
      engine.receive(qp.receives, stamp, sender, into ? [range(into, AccessKind.RESULT)] : [], 'RECEIVE', now())!,
    end: (...requests: readonly Made[]): void => {
      for (const request of requests) engine.end(request, now())
    },
    /** Completions come, and a thread polls them from a CQ of its own. */
    poll(thread: number, ...requests: readonly Made[]): void {
      steps.pollFrom(100 + thread, thread, ...requests)
    },
    pollFrom(cq: number, thread: number, ...requests: readonly Made[]): void {
      for (const request of requests) if (request.ended === Number.POSITIVE_INFINITY) engine.end(request, now())
      engine.poll(thread, now(), acquired.get(thread) ?? 0, cq, requests)
    },
    /** A SEND of one thread that another one receives. */
    message(from: number, fromQp: Qp, to: number, toQp: Qp): Made {
      const stamp = post(to)
      const sent = send('SEND', from, fromQp, [])
      steps.poll(to, steps.deliver(sent, toQp, stamp))
      return sent
    },
    /** Threads wait for each other, without RDMA: a barrier, a pipe, a mutex. */
    meet(...threads: readonly number[]): void {
      for (const thread of threads) acquired.set(thread, now())
    },
  }
  return steps
}

export type Script = ReturnType<typeof script>
