/*
 * The address attributes of links (R10, R27). Devices on InfiniBand, RoCE, iWARP and Omni-Path have the same classes
 * and methods. Each link except iWARP has its own address attributes; a device refuses those of other links with
 * EINVAL. Linux's dialects have one struct for all links; the fields of other links are ignored, as in Linux.
 */

export type LinkName = 'ib' | 'roce' | 'iwarp' | 'opa'

/** Roles of address attributes: a destination, a list of destinations, the alternate path. */
export type AddressRole = 'address' | 'addresses' | 'alternatePath'

interface Link {
  readonly title: string
  /** The link's attribute for each role. */
  readonly attributes: Readonly<Partial<Record<AddressRole, string>>>
  /** Optional attributes that are passed together with an attribute of role `address`. */
  readonly optional: readonly string[]
  /** How the link addresses a path, for error messages. */
  readonly addressing: string
}

export const Links: Readonly<Record<LinkName, Link>> = {
  ib: {
    title: 'InfiniBand',
    attributes: { address: 'ibAddress', addresses: 'ibAddresses', alternatePath: 'ibAlternatePath' },
    optional: [],
    addressing: 'a path has a LID, and a global route if isGlobal',
  },
  roce: {
    title: 'RoCE',
    attributes: { address: 'address', addresses: 'addresses', alternatePath: 'alternatePath' },
    optional: ['dmac', 'vlan'],
    addressing: 'a path is a GID with sgidIndex, hopLimit, trafficClass and flowLabel; there are no LIDs',
  },
  iwarp: { title: 'iWARP', attributes: {}, optional: [], addressing: 'the TCP connection has the addresses' },
  opa: {
    title: 'Omni-Path',
    attributes: { address: 'opaAddress', addresses: 'opaAddresses', alternatePath: 'opaAlternatePath' },
    optional: [],
    addressing: 'a LID has 32 bits',
  },
}

/** Roles by attribute, for all links. */
export const addressRoles: ReadonlyMap<string, AddressRole> = new Map(
  Object.values(Links).flatMap(({ attributes }) =>
    Object.entries(attributes).map(([role, name]) => [name, role as AddressRole] as const),
  ),
)

export const optionalOfAddresses: ReadonlySet<string> = new Set(
  Object.values(Links).flatMap(({ optional }) => optional),
)

/** Attributes that devices of this link lack, in every method of every class. */
export const absentOn = (link: LinkName): readonly string[] => {
  const { attributes, optional } = Links[link]
  const present = [...Object.values(attributes), ...optional]
  return [...addressRoles.keys(), ...optionalOfAddresses].filter(name => !present.includes(name))
}

/** The error message for an attribute of another link. */
export const whyAbsent = (link: LinkName, attribute: string): string => {
  const { title, attributes, addressing } = Links[link]
  const role = addressRoles.get(attribute)
  const replacement = role === undefined ? undefined : attributes[role]
  const instead = replacement !== undefined ? `use ${replacement}` : 'leave it out'
  return `attribute ${attribute} does not belong to this device's link, ${title}: ${addressing}; ${instead}`
}
