/*
 * Mistakes in batches of ibv_wr_*, which the preload library reports (`batchMistaken` in spec/preload-events.ts): the
 * sentence, severity and advice of each.
 */

import { counted } from '../../../base/text.ts'
import type { Moment } from '../../../spec/check/finding.ts'
import type { MistakenBatch } from '../../../spec/check/program-events.ts'
import type { Severity } from '../../../spec/check/severity.ts'
import { nameIn } from '../../../spec/enums.ts'
import { PostQueue } from '../../../spec/session.ts'
import { returnsData, WrOpcode } from '../../../spec/work.ts'
import { BatchCall, BatchMistake } from '../call-mistakes.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import { type KnownObject, moment, queueOf } from '../objects.ts'

/** What a finding says about the mistake. */
interface BatchText {
  readonly text: string
  readonly advice: string
  readonly severity?: Severity
  readonly details?: readonly string[]
  readonly moments?: readonly Moment[]
}

/** By ibv_wr_opcode: the function that adds a request, without `ibv_wr_`. IBV_WR_TSO is 10. */
const adders: Readonly<Record<number, string>> = {
  [WrOpcode.values.RDMA_WRITE]: 'rdma_write',
  [WrOpcode.values.RDMA_WRITE_WITH_IMM]: 'rdma_write_imm',
  [WrOpcode.values.SEND]: 'send',
  [WrOpcode.values.SEND_WITH_IMM]: 'send_imm',
  [WrOpcode.values.RDMA_READ]: 'rdma_read',
  [WrOpcode.values.ATOMIC_CMP_AND_SWP]: 'atomic_cmp_swp',
  [WrOpcode.values.ATOMIC_FETCH_AND_ADD]: 'atomic_fetch_add',
  [WrOpcode.values.LOCAL_INV]: 'local_inv',
  [WrOpcode.values.BIND_MW]: 'bind_mw',
  [WrOpcode.values.SEND_WITH_INV]: 'send_inv',
  10: 'send_tso',
  [WrOpcode.values.FLUSH]: 'flush',
  [WrOpcode.values.ATOMIC_WRITE]: 'atomic_write',
}

/** The function that adds a request to a batch. */
export const adderOf = (opcode: number): string => `ibv_wr_${adders[opcode] ?? '…'}`
const flagOf = (opcode: number): string => `IBV_QP_EX_WITH_${opcode === 10 ? 'TSO' : nameIn(WrOpcode.values, opcode)}`

/** By BatchCall, without those that are made of an opcode or are no call. */
const callNames: Readonly<Record<number, string>> = {
  [BatchCall.START]: 'ibv_wr_start',
  [BatchCall.COMPLETE]: 'ibv_wr_complete',
  [BatchCall.ABORT]: 'ibv_wr_abort',
  [BatchCall.SET_SGE]: 'ibv_wr_set_sge',
  [BatchCall.SET_SGE_LIST]: 'ibv_wr_set_sge_list',
  [BatchCall.SET_INLINE_DATA]: 'ibv_wr_set_inline_data',
  [BatchCall.SET_INLINE_DATA_LIST]: 'ibv_wr_set_inline_data_list',
  [BatchCall.SET_UD_ADDR]: 'ibv_wr_set_ud_addr',
  [BatchCall.SET_XRC_SRQN]: 'ibv_wr_set_xrc_srqn',
  [BatchCall.POST_SEND]: 'ibv_post_send',
}

const isAddress = (called: number): boolean => called === BatchCall.SET_UD_ADDR || called === BatchCall.SET_XRC_SRQN

const isInline = (called: number): boolean =>
  called === BatchCall.SET_INLINE_DATA || called === BatchCall.SET_INLINE_DATA_LIST

const END_IT = 'end each batch by ibv_wr_complete, or by ibv_wr_abort on paths that give it up'
const ADD_FLAGS = 'give ibv_create_qp_ex the flags of all operations that the program uses (send_ops_flags)'
const SETTERS_AFTER = 'call the setters of a request after the function that adds it, ibv_wr_send for example'

/** Undefined: an unknown mistake. */
const batchText = (
  { mistake, called, opcode, wrId, requests, time, since }: MistakenBatch,
  qp: KnownObject,
): BatchText | undefined => {
  const adder = adderOf(opcode)
  const call = called === BatchCall.ADD ? adder : (callNames[called] ?? 'a call')
  const request = `${adder} (wr_id ${wrId})`
  const earlier = (action: string) => (since.length === 0 ? {} : { moments: [moment(action, time, since)] })
  const batch = `a batch of ${counted(requests, 'request')}`
  switch (mistake) {
    case BatchMistake.STARTED_AGAIN:
      return {
        text: `${call} on ${qp.name} waits for ever: this thread has started ${batch} and has neither completed nor aborted it`,
        advice: called === BatchCall.POST_SEND ? 'post after ibv_wr_complete, or add the request to the batch' : END_IT,
        ...earlier('started'),
      }
    case BatchMistake.OWNER_ENDED:
      return {
        text: `${call} on ${qp.name} waits for ever: the thread that has started ${batch} has ended without ibv_wr_complete or ibv_wr_abort`,
        advice: END_IT,
        ...earlier('started'),
      }
    case BatchMistake.LEFT_OPEN: {
      const when = called === BatchCall.EXIT ? 'the program ended' : `${qp.name} was destroyed`
      const lost =
        requests === 0
          ? ''
          : `, and ${counted(requests, 'request')} in it ${requests === 1 ? 'was' : 'were'} never posted`
      return {
        text: `${when} with a batch of ${qp.name} open${lost}`,
        ...((called === BatchCall.EXIT || requests === 0) && { severity: 'warning' as const }),
        advice: END_IT,
        ...earlier('started'),
      }
    }
    case BatchMistake.NOT_STARTED:
      return {
        text: `${call} on ${qp.name} outside a batch: ${since.length === 0 ? 'ibv_wr_start was not called before' : 'the last one was completed or aborted'}`,
        ...earlier('started, and ended since'),
        advice: 'call ibv_wr_start first: it locks the send queue and finds its next slot',
      }
    case BatchMistake.OTHER_THREAD:
      return {
        text: `${call} on ${qp.name} in a batch that another thread has started`,
        advice: 'call ibv_wr_start, all functions of the batch and ibv_wr_complete in one thread',
        ...earlier('started'),
      }
    case BatchMistake.NO_REQUEST:
      return {
        text: `${call} on ${qp.name} before the first request of the batch: it sets nothing of the request that follows`,
        advice: SETTERS_AFTER,
        ...earlier('started'),
      }
    case BatchMistake.SET_AGAIN:
      return {
        text: `${call} on ${qp.name} for ${request}, whose ${isAddress(called) ? 'address' : 'data'} was set already`,
        advice: isAddress(called)
          ? SETTERS_AFTER
          : `${SETTERS_AFTER}; a request takes one of them: several elements go into one ibv_wr_set_sge_list`,
        ...earlier('added'),
      }
    case BatchMistake.WRONG_SETTER: {
      const why = isAddress(called)
        ? `a queue pair of type ${called === BatchCall.SET_UD_ADDR ? 'UD' : 'XRC_SEND'} takes it, no other`
        : isInline(called)
          ? 'only SEND and RDMA_WRITE take inline data'
          : 'it has no data'
      return {
        text: `${call} on ${qp.name} for ${request}: ${why}`,
        advice: 'leave it out: it overwrites other fields of the request',
        ...earlier('added'),
      }
    }
    case BatchMistake.NO_DATA:
      return {
        text: `${request} on ${qp.name} has no data: no setter such as ibv_wr_set_sge was called after it`,
        ...(!returnsData(opcode) && {
          severity: 'warning' as const,
          details: ['mlx5 finishes a request in its data setter (rdma-core providers/mlx5/qp.c), also one of 0 bytes'],
        }),
        advice: `${SETTERS_AFTER}; for an empty message ibv_wr_set_sge with length 0`,
        ...earlier('added'),
      }
    case BatchMistake.NO_ADDRESS:
      return {
        text: `${request} on ${qp.name} has no address: ${qp.class === 'xrc_ini_qp' ? 'ibv_wr_set_xrc_srqn' : 'ibv_wr_set_ud_addr'} was not called after it`,
        advice: 'set the address of every request: it is not that of the request before',
        ...earlier('added'),
      }
    case BatchMistake.FIELDS_LATE:
      return {
        text: `wr_id or wr_flags of ${qp.name} was changed after ${request} was added: the request has the values from before`,
        advice: 'set wr_id and wr_flags before the function that adds the request',
        ...earlier('added'),
      }
    case BatchMistake.NO_FUNCTION:
      return called === BatchCall.ADD
        ? {
            text: `${call} on ${qp.name} calls a NULL pointer: send_ops_flags lacked ${flagOf(opcode)} when the queue pair was created`,
            advice: ADD_FLAGS,
          }
        : {
            text: `${call} on ${qp.name} calls a NULL pointer: its provider has no such setter for it`,
            advice: 'use only setters that fit the type of the queue pair',
          }
    case BatchMistake.NOT_REQUESTED:
      return {
        text: `${request} on ${qp.name}, which was created without ${flagOf(opcode)} in send_ops_flags: this provider has the function all the same, others crash`,
        severity: 'warning',
        advice: ADD_FLAGS,
      }
    default:
      return undefined
  }
}

export const createBatchDetector = (services: DetectorServices): Detector => ({
  on: {
    batchMistaken(batch) {
      const qp = queueOf(services.objects, { ...batch, queue: PostQueue.SEND })
      const content = qp && batchText(batch, qp)
      if (content !== undefined) services.report('batch-misused', batch, { ...content, objects: [qp] })
    },
  },
})
