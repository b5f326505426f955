/*
 * Permitted differences between captures of Linux's connection manager and our engine. A difference without a row, and
 * an unused row, fail the replay.
 */
import type { Side } from '../../transport/engine/captures/conversation.ts'
import type { Difference } from './replay.ts'

export interface Row {
  readonly capture: string
  readonly side: Side
  /** Message numbers in the file; 0 for messages that the recording lacks. */
  readonly packets: readonly number[]
  /** Values by field. `packet`: a message that one side lacks (`-`). `wait`: the time before a retransmission. */
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
      'a repeated DREQ in TIMEWAIT is answered again; the recorded side was about to end, and answered only the first one',
  },
]

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
