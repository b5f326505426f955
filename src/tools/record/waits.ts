/*
 * What the programs of a session wait for, and how they have ended, from its events: for the page and for text.
 */
import { inReportOrder, type WaitId } from '../../spec/check/waits.ts'
import type { ProgramEndEvent, SessionEvent, WaitFacts } from '../../spec/session-events.ts'
import { SessionFileError } from './error.ts'
import type { Session, SessionBlock } from './reader.ts'

/** A wait of a session. */
export interface SessionWait {
  /** Of the finding. */
  readonly id: WaitId
  readonly facts: WaitFacts
  /**
   * `waits`: it is not over as far as the session goes. `closed`: it lasted until the program ended or closed the
   * device.
   */
  state: 'waits' | 'over' | 'closed'
  /** Microseconds of the recorder's clock, when it was over; undefined: `waits`. */
  end: number | undefined
}

/** Waits that are kept at most. */
const MAX_WAITS = 1000

export class SessionWaits {
  /** By number. */
  readonly #waits = new Map<number, SessionWait>()
  /** By pid. */
  readonly #ends = new Map<number, ProgramEndEvent & { readonly time: number }>()

  /** Adds an event; ignores kinds that are about neither waits nor ends. */
  add(event: SessionEvent): void {
    if (event.kind === 'programEnd') {
      if (this.#ends.size < MAX_WAITS || this.#ends.has(event.pid)) this.#ends.set(event.pid, event)
      // The recording may end before the daemon has closed the program's devices.
      for (const wait of this.#waits.values()) {
        if (wait.facts.pid !== event.pid || wait.state !== 'waits') continue
        wait.state = 'closed'
        wait.end = event.time
      }
      return
    }
    if (event.kind !== 'wait') return
    const { wait: number, change, facts, time } = event
    const isEnd = change === 'over' || change === 'closed'
    const known = this.#waits.get(number)
    if (known === undefined) {
      this.#waits.set(number, { id: facts.id, facts, state: isEnd ? change : 'waits', end: isEnd ? time : undefined })
      this.#drop()
    } else if (isEnd && known.state === 'waits') {
      known.state = change
      known.end = time
    }
  }

  /** Drops a wait that is over, or the oldest, if there are too many. */
  #drop(): void {
    if (this.#waits.size <= MAX_WAITS) return
    let dropped: number | undefined
    for (const [number, { state }] of this.#waits) {
      dropped ??= number
      if (state !== 'over') continue
      dropped = number
      break
    }
    this.#waits.delete(dropped!)
  }

  /** Waits that are not over, or lasted until the program ended: in the order of reports. */
  get lasting(): readonly SessionWait[] {
    return inReportOrder([...this.#waits.values()].filter(({ state }) => state !== 'over'))
  }

  /** All waits that name an object, the oldest first. */
  of(object: number): readonly SessionWait[] {
    return [...this.#waits.values()].filter(({ facts }) => facts.objects.includes(object))
  }

  /** How programs have ended, the first first. */
  get programEnds(): readonly (ProgramEndEvent & { readonly time: number })[] {
    return [...this.#ends.values()]
  }
}

/** How a program has ended, as a clause without subject: `ended with status 1`. */
export const programEndText = ({ status, signal }: Pick<ProgramEndEvent, 'status' | 'signal'>): string =>
  signal === '' ? `ended with status ${status}` : `was ended by ${signal}`

/** Blocks at the end of an ended recording that say what its programs waited for. */
const LAST_BLOCKS = 2

/**
 * The waits that are not over at the end of a session, and how its programs have ended, without reading all of it: a
 * recording that has ended repeats them. Of one that has not, the newest segment is read. Then `add` gets its end too.
 */
export const readLastWaits = async (session: Session, add: (event: SessionEvent) => void): Promise<void> => {
  const blocks = session.blocks.filter(({ isCheckpoint }) => !isCheckpoint)
  const newest = blocks.at(-1)
  if (newest === undefined) return
  const { events } = await session.checkpointBefore(Number.POSITIVE_INFINITY)
  const last: SessionEvent[] = []
  const read = async (some: readonly SessionBlock[]): Promise<void> => {
    for (const block of some)
      try {
        last.push(...(await session.read(block)))
      } catch (error) {
        if (!(error instanceof SessionFileError)) throw error
      }
  }
  await read(blocks.slice(-LAST_BLOCKS))
  if (last.at(-1)?.kind !== 'end') {
    last.length = 0
    await read(blocks.filter(({ sequence }) => sequence === newest.sequence))
  }
  for (const event of [...events, ...last])
    if (event.kind === 'wait' || event.kind === 'programEnd' || event.kind === 'end') add(event)
}
