/*
 * The flow rules of a device (IBV_FLOW_ATTR_…, and those with matchers of mlx5dv): which receivers get a frame, and
 * what becomes of frames that are sent. A rule names fields of the frame under a mask. Rules with one mask, priority
 * and type are a group, with a hash table by the masked fields: a frame costs one look-up per group, not per rule,
 * whatever programs create. Groups are limited for that reason.
 *
 * Order: NORMAL rules by priority, then MC_DEFAULT, then ALL_DEFAULT; of groups with one priority the one with more
 * bits in its mask first, then the older one. Only the first match counts, unless it says DONT_TRAP. Rules that match
 * the same fields at the same place all get the frame. SNIFFER rules get a copy of every frame.
 */
import { FlowType } from '../../../spec/enums.ts'
import { callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import { FLOW_KEY_BYTES, FlowKey, GROUP_BIT } from '../../../spec/wire/ethernet.ts'
import type { ArrivedFrame, Scratch } from './arrived-frame.ts'
import { applyEdits, type FrameEdits } from './frame-edits.ts'
import { hashWords } from './keyed-hash.ts'

const { NORMAL, ALL_DEFAULT, MC_DEFAULT, SNIFFER } = FlowType.values
const KEY_WORDS = FLOW_KEY_BYTES / 4
/**
 * Maximum groups of a device, receivers of rules that match the same fields, and sniffers: they bound the work for one
 * frame.
 */
const MAX_GROUPS = 64
const MAX_COPIES = 64

/** What receives frames: a queue pair, or work queues by an indirection table. */
export interface FrameReceiver {
  receive(frame: ArrivedFrame, tag: number): void
}

/** The receiver of rules for frames that are sent: they go on to the link. */
export const link: FrameReceiver = { receive: () => undefined }
/** The receiver of rules whose frames go on as if none of the NORMAL rules had matched. */
export const defaultMiss: FrameReceiver = { receive: () => undefined }

/** Counts the frames of rules: packets at 2 · `index`, and bytes behind it. */
export interface FlowCounter {
  readonly counts: Float64Array
  readonly index: number
}

/** A rule as a program creates it. */
export interface FlowRule {
  /** `FlowType`. */
  readonly type: number
  readonly priority: number
  /** FLOW_KEY_BYTES bytes each. A bit of `value` counts only if `mask` has it. */
  readonly value: Uint8Array
  readonly mask: Uint8Array
  readonly doesNotTrap: boolean
  /** Undefined: frames that match are dropped. */
  readonly receiver: FrameReceiver | undefined
  /** 24 bits, for the completion. */
  readonly tag: number
  readonly counter?: FlowCounter
  /** Changes the frames for the receiver. */
  readonly edits?: FrameEdits
}

/** A rule in the list of those with its receiver, at `at`. */
interface Entry {
  readonly rule: FlowRule
  at: number
}

interface UsedCounter extends FlowCounter {
  /** Rules. */
  uses: number
}

/** The rules with the same fields. Adding and removing one takes the same time, whatever their number. */
interface Match {
  readonly words: Uint32Array
  /** Of each receiver one rule, the first of `entries`: it gets one copy. */
  readonly takers: FlowRule[]
  /** By index of the taker. */
  readonly entries: Entry[][]
  /** The counters of its rules, each once. */
  readonly counters: UsedCounter[]
  /** Rules without DONT_TRAP. */
  trapping: number
  next: Match | undefined
}

interface Group {
  /** NORMAL, MC_DEFAULT and ALL_DEFAULT, in the order of their look-up. */
  readonly tier: number
  readonly priority: number
  readonly maskText: string
  readonly bits: number
  /** Indices of the words that the mask has, and the mask's words there. */
  readonly at: Int32Array
  readonly mask: Uint32Array
  readonly matches: Map<number, Match>
  rules: number
}

const tiers: Readonly<Record<number, number>> = { [NORMAL]: 0, [MC_DEFAULT]: 1, [ALL_DEFAULT]: 2 }

const bitCount = (bytes: Uint8Array): number => {
  let count = 0
  for (const byte of bytes) for (let left = byte; left !== 0; left &= left - 1) count++
  return count
}

/** The mask of a rule that MC_DEFAULT stands for: frames to groups. */
const groupMask = new Uint8Array(FLOW_KEY_BYTES)
groupMask[FlowKey.ETH] = GROUP_BIT
const noMask = new Uint8Array(FLOW_KEY_BYTES)

/** The rule with the mask that its type implies. */
const explicit = (rule: FlowRule): FlowRule => {
  if (rule.type === MC_DEFAULT) return { ...rule, value: groupMask, mask: groupMask }
  return rule.type === NORMAL ? rule : { ...rule, value: noMask, mask: noMask }
}

const wordsOf = (bytes: Uint8Array): Uint32Array => new Uint32Array(bytes.slice().buffer)

const requireRoom = ({ length }: readonly unknown[], receivers = 'queue pairs'): void => {
  if (length === MAX_COPIES)
    throw callError.ENOSPC`${the.method('flow.create')}: ${length} ${receivers} get these frames already, the most that the device has for a frame`
}

const isSame = (one: FlowCounter, other: FlowCounter): boolean =>
  one.counts === other.counts && one.index === other.index

const count = (counters: readonly FlowCounter[], bytes: number): void => {
  for (let i = 0; i < counters.length; i++) {
    const { counts, index } = counters[i]!
    counts[2 * index]!++
    counts[2 * index + 1]! += bytes
  }
}

/** `seed`: a random u32, so that programs cannot choose rules with one hash. */
export class Steering {
  readonly #seed: number
  readonly #groups: Group[] = []
  readonly #sniffers: FlowRule[] = []
  /** Of `#find`. */
  readonly #words = new Uint32Array(KEY_WORDS)

  constructor(seed: number) {
    this.#seed = seed
  }

  get isEmpty(): boolean {
    return this.#groups.length === 0 && this.#sniffers.length === 0
  }

  /** Adds a rule. Returns the function that removes it. Throws CallError ENOSPC if it is one too many. */
  add(given: FlowRule): () => void {
    const rule = explicit(given)
    if (rule.type === SNIFFER) {
      requireRoom(this.#sniffers)
      this.#sniffers.push(rule)
      return () => void this.#sniffers.splice(this.#sniffers.indexOf(rule), 1)
    }
    const group = this.#groupOf(rule)
    const words = this.#masked(group, wordsOf(rule.value))
    const hash = hashWords(this.#seed, words, words.length)
    const first = group.matches.get(hash)
    let match = first
    while (match !== undefined && !match.words.every((word, i) => word === words[i])) match = match.next
    if (match === undefined) {
      match = { words, takers: [], entries: [], counters: [], trapping: 0, next: first }
      group.matches.set(hash, match)
    }
    const { counter } = rule
    const taker = match.takers.findIndex(({ receiver }) => receiver === rule.receiver)
    const counted = counter && match.counters.find(other => isSame(other, counter))
    if (taker < 0) requireRoom(match.takers)
    if (counter !== undefined && counted === undefined) requireRoom(match.counters, 'counters')
    const entries = match.entries[taker] ?? []
    const entry: Entry = { rule, at: entries.length }
    entries.push(entry)
    if (taker < 0) {
      match.takers.push(rule)
      match.entries.push(entries)
    }
    if (counted !== undefined) counted.uses++
    else if (counter !== undefined) match.counters.push({ ...counter, uses: 1 })
    if (!rule.doesNotTrap) match.trapping++
    group.rules++
    const found = match
    return () => this.#remove(group, hash, found, entry)
  }

  /**
   * Passes the frame to the receivers of the first match. Returns the number of copies, and of drops. `scratch`: for
   * changed frames.
   */
  deliver(frame: ArrivedFrame, scratch: Scratch): number {
    let rules = 0
    let tier = 0
    for (let g = 0; g < this.#groups.length; g++) {
      const group = this.#groups[g]!
      if (group.tier < tier) continue
      const match = this.#find(group, frame.key.words)
      if (match === undefined) continue
      count(match.counters, frame.length)
      let isMiss = false
      for (let i = 0; i < match.takers.length; i++) {
        const { receiver, tag, edits } = match.takers[i]!
        if (receiver === defaultMiss) {
          isMiss = true
          continue
        }
        rules++
        if (edits === undefined) receiver?.receive(frame, tag)
        else if (receiver !== undefined && applyEdits(frame, scratch.frame, edits)) receiver.receive(scratch.frame, tag)
      }
      if (isMiss) tier = group.tier + 1
      else if (match.trapping > 0) break
    }
    return rules
  }

  /** What becomes of a frame that is sent: itself, or `scratch` with the changed frame; undefined: it is dropped. */
  filter(frame: ArrivedFrame, scratch: Scratch): ArrivedFrame | undefined {
    for (let g = 0; g < this.#groups.length; g++) {
      const match = this.#find(this.#groups[g]!, frame.key.words)
      if (match === undefined) continue
      count(match.counters, frame.length)
      let result: ArrivedFrame = frame
      for (let i = 0; i < match.takers.length; i++) {
        const { receiver, edits } = match.takers[i]!
        if (receiver === undefined) return undefined
        if (edits === undefined || result !== frame) continue
        if (!applyEdits(frame, scratch.frame, edits)) return undefined
        result = scratch.frame
      }
      return result
    }
    return frame
  }

  /** Passes the frame to the sniffers; returns their number. */
  sniff(frame: ArrivedFrame): number {
    for (let i = 0; i < this.#sniffers.length; i++) this.#sniffers[i]!.receiver?.receive(frame, this.#sniffers[i]!.tag)
    return this.#sniffers.length
  }

  /** The group of a rule, which is created if there is none. */
  #groupOf({ type, priority, mask }: FlowRule): Group {
    const tier = tiers[type]!
    const maskText = mask.toString()
    const known = this.#groups.find(
      group => group.tier === tier && group.priority === priority && group.maskText === maskText,
    )
    if (known !== undefined) return known
    if (this.#groups.length === MAX_GROUPS)
      throw callError.ENOSPC`${the.method('flow.create')}: the device has rules with ${MAX_GROUPS} different masks and priorities, and no room for another`
    const words = wordsOf(mask)
    const at = Int32Array.from({ length: KEY_WORDS }, (_, i) => i).filter(i => words[i] !== 0)
    const group: Group = {
      tier,
      priority,
      maskText,
      bits: bitCount(mask),
      at,
      mask: Uint32Array.from(at, i => words[i]!),
      matches: new Map(),
      rules: 0,
    }
    const isBefore = (other: Group): boolean =>
      tier - other.tier < 0 ||
      (tier === other.tier && (priority < other.priority || (priority === other.priority && group.bits > other.bits)))
    const index = this.#groups.findIndex(isBefore)
    this.#groups.splice(index < 0 ? this.#groups.length : index, 0, group)
    return group
  }

  #masked({ at, mask }: Group, words: Uint32Array): Uint32Array {
    return mask.map((bits, i) => bits & words[at[i]!]!)
  }

  #find({ at, mask, matches }: Group, words: Uint32Array): Match | undefined {
    const masked = this.#words
    for (let i = 0; i < at.length; i++) masked[i] = words[at[i]!]! & mask[i]!
    let match = matches.get(hashWords(this.#seed, masked, at.length))
    while (match !== undefined) {
      let i = 0
      while (i < at.length && masked[i] === match.words[i]) i++
      if (i === at.length) return match
      match = match.next
    }
    return undefined
  }

  #remove(group: Group, hash: number, match: Match, entry: Entry): void {
    const { rule, at } = entry
    const taker = match.takers.findIndex(({ receiver }) => receiver === rule.receiver)
    const entries = match.entries[taker]!
    const last = entries.pop()!
    if (entries.length === 0) {
      match.takers.splice(taker, 1)
      match.entries.splice(taker, 1)
    } else if (last !== entry) {
      last.at = at
      entries[at] = last
      match.takers[taker] = entries[0]!.rule
    }
    const { counter } = rule
    if (counter !== undefined) {
      const used = match.counters.findIndex(other => isSame(other, counter))
      if (--match.counters[used]!.uses === 0) match.counters.splice(used, 1)
    }
    if (!rule.doesNotTrap) match.trapping--
    if (match.takers.length === 0) {
      const first = group.matches.get(hash)!
      if (first === match) {
        if (match.next === undefined) group.matches.delete(hash)
        else group.matches.set(hash, match.next)
      } else {
        let before = first
        while (before.next !== match) before = before.next!
        before.next = match.next
      }
    }
    if (--group.rules === 0) this.#groups.splice(this.#groups.indexOf(group), 1)
  }
}
