/*
 * What logs say, as text for people and as objects for scripts: first a paragraph to act on, then the first failure of
 * each chain, what its values mean, what the failures have in common, what contradicts, causes with what decides
 * between them, and what is missing.
 */
import { counted } from '../../base/text.ts'
import type { Failure, LogAnalysis } from './analysis.ts'
import { type Context, classOf, type FailureClass, type JudgedCause, judgedCauses, wrongLeads } from './causes.ts'
import { type Chain, chainsOf, clocksOf, hostNames, peerOf, type Shared, sharedBy } from './chains.ts'
import { type Remark, remarksOf } from './facts.ts'
import { type Value, valuesOf } from './values.ts'

/** What all chains are explained with: there may be thousands of them. */
interface Known {
  /** See `hostNames`. */
  readonly names: ReadonlyMap<string, string>
  /** Of failures. */
  readonly software: ReadonlySet<string>
}

interface Explained {
  readonly chain: Chain
  readonly context: Context
  readonly sentence: string
  readonly follows: string
  readonly values: readonly Value[]
  readonly shared: readonly Shared[]
  readonly causes: readonly JudgedCause[]
  readonly leads: readonly string[]
  readonly missing: readonly string[]
}

export interface Report {
  readonly analysis: LogAnalysis
  readonly chains: readonly Explained[]
  readonly remarks: readonly Remark[]
  /** Sentences. */
  readonly summary: readonly string[]
  /** RDMA has failed, or requests were flushed. */
  readonly hasFailed: boolean
  readonly clockNote: string | undefined
}

/** What has failed, in words, after "on HOST, DEVICE:". `{peer}`: who did not answer. */
const sentences: Readonly<Record<FailureClass, string>> = {
  'no-answer': 'a request was sent several times, and {peer} did not answer',
  'no-receive': '{peer} answered that it has no receive posted, until the retries were used up',
  'local-memory': 'the adapter could not access the local memory of a request',
  'local-request': 'the adapter refused a request as it was posted',
  'remote-memory': '{peer} refused the access to its memory',
  'remote-request': 'a request was refused as invalid, between this end and {peer}',
  'remote-operation': '{peer} could not execute a request',
  'no-peer-qp': '{peer} has no queue pair that takes the request',
  aborted: '{peer} aborted the operation',
  disconnected: '{peer} closed the connection in the middle of the work',
  flushed: 'requests were flushed, because their queue pair had failed or was closed before',
  'qp-setup': 'a queue pair could not be connected to {peer}',
  registration: 'memory could not be registered',
  resources: 'an object of verbs could not be made',
  'no-device': 'no RDMA device was found, or none could be opened',
  firmware: 'the firmware of the adapter refused a command',
  'adapter-failed': 'the adapter has failed',
  'refused-access': 'a request of {peer} was refused here: it may not access that memory',
  'port-down': 'a port lost its link',
  'cq-overrun': 'a completion queue overran',
  unreachable: '{peer} could not be reached',
  rejected: '{peer} refused the connection',
  incompatible: 'adapters of different link layers were to be connected',
  'storage-timeout': '{peer} did not complete a request in time',
  'queue-full': 'a request did not fit into its queue',
  provider: 'libfabric could not give what the program asked for',
  other: 'an operation of RDMA failed',
}

const two = (value: number): string => String(value).padStart(2, '0')

/** `12:03:05`, or seconds of dmesg. */
const timeText = ({ seconds, clock }: Pick<Failure, 'seconds' | 'clock'>): string | undefined => {
  if (seconds === undefined) return undefined
  if (clock === 'boot') return `${seconds.toFixed(3)} s after boot`
  const day = Math.floor(seconds) % 86_400
  return `${two(Math.floor(day / 3600))}:${two(Math.floor(day / 60) % 60)}:${two(day % 60)}`
}

const listed = (items: readonly string[], most = 4): string =>
  items.length > most
    ? `${items.slice(0, most - 1).join(', ')} and ${items.length - most + 1} others`
    : items.join(', ')

/** `flushed requests`, `aborts` …, with how often. */
const consequenceKinds: readonly (readonly [form: RegExp, noun: string, nouns?: string])[] = [
  [/^flush$/, 'flushed request'],
  [/watchdog/, 'watchdog timeout'],
  [/^(?:nvmet?|rpcrdma)-/, 'attempt to reconnect', 'attempts to reconnect'],
  [/flight/, "line of PyTorch's Flight Recorder", "lines of PyTorch's Flight Recorder"],
  [/closed/, 'closed TCP connection'],
  [/^nixl-|smb-client|^mooncake/, 'request that failed after it', 'requests that failed after it'],
  [/unhandled|nixl/, 'error of UCX that nobody handles', 'errors of UCX that nobody handles'],
  [/proxy|chain|abort|efa-abort|deepep|nvshmem/, 'abort or error of the program', 'aborts or errors of the program'],
  [/./, 'other line that follows', 'other lines that follow'],
]
const followsText = ({ consequences }: Chain): string => {
  const counts = new Map<(typeof consequenceKinds)[number], number>()
  for (const { status, shape, count } of consequences) {
    const id = status === 'WR_FLUSH_ERR' ? 'flush' : shape.id
    const kind = consequenceKinds.find(([form]) => form.test(id))!
    counts.set(kind, (counts.get(kind) ?? 0) + count)
  }
  return [...counts].map(([[, noun, nouns], count]) => counted(count, noun, nouns)).join(', ')
}

const HAS_GPUS = /\bNCCL\b|GDRDMA|GPUDirect|\bcuda|WorkNCCL|NVSHMEM|DeepEP|\bXid\b|nvidia_peermem/

/** The adapter that the same log says it uses, if it is one. */
const onlyDevice = ({ facts }: LogAnalysis, { source }: Failure): string | undefined => {
  const devices = facts.filter(fact => fact.variable === 'device' && fact.source === source)
  return devices.length === 1 ? devices[0]!.value : undefined
}

const contextOf = (analysis: LogAnalysis, { names }: Known, chain: Chain, shared: readonly Shared[]): Context => {
  const { first } = chain
  const firstRequest = chain.failures.some(({ fields }) => fields.wqe !== undefined && Number(fields.wqe) === 0)
  // A DCI serves many peers: that it has sent before says nothing of this one.
  const laterRequest = chain.failures.some(
    ({ fields }) => (fields.text !== 'DCI' && Number(fields.wqe) > 64) || Number(fields.completed) > 0,
  )
  const isEarly =
    first.fields.wqe !== undefined && Number(first.fields.wqe) === 0
      ? (chain.after ?? 0) < 600
        ? true
        : undefined
      : laterRequest && !firstRequest
        ? false
        : chain.after === undefined
          ? undefined
          : chain.after < 60
            ? true
            : chain.after > 600
              ? false
              : undefined
  const gidFact = analysis.facts.find(
    fact => /^(?:GID index|NCCL_IB_GID_INDEX)$/.test(fact.variable) && fact.value !== '-1',
  )
  return {
    chain,
    first,
    analysis,
    device: first.device ?? onlyDevice(analysis, first) ?? 'DEVICE',
    gid: first.fields.gidIndex ?? gidFact?.value ?? 'GID_INDEX',
    host: first.host ?? 'this host',
    peer: peerOf(first, names) ?? 'the peer',
    isEarly,
    hasGpus: [...chain.failures, ...chain.consequences].some(
      one => HAS_GPUS.test(one.software) || HAS_GPUS.test(one.text),
    ),
    shared,
  }
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1)

const sentenceOf = (context: Context): string => {
  const { first, peer } = context
  const where = [
    first.host,
    first.device,
    first.fields.port === undefined || first.device === undefined ? undefined : `port ${first.fields.port}`,
  ]
    .filter(part => part !== undefined)
    .join(', ')
  const time = timeText(first)
  const label =
    first.status ??
    first.event ??
    (first.family === 'efa' && first.vendor !== undefined ? `EFA ${first.vendor}` : undefined) ??
    (first.fields.call === undefined ? undefined : first.fields.call)
  const named = first.peer !== undefined && first.peer !== peer ? `${peer} (${first.peer})` : peer
  const kind = classOf(first)
  const why = kind === 'rejected' && first.rejection === 8 ? ': nobody listens there' : ''
  return `${capital(`${where === '' ? '' : `on ${where}: `}${sentences[kind].replace('{peer}', named)}`)}${why}${label === undefined ? '' : ` (${label})`}${time === undefined ? '' : `, at ${time}`}.`
}

/** Logs that would tell more. */
const missingOf = ({ first, chain, analysis, peer }: Context, { software }: Known): readonly string[] => {
  const missing: string[] = []
  const time = timeText(first)
  const around = time === undefined ? 'of the same time' : `around ${time}`
  if (first.peer !== undefined && !analysis.hosts.has(peer)) missing.push(`the log of ${peer} ${around}`)
  if (!software.has('mlx5 driver') && !software.has('kernel') && first.kind !== 'no-device')
    missing.push(
      `dmesg -T of ${first.host ?? 'the host that reports'}${first.peer === undefined ? '' : ` and of ${peer}`} ${around}`,
    )
  if (chain.failures.length === 0) missing.push('the lines before: the first failure is not in this log')
  if (software.has('NCCL') && !analysis.facts.some(({ variable }) => variable === 'devices'))
    missing.push('the beginning of the log with NCCL_DEBUG=INFO: adapters, GID indexes and addresses stand there')
  if (first.kind === 'completion' && first.device === undefined && first.family === undefined)
    missing.push('which adapter it was: this program does not say so')
  return missing
}

const explained = (analysis: LogAnalysis, known: Known, chain: Chain): Explained => {
  const shared = sharedBy(analysis, known.names, chain)
  const context = contextOf(analysis, known, chain, shared)
  return {
    chain,
    context,
    sentence: sentenceOf(context),
    follows: followsText(chain),
    values: valuesOf(chain.first),
    shared,
    causes: judgedCauses(context),
    leads: wrongLeads(context),
    missing: missingOf(context, known),
  }
}

/** Failures first, then chains that only follow from something. */
const order = (chain: Chain): number => (chain.failures.length === 0 ? 1 : 0)

export const reportOf = (analysis: LogAnalysis): Report => {
  const clocks = clocksOf(analysis)
  const known: Known = {
    names: hostNames(analysis),
    software: new Set(analysis.failures.map(one => one.software)),
  }
  const all = chainsOf(analysis, clocks, known.names)
  const chains = [...all].sort((a, b) => order(a) - order(b)).map(chain => explained(analysis, known, chain))
  const failed = chains.filter(
    ({ chain }) =>
      chain.failures.length > 0 || chain.consequences.some(({ status, kind }) => (status ?? kind) !== undefined),
  )
  const remarks = remarksOf(analysis)
  const lines = analysis.sources.reduce((sum, source) => sum + source.lines, 0)
  const main = failed[0]
  const summary: string[] = []
  if (main === undefined) {
    summary.push(
      `No failure of RDMA stands in ${counted(analysis.sources.length, 'log')} of ${counted(lines, 'line')}.`,
    )
    const [other] = chains
    if (other !== undefined)
      summary.push(
        `It has ${other.follows}, which also follow from other causes: a process that ended, or a collective that hangs.`,
      )
    const signs = analysis.failures.filter(({ role }) => role === 'sign')
    if (signs.length > 0)
      summary.push(
        `It has ${counted(signs.length, 'line')} that may matter: ${signs
          .slice(0, 3)
          .map(sign => `${placeText(sign)}: ${sign.text.slice(0, 160)}`)
          .join('; ')}.`,
      )
    if (lines === 0) summary.push('There is nothing in it.')
  } else {
    summary.push(main.sentence)
    if (main.chain.candidates.length > 0)
      summary.push(
        `It is not known which failure came first: ${listed(main.chain.candidates.map(one => `${one.host ?? one.source}${timeText(one) === undefined ? '' : ` at ${timeText(one)}`}`))}.`,
      )
    const rest = main.chain.count - main.chain.first.count
    const same = main.chain.first.count - 1
    const more = [
      ...(same > 0 ? [`${counted(same, 'more line')} like it`] : []),
      ...(rest > 0 ? [counted(rest, 'other failure')] : []),
      ...(main.follows === '' || main.chain.failures.length === 0 ? [] : [main.follows]),
    ]
    if (more.length > 0) summary.push(`After it come ${more.join('; ')}.`)
    const shared = main.shared.find(({ text }) => text.startsWith('name ')) ?? main.shared[0]
    if (shared !== undefined) summary.push(`${shared.count} of ${shared.of} failures ${shared.text}.`)
    const [cause] = main.causes
    if (cause !== undefined) {
      const rivals = main.causes.filter(({ likelihood }) => likelihood === cause.likelihood)
      summary.push(
        cause.likelihood === 'likely'
          ? `Likely: ${cause.text}.`
          : `Possible${rivals.length > 1 ? ', first' : ''}: ${cause.text}.`,
      )
      summary.push(`To decide: ${cause.decide}${cause.decide.endsWith('?') ? '' : '.'}`)
    }
    if (failed.length > 1)
      summary.push(
        `${counted(failed.length - 1, 'other failure')} that ${failed.length === 2 ? 'is' : 'are'} not connected with it ${failed.length === 2 ? 'follows' : 'follow'} below.`,
      )
  }
  const wrong = remarks.filter(({ isContradiction }) => isContradiction)
  if (wrong[0] !== undefined) summary.push(`${capital(wrong[0].text)}.`)
  return {
    analysis,
    chains,
    remarks,
    summary,
    hasFailed: failed.length > 0,
    clockNote:
      clocks.offsets.size === 0
        ? undefined
        : `clocks differ: ${listed([...clocks.offsets].map(([host, offset]) => `${host} by ${offset.toFixed(0)} s`))} (error ${clocks.error.toFixed(0)} s); times are compared without that`,
  }
}

const placeText = ({ source, line }: { readonly source: string; readonly line: number }): string => `${source}:${line}`

/** Lines of the text. `top`: so many chains, and failures of each. */
export const reportLines = (report: Report, top: number): readonly string[] => {
  const { analysis, chains, remarks, summary, clockNote } = report
  const lines: string[] = [...summary]
  const note = (text: string): void => void lines.push(`  ${text}`)
  const shown = chains.filter(({ chain }) => report.hasFailed || chain.failures.length > 0 || chain.signs.length > 0)
  for (const [i, one] of shown.slice(0, top).entries()) {
    const { chain, values, shared, causes, leads, missing, follows } = one
    const { first } = chain
    lines.push(
      '',
      `${shown.length > 1 ? `${i + 1}. ` : ''}${chain.failures.length === 0 ? 'What is left of the failure' : 'The first failure'}: ${one.sentence}`,
    )
    note(`${placeText(first)}: ${first.text}`)
    for (const { name, text, certainty } of values) note(`${name} (${certainty}): ${text}`)
    for (const other of chain.candidates.slice(1, top))
      note(`or first, on ${other.host ?? other.source}: ${placeText(other)}: ${other.text.slice(0, 160)}`)
    const others = chain.failures.filter(failure => failure !== first && !chain.candidates.includes(failure))
    if (others.length > 0) note('then:')
    for (const other of others.slice(0, top))
      note(`  ${placeText(other)}: ${other.text.slice(0, 200)}${other.count > 1 ? ` (${other.count} times)` : ''}`)
    if (others.length > top) note(`  and ${counted(others.length - top, 'other kind')} of failures`)
    if (follows !== '' && chain.failures.length > 0) note(`follows from it: ${follows}`)
    for (const sign of chain.signs.slice(0, top)) note(`near it: ${placeText(sign)}: ${sign.text.slice(0, 200)}`)
    if (shared.length > 0)
      lines.push('  in common:', ...shared.map(({ text, count, of }) => `    ${count} of ${of} failures ${text}`))
    if (causes.length > 0) lines.push('  causes, likeliest first:')
    for (const [number, { text, likelihood, supports, opposes, decide }] of causes.entries()) {
      lines.push(`    ${number + 1}. ${likelihood}: ${text}`)
      for (const support of supports) lines.push(`       for: ${support}`)
      for (const oppose of opposes) lines.push(`       against: ${oppose}`)
      lines.push(`       decides: ${decide}`)
    }
    for (const lead of leads) note(`not it: ${lead}`)
    if (missing.length > 0) lines.push('  missing:', ...missing.map(text => `    ${text}`))
  }
  if (shown.length > top) lines.push('', `and ${counted(shown.length - top, 'other chain')} of failures (--top)`)
  if (remarks.length > 0) {
    lines.push('', 'Settings that stand in the log:')
    for (const remark of remarks)
      note(`${remark.isContradiction ? 'wrong: ' : ''}${remark.text} (${placeText(remark)})`)
  }
  if (clockNote !== undefined) lines.push('', capital(`${clockNote}.`))
  for (const source of analysis.sources) {
    if (source.isCut) lines.push('', `${source.name}: its compression or archive is damaged; read up to there.`)
    if (source.isBinary) lines.push('', `${source.name}: has many bytes that are no text.`)
  }
  if (analysis.folded > 0)
    lines.push(
      '',
      `There are more kinds of failures than are kept apart: ${counted(analysis.folded, 'line')} without host and peer.`,
    )
  return lines
}

/** A line for a CI job. */
export const quietLine = ({ summary, hasFailed }: Report): string =>
  hasFailed ? `RDMA failed: ${summary[0]}` : summary[0]!

const failureObject = (failure: Failure): object => ({
  shape: failure.shape.id,
  software: failure.software,
  file: failure.source,
  line: failure.line,
  text: failure.text,
  count: failure.count,
  ...(failure.host !== undefined && { host: failure.host }),
  ...(failure.device !== undefined && { device: failure.device }),
  ...(failure.peer !== undefined && { peer: failure.peer }),
  ...(failure.status !== undefined && { status: failure.status }),
  ...(failure.vendor !== undefined && { vendorErr: failure.vendor }),
  ...(failure.errno !== undefined && { errno: failure.errno }),
  ...(failure.event !== undefined && { event: failure.event }),
  ...(failure.seconds !== undefined && {
    seconds: failure.seconds,
    clock: failure.clock === 'utc' ? 'wall' : failure.clock,
  }),
})

/** Objects, one for each line of JSON. */
export const reportObjects = (report: Report, top: number): readonly object[] => [
  {
    kind: 'logs',
    hasFailed: report.hasFailed,
    summary: report.summary.join(' '),
    files: report.analysis.sources.map(({ name, lines, bytes, isCut }) => ({ name, lines, bytes, isCut })),
  },
  ...report.chains.map(({ chain, context, sentence, follows, values, shared, causes, leads, missing }) => ({
    kind: 'failure',
    class: classOf(chain.first),
    sentence,
    first: failureObject(chain.first),
    isOrderKnown: chain.candidates.length === 0,
    candidates: chain.candidates.slice(0, top).map(failureObject),
    count: chain.count,
    others: chain.failures
      .filter(one => one !== chain.first)
      .slice(0, top)
      .map(failureObject),
    follows,
    signs: chain.signs.slice(0, top).map(failureObject),
    values,
    shared,
    causes,
    wrongLeads: leads,
    missing,
    ...(context.isEarly !== undefined && { isEarly: context.isEarly }),
  })),
  ...report.remarks.map(remark => ({
    kind: 'setting',
    isContradiction: remark.isContradiction,
    text: remark.text,
    file: remark.source,
    line: remark.line,
  })),
]
