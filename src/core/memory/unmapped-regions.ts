/*
 * Reports memory regions whose memory was unmapped while registered (`AddressSpace.register`), for `userdma check`.
 */
import type { Core, CoreObject } from '../model.ts'

type Handler = (region: CoreObject) => void

const handlers = new WeakMap<Core, Handler>()

/** Sets the core's only handler. */
export const onRegionUnmapped = (core: Core, handler: Handler): void => {
  handlers.set(core, handler)
}

export const reportUnmappedRegion = (core: Core, region: CoreObject): void => handlers.get(core)?.(region)
