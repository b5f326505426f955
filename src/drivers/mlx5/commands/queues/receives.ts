/*
 * Firmware commands for receive memory pools (RMP): shared receive queues of verbs, whose requests may be a ring
 * (receives.ts); and those for XRC SRQs of verbs.
 */
import { callWithin } from '../../../../core/dispatch/owned.ts'
import type { CallContext, CoreObject } from '../../../../core/model.ts'
import { Srq, XrcSrq } from '../../../../spec/classes/srq.ts'
import { Commands } from '../../../../spec/drivers/mlx5-firmware/commands.ts'
import type { RecordOf } from '../../../../spec/drivers/mlx5-firmware/fields.ts'
import { ReceiveTopology, RMP_READY } from '../../../../spec/drivers/mlx5-firmware/queue-values.ts'
import type { rmpc } from '../../../../spec/drivers/mlx5-firmware/queues.ts'
import { SEGMENT_BYTES } from '../../../../spec/drivers/mlx5-queues.ts'
import type { SrqObject } from '../../../soft/state.ts'
import { Limits } from '../../attributes.ts'
import { SharedOrder } from '../../receives.ts'
import { stateOf } from '../../state.ts'
import { sendEventsOf } from '../events/subscriptions.ts'
import { creation, objectCommand, refuseCommand } from '../handler.ts'
import { findPd } from '../lookup.ts'
import { makeObject } from './make.ts'
import { placeOf, recordPlaceOf, refuseFeatures } from './places.ts'

type Rmpc = RecordOf<typeof rmpc>

const MAX_LOG_REQUESTS = Math.log2(Limits.maxSrqWr + 1)

const orderOf = ({ basic_cyclic_rcv_wqe, wq: { wq_type } }: Rmpc): SharedOrder => {
  if (wq_type === ReceiveTopology.LIST) return SharedOrder.LIST
  if (wq_type === ReceiveTopology.RING) return basic_cyclic_rcv_wqe === 1 ? SharedOrder.BARE_RING : SharedOrder.RING
  return refuseCommand('unsupportedFeature', `wq_type ${wq_type}; there are 0 (list) and 1 (ring), without strides`)
}

/** Arms the event of the limit; 0: disarms. */
const armLimit = (call: CallContext, object: CoreObject, limit: number): void => {
  const { methods } = object.class.name === XrcSrq.name ? XrcSrq : Srq
  callWithin(call, object, { ...methods.modify, name: 'modify' }, { limit })
}

export const receiveCommands = [
  creation(Commands.CREATE_RMP, ({ call, input }, object) => {
    const { ctx } = input
    const { wq } = ctx
    const { wq_signature, log_wq_sz, log_wq_stride, two_byte_shift_en, page_offset } = wq
    refuseFeatures({ wq_signature, two_byte_shift_en, page_offset })
    const order = orderOf(ctx)
    if (log_wq_sz > MAX_LOG_REQUESTS) refuseCommand('badValue', `log_wq_sz ${log_wq_sz} is above ${MAX_LOG_REQUESTS}`)
    const bytes = 2 ** log_wq_stride
    const elements = bytes / SEGMENT_BYTES - (order === SharedOrder.BARE_RING ? 0 : 1)
    if (elements < 1 || bytes > Limits.maxReceiveBytes)
      refuseCommand('badValue', `log_wq_stride ${log_wq_stride}: requests have 32 to ${Limits.maxReceiveBytes} bytes`)
    const requests = 2 ** log_wq_sz
    const args = {
      pd: findPd(call, wq.pd),
      maxWr: requests - 1,
      maxSge: Math.min(elements, stateOf(call).soft.limits.maxSrqSge),
      limit: 0,
      userHandle: 0n,
      bufferAddress: placeOf(call, object, {
        field: 'wq_umem_id',
        umem: wq.wq_umem_id,
        offset: wq.wq_umem_offset,
        bytes: requests * bytes,
      }),
      doorbellAddress: recordPlaceOf(call, object, wq),
      order,
      shift: log_wq_stride,
    }
    return makeObject(call, object, Srq, args, ({ object: target, out }) => {
      const rmpn = (out as { readonly number: number }).number
      sendEventsOf(object, target, rmpn)
      if (wq.lwm !== 0) armLimit(call, target, wq.lwm)
      return { out: { rmpn }, target, own: ctx }
    })
  }),

  objectCommand(Commands.MODIFY_RMP, ({ call, input }, { object }) => {
    const { rmp_state, lwm, ctx } = input
    if (rmp_state !== RMP_READY || ctx.state !== RMP_READY)
      refuseCommand('unsupportedFeature', `rmp_state ${rmp_state}, state ${ctx.state}; there is 1 (ready)`)
    if (lwm === 1) armLimit(call, object, ctx.wq.lwm)
    return {}
  }),

  objectCommand(Commands.QUERY_RMP, (_given, { object, own }) => {
    const { queue } = (object as SrqObject).state
    // undefined: of verbs
    const created = own as Rmpc | undefined
    const wq = {
      ...created?.wq,
      log_wq_sz: Math.log2(queue.capacity),
      lwm: queue.limit,
      hw_counter: queue.taken,
      sw_counter: queue.taken + queue.pending(),
    }
    return { rmp_context: { ...created, state: RMP_READY, wq } }
  }),

  // of verbs: a command that creates one has no place for the doorbell record's user memory
  objectCommand(Commands.QUERY_XRC_SRQ, (_given, { object }) => {
    const { queue } = (object as SrqObject).state
    return {
      xrc_srq_context_entry: {
        log_xrc_srq_size: Math.log2(queue.capacity),
        lwm: queue.limit,
        wqe_cnt: queue.pending(),
      },
    }
  }),

  objectCommand(Commands.ARM_XRC_SRQ, ({ call, input }, { object }) => {
    armLimit(call, object, input.lwm)
    return {}
  }),
]
