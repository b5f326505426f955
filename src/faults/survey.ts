/*
 * A survey of what fault rules can act on: the calls, posts, completions and received events of programs by process,
 * call site and phase. A call site is the program's innermost frame, from which it has called the verbs API. With it
 * what a run shows beside: what programs were told, and when a failure was injected and repaired.
 */
import { hashOf } from '../base/random.ts'
import type { FailedProgram, FaultTarget, SurveyFacts, SurveySite } from '../spec/faults.ts'
import type { FaultSubject, ProgramFaults } from './program-faults.ts'

/** The dynamic linker runs the destructors of libraries, at exit and when they are unloaded. */
const DESTRUCTORS = /\/ld-[^/]*\.so/

/** Frames of native stacks in libraries of the verbs API. */
const VERBS_LIBRARIES = /\/(?:libibverbs|librdmacm|libibumad|lib\w+-rdmav\d+|lib(?:mlx[45]|efa|hns|mana))\.so/

/**
 * The number of the call site of a stack (frames as in `Stack`, spec/check/finding.ts), 8 hexadecimal digits.
 * Undefined: the stack has no frame of the program.
 */
export const siteOf = (stack: readonly string[]): string | undefined => {
  const frame = stack.find(line => !VERBS_LIBRARIES.test(line))
  return frame === undefined ? undefined : hashOf(frame).toString(16).padStart(8, '0')
}

/** The frame in the library function that the program has called; undefined: the call is not a library's. */
export const libraryFrameOf = (stack: readonly string[]): string | undefined => {
  const outer = stack.findIndex(line => !VERBS_LIBRARIES.test(line))
  return stack[outer - 1]
}

export interface Survey {
  readonly sites: readonly SurveySite[]
  /** Undefined: no fault was injected. */
  readonly failed: FailedProgram | undefined
  readonly facts: SurveyFacts
  /** Returns the site; undefined: there are too many. */
  note(
    target: FaultTarget,
    cls: string,
    name: string,
    program: Pick<FaultSubject, 'pid' | 'program' | 'device'>,
    stack: readonly string[],
    isThreaded?: boolean,
  ): SurveySite | undefined
  /** A fault was injected into this process. `stack`: of the call that fails. */
  injected(pid: number, stack?: readonly string[]): void
  /** A program was told of a failure. `isCompletion`: by a failed completion. */
  told(text: string, isCompletion: boolean): void
  /** A queue pair was destroyed, after a fault has kept it from being stopped. */
  gaveUp(): void
  /** A queue pair repeats requests for so many milliseconds. */
  retries(milliseconds: number): void
}

/** Maximum number of sites; later ones are not noted. */
export const MAX_SITES = 4096
const MAX_TOLD = 16

/**
 * Whether the program has made a destroy, not a library: librdmacm cleans up in the call that fails, and at exit.
 * `failedSite`: of that call.
 */
const isOfProgram = (stack: readonly string[], failedSite: string | undefined): boolean => {
  const site = siteOf(stack)
  return (site === undefined || site !== failedSite) && !stack.some(frame => DESTRUCTORS.test(frame))
}

type Programs = Pick<ProgramFaults, 'processNumber' | 'roleOf' | 'phaseOf'>

/** `programs`: asked before they learn of what is noted. `now`: milliseconds. */
export const createSurvey = (programs: Programs, now: () => number): Survey => {
  const byKey = new Map<string, SurveySite>()
  const sites: SurveySite[] = []
  /** By role, and what is done where: how often. */
  const counts = new Map<string, number>()
  const begin = now()
  const facts: { -readonly [N in keyof SurveyFacts]: SurveyFacts[N] } & { readonly told: string[] } = {
    told: [],
    retries: 0,
    relapses: [],
  }
  let failed: { readonly pid: number; destroyed: number } | undefined
  /** The call site of the failed call. */
  let failedSite: string | undefined
  let isBroken = false
  return {
    sites,
    get failed() {
      return failed
    },
    facts,
    injected(pid, stack = []) {
      if (failed === undefined) failedSite = siteOf(stack)
      failed ??= { pid, destroyed: 0 }
      facts.injectedAt ??= now() - begin
    },
    told(text, isCompletion) {
      isBroken ||= isCompletion
      if (facts.told.length < MAX_TOLD && !facts.told.includes(text)) facts.told.push(text)
    },
    gaveUp() {
      facts.isGivenUp = true
    },
    retries(milliseconds) {
      facts.retries = Math.max(facts.retries, milliseconds)
    },
    note(target, cls, name, { pid, program, device }, stack, isThreaded = false) {
      if (pid === failed?.pid && name.endsWith('.destroy') && isOfProgram(stack, failedSite)) failed.destroyed++
      const number = programs.processNumber(pid)
      const role = programs.roleOf(pid)
      const phase = programs.phaseOf(pid)
      if (target === 'completion' && isBroken) {
        isBroken = false
        facts.recoveredAt = now() - begin
      }
      const site = siteOf(stack) ?? ''
      const place = `${target} ${device} ${cls} ${name} ${site}`
      const first = (counts.get(`${role} ${place}`) ?? 0) + 1
      counts.set(`${role} ${place}`, first)
      const key = `${role} ${phase} ${place}`
      const before = byKey.get(key)
      if (before !== undefined) before.count++
      if (before !== undefined || sites.length >= MAX_SITES) return before
      const added: SurveySite = {
        target,
        name,
        class: cls,
        site,
        device,
        program: program(),
        process: number,
        role,
        phase,
        first,
        stack,
        count: 1,
        ...(isThreaded && { isThreaded }),
      }
      byKey.set(key, added)
      sites.push(added)
      return added
    },
  }
}
