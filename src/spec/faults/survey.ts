/*
 * A survey of what fault rules can act on: the calls, posts, completions and received events of programs by process, call
 * site and phase. A call site is the program's innermost frame, from which it has called the verbs API. With it what a run
 * shows beside: what programs were told, and when a failure was injected and repaired.
 */
import {
  type FailedProgram,
  type FaultTarget,
  type ProgramPhase,
  programPhases,
  type SurveyFacts,
  type SurveySite,
} from '../faults.ts'
import type { FaultSubject } from './program-faults.ts'
import { hashOf } from './random.ts'

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

export interface Survey {
  readonly sites: readonly SurveySite[]
  /** Undefined: no fault was injected. */
  readonly failed: FailedProgram | undefined
  readonly facts: SurveyFacts
  note(
    target: FaultTarget,
    cls: string,
    name: string,
    program: Pick<FaultSubject, 'pid' | 'program'>,
    stack: readonly string[],
    isThreaded?: boolean,
  ): void
  /** A fault was injected into this process. */
  injected(pid: number): void
  /** A program was told of a failure. `isCompletion`: by a failed completion. */
  told(text: string, isCompletion: boolean): void
  /** A queue pair repeats requests for so many milliseconds. */
  retries(milliseconds: number): void
}

/** Maximum number of sites; later ones are not noted. */
const MAX_SITES = 4096
const MAX_TOLD = 16

const CREATES = /_qp\.create$/
const CONNECTS = /(?:_qp\.modify|cm_id\.(?:connect|accept))$/
const CLOSES = /(?:_qp\.destroy|cm_id\.disconnect)$/

/** The phase of a process after what it does now. */
const phaseAfter = (before: ProgramPhase, target: FaultTarget, name: string): ProgramPhase => {
  const now: ProgramPhase =
    target === 'completion'
      ? 'transfers'
      : CREATES.test(name)
        ? 'has a queue pair'
        : CONNECTS.test(name)
          ? 'connects'
          : CLOSES.test(name)
            ? 'closes'
            : 'begins'
  // A program that has closed its connections begins anew with the next queue pair.
  if (before === 'closes' && now === 'has a queue pair') return now
  return programPhases.indexOf(now) > programPhases.indexOf(before) ? now : before
}

interface Process {
  phase: ProgramPhase
  /** By what is done where: how often. */
  readonly counts: Map<string, number>
}

/** `numberOf`: `ProgramFaults.processNumber`. `now`: milliseconds. */
export const createSurvey = (numberOf: (pid: number) => number, now: () => number): Survey => {
  const byKey = new Map<string, SurveySite>()
  const sites: SurveySite[] = []
  const processes = new Map<number, Process>()
  const begin = now()
  const facts: { -readonly [N in keyof SurveyFacts]: SurveyFacts[N] } & { readonly told: string[] } = {
    told: [],
    retries: 0,
  }
  let failed: { readonly pid: number; destroyed: number } | undefined
  let isBroken = false
  return {
    sites,
    get failed() {
      return failed
    },
    facts,
    injected(pid) {
      failed ??= { pid, destroyed: 0 }
      facts.injectedAt ??= now() - begin
    },
    told(text, isCompletion) {
      isBroken ||= isCompletion
      if (facts.told.length < MAX_TOLD && !facts.told.includes(text)) facts.told.push(text)
    },
    retries(milliseconds) {
      facts.retries = Math.max(facts.retries, milliseconds)
    },
    note(target, cls, name, { pid, program }, stack, isThreaded = false) {
      if (pid === failed?.pid && name.endsWith('.destroy')) failed.destroyed++
      const number = numberOf(pid)
      const known = processes.get(number) ?? { phase: 'begins', counts: new Map() }
      processes.set(number, known)
      if (target === 'completion' && isBroken) {
        isBroken = false
        facts.recoveredAt = now() - begin
      }
      const { phase } = known
      known.phase = phaseAfter(phase, target, name)
      const site = siteOf(stack) ?? ''
      const place = `${target} ${cls} ${name} ${site}`
      const first = (known.counts.get(place) ?? 0) + 1
      known.counts.set(place, first)
      const key = `${number} ${phase} ${place}`
      const before = byKey.get(key)
      if (before !== undefined) before.count++
      else if (sites.length < MAX_SITES) {
        const command = program()
        const added = {
          target,
          name,
          class: cls,
          site,
          program: command,
          process: number,
          phase,
          first,
          stack,
          count: 1,
          ...(isThreaded && { isThreaded }),
        }
        byKey.set(key, added)
        sites.push(added)
      }
    },
  }
}
