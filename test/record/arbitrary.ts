/*
 * fast-check generators for events of a session.
 */
import fc from 'fast-check'
import type { AnyEvent } from '../../src/record/events.ts'
import type { SessionWriter } from '../../src/record/writer.ts'
import type { WorkRequest } from '../../src/spec/check/requests.ts'
import { packetOutcomes } from '../../src/spec/faults.ts'
import { plainArena } from '../../src/wire/arena.ts'
import { BTH_BYTES } from '../../src/wire/bth.ts'

/** Makes objects with the usual prototype, as the reader does. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>
const u32 = fc.nat({ max: 0xffff_ffff })
const id = fc.nat({ max: Number.MAX_SAFE_INTEGER })
/** The id of an object; 0 means none in some records. */
const objectId = fc.integer({ min: 1, max: 50 })
const text = fc.string({ maxLength: 20, unit: 'grapheme' })
const stack = fc.array(
  text.map(line => `f ${line.replaceAll('\n', ' ')}`),
  { maxLength: 3 },
)
const bytes16 = fc.uint8Array({ minLength: 16, maxLength: 16 })
const program = fc.option(record({ pid: fc.integer({ min: 1, max: 4_000_000 }), command: text }), { nil: undefined })

const request = record<WorkRequest>({
  id,
  time: fc.constant(0),
  owner: objectId,
  queue: fc.nat({ max: 3 }),
  number: u32,
  index: id,
  wrId: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
  opcode: fc.integer({ min: -1, max: 20 }),
  flags: u32,
  isSignaled: fc.boolean(),
  length: id,
  elements: fc.array(record({ address: id, length: u32, lkey: u32 }), { maxLength: 4 }),
  remote: fc.option(record({ address: id, length: id, rkey: u32 }), { nil: undefined }),
  destQpn: fc.option(fc.nat({ max: 0xff_ffff }), { nil: undefined }),
  destination: fc.option(record({ gid: bytes16, qkey: u32 }), { nil: undefined }),
})

const of = <K extends AnyEvent['kind'], T>(kind: K, fields: fc.Arbitrary<T>) =>
  fields.map(values => ({ kind, ...values }))

const packets = record({
  device: fc.nat({ max: 9 }),
  direction: fc.constantFrom('sent', 'received'),
  outcome: fc.constantFrom(...packetOutcomes),
  flow: record({
    source: bytes16,
    destination: bytes16,
    sourcePort: fc.nat({ max: 0xffff }),
    trafficClass: fc.nat({ max: 255 }),
    hopLimit: fc.nat({ max: 255 }),
    flowLabel: fc.nat({ max: 0xf_ffff }),
  }),
  identification: fc.nat({ max: 0xffff }),
  count: fc.integer({ min: 1, max: 64 }),
  // SEND_MIDDLE: a header and nothing else.
  headers: fc
    .uint8Array({ minLength: BTH_BYTES, maxLength: BTH_BYTES })
    .map(header => Uint8Array.from(header, (byte, i) => (i === 0 ? 1 : byte))),
  packetBytes: fc.integer({ min: BTH_BYTES, max: 100 }),
  lastBytes: fc.integer({ min: BTH_BYTES, max: 100 }),
}).map(({ headers, lastBytes, packetBytes, ...fields }) => ({
  kind: 'packets' as const,
  ...fields,
  packetBytes: fields.count === 1 ? lastBytes : packetBytes,
  lastBytes,
  headerBytes: BTH_BYTES,
  bytes: headers,
}))

/** Events as a recorder writes them, without those that the writer itself adds. */
export const anyEvent = fc.oneof(
  of(
    'device',
    record({
      change: fc.constantFrom('added', 'removed', 'renamed'),
      device: fc.nat({ max: 9 }),
      name: text,
      address: text,
    }),
  ),
  of(
    'object',
    record({
      change: fc.constantFrom('created', 'changed', 'destroyed'),
      object: objectId,
      device: fc.integer({ min: -1, max: 9 }),
      context: u32,
      program,
      class: text,
      handle: u32,
      number: u32,
      method: text,
      why: fc.constantFrom('call', 'undo', 'close', 'remove'),
      stack,
      details: record({
        uses: fc.array(objectId, { maxLength: 3 }),
        values: fc.dictionary(
          text.filter(name => name !== '__proto__'),
          fc.nat(),
          { noNullPrototype: true },
        ),
      }),
    }),
  ),
  of(
    'call',
    record({
      object: fc.nat({ max: 50 }),
      stack,
      call: record({
        time: fc.nat(),
        duration: fc.nat(),
        pid: u32,
        tid: u32,
        fd: fc.nat(),
        command: text,
        device: text,
        dialect: fc.constantFrom('ioctl', 'write', 'object'),
        ret: fc.integer(),
        call: record({ classId: fc.nat(), call: fc.nat(), message: text, answer: text }),
      }),
    }),
  ),
  of('posted', record({ request, stack })),
  of('ended', record({ request: id, owner: objectId })),
  of(
    'completed',
    record({
      request: id,
      owner: objectId,
      qp: objectId,
      cq: objectId,
      cqPosition: id,
      message: fc.nat(),
      bytes: u32,
      status: fc.nat({ max: 30 }),
      opcode: u32,
      solicited: fc.boolean(),
    }),
  ),
  of('receiveLost', record({ request: id, owner: objectId })),
  of('receiverNotReady', record({ qp: objectId })),
  of('polled', record({ cq: objectId, count: id })),
  of('queueReset', record({ owner: objectId })),
  packets,
  of(
    'counters',
    record({
      device: fc.nat({ max: 9 }),
      object: fc.nat({ max: 50 }),
      values: fc.dictionary(
        text.filter(name => name !== '' && name !== '__proto__'),
        fc.nat(),
        { maxKeys: 5, noNullPrototype: true },
      ),
    }),
  ),
) as fc.Arbitrary<Written>

const toRequest = (of: { request: number; owner: number }): WorkRequest =>
  ({ id: of.request, owner: of.owner }) as WorkRequest

type Written = Exclude<AnyEvent, { kind: 'lost' | 'checkpoint' | 'end' }>
type Write<K> = (writer: SessionWriter, time: number, event: Extract<AnyEvent, { kind: K }>) => void

const writePackets: Write<'packets'> = (writer, time, event) => {
  const { bytes, view } = plainArena(64 * 100 + 100)
  for (let i = 0; i < event.count; i++) {
    const at = i * event.packetBytes
    bytes.set(event.bytes, at)
    const psn = ((view.getUint32(8) & 0xff_ffff) + i) & 0xff_ffff
    view.setUint32(at + 8, ((event.bytes[8] << 24) | psn) >>> 0)
  }
  const facts = {
    ...event,
    direction: event.direction === 'sent' ? 0 : 1,
    outcome: packetOutcomes.indexOf(event.outcome),
  }
  writer.packets(time, facts, bytes, view, 0, event.packetBytes, event.count, event.lastBytes)
}

const writers: { readonly [K in Written['kind']]: Write<K> } = {
  device: (writer, time, event) => writer.device(time, event),
  object: (writer, time, event) => writer.object(time, event),
  call: (writer, time, event) => writer.call(time, event),
  posted: (writer, time, { request, stack }) => writer.posted(time, request, stack.join('\n')),
  ended: (writer, time, event) => writer.ended(time, toRequest(event)),
  completed: (writer, time, event) =>
    writer.completed(time, toRequest(event), {
      ...event,
      message: event.message === 0 ? undefined : ({ id: event.message } as WorkRequest),
    }),
  receiveLost: (writer, time, event) => writer.receiveLost(time, toRequest(event)),
  receiverNotReady: (writer, time, { qp }) => writer.receiverNotReady(time, qp),
  polled: (writer, time, { cq, count }) => writer.polled(time, cq, count),
  queueReset: (writer, time, { owner }) => writer.queueReset(time, owner),
  packets: writePackets,
  failure: (writer, time, { object, failure }) => writer.failure(time, object, failure),
  finding: (writer, time, { finding }) => writer.finding(time, finding),
  torment: (writer, time, { torment }) => writer.torment(time, torment),
  counters: (writer, time, { device, object, values }) => writer.counters(time, device, object, values),
}

/** Writes an event by the function of its kind. */
export const writeEvent = (writer: SessionWriter, time: number, event: Written): void => {
  const write = writers[event.kind] as Write<Written['kind']>
  write(writer, time, event)
}
