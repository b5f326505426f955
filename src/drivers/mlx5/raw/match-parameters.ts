/*
 * What a matcher's rules match (fte_match_param of mlx5_ifc.h) as value and mask over a frame's key (`FlowKey`). A
 * field of a header demands the header too. Fields of both versions of IP need a rule that names the version, by
 * `ip_version` or `ethertype`, as adapters do.
 */

import type { RecordOf, Struct } from '../../../spec/drivers/mlx5-firmware/fields.ts'
import {
  MATCH_SECTION_BYTES,
  MAX_MATCH_BYTES,
  matchHeaders,
  matchMisc,
  matchSections,
} from '../../../spec/drivers/mlx5-firmware/flow.ts'
import { callError } from '../../../spec/errno.ts'
import { because, type Reason, the } from '../../../spec/reason.ts'
import { EtherType, FLOW_KEY_BYTES, FlowHeader, FlowKey } from '../../../spec/wire/ethernet.ts'
import { decodeFields, encodeFields } from '../../../uapi/firmware/fields.ts'
import { setBits } from './frame-edits.ts'

/** Where a field is in the key: `bit`s from the beginning, `width` of them, and the header that has it. */
interface Place {
  readonly bit: number
  readonly header?: number
  /** In headers of IPv6, if the field is one of both versions; -1: only in those of IPv4. */
  readonly bit6?: number
}

const { ETH, IPV4, IPV6, TCP, UDP, VXLAN, GRE, ESP, GENEVE, TCP_FLAGS, PRESENT } = FlowKey
const eth = (byte: number, bit = 0): Place => ({ bit: (ETH + byte) * 8 + bit })
const vlan = (bit: number): Place => ({ ...eth(14, bit), header: FlowHeader.VLAN })
const ip = (byte4: number, byte6: number, bit = 0): Place => ({
  bit: (IPV4 + byte4) * 8 + bit,
  bit6: (IPV6 + byte6) * 8 + bit,
})
const ipv6Only = (byte6: number): Place => ({ bit: -1, bit6: (IPV6 + byte6) * 8 })
const within = (at: number, header: number, bit = 0): Place => ({ bit: at * 8 + bit, header })
/** A bit of PRESENT itself. */
const present = (header: number): Place => ({ bit: PRESENT * 8 + 31 - Math.log2(header) })

type Places<S> = { readonly [K in keyof RecordOf<S>]?: Place }

/** Fields of matchHeaders but `ip_version`. What is missing here the device does not match. */
const headerPlaces: Places<typeof matchHeaders> = {
  dmac_47_16: eth(0),
  dmac_15_0: eth(4),
  smac_47_16: eth(6),
  smac_15_0: eth(10),
  ethertype: eth(12),
  first_prio: vlan(0),
  first_cfi: vlan(3),
  first_vid: vlan(4),
  cvlan_tag: present(FlowHeader.VLAN),
  frag: present(FlowHeader.FRAGMENT),
  ip_protocol: ip(8, 36),
  ip_dscp: ip(9, 37),
  ip_ecn: ip(9, 37, 6),
  ip_ttl_hoplimit: ip(10, 38),
  src_ip_127_96: ipv6Only(0),
  src_ip_95_64: ipv6Only(4),
  src_ip_63_32: ipv6Only(8),
  src_ip_31_0: ip(0, 12),
  dst_ip_127_96: ipv6Only(16),
  dst_ip_95_64: ipv6Only(20),
  dst_ip_63_32: ipv6Only(24),
  dst_ip_31_0: ip(4, 28),
  tcp_dport: within(TCP, FlowHeader.TCP),
  tcp_sport: within(TCP + 2, FlowHeader.TCP),
  tcp_flags: within(TCP_FLAGS, FlowHeader.TCP, 7),
  udp_dport: within(UDP, FlowHeader.UDP),
  udp_sport: within(UDP + 2, FlowHeader.UDP),
}

const INNER_BITS = FlowKey.INNER * 8
const miscPlaces: Places<typeof matchMisc> = {
  gre_c_present: within(GRE, FlowHeader.GRE),
  gre_k_present: within(GRE, FlowHeader.GRE, 2),
  gre_s_present: within(GRE, FlowHeader.GRE, 3),
  gre_protocol: within(GRE + 2, FlowHeader.GRE),
  gre_key_h: within(GRE + 4, FlowHeader.GRE),
  gre_key_l: within(GRE + 7, FlowHeader.GRE),
  vxlan_vni: within(VXLAN + 1, FlowHeader.VXLAN),
  geneve_vni: within(GENEVE + 4, FlowHeader.GENEVE),
  geneve_oam: within(GENEVE + 1, FlowHeader.GENEVE),
  geneve_opt_len: within(GENEVE, FlowHeader.GENEVE, 2),
  geneve_protocol_type: within(GENEVE + 2, FlowHeader.GENEVE),
  outer_ipv6_flow_label: within(IPV6 + 32, FlowHeader.IPV6, 12),
  inner_ipv6_flow_label: { bit: INNER_BITS + (IPV6 + 32) * 8 + 12, header: FlowHeader.IPV6 },
  outer_esp_spi: within(ESP, FlowHeader.ESP),
  inner_esp_spi: { bit: INNER_BITS + ESP * 8, header: FlowHeader.ESP },
}

interface Section {
  readonly name: string
  readonly struct: Struct
  readonly places: Readonly<Record<string, Place | undefined>>
  /** Bits, of the key's part. */
  readonly base: number
}

const sections: readonly Section[] = matchSections.map(name => ({
  name,
  struct: name === 'misc_parameters' ? matchMisc : matchHeaders,
  places: name === 'misc_parameters' ? miscPlaces : headerPlaces,
  base: name === 'inner_headers' ? INNER_BITS : 0,
}))

const IP_VERSION = 'ip_version'
const isInner = (bit: number): boolean => bit >= INNER_BITS

const sectionOf = (bytes: Uint8Array, index: number): Uint8Array =>
  bytes.subarray(index * MATCH_SECTION_BYTES, (index + 1) * MATCH_SECTION_BYTES)

/** All bits of the fields that a section has. */
const knownBits = new Map(
  [matchHeaders, matchMisc].map((struct): [Struct, Uint8Array] => [
    struct,
    encodeFields(struct as Struct, Object.fromEntries(Object.keys(struct.fields).map(name => [name, 0xffff_ffff]))),
  ]),
)

/** A mask that the device can match. */
export interface MatchMask {
  /** Of the sections that the device knows. */
  readonly bytes: Uint8Array
}

const padded = (what: Reason, bytes: Uint8Array): Uint8Array => {
  if (bytes.length > MAX_MATCH_BYTES)
    throw callError.EINVAL`${what}: ${bytes.length} bytes; at most ${MAX_MATCH_BYTES} are a match`
  const whole = new Uint8Array(MAX_MATCH_BYTES)
  whole.set(bytes)
  return whole
}

/** Throws CallError EINVAL for bits outside of `criteria`, EOPNOTSUPP for fields that the device does not match. */
export const readMask = (given: Uint8Array, criteria: number): MatchMask => {
  const where = because`${the.method('flow_matcher.create')}: ${the.attribute('mask')}`
  const bytes = padded(where, given)
  for (let i = 0; i * MATCH_SECTION_BYTES < bytes.length; i++) {
    const part = sectionOf(bytes, i)
    if (part.every(byte => byte === 0)) continue
    const section = sections[i]
    const name = section?.name ?? `section ${i}`
    if (((criteria >> i) & 1) === 0)
      throw callError.EINVAL`${where}: ${name} has bits, and criteria 0x${criteria.toString(16)} lacks bit ${i} for it`
    if (section === undefined)
      throw callError.EOPNOTSUPP`${where}: ${name}: the device matches ${matchSections.join(', ')} only`
    const known = knownBits.get(section.struct)!
    const stranger = part.findIndex((byte, at) => (byte & ~known[at]!) !== 0)
    if (stranger >= 0) throw callError.EOPNOTSUPP`${where}: ${name}: byte ${stranger} has bits that are no field's`
    for (const [field, value] of Object.entries(decodeFields(section.struct, part) as Record<string, number>))
      if (value !== 0 && section.places[field] === undefined && !(field === IP_VERSION && value === 0xf))
        throw callError.EOPNOTSUPP`${where}: ${name}.${field}: 0x${value.toString(16)}: the device does not match frames by it${field === IP_VERSION ? ' but with all four bits' : ''}`
  }
  return { bytes: bytes.slice(0, sections.length * MATCH_SECTION_BYTES) }
}

/** 4 or 6, if the section names the version of IP; otherwise undefined. */
const versionOf = (value: Record<string, number>, mask: Record<string, number>): number | undefined => {
  if (mask.ip_version === 0xf) return value.ip_version
  if (mask.ethertype !== 0xffff) return undefined
  if (value.ethertype === EtherType.IPV4) return 4
  return value.ethertype === EtherType.IPV6 ? 6 : undefined
}

interface KeyMatch {
  /** FLOW_KEY_BYTES each. */
  readonly value: Uint8Array
  readonly mask: Uint8Array
}

/** Value and mask over frames' keys. Throws CallError EINVAL. */
export const readMatch = (mask: MatchMask, given: Uint8Array): KeyMatch => {
  const where = because`${the.method('flow.create')}: ${the.attribute('matchValue')}`
  const bytes = padded(where, given)
  const stranger = bytes.findIndex((byte, i) => (byte & ~(mask.bytes[i] ?? 0)) !== 0)
  if (stranger >= 0) throw callError.EINVAL`${where}: byte ${stranger} has bits that the mask of the matcher lacks`
  const match = { value: new Uint8Array(FLOW_KEY_BYTES), mask: new Uint8Array(FLOW_KEY_BYTES) }
  const setField = (bit: number, width: number, value: number, bits: number): void => {
    setBits(match.value, bit, width, value)
    setBits(match.mask, bit, width, bits)
  }
  const demand = (header: number, base: number): void => setField(base + present(header).bit, 1, 1, 1)
  for (const [i, { name, struct, places, base }] of sections.entries()) {
    const masks = decodeFields(struct, sectionOf(mask.bytes, i)) as Record<string, number>
    const values = decodeFields(struct, sectionOf(bytes, i)) as Record<string, number>
    const version = versionOf(values, masks)
    if (masks.ip_version !== undefined && masks.ip_version !== 0) {
      if (version !== 4 && version !== 6)
        throw callError.EINVAL`${where}: ${name}.ip_version ${version}; there are versions 4 and 6`
      demand(version === 4 ? FlowHeader.IPV4 : FlowHeader.IPV6, base)
    }
    for (const [field, bits] of Object.entries(masks)) {
      const place = places[field]
      if (bits === 0 || place === undefined) continue
      const width = (struct.fields[field] as { readonly width: number }).width
      let { bit } = place
      if (place.bit6 !== undefined) {
        if (version === undefined)
          throw callError.EINVAL`${where}: ${name}.${field} needs a match of ip_version, or of ethertype, that says 4 or 6`
        if (version === 6) bit = place.bit6
        else if (bit < 0) {
          if (values[field] === 0) continue
          throw callError.EINVAL`${where}: ${name}.${field}: addresses of IPv4 are in the last 32 bits; the others must be 0`
        }
        demand(version === 4 ? FlowHeader.IPV4 : FlowHeader.IPV6, base)
      }
      if (place.header !== undefined) demand(place.header, isInner(bit + base) ? INNER_BITS : 0)
      setField(base + bit, width, values[field]!, bits)
    }
  }
  return match
}
