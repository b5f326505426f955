/*
 * Chains in the reference (R16). The first failure ends a chain; with UNDO it also destroys all objects that the chain
 * created, newest first.
 */
import { Errno } from '../../../src/spec/errno.ts'
import { type AnyValues, type ObjectClass, QUERY } from '../../../src/spec/schema/schema.ts'
import { type Code, destroyObject, isCreate, type ModelObject, type Scope } from './reference.ts'
import { type Outcome, perform } from './rules.ts'

export interface Entry {
  readonly cls: ObjectClass
  readonly methodName: string
  /** The handle of the target, if `targetEntry` is undefined. */
  readonly object: number
  /** The index of the entry that creates the target. */
  readonly targetEntry?: number
  readonly args: AnyValues
  /** By attribute: the index of the entry that creates the argument's object. The value in `args` is not used. */
  readonly refs: Readonly<Record<string, number>>
}

interface ChainResult {
  /** 'ok', or the errno of a chain that was refused before its first entry. */
  readonly code: Code
  /** The number of entries that succeeded. */
  readonly done: number
  /** The positive errno of the entry that failed; 0 if no entry failed. */
  readonly error: number
  /** The results of the entries that succeeded. */
  readonly outcomes: readonly Outcome[]
}

/** Until the end of the chain a new descriptor has this number plus the index of its entry. */
const UNNUMBERED = 0x8000_0000

/** The arguments of an entry with its references resolved, or the errno. */
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
  if (modelObject.class !== cls.name) return refused('EINVAL')
  return perform(scope, cls, methodName, modelObject, args)
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
