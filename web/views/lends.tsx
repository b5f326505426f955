/*
 * Lent memory: who held which bytes when, as bars over time, with the accesses of peers on them.
 */
import { useState } from 'preact/hooks'
import { AccessFlags } from '../../src/spec/enums.ts'
import { lendRightNames } from '../../src/spec/lends.ts'
import { printable } from '../../src/spec/printable.ts'
import type { LendBar, LentAccess, LentRange } from '../../src/tools/record/lends.ts'
import { countText, exactBytesText, hexText, plural, timeText } from '../format.ts'
import { Empty } from '../parts/basics.tsx'
import { DetailHead } from '../parts/split.tsx'
import { StackView } from '../parts/stack.tsx'
import { VirtualList } from '../parts/virtual-list.tsx'
import type { ViewProps } from './view-props.ts'

const ROW_HEIGHT = 30
/** Of the width: bars and accesses that are closer are drawn as one. */
const CLOSE = 1 / 1500
/** Of the width: a shorter bar has no text. */
const LABELLED = 1 / 30
/** Lines of the details. */
const MAX_LINES = 200

const { REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

interface Span {
  readonly from: number
  readonly to: number
}

const rightsText = (rights: number | undefined): string =>
  rights === undefined
    ? 'told by a message'
    : `for ${Object.entries(lendRightNames)
        .filter(([, bit]) => (rights & bit) !== 0)
        .map(([name]) => name)
        .join(', ')}`

const barText = ({ label, rights, qp }: LendBar): string =>
  `${label === '' ? '' : `${printable(label)}, `}${rightsText(rights)}${qp === 0 || rights === undefined ? '' : `, to the peer of QP ${hexText(qp)}`}`

const accessWord = ({ access }: LentAccess): string =>
  (access & REMOTE_ATOMIC) !== 0 ? 'atomic' : (access & REMOTE_WRITE) !== 0 ? 'WRITE' : 'READ'

const bytesOf = ({ start, end }: LentRange): string => `${exactBytesText(end - start)} at ${hexText(start)}`

/** The places of `times` from 0 to 1, each only once. */
const placesOf = (accesses: readonly LentAccess[], start: number, length: number): readonly LentAccess[] => {
  const shown = new Map<number, LentAccess>()
  for (const one of accesses) {
    const place = Math.floor((one.time - start) / length / CLOSE)
    // one that is late is seen
    if (!shown.has(place) || one.isLate) shown.set(place, one)
  }
  return [...shown.values()]
}

/** Bars of one kind that are too close to be seen apart are one. */
const spansOf = (bars: readonly LendBar[], end: number, length: number): (Span & { readonly bar: LendBar })[] => {
  const spans: (Span & { readonly bar: LendBar })[] = []
  for (const bar of bars) {
    const to = bar.to ?? Math.min(bar.until ?? end, end)
    const last = spans.at(-1)
    if (
      last !== undefined &&
      last.bar.rights === bar.rights &&
      bar.from - last.to < length * CLOSE &&
      to - bar.from < length * CLOSE
    )
      spans[spans.length - 1] = { from: last.from, to: Math.max(last.to, to), bar: last.bar }
    else spans.push({ from: bar.from, to, bar })
  }
  return spans
}

const Bars = ({ range, start, end }: { readonly range: LentRange; readonly start: number; readonly end: number }) => {
  const length = Math.max(end - start, 1)
  const percent = (time: number): string => `${((100 * (time - start)) / length).toFixed(3)}%`
  return (
    <>
      {spansOf(range.bars, end, length).map(({ from, to, bar }) => (
        <span
          key={`bar ${from}`}
          class={`lend-bar ${bar.rights === undefined ? 'told' : ''}`}
          style={{ left: percent(from), width: `max(2px, ${percent(start + to - from)})` }}
          title={`${barText(bar)}: ${timeText(from - start)} to ${bar.to === undefined ? 'the end' : timeText(to - start)}`}
        >
          {(to - from) / length > LABELLED && printable(bar.label)}
        </span>
      ))}
      {placesOf(range.accesses, start, length).map(one => (
        <span
          key={`access ${one.time}`}
          class={`lend-access ${accessWord(one)} ${one.isLate ? 'late' : ''}`}
          style={{ left: percent(one.time) }}
          title={`${accessWord(one)} of ${exactBytesText(one.length)}, ${timeText(one.time - start)}${one.isLate ? ', not lent' : ''}`}
        />
      ))}
    </>
  )
}

const Details = ({ range, start }: { readonly range: LentRange; readonly start: number }) => {
  const moments = [
    ...range.bars.flatMap(bar => [
      { time: bar.from, text: `lent: ${barText(bar)}`, stack: bar.stack, isLate: false },
      ...(bar.to === undefined
        ? []
        : [{ time: bar.to, text: `over: ${barText(bar)}`, stack: bar.endStack, isLate: false }]),
    ]),
    ...range.accesses.map(one => ({
      time: one.time,
      text: `${accessWord(one)} of ${exactBytesText(one.length)} at ${hexText(one.start)} by the peer of QP ${hexText(one.qpn)}${one.isLate ? ': not lent' : ''}`,
      stack: [],
      isLate: one.isLate,
    })),
  ].sort((a, b) => a.time - b.time)
  return (
    <>
      {moments.length > MAX_LINES && (
        <p class="quiet">
          The first {countText(MAX_LINES)} of {countText(moments.length)}.
        </p>
      )}
      <ol class="lend-moments">
        {moments.slice(0, MAX_LINES).map(({ time, text, stack, isLate }, i) => (
          <li key={`${i} ${time}`} class={isLate ? 'late' : undefined}>
            {timeText(time - start)} {text}
            {stack.length > 0 && (
              <details>
                <summary>stack</summary>
                <StackView stack={stack} />
              </details>
            )}
          </li>
        ))}
      </ol>
    </>
  )
}

export const Lends = ({ store }: ViewProps) => {
  const { lends, start, covered } = store.facts
  const [selected, select] = useState<number>()
  const [onlyLate, setOnlyLate] = useState(false)
  const late = lends.ranges.filter(({ accesses }) => accesses.some(({ isLate }) => isLate))
  const ranges = onlyLate ? late : lends.ranges
  if (lends.ranges.length === 0)
    return (
      <Empty title="Nothing was lent">
        <p>
          Recordings of <code>--record-depth check</code> have what programs declare by userdma.h, what they tell their
          peers in messages, and what peers access.
        </p>
      </Empty>
    )
  const times = lends.ranges.flatMap(({ bars, accesses }) => [bars[0]?.from, bars.at(-1)?.to, accesses.at(-1)?.time])
  const first = times.reduce<number>((a, time) => Math.min(a, time ?? a), Number.POSITIVE_INFINITY)
  const last = times.reduce<number>((a, time) => Math.max(a, time ?? a), first)
  // what lasts is seen to last
  const end = Math.min(Math.max(last + (last - first) / 20, first + 1), Math.max(start + covered, last + 1))
  const range = selected === undefined ? undefined : ranges[selected]
  return (
    <div class={`split${range === undefined ? '' : ' with-detail'}`}>
      <div class="split-main">
        <div class="toolbar">
          <span>
            From {timeText(first - start)} to {timeText(end - start)}
          </span>
          <span class="lend-legend">
            <span class="lend-bar">lent</span> <span class="lend-bar told">told by a message</span>{' '}
            <span class="lend-access READ" /> READ <span class="lend-access WRITE" /> WRITE{' '}
            <span class="lend-access atomic" /> atomic <span class="lend-access late" /> not lent
          </span>
          <button type="button" class="chip toggle" aria-pressed={onlyLate} onClick={() => setOnlyLate(!onlyLate)}>
            accessed while not lent only
          </button>
        </div>
        <VirtualList
          label="Lent memory"
          count={ranges.length}
          columns={2}
          rowHeight={ROW_HEIGHT}
          selected={selected}
          onSelect={select}
          render={(index, attributes) => {
            const one = ranges[index]!
            return (
              <div key={index} {...attributes} class="lend-row">
                <span role="gridcell" class="mono">
                  {one.name === '' ? '' : `${printable(one.name)}: `}
                  {bytesOf(one)}
                </span>
                <span role="gridcell" class="lend-bars">
                  <Bars range={one} start={first} end={end} />
                </span>
              </div>
            )
          }}
        />
        <p class="status" role="status">
          {plural(lends.ranges.length, 'range')}, {countText(late.length)} accessed while not lent
          {lends.omitted > 0 && `; ${countText(lends.omitted)} more lends and accesses did not fit`}
        </p>
      </div>
      {range !== undefined && (
        <aside class="detail" aria-label="Details">
          <DetailHead
            title={bytesOf(range)}
            text={range.pid === undefined ? '' : `process ${range.pid}`}
            onClose={() => select(undefined)}
          />
          <Details range={range} start={start} />
        </aside>
      )}
    </div>
  )
}
