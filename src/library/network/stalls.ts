/*
 * Sends of checked devices that wait for a receive of their peer, also of a peer that is not checked: the finding
 * `endless-rnr`. RNR NAKs drive the devices, so a look after each drive needs no timer, in virtual time either.
 */

import type { Context } from '../../core/model.ts'
import type { SoftDevice } from '../../drivers/registered.ts'
import type { DeviceCheck } from '../verbs/watch/watch.ts'

/** Microseconds from the first RNR NAK until the wait is a finding, as for waits of programs under a daemon. */
const MIN_WAIT = 1_000_000
/** With fewer RNR NAKs, the receive may be about to be posted. */
const MIN_RNR_NAKS = 2
/** The rnr_retry that means unlimited: a smaller one fails the send, which is told. */
const UNLIMITED = 7

/** Looks at the sends of a context, and reports each that has waited for MIN_WAIT, once. `now`: microseconds. */
export const stallWatch = (
  device: SoftDevice,
  context: Context,
  now: () => number,
  check: Pick<DeviceCheck, 'waits'>,
): (() => void) => {
  /** By QPN: the PSN of the send that was reported. */
  const told = new Map<number, number>()
  let lookedAt = 0
  return () => {
    const { receivedRnr = 0 } = device.counters().engine
    if (receivedRnr === lookedAt) return
    lookedAt = receivedRnr
    device.visitStalls(MIN_RNR_NAKS, ({ qpn, psn, rnrRetry, since }) => {
      if (rnrRetry !== UNLIMITED || now() - since < MIN_WAIT || told.get(qpn) === psn) return
      told.set(qpn, psn)
      const found = device.rnrWait(qpn)
      if (found?.context === context) check.waits(found.wait)
    })
  }
}
