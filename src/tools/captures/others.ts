/*
 * What a capture has beside RoCE, by the number that names it: EtherTypes, IP protocols, UDP ports. An encapsulation
 * that is not decoded is seen there.
 */
import { etherTypeNames, ipProtocolNames, udpPortNames } from './protocol-names.ts'

/** Packets with one number. */
interface OtherCount {
  /** EtherType 0: a frame of IEEE 802.3 with a length. */
  readonly number: number
  readonly name?: string
  readonly count: number
}

/** Groups: what their numbers are, how many there are, and their names. */
const groups = {
  etherTypes: {
    size: 1 << 16,
    names: etherTypeNames,
    text: (number: number) => (number === 0 ? 'IEEE 802.3' : `EtherType 0x${number.toString(16).padStart(4, '0')}`),
  },
  protocols: { size: 1 << 8, names: ipProtocolNames, text: (number: number) => `IP protocol ${number}` },
  ports: { size: 1 << 16, names: udpPortNames, text: (number: number) => `UDP port ${number}` },
} as const
export type OtherGroup = keyof typeof groups

/** A number in words: `EtherType 0x88cc (LLDP)`. */
export const otherText = (group: OtherGroup, { number, name }: OtherCount): string =>
  `${groups[group].text(number)}${name === undefined ? '' : ` (${name})`}`

export class OtherPackets {
  readonly #counts: Partial<Record<OtherGroup, Uint32Array>> = {}

  /** Counts, and returns `kind`. */
  count(group: OtherGroup, number: number, kind: number): number {
    this.#counts[group] ??= new Uint32Array(groups[group].size)
    this.#counts[group][number]++
    return kind
  }

  /** Most packets first. */
  list(group: OtherGroup): readonly OtherCount[] {
    const list: OtherCount[] = []
    for (const [number, count] of (this.#counts[group] ?? []).entries()) {
      const name = groups[group].names.get(number)
      if (count > 0) list.push({ number, count, ...(name !== undefined && { name }) })
    }
    return list.sort((a, b) => b.count - a.count)
  }
}
