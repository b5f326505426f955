/*
 * A coverage-guided fuzzer: mutates inputs, runs them against a target, and keeps inputs that reach new code or a new
 * feature. All randomness comes from a seed.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fixture } from '../../paths.ts'
import { createRandomSource } from '../model/random.ts'
import type { Coverage } from './coverage.ts'
import { mutate } from './mutate.ts'

export interface Target {
  readonly name: string
  /** Throws if the input shows a fault. `feature` reports an event by a number; an input with a new number is kept. */
  run(bytes: Uint8Array, feature: (number: number) => void): void
  /** Splits an input, for mutations that keep its structure. */
  split?(bytes: Uint8Array): Uint8Array[]
  /** Initial inputs, besides the corpus. */
  seeds(): Uint8Array[]
}

/** An input on which a target fails. */
export class Finding extends Error {
  readonly input: Uint8Array
  constructor(target: Target, input: Uint8Array, cause: unknown) {
    const text = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause)
    super(`${target.name}: ${text}\ninput: ${Buffer.from(input).toString('base64')}`, { cause })
    this.input = input
  }
}

const folderOf = (target: Target): string => fixture('corpus', target.name)

/** Inputs stored in the repository, sorted by name. */
export const readCorpus = (target: Target): { name: string; bytes: Uint8Array }[] => {
  let names: string[] = []
  try {
    names = readdirSync(folderOf(target)).sort()
  } catch {
    // the target has no corpus
  }
  return names.map(name => ({ name, bytes: new Uint8Array(readFileSync(join(folderOf(target), name))) }))
}

/** Stores an input in the corpus. Returns its name: the prefix and a hash. */
export const keepInput = (target: Target, bytes: Uint8Array, prefix = ''): string => {
  const name = prefix + createHash('sha256').update(bytes).digest('hex').slice(0, 12)
  mkdirSync(folderOf(target), { recursive: true })
  writeFileSync(join(folderOf(target), name), bytes)
  return name
}

/** Replaces the corpus, except regressions. */
export const replaceCorpus = (target: Target, inputs: readonly Uint8Array[]): void => {
  for (const { name } of readCorpus(target)) if (!name.startsWith('regression-')) rmSync(join(folderOf(target), name))
  for (const bytes of inputs) keepInput(target, bytes)
}

/** Runs one input. Throws a Finding if the target throws. */
export const runInput = (target: Target, bytes: Uint8Array, feature: (number: number) => void = () => {}): void => {
  try {
    // a copy in its own buffer, so that reading past the end fails
    target.run(bytes.slice(), feature)
  } catch (error) {
    throw new Finding(target, bytes, error)
  }
}

/** Number of mutated inputs after which the coverage is read. */
const BATCH = 64

interface FuzzResult {
  readonly executions: number
  readonly features: number
  /** Inputs that reached something new, in the order of discovery. */
  readonly kept: readonly Uint8Array[]
}

/**
 * Calls `continues` with the number of executions before each batch, and fuzzes until it returns false. Throws the
 * first Finding.
 */
export const fuzz = (
  target: Target,
  seed: number,
  coverage: Coverage,
  continues: (executions: number) => boolean,
): FuzzResult => {
  const random = createRandomSource(seed)
  const features = new Set<number>()
  const kept: Uint8Array[] = []
  const initial = [...readCorpus(target).map(entry => entry.bytes), ...target.seeds()]
  if (initial.length === 0) initial.push(new Uint8Array(1))
  // discards the coverage of reading the corpus and making the seeds
  coverage.countNew()
  let executions = 0
  /** Runs an input. Returns true if a feature is new. */
  const execute = (bytes: Uint8Array): boolean => {
    const before = features.size
    executions++
    runInput(target, bytes, number => features.add(number))
    return features.size > before
  }
  for (const bytes of initial) {
    const isNew = execute(bytes)
    if (coverage.recordNew() > 0 || isNew) kept.push(bytes)
  }
  const pickInput = (): Uint8Array => (random.hits(0.8) ? random.pick(kept) : random.pick(initial))
  /** Runs inputs again, and keeps those that reach new code. */
  const bisect = (inputs: readonly Uint8Array[]): void => {
    for (const bytes of inputs) execute(bytes)
    if (inputs.length === 1) {
      if (coverage.recordNew() > 0) kept.push(inputs[0])
      return
    }
    if (coverage.countNew() === 0) return
    bisect(inputs.slice(0, inputs.length >> 1))
    bisect(inputs.slice(inputs.length >> 1))
  }
  while (continues(executions)) {
    const batch = Array.from({ length: BATCH }, () => mutate(pickInput(), pickInput(), target.split, random))
    for (const bytes of batch) if (execute(bytes)) kept.push(bytes)
    if (coverage.countNew() > 0) bisect(batch)
  }
  return { executions, features: features.size, kept }
}

/** A small set of inputs with equal coverage: from the shortest on, inputs that add coverage. */
export const minimise = (target: Target, inputs: readonly Uint8Array[], coverage: Coverage): Uint8Array[] =>
  [...inputs]
    .sort((a, b) => a.length - b.length)
    .filter(bytes => {
      runInput(target, bytes)
      return coverage.recordNew() > 0
    })
