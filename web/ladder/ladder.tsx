/*
 * The ladder: what happened between two queue pairs, in the order of time.
 */
import { useMemo } from 'preact/hooks'
import type { PostedEvent } from '../../src/spec/session-events.ts'
import { type Connection, connectionsOf, type QueuePair } from '../../src/tools/record/objects.ts'
import { lossesOf, problemsOf } from '../data/losses.ts'
import type { Store } from '../data/store.ts'
import { compileFilter, type Filter, FilterError } from '../filter/filter.ts'
import { countText, hexText, lostText, plural } from '../format.ts'
import { fieldNames } from '../packet/fields.ts'
import { packetValueNames } from '../packet/opcode-names.ts'
import { Empty } from '../parts/basics.tsx'
import { Choice } from '../parts/choice.tsx'
import { Coverage } from '../parts/coverage.tsx'
import { FilterForm, FilterProblem } from '../parts/filter-form.tsx'
import { useStore } from '../parts/use-store.ts'
import { sendKey, VirtualList } from '../parts/virtual-list.tsx'
import { WaitsOf } from '../parts/waits.tsx'
import { linkTo, type Route, setParam } from '../route.ts'
import { Detail } from './detail.tsx'
import { LadderRow } from './ladder-row.tsx'
import { useLadder } from './load.ts'
import { OverviewStrip } from './overview-strip.tsx'
import type { Row } from './row.ts'
import { filteredRow, rowFields } from './row-filter.ts'

const ROW_HEIGHT = 24
/** Microseconds before the end of a live session from which the newest rows are shown. */
const NEWEST = 50_000

const isField = (name: string): boolean => fieldNames.includes(name) || (rowFields as readonly string[]).includes(name)

/** What a program noticed, and what the queue pairs repaired. */
const isRemarkable = ({ tone }: Row): boolean =>
  tone === 'lost' || tone === 'nak' || tone === 'retry' || tone === 'error'

/** Kinds of rows that can be hidden. */
const KINDS = [
  ['posted', 'Posts'],
  ['completed', 'Completions'],
  ['state', 'States'],
] as const

const qpText = (qp: QueuePair | undefined, qpn: number | undefined): string =>
  qpn === undefined ? 'others' : `QP ${hexText(qpn)}${qp?.object.program ? ` · ${qp.object.program.command}` : ''}`

export const connectionText = ({ left, right, rightQpn }: Connection): string =>
  `${left.type} ${qpText(left, left.qpn)} ↔ ${qpText(right, rightQpn)}`

const Head = ({
  qp,
  qpn,
  store,
}: {
  readonly qp: QueuePair | undefined
  readonly qpn: number | undefined
  readonly store: Store
}) => (
  <div class="ladder-head">
    {qp ? (
      <>
        <a href={linkTo('states', { qp: qp.object.id })}>
          {qp.type} QP {hexText(qp.qpn)}
        </a>
        <span>
          {store.facts.objects.deviceName(qp.object.device)}
          {qp.object.program ? ` · ${qp.object.program.command} ${qp.object.program.pid}` : ''}
        </span>
      </>
    ) : qpn === undefined ? (
      <>
        <b>Other queue pairs</b>
        <span>datagrams have many destinations</span>
      </>
    ) : (
      <>
        <b>QP {hexText(qpn)}</b>
        <span>not in this session</span>
      </>
    )}
  </div>
)

/** Shows and hides kinds of rows. `hidden`: of the route. */
const Kinds = ({ hidden }: { readonly hidden: string }) => (
  <span class="chips kinds">
    {KINDS.map(([kind, label]) => {
      const isHidden = hidden.split(',').includes(kind)
      const rest = hidden.split(',').filter(one => one !== kind && one !== '')
      return (
        <button
          type="button"
          key={kind}
          class="chip"
          aria-pressed={!isHidden}
          onClick={() => setParam('hide', (isHidden ? rest : [...rest, kind]).join(','))}
        >
          {label}
        </button>
      )
    })}
  </span>
)

/** Goes to the rows that are remarkable. */
const Problems = ({
  count,
  losses,
  isDisabled,
}: {
  readonly count: number
  readonly losses: ReturnType<typeof lossesOf>
  readonly isDisabled: boolean
}) => (
  <span class="problems">
    <button
      type="button"
      class="chip"
      disabled={isDisabled}
      onClick={() => sendKey('p')}
      aria-label="Previous problem, loss or repetition (p)"
    >
      ↑
    </button>
    <span>
      <span class={count > 0 ? 'bad' : 'quiet'}>{plural(count, 'problem')}</span>
      {losses.lost > 0 && <span class="quiet">, {lostText(losses)}</span>}
    </span>
    <button
      type="button"
      class="chip"
      disabled={isDisabled}
      onClick={() => sendKey('n')}
      aria-label="Next problem, loss or repetition (n)"
    >
      ↓
    </button>
  </span>
)

export const Ladder = ({ store, route }: { readonly store: Store; readonly route: Route }) => {
  const version = useStore(store)
  const { facts } = store
  const connections = useMemo(() => connectionsOf(facts.objects), [facts, version])
  const wanted = Number(route.params.get('qp'))
  const connection =
    connections.find(({ left, right }) => left.object.id === wanted || right?.object.id === wanted) ??
    connections.find(({ right }) => right !== undefined) ??
    connections[0]
  const atText = route.params.get('from')
  const from = atText === null ? undefined : Number(atText)
  const source = route.params.get('filter') ?? ''
  const hidden = route.params.get('hide') ?? ''

  const { filter, problem } = useMemo((): { filter: Filter | undefined; problem: string } => {
    try {
      return { filter: source === '' ? undefined : compileFilter(source, isField, packetValueNames), problem: '' }
    } catch (error) {
      return { filter: undefined, problem: error instanceof FilterError ? error.message : String(error) }
    }
  }, [source])
  const { start } = facts
  const isShown = useMemo(() => {
    if (filter === undefined && hidden === '') return undefined
    const kinds = hidden.split(',')
    return (row: Row): boolean => !kinds.includes(row.kind) && (filter === undefined || filter(filteredRow(row, start)))
  }, [filter, hidden, start])
  const loaded = useLadder(store, connection, from, version, isShown)
  const { rows: shown, readRows, share, isLoading, hasMore, isFull, loadMore } = loaded

  const selectedText = route.params.get('row')
  const selected = useMemo(() => {
    if (selectedText === null) return undefined
    return indexOfKey(shown, selectedText)
  }, [selectedText, shown, shown.length])
  const row = selected === undefined ? undefined : shown[selected]
  const select = (index: number | undefined): void => {
    const isShown = index !== undefined && index >= 0 && index < shown.length
    setParam('row', isShown ? keyOf(shown, index) : undefined)
  }
  if (connection === undefined)
    return store.readState === 'reading' ? (
      <Empty title="Reading the session …" />
    ) : (
      <Empty title="No queue pair in this session">
        <p>
          A ladder shows what two queue pairs do. {store.source.about.isLive ? 'Run a program: it appears here.' : ''}
        </p>
      </Empty>
    )
  const names = [qpText(connection.left, connection.left.qpn), qpText(connection.right, connection.rightQpn)] as const
  const hasRemarkable = shown.some(isRemarkable)
  const problems = problemsOf(facts, connection)
  const losses = lossesOf(facts, connection)
  const goFrom = (time: number): void => {
    setParam('row', undefined)
    setParam('from', Math.floor(time))
  }
  const goToTime = (part: number): void => {
    const time = start + part * facts.traffic.length * facts.traffic.width
    const isLoaded = shown.length > 0 && time >= shown[0]!.time && (!hasMore || time <= shown[shown.length - 1]!.time)
    if (isLoaded) select(lowerBound(shown, time))
    else goFrom(time)
  }
  const span = Math.max(1, facts.traffic.length * facts.traffic.width)
  const part = (time: number | undefined): number => Math.min(1, Math.max(0, ((time ?? start) - start) / span))
  const request = row?.request
  const isRelated = (other: Row): boolean => isSameRequest(other, request)
  return (
    <div class={`ladder${row ? ' with-detail' : ''}`}>
      <div class="ladder-main">
        <div class="toolbar">
          <Choice
            label="Connection"
            all={connections}
            current={connection}
            idOf={({ left }) => left.object.id}
            textOf={connectionText}
            onChoose={id => {
              setParam('row', undefined)
              setParam('qp', id)
            }}
          />
          <FilterForm
            source={source}
            label="Filter, in Wireshark's syntax"
            placeholder="Filter: infiniband.bth.psn == 0x1 || userdma.retransmission"
            problem={problem}
            list="fields"
          >
            <datalist id="fields">
              {[...rowFields, ...fieldNames].map(name => (
                <option key={name} value={name} />
              ))}
            </datalist>
          </FilterForm>
          <Kinds hidden={hidden} />
          <Problems count={problems} losses={losses} isDisabled={!hasRemarkable} />
        </div>
        <FilterProblem problem={problem} />
        <WaitsOf store={store} objects={[connection.left.object.id, connection.right?.object.id ?? 0]} />
        <OverviewStrip
          traffic={facts.traffic}
          version={version}
          from={part(shown[0]?.time)}
          to={part(shown[shown.length - 1]?.time)}
          onGo={goToTime}
        />
        <Coverage store={store} />
        {store.source.about.isLive && hasMore && (
          <p class="from-note">
            The rows end before the newest events.{' '}
            <button type="button" class="link" onClick={() => goFrom(store.session.end - NEWEST)}>
              Go to the newest
            </button>
          </p>
        )}
        {from !== undefined && (
          <p class="from-note">
            Rows begin in the middle of the session.{' '}
            <button type="button" class="link" onClick={() => setParam('from', undefined)}>
              Go to its start
            </button>
          </p>
        )}
        <div class="row ladder-heads">
          <span class="time">time, s</span>
          <span class="gap">after</span>
          <Head qp={connection.left} qpn={connection.left.qpn} store={store} />
          <Head qp={connection.right} qpn={connection.rightQpn} store={store} />
        </div>
        {shown.length === 0 ? (
          isLoading ? (
            <Empty title={isShown === undefined ? 'Reading …' : `Searching … ${Math.floor(100 * share)} %`} />
          ) : (
            <Empty title={readRows === 0 ? 'Nothing happened between these queue pairs' : 'No row matches'}>
              {readRows > 0 && <p>The filter leaves out all {plural(readRows, 'row')} of the session.</p>}
            </Empty>
          )
        ) : (
          <VirtualList
            class="ladder-rows"
            label="Ladder"
            count={shown.length}
            rowHeight={ROW_HEIGHT}
            columns={5}
            isRow={index => shown[index]!.kind !== 'idle'}
            selected={selected}
            onSelect={select}
            followsEnd={store.source.about.isLive}
            onEnd={loadMore}
            isProblem={index => isRemarkable(shown[index]!)}
            render={(index, attributes) => {
              const one = shown[index]!
              const before = shown[shown[index - 1]?.kind === 'idle' ? index - 2 : index - 1]
              return (
                <LadderRow
                  key={index}
                  attributes={attributes}
                  row={one}
                  gap={before ? one.time - before.time : 0}
                  start={start}
                  isRelated={isRelated(one)}
                />
              )
            }}
          />
        )}
        <p class="status" role="status">
          {plural(shown.length, 'row')}
          {shown.length < readRows ? ` of ${countText(readRows)}` : ''}
          {isLoading ? `, reading … ${Math.floor(100 * share)} %` : ''}
          {isFull && hasMore
            ? ': more rows than the page shows. Click in the strip above to go on from a later time'
            : ''}
          {!isFull && hasMore ? ', more at the end of the list' : ''}
        </p>
      </div>
      {row && (
        <Detail
          row={row}
          start={start}
          objects={facts.objects}
          names={names}
          onClose={() => select(undefined)}
          onShowRequest={posted => {
            const index = shown.findIndex(({ event }) => event === posted)
            if (index >= 0) select(index)
          }}
        />
      )}
    </div>
  )
}

const isSameRequest = (row: Row, request: PostedEvent | undefined): boolean => {
  if (request === undefined) return false
  if (row.request === request) return true
  return row.event.kind === 'completed' && row.event.request === request.request.id
}

/** For deep links: the same row in each page of the session. */
const rowKey = (row: Row): string =>
  `${row.time.toFixed(3)}${row.packet ? `-${row.packet.psn.toString(16)}` : `-${row.kind}`}`

/** The key of a row, with the number of the rows before it that have the same. */
const keyOf = (rows: readonly Row[], index: number): string => {
  const key = rowKey(rows[index]!)
  let before = 0
  for (let i = index - 1; i >= 0 && rows[i]!.time === rows[index]!.time; i--) if (rowKey(rows[i]!) === key) before++
  return before === 0 ? key : `${key}~${before}`
}

const indexOfKey = (rows: readonly Row[], text: string): number | undefined => {
  const [key, before = 0] = text.split('~')
  const first = rows.findIndex(row => rowKey(row) === key)
  let index = first
  for (let left = Number(before); left > 0 && index >= 0; left--)
    index = rows.findIndex((row, i) => i > index && rowKey(row) === key)
  return index >= 0 ? index : first >= 0 ? first : undefined
}

/** Index of the first row at `time` or later. */
const lowerBound = (rows: readonly Row[], time: number): number => {
  let [low, high] = [0, rows.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    if (rows[middle]!.time < time) low = middle + 1
    else high = middle
  }
  return low
}
