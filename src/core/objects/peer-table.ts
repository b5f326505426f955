/*
 * What packets make of peers that nobody has named before: senders, connections, requests. Any host can send, so all
 * such state is bounded, and charged to the account whose object the packets are for (docs/decisions/shares.md): who
 * has many such peers leaves room for those of others. What the account may not have is not made, and the packet is
 * dropped.
 */
import { createCause } from '../../spec/check/causes.ts'
import { reportFailure } from '../failures.ts'
import type { Account, Context, Limit } from '../model.ts'
import {
  addMemory,
  addTo,
  createLimit,
  hasShare,
  mayChargeMemory,
  refusalOf,
  releaseMemory,
  removeFrom,
} from './limits.ts'

/** For whom a packet is. `context`: undefined for core's own. `qpn`: of the queue pair that got it. */
export interface Receiver {
  readonly context: Context | undefined
  readonly qpn: number
}

const NO_PAYER = -1

export class PeerTable {
  readonly limit: Limit
  readonly #bytes: number
  /** By payer: how much it had when more was refused, and that was reported. */
  readonly #refused = new Map<number, number>()

  /**
   * `subject`: what is counted, as in `3 senders`. `max`: of all accounts; Infinity: memory is the limit. `bytes`: of
   * memory, of one.
   */
  constructor(subject: string, max: number, bytes: number) {
    this.limit = createLimit(subject, max)
    this.#bytes = bytes
  }

  /**
   * Charges the receiver's account for one, or for `amount`. False: it may not have it, which is reported once until
   * the account has half as much as then.
   */
  take(receiver: Receiver, amount = 1, bytes = amount * this.#bytes): boolean {
    const account = receiver.context?.account
    const hasRoom = hasShare(this.limit, account, amount)
    if (!hasRoom || !mayChargeMemory(account, bytes)) {
      this.#report(receiver, hasRoom ? account!.memory : this.limit, hasRoom ? bytes : amount)
      return false
    }
    addTo(this.limit, account, amount)
    return true
  }

  /** Charges also beyond the share, to undo a release. */
  add(account: Account | undefined, amount = 1, bytes = amount * this.#bytes): void {
    addTo(this.limit, account, amount)
    addMemory(account, bytes)
  }

  release(account: Account | undefined, amount = 1, bytes = amount * this.#bytes): void {
    removeFrom(this.limit, account, amount)
    releaseMemory(account, bytes)
    const payer = account?.payer ?? NO_PAYER
    const refusedAt = this.#refused.get(payer)
    if (refusedAt !== undefined && this.#heldBy(account) <= refusedAt / 2) this.#refused.delete(payer)
  }

  #heldBy(account: Account | undefined): number {
    return account === undefined ? this.limit.used : (this.limit.held.get(`user ${account.payer}`) ?? 0)
  }

  #report({ context, qpn }: Receiver, limit: Limit, amount: number): void {
    const account = context?.account
    const payer = account?.payer ?? NO_PAYER
    if (this.#refused.has(payer)) return
    this.#refused.set(payer, this.#heldBy(account))
    if (context === undefined) return
    reportNoShare(context, this.limit.subject, refusalOf(limit, account, amount)?.text ?? '', qpn)
  }
}

/** Reports that something of a peer was dropped. `reason`: see limits.ts. */
export const reportNoShare = (context: Context, subject: string, reason: string, qpn?: number): void => {
  const { device } = context
  const cause = createCause('NO_SHARE', { subject, reason })
  const failure = { kind: 'drop', device: device.name, cause, ...(qpn !== undefined && { qpn }) } as const
  reportFailure(failure, device, context)
}
