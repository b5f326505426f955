/*
 * A test driver whose objects share pages that the program has allocated (docs/decisions/adopted-pages.md). The device
 * copies the word at DOORBELL of each range to ECHO, without a call of the program. test/programs/memory/adopted.c is
 * the program.
 */
import * as core from 'userdma/core'
import * as spec from 'userdma/spec'
import { networkDevice, registerDevice, verbsDriver } from '../../../examples/drivers/loop.mjs'

/** Byte offsets in each range. */
const DOORBELL = 8
const ECHO = 12
/** Microseconds between polls: no call of the program wakes the device. */
const INTERVAL = 200

/** `fails`: 1: the call fails after it has adopted the ranges. `offset`: of the first range, in the file. */
const Sharer = spec.objectClass('sharer', 0x8000, {
  methods: {
    create: spec.method(spec.CREATE, {
      in: {
        ranges: spec.list(1, { address: spec.at(0, spec.u64(0)), bytes: spec.at(8, spec.u64(0)) }, 16),
        fails: spec.optional(spec.u32(2)),
      },
      out: { first: spec.u32(64), offset: spec.u64(65) },
    }),
    destroy: spec.method(spec.DESTROY, { in: {}, out: {} }),
  },
})

const adoptAll = (memory, ranges) => {
  const chunks = []
  try {
    for (const { address, bytes } of ranges) chunks.push(memory.adopt(address, Number(bytes)))
    return chunks
  } catch (error) {
    for (const chunk of chunks) memory.free(chunk)
    throw error
  }
}

const sharerClass = core.driverClass(Sharer, {
  create({ context, device }, object, { ranges, fails }) {
    const memory = core.mappedMemoryOf(context)
    if (memory.adopt === undefined) throw new spec.CallError('EOPNOTSUPP', 'this client shares no memory')
    const chunks = adoptAll(memory, ranges)
    if (fails) {
      for (const chunk of chunks) memory.free(chunk)
      throw new spec.CallError('EPROTO', 'sharer.create: as asked for')
    }
    object.state = { chunks, memory }
    device.state.sharers.add(object)
    const [{ view, at, offset }] = chunks
    return { first: view.getUint32(at, true), offset: BigInt(offset) }
  },
  destroy({ device }, object) {
    device.state.sharers.delete(object)
    for (const chunk of object.state.chunks) object.state.memory.free(chunk)
    return {}
  },
})

const carry = () => undefined
const base = verbsDriver('adopted', carry)

export const driver = {
  ...base,
  classes: [...base.classes, sharerClass],
  createDevice(owner, name, site) {
    const device = registerDevice(owner, name, site, driver, { carry, sharers: new Set() })
    let polledAt = 0
    return {
      ...networkDevice(device),
      poll(now) {
        polledAt = now
        let hasWorked = false
        for (const { state } of device.state.sharers)
          for (const { view, at } of state.chunks) {
            const rung = view.getUint32(at + DOORBELL, true)
            if (rung === view.getUint32(at + ECHO, true)) continue
            view.setUint32(at + ECHO, rung, true)
            hasWorked = true
          }
        return hasWorked
      },
      nextTimeout: () => (device.state.sharers.size === 0 ? Number.POSITIVE_INFINITY : polledAt + INTERVAL),
      counters: () => ({ engine: {}, port: {} }),
    }
  },
}
