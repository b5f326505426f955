/*
 * Chains in the reference (R16): entries run in order; the first failure ends the chain, and with UNDO destroys
 * everything that it created, newest first.
 */
import { Errno } from '../../src/spec/errno.ts'
import { type AnyValues, type ObjectClass, QUERY } from '../../src/spec/schema/schema.ts'
import { type Code, forget, isCreate, type ModelObject, type Names } from './reference.ts'
import { type Outcome, perform } from './rules.ts'

/** One call of a chain; the arguments in `refs` are objects created by those entries. */
export interface Entry {
  readonly cls: ObjectClass
  readonly methodName: string
  /** A handle; `from`: the object created by this entry. */
  readonly object: number
  readonly from?: number
  readonly args: AnyValues
  readonly refs: Readonly<Record<string, number>>
}

export interface ChainResult {
  /** Error of the chain as a whole: refused before any entry was executed. */
  readonly code: Code
  readonly done: number
  readonly error: number
  /** By entry: the results of those that succeeded. */
  readonly outcomes: readonly Outcome[]
}

/** Descriptors of the chain have no number yet. */
const UNNUMBERED = 0x8000_0000

/** The arguments after resolving an entry's references, or the error. */
const resolve = (
  { cls, methodName, args, refs }: Entry,
  made: readonly (ModelObject | undefined)[],
): AnyValues | Code => {
  const resolved: AnyValues = { ...args }
  for (const [name, { of }] of Object.entries(cls.methods[methodName].in)) {
    const entry = refs[name]
    if (entry === undefined || (of.kind !== 'ref' && of.kind !== 'fd')) continue
    const modelObject = made[entry]
    if (modelObject === undefined) return 'EINVAL'
    if (modelObject.gone) return 'ENOENT'
    if (modelObject.class !== of.class) return 'EINVAL'
    resolved[name] = of.kind === 'fd' ? UNNUMBERED + entry : modelObject.handle
  }
  return resolved
}

const one = (names: Names, entry: Entry, made: readonly (ModelObject | undefined)[]): Outcome => {
  const refused = (code: Code): Outcome => ({ code, out: {} })
  const args = resolve(entry, made)
  if (typeof args === 'string') return refused(args)
  const { cls, methodName, from } = entry
  if (from === undefined) return perform(names, cls, methodName, entry.object, args)
  if (isCreate(cls.methods[methodName])) return refused('EINVAL')
  const modelObject = made[from]
  if (modelObject === undefined) return refused('EINVAL')
  if (modelObject.gone) return refused('ENOENT')
  return perform(names, cls, methodName, modelObject.class === cls.name ? modelObject : modelObject.handle, args)
}

export const performChain = (names: Names, entries: readonly Entry[], undo: boolean): ChainResult => {
  const outcomes: Outcome[] = []
  const ended = (code: Code, error = 0): ChainResult => ({ code, done: outcomes.length, error, outcomes })
  if (!names.opening.device.alive || names.opening.ended) return ended('EIO')
  const isLasting = ({ cls, methodName, from }: Entry): boolean => {
    const method = cls.methods[methodName]
    return !isCreate(method) && method.call !== QUERY && method.undoable !== true && from === undefined
  }
  if (undo && entries.some(isLasting)) return ended('EINVAL')
  const made: (ModelObject | undefined)[] = []
  const fds = new Map(names.fds)
  for (const entry of entries) {
    const outcome = one({ ...names, fds }, entry, made)
    if (outcome.code === 'ok') {
      made.push(outcome.modelObject)
      outcomes.push(outcome)
      if (outcome.modelObject?.handle === -1) fds.set(UNNUMBERED + made.length - 1, outcome.modelObject)
      continue
    }
    if (undo) undoOutcomes(names, outcomes)
    return ended('ok', Errno[outcome.code as keyof typeof Errno])
  }
  return ended('ok')
}

const undoOutcomes = ({ opening }: Names, outcomes: readonly Outcome[]): void => {
  const all = outcomes.flatMap(({ modelObject, others = [] }) => [
    ...(modelObject === undefined ? [] : [modelObject]),
    ...others,
  ])
  for (const modelObject of all.sort((a, b) => b.id - a.id)) {
    if (opening.asyncFd === modelObject) opening.asyncFd = undefined
    forget(modelObject)
  }
}
