/*
 * What differs by link (R10, R27): InfiniBand, RoCE, iWARP and Omni-Path devices have the same classes and methods, but
 * each link has addresses of its own. A device of one link does not have the attributes of the others: its description
 * does not list them, and who passes one is told why not (EINVAL). Linux's dialects have one struct for all links: what
 * is of the device's link becomes its attribute, the rest is ignored, as Linux does. No device is known here.
 */

export type LinkName = 'ib' | 'roce' | 'iwarp' | 'opa'

/** What says where to: a path, a list of them, the path in reserve. Each link has an attribute of its own for it. */
export type AddressRole = 'address' | 'addresses' | 'alternatePath'

interface Link {
  /** As people write it. */
  readonly title: string
  /** Its attribute of each role; those of RoCE have the roles' own names. */
  readonly attributes: Readonly<Partial<Record<AddressRole, string>>>
  /** What only its addresses have beside their record: optional, and they come with an attribute of role `address`. */
  readonly beside: readonly string[]
  readonly because: string
}

export const Links: Readonly<Record<LinkName, Link>> = {
  ib: {
    title: 'InfiniBand',
    attributes: { address: 'ibAddress', addresses: 'ibAddresses', alternatePath: 'ibAlternatePath' },
    beside: [],
    because: 'a path has a LID, and a global route if isGlobal',
  },
  roce: {
    title: 'RoCE',
    attributes: { address: 'address', addresses: 'addresses', alternatePath: 'alternatePath' },
    beside: ['dmac', 'vlan'],
    because: 'a path is a GID with sgidIndex, hopLimit, trafficClass and flowLabel; there are no LIDs',
  },
  iwarp: { title: 'iWARP', attributes: {}, beside: [], because: 'the connection has the addresses' },
  opa: {
    title: 'Omni-Path',
    attributes: { address: 'opaAddress', addresses: 'opaAddresses', alternatePath: 'opaAlternatePath' },
    beside: [],
    because: 'a LID has 32 bits',
  },
}

/** The attributes of all links that say where to, each with its role. */
export const addressRoles: ReadonlyMap<string, AddressRole> = new Map(
  Object.values(Links).flatMap(({ attributes }) =>
    Object.entries(attributes).map(([role, name]) => [name, role as AddressRole] as const),
  ),
)

/** What may be said beside an address, of any link. */
export const besideAddresses: ReadonlySet<string> = new Set(Object.values(Links).flatMap(({ beside }) => beside))

/** Attributes that devices of this link do not have, in any method of any class. */
export const absentOn = (link: LinkName): readonly string[] => {
  const { attributes, beside } = Links[link]
  const own = [...Object.values(attributes), ...beside]
  return [...addressRoles.keys(), ...besideAddresses].filter(name => !own.includes(name))
}

/** The sentence for somebody who passes one of those. */
export const whyAbsent = (link: LinkName, attribute: string): string => {
  const { title, attributes, because } = Links[link]
  const role = addressRoles.get(attribute)
  const own = role === undefined ? undefined : attributes[role]
  const instead = own !== undefined ? `it takes ${own}` : role === undefined ? 'leave it out' : 'none is passed'
  return `attribute ${attribute} is not of this device's link, which is ${title}: ${because}; ${instead}`
}
