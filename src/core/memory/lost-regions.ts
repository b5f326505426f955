/*
 * Regions whose memory the program unmaps while they are registered: handlers of the core.
 */
import type { Core, CoreObject } from '../model.ts'

type Handler = (region: CoreObject) => void

/** Kept apart from the cores: most have no handler. */
const handlers = new WeakMap<Core, Handler>()

/** Sets the core's only handler: it is called once for each region whose memory is lost. */
export const onRegionLost = (core: Core, handler: Handler): void => {
  handlers.set(core, handler)
}

export const reportLostRegion = (core: Core, region: CoreObject): void => handlers.get(core)?.(region)
