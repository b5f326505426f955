/*
 * The order in which a walk tries its points: in turns of kinds, phases, processes and lines of the program, so that
 * any budget reaches some of each, and a line a second time only when all of its state have had their first.
 */
import type { ProgramPhase } from '../../spec/faults.ts'
import type { WalkPoint } from './points.ts'

/** What programs are written for comes first. */
const PHASES: readonly ProgramPhase[] = ['transfers', 'connects', 'closes', 'has a queue pair', 'begins']

type Key = (point: WalkPoint) => string

const rotated = <T>(list: readonly T[], by: number): readonly T[] => {
  const at = by % Math.max(1, list.length)
  return [...list.slice(at), ...list.slice(0, at)]
}

/** The first of each list, then the second of each … */
const merged = <T>(lists: readonly (readonly T[])[]): readonly T[] => {
  const longest = Math.max(0, ...lists.map(({ length }) => length))
  return Array.from({ length: longest }, (_, i) => lists.flatMap(list => list.slice(i, i + 1))).flat()
}

/**
 * Points in turns of the first key, those of one value in turns of the next. The values of a key begin with another one
 * for each value of the keys before, so that few points have many of all; so do the failures at one line.
 */
const inTurnsOf = (points: readonly WalkPoint[], [key, ...others]: readonly Key[], turn = 0): readonly WalkPoint[] => {
  if (key === undefined) return rotated(points, turn)
  const groups = new Map<string, WalkPoint[]>()
  for (const point of points) {
    const value = key(point)
    const group = groups.get(value)
    if (group === undefined) groups.set(value, [point])
    else group.push(point)
  }
  return merged(rotated([...groups.values()], turn).map((group, i) => inTurnsOf(group, others, turn + i)))
}

/** `lineOf`: the source line, or what stands for it. */
export const inTurns = (points: readonly WalkPoint[], lineOf: Key): readonly WalkPoint[] =>
  inTurnsOf(
    PHASES.flatMap(phase => points.filter(point => point.phase === phase)),
    [({ kind }) => kind, ({ phase }) => phase, ({ host, site }) => `${host} ${site?.role}`, lineOf],
  )
