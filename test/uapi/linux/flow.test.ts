/*
 * Linux's CREATE_FLOW (R41; structs: ib_user_verbs.h) as arguments of flow.create.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FLOW_HEADER_BYTES } from '../../../src/spec/classes/flow.ts'
import { FlowSpecFlags, FlowSpecType } from '../../../src/spec/enums.ts'
import { CallError, errnoName } from '../../../src/spec/errno.ts'
import { ExtendedCommands } from '../../../src/spec/linux/names.ts'
import { EXTENDED } from '../../../src/spec/linux/write.ts'
import type { AnyRecord } from '../../../src/spec/schema/schema.ts'
import { type Answer, type Call, type Decoded, isAnswer } from '../../../src/uapi/call.ts'
import { encodeLinux } from '../../../src/uapi/linux/encode.ts'
import { encodings } from '../../../src/uapi/linux/envelope.ts'
import { FlowAction } from '../../../src/uapi/linux/flow-layout.ts'
import { EntryPoint } from '../../../src/uapi/linux/legacy.ts'
import { decodeWrite } from '../../../src/uapi/linux/write.ts'
import { ARENA, AT, arena, type FakeView, fakeView, rxeSchema } from '../fake-view.ts'
import { assertSurvives } from '../round-trip.ts'

const u16 = (n: number): number[] => [n & 0xff, n >>> 8]
const u32 = (n: number): number[] => [n & 0xff, (n >>> 8) & 0xff, (n >>> 16) & 0xff, n >>> 24]
const zeros = (count: number): number[] => new Array<number>(count).fill(0)
const ones = (count: number): number[] => new Array<number>(count).fill(0xff)

/** Handles of the process. */
const UD = 3
const RAW = 4
const RC = 5
const COUNTERS = 6

interface Rule {
  readonly compMask?: number
  readonly qp?: number
  readonly type?: number
  readonly size?: number
  readonly count?: number
  readonly reserved?: number
  readonly port?: number
  readonly flags?: number
  readonly specs?: readonly (readonly number[])[]
  readonly after?: readonly number[]
}

/** The bytes of CREATE_FLOW with a rule of priority 7. */
const rule = ({ specs = [], after = [], ...more }: Rule): Uint8Array => {
  const tail = specs.flat()
  const body = [
    ...u32(more.compMask ?? 0),
    ...u32(more.qp ?? RAW),
    ...u32(more.type ?? 0),
    ...u16(more.size ?? tail.length),
    ...u16(7),
    more.count ?? specs.length,
    more.reserved ?? 0,
    0,
    more.port ?? 1,
    ...u32(more.flags ?? 0),
    ...tail,
    ...after,
  ]
  const whole = [...body, ...zeros(-body.length & 7)]
  // struct ib_uverbs_cmd_hdr with words of 8 bytes, and struct ib_uverbs_ex_cmd_hdr
  const header = [
    ...u32(EXTENDED + ExtendedCommands.CREATE_FLOW),
    ...u16(whole.length / 8),
    ...u16(1),
    ...u32(Number(ARENA)),
    ...zeros(4 + 8),
  ]
  return Uint8Array.from([...header, ...whole])
}

/** `body` of a filter: the value, then the mask, of equal length. */
const spec = (type: number, body: readonly number[], size = 8 + body.length, reserved = 0): number[] => [
  ...u32(type),
  ...u16(size),
  ...u16(reserved),
  ...body,
]

const decode = (bytes: Uint8Array): { view: FakeView; decoded: Decoded | Answer } => {
  const memory = arena()
  memory.map(AT, bytes)
  const view = fakeView(memory)
  for (const [handle, name] of [
    [UD, 'ud_qp'],
    [RAW, 'raw_packet_qp'],
    [RC, 'rc_qp'],
    [COUNTERS, 'counters'],
  ] as const)
    view.handles.set(handle, name)
  return { view, decoded: decodeWrite(view, AT, bytes.length) }
}

/** The arguments of a valid rule. Asserts that they are encoded to the same bytes. */
const argsOf = (parts: Rule): Decoded['call']['args'] => {
  const bytes = rule(parts)
  const { view, decoded } = decode(bytes)
  assert.ok(!isAnswer(decoded), String((decoded as Answer).reason))
  assert.deepEqual(encodeLinux(decoded.call, decoded.legacy()!).bytes, bytes)
  assertSurvives(view, decoded, { entryPoint: EntryPoint.WRITE, bytes, memory: [] })
  return decoded.call.args
}

const errorOf = (parts: Rule): string => {
  const { decoded } = decode(rule(parts))
  return isAnswer(decoded) ? errnoName(-decoded.ret) : 'OK'
}

/** A value or mask, padded to FLOW_HEADER_BYTES. */
const padded = (bytes: readonly number[]): Uint8Array => {
  const filter = new Uint8Array(FLOW_HEADER_BYTES)
  filter.set(bytes)
  return filter
}

const { ETH, IPV4, IPV6, ESP, TCP, UDP, VXLAN_TUNNEL, GRE, MPLS, IB, ACTION_TAG, ACTION_DROP } = FlowSpecType.values
const { HANDLE, COUNT } = FlowAction
const { INNER } = FlowSpecFlags.values
/** Filter for UDP datagrams to port 4791. */
const UDP_4791 = spec(UDP, [0x12, 0xb7, 0, 0, 0xff, 0xff, 0, 0])

test('a UD queue pair is argument udQp, a queue pair of any other class rawQp', () => {
  const { rawQp, udQp, type, priority, port, flags, specs } = argsOf({ qp: RAW, type: 3, port: 2, flags: 4 })
  assert.deepEqual([rawQp, udQp, type, priority, port, flags, specs], [RAW, undefined, 3, 7, 2, 4, []])
  const ud = argsOf({ qp: UD })
  assert.deepEqual([ud.rawQp, ud.udQp], [undefined, UD])
  assert.equal(argsOf({ qp: RC }).rawQp, RC)
})

test('a rule may match every header of Linux, and all except VXLAN_TUNNEL within a tunnel', () => {
  for (const [type, size] of [
    [ETH, 16],
    [IPV4, 12],
    [IPV6, 40],
    [ESP, 8],
    [TCP, 4],
    [UDP, 4],
    [VXLAN_TUNNEL, 4],
    [GRE, 8],
    [MPLS, 4],
  ]) {
    // An IPv6 flow label has 20 bits, a tunnel id 24; the upper bits must be 0.
    const zeroBytes = { [IPV6]: [32, 33], [VXLAN_TUNNEL]: [0] }[type] ?? []
    const value = Array.from({ length: size }, (_, i) => (zeroBytes.includes(i) ? 0 : i + 1))
    const mask = value.map(byte => (byte === 0 ? 0 : byte ^ 0x40))
    const [found] = argsOf({ specs: [spec(type, [...value, ...mask])] }).specs as AnyRecord[]
    assert.deepEqual(found, { type, value: padded(value), mask: padded(mask), flags: 0, tag: 0 })
    const inner = { specs: [spec(type | INNER, [...value, ...mask])] }
    if (type === VXLAN_TUNNEL) assert.equal(errorOf(inner), 'EINVAL')
    else assert.deepEqual(argsOf(inner).specs, [{ ...found, flags: INNER }])
  }
})

test('a rule may have the actions tag, drop and counters, in any position', () => {
  const tag = spec(ACTION_TAG, [...u32(0xabcdef), ...u32(0)])
  const count = spec(COUNT, [...u32(COUNTERS), ...u32(0)])
  const drop = spec(ACTION_DROP, [])
  for (const specs of [
    [tag, UDP_4791, count, drop],
    [tag, UDP_4791, drop, count],
    [count, tag, UDP_4791, drop],
  ]) {
    const args = argsOf({ specs })
    assert.equal(args.counters, COUNTERS)
    const found = args.specs as AnyRecord[]
    assert.deepEqual(
      found.map(one => [one.type, one.tag]),
      [
        [ACTION_TAG, 0xabcdef],
        [UDP, 0],
        [ACTION_DROP, 0],
      ],
    )
  }
})

test('a filter may be shorter than the header of its type, or longer if the end of its mask is zero', () => {
  const [short] = argsOf({ specs: [spec(IPV4, [...ones(8), ...ones(4), 1, 2, 3, 4])] }).specs as AnyRecord[]
  assert.deepEqual([short.value, short.mask], [padded(ones(8)), padded([...ones(4), 1, 2, 3, 4])])
  const [long] = argsOf({ specs: [spec(TCP, [1, 2, 3, 4, 9, 9, 9, 9, ...ones(4), ...zeros(4)]), UDP_4791] })
    .specs as AnyRecord[]
  assert.deepEqual([long.value, long.mask], [padded([1, 2, 3, 4]), padded(ones(4))])
  assert.equal(errorOf({ specs: [spec(TCP, [...zeros(8), ...ones(5), ...zeros(3)])] }), 'EINVAL')
  // The padding of an action is ignored.
  argsOf({ specs: [spec(ACTION_TAG, [...u32(1), ...u32(0xffffffff)])] })
})

test('rules are accepted and refused as by Linux', () => {
  const IPV6_BYTES = 40
  /** Offset of the flow label, a big-endian u32. */
  const FLOW_LABEL = 32
  /** A filter with bit 20 set in the flow label at `labelAt` of its body: that of the value, or of the mask. */
  const with21BitLabel = (labelAt: number): number[] => {
    const body = zeros(2 * IPV6_BYTES)
    body[labelAt + 1] = 0x10
    return spec(IPV6, body)
  }
  const tag = spec(ACTION_TAG, zeros(8))
  const cases: readonly [string, Rule, string][] = [
    ['no specs', {}, 'OK'],
    ['a nonzero comp_mask', { compMask: 1 }, 'EINVAL'],
    ['unknown flags', { flags: 8 }, 'EINVAL'],
    ['a default rule that does not trap', { type: 1, flags: 2 }, 'EINVAL'],
    ['a default rule for multicast that does not trap', { type: 2, flags: 2 }, 'EINVAL'],
    ['an unknown type', { type: 4 }, 'EINVAL'],
    ['port 0', { port: 0 }, 'EINVAL'],
    ['a nonzero reserved field', { reserved: 1 }, 'EINVAL'],
    ['ten specs', { specs: new Array(10).fill(UDP_4791) }, 'OK'],
    ['eleven specs', { specs: new Array(11).fill(UDP_4791) }, 'EINVAL'],
    ['bytes without specs', { specs: [UDP_4791], count: 0 }, 'EINVAL'],
    ['a count above the number of specs', { specs: [UDP_4791], count: 2 }, 'EINVAL'],
    ['a count below the number of specs', { specs: [UDP_4791, UDP_4791], count: 1 }, 'EINVAL'],
    ['a length beyond the specs', { specs: [UDP_4791], size: 24 }, 'ENOSPC'],
    ['nonzero bytes after the specs', { specs: [UDP_4791], after: ones(8) }, 'EOPNOTSUPP'],
    ['zeros after the specs', { specs: [UDP_4791], after: zeros(8) }, 'OK'],
    ['a nonzero reserved field in a spec', { specs: [spec(UDP, zeros(8), 16, 1)] }, 'EINVAL'],
    ['a spec longer than the rest', { specs: [spec(UDP, zeros(8), 24)] }, 'EINVAL'],
    ['a spec shorter than its header', { specs: [spec(UDP, [], 4)] }, 'EINVAL'],
    ['no filter', { specs: [spec(UDP, [])] }, 'EINVAL'],
    ['a filter of 2 bytes', { specs: [spec(UDP, zeros(4))] }, 'EINVAL'],
    ['InfiniBand', { specs: [spec(IB, zeros(8))] }, 'EINVAL'],
    ['an unknown header', { specs: [spec(0x70, zeros(8))] }, 'EINVAL'],
    ['an unknown action', { specs: [spec(0x1004, zeros(8))] }, 'EINVAL'],
    ['an action within a tunnel', { specs: [spec(ACTION_TAG | INNER, zeros(8))] }, 'EINVAL'],
    ['a tag without padding', { specs: [spec(ACTION_TAG, zeros(4)), tag] }, 'EINVAL'],
    ['a drop with a payload', { specs: [spec(ACTION_DROP, zeros(8))] }, 'EINVAL'],
    ['counters without a handle', { specs: [spec(COUNT, [])] }, 'EINVAL'],
    ['counters twice', { specs: [spec(COUNT, zeros(8)), spec(COUNT, zeros(8))] }, 'EINVAL'],
    ['an action that names an object', { specs: [spec(HANDLE, zeros(8))] }, 'EINVAL'],
    ['an action that names an object, of another size', { specs: [spec(HANDLE, zeros(16))] }, 'EOPNOTSUPP'],
    ['a flow label of 21 bits', { specs: [with21BitLabel(FLOW_LABEL)] }, 'EINVAL'],
    ['a mask of a flow label of 21 bits', { specs: [with21BitLabel(IPV6_BYTES + FLOW_LABEL)] }, 'EINVAL'],
    ['a tunnel id of 25 bits', { specs: [spec(VXLAN_TUNNEL, [1, ...zeros(7)])] }, 'EINVAL'],
    ['a mask of a tunnel id of 25 bits', { specs: [spec(VXLAN_TUNNEL, [...zeros(4), 1, ...zeros(3)])] }, 'EINVAL'],
  ]
  for (const [title, parts, expected] of cases) assert.equal(errorOf(parts), expected, title)
})

test('a response is the handle of the rule', () => {
  const bytes = rule({ specs: [UDP_4791] })
  const { view, decoded } = decode(bytes)
  assert.ok(!isAnswer(decoded))
  assert.equal(decoded.answer({ object: 0x1234, out: {} }).ret, bytes.length)
  assert.deepEqual([...view.memory.copyIn(ARENA, 8)], [0, 0, 0, 0, ...u32(0x1234)])
})

test('a rule that Linux cannot express has no encoding; a LEGACY attribute of another rule is EINVAL', () => {
  const cls = rxeSchema.classByName('flow')!
  const args = argsOf({ specs: [UDP_4791] })
  const call = { class: cls, methodName: 'create', method: cls.methods.create, object: 0, args }
  const formsOf = (other: Call) => encodings(other, rxeSchema, ARENA).map(({ form }) => form)
  assert.deepEqual(formsOf(call), ['write', 'invoke'])
  const [one] = args.specs as AnyRecord[]
  assert.deepEqual(formsOf({ ...call, args: { ...args, specs: [{ ...one, type: IB }] } }), [])
  // In Linux, counters are a spec: the eleventh.
  const elevenSpecs = { ...args, specs: new Array(10).fill(one), counters: COUNTERS }
  assert.deepEqual(formsOf({ ...call, args: elevenSpecs }), [])

  const { decoded } = decode(rule({ specs: [spec(COUNT, [...u32(COUNTERS), ...u32(0)])] }))
  assert.ok(!isAnswer(decoded))
  const counted = decoded.legacy()!
  assert.throws(() => encodeLinux(call, counted), { code: 'EINVAL', message: /has counters where the call has none/ })
  const { decoded: empty } = decode(rule({}))
  assert.ok(!isAnswer(empty))
  assert.throws(() => encodeLinux(call, empty.legacy()!), { code: 'EINVAL', message: /has no room for spec 0/ })
})

test('a LEGACY attribute with a shorter filter than the rule is EINVAL', () => {
  const { decoded } = decode(rule({ specs: [spec(IPV4, [...ones(8), ...ones(8)])] }))
  assert.ok(!isAnswer(decoded))
  const { args } = decoded.call
  const [one] = args.specs as AnyRecord[]
  for (const name of ['value', 'mask']) {
    const call = { ...decoded.call, args: { ...args, specs: [{ ...one, [name]: padded(ones(9)) }] } }
    assert.throws(() => encodeLinux(call, decoded.legacy()!), { code: 'EINVAL', message: /has no room for spec 0/ })
  }
})

test('a LEGACY attribute with random bytes is encoded, or is EINVAL', () => {
  const specs = [UDP_4791, spec(COUNT, [...u32(COUNTERS), ...u32(0)]), spec(IPV6, zeros(80))]
  const { decoded } = decode(rule({ specs }))
  assert.ok(!isAnswer(decoded))
  const legacy = decoded.legacy()!
  // Only bytes after the command number are changed.
  const start = legacy.indexOf(ExtendedCommands.CREATE_FLOW) + 4
  const changes = fc.array(fc.tuple(fc.integer({ min: start, max: legacy.length - 1 }), fc.nat(255)), { maxLength: 6 })
  fc.assert(
    fc.property(changes, fc.integer({ min: start, max: legacy.length }), fc.boolean(), (list, end, isTruncated) => {
      const other = legacy.slice()
      for (const [at, byte] of list) other[at] = byte
      try {
        encodeLinux(decoded.call, isTruncated ? other.subarray(0, end) : other)
      } catch (error) {
        assert.ok(error instanceof CallError && error.code === 'EINVAL', String(error))
      }
    }),
    { numRuns: 500 },
  )
})
