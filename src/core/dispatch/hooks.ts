/*
 * Hooks around the calls of a device (R24), for tracing, policy and faults. `pre` runs before the handler and may
 * refuse the call. `delay` may delay the handler. `post` runs once, after the handler or the refusal. A device with
 * hooks has its own table, so hooks cost nothing on other devices. Hooks do not see calls with malformed bytes, or of
 * methods that the device does not have, and in a daemon no arming of a CQ by its word
 * (docs/decisions/events-without-calls.md).
 */
import { CallError } from '../../spec/errno.ts'
import { noteFault } from '../attempt.ts'
import type {
  AnyHandler,
  AnyResult,
  Block,
  CallContext,
  CoreObject,
  DispatchTable,
  Entry,
  HandlerValues,
  Hook,
} from '../model.ts'
import { createTable } from './compile.ts'
import { requireOpen } from './invoke.ts'

/** Returns a function that calls the `post` hooks, in reverse order of `pre`. */
const postCaller = (hooks: readonly Hook[]): Required<Hook>['post'] => {
  const postHooks = hooks.filter(hook => hook.post !== undefined).reverse()
  return (call, object, args, out, error) => {
    for (const hook of postHooks)
      try {
        hook.post!(call, object, args, out, error)
      } catch (exception) {
        // The call has ended, so an exception of a hook must not change its result.
        noteFault(call.device.core, exception)
      }
  }
}

const wrapHandler = (
  handler: AnyHandler,
  hooks: readonly Hook[],
  notify: ReturnType<typeof postCaller>,
): AnyHandler => {
  const preHooks = hooks.filter(hook => hook.pre !== undefined)
  const runPreHooks = (call: CallContext, object: CoreObject, args: HandlerValues): void => {
    for (const hook of preHooks)
      try {
        hook.pre!(call, object, args)
      } catch (error) {
        if (call.why === 'call') throw error
        // A destroy by core itself cannot be refused.
        if (!(error instanceof CallError)) noteFault(call.device.core, error)
      }
  }
  const delays = hooks.flatMap(hook => (hook.delay === undefined ? [] : [hook.delay]))
  /** Runs the handler after the delays of the hooks. */
  const runHandler: AnyHandler = (call, object, args, core) => {
    if (delays.length === 0 || call.why !== 'call') return handler(call, object, args, core)
    const promises = delays.map(delay => delay(call, object, args)).filter(promise => promise !== undefined)
    if (promises.length === 0) return handler(call, object, args, core)
    return Promise.all(promises).then(() => {
      requireOpen(call)
      return handler(call, object, args, core)
    })
  }
  if (hooks.every(hook => hook.post === undefined))
    return (call, object, args, core) => {
      runPreHooks(call, object, args)
      return runHandler(call, object, args, core)
    }
  return (call, object, args, core) => {
    const runPostHooks = (out: AnyResult, error: unknown): void => notify(call, object, args, out, error)
    let out: ReturnType<AnyHandler>
    try {
      runPreHooks(call, object, args)
      out = runHandler(call, object, args, core)
    } catch (error) {
      runPostHooks(undefined, error)
      throw error
    }
    if (!(out instanceof Promise)) {
      runPostHooks(out, undefined)
      return out
    }
    return out.then(
      value => {
        runPostHooks(value, undefined)
        return value
      },
      error => {
        runPostHooks(undefined, error)
        throw error
      },
    )
  }
}

/** `table` with `hooks` around the methods that they select. Classes without hooks are shared. */
export const withHooks = (table: DispatchTable, hooks: readonly Hook[]): DispatchTable => {
  if (hooks.length === 0) return table
  const hookEntry = (entry: Entry | undefined): Entry | undefined => {
    const selected = hooks.filter(
      hook =>
        (hook.class === undefined || hook.class === entry?.class.name) &&
        (hook.method === undefined || hook.method === entry?.name),
    )
    if (entry === undefined || selected.length === 0) return entry
    const notify = postCaller(selected)
    return {
      ...entry,
      run: wrapHandler(entry.handler, selected, notify),
      onRefused: (call, object, args, error) => notify(call, object, args, undefined, error),
    }
  }
  const hookBlock = (block: Block | undefined): Block | undefined => block?.map(hookEntry)
  const tables = [...table.byName.values()].map(cls =>
    hooks.some(hook => hook.class === undefined || hook.class === cls.class.name)
      ? { class: cls.class, blocks: cls.blocks.map(hookBlock) }
      : cls,
  )
  return createTable(tables)
}
