/*
 * What a run of a walk has shown, compared with the run without failures.
 */
import { libraryFrameOf } from '../../faults/survey.ts'
import type { Finding } from '../../spec/check/finding.ts'
import { findings } from '../../spec/check/findings.ts'
import { QpState } from '../../spec/enums.ts'
import type { FailedProgram, Relapse, SurveyFacts, SurveySite } from '../../spec/faults.ts'
import { roleOf } from '../../spec/methods.ts'
import type { MethodRole } from '../../spec/schema/schema.ts'
import type { AttemptResult } from '../attempt.ts'
import type { CrashRecord } from './crashes.ts'
import type { RoleCount, WalkPoint, WalkPort } from './points.ts'
import type { WalkSite } from './site.ts'

/**
 * Outcomes of a point.
 *
 * - `crash`: a signal such as SIGSEGV has ended a process
 * - `hang`: the program did not end
 * - `stale`: the program has failed because it went on with what an event has made invalid (a finding of `check`)
 * - `leak`: the process has destroyed objects after the failure, but not all
 * - `left`: the program has ended, and a process of it still has a connection to what is gone
 * - `wrong`: the exit status says failure, although the program was told of none: the transport has made up for it, or
 *   it has no acknowledgement
 * - `swallowed`: the exit status is 0, the output is as without the failure, and the program, which was told of it, has
 *   not made up for it: it has fewer successful calls or requests (of this kind, if one of them failed), no further
 *   connection, and no object destroyed that it could not modify. Queries are left out: programs and libraries may do
 *   without an answer
 * - `degraded`: the exit status is 0, and the program went on to its end with a queue pair whose failures it had
 *   polled, or with others in its place that failed too
 * - `recovered`: the exit status is 0, and nothing of the above
 * - `ended`: the program has ended with another status, and said why
 * - `unreached`: the program did not come to the site
 */
export const outcomes = [
  'crash',
  'hang',
  'stale',
  'leak',
  'left',
  'wrong',
  'swallowed',
  'degraded',
  'recovered',
  'ended',
  'unreached',
] as const
export type Outcome = (typeof outcomes)[number]

/** A run of the program. */
export interface WalkRun {
  readonly result: AttemptResult
  readonly sites: readonly WalkSite[]
  readonly counts: readonly RoleCount[]
  /** InfiniBand ports. */
  readonly ports: readonly WalkPort[]
  /** Crashes, and the stacks of a program that hangs. */
  readonly records: readonly CrashRecord[]
  readonly findings: readonly Finding[]
  readonly failed: FailedProgram | undefined
  readonly facts: SurveyFacts
  /** How often the rule has acted. */
  readonly injected: number
  /** What the program waited for when its time was over. */
  readonly waits: readonly string[]
  /** Connections to what is gone, when the program had ended. */
  readonly left: readonly string[]
}

export interface WalkResult {
  readonly point: WalkPoint
  readonly outcome: Outcome
  readonly run: WalkRun
  /** Objects that were left, of a `leak`; findings of `stale`; connections of `left`; queue pairs of `degraded`. */
  readonly details: readonly string[]
  /** Of `degraded`. */
  readonly relapses: readonly Relapse[]
  /** The first line of output that the run without failures has not. */
  readonly message: string | undefined
  /** Milliseconds from the failure to the next success; without one, by which the run was longer. */
  readonly recovery: number
  /** Of how many runs with full timers how many had this outcome. Absent: it is no finding, so one run was enough. */
  readonly confirmed?: { readonly times: number; readonly runs: number }
}

/**
 * Whether a queue pair has lost its peer: it was connected before the peer's queue pair ended, most often with its
 * process. The program learns so by the failure itself.
 */
const hasLostPeer = ({ moments, objects: [qp] }: Finding): boolean => {
  const ended = moments.find(({ isPeersEnd }) => isPeersEnd)
  const connected = qp?.history.findLast(({ state }) => state === QpState.values.RTR)
  return ended !== undefined && connected !== undefined && connected.time <= ended.time
}

/** A note is not necessarily a mistake. */
const isStale = (finding: Finding): boolean =>
  findings[finding.id]?.isStale === true && finding.severity !== 'note' && !hasLostPeer(finding)

/** Numbers differ from run to run: times, addresses, queue pairs, bandwidths. */
const comparable = (line: string): string => line.replace(/0x[0-9a-f]+|[0-9a-f:.]*\d[0-9a-f:.]*/gi, '#').trim()

/** What shells say of processes that a signal has ended is not the program's. */
const OF_SHELL = /^(?:\S*sh: line \d+: +\d+ )?(?:Killed|Terminated|Aborted|Hangup)\b/

const newLine = (output: string, before: string): string | undefined => {
  const known = new Set(before.split('\n').map(comparable))
  return output
    .split('\n')
    .find(line => line.trim() !== '' && !OF_SHELL.test(line.trim()) && !known.has(comparable(line)))
    ?.trim()
}

const messageOf = (run: WalkRun, clean: WalkRun): string | undefined =>
  newLine(run.result.stderr, clean.result.stderr) ?? newLine(run.result.stdout, clean.result.stdout)

const countOf = (sites: readonly SurveySite[], { target, name, class: cls }: SurveySite): number =>
  sites
    .filter(site => site.target === target && site.name === name && site.class === cls)
    .reduce((sum, { count }) => sum + count, 0)

/** A later call does what the failed one has not, and how often a program makes it depends on times. */
const isReplaced = ({ target, name }: SurveySite): boolean => target === 'call' && name === 'cq.reqNotify'

/**
 * Objects that could not be prepared for another use are destroyed instead: a queue pair that could not be stopped, or
 * more than without the failure.
 */
const isGivenUp = ({ target, name, class: cls }: SurveySite, run: WalkRun, clean: WalkRun): boolean => {
  if (target !== 'call' || roleOf(name) !== 'modifies') return false
  if (run.facts.isGivenUp) return true
  const destroyed = ({ sites }: WalkRun): number =>
    sites
      .filter(site => site.class === cls && roleOf(site.name) === 'destroys')
      .reduce((sum, { count }) => sum + count, 0)
  return destroyed(run) > destroyed(clean)
}

/** In this function of libibverbs providers prepare a device. */
const OPENS = / (?:verbs|ibv)_open_device$/
/** Functions of libmlx5 that send a command for the program. */
const COMMANDS = / mlx5dv_(?:devx_general_cmd|dr_\w+)$/

/**
 * Calls of which a program learns nothing, or may do without: queries, commands by which libmlx5 asks, and what
 * providers prepare when a device is opened.
 */
const isQuery = ({ target, name, stack }: SurveySite): boolean => {
  if (target !== 'call' || name === 'device.open') return false
  if (name === 'devx.command' && !COMMANDS.test(libraryFrameOf(stack) ?? '')) return true
  return roleOf(name) === 'asks' || stack.some(frame => OPENS.test(frame))
}

const MAKES_UP: readonly (MethodRole | undefined)[] = ['creates', 'modifies', 'resolves', 'connects', 'listens']

/** The program has made connections or objects, or posted requests, once more. */
const isRepeated = (run: WalkRun, clean: WalkRun): boolean =>
  run.sites.some(
    site =>
      (site.target === 'post' || (site.target === 'call' && MAKES_UP.includes(roleOf(site.name)))) &&
      countOf(run.sites, site) > countOf(clean.sites, site),
  )

/** All requests that the program makes without the failure were posted, and have succeeded. */
const hasLostNothing = (run: WalkRun, clean: WalkRun): boolean => {
  const requests = clean.sites.filter(({ target }) => target === 'post' || target === 'completion')
  return requests.length > 0 && requests.every(site => countOf(run.sites, site) >= countOf(clean.sites, site))
}

/** Numbers differ from run to run. */
const toldOf = ({ facts }: WalkRun): ReadonlySet<string> => new Set(facts.told.map(comparable))

/** What the program was told, and is not in the run without failures. */
const newlyTold = (run: WalkRun, clean: WalkRun): readonly string[] => {
  const before = toldOf(clean)
  return run.facts.told.filter(text => !before.has(comparable(text)))
}

/** libibverbs and its providers. */
const OF_VERBS = /\/(?:libibverbs|lib\w+-rdmav\d+|lib(?:mlx[45]|efa|hns|mana))\.so/

/** librdmacm makes a protection domain for itself, which no program can deallocate. */
const isOfCm = ({ left, moments: [created] }: Finding): boolean =>
  left === 'PD' && /\/librdmacm\.so/.test(created?.stack.find(frame => !OF_VERBS.test(frame)) ?? '')

/** Objects that are left without failures too do not count. */
const leaksOf = ({ findings, failed }: WalkRun, clean: WalkRun): readonly Finding[] => {
  const before = new Set(clean.findings.filter(({ left }) => left !== undefined).map(({ left }) => left))
  // A program that ends at once leaves all to the system; one that has destroyed objects has tried to clean up.
  return failed !== undefined && failed.destroyed > 0
    ? findings.filter(
        finding =>
          finding.left !== undefined &&
          !finding.wasKilled &&
          finding.program?.pid === failed.pid &&
          !before.has(finding.left) &&
          !isOfCm(finding),
      )
    : []
}

/** That a peer is gone is no mistake if it was killed, or its device removed. */
const staleOf = ({ kind, kills }: WalkPoint, run: WalkRun, clean: WalkRun): readonly Finding[] =>
  kills || kind === 'devices'
    ? []
    : run.findings.filter(one => isStale(one) && !clean.findings.some(finding => finding.id === one.id))

/** What goes on without failures too does not count. */
const relapsesOf = (run: WalkRun, clean: WalkRun): readonly Relapse[] => {
  const before = new Set(clean.facts.relapses.map(({ text }) => comparable(text)))
  return run.facts.relapses.filter(({ text }) => !before.has(comparable(text)))
}

const isFailing = ({ kind }: WalkPoint): boolean => kind === 'calls' || kind === 'posts' || kind === 'completions'

const outcomeOf = (point: WalkPoint, clean: WalkRun, run: WalkRun): Outcome => {
  const { result, records, injected, sites, left } = run
  if (injected === 0) return 'unreached'
  if (records.some(({ isCrash }) => isCrash)) return 'crash'
  if (result.isTimedOut) return 'hang'
  if (result.failure !== undefined && staleOf(point, run, clean).length > 0) return 'stale'
  if (leaksOf(run, clean).length > 0) return 'leak'
  if (left.length > 0 && clean.left.length === 0) return 'left'
  const told = newlyTold(run, clean)
  const message = messageOf(run, clean)
  if (result.failure !== undefined) {
    if (point.kills) return 'ended'
    if (result.signal !== null) return 'crash'
    return point.isHidden && told.length === 0 ? 'wrong' : 'ended'
  }
  if (relapsesOf(run, clean).length > 0) return 'degraded'
  if (message !== undefined) return 'recovered'
  if (isFailing(point) && point.site !== undefined) {
    const needed = isReplaced(point.site) ? 1 : countOf(clean.sites, point.site)
    const isMadeUpFor = countOf(sites, point.site) - injected >= needed
    return isMadeUpFor || isQuery(point.site) || isGivenUp(point.site, run, clean) ? 'recovered' : 'swallowed'
  }
  return told.length === 0 || isRepeated(run, clean) || hasLostNothing(run, clean) ? 'recovered' : 'swallowed'
}

const textsOf = (some: readonly { readonly text: string }[]): readonly string[] => some.map(({ text }) => text)

const detailsOf = (outcome: Outcome, point: WalkPoint, run: WalkRun, clean: WalkRun): readonly string[] => {
  switch (outcome) {
    case 'leak':
      return textsOf(leaksOf(run, clean))
    case 'stale':
      return textsOf(staleOf(point, run, clean))
    case 'left':
      return run.left
    case 'hang':
      return [...run.waits, ...textsOf(staleOf(point, run, clean))]
    case 'degraded':
      return textsOf(relapsesOf(run, clean))
    case 'swallowed':
    case 'wrong':
      return newlyTold(run, clean)
    default:
      return []
  }
}

/** `clean`: the run without failures. */
export const judge = (point: WalkPoint, clean: WalkRun, run: WalkRun): WalkResult => {
  const outcome = outcomeOf(point, clean, run)
  const { injectedAt, recoveredAt } = run.facts
  const took = injectedAt !== undefined && recoveredAt !== undefined ? recoveredAt - injectedAt : undefined
  return {
    point,
    outcome,
    run,
    details: detailsOf(outcome, point, run, clean),
    relapses: outcome === 'degraded' ? relapsesOf(run, clean) : [],
    message: messageOf(run, clean),
    recovery: Math.max(0, took ?? run.result.duration - clean.result.duration),
  }
}
