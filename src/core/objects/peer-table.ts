/*
 * What packets make of peers that nobody has named before: senders, connections, requests. Any host can send, so all such
 * state is bounded, and an entry is charged to the account whose object the packets are for (docs/decisions/shares.md):
 * who has many such peers leaves room for those of others. An entry that the account may not have is not made, and its packet is dropped.
 */
import { createCause } from '../../spec/check/causes.ts'
import { hasFailureHandlers, reportFailure } from '../failures.ts'
import type { Account, Context, Device, Limit } from '../model.ts'
import { addTo, createLimit, hasShare, mayChargeMemory, refusalOf, releaseMemory, removeFrom } from './limits.ts'

/** For whom a packet is. `qpn`: of the queue pair that got it. */
export interface Receiver {
  readonly device: Device
  /** Undefined: core's own. */
  readonly context: Context | undefined
  readonly qpn: number
}

const NO_PAYER = -1

export class PeerTable {
  readonly limit: Limit
  readonly #bytes: number
  /** By payer: what the table had when its last entry was refused, and the failure was reported. */
  readonly #refused = new Map<number, number>()

  /** `subject`: what is counted, as in `3 senders`. `max`: of all accounts. `bytes`: of memory, of an entry. */
  constructor(subject: string, max: number, bytes: number) {
    this.limit = createLimit(subject, max)
    this.#bytes = bytes
  }

  /**
   * Charges the receiver's account for an entry, with `bytes` of memory. False: it may not have one more, which is reported
   * once until the account has half as many.
   */
  take(receiver: Receiver, bytes = this.#bytes): boolean {
    const account = receiver.context?.account
    const hasRoom = hasShare(this.limit, account, 1)
    if (!hasRoom || !mayChargeMemory(account, bytes)) {
      this.#report(receiver, hasRoom ? account!.memory : this.limit, hasRoom ? bytes : 1)
      return false
    }
    addTo(this.limit, account)
    return true
  }

  release(account: Account | undefined, bytes = this.#bytes): void {
    removeFrom(this.limit, account)
    releaseMemory(account, bytes)
    const payer = account?.payer ?? NO_PAYER
    const refusedAt = this.#refused.get(payer)
    if (refusedAt !== undefined && this.#heldBy(account) <= refusedAt / 2) this.#refused.delete(payer)
  }

  #heldBy(account: Account | undefined): number {
    return account === undefined ? this.limit.used : (this.limit.held.get(`user ${account.payer}`) ?? 0)
  }

  #report({ device, context, qpn }: Receiver, limit: Limit, amount: number): void {
    const account = context?.account
    const payer = account?.payer ?? NO_PAYER
    if (this.#refused.has(payer)) return
    this.#refused.set(payer, this.#heldBy(account))
    if (!hasFailureHandlers(device.core)) return
    const reason = refusalOf(limit, account, amount)?.text ?? limit.subject
    const cause = createCause('NO_SHARE', { subject: this.limit.subject, reason })
    reportFailure({ kind: 'drop', device: device.name, qpn, cause }, device, context)
  }
}
