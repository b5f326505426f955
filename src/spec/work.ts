/*
 * Work requests and completions: work request opcodes and their packets (InfiniBand Architecture Specification, volume
 * 1, clause 9.4), completion statuses, opcodes and flags (libibverbs' ibv_wc; IBA 11.4.2.1), send flags, and the local
 * ACK timer (IBA 9.7.6.1.3). Names of packets lack the transport service, the upper bits of the opcode
 * (spec/wire/services.ts).
 */

import { AccessFlags } from './enums.ts'
import { enumeration } from './schema/schema.ts'
import { rnrTimerMicroseconds } from './wire/headers.ts'
import { type OperationName, operationCode } from './wire/opcodes.ts'

/** ibv_wc_status. */
export const WcStatus = enumeration('wc_status', {
  SUCCESS: 0,
  LOC_LEN_ERR: 1,
  LOC_QP_OP_ERR: 2,
  LOC_EEC_OP_ERR: 3,
  LOC_PROT_ERR: 4,
  WR_FLUSH_ERR: 5,
  MW_BIND_ERR: 6,
  BAD_RESP_ERR: 7,
  LOC_ACCESS_ERR: 8,
  REM_INV_REQ_ERR: 9,
  REM_ACCESS_ERR: 10,
  REM_OP_ERR: 11,
  RETRY_EXC_ERR: 12,
  RNR_RETRY_EXC_ERR: 13,
  LOC_RDD_VIOL_ERR: 14,
  REM_INV_RD_REQ_ERR: 15,
  REM_ABORT_ERR: 16,
  INV_EECN_ERR: 17,
  INV_EEC_STATE_ERR: 18,
  FATAL_ERR: 19,
  RESP_TIMEOUT_ERR: 20,
  GENERAL_ERR: 21,
})

/** ibv_wc_opcode. */
export const WcOpcode = enumeration('wc_opcode', {
  SEND: 0,
  RDMA_WRITE: 1,
  RDMA_READ: 2,
  COMP_SWAP: 3,
  FETCH_ADD: 4,
  BIND_MW: 5,
  LOCAL_INV: 6,
  FLUSH: 8,
  ATOMIC_WRITE: 9,
  /** Of drivers. */
  MEMCPY: 10,
  RECV: 128,
  RECV_RDMA_WITH_IMM: 129,
  /** Tag matching. TM_RECV: a message with a matching tag; TM_NO_TAG: a message without one. */
  TM_ADD: 130,
  TM_DEL: 131,
  TM_SYNC: 132,
  TM_RECV: 133,
  TM_NO_TAG: 134,
})

/** ibv_wc_flags. */
export const WcFlags = enumeration('wc_flags', { GRH: 1, WITH_IMM: 2, WITH_INV: 8 })

/** ibv_wr_opcode. */
export const WrOpcode = enumeration('wr_opcode', {
  RDMA_WRITE: 0,
  RDMA_WRITE_WITH_IMM: 1,
  SEND: 2,
  SEND_WITH_IMM: 3,
  RDMA_READ: 4,
  ATOMIC_CMP_AND_SWP: 5,
  ATOMIC_FETCH_AND_ADD: 6,
  LOCAL_INV: 7,
  BIND_MW: 8,
  SEND_WITH_INV: 9,
  /** Of drivers: a request that does nothing. Programs cannot post it to rings of their own. */
  DRIVER1: 11,
  /** Of drivers: copies within the memory of the program (mlx5dv_wr_memcpy). Rings have no such request. */
  MEMCPY: 12,
  FLUSH: 14,
  ATOMIC_WRITE: 15,
})

/** Whether only functions of drivers post such a request, and none of verbs. */
export const isOfDriver = (opcode: number): boolean =>
  opcode === WrOpcode.values.DRIVER1 || opcode === WrOpcode.values.MEMCPY

/** ibv_send_flags. */
export const SendFlags = enumeration('send_flags', { FENCE: 1, SIGNALED: 2, SOLICITED: 4, INLINE: 8 })
/** The bits of ibv_send_flags, with IBV_SEND_IP_CSUM, which the device ignores. */
export const DEFINED_SEND_FLAGS = 0x1f

/** The flags of an XRC request in a ring have the receiver's SRQ number from this bit on. */
export const SRQN_SHIFT = 8

/** The longest message, in bytes (IBA 9.4.3). */
export const MAX_MESSAGE_BYTES = 2 ** 31

/** The longest copy (MEMCPY), in bytes. */
export const MAX_COPY_BYTES = 2 ** 21

/** Bytes of the word of an atomic or ATOMIC WRITE, also the alignment of its remote address (IBA 9.4.5, annex A19). */
export const ATOMIC_BYTES = 8

/** Properties of kinds of requests: bits of a SendKind. */
export const KindFlags = {
  /** The response is not an ACK; the request counts as an outstanding READ or atomic (IBA 9.4.4, annex A19). */
  RESPONSE: 0x10,
  /** The response has an AETH and no data. */
  EMPTY_RESPONSE: 0x20,
  /** Request and response are one packet each. */
  ONE_PACKET: 0x40,
  /** The request has ATOMIC_BYTES of data. As with rxe, the elements for an atomic's result may be longer than that. */
  EIGHT_BYTES: 0x80,
  /** Inline data is not allowed. */
  NOT_INLINE: 0x100,
} as const

const { RESPONSE, EMPTY_RESPONSE, ONE_PACKET, EIGHT_BYTES, NOT_INLINE } = KindFlags

/**
 * Kinds of requests: a number below 16 and KindFlags. LOCAL: LOCAL_INV, BIND_MW, DRIVER1 and MEMCPY, without packets.
 */
export const SendKind = {
  NONE: 0,
  LOCAL: 1,
  SEND: 2,
  WRITE: 3,
  READ: 4 | RESPONSE | NOT_INLINE,
  ATOMIC: 5 | RESPONSE | ONE_PACKET | EIGHT_BYTES | NOT_INLINE,
  FLUSH: 6 | RESPONSE | EMPTY_RESPONSE | ONE_PACKET | NOT_INLINE,
  ATOMIC_WRITE: 7 | RESPONSE | EMPTY_RESPONSE | ONE_PACKET | EIGHT_BYTES,
} as const

interface SendOperation {
  /** A SendKind. */
  readonly kind: number
  /** ibv_wc_opcode. */
  readonly completion: number
  /** The lower five bits of BTH.opcode by the packet's position in the message. */
  readonly first: number
  readonly middle: number
  readonly last: number
  readonly only: number
}

const packets = (first: OperationName, middle: OperationName, last: OperationName, only: OperationName) => ({
  first: operationCode[first],
  middle: operationCode[middle],
  last: operationCode[last],
  only: operationCode[only],
})
const single = (name: OperationName) => packets(name, name, name, name)
const { LOCAL, SEND, WRITE, READ, ATOMIC, FLUSH, ATOMIC_WRITE } = SendKind
const noPackets = { kind: LOCAL, first: 0, middle: 0, last: 0, only: 0 }
const wr = WrOpcode.values
const wc = WcOpcode.values

/**
 * Work requests by ibv_wr_opcode. A transport service has the work requests whose `only` packet it has (`hasOperation`
 * in spec/wire/services.ts); connected services also have the local operations.
 */
export const sendOperations: Readonly<Record<number, SendOperation>> = {
  [wr.SEND]: {
    kind: SEND,
    completion: wc.SEND,
    ...packets('SEND_FIRST', 'SEND_MIDDLE', 'SEND_LAST', 'SEND_ONLY'),
  },
  [wr.SEND_WITH_IMM]: {
    kind: SEND,
    completion: wc.SEND,
    ...packets('SEND_FIRST', 'SEND_MIDDLE', 'SEND_LAST_IMM', 'SEND_ONLY_IMM'),
  },
  [wr.SEND_WITH_INV]: {
    kind: SEND,
    completion: wc.SEND,
    ...packets('SEND_FIRST', 'SEND_MIDDLE', 'SEND_LAST_INV', 'SEND_ONLY_INV'),
  },
  [wr.RDMA_WRITE]: {
    kind: WRITE,
    completion: wc.RDMA_WRITE,
    ...packets('WRITE_FIRST', 'WRITE_MIDDLE', 'WRITE_LAST', 'WRITE_ONLY'),
  },
  [wr.RDMA_WRITE_WITH_IMM]: {
    kind: WRITE,
    completion: wc.RDMA_WRITE,
    ...packets('WRITE_FIRST', 'WRITE_MIDDLE', 'WRITE_LAST_IMM', 'WRITE_ONLY_IMM'),
  },
  [wr.RDMA_READ]: { kind: READ, completion: wc.RDMA_READ, ...single('READ_REQUEST') },
  [wr.ATOMIC_CMP_AND_SWP]: { kind: ATOMIC, completion: wc.COMP_SWAP, ...single('COMPARE_SWAP') },
  [wr.ATOMIC_FETCH_AND_ADD]: { kind: ATOMIC, completion: wc.FETCH_ADD, ...single('FETCH_ADD') },
  [wr.FLUSH]: { kind: FLUSH, completion: wc.FLUSH, ...single('FLUSH') },
  [wr.ATOMIC_WRITE]: { kind: ATOMIC_WRITE, completion: wc.ATOMIC_WRITE, ...single('ATOMIC_WRITE') },
  [wr.LOCAL_INV]: { completion: wc.LOCAL_INV, ...noPackets },
  [wr.BIND_MW]: { completion: wc.BIND_MW, ...noPackets },
  [wr.DRIVER1]: { completion: wc.SEND, ...noPackets },
  [wr.MEMCPY]: { completion: wc.MEMCPY, ...noPackets },
}

/** The work requests for which `has` is true, one bit each: opcodes are below 32. */
const opcodesWith = (has: (operation: SendOperation, opcode: number) => boolean): number =>
  Object.entries(sendOperations).reduce(
    (bits, [opcode, operation]) => (has(operation, Number(opcode)) ? bits | (1 << Number(opcode)) : bits),
    0,
  )
/** Opcodes of programs may be any number; a receive is −1. */
const isAmong = (bits: number, opcode: number): boolean => opcode >>> 0 < 32 && ((bits >>> opcode) & 1) !== 0

const atomics = opcodesWith(({ kind }) => kind === ATOMIC)
/** Whether a work request changes a word of the peer, and returns what it was. */
export const isAtomic = (opcode: number): boolean => isAmong(atomics, opcode)

const remotes = opcodesWith(({ kind }) => kind !== LOCAL && kind !== SEND)
/** Whether a work request names memory of the peer. */
export const isRemote = (opcode: number): boolean => isAmong(remotes, opcode)

const returning = opcodesWith(({ kind }) => kind === READ || kind === ATOMIC)
/** Whether the response has data, which the device writes into the elements of the work request. */
export const returnsData = (opcode: number): boolean => isAmong(returning, opcode)

const counted = opcodesWith(({ kind }) => (kind & RESPONSE) !== 0)
/** Whether a work request counts against max_rd_atomic. */
export const countsAsRead = (opcode: number): boolean => isAmong(counted, opcode)

const immediates = (1 << wr.SEND_WITH_IMM) | (1 << wr.RDMA_WRITE_WITH_IMM)
/** Whether a work request has immediate data. */
export const hasImmediate = (opcode: number): boolean => isAmong(immediates, opcode)

const receiving = opcodesWith(({ kind }, opcode) => kind === SEND || hasImmediate(opcode))
/** Whether a work request takes a receive request of the peer. */
export const takesReceive = (opcode: number): boolean => isAmong(receiving, opcode)

const { REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, FLUSH_GLOBAL, FLUSH_PERSISTENT } = AccessFlags.values
const rightsOfKind: Readonly<Record<number, number>> = {
  [WRITE]: REMOTE_WRITE,
  [READ]: REMOTE_READ,
  [ATOMIC]: REMOTE_ATOMIC,
  [FLUSH]: FLUSH_GLOBAL | FLUSH_PERSISTENT,
  [ATOMIC_WRITE]: REMOTE_WRITE,
}
/** The rights (access_flags) of which a work request needs one at the peer; 0: none. */
export const remoteRights = (opcode: number): number => rightsOfKind[sendOperations[opcode]?.kind ?? LOCAL] ?? 0

/** Microseconds of a local ACK timeout code (0–31); Infinity for 0, no timeout. */
export const ackTimeoutMicroseconds = (code: number): number =>
  code === 0 ? Number.POSITIVE_INFINITY : 4.096 * 2 ** code

/** `ackTimeoutMicroseconds` as a table. */
export const ackTimeouts = Float64Array.from({ length: 32 }, (_, code) => ackTimeoutMicroseconds(code))

/** What all times of retries and of the connection manager are multiplied by in this process. */
export let timerFactor = 1

/** Shortens these times (`--timers`). Called before there are devices. */
export const setTimerFactor = (factor: number): void => {
  timerFactor = factor
  for (let code = 0; code < ackTimeouts.length; code++) ackTimeouts[code] = ackTimeoutMicroseconds(code) * factor
}

/** The requester's minimum RNR wait in microseconds, by RNR timer code (0–31). */
export const rnrMicroseconds = (code: number): number => rnrTimerMicroseconds[code & 31]!
