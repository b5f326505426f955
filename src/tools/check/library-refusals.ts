/*
 * Findings about calls that libibverbs, a provider or librdmacm refused themselves: the device never saw them. The
 * reasons are in spec/check/refusals.ts.
 */

import type { LibraryRefusal } from '../../spec/check/program-events.ts'
import { refusalReason } from '../../spec/check/refusals.ts'
import { Errno, errnoName } from '../../spec/errno.ts'
import { ADVICE_FOR_ATTACHED, adviceForBusy } from './advice.ts'
import type { KnownObject, KnownObjects } from './objects.ts'
import { type FindingContent, type FindingReporter, MAX_NAMED } from './reporting.ts'

/** Functions of the two libraries; the name comes from the program. */
const FUNCTION_NAME = /^(ibv|rdma)_[a-z0-9_]+$/

/** The content of `destroy-busy` for an object of a class that other objects use. */
export const busyContent = (class_: string, destroyed: string, known: KnownObject | undefined): FindingContent => {
  const users = [...(known?.users ?? [])]
  const names = users.slice(0, MAX_NAMED).map(({ name }) => name)
  const more = users.length > MAX_NAMED ? ` and ${users.length - MAX_NAMED} more` : ''
  const [group] = known?.groups ?? []
  const use =
    users.length > 0 ? `used by ${names.join(', ')}${more}` : group ? `attached to multicast group ${group}` : 'in use'
  const text = `${known?.name ?? class_} cannot be ${destroyed}, it is ${use} (EBUSY)`
  const advice = users.length === 0 && group ? ADVICE_FOR_ATTACHED : adviceForBusy(users)
  return { text, advice, objects: [known, ...users] }
}

const objectOf = (
  { object, context, deviceNumber, program }: LibraryRefusal,
  class_: string | undefined,
  objects: KnownObjects,
): KnownObject | undefined => {
  if (class_ === 'cm_id') return objects.cmIdOfProgram(program, object)
  if (class_ === undefined || context === undefined) return undefined
  const found =
    class_ === 'qp' ? objects.qp(deviceNumber, Number(object)) : objects.byHandle(context, class_, Number(object))
  return found?.destruction === undefined ? found : undefined
}

/** Reports a call that a library refused. `whoLeft`: as `Outages.whoLeft`. */
export const refusedByLibrary = (
  refusal: LibraryRefusal,
  objects: KnownObjects,
  reporter: FindingReporter,
  whoLeft: (device: number, index: number) => string | undefined,
): void => {
  const { errno, facts, program, stack, time } = refusal
  // The function that the macro ibv_query_gid_ex calls begins with an underscore.
  const name = refusal.function.replace(/^_/, '')
  if (!FUNCTION_NAME.test(name)) return
  const { reason, advice, severity, object: class_ } = refusalReason(name, errno, facts)
  // An event says why a call of an identifier without a channel has failed; of others nothing is known.
  if (reason === undefined) return
  const known = objectOf(refusal, class_, objects)
  const { device, context = -1 } = known
    ? { device: known.deviceName, context: known.context }
    : { device: refusal.device, ...(refusal.context !== undefined && { context: refusal.context }) }
  const occurrence = { time, device, context, program, stack }
  if (class_ === 'comp_channel' && errno === Errno.EBUSY) {
    reporter.report('destroy-busy', occurrence, { ...busyContent('the channel', 'destroyed', known), advice })
    return
  }
  const on = known === undefined ? '' : ` on ${known.name}`
  const text = `${name}${on}: ${errnoName(errno)}: ${reason}`
  const left =
    name === 'ibv_query_gid_ex' && errno === Errno.ENODATA && whoLeft(refusal.deviceNumber, Number(facts[1] ?? -1n))
  const details = left ? [left] : []
  reporter.report('refused-call', occurrence, { text, advice, severity, details, objects: [known] })
}
