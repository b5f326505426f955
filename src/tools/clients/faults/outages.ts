/*
 * What keeps links and subnets down: fault rules, each for its time, and commands. A link is up again when nothing
 * keeps it down.
 */
import type { Core, Device } from '../../../core/model.ts'
import type { Disturbance } from '../../../spec/subnet-port.ts'
import type { FaultSources, RouterOutage } from './sources.ts'

/** `scope`: as of `ActingRule`. */
interface Outage {
  readonly scope: object | undefined
}

interface Disturbed extends Outage {
  readonly end: () => void
}

export class Outages {
  readonly #core: Core
  readonly #sources: FaultSources
  readonly #links = new WeakMap<Device, Set<Outage>>()
  readonly #subnet = new Set<Disturbed>()

  constructor(core: Core, sources: FaultSources) {
    this.#core = core
    this.#sources = sources
  }

  /** As `InjectedFaults.setLink`. */
  setLink(device: Device, isUp: boolean, milliseconds?: number, scope?: object): void {
    const current = this.#links.get(device) ?? new Set()
    this.#links.set(device, current)
    const wasUp = current.size === 0
    if (isUp) {
      current.clear()
      if (!wasUp) this.#sources.setLink(device, true)
      return
    }
    const outage = { scope }
    current.add(outage)
    if (wasUp) this.#sources.setLink(device, false)
    if (milliseconds === undefined) return
    void this.#sources.wait(milliseconds).then(() => {
      if (current.delete(outage) && current.size === 0 && device.isAlive) this.#sources.setLink(device, true)
    })
  }

  /** `lasts`: milliseconds. */
  disturb(
    devices: readonly Device[],
    disturbance: Disturbance | RouterOutage,
    lasts: number | undefined,
    scope: object | undefined,
  ): void {
    // The ports of a process have one subnet.
    for (const device of devices) {
      const end = device.isAlive ? this.#sources.disturb(device, disturbance) : undefined
      if (end === undefined) continue
      const one = { scope, end }
      this.#subnet.add(one)
      if (lasts !== undefined)
        void this.#sources.wait(lasts).then(() => {
          if (this.#subnet.delete(one)) end()
        })
      return
    }
  }

  /** Ends what the rules of a scope keep down. */
  endScope(scope: object): void {
    for (const one of this.#subnet)
      if (one.scope === scope) {
        this.#subnet.delete(one)
        one.end()
      }
    for (const device of this.#core.devices.values()) {
      const current = this.#links.get(device)
      const before = current?.size ?? 0
      for (const outage of current ?? []) if (outage.scope === scope) current?.delete(outage)
      if (before > 0 && current?.size === 0 && device.isAlive) this.#sources.setLink(device, true)
    }
  }
}
