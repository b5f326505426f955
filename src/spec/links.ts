/*
 * Differences between links (R10, R27): devices on InfiniBand, RoCE, iWARP and Omni-Path have the same classes and
 * methods, but each link except iWARP has its own address attributes. A device lacks those of other links: its
 * description omits them, and a caller that passes one gets EINVAL with the reason. Linux's dialects have one struct
 * for all links: the fields of the device's link become its attributes, and the others are ignored, as in Linux.
 */

export type LinkName = 'ib' | 'roce' | 'iwarp' | 'opa'

/**
 * Roles of address attributes: a destination, a list of destinations, the alternate path. Each link except iWARP has
 * its own attribute for each role.
 */
export type AddressRole = 'address' | 'addresses' | 'alternatePath'

interface Link {
  /** The link's name in messages. */
  readonly title: string
  /** The link's attribute of each role; RoCE's have the names of the roles. */
  readonly attributes: Readonly<Partial<Record<AddressRole, string>>>
  /** Optional attributes, which are passed together with an attribute of role `address`. */
  readonly optional: readonly string[]
  /** How the link addresses a path: a part of the message for an attribute of another link. */
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

/** The address attributes of all links, each with its role. */
export const addressRoles: ReadonlyMap<string, AddressRole> = new Map(
  Object.values(Links).flatMap(({ attributes }) =>
    Object.entries(attributes).map(([role, name]) => [name, role as AddressRole] as const),
  ),
)

/** The optional attributes beside an address, of all links. */
export const optionalOfAddresses: ReadonlySet<string> = new Set(
  Object.values(Links).flatMap(({ optional }) => optional),
)

/** Attributes that devices of this link lack, in every method of every class. */
export const absentOn = (link: LinkName): readonly string[] => {
  const { attributes, optional } = Links[link]
  const present = [...Object.values(attributes), ...optional]
  return [...addressRoles.keys(), ...optionalOfAddresses].filter(name => !present.includes(name))
}

/** The message for a caller that passes such an attribute. */
export const whyAbsent = (link: LinkName, attribute: string): string => {
  const { title, attributes, addressing } = Links[link]
  const role = addressRoles.get(attribute)
  const replacement = role === undefined ? undefined : attributes[role]
  const instead = replacement !== undefined ? `use ${replacement}` : 'leave it out'
  return `attribute ${attribute} does not belong to this device's link, ${title}: ${addressing}; ${instead}`
}
