/*
 * Chains (R16) of calls that are typed already, those of a caller in this process: no message is written or read. The
 * rules are those of chain.ts, which runs the same chains in bytes, and every call goes the way of a call by itself.
 * What the chain has made is taken back, newest first, if an entry fails (UNDO).
 */
import { Interface } from '../spec/classes/interface.ts'
import { CallError } from '../spec/errno.ts'
import { CHAIN } from '../spec/schema.ts'
import type { Result } from '../uapi/call.ts'
import type { Link } from '../uapi/chain.ts'
import { checkEntry, checkUndoable, madeBy, madeOf, noteMade } from './chain.ts'
import { invokeTyped, methodOf } from './invoke.ts'
import { undoObjects } from './lifetime.ts'
import type { Caller, Context, CoreObject, Entry } from './model.ts'

export interface CallsOutcome {
  /** By entry, of those that succeeded. */
  readonly results: readonly Result[]
  /** Why the entry after them did not: then nothing is left of all. */
  readonly error: CallError | undefined
}

/** What must be as it is so that nobody misses the call that a chain is: hooks, or a driver's own way. */
const isPlain = ({ run, core }: Entry): boolean => run === core

const withMade = (made: readonly (CoreObject | undefined)[], { call, refs }: Link): Link['call']['args'] => {
  if (refs === undefined) return call.args
  const args = { ...call.args }
  for (const name in refs) {
    const { of } = call.method.in[name]
    const where = `${call.class.name}.${call.methodName}: attribute ${name}`
    if (of.kind === 'ref' || of.kind === 'fd') args[name] = madeOf(made, where, of.class, refs[name]).handle
  }
  return args
}

/**
 * Runs a chain, all or none of it; undefined if it has to be called in bytes, since somebody looks on or does it in a
 * way of his own. For callers whose descriptors are core's numbers, and methods that do not wait. EOPNOTSUPP if the
 * device has no chains, EINVAL for what could not be taken back.
 */
export const runCalls = (context: Context, links: readonly Link[], caller: Caller): CallsOutcome | undefined => {
  if (!isPlain(methodOf(context, Interface, CHAIN, 'chain'))) return undefined
  const results: Result[] = []
  const made: (CoreObject | undefined)[] = []
  const more: CoreObject[] = []
  for (let i = 0; i < links.length; i++) {
    const { call, object } = links[i]
    checkUndoable(i, call.class, call.methodName, call.method, object)
  }
  try {
    for (let i = 0; i < links.length; i++) {
      const { call, object } = links[i]
      const { class: cls, methodName, method } = call
      checkEntry(i, cls, methodName, method, object)
      const number = object === undefined ? call.object : madeBy(made, `${cls.name}.${methodName}`, object).handle
      const entry = methodOf(context, cls, method.call, methodName)
      const result = invokeTyped(context, entry, number, withMade(made, links[i]), caller)
      if (result instanceof Promise) throw new Error(`${cls.name}.${methodName} waits: chains in this process do not`)
      made.push(noteMade(context, result, more))
      results.push(result)
    }
    return { results, error: undefined }
  } catch (error) {
    undoObjects(context, [...made, ...more])
    if (!(error instanceof CallError)) throw error
    return { results, error }
  }
}
