/*
 * The points of a fault walk: from the call sites of a run without faults, the rules that fail the first call, post or
 * completion of each.
 */

import type { ErrnoName } from '../../spec/errno.ts'
import { methodErrnos } from '../../spec/faults/program-rules.ts'
import { type SurveySite, statusesOf } from '../../spec/faults.ts'

/** One run of the walk. */
export interface WalkPoint {
  readonly site: SurveySite
  /** The fault rule. */
  readonly rule: string
  /** For reports: `mr.create fails with ENOMEM`. */
  readonly text: string
}

/** The errors in the order in which they are preferred: most programs must expect the first. */
const PREFERRED_ERRNOS: readonly ErrnoName[] = ['ENOMEM', 'EIO', 'EINVAL']

/** Calls that programs may expect to succeed, or that wait: not walked. */
const NOT_WALKED = /\.(?:destroy|getEvents?|destroyAhs)$/

/** librdmacm tries in this function what the machine can, and goes on without it. */
const TRIES = / rdma_create_event_channel$/

/** The status of a failed request: what a lost peer leads to; for a receive, that its queue pair failed. */
const PREFERRED_STATUSES = ['RETRY_EXC_ERR', 'WR_FLUSH_ERR'] as const

/** Undefined: the site is not walked. */
const pointOf = (site: SurveySite): WalkPoint | undefined => {
  const { target, name, class: cls, site: number, stack } = site
  if (number === '' || (cls === 'cm_id' && stack.some(frame => TRIES.test(frame)))) return undefined
  const at = `class=${cls},site=${number}`
  switch (target) {
    case 'call': {
      const errnos = NOT_WALKED.test(name) ? [] : methodErrnos(name)
      const errno = PREFERRED_ERRNOS.find(preferred => errnos.includes(preferred))
      if (errno === undefined) return undefined
      return { site, rule: `call=${name},${at},nth=1,errno=${errno}`, text: `${name} fails with ${errno}` }
    }
    case 'post': {
      const request = name === '' ? '' : `,request=${name}`
      const what =
        name === 'RECV' ? 'the post of a receive' : name === '' ? 'the post of a batch' : `the post of ${name}`
      return { site, rule: `${at}${request},nth=1,post=ENOMEM`, text: `${what} fails with ENOMEM` }
    }
    case 'completion': {
      const statuses: readonly string[] = statusesOf(cls, name)
      const status = PREFERRED_STATUSES.find(preferred => statuses.includes(preferred))
      if (status === undefined) return undefined
      return { site, rule: `completion=${name},${at},nth=1,status=${status}`, text: `${name} completes with ${status}` }
    }
    default:
      return undefined
  }
}

/** The points of these sites, in the order in which the program came to them. */
export const pointsOf = (sites: readonly SurveySite[]): readonly WalkPoint[] =>
  sites.map(pointOf).filter(point => point !== undefined)
