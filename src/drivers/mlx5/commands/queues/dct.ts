/*
 * Firmware commands for targets of DC, which are ready when they are created, unlike those of verbs.
 */
import { getGid } from '../../../../core/devices/gids.ts'
import { callWithin, type Owned, ownerOf } from '../../../../core/dispatch/owned.ts'
import type { CallContext } from '../../../../core/model.ts'
import { DctQp } from '../../../../spec/classes/qp/dc_qp.ts'
import { Mlx5QpFlags } from '../../../../spec/drivers/mlx5.ts'
import { Commands } from '../../../../spec/drivers/mlx5-firmware/commands.ts'
import type { RecordOf } from '../../../../spec/drivers/mlx5-firmware/fields.ts'
import type { dctc } from '../../../../spec/drivers/mlx5-firmware/queues.ts'
import { AccessFlags, QpState } from '../../../../spec/enums.ts'
import type { QpObject } from '../../../soft/state.ts'
import { stateOf } from '../../state.ts'
import { raiseKeyViolation, sendEventsOf } from '../events/subscriptions.ts'
import { creation, objectCommand } from '../handler.ts'
import { findPd } from '../lookup.ts'
import { makeObject } from './make.ts'
import { findCq, findShared, refuseFeatures } from './places.ts'

const { INIT, RTR } = QpState.values
const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
const NO_QUEUE = { maxSendWr: 0, maxRecvWr: 0, maxSendSge: 0, maxRecvSge: 0, maxInlineData: 0 }
const modifyMethod = { ...DctQp.methods.modify, name: 'modify' }

type Dctc = RecordOf<typeof dctc>

const start = (call: CallContext, { object }: Owned, context: Dctc): void => {
  const { pkey_index, port, rre, rwe, rae, mtu, min_rnr_nak, my_addr_index, tclass, flow_label, hop_limit } = context
  const accessFlags = (rre && REMOTE_READ) | (rwe && REMOTE_WRITE) | (rae && REMOTE_ATOMIC)
  const { paths } = stateOf(call).soft
  const address = {
    ...paths.none,
    port: port || 1,
    sgidIndex: my_addr_index,
    trafficClass: tclass,
    flowLabel: flow_label,
    hopLimit: hop_limit,
    sl: context.eth_prio,
  }
  callWithin(call, object, modifyMethod, { state: INIT, pkeyIndex: pkey_index, port: port || 1, accessFlags })
  callWithin(call, object, modifyMethod, {
    state: RTR,
    pathMtu: mtu,
    minRnrTimer: min_rnr_nak,
    ...paths.answer(address),
  })
}

export const dctCommands = [
  creation(Commands.CREATE_DCT, ({ call, input }, object) => {
    const { dct_context_entry: context } = input
    const { offload_type, rlky } = context
    refuseFeatures({ offload_type, rlky })
    // a target of verbs is not asked for a path either, but Linux has looked its GID up
    getGid(call.device.ports[0]!.gids, context.my_addr_index)
    const cq = findCq(call, 'cqn', context.cqn)
    const args = {
      pd: findPd(call, context.pd),
      sendCq: cq,
      recvCq: cq,
      srq: findShared(call, 'srqn_xrqn', context.srqn_xrqn),
      cap: NO_QUEUE,
      userHandle: 0n,
      qpFlags: Mlx5QpFlags.TYPE_DCT,
      sendBufferAddress: context.dc_access_key,
      uidx: context.user_index,
    }
    return makeObject(call, object, DctQp, args, owned => {
      start(call, owned, context)
      const dctn = (owned.out as { readonly qpNum: number }).qpNum
      sendEventsOf(object, owned.object, dctn)
      return { out: { dctn }, target: owned.object, own: context }
    })
  }),

  objectCommand(Commands.QUERY_DCT, ({ call }, { object, own }) => {
    const { violations = 0 } = stateOf(call).dc.targets.targetOf((object as QpObject).state.qpn) ?? {}
    return { dct_context_entry: { ...(own as Dctc | undefined), state: 0, dc_access_key_violation_count: violations } }
  }),

  objectCommand(Commands.ARM_DCT_FOR_KEY_VIOLATION, ({ call }, { object }) => {
    const { qpn } = (object as QpObject).state
    const target = stateOf(call).dc.targets.targetOf(qpn)
    const owner = ownerOf(object)
    if (target !== undefined && owner !== undefined) target.onViolation = () => raiseKeyViolation(owner, qpn)
    return {}
  }),
]
