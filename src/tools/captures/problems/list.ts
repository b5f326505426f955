/*
 * The problems of a capture while they are collected, and the words that they share.
 */
import type { CaptureCause } from '../../../spec/captures.ts'
import { durationText } from '../../../spec/duration.ts'
import { transportBits } from '../../../spec/wire/opcodes.ts'
import type { CaptureAnalysis } from '../analysis.ts'
import type { CaptureConnection } from '../connections.ts'
import { BurstCause } from '../flows/bursts.ts'
import type { Flow } from '../flows/flow.ts'
import type { Refused } from '../flows/refused.ts'

export interface CaptureProblem {
  readonly cause: CaptureCause
  /** The flow whose requests, or packets, have the problem. */
  readonly flow?: Flow
  readonly connection?: CaptureConnection
  /** What the packets show: a sentence without its full stop. */
  readonly evidence: string
  /** Frames that show it, as Wireshark counts. */
  readonly frames: readonly number[]
  /** Of equal causes, the one with the larger weight comes first. */
  readonly weight: number
  /** The request that a NAK refused. */
  readonly refused?: Refused
  /** The number of the address whose packets the capture lacks. */
  readonly absent?: number
}

/** What a problem is about. */
type About = Pick<CaptureProblem, 'flow' | 'connection' | 'refused' | 'absent'>

/** Many, beside others: one in so many, or so many times as many. */
const MOST_DOUBLED = 4
/** Problems beyond are counted by cause only. */
const MAX_PROBLEMS = 10_000

export const times = (count: number): string => (count === 1 ? 'once' : count === 2 ? 'twice' : `${count} times`)
export const nanoText = (nanoseconds: number): string => durationText(nanoseconds / 1000)
/** `5.00 to 133 µs`; equal ends once. */
export const rangeText = (least: number, most: number): string => {
  const [from, to] = [nanoText(least), nanoText(most)]
  if (from === to) return from
  const unit = to.slice(to.indexOf(' '))
  return `${from.endsWith(unit) ? from.slice(0, -unit.length) : from} to ${to}`
}
export const isReliable = ({ service }: Flow): boolean => service === transportBits.RC || service === transportBits.XRC
export const frameList = (...frames: number[]): number[] =>
  [...new Set(frames.filter(frame => frame > 0))].sort((a, b) => a - b)

/** Packets that come twice and packets that come late, of a flow. */
export const copiesIn = ({
  doubled,
  reordered,
  requests,
  repeats,
}: Flow): { readonly doubled: number; readonly late: number } => {
  const { bursts, packets } = repeats?.of[BurstCause.AT_ONCE] ?? { bursts: 0, packets: 0 }
  // Where many come twice, whole bursts that come at once are copies.
  const isCopied = doubled > 2 * bursts && MOST_DOUBLED * (doubled + packets) >= requests
  if (isCopied) return { doubled: doubled + packets, late: reordered }
  // Where many come late, what comes twice was late, and had been sent again.
  return MOST_DOUBLED * doubled <= reordered ? { doubled: 0, late: reordered + doubled } : { doubled, late: reordered }
}

export class ProblemList {
  readonly list: CaptureProblem[] = []
  readonly counts = new Map<CaptureCause, number>()
  readonly analysis: CaptureAnalysis
  /** Flows of answers without a peer, by the address that they come from. */
  readonly #strayAnswers = new Map<number, Flow[]>()
  /** Pairs of addresses, from and to, between which the capture has packets. */
  readonly #directions = new Set<number>()

  constructor(analysis: CaptureAnalysis) {
    this.analysis = analysis
    for (const flow of analysis.flows) {
      this.#directions.add(flow.source * ADDRESSES + flow.destination)
      if (flow.peer !== undefined || flow.answers === 0) continue
      const strays = this.#strayAnswers.get(flow.source)
      if (strays === undefined) this.#strayAnswers.set(flow.source, [flow])
      else if (strays.length < 64) strays.push(flow)
    }
  }

  add(cause: CaptureCause, evidence: string, frames: readonly number[], weight: number, about: About): void {
    this.counts.set(cause, (this.counts.get(cause) ?? 0) + 1)
    if (this.list.length < MAX_PROBLEMS) this.list.push({ cause, evidence, frames, weight, ...about })
  }

  addressText(number: number): string {
    return this.analysis.addresses.text(number)
  }

  /** Whether the capture has no packet from a flow's destination to its source. */
  isOneWay({ source, destination }: Flow): boolean {
    return source !== destination && !this.#directions.has(destination * ADDRESSES + source)
  }

  /** The connection of a flow's queue pairs, and whether the flow's requests are the client's. */
  connectionOf(flow: Flow): { readonly connection: CaptureConnection; readonly isClient: boolean } | undefined {
    const connection = this.analysis.connectionTable.ofQp(flow.destination, flow.qpn)
    if (connection === undefined) return undefined
    return { connection, isClient: connection.serverQpn === flow.qpn && connection.server === flow.destination }
  }

  /** Flows of answers without a peer that come from an address. */
  answersFrom(address: number): readonly Flow[] {
    return this.#strayAnswers.get(address) ?? []
  }
}

/** More than there are numbers of addresses. */
const ADDRESSES = 2 ** 20
