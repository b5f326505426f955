/*
 * Generated calls as one of Linux's dialects can say them: without what it has no room for, with what it says always.
 */
import { ioctlMethods } from '../../src/spec/linux/ioctl.ts'
import { writeCommands } from '../../src/spec/linux/write.ts'
import type { AnyValues } from '../../src/spec/schema.ts'
import type { Call } from '../../src/uapi/call.ts'
import { sayable, type Way } from '../../src/uapi/linux-envelope.ts'

/** What a way says without saying so. */
const fixed = ({ by, name }: Pick<Way, 'name' | 'by'>): AnyValues =>
  [...(by === 'ioctl' ? ioctlMethods : writeCommands)].find(one => one.name === name)?.set ?? {}

/** A generated call as this way can say it. */
export const asSaid = (way: Pick<Way, 'name' | 'by'>, call: Call): Call => {
  const { by } = way
  const room = sayable(way)
  const kept = Object.entries(call.args).filter(([attribute]) => room.has(attribute))
  const args: AnyValues = { ...Object.fromEntries(kept), ...fixed(way) }
  // What is optional of the method the command always has.
  if (way.name === 'RESIZE_CQ') args.cqe ??= 1
  // Work requests have to fit the counts.
  if (call.methodName === 'postSend')
    Object.assign(args, { wrCount: 1, sgeCount: 2, wqeSize: 64, requests: new Uint8Array(96).fill(7) })
  // Not every flag of ours is one of Linux's call.
  const { attributes = [] } = ioctlMethods.find(method => by === 'ioctl' && method.name === way.name) ?? {}
  for (const { kind, name, allowed } of attributes)
    if (kind === 'flags' && args[name] !== undefined) args[name] = (Number(args[name]) & allowed) >>> 0
  // The length of the table is told as a logarithm.
  if (Array.isArray(args.queues))
    args.queues = [{ wq: 1 }, ...args.queues].slice(0, 1 << Math.log2(args.queues.length + 1))
  let { object } = call
  if (call.class.identity === 'fixed') object = call.class.name !== 'port' ? 0 : by === 'ioctl' ? object : object & 0xff
  return { ...call, args, object }
}
