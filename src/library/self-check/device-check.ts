/*
 * Checked devices of this process (`open({ check })`): the checker of `userdma check`, with V8 stacks. Each network has
 * one checker.
 *
 * This file and the checker are imported with the first checked device.
 */
import { relative } from 'node:path'
import { closeContext } from '../../core/devices/registry.ts'
import type { Context, Core } from '../../core/model.ts'
import type { AdapterName } from '../../spec/check/adapters.ts'
import type { Finding } from '../../spec/check/finding.ts'
import { omissionText } from '../../spec/check/omissions.ts'
import type { ProgramProbes } from '../../spec/check/probes.ts'
import { SCRATCH_BYTES } from '../../spec/check/requests.ts'
import { FOUND_STATUS, isFailure } from '../../spec/check/severity.ts'
import { findingText, type Symbols, v8Frame } from '../../tools/check/finding-text.ts'
import { RACES } from '../../tools/check/findings/races.ts'
import { type CheckedCore, createChecker } from '../../tools/clients/check/check-client.ts'
import { plainArena } from '../../transport/wire/arena.ts'
import { FindingsError } from '../verbs/error.ts'
import { captureStack } from '../verbs/watch/stacks.ts'
import { type DeviceCheck, pollWatch } from '../verbs/watch/watch.ts'
import { findingListeners } from './listeners.ts'
import type { CheckOptions } from './options.ts'
import { createPostStacks, type PostStacks } from './posts.ts'
import { createProgramLog, type ProgramLog } from './program-log.ts'

interface CheckedDevice {
  readonly context: Context
  readonly posts: PostStacks
  readonly options: CheckOptions
  readonly findings: Finding[]
}

interface NetworkCheck extends CheckedCore {
  readonly log: ProgramLog
  readonly devices: Map<Context, CheckedDevice>
  /** The adapters in the options of all checked devices, also of closed devices. */
  readonly adapters: AdapterName[]
}

/** Whether a finding is reported with these options. */
const isReported = ({ id, severity }: Finding, { failOn, notes = failOn === 'note', ignore = [] }: CheckOptions) =>
  (notes || severity !== 'note') && !ignore.includes(id)

const shortPath = (path: string): string => {
  const short = relative(process.cwd(), path)
  return short.startsWith('..') ? path : short
}

/** Formats V8's frames as `userdma check` does: paths below the current directory are relative to it. */
const v8Symbols: Symbols = {
  framesOf: stack => stack.map(frame => v8Frame(frame, typeof process === 'object' ? shortPath : path => path)),
}

const print = (finding: Finding): void => console.error(findingText(finding, v8Symbols))

/**
 * An exception of the program's `onFinding` is uncaught. The caller is core or the checker, in the middle of its work.
 */
const notify = (onFinding: (finding: Finding) => void, finding: Finding): void => {
  try {
    onFinding(finding)
  } catch (error) {
    queueMicrotask(() => {
      throw error
    })
  }
}

/** The number of the last lend. */
let lastLend = 0

const checks = new WeakMap<Core, NetworkCheck>()

/** As in `ProgramProbes`. */
type LossTo = ProgramProbes['lossTo']

/** The check of a network, created with its first checked device. */
const networkCheck = (core: Core, lossTo?: LossTo): NetworkCheck => {
  const known = checks.get(core)
  if (known !== undefined) return known
  const devices = new Map<Context, CheckedDevice>()
  const adapters: AdapterName[] = []
  const report = (finding: Finding, contextId: number): void => {
    for (const { context, options, findings } of devices.values())
      if (context.id === contextId) {
        if (!isReported(finding, options)) return
        findingListeners.get(core)?.(finding)
        findings.push(finding)
        notify(options.onFinding ?? print, finding)
        return
      }
  }
  const log = createProgramLog(
    () => checked.stream.event({ event: 'logged' }),
    (id, count) => checked.stream.event({ event: 'omitted', id, count }),
    core.now,
  )
  const checked: CheckedCore = createChecker(core, report, {
    scratch: plainArena(SCRATCH_BYTES),
    isChecked: context => devices.has(context),
    program: () => undefined,
    callStack: captureStack,
    postStack: (context, queue, number, wrId) => devices.get(context)?.posts.stackOf(queue, number, wrId) ?? [],
    adapters,
    findsWaits: true,
    ...(lossTo && { lossTo }),
    events: log,
  })
  const check = { ...checked, log, devices, adapters }
  checks.set(core, check)
  return check
}

/** The findings with which `device.close()` rejects (`failOn`). */
const failures = ({ findings, options: { failOn = 'error' } }: CheckedDevice): readonly Finding[] =>
  findings.filter(({ severity }) => isFailure(severity, failOn))

/** The checks that have not ended, by context. */
const openChecks = new Map<Context, DeviceCheck>()
let hasExitListener = false

/**
 * At exit with status 0: closes the contexts of open checked devices, to find leaked objects, and ends their checks.
 * Sets the exit status if a device has findings that fail (`failOn`).
 */
const onExit = (status: number): void => {
  if (status !== 0) return
  for (const context of openChecks.keys()) {
    networkCheck(context.device.core).stream.event({ event: 'exiting' })
    closeContext(context)
  }
  for (const check of openChecks.values())
    try {
      check.end()
    } catch {
      // FindingsError: the findings were reported before.
      process.exitCode = FOUND_STATUS
    }
}

export const checkContext = (context: Context, options: CheckOptions, lossTo: LossTo): DeviceCheck => {
  const { core, name } = context.device
  const { checker, stream, log, devices, adapters, originOf, waits, watchAccesses } = networkCheck(core, lossTo)
  const { races = false, stacks = 'shared' } = options
  if (races) checker.ask(RACES)?.begin()
  for (const adapter of options.like ?? []) if (!adapters.includes(adapter)) adapters.push(adapter)
  const posts = createPostStacks(
    stacks,
    races ? (queue, number, wrId, stack) => log.post(context.id, queue, number, wrId, stack) : undefined,
  )
  const device: CheckedDevice = { context, posts, options, findings: [] }
  devices.set(context, device)
  if (!hasExitListener && typeof process === 'object') process.on('exit', onExit)
  hasExitListener = true
  const withCount = (finding: Finding) => ({ ...finding, count: checker.counts[finding.number - 1] ?? 1 })
  const check: DeviceCheck = {
    posts: {
      ...posts,
      ...(races && pollWatch((cq, count, wrId) => log.poll(context.id, cq, count, wrId))),
      refused(queue, number, wrId, error, state, severity) {
        stream.event({
          event: 'refusedPost',
          ...originOf(context),
          stack: captureStack()(),
          queue,
          number,
          wrId: BigInt(wrId),
          error,
          state,
          ...(severity && { severity }),
        })
      },
    },
    markInternal: (className, handle) =>
      stream.event({ event: 'internal', context: context.id, class: className, handle }),
    waits: wait => waits(context, wait),
    lend({ milliseconds, ...lent }) {
      watchAccesses()
      const lend = ++lastLend
      const time = stream.next()
      const until = milliseconds === 0 ? {} : { until: time + milliseconds * 1000 }
      stream.event({ event: 'lent', time, pid: undefined, lend, stack: captureStack()(), ...lent, ...until })
      return () =>
        stream.event({ event: 'takenBack', time: stream.next(), pid: undefined, lend, stack: captureStack()() })
    },
    markMessages: handle => stream.event({ event: 'messages', context: context.id, handle }),
    get findings() {
      checker.settle()
      return device.findings.map(withCount)
    },
    get omissions() {
      return checker.omissions
    },
    end() {
      checker.settle()
      // The omissions are the network's: printed when its last checked device is closed.
      if (devices.size === 1 && options.onFinding === undefined)
        for (const omission of checker.omissions) console.error(`userdma check: left out: ${omissionText(omission)}`)
      devices.delete(context)
      openChecks.delete(context)
      const findings = failures(device).map(withCount)
      if (findings.length > 0)
        throw new FindingsError(
          name,
          findings,
          findings.map(finding => findingText(finding, v8Symbols)),
        )
    },
  }
  openChecks.set(context, check)
  return check
}
