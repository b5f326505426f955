/*
 * Lends that programs declare (spec/check/program-events.ts: `lent`), and what others ask about them.
 */
import type { Program } from '../../../spec/check/finding.ts'
import { type LentBytes, lendRightNames } from '../../../spec/lends.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { lentRequests } from './lent-requests.ts'
import { lentMemory } from './memory.ts'
import type { Lend } from './table.ts'
import { rowOf } from './text.ts'

/** Bytes of a process; `region`: `CoreObject.id`. */
export interface LentRange {
  readonly pid: number | undefined
  readonly start: number
  readonly end: number
  readonly region: number
}

export interface Lends {
  /** Whether a process has declared anything: then it is taken at its word. */
  isDeclared(pid: number | undefined): boolean
  /** What a request accesses; undefined: no memory of a process. */
  rangeOf(device: number, key: number, address: number, length: number): LentRange | undefined
  /** Whether any of these bytes of a process is lent. */
  isLent(pid: number | undefined, start: number, end: number): boolean
  /** What is lent now. */
  rows(): LentBytes[]
  /** How many requests of peers to these bytes of a process are outstanding. */
  unfinished(pid: number | undefined, start: number, end: number): number
}

export const LENDS: Topic<Lends> = { name: 'lends' }

const rightNames = Object.keys(lendRightNames) as (keyof typeof lendRightNames)[]

/** The rows of the lends of a program at `now`, in microseconds. */
const rowsOf = (services: DetectorServices, program: Program, lends: readonly Lend[], now: number): LentBytes[] => {
  const peers = new Map<number, Program | undefined>()
  const peerWith = (qpn: number): Program | undefined => {
    if (peers.has(qpn)) return peers.get(qpn)
    const qp = services.objects.qpOfProgram(program, qpn)
    const peer = qp && services.peerOf(qp)?.program
    peers.set(qpn, peer)
    return peer
  }
  return lends.map(({ start, end, rights, qpn, label, time, until, stack }): LentBytes => {
    const to = qpn === 0 ? undefined : peerWith(qpn)
    return {
      ...rowOf(program, start, end, now - time, stack),
      rights: rightNames.filter(name => (rights & lendRightNames[name]) !== 0),
      ...(label !== '' && { label }),
      ...(qpn !== 0 && { qpn }),
      ...(to && { to }),
      ...(until !== Number.POSITIVE_INFINITY && { left: Math.round(until - now) }),
    }
  })
}

export const createLendDetector = (services: DetectorServices): Detector | undefined => {
  const { sources, omit } = services
  const [memory, requests] = [lentMemory(services), lentRequests(services)]
  if (memory === undefined || requests === undefined) return undefined
  const { table, keys } = memory

  services.tell(LENDS, {
    rows() {
      const now = sources.now()
      const programs = new Map([...memory.regions()].map(({ object: { program } }) => [program?.pid, program]))
      return table.lenders().flatMap(lender => {
        lender.settle(now)
        const program = programs.get(lender.pid) ?? { pid: lender.pid ?? 0, command: '' }
        return rowsOf(services, program, lender.all(), now)
      })
    },
    rangeOf(device, key, address, length) {
      const keyed = keys.of(device, key)
      if (keyed === undefined) return undefined
      const { region, shift } = keyed
      const { id, program } = region.object
      return { pid: program?.pid, start: address + shift, end: address + shift + length, region: id }
    },
    isLent(pid, start, end) {
      const lender = memory.hasLends ? table.find(pid) : undefined
      lender?.settle(sources.now())
      return lender?.hasLasting(start, end) === true
    },
    isDeclared: pid => memory.hasLends && table.find(pid) !== undefined,
    unfinished(pid, start, end) {
      const ofPeers = requests.unfinishedAt(pid, sources.now(), (from, until) => from < end && until > start)
      return new Set([...ofPeers, ...requests.ownOf(pid, start, end)]).size
    },
  })

  return {
    on: {
      lent(event) {
        memory.hasLends = true
        if (table.lend(event) !== undefined) memory.lent(event.pid, event.start, event.end)
      },
      unchecked({ pid, start, end }) {
        table.of(pid).uncheck(start, end, omit)
      },
      named({ pid, start, end, name }) {
        table.of(pid).name(start, end, name)
      },
      lendsEnd({ pid, lost }) {
        if (lost > 0) table.giveUp(table.of(pid), lost)
        else table.forget(pid)
      },
    },
  }
}
