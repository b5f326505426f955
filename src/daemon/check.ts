/*
 * The daemon's part of `userdma check`: the stacks of programs, the checker that core feeds, and the tools that receive
 * its findings.
 */
import { readSync } from 'node:fs'
import { Checker, type RefusedPost } from '../check/checker.ts'
import { deviceWithGid, feedChecker } from '../clients/check/check-client.ts'
import type { Context, Core } from '../core/model.ts'
import type { Finding, Program, Stack } from '../spec/findings.ts'
import { Messages, PostLog, postSlot } from '../spec/session.ts'
import type { Contexts } from './context/contexts.ts'
import type { FailureReports } from './failures.ts'

/** Stacks of one process, and processes whose stacks are kept after their end. */
const MAX_STACKS = 4096
const MAX_PROCESSES = 256

export interface CheckDesk {
  /** The stack of the call that runs now; undefined between calls. */
  calling: Stack | undefined
  /** STACK of a process: `declared` is its id in its own namespace, as its posts have it. False: it has too many. */
  define(pid: number, declared: number, id: number, frames: string): boolean
  stackOf(pid: number, id: number): Stack
  /** REFUSED of a process, about a queue pair of a context. */
  refusedPost(
    context: Context,
    stack: Stack,
    post: Pick<RefusedPost, 'queue' | 'number' | 'wrId' | 'error' | 'state'>,
  ): void
  /** `receive` gets all findings, those so far at once; until the function returned is called. */
  subscribe(receive: (finding: Finding) => void): () => void
  /** How often each finding was found, by its number − 1; and distinct ones beyond the limit. */
  readonly counts: readonly number[]
  readonly dropped: number
}

interface Stacks {
  readonly declared: number
  readonly byId: Map<number, Stack>
}

const field = (name: string): number => Messages.post.fields.find(one => one.name === name)!.offset

const NONE: Stack = []

export const createCheckDesk = (
  core: Core,
  now: () => number,
  { contexts, failures }: { readonly contexts: Contexts; readonly failures: FailureReports },
): CheckDesk => {
  const stacks = new Map<number, Stacks>()
  const found: Finding[] = []
  const receivers = new Set<(finding: Finding) => void>()
  const checker = new Checker(deviceWithGid(core), finding => {
    found.push(finding)
    for (const receive of receivers) receive(finding)
  })
  const post = new DataView(new ArrayBuffer(Messages.post.size))

  const stackOf = (pid: number, id: number): Stack => stacks.get(pid)?.byId.get(id) ?? NONE

  /** The stack of a process that uses the context of `owner`. */
  const declaredStack = (owner: number, declared: number, id: number): Stack => {
    if (stacks.get(owner)?.declared === declared) return stackOf(owner, id)
    for (const one of stacks.values()) if (one.declared === declared) return one.byId.get(id) ?? NONE
    return NONE
  }

  const postStack = (context: Context, queue: number, number: number, wrId: bigint): Stack => {
    const memory = contexts.of(context)?.memory
    const owner = failures.ownerOf(context)
    if (memory === undefined || owner === undefined) return NONE
    readSync(memory.fd, post, 0, post.byteLength, PostLog.offset + postSlot(queue, number, wrId) * post.byteLength)
    const matches =
      post.getBigUint64(field('wrId'), true) === wrId &&
      post.getUint32(field('queue'), true) === queue &&
      post.getUint32(field('number'), true) === number
    return matches
      ? declaredStack(owner.pid, post.getUint32(field('pid'), true), post.getUint32(field('stack'), true))
      : NONE
  }

  const programOf = (context: Context): Program | undefined => {
    const owner = failures.ownerOf(context)
    return owner && { pid: owner.pid, command: owner.command }
  }

  const desk: CheckDesk = {
    calling: undefined,
    define(pid, declared, id, frames) {
      const known = stacks.get(pid)
      const own = known?.declared === declared ? known : { declared, byId: new Map<number, Stack>() }
      if (own !== known) {
        const [oldest] = stacks.keys()
        if (stacks.size === MAX_PROCESSES && oldest !== undefined) stacks.delete(oldest)
        stacks.set(pid, own)
      }
      if (own.byId.size >= MAX_STACKS && !own.byId.has(id)) return false
      own.byId.set(id, frames.split('\n').filter(Boolean))
      return true
    },
    stackOf,
    refusedPost: (context, stack, post) =>
      checker.refusedPost({ ...post, time: now(), device: context.device.name, program: programOf(context), stack }),
    subscribe(receive) {
      for (const finding of found) receive(finding)
      receivers.add(receive)
      return () => receivers.delete(receive)
    },
    get counts() {
      return checker.counts
    },
    get dropped() {
      return checker.dropped
    },
  }
  feedChecker(core, checker, {
    now,
    program: programOf,
    callStack: () => desk.calling ?? NONE,
    postStack,
  })
  return desk
}
