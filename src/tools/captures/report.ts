/*
 * What a capture shows, as text for people and as objects for programs.
 */
import { counted, hex, hexBytes } from '../../base/text.ts'
import { type CaptureCause, type CaptureSeverity, captureCause } from '../../spec/captures.ts'
import { durationText } from '../../spec/duration.ts'
import { classText } from '../../spec/wire/flow.ts'
import { transportBits } from '../../spec/wire/opcodes.ts'
import type { CaptureAnalysis } from './analysis.ts'
import type { CaptureConnection } from './connections.ts'
import { BurstCause } from './flows/bursts.ts'
import { type Flow, GROUP, messageKinds, SIZE_GROUPS } from './flows/flow.ts'
import { type Refused, refusedText } from './flows/refused.ts'
import { Kind, packetKinds } from './locate.ts'
import { type OtherGroup, otherText } from './others.ts'
import { copiesIn } from './problems/list.ts'
import { type CaptureProblem, problemsOf } from './problems.ts'

const serviceNames = new Map<number, string>(Object.entries(transportBits).map(([name, bits]) => [bits, name]))
const serviceName = (service: number): string => serviceNames.get(service) ?? `service ${hex(service)}`
const number = (value: number): string => value.toLocaleString('en-US')
const plural = (count: number, noun: string): string => `${number(count)} ${noun}${count === 1 ? '' : 's'}`

/** A flow for people: who sends to whom. */
export const flowText = ({ addresses }: CaptureAnalysis, flow: Flow): string => {
  const { peer, source, destination, qpn, sourceQpn, service } = flow
  const from = sourceQpn > 0 ? ` QP ${hex(sourceQpn)}` : peer === undefined ? '' : ` QP ${hex(peer.qpn)}`
  return `${addresses.text(source)}${from} → ${addresses.text(destination)} QP ${hex(qpn)} (${serviceName(service)})`
}

const connectionText = ({ addresses }: CaptureAnalysis, connection: CaptureConnection): string =>
  `${addresses.text(connection.client)} → ${addresses.text(connection.server)}`

const subjectText = (analysis: CaptureAnalysis, { flow, connection }: CaptureProblem): string =>
  flow !== undefined ? flowText(analysis, flow) : connection !== undefined ? connectionText(analysis, connection) : ''

/**
 * `3 WRITE of 4096 bytes`, `2 SEND, 3 READ of 64 to 4096 bytes`; sizes are those of messages without missing packets.
 */
const messagesText = (flow: Flow): string => {
  const { smallestMessage: least, largestMessage: most } = flow
  const sizes = least > most ? '' : ` of ${least === most ? '' : `${least} to `}${counted(most, 'byte')}`
  const kinds = messageKinds
    .map((kind, i) => ({ kind, count: flow.messages?.[i] ?? 0 }))
    .filter(({ count }) => count > 0)
    .map(({ kind, count }) => `${number(count)} ${kind}`)
    .join(', ')
  return kinds === '' ? '' : `${kinds}${sizes}`
}

/** Numbers of a kind that are named. */
const MAX_NAMED = 4
/** Kinds of packets whose numbers are named. */
const groupOf: readonly (readonly [kind: number, group: OtherGroup])[] = [
  [Kind.OTHER_ETHERTYPE, 'etherTypes'],
  [Kind.OTHER_IP, 'protocols'],
  [Kind.OTHER_UDP, 'ports'],
]

const kindsText = ({ kinds, others }: CaptureAnalysis): string => {
  const list = packetKinds.map((kind, i) => ({ kind: kind as string, count: kinds[i] }))
  for (const [kind, group] of groupOf)
    for (const other of others.list(group).slice(0, MAX_NAMED)) {
      list[kind].count -= other.count
      list.push({ kind: otherText(group, other), count: other.count })
    }
  return list
    .filter(({ count }) => count > 0)
    .sort((a, b) => b.count - a.count)
    .map(({ kind, count }) => `${number(count)} ${kind}`)
    .join(', ')
}

interface ReportOptions {
  /** The file, as the user named it. */
  readonly name: string
  /** Instances of each cause, and queue pairs, that are printed. */
  readonly top: number
}

/** Queue pairs of both directions, busiest first: each flow with requests, or without a peer. */
const busiest = (flows: readonly Flow[], top: number): Flow[] => {
  const list: Flow[] = []
  for (const flow of flows) {
    if (flow.requests === 0) continue
    if (list.length === top && flow.bytes <= list[top - 1].bytes) continue
    list.push(flow)
    list.sort((a, b) => b.bytes - a.bytes)
    if (list.length > top) list.pop()
  }
  return list
}

/** Of answers, by the size of the message: `most` bytes; the last group has no limit. */
const delaysBySize = ({ delayBySize }: Flow): readonly Record<string, number | undefined>[] =>
  [...SIZE_GROUPS, undefined].flatMap((most, i) => {
    const count = delayBySize?.[GROUP * i] ?? 0
    return count === 0
      ? []
      : [{ most, count, mean: delayBySize![GROUP * i + 1] / count, longest: delayBySize![GROUP * i + 2] }]
  })

const bySizeText = (flow: Flow): string => {
  const groups = delaysBySize(flow)
  if (groups.length < 2) return ''
  const parts = groups.map(
    ({ most, mean }) =>
      `${most === undefined ? `more than ${SIZE_GROUPS.at(-1)}` : `up to ${most}`} bytes ${durationText(mean! / 1000)}`,
  )
  return ` (${parts.join(', ')})`
}

const flowLine = (analysis: CaptureAnalysis, flow: Flow): string => {
  const packetClass = { dscp: flow.dscp, hopLimit: flow.hopLimit || undefined }
  const { peer } = flow
  const seconds = (flow.lastTime - flow.firstTime) / 1e9
  const rate = seconds > 0 && flow.packets > 1 ? `, ${((8 * flow.bytes) / seconds / 1e9).toFixed(3)} Gb/s` : ''
  const delay =
    peer !== undefined && peer.delays > 0
      ? `; answers took ${durationText(peer.delaySum / peer.delays / 1000)} in the mean${bySizeText(peer)}`
      : ''
  const mtu = flow.mtu > 0 ? `, packets of ${flow.mtu}` : ''
  return `  ${flowText(analysis, flow)}: ${messagesText(flow) || 'no whole message'}${mtu}${classText(packetClass)}, frames ${flow.firstFrame} to ${flow.lastFrame}${rate}${delay}`
}

/** A line of a report; the first one of a problem says its severity. */
export type ReportLine = string | { readonly text: string; readonly severity: CaptureSeverity }

/** The report in lines. */
export const reportLines = (analysis: CaptureAnalysis, { name, top }: ReportOptions): ReportLine[] => {
  const { reader, flows, connections, table, end, joined } = analysis
  const { problems, counts } = problemsOf(analysis)
  const lines: ReportLine[] = [
    `${name}: ${reader.format ?? 'no capture'}, ${plural(reader.packets, 'packet')}${reader.packets > 1 ? ` in ${durationText(end / 1000)}` : ''}${reader.packets > 0 ? `: ${kindsText(analysis)}` : ''}`,
  ]
  if (reader.damage !== undefined) lines.push(`  read up to byte ${reader.damage.offset}: ${reader.damage.reason}`)
  if (reader.cut > 0)
    lines.push(
      `  ${plural(reader.cut, 'packet')} ${reader.cut === 1 ? 'is' : 'are'} cut (snap length): their ICRC is not checked`,
    )
  const { cutSyndromes, cutSyndromeFrame } = table
  if (cutSyndromes > 0)
    lines.push(
      `  of ${plural(cutSyndromes, 'answer')} the syndrome is cut, the first in frame ${cutSyndromeFrame}: whether they are ACKs or NAKs is not known (snap length; without tags and over IPv4, 58 bytes have it)`,
    )
  if (joined.frames > 0)
    lines.push(
      `  ${plural(joined.frames, 'frame')} ${joined.frames === 1 ? 'has' : 'have'} several packets, ${number(joined.packets)} in all: the host had not segmented them yet, or had joined them (GSO, GRO)`,
    )
  if (table.leftOut > 0) lines.push(`  ${plural(table.leftOut, 'packet')} of further queue pairs were left out`)
  if (analysis.backwards > 0) lines.push(`  the clock went back ${plural(analysis.backwards, 'time')}`)
  if (flows.length > 0)
    lines.push(
      `  ${plural(flows.length, 'flow')} to queue pairs, ${plural(connections.length, 'connection')} made in the capture`,
    )
  const shownByCause = new Map<CaptureCause, number>()
  let position = 0
  let current: CaptureCause | undefined
  const close = (): void => {
    if (current === undefined) return
    const { why, unknown, advice } = captureCause(current, analysis.hasLids)
    const more = (counts.get(current) ?? 0) - top
    if (more > 0) lines.push(`   and ${number(more)} more (--top)`)
    lines.push(
      `   why: ${unknown === undefined ? why : `unknown, because ${unknown}: ${why}`}`,
      `   what to do: ${advice}`,
    )
  }
  for (const problem of problems) {
    const { cause, evidence, frames, refused } = problem
    if (cause !== current) {
      close()
      current = cause
      const { severity, title } = captureCause(cause)
      lines.push('', { text: `${++position}. ${severity}: ${title}`, severity })
    }
    const shown = shownByCause.get(cause) ?? 0
    shownByCause.set(cause, shown + 1)
    if (shown >= top) continue
    const subject = subjectText(analysis, problem)
    if (subject !== '') lines.push(`   ${subject}`)
    lines.push(`     ${evidence}`)
    if (frames.length > 0) lines.push(`     ${frames.length === 1 ? 'frame' : 'frames'} ${frames.join(', ')}`)
    if (refused !== undefined) lines.push(`     refused: ${refusedText(refused)}`)
  }
  close()
  if (problems.length === 0)
    lines.push(
      '',
      flows.length === 0 ? 'no RDMA packets' : 'nothing that failed or was slow is visible in these packets',
    )
  const shown = busiest(flows, top)
  if (shown.length > 0) lines.push('', 'the busiest flows', ...shown.map(flow => flowLine(analysis, flow)))
  return lines
}

/** Packets that were sent again, by why. */
const againJson = ({ repeats }: Flow) =>
  repeats &&
  Object.fromEntries(
    Object.entries(BurstCause)
      .map(([name, cause]) => [name, repeats.of[cause]] as const)
      .filter(([, { packets }]) => packets > 0)
      .map(([name, { bursts, packets, bytes }]) => [name, { bursts, packets, bytes }]),
  )

const flowJson = (analysis: CaptureAnalysis, flow: Flow) => ({
  source: analysis.addresses.text(flow.source),
  destination: analysis.addresses.text(flow.destination),
  qpn: flow.qpn,
  sourceQpn: flow.sourceQpn > 0 ? flow.sourceQpn : flow.peer?.qpn,
  service: serviceName(flow.service),
})

const connectionJson = ({ addresses }: CaptureAnalysis, connection: CaptureConnection) => ({
  client: addresses.text(connection.client),
  server: addresses.text(connection.server),
  clientQpn: connection.clientQpn,
  serverQpn: connection.serverQpn,
  port: connection.port,
})

/** The request that a NAK refused. */
const refusedJson = ({ opcode, remote, length }: Refused) => ({
  opcode,
  rkey: remote?.rkey,
  address: remote && hex(remote.address),
  length,
})

const hexOf = (bytes: Uint8Array | undefined): string | undefined => bytes && hexBytes(bytes)

/**
 * The report as objects: the capture, its problems, its connections and flows. Times are nanoseconds since the first
 * packet.
 */
export const reportObjects = function* (analysis: CaptureAnalysis, name: string): Generator<Record<string, unknown>> {
  const { reader, kinds, connections, flows, table, others, joined } = analysis
  yield {
    kind: 'capture',
    name,
    format: reader.format,
    packets: reader.packets,
    bytes: reader.bytes,
    duration: analysis.end,
    start: analysis.startSeconds + analysis.startNanoseconds / 1e9,
    damage: reader.damage,
    cut: reader.cut,
    cutSyndromes: table.cutSyndromes,
    leftOut: table.leftOut,
    kinds: Object.fromEntries(packetKinds.map((kind, i) => [kind, kinds[i]]).filter(([, count]) => count !== 0)),
    others: {
      etherTypes: others.list('etherTypes'),
      protocols: others.list('protocols'),
      ports: others.list('ports'),
    },
    joined: { frames: joined.frames, packets: joined.packets },
    opcodes: analysis.opcodes,
  }
  for (const { cause, flow, connection, evidence, frames, refused, absent } of problemsOf(analysis).problems) {
    const { severity, title, why, unknown, advice, findings } = captureCause(cause, analysis.hasLids)
    yield {
      kind: 'problem',
      cause,
      severity,
      title,
      evidence,
      frames,
      ...(flow !== undefined && { flow: flowJson(analysis, flow) }),
      ...(connection !== undefined && { connection: connectionJson(analysis, connection) }),
      ...(refused !== undefined && { refused: refusedJson(refused) }),
      ...(absent !== undefined && { absent: analysis.addresses.text(absent) }),
      why,
      unknown,
      advice,
      findings,
    }
  }
  for (const connection of connections) {
    const { messages } = connection
    yield {
      kind: 'connection',
      ...connectionJson(analysis, connection),
      isDatagram: connection.isDatagram,
      clientPsn: connection.clientPsn,
      serverPsn: connection.serverPsn,
      mtu: connection.mtu,
      retryCount: connection.retryCount,
      clientRnrRetry: connection.clientRnrRetry,
      serverRnrRetry: connection.serverRnrRetry,
      ackTimeout: connection.ackTimeout,
      clientReads: connection.clientReads,
      serverReads: connection.serverReads,
      rejectReason: connection.rejectReason,
      clientData: hexOf(connection.clientData),
      serverData: hexOf(connection.serverData),
      messages,
    }
  }
  for (const flow of flows) {
    yield {
      kind: 'flow',
      ...flowJson(analysis, flow),
      peerKnownBy: flow.peerSource,
      packets: flow.packets,
      bytes: flow.bytes,
      copies: flow.copies,
      frames: [flow.firstFrame, flow.lastFrame],
      from: flow.firstTime,
      to: flow.lastTime,
      mtu: flow.mtu,
      requests: flow.requests,
      firstPsn: flow.firstPsn,
      lastPsn: flow.requests === 0 ? -1 : (flow.nextPsn - 1) & 0xff_ffff,
      messages: Object.fromEntries(
        messageKinds.map((kind, i) => [kind, flow.messages?.[i] ?? 0]).filter(([, count]) => count !== 0),
      ),
      messageBytes: flow.messageBytes,
      repeated: flow.repeated,
      missing: flow.holes - flow.filled,
      again: againJson(flow),
      reordered: copiesIn(flow).late,
      answers: flow.answers,
      ackedPsn: flow.ackedPsn,
      rnrNaks: flow.rnrs,
      sequenceNaks: flow.sequenceNaks,
      fatalNaks: flow.fatalNaks,
      cnps: flow.cnps,
      marked: flow.marked,
      delay:
        flow.delays === 0
          ? undefined
          : {
              count: flow.delays,
              mean: flow.delaySum / flow.delays,
              longest: flow.delayMax,
              bySize: delaysBySize(flow),
            },
      ghosts: flow.ghosts,
      doubled: copiesIn(flow).doubled,
      mostReads: flow.mostReads,
      idle: flow.idle,
      rate: flow.slices && { slice: flow.sliceWidth, bytes: [...flow.slices] },
    }
  }
}
