/*
 * Findings about UD sends, and sends of other queue pairs without connection (SRD). A receiver silently drops a
 * datagram that it does not accept (IBA 9.8.3); SRD refuses it. So when the device fetches a send, the detector
 * compares the send with the receiving queue pair. If packets reach only devices of the checker's process, datagrams to
 * other addresses, and to groups without member, are found too. On InfiniBand the device knows whether its subnet
 * carries a datagram. Not checked are sends to queue pair 1.
 */
import { type Cause, type CauseName, causes, causeText } from '../../../spec/check/causes.ts'
import { type FindingId, findingOfCause, findings } from '../../../spec/check/findings.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import { QpState } from '../../../spec/enums.ts'
import { MULTICAST_QPN } from '../../../spec/wire/headers.ts'
import { GSI_QPN } from '../../../spec/wire/mad.ts'
import { addressText, isMulticastGid, lidOf } from '../../../transport/wire/address.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { nearly, wrongNumber } from '../nearly.ts'
import { hex, type KnownObject, stateOf, typeOf } from '../objects.ts'

const { RESET, INIT, ERR } = QpState.values

/** Causes of partition keys. */
export const PARTITIONS: ReadonlySet<CauseName> = new Set<CauseName>(['PKEY_DIFFERS', 'PKEY_LIMITED', 'PKEY_EMPTY'])
/**
 * Causes that last: LID 0 is nobody's, partition keys differ, and a group has one QPN. Other ports and groups may come,
 * or have gone.
 */
const isLasting = ({ id, args }: Cause): boolean => PARTITIONS.has(id) || id === 'GROUP_QPN' || args.lid === 0

interface Mismatch {
  readonly id: FindingId
  /**
   * Absent: the severity in spec/check/findings.ts. A warning if the receiver is not ready, in ERR or destroyed: its
   * program may expect the loss.
   */
  readonly severity?: Severity
  /** Text after the title of the finding. */
  readonly detail: string
}

/** Why the peer would drop the datagram; undefined: the peer accepts it. `requestQkey`: remote_qkey of the request. */
const mismatchOf = (sender: KnownObject, peer: KnownObject | undefined, requestQkey: number): Mismatch | undefined => {
  if (peer === undefined) return { id: 'no-peer-qp', detail: '' }
  if (peer.destruction !== undefined) return { id: 'no-peer-qp', severity: 'warning', detail: '' }
  if (typeOf(peer) !== typeOf(sender)) return { id: 'service-mismatch', detail: `: it is ${typeOf(peer)}` }
  const { state = RESET, qkey = 0 } = peer.attributes
  if (state === RESET || state === INIT)
    return { id: 'peer-not-ready', severity: 'warning', detail: `: it is in ${stateOf(peer)}` }
  if (state === ERR) return { id: 'peer-in-error', severity: 'warning', detail: '' }
  // If the highest bit of remote_qkey is set, the device sends the Q_Key of the sending queue pair (IBA 10.2.5).
  const isReplaced = requestQkey >>> 31 === 1 && typeOf(sender) === 'UD'
  const sentQkey = (isReplaced ? (sender.attributes.qkey ?? 0) : requestQkey) >>> 0
  if (sentQkey === qkey >>> 0) return undefined
  const near = nearly(BigInt(sentQkey), 32, [{ value: BigInt(qkey >>> 0), what: 'the Q_Key of the receiver' }])
  return {
    id: 'key-mismatch',
    detail: `: Q_Key ${hex(sentQkey)} is sent, and ${hex(qkey >>> 0)} is expected${near === undefined ? '' : `: ${near.line}`}`,
  }
}

export const createDatagramDetector = (services: DetectorServices): Detector => {
  /** Why no device gets packets to a GID; undefined: one may. */
  const unreachable = (gid: Uint8Array): string | undefined => {
    if (!isMulticastGid(gid)) return 'no device has this GID'
    return services.sources.hasMember?.(gid) === false ? 'no queue pair is in this multicast group' : undefined
  }
  /** What the device knows of the last datagram of a queue pair, which no queue pair gets; undefined: nothing. */
  const whyLost = ({ device, qpn = 0 }: KnownObject, { destination, destQpn = 0 }: WorkRequest): Cause | undefined => {
    const gid = destination?.gid
    if (gid === undefined || (lidOf(gid) < 0 && !isMulticastGid(gid))) return undefined
    return services.sources.whyLost?.(device, qpn, gid, destQpn)
  }
  return {
    on: {
      posted(request: WorkRequest) {
        const { destination, destQpn, owner } = request
        if (destination === undefined || destQpn === undefined || destQpn === GSI_QPN) return
        const sender = services.objects.find(owner)
        // An initiator of DC hears of its targets: its request fails.
        if (sender === undefined || typeOf(sender) === 'DCI') return
        const cause = whyLost(sender, request)
        if (cause !== undefined) {
          const why = causeText(cause)
          const to = addressText(destination.gid)
          if (PARTITIONS.has(cause.id)) sender.hasSentWrongKey = true
          else if (cause.id !== 'GRH_OF_OTHER')
            sender.lost.unreached = { count: (sender.lost.unreached?.count ?? 0) + 1, to, why }
          services.report(findingOfCause(cause.id)!, services.occurrenceAtPost(sender, request), {
            text: `${sender.name} ${requestText(request)} to ${to}: ${why}`,
            advice: causes[cause.id].advice,
            ...(!isLasting(cause) && { severity: 'warning' }),
            objects: [sender],
          })
          return
        }
        const device = services.deviceWithGid(destination.gid)
        if (isMulticastGid(destination.gid) || device === undefined) {
          const why = services.sources.isClosed ? unreachable(destination.gid) : undefined
          if (why === undefined) return
          const to = addressText(destination.gid)
          sender.lost.unreached = { count: (sender.lost.unreached?.count ?? 0) + 1, to, why }
          const text = `${sender.name} ${requestText(request)} to ${to} was dropped: ${why}`
          services.report('message-dropped', services.occurrenceAtPost(sender, request), {
            text,
            advice: isMulticastGid(destination.gid)
              ? 'attach a queue pair to the group (ibv_attach_mcast, rdma_join_multicast) before messages are sent to it'
              : 'compare the GID of the address handle with that of the receiver',
            objects: [sender],
          })
          return
        }
        if (destQpn === MULTICAST_QPN) return
        const peer = services.objects.qp(device, destQpn)
        // The checker does not know the queue pairs of programs that it does not check.
        if (peer === undefined && services.sources.hasUnchecked?.(device)) return
        const mismatch = mismatchOf(sender, peer, destination.qkey)
        if (mismatch === undefined) return
        const { id, severity, detail } = mismatch
        if (id === 'key-mismatch') sender.hasSentWrongKey = true
        const name = peer?.nameWithProgram ?? `QP ${hex(destQpn)}`
        const { meant, ...wrong } = peer === undefined ? wrongNumber(services.objects, device, destQpn) : {}
        const text = `${sender.name} ${requestText(request)} to ${name}: ${findings[id].title}${detail}`
        services.report(id, services.occurrenceAtPost(sender, request), {
          text,
          ...(id === 'key-mismatch' && { advice: causes.QKEY_DIFFERS.advice }),
          ...(severity && { severity }),
          ...wrong,
          objects: [sender, peer, meant],
        })
      },
    },
  }
}
