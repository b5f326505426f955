/*
 * Class `flow` of mlx5 devices: the specs of a rule become values under a mask of the frame's key (`FlowKey`), and a
 * spec demands its header also if it masks nothing. A rule with a matcher has matcher-flows.ts.
 */
import { driverClass } from '../../../core/devices/driver.ts'
import { Flow, type FlowSpec } from '../../../spec/classes/flow.ts'
import { flowAttributes } from '../../../spec/drivers/mlx5-flow.ts'
import { FlowFlags, FlowSpecFlags, FlowSpecType, FlowType, nameIn } from '../../../spec/enums.ts'
import { callError } from '../../../spec/errno.ts'
import { because, type Place, the } from '../../../spec/reason.ts'
import type { RecordOf } from '../../../spec/schema/schema.ts'
import { FLOW_KEY_BYTES, FlowHeader, FlowKey } from '../../../spec/wire/ethernet.ts'
import { requireFrames, stateOf } from '../state.ts'
import { createMatcherFlow, LAST_PRIORITY, TAG_MASK } from './matcher-flows.ts'
import { receiverOf } from './raw-qp-class.ts'

const { ACTION_TAG, ACTION_DROP, ...headers } = FlowSpecType.values
const { NORMAL, SNIFFER } = FlowType.values
const { DONT_TRAP, EGRESS } = FlowFlags.values
const { INNER } = FlowSpecFlags.values

/** Where the fields of a spec are in the key, by type of the spec, their bytes, and the header that it demands. */
const places: Readonly<Record<number, { readonly at: number; readonly bytes: number; readonly header: number }>> = {
  [headers.ETH]: { at: FlowKey.ETH, bytes: 16, header: FlowHeader.ETH },
  [headers.IPV4]: { at: FlowKey.IPV4, bytes: 12, header: FlowHeader.IPV4 },
  [headers.IPV6]: { at: FlowKey.IPV6, bytes: 40, header: FlowHeader.IPV6 },
  [headers.TCP]: { at: FlowKey.TCP, bytes: 4, header: FlowHeader.TCP },
  [headers.UDP]: { at: FlowKey.UDP, bytes: 4, header: FlowHeader.UDP },
  [headers.VXLAN_TUNNEL]: { at: FlowKey.VXLAN, bytes: 4, header: FlowHeader.VXLAN },
  [headers.GRE]: { at: FlowKey.GRE, bytes: 8, header: FlowHeader.GRE },
  [headers.MPLS]: { at: FlowKey.MPLS, bytes: 4, header: FlowHeader.MPLS },
  [headers.ESP]: { at: FlowKey.ESP, bytes: 8, header: FlowHeader.ESP },
}
/** Bytes in a filter that no field of a frame has: the flags of IPv4, and the reserved byte of IPv6. */
const unusedBytes: Readonly<Record<number, number>> = { [headers.IPV4]: 11, [headers.IPV6]: 39 }
const VLAN_AT = 14

type Spec = RecordOf<typeof FlowSpec>

const specName = (type: number): string => nameIn(FlowSpecType.values, type) ?? `0x${type.toString(16)}`

/** Adds a spec of a header to the rule. Throws CallError EINVAL, EOPNOTSUPP. */
const addHeader = (where: Place, spec: Spec, value: Uint8Array, mask: Uint8Array): void => {
  const place = places[spec.type]
  if (place === undefined)
    throw callError.EOPNOTSUPP`${where}: ${specName(spec.type)} is no header that frames of this link have`
  const isTunnel = spec.type === headers.VXLAN_TUNNEL || spec.type === headers.GRE || spec.type === headers.MPLS
  const isInner = (spec.flags & INNER) !== 0
  if (isInner && isTunnel) throw callError.EINVAL`${where}: there is no tunnel within a tunnel`
  const unused = unusedBytes[spec.type]
  if (unused !== undefined && spec.mask[unused] !== 0)
    throw callError.EOPNOTSUPP`${where}: byte ${unused} of the filter is no field that the device looks at`
  const base = isInner ? FlowKey.INNER : 0
  const present = new DataView(mask.buffer)
  let header: number = place.header
  if (spec.type === headers.ETH && (spec.mask[VLAN_AT]! | spec.mask[VLAN_AT + 1]!) !== 0) header |= FlowHeader.VLAN
  if ((present.getUint32(base) & place.header) !== 0)
    throw callError.EINVAL`${where}: the rule has a spec of ${specName(spec.type)} already`
  present.setUint32(base, present.getUint32(base) | header)
  for (let i = 0; i < place.bytes; i++) {
    const bits = spec.mask[i]!
    mask[base + place.at + i] = bits
    value[base + place.at + i] = spec.value[i]! & bits
  }
}

interface FlowState {
  readonly remove: () => void
  readonly type: number
  readonly priority: number
  readonly port: number
  readonly specs: readonly Spec[]
}

export const flowClass = driverClass<typeof Flow, FlowState, typeof flowAttributes>(
  Flow,
  {
    create(call, object, args) {
      const { rawQp, udQp, type, priority, port, flags, specs } = args
      requireFrames(call, 'flow.create')
      if (args.matcher !== undefined) {
        const { remove, priority: matched } = createMatcherFlow(call, object, args.matcher, args)
        object.state = { remove, type, priority: matched, port, specs }
        return {}
      }
      if (Object.keys(flowAttributes.create.in).some(name => args[name as keyof typeof args] !== undefined))
        throw callError.EINVAL`${the.method('flow.create')}: ${the.attribute('matcher')} is missing`
      const { station, soft } = stateOf(call)
      if (udQp !== undefined)
        throw callError.EOPNOTSUPP`${the.method('flow.create')}: ${the.attribute('udQp')}: datagrams have no flow rules: they find their queue pair by its number`
      if (rawQp === undefined)
        throw callError.EINVAL`${the.method('flow.create')}: ${the.attribute('rawQp')} is missing`
      if (port !== 1)
        throw callError.EINVAL`${the.method('flow.create')}: ${the.attribute('port')}: ${port}: the device has port 1`
      if ((flags & EGRESS) !== 0)
        throw callError.EOPNOTSUPP`${the.method('flow.create')}: ${the.attribute('flags')}: EGRESS: the device has rules for received frames only`
      if (priority > LAST_PRIORITY)
        throw callError.ENOSPC`${the.method('flow.create')}: ${the.attribute('priority')}: ${priority} is not in 0 to ${LAST_PRIORITY}`
      const mask = new Uint8Array(FLOW_KEY_BYTES)
      const value = new Uint8Array(FLOW_KEY_BYTES)
      let tag = 0
      let isDropped = false
      for (const [i, spec] of specs.entries()) {
        const where = because`${the.method('flow.create')}: spec ${i}`
        if (spec.type === ACTION_DROP) isDropped = true
        else if (spec.type === ACTION_TAG) {
          if (spec.tag > TAG_MASK)
            throw callError.EINVAL`${where}: tag 0x${spec.tag.toString(16)} has more than 24 bits`
          tag = spec.tag
        } else addHeader(where, spec, value, mask)
      }
      const hasHeaders = mask.some(byte => byte !== 0)
      if (type !== NORMAL && hasHeaders)
        throw callError.EINVAL`${the.method('flow.create')}: ${the.attribute('specs')}: a rule of type ${nameIn(FlowType.values, type)} names no headers`
      if (type === SNIFFER && (isDropped || flags !== 0))
        throw callError.EINVAL`${the.method('flow.create')}: a sniffer only gets copies: it neither drops frames nor passes them on`
      // what a spec demands is in its mask, and so in its value
      new DataView(value.buffer).setUint32(0, new DataView(mask.buffer).getUint32(0))
      new DataView(value.buffer).setUint32(FlowKey.INNER, new DataView(mask.buffer).getUint32(FlowKey.INNER))
      const remove = station!.steering.add({
        type,
        priority,
        value,
        mask,
        doesNotTrap: (flags & DONT_TRAP) !== 0,
        receiver: isDropped ? undefined : receiverOf(rawQp, soft),
        tag,
      })
      object.state = { remove, type, priority, port, specs }
      return {}
    },
    query: (_call, { state: { type, priority, port, specs } }) => ({ type, priority, port, specs: [...specs] }),
    destroy(_call, { state }) {
      state.remove()
      return {}
    },
  },
  flowAttributes,
)
