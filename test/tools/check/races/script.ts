/*
 * Scripts for the race engine, in virtual time.
 */
import {
  type NewRequest,
  type PostStamp,
  type Race,
  Races,
  type Request,
} from '../../../../src/tools/check/races/races.ts'
import { AccessKind, type Range } from '../../../../src/tools/check/races/shadow.ts'

export type Memory = readonly [process: number, start: number, length: number]

type RaceRequest = Request<string>

/** The engine's ids of a queue pair's two queues: its sends, and the messages that it receives. */
interface Qp {
  readonly sends: number
  readonly receives: number
}

interface Options {
  readonly isFenced?: boolean
  /** The device fetches the request only with the script's `fetch`, which returns it; the call returns undefined. */
  readonly isLate?: boolean
}

/** A posted request that the device has not fetched. */
interface LateRequest {
  readonly qp: Qp
  readonly stamp: PostStamp
  readonly request: NewRequest
}

export const script = () => {
  const races: Race<string>[] = []
  const engine = new Races<string>(
    race => races.push(race),
    () => {},
  )
  const region = { isDeregistered: false }
  const acquired = new Map<number, number>()
  const late: LateRequest[] = []
  let time = 1000
  let ids = 0
  const now = (): number => ++time
  const range = ([space, start, length]: Memory, kind: number): Range => ({
    space,
    start,
    end: start + length,
    kind,
    region,
  })
  const post = (thread: number): PostStamp => engine.post(thread, now(), acquired.get(thread) ?? 0)
  const send = (
    kind: NewRequest['kind'],
    thread: number,
    qp: Qp,
    ranges: readonly Range[],
    { isFenced = false, isLate = false }: Options = {},
  ): RaceRequest => {
    const stamp = post(thread)
    const request = { kind, isFenced, ranges }
    if (isLate) {
      late.push({ qp, stamp, request })
      return undefined as never
    }
    return engine.fetch(qp.sends, stamp, request, kind)!
  }
  const steps = {
    engine,
    races,
    region,
    /** Distinct ids of the races in order of discovery; with `!` if proven. */
    get found(): string[] {
      return [...new Set(races.map(({ id, isProven }) => (isProven ? `${id}!` : id)))]
    },
    qp(isReliable = true): Qp {
      const qp = { sends: ++ids, receives: ++ids }
      engine.open(qp.sends, isReliable)
      engine.open(qp.receives, true)
      return qp
    },
    write: (thread: number, qp: Qp, from: Memory | undefined, to: Memory, options?: Options): RaceRequest =>
      send(
        'WRITE',
        thread,
        qp,
        [...(from ? [range(from, AccessKind.SOURCE)] : []), range(to, AccessKind.WRITE)],
        options,
      ),
    read: (thread: number, qp: Qp, from: Memory, to: Memory, options?: Options): RaceRequest =>
      send('READ', thread, qp, [range(from, AccessKind.READ), range(to, AccessKind.RESULT)], options),
    atomic: (thread: number, qp: Qp, on: Memory, result: Memory, options?: Options): RaceRequest =>
      send('ATOMIC', thread, qp, [range(on, AccessKind.ATOMIC), range(result, AccessKind.RESULT)], options),
    send: (thread: number, qp: Qp, from?: Memory, options?: Options): RaceRequest =>
      send('SEND', thread, qp, from ? [range(from, AccessKind.SOURCE)] : [], options),
    /** The device fetches the requests with `isLate`. */
    fetch(): RaceRequest[] {
      return late.splice(0).map(({ qp, stamp, request }) => engine.fetch(qp.sends, stamp, request, request.kind)!)
    },
    receive: post,
    /** A message arrives at a queue pair and fills a receive. */
    deliver: (sender: RaceRequest | undefined, qp: Qp, stamp: PostStamp, into?: Memory): RaceRequest =>
      engine.receive(qp.receives, stamp, sender, into ? [range(into, AccessKind.RESULT)] : [], 'RECEIVE', now())!,
    /** The requests complete, and a thread polls the completions from its CQ, whose number is 100 + the thread's. */
    poll(thread: number, ...requests: readonly RaceRequest[]): void {
      steps.pollFrom(100 + thread, thread, ...requests)
    },
    pollFrom(cq: number, thread: number, ...requests: readonly RaceRequest[]): void {
      engine.poll(thread, now(), acquired.get(thread) ?? 0, cq, requests)
    },
    /** One thread sends, another one receives. */
    message(from: number, fromQp: Qp, to: number, toQp: Qp): RaceRequest {
      const stamp = post(to)
      const sent = send('SEND', from, fromQp, [])
      steps.poll(to, steps.deliver(sent, toQp, stamp))
      return sent
    },
    /** Threads wait for each other without RDMA, at a barrier, pipe or mutex. */
    wait(...threads: readonly number[]): void {
      for (const thread of threads) acquired.set(thread, now())
    },
  }
  return steps
}

export type Script = ReturnType<typeof script>
