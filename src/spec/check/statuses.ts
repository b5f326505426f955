/*
 * The meaning of each completion status, and the findings of `userdma check` that lead to the status, likeliest first. What
 * providers say by a status in another sense than InfiniBand is from reading rdma-core 65.0: `to_ibv_status` and the like.
 */

import type { AsyncEventType } from '../enums.ts'
import type { WcStatus } from '../work.ts'
import { type CauseName, causes } from './causes.ts'
import { type FindingId, findingIds, findings } from './findings.ts'

export type StatusName = keyof typeof WcStatus.values
export type EventName = keyof typeof AsyncEventType.values

interface StatusRow {
  /** In full sentences. */
  readonly meaning: string
  /** The likeliest finding, or the quickest to check, comes first. */
  readonly likelyFindings: readonly FindingId[]
}

const RELIABLE_DATAGRAMS = 'Only for the reliable datagram service (RD), which no adapter has.'

export const statuses: Readonly<Record<StatusName, StatusRow>> = {
  SUCCESS: {
    meaning: 'The request has completed. If its bytes are wrong, something else used the memory meanwhile.',
    likelyFindings: [
      'race',
      'read-then-write-unfenced',
      'buffer-reused',
      'atomic-mixed-with-write',
      'send-buffer-changed',
      'buffer-freed',
      'frame-returned',
      'fork-outstanding',
      'fork-unsafe',
      'receive-overlap',
    ],
  },
  LOC_LEN_ERR: {
    meaning: 'The length does not fit: a receive is shorter than its message, or a send is longer than allowed.',
    likelyFindings: ['receive-too-short', 'request-length', 'bad-request'],
  },
  LOC_QP_OP_ERR: {
    meaning: 'The queue pair cannot execute the request as it was posted.',
    likelyFindings: ['bad-request', 'no-rd-atomic', 'bind-refused'],
  },
  LOC_EEC_OP_ERR: { meaning: RELIABLE_DATAGRAMS, likelyFindings: [] },
  LOC_PROT_ERR: {
    meaning:
      'The local memory of the request does not allow the access: look at addr, length and lkey of its scatter/gather elements.',
    likelyFindings: [
      'unknown-lkey',
      'stale-lkey',
      'local-out-of-bounds',
      'key-not-configured',
      'lkey-no-right',
      'lkey-other-pd',
      'local-unmapped',
      'region-in-use',
      'region-unmapped',
      'slow-memory',
      'program-ended',
    ],
  },
  WR_FLUSH_ERR: {
    meaning:
      'The queue pair moved to ERR or SQE before the request completed; the peer may have executed a send nevertheless. Look for the first completion with another status, of this queue pair and then of its peer: that failure moved the queue pair. If there is no such completion, the program moved the queue pair to ERR, its connection ended, or the device was removed.',
    likelyFindings: ['failure-ignored', 'cq-overrun', 'sends-lost'],
  },
  MW_BIND_ERR: { meaning: 'A memory window could not be bound or invalidated.', likelyFindings: ['bind-refused'] },
  BAD_RESP_ERR: {
    meaning: "The peer's response does not match the request.",
    likelyFindings: ['path-mtu-mismatch', 'peer-refused'],
  },
  LOC_ACCESS_ERR: {
    meaning:
      "A peer's WRITE with immediate has taken this receive, and the memory at remote_addr does not allow the WRITE; the peer has REM_ACCESS_ERR or REM_OP_ERR. cxgb4 and erdma also report the local memory of a send by it, as others do by LOC_PROT_ERR.",
    likelyFindings: [
      'remote-out-of-bounds',
      'rkey-no-right',
      'stale-rkey',
      'unknown-rkey',
      'rkey-other-pd',
      'window-not-bound',
      'remote-unmapped',
      'peer-ended',
      'slow-memory',
    ],
  },
  REM_INV_REQ_ERR: {
    meaning:
      "The peer refuses the request as invalid: the request does not fit the peer's queue pair or receive. A receive has this status if it took a SEND with invalidate whose rkey is not of a type 2 window bound to the queue pair.",
    likelyFindings: [
      'receive-too-short',
      'qp-no-right',
      'rd-atomic-exceeds',
      'path-mtu-mismatch',
      'atomic-misaligned',
      'bind-refused',
      'invalid-request',
      'psn-mismatch',
      'peer-refused',
    ],
  },
  REM_ACCESS_ERR: {
    meaning:
      "The peer's memory does not allow the access: look at remote_addr, length and rkey of the request. erdma also reports the local memory of a receive by it.",
    likelyFindings: [
      'unknown-rkey',
      'remote-out-of-bounds',
      'key-not-configured',
      'rkey-no-right',
      'stale-rkey',
      'rkey-other-pd',
      'window-not-bound',
      'peer-refused',
    ],
  },
  REM_OP_ERR: {
    meaning:
      "The peer could not execute the request, because the peer's receive or memory failed. The peer's completion has the details.",
    likelyFindings: [
      'unknown-lkey',
      'stale-lkey',
      'local-out-of-bounds',
      'lkey-no-right',
      'lkey-other-pd',
      'local-unmapped',
      'remote-unmapped',
      'region-unmapped',
      'peer-ended',
      'slow-memory',
      'peer-refused',
      'program-ended',
    ],
  },
  RETRY_EXC_ERR: {
    meaning:
      'The request was sent retry_cnt + 1 times without an answer: the peer does not exist, or drops the packets.',
    likelyFindings: [
      'peer-not-ready',
      'no-peer-qp',
      'peer-in-error',
      'peer-connected-elsewhere',
      'psn-mismatch',
      'path-mtu-mismatch',
      'service-mismatch',
      'wrong-lid',
      'port-not-active',
      'key-mismatch',
      'no-answer',
    ],
  },
  RNR_RETRY_EXC_ERR: {
    meaning: 'The peer answered RNR NAK rnr_retry + 1 times: no receive was posted.',
    likelyFindings: ['no-receive-posted', 'late-receives', 'receives-short'],
  },
  LOC_RDD_VIOL_ERR: { meaning: RELIABLE_DATAGRAMS, likelyFindings: [] },
  REM_INV_RD_REQ_ERR: {
    meaning:
      "EFA: the destination has no queue pair that takes the request: the number or Q_Key is wrong, or the peer's queue pair was destroyed, is in ERR, or is not yet ready to receive. hns: a violation of XRC. qedr: a receive took an invalid request. InfiniBand has the status for its reliable datagram service (RD), which no adapter has.",
    likelyFindings: ['key-mismatch', 'peer-refused'],
  },
  REM_ABORT_ERR: {
    meaning: 'The peer has aborted the operation. EFA: the remote side has reset the connection.',
    likelyFindings: [],
  },
  INV_EECN_ERR: { meaning: RELIABLE_DATAGRAMS, likelyFindings: [] },
  INV_EEC_STATE_ERR: { meaning: RELIABLE_DATAGRAMS, likelyFindings: [] },
  FATAL_ERR: {
    meaning:
      'The adapter itself has failed; or, with bnxt_re, cxgb4, irdma and mana, the queue pair has an error for which the provider has no other status.',
    likelyFindings: [],
  },
  RESP_TIMEOUT_ERR: {
    meaning:
      'A response did not come in time. EFA: the destination has stopped answering (vendor_err 13), or has never answered (15).',
    likelyFindings: ['no-answer'],
  },
  GENERAL_ERR: {
    meaning: "Another error: the adapter's vendor_err says which.",
    likelyFindings: [],
  },
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

/**
 * The findings that can lead to a completion status or event: first `likelyFindings`, then the findings that list the
 * status, or a cause that leads to the status or event.
 */
export const findingsOf = (name: StatusName | EventName): FindingId[] => {
  const leadsToName = (cause: CauseName): boolean => causes[cause].results.some(result => result === name)
  const all = findingIds.filter(id => {
    const { causes: causesOfFinding = [], statuses: statusesOfFinding = [] } = findings[id]
    return causesOfFinding.some(leadsToName) || statusesOfFinding.some(status => status === name)
  })
  const likely = Object.hasOwn(statuses, name) ? statuses[name as StatusName].likelyFindings : []
  return [...likely, ...all.filter(id => !likely.includes(id))]
}
