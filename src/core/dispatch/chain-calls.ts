/*
 * Chains (R16) of typed calls from this process, without encoding. The rules are those of chain.ts with UNDO: if an
 * entry fails, the objects that the chain has created are destroyed.
 */
import { Interface } from '../../spec/classes/device/interface.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { because, the } from '../../spec/reason.ts'
import { type AnyValues, CHAIN } from '../../spec/schema/schema.ts'
import type { Result } from '../../uapi/call.ts'
import type { ChainedRefs } from '../../uapi/object/client.ts'
import type { Caller, Context, CoreObject, Entry } from '../model.ts'
import { undoObjects } from '../objects/lifetime.ts'
import { type ChainedMethod, checkEntry, checkEntryUndoable, createdByEntry } from './chain.ts'
import { invokeTyped, methodOf } from './invoke.ts'
import { createdBy, undoWhenDone } from './undo.ts'

/** One call of a chain. Entries are numbered from 0. */
export interface ChainedCall {
  readonly chainedMethod: ChainedMethod
  readonly args: AnyValues
  /** As in `Call`; or -1, -2, …: the object that entry 0, 1, … has created. */
  readonly object: number
  /** By attribute: the entry whose object replaces the argument. */
  readonly refs: ChainedRefs | undefined
}

interface CallsOutcome {
  /** Results of the entries that succeeded, in order. */
  readonly results: readonly Result[]
  /** The error of the entry that failed, after which all were undone. Undefined: all succeeded. */
  readonly error: CallError | undefined
  /** The entry failed because its call is asynchronous, which typed chains do not support. */
  readonly isAsynchronous: boolean
}

/** The chain method has no hooks and no handler of the driver. */
const hasOnlyCoreHandler = ({ run, core }: Entry): boolean => run === core

const resolveRefs = (
  created: readonly (CoreObject | undefined)[],
  { chainedMethod, args, refs }: ChainedCall,
): AnyValues => {
  if (refs === undefined) return args
  const values = { ...args }
  for (const name in refs) {
    const { type } = chainedMethod.method.in[name]!
    const subject = because`${the.method(`${chainedMethod.class.name}.${chainedMethod.name}`)}: ${the.attribute(name)}`
    if (type.kind === 'ref' || type.kind === 'fd')
      values[name] = createdByEntry(created, subject, type.class, refs[name]!).handle
  }
  return values
}

/**
 * Runs all entries of a chain or none. Returns undefined if the chain must be encoded, because the chain method has
 * hooks or a driver's handler. The caller's descriptors must be core's numbers. Throws EOPNOTSUPP if the device has no
 * chains, EINVAL for calls that cannot be undone. The error of an entry is in the outcome.
 */
export const runTypedChain = (
  context: Context,
  calls: readonly ChainedCall[],
  caller: Caller,
): CallsOutcome | undefined => {
  if (!hasOnlyCoreHandler(methodOf(context, Interface, CHAIN, 'chain'))) return undefined
  const results: Result[] = []
  const created: (CoreObject | undefined)[] = []
  const additional: CoreObject[] = []
  let pending: Promise<Result> | undefined
  for (let i = 0; i < calls.length; i++) checkEntryUndoable(i, calls[i]!.chainedMethod, calls[i]!.object < 0)
  try {
    for (let i = 0; i < calls.length; i++) {
      const { chainedMethod, object } = calls[i]!
      const { class: cls, name, method } = chainedMethod
      const ref = object < 0 ? -1 - object : undefined
      checkEntry(i, chainedMethod, ref)
      const number =
        ref === undefined ? object : createdByEntry(created, the.method(`${cls.name}.${name}`), cls.name, ref).handle
      const deviceMethod = methodOf(context, cls, method.call, name)
      const result = invokeTyped(context, deviceMethod, number, resolveRefs(created, calls[i]!), caller)
      if (result instanceof Promise) {
        pending = result
        throw callError.EOPNOTSUPP`${the.method(`${cls.name}.${name}`)}: its handler is asynchronous, which a chain of typed calls does not support`
      }
      created.push(createdBy(context, result, additional))
      results.push(result)
    }
    return { results, error: undefined, isAsynchronous: false }
  } catch (error) {
    undoObjects(context, [...created, ...additional])
    // The asynchronous call uses objects of the chain until it ends.
    if (pending !== undefined) undoWhenDone(context, pending, [...created, ...additional])
    if (!(error instanceof CallError)) throw error
    return { results, error, isAsynchronous: pending !== undefined }
  }
}
