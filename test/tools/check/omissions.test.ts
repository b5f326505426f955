/*
 * The checker counts what it leaves out because a table is full (spec/check/omissions.ts).
 */

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { describe, it } from 'node:test'
import { sarifLog } from '../../../src/cli/check/report.ts'
import { createProgramLog } from '../../../src/library/self-check/program-log.ts'
import { type OmissionId, omissions, omissionText } from '../../../src/spec/check/omissions.ts'
import type { LoggedEvent } from '../../../src/spec/check/probes.ts'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { because } from '../../../src/spec/reason.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { Checker } from '../../../src/tools/check/checker.ts'
import type { DetectorServices } from '../../../src/tools/check/detector.ts'
import { learnt, MAX_ADVERTISED } from '../../../src/tools/check/lends/learnt.ts'
import { LendTable, MAX_LENDS } from '../../../src/tools/check/lends/table.ts'
import { BenignRaces, MAX_BENIGN_RANGES } from '../../../src/tools/check/races/benign.ts'
import { MAX_SLOTS } from '../../../src/tools/check/races/clock.ts'
import { type Posted, RaceFeed } from '../../../src/tools/check/races/feed.ts'
import { MAX_CLOCKS, MAX_FENCED, MAX_IN_FLIGHT, Races, type Request } from '../../../src/tools/check/races/races.ts'
import { AccessKind, MAX_INTERVALS } from '../../../src/tools/check/races/shadow.ts'
import { repoRoot } from '../../paths.ts'
import { filesBelow } from '../../tools.ts'
import { workRequest } from './requests.ts'

const counter = () => {
  const counts = new Map<OmissionId, number>()
  const omit = (id: OmissionId, count: number): void => void counts.set(id, (counts.get(id) ?? 0) + count)
  return { counts, omit }
}

const range = { space: 1, start: 0, end: 64, kind: AccessKind.READ, region: { isDeregistered: false } }

/** A thread that has never waited for another, and times. */
const [THREAD, ACQUIRED] = [1, 0]
const [POST_TIME, POLL_TIME] = [1, 2]

/** Counts of a race engine's omissions after `fill`. */
const omittedByEngine = (fill: (races: Races<string>) => void): ReadonlyMap<OmissionId, number> => {
  const { counts, omit } = counter()
  fill(new Races<string>(() => {}, omit))
  return counts
}

const fetch = (
  races: Races<string>,
  queue: number,
  { isFenced = false, ranges = [] as (typeof range)[] } = {},
): Request<string> | undefined => {
  const stamp = races.post(THREAD, POST_TIME, ACQUIRED)
  return races.fetch(queue, stamp, { kind: 'READ', isFenced, ranges }, '')
}

/** Counts of a feed's omissions after `fill`. */
const omittedByFeed = (
  fill: (
    feed: RaceFeed,
    log: (entry: Partial<LoggedEvent>) => LoggedEvent,
    request: (number: number) => WorkRequest,
  ) => void,
): ReadonlyMap<OmissionId, number> => {
  const { counts, omit } = counter()
  let ids = 0
  const log = (entry: Partial<LoggedEvent>): LoggedEvent => ({
    time: 1,
    acquired: 0,
    wrId: 0n,
    process: 1,
    thread: 1,
    kind: PostQueue.SEND,
    context: 1,
    number: 1,
    count: 1,
    stack: 0,
    ...entry,
  })
  const request = (number: number): WorkRequest => workRequest({ id: ++ids, owner: number, number })
  fill(new RaceFeed(new Races<Posted>(() => {}, omit), (_, id) => ({ id, isCounting: false }), omit), log, request)
  return counts
}

/** Time of a reading of the logs. */
const READ_START = 10

const seenSend = {
  event: 'send',
  context: 1,
  time: 5,
  kind: 'WRITE',
  isFenced: false,
  ranges: [],
  isReliable: false,
} as const

/** What `learnt` asks for: a queue pair and a region. */
const learntServices = {
  objects: { find: () => ({ qpn: 1 }), region: () => ({ class: 'mr', start: 0, iova: 0 }) },
  sources: { now: () => 1 },
  tell() {},
  ask: () => undefined,
}

const silentChecker = (): Checker => new Checker(() => {})
const countsOf = ({ omissions: all }: Checker): ReadonlyMap<OmissionId, number> =>
  new Map(all.map(({ id, count }) => [id, count]))

// Constants that their files (`bounds`) do not export.
const [MAX_FINDINGS, MAX_DESTROYED, MAX_STACKS] = [1000, 4096, 16_384]
const [MAX_UNSEEN, MAX_THREADS, MAX_UNPOLLED, MAX_REQUESTS, MAX_READERS] = [2 ** 19, 4096, 65_536, 65_536, 8]

/** Each script exceeds a constant or loses entries of a log, and returns the counts of its omissions. */
const fillScripts: Readonly<Record<OmissionId, () => ReadonlyMap<OmissionId, number>>> = {
  findings() {
    const checker = silentChecker()
    for (let i = 0; i <= MAX_FINDINGS; i++)
      checker.event({
        event: 'refusedAttempt',
        time: 1,
        device: '',
        deviceNumber: 0,
        context: 0,
        program: undefined,
        attempt: 'x',
        errno: Errno.EINVAL,
        reason: because`${'y'.repeat(i)}`, // another finding for each reason
        stack: [],
      })
    return countsOf(checker)
  },
  observed() {
    const checker = silentChecker()
    checker.event({ event: 'omitted', id: 'observed', count: 1 }) // src/tools/observe/observer.ts counts them
    return countsOf(checker)
  },
  'destroyed-objects'() {
    const checker = silentChecker()
    const base = {
      time: 1,
      device: '',
      deviceNumber: 0,
      context: 0,
      program: undefined,
      class: 'pd',
      args: {},
      out: {},
    }
    for (let id = 1; id <= MAX_DESTROYED + 1; id++)
      for (const method of ['create', 'destroy'])
        checker.event({
          event: 'called',
          ...base,
          method,
          object: { id, handle: id, class: { name: 'pd' } },
          why: 'call',
          stack: [],
        })
    return countsOf(checker)
  },
  stacks() {
    const { counts, omit } = counter()
    const log = createProgramLog(
      () => void log.readLog(),
      omit,
      () => 0,
    )
    for (let i = 0; i <= MAX_STACKS; i++) log.post(1, PostQueue.SEND, 1, 0n, () => [])
    return counts
  },
  'race-log': () => omittedByFeed(feed => feed.markLogLost(1, [], [])),
  'race-unlogged': () =>
    omittedByFeed((feed, _, request) => {
      feed.add({ ...seenSend, request: request(1) })
      feed.join([], READ_START)
    }),
  'race-posts': () =>
    omittedByFeed((feed, log) => {
      const many = Array.from({ length: MAX_UNSEEN + 1 }, () => log({}))
      feed.join(many, READ_START)
    }),
  'race-threads': () =>
    omittedByFeed((feed, log) => {
      feed.join(
        Array.from({ length: MAX_THREADS + 1 }, (_, thread) => log({ thread })),
        READ_START,
      )
    }),
  'race-completions': () =>
    omittedByFeed((feed, _, request) => {
      for (let i = 0; i <= MAX_UNPOLLED; i++) feed.add({ event: 'completion', request: request(1), time: 1, cq: 1 })
      feed.join([], READ_START)
    }),
  'race-requests': () =>
    omittedByFeed((feed, log, request) => {
      const posts: LoggedEvent[] = []
      for (let i = 0; i <= MAX_REQUESTS; i++) {
        posts.push(log({}))
        feed.add({ ...seenSend, time: 100, request: request(1) })
      }
      feed.join(posts, READ_START)
    }),
  'race-memory': () =>
    omittedByEngine(races => {
      races.open(1, true)
      for (let i = 0; i <= MAX_INTERVALS; i++)
        fetch(races, 1, { ranges: [{ ...range, start: i * 128, end: i * 128 + 64 }] })
    }),
  'race-readers': () =>
    omittedByEngine(races => {
      for (let queue = 1; queue <= MAX_READERS + 1; queue++) {
        races.open(queue, true)
        fetch(races, queue, { ranges: [range] })
      }
    }),
  'race-queues': () =>
    omittedByEngine(races => {
      for (let queue = 0; queue <= MAX_SLOTS; queue++) races.open(queue, true)
    }),
  'race-clocks': () =>
    omittedByEngine(races => {
      races.open(1, true)
      races.open(2, true)
      for (let i = 0; i <= MAX_CLOCKS / 2; i++) for (const queue of [1, 2]) fetch(races, queue)
    }),
  'race-in-flight': () =>
    omittedByEngine(races => {
      races.open(1, true)
      for (let i = 0; i <= MAX_IN_FLIGHT; i++) fetch(races, 1)
    }),
  'race-fences': () =>
    omittedByEngine(races => {
      races.open(1, true)
      for (let i = 0; i <= MAX_FENCED; i++) fetch(races, 1, { isFenced: true })
    }),
  'race-benign'() {
    const { counts, omit } = counter()
    const benign = new BenignRaces(omit)
    for (let i = 0; i <= MAX_BENIGN_RANGES; i++) benign.allow(1, 1, i, i + 1)
    return counts
  },
  advertised() {
    const { counts, omit } = counter()
    const detector = learnt({ ...learntServices, omit } as unknown as DetectorServices)
    const told = { event: 'advertised', time: 1, pid: 1, device: 0, rkey: 1, qp: 1, isReadable: false } as const
    const message = { opcode: 2, queue: PostQueue.SEND, number: 1, wrId: 1n }
    for (let i = 0; i <= MAX_ADVERTISED; i++)
      detector?.on?.advertised?.({ ...told, message, start: 16 * i, end: 16 * i + 16 }, undefined)
    return counts
  },
  lends() {
    const { counts, omit } = counter()
    const table = new LendTable(omit)
    const lent = { event: 'lent', time: 1, pid: 1, rights: 1, qpn: 0, label: '', stack: [] } as const
    // One process keeps all that there may be, and another one has the one too many.
    for (let i = 0; i < MAX_LENDS; i++) table.lend({ ...lent, lend: i, start: 8 * i, end: 8 * i + 8 })
    table.lend({ ...lent, pid: 2, lend: 1, start: 1, end: 2 })
    return counts
  },
}

/** MAX_ constants in the source of the checker: the omission that they cause, or why they cause none. */
const bounds: Readonly<Record<string, OmissionId | { readonly because: string }>> = {
  'src/tools/check/findings/receive-overlap.ts MAX_COMPARED': { because: 'a sample, as --buffers says' },
  'src/tools/check/findings/receive-overlap.ts MAX_OUTSTANDING': { because: 'a sample, as --buffers says' },
  'src/tools/check/findings/send-buffer-changed.ts MAX_FINISHED': { because: 'a sample, as --buffers says' },
  'src/tools/check/outstanding.ts MAX_READS': { because: 'data of older READs counts as come' },
  'src/tools/check/device-writes.ts MAX_WRITES': { because: 'what is unknown counts as written' },
  'src/tools/check/findings/refused-call.ts MAX_PROGRAMS': { because: 'a crash on its NULL is told without the call' },
  'src/tools/check/findings/overtaken-writes.ts MAX_ATTEMPTS': { because: 'a retry fails soon, or not at all' },
  'src/tools/check/consequences.ts MAX_PROCESSES': {
    because: 'of older processes a consequence is a finding of its own',
  },
  'src/tools/check/findings/class-differs.ts MAX_PAIRS': { because: 'a pair that was forgotten is told once more' },
  'src/tools/check/findings/cm-ids.ts MAX_REFUSED': { because: 'the first refused calls tell the cause' },
  'src/tools/check/findings/event-ignored.ts MAX_KEPT': { because: 'what is used now is about the latest' },
  'src/tools/check/findings/ignored-posts.ts MAX_REFUSED': { because: 'later ones are most often the same mistake' },
  'src/tools/check/objects.ts MAX_CONTEXTS': { because: 'names of objects of more contexts are those of handles' },
  'shim/check/notes.c MAX_INTERRUPTED': { because: 'a program that a signal has ended so often goes on' },
  'shim/check/outstanding.c MAX_POLLED_GONE': { because: 'the first ones tell the mistake' },
  'src/tools/check/objects.ts MAX_CHANGES': { because: 'a history has the latest changes' },
  'src/tools/check/latest-requests.ts MAX_ENDED': { because: 'a block is told at the next call of its program' },
  'src/tools/check/findings/memory-gone.ts MAX_GIVEN': {
    because: 'not counted: no table can hold all blocks of a program',
  },
  'src/tools/check/findings/memory-gone.ts MAX_ACCESSES': { because: 'not counted: the latest accesses of peers' },
  'src/tools/check/findings/private-file.ts MAX_KEYS': { because: 'a key may be looked at again' },
  'shim/check/lends.c MAX_ASKED': 'lends',
  'src/tools/check/lends/learnt.ts MAX_ADVERTISED': 'advertised',
  'src/tools/check/lends/learnt.ts MAX_OVERLAPPING': 'advertised',
  'src/tools/check/lends/peer-requests.ts MAX_REQUESTS': 'advertised',
  'src/tools/check/lends/peer-requests.ts MAX_GONE': { because: 'not counted: the latest requests' },
  'src/tools/check/findings/late-access.ts MAX_WRITTEN': { because: 'not counted: the latest WRITEs' },
  'src/tools/check/lends/told.ts MAX_COMPARED': { because: 'the finding says it' },
  'src/tools/check/lends/messages.ts MAX_TOLD': { because: 'the first ones of a message' },
  'src/tools/check/lends/memory.ts MAX_DEPTH': { because: 'the device follows keys over keys no further' },
  'src/tools/check/lends/lent-requests.ts MAX_ENDED': { because: 'not counted: the latest requests' },
  'src/tools/check/lends/lent-requests.ts MAX_ACCESSES': { because: 'not counted: the latest accesses' },
  'src/tools/check/lends/table.ts MAX_LENDS': 'lends',
  'src/tools/check/lends/table.ts MAX_ENDED': { because: 'a finding says it' },
  'src/tools/check/lends/table.ts MAX_LOOKED': { because: 'a finding names one of the lends' },
  'src/tools/check/lends/table.ts MAX_RANGES': 'lends',
  'src/tools/check/lost-work.ts MAX_NAMED': { because: 'the last queue pairs explain a wait' },
  'src/tools/check/findings/outages.ts MAX_OUTAGES': {
    because: 'a request fails a little after its outage: the latest count',
  },
  'src/tools/check/findings/failed-requests.ts MAX_HELD_STORIES': {
    because: 'later stories are made of what is known then',
  },
  'src/tools/check/net-peers.ts MAX_ASKED': { because: 'the latest connections explain a wait' },
  'src/tools/check/peer-facts.ts MAX_FRAMES': { because: 'the innermost frames have the line of the program' },
  'src/tools/check/net-peers.ts MAX_PEERS': { because: 'a peer is asked for anew when something fails' },
  'src/tools/check/peer-facts.ts MAX_REGIONS': { because: 'the region of a failure is told besides' },
  'src/tools/check/findings/outages.ts MAX_WAITING': { because: 'the oldest are reported, as notes' },
  'src/tools/check/queues/sends.ts MAX_COUNTED_READS': { because: 'more than any max_dest_rd_atomic' },
  'src/tools/check/objects.ts MAX_DESTROYED': 'destroyed-objects',
  'src/tools/check/swap-writers.ts MAX_WRITERS': { because: 'the newest queue pairs explain a wait' },
  'src/tools/check/swap-writers.ts MAX_WRITES': { because: 'the latest writes explain a wait' },
  'src/tools/check/waits/graph.ts MAX_CHAINS': { because: 'the block has the threads of the others too' },
  'src/tools/check/waits/graph.ts MAX_THREADS': { because: 'a report says how many more there are' },
  'src/tools/check/waits/wait-lines.ts MAX_NAMED': { because: 'the sentence says how many more there are' },
  'src/tools/check/waits/memory.ts MAX_WRITERS': { because: 'the text says how many more there are' },
  'src/tools/check/who.ts MAX_COMPLETED': { because: '`--who` tells fewer polls' },
  'src/tools/check/who-lines.ts MAX_FRAMES': { because: 'the report shows where it was cut' },
  'src/tools/check/who-lines.ts MAX_TOLD': { because: '`--who` says how many lines are forgotten' },
  'src/tools/check/who-ranges.ts MAX_WATCHED': { because: 'the ranges of the first processes or queues are told' },
  'src/tools/check/request-orders.ts MAX_ORDERED': { because: 'a search for the order that decides has the latest' },
  'src/tools/check/request-orders.ts MAX_OUTSTANDING_STACKS': { because: 'others have the stack of their number' },
  'src/tools/check/reporting.ts MAX_ALL_FINDINGS': 'findings',
  'src/tools/check/reporting.ts MAX_DIRECT': { because: 'findings of older programs do not name the function' },
  'src/tools/check/reporting.ts MAX_FINDINGS': 'findings',
  'src/tools/check/reporting.ts MAX_NAMED': { because: 'a finding says how many more there are' },
  'src/tools/check/queues/relapses.ts MAX_OVER': { because: 'one is enough for a walk' },
  'src/tools/check/races/benign.ts MAX_BENIGN_RANGES': 'race-benign',
  'src/tools/check/races/benign.ts MAX_BENIGN_PROCESSES': 'race-benign',
  'src/tools/check/races/clock.ts MAX_SLOTS': 'race-queues',
  'src/tools/check/races/races.ts MAX_CLOCKS': 'race-clocks',
  'src/tools/check/races/races.ts MAX_IN_FLIGHT': 'race-in-flight',
  'src/tools/check/races/races.ts MAX_FENCED': 'race-fences',
  'src/tools/check/races/feed.ts MAX_REORDERED': { because: 'how far a request is looked for' },
  'src/tools/check/races/feed.ts MAX_UNPOLLED': 'race-completions',
  'src/tools/check/races/feed.ts MAX_REQUESTS': 'race-requests',
  'src/tools/check/races/feed.ts MAX_ENDED': { because: 'messages of older sends are taken to be lost' },
  'src/tools/check/races/feed.ts MAX_UNSEEN': 'race-posts',
  'src/tools/check/races/feed.ts MAX_THREADS': 'race-threads',
  'src/tools/check/races/shadow.ts MAX_INTERVALS': 'race-memory',
  'src/tools/check/races/shadow.ts MAX_READERS': 'race-readers',
  'src/tools/check/story/lines.ts MAX_ALL_STACKS': { because: 'later stories look up fewer stacks' },
  'src/tools/check/story/lines.ts MAX_FRAMES': { because: 'the innermost frames are kept' },
  'src/tools/check/story/lines.ts MAX_LINES': { because: 'the story says it' },
  'src/tools/check/story/lines.ts MAX_OBJECTS': { because: 'the objects of the finding come first' },
  'src/tools/check/story/lines.ts MAX_STACKS': { because: 'older posts have no line of source' },
  'src/tools/check/story/lines.ts MAX_USERS': { because: 'the first queue pairs of a queue stand for all' },
  'src/tools/check/story/log.ts MAX_OBJECTS': { because: 'the story of an older object has no events' },
  'src/tools/check/story/log.ts MAX_OBJECT_EVENTS': { because: 'the story says it' },
  'src/tools/check/story/log.ts MAX_STACKS': { because: 'older calls have no line of source' },
  'src/tools/check/story/recorder.ts MAX_LINKS': { because: 'the latest connections count' },
  'src/tools/check/story/recorder.ts MAX_SUBJECTS': { because: 'a cache' },
  'src/tools/check/story/recorder.ts MAX_PROCESSES': { because: 'the story of an older program has no events' },
  'src/library/verbs/watch/stacks.ts MAX_FRAMES': { because: 'the innermost frames are kept' },
  'src/library/verbs/watch/stack-sharing.ts MAX_KINDS': { because: 'a stack is captured instead' },
  'src/library/self-check/program-log.ts MAX_ENTRIES': { because: 'entries are read then' },
  'src/library/self-check/program-log.ts MAX_STACKS': 'stacks',
  'src/daemon/check/other-hosts.ts MAX_ASKED': { because: 'the other waits are told without the other host' },
  'src/daemon/check/other-hosts.ts MAX_QUESTIONS': { because: 'further failures are told without the other host' },
  'src/daemon/check/stacks.ts MAX_FRAMES': { because: 'the innermost frames are kept' },
  'src/spec/session.ts MAX_STACKS': 'stacks',
  'src/daemon/check/stacks.ts MAX_PROCESS_BYTES': 'stacks',
  'src/daemon/check/stacks.ts MAX_PROCESSES': 'stacks',
  'src/daemon/check/stacks.ts MAX_TOTAL_BYTES': 'stacks',
  'src/daemon/check/event-log.ts MAX_CLAIMED': 'race-log',
  'src/daemon/check/event-log.ts MAX_FUTURE': { because: 'the time of the reading is used instead' },
  'shim/check/notes.c MAX_POST_REPORTS': { because: 'the first reports tell the mistake' },
  'shim/check/outstanding.c MAX_COMPARED': {
    because: 'an overlap of READs that are far apart: the device sees it too',
  },
  'shim/check/outstanding.c MAX_OVERLAPS': { because: 'the first reports tell the mistake' },
  'shim/check/notes.c MAX_REPORTS': { because: 'refused posts repeat one finding' },
  'shim/check/requests.h MAX_RANGES': { because: 'the program itself says so on standard error' },
  'shim/check/requests.h MAX_QUEUES': { because: 'the program itself says so on standard error' },
  'shim/check/reports.c MAX_KEPT': { because: 'reports of one free or fork repeat one finding' },
  'shim/recorder/known.c MAX_DESCRIPTORS': { because: 'no process has more' },
  'shim/recorder/unwind.c MAX_MAIN_STACK_BYTES': { because: 'no program uses that much of its stack' },
  'shim/check/outstanding.c MAX_CONTEXTS': { because: 'not counted: the preload library has no message for it' },
  'shim/check/outstanding.c MAX_FORKED': { because: 'requests of one fork repeat one finding' },
  'shim/check/requests.h MAX_SGE': { because: 'requests with more elements are refused' },
  'shim/recorder/locks.c MAX_LOCKS': { because: 'the program itself says so on standard error' },
  'shim/recorder/watched.h MAX_WATCHED': { because: 'batches and polls of further objects are not watched' },
  'shim/check/devices.c MAX_LISTED': { because: 'then no device is told, rather than a wrong one' },
  'shim/check/devices.c MAX_YIELDS': { because: 'how long a lock is waited for' },
  'shim/check/given.c MAX_CELLS': { because: 'of larger blocks the regions are looked at' },
  'shim/check/given.c MAX_KEPT': { because: 'later the program may have the block again' },
  'shim/check/given.c MAX_KEPT_BLOCK': { because: 'as MAX_KEPT' },
  'shim/check/given.c MAX_KEPT_BYTES': { because: 'as MAX_KEPT' },
  'shim/check/pollers.c MAX_THREADS': { because: 'two threads explain a lost completion' },
  'shim/check/told.c MAX_KEPT': { because: 'the sanitizer prints all its reports' },
  'src/tools/check/findings/sanitizers.ts MAX_KNOWN': { because: 'further mistakes are told twice' },
  'shim/recorder/orders.c MAX_REPORTS': { because: 'further mistakes repeat findings' },
  'shim/recorder/batches.c MAX_REPORTS': { because: 'further mistakes repeat findings' },
  'shim/recorder/objects.c MAX_BYTES': { because: 'as MAX_GONE' },
  'shim/recorder/objects.c MAX_DESTROYING': { because: 'the object is not watched while the call destroys it' },
  'shim/recorder/objects.c MAX_GONE': { because: 'not counted: the memory of an object cannot be kept forever' },
  'shim/recorder/objects.c MAX_REPORTS': { because: 'uses of destroyed objects repeat one finding' },
  'shim/recorder/objects.c MAX_REPORTS_OF_OBJECT': { because: 'uses of destroyed objects repeat one finding' },
  'shim/recorder/objects.c MAX_YIELDS': { because: 'how long a lock is waited for' },
  'shim/recorder/unwind.c MAX_FRAMES': { because: 'not counted: the preload library has no message for it' },
  'shim/check/ranges.c MAX_CELLS': { because: 'the ranges are scanned instead' },
  'shim/check/ranges.c MAX_FREED_CELLS': { because: 'the ranges are scanned instead' },
  'src/tools/check/findings/gone.ts MAX_COMPLETED': { because: 'a death follows the latest completions' },
  'src/tools/check/findings/lifetimes.ts MAX_AWAITED': { because: 'reports that wait repeat one finding' },
  'shim/check/events.c MAX_YIELDS': 'race-log',
  'shim/recorder/acknowledgements.c MAX_YIELDS': { because: 'how long a lock is waited for' },
  'shim/check/requests.h MAX_REGIONS': { because: 'the daemon watches no more regions of a process' },
  'shim/waits/waits.c MAX_CALLERS': { because: 'a cache' },
  'shim/waits/waits.c MAX_NOTED': { because: 'a wait for more descriptors names the first' },
  'src/tools/check/finding-text.ts MAX_CALLERS': { because: 'a line has the innermost' },
  'src/tools/check/finding-text.ts MAX_FRAMES': { because: 'the text has the number of the others' },
}

const filesIn = (folder: string): string[] =>
  filesBelow(join(repoRoot, folder))
    .filter(path => /\.(ts|c|h)$/.test(path))
    .map(path => relative(repoRoot, path))

describe('what the checker leaves out', () => {
  for (const [id, fill] of Object.entries(fillScripts))
    it(`${id} is counted`, () => {
      const found = fill()
      assert.ok((found.get(id as OmissionId) ?? 0) > 0, `${JSON.stringify([...found])}`)
    })

  it('includes no fenced request whose completion was polled', () => {
    const omitted = omittedByEngine(races => {
      races.open(1, true)
      for (let i = 0; i <= MAX_FENCED; i++)
        races.poll(THREAD, POLL_TIME, ACQUIRED, 1, [fetch(races, 1, { isFenced: true })])
    })
    assert.deepEqual([...omitted], [])
  })

  it('is known for each MAX_ constant', () => {
    const files = [
      ...[
        'src/tools/check',
        'src/library/self-check',
        'src/library/verbs/watch',
        'shim/check',
        'shim/recorder',
        'shim/waits',
      ].flatMap(filesIn),
      'src/daemon/check/other-hosts.ts',
      'src/daemon/check/stacks.ts',
      'src/daemon/check/event-log.ts',
      'src/spec/session.ts',
    ]
    const found = files.flatMap(file =>
      [...readFileSync(join(repoRoot, file), 'utf8').matchAll(/^(?:export )?(?:const|#define) (MAX_\w+)/gm)].map(
        ([, name]) => `${file} ${name}`,
      ),
    )
    assert.deepEqual(found.sort(), Object.keys(bounds).sort())
    for (const row of Object.values(bounds)) if (typeof row === 'string') assert.ok(row in omissions)
  })

  it('is a notification in SARIF, and a sentence with the count and advice', () => {
    const omission = { id: 'race-log', count: 3 } as const
    const { invocations } = sarifLog([], { framesOf: () => [] }, '1', [omission]).runs[0]!
    const [notification] = invocations?.[0]?.toolExecutionNotifications ?? []
    assert.deepEqual(notification?.descriptor, { id: 'race-log' })
    assert.equal(notification?.message.text, omissionText(omission))
    assert.match(omissionText(omission), /^3 times a log .* \(race-log; give the program /)
    assert.equal(sarifLog([], { framesOf: () => [] }, '1').runs[0]?.invocations, undefined)
  })
})
