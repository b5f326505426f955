/*
 * What a send waits for, from the device's first look at it to the poll of its completion: the phases that
 * `userdma explain --slow` and the page show.
 */

/** In the order of a request's life, with what interrupts it. `label`: the title in short. `advice`: what to do if the phase dominates. */
export const phases = {
  turn: {
    label: 'its turn',
    title: 'its turn: earlier requests of the queue pair were still being sent',
    advice: 'use more queue pairs, or smaller messages',
  },
  fence: {
    label: 'fence',
    title: 'READs and atomics before it (IBV_SEND_FENCE)',
    advice: 'set IBV_SEND_FENCE only on requests that need the data of earlier READs',
  },
  reads: {
    label: 'max_rd_atomic',
    title: 'a slot for a READ or atomic (max_rd_atomic)',
    advice: 'connect with a larger max_rd_atomic and max_dest_rd_atomic',
  },
  window: {
    label: 'window',
    title: 'acknowledgements of earlier data (the window was full)',
    advice: "the network or the peer takes no more than this; look at the peer's load and at losses",
  },
  device: {
    label: 'device',
    title: 'the device',
    advice: 'the process that runs the device was busy: look at its CPU',
  },
  receiver: {
    label: 'no receive (RNR)',
    title: 'a receive of the peer (RNR)',
    advice: "post the peer's receives earlier, and as many as messages can be under way",
  },
  loss: {
    label: 'loss',
    title: 'lost packets that were sent again',
    advice: 'find where packets are lost; a shorter timeout of the queue pair notices a loss earlier',
  },
  sending: {
    label: 'own packets',
    title: 'its own packets, first to last',
    advice: 'the message is long for this path',
  },
  answer: {
    label: 'acknowledgement',
    title: 'the acknowledgement or answer',
    advice: 'network and peer: post several requests before waiting for the first',
  },
  completion: {
    label: 'completion',
    title: 'the completion, after the acknowledgement',
    advice: 'completions are in order: an earlier request was not complete',
  },
  program: {
    label: 'poll',
    title: 'the poll of the program',
    advice:
      'poll earlier, or from a thread of its own; a program that waits for events is woken late on a busy machine',
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
