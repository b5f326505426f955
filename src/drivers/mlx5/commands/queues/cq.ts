/*
 * Firmware commands for completion queues. A queue that a command makes has no completion channel: its armings raise
 * the event COMP for those who have subscribed to it (events/).
 */
import { callWithin } from '../../../../core/dispatch/owned.ts'
import { Armed, type CoreObject } from '../../../../core/model.ts'
import { Cq } from '../../../../spec/classes/cq.ts'
import { Commands } from '../../../../spec/drivers/mlx5-firmware/commands.ts'
import { CompletionEntry } from '../../../../spec/drivers/mlx5-queues.ts'
import { CqFlags } from '../../../../spec/enums.ts'
import { readConsumer } from '../../../soft/completion-queue.ts'
import type { Mlx5Cq } from '../../completions.ts'
import { stateOf } from '../../state.ts'
import { sendEventsOf } from '../events/subscriptions.ts'
import { creation, objectCommand, refuseCommand } from '../handler.ts'
import { eqnOf, findUar, vectorOf } from '../lookup.ts'
import { makeObject } from './make.ts'
import { placeOf, recordPlaceOf, refuseFeatures } from './places.ts'

const MAX_LOG_ENTRIES = 22
/** Of `cqe_sz`. */
const EntryBytes = [CompletionEntry.BYTES, 2 * CompletionEntry.BYTES] as const
/** Of `cq_timestamp_format`. */
const REAL_TIME = 2
/** Of `st`. */
const Notification = { NONE: 0, [Armed.SOLICITED]: 6, [Armed.NEXT]: 9 } as const
const OVERRUN = 9
/** Of `modify_field_select`. */
const Select = { PERIOD: 1, COUNT: 2 } as const

const modifyMethod = { ...Cq.methods.modify, name: 'modify' }

export const cqCommands = [
  creation(Commands.CREATE_CQ, ({ call, input }, object) => {
    const { cq_context: cqc, cq_umem_id, cq_umem_offset } = input
    const { cqe_comp_en, cc, apu_cq, cqe_sz, log_cq_size, cq_timestamp_format } = cqc
    refuseFeatures({ cqe_comp_en, cc, apu_cq })
    const entryBytes = EntryBytes[cqe_sz] ?? refuseCommand('unsupportedFeature', `cqe_sz ${cqe_sz}; there are 0 and 1`)
    if (cq_timestamp_format === REAL_TIME)
      refuseCommand('unsupportedFeature', 'cq_timestamp_format 2; time stamps are free running (0, 1)')
    if (log_cq_size > MAX_LOG_ENTRIES)
      refuseCommand('badValue', `log_cq_size ${log_cq_size} is above ${MAX_LOG_ENTRIES}`)
    findUar(call, cqc.uar_page)
    const compVector = vectorOf(call, cqc.c_eqn)
    const entries = 2 ** log_cq_size
    const args = {
      cqe: entries - 1,
      userHandle: 0n,
      compVector,
      flags: cqc.oi === 0 ? 0 : CqFlags.values.IGNORE_OVERRUN,
      bufferAddress: placeOf(call, object, {
        field: 'cq_umem_id',
        umem: cq_umem_id,
        offset: cq_umem_offset,
        pageOffset: cqc.page_offset,
        bytes: entries * entryBytes,
        needsWrite: true,
      }),
      doorbellAddress: recordPlaceOf(call, object, cqc),
      entryBytes,
      hasArmings: 1,
    }
    return makeObject(call, object, Cq, args, ({ object: target, out }) => {
      const cqn = (out as { readonly number: number }).number
      sendEventsOf(object, target, cqn)
      const { cq_max_count: count, cq_period: period } = cqc
      if (count !== 0 || period !== 0) callWithin(call, target, modifyMethod, { count, period })
      return { out: { cqn }, target, own: cqc }
    })
  }),

  objectCommand(Commands.MODIFY_CQ, ({ call, input, opMod }, { object }) => {
    const { modify_field_select: select, cq_context: cqc } = input
    if (opMod !== 0) refuseCommand('unsupportedModifier', `op_mod ${opMod}: queues of commands are not resized`)
    const others = select & ~(Select.PERIOD | Select.COUNT)
    if (others !== 0)
      refuseCommand(
        'unsupportedFeature',
        `modify_field_select 0x${others.toString(16)}; there are period (1) and count (2)`,
      )
    callWithin(call, object, modifyMethod, {
      ...((select & Select.PERIOD) !== 0 && { period: cqc.cq_period }),
      ...((select & Select.COUNT) !== 0 && { count: cqc.cq_max_count }),
    })
    return {}
  }),

  objectCommand(Commands.QUERY_CQ, ({ call }, { object, own }) => {
    const { state, events } = object as CoreObject<Mlx5Cq>
    stateOf(call).soft.pollNow()
    readConsumer(state)
    const { threshold } = events?.state ?? {}
    const armed = events?.armed
    return {
      cq_context: {
        ...(own as object | undefined),
        status: state.hasOverrun ? OVERRUN : 0,
        cqe_sz: +(state.entryBytes !== CompletionEntry.BYTES),
        oi: +state.ignoresOverrun,
        st: armed === Armed.NEXT || armed === Armed.SOLICITED ? Notification[armed] : Notification.NONE,
        log_cq_size: Math.log2(state.entries),
        cq_period: threshold?.period ?? 0,
        cq_max_count: threshold?.count ?? 0,
        c_eqn: eqnOf(state.compVector),
        consumer_counter: state.consumer,
        producer_counter: state.producer,
      },
    }
  }),
]
