/*
 * What packets themselves show, and what belongs to no queue pair.
 */
import { counted, hex } from '../../../base/text.ts'
import { SYNDROME_KIND_MASK, SYNDROME_VALUE_MASK, syndromeKind } from '../../../spec/wire/headers.ts'
import { transportBits } from '../../../spec/wire/opcodes.ts'
import { BurstCause } from '../flows/bursts.ts'
import { type Flow, isMtu } from '../flows/flow.ts'
import type { IcmpError } from '../locate.ts'
import { copiesIn, frameList, nanoText, type ProblemList, rangeText, times } from './list.ts'

/** A rate that changed by less than this is not worth a word. */
const RATE_RATIO = 1.5

/** RFC 792 and 4443. */
const icmpText = ({ isIpv6, type, code, mtu }: IcmpError): string => {
  const isBig = isIpv6 ? type === 2 : type === 3 && code === 4
  if (isBig) return `packet too big${mtu > 0 ? `, the next link takes ${mtu} bytes` : ''}`
  if (type === (isIpv6 ? 3 : 11)) return code === 0 ? 'time exceeded (hop limit)' : 'time exceeded (fragments)'
  if (isIpv6 ? type === 4 : type === 12) return 'a header that it does not understand'
  const names: Readonly<Record<number, string>> = isIpv6
    ? { 0: 'no route', 1: 'prohibited', 3: 'address unreachable', 4: 'port unreachable' }
    : { 0: 'network unreachable', 1: 'host unreachable', 2: 'protocol unreachable', 3: 'port unreachable' }
  const isProhibited = isIpv6 ? code === 5 || code === 6 : code === 9 || code === 10 || code === 13
  return names[code] ?? (isProhibited ? 'prohibited' : `destination unreachable, code ${code}`)
}

/** How the rate changed, if it did; slices at the ends may be parts. */
const ratesText = ({ slices, sliceWidth, slicesFrom, lastTime }: Flow): string[] => {
  if (slices === undefined) return []
  const from = Math.floor(slicesFrom / sliceWidth) + 1
  const whole = [...slices.subarray(from, Math.floor(lastTime / sliceWidth))]
  if (whole.length < 2) return []
  const rates = whole.map(bytes => (8 * bytes) / sliceWidth)
  const [least, most] = [Math.min(...rates), Math.max(...rates)]
  if (most < RATE_RATIO * least) return []
  const at = (rate: number): string => nanoText((from + rates.indexOf(rate)) * sliceWidth)
  return [`its rate was ${most.toFixed(3)} Gb/s at ${at(most)} and ${least.toFixed(3)} at ${at(least)}`]
}

/** Syndromes that are named. */
const MAX_SYNDROMES = 4

/** A reserved syndrome by its number. */
const reservedText = (syndrome: number): string =>
  (syndrome & SYNDROME_KIND_MASK) === syndromeKind.NAK
    ? `NAK code ${syndrome & SYNDROME_VALUE_MASK}`
    : `0x${syndrome.toString(16).padStart(2, '0')}`

/** What packets themselves show. */
export const addOfPackets = (problems: ProblemList, flow: Flow): void => {
  const of = { flow }
  if (flow.icrcWrong > 0)
    problems.add(
      'icrc-wrong',
      `${flow.icrcWrong} of ${flow.icrcChecked} checked packets have an ICRC that does not match their bytes`,
      frameList(flow.icrcFrame),
      flow.icrcWrong,
      of,
    )
  if (flow.malformed > 0)
    problems.add(
      'malformed',
      `${counted(flow.malformed, 'packet')}, the first: ${flow.malformedReason}`,
      frameList(flow.malformedFrame),
      flow.malformed,
      of,
    )
  if (problems.analysis.addresses.lidOf(flow.destination) === 0)
    problems.add('lid-zero', counted(flow.packets, 'packet'), frameList(flow.firstFrame), flow.packets, of)
  if (flow.zeroQkeys > 0)
    problems.add('qkey-zero', counted(flow.zeroQkeys, 'datagram'), frameList(flow.zeroQkeyFrame), flow.zeroQkeys, of)
  if (flow.ghosts > 0)
    problems.add(
      'ghosts',
      `${counted(flow.ghosts, 'packet')} with PSNs from before the jump in frame ${flow.jumpFrame}`,
      frameList(flow.jumpFrame, flow.ghostFrame),
      flow.ghosts,
      of,
    )
  if (flow.afterClose > 0)
    problems.add(
      'after-disconnect',
      `${counted(flow.afterClose, 'packet')} after the DREP`,
      frameList(flow.closedFrame, flow.afterCloseFrame),
      flow.afterClose,
      of,
    )
  if (flow.reserved !== undefined) {
    const list = [...flow.reserved].sort(([, a], [, b]) => b.count - a.count)
    const count = list.reduce((sum, [, one]) => sum + one.count, 0)
    problems.add(
      'malformed',
      `${counted(count, 'answer')} with a reserved syndrome: ${list
        .slice(0, MAX_SYNDROMES)
        .map(([syndrome, one]) => `${reservedText(syndrome)} ${times(one.count)}`)
        .join(', ')}`,
      frameList(...list.slice(0, MAX_SYNDROMES).map(([, { frame }]) => frame)),
      count,
      of,
    )
  }
  const { doubled, late } = copiesIn(flow)
  if (doubled > 0)
    problems.add(
      'doubled',
      `${doubled} of ${counted(flow.packets, 'packet')}, ${rangeText(flow.leastDoubled, flow.mostDoubled)} after the first`,
      frameList(flow.doubledFrame),
      doubled,
      of,
    )
  if (late > 0) {
    const asked = flow.repeats?.of[BurstCause.REORDERED]
    problems.add(
      'reordered',
      `${counted(late, 'packet')}${
        asked === undefined || asked.bursts === 0
          ? ''
          : `; the responder dropped what followed, and ${counted(asked.packets, 'packet')} in ${counted(asked.bursts, 'burst')} ${asked.packets === 1 ? 'was' : 'were'} sent again`
      }`,
      frameList(flow.reorderFrame),
      late,
      of,
    )
  }
  if (flow.jumps > 0)
    problems.add('psn-jump', `${times(flow.jumps)}, by more than ${1 << 16}`, frameList(flow.jumpFrame), flow.jumps, of)
  if (flow.marked > 0 || flow.cnps > 0)
    problems.add(
      'congestion',
      [
        ...(flow.marked > 0 ? [`${flow.marked} of ${counted(flow.packets, 'packet')} are marked`] : []),
        ...(flow.cnps > 0 ? [`${counted(flow.cnps, 'CNP')} ask queue pair ${hex(flow.qpn)} to slow down`] : []),
        ...ratesText(flow.marked > 0 ? flow : (cnpSender(problems, flow) ?? flow)),
      ].join('; '),
      frameList(flow.firstMarkedFrame, flow.firstCnpFrame),
      flow.marked + flow.cnps,
      of,
    )
  const { peer } = flow
  if (peer === undefined) return
  // Once for both directions.
  if (flow.number > peer.number) return
  if (flow.pkey >= 0 && peer.pkey >= 0 && ((flow.pkey ^ peer.pkey) & 0x7fff) !== 0)
    problems.add(
      'pkey-differs',
      `${hex(flow.pkey)} and ${hex(peer.pkey)}`,
      frameList(flow.firstFrame, peer.firstFrame),
      flow.packets,
      of,
    )
  if (isMtu(flow.mtu) && isMtu(peer.mtu) && flow.mtu !== peer.mtu)
    problems.add(
      'mtu-differs',
      `packets to ${hex(flow.qpn)} carry ${flow.mtu} bytes, those to ${hex(peer.qpn)} ${peer.mtu}`,
      frameList(flow.firstFrame, peer.firstFrame),
      flow.packets,
      of,
    )
}

/** The flow that CNPs to a queue pair are about. They are of no service of their own. */
const cnpSender = ({ analysis }: ProblemList, { source, destination, qpn }: Flow): Flow | undefined =>
  analysis.table.find(source, destination, qpn, transportBits.RC, 0)?.peer

/** What belongs to no queue pair. */
export const addOfPath = (problems: ProblemList): void => {
  const { errors, otherPorts, addresses, table, fragments } = problems.analysis
  if (fragments.packets > 0)
    problems.add(
      'fragmented',
      `${counted(fragments.packets, 'packet')} in fragments${fragments.incomplete > 0 ? `; of ${fragments.incomplete} some are missing` : ''}`,
      frameList(fragments.firstFrame, fragments.incompleteFrame),
      fragments.packets,
      {},
    )
  for (const error of errors.values()) {
    const { reporter, source, destination, qpn, count, frame } = error
    const what = `${addresses.text(reporter)} says of packets from ${addresses.text(source)} to ${addresses.text(destination)}${qpn < 0 ? '' : ` QP ${hex(qpn)}`}: ${icmpText(error)}`
    problems.add('icmp-refused', `${what}, ${times(count)}`, frameList(frame), count, {})
  }
  for (const [port, frame] of otherPorts) problems.add('other-port', `port ${port}`, frameList(frame), 1, {})
  for (const { destination, senders, bytes, time, trouble, troubleOfMany } of table.incast.list)
    if (trouble > 0 && 2 * troubleOfMany > trouble)
      problems.add(
        'incast',
        `${senders} hosts sent ${bytes} bytes to ${addresses.text(destination)} within a millisecond, at ${nanoText(time)}; ${troubleOfMany} of its ${trouble} marks, CNPs and repeats are in such milliseconds`,
        [],
        troubleOfMany,
        {},
      )
}
