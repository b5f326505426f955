/*
 * The address of a device leaves, and returns at a higher index of its GID table, as when other addresses of the
 * interface have come first (`gid=` of fault rules).
 */
import { holdGid, releaseGid } from '../core/devices/gids.ts'
import { type LinkedDevice, NO_EVENT } from '../core/driver-contract.ts'
import { raisePort } from '../core/events/events.ts'
import { isSameAddress } from '../transport/wire/address.ts'

const NO_GID = new Uint8Array(16)

/**
 * `by`: places of addresses; each has as many indices as the device has types of GIDs. `changed`: called before
 * programs are told. Nothing for a device without an address of its own.
 */
export const moveGid = ({ device, link }: LinkedDevice, by: number, changed: () => void): void => {
  const { gids } = device.ports[0]!
  // Its present index: it may have moved before.
  const index = gids.entries.findIndex(
    (entry, i) => i > 0 && entry !== undefined && !isSameAddress(entry.gid, gids.entries[0]?.gid ?? NO_GID),
  )
  const entry = gids.entries[index]
  if (entry === undefined) return
  const address = entry.gid
  const types = gids.entries.filter(one => one !== undefined && isSameAddress(one.gid, address)).length
  const notify = (event: number | undefined): void => {
    changed()
    if (event !== undefined && event !== NO_EVENT) raisePort(device, 1, event)
  }
  notify(link.removeAddress(address))
  // Others have the indices for a moment.
  const taken = Array.from({ length: by * types }, (_, i) => index + i).filter(i => i < gids.entries.length - types)
  for (const i of taken) holdGid(gids, i)
  try {
    notify(link.addAddress(address, 'own'))
  } finally {
    for (const i of taken) releaseGid(gids, i)
  }
}
