/*
 * What stands before a line's own text: times, hosts, tags of schedulers, containers, journals and libraries. All of it
 * is stripped, in any order and number; the host and the time are kept. Damage by mail, Markdown and terminals is
 * undone.
 */

/**
 * Of a line's time: seconds since 1970, as the line says (`utc`) or of a clock whose zone it does not say (`wall`);
 * since boot (dmesg); or of a year that the line does not say.
 */
export type Clock = 'utc' | 'wall' | 'yearless' | 'boot'

export interface Line {
  readonly text: string
  readonly host?: string
  readonly pid?: number
  readonly rank?: number
  readonly seconds?: number
  readonly clock?: Clock
}

interface Prefix {
  readonly form: RegExp
  /** A cheap test of the first character. */
  readonly starts: RegExp
}

const MONTHS = 'Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec'.split(' ')
const MONTH = `(?<month>${MONTHS.join('|')})`
const HMS = '(?<h>\\d\\d):(?<m>\\d\\d):(?<s>\\d\\d(?:[.,]\\d{1,9})?)'
const DATE = '(?<year>\\d{4})[-/](?<mon>\\d\\d)[-/](?<day>\\d\\d)'
const NAME = '[A-Za-z0-9_][\\w.-]*'

const prefix = (starts: RegExp, form: string): Prefix => ({ starts, form: new RegExp(form, 'y') })

/** Each is tried at the start of what is left, until none fits. */
const prefixes: readonly Prefix[] = [
  // White space, quotes of mail, fences and bullets of Markdown.
  prefix(/[\s>`*|-]/, '(?:\\s+|(?:> ?)+|`+|\\*+ |\\| |-{1,2} )'),
  // ISO 8601, also in brackets, of journalctl, containers, Kubernetes, Python.
  prefix(/[\d[(]/, `[[(]?${DATE}[T ]${HMS}\\s?(?<zone>Z|UTC|[+-]\\d\\d:?\\d\\d)?[\\])]?[:,]?(?: |$)\\s*`),
  // dmesg -T, ctime.
  prefix(/[[A-Z]/, `\\[?(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ${MONTH} +(?<day>\\d{1,2}) ${HMS} (?<year>\\d{4})\\]?:? ?`),
  // syslog, journalctl, and `host kernel:` after any time.
  prefix(/[A-Z]/, `${MONTH} +(?<day>\\d{1,2}) ${HMS} (?=\\S)`),
  prefix(/\w/, `(?<host>${NAME}) (?:kernel|[\\w./@-]+\\[\\d+\\]): ?`),
  prefix(/k/, 'kernel: ?'),
  // dmesg, raw or with levels.
  prefix(/[<\w]/, '(?:<\\d{1,3}>|(?:kern|user|daemon) *: *(?:emerg|alert|crit|err|warn|notice|info|debug) *: ?)'),
  prefix(/\[/, '\\[ *(?<boot>\\d{1,9}\\.\\d{6})\\](?:\\[ *[TC]\\d+\\])? ?'),
  // MPI's taggers, srun -l, pdsh, kubectl --prefix, stern, docker compose, torchrun, Ray.
  prefix(/\[/, '\\[(?:\\d+|[\\w@-]+),(?<rank>\\d+)\\]<std(?:out|err|diag)>: ?'),
  prefix(/[A-Z\d]/, `(?:[A-Z][a-z]{2} [A-Z][a-z]{2} +\\d+ \\d\\d:\\d\\d:\\d\\d \\d{4})?<std(?:out|err)>: ?`),
  prefix(/\d/, '(?<rank>\\d{1,6}): +(?=\\S)'),
  prefix(/\[/, `\\[(?:pod/)?(?<host>${NAME})/[\\w.-]+\\] ?`),
  prefix(/\[/, '\\[(?:rank|default)(?<rank>\\d+)\\]:? ?'),
  prefix(/\(/, `\\([\\w.:<>]+ pid=(?<pid>\\d+)(?:, ip=(?<host>[\\w.:-]+))?\\) ?`),
  prefix(/s/, 'std(?:out|err) [FP] '),
  prefix(/\w/, `(?<host>${NAME}[-_]\\d+) +\\| (?=\\S)`),
  // `node1: ` of pdsh and clush, only before something that begins a line itself.
  prefix(
    /\w/,
    `(?<host>(?!libfabric|mlx\\d|kernel|ib\\w*_|rank)(?=[\\w.-]*[\\d-])${NAME}): (?=\\[|<|\\d{4}-|(?:${MONTHS.join('|')}) |mlx\\d:|${NAME}:\\d+:\\d+ )`,
  ),
  // glog, PyTorch.
  prefix(/[IWEF[]/, `\\[?[IWEF](?<mon>\\d\\d)(?<day>\\d\\d) ${HMS} +(?<pid>\\d+) [\\w./-]+:\\d+\\] ?`),
]

/**
 * Headers that also stand in the middle of a line, where two programs wrote at once: the last one before a match
 * counts.
 */
const HEADERS = [
  // NCCL: host:pid:tid [cudaDev] …
  new RegExp(`(?<host>${NAME}):(?<pid>\\d+):\\d+ \\[\\w+\\] `, 'g'),
  // UCX: [sec.usec] [host:pid:tid]
  new RegExp(`(?:\\[(?<epoch>\\d{10}\\.\\d{6})\\] *)?\\[(?<host>${NAME}):(?<pid>\\d+) *:\\w+(?::\\d+)?\\] `, 'g'),
  // libmlx5, libmlx4
  new RegExp(`mlx[45]: (?<host>${NAME}): `, 'g'),
  // libfabric: libfabric:pid:epoch:
  /libfabric:(?<pid>\d+):(?:(?<epoch>\d{10}):)?/g,
  // Open MPI: [host:pid], and the openib BTL's [host][[jobid,vpid],…
  new RegExp(`\\[(?<host>${NAME})(?::(?<pid>\\d+)\\] |\\]\\[\\[\\d+,(?<rank>\\d+)\\],)`, 'g'),
  // MVAPICH
  new RegExp(`\\[(?<host>${NAME}):mpi_rank_(?<rank>\\d+)\\]`, 'g'),
] as const
const HEADER_HINT = /:\d+|mlx[45]: |\]\[\[|mpi_rank/

/** Days since 1970 of a date; `month` from 1. */
const days = (year: number, month: number, day: number): number => Date.UTC(year, month - 1, day) / 86_400_000

/** What is taken as the year of lines that have none: a leap year, which has every date. */
export const NO_YEAR = 2000

/** Names of files and levels stand where hosts do: `[core.py:390]`, `ERROR |`. */
const NO_HOST =
  /\.(?:py|cc?|cpp|cxx|cu|cuh|hh?|hpp|go|rs|java|[jt]s|log|txt)$|^(?:\d+|trace|debug|info|notice|warn(?:ing)?|err(?:or)?|fatal|critical|stdout|stderr)$/i
const hostIn = (name: string | undefined): string | undefined =>
  name === undefined || NO_HOST.test(name) ? undefined : name

type Groups = Readonly<Record<string, string | undefined>>

const timeOf = (groups: Groups): Pick<Line, 'seconds' | 'clock'> => {
  const { year, mon, month, day, h, m, s, zone, boot, epoch } = groups
  if (epoch !== undefined) return { seconds: Number(epoch), clock: 'utc' }
  if (boot !== undefined) {
    // UCX prints [1700000000.123456] in the same form.
    const seconds = Number(boot)
    return { seconds, clock: seconds > 1e9 ? 'utc' : 'boot' }
  }
  if (h === undefined || day === undefined) return {}
  const monthNumber = mon === undefined ? MONTHS.indexOf(month ?? '') + 1 : Number(mon)
  const time = Number(h) * 3600 + Number(m) * 60 + Number(s?.replace(',', '.'))
  const at = days(year === undefined ? NO_YEAR : Number(year), monthNumber, Number(day)) * 86_400 + time
  if (!Number.isFinite(at)) return {}
  const offset = /^([+-])(\d\d):?(\d\d)$/.exec(zone ?? '')
  const shift = offset === null ? 0 : Number(`${offset[1]}1`) * (Number(offset[2]) * 3600 + Number(offset[3]) * 60)
  return { seconds: at - shift, clock: year === undefined ? 'yearless' : zone === undefined ? 'wall' : 'utc' }
}

// biome's rule against control characters: the escape of terminals is one.
const [BELL, ESCAPE] = [String.fromCharCode(7), String.fromCharCode(27)]
/** Colours and moves of terminals; titles and links, up to the end of their text. */
const ANSI = new RegExp(
  `${ESCAPE}(?:\\[[0-9;?]*[A-Za-z]|\\][^${BELL}${ESCAPE}]{0,2000}(?:${BELL}|${ESCAPE}\\\\)?)`,
  'g',
)
/** Characters that nobody sees, or that turn the order of others. */
const UNSEEN = /[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g

/** The text without what terminals act on. */
export const seen = (text: string): string =>
  text
    .replace(ANSI, '')
    .replace(UNSEEN, '')
    .replace(/(?![\t\r])\p{Cc}/gu, ' ')
const ENTITIES: Readonly<Record<string, string>> = { lt: '<', gt: '>', amp: '&', quot: '"', '#39': "'", nbsp: ' ' }

/** The line as its program wrote it. */
const undamaged = (raw: string): string => {
  let text = raw
  if (text.includes('\u001b')) text = text.replace(ANSI, '')
  text = text.replace(UNSEEN, '')
  if (text.includes('\u0000')) text = text.replaceAll('\u0000', '')
  if (text.includes('&')) text = text.replace(/&(lt|gt|amp|quot|#39|nbsp);/g, (_, name: string) => ENTITIES[name]!)
  // [net_ib.cc:101](http://net_ib.cc:101/) of a page that makes links of file names
  if (text.includes('](')) text = text.replace(/\[([^[\]]{1,200})\]\(https?:\/\/[^()\s]{1,300}\)/g, '$1')
  return text
}

/** `host app[42]: ` */
const HAS_PROCESS = /^\S+ \S+\[\d+\]: ?$/
/** At most so many prefixes. */
const ROUNDS = 12

/** A line without what stands before its text. */
export const parseLine = (raw: string): Line => {
  const text = undamaged(raw)
  let at = 0
  let host: string | undefined
  let pid: number | undefined
  let rank: number | undefined
  let time: Pick<Line, 'seconds' | 'clock'> = {}
  for (let round = 0; round < ROUNDS; round++) {
    const start = at
    const first = text[at]
    if (first === undefined) break
    for (const { form, starts } of prefixes) {
      if (!starts.test(first)) continue
      form.lastIndex = at
      const match = form.exec(text)
      if (match === null) continue
      const groups = match.groups as Groups | undefined
      if (groups !== undefined) {
        // `Started app[42]:` has no time before it, and no host.
        if (!(HAS_PROCESS.test(match[0]) && time.seconds === undefined)) host ??= hostIn(groups.host)
        if (groups.pid !== undefined) pid = Number(groups.pid)
        if (groups.rank !== undefined) rank = Number(groups.rank)
        const found = timeOf(groups)
        // Any date is better than a time since boot.
        if (found.seconds !== undefined && (time.clock === undefined || time.clock === 'boot')) time = found
      }
      at = form.lastIndex
      break
    }
    if (at === start) break
  }
  return {
    text: text.slice(at),
    ...(host !== undefined && { host }),
    ...(pid !== undefined && { pid }),
    ...(rank !== undefined && { rank }),
    ...time,
  }
}

/** Characters before a match in which its header stands: names are looked for at each of them. */
const HEADER = 400

/** What the last header between two places of a line says of it. */
export const headerBefore = (text: string, from: number, to: number): Partial<Line> => {
  const before = text.slice(Math.max(from, to - HEADER), to)
  if (!HEADER_HINT.test(before)) return {}
  let best: Partial<Line> = {}
  let bestAt = -1
  for (const form of HEADERS) {
    form.lastIndex = 0
    for (let match = form.exec(before); match !== null; match = form.exec(before)) {
      if (match.index < bestAt) continue
      const { host: name, pid, rank, epoch } = match.groups as Groups
      const host = hostIn(name)
      if (name !== undefined && host === undefined) continue
      bestAt = match.index
      best = {
        ...(host !== undefined && { host }),
        ...(pid !== undefined && { pid: Number(pid) }),
        ...(rank !== undefined && { rank: Number(rank) }),
        ...(epoch !== undefined && { seconds: Number(epoch), clock: 'utc' as const }),
      }
    }
  }
  return best
}
