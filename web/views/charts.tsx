/*
 * Charts over time: bandwidth, packets and losses, completions, bytes in flight, windows, depth of completion
 * queues, latencies; and a histogram of latencies. Of all connections, or of one.
 */
import { useEffect, useMemo, useRef } from 'preact/hooks'
import UPlot from 'uplot'
import { type Connection, connectionsOf } from '../../src/tools/record/objects.ts'
import type { Losses } from '../../src/tools/record/times/request-times.ts'
import { useConnectionTraffic } from '../data/connection-traffic.ts'
import { lossesOf } from '../data/losses.ts'
import { LATENCY_BINS, latencyOfBin, type SeriesName, type Traffic } from '../data/traffic.ts'
import { bytesText, countText, durationText, lostText, plural } from '../format.ts'
import { connectionText } from '../ladder/ladder.tsx'
import { Empty } from '../parts/basics.tsx'
import { Choice } from '../parts/choice.tsx'
import { linkTo, setParam } from '../route.ts'
import { onThemeChange } from '../theme.ts'
import { rangeOf } from './times.tsx'
import type { ViewProps } from './view-props.ts'

interface Line {
  readonly label: string
  readonly color: string
  /** Null: there is none at this time. */
  readonly values: readonly (number | null)[]
}

interface ChartProps {
  readonly title: string
  readonly note: string
  readonly x: readonly number[]
  readonly lines: readonly Line[]
  readonly xText: (value: number) => string
  readonly yText: (value: number) => string
  readonly isLog?: boolean
  /** Ticks are powers of two. */
  readonly isBinary?: boolean
  /** Ticks may be fractions. */
  readonly isFractional?: boolean
  readonly version: number
  /** Seconds from the start that are shown; absent: all. */
  readonly range?: { readonly min: number; readonly max: number } | undefined
}

const HEIGHT = 190
const POWERS = Array.from({ length: 50 }, (_, i) => 2 ** i)
const WHOLE = Array.from({ length: 15 }, (_, i) => [1, 2, 5].map(step => step * 10 ** i)).flat()

/** From 0, also of values that are all 0: these have an axis to 1. */
const rangeOfValues: UPlot.Scale['range'] = (_, __, max) => (max > 0 ? UPlot.rangeNum(0, max, 0.1, true) : [0, 1])

/** What the legend shows without a pointer: the last point, or of a histogram the highest. */
const restingIndex = ([x, values]: UPlot.AlignedData, isHistogram: boolean): number => {
  if (!isHistogram) return x.length - 1
  const counts = [...(values ?? [])].map(Number)
  return counts.indexOf(Math.max(...counts))
}

const Chart = ({
  title,
  note,
  x,
  lines,
  xText,
  yText,
  isLog = false,
  isBinary = false,
  isFractional = false,
  version,
  range,
}: ChartProps) => {
  const box = useRef<HTMLDivElement>(null)
  const plot = useRef<UPlot>(undefined)
  const data = [x, ...lines.map(({ values }) => values)] as unknown as UPlot.AlignedData

  useEffect(() => {
    const element = box.current!
    const build = (): void => {
      plot.current?.destroy()
      const style = getComputedStyle(document.documentElement)
      const color = (name: string): string => style.getPropertyValue(name)
      const axis = {
        stroke: color('--quiet'),
        grid: { stroke: color('--line'), width: 1 },
        ticks: { stroke: color('--line'), width: 1 },
        font: '11px system-ui, sans-serif',
      }
      /** The value at the pointer; without one, that of `restingIndex`, or the last one before it. */
      const shownText =
        (text: (value: number) => string): UPlot.Series.Value =>
        (plot, value, series, index) => {
          if (index !== null) return value === null ? '' : text(value)
          const values = plot.data[series] ?? []
          let i = restingIndex(plot.data, isLog)
          while (i > 0 && values[i] === null) i--
          const latest = values[i]
          return latest === undefined || latest === null ? '' : text(latest)
        }
      plot.current = new UPlot(
        {
          width: Math.max(200, element.clientWidth),
          height: HEIGHT,
          scales: { x: { time: false, ...(isLog && { distr: 3, log: 2 }) }, y: { range: rangeOfValues } },
          axes: [
            { ...axis, values: (_, ticks) => ticks.map(tick => (tick === null ? '' : xText(tick))), space: 70 },
            {
              ...axis,
              values: (_, ticks) => ticks.map(tick => yText(tick)),
              size: 76,
              ...(!isFractional && { incrs: isBinary ? POWERS : WHOLE }),
            },
          ],
          series: [
            { label: 'at', value: shownText(xText) },
            ...lines.map(({ label, color: name }) => ({
              label,
              stroke: color(name),
              fill: `color-mix(in srgb, ${color(name)} 14%, transparent)`,
              width: 1.25,
              points: { show: false },
              paths: UPlot.paths.stepped!({ align: 1 }),
              value: shownText(yText),
            })),
          ],
          cursor: { sync: { key: isLog ? 'latency' : 'time' } },
        },
        data,
        element,
      )
    }
    build()
    const observer = new ResizeObserver(() =>
      plot.current?.setSize({ width: Math.max(200, element.clientWidth), height: HEIGHT }),
    )
    observer.observe(element)
    const removeThemes = onThemeChange(build)
    return () => {
      observer.disconnect()
      removeThemes()
      plot.current?.destroy()
      plot.current = undefined
    }
  }, [title])

  useEffect(() => {
    plot.current?.setData(data)
    const { idx = null } = plot.current?.cursor ?? {}
    // Without a pointer, the texts are made again of the new data.
    if (idx === null) plot.current?.setLegend({ idxs: data.map(() => null) }, false)
    if (range !== undefined && !isLog) plot.current?.setScale('x', range)
  }, [version, x.length, range?.min, range?.max])
  return (
    <section class="chart">
      <h2>
        {title} <span class="quiet">{note}</span>
      </h2>
      <div ref={box} role="img" aria-label={`${title}: ${note}`} />
    </section>
  )
}

const perSecond = (traffic: Traffic, name: SeriesName): number[] =>
  traffic.values(name).map(value => value / (traffic.width / 1e6))

/** The latency below which this part of the requests stays; microseconds. */
const quantile = (bins: Float64Array, part: number): number => {
  const total = bins.reduce((sum, value) => sum + value, 0)
  let sum = 0
  for (const [bin, value] of bins.entries()) {
    sum += value
    if (sum >= total * part) return latencyOfBin(bin + 1)
  }
  return 0
}

/** The choice of a connection, and where else it is shown. */
const Choose = ({
  connections,
  chosen,
}: {
  readonly connections: readonly Connection[]
  readonly chosen: Connection | undefined
}) => {
  const all = useMemo(() => [undefined, ...connections], [connections])
  const qp = chosen?.left.object.id
  return (
    <div class="toolbar">
      <Choice
        label="Connection"
        all={all}
        current={chosen}
        idOf={one => one?.left.object.id ?? 0}
        textOf={one => (one === undefined ? 'All connections' : connectionText(one))}
        onChoose={id => setParam('qp', id === '0' ? undefined : id)}
      />
      {qp !== undefined && (
        <span>
          <a href={linkTo('ladder', { qp })}>Ladder</a> · <a href={linkTo('times', { qp })}>Times</a>
        </span>
      )}
    </div>
  )
}

export const Charts = ({ store, route }: ViewProps) => {
  const { facts } = store
  const connections = useMemo(() => connectionsOf(facts.objects), [facts, facts.objects.queuePairs.size, store.version])
  const wanted = route.params.get('qp')
  const id = Number(wanted)
  const connection = connections.find(({ left, right }) => left.object.id === id || right?.object.id === id)
  const own = useConnectionTraffic(store, connection)
  if (wanted !== null && connection === undefined)
    return (
      <Empty title={store.readState === 'reading' ? 'Reading …' : `There is no queue pair ${wanted} in this session`}>
        <p>
          <a href={linkTo('charts')}>Charts of all connections</a>
        </p>
      </Empty>
    )
  const traffic = connection === undefined ? facts.traffic : own?.traffic
  return (
    <div class="page charts">
      {connections.length > 0 && <Choose connections={connections} chosen={connection} />}
      {store.session.header.isCapture === true && (
        <p class="from-note">
          A capture has packets only: charts of completions, completion queues and windows show what devices tell, and
          are empty.
        </p>
      )}
      {own?.share !== undefined && (
        <p class="status" role="status">
          Reading … {Math.floor(100 * own.share)} %
        </p>
      )}
      {traffic === undefined || traffic.length === 0 ? (
        <Empty title={store.readState === 'reading' || own?.share !== undefined ? 'Reading …' : 'No traffic yet'}>
          <p>Charts of packets, requests and completions appear here.</p>
        </Empty>
      ) : (
        <TrafficCharts
          // The charts of another connection have other lengths.
          key={connection?.left.object.id ?? 0}
          traffic={traffic}
          losses={lossesOf(facts, connection)}
          version={connection === undefined ? store.version : (own?.version ?? 0)}
          start={facts.start}
          range={rangeOf(route.params)}
          isOne={connection !== undefined}
        />
      )}
    </div>
  )
}

interface TrafficChartsProps {
  readonly traffic: Traffic
  readonly losses: Losses
  readonly version: number
  /** Microseconds. */
  readonly start: number
  readonly range: { readonly from: number; readonly to: number } | undefined
  /** Of one connection: completion queues may be shared with others. */
  readonly isOne: boolean
}

const TrafficCharts = ({ traffic, losses, version, start, range: shown, isOne }: TrafficChartsProps) => {
  const { totals, latencies } = traffic
  const x = traffic.times
  const xText = (seconds: number): string => (seconds === 0 ? '0' : durationText(seconds * 1e6))
  const rate = (value: number): string => `${countText(Math.round(value))}/s`
  const bandwidth = (value: number): string => `${bytesText(Math.round(value))}/s`
  const count = (value: number): string => countText(Math.round(value))
  const first = latencies.findIndex(value => value > 0)
  const last = latencies.findLastIndex(value => value > 0)
  const bins = Array.from(
    { length: Math.min(LATENCY_BINS, last + 2) - Math.max(0, first - 1) },
    (_, i) => Math.max(0, first - 1) + i,
  )
  const range = shown && { min: (shown.from - start) / 1e6, max: (shown.to - start) / 1e6 }
  const common = { x, xText, version, range }
  return (
    <>
      <Chart
        {...common}
        title="Bandwidth"
        note={`${bytesText(totals.bytes)} on the wire`}
        yText={bandwidth}
        isBinary={true}
        lines={[{ label: 'sent', color: '--data', values: perSecond(traffic, 'bytes') }]}
      />
      <Chart
        {...common}
        title="Packets"
        note={`${countText(totals.packets)} packets`}
        yText={rate}
        lines={[{ label: 'packets', color: '--data', values: perSecond(traffic, 'packets') }]}
      />
      <Chart
        {...common}
        title="Packets that were lost or sent again"
        note={`${lostText(losses)}, ${plural(totals.retransmitted, 'packet')} sent again`}
        yText={count}
        lines={[
          { label: 'sent again', color: '--retry', values: traffic.values('retransmitted') },
          { label: 'lost', color: '--bad', values: traffic.values('lost') },
        ]}
      />
      <Chart
        {...common}
        title="Completions"
        note={`${countText(totals.completed)} completions, ${countText(totals.errors)} in error`}
        yText={rate}
        lines={[
          { label: 'completions', color: '--good', values: perSecond(traffic, 'completed') },
          { label: 'in error', color: '--bad', values: perSecond(traffic, 'errors') },
        ]}
      />
      <Chart
        {...common}
        title="Bytes in flight"
        note={`of sends between post and end, at most ${bytesText(totals.inFlight)}`}
        yText={value => bytesText(Math.round(value))}
        isBinary={true}
        lines={[{ label: 'in flight', color: '--data', values: traffic.values('inFlight') }]}
      />
      <Chart
        {...common}
        title="Window"
        note={`what queue pairs may have in flight together, at most ${bytesText(totals.window)}`}
        yText={value => bytesText(Math.round(value))}
        isBinary={true}
        lines={[{ label: 'window', color: '--data', values: traffic.values('window') }]}
      />
      {!isOne && (
        <Chart
          {...common}
          title="Completions not polled yet"
          note={`the fullest completion queue, at most ${countText(totals.cqDepth)}`}
          yText={count}
          lines={[{ label: 'depth', color: '--data', values: traffic.values('cqDepth') }]}
        />
      )}
      {first >= 0 && (
        <Chart
          {...common}
          title="Latency of sends over time"
          note="of those that ended in an interval, from post to end"
          yText={value => (value === 0 ? '0' : durationText(value))}
          isFractional={true}
          lines={[
            { label: '99 %', color: '--retry', values: traffic.percentiles(0.99) },
            { label: 'median', color: '--data', values: traffic.percentiles(0.5) },
          ]}
        />
      )}
      {first >= 0 && (
        <Chart
          title="Latency of sends, from post to end"
          note={`half within ${durationText(quantile(latencies, 0.5))}, 99 % within ${durationText(quantile(latencies, 0.99))}`}
          x={bins.map(latencyOfBin)}
          xText={durationText}
          yText={count}
          isLog={true}
          version={version}
          lines={[{ label: 'requests', color: '--data', values: bins.map(bin => latencies[bin] ?? 0) }]}
        />
      )}
    </>
  )
}
