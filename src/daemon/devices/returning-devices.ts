/*
 * Adds devices again that were removed for a time: by a command that borrows them (lent-devices.ts), or by a fault
 * rule. Their addresses may be in use for a while.
 */
import type { Device } from '../../core/model.ts'
import { createTimer, type Timer } from '../../host/event-loop/timer.ts'
import type { DeviceSpec } from '../../uapi/tool.ts'
import type { Containment } from '../containment.ts'
import type { Devices } from './devices.ts'

interface ReturningParts {
  readonly devices: Pick<Devices, 'add' | 'find' | 'of' | 'remove'>
  readonly containment: Pick<Containment, 'guard'>
  readonly log: (...words: unknown[]) => void
}

/** Milliseconds between attempts to add devices again, and after how many of them the log says so. */
const RETRY_INTERVAL = 50
const LOGGED_ATTEMPT = 100

export class ReturningDevices {
  readonly #parts: ReturningParts
  readonly #timers = new Set<Timer>()
  /** Devices that are not here now. */
  #gone: readonly DeviceSpec[] = []

  constructor(parts: ReturningParts) {
    this.#parts = parts
  }

  get isEmpty(): boolean {
    return this.#gone.length === 0
  }

  #after(milliseconds: number, act: () => void): void {
    const timer = createTimer(
      this.#parts.containment.guard('devices that return', () => {
        this.#timers.delete(timer)
        timer.close()
        act()
      }),
    )
    timer.set(milliseconds * 1000)
    this.#timers.add(timer)
  }

  /** Removes a device, and adds it again after so many milliseconds. */
  remove(device: Device, milliseconds: number): void {
    const { devices } = this.#parts
    const found = devices.of(device)
    if (found === undefined) return
    devices.remove(found.spec.name)
    this.#after(milliseconds, () => this.add([found.spec]))
  }

  /** Adds devices, and tries again while that fails. `why`: for the log. */
  add(specs: readonly DeviceSpec[], why = 'which was removed for a time', attempt = 1): void {
    const { devices, log } = this.#parts
    let reason = ''
    const left = specs.filter(spec => {
      try {
        if (devices.find(spec.name) === undefined) devices.add(spec)
        return false
      } catch (error) {
        reason = error instanceof Error ? error.message : String(error)
        return true
      }
    })
    this.#gone = [...this.#gone.filter(spec => !specs.includes(spec)), ...left]
    if (left.length === 0) return
    if (attempt === LOGGED_ATTEMPT) log(`userdma daemon: device ${left[0]!.name}, ${why}, cannot be added: ${reason}`)
    this.#after(RETRY_INTERVAL, () => this.add(left, why, attempt + 1))
  }

  /** No device is added any more. */
  close(): void {
    for (const timer of this.#timers) timer.close()
    this.#timers.clear()
  }
}
