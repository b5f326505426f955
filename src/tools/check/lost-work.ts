/*
 * What explains a wait in which nothing is outstanding: work that the program has lost earlier without a completion.
 * The queues of its context do not show it any more.
 */

import { counted } from '../../base/text.ts'
import type { Failure } from '../../spec/check/failures.ts'
import type { Moment } from '../../spec/check/finding.ts'
import type { BeginningCall } from '../../spec/check/program-events.ts'
import { type KnownObject, type KnownObjects, typeOf } from './objects.ts'

/** Queue pairs that a finding names. */
const MAX_NAMED = 4

/** A call on an object begins. */
export const noteLostByDestroy = (
  { method, pendingSends = 0, pendingReceives = 0 }: BeginningCall,
  qp: KnownObject,
) => {
  if (method !== 'destroy' || !qp.isQp) return
  qp.lost.sends = pendingSends
  qp.lost.receives = pendingReceives
}

/** Services without acknowledgements: what a receiver drops is lost. */
const UNRELIABLE: ReadonlySet<string> = new Set(['UC', 'UD'])

/** A queue pair has dropped messages. `why`: a sentence. */
export const noteDropped = (qp: KnownObject, { count = 1, cause }: Failure, why: string): void => {
  if (UNRELIABLE.has(typeOf(qp))) qp.lost.drops = { count, why, cause: cause.id }
}

/** Devices tell of drops ever more rarely: the messages without a receive are counted here, too. */
const dropsOf = ({ drops, notReady }: KnownObject['lost']): number =>
  drops?.cause === 'NO_RECEIVE' ? Math.max(drops.count, notReady) : (drops?.count ?? 0)

interface LostBefore {
  readonly details: readonly string[]
  readonly moments: readonly Moment[]
  /** A sentence about a CQ whose completions may have been overwritten: nobody knows whether all were polled. */
  readonly overwritten: string | undefined
  /** Completions of a CQ were taken by several threads. */
  readonly isShared: boolean
  /** A sentence about datagrams that no device gets. */
  readonly unreached: string | undefined
}

/**
 * The message that one of these processes, which wait for messages, has dropped; undefined: none has. `text`: a
 * sentence.
 */
export const dropBehind = (
  objects: KnownObjects,
  pids: ReadonlySet<number>,
): { readonly qp: KnownObject; readonly text: string } | undefined => {
  const qp = objects
    .contexts()
    .flatMap(({ context }) => objects.queuePairsOf(context))
    .find(
      ({ lost, destruction, program }) =>
        lost.drops !== undefined && destruction === undefined && pids.has(program?.pid ?? -1),
    )
  if (qp?.lost.drops === undefined) return undefined
  const { why } = qp.lost.drops
  const count = dropsOf(qp.lost)
  return {
    qp,
    text: `${qp.nameWithProgram} dropped ${count > 1 ? 'at least ' : ''}${counted(count, 'message')}, which nobody repeats: ${why}`,
  }
}

/** What the program of a context has lost. */
export const lostIn = (objects: KnownObjects, context: number): LostBefore => {
  const queuePairs = objects.queuePairsOf(context)
  const named = queuePairs.filter(({ lost: { sends, receives, drops } }) => sends + receives > 0 || drops !== undefined)
  const details: string[] = []
  const moments: Moment[] = []
  let overwritten: string | undefined
  let isShared = false
  for (const { name, lost, destruction } of named.slice(-MAX_NAMED)) {
    const { sends, receives, drops } = lost
    const counts = [...(sends ? [counted(sends, 'send')] : []), ...(receives ? [counted(receives, 'receive')] : [])]
    if (counts.length > 0 && destruction !== undefined) {
      details.push(
        `${name} was destroyed with ${counts.join(' and ')} outstanding: a destroy completes none of them; only ERR (ibv_modify_qp) flushes them`,
      )
      moments.push({ ...destruction, action: `destroyed ${name}` })
    }
    if (drops !== undefined)
      details.push(`${name} dropped ${counted(dropsOf(lost), 'message')} before, which nobody repeats: ${drops.why}`)
  }
  for (const { name, pollers, overwriting = 0, size = 0 } of objects.existingIn(context)) {
    if (overwriting > size)
      overwritten ??= `${name} of ${size} entries, which ignores overruns (IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN), has had ${counted(overwriting, 'completion')}: those that were not polled before ${size} more came are lost`
    if (pollers.length === 0) continue
    isShared = true
    details.push(
      `${counted(pollers.length, 'thread')} have polled ${name}: a completion that one of them has taken, no other one gets`,
    )
    moments.push(...pollers)
  }
  const sender = queuePairs.find(({ lost }) => lost.unreached !== undefined)
  const { count = 0, to, why } = sender?.lost.unreached ?? {}
  const unreached =
    sender && `${counted(count, 'message')} of ${sender.name} to ${to} ${count === 1 ? 'was' : 'were'} dropped: ${why}`
  return { details, moments, overwritten, isShared, unreached }
}
