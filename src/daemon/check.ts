/*
 * The daemon's part of `userdma check`: the call stacks of programs, the checker that core feeds, and the clients that
 * receive its findings.
 */
import { readSync } from 'node:fs'
import type { Misuse, RefusedAttempt } from '../check/events.ts'
import type { RefusedPost, RequestFacts } from '../check/refused-post.ts'
import { createChecker } from '../clients/check/check-client.ts'
import type { Context, Core } from '../core/model.ts'
import { mapArena } from '../host/memory/mapping.ts'
import { commandName, isCopiedByFork, lockLimit } from '../host/process-status.ts'
import type { Finding, Program, Stack } from '../spec/check/findings.ts'
import type { Omission } from '../spec/check/omissions.ts'
import { SCRATCH_BYTES } from '../spec/check/requests.ts'
import { Messages, offsetsOf, PostLog, PostQueue, postSlot } from '../spec/session.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import type { Contexts } from './context/contexts.ts'
import { createEventLogs } from './event-log.ts'
import type { FailureReports } from './failures.ts'

/** Limits per process: frames of a stack, stacks, and approximate bytes. The shim sends fewer. */
const MAX_FRAMES = 64
const MAX_STACKS = 4096
const MAX_BYTES = 2 ** 24
/**
 * Limits of all processes together: processes whose stacks are kept, ended ones included, and bytes. The oldest go
 * first.
 */
const MAX_PROCESSES = 256
const MAX_TOTAL = 2 ** 27
/** Milliseconds after which logs of programs that post little are read. */
const JOIN_MS = 100
/** Bytes charged for a frame in addition to its text. */
const FRAME = 32

export interface CheckDesk {
  /** The stack of the current call; undefined between calls. */
  calling: Stack | undefined
  /**
   * Stores the stack of a STACK message. Ids belong to the process's `session`; `declared` is the pid in the process's
   * own namespace, which its post log contains. False if the process has too many stacks, or has this id already.
   */
  define(
    session: object,
    process: { readonly pid: number; readonly declared: number },
    id: number,
    frames: string,
  ): boolean
  stackOf(pid: number, id: number): Stack
  /** Reports a REFUSED message of a process, for a queue pair of a context. */
  refusedPost(
    context: Context,
    stack: Stack,
    post: Pick<RefusedPost, 'queue' | 'number' | 'wrId' | 'error' | 'state'> & RequestFacts,
  ): void
  /** Reports a call that was refused before it was decoded. */
  refusedAttempt(context: Context, attempt: Pick<RefusedAttempt, 'attempt' | 'errno' | 'reason' | 'stack'>): void
  /** Reports a MISUSE message of a process. The context may be its parent's. */
  misused(
    context: Context,
    process: { readonly pid: number },
    stack: Stack,
    misuse: Pick<Misuse, 'kind' | 'queue' | 'number' | 'wrId' | 'index' | 'more'> & {
      readonly address: bigint
      readonly age: bigint
    },
  ): void
  /** Reports a FORK message of a process. */
  forked(pid: number, stack: Stack): void
  /** Starts reading event logs: a program writes one. */
  watchEvents(): void
  /** Calls `receive` with all findings so far and then with each new one, until the returned function is called. */
  subscribe(receive: (finding: Finding) => void): () => void
  /** How often each finding was found, by its number − 1; and what was left out. */
  readonly counts: readonly number[]
  readonly omissions: readonly Omission[]
  /** Calls of programs that were checked. */
  readonly calls: number
}

interface Stacks {
  readonly session: object
  readonly declared: number
  readonly byId: Map<number, Stack>
  bytes: number
}

const AT = offsetsOf(Messages.post)

const NONE: Stack = []

export const createCheckDesk = (
  core: Core,
  now: () => number,
  { contexts, failures }: { readonly contexts: Contexts; readonly failures: FailureReports },
  { like = [], buffers = 'sampled' }: Pick<DaemonConfig, 'like' | 'buffers'> = {},
): CheckDesk => {
  const stacks = new Map<number, Stacks>()
  const found: Finding[] = []
  const receivers = new Set<(finding: Finding) => void>()
  const post = new DataView(new ArrayBuffer(Messages.post.size))

  let total = 0
  const drop = (pid: number): void => {
    total -= stacks.get(pid)?.bytes ?? 0
    stacks.delete(pid)
  }

  const stackOf = (pid: number, id: number): Stack => stacks.get(pid)?.byId.get(id) ?? NONE

  /** The process that calls itself `declared` and uses the context of `owner`; −1: unknown. */
  const processOf = (owner: number, declared: number): number => {
    if (stacks.get(owner)?.declared === declared) return owner
    for (const [pid, one] of stacks) if (one.declared === declared) return pid
    return -1
  }

  const postStack = (context: Context, queue: number, number: number, wrId: bigint): Stack => {
    const memory = contexts.of(context)?.memory
    const owner = failures.ownerOf(context)
    if (memory === undefined || owner === undefined) return NONE
    // ibv_wr_complete logs one entry for all its requests.
    const id = queue === PostQueue.BATCH ? 0n : wrId
    readSync(memory.fd, post, 0, post.byteLength, PostLog.offset + postSlot(queue, number, id) * post.byteLength)
    const matches =
      post.getBigUint64(AT.wrId, true) === id &&
      post.getUint32(AT.queue, true) === queue &&
      post.getUint32(AT.number, true) === number
    return matches ? stackOf(processOf(owner.pid, post.getUint32(AT.pid, true)), post.getUint32(AT.stack, true)) : NONE
  }

  const programOf = (context: Context): Program | undefined => {
    const owner = failures.ownerOf(context)
    return owner && { pid: owner.pid, command: owner.command }
  }

  const placeOf = (context: Context) => ({
    time: now(),
    device: context.device.name,
    deviceNumber: context.device.index,
    context: context.id,
    program: programOf(context),
  })

  const report = (finding: Finding): void => {
    found.push(finding)
    for (const receive of receivers) receive(finding)
  }
  const logs = createEventLogs(contexts, (context, pid) => processOf(failures.ownerOf(context)?.pid ?? -1, pid))
  let isLogged = false
  const checker = createChecker(core, report, {
    scratch: mapArena(SCRATCH_BYTES),
    now,
    watches: context => programOf(context) !== undefined,
    program: programOf,
    callStack() {
      const stack = requests.calling ?? NONE
      return () => stack
    },
    postStack,
    like,
    buffers,
    lockLimit: ({ pid }) => lockLimit(pid),
    isCopiedByFork: ({ pid }, address) => isCopiedByFork(pid, address),
    events: { stackOf, read: logs.read },
  })

  const requests: CheckDesk = {
    calling: undefined,
    define(session, { pid, declared }, id, frames) {
      let own = stacks.get(pid)
      if (own?.session !== session) {
        drop(pid)
        own = { session, declared, byId: new Map(), bytes: 0 }
        stacks.set(pid, own)
      }
      const stack = frames.split('\n').filter(Boolean).slice(0, MAX_FRAMES)
      const bytes = frames.length + stack.length * FRAME
      if (own.byId.size >= MAX_STACKS || own.bytes + bytes > MAX_BYTES || own.byId.has(id)) {
        checker.omit('stacks', 1)
        return false
      }
      own.byId.set(id, stack)
      own.bytes += bytes
      total += bytes
      for (const oldest of stacks.keys()) {
        if (oldest === pid || (stacks.size <= MAX_PROCESSES && total <= MAX_TOTAL)) break
        checker.omit('stacks', stacks.get(oldest)?.byId.size ?? 0)
        drop(oldest)
      }
      return true
    },
    stackOf,
    refusedPost(context, stack, post) {
      checker.refusedPost({ ...post, ...placeOf(context), stack, request: post })
    },
    misused(context, { pid }, stack, { address, age, ...misuse }) {
      const place = placeOf(context)
      checker.misused({
        ...misuse,
        ...place,
        stack,
        time: place.time - Number(age) / 1000,
        address: Number(address),
        program: { pid, command: commandName(pid) ?? '?' },
      })
    },
    refusedAttempt(context, attempt) {
      checker.refusedAttempt({ ...attempt, ...placeOf(context) })
    },
    forked: (pid, stack) => checker.forked(pid, stack),
    watchEvents() {
      if (isLogged) return
      isLogged = true
      checker.races?.begin()
      setInterval(() => checker.races?.join(), JOIN_MS).unref()
    },
    subscribe(receive) {
      for (const finding of found) receive(finding)
      receivers.add(receive)
      return () => receivers.delete(receive)
    },
    get counts() {
      checker.races?.join()
      return checker.counts
    },
    get omissions() {
      return checker.omissions
    },
    get calls() {
      return checker.calls
    },
  }
  return requests
}
