/*
 * What the checker of a host of a net tells that of another host about the other end of a connection: the queue pair
 * with its history and first failure, the regions of its program, and its part of the story.
 */
import type { Failure } from './failures.ts'
import type { Moment, Program, Story } from './finding.ts'

/** Names in the folder of a net, beside whose file each host has a folder with the socket of its daemon. */
export const NetFolderNames = { state: 'net.json', socket: 'sock' } as const

export interface PeerQuestion {
  /** A GID, or `LID 7`. */
  readonly address: string
  readonly qpn: number
  /** As it was then: microseconds since 1970. */
  readonly time: number
}

/** A queue pair or a memory region. */
export interface PeerObject {
  readonly handle: number
  readonly class: string
  readonly program: Program | undefined
  readonly history: readonly Moment[]
  readonly isDestroyed: boolean
  /** As the attributes of its creation, and what that returned. */
  readonly args: Readonly<Record<string, unknown>>
  readonly out: Readonly<Record<string, unknown>>
  readonly attributes: Readonly<Record<string, unknown>>
  readonly failure?: Failure
}

export interface PeerFacts {
  /** The name of the device with the address. */
  readonly device: string
  /** Microseconds since 1970 at time 0 of the daemon's clock. */
  readonly clock: number
  /** Absent: there was no queue pair with this number, as far as is known. */
  readonly qp?: PeerObject
  /** The ibv_qp_state, which calls do not tell; absent: that of the last call. */
  readonly state?: number
  readonly regions: readonly PeerObject[]
  readonly story: Story
}

const tagged = (_: string, value: unknown): unknown => {
  if (typeof value === 'bigint') return { $number: String(value) }
  return value instanceof Uint8Array ? { $bytes: [...value] } : value
}

const untagged = (_: string, value: unknown): unknown => {
  if (typeof value !== 'object' || value === null) return value
  if ('$number' in value) return BigInt(value.$number as string)
  return '$bytes' in value ? Uint8Array.from(value.$bytes as number[]) : value
}

/** Characters of the text of facts: a message has room for them as JSON in JSON. */
const MAX_TEXT = 24_000

/** Facts as text. If they are too long, the story and the histories of regions are left out. */
export const peerFactsText = (facts: PeerFacts): string => {
  const text = JSON.stringify(facts, tagged)
  if (text.length <= MAX_TEXT) return text
  const short = { ...facts, story: facts.story.slice(-8), regions: facts.regions.slice(0, 4) }
  const cut = JSON.stringify(short, tagged)
  return cut.length <= MAX_TEXT ? cut : JSON.stringify({ ...short, story: [], regions: [] }, tagged)
}

/** Undefined: it is no such text. */
export const readPeerFacts = (text: string): PeerFacts | undefined => {
  try {
    const value = JSON.parse(text, untagged) as PeerFacts | null
    return typeof value?.device === 'string' && Array.isArray(value.regions) && Array.isArray(value.story)
      ? value
      : undefined
  } catch {
    return undefined
  }
}
