/*
 * Reports registered memory regions of which an address space learns that their memory was unmapped
 * (`AddressSpace.register`); `userdma check` makes findings of them.
 */
import type { Core, CoreObject } from '../model.ts'

type Handler = (region: CoreObject) => void

/** Not a field of `Core`, since most cores have no handler. */
const handlers = new WeakMap<Core, Handler>()

/** Sets the core's only handler: it is called with each such region. */
export const onRegionUnmapped = (core: Core, handler: Handler): void => {
  handlers.set(core, handler)
}

export const reportUnmappedRegion = (core: Core, region: CoreObject): void => handlers.get(core)?.(region)
