/*
 * RaceFeed finds the thread and stack of each post and poll: it joins the event logs of programs with the requests and
 * completions of devices.
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { OmissionId } from '../../../../src/spec/check/omissions.ts'
import type { LoggedEvent } from '../../../../src/spec/check/probes.ts'
import type { WorkRequest } from '../../../../src/spec/check/requests.ts'
import { EventKind, PostQueue } from '../../../../src/spec/session.ts'
import { WrOpcode } from '../../../../src/spec/work.ts'
import { type Posted, RaceFeed } from '../../../../src/tools/check/races/feed.ts'
import { type Race, Races } from '../../../../src/tools/check/races/races.ts'
import { AccessKind } from '../../../../src/tools/check/races/shadow.ts'
import { workRequest } from '../requests.ts'

const { POLL, REFUSED } = EventKind
const { SEND, RECEIVE, SHARED } = PostQueue
const CONTEXT = 1
/** Tests have threads 1 to 3, queue pairs 5 to 7 and 15, and CQs 21 and 22. The CQ with handle h has the id CQ + h. */
const CQ = 1000
/** The handle of a CQ without entries. */
const COUNTING = 29
/** The number of the stack of a thread's posts is STACK + the thread. */
const STACK = 10

const scenario = () => {
  const races: Race<Posted>[] = []
  const omitted = new Map<OmissionId, number>()
  const omit = (id: OmissionId, count: number): void => void omitted.set(id, (omitted.get(id) ?? 0) + count)
  const cqOf = (_: number, handle: number) => ({ id: CQ + handle, isCounting: handle === COUNTING })
  const feed = new RaceFeed(new Races<Posted>(race => races.push(race), omit), cqOf, omit)
  const region = { isDeregistered: false }
  let logged: LoggedEvent[] = []
  let time = 1000
  let ids = 0
  const tick = (): number => {
    time += 100
    return time
  }
  const counts = new Map<string, number>()
  /** `number`: of the queue pair or CQ. `at`: the time. */
  const log = (
    thread: number,
    kind: number,
    number: number,
    { count = 1, wrId = 0n, at = tick() }: { count?: number; wrId?: bigint; at?: number } = {},
  ): void => {
    const entry = { acquired: 0, wrId, process: 1, thread, kind, context: CONTEXT, number, count }
    logged.push({ ...entry, time: at, stack: STACK + thread })
  }
  const request = (queue: number, qp: number, wrId: bigint, changes: Partial<WorkRequest> = {}): WorkRequest => {
    const key = `${queue} ${qp}`
    const index = counts.get(key) ?? 0
    counts.set(key, index + 1)
    return workRequest({
      ...{ id: ++ids, time, owner: qp, queue, number: qp, index, wrId },
      opcode: queue === SEND ? WrOpcode.values.RDMA_WRITE : -1,
      ...changes,
    })
  }
  const threadOf = ({ request }: Race<Posted>['first']): number => request.info.stack - STACK
  const scenario = {
    races,
    feed,
    omitted,
    log,
    /** The device fetches a WRITE. All WRITEs have the same target, so unordered WRITEs race. */
    write(qp: number, { wrId = 0n, isReliable = true, isSignaled = true } = {}): WorkRequest {
      const created = request(SEND, qp, wrId, { isSignaled })
      const range = { space: 1, start: 0x1000, end: 0x1040, kind: AccessKind.WRITE, region }
      const seen = {
        request: created,
        context: CONTEXT,
        kind: 'WRITE',
        isFenced: false,
        ranges: [range],
        isReliable,
      } as const
      feed.add({ event: 'send', ...seen, time: tick() })
      return created
    },
    receive(qp: number): WorkRequest {
      const created = request(RECEIVE, qp, 0n)
      const seen = {
        request: created,
        context: CONTEXT,
        kind: 'RECEIVE',
        isFenced: false,
        ranges: [],
        isReliable: true,
      } as const
      feed.add({ event: 'receive', ...seen, time: tick() })
      return created
    },
    end: (created: WorkRequest): void => feed.add({ event: 'end', request: created, time: tick() }),
    /** `handle`: of the CQ. `message`: the send that filled the receive. */
    complete(created: WorkRequest, handle: number, message?: WorkRequest): void {
      const filled = created.queue === SEND ? undefined : { qp: created.owner, message, ranges: [] }
      feed.add({ event: 'completion', request: created, time: tick(), cq: CQ + handle, filled })
    },
    join(readStart = Number.POSITIVE_INFINITY): void {
      feed.join(logged, readStart)
      logged = []
    },
    /** The queue pair was reset. */
    forgetQp: (qp: number): void => feed.forget(qp, CONTEXT, 'qp', qp),
    /** The posting threads of the two requests of each race, by the stacks of the posts. */
    threads: () => races.map(({ first, second }) => [first, second].map(threadOf)),
    now: () => time,
  }
  return scenario
}

describe('races: logs and devices', () => {
  it('a poll may be logged before the completion is reported', () => {
    const { log, write, complete, join, races, now } = scenario()
    log(1, SEND, 5)
    const one = write(5)
    const polled = now() + 50
    complete(one, 21)
    log(1, POLL, 21, { at: polled })
    log(1, SEND, 6)
    write(6)
    join()
    assert.deepEqual(races, [])
  })

  it('polls of two threads are distinguished by wr_id, in any order of the log', () => {
    const { log, write, complete, join, threads } = scenario()
    log(1, SEND, 5)
    log(1, SEND, 7)
    const [one, other] = [write(7, { wrId: 70n }), write(5, { wrId: 50n })]
    complete(one, 21)
    complete(other, 21)
    log(2, POLL, 21, { wrId: 50n })
    log(2, SEND, 6)
    write(6)
    log(1, POLL, 21, { wrId: 70n })
    join()
    assert.deepEqual(
      threads().map(([, second]) => second),
      [1],
    )
  })

  it('one log entry may have several requests; refused requests are no posts', () => {
    const { log, write, complete, join, threads } = scenario()
    log(1, SEND, 5, { count: 3 })
    log(1, REFUSED | SEND, 5)
    const all = [write(5), write(5)]
    for (const one of all) complete(one, 21)
    log(1, POLL, 21, { count: 2 })
    log(2, SEND, 5)
    write(5)
    log(1, SEND, 6)
    write(6)
    join()
    assert.deepEqual(threads(), [[2, 1]])
  })

  it('a thread’s refused request is not the post of another thread', () => {
    const { log, write, join, threads } = scenario()
    log(1, SEND, 5, { wrId: 1n })
    log(2, SEND, 5, { wrId: 2n })
    log(1, REFUSED | SEND, 5)
    write(5, { wrId: 2n })
    log(3, SEND, 6)
    write(6)
    join()
    assert.deepEqual(
      threads().map(([first]) => first),
      [2],
    )
  })

  it('a post may be logged with a slightly later time than the fetch of its request', () => {
    const { feed, log, write, join, now } = scenario()
    write(5)
    log(1, SEND, 5, { at: now() + 20 })
    join()
    assert.deepEqual([feed.joinedRequests, feed.requestsWithoutPost], [1, 0])
  })

  it('requests of concurrent threads are distinguished by wr_id', () => {
    const { log, write, join, threads } = scenario()
    log(1, SEND, 5, { wrId: 1n })
    log(2, SEND, 5, { wrId: 2n })
    write(5, { wrId: 2n })
    log(3, SEND, 6)
    write(6)
    join()
    assert.deepEqual(
      threads().map(([first]) => first),
      [2],
    )
  })

  it('a poll of a counting CQ has no wr_id', () => {
    const { log, write, complete, join, threads } = scenario()
    log(1, SEND, 5)
    log(2, SEND, 5)
    const [one, other] = [write(5, { wrId: 1n }), write(5)]
    complete(one, COUNTING)
    complete(other, COUNTING)
    // Thread 3 has read the count before the second completion.
    log(3, POLL, COUNTING)
    log(3, SEND, 6)
    write(6)
    join()
    assert.deepEqual(threads(), [[2, 3]])
  })

  it('an unreliable message may be received long after the poll of its send', () => {
    const { log, write, receive, complete, join, races } = scenario()
    log(2, RECEIVE, 15)
    const taken = receive(15)
    log(1, SEND, 5)
    const sent = write(5, { isReliable: false })
    complete(sent, 21)
    log(1, POLL, 21)
    join()
    complete(taken, 22, sent)
    log(2, POLL, 22)
    log(2, SEND, 6)
    write(6)
    join()
    assert.deepEqual(races, [])
  })

  it('ended sends are not counted as omissions', () => {
    // Every send is signaled, or every 100th.
    for (const [isReliable, interval] of [
      [false, 1],
      [false, 100],
      [true, 100],
    ] as const) {
      const { log, write, end, complete, join, omitted } = scenario()
      for (let i = 1; i <= 70_000; i++) {
        const isSignaled = i % interval === 0
        log(1, SEND, 5)
        const sent = write(5, { isReliable, isSignaled })
        end(sent)
        if (!isSignaled) continue
        complete(sent, 21)
        log(1, POLL, 21)
        join()
      }
      assert.deepEqual([...omitted], [])
    }
  })

  it('requests of a queue that was reset are not counted as omissions, and do not displace others', () => {
    const { log, write, receive, complete, join, omitted, races, forgetQp } = scenario()
    log(2, RECEIVE, 15)
    const early = receive(15)
    for (let i = 0; i < 700; i++) {
      log(1, RECEIVE, 5, { count: 100 })
      log(1, SEND, 5, { count: 100 })
      for (let j = 0; j < 100; j++) {
        receive(5)
        write(5)
      }
      join()
      forgetQp(5)
    }
    assert.deepEqual([...omitted], [])
    // The receive that was posted first still has its post: its message orders the two WRITEs.
    log(1, SEND, 5)
    complete(early, 22, write(5))
    log(2, POLL, 22)
    log(2, SEND, 6)
    write(6)
    join()
    assert.deepEqual(races, [])
  })

  it('a request without a logged post is left out, with later requests of its queue', () => {
    const { feed, log, write, join, races } = scenario()
    write(5)
    join()
    log(1, SEND, 5)
    write(5)
    log(1, SEND, 6)
    write(6)
    join()
    assert.deepEqual([races.length, feed.requestsWithoutPost, feed.joinedRequests], [0, 2, 1])
  })

  it('a queue with lost or uncounted posts is left out until it is reset', () => {
    const { feed, log, write, join, races, forgetQp } = scenario()
    log(1, SEND, 6)
    write(6)
    log(1, SEND, 5, { count: 0 })
    write(5)
    join()
    feed.markLogLost(CONTEXT, [], [])
    forgetQp(5)
    log(1, SEND, 5)
    write(5)
    join()
    assert.deepEqual([races.length, feed.requestsWithoutPost], [1, 1])
  })

  it('after lost entries, posts to a queue that is not in the log yet are left out', () => {
    const { feed, log, write, join } = scenario()
    feed.markLogLost(CONTEXT, [[SEND, 5]], [])
    log(1, SEND, 5)
    write(5)
    log(1, SEND, 6)
    write(6)
    join()
    assert.deepEqual([feed.requestsWithoutPost, feed.joinedRequests], [1, 1])
  })

  it('after lost polls of a CQ, a poll orders all completions so far', () => {
    for (const [isLost, racing] of [
      [true, []],
      [false, [[1, 1]]],
    ] as const) {
      const { feed, log, write, complete, join, now, threads, forgetQp } = scenario()
      log(1, SEND, 5)
      complete(write(5), 21)
      join()
      forgetQp(5)
      // The poll of the completion is not in the log.
      if (isLost) feed.markLogLost(CONTEXT, [], [CQ + 21])
      log(1, SEND, 7)
      const one = write(7)
      const polled = now() + 90
      complete(one, 21)
      log(1, POLL, 21, { at: polled })
      log(1, SEND, 6)
      write(6)
      join()
      assert.deepEqual(threads(), racing)
    }
  })

  it('a queue pair and an SRQ with the same number are forgotten separately', () => {
    for (const [kind, unseen] of [
      ['qp', 1],
      ['srq', 2],
    ] as const) {
      const { feed, log, join } = scenario()
      for (const queue of [SEND, RECEIVE, SHARED]) log(1, queue, 5)
      join()
      feed.forget(5, CONTEXT, kind, 5)
      assert.equal(feed.unseenPosts, unseen)
    }
  })

  it('posts that no device sees, also to nonexistent queues, are bounded and counted', () => {
    const { feed, log, write, join, forgetQp } = scenario()
    const MAX_POSTS = 2 ** 19
    const QUEUES = MAX_POSTS + 50_000
    for (let qp = 0; qp < QUEUES; qp++) log(1, SEND, qp)
    for (let i = 0; i < 20_000; i++) log(1, SEND, i % 3)
    join()
    assert.ok(feed.unseenPosts <= MAX_POSTS, `${feed.unseenPosts} posts are kept`)
    for (let qp = 0; qp < QUEUES; qp++) forgetQp(qp)
    assert.equal(feed.unseenPosts, 0)
    log(1, SEND, 5)
    log(1, SEND, 5)
    log(1, SEND | REFUSED, 5)
    join()
    assert.equal(feed.unseenPosts, 1)
    write(5)
    join()
    assert.equal(feed.unseenPosts, 0)
  })

  it('entries that are logged after the start of the reading wait for the next join', () => {
    const { log, write, complete, join, races, now } = scenario()
    log(1, SEND, 5)
    complete(write(5), 21)
    const readStart = now()
    log(2, SEND, 6)
    join(readStart)
    log(2, POLL, 21, { at: readStart + 10 })
    write(6)
    join()
    assert.deepEqual(races, [])
  })
})
