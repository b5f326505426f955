/*
 * The sentences of findings about lent memory.
 */
import type { Moment, Program, Stack } from '../../../spec/check/finding.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { durationText } from '../../../spec/duration.ts'
import { LENT_FRAMES, type LentBytes } from '../../../spec/lends.ts'
import { requestText } from '../buffers.ts'
import { hex, type KnownObject, moment } from '../objects.ts'
import { labelText, lendText, nounOf } from './rights.ts'
import type { Lend } from './table.ts'

/** The lend that a finding is about, and one of the same bytes that lasts and was made after its end. */
export interface LendHistory {
  readonly last: Lend | undefined
  readonly since: Lend | undefined
}

/** An access; `right`: one bit of LendRight, `qpn`: the responder's, `start`: an address of the process. */
export interface LentAccess {
  readonly right: number
  readonly qpn: number
  readonly start: number
  readonly length: number
}

/** The part of a row of `userdma stat --lent` that every row has. `age`: microseconds. */
export const rowOf = (
  { pid, command }: Program,
  start: number,
  end: number,
  age: number,
  stack: Stack,
): Pick<LentBytes, 'pid' | 'command' | 'address' | 'length' | 'age' | 'stack'> => ({
  pid,
  command,
  address: hex(start),
  length: end - start,
  age: Math.max(0, Math.round(age)),
  ...(stack.length > 0 && { stack: stack.slice(0, LENT_FRAMES) }),
})

/** The subject and verb of a finding, before the name of the region. */
export const accessText = (
  { right, length, start }: LentAccess,
  request: WorkRequest | undefined,
  owner: KnownObject | undefined,
  responder: KnownObject | undefined,
): string => {
  const bytes = `accesses ${length} bytes at ${hex(start)} of`
  if (request !== undefined && owner !== undefined)
    return `${requestText(request)} of ${owner.nameWithProgram} ${bytes}`
  if (request !== undefined) return `${requestText(request)} of QP ${hex(request.number)}, which is destroyed, ${bytes}`
  return `a ${nounOf(right)} of the peer of ${responder?.name ?? 'a queue pair'} ${bytes}`
}

/** A request that is outstanding. */
export const unfinishedText = (request: WorkRequest, owner: KnownObject): string =>
  `${requestText(request)} of ${owner.nameWithProgram} to these bytes`

/** Why the bytes are not lent, at `now`. */
export const historyText = (
  { last, since }: LendHistory,
  { right, qpn }: LentAccess,
  now: number,
  { program }: KnownObject,
): string => {
  const owner = program === undefined ? 'the program' : `process ${program.pid} (${program.command})`
  if (last === undefined) return `${owner} has not lent these bytes, but others of the region`
  const { ended } = last
  if (ended === undefined)
    return (last.rights & right) === 0
      ? `${owner} has lent these bytes only ${lendText(last)}`
      : `${owner} has lent these bytes only to the peer of QP ${hex(last.qpn)}${labelText(last)}, not to that of QP ${hex(qpn)}`
  const ago = durationText(now - ended.time)
  const later =
    since === undefined ? '' : `; since ${durationText(now - since.time)} before they are lent ${lendText(since)}`
  return `${owner} had lent these bytes ${lendText(last)}; ${ended.action} ${ago} before${later}`
}

export const lendMoments = ({ last, since }: LendHistory): Moment[] => [
  ...(last === undefined ? [] : [moment(`lent${labelText(last)}`, last.time, last.stack)]),
  ...(last?.ended === undefined ? [] : [last.ended]),
  ...(since === undefined ? [] : [moment(`lent again${labelText(since)}`, since.time, since.stack)]),
]
