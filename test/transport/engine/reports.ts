/*
 * Collects the causes that an engine reports. Every test with node.ts checks that spec/check/causes.ts lists the cause
 * for the status or event.
 */
import { type Cause, type CauseName, causeOfCode, causes } from '../../../src/spec/check/causes.ts'
import { AsyncEventType } from '../../../src/spec/enums.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import type { Causes } from '../../../src/transport/engine/types.ts'

const nameIn = (values: Readonly<Record<string, number>>, value: number): string =>
  Object.keys(values).find(name => values[name] === value) ?? String(value)

/** `result` is the name of a completion status or asynchronous event. */
const assertListed = (result: string, cause: CauseName | undefined): void => {
  if (cause === undefined || !causes[cause].results.some(name => name === result))
    throw new Error(`spec/check/causes.ts does not list cause ${cause} for ${result}`)
}

/** Returns the cause in vendor_err (`code`). A success must have none. */
export const checkCompletion = (status: number, code: number): CauseName | undefined => {
  const cause = causeOfCode(code)
  if (status !== 0) assertListed(nameIn(WcStatus.values, status), cause)
  else if (code !== 0) throw new Error(`a success with vendor_err ${code}`)
  return cause
}

export const createReports = () => {
  /** The causes of failures and events, in order. */
  const reported: Cause[] = []
  /** Causes of the NAKs with which this engine moves a queue pair to ERR, by PSN. */
  const naks = new Map<number, Cause>()
  /** Reports of flushes: the queue, and the number of its WQEs. */
  const flushes: string[] = []
  /** `naks` of the peer's engine, if a test sets them. */
  const peer: { naks?: ReadonlyMap<number, Cause> } = {}
  const reporter: Causes = {
    send: (_row, _words, _at, _status, cause) => reported.push(cause),
    receive: (_row, _hi, _lo, _status, cause) => reported.push(cause),
    flushed: (_row, isSend, count) => flushes.push(`${count} ${isSend ? 'sends' : 'receives'}`),
    nak: (_row, psn, cause) => naks.set(psn, cause),
    dropped: (_row, cause) => reported.push(cause),
    causeAtPeer: (_row, psn) => peer.naks?.get(psn),
    psnsDiffer: () => undefined,
    duplicate: () => {},
  }
  const event = (type: number, cause: Cause): void => {
    assertListed(nameIn(AsyncEventType.values, type), cause.id)
    reported.push(cause)
  }
  return { reported, naks, flushes, peer, causes: reporter, event }
}
