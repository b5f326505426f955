/*
 * fast-check generators for events of a session.
 */
import fc from 'fast-check'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { packetOutcomes } from '../../../src/spec/faults.ts'
import type { AnyEvent } from '../../../src/spec/session-events.ts'
import type { PacketFlow } from '../../../src/spec/wire/flow.ts'
import { BTH_BYTES } from '../../../src/transport/wire/bth.ts'

/** Makes objects with the usual prototype, as the reader does. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true }) as fc.Arbitrary<T>
/** As `record`, and perhaps with `classes`. */
const withClasses = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> => {
  const count = fc.nat()
  const one = record({
    ...{ name: fc.string({ maxLength: 20 }), lossless: fc.boolean(), packets: count, bytes: count, marked: count },
    ...{ lost: count, maxQueue: count, pausesSent: count, pausesReceived: count, pausedTime: count },
  })
  return fc
    .tuple(record(model), fc.option(fc.array(one, { minLength: 1, maxLength: 3 }), { nil: undefined }))
    .map(([event, classes]) => ({ ...event, ...(classes && { classes }) }))
}
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
  }).chain(flow =>
    fc
      .constantFrom<Pick<Partial<PacketFlow>, 'sl' | 'grh'>>(
        {},
        { sl: 3 },
        { sl: 0, grh: { source: flow.destination, destination: flow.source } },
      )
      .map(fabric => ({
        ...flow,
        ...fabric,
      })),
  ),
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
    'symbol',
    record({
      frame: text.map(frame => `/${frame}`),
      frames: fc.array(
        fc.oneof(
          record({ function: text }),
          record({ function: text, file: text, line: u32, object: text }),
          record({
            function: text,
            file: text,
            line: u32,
            source: record({ first: u32, lines: fc.array(text, { maxLength: 7 }) }),
          }),
        ),
        { maxLength: 3 },
      ),
    }),
  ),
  of(
    'link',
    withClasses({
      link: u32,
      from: text,
      to: text,
      rate: id,
      delay: id,
      capacity: id,
      packets: id,
      bytes: id,
      marked: id,
      overflowed: id,
      lost: id,
      tooLong: id,
      queue: id,
      maxQueue: id,
      meanQueue: id,
      utilization: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  ),
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
  of('program', record({ hasMore: fc.boolean(), text })),
  of('answer', record({ hasMore: fc.boolean(), text })),
  of('accessed', record({ device: u32, rkey: u32, high: u32, low: u32, length: id, access: u32, qpn: u32 })),
) as fc.Arbitrary<AnyEvent>
