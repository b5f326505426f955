/*
 * Checked devices of this process (`open({ check })`): the checker of `userdma check`, with stacks of V8. Each network
 * has one checker, which sees the calls of all its checked devices; a finding belongs to the device that it names.
 *
 * Loaded with the first checked device only.
 */
import { relative } from 'node:path'
import type { Checker } from '../../check/checker.ts'
import { createChecker } from '../../clients/check/check-client.ts'
import { closeContext } from '../../core/devices/registry.ts'
import type { Context, Core } from '../../core/model.ts'
import { nowMicroseconds } from '../../host/event-loop/clock.ts'
import type { AdapterName } from '../../spec/check/adapters.ts'
import { type Finding, FOUND_STATUS, isFailure } from '../../spec/check/findings.ts'
import { omissionText } from '../../spec/check/omissions.ts'
import { SCRATCH_BYTES } from '../../spec/check/requests.ts'
import { findingText, type Symbols, v8Frame } from '../../trace/findings.ts'
import { plainArena } from '../../wire/arena.ts'
import { FindingsError } from '../error.ts'
import { type Checked, pollWatch } from './checked.ts'
import type { CheckOptions } from './options.ts'
import { type Posts, watchPosts } from './posts.ts'
import { createProgramLog, type ProgramLog } from './program-log.ts'
import { captureStack } from './stacks.ts'

/** A checked device: its context, its posts and its findings. */
interface Subject {
  readonly context: Context
  readonly posts: Posts
  readonly options: CheckOptions
  readonly found: Finding[]
}

interface NetworkCheck {
  readonly checker: Checker
  readonly log: ProgramLog
  readonly subjects: Map<Context, Subject>
  /** Those of all its devices. */
  readonly like: AdapterName[]
}

/** Whether the options ask for such findings. */
const isWanted = ({ id, severity }: Finding, { failOn, notes = failOn === 'note', ignore = [] }: CheckOptions) =>
  (notes || severity !== 'note') && !ignore.includes(id)

const shortPath = (path: string): string => {
  const short = relative(process.cwd(), path)
  return short.startsWith('..') ? path : short
}

/** File names have the form in which the command shows them. */
const v8Symbols: Symbols = {
  framesOf: stack => stack.map(frame => v8Frame(frame, typeof process === 'object' ? shortPath : path => path)),
}

const show = (finding: Finding): void => console.error(findingText(finding, v8Symbols))

const checks = new WeakMap<Core, NetworkCheck>()

const checkOf = (core: Core): NetworkCheck => {
  const known = checks.get(core)
  if (known !== undefined) return known
  const subjects = new Map<Context, Subject>()
  const like: AdapterName[] = []
  const report = (finding: Finding): void => {
    for (const { context, options, found } of subjects.values())
      if (context.device.name === finding.device && isWanted(finding, options)) {
        found.push(finding)
        ;(options.onFinding ?? show)(finding)
        return
      }
  }
  const log = createProgramLog(
    () => checker.races?.join(),
    (id, count) => checker.omit(id, count),
  )
  const checker: Checker = createChecker(core, report, {
    scratch: plainArena(SCRATCH_BYTES),
    now: nowMicroseconds,
    watches: context => subjects.has(context),
    program: () => undefined,
    callStack: captureStack,
    postStack: (context, queue, number, wrId) => subjects.get(context)?.posts.stackOf(queue, number, wrId) ?? [],
    like,
    events: log,
  })
  const check = { checker, log, subjects, like }
  checks.set(core, check)
  return check
}

/** Findings for which its close fails. */
const failing = ({ found, options: { failOn = 'error' } }: Subject): readonly Finding[] =>
  found.filter(({ severity }) => isFailure(severity, failOn))

const unclosed = new Set<Subject>()
let listens = false

/** Ends the checks of devices that were never closed: their objects leak, and findings set the exit status. */
const endAll = (status: number): void => {
  if (status !== 0) return
  for (const subject of unclosed) {
    closeContext(subject.context)
    if (failing(subject).length > 0) process.exitCode = FOUND_STATUS
  }
}

/** Checks what the program does on a device from now on. */
export const checkContext = (context: Context, options: CheckOptions): Checked => {
  const { core, name } = context.device
  const { checker, log, subjects, like } = checkOf(core)
  const { races = false, stacks = 'shared' } = options
  if (races) checker.races?.begin()
  for (const adapter of options.like ?? []) if (!like.includes(adapter)) like.push(adapter)
  const posts = watchPosts(
    stacks,
    races ? (queue, number, wrId, stack) => log.post(context.id, queue, number, wrId, stack) : undefined,
  )
  const subject: Subject = { context, posts, options, found: [] }
  subjects.set(context, subject)
  if (!listens && typeof process === 'object') process.on('exit', endAll)
  listens = true
  unclosed.add(subject)
  const counted = (finding: Finding) => ({ ...finding, count: checker.counts[finding.number - 1] ?? 1 })
  return {
    posts: {
      ...posts,
      ...(races && pollWatch((cq, count, wrId) => log.poll(context.id, cq, count, wrId))),
      refused(queue, number, wrId, error, state) {
        checker.refusedPost({
          time: nowMicroseconds(),
          device: name,
          deviceNumber: context.device.index,
          context: context.id,
          program: undefined,
          stack: captureStack()(),
          ...{ queue, number, wrId: BigInt(wrId), error, state },
        })
      },
    },
    get findings() {
      checker.races?.join()
      return subject.found.map(counted)
    },
    get omissions() {
      return checker.omissions
    },
    end() {
      checker.races?.join()
      if (subjects.size === 1 && options.onFinding === undefined)
        for (const omission of checker.omissions) console.error(`userdma check: left out: ${omissionText(omission)}`)
      subjects.delete(context)
      unclosed.delete(subject)
      const found = failing(subject).map(counted)
      if (found.length > 0)
        throw new FindingsError(
          name,
          found,
          found.map(one => findingText(one, v8Symbols)),
        )
    },
  }
}
