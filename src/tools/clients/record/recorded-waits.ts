/*
 * Records what programs wait for (spec/check/waits.ts): a wait is recorded when it has lasted for a second, and when it
 * is over, so that a recording that ends in whatever way says what its programs waited for last.
 */
import type { Context } from '../../../core/model.ts'
import { findHandle } from '../../../core/objects/handles.ts'
import type { Clock, Timer } from '../../../host/event-loop/clock.ts'
import type { Wait, WaitStat } from '../../../spec/check/waits.ts'
import type { WaitEvent, WaitFacts } from '../../../spec/session-events.ts'
import type { Recorder } from './recorder.ts'

/** Milliseconds between two looks; longer if a look takes long. */
const INTERVAL = 500
/** Looks take at most this part of the time. */
const MAX_SHARE = 1 / 20
/** Microseconds after which a wait is recorded: before, it may be work in progress. */
const MIN_WAIT = 1_000_000

/** A wait that a look has found. */
export interface FoundWait extends WaitStat {
  /** Undefined: of rdma_cm. */
  readonly context: Context | undefined
  /** Ids of the objects that it names, as in `WaitFacts`. */
  readonly objects: readonly number[]
}

interface Watched {
  readonly context: Context | undefined
  readonly facts: WaitFacts
  /** Its number in the recording; undefined: it has not lasted long enough. */
  number: number | undefined
}

const keyOf = ({ pid, device, id, text, context }: FoundWait): string =>
  `${pid} ${device} ${context?.id ?? ''} ${id} ${text}`

interface RecordedWaits {
  /** Looks at the present state. */
  look(): void
  /** Looks a last time, and stops looking. */
  end(): void
}

/** Ids of the objects of a recording that a wait names. */
export const objectsOfWait = (recorder: Pick<Recorder, 'qpId'>, { device, handles }: Context, wait: Wait): number[] => {
  const { qpns = [], peerDevice = device.index } = wait
  const qps = qpns.map((qpn, i) => recorder.qpId(i === 1 ? peerDevice : device.index, qpn))
  const cq = wait.cq === undefined ? undefined : findHandle(handles, wait.cq)
  return [...qps.filter(id => id !== 0), ...(cq?.class.name === 'cq' ? [cq.id] : [])]
}

/**
 * Starts to look. `find`: what programs wait for now. `write` writes an event. `guard` returns the look with a handler
 * of its errors.
 */
export const recordWaits = (
  find: () => readonly FoundWait[],
  clock: Pick<Clock, 'now' | 'after' | 'clear'>,
  write: (event: Omit<WaitEvent, 'kind'>) => void,
  guard: (name: string, look: () => void) => () => void = (_name, look) => look,
): RecordedWaits => {
  let watched = new Map<string, Watched>()
  let last = 0
  let timer: Timer | undefined
  let isEnded = false

  const isClosed = ({ context, facts: { pid } }: Watched, found: readonly FoundWait[]): boolean =>
    context === undefined ? !found.some(wait => wait.pid === pid) : !context.device.contexts.has(context)

  const look = guard('a look at what programs wait for, for a recording', () => {
    const time = clock.now()
    const before = watched
    watched = new Map()
    const found = find()
    for (const wait of found) {
      const { context, ...stat } = wait
      const key = keyOf(wait)
      const one = before.get(key) ?? { context, facts: { ...stat, since: time }, number: undefined }
      before.delete(key)
      watched.set(key, one)
      if (one.number !== undefined || time - one.facts.since < MIN_WAIT) continue
      one.number = ++last
      write({ wait: last, change: 'began', facts: one.facts })
    }
    for (const one of before.values())
      if (one.number !== undefined)
        write({ wait: one.number, change: isClosed(one, found) ? 'closed' : 'over', facts: one.facts })
  })

  const lookLater = (delay: number): void => {
    timer = clock.after(delay, 'passive', () => {
      const start = clock.now()
      look()
      if (!isEnded) lookLater(Math.max(INTERVAL, (clock.now() - start) / 1000 / MAX_SHARE))
    })
  }
  lookLater(INTERVAL)

  return {
    look,
    end() {
      isEnded = true
      clock.clear(timer)
      look()
    },
  }
}
