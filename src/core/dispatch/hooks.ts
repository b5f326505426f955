/*
 * Hooks around the calls of a device (R24): tracing, policy, faults. `pre` runs before the handler and may refuse;
 * `post` runs once for every call that has found its method, also for one that is refused before its handler, for its
 * arguments or its object. A device that has hooks runs a table of its own, and only while it has any, so that none
 * costs nothing. What is no call yet – bytes that cannot be read, a method that the device lacks – reaches none: there
 * is no method whose hooks could be asked.
 */
import { noteFault } from '../attempt.ts'
import type { AnyHandler, AnyResult, Block, DispatchTable, Entry, Hook } from '../model.ts'
import { assemble } from './compile.ts'

/** Tells hooks how a call has ended. They nest: the one that looked first is the last to see the end. */
const endingOf = (hooks: readonly Hook[]): Required<Hook>['post'] => {
  const after = hooks.filter(hook => hook.post !== undefined).reverse()
  return (call, object, args, out, error) => {
    for (const hook of after)
      try {
        hook.post!(call, object, args, out, error)
      } catch (error) {
        // The call has ended as it has: nothing may undo that behind its handler's back.
        noteFault(call.device.core, error)
      }
  }
}

const wrap = (handler: AnyHandler, hooks: readonly Hook[], tell: ReturnType<typeof endingOf>): AnyHandler => {
  const before = hooks.filter(hook => hook.pre !== undefined)
  return (call, object, args, core) => {
    const ended = (out: AnyResult, error: unknown): void => tell(call, object, args, out, error)
    let out: ReturnType<AnyHandler>
    try {
      for (const hook of before)
        try {
          hook.pre!(call, object, args)
        } catch (error) {
          // What core destroys by itself must be destroyed: nobody is there to be refused.
          if (call.why === 'call') throw error
        }
      out = handler(call, object, args, core)
    } catch (error) {
      ended(undefined, error)
      throw error
    }
    if (!(out instanceof Promise)) {
      ended(out, undefined)
      return out
    }
    return out.then(
      value => {
        ended(value, undefined)
        return value
      },
      error => {
        ended(undefined, error)
        throw error
      },
    )
  }
}

/** `table` with `hooks` around the methods that they name; classes that no hook names are taken as they are. */
export const withHooks = (table: DispatchTable, hooks: readonly Hook[]): DispatchTable => {
  if (hooks.length === 0) return table
  const hookEntry = (entry: Entry | undefined): Entry | undefined => {
    const named = hooks.filter(
      hook =>
        (hook.class === undefined || hook.class === entry?.class.name) &&
        (hook.method === undefined || hook.method === entry?.name),
    )
    if (entry === undefined || named.length === 0) return entry
    const tell = endingOf(named)
    return {
      ...entry,
      run: wrap(entry.handler, named, tell),
      refused: (call, args, error) => tell(call, undefined, args, undefined, error),
    }
  }
  const hookBlock = (block: Block | undefined): Block | undefined => block?.map(hookEntry)
  const tables = [...table.byName.values()].map(cls =>
    hooks.some(hook => hook.class === undefined || hook.class === cls.class.name)
      ? { class: cls.class, blocks: cls.blocks.map(hookBlock) }
      : cls,
  )
  return assemble(tables)
}
