/*
 * Chains (R16): one call runs a list of calls. Later calls can use objects that earlier calls created.
 *
 * The entries are messages of the object dialect. Each entry runs as it would outside a chain, but may also refer to
 * objects that the chain created. The first entry that fails ends the chain. With UNDO the objects that the chain
 * created are then destroyed. A call that changes an existing object cannot be undone: with UNDO, a chain with such a
 * call is refused before its start. What a call on an object of the chain changes in existing objects, for example
 * cm_id.connect in the queue pair of its argument, is not undone.
 *
 * The entries of one chain can take minutes, for example queries of very many objects. After `Core.maxCallTime` the
 * remaining entries and destroys run as a job, so that other clients do not wait for the chain.
 */
import { ChainErrors, Interface } from '../../spec/classes/device/interface.ts'
import { CallError, callError } from '../../spec/errno.ts'
import { type Place, type Reason, the } from '../../spec/reason.ts'
import { CHAIN, type Method, type ObjectClass, QUERY } from '../../spec/schema/schema.ts'
import type { CallerView, NewDescriptor, Result } from '../../uapi/call.ts'
import { type ChainEntry, chainEntries } from '../../uapi/object/chain.ts'
import { decodeMessage } from '../../uapi/object/dialect.ts'
import { creates, methodByCall } from '../../uapi/object/format.ts'
import { type CallContext, type Caller, type Core, type CoreObject, Lifecycle } from '../model.ts'
import { undoObjects, undoSteps } from '../objects/lifetime.ts'
import { onUndelivered } from '../undelivered.ts'
import { callerView } from './dispatch.ts'
import { execute, methodOf } from './invoke.ts'
import { createdBy } from './undo.ts'

export interface ChainOutcome {
  /** The messages of the entries; the answer replaces the message of an entry that ran. */
  readonly results: Uint8Array
  /** Number of entries that succeeded. */
  readonly done: number
  /** Errno of the entry that failed; 0 if none failed. */
  readonly error: number
  readonly reason?: Reason
}

/**
 * The caller's number of a new descriptor is known only after the chain. Inside the chain, the descriptor that entry i
 * creates has the number UNNUMBERED + i.
 */
const UNNUMBERED = 0x8000_0000

/**
 * Microseconds of core's clock. A step of a chain's job that takes n times as long counts as n of the STEPS_PER_TURN
 * steps of a turn of the event loop, so the job takes about a millisecond of each turn.
 */
const STEP_TIME = 30

const refuseEntry = (index: number, reason: string): never => {
  throw callError.EINVAL`entry ${index} of the chain: ${reason}`
}

/** The method of an entry. */
export interface ChainedMethod {
  readonly class: ObjectClass
  readonly name: string
  readonly method: Method
}

/**
 * Throws if an entry cannot be undone. It can if it creates an object, is a query or declared `undoable`, or is called
 * on an object that the chain creates (`isOnCreated`).
 */
export const checkEntryUndoable = (index: number, chainedMethod: ChainedMethod, isOnCreated: boolean): void => {
  const { method } = chainedMethod
  if (!creates(method) && method.call !== QUERY && method.undoable !== true && !isOnCreated)
    refuseEntry(
      index,
      `${chainedMethod.class.name}.${chainedMethod.name} of an object that the chain does not create cannot be undone`,
    )
}

/** Throws if an entry is a chain, or creates an object but is called on the object of entry `ref`. */
export const checkEntry = (index: number, chainedMethod: ChainedMethod, ref: number | undefined): void => {
  const { class: cls, name, method } = chainedMethod
  if (cls.id === Interface.id && method.call === CHAIN) refuseEntry(index, 'a chain in a chain')
  if (ref !== undefined && creates(method))
    refuseEntry(index, `${cls.name}.${name} creates an object, so it cannot be called on the object of entry ${ref}`)
}

/**
 * The object of class `className` that an entry created. `created` is indexed by entry, `subject` begins the error
 * message. Throws EINVAL if the entry created none or one of another class, ENOENT if the object was destroyed.
 */
export const createdByEntry = (
  created: readonly (CoreObject | undefined)[],
  subject: Place,
  className: string,
  entry: number,
): CoreObject => {
  const object = created[entry]
  if (object === undefined) throw callError.EINVAL`${subject}: entry ${entry} of the chain did not create an object`
  if (object.life !== Lifecycle.LIVE)
    throw callError.ENOENT`${subject}: the object that entry ${entry} created was destroyed`
  if (object.class.name !== className)
    throw callError.EINVAL`${subject}: entry ${entry} of the chain created a ${object.class.name}, not a ${className}`
  return object
}

/** Throws if the chain cannot be undone. Unknown classes and methods are refused when their entry runs. */
const checkChainUndoable = (view: CallerView, entries: readonly ChainEntry[]): void => {
  entries.forEach(({ call, ref, classId }, index) => {
    const cls = view.schema.classById(classId)
    const found = cls && methodByCall(cls, call)
    if (cls !== undefined && found !== undefined)
      checkEntryUndoable(index, { class: cls, name: found.name, method: found.method }, ref !== undefined)
  })
}

/** The caller of the entries: `caller`, with the new descriptors (`UNNUMBERED`). */
const callerOfEntries = (caller: Caller, created: readonly (CoreObject | undefined)[]): Caller => {
  /** Core's numbers by the caller's descriptors, so that each is looked up once per chain. */
  const numbers = new Map<number, number | undefined>()
  return {
    memory: caller.memory,
    copyIn: (address, length) => caller.copyIn(address, length),
    copyOut: (address, data) => caller.copyOut(address, data),
    file: fd => caller.file?.(fd),
    ...(caller.openFile && { openFile: fd => caller.openFile!(fd) }),
    ...(caller.processors && { processors: () => caller.processors!() }),
    ...(caller.allows && { allows: capability => caller.allows!(capability) }),
    ...(caller.handlers !== undefined && { handlers: caller.handlers }),
    ...(caller.eventsRead && { eventsRead: (object, read) => caller.eventsRead!(object, read) }),
    descriptor(fd) {
      if (fd >= UNNUMBERED) return created[fd - UNNUMBERED]?.handle
      if (!numbers.has(fd)) numbers.set(fd, caller.descriptor(fd))
      return numbers.get(fd)
    },
  }
}

/**
 * Runs `job` by `Core.runCall`, and resolves with its value. A step that takes longer than STEP_TIME counts as several.
 */
const runAsJob = <T>({ now, runCall }: Core, job: Iterator<unknown, T>): Promise<Awaited<T>> =>
  new Promise((resolve, reject) => {
    function* steps(): Generator<void> {
      try {
        for (;;) {
          const start = now()
          const { done, value } = job.next()
          if (done) {
            resolve(value as Awaited<T>)
            return
          }
          for (let taken = now() - start; taken > 0; taken -= STEP_TIME) yield
        }
      } catch (error) {
        reject(error)
      }
    }
    runCall(steps())
  })

/**
 * Runs a chain. Throws EINVAL for malformed bytes, and if UNDO is requested for a chain that cannot be undone. The
 * error of an entry is in the outcome. Returns a promise if an entry is asynchronous, or if the chain takes longer than
 * `Core.maxCallTime`.
 */
export const runChain = (
  call: CallContext,
  bytes: Uint8Array,
  onError: number,
): ChainOutcome | Promise<ChainOutcome> => {
  const { context, caller } = call
  const { core } = context.device
  const end = core.now() + core.maxCallTime
  // Answers replace the messages in this copy, not in the caller's bytes.
  const results = bytes.slice()
  const entries = chainEntries(results)
  /** By entry: the object that it created. */
  const created: (CoreObject | undefined)[] = []
  /** Further objects that entries created, as pd.createAhs does. */
  const additional: CoreObject[] = []
  const descriptors: NewDescriptor[] = []
  /** Each puts back the events that an entry has read (`Result.putBack`), in order of the entries. */
  const putBacks: (() => void)[] = []

  const view: CallerView = {
    ...callerView(context, caller),
    chained: (subject, type, entry) => {
      const object = createdByEntry(created, subject, type.class, entry)
      return type.kind === 'fd' ? UNNUMBERED + entry : object.handle
    },
  }
  const chainCaller = callerOfEntries(caller, created)
  if (onError === ChainErrors.values.UNDO) checkChainUndoable(view, entries)

  const putBackAll = (): void => {
    for (const putBack of putBacks.splice(0).reverse()) putBack()
  }

  /**
   * Ends the chain, and yields after each destroy. `done`: number of entries that succeeded; `error`: of the next
   * entry.
   */
  function* endChain(done: number, error?: CallError): Generator<void, ChainOutcome> {
    if (error !== undefined && onError === ChainErrors.values.UNDO) {
      yield* undoSteps(context, [...created, ...additional])
    } else {
      const isLive = (object: CoreObject | undefined): object is CoreObject => object?.life === Lifecycle.LIVE
      const live = [...created, ...additional].filter(isLive)
      call.alsoCreated = {
        objects: live.filter(object => object.class.identity === 'handle'),
        descriptors: descriptors.filter(({ object }) => core.descriptors.has(object)),
      }
    }
    return { results, done, error: error?.errno ?? 0, ...(error !== undefined && { reason: error.reason }) }
  }

  /** Runs an entry. Returns its error if it fails; a promise if it is asynchronous. */
  const runEntry = (index: number): CallError | undefined | Promise<CallError | undefined> => {
    const { call: callNumber, ref, at, message } = entries[index]!
    const additionalBefore = additional.length
    const failWith = (error: unknown): CallError => {
      if (!(error instanceof CallError)) {
        // The caller gets no results, so it cannot refer to any object of the chain.
        putBackAll()
        undoObjects(context, [...created, ...additional])
        throw error
      }
      // If the entry's answer did not fit, the caller cannot refer to the object that the entry created.
      undoObjects(context, [created[index], ...additional.splice(additionalBefore)])
      return error
    }
    try {
      const decoded = decodeMessage(view, callNumber, message)
      const { call: decodedCall } = decoded
      if (decoded.roomError !== undefined) {
        decoded.refuse()
        return failWith(decoded.roomError)
      }
      const { class: cls, methodName } = decodedCall
      checkEntry(index, { class: cls, name: methodName, method: decodedCall.method }, ref)
      const object =
        ref === undefined
          ? decodedCall.object
          : createdByEntry(created, the.method(`${cls.name}.${methodName}`), cls.name, ref).handle
      const deviceMethod = methodOf(context, cls, callNumber, methodName)
      const recordAnswer = (result: Result): undefined => {
        created[index] = createdBy(context, result, additional)
        try {
          for (const { descriptor, offset } of decoded.answer(result).installs)
            descriptors.push({ object: descriptor.object, attribute: 'results', offset: at + offset })
        } catch (error) {
          result.putBack?.()
          throw error
        }
        if (result.putBack !== undefined) putBacks.push(result.putBack)
      }
      const result = execute(context, deviceMethod, object, decodedCall.args, chainCaller)
      return result instanceof Promise ? result.then(recordAnswer).catch(failWith) : recordAnswer(result)
    } catch (error) {
      return failWith(error)
    }
  }

  /** Runs the entries from `first` on, and yields after each. An asynchronous entry ends the job with a promise. */
  function* remaining(first: number): Generator<void, ChainOutcome | Promise<ChainOutcome>> {
    for (let index = first; index < entries.length; index++) {
      const failure = runEntry(index)
      if (failure instanceof Promise)
        return failure.then(error => runUntilLimit(error === undefined ? remaining(index + 1) : endChain(index, error)))
      if (failure !== undefined) return yield* endChain(index, failure)
      yield
    }
    return yield* endChain(entries.length)
  }

  const runUntilLimit = (
    steps: Iterator<void, ChainOutcome | Promise<ChainOutcome>>,
  ): ChainOutcome | Promise<ChainOutcome> => {
    while (core.now() <= end) {
      const { done, value } = steps.next()
      if (done) return value
    }
    return runAsJob(core, steps)
  }

  onUndelivered(call, putBackAll)
  return runUntilLimit(remaining(0))
}
