/*
 * Lent memory in recordings of depth `check`, as text: what programs say of their memory, and what peers do there.
 */
import type { Stack } from '../../spec/check/finding.ts'
import type { ProgramEvent } from '../../spec/check/program-events.ts'
import type { ProgramPart, SessionEvent } from '../../spec/session-events.ts'
import { lendText } from '../../tools/check/lends/text.ts'
import { accessText } from '../../tools/check/memory-gone.ts'

const hex = (value: number): string => `0x${value.toString(16)}`

const isNumber = (value: unknown): value is number => typeof value === 'number' && Number.isFinite(value)

const OF_LENDS = /^\{"event":"(?:lent|takenBack|unchecked|named|advertised)"/

/** Whether an event tells of lent memory. */
export const isOfLends = (event: SessionEvent): boolean =>
  event.kind === 'accessed' || (event.kind === 'program' && OF_LENDS.test(event.text))

/** The event in one part; undefined: it is of something else, or has several parts. Its fields may have any values. */
const eventIn = ({ text, hasMore }: ProgramPart): Partial<Record<string, unknown>> | undefined => {
  if (hasMore || !OF_LENDS.test(text)) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Partial<Record<string, unknown>>) : undefined
  } catch {
    return undefined
  }
}

const owner = ({ pid }: { readonly pid?: unknown }): string => (isNumber(pid) ? `process ${pid}` : 'the program')

const bytesText = ({ start, end }: { readonly start?: unknown; readonly end?: unknown }): string =>
  isNumber(start) && isNumber(end) ? `${end - start} bytes at ${hex(start)}` : 'bytes'

const stackOf = ({ stack }: { readonly stack?: unknown }): Stack =>
  Array.isArray(stack) && stack.every(frame => typeof frame === 'string') ? stack : []

type Name = ProgramEvent['event'] & ('lent' | 'takenBack' | 'unchecked' | 'named' | 'advertised')

const texts: Readonly<Record<Name, (event: Partial<Record<string, unknown>>) => string>> = {
  lent: event => {
    const { rights, label, qpn, until, lend } = event
    const what = lendText({
      rights: isNumber(rights) ? rights : 0,
      label: String(label ?? ''),
      qpn: isNumber(qpn) ? qpn : 0,
    })
    return `${owner(event)} lends ${bytesText(event)} ${what}, lend ${lend}${isNumber(until) ? `, until ${(until / 1e6).toFixed(6)}` : ''}`
  },
  takenBack: event => `${owner(event)} takes back lend ${event.lend}`,
  unchecked: event => `${owner(event)} lets anybody access ${bytesText(event)}`,
  named: event => `${owner(event)} names ${bytesText(event)} ${event.name}`,
  advertised: event => `a message of ${owner(event)} by object ${event.qp} tells its receiver of ${bytesText(event)}`,
}

/** What was said of memory, with the stack of it; undefined: an event of something else. */
export const lendLine = (part: ProgramPart): { readonly text: string; readonly stack: Stack } | undefined => {
  const event = eventIn(part)
  const name = String(event?.event)
  return event === undefined || !Object.hasOwn(texts, name)
    ? undefined
    : { text: texts[name as Name](event), stack: stackOf(event) }
}

/** An access of a peer to registered memory. */
export const accessLine = (event: Extract<SessionEvent, { kind: 'accessed' }>): string => {
  const address = (BigInt(event.high) << 32n) | BigInt(event.low)
  return `${accessText(event.access)} of the peer of QP ${hex(event.qpn)}: ${event.length} bytes at 0x${address.toString(16)}, rkey ${hex(event.rkey)}, device ${event.device}`
}
