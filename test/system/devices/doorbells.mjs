/*
 * A test driver with doorbell pages (docs/decisions/doorbell-pages.md): each completion queue is one. The device copies
 * the word at DOORBELL of the page to ECHO, and does nothing else: it has no timer, and posts nothing.
 */
import * as core from 'userdma/core'
import * as spec from 'userdma/spec'
import { networkDevice, registerDevice, verbsDriver } from '../../../examples/drivers/loop.mjs'

/** Byte offsets in the page, also in test/programs/memory/doorbells.c. */
const DOORBELL = 4088
const ECHO = 4092

const carry = () => undefined
const base = verbsDriver('doorbells', carry)

const asDoorbells = memory => ({
  allocate: bytes => memory.allocate(bytes, 'doorbells'),
  free: chunk => memory.free(chunk),
})

const cqClass = core.driverClass(
  spec.Classes.cq,
  {
    create({ context, device }, object) {
      const memory = core.mappedRings(asDoorbells(core.mappedMemoryOf(context)))
      const ring = core.createRing(memory, 1, 1 << spec.Wc.ELEMENT_SHIFT)
      object.state = { ring, memory }
      device.state.pages.add(object)
      return { cqe: 1, queue: core.mmapInfo(ring) }
    },
    modify: null,
    destroy(call, object, args, coreDestroy) {
      call.device.state.pages.delete(object)
      object.state.memory.free(object.state.ring)
      return coreDestroy(call, object, args)
    },
  },
  spec.RxeAttributes.cq,
)

export const driver = {
  ...base,
  classes: base.classes.map(known => (known.class.name === 'cq' ? cqClass : known)),
  createDevice(owner, name, site) {
    const device = registerDevice(owner, name, site, driver, { carry, pages: new Set() })
    return {
      ...networkDevice(device),
      poll() {
        let hasWorked = false
        for (const { state } of device.state.pages) {
          const { view, at } = state.ring.area
          const rung = view.getUint32(at + DOORBELL, true)
          if (rung === view.getUint32(at + ECHO, true)) continue
          view.setUint32(at + ECHO, rung, true)
          hasWorked = true
        }
        return hasWorked
      },
      nextTimeout: () => Number.POSITIVE_INFINITY,
      counters: () => ({ engine: {}, port: {} }),
    }
  },
}
