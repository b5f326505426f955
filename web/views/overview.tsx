/*
 * What the session has: totals, devices, processes, connections with their traffic.
 */

import { isQueuePairClass } from '../../src/spec/classes/ids.ts'
import { connectionsOf, type QueuePair } from '../../src/tools/record/objects.ts'
import { lossesOf, problemsOf } from '../data/losses.ts'
import {
  bytesText,
  clockText,
  countText,
  durationText,
  exactBytesText,
  hexText,
  lossesText,
  lostText,
  perSecondText,
  plural,
  rateText,
  timeText,
} from '../format.ts'
import { Empty, Facts } from '../parts/basics.tsx'
import { Coverage } from '../parts/coverage.tsx'
import { LinkClasses } from '../parts/link-classes.tsx'
import { Pages, pageOf } from '../parts/pages.tsx'
import { Prose } from '../parts/prose.tsx'
import { WaitsOfSession } from '../parts/waits.tsx'
import { linkTo } from '../route.ts'
import type { ViewProps } from './view-props.ts'

/** Rows of a page, and failures. */
const MAX_ROWS = 60
const MAX_FAILURES = 8

export const Overview = ({ store, route }: ViewProps) => {
  const { facts, session, source } = store
  const { objects, traffic } = facts
  const { entries: failures } = facts.failures
  const { totals } = traffic
  const losses = lossesOf(facts)
  const problems = problemsOf(facts)
  const duration = Math.max(0, session.end - facts.start)
  const programs = new Map<number, { command: string; objects: number; qps: number; calls: number; failed: number }>()
  const programOf = (pid: number, command: string) => {
    let program = programs.get(pid)
    if (program === undefined) {
      program = { command, objects: 0, qps: 0, calls: 0, failed: 0 }
      programs.set(pid, program)
    }
    return program
  }
  for (const { program, class: name } of objects.objects.values()) {
    const one = programOf(program?.pid ?? 0, program?.command ?? 'this process')
    one.objects++
    if (isQueuePairClass(name)) one.qps++
  }
  for (const [pid, { command, calls, failed }] of facts.callers)
    Object.assign(programOf(pid, command), { calls, failed })
  const connections = connectionsOf(objects)
  /** The rows of the page of a list that is shown, and links to the others. */
  const pageOfRows = <T,>(all: readonly T[], param: string) => {
    const page = pageOf(route.params.get(param), MAX_ROWS, all.length)
    return {
      rows: all.slice(page * MAX_ROWS, (page + 1) * MAX_ROWS),
      pages: <Pages param={param} page={page} size={MAX_ROWS} count={all.length} label={param} />,
    }
  }
  const shownConnections = pageOfRows(connections, 'connections')
  const shownPrograms = pageOfRows([...programs], 'processes')
  const shownDevices = pageOfRows([...objects.devices.values()], 'devices')
  const links = [...facts.links.values()].sort((a, b) => a.link - b.link)
  const shownLinks = pageOfRows(links, 'links')
  const perSecond = (value: number, text = countText): string => perSecondText(value, facts.covered, text)
  if (objects.objects.size === 0 && traffic.length === 0 && source.about.isLive)
    return (
      <Empty title="Nothing has happened yet">
        <p>
          Run a program under this daemon, for example{' '}
          <code>{source.about.run ?? 'userdma run --'} ibv_rc_pingpong -g 1</code>.
        </p>
      </Empty>
    )
  return (
    <div class="page">
      <WaitsOfSession store={store} />
      <section class="tiles" aria-label="Totals">
        <Tile
          title="Duration"
          value={durationText(duration)}
          note={clockText(session.header.origin + facts.start / 1000)}
        />
        <Tile title="Packets" value={countText(totals.packets)} note={perSecond(totals.packets)} />
        <Tile title="Bytes on the wire" value={bytesText(totals.bytes)} note={perSecond(totals.bytes, bytesText)} />
        <Tile title="Completions" value={countText(totals.completed)} note={perSecond(totals.completed)} />
        <Tile
          title="Lost packets"
          value={countText(losses.lost)}
          note={`${losses.lost > 0 ? `${lostText(losses)}, ` : ''}${plural(totals.retransmitted, 'packet')} sent again`}
          tone={losses.repaired < losses.lost ? 'bad' : ''}
        />
        <Tile
          title="Problems"
          value={countText(problems)}
          note={`${plural(totals.errors, 'request')} failed`}
          tone={problems > 0 ? 'bad' : ''}
        />
      </section>
      <Coverage store={store} />
      {failures.length > 0 && (
        <section>
          <h2>What failed</h2>
          <ul class="sentences">
            {failures.slice(0, MAX_FAILURES).map(({ failure, time, object }) => (
              <li key={`${time} ${failure.failure.text}`}>
                <a class="mono" href={linkTo('ladder', { qp: object, from: Math.max(0, Math.floor(time - 100_000)) })}>
                  {timeText(time - facts.start)} s
                </a>
                <span>
                  <Prose text={failure.failure.text} />
                </span>
              </li>
            ))}
          </ul>
          {facts.failures.total > MAX_FAILURES && (
            <p class="quiet">
              <a href={linkTo('findings')}>All {countText(facts.failures.total)} failures</a>
            </p>
          )}
        </section>
      )}
      <section>
        <h2>Connections</h2>
        {connections.length === 0 ? (
          <p class="quiet">No program has created a queue pair.</p>
        ) : (
          <table>
            <thead>
              <tr>
                <th>Type</th>
                <th>Queue pair</th>
                <th>Process</th>
                <th>State</th>
                <th>Peer</th>
                <th>Process</th>
                <th>State</th>
                <th>
                  <span class="sr">Ladder</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {shownConnections.rows.map(({ left, right, rightQpn }) => (
                <tr key={left.object.id}>
                  <td>{left.type}</td>
                  <td class="mono">{hexText(left.qpn)}</td>
                  <td>{left.object.program ? `${left.object.program.command} ${left.object.program.pid}` : '–'}</td>
                  <td>
                    <StateLink qp={left} />
                  </td>
                  <td class="mono">{rightQpn === undefined ? '–' : hexText(rightQpn)}</td>
                  <td>{right?.object.program ? `${right.object.program.command} ${right.object.program.pid}` : '–'}</td>
                  <td>{right ? <StateLink qp={right} /> : '–'}</td>
                  <td>
                    <a href={linkTo('ladder', { qp: left.object.id })}>ladder</a>{' '}
                    <a href={linkTo('charts', { qp: left.object.id })}>charts</a>
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
        {shownConnections.pages}
        {connections.length > MAX_ROWS && (
          <p class="quiet">
            <a href={linkTo('times')}>Times</a> has a table that can be sorted.
          </p>
        )}
      </section>
      {links.length > 0 && (
        <section>
          <h2>Links</h2>
          <table>
            <thead>
              <tr>
                <th>From</th>
                <th>To</th>
                <th class="num">Rate</th>
                <th class="num">Delay</th>
                <th class="num">Queue</th>
                <th class="num">Longest queue</th>
                <th class="num">Packets</th>
                <th class="num">Bytes</th>
                <th class="num">Busy</th>
                <th class="num">Marked</th>
                <th class="num">Lost</th>
                <th>Why</th>
              </tr>
            </thead>
            <tbody>
              {shownLinks.rows.map(link => (
                <tr key={link.link}>
                  <td>{link.from}</td>
                  <td>{link.to}</td>
                  <td class="num">{rateText(link.rate)}</td>
                  <td class="num">{durationText(link.delay)}</td>
                  <td class="num">{bytesText(link.capacity)}</td>
                  <td class="num">{bytesText(Math.round(link.maxQueue))}</td>
                  <td class="num">{countText(link.packets)}</td>
                  <td class="num">{bytesText(link.bytes)}</td>
                  <td class="num">{`${(100 * link.utilization).toFixed(1)} %`}</td>
                  <td class="num">{countText(link.marked)}</td>
                  <td class="num">{countText(link.overflowed + link.lost + link.tooLong)}</td>
                  <td>{lossesText(link)}</td>
                </tr>
              ))}
            </tbody>
          </table>
          <LinkClasses links={shownLinks.rows} />
          {shownLinks.pages}
        </section>
      )}
      <div class="columns">
        <section>
          <h2>Processes</h2>
          {programs.size === 0 || session.header.isCapture === true ? (
            <p class="quiet">
              {session.header.isCapture === true
                ? 'A capture does not show processes.'
                : 'No process has used a device.'}
            </p>
          ) : (
            <table>
              <thead>
                <tr>
                  <th>Process</th>
                  <th class="num">PID</th>
                  <th class="num">Objects</th>
                  <th class="num">QPs</th>
                  <th class="num">Calls</th>
                  <th class="num">Failed calls</th>
                </tr>
              </thead>
              <tbody>
                {shownPrograms.rows.map(([pid, { command, objects: count, qps, calls, failed }]) => (
                  <tr key={pid}>
                    <td>
                      <a href={linkTo('calls', { filter: `pid == ${pid}` })}>{command}</a>
                    </td>
                    <td class="num">{pid}</td>
                    <td class="num">{countText(count)}</td>
                    <td class="num">{countText(qps)}</td>
                    <td class="num">{countText(calls)}</td>
                    <td class="num">{countText(failed)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          {shownPrograms.pages}
        </section>
        <section>
          <h2>Devices</h2>
          <table>
            <thead>
              <tr>
                <th>Device</th>
                <th>Address</th>
                <th class="num">Sent packets</th>
                <th class="num">Received</th>
              </tr>
            </thead>
            <tbody>
              {shownDevices.rows.map(({ index, name, address, isRemoved }) => {
                const counters = facts.counters.get(index) ?? {}
                return (
                  <tr key={index}>
                    <td>
                      {name}
                      {isRemoved ? ' (removed)' : ''}
                    </td>
                    <td class="mono">{address === '' ? '–' : address}</td>
                    <td class="num">{countText(counters['port.sentPackets'] ?? 0)}</td>
                    <td class="num">{countText(counters['port.receivedPackets'] ?? 0)}</td>
                  </tr>
                )
              })}
            </tbody>
          </table>
          {shownDevices.pages}
        </section>
      </div>
      <section>
        <h2>Recording</h2>
        <Facts
          of={[
            ['Events', countText(session.events - session.overwritten)],
            ['Recorded by', session.header.application],
            ['Machine', session.header.machine],
            [
              'Payload',
              session.header.payload === 0
                ? 'not recorded'
                : `the first ${exactBytesText(session.header.payload)} of each packet`,
            ],
            ['End', facts.endReason ?? (source.about.isLive ? 'it goes on' : 'it ended without notice')],
          ]}
        />
      </section>
    </div>
  )
}

const StateLink = ({ qp }: { readonly qp: QueuePair }) => (
  <a href={linkTo('states', { qp: qp.object.id })}>{qp.object.destroyed === undefined ? qp.state : 'destroyed'}</a>
)

const Tile = ({
  title,
  value,
  note,
  tone = '',
}: {
  readonly title: string
  readonly value: string
  readonly note: string
  readonly tone?: string
}) => (
  <div class={`tile ${tone}`}>
    <h3>{title}</h3>
    <p class="tile-value">{value}</p>
    <p class="tile-note">{note}</p>
  </div>
)
