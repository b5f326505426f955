/*
 * The objects of all programs: a table by class, with the values of their creation, parents, and history.
 */
import { useMemo } from 'preact/hooks'
import { isQueuePairClass } from '../../src/spec/classes/ids.ts'
import { classes } from '../../src/spec/classes.ts'
import type { ObjectRecord, SessionObjects } from '../../src/tools/record/objects.ts'
import type { Store } from '../data/store.ts'
import { countText, hexText, plural, timeText, valueText } from '../format.ts'
import { Values } from '../ladder/detail.tsx'
import { Empty, Facts, Process } from '../parts/basics.tsx'
import { DetailHead } from '../parts/split.tsx'
import { StackView } from '../parts/stack.tsx'
import { VirtualList } from '../parts/virtual-list.tsx'
import { WaitsOf } from '../parts/waits.tsx'
import { linkTo, setParam } from '../route.ts'
import type { ViewProps } from './view-props.ts'

const ROW_HEIGHT = 26
/** Columns of values. */
const MAX_COLUMNS = 4
/** Objects that the details name. */
const MAX_USERS = 30

/** Attributes of a class's creation, in the order of the schema, that are single values. */
const columnsOf = (name: string): readonly string[] => {
  const method = classes.find(one => one.name === name)?.methods.create
  const attributes = { ...method?.in, ...method?.out }
  return Object.keys(attributes).filter(attribute => !/^(?:object|userHandle|asyncFd|pd|.*Cq)$/.test(attribute))
}

/** Pixels of the fixed columns, of each column of values, and of what is between and beside them. */
const LEAST = 985
const LEAST_VALUE = 72

/** Columns of the table, with `columns` of values: a queue pair names the four objects that it uses. */
const template = (columns: number): { readonly gridTemplateColumns: string } => ({
  gridTemplateColumns: `minmax(175px, 0.8fr) minmax(150px, 1fr) minmax(80px, 0.5fr) minmax(290px, 1.5fr) ${'minmax(60px, 1fr) '.repeat(columns)}90px 90px`,
})

/** A fact about other objects, with links to them; none without such objects. */
const others = (name: string, ids: readonly number[], objects: SessionObjects) =>
  ids.length === 0 ? [] : ([[name, <Names key={name} ids={ids} objects={objects} />]] as const)

const Names = ({ ids, objects }: { readonly ids: readonly number[]; readonly objects: SessionObjects }) => (
  <>
    {ids.map((id, i) => (
      <span key={id}>
        {i > 0 && ', '}
        <a href={linkTo('objects', { id })}>{objects.objectName(id)}</a>
      </span>
    ))}
  </>
)

/** The filter of the calls on an object; names are those of one process. */
const callsOf = ({ id, program }: ObjectRecord, objects: SessionObjects): string =>
  `${program ? `pid == ${program.pid} && ` : ''}object == "${objects.objectName(id)}"`

const ObjectDetail = ({ object, store }: { readonly object: ObjectRecord; readonly store: Store }) => {
  const { objects, start } = store.facts
  const users = [...objects.objects.values()].filter(({ uses }) => uses.includes(object.id)).map(({ id }) => id)
  return (
    <aside class="detail" aria-label="Object">
      <DetailHead
        title={objects.objectName(object.id)}
        text={`${object.class} of ${object.program ? `${object.program.command} ${object.program.pid}` : 'this process'} on ${objects.deviceName(object.device)}`}
        onClose={() => setParam('id', undefined)}
      />
      <Facts
        of={[
          object.fd === undefined ? ['Handle', String(object.handle)] : ['Descriptor', String(object.fd)],
          ...(object.number === 0 ? [] : ([['Number', hexText(object.number)]] as const)),
          ...others('Uses', [...new Set(object.uses)], objects),
          ...others('Used by', users.slice(0, MAX_USERS), objects),
        ]}
      />
      <p class="sentence">
        {isQueuePairClass(object.class) && (
          <>
            <a href={linkTo('ladder', { qp: object.id })}>Ladder</a> ·{' '}
            <a href={linkTo('states', { qp: object.id })}>States</a> ·{' '}
          </>
        )}
        <a href={linkTo('calls', { filter: callsOf(object, objects) })}>Calls</a>
      </p>
      <WaitsOf store={store} objects={[object.id]} />
      {object.history.map(({ time, change, method, why, details, stack }) => (
        <section class="detail-part" key={`${time} ${change} ${method}`}>
          <h3>
            {change} <span class="quiet">{timeText(time - start)} s</span>
            {why !== '' && why !== 'call' && <span class="quiet"> · {why}</span>}
          </h3>
          <Values values={details.values ?? {}} />
          <StackView stack={stack} />
        </section>
      ))}
      {object.omitted > 0 && <p class="quiet">And {plural(object.omitted, 'more change')}.</p>}
    </aside>
  )
}

export const Objects = ({ store, route }: ViewProps) => {
  const { objects } = store.facts
  const { start } = store.facts
  const wanted = route.params.get('class') ?? ''
  const aliveOnly = route.params.get('alive') === '1'
  const id = Number(route.params.get('id'))
  const counts = useMemo(() => {
    const sums = new Map<string, number>()
    for (const { class: name } of objects.objects.values()) sums.set(name, (sums.get(name) ?? 0) + 1)
    return [...sums].sort(([a], [b]) => a.localeCompare(b))
  }, [store.version])
  const shown = useMemo(
    () =>
      [...objects.objects.values()].filter(
        object => (wanted === '' || object.class === wanted) && !(aliveOnly && object.destroyed !== undefined),
      ),
    [store.version, wanted, aliveOnly],
  )
  const columns = useMemo(() => {
    const hasValue = (name: string): boolean =>
      shown.slice(0, 200).some(({ history }) => /^(?:number|string)$/.test(typeof history[0]?.details.values?.[name]))
    return columnsOf(wanted).filter(hasValue).slice(0, MAX_COLUMNS)
  }, [wanted, shown])
  const selected = objects.objects.get(id)
  const index = selected ? shown.indexOf(selected) : -1
  if (objects.objects.size === 0)
    return (
      <Empty title={store.readState === 'reading' ? 'Reading …' : 'No objects'}>
        <p>Protection domains, regions, queues and queue pairs of programs appear here.</p>
      </Empty>
    )
  return (
    <div class={`split${selected ? ' with-detail' : ''}`}>
      <div class="split-main">
        <div class="toolbar">
          <span class="chips wrap">
            <a class="chip" aria-current={wanted === ''} href={linkTo('objects', { alive: aliveOnly ? 1 : undefined })}>
              all {countText(objects.objects.size)}
            </a>
            {counts.map(([name, count]) => (
              <a
                key={name}
                class="chip"
                aria-current={name === wanted}
                href={linkTo('objects', { class: name, alive: aliveOnly ? 1 : undefined })}
              >
                {name} {countText(count)}
              </a>
            ))}
          </span>
          <button
            type="button"
            class="chip toggle"
            aria-pressed={aliveOnly}
            onClick={() => setParam('alive', aliveOnly ? undefined : 1)}
          >
            existing only
          </button>
        </div>
        {store.session.header.isCapture === true && (
          <p class="from-note">A capture shows queue pairs only, and what their packets tell of them.</p>
        )}
        <div class="wide" style={{ '--least': `${LEAST + columns.length * LEAST_VALUE}px` }}>
          <div class="table-row table-head" style={template(columns.length)}>
            <span>Object</span>
            <span>Process</span>
            <span>Device</span>
            <span>Uses</span>
            {columns.map(name => (
              <span key={name}>{name}</span>
            ))}
            <span class="mono end">created, s</span>
            <span class="mono end">destroyed, s</span>
          </div>
          <VirtualList
            label="Objects"
            count={shown.length}
            rowHeight={ROW_HEIGHT}
            columns={6 + columns.length}
            selected={index < 0 ? undefined : index}
            onSelect={next => setParam('id', next === undefined ? undefined : shown[next]!.id)}
            render={(i, attributes) => {
              const object = shown[i]!
              const values = object.history[0]?.details.values ?? {}
              const uses = [...new Set(object.uses)].map(use => objects.objectName(use)).join(', ')
              return (
                <div
                  key={object.id}
                  {...attributes}
                  class={`table-row${object.destroyed === undefined ? '' : ' gone'}`}
                  style={template(columns.length)}
                >
                  <span role="gridcell" class="mono" title={objects.objectName(object.id)}>
                    {objects.objectName(object.id)}
                  </span>
                  <Process of={object.program} />
                  <span role="gridcell" title={objects.deviceName(object.device)}>
                    {objects.deviceName(object.device)}
                  </span>
                  <span role="gridcell" class="mono" title={uses}>
                    {uses}
                  </span>
                  {columns.map(name => (
                    <span role="gridcell" key={name} class="mono" title={valueText(name, values[name])}>
                      {valueText(name, values[name])}
                    </span>
                  ))}
                  <span role="gridcell" class="mono end">
                    {timeText((object.history[0]?.time ?? start) - start)}
                  </span>
                  <span role="gridcell" class="mono end">
                    {object.destroyed === undefined ? '' : timeText(object.destroyed - start)}
                  </span>
                </div>
              )
            }}
          />
        </div>
        <p class="status" role="status">
          {plural(shown.length, 'object')}
          {objects.omitted > 0 ? `, and ${countText(objects.omitted)} that were too many for the page` : ''}
        </p>
      </div>
      {selected && <ObjectDetail object={selected} store={store} />}
    </div>
  )
}
