/*
 * What differs by link (R10, R27): InfiniBand, RoCE, iWARP and Omni-Path devices have the same classes and methods, but
 * each link has addresses of its own. A device of one link does not have the attributes of the others: its description
 * does not list them, and who passes one is told why not (EINVAL). Linux's dialects have one struct for all links and
 * ignore what is not of theirs, as Linux does. No device is known here.
 */

export type LinkName = 'ib' | 'roce' | 'iwarp' | 'opa'

interface Link {
  /** As people write it. */
  readonly title: string
  /** The attributes that say where to. */
  readonly addresses: readonly string[]
  readonly because: string
}

export const Links: Readonly<Record<LinkName, Link>> = {
  ib: { title: 'InfiniBand', addresses: ['ibAddress'], because: 'a path has a LID, and a global route if isGlobal' },
  roce: {
    title: 'RoCE',
    addresses: ['address'],
    because: 'a path is a GID with sgidIndex, hopLimit, trafficClass and flowLabel; there are no LIDs',
  },
  iwarp: { title: 'iWARP', addresses: [], because: 'the connection has the addresses' },
  opa: { title: 'Omni-Path', addresses: ['opaAddress'], because: 'a LID has 32 bits' },
}

const ALL = [...new Set(Object.values(Links).flatMap(({ addresses }) => addresses))]

/** Attributes that devices of this link do not have, in any method of any class. */
export const absentOn = (link: LinkName): readonly string[] => ALL.filter(name => !Links[link].addresses.includes(name))

/** The sentence for somebody who passes one of those. */
export const whyAbsent = (link: LinkName, attribute: string): string => {
  const { title, addresses, because } = Links[link]
  const instead = addresses.length === 0 ? 'none is passed' : `it takes ${addresses.join(', ')}`
  return `attribute ${attribute} is not of this device's link, which is ${title}: ${because}; ${instead}`
}
