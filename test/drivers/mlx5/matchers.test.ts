/*
 * Flow rules with matchers on mlx5 devices (mlx5dv_create_flow; root tables of mlx5dv_dr): what they match, actions,
 * counters and receivers of firmware commands, and what hostile programs do with them. raw-packets.test.ts has the
 * rules of verbs.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { closeContext } from '../../../src/core/index.ts'
import { Flow } from '../../../src/spec/classes/flow.ts'
import { Commands } from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import type { FieldValues, Struct } from '../../../src/spec/drivers/mlx5-firmware/fields.ts'
import {
  ActionField,
  fieldsSupported,
  flowTableNicCap,
  MATCH_SECTION_BYTES,
  MAX_MATCH_BYTES,
  matchHeaders,
  matchMisc,
  setAction,
} from '../../../src/spec/drivers/mlx5-firmware/flow.ts'
import {
  FlowAction,
  FlowMatcher,
  FlowTableType,
  MatcherFlowFlags,
  ReformatType,
} from '../../../src/spec/drivers/mlx5-flow.ts'
import { CompletionKind, FrameHeaders } from '../../../src/spec/drivers/mlx5-queues.ts'
import { FlowType, WqState } from '../../../src/spec/enums.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { MAX_FRAME_BYTES } from '../../../src/spec/wire/ethernet.ts'
import { emitFrame } from '../../../src/transport/wire/frame.ts'
import { decodeFields, encodeFields } from '../../../src/uapi/firmware/fields.ts'
import { assertRefused, withCommands } from './firmware.ts'
import { machine, type Program, program, SEND } from './machine.ts'

const { NIC_RX, NIC_TX } = FlowTableType
const { DROP, DEFAULT_MISS } = MatcherFlowFlags
const { L3_OK, L4_OK } = FrameHeaders

const mac = (device: number): number[] => [2, 0, 127, 0, 0, device + 1]
const ADDRESSES = { source: [10, 0, 0, 1], destination: [10, 0, 0, 2] }
const SOURCE_PORT = 6000

/** A UDP datagram over IPv4. */
const datagram = (to: readonly number[], { port = 7000, bytes = 26, from = mac(0) } = {}): Uint8Array =>
  emitFrame({
    kind: 'ipv4',
    destinationMac: Uint8Array.from(to),
    sourceMac: Uint8Array.from(from),
    source: Uint8Array.from(ADDRESSES.source),
    destination: Uint8Array.from(ADDRESSES.destination),
    sourcePort: SOURCE_PORT,
    destinationPort: port,
    trafficClass: 0xb9,
    hopLimit: 64,
    identification: 1,
    dontFragment: true,
    payload: Uint8Array.from({ length: bytes }, (_, i) => i),
  })

/** fte_match_param. */
const match = (outer: FieldValues, misc: FieldValues = {}, inner: FieldValues = {}): Uint8Array => {
  const bytes = new Uint8Array(MAX_MATCH_BYTES)
  for (const [i, [struct, values]] of (
    [
      [matchHeaders, outer],
      [matchMisc, misc],
      [matchHeaders, inner],
    ] as const
  ).entries())
    bytes.set(encodeFields(struct as Struct, values), i * MATCH_SECTION_BYTES)
  return bytes
}
const macFields = (field: 'smac' | 'dmac', address: readonly number[]): FieldValues => {
  const view = new DataView(Uint8Array.from(address).buffer)
  return { [`${field}_47_16`]: view.getUint32(0), [`${field}_15_0`]: view.getUint16(4) }
}
const ones = (fields: FieldValues): FieldValues =>
  Object.fromEntries(Object.keys(fields).map(name => [name, 0xffff_ffff]))

const matcher = (owner: Program, mask: Uint8Array, more: object = {}): number =>
  owner.call(FlowMatcher, 'create', 0, { mask, type: 0, priority: 0, criteria: 7, tableType: NIC_RX, ...more }).object

const rule = (owner: Program, args: object) => {
  const all = { type: FlowType.values.NORMAL, priority: 0, port: 1, flags: 0, specs: [], ...args }
  const { object } = owner.call(Flow, 'create', 0, all)
  return { remove: (): void => void owner.call(Flow, 'destroy', object, {}) }
}

const setFields = (...fields: readonly [field: number, width: number, data: number][]): Uint8Array =>
  Uint8Array.from(
    fields.flatMap(([field, length, data]) => [
      ...encodeFields(setAction, { action_type: 1, field, length: length & 31, data }),
    ]),
  )

/** Two devices; `send` is from the first to the second one. */
const pair = () => {
  const m = machine(2)
  const [a, b] = [program(m, 0), program(m, 1)] as const
  const settle = (): void => {
    for (let i = 0; i < 6; i++) for (const device of m.devices) device.poll(m.time.now)
  }
  const open = (owner: Program, receives = 0) => {
    const qp = owner.queuePair('raw', { sends: 16, receives: 64 })
    qp.activate()
    for (let i = 0; i < receives; i++) qp.receive(owner.element(i * 4096, 4096))
    return qp
  }
  const sender = open(a)
  const send = (frame: Uint8Array): void => {
    a.bytes.set(frame)
    sender.post({ opcode: SEND, ethernet: {}, data: [a.element(0, frame.length)] })
    settle()
    a.poll()
  }
  /** What has arrived at the second device, by number of the queue pair in completions, and the tag. */
  const received = () =>
    b
      .poll()
      .filter(({ kind }) => kind === CompletionKind.RECEIVE)
      .map(({ uidx, bytes, opcode, qpn, headers }) => ({ uidx, bytes, tag: (opcode << 16) | qpn, headers }))
  const toMac = matcher(b, match(ones(macFields('dmac', mac(1)))))
  const valueOfMac = match(macFields('dmac', mac(1)))
  return { m, a, b, open, send, received, settle, toMac, valueOfMac, firmware: withCommands(b) }
}

type Firmware = ReturnType<typeof pair>['firmware']

const counts = (
  firmware: Firmware,
  { handle, out }: { handle: number; out: { flow_counter_id: number } },
  number = 1,
) => {
  const { flow_statistics } = firmware.about(
    Commands.QUERY_FLOW_COUNTER,
    handle,
    { flow_counter_id: out.flow_counter_id, num_of_counters: number },
    { outBytes: 16 + 16 * number },
  )
  const view = new DataView(flow_statistics.buffer, flow_statistics.byteOffset)
  return Array.from({ length: number }, (_, i) => [
    Number(view.getBigUint64(16 * i)),
    Number(view.getBigUint64(16 * i + 8)),
  ])
}

describe('a rule with a matcher', () => {
  it('gives frames to its queue pair, with the tag, and counts them', () => {
    const { b, open, send, received, toMac, valueOfMac, firmware } = pair()
    const qp = open(b, 4)
    const counter = firmware.create(Commands.ALLOC_FLOW_COUNTER, { flow_counter_bulk_log_size: 2 })
    const flow = rule(b, {
      matcher: toMac,
      matchValue: valueOfMac,
      rawQp: qp.object,
      flowTag: 0x123,
      flowCounters: [{ handle: counter.handle }],
      counterOffset: 3,
    })
    const frame = datagram(mac(1))
    send(frame)
    send(datagram([2, 9, 9, 9, 9, 9]))
    assert.deepEqual(
      received().map(({ uidx, bytes, tag }) => [uidx, bytes, tag]),
      [[qp.uidx, frame.length, 0x123]],
    )
    assert.deepEqual(counts(firmware, counter, 4), [
      [0, 0],
      [0, 0],
      [0, 0],
      [1, frame.length],
    ])
    // all that a rule uses stays
    for (const destroy of [
      () => qp.destroy(),
      () => firmware.destroy(counter.handle),
      () => b.call(FlowMatcher, 'destroy', toMac, {}),
    ])
      assert.throws(destroy, { code: 'EBUSY' })
    flow.remove()
    send(frame)
    assert.deepEqual(received(), [])
    firmware.destroy(counter.handle)
    qp.destroy()
    b.call(FlowMatcher, 'destroy', toMac, {})
  })

  it('drops frames, or lets them go on as if no rule had matched; the others of its type are passed by', () => {
    const { b, open, send, received, toMac, valueOfMac } = pair()
    const [all, low] = [open(b, 8), open(b, 8)]
    rule(b, { rawQp: all.object, type: FlowType.values.ALL_DEFAULT })
    const least = matcher(b, match(ones(macFields('dmac', mac(1)))), { priority: 5 })
    rule(b, { matcher: least, matchValue: valueOfMac, rawQp: low.object })
    const arrivals = (): number[] => {
      send(datagram(mac(1)))
      return received().map(({ uidx }) => uidx)
    }
    assert.deepEqual(arrivals(), [low.uidx])
    const drop = rule(b, { matcher: toMac, matchValue: valueOfMac, matcherFlags: DROP })
    assert.deepEqual(arrivals(), [])
    drop.remove()
    rule(b, { matcher: toMac, matchValue: valueOfMac, matcherFlags: DEFAULT_MISS })
    assert.deepEqual(arrivals(), [all.uidx])
  })

  it('applies to frames that are sent: they are dropped, counted, changed', () => {
    const { a, b, open, send, received, toMac, valueOfMac } = pair()
    const qp = open(b, 8)
    rule(b, { matcher: toMac, matchValue: valueOfMac, rawQp: qp.object })
    const firmware = withCommands(a)
    const counter = firmware.create(Commands.ALLOC_FLOW_COUNTER, {})
    const fields = { ethertype: 0x0800, udp_dport: 7000 }
    const sent = matcher(a, match(ones(fields)), { tableType: NIC_TX })
    const flow = { matcher: sent, matchValue: match(fields), flowCounters: [{ handle: counter.handle }] }
    const count = rule(a, flow)
    send(datagram(mac(1)))
    send(datagram(mac(1), { port: 7001 }))
    assert.equal(received().length, 2)
    assert.deepEqual(counts(firmware, counter)[0]![0], 1)
    count.remove()
    const drop = rule(a, { ...flow, matcherFlags: DROP })
    send(datagram(mac(1)))
    assert.equal(received().length, 0)
    assert.deepEqual(counts(firmware, counter)[0]![0], 2)
    drop.remove()
    const settings = setFields(
      [ActionField.OUT_SMAC_47_16, 32, 0x8888_8888],
      [ActionField.OUT_SMAC_15_0, 16, 0x8888],
      [ActionField.OUT_SIPV4, 0, 0x0b00_0007],
      [ActionField.OUT_UDP_DPORT, 16, 8000],
      [ActionField.OUT_IP_TTL, 8, 9],
      [ActionField.OUT_IP_DSCP, 6, 0x11],
      // of headers that the frame does not have
      [ActionField.OUT_TCP_DPORT, 16, 1],
      [ActionField.OUT_FIRST_VID, 12, 1],
    )
    const { object } = a.call(FlowAction, 'create', 0, { settings, tableType: NIC_TX })
    rule(a, { ...flow, actions: [{ handle: object }] })
    const frame = datagram(mac(1))
    send(frame)
    const [{ headers } = { headers: 0 }] = received()
    const expected = emitFrame({
      kind: 'ipv4',
      destinationMac: Uint8Array.from(mac(1)),
      sourceMac: new Uint8Array(6).fill(0x88),
      source: Uint8Array.of(11, 0, 0, 7),
      destination: Uint8Array.from(ADDRESSES.destination),
      sourcePort: SOURCE_PORT,
      destinationPort: 8000,
      trafficClass: (0x11 << 2) | 1,
      hopLimit: 9,
      identification: 1,
      dontFragment: true,
      payload: frame.slice(42),
    })
    assert.deepEqual(b.bytes.slice(2 * 4096, 2 * 4096 + frame.length), expected)
    assert.equal(headers & (L3_OK | L4_OK), L3_OK | L4_OK)
  })

  for (const isFrame of [true, false])
    it(`puts headers on and takes them off: ${isFrame ? 'frames' : 'datagrams'} in GRE`, () => {
      const { a, b, open, send, received, m } = pair()
      const qp = open(b, 8)
      const gre = [0, 0, ...(isFrame ? [0x65, 0x58] : [0x08, 0x00])]
      const ip = [0x45, 0, 0, 0, 0, 7, 0, 0, 64, 47, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
      const header = Uint8Array.of(...mac(1), ...mac(0), 8, 0, ...ip, ...gre)
      const puts = a.call(FlowAction, 'create', 0, {
        reformat: isFrame ? ReformatType.L2_TO_L2_TUNNEL : ReformatType.L2_TO_L3_TUNNEL,
        tableType: NIC_TX,
        header,
      }).object
      const everything = matcher(a, new Uint8Array(8), { tableType: NIC_TX, criteria: 0 })
      rule(a, { matcher: everything, matchValue: new Uint8Array(8), actions: [{ handle: puts }] })
      const tunnel = { gre_protocol: isFrame ? 0x6558 : 0x0800 }
      const inner = { ip_version: 4, udp_dport: 7000 }
      const arrives = matcher(b, match({}, ones(tunnel), { ip_version: 0xf, udp_dport: 0xffff }))
      const whole = rule(b, { matcher: arrives, matchValue: match({}, tunnel, inner), rawQp: qp.object })
      const frame = datagram([2, 9, 9, 9, 9, 9])
      send(frame)
      const carried = isFrame ? frame : frame.subarray(14)
      assert.deepEqual(
        received().map(({ bytes }) => bytes),
        [header.length + carried.length],
      )
      const view = new DataView(b.bytes.buffer, b.bytes.byteOffset)
      assert.equal(view.getUint16(16), 20 + 4 + carried.length)
      assert.deepEqual(b.bytes.slice(header.length, header.length + carried.length), carried)
      whole.remove()
      const takes = b.call(FlowAction, 'create', 0, {
        reformat: isFrame ? ReformatType.L2_TUNNEL_TO_L2 : ReformatType.L3_TUNNEL_TO_L2,
        tableType: NIC_RX,
        ...(!isFrame && { header: Uint8Array.of(...mac(1), ...mac(0), 8, 0) }),
      }).object
      rule(b, {
        matcher: arrives,
        matchValue: match({}, tunnel, inner),
        rawQp: qp.object,
        actions: [{ handle: takes }],
      })
      send(frame)
      assert.deepEqual(
        received().map(({ bytes }) => bytes),
        [frame.length],
      )
      const expected = isFrame ? frame : Uint8Array.of(...mac(1), ...mac(0), 8, 0, ...carried)
      assert.deepEqual(b.bytes.slice(4096, 4096 + frame.length), expected)
      // a frame that gets too long is dropped
      send(datagram(mac(1), { bytes: MAX_FRAME_BYTES - 50 }))
      assert.deepEqual(received(), [])
      assert.equal(m.devices[1]!.counters!().hardware!.out_of_buffer, 0)
    })
})

describe('a match', () => {
  const all: Readonly<Record<string, readonly [section: 0 | 1, mask: number, value: number]>> = {
    dmac_47_16: [0, 0xffff_ffff, 0x0200_7f00],
    dmac_15_0: [0, 0xffff, 2],
    smac_15_0: [0, 0xffff, 1],
    ip_protocol: [0, 0xff, 17],
    ip_dscp: [0, 0x3f, 0xb9 >> 2],
    ip_ecn: [0, 3, 1],
    frag: [0, 1, 0],
    cvlan_tag: [0, 1, 0],
    ip_ttl_hoplimit: [0, 0xff, 64],
    src_ip_31_0: [0, 0xffff_ffff, 0x0a00_0001],
    dst_ip_31_0: [0, 0xffff_ffff, 0x0a00_0002],
    udp_sport: [0, 0xffff, SOURCE_PORT],
    udp_dport: [0, 0xffff, 7000],
  }

  it('compares the bits of the mask, of any of the fields', () => {
    const { b, open, send, received } = pair()
    const qp = open(b, 64)
    const name = fc.constantFrom(...Object.keys(all))
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(name, fc.integer({ min: 1, max: 0xffff_ffff })), { selector: ([n]) => n }),
        fc.nat(),
        (chosen, pick) => {
          const mask: FieldValues = { ip_version: 0xf }
          const value: FieldValues = { ip_version: 4 }
          for (const [field, bits] of chosen) {
            const [, width, right] = all[field]!
            mask[field] = (bits & width) >>> 0
            value[field] = (right & bits & width) >>> 0
          }
          const one = matcher(b, match(mask))
          const rightRule = rule(b, { matcher: one, matchValue: match(value), rawQp: qp.object })
          qp.receive(b.element(0, 4096))
          send(datagram(mac(1)))
          const arrived = received().length
          rightRule.remove()
          assert.equal(arrived, 1)
          const masked = chosen.map(([field]) => field).filter(field => mask[field] !== 0)
          if (masked.length === 0) return
          const field = masked[pick % masked.length]!
          const lowest = (mask[field] as number) & -(mask[field] as number)
          const wrong = match({ ...value, [field]: ((value[field] as number) ^ lowest) >>> 0 })
          const wrongRule = rule(b, { matcher: one, matchValue: wrong, rawQp: qp.object })
          send(datagram(mac(1)))
          wrongRule.remove()
          assert.equal(received().length, 0, field)
        },
      ),
      { numRuns: 60 },
    )
  })

  it('of IPv6 and GENEVE finds their fields', () => {
    const { b, open, send, received } = pair()
    const qp = open(b, 8)
    const geneve = { geneve_vni: 0x123456, geneve_oam: 1, geneve_opt_len: 1, geneve_protocol_type: 0x6558 }
    const inner = { ethertype: 0x0800, udp_dport: 53 }
    const one = matcher(b, match({}, ones(geneve), { ...ones(inner) }))
    rule(b, { matcher: one, matchValue: match({}, geneve, inner), rawQp: qp.object })
    const packet = datagram(mac(1), { port: 53 })
    const outer = datagram(mac(1), { port: 6081, bytes: 12 + packet.length })
    outer.set([1, 0x80, 0x65, 0x58, 0x12, 0x34, 0x56, 0, 9, 9, 9, 9], 42)
    outer.set(packet, 54)
    send(outer)
    assert.equal(received().length, 1)
    outer[48] = 0x57
    send(outer)
    assert.equal(received().length, 0)
    const six = matcher(b, match({ ...ones({ dst_ip_31_0: 0 }), ip_version: 0xf }))
    rule(b, { matcher: six, matchValue: match({ ip_version: 6, dst_ip_31_0: 0x0102_0304 }), rawQp: qp.object })
    const v6 = emitFrame({
      kind: 'ipv6',
      destinationMac: Uint8Array.from(mac(1)),
      sourceMac: Uint8Array.from(mac(0)),
      source: new Uint8Array(16),
      destination: Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4),
      sourcePort: 1,
      destinationPort: 2,
      trafficClass: 0,
      hopLimit: 1,
      flowLabel: 0,
      payload: new Uint8Array(8),
    })
    send(v6)
    assert.equal(received().length, 1)
  })

  it('that the device cannot make is refused, with the field', () => {
    const { b, open, toMac } = pair()
    const qp = open(b)
    for (const [mask, more, code, message] of [
      [match({ l4_ok: 1 }), {}, 'EOPNOTSUPP', /outer_headers.l4_ok: 0x1/],
      [match({}, { source_sqn: 7 }), {}, 'EOPNOTSUPP', /misc_parameters.source_sqn/],
      [match({ ip_version: 3 }), {}, 'EOPNOTSUPP', /all four bits/],
      [match({ ethertype: 1 }), { criteria: 2 }, 'EINVAL', /lacks bit 0/],
      [new Uint8Array(256).fill(1, 200), { criteria: 0xff }, 'EOPNOTSUPP', /section 3/],
      [new Uint8Array(641), {}, 'EINVAL', /641 bytes; at most 640/],
      [match({}), { tableType: 3n }, 'EOPNOTSUPP', /table type 3/],
      [match({}), { tableType: 7n }, 'EINVAL', /table type 7/],
      [match({}), { type: 1 }, 'EOPNOTSUPP', /NORMAL/],
    ] as const)
      assert.throws(
        () => matcher(b, mask, more),
        error => error instanceof CallError && error.code === code && message.test(error.message),
        message.source,
      )
    const rawQp = qp.object
    const addresses = matcher(b, match({ src_ip_31_0: 1 }))
    const priority = matcher(b, match({}), { priority: 16 })
    const none = match({})
    for (const [args, code, message] of [
      [{ matcher: toMac, matchValue: match({ ethertype: 5 }), rawQp }, 'EINVAL', /the mask of the matcher lacks/],
      [{ matcher: addresses, matchValue: none, rawQp }, 'EINVAL', /needs a match of ip_version/],
      [{ matcher: priority, matchValue: none, rawQp }, 'ENOMEM', /priority 16/],
      [{ matcher: toMac, matchValue: none }, 'EINVAL', /need a queue pair/],
      [{ matcher: toMac, matchValue: none, rawQp, matcherFlags: DROP }, 'EINVAL', /one is possible/],
      [{ matcher: toMac, matchValue: none, matcherFlags: DROP | DEFAULT_MISS }, 'EINVAL', /one is possible/],
      [{ matcher: toMac, matchValue: none, rawQp, flowTag: 1 << 24 }, 'EINVAL', /24 bits/],
      [{ matcher: toMac, rawQp }, 'EINVAL', /matchValue is missing/],
      [{ matchValue: none, rawQp }, 'EINVAL', /matcher is missing/],
      [{ matcher: toMac, matchValue: none, destination: toMac }, 'EINVAL', /flow_matcher, not devx_obj/],
    ] as const)
      assert.throws(
        () => rule(b, args),
        error => error instanceof CallError && error.code === code && message.test(error.message),
        message.source,
      )
  })

  it('of random bytes does no harm', () => {
    const { b, open, send } = pair()
    const qp = open(b, 8)
    const bytes = fc.uint8Array({ minLength: 1, maxLength: MAX_MATCH_BYTES, size: 'max' })
    fc.assert(
      fc.property(bytes, bytes, fc.nat(255), fc.boolean(), (mask, value, criteria, isTidy) => {
        try {
          // half of the masks are of fields that the device knows
          const given = isTidy ? mask.subarray(0, 64).map((byte, i) => (i < 18 ? byte : 0)) : mask
          const object = matcher(b, given, { criteria: isTidy ? 1 : criteria })
          const matchValue = value.map((byte, i) => byte & (given[i] ?? 0))
          rule(b, { matcher: object, matchValue, rawQp: qp.object }).remove()
        } catch (error) {
          assert.ok(error instanceof CallError, String(error))
        }
      }),
      { numRuns: 300 },
    )
    send(datagram(mac(1)))
  })

  it('of ten thousand rules is found, and different masks are limited', () => {
    const { b, open, send, received } = pair()
    const qp = open(b, 8)
    const ports = matcher(b, match(ones({ udp_dport: 0 })))
    const rules = Array.from({ length: 10_000 }, (_, i) =>
      rule(b, { matcher: ports, matchValue: match({ udp_dport: 10_000 + i }), rawQp: qp.object, flowTag: i }),
    )
    send(datagram(mac(1), { port: 12_345 }))
    assert.deepEqual(
      received().map(({ tag }) => tag),
      [2345],
    )
    for (const { remove } of rules) remove()
    const masks: ReturnType<typeof rule>[] = []
    assert.throws(() => {
      for (let i = 1; i < 100; i++) {
        const mask = { dmac_15_0: i }
        masks.push(rule(b, { matcher: matcher(b, match(mask)), matchValue: match(mask), rawQp: qp.object }))
      }
    }, /64 different masks/)
    for (const { remove } of masks) remove()
  })
})

describe('receivers and counters of firmware commands', () => {
  it('serve rules: frames go to the work queue, which stays as long as its receiver', () => {
    const { b, toMac, valueOfMac, firmware, send, received } = pair()
    const wq = b.workQueue()
    wq.modify({ state: WqState.values.RDY })
    const tir = firmware.create(Commands.CREATE_TIR, { ctx: { inline_rqn: wq.number } })
    const flow = rule(b, { matcher: toMac, matchValue: valueOfMac, destination: tir.handle })
    wq.receive(b.element(0, 4096))
    send(datagram(mac(1)))
    assert.deepEqual(
      received().map(({ uidx }) => uidx),
      [wq.uidx],
    )
    assert.throws(() => firmware.destroy(tir.handle), { code: 'EBUSY' })
    assert.throws(() => wq.destroy(), { code: 'EBUSY' })
    flow.remove()
    firmware.destroy(tir.handle)
    wq.destroy()
  })

  it('end with their context, and rules with them', () => {
    const { m, b, open, send, toMac, valueOfMac, firmware } = pair()
    const wq = b.workQueue()
    const tir = firmware.create(Commands.CREATE_TIR, { ctx: { inline_rqn: wq.number } })
    const counter = firmware.create(Commands.ALLOC_FLOW_COUNTER, { flow_counter_bulk_log_size: 9 })
    const settings = setFields([ActionField.OUT_IP_TTL, 8, 1])
    const action = b.call(FlowAction, 'create', 0, { settings, tableType: NIC_RX }).object
    const all = { matcher: toMac, matchValue: valueOfMac, flowCounters: [{ handle: counter.handle }] }
    rule(b, { ...all, destination: tir.handle, actions: [{ handle: action }] })
    rule(b, { ...all, rawQp: open(b).object })
    const sent = matcher(b, match({}), { tableType: NIC_TX })
    rule(b, { matcher: sent, matchValue: match({}), matcherFlags: DROP })
    closeContext(b.context)
    send(datagram(mac(1)))
    assert.deepEqual(
      Object.entries(m.devices[1]!.device.counts).filter(([, count]) => count !== 0),
      [],
    )
  })

  it('are of the own context only, and as the capabilities tell', () => {
    const { m, b, toMac, valueOfMac, firmware } = pair()
    const stranger = program(m, 1)
    const wq = stranger.workQueue()
    const theirs = withCommands(stranger)
    assertRefused(() => firmware.create(Commands.CREATE_TIR, { ctx: { inline_rqn: wq.number } }), 'noSuchReceiveQueue')
    const tir = theirs.create(Commands.CREATE_TIR, { ctx: { inline_rqn: wq.number } })
    assert.throws(() => rule(b, { matcher: toMac, matchValue: valueOfMac, destination: tir.handle }), CallError)
    assertRefused(() => firmware.create(Commands.CREATE_TIR, { ctx: { disp_type: 1 } }), 'unsupportedFeature')
    assertRefused(
      () => firmware.create(Commands.CREATE_TIR, { ctx: { transport_domain: 99 } }),
      'noSuchTransportDomain',
    )
    const counter = firmware.create(Commands.ALLOC_FLOW_COUNTER, { flow_counter_bulk: 0b100 })
    const use = {
      matcher: toMac,
      matchValue: valueOfMac,
      matcherFlags: DROP,
      flowCounters: [{ handle: counter.handle }],
    }
    rule(b, { ...use, counterOffset: 511 }).remove()
    assert.throws(() => rule(b, { ...use, counterOffset: 512 }), /has 512 counters/)
    assert.throws(() => rule(b, { ...use, flowCounters: [{ handle: 12_345 }] }), { code: 'ENOENT' })
    assert.throws(
      () => rule(b, { ...use, flowCounters: [], destination: counter.handle, matcherFlags: 0 }),
      /CREATE_TIR/,
    )
    for (const fields of [{ flow_counter_bulk: 8 }, { flow_counter_bulk: 3 }, { flow_counter_bulk_log_size: 10 }])
      assertRefused(() => firmware.create(Commands.ALLOC_FLOW_COUNTER, fields), 'badValue')
    const { flow_counter_id } = counter.out
    const query = (fields: object, outBytes = 32) =>
      firmware.about(Commands.QUERY_FLOW_COUNTER, counter.handle, { flow_counter_id, ...fields }, { outBytes })
    assertRefused(() => query({ num_of_counters: 513 }, 16_384), 'badValue')
    assertRefused(() => query({ num_of_counters: 2 }), 'shortOutput')
    assertRefused(() => query({ dump_to_memory: 1 }), 'unsupportedFeature')
  })

  it('and their fields are told by the capabilities: each one that is told can be matched', () => {
    const { b, firmware } = pair()
    const { capability } = firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: (7 << 1) | 1, outBytes: 4112 })
    const told = decodeFields(flowTableNicCap, capability)
    for (const [table, tableType] of [
      [told.flow_table_properties_nic_receive, NIC_RX],
      [told.flow_table_properties_nic_transmit, NIC_TX],
    ] as const) {
      assert.equal(table.ft_support, 1)
      const fields = table.ft_field_support as Record<string, number>
      for (const name of Object.keys(fieldsSupported.fields)) {
        assert.equal(fields[name], 1)
        matcher(b, maskOf(name), { tableType })
      }
    }
    // shorter outputs are of older programs
    firmware.general(Commands.QUERY_HCA_CAP, {}, { opMod: (7 << 1) | 1, outBytes: 272 })
  })
})

/** The fields of a match by names of capabilities that differ. */
const otherNames: Readonly<Record<string, string>> = {
  ether_type: 'ethertype',
  sip: 'src_ip_31_0',
  dip: 'dst_ip_31_0',
  dmac: 'dmac_47_16',
  smac: 'smac_47_16',
  ipv4_ttl: 'ip_ttl_hoplimit',
  ipv6_hop_limit: 'ip_ttl_hoplimit',
  gre_key: 'gre_key_h',
}
const maskOf = (capability: string): Uint8Array => {
  const isInner = capability.startsWith('inner_')
  const short = capability.slice(6)
  const name = otherNames[short] ?? short
  if (name in matchHeaders.fields) return isInner ? match({}, {}, { [name]: 0xf }) : match({ [name]: 0xf })
  return match({}, { [capability in matchMisc.fields ? capability : name]: 0xf })
}
