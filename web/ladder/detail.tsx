/*
 * All about the selected row of a ladder: the packet with its fields and bytes, the request that it belongs to, the
 * stack that posted it, or the event.
 */
import type { ComponentChildren } from 'preact'
import { useCallback, useState } from 'preact/hooks'
import { reasonText } from '../../src/spec/reason.ts'
import type { PostedEvent } from '../../src/spec/session-events.ts'
import type { PacketFlow } from '../../src/spec/wire/flow.ts'
import { SendFlags } from '../../src/spec/work.ts'
import type { SessionObjects } from '../../src/tools/record/objects.ts'
import { gidText } from '../../src/tools/trace/bytes.ts'
import { lidOf } from '../../src/transport/wire/address.ts'
import {
  addressText,
  countText,
  durationText,
  exactBytesText,
  hexText,
  psnText,
  timeText,
  valueText,
} from '../format.ts'
import { PacketView } from '../packet/packet-view.tsx'
import { Facts } from '../parts/basics.tsx'
import { CopyButton } from '../parts/copy.tsx'
import { Prose } from '../parts/prose.tsx'
import { StackView } from '../parts/stack.tsx'
import { focusList } from '../parts/virtual-list.tsx'
import { linkTo } from '../route.ts'
import type { Row } from './row.ts'
import { rowText } from './row-text.ts'
import { requestTitle, statusName } from './row-titles.ts'

const flagNames = (flags: number): string =>
  Object.entries(SendFlags.values)
    .filter(([, bit]) => (flags & bit) !== 0)
    .map(([name]) => name)
    .join(', ') || 'none'

const RequestView = ({
  posted,
  start,
  onShow,
}: {
  readonly posted: PostedEvent
  readonly start: number
  readonly onShow?: () => void
}) => {
  const { request, stack } = posted
  const { remote, destination } = request
  return (
    <section class="detail-part">
      <h3>Request</h3>
      <p class="detail-title">
        {onShow ? (
          <button type="button" class="link" onClick={onShow}>
            {requestTitle(posted)}
          </button>
        ) : (
          requestTitle(posted)
        )}
      </p>
      <Facts
        of={[
          ['Seen by the device', `${timeText(request.time - start)} s`],
          ['Position in its queue', countText(request.index)],
          ...(request.opcode < 0 ? [] : ([['Flags', flagNames(request.flags)]] as const)),
          ...(remote
            ? ([
                ['Remote address', hexText(remote.address)],
                ['Remote key', hexText(remote.rkey)],
              ] as const)
            : []),
          ...(destination ? ([['Destination', addressText(destination.gid)]] as const) : []),
          ...request.elements
            .slice(0, 8)
            .map(
              ({ address, length, lkey }, i) =>
                [`Element ${i}`, `${hexText(address)}, ${exactBytesText(length)}, lkey ${hexText(lkey)}`] as const,
            ),
        ]}
      />
      {stack.length > 0 ? (
        <>
          <h4>Posted by</h4>
          <StackView stack={stack} />
        </>
      ) : (
        <p class="quiet">
          No stack: programs under <code>userdma check --record</code> have them.
        </p>
      )}
    </section>
  )
}

/** What a flow has beside its addresses: on InfiniBand of LRH and GRH, on RoCE of IP, or of RoCE v1's GRH. */
const fabricFacts = ({ source, trafficClass, hopLimit, sl = 0, grh }: PacketFlow): [string, string][] =>
  lidOf(source) < 0
    ? [
        ...(grh === undefined ? [] : ([['RoCE', 'v1: a GRH, without IP and UDP']] as [string, string][])),
        ['DSCP', String(trafficClass >> 2)],
        ['TTL', String(hopLimit)],
      ]
    : [
        ['Service level', String(sl)],
        [
          'GRH',
          grh === undefined
            ? 'none'
            : `${gidText(grh.source)} to ${gidText(grh.destination)}, traffic class ${trafficClass}`,
        ],
      ]

/** A packet of a run, or a single packet. */
const PacketPart = ({ row }: { readonly row: Row }) => {
  const packet = row.packet!
  const [index, setIndex] = useState(0)
  const at = Math.min(index, packet.count - 1)
  const psn = (packet.psn + at) & 0xff_ffff
  const bytes = packet.bytes.slice()
  if (bytes.length >= 12) bytes.set([psn >>> 16, (psn >>> 8) & 0xff, psn & 0xff], 9)
  const { event } = packet
  const isLast = packet.index + at === event.count - 1
  const length = isLast ? event.lastBytes : event.packetBytes
  return (
    <section class="detail-part">
      <h3>Packet</h3>
      {packet.count > 1 && (
        <label class="run-index">
          Packet {at + 1} of {packet.count} with the same headers
          <input
            type="range"
            min={0}
            max={packet.count - 1}
            value={at}
            onInput={change => setIndex(Number(change.currentTarget.value))}
          />
        </label>
      )}
      <Facts
        of={[
          ['From', addressText(event.flow.source)],
          ['To', addressText(event.flow.destination)],
          ...fabricFacts(event.flow),
          ['Length', `${exactBytesText(length)}, BTH to ICRC`],
          ['PSN', psnText(psn)],
          ['What happened', packet.outcome === 'passed' ? 'arrived' : packet.outcome],
          ...(packet.isRetransmission ? ([['Retransmission', 'yes']] as const) : []),
        ]}
      />
      <PacketView bytes={bytes} />
    </section>
  )
}

const EventPart = ({ row, objects }: { readonly row: Row; readonly objects: SessionObjects }) => {
  const { event } = row
  switch (event.kind) {
    case 'completed':
      return (
        <section class="detail-part">
          <h3>Completion</h3>
          <Facts
            of={[
              ['Status', statusName(event.status)],
              ['Bytes', exactBytesText(event.bytes)],
              ['Completion queue', objects.objectName(event.cq)],
              ['Position in it', event.cqPosition === 0 ? 'lost: the queue was full' : countText(event.cqPosition)],
              ['Solicited', event.solicited ? 'yes' : 'no'],
            ]}
          />
        </section>
      )
    case 'object':
      return (
        <section class="detail-part">
          <h3>
            <a href={linkTo('objects', { id: event.object })}>{objects.objectName(event.object)}</a> {event.change}
          </h3>
          <Values values={event.details.values ?? {}} />
          <StackView stack={event.stack} />
        </section>
      )
    case 'call':
      return (
        <section class="detail-part">
          <h3>Call</h3>
          <Facts
            of={[
              ['Result', String(event.call.ret)],
              ['Reason', <Prose key="reason" text={reasonText(event.call.reason ?? '')} />],
              ['Process', `${event.call.pid} (${event.call.command})`],
            ]}
          />
          <StackView stack={event.stack} />
        </section>
      )
    case 'failure': {
      const { failure } = event.failure
      return (
        <section class="detail-part">
          <h3>Failure</h3>
          <p class="sentence">
            <Prose text={failure.text} />.
          </p>
          <Facts
            of={[
              ['Cause', failure.cause],
              ['vendor_err', hexText(failure.vendorErr)],
              ['Process', `${event.failure.pid} (${event.failure.command})`],
            ]}
          />
          <p class="quiet">
            <code>userdma explain {hexText(failure.vendorErr)}</code> says more.
          </p>
        </section>
      )
    }
    case 'finding':
      return (
        <section class="detail-part">
          <h3>Finding</h3>
          <p class="sentence">
            <Prose text={event.finding.text} />.
          </p>
          <p>
            <a href={linkTo('findings', { number: event.finding.number })}>{event.finding.id}</a>
          </p>
        </section>
      )
  }
  return null
}

/** Values of a call, by name. */
export const Values = ({ values }: { readonly values: Readonly<Record<string, unknown>> }) => {
  const texts = Object.entries(values).map(([name, value]) => [name, valueText(name, value)] as const)
  return <Facts of={texts} />
}

interface DetailProps {
  readonly row: Row
  readonly start: number
  readonly objects: SessionObjects
  readonly names: readonly [string, string]
  readonly onClose: () => void
  readonly onShowRequest: (posted: PostedEvent) => void
}

export const Detail = ({ row, start, objects, names, onClose, onShowRequest }: DetailProps) => {
  const { request, event } = row
  const parts: ComponentChildren[] = []
  const text = useCallback(() => rowText(row, start), [row, start])
  if (row.packet) parts.push(<PacketPart key={`${row.time} ${row.packet.psn}`} row={row} />)
  else parts.push(<EventPart key="event" row={row} objects={objects} />)
  if (request) {
    const isItself = event.kind === 'posted'
    parts.push(
      isItself ? (
        <RequestView key="request" posted={request} start={start} />
      ) : (
        <RequestView key="request" posted={request} start={start} onShow={() => onShowRequest(request)} />
      ),
    )
  }
  return (
    <aside class="detail" aria-label="Details">
      <header>
        <div>
          <h2>
            <Prose text={row.title} />
          </h2>
          <p>
            {timeText(row.time - start)} s{row.side === undefined ? '' : ` · ${names[row.side]}`}
          </p>
        </div>
        <CopyButton text={text} />
        <button
          type="button"
          class="close"
          aria-label="Close the details (Esc)"
          onClick={() => {
            onClose()
            focusList()
          }}
        >
          ✕
        </button>
      </header>
      {row.note !== '' && (
        <p class={`sentence tone-text-${row.tone}`}>
          <Prose text={row.note} />
        </p>
      )}
      {row.waited !== undefined && <p class="sentence">The sender waited {durationText(row.waited)}.</p>}
      {parts}
    </aside>
  )
}
