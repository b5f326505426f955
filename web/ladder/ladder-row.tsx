/*
 * One row of the ladder: time, what the left queue pair did, the arrow between the two, what the right one did.
 */
import { durationText, timeText } from '../format.ts'
import { Prose } from '../parts/prose.tsx'
import type { RowAttributes } from '../parts/virtual-list.tsx'
import type { Row, Side, Wait } from './row.ts'

const WAITS: Readonly<Record<Wait, string>> = {
  rnr: 'waits because the receiver was not ready',
  nak: 'goes back after a NAK',
  timeout: 'waits for an acknowledgement',
}

const SIDES = [0, 1] as const

const Arrow = ({ row, side }: { readonly row: Row; readonly side: Side }) => (
  <span class={`arrow ${side === 0 ? 'to-right' : 'to-left'}${(row.packet?.count ?? 1) > 1 ? ' run' : ''}`}>
    <span class="arrow-label">{row.title}</span>
    {row.tone === 'lost' && (
      <span class="arrow-cross" aria-hidden="true">
        ✕
      </span>
    )}
  </span>
)

interface LadderRowProps {
  readonly attributes: RowAttributes
  readonly row: Row
  /** Microseconds since the previous row. */
  readonly gap: number
  readonly start: number
  /** It belongs to the request of the selected row. */
  readonly isRelated: boolean
}

export const LadderRow = ({ attributes, row, gap, start, isRelated }: LadderRowProps) => {
  const { kind, side, tone, title, note } = row
  if (kind === 'idle')
    return (
      <div {...attributes} class="row idle" aria-disabled={true}>
        <span role="gridcell" class="time" />
        <span role="gridcell" class="gap" />
        <span role="gridcell" class="words left" />
        <span role="gridcell" class="lane">
          {SIDES.map(of => row.waits[of] && <span key={of} class={`wait side${of} ${row.waits[of]}`} />)}
          <span class="idle-text">{title}</span>
        </span>
        <span role="gridcell" class="words right" />
      </div>
    )
  const words = (of: Side) => {
    if (side !== of) return null
    return kind === 'packet' ? (
      <span class="note">
        <Prose text={note} />
      </span>
    ) : (
      <>
        <b>
          <Prose text={title} />
        </b>
        <span class="note">
          <Prose text={note} />
        </span>
      </>
    )
  }
  return (
    <div {...attributes} class={`row tone-${tone} kind-${kind}${isRelated ? ' related' : ''}`}>
      <span role="gridcell" class="time">
        {timeText(row.time - start)}
      </span>
      <span role="gridcell" class="gap">
        {gap > 0 ? `+${durationText(gap)}` : ''}
      </span>
      <span role="gridcell" class="words left">
        {words(0)}
      </span>
      <span role="gridcell" class="lane">
        {SIDES.map(
          of =>
            row.waits[of] && (
              <span key={of} class={`wait side${of} ${row.waits[of]}`} title={WAITS[row.waits[of] as Wait]} />
            ),
        )}
        {kind === 'packet' && side !== undefined && <Arrow row={row} side={side} />}
        {kind !== 'packet' && side !== undefined && <span class={`dot side${side}`} />}
        {side === undefined && (
          <span class="banner">
            <Prose text={title} />
            {note !== '' && <span class="note">{note}</span>}
          </span>
        )}
      </span>
      <span role="gridcell" class="words right">
        {words(1)}
      </span>
    </div>
  )
}
