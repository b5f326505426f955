/*
 * Why programs wait for queues of an EFA device (spec/check/waits.ts): queue pairs have no connections, so only
 * messages without a receive, of SRD.
 */
import type { ContextWait } from '../../core/driver-contract.ts'
import { silentWait } from '../../core/silent-device.ts'
import { requestName } from '../../spec/check/causes.ts'
import { addressText } from '../../transport/wire/address.ts'
import { isSilent } from './completions.ts'
import type { EfaState } from './device-state.ts'
import { ENDLESS } from './engine-common.ts'
import { outstandingSends, pendingElements, wrOpcode } from './requests.ts'
import type { Request } from './state.ts'

/** After fewer refusals of a request, its receive may be about to be posted. */
const MIN_TRIES = 2

const hex = (value: number): string => `0x${value.toString(16)}`

const textOf = (request: Request): string => {
  const { qp, peer, destQpn } = request
  const at = peer === undefined ? '' : ` at ${addressText(peer.address)}`
  return `QP ${hex(qp.qpn)}: a ${requestName(wrOpcode(request))} waits without limit for a receive (rnr_retry ${ENDLESS}) of QP ${hex(destQpn)}${at}`
}

/** Undefined between steps. */
export function* waitsOfDevice(efa: EfaState): Generator<ContextWait | undefined, void> {
  for (const { context, state: qp } of [...efa.qps.values()]) {
    yield undefined
    const hasRequests = outstandingSends(qp) > 0 || (qp.receive !== undefined && pendingElements(qp.receive) > 0)
    const silent = hasRequests && isSilent(efa, qp) ? silentWait(efa.device(), qp.qpn) : undefined
    if (context !== undefined && silent !== undefined) yield { context, wait: silent }
    if (context === undefined || qp.rnrRetry !== ENDLESS) continue
    for (const request of qp.active.values()) {
      if (request.rnrTries < MIN_TRIES) continue
      yield { context, wait: { id: 'endless-rnr', text: textOf(request), qpns: [qp.qpn, request.destQpn] } }
      break
    }
  }
}
