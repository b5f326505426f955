/*
 * The meaning of each completion status, and the findings of `userdma check` that lead to the status, likeliest first.
 * What providers say by a status in another sense than InfiniBand is from reading rdma-core 65.0: `to_ibv_status` and
 * the like.
 */

import type { AsyncEventType } from '../enums.ts'
import type { WcStatus } from '../work.ts'
import { type CauseName, causes } from './causes.ts'
import { type FindingId, findingIds, findings } from './findings.ts'

export type StatusName = keyof typeof WcStatus.values
export type EventName = keyof typeof AsyncEventType.values

const RELIABLE_DATAGRAMS = 'Only for the reliable datagram service (RD), which no adapter has.'

/** In full sentences. */
export const statuses: Readonly<Record<StatusName, string>> = {
  SUCCESS: 'The request has completed. If its bytes are wrong, something else used the memory meanwhile.',
  LOC_LEN_ERR: 'The length does not fit: a receive is shorter than its message, or a send is longer than allowed.',
  LOC_QP_OP_ERR: 'The queue pair cannot execute the request as it was posted.',
  LOC_EEC_OP_ERR: RELIABLE_DATAGRAMS,
  LOC_PROT_ERR:
    'The local memory of the request does not allow the access: look at addr, length and lkey of its scatter/gather elements.',
  WR_FLUSH_ERR:
    'The queue pair moved to ERR or SQE before the request completed; the peer may have executed a send nevertheless. Look for the first completion with another status, of this queue pair and then of its peer: that failure moved the queue pair. If there is no such completion, the program moved the queue pair to ERR, its connection ended, or the device was removed.',
  MW_BIND_ERR: 'A memory window could not be bound or invalidated.',
  BAD_RESP_ERR: "The peer's response does not match the request.",
  LOC_ACCESS_ERR:
    "A peer's WRITE with immediate has taken this receive, and the memory at remote_addr does not allow the WRITE; the peer has REM_ACCESS_ERR or REM_OP_ERR. cxgb4 and erdma also report the local memory of a send by it, as others do by LOC_PROT_ERR.",
  REM_INV_REQ_ERR:
    "The peer refuses the request as invalid: the request does not fit the peer's queue pair or receive. A receive has this status if it took a SEND with invalidate whose rkey is not of a type 2 window bound to the queue pair.",
  REM_ACCESS_ERR:
    "The peer's memory does not allow the access: look at remote_addr, length and rkey of the request. erdma also reports the local memory of a receive by it.",
  REM_OP_ERR:
    "The peer could not execute the request, because the peer's receive or memory failed. The peer's completion has the details.",
  RETRY_EXC_ERR:
    'The request was sent retry_cnt + 1 times without an answer: the peer does not exist, or drops the packets.',
  RNR_RETRY_EXC_ERR: 'The peer answered RNR NAK rnr_retry + 1 times: no receive was posted.',
  LOC_RDD_VIOL_ERR: RELIABLE_DATAGRAMS,
  REM_INV_RD_REQ_ERR:
    "EFA: the destination has no queue pair that takes the request: the number or Q_Key is wrong, or the peer's queue pair was destroyed, is in ERR, or is not yet ready to receive. hns: a violation of XRC. qedr: a receive took an invalid request. InfiniBand has the status for its reliable datagram service (RD), which no adapter has.",
  REM_ABORT_ERR: 'The peer has aborted the operation. EFA: the remote side has reset the connection.',
  INV_EECN_ERR: RELIABLE_DATAGRAMS,
  INV_EEC_STATE_ERR: RELIABLE_DATAGRAMS,
  FATAL_ERR:
    'The adapter itself has failed; or, with bnxt_re, cxgb4, irdma and mana, the queue pair has an error for which the provider has no other status.',
  RESP_TIMEOUT_ERR:
    'A response did not come in time. EFA: the destination has stopped answering (vendor_err 13), or has never answered (15).',
  GENERAL_ERR: "Another error: the adapter's vendor_err says which.",
}

/** What ibv_wc_status_str and ibv_event_type_str of libibverbs return, which most programs print. */
export const libibverbsTexts: Readonly<Partial<Record<StatusName | EventName, string>>> = {
  SUCCESS: 'success',
  LOC_LEN_ERR: 'local length error',
  LOC_QP_OP_ERR: 'local QP operation error',
  LOC_EEC_OP_ERR: 'local EE context operation error',
  LOC_PROT_ERR: 'local protection error',
  WR_FLUSH_ERR: 'Work Request Flushed Error',
  MW_BIND_ERR: 'memory management operation error',
  BAD_RESP_ERR: 'bad response error',
  LOC_ACCESS_ERR: 'local access error',
  REM_INV_REQ_ERR: 'remote invalid request error',
  REM_ACCESS_ERR: 'remote access error',
  REM_OP_ERR: 'remote operation error',
  RETRY_EXC_ERR: 'transport retry counter exceeded',
  RNR_RETRY_EXC_ERR: 'RNR retry counter exceeded',
  LOC_RDD_VIOL_ERR: 'local RDD violation error',
  REM_INV_RD_REQ_ERR: 'remote invalid RD request',
  REM_ABORT_ERR: 'aborted error',
  INV_EECN_ERR: 'invalid EE context number',
  INV_EEC_STATE_ERR: 'invalid EE context state',
  FATAL_ERR: 'fatal error',
  RESP_TIMEOUT_ERR: 'response timeout error',
  GENERAL_ERR: 'general error',
  CQ_ERR: 'CQ error',
  QP_FATAL: 'local work queue catastrophic error',
  QP_REQ_ERR: 'invalid request local work queue error',
  QP_ACCESS_ERR: 'local access violation work queue error',
  COMM_EST: 'communication established',
  SQ_DRAINED: 'send queue drained',
  PATH_MIG: 'path migrated',
  PATH_MIG_ERR: 'path migration request error',
  DEVICE_FATAL: 'local catastrophic error',
  PORT_ACTIVE: 'port active',
  PORT_ERR: 'port error',
  LID_CHANGE: 'LID change',
  PKEY_CHANGE: 'P_Key change',
  SM_CHANGE: 'SM change',
  SRQ_ERR: 'SRQ catastrophic error',
  SRQ_LIMIT_REACHED: 'SRQ limit reached',
  QP_LAST_WQE_REACHED: 'last WQE reached',
  CLIENT_REREGISTER: 'client reregistration',
  GID_CHANGE: 'GID table change',
  WQ_FATAL: 'WQ fatal',
  DEVICE_SPEED_CHANGE: 'device link speed change',
}

/** The findings that can lead to a completion status, likeliest first; those whose causes lead to an event. */
export const findingsOf = (name: StatusName | EventName): FindingId[] => {
  const leadsToName = (cause: CauseName): boolean => causes[cause].results.some(result => result === name)
  const placeOf = (id: FindingId): number => findings[id].statuses?.[name as StatusName] ?? Number.MAX_VALUE
  return findingIds
    .filter(id => findings[id].causes?.some(leadsToName) || Object.hasOwn(findings[id].statuses ?? {}, name))
    .sort((a, b) => placeOf(a) - placeOf(b))
}
