/*
 * Rules of steering in the library (class `flow`; rdma-core: ibv_create_flow): packets whose headers are as a rule says
 * come to its queue pair, and may be counted. What of a header matters is said by the names of its fields
 * (spec/wire/flow-headers.ts); which headers can be matched is the device's business. No device here has rules.
 */
import { FLOW_HEADER_BYTES, Flow, type FlowSpec as SpecRecord } from '../spec/classes/flow.ts'
import { FlowFlags, FlowSpecFlags, FlowSpecType, FlowType } from '../spec/enums.ts'
import type { ObjectClass, Out, RecordOf } from '../spec/schema/schema.ts'
import { type FlowField, type FlowHeaderName, flowHeaders } from '../spec/wire/flow-headers.ts'
import { parseAddress } from '../wire/address.ts'
import { checkOptions, checkRecord, type Words } from './checks/options.ts'
import { checkChoice, formatValue, invalidArgument } from './error.ts'
import { checkOwn, type DeviceContext, type HeldObject, make, type Named, type Plan, plan } from './plan.ts'
import type { QpSelf } from './qp/queue-pair.ts'
import { closeMethods, withMethods } from './shared-methods.ts'

type ValueOf<F> = F extends { readonly kind: 'number' } ? number : string

/** Fields of a header: numbers, and addresses as text. */
export type FlowFields<H extends FlowHeaderName> = {
  readonly [K in keyof (typeof flowHeaders)[H]]?: ValueOf<(typeof flowHeaders)[H][K]>
}

/** A header that a packet must have, with these values in these fields. */
export interface FlowHeader<H extends FlowHeaderName = FlowHeaderName> {
  readonly header: H
  readonly match?: FlowFields<H>
  /** Bits of fields that matter, as values; default: all bits of each field that `match` has. */
  readonly mask?: FlowFields<H>
  /** It is a header within a tunnel. */
  readonly inner?: boolean
}

/** What a rule matches, or does: completions carry `tag` (a u32), or what matches is thrown away. */
export type FlowSpec =
  | { readonly [H in FlowHeaderName]: FlowHeader<H> }[FlowHeaderName]
  | { readonly tag: number }
  | { readonly drop: true }

export interface FlowOptions {
  /** One header behind the other, from the link's on, and what to do; at most 10. Default: all packets. */
  readonly specs?: readonly FlowSpec[]
  /** 'NORMAL', the default; what no rule takes: 'ALL_DEFAULT', 'MC_DEFAULT'; a copy of all: 'SNIFFER'. */
  readonly type?: keyof typeof FlowType.values
  /** Lower numbers are looked at first, u16; default 0. */
  readonly priority?: number
  /** Default 1. */
  readonly port?: number
  /** Other rules see the packet too. */
  readonly dontTrap?: boolean
  /** Of packets that are sent. */
  readonly egress?: boolean
  /** Counts what it matches: `device.counterSet()`. */
  readonly counters?: Named
}

/** A rule; it ends with `close`. */
export interface SteeringRule extends Disposable {
  readonly handle: number
  query(): Out<typeof Flow.methods.query>
  close(): void
}

/** What queue pairs have to which rules can steer. */
export interface Steered {
  /** Packets that the rule describes come here from now on. Throws RdmaError. */
  flow(options?: FlowOptions): SteeringRule
}

type Spec = RecordOf<typeof SpecRecord>

const CALL = 'flow.create'
const { INNER } = FlowSpecFlags.values
const { ACTION_TAG, ACTION_DROP } = FlowSpecType.values

const words: Words<FlowOptions> = {
  specs: true,
  type: true,
  priority: true,
  port: true,
  dontTrap: true,
  egress: true,
  counters: true,
}
const headerWords: Words<FlowHeader> = { header: true, match: true, mask: true, inner: true }
const specHint = 'a spec is { header, match }, { tag } or { drop: true }'

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i

/** The bytes of an address as text; undefined for what is none. */
const addressBytes = ({ kind, bytes }: FlowField, text: string): Uint8Array | undefined => {
  if (kind === 'mac')
    return MAC.test(text) ? Uint8Array.from(text.split(':'), part => Number.parseInt(part, 16)) : undefined
  const gid = parseAddress(text)
  // An IPv4 address is the last part of its GID.
  const isOfKind = gid !== undefined && (bytes === 16) === text.includes(':')
  return isOfKind ? gid.subarray(gid.length - bytes) : undefined
}

/** Writes a field into a filter. */
const putField = (where: string, field: FlowField, value: unknown, into: Uint8Array): void => {
  const { at, bytes, bits, kind } = field
  if (kind === 'number') {
    if (!Number.isInteger(value) || (value as number) < 0 || (value as number) >= 2 ** bits)
      throw invalidArgument(CALL, `${where}: ${String(value)} is no number of ${bits} bits`)
    for (let i = 0; i < bytes; i++) into[at + i] = (value as number) / 2 ** (8 * (bytes - 1 - i))
    return
  }
  const found = typeof value === 'string' ? addressBytes(field, value) : undefined
  const wanted =
    kind === 'mac'
      ? 'an address of the link as text, 00:11:22:33:44:55'
      : `an IPv${bytes === 4 ? 4 : 6} address as text`
  if (found === undefined) throw invalidArgument(CALL, `${where}: ${formatValue(value)} is not ${wanted}`)
  into.set(found, at)
}

/** All bits of a field that can be the packet's. */
const putAll = ({ at, bytes, bits }: FlowField, into: Uint8Array): void => {
  for (let i = 0; i < bytes; i++) into[at + bytes - 1 - i] = 2 ** Math.max(Math.min(bits - 8 * i, 8), 0) - 1
}

const headerSpec = (where: string, spec: FlowHeader): Spec => {
  checkOptions(CALL, where, spec, headerWords)
  const { header, match = {}, mask = {}, inner = false } = spec
  checkChoice(CALL, `${where}.header`, header, Object.keys(flowHeaders))
  const fields: Readonly<Record<string, FlowField>> = flowHeaders[header]
  checkOptions(CALL, `${where}.match`, match, fields)
  checkOptions(CALL, `${where}.mask`, mask, fields)
  const [value, bits] = [new Uint8Array(FLOW_HEADER_BYTES), new Uint8Array(FLOW_HEADER_BYTES)]
  for (const [name, one] of Object.entries(match) as [string, unknown][]) {
    if (one === undefined) continue
    putField(`${where}.match.${name}`, fields[name], one, value)
    putAll(fields[name], bits)
  }
  for (const [name, one] of Object.entries(mask) as [string, unknown][]) {
    if (one === undefined) continue
    if ((match as Readonly<Record<string, unknown>>)[name] === undefined)
      throw invalidArgument(CALL, `${where}.mask.${name}: there is no value in match.${name}`)
    putField(`${where}.mask.${name}`, fields[name], one, bits)
  }
  return { type: FlowSpecType.values[header], value, mask: bits, flags: inner ? INNER : 0, tag: 0 }
}

const action = (type: number, tag: number): Spec => ({
  type,
  value: new Uint8Array(FLOW_HEADER_BYTES),
  mask: new Uint8Array(FLOW_HEADER_BYTES),
  flags: 0,
  tag,
})

const specOf = (spec: FlowSpec, i: number): Spec => {
  const where = `specs[${i}]`
  checkRecord(CALL, where, spec, specHint)
  if ('header' in spec) return headerSpec(where, spec as FlowHeader)
  if ('tag' in spec) {
    checkOptions(CALL, where, spec, { tag: true })
    return action(ACTION_TAG, spec.tag)
  }
  checkOptions(CALL, where, spec, { drop: true })
  if (spec.drop !== true) throw invalidArgument(CALL, `${where} says nothing`, specHint)
  return action(ACTION_DROP, 0)
}

const methods: Omit<SteeringRule, 'handle'> & ThisType<HeldObject> = {
  query() {
    return this.kit.carrier.call(Flow, 'query', this.handle, {}).out
  },
  ...closeMethods<HeldObject>(Flow),
}

/** By the class of the queue pair: the attribute that names it. */
const attributes: Readonly<Record<string, 'rawQp' | 'udQp'>> = { raw_packet_qp: 'rawQp', ud_qp: 'udQp' }

/** A rule that steers to `qp`. */
export const flowPlan = (
  kit: DeviceContext,
  qp: Named & { readonly cls?: ObjectClass },
  options: FlowOptions = {},
): Plan<SteeringRule> => {
  checkOwn(kit, CALL, 'qp', qp)
  const attribute = attributes[qp.cls?.name ?? '']
  if (attribute === undefined)
    throw invalidArgument(
      CALL,
      'qp is no queue pair of raw packets or datagrams',
      'give one of pd.rawPacketQp() or pd.udQp()',
    )
  checkOptions(CALL, 'options', options, words)
  const { specs = [], type = 'NORMAL', priority = 0, port = 1, dontTrap, egress, counters } = options
  checkChoice(CALL, 'type', type, Object.keys(FlowType.values))
  if (!Array.isArray(specs)) throw invalidArgument(CALL, 'specs: they are no list', specHint)
  if (counters !== undefined) checkOwn(kit, CALL, 'counters', counters)
  const { DONT_TRAP, EGRESS } = FlowFlags.values
  const args = {
    [attribute]: qp.handle,
    type: FlowType.values[type],
    priority,
    port,
    flags: (dontTrap ? DONT_TRAP : 0) | (egress ? EGRESS : 0),
    specs: specs.map(specOf),
    ...(counters !== undefined && { counters: counters.handle }),
  }
  return plan(Flow, args, ({ object: handle }) =>
    withMethods<SteeringRule>(methods, { kit, handle, isOpen: true } satisfies HeldObject),
  )
}

/** Part of the tables of queue pairs that are steered to. */
export const steered: Steered & ThisType<QpSelf> = {
  flow(options) {
    return make(this.kit, flowPlan(this.kit, this, options))
  },
}
