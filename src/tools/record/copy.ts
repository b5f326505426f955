/*
 * Writes events that were read from a session file to another one.
 */
import type { WorkRequest } from '../../spec/check/requests.ts'
import { packetOutcomes } from '../../spec/faults.ts'
import type { AnyEvent } from '../../spec/session-events.ts'
import type { SessionWriter } from './writer.ts'

type Write<K> = (writer: SessionWriter, time: number, event: Extract<AnyEvent, { kind: K }>) => void

const requestOf = ({ request: id, owner }: { readonly request: number; readonly owner: number }): WorkRequest => ({
  ...NO_REQUEST,
  id,
  owner,
})

const NO_REQUEST: WorkRequest = {
  id: 0,
  time: 0,
  owner: 0,
  queue: 0,
  number: 0,
  index: 0,
  wrId: 0n,
  opcode: 0,
  flags: 0,
  isSignaled: false,
  length: 0,
  elements: [],
  remote: undefined,
  destQpn: undefined,
  destination: undefined,
}

/** The kinds of events that the writer does not make itself. */
const copiers: { readonly [K in Exclude<AnyEvent['kind'], 'checkpoint' | 'end' | 'lost'>]: Write<K> } = {
  device: (writer, time, event) => writer.device(time, event),
  object: (writer, time, event) => writer.object(time, event),
  call: (writer, time, event) => writer.call(time, event),
  posted: (writer, time, { request, stack }) => writer.posted(time, request, stack.join('\n')),
  ended: (writer, time, event) => writer.ended(time, requestOf(event)),
  completed(writer, time, event) {
    const { message, ...completion } = event
    const request = message === 0 ? undefined : { ...NO_REQUEST, id: message }
    writer.completed(time, requestOf(event), { ...completion, message: request })
  },
  receiveLost: (writer, time, event) => writer.receiveLost(time, requestOf(event)),
  receiverNotReady: (writer, time, { qp }) => writer.receiverNotReady(time, qp),
  polled: (writer, time, { cq, count }) => writer.polled(time, cq, count),
  queueReset: (writer, time, { owner }) => writer.queueReset(time, owner),
  packets(writer, time, { direction, outcome, bytes, ...facts }) {
    const numbers = { direction: direction === 'sent' ? 0 : 1, outcome: packetOutcomes.indexOf(outcome) }
    writer.run(time, { ...facts, ...numbers, source: bytes, offset: 0, recorded: bytes.length })
  },
  failure: (writer, time, { object, failure }) => writer.failure(time, object, failure),
  finding: (writer, time, { finding }) => writer.finding(time, finding),
  torment: (writer, time, { torment }) => writer.torment(time, torment),
  wait: (writer, time, event) => writer.wait(time, event),
  link: (writer, time, event) => writer.link(time, event),
  programEnd: (writer, time, event) => writer.programEnd(time, event),
  symbol: (writer, _time, event) => void writer.symbol(event),
  program: (writer, time, event) => writer.part(time, event),
  answer: (writer, time, event) => writer.part(time, event),
  accessed: (writer, time, { device, rkey, high, low, length, access, qpn }) =>
    writer.accessed(time, device, rkey, high, low, length, access, qpn),
  counters: (writer, time, { device, object, values }) => writer.counters(time, device, object, values),
}

/** Writes an event at `time`. Checkpoints and ends are left out: the writer makes its own. */
export const copyEvent = (writer: SessionWriter, time: number, event: AnyEvent): void => {
  if (event.kind === 'checkpoint' || event.kind === 'end' || event.kind === 'lost') return
  const copy = copiers[event.kind] as Write<AnyEvent['kind']>
  copy(writer, time, event)
}
