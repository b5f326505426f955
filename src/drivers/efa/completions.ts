/*
 * Completions in memory that a program polls, and events of completion queues (spec/drivers/efa-queues.ts).
 *
 * A program arms a CQ by a store to its doorbell, and each poll stores the consumer index there too. The second store
 * may hide the first from a device that reads the word now and then. So a CQ with a channel counts as armed after any
 * store, until its event is raised: at worst a program reads one event too many
 * (docs/decisions/efa.md).
 */
import { arm, completed, raiseObjectEvent } from '../../core/events/events.ts'
import { reportFailure } from '../../core/failures.ts'
import { createCause } from '../../spec/check/causes.ts'
import { CompletionEntry, CompletionFlag, CqDoorbell, EfaStatus } from '../../spec/drivers/efa-queues.ts'
import { AsyncEventType } from '../../spec/enums.ts'
import { WcOpcode, WcStatus } from '../../spec/work.ts'
import type { EfaState } from './device-state.ts'
import { loadDoorbell } from './doorbells.ts'
import type { CqObject, QueuePair } from './state.ts'

const { INDEX_MASK, EVENTS_SHIFT, EVENTS_MASK } = CqDoorbell
const { PHASE } = CompletionFlag
const { CQ_ERR } = AsyncEventType.values

/** ibv_wc_status by `EfaStatus`, as libefa translates it (to_ibv_status). */
const wcStatuses: Readonly<Record<number, number>> = {
  [EfaStatus.OK]: WcStatus.values.SUCCESS,
  [EfaStatus.FLUSHED]: WcStatus.values.WR_FLUSH_ERR,
  [EfaStatus.INTERNAL_ERROR]: WcStatus.values.LOC_QP_OP_ERR,
  [EfaStatus.UNSUPPORTED_OPERATION]: WcStatus.values.LOC_QP_OP_ERR,
  [EfaStatus.INVALID_AH]: WcStatus.values.LOC_QP_OP_ERR,
  [EfaStatus.INVALID_LKEY]: WcStatus.values.LOC_PROT_ERR,
  [EfaStatus.LOCAL_LENGTH]: WcStatus.values.LOC_LEN_ERR,
  [EfaStatus.ABORT]: WcStatus.values.REM_ABORT_ERR,
  [EfaStatus.NOT_READY]: WcStatus.values.RNR_RETRY_EXC_ERR,
  [EfaStatus.BAD_DESTINATION]: WcStatus.values.REM_INV_RD_REQ_ERR,
  [EfaStatus.BAD_STATUS]: WcStatus.values.BAD_RESP_ERR,
  [EfaStatus.REMOTE_LENGTH]: WcStatus.values.REM_INV_REQ_ERR,
  [EfaStatus.UNRESPONSIVE]: WcStatus.values.RESP_TIMEOUT_ERR,
  [EfaStatus.UNREACHABLE]: WcStatus.values.RESP_TIMEOUT_ERR,
  [EfaStatus.BAD_ADDRESS]: WcStatus.values.REM_ACCESS_ERR,
  [EfaStatus.UNKNOWN_PEER]: WcStatus.values.REM_OP_ERR,
}
export const wcStatusOf = (status: number): number => wcStatuses[status] ?? WcStatus.values.GENERAL_ERR

/** A status that libefa translates to an ibv_wc_status; INTERNAL_ERROR if there is none. */
export const efaStatusOf = (wcStatus: number): number =>
  Number(Object.entries(wcStatuses).find(([, known]) => known === wcStatus)?.[0] ?? EfaStatus.INTERNAL_ERROR)

/** Opcodes that libefa reports: it reports READs as SEND. */
export const { SEND: WC_SEND, RDMA_WRITE: WC_WRITE, RECV: WC_RECV, RECV_RDMA_WITH_IMM: WC_WRITE_IMM } = WcOpcode.values

/** Whether a fault rule has silenced the device, or half of its queue pairs, the first one among them. */
export const isSilent = ({ device }: Pick<EfaState, 'device'>, { qpn }: Pick<QueuePair, 'qpn'>): boolean => {
  const { silenced } = device().taps
  return silenced !== undefined && (!silenced.isHalf || qpn % 2 === 1)
}

/** Completions that the program has not polled. */
const outstanding = ({ state }: CqObject): number =>
  (state.produced - (loadDoorbell(state.doorbell) & INDEX_MASK)) & INDEX_MASK

/** Number of completions that the program has polled. */
export const polledOf = (cq: CqObject): number => cq.state.produced - outstanding(cq)

const reportOverrun = (cq: CqObject): void => {
  const device = cq.context?.device
  const cause = createCause('CQ_FULL', { cq: cq.handle, entries: cq.state.entries })
  if (device !== undefined)
    reportFailure({ kind: 'event', device: device.name, event: CQ_ERR, cause }, device, cq.context)
  raiseObjectEvent(cq, CQ_ERR)
}

/** Offset of the next entry, whose bytes are 0; -1 if the CQ is full. Then the completion is lost. */
export const beginEntry = (cq: CqObject): number => {
  const { state } = cq
  if (outstanding(cq) >= state.entries) {
    if (!state.hasOverrun) reportOverrun(cq)
    state.hasOverrun = true
    return -1
  }
  const at = state.ring.at + (state.produced & (state.entries - 1)) * state.entryBytes
  for (let i = 4; i < state.entryBytes; i += 4) state.ring.view.setUint32(at + i, 0)
  return at
}

/** Publishes the entry at `at`, whose other fields are written. `flags`: without the phase. */
export const endEntry = (cq: CqObject, at: number, id: number, status: number, flags: number): void => {
  const { state } = cq
  const phase = (state.produced & state.entries) === 0 ? PHASE : 0
  state.produced++
  if (status !== EfaStatus.OK) state.lastError = state.produced
  const word = id | (status << 16) | ((flags | phase) << 24)
  // the last store: the program takes the entry as soon as its phase changes
  Atomics.store(state.ring.words, (at + CompletionEntry.REQUEST_ID) >> 2, word)
  // the program may have armed it since the last poll
  if (state.hasChannel) readCqDoorbell(cq)
  if (state.isArmed) notify(cq)
}

/** Sends the event of an armed CQ. */
export const raiseEvent = (cq: CqObject): void => {
  const { state, events } = cq
  state.isArmed = false
  if (events === undefined) return
  state.raised++
  completed(events, false)
}

/** The CQ is armed and has a completion. */
const notify = (cq: CqObject): void => (cq.state.lateEvent ?? raiseEvent)(cq)

/** Reads the doorbell of a CQ with a channel; true if the program has stored to it. */
export const readCqDoorbell = (cq: CqObject): boolean => {
  const { state } = cq
  const value = loadDoorbell(state.doorbell)
  if (value === state.seenDoorbell) return false
  const isNewAnswer = (value ^ state.seenDoorbell) >>> EVENTS_SHIFT !== 0
  state.seenDoorbell = value
  const isAnswered = ((value >>> EVENTS_SHIFT) & EVENTS_MASK) === (state.raised & EVENTS_MASK)
  if (!isAnswered) return true
  state.isArmed = true
  if (cq.events !== undefined) arm(cq, false)
  // completions that are older than the arming raise the event too. A poll may have hidden an arming that came with the
  // answer to an event
  if (isNewAnswer && outstanding(cq) > 0) notify(cq)
  return true
}
