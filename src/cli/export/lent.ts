/*
 * Lent memory in recordings of depth `check`, as text: what programs say of their memory, and what peers do there.
 */
import type { Stack } from '../../spec/check/finding.ts'
import { printable } from '../../spec/printable.ts'
import type { LendRecord } from '../../spec/records.ts'
import type { ProgramPart, SessionEvent } from '../../spec/session-events.ts'
import { accessText, lendText } from '../../tools/check/lends/rights.ts'
import { type LendEvent, type LendEventName, lendEvent } from '../../tools/record/lends.ts'

const hex = (value: number): string => `0x${value.toString(16)}`

const owner = ({ pid }: LendEvent): string => (pid === undefined ? 'the program' : `process ${pid}`)

const bytesText = ({ start, end }: LendEvent): string =>
  start === undefined || end === undefined ? 'bytes' : `${end - start} bytes at ${hex(start)}`

const texts: Readonly<Record<LendEventName, (event: LendEvent) => string>> = {
  lent: event => {
    const { rights = 0, label = '', qp: qpn = 0, until, lend } = event
    const what = lendText({ rights, label, qpn })
    return `${owner(event)} lends ${bytesText(event)} ${what}, lend ${lend}${until === undefined ? '' : `, until ${(until / 1e6).toFixed(6)}`}`
  },
  takenBack: event => `${owner(event)} takes back lend ${event.lend}`,
  unchecked: event => `${owner(event)} lets anybody access ${bytesText(event)}`,
  named: event => `${owner(event)} names ${bytesText(event)} ${event.label}`,
  advertised: event => `a message of ${owner(event)} by object ${event.qp} tells its receiver of ${bytesText(event)}`,
  lendsEnd: event => `${owner(event)} lends nothing any more`,
}

/** What was said of memory, with the stack of it; undefined: an event of something else. */
export const lendLine = (part: ProgramPart): { readonly text: string; readonly stack: Stack } | undefined => {
  const event = lendEvent(part)
  return event && { text: texts[event.name](event), stack: event.stack }
}

/** What a record of `userdma trace` tells. */
export const lentLine = ({ pid, command, lent }: LendRecord): string => {
  const line = lendLine({ kind: 'program', hasMore: false, text: JSON.stringify(lent) })
  const { access, qpn, length, start } = lent
  const text =
    line?.text ??
    `${accessText(Number(access))} of the peer of QP ${hex(Number(qpn))}: ${length} bytes at ${hex(Number(start))}`
  return `[pid ${pid} ${printable(command)}] ${text}`
}

/** An access of a peer to registered memory. */
export const accessLine = (event: Extract<SessionEvent, { kind: 'accessed' }>): string => {
  const address = (BigInt(event.high) << 32n) | BigInt(event.low)
  return `${accessText(event.access)} of the peer of QP ${hex(event.qpn)}: ${event.length} bytes at 0x${address.toString(16)}, rkey ${hex(event.rkey)}, device ${event.device}`
}
