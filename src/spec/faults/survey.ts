/*
 * A survey of what fault rules can act on: the calls, posts and completions of programs by call site. A call site is
 * the program's innermost frame, from which it has called the verbs API.
 */
import type { FailedProgram, FaultTarget, SurveySite } from '../faults.ts'
import type { FaultSubject } from './program-faults.ts'
import { hashOf } from './random.ts'

/** Frames of native stacks in libraries of the verbs API. */
const VERBS_LIBRARIES = /\/(?:libibverbs|librdmacm|libibumad|lib\w+-rdmav\d+)\.so/

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
  note(
    target: FaultTarget,
    cls: string,
    name: string,
    program: Pick<FaultSubject, 'pid' | 'program'>,
    stack: readonly string[],
  ): void
  /** A fault was injected into this process. */
  injected(pid: number): void
}

/** Maximum number of sites; later ones are not noted. */
const MAX_SITES = 4096

export const createSurvey = (): Survey => {
  const byKey = new Map<string, SurveySite>()
  const sites: SurveySite[] = []
  let failed: { readonly pid: number; destroyed: number } | undefined
  return {
    sites,
    get failed() {
      return failed
    },
    injected(pid) {
      failed ??= { pid, destroyed: 0 }
    },
    note(target, cls, name, { pid, program }, stack) {
      if (pid === failed?.pid && name.endsWith('.destroy')) failed.destroyed++
      const site = siteOf(stack) ?? ''
      const key = `${target} ${cls} ${name} ${site}`
      const known = byKey.get(key)
      if (known !== undefined) known.count++
      else if (sites.length < MAX_SITES) {
        const first = { target, name, class: cls, site, program: program(), stack, count: 1 }
        byKey.set(key, first)
        sites.push(first)
      }
    },
  }
}
