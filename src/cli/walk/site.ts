/*
 * Call sites of a walk: those of a survey, with their host.
 */
import type { SurveySite } from '../../spec/faults.ts'

/** A site of a host of a net; '': without net. */
export type WalkSite = SurveySite & { readonly host: string }

export const isOfSameProcess = (one: WalkSite, other: WalkSite): boolean =>
  one.host === other.host && one.role === other.role

/** Of one class and device, called from one place. */
export const isOfSameSite = (one: WalkSite, other: WalkSite): boolean =>
  isOfSameProcess(one, other) && one.device === other.device && one.class === other.class && one.site === other.site

export const sumOf = (sites: readonly WalkSite[]): number => sites.reduce((sum, { count }) => sum + count, 0)
