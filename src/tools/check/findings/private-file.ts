/*
 * Peers that write to a region of a private mapping of a file (MAP_PRIVATE): the bytes go to copies of the pages, and
 * the file never has them. Each region is looked at once, at the first such access.
 */
import { AccessFlags } from '../../../spec/enums.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { accessText } from '../lends/rights.ts'
import { hex } from '../objects.ts'

/** Maximum remembered keys; then all are looked at again. */
const MAX_KEYS = 4096
const { REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

export const createPrivateFileDetector = (services: DetectorServices): Detector | undefined => {
  const { objects } = services
  const { privateFile } = services.sources
  if (privateFile === undefined) return undefined
  /** Device and key as one number. */
  const known = new Set<number>()

  return {
    on: {
      accessed({ device, rkey, address, length, access, qpn }) {
        if ((access & (REMOTE_WRITE | REMOTE_ATOMIC)) === 0 || length === 0) return
        const key = device * 2 ** 32 + (rkey >>> 0)
        if (known.has(key)) return
        if (known.size >= MAX_KEYS) known.clear()
        known.add(key)
        const region = objects.region(device, rkey)
        const qp = objects.qp(device, qpn)
        if (region?.program === undefined || region.iova === undefined || region.start === undefined) return
        const path = privateFile(region.program, address - region.iova + region.start)
        if (path === undefined) return
        services.report('private-file', services.occurrenceOfAccess(region), {
          text: `a ${accessText(access)} of the peer of ${qp?.name ?? `QP ${hex(qpn)}`} changes ${length} bytes at ${hex(address)} of ${region.name}, which is a private mapping (MAP_PRIVATE) of ${path}: the file does not change`,
          objects: [region, qp],
        })
      },
      called({ class: name, method }, { device, rkey }) {
        if (name === 'mr' && (method === 'destroy' || method === 'modify') && rkey !== undefined)
          known.delete(device * 2 ** 32 + (rkey >>> 0))
      },
    },
  }
}
