/*
 * Waits of older recordings: the text names the request by its number of the device, and `own` is the request as it was
 * posted.
 */
import type { CheckedWait, ProgramEvent } from '../../../spec/check/program-events.ts'

/** The wait as it is recorded today. */
export const presentWait = ({
  own,
  ...event
}: ProgramEvent<'waits'> & { readonly own?: NonNullable<CheckedWait['posted']> }): ProgramEvent<'waits'> => {
  const { wait } = event
  if (own === undefined) return event
  const text = wait.text.replace(/(?:wr_id|block|request) (\d+)/, (whole, number) =>
    BigInt(number) === wait.request?.wrId ? `wr_id ${own.wrId}` : whole,
  )
  return { ...event, posted: own, wait: { ...wait, text } }
}
