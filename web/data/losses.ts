/*
 * What went wrong, counted once for all views. Problems are what a program noticed: failures, and findings of the
 * check. Losses that a queue pair repaired are none; they are counted in packets.
 */
import type { FindingEvent } from '../../src/spec/session-events.ts'
import type { Connection } from '../../src/tools/record/objects.ts'
import type { Losses } from '../../src/tools/record/times/request-times.ts'
import type { Facts } from './store.ts'

/** Of a connection, or of all. */
export const lossesOf = ({ times, traffic }: Facts, connection?: Connection): Losses => {
  if (connection === undefined) return { ...times.lossesOf(), lost: traffic.totals.lost }
  return times.lossesOf(
    [connection.left, ...(connection.right ? [connection.right] : [])].map(({ object }) => object.id),
  )
}

/** Whether a finding names a queue pair of the connection. */
export const isFindingOf = ({ left, right }: Connection, { objects }: FindingEvent['finding']): boolean => {
  const names = [left, right].flatMap(qp => (qp === undefined ? [] : [`QP 0x${qp.qpn.toString(16)} `]))
  return objects.some(({ name }) => names.some(of => `${name} `.startsWith(of)))
}

/** Failures and findings, of a connection or of all. */
export const problemsOf = ({ failures, findings }: Facts, connection?: Connection): number => {
  if (connection === undefined) return failures.total + findings.total
  const { left, right } = connection
  const isOurs = (object: number): boolean => object === left.object.id || object === right?.object.id
  return (
    failures.entries.filter(({ object }) => isOurs(object)).length +
    findings.entries.filter(({ finding }) => isFindingOf(connection, finding)).length
  )
}
