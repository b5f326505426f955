/*
 * Firmware commands for flow steering: counters, and receivers of frames (TIR), which rules with a matcher use
 * (src/drivers/mlx5/raw/matcher-flows.ts).
 */
import type { CoreObject } from '../../../core/model.ts'
import { addParent, numberFromId } from '../../../core/objects/lifetime.ts'
import { chargeMemory, releaseMemory } from '../../../core/objects/limits.ts'
import { Commands } from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { TRAFFIC_COUNTER_BYTES } from '../../../spec/drivers/mlx5-firmware/flow.ts'
import { objectOfNumber } from '../numbers.ts'
import type { FlowCounters, FrameTarget } from '../raw/matcher-flows.ts'
import { queueReceiver } from '../raw/raw-qp-class.ts'
import type { WqObject } from '../raw/work-queues.ts'
import { requireFrames, stateOf } from '../state.ts'
import { creation, objectCommand, refuseCommand } from './handler.ts'
import { refuseFeatures } from './queues/places.ts'

/** Counters of one object: 2 to this power at most (flow_counter_bulk_log_max_alloc). */
export const MAX_LOG_COUNTERS = 9
/** Old programs ask by a bit for 128, 256 or 512 (flow_counter_bulk_alloc). */
export const COUNTER_BULKS = 0b111
const LEAST_BULK = 128
const LARGEST_ID = 0xffff_ffff >>> MAX_LOG_COUNTERS

const countersOf = (bulk: number, log: number): number => {
  if (log > MAX_LOG_COUNTERS)
    refuseCommand('badValue', `flow_counter_bulk_log_size ${log}; at most ${MAX_LOG_COUNTERS}`)
  if (bulk === 0) return 2 ** log
  if ((bulk & ~COUNTER_BULKS) !== 0 || (bulk & (bulk - 1)) !== 0 || log !== 0)
    refuseCommand(
      'badValue',
      `flow_counter_bulk ${bulk}; one bit of ${COUNTER_BULKS}, without flow_counter_bulk_log_size`,
    )
  return LEAST_BULK * bulk
}

/** MLX5_TIRC_DISP_TYPE_DIRECT */
const DIRECT = 0

export const flowCommands = [
  creation(Commands.ALLOC_FLOW_COUNTER, ({ call, input }, object) => {
    requireFrames(call, 'ALLOC_FLOW_COUNTER')
    const size = countersOf(input.flow_counter_bulk, input.flow_counter_bulk_log_size)
    const { account } = call.context
    const bytes = size * TRAFFIC_COUNTER_BYTES
    chargeMemory(account, 'ALLOC_FLOW_COUNTER', bytes)
    const own: FlowCounters = { counts: new Float64Array(2 * size), size }
    return {
      // the numbers of the others of a bulk follow
      out: { flow_counter_id: numberFromId(object, LARGEST_ID) * 2 ** MAX_LOG_COUNTERS },
      own,
      end: () => releaseMemory(account, bytes),
    }
  }),

  objectCommand(Commands.QUERY_FLOW_COUNTER, ({ input, outBytes }, { own }) => {
    const { counts, size } = own as FlowCounters
    const { clear, dump_to_memory, num_of_counters } = input
    refuseFeatures({ dump_to_memory })
    const asked = num_of_counters === 0 ? 1 : num_of_counters
    if (asked > size) refuseCommand('badValue', `num_of_counters ${num_of_counters}; the object has ${size}`)
    const room = Math.floor((outBytes - Commands.QUERY_FLOW_COUNTER.out.bytes) / TRAFFIC_COUNTER_BYTES)
    if (room < asked)
      refuseCommand('shortOutput', `${outBytes} bytes; ${asked} counters need ${TRAFFIC_COUNTER_BYTES} each behind 16`)
    const flow_statistics = new Uint8Array(asked * TRAFFIC_COUNTER_BYTES)
    const view = new DataView(flow_statistics.buffer)
    for (let i = 0; i < 2 * asked; i++) view.setBigUint64(8 * i, BigInt(counts[i]!))
    if (clear === 1) counts.fill(0, 0, 2 * asked)
    return { flow_statistics }
  }),

  creation(Commands.CREATE_TIR, ({ call, input: { ctx } }, object) => {
    requireFrames(call, 'CREATE_TIR')
    const { disp_type, tls_en, nvmeotcp_zerocopy_en, nvmeotcp_crc_en, lro_enable_mask, inline_q_type, inline_rqn } = ctx
    const { inline_rqn_vhca_id_valid, rx_hash_symmetric, tunneled_offload_en, transport_domain } = ctx
    refuseFeatures({ tls_en, nvmeotcp_zerocopy_en, nvmeotcp_crc_en, lro_enable_mask, inline_q_type })
    refuseFeatures({ inline_rqn_vhca_id_valid, rx_hash_symmetric, tunneled_offload_en })
    if (disp_type !== DIRECT)
      refuseCommand('unsupportedFeature', `disp_type ${disp_type}; frames go to one receive queue (0)`)
    if (transport_domain !== 0) {
      const domain = objectOfNumber(call.context, 'transportDomain', transport_domain)
      if (domain === undefined)
        refuseCommand('noSuchTransportDomain', `transport_domain 0x${transport_domain.toString(16)}`)
      else addParent(object, domain)
    }
    const { soft } = stateOf(call)
    const row = soft.qpns.rowOf(inline_rqn)
    const queue = (row < 0 ? undefined : soft.qps[row]) as CoreObject | undefined
    if (queue === undefined || queue.class.name !== 'wq' || queue.context !== call.context)
      return refuseCommand('noSuchReceiveQueue', `inline_rqn 0x${inline_rqn.toString(16)}`)
    addParent(object, queue)
    const own: FrameTarget = { receiver: queueReceiver(queue as WqObject, soft) }
    return { out: { tirn: numberFromId(object, 0xff_ffff) }, own }
  }),
]
