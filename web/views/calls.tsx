/*
 * The calls of all programs, decoded, with a search.
 */
import { useCallback, useMemo } from 'preact/hooks'
import type { CallEvent } from '../../src/spec/session-events.ts'
import type { SessionObjects } from '../../src/tools/record/objects.ts'
import { callJson, callLine, callSummary } from '../../src/tools/trace/calls.ts'
import { methodOf } from '../../src/tools/trace/decode.ts'
import { isFailed } from '../../src/tools/trace/failed.ts'
import { omittedText } from '../data/coverage.ts'
import type { Timed } from '../data/store.ts'
import { compileFilter, type Filter, type Filtered } from '../filter/filter.ts'
import { countText, durationText, plural, timeText } from '../format.ts'
import { Empty, Facts, Process } from '../parts/basics.tsx'
import { FilterForm, FilterProblem } from '../parts/filter-form.tsx'
import { Prose } from '../parts/prose.tsx'
import { DetailHead } from '../parts/split.tsx'
import { StackView } from '../parts/stack.tsx'
import { VirtualList } from '../parts/virtual-list.tsx'
import { linkTo, setParam } from '../route.ts'
import type { ViewProps } from './view-props.ts'

const ROW_HEIGHT = 24
const FIELDS = ['pid', 'command', 'device', 'ret', 'duration', 'class', 'method', 'object']

const texts = new WeakMap<CallEvent, string>()

const textOf = (event: CallEvent): string => {
  let text = texts.get(event)
  if (text === undefined) {
    text = callSummary(event.call)
    texts.set(event, text)
  }
  return text
}

const filtered = (event: CallEvent, objects: SessionObjects): Filtered => ({
  text: textOf(event),
  field(name) {
    if (name === 'object') return objects.objects.has(event.object) ? objects.objectName(event.object) : undefined
    const { pid, command, device, ret, duration, call } = event.call
    const called = call && methodOf(call.classId, call.call, call.declared)
    return { pid, command, device, ret, duration, class: called?.class.name, method: called?.name }[name]
  },
})

const CallDetail = ({
  event,
  start,
  objects,
}: {
  readonly event: Timed<CallEvent>
  readonly start: number
  readonly objects: SessionObjects
}) => {
  const { call, stack } = event
  const copied = useCallback(() => callLine(call), [call])
  const { args, out, reason } = useMemo(() => callJson(call), [call])
  const json = (value: unknown): string => JSON.stringify(value ?? {}, null, 2)
  return (
    <aside class="detail" aria-label="Call">
      <DetailHead
        title={textOf(event).split('(')[0]!}
        text={`${timeText(event.time - start)} s · ${call.command} ${call.pid}`}
        onClose={() => setParam('call', undefined)}
        copied={copied}
      />
      {typeof reason === 'string' && (
        <p class="sentence bad">
          <Prose text={reason} />
        </p>
      )}
      <Facts
        of={[
          ['Result', String(call.ret)],
          ['Duration', durationText(call.duration)],
          ['Dialect', call.dialect],
          ['Device', call.device],
          ['Thread', String(call.tid)],
          ...(!objects.objects.has(event.object)
            ? []
            : ([
                [
                  'Object',
                  <a key="object" href={linkTo('objects', { id: event.object })}>
                    {objects.objectName(event.object)}
                  </a>,
                ],
              ] as const)),
        ]}
      />
      <section class="detail-part">
        <h3>Arguments</h3>
        <pre>{json(args)}</pre>
      </section>
      {call.ret >= 0 && (
        <section class="detail-part">
          <h3>Results</h3>
          <pre>{json(out)}</pre>
        </section>
      )}
      <StackView stack={stack} />
    </aside>
  )
}

export const Calls = ({ store, route }: ViewProps) => {
  const { calls: kept } = store.facts
  const { entries: calls, omitted } = kept
  const { start, objects } = store.facts
  const source = route.params.get('filter') ?? ''
  const failedOnly = route.params.get('failed') === '1'
  const { filter, problem } = useMemo((): { filter: Filter; problem: string } => {
    try {
      return { filter: compileFilter(source, name => FIELDS.includes(name)), problem: '' }
    } catch (error) {
      return { filter: () => true, problem: error instanceof Error ? error.message : String(error) }
    }
  }, [source])
  const shown = useMemo(
    () =>
      calls.filter(
        event => !(failedOnly && !isFailed(event.call)) && (source === '' || filter(filtered(event, objects))),
      ),
    [calls, calls.length, omitted, filter, failedOnly],
  )
  const wanted = route.params.get('call')
  const index = wanted === null ? -1 : shown.findIndex(({ time }) => time.toFixed(3) === wanted)
  const select = (next: number | undefined): void =>
    setParam('call', next === undefined ? undefined : shown[next]!.time.toFixed(3))
  const selected = shown[index]
  if (calls.length === 0)
    return (
      <Empty title={store.readState === 'reading' ? 'Reading …' : 'No calls'}>
        <p>
          {store.session.header.isCapture === true
            ? 'A capture has packets only: what programs called is not in it.'
            : 'Calls of programs on devices appear here, with their arguments.'}
        </p>
      </Empty>
    )
  return (
    <div class={`split${selected ? ' with-detail' : ''}`}>
      <div class="split-main">
        <div class="toolbar">
          <FilterForm
            source={source}
            label="Filter of calls"
            placeholder="Filter: modify, pid == 1234, class == rc_qp && duration > 1000"
            problem={problem}
          />
          <button
            type="button"
            class="chip toggle"
            aria-pressed={failedOnly}
            onClick={() => setParam('failed', failedOnly ? undefined : 1)}
          >
            failed only
          </button>
        </div>
        <FilterProblem problem={problem} />
        <div class="call-row table-head">
          <span class="mono end">time, s</span>
          <span class="mono end">took</span>
          <span>Process</span>
          <span>Call</span>
        </div>
        <VirtualList
          label="Calls"
          count={shown.length}
          rowHeight={ROW_HEIGHT}
          columns={4}
          selected={index < 0 ? undefined : index}
          onSelect={select}
          isProblem={i => isFailed(shown[i]!.call)}
          render={(i, attributes) => {
            const event = shown[i]!
            const { call } = event
            return (
              <div key={i} {...attributes} class={`call-row${isFailed(call) ? ' failed' : ''}`}>
                <span role="gridcell" class="mono end">
                  {timeText(event.time - start)}
                </span>
                <span role="gridcell" class="mono end quiet">
                  {durationText(call.duration)}
                </span>
                <Process of={call} />
                <span role="gridcell" class="mono">
                  {textOf(event)}
                </span>
              </div>
            )
          }}
        />
        <p class="status" role="status">
          {plural(shown.length, 'call')}
          {shown.length < calls.length ? ` of ${countText(calls.length)}` : ''}
          {omittedText(kept)}
        </p>
      </div>
      {selected && <CallDetail event={selected} start={start} objects={objects} />}
    </div>
  )
}
