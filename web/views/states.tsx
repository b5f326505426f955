/*
 * The state machine of a queue pair, drawn from the table by which the devices check MODIFY_QP, with the states that it
 * was in.
 */
import { useState } from 'preact/hooks'
import { type QpTypeName, qpTransitions, transitionOf } from '../../src/spec/qp-states.ts'
import type { QpStateName, QueuePair } from '../../src/tools/record/objects.ts'
import { durationText, hexText, timeText } from '../format.ts'
import { Empty, takeFocus } from '../parts/basics.tsx'
import { Choice } from '../parts/choice.tsx'
import { linkTo, setParam } from '../route.ts'
import type { ViewProps } from './view-props.ts'

/** Middle of each state in the drawing. */
const PLACES: Readonly<Record<QpStateName, readonly [x: number, y: number]>> = {
  RESET: [90, 80],
  INIT: [250, 80],
  RTR: [410, 80],
  RTS: [570, 80],
  SQD: [730, 80],
  SQE: [570, 210],
  ERR: [250, 210],
}
const WIDTH = 92
const HEIGHT = 40
const NAMES = Object.keys(PLACES) as QpStateName[]

type Edge = readonly [from: QpStateName, to: QpStateName]

/** The transitions of a type. Those to ERR and RESET, from each state, are one line of text. */
const edgesOf = (type: QpTypeName): Edge[] =>
  Object.entries(qpTransitions[type]).flatMap(([from, row]) =>
    Object.keys(row).map(to => [from, to] as unknown as Edge),
  )

const typeOf = ({ type }: QueuePair): QpTypeName | undefined =>
  (Object.keys(qpTransitions) as QpTypeName[]).find(name => name === type)

/** A path from the border of one state to that of the other; of a state to itself, a loop above it. */
const pathOf = ([from, to]: Edge, hasBack: boolean): string => {
  const [x1, y1] = PLACES[from]
  const [x2, y2] = PLACES[to]
  if (from === to) return `M ${x1 - 16} ${y1 - HEIGHT / 2} c -8 -34, 40 -34, 32 -1`
  if (y1 === y2) {
    const sign = Math.sign(x2 - x1)
    const y = hasBack ? y1 - 9 * sign : y1
    const x = x1 + (sign * WIDTH) / 2
    const end = x2 - sign * (WIDTH / 2 + 3)
    const isNear = Math.abs(x2 - x1) < 200
    return isNear
      ? `M ${x} ${y} L ${end} ${y}`
      : `M ${x1} ${y1 + HEIGHT / 2} Q ${(x1 + x2) / 2} ${y1 + 70} ${x2} ${y2 + HEIGHT / 2 + 3}`
  }
  const isDown = y2 > y1
  return `M ${x1} ${y1 + ((isDown ? 1 : -1) * HEIGHT) / 2} L ${x2} ${y2 - (isDown ? 1 : -1) * (HEIGHT / 2 + 3)}`
}

const Machine = ({
  qp,
  type,
  edge,
}: {
  readonly qp: QueuePair
  readonly type: QpTypeName
  readonly edge: Edge | undefined
}) => {
  const edges = edgesOf(type)
  const visited = new Set(qp.states.map(({ state }) => state))
  const taken = new Set(qp.states.map(({ state }, i) => `${qp.states[i - 1]?.state} ${state}`))
  const isGone = qp.object.destroyed !== undefined
  // A device may move a queue pair to ERR from each state, and a program to ERR and RESET.
  const toError = qp.states.flatMap(({ state }, i) => {
    const before = qp.states[i - 1]?.state
    return state === 'ERR' && before !== undefined && before !== 'ERR' ? [[before, 'ERR'] as Edge] : []
  })
  const all = [...edges, ...toError.slice(0, 1)]
  return (
    <svg
      class="machine"
      viewBox="0 0 820 250"
      role="img"
      aria-label={`States of a ${type} queue pair; now ${isGone ? 'destroyed' : qp.state}`}
    >
      <defs>
        <marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
          <path d="M 0 0 L 8 4 L 0 8 z" fill="context-stroke" />
        </marker>
      </defs>
      {all.map(one => {
        const [from, to] = one
        const hasBack = edges.some(([a, b]) => a === to && b === from && a !== b)
        const isActive = edge !== undefined && edge[0] === from && edge[1] === to
        return (
          <path
            key={`${from} ${to}`}
            class={`edge${taken.has(`${from} ${to}`) ? ' taken' : ''}${to === 'ERR' ? ' to-error' : ''}${isActive ? ' active' : ''}`}
            d={pathOf(one, hasBack)}
            marker-end="url(#head)"
          />
        )
      })}
      {NAMES.map(name => {
        const [x, y] = PLACES[name]
        const isNow = name === qp.state && !isGone
        return (
          <g
            key={name}
            class={`state${visited.has(name) ? ' visited' : ''}${isNow ? ' now' : ''}${name === 'ERR' || name === 'SQE' ? ' error' : ''}`}
          >
            <rect x={x - WIDTH / 2} y={y - HEIGHT / 2} width={WIDTH} height={HEIGHT} rx="5" />
            <text x={x} y={y + 5} text-anchor="middle">
              {name}
            </text>
          </g>
        )
      })}
      <text class="machine-note" x="310" y="215">
        from each state to ERR and RESET
      </text>
    </svg>
  )
}

const textOf = ({ type, qpn, object, state }: QueuePair): string =>
  `${type} QP ${hexText(qpn)}${object.program ? ` · ${object.program.command} ${object.program.pid}` : ''} · ${
    object.destroyed === undefined ? state : 'destroyed'
  }`

export const States = ({ store, route }: ViewProps) => {
  const { objects } = store.facts
  const { start, end } = store.session
  const all = [...objects.queuePairs.values()]
  const wanted = Number(route.params.get('qp'))
  const qp = objects.queuePairs.get(wanted) ?? all[0]
  const [edge, setEdge] = useState<Edge | undefined>(undefined)
  if (qp === undefined)
    return (
      <Empty title={store.readState === 'reading' ? 'Reading …' : 'No queue pair'}>
        <p>The states of a program's queue pairs appear here.</p>
      </Empty>
    )
  const type = typeOf(qp)
  const rows = type === undefined ? [] : edgesOf(type)
  return (
    <div class="page states">
      <div class="toolbar">
        <Choice
          label="Queue pair"
          all={all}
          current={qp}
          idOf={one => one.object.id}
          textOf={textOf}
          onChoose={id => setParam('qp', id)}
        />
        <a href={linkTo('ladder', { qp: qp.object.id })}>Ladder</a>
        <a href={linkTo('objects', { id: qp.object.id })}>Object</a>
      </div>
      {store.session.header.isCapture === true && (
        <p class="from-note">
          A capture has no states: a queue pair that sends requests is shown in RTS, others in RTR.
        </p>
      )}
      {type === undefined ? (
        <p class="quiet">Queue pairs of type {qp.type} have no table of states.</p>
      ) : (
        <div class="machine-box" ref={takeFocus}>
          <Machine qp={qp} type={type} edge={edge} />
        </div>
      )}
      <div class="columns">
        <section>
          <h2>History</h2>
          <table class="compact">
            <thead>
              <tr>
                <th class="num">at, s</th>
                <th>State</th>
                <th class="num">for</th>
              </tr>
            </thead>
            <tbody>
              {qp.states.map(({ time, state }, i) => {
                const next = qp.states[i + 1]?.time ?? qp.object.destroyed ?? end
                return (
                  <tr key={`${time} ${state}`}>
                    <td class="num">{timeText(time - start)}</td>
                    <td class={state === 'ERR' || state === 'SQE' ? 'bad' : ''}>{state}</td>
                    <td class="num">{durationText(Math.max(0, next - time))}</td>
                  </tr>
                )
              })}
              {qp.object.destroyed !== undefined && (
                <tr>
                  <td class="num">{timeText(qp.object.destroyed - start)}</td>
                  <td>destroyed</td>
                  <td />
                </tr>
              )}
            </tbody>
          </table>
        </section>
        <section>
          <h2>Transitions of {qp.type} queue pairs</h2>
          <table class="transitions">
            <thead>
              <tr>
                <th>Transition</th>
                <th>Needs</th>
                <th>May have</th>
              </tr>
            </thead>
            <tbody>
              {rows.map(([from, to]) => {
                const row = type && transitionOf(type, from, to)
                return (
                  <tr
                    key={`${from} ${to}`}
                    class={edge?.[0] === from && edge[1] === to ? 'marked' : ''}
                    onMouseEnter={() => setEdge([from, to])}
                  >
                    <td class="mono">
                      {from} → {to}
                    </td>
                    <td class="wrap">{row?.required.join(', ') || '–'}</td>
                    <td class="wrap">{row?.optional.join(', ') || '–'}</td>
                  </tr>
                )
              })}
            </tbody>
          </table>
        </section>
      </div>
    </div>
  )
}
