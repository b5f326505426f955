/*
 * The classes of links that have had packets or pauses, of a recording of a virtual network.
 */
import type { LinkEvent } from '../../src/spec/session-events.ts'
import { bytesText, countText, durationText } from '../format.ts'

export const LinkClasses = ({ links }: { readonly links: readonly LinkEvent[] }) => {
  const rows = links.flatMap(({ link, from, to, classes = [] }) =>
    classes
      .filter(one => one.packets + one.lost + one.pausesSent + one.pausesReceived > 0)
      .map(one => ({ ...one, link, from, to })),
  )
  if (rows.length === 0) return null
  return (
    <>
      <h3>Classes</h3>
      <table>
        <thead>
          <tr>
            <th>From</th>
            <th>To</th>
            <th>Class</th>
            <th class="num">Longest queue</th>
            <th class="num">Packets</th>
            <th class="num">Bytes</th>
            <th class="num">Marked</th>
            <th class="num">Lost</th>
            <th class="num">Pauses sent</th>
            <th class="num">Pauses received</th>
            <th class="num">Paused for</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(one => (
            <tr key={`${one.link} ${one.name}`}>
              <td>{one.from}</td>
              <td>{one.to}</td>
              <td>
                {one.name}
                {one.lossless ? ', lossless' : ''}
              </td>
              <td class="num">{bytesText(Math.round(one.maxQueue))}</td>
              <td class="num">{countText(one.packets)}</td>
              <td class="num">{bytesText(one.bytes)}</td>
              <td class="num">{countText(one.marked)}</td>
              <td class="num">{countText(one.lost)}</td>
              <td class="num">{countText(one.pausesSent)}</td>
              <td class="num">{countText(one.pausesReceived)}</td>
              <td class="num">{one.pausedTime > 0 ? durationText(1000 * one.pausedTime) : '–'}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  )
}
