/*
 * Records what programs wait for (spec/check/waits.ts): a wait is recorded when it has lasted for a second, and when it
 * is over, so that a recording that ends in whatever way says what its programs waited for last.
 */
import type { Context } from '../core/model.ts'
import type { WaitEvent, WaitFacts } from '../tools/record/events.ts'
import type { WaitStat } from '../uapi/tool.ts'
import type { Containment } from './containment.ts'

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

export interface RecordedWaits {
  /** Looks at the present state. */
  look(): void
  /** Looks a last time, and stops looking. */
  end(): void
}

/** Starts to look. `find`: what programs wait for now. `now`: microseconds. `write` writes an event. */
export const recordWaits = (
  find: () => readonly FoundWait[],
  now: () => number,
  write: (event: Omit<WaitEvent, 'kind'>) => void,
  containment: Pick<Containment, 'guard'>,
): RecordedWaits => {
  let watched = new Map<string, Watched>()
  let last = 0
  let timer: NodeJS.Timeout | undefined
  let isEnded = false

  const isClosed = ({ context, facts: { pid } }: Watched, found: readonly FoundWait[]): boolean =>
    context === undefined ? !found.some(wait => wait.pid === pid) : !context.device.contexts.has(context)

  const look = containment.guard('a look at what programs wait for, for a recording', () => {
    const time = now()
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
    timer = setTimeout(() => {
      const start = performance.now()
      look()
      if (!isEnded) lookLater(Math.max(INTERVAL, (performance.now() - start) / MAX_SHARE))
    }, delay).unref()
  }
  lookLater(INTERVAL)

  return {
    look,
    end() {
      isEnded = true
      clearTimeout(timer)
      look()
    },
  }
}
