/*
 * Which failures belong together, which of them was first, and what they have in common.
 *
 * A chain is what one fault has led to: failures that share a host, as the one that reports or as its peer, without a
 * pause longer than PAUSE; after more than NEAR they must share an adapter or a peer, if they name any. The first is
 * the earliest by time if the clocks can tell, otherwise the first of the log, or one candidate for each host.
 */
import { type Failure, type LogAnalysis, plainAddress } from './analysis.ts'
import { NO_YEAR } from './line.ts'

/** Seconds without a failure after which the next is of another chain. */
const PAUSE = 900
/** Seconds in which failures of a host are taken as connected, whatever they name. */
const NEAR = 60
/** Parts of a set that failures may go on with. */
const OPEN = 16
/** Seconds by which clocks of hosts may differ if nothing tells more: NTP and a log's flushing. */
const CLOCK_ERROR = 1
/** Seconds before the first failure in which a sign may be its reason. */
const BEFORE = 600

export interface Chain {
  /** Earliest first. */
  readonly failures: readonly Failure[]
  readonly consequences: readonly Failure[]
  readonly signs: readonly Failure[]
  readonly first: Failure
  /** Not known which came first: the first of each host. Empty if it is known. */
  readonly candidates: readonly Failure[]
  /** Lines of failures. */
  readonly count: number
  /** Seconds from the start of the program to the first failure; undefined if its log does not have both. */
  readonly after: number | undefined
}

/** Time of a failure on a clock that all hosts share; undefined if its own says nothing to others. */
type TimeOf = (failure: Failure) => number | undefined

interface Clocks {
  readonly timeOf: TimeOf
  /** Seconds. */
  readonly error: number
  /** Offsets of hosts that were found, against the first. */
  readonly offsets: ReadonlyMap<string, number>
}

const isDated = (clock: string | undefined): boolean => clock === 'wall' || clock === 'utc'

/** Seconds that dates without a year get: of the year that other dates have. */
const yearShift = (analysis: LogAnalysis): ((seconds: number) => number) => {
  const dated =
    analysis.failures.find(({ clock }) => isDated(clock)) ?? analysis.sources.find(({ clock }) => isDated(clock))
  const known = dated === undefined ? undefined : 'seconds' in dated ? dated.seconds : dated.first
  if (known === undefined) return () => 0
  const year = 1970 + Math.floor(known / 31_556_952)
  const begin = Date.UTC(NO_YEAR, 0, 1) / 1000
  const shift = Date.UTC(year, 0, 1) / 1000 - begin
  const isLeap = Date.UTC(year, 1, 29) !== Date.UTC(year, 2, 1)
  // NO_YEAR has a 29th of February: its day 60 is the first of March.
  return seconds => shift - (!isLeap && seconds - begin >= 60 * 86_400 ? 86_400 : 0)
}

const median = (values: readonly number[]): number => [...values].sort((a, b) => a - b)[values.length >> 1]!

/** Clocks of hosts by when both ends saw the same communicator begin. */
export const clocksOf = (analysis: LogAnalysis): Clocks => {
  const pairs = new Map<string, number[]>()
  let reference: string | undefined
  for (const met of analysis.meetings.values()) {
    reference ??= met.keys().next().value
    const at = reference === undefined ? undefined : met.get(reference)
    if (at === undefined) continue
    for (const [host, seconds] of met)
      if (host !== reference) pairs.set(host, [...(pairs.get(host) ?? []), seconds - at])
  }
  const offsets = new Map<string, number>()
  let error = CLOCK_ERROR
  for (const [host, differences] of pairs) {
    const offset = median(differences)
    error = Math.max(error, ...differences.map(value => Math.abs(value - offset)))
    // Below it, the clocks agree.
    if (Math.abs(offset) > 2 * CLOCK_ERROR) offsets.set(host, offset)
  }
  const shift = yearShift(analysis)
  const clocks = new Map(analysis.sources.map(({ name, clock }) => [name, clock]))
  return {
    error,
    offsets,
    timeOf: ({ seconds, clock, host, source }) =>
      seconds === undefined || clock === 'boot' || clock !== clocks.get(source)
        ? undefined
        : seconds + (clock === 'yearless' ? shift(seconds) : 0) - (host === undefined ? 0 : (offsets.get(host) ?? 0)),
  }
}

/** Names of hosts by their addresses. */
type Names = ReadonlyMap<string, string>

export const hostNames = (analysis: LogAnalysis): Names => {
  const names = new Map<string, string>()
  for (const [gid, { host }] of analysis.gids) if (host !== undefined) names.set(gid, host)
  for (const { name, addresses } of analysis.hosts.values()) for (const address of addresses) names.set(address, name)
  return names
}

/** The peer of a failure: its host's name if the log says whose address it is. */
export const peerOf = ({ peer }: Failure, names: Names): string | undefined =>
  peer === undefined ? undefined : (names.get(peer) ?? peer)

/** The adapter at the other end: as the line says, or by whose GID it is. */
export const farDeviceOf = ({ fields, peer }: Failure, { gids }: LogAnalysis): string | undefined => {
  const gid = fields.remoteGid === undefined ? peer : plainAddress(fields.remoteGid)
  return fields.peerDevice ?? (gid === undefined ? undefined : gids.get(gid)?.device)
}

/** Sets that are joined by what their members share. */
class Groups {
  readonly #parents = new Map<string, string>()
  root(key: string): string {
    let at = key
    for (let next = this.#parents.get(at); next !== undefined; next = this.#parents.get(at)) at = next
    if (at !== key) this.#parents.set(key, at)
    return at
  }
  join(a: string, b: string): void {
    const [rootA, rootB] = [this.root(a), this.root(b)]
    if (rootA !== rootB) this.#parents.set(rootA, rootB)
  }
}

export const chainsOf = (analysis: LogAnalysis, clocks: Clocks, names: Names): readonly Chain[] => {
  const groups = new Groups()
  const homeOf = (failure: Failure): string => failure.host ?? `log ${failure.source}`
  for (const failure of analysis.failures) {
    const peer = peerOf(failure, names)
    if (peer !== undefined) groups.join(homeOf(failure), peer)
    // One job's output, with several hosts in it.
    if (failure.host !== undefined) groups.join(homeOf(failure), `log ${failure.source}`)
  }
  const sets = new Map<string, Failure[]>()
  for (const failure of analysis.failures) {
    const root = groups.root(homeOf(failure))
    const set = sets.get(root)
    if (set === undefined) sets.set(root, [failure])
    else set.push(failure)
  }
  const starts = new Map(analysis.sources.map(({ name, start, clock }) => [name, { start, clock }]))
  return [...sets.values()]
    .flatMap(set => splitByPauses(set, clocks))
    .map(set => chainOf(set, clocks, starts))
    .filter(chain => chain !== undefined)
    .sort((a, b) => {
      const [atA, atB] = [clocks.timeOf(a.first), clocks.timeOf(b.first)]
      return atA !== undefined && atB !== undefined && atA !== atB ? atA - atB : a.first.order - b.first.order
    })
}

/** What a failure shares with others of its fault. */
const linksOf = ({ role, host, device, peer, fields }: Failure): readonly string[] =>
  role !== 'failure'
    ? []
    : [device && `${host} ${device}`, peer, fields.bdf && `${host} ${fields.bdf}`].filter(link => link !== undefined)

/** What has no time stays with the first part. */
const splitByPauses = (set: readonly Failure[], { timeOf }: Clocks): readonly (readonly Failure[])[] => {
  const timed = set.filter(one => timeOf(one) !== undefined).sort((a, b) => timeOf(a)! - timeOf(b)!)
  const untimed = set.filter(one => timeOf(one) === undefined)
  const parts: { readonly list: Failure[]; readonly links: Set<string>; end: number | undefined }[] = [
    { list: untimed, links: new Set(untimed.flatMap(linksOf)), end: undefined },
  ]
  for (const failure of timed) {
    const at = timeOf(failure)!
    const links = linksOf(failure)
    const open = parts.slice(-OPEN).filter(({ end }) => end === undefined || at - end <= PAUSE)
    const last = open.findLast(({ end }) => end === undefined || at - end <= NEAR)
    let part =
      open.findLast(one => links.some(link => one.links.has(link))) ??
      last ??
      open.findLast(one => links.length === 0 || one.links.size === 0)
    if (part === undefined) {
      part = { list: [], links: new Set(), end: undefined }
      parts.push(part)
    }
    part.list.push(failure)
    for (const link of links) part.links.add(link)
    const span = failure.last === undefined || failure.seconds === undefined ? 0 : failure.last - failure.seconds
    part.end = Math.max(part.end ?? at, at + span)
  }
  return parts.map(({ list }) => list).filter(list => list.length > 0)
}

/** The other end does not answer: this also follows from any other failure there. */
const isSilence = ({ status, kind }: Failure): boolean =>
  status === 'RETRY_EXC_ERR' || status === 'RESP_TIMEOUT_ERR' || kind === 'unanswered'

const chainOf = (
  set: readonly Failure[],
  clocks: Clocks,
  starts: ReadonlyMap<string, { readonly start: number | undefined; readonly clock: string | undefined }>,
): Chain | undefined => {
  const { timeOf, error } = clocks
  const inOrder = [...set].sort((a, b) => {
    const [atA, atB] = [timeOf(a), timeOf(b)]
    return atA !== undefined && atB !== undefined && atA !== atB ? atA - atB : a.order - b.order
  })
  const of = (role: Failure['role']): Failure[] => inOrder.filter(one => one.role === role)
  const failures = of('failure')
  const consequences = of('consequence')
  const earliest =
    failures[0] ?? consequences.find(({ status, kind }) => (status ?? kind) !== undefined) ?? consequences[0]
  if (earliest === undefined) return undefined
  const start = timeOf(earliest)
  const signs = of('sign').filter(sign => {
    const at = timeOf(sign)
    return start === undefined || at === undefined || (at > start - BEFORE && at < start + PAUSE)
  })
  const heads = new Map<string, Failure>()
  for (const failure of failures) {
    const home = failure.host ?? failure.source
    if (!heads.has(home)) heads.set(home, failure)
  }
  const isUnknown = (other: Failure): boolean => {
    if (other === earliest || (other.source === earliest.source && start === undefined)) return false
    const at = timeOf(other)
    return start === undefined || at === undefined || (at - start <= error && other.source !== earliest.source)
  }
  const rivals = [...heads.values()].filter(isUnknown)
  const first = isSilence(earliest) ? (rivals.find(rival => !isSilence(rival)) ?? earliest) : earliest
  const begin = starts.get(first.source)
  const after =
    first.seconds !== undefined && begin?.start !== undefined && begin.clock === first.clock
      ? first.seconds - begin.start
      : undefined
  return {
    failures,
    consequences,
    signs,
    first,
    candidates: rivals.length === 0 ? [] : [first, ...[earliest, ...rivals].filter(rival => rival !== first)],
    count: failures.reduce((sum, { count }) => sum + count, 0),
    after: after !== undefined && after >= 1 ? after : undefined,
  }
}

export interface Shared {
  readonly text: string
  /** The host, or adapter and host, that is at one end of all. */
  readonly end?: string
  readonly count: number
  readonly of: number
}

/** At least so much of all failures. */
const MOST = 0.75

/** What most failures of a chain name. The most specific of what has the same count. */
export const sharedBy = (analysis: LogAnalysis, names: Names, { failures }: Chain): readonly Shared[] => {
  const total = failures.reduce((sum, { count }) => sum + count, 0)
  if (total < 3) return []
  const counts = new Map<string, number>()
  const add = (key: string | undefined, count: number): void => {
    if (key !== undefined) counts.set(key, (counts.get(key) ?? 0) + count)
  }
  for (const failure of failures) {
    const { host, device, status, count, fields } = failure
    const far = peerOf(failure, names)
    const farDevice = farDeviceOf(failure, analysis)
    const ends = new Set([
      ...(host === undefined ? [] : [host, ...(device === undefined ? [] : [`${device} of ${host}`])]),
      ...(far === undefined ? [] : [far, ...(farDevice === undefined ? [] : [`${farDevice} of ${far}`])]),
    ])
    for (const end of ends) add(`end ${end}`, count)
    add(device === undefined ? undefined : `device ${device}`, count)
    add(status === undefined ? undefined : `status ${status}`, count)
    add(host === undefined || far === undefined ? undefined : `way ${host} → ${far}`, count)
    add(fields.wqe !== undefined && Number(fields.wqe) === 0 ? 'first' : undefined, count)
    add(fields.gidIndex === undefined ? undefined : `gid ${fields.gidIndex}`, count)
  }
  const hosts = new Set(failures.map(({ host }) => host))
  const devices = new Set(failures.map(({ device }) => device))
  const textOf = (key: string): string | undefined => {
    const [kind, ...rest] = key.split(' ')
    const what = rest.join(' ')
    if (kind === 'end') return `name ${what}, as the one that reports or as its peer`
    if (kind === 'device')
      return hosts.size > 1 && !devices.has(undefined)
        ? `are on ${what}, on ${hosts.size} hosts: the same rail`
        : undefined
    if (kind === 'status') return `have the status ${what}`
    if (kind === 'way') return `go one way, ${what}`
    if (kind === 'gid') return `use GID index ${what}`
    return 'are the first request of their queue pair (wqe 0)'
  }
  const most = [...counts].filter(([, count]) => count / total >= MOST).sort((a, b) => b[1] - a[1])
  // `mlx5_3 of node7` says more than `node7` with the same count.
  const isCovered = ([key, count]: readonly [string, number]): boolean =>
    most.some(([other, same]) => other !== key && same === count && other.endsWith(` of ${key.slice(4)}`)) ||
    (key.startsWith('end ') &&
      hosts.size === 1 &&
      most.some(([other, same]) => other.startsWith('way ') && same === count))
  return most
    .filter(one => !isCovered(one))
    .flatMap(([key, count]) => {
      const text = textOf(key)
      return text === undefined
        ? []
        : [{ text, count, of: total, ...(key.startsWith('end ') && { end: key.slice(4) }) }]
    })
}
