/*
 * Lent memory in sessions of depth `check`: what programs say of their memory, and what peers do there, as bars over
 * time.
 */
import type { Stack } from '../../spec/check/finding.ts'
import type { ProgramEvent } from '../../spec/check/program-events.ts'
import type { ObjectEvent, ProgramPart, SessionEvent } from '../../spec/session-events.ts'

/** Events of other names, or in several parts, are not of lends. */
const OF_LENDS = /^\{"event":"(?:lent|takenBack|unchecked|named|advertised|lendsEnd)"/

/** Ranges, lends and accesses that are kept: the first ones. */
const MAX_RANGES = 20_000
const MAX_LENDS = 100_000
const MAX_ACCESSES = 200_000
/** A range of more pages is looked up by itself. */
const MAX_PAGES = 64
const PAGE = 4096

export type LendEventName = ProgramEvent['event'] &
  ('lent' | 'takenBack' | 'unchecked' | 'named' | 'advertised' | 'lendsEnd')

/** What was said of memory. The file may be from somebody else: a field that is not as it should be is absent. */
export interface LendEvent {
  readonly name: LendEventName
  readonly pid?: number | undefined
  readonly start?: number | undefined
  readonly end?: number | undefined
  readonly rights?: number | undefined
  readonly label?: string | undefined
  /** Of the lend, and of the name of bytes. */
  readonly lend?: number | undefined
  /** The queue pair by whose peer it may be accessed; of a message, the id of the object. */
  readonly qp?: number | undefined
  /** Microseconds, the recorder's clock. */
  readonly until?: number | undefined
  readonly stack: Stack
}

/** Whether an event tells of lent memory. */
export const isOfLends = (event: SessionEvent): boolean =>
  event.kind === 'accessed' || (event.kind === 'program' && OF_LENDS.test(event.text))

const numberIn = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isFinite(value) ? value : undefined

/** Undefined: an event of something else. */
export const lendEvent = ({ text, hasMore }: ProgramPart): LendEvent | undefined => {
  if (hasMore || !OF_LENDS.test(text)) return undefined
  let value: Partial<Record<string, unknown>>
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  const { event, pid, start, end, rights, label, name, lend, qpn, qp, until, stack } = value
  return {
    name: event as LendEventName,
    pid: numberIn(pid),
    start: numberIn(start),
    end: numberIn(end),
    rights: numberIn(rights),
    label: typeof label === 'string' ? label : typeof name === 'string' ? name : undefined,
    lend: numberIn(lend),
    qp: numberIn(qpn) ?? numberIn(qp),
    until: numberIn(until),
    stack: Array.isArray(stack) && stack.every(frame => typeof frame === 'string') ? stack : [],
  }
}

/** Bytes that were lent for a time. */
export interface LendBar {
  readonly from: number
  /** Undefined: it lasts, or nobody says when it ends. */
  to: number | undefined
  readonly label: string
  /** Bits of LendRight; undefined: a message has told a peer of them. */
  readonly rights: number | undefined
  readonly qp: number
  readonly until: number | undefined
  readonly stack: Stack
  endStack: Stack
}

export interface LentAccess {
  readonly time: number
  readonly start: number
  readonly length: number
  /** ibv_access_flags. */
  readonly access: number
  /** The responder's. */
  readonly qpn: number
  /** The owner had lent bytes of the range, and none of them at that time. */
  readonly isLate: boolean
}

/** The same bytes of a process, each time they were lent. */
export interface LentRange {
  readonly pid: number | undefined
  readonly start: number
  readonly end: number
  name: string
  readonly bars: LendBar[]
  readonly accesses: LentAccess[]
  /** Those of `bars` that last. */
  readonly lasting: Set<LendBar>
}

/** What an rkey is of. */
interface Keyed {
  readonly pid: number | undefined
  /** Address in the process minus address in requests. */
  readonly shift: number
}

export class SessionLends {
  /** In the order of their first lends. */
  readonly ranges: LentRange[] = []
  /** What did not fit. */
  omitted = 0
  readonly #byKey = new Map<string, LentRange>()
  readonly #byPage = new Map<number, LentRange[]>()
  readonly #large: LentRange[] = []
  /** By process and lend. */
  readonly #lasting = new Map<string, { readonly range: LentRange; readonly bar: LendBar }>()
  /** By device and rkey. */
  readonly #keys = new Map<string, Keyed>()
  #lends = 0
  #accesses = 0

  add(event: SessionEvent & { readonly time: number }): void {
    if (event.kind === 'object') this.#addKey(event)
    else if (event.kind === 'accessed') this.#access(event)
    else if (event.kind === 'program') {
      const said = lendEvent(event)
      if (said !== undefined) this.#say(said, event.time)
    }
  }

  #addKey({ class: name, change, device, program, details }: ObjectEvent): void {
    if (name !== 'mr' || change === 'destroyed') return
    const { start, iova, rkey } = details.values ?? {}
    if (typeof start !== 'string' || typeof rkey !== 'number') return
    const from = Number(start)
    const shift = typeof iova === 'string' ? from - Number(iova) : 0
    this.#keys.set(`${device} ${rkey}`, { pid: program?.pid, shift })
  }

  #rangeOf({ pid, start, end }: LendEvent): LentRange | undefined {
    if (start === undefined || end === undefined || end <= start) return undefined
    const key = `${pid} ${start} ${end}`
    const known = this.#byKey.get(key)
    if (known !== undefined) return known
    if (this.ranges.length === MAX_RANGES) return undefined
    const range: LentRange = { pid, start, end, name: '', bars: [], accesses: [], lasting: new Set() }
    this.#byKey.set(key, range)
    this.ranges.push(range)
    const [first, last] = [Math.floor(start / PAGE), Math.floor((end - 1) / PAGE)]
    if (last - first >= MAX_PAGES) this.#large.push(range)
    else
      for (let page = first; page <= last; page++) {
        const others = this.#byPage.get(page)
        if (others === undefined) this.#byPage.set(page, [range])
        else others.push(range)
      }
    return range
  }

  #say(said: LendEvent, time: number): void {
    const { name, pid, lend } = said
    switch (name) {
      case 'lent':
      case 'advertised': {
        const key = name === 'lent' ? `${pid} ${lend}` : `${pid} told ${said.qp} ${said.start} ${said.end}`
        this.#end(key, time, said.stack)
        const range = this.#rangeOf(said)
        if (range === undefined || this.#lends === MAX_LENDS) {
          this.omitted++
          return
        }
        this.#lends++
        const bar: LendBar = {
          from: time,
          to: undefined,
          label: said.label ?? '',
          rights: name === 'lent' ? (said.rights ?? 0) : undefined,
          qp: said.qp ?? 0,
          until: said.until,
          stack: said.stack,
          endStack: [],
        }
        range.bars.push(bar)
        range.lasting.add(bar)
        this.#lasting.set(key, { range, bar })
        return
      }
      case 'takenBack':
        this.#end(`${pid} ${lend}`, time, said.stack)
        return
      case 'named': {
        const range = this.#byKey.get(`${pid} ${said.start} ${said.end}`)
        if (range !== undefined) range.name = said.label ?? ''
        return
      }
      case 'lendsEnd':
        for (const [key, { range }] of this.#lasting) if (range.pid === pid) this.#end(key, time, [])
    }
  }

  #end(key: string, time: number, stack: Stack): void {
    const found = this.#lasting.get(key)
    if (found === undefined) return
    this.#lasting.delete(key)
    found.bar.to = Math.min(time, found.bar.until ?? time)
    found.bar.endStack = stack
    found.range.lasting.delete(found.bar)
  }

  #access({ time, device, rkey, high, low, length, access, qpn }: AccessedEvent & { readonly time: number }): void {
    if (this.ranges.length === 0 || length === 0) return
    const { pid, shift } = this.#keys.get(`${device} ${rkey}`) ?? { pid: undefined, shift: 0 }
    const start = (high >>> 0) * 2 ** 32 + (low >>> 0) + shift
    const isHit = (range: LentRange): boolean =>
      (pid === undefined || range.pid === pid) && range.start < start + length && start < range.end
    const found = new Set(this.#large.filter(isHit))
    const [first, last] = [Math.floor(start / PAGE), Math.floor((start + length - 1) / PAGE)]
    if (last - first < MAX_PAGES)
      for (let page = first; page <= last; page++)
        for (const range of this.#byPage.get(page) ?? []) if (isHit(range)) found.add(range)
    if (found.size === 0) return
    if (this.#accesses === MAX_ACCESSES) {
      this.omitted++
      return
    }
    this.#accesses++
    const isLent = ({ lasting }: LentRange): boolean => {
      for (const { until } of lasting) if (until === undefined || until > time) return true
      return false
    }
    const isLate = ![...found].some(isLent)
    const one: LentAccess = { time, start, length, access, qpn, isLate }
    for (const range of found) range.accesses.push(one)
  }
}

type AccessedEvent = Extract<SessionEvent, { kind: 'accessed' }>
