/*
 * Calls by which libraries ask what there is. Their failure is no failure of the program, which learns nothing of it: a
 * walk leaves them out.
 *
 * - What is refused without a failure too, and queue pairs that are destroyed without a modify: UCX and libfabric learn
 *   so what queue pairs can do.
 * - Objects that a verbs library makes and destroys in one of its functions: librdmacm learns in its first function
 *   whether the machine has AF_IB, and goes on if it has not.
 * - Objects that another library makes and destroys in one call of the program, in which it neither connects nor
 *   transfers: fi_getinfo.
 */
import { libraryFrameOf } from '../../faults/survey.ts'
import { isOfQueuePair, roleOf } from '../../spec/methods.ts'
import { isOfSameProcess, isOfSameSite, sumOf, type WalkSite } from './site.ts'

const SHARED = /\.so[.\d]*\+0x/
/** Calls after which more than to ask is meant. */
const isUse = (name: string): boolean => {
  const role = roleOf(name)
  return role === 'connects' || role === 'listens' || (role === 'modifies' && isOfQueuePair(name))
}

/** The call of the program into a library that is no verbs library, with the frame there; undefined: there is none. */
const libraryCallOf = ({ stack }: WalkSite): string | undefined => {
  const caller = stack.findIndex(frame => !SHARED.test(frame))
  const inner = libraryFrameOf(stack)
  return caller < 1 || stack[caller - 1] === inner ? undefined : `${stack[caller - 1]} ${stack[caller]}`
}

/**
 * Whether all objects of the class are destroyed in the call of the program into a library, and nothing is done with
 * them.
 */
const isAskedByCall = (sites: readonly WalkSite[], site: WalkSite): boolean => {
  const call = libraryCallOf(site)
  if (call === undefined) return false
  const inCall = sites.filter(one => isOfSameProcess(one, site) && libraryCallOf(one) === call)
  if (inCall.some(({ target, name }) => target === 'post' || target === 'completion' || isUse(name))) return false
  const countOf = (method: string): number => sumOf(inCall.filter(({ name }) => name === `${site.class}.${method}`))
  return countOf('destroy') > 0 && countOf('create') - askedIn(inCall, `${site.class}.create`) <= countOf('destroy')
}

const askedIn = (sites: readonly WalkSite[], name: string): number =>
  sites.filter(one => one.name === name).reduce((sum, { asked = 0 }) => sum + asked, 0)

/** How many calls of a site ask only. */
export const askedAt = (sites: readonly WalkSite[], site: WalkSite): number => {
  if (isAskedByCall(sites, site)) return Number.POSITIVE_INFINITY
  const same = sites.filter(one => isOfSameSite(one, site))
  const asked = askedIn(same, site.name)
  const frame = libraryFrameOf(site.stack)
  if (asked > 0 || frame === undefined) return asked
  return sumOf(same.filter(({ name, stack }) => name === `${site.class}.destroy` && libraryFrameOf(stack) === frame))
}
