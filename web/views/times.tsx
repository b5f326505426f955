/*
 * Where the time of sends went: the queue pairs as a table, and the sends of one of them over time.
 */
import type { ComponentChildren } from 'preact'
import { useMemo } from 'preact/hooks'
import { nameIn } from '../../src/spec/enums.ts'
import { WcStatus, WrOpcode } from '../../src/spec/work.ts'
import { adviceOf } from '../../src/tools/record/times/advice.ts'
import {
  type Phase,
  type PhaseTimes,
  phaseNames,
  phases,
  rankedPhases,
  sumOfPhases,
} from '../../src/tools/record/times/phases.ts'
import type { QueueTimes, RequestTimes } from '../../src/tools/record/times/request-times.ts'
import type { Facts as SessionFacts } from '../data/store.ts'
import { bytesText, countText, durationText, hexText, plural, timeText } from '../format.ts'
import { Empty, Facts, Process } from '../parts/basics.tsx'
import { Prose } from '../parts/prose.tsx'
import { DetailHead } from '../parts/split.tsx'
import { StackView } from '../parts/stack.tsx'
import { VirtualList } from '../parts/virtual-list.tsx'
import { linkTo, setParam } from '../route.ts'
import type { ViewProps } from './view-props.ts'

const ROW_HEIGHT = 26

interface Column {
  readonly name: string
  readonly title: string
  /** Pixels: of the title with the arrow, and of values. */
  readonly width: number
  /** By what the rows are ordered, the largest first. */
  readonly value: (queue: QueueTimes) => number
  readonly text: (queue: QueueTimes) => string
}

const duration = (value: number): string => (value === 0 ? '' : durationText(value))
const count = (value: number): string => (value === 0 ? '' : countText(value))
const busyOf = ({ phases: times }: QueueTimes): number => sumOfPhases(times)
const rateOf = (queue: QueueTimes): number => queue.bytes / Math.max(1, (busyOf(queue) + queue.idle) / 1e6)

const numbers = (
  name: string,
  title: string,
  width: number,
  value: Column['value'],
  text: (value: number) => string,
): Column => ({
  name,
  title,
  width,
  value,
  text: queue => text(value(queue)),
})

const COLUMNS: readonly Column[] = [
  numbers('outstanding', 'outstanding', 100, busyOf, duration),
  numbers('sends', 'sends', 68, ({ durations }) => durations.count, count),
  numbers('bytes', 'bytes', 82, ({ bytes }) => bytes, bytesText),
  numbers('rate', 'rate', 96, rateOf, value => `${bytesText(Math.round(value))}/s`),
  numbers('lost', 'packets lost', 100, ({ lost }) => lost, count),
  numbers('repeated', 'packets sent again', 140, ({ repeated }) => repeated, count),
  numbers('rnr', 'RNR NAKs', 88, ({ notReady }) => notReady, count),
  numbers('median', 'median', 72, ({ durations }) => durations.percentile(0.5), duration),
  numbers('p99', '99 %', 72, ({ durations }) => durations.percentile(0.99), duration),
  numbers('longest', 'longest', 72, ({ durations }) => durations.longest, duration),
]

/** Columns that are left out if no queue pair has a value. */
const RARE: readonly string[] = ['lost', 'repeated', 'rnr']

/** Pixels of the first columns, the gap between two, and the padding of a row. */
const [NAME_WIDTH, PROGRAM_WIDTH, DEVICE_WIDTH, BAR_WIDTH, GAP, PADDING] = [150, 150, 70, 100, 12, 12]

/** The layout of a row, and the width below which the table scrolls. */
const layoutOf = (columns: readonly Column[]): { readonly columns: string; readonly least: string } => {
  const widths = columns.map(({ width }) => width)
  const all = [NAME_WIDTH, PROGRAM_WIDTH, DEVICE_WIDTH, BAR_WIDTH, ...widths].reduce(
    (sum, width) => sum + width + GAP,
    2 * PADDING,
  )
  return {
    columns: `${NAME_WIDTH}px minmax(${PROGRAM_WIDTH}px, 1fr) minmax(${DEVICE_WIDTH}px, 0.4fr) minmax(${BAR_WIDTH}px, 1.2fr) ${widths.map(width => `${width}px`).join(' ')}`,
    // Also the scroll bar of the list.
    least: `${all + GAP}px`,
  }
}

/** A bar of the parts of a time. */
const PhaseBar = ({ times }: { readonly times: Readonly<PhaseTimes> }) => {
  const total = sumOfPhases(times)
  return (
    <span role="gridcell" class="phase-bar">
      {phaseNames.map(phase => {
        const share = total === 0 ? 0 : (100 * times[phase]) / total
        return share < 0.5 ? null : (
          <i key={phase} class={`phase-${phase}`} style={{ width: `${share}%` }} title={phases[phase].title} />
        )
      })}
    </span>
  )
}

const Legend = ({ of }: { readonly of: ReadonlySet<Phase> }) => (
  <p class="phase-legend">
    {phaseNames
      .filter(phase => of.has(phase))
      .map(phase => (
        <span key={phase} title={phases[phase].title}>
          <i class={`phase-${phase}`} /> {phases[phase].label}
        </span>
      ))}
  </p>
)

// ---- sends over time ----

const LANES = 24
const LANE_HEIGHT = 14
/** Units of the drawing's width. */
const WIDTH = 10_000
/** Sends that are drawn. */
const MAX_DRAWN = 1500

interface Lane {
  readonly send: RequestTimes
  readonly lane: number
}

/** Sends in lanes, without overlaps; those for which there is no lane are counted. */
const inLanes = (sends: readonly RequestTimes[]): { readonly lanes: readonly Lane[]; readonly omitted: number } => {
  const free: number[] = []
  const lanes: Lane[] = []
  let omitted = Math.max(0, sends.length - MAX_DRAWN)
  const length = ({ from, to }: RequestTimes): number => to - from
  const drawn = omitted > 0 ? [...sends].sort((a, b) => length(b) - length(a)).slice(0, MAX_DRAWN) : [...sends]
  for (const send of drawn.sort((a, b) => a.from - b.from)) {
    let lane = free.findIndex(end => end <= send.from)
    if (lane < 0) lane = free.length
    if (lane >= LANES) {
      omitted++
      continue
    }
    free[lane] = send.to
    lanes.push({ send, lane })
  }
  return { lanes, omitted }
}

interface TimelineProps {
  readonly sends: readonly RequestTimes[]
  /** Microseconds: what is drawn, and the whole time of the sends. */
  readonly range: Range
  readonly whole: Range
  readonly start: number
  readonly selected: RequestTimes | undefined
  /** The id of the selected queue pair. */
  readonly qp: number | undefined
}

interface Range {
  readonly from: number
  readonly to: number
}

const setRange = (range: Range | undefined): void => {
  setParam('from', range?.from.toFixed(3))
  setParam('to', range?.to.toFixed(3))
}

/** The range `factor` times as long around the part `at` (0 to 1) of it, within `whole`. */
const zoomed = ({ from, to }: Range, whole: Range, factor: number, at = 0.5): Range => {
  const length = Math.max(1, Math.min(whole.to - whole.from, (to - from) * factor))
  const begin = from + (to - from) * at - length * at
  const first = Math.max(whole.from, Math.min(whole.to - length, begin))
  return { from: first, to: first + length }
}

const Timeline = ({ sends, range, whole, start, selected, qp }: TimelineProps) => {
  const { from, to } = range
  const { lanes, omitted } = useMemo(
    () => inLanes(sends.filter(send => send.to >= from && send.from <= to)),
    [sends, from, to],
  )
  const height = Math.max(1, ...lanes.map(({ lane }) => lane + 1)) * LANE_HEIGHT
  const x = (time: number): number => Math.max(0, Math.min(WIDTH, ((time - from) / (to - from)) * WIDTH))
  const move = (part: number): void => {
    const by = (to - from) * part
    const first = Math.max(whole.from, Math.min(whole.to - (to - from), from + by))
    setRange({ from: first, to: first + to - from })
  }
  const button = (label: string, text: string, act: () => void): ComponentChildren => (
    <button type="button" class="chip" aria-label={label} title={label} onClick={act}>
      {text}
    </button>
  )
  return (
    <div class="timeline">
      <div class="toolbar">
        {button('Earlier', '←', () => move(-0.5))}
        {button('Later', '→', () => move(0.5))}
        {button('Zoom in', '+', () => setRange(zoomed(range, whole, 0.5)))}
        {button('Zoom out', '−', () => setRange(zoomed(range, whole, 2)))}
        {button('all the time', 'all', () => setRange(undefined))}
        <span class="quiet mono">
          {timeText(from - start)} s + {durationText(to - from)}
        </span>
        <a href={linkTo('charts', { qp, from: from.toFixed(3), to: to.toFixed(3) })}>Charts of this time</a>
      </div>
      <svg
        role="img"
        aria-label={`Sends over time, ${lanes.length} shown`}
        viewBox={`0 0 ${WIDTH} ${height}`}
        preserveAspectRatio="none"
        style={{ height: `${height}px` }}
        onPointerDown={event => {
          const chosen = event.target instanceof Element ? event.target.closest<SVGGElement>('[data-send]') : null
          if (chosen !== null) setParam('send', chosen.dataset.send)
        }}
        onWheel={event => {
          event.preventDefault()
          const box = event.currentTarget.getBoundingClientRect()
          const at = (event.clientX - box.left) / box.width
          setRange(zoomed(range, whole, event.deltaY > 0 ? 1.5 : 1 / 1.5, at))
        }}
      >
        {lanes.map(({ send, lane }) => (
          <g key={send.request.id} class={send === selected ? 'send selected' : 'send'} data-send={send.request.id}>
            {send.spans.map(span => (
              <rect
                key={span.from}
                class={`phase-${span.phase}`}
                x={x(span.from)}
                width={Math.max(WIDTH / 2000, x(span.to) - x(span.from))}
                y={lane * LANE_HEIGHT + 2}
                height={LANE_HEIGHT - 4}
              />
            ))}
          </g>
        ))}
      </svg>
      {omitted > 0 && <p class="status">{plural(omitted, 'shorter send')} not drawn: zoom in</p>}
    </div>
  )
}

// ---- one queue pair ----

const sendText = ({ request: { opcode, length, wrId } }: RequestTimes): string =>
  `${nameIn(WrOpcode.values, opcode)} ${bytesText(length)}, wr_id ${wrId}`

const endText = ({ isOpen, status }: RequestTimes): string =>
  isOpen ? 'not complete' : status === undefined || status === 0 ? '' : nameIn(WcStatus.values, status)

const SendFacts = ({ send, start }: { readonly send: RequestTimes; readonly start: number }) => (
  <section class="detail-part">
    <h3>
      {sendText(send)}{' '}
      <span class="quiet">
        {timeText(send.from - start)} s, {durationText(send.to - send.from)}
      </span>
    </h3>
    {endText(send) !== '' && <p class="sentence bad">{endText(send)}</p>}
    <Facts of={send.spans.map(({ phase, from, to }) => [phases[phase].label, durationText(to - from)] as const)} />
    <p class="sentence">
      <a href={linkTo('ladder', { qp: send.queue.qp.object.id, from: Math.floor(send.from) })}>Ladder from here</a>
    </p>
    <StackView stack={send.stack} />
  </section>
)

interface QueueDetailProps {
  readonly queue: QueueTimes
  readonly longest: readonly RequestTimes[]
  readonly selected: RequestTimes | undefined
  readonly start: number
}

const MAX_LISTED = 12

/** The sends of a queue pair that the page knows, and the longest. */
const sendsOf = (facts: SessionFacts, queue: QueueTimes | undefined) => {
  const ofQueue = ({ queue: one }: RequestTimes): boolean => one === queue
  const longest = facts.longest.list.filter(ofQueue)
  const sends = [...new Set([...facts.sends.entries.filter(ofQueue), ...longest])]
  const whole = {
    from: sends.reduce((from, send) => Math.min(from, send.from), Number.POSITIVE_INFINITY),
    to: sends.reduce((to, send) => Math.max(to, send.to), 0),
  }
  return { sends, whole, longest: longest.slice(0, MAX_LISTED) }
}

const QueueDetail = ({ queue, longest, selected, start }: QueueDetailProps) => {
  const ranked = rankedPhases(queue.phases)
  const busy = busyOf(queue)
  const advice = adviceOf(queue)
  return (
    <aside class="detail" aria-label="Queue pair">
      <DetailHead
        title={`QP ${hexText(queue.qp.qpn)}`}
        text={`sends were outstanding for ${durationText(busy)}${queue.idle > 0 ? `, none for ${durationText(queue.idle)}` : ''}`}
        onClose={() => setParam('qp', undefined)}
      />
      <p class="sentence">
        <a href={linkTo('ladder', { qp: queue.qp.object.id })}>Ladder</a> ·{' '}
        <a href={linkTo('charts', { qp: queue.qp.object.id })}>Charts</a> ·{' '}
        <a href={linkTo('states', { qp: queue.qp.object.id })}>States</a>
      </p>
      <Facts
        of={ranked.map(([phase, time]) => [
          phases[phase].title,
          `${durationText(time)} · ${((100 * time) / busy).toFixed(1)} %`,
        ])}
      />
      {advice !== undefined && (
        <p class="sentence">
          What to do: <Prose text={advice} />.
        </p>
      )}
      {selected && <SendFacts send={selected} start={start} />}
      <section class="detail-part">
        <h3>The longest sends</h3>
        <ul class="sends">
          {longest.map(send => (
            <li key={send.request.id}>
              <button
                type="button"
                class="link"
                aria-pressed={send === selected}
                onClick={() => {
                  setRange({ from: send.from, to: Math.max(send.from + 1, send.to) })
                  setParam('send', send.request.id)
                }}
              >
                {durationText(send.to - send.from)} · {sendText(send)} {endText(send)}
              </button>
            </li>
          ))}
        </ul>
      </section>
    </aside>
  )
}

const numberParam = (params: URLSearchParams, name: string): number | undefined => {
  const text = params.get(name)
  const value = text === null || text === '' ? Number.NaN : Number(text)
  return Number.isFinite(value) ? value : undefined
}

/** The range that an address names; undefined: none. */
export const rangeOf = (params: URLSearchParams): Range | undefined => {
  const [from, to] = [numberParam(params, 'from'), numberParam(params, 'to')]
  return from !== undefined && to !== undefined && to > from ? { from, to } : undefined
}

export const Times = ({ store, route }: ViewProps) => {
  const { facts } = store
  const { start } = store.facts
  const { objects, times, sends: kept } = facts
  const order = COLUMNS.find(({ name }) => name === route.params.get('order')) ?? COLUMNS[0]!
  const shown = useMemo(
    // A percentile takes long: once for each of 10,000 queue pairs, not for each comparison.
    () =>
      times.queues
        .map(queue => ({ queue, value: order.value(queue) }))
        .sort((a, b) => b.value - a.value)
        .map(({ queue }) => queue),
    [store.version, facts, order],
  )
  const wanted = numberParam(route.params, 'qp')
  const index = shown.findIndex(({ qp }) => qp.object.id === wanted)
  const selected = shown[index]
  const { sends, whole, longest } = useMemo(
    () => sendsOf(facts, selected),
    [facts, kept.entries.length, kept.omitted, selected],
  )
  const sendId = numberParam(route.params, 'send')
  const send = sends.find(({ request }) => request.id === sendId)
  const select = (queue: QueueTimes | undefined): void => {
    setRange(undefined)
    setParam('send', undefined)
    setParam('qp', queue?.qp.object.id)
  }
  if (shown.length === 0)
    return (
      <Empty title={store.readState === 'reading' ? 'Reading …' : 'No sends yet'}>
        <p>What sends wait for, by queue pair, appears here.</p>
      </Empty>
    )
  const columns = COLUMNS.filter(
    column => !RARE.includes(column.name) || column === order || shown.some(queue => column.value(queue) > 0),
  )
  const layout = layoutOf(columns)
  const known = new Set(phaseNames.filter(phase => shown.some(queue => queue.phases[phase] > 0)))
  return (
    <div class={`split${selected ? ' with-detail' : ''}`}>
      <div class="split-main">
        <Legend of={known} />
        <div class="wide" style={{ '--columns': layout.columns, '--least': layout.least }}>
          <div class="table-row time-row table-head">
            <span>Queue pair</span>
            <span>Process</span>
            <span>Device</span>
            <span>Waited for</span>
            {columns.map(({ name, title }) => (
              <button
                key={name}
                type="button"
                class="column end"
                aria-pressed={name === order.name}
                title={`Order by ${title}`}
                onClick={() => setParam('order', name)}
              >
                {title}
                {name === order.name ? ' ↓' : ''}
              </button>
            ))}
          </div>
          <VirtualList
            label="Queue pairs"
            count={shown.length}
            rowHeight={ROW_HEIGHT}
            columns={4 + columns.length}
            selected={index < 0 ? undefined : index}
            onSelect={next => select(next === undefined ? undefined : shown[next])}
            render={(i, attributes) => {
              const queue = shown[i]!
              const { object, qpn, peerQpn } = queue.qp
              return (
                <div key={object.id} {...attributes} class="table-row time-row">
                  <span role="gridcell" class="mono">
                    {hexText(qpn)}
                    {peerQpn === undefined ? '' : ` → ${hexText(peerQpn)}`}
                  </span>
                  <Process of={object.program} />
                  <span role="gridcell" title={objects.deviceName(object.device)}>
                    {objects.deviceName(object.device)}
                  </span>
                  <PhaseBar times={queue.phases} />
                  {columns.map(({ name, text }) => (
                    <span role="gridcell" key={name} class="mono end">
                      {text(queue)}
                    </span>
                  ))}
                </div>
              )
            }}
          />
        </div>
        {sends.length > 0 && (
          <Timeline
            sends={sends}
            range={rangeOf(route.params) ?? whole}
            whole={whole}
            start={start}
            selected={send}
            qp={selected?.qp.object.id}
          />
        )}
        <p class="status" role="status">
          {plural(shown.length, 'queue pair')}
          {times.omitted > 0 ? `, ${countText(times.omitted)} sends were too many at once` : ''}
          {kept.omitted > 0
            ? `, the timeline has ${countText(kept.entries.length)} of ${countText(kept.total)} sends`
            : ''}
        </p>
      </div>
      {selected && <QueueDetail queue={selected} longest={longest} selected={send} start={start} />}
    </div>
  )
}
