/*
 * The daemon's part of `userdma check`: it keeps the call stacks that programs send, runs the checker
 * (clients/check/check-client.ts), and passes its findings to subscribed tools.
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
import { MAX_STACKS, Messages, offsetsOf, PostLog, PostQueue, postSlot } from '../spec/session.ts'
import type { DaemonConfig } from '../uapi/tool.ts'
import type { Contexts } from './context/contexts.ts'
import { createEventLogs } from './event-log.ts'
import type { FailureReports } from './failures.ts'

/** Limits per process: frames of a stack, and the approximate bytes of its stacks. */
const MAX_FRAMES = 64
const MAX_PROCESS_BYTES = 2 ** 24
/**
 * Limits of all processes together: number of processes whose stacks are kept, ended ones included, and approximate
 * bytes. Beyond them the stacks of the oldest processes are removed.
 */
const MAX_PROCESSES = 256
const MAX_TOTAL_BYTES = 2 ** 27
/** Milliseconds between reads of the event logs, so that those of programs that post little are read too. */
const READ_LOGS_INTERVAL = 100
/** Bytes charged for a frame in addition to its text. */
const FRAME_BYTES = 32

export interface DaemonChecker {
  /** The program's stack at the call that runs; undefined between calls. */
  currentStack: Stack | undefined
  /**
   * Stores the stack of a STACK message under its id, which is unique in the process's `session`. `namespacePid`: the
   * pid in the process's own namespace, which its post log contains. `frames`: one per line. False if the process has
   * too many stacks, or too long ones, or has this id already.
   */
  defineStack(
    session: object,
    process: { readonly pid: number; readonly namespacePid: number },
    id: number,
    frames: string,
  ): boolean
  /** The stored stack; empty if there is none. */
  stackOf(pid: number, id: number): Stack
  /** Reports a REFUSED message: a post that the program's provider library refused. */
  refusedPost(
    context: Context,
    stack: Stack,
    post: Pick<RefusedPost, 'queue' | 'number' | 'wrId' | 'error' | 'state'> & RequestFacts,
  ): void
  /** Reports a refused call that was not decoded into a method (`Answer.attempt`). */
  refusedAttempt(context: Context, attempt: Pick<RefusedAttempt, 'attempt' | 'errno' | 'reason' | 'stack'>): void
  /** Reports a MISUSE message of a process. The context may belong to its parent process. */
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
  /** A program writes an event log: from now on the logs are read. */
  watchEvents(): void
  /** Calls `receive` with all findings so far and then with each new one, until the returned function is called. */
  subscribe(receive: (finding: Finding) => void): () => void
  /** How often each finding was found, indexed by its number − 1. */
  readonly counts: readonly number[]
  /** Records that the checks dropped. */
  readonly omissions: readonly Omission[]
  /** Number of programs' calls that were checked. */
  readonly calls: number
}

/** The stacks of one process. */
interface Stacks {
  readonly session: object
  readonly namespacePid: number
  readonly byId: Map<number, Stack>
  bytes: number
}

/** Byte offsets of the fields of a post log's entry. */
const POST_OFFSETS = offsetsOf(Messages.post)

const NO_STACK: Stack = []

export const createDaemonChecker = (
  core: Core,
  now: () => number,
  { contexts, failures }: { readonly contexts: Contexts; readonly failures: FailureReports },
  { like = [], buffers = 'sampled' }: Pick<DaemonConfig, 'like' | 'buffers'> = {},
): DaemonChecker => {
  const stacks = new Map<number, Stacks>()
  const findings: Finding[] = []
  const receivers = new Set<(finding: Finding) => void>()
  /** The entry of a post log that was read last. */
  const entry = new DataView(new ArrayBuffer(Messages.post.size))

  let totalBytes = 0
  const removeStacks = (pid: number): void => {
    totalBytes -= stacks.get(pid)?.bytes ?? 0
    stacks.delete(pid)
  }

  const stackOf = (pid: number, id: number): Stack => stacks.get(pid)?.byId.get(id) ?? NO_STACK

  /**
   * The pid of a process that has pid `namespacePid` in its own namespace: `owner`, if possible, which has opened the
   * context, otherwise any that has sent stacks; −1: unknown.
   */
  const processOf = (owner: number, namespacePid: number): number => {
    if (stacks.get(owner)?.namespacePid === namespacePid) return owner
    for (const [pid, other] of stacks) if (other.namespacePid === namespacePid) return pid
    return -1
  }

  /** The stack of the post of a request, from the post log in the context's memory file. */
  const postStack = (context: Context, queue: number, number: number, wrId: bigint): Stack => {
    const memory = contexts.of(context)?.memory
    const owner = failures.ownerOf(context)
    if (memory === undefined || owner === undefined) return NO_STACK
    // ibv_wr_complete logs one entry, with wr_id 0, for all its requests.
    const id = queue === PostQueue.BATCH ? 0n : wrId
    readSync(memory.fd, entry, 0, entry.byteLength, PostLog.offset + postSlot(queue, number, id) * entry.byteLength)
    const matches =
      entry.getBigUint64(POST_OFFSETS.wrId, true) === id &&
      entry.getUint32(POST_OFFSETS.queue, true) === queue &&
      entry.getUint32(POST_OFFSETS.number, true) === number
    if (!matches) return NO_STACK
    const pid = processOf(owner.pid, entry.getUint32(POST_OFFSETS.pid, true))
    return stackOf(pid, entry.getUint32(POST_OFFSETS.stack, true))
  }

  const programOf = (context: Context): Program | undefined => {
    const owner = failures.ownerOf(context)
    return owner && { pid: owner.pid, command: owner.command }
  }

  /** The fields of an event that tell where it happened. */
  const originOf = (context: Context) => ({
    time: now(),
    device: context.device.name,
    deviceNumber: context.device.index,
    context: context.id,
    program: programOf(context),
  })

  const report = (finding: Finding): void => {
    findings.push(finding)
    for (const receive of receivers) receive(finding)
  }
  const logs = createEventLogs(contexts, (context, pid) => processOf(failures.ownerOf(context)?.pid ?? -1, pid))
  let areLogsRead = false
  const checker = createChecker(core, report, {
    scratch: mapArena(SCRATCH_BYTES),
    now,
    isChecked: context => programOf(context) !== undefined,
    program: programOf,
    callStack() {
      const stack = daemonChecker.currentStack ?? NO_STACK
      return () => stack
    },
    postStack,
    like,
    buffers,
    lockLimit: ({ pid }) => lockLimit(pid),
    isCopiedByFork: ({ pid }, address) => isCopiedByFork(pid, address),
    events: { stackOf, read: logs.read },
  })

  const daemonChecker: DaemonChecker = {
    currentStack: undefined,
    defineStack(session, { pid, namespacePid }, id, frames) {
      let processStacks = stacks.get(pid)
      if (processStacks?.session !== session) {
        removeStacks(pid)
        processStacks = { session, namespacePid, byId: new Map(), bytes: 0 }
        stacks.set(pid, processStacks)
      }
      const stack = frames.split('\n').filter(Boolean).slice(0, MAX_FRAMES)
      const bytes = frames.length + stack.length * FRAME_BYTES
      if (
        processStacks.byId.size >= MAX_STACKS ||
        processStacks.bytes + bytes > MAX_PROCESS_BYTES ||
        processStacks.byId.has(id)
      ) {
        checker.omit('stacks', 1)
        return false
      }
      processStacks.byId.set(id, stack)
      processStacks.bytes += bytes
      totalBytes += bytes
      for (const oldest of stacks.keys()) {
        if (oldest === pid || (stacks.size <= MAX_PROCESSES && totalBytes <= MAX_TOTAL_BYTES)) break
        checker.omit('stacks', stacks.get(oldest)?.byId.size ?? 0)
        removeStacks(oldest)
      }
      return true
    },
    stackOf,
    refusedPost(context, stack, post) {
      checker.refusedPost({ ...post, ...originOf(context), stack, request: post })
    },
    misused(context, { pid }, stack, { address, age, ...misuse }) {
      const origin = originOf(context)
      checker.misused({
        ...misuse,
        ...origin,
        stack,
        // `age` is in nanoseconds, times are microseconds.
        time: origin.time - Number(age) / 1000,
        address: Number(address),
        program: { pid, command: commandName(pid) ?? '?' },
      })
    },
    refusedAttempt(context, attempt) {
      checker.refusedAttempt({ ...attempt, ...originOf(context) })
    },
    forked: (pid, stack) => checker.forked(pid, stack),
    watchEvents() {
      if (areLogsRead) return
      areLogsRead = true
      checker.races?.begin()
      setInterval(() => checker.races?.join(), READ_LOGS_INTERVAL).unref()
    },
    subscribe(receive) {
      for (const finding of findings) receive(finding)
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
  return daemonChecker
}
