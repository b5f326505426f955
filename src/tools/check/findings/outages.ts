/*
 * Outages: a port that is down, an address that leaves its device, packets that a fault rule loses. A request that has
 * no answer because of one is no mistake of its program, if the program survives: it completes a later request, closes
 * its device, or is ended from outside while the outage lasts. So the finding waits until that is known.
 *
 * Also where addresses were in the GID tables, for calls that name an empty index.
 */
import type { FailurePeer } from '../../../spec/check/failures.ts'
import type { LossByRule } from '../../../spec/check/probes.ts'
import type { ContextEnd, ProgramEvent } from '../../../spec/check/program-events.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import { AsyncEventType } from '../../../spec/enums.ts'
import { ackTimeoutMicroseconds, WcStatus } from '../../../spec/work.ts'
import { addressText, lidOf } from '../../../transport/wire/address.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import type { FindingContent, Occurrence } from '../reporting.ts'

const { PORT_ERR, PORT_ACTIVE } = AsyncEventType.values

/** Maximum remembered outages, and addresses that left, the latest; and findings that wait. */
const MAX_OUTAGES = 64
const MAX_WAITING = 256

/** GID 0 of devices whose interface has a MAC. */
const LINK_LOCAL = 'fe80:'

/** An entry of a GID table; empty: none. */
export type Gids = readonly (Uint8Array | undefined)[]

/** Microseconds. `end` undefined: it lasts. */
interface Span {
  readonly device: number
  readonly start: number
  end: number | undefined
}

interface Absence extends Span {
  readonly gid: string
  readonly index: number
  /** How many lower indices had the address: on adapters, RoCE v1 comes before v2. */
  readonly rank: number
  /** The index at which the address has returned. */
  now: number | undefined
}

/** The index at which an address is now, of the same rank if it has returned there already; -1: none. */
const indexIn = (table: readonly (string | undefined)[], { gid, rank }: Absence): number => {
  const indices = table.flatMap((one, index) => (one === gid ? [index] : []))
  return indices[rank] ?? indices[0] ?? -1
}

interface Waiting {
  readonly occurrence: Occurrence
  readonly content: FindingContent
  readonly outage: Outage
}

/** `reason`: a clause. `since`: when it began, or when the request may have been tried first. */
export interface Outage {
  readonly reason: string
  readonly since: number
  readonly isRule?: true
  readonly span?: Span
  /** The peer's program was ended by a signal. */
  readonly isDeath?: true
}

const elapsed = (from: number, to: number): string => {
  const seconds = Math.max(0, to - from) / 1e6
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`
}

/** `2.0 s before`. */
export const before = (from: number, to: number): string => `${elapsed(from, to)} before`

/**
 * The longest time that a device retries, if the attributes of the queue pair are unknown, and at least. Microseconds.
 */
const LONGEST_RETRIES = 10_000_000
const LEAST_RETRIES = 1_000_000
/** Devices may take this many times the timeout (IBA 9.7.6.1.3). */
const LATENESS = 4

/** How long the device may have retried a request: microseconds. */
const retriesOf = (qp: KnownObject | undefined): number => {
  const { timeout, retryCnt } = qp?.attributes ?? {}
  if (timeout === undefined || retryCnt === undefined) return LONGEST_RETRIES
  return Math.max(LEAST_RETRIES, LATENESS * (retryCnt + 1) * 4.096 * 2 ** timeout)
}

/** Microseconds after which a device sends a request again; undefined: unknown, or never. */
export const ackTimeoutOf = (qp: KnownObject | undefined): number | undefined => {
  const timeout = qp?.attributes.timeout
  return timeout === undefined || timeout === 0 ? undefined : ackTimeoutMicroseconds(timeout)
}

/** Whether what happens to packets can be why there is no answer: they are lost, or delayed for long enough. */
const canExplain = ({ loses, delay }: LossByRule, qp: KnownObject | undefined): boolean =>
  loses || 2 * 1000 * delay >= (ackTimeoutOf(qp) ?? 0)

export const OUTAGES: Topic<Outages> = { name: 'outages' }

export class Outages {
  readonly detector: Detector
  readonly #services: DetectorServices
  readonly #down: Span[] = []
  readonly #absent: Absence[] = []
  /** The last GID table, by device. */
  readonly #gids = new Map<number, (string | undefined)[]>()
  /** GID 0 of a device, which has the MAC of its interface, and when that changed, by device. */
  readonly #macs = new Map<number, { gid: string; changed: number | undefined }>()
  /** By pid; of the process that runs the checker by context. */
  readonly #waiting = new Map<string, Waiting[]>()
  #count = 0

  constructor(services: DetectorServices) {
    this.#services = services
    services.tell(OUTAGES, this)
    this.detector = {
      on: {
        completed: (request, { status }) => {
          if (this.#count === 0 || status !== WcStatus.values.SUCCESS) return
          const owner = services.objects.find(request.owner)
          if (owner !== undefined) this.#settle(keyOf(owner), wait => wait.occurrence.time <= request.time)
        },
        contextEnds: end => this.#contextEnds(end),
        portEvent: event => this.#portEvent(event),
        gids: ({ device, gids }) => this.#gidsOf(device, gids),
        deviceAdded: ({ device }) => this.#forget(device),
        settles: () => this.#settleAll(),
      },
    }
  }

  #contextEnds({ context, how }: ContextEnd): void {
    for (const key of [...this.#waiting.keys()])
      this.#settle(
        key,
        wait => wait.occurrence.context === context,
        ({ outage: { span } }) =>
          how === 'close' || (how === 'kill' && span !== undefined && span.end === undefined) ? 'note' : 'error',
      )
  }

  /** A port of a device has raised an event, and `gids` is its table now. */
  #portEvent({ device, type, gids }: ProgramEvent<'portEvent'>): void {
    const now = this.#services.sources.now()
    if (type === PORT_ERR) add(this.#down, { device, start: now, end: undefined })
    if (type === PORT_ACTIVE) for (const span of this.#down) if (span.device === device) span.end ??= now
    this.#gidsOf(device, gids)
  }

  /** The GID table of a device is this now. */
  #gidsOf(device: number, gids: Gids): void {
    const now = this.#services.sources.now()
    const known = this.#gids.get(device) ?? []
    const table = gids.map(gid => gid && addressText(gid))
    this.#gids.set(device, table)
    this.#noteMac(device, table[0], now)
    known.forEach((gid, index) => {
      if (gid === undefined || table[index] === gid) return
      const rank = known.slice(0, index).filter(one => one === gid).length
      add(this.#absent, { device, gid, index, rank, start: now, end: undefined, now: undefined })
    })
    for (const absence of this.#absent) {
      if (absence.device !== device) continue
      const index = indexIn(table, absence)
      absence.now = index < 0 ? undefined : index
      if (index >= 0) absence.end ??= now
    }
  }

  #noteMac(device: number, gid: string | undefined, now: number): void {
    if (gid?.startsWith(LINK_LOCAL) !== true) return
    const known = this.#macs.get(device)
    if (known === undefined) this.#macs.set(device, { gid, changed: undefined })
    else if (known.gid !== gid) this.#macs.set(device, { gid, changed: now })
  }

  /** When the MAC of a device's interface has changed last; undefined: not known to have changed. */
  macChange(device: number): number | undefined {
    return this.#macs.get(device)?.changed
  }

  /** Whether any address has left, or any MAC changed. */
  get hasChanges(): boolean {
    return this.#absent.length > 0
  }

  /** The address at an index of a device's table; undefined: empty, or unknown. */
  gidAt(device: number, index: number): string | undefined {
    return this.#gids.get(device)?.[index]
  }

  /** The last time that this address left this index. */
  absenceOf(device: number, index: number, gid: string): Absence | undefined {
    return this.#absent.findLast(one => one.device === device && one.index === index && one.gid === gid)
  }

  /** The last address that has left since `time`, and fits. */
  leftSince(time: number, fits: (absence: Absence) => boolean): Absence | undefined {
    return this.#absent.findLast(one => one.start > time && fits(one))
  }

  /** A device was removed: its number may be another's later. */
  #forget(device: number): void {
    this.#gids.delete(device)
    this.#macs.delete(device)
    for (const list of [this.#down, this.#absent])
      for (let i = list.length; i-- > 0; ) if (list[i]!.device === device) list.splice(i, 1)
  }

  /** What address has left this index of a device's table, when, and where it is now; undefined: none. */
  whoLeft(device: number, index: number): string | undefined {
    const absence = this.#absent.findLast(one => one.device === device && one.index === index)
    if (absence === undefined || this.#gids.get(device)?.[index] !== undefined) return undefined
    return this.absenceText(absence, this.#services.sources.now())
  }

  /** A clause. */
  absenceText(absence: Absence, time: number): string {
    const { device, gid, index, start, end, now } = absence
    const { sources } = this.#services
    const elsewhere = [...this.#gids].find(([other, table]) => other !== device && table.includes(gid))
    const where =
      now !== undefined
        ? `returned ${before(end ?? start, time)}, at GID index ${now}`
        : elsewhere === undefined
          ? 'has not returned'
          : `is now GID index ${indexIn(elsewhere[1], absence)} of ${sources.deviceName(elsewhere[0])}`
    return `the address ${gid} left GID index ${index} of ${sources.deviceName(device)} ${before(start, time)}, and ${where}`
  }

  /**
   * The outage that explains why a request of `qp`, which failed at `time`, has no answer; undefined: none.
   * `peerDevice`, `peer`: undefined if unknown.
   */
  behind(
    time: number,
    device: number,
    qp: KnownObject | undefined,
    peerDevice: number | undefined,
    peer: FailurePeer | undefined,
  ): Outage | undefined {
    const { sources } = this.#services
    const since = time - retriesOf(qp)
    const overlaps = (span: Span): boolean => span.start <= time && (span.end ?? time) >= since
    const down = this.#down.findLast(span => (span.device === device || span.device === peerDevice) && overlaps(span))
    if (down !== undefined) {
      const whose = down.device === device ? '' : ", the peer's,"
      const up = down.end === undefined ? 'is still down' : `came up ${before(down.end, time)}`
      return {
        reason: `the port of ${sources.deviceName(down.device)}${whose} went down ${before(down.start, time)}, and ${up}`,
        since: down.start,
        span: down,
      }
    }
    const { address } = qp?.attributes ?? {}
    // A path by LID does not need the GIDs.
    const own = address === undefined || lidOf(address.dgid) >= 0 ? undefined : address.sgidIndex
    const gone = this.#absent.findLast(
      one => ((one.device === device && one.index === own) || one.gid === peer?.address) && overlaps(one),
    )
    if (gone !== undefined) return { reason: this.absenceText(gone, time), since: gone.start, span: gone }
    const qpns = [qp?.qpn, peer?.qpn].filter(qpn => qpn !== undefined)
    const loss = sources.lossTo?.(qpns, since)
    return loss === undefined || !canExplain(loss, qp)
      ? undefined
      : {
          reason: `the fault rule ${loss.rule} lost, damaged or delayed packets of the connection`,
          since,
          isRule: true,
        }
  }

  /** A request has no answer because of an outage: the finding comes when it is known whether the program survives. */
  unanswered(occurrence: Occurrence, content: FindingContent, outage: Outage): void {
    const key = keyOf(occurrence)
    const list = this.#waiting.get(key) ?? []
    this.#waiting.set(key, list)
    list.push({ occurrence, content, outage })
    if (++this.#count > MAX_WAITING) this.#settle(this.#waiting.keys().next().value ?? key, () => true)
  }

  /** Reports what waits, as notes: the programs still run. */
  #settleAll(): void {
    for (const key of [...this.#waiting.keys()]) this.#settle(key, () => true)
  }

  #settle(key: string, isSettled: (wait: Waiting) => boolean, severityOf: (wait: Waiting) => Severity = () => 'note') {
    const list = this.#waiting.get(key) ?? []
    const left = list.filter(wait => !isSettled(wait))
    if (left.length === 0) this.#waiting.delete(key)
    else this.#waiting.set(key, left)
    this.#count -= list.length - left.length
    for (const wait of list) if (isSettled(wait)) this.#report(wait, severityOf(wait))
  }

  #report({ occurrence, content, outage: { reason, isRule, isDeath } }: Waiting, severity: Severity): void {
    const end = severity === 'error' ? ': the program ended without a later success' : ''
    if (isDeath) {
      const number = this.#services.report('no-peer-qp', occurrence, {
        ...content,
        severity: severity === 'error' ? 'warning' : severity,
        text: `${content.text}: ${reason}${end}`,
        advice: 'look why the signal came; to survive the death of a peer, connect to another one after the failure',
      })
      if (severity === 'error') this.#services.consequences.givesUp(occurrence.program?.pid, number)
      return
    }
    this.#services.report('no-answer', occurrence, {
      ...content,
      severity,
      text: `${content.text}: ${reason}${end}`,
      advice: isRule
        ? "the loss is the rule's: a program that should survive it connects again after the failure"
        : 'connect again when the port is active and has its address (PORT_ACTIVE, GID_CHANGE: ibv_get_async_event)',
    })
  }
}

export const createOutageDetector = (services: DetectorServices): Detector => new Outages(services).detector

const keyOf = ({ program, context }: Pick<KnownObject, 'program' | 'context'>): string =>
  program === undefined ? `context ${context}` : `pid ${program.pid}`

const add = <T>(list: T[], one: T): void => {
  if (list.length === MAX_OUTAGES) list.shift()
  list.push(one)
}
