/*
 * Devices that a command borrows for a daemon of its own, with other settings: on a host of `userdma net`, where both
 * would need the UDP port of the same address (docs/how-to/net.md). They are removed here, and added again when the
 * command's session ends, as soon as their addresses are free.
 */
import type { DeviceSpec } from '../../uapi/tool.ts'
import type { Containment } from '../containment.ts'
import type { OpenContext } from '../context/contexts.ts'
import type { FailureReports } from '../failures.ts'
import type { DeviceListener, Devices } from './devices.ts'
import { ReturningDevices } from './returning-devices.ts'

interface LendingParts {
  readonly devices: Pick<Devices, 'all' | 'add' | 'remove' | 'find' | 'of' | 'listeners'>
  readonly contexts: { readonly count: number; withMemory(): Iterable<Pick<OpenContext, 'context'>> }
  /** Channels and descriptors of programs without a device. */
  readonly events: { readonly count: number }
  readonly failures: Pick<FailureReports, 'ownerOf'>
  readonly containment: Pick<Containment, 'guard'>
  readonly log: (...words: unknown[]) => void
}

export class LentDevices {
  readonly #parts: LendingParts
  /** Devices that are not here now. */
  #lent: readonly DeviceSpec[] = []
  #borrower: object | undefined
  readonly #returning: ReturningDevices

  constructor(parts: LendingParts) {
    this.#parts = parts
    this.#returning = new ReturningDevices(parts)
  }

  /** Programs that use devices, as text; empty: none. */
  #users(): string {
    const { contexts, events, failures } = this.#parts
    const names = new Set<string>()
    for (const { context } of contexts.withMemory()) {
      const owner = failures.ownerOf(context)
      names.add(owner === undefined ? 'a program' : `process ${owner.pid} (${owner.command})`)
    }
    if (names.size > 0) return [...names].join(', ')
    return contexts.count + events.count > 0 ? 'a program' : ''
  }

  /**
   * Removes all devices, and resolves with them when their ports are closed. Rejects with an Error with a message for
   * people if programs use them, or another borrower has them. `borrower`: for `takeBack`.
   */
  async lend(borrower: object): Promise<readonly DeviceSpec[]> {
    const { devices } = this.#parts
    if (this.#borrower !== undefined || !this.#returning.isEmpty) throw new Error('another command has the devices now')
    const users = this.#users()
    if (users !== '') throw new Error(`${users} uses the devices`)
    const lent = devices.all.map(({ spec }) => spec)
    this.#borrower = borrower
    this.#lent = lent
    const left = new Set(devices.all)
    await new Promise<void>(resolve => {
      if (left.size === 0) resolve()
      const listener: DeviceListener = {
        ended: device => {
          left.delete(device)
          if (left.size > 0) return
          devices.listeners.delete(listener)
          resolve()
        },
      }
      devices.listeners.add(listener)
      for (const { name } of lent) devices.remove(name)
    })
    return lent
  }

  /** The borrower needs the devices no longer. No effect for others. */
  takeBack(borrower: object): void {
    if (this.#borrower !== borrower) return
    this.#borrower = undefined
    this.#returning.add(this.#lent, 'which a command had borrowed')
    this.#lent = []
  }

  close(): void {
    this.#returning.close()
  }
}
