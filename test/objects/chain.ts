/*
 * Chains in the reference (R16): entries run in order; the first failure ends the chain, and with UNDO destroys
 * everything that it created, newest first.
 */
import { Errno } from '../../src/spec/errno.ts'
import { type AnyValues, type ObjectClass, QUERY } from '../../src/spec/schema/schema.ts'
import { type Code, destroyObject, isCreate, type ModelObject, type Scope } from './reference.ts'
import { type Outcome, perform } from './rules.ts'

/** One call of a chain. */
export interface Entry {
  readonly cls: ObjectClass
  readonly methodName: string
  /** The handle of the target. */
  readonly object: number
  /** The index of the entry whose object is the target; then `object` is unused. */
  readonly targetEntry?: number
  readonly args: AnyValues
  /** By attribute: the index of the entry whose object is the argument; replaces the value in `args`. */
  readonly refs: Readonly<Record<string, number>>
}

export interface ChainResult {
  /** Error of the chain as a whole: refused before any entry was executed. */
  readonly code: Code
  /** Number of entries that succeeded. */
  readonly done: number
  /** The errno of the entry that failed, positive; 0 if none did. */
  readonly error: number
  /** The results of the entries that succeeded, in order. */
  readonly outcomes: readonly Outcome[]
}

/** A descriptor created in the chain gets its number at the end; until then it has this plus the index of its entry. */
const UNNUMBERED = 0x8000_0000

/** The arguments after resolving an entry's references, or the error. */
const resolve = (
  { cls, methodName, args, refs }: Entry,
  createdObjects: readonly (ModelObject | undefined)[],
): AnyValues | Code => {
  const resolved: AnyValues = { ...args }
  for (const [name, { type }] of Object.entries(cls.methods[methodName].in)) {
    const entryIndex = refs[name]
    if (entryIndex === undefined || (type.kind !== 'ref' && type.kind !== 'fd')) continue
    const modelObject = createdObjects[entryIndex]
    if (modelObject === undefined) return 'EINVAL'
    if (modelObject.isGone) return 'ENOENT'
    if (modelObject.class !== type.class) return 'EINVAL'
    resolved[name] = type.kind === 'fd' ? UNNUMBERED + entryIndex : modelObject.handle
  }
  return resolved
}

const performEntry = (scope: Scope, entry: Entry, createdObjects: readonly (ModelObject | undefined)[]): Outcome => {
  const refused = (code: Code): Outcome => ({ code, out: {} })
  const args = resolve(entry, createdObjects)
  if (typeof args === 'string') return refused(args)
  const { cls, methodName, targetEntry } = entry
  if (targetEntry === undefined) return perform(scope, cls, methodName, entry.object, args)
  if (isCreate(cls.methods[methodName])) return refused('EINVAL')
  const modelObject = createdObjects[targetEntry]
  if (modelObject === undefined) return refused('EINVAL')
  if (modelObject.isGone) return refused('ENOENT')
  // A descriptor of another class is looked up as handle -1, which does not exist: ENOENT.
  return perform(scope, cls, methodName, modelObject.class === cls.name ? modelObject : modelObject.handle, args)
}

export const performChain = (scope: Scope, entries: readonly Entry[], undo: boolean): ChainResult => {
  const outcomes: Outcome[] = []
  const resultOf = (code: Code, error = 0): ChainResult => ({ code, done: outcomes.length, error, outcomes })
  if (!scope.opening.device.isAlive || scope.opening.hasEnded) return resultOf('EIO')
  const isUndoable = ({ cls, methodName, targetEntry }: Entry): boolean => {
    const method = cls.methods[methodName]
    return isCreate(method) || method.call === QUERY || method.undoable === true || targetEntry !== undefined
  }
  if (undo && !entries.every(isUndoable)) return resultOf('EINVAL')
  const createdObjects: (ModelObject | undefined)[] = []
  const fds = new Map(scope.fds)
  for (const entry of entries) {
    const outcome = performEntry({ ...scope, fds }, entry, createdObjects)
    if (outcome.code === 'ok') {
      createdObjects.push(outcome.modelObject)
      outcomes.push(outcome)
      if (outcome.modelObject && entry.cls.identity === 'fd')
        fds.set(UNNUMBERED + createdObjects.length - 1, outcome.modelObject)
      continue
    }
    if (undo) undoOutcomes(scope, outcomes)
    return resultOf('ok', Errno[outcome.code as keyof typeof Errno])
  }
  return resultOf('ok')
}

/** Destroys everything that the entries created, newest first. */
const undoOutcomes = ({ opening }: Scope, outcomes: readonly Outcome[]): void => {
  const createdInChain = outcomes.flatMap(({ modelObject, createdAhs = [] }) => [
    ...(modelObject === undefined ? [] : [modelObject]),
    ...createdAhs,
  ])
  for (const modelObject of createdInChain.sort((a, b) => b.id - a.id)) {
    if (opening.asyncFd === modelObject) opening.asyncFd = undefined
    destroyObject(modelObject)
  }
}
