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

export interface LendingParts {
  readonly devices: Pick<Devices, 'all' | 'add' | 'remove' | 'find' | 'listeners'>
  readonly contexts: { readonly count: number; withMemory(): Iterable<Pick<OpenContext, 'context'>> }
  /** Channels and descriptors of programs without a device. */
  readonly events: { readonly count: number }
  readonly failures: Pick<FailureReports, 'ownerOf'>
  readonly containment: Pick<Containment, 'guard'>
  readonly log: (...words: unknown[]) => void
}

/** Milliseconds between attempts to add the devices again, and after how many of them the log says so. */
const RETRY_INTERVAL = 50
const LOGGED_ATTEMPT = 100

export class LentDevices {
  readonly #parts: LendingParts
  /** Devices that are not here now. */
  #lent: readonly DeviceSpec[] = []
  #borrower: object | undefined
  #retry: NodeJS.Timeout | undefined

  constructor(parts: LendingParts) {
    this.#parts = parts
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
    if (this.#borrower !== undefined || this.#lent.length > 0) throw new Error('another command has the devices now')
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
    this.#addAgain(1)
  }

  /** Adds the devices that are not here, and tries again while that fails: the borrower's daemon may still have their ports. */
  #addAgain(attempt: number): void {
    const { devices, containment, log } = this.#parts
    let reason = ''
    this.#lent = this.#lent.filter(spec => {
      try {
        if (devices.find(spec.name) === undefined) devices.add(spec)
        return false
      } catch (error) {
        reason = error instanceof Error ? error.message : String(error)
        return true
      }
    })
    if (this.#lent.length === 0) return
    if (attempt === LOGGED_ATTEMPT)
      log(`userdma daemon: device ${this.#lent[0]!.name}, which a command had borrowed, cannot be added: ${reason}`)
    const again = containment.guard('borrowed devices', () => this.#addAgain(attempt + 1))
    this.#retry = setTimeout(again, RETRY_INTERVAL)
    this.#retry.unref()
  }

  close(): void {
    clearTimeout(this.#retry)
    this.#lent = []
  }
}
