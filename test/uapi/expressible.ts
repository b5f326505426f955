/*
 * Reduces generated calls to values that a command or method of Linux can express.
 */
import { FLOW_HEADER_BYTES } from '../../src/spec/classes/flow.ts'
import { FlowSpecType, FlowType } from '../../src/spec/enums.ts'
import { ioctlMethods } from '../../src/spec/linux/ioctl.ts'
import { writeCommands } from '../../src/spec/linux/write.ts'
import type { AnyRecord, AnyValue, AnyValues } from '../../src/spec/schema/schema.ts'
import type { Call } from '../../src/uapi/call.ts'
import { type Encoding, expressibleArguments } from '../../src/uapi/linux/envelope.ts'
import { type FlowFilter, flowFilters } from '../../src/uapi/linux/flow-layout.ts'

const impliedArguments = ({ form, name }: Pick<Encoding, 'name' | 'form'>): AnyValues =>
  [...(form === 'ioctl' ? ioctlMethods : writeCommands)].find(one => one.name === name)?.impliedArguments ?? {}

/** A filter with zeros after the bytes that Linux defines, and in the upper two bytes of a limited field. */
const expressibleFilter = (bytes: AnyValue, { bytes: known, limit }: FlowFilter): Uint8Array => {
  const filter = (bytes as Uint8Array).slice().fill(0, known)
  return limit === undefined ? filter : filter.fill(0, limit.at, limit.at + 2)
}

const expressibleSpec = (spec: AnyRecord): AnyRecord[] => {
  const { type, value, mask, flags } = spec
  const filter = flowFilters[type as number]
  if (filter !== undefined) {
    const fields = { type, value: expressibleFilter(value, filter), mask: expressibleFilter(mask, filter), tag: 0 }
    return [{ ...fields, flags: filter.outermost ? 0 : flags }]
  }
  const { ACTION_TAG, IB } = FlowSpecType.values
  const none = new Uint8Array(FLOW_HEADER_BYTES)
  return type === IB ? [] : [{ ...spec, value: none, mask: none, flags: 0, tag: type === ACTION_TAG ? spec.tag : 0 }]
}

/** Reduces the arguments of a rule to one queue pair and at most ten specs, of which counters are one. */
const expressibleRule = (args: AnyValues): void => {
  if (args.rawQp === undefined) args.udQp ??= 1
  else delete args.udQp
  // Linux refuses DONT_TRAP in default rules.
  if (args.type !== FlowType.values.NORMAL) args.flags = 0
  args.specs = (args.specs as AnyRecord[]).flatMap(expressibleSpec).slice(0, 9)
}

/** A generated call, reduced for the command or method `command`. */
export const expressible = (command: Pick<Encoding, 'name' | 'form'>, call: Call): Call => {
  const { form } = command
  const known = expressibleArguments(command)
  const kept = Object.entries(call.args).filter(([attribute]) => known.has(attribute))
  const args: AnyValues = { ...Object.fromEntries(kept), ...impliedArguments(command) }
  // cqe is mandatory in the command, optional in cq.modify.
  if (command.name === 'RESIZE_CQ') args.cqe ??= 1
  // One work request of 64 bytes, and its two elements of 16 bytes.
  if (call.methodName === 'postSend')
    Object.assign(args, { wrCount: 1, sgeCount: 2, wqeSize: 64, requests: new Uint8Array(96).fill(7) })
  // Linux's call may lack flags of the class.
  const { attributes = [] } = ioctlMethods.find(method => form === 'ioctl' && method.name === command.name) ?? {}
  for (const { kind, name, allowed } of attributes)
    if (kind === 'flags' && args[name] !== undefined) args[name] = (Number(args[name]) & allowed) >>> 0
    // Another number is refused by the codec.
    else if (kind === 'fd' && args[name] !== undefined) args[name] = Number(args[name]) & 0x7fffffff
  // The table's length must be a power of two: one queue more, and then the next lower power.
  if (Array.isArray(args.queues))
    args.queues = [{ wq: 1 }, ...args.queues].slice(0, 1 << Math.log2(args.queues.length + 1))
  if (command.name === 'CREATE_FLOW') expressibleRule(args)
  // Port numbers have 8 bits in commands; other fixed objects have no number.
  const isPort = call.class.name === 'port'
  let { object } = call
  if (isPort && form !== 'ioctl') object &= 0xff
  if (call.class.identity === 'fixed' && !isPort) object = 0
  return { ...call, args, object }
}
