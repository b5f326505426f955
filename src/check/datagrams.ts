/*
 * Datagrams: no answer reports that one was not accepted (IBA 9.8.3). So the receiver, if its device is here, is
 * compared with the request when that is posted.
 */
import { requestName } from '../spec/check/causes.ts'
import { type FindingId, findings, type Severity } from '../spec/check/findings.ts'
import type { WorkRequest } from '../spec/check/requests.ts'
import { QpState } from '../spec/enums.ts'
import { MULTICAST_QPN } from '../spec/wire/headers.ts'
import { GSI_QPN } from '../spec/wire/mad.ts'
import { hex, type KnownObject, stateOf, typeOf } from './objects.ts'
import type { Topic, World } from './topic.ts'

const { RESET, INIT, ERR } = QpState.values

interface Mismatch {
  readonly id: FindingId
  /** A receiver that is not ready yet, or no longer, may be meant to lose datagrams. */
  readonly severity?: Severity
  readonly detail: string
}

const mismatchOf = (own: KnownObject, peer: KnownObject | undefined, sent: number): Mismatch | undefined => {
  if (peer === undefined) return { id: 'no-peer-qp', detail: '' }
  if (peer.gone !== undefined) return { id: 'no-peer-qp', severity: 'warning', detail: '' }
  if (typeOf(peer) !== 'UD') return { id: 'service-mismatch', detail: `: it is ${typeOf(peer)}` }
  const { state = RESET, qkey = 0 } = peer.qp
  if (state === RESET || state === INIT)
    return { id: 'peer-not-ready', severity: 'warning', detail: `: it is in ${stateOf(peer)}` }
  if (state === ERR) return { id: 'peer-in-error', severity: 'warning', detail: '' }
  // A Q_Key with the upper bit set stands for that of the sending queue pair (IBA 10.2.5).
  const used = (sent >>> 31 === 1 ? (own.qp.qkey ?? 0) : sent) >>> 0
  return used === qkey >>> 0
    ? undefined
    : { id: 'key-mismatch', detail: `: Q_Key ${hex(used)} is sent, and ${hex(qkey >>> 0)} is expected` }
}

export const createDatagrams = (world: World): Topic => ({
  posted(request: WorkRequest) {
    const { destination, destQpn, owner, wrId, opcode } = request
    if (destination === undefined || destQpn === undefined || destQpn === MULTICAST_QPN || destQpn === GSI_QPN) return
    const own = world.objects.find(owner)
    const device = world.deviceWith(destination.gid)
    if (own === undefined || device === undefined) return
    const peer = world.objects.qp(device, destQpn)
    const mismatch = mismatchOf(own, peer, destination.qkey)
    if (mismatch === undefined) return
    const { id, severity, detail } = mismatch
    const name = peer?.nameWithProgram ?? `QP ${hex(destQpn)}`
    const text = `${own.name} ${requestName(opcode)} wr_id ${wrId} to ${name}: ${findings[id].title}${detail}`
    world.find(id, world.placeOfPost(own, request), {
      text,
      ...(severity && { severity }),
      objects: [own, peer],
    })
  },
})
