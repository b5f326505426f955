/*
 * Permitted differences between captures of Linux's connection manager and our engine: each row has the messages of one
 * capture, the recorded and our values, the reason, and the clause that we follow. A difference without a row fails the
 * replay, and so does an unused row.
 */
import type { Side } from '../transport/captures/conversation.ts'
import type { Difference } from './replay.ts'

export interface Row {
  readonly capture: string
  readonly side: Side
  /** Message numbers in the file; 0: messages that the recording lacks. */
  readonly packets: readonly number[]
  /**
   * Field → recorded and our value; `packet`: a message that one of them lacks (`-`); `wait`: time before a
   * retransmission.
   */
  readonly fields: Readonly<Record<string, readonly [recorded: string, ours: string]>>
  readonly clause: string
  readonly reason: string
}

export const permitted: readonly Row[] = [
  {
    capture: 'cm_loss_at_client',
    side: 1,
    packets: [0],
    fields: { packet: ['-', 'DREP'] },
    clause: '12.9.8',
    reason:
      'a repeated DREQ in TIMEWAIT is answered again; the recorded side, near its end, answered only the first one',
  },
]

/** The row that permits a difference. */
export const rowFor = (capture: string, side: Side, { number, field, recorded, ours }: Difference): Row | undefined =>
  permitted.find(row => {
    const [recordedValue, ourValue] = row.fields[field] ?? []
    return (
      row.capture === capture &&
      row.side === side &&
      row.packets.includes(number) &&
      recordedValue === recorded &&
      ourValue === ours
    )
  })
