/*
 * What a send waits for, from the device's first look at it to the poll of its completion: the phases that
 * `userdma explain --slow` and the page show.
 */

/** In the order of a request's life, with what interrupts it. `label`: the title in short. */
export const phases = {
  turn: {
    label: 'its turn',
    title: 'its turn: earlier requests of the queue pair were still being sent',
  },
  fence: {
    label: 'fence',
    title: 'READs and atomics before it (IBV_SEND_FENCE)',
  },
  reads: {
    label: 'max_rd_atomic',
    title: 'a slot for a READ or atomic (max_rd_atomic)',
  },
  window: {
    label: 'window',
    title: 'acknowledgements of earlier data (the window was full)',
  },
  device: {
    label: 'device',
    title: 'the device',
  },
  receiver: {
    label: 'no receive (RNR)',
    title: 'a receive of the peer (RNR)',
  },
  loss: {
    label: 'loss',
    title: 'lost packets that were sent again',
  },
  sending: {
    label: 'own packets',
    title: 'its own packets, first to last',
  },
  answer: {
    label: 'acknowledgement',
    title: 'the acknowledgement or answer',
  },
  completion: {
    label: 'completion',
    title: 'the completion, after the acknowledgement',
  },
  program: {
    label: 'poll',
    title: 'the poll of the program',
  },
} as const

export type Phase = keyof typeof phases
export const phaseNames = Object.keys(phases) as Phase[]

/** Microseconds by phase. */
export type PhaseTimes = Record<Phase, number>

export const noTimes = (): PhaseTimes => Object.fromEntries(phaseNames.map(name => [name, 0])) as PhaseTimes

/** A part of a request's time. `from`, `to`: microseconds of the recorder's clock. */
export interface Span {
  readonly phase: Phase
  readonly from: number
  readonly to: number
}

/** A time in which a queue pair could not go on; microseconds. */
export interface Stall {
  readonly phase: 'receiver' | 'loss'
  readonly from: number
  readonly to: number
}

/** The spans of `spans`, with the parts that a stall covers as spans of the stall. All in ascending order. */
export const interrupted = (spans: readonly Span[], stalls: readonly Stall[]): Span[] => {
  const parts: Span[] = []
  const add = (phase: Phase, from: number, to: number): void => {
    const last = parts[parts.length - 1]
    if (to <= from) return
    if (last?.phase === phase && last.to === from) parts[parts.length - 1] = { phase, from: last.from, to }
    else parts.push({ phase, from, to })
  }
  for (const { phase, from, to } of spans) {
    let at = from
    // After the acknowledgement nothing interrupts a request.
    if (phase !== 'completion' && phase !== 'program')
      for (const stall of stalls) {
        if (stall.to <= at || stall.from >= to) continue
        add(phase, at, Math.max(at, stall.from))
        add(stall.phase, Math.max(at, stall.from), Math.min(to, stall.to))
        at = Math.min(to, stall.to)
      }
    add(phase, at, to)
  }
  return parts
}

/** Phases with their times, the longest first. Without those of no time. */
export const rankedPhases = (times: Readonly<PhaseTimes>): readonly (readonly [Phase, number])[] =>
  phaseNames
    .map(name => [name, times[name]] as const)
    .filter(([, time]) => time > 0)
    .sort(([, a], [, b]) => b - a)

export const sumOfPhases = (times: Readonly<PhaseTimes>): number =>
  phaseNames.reduce((sum, name) => sum + times[name], 0)

export const timesOfSpans = (spans: readonly Span[]): PhaseTimes => {
  const times = noTimes()
  for (const { phase, from, to } of spans) times[phase] += to - from
  return times
}
