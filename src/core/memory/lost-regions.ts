/*
 * Reports memory regions whose memory the program unmaps while they are registered; `userdma check` makes a finding of
 * each.
 */
import type { Core, CoreObject } from '../model.ts'

type Handler = (region: CoreObject) => void

/** Not a field of `Core`, since most cores have no handler. */
const handlers = new WeakMap<Core, Handler>()

/** Sets the core's only handler: it is called with each region whose memory was unmapped. */
export const onRegionUnmapped = (core: Core, handler: Handler): void => {
  handlers.set(core, handler)
}

export const reportUnmappedRegion = (core: Core, region: CoreObject): void => handlers.get(core)?.(region)
