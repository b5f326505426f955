/*
 * Finding not-routed: an address handle or a queue pair has a path to another subnet that no router forwards.
 */
import { lidOf } from '../../../transport/wire/address.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { addressIn, type KnownObject } from '../objects.ts'
import type { Occurrence } from '../reporting.ts'

const ADVICE_FOR_V1 =
  'choose the index of a RoCE v2 GID on both ends (gid_attrs/types, ibv_query_gid_ex, NCCL_IB_GID_INDEX): of each address, v1 comes before v2'
const ADVICE_FOR_HOPS = 'set grh.hop_limit to 64 or more, as rdma_cm does'

const REPLACED =
  "the hop limit of the route takes its place here, as with Linux's rxe; adapters whose address handles are made in user space (mlx5), and queue pairs of DEVX, send it as given, and the first router discards the packets"
const SENT = 'the device sends it as given, and the first router discards the packets'

export const createRoutedDetector = (services: DetectorServices): Detector => {
  const look = (at: Occurrence & { readonly args: Readonly<Record<string, unknown>> }, object: KnownObject): void => {
    const { dgid, sgidIndex, hopLimit } = addressIn(at.args) ?? {}
    if (dgid === undefined || sgidIndex === undefined || hopLimit === undefined || lidOf(dgid) >= 0) return
    const hazard = services.sources.routerHazard?.(object.device, object.qpn, { dgid, sgidIndex, hopLimit })
    if (hazard?.way === undefined) return
    services.report(
      'not-routed',
      at,
      hazard.isRoceV1
        ? {
            text: `${object.name} has GID index ${sgidIndex}, which is of RoCE v1, and ${hazard.way}: no router forwards frames of RoCE v1`,
            advice: ADVICE_FOR_V1,
            objects: [object],
          }
        : {
            text: `${object.name} has hop_limit ${hopLimit}, and ${hazard.way}: ${hazard.isReplaced ? REPLACED : SENT}`,
            advice: ADVICE_FOR_HOPS,
            ...(hazard.isReplaced && { severity: 'note' }),
            objects: [object],
          },
    )
  }
  return {
    on: {
      created(call, object) {
        if (object.class === 'ah') look(call, object)
      },
      modified(call, object) {
        if (object.isQp || object.class === 'ah') look(call, object)
      },
    },
  }
}
