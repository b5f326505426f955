/*
 * Packet scripts (script.ts). Each makes the engine report one cause of spec/check/causes.ts.
 */
import { type CauseName, causes } from '../../../src/spec/check/causes.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { WcStatus } from '../../../src/spec/work.ts'
import { Access } from '../../../src/transport/engine/types.ts'
import { MEMORY_BASE } from './node.ts'
import { FAA, NAK, READ, SEND, sge, wr } from './requests.ts'
import type { startScript } from './script.ts'

type Script = ReturnType<typeof startScript>

const { LOC_LEN_ERR, LOC_QP_OP_ERR } = WcStatus.values
/** The value of a WQE's field `refused` for a cause. */
const refusedFor = (status: number, cause: 'INLINE_TOO_LONG' | 'NO_ADDRESS_HANDLE'): number =>
  status | (causes[cause].code << 8)

/** The address of an offset in client memory. */
const addressText = (offset: number): string => `0x${(MEMORY_BASE + BigInt(offset)).toString(16)}`
/** A request of 3 GiB. */
const tooLong = { sges: [1, 2, 3].map(() => ({ at: 0, length: 0x4000_0000 })) }

/** Requests that fail at the requester. */
export const requester: readonly [id: CauseName, text: string, play: (t: Script) => void][] = [
  // 99 is not an ibv_wr_opcode, so the text has its number, not a name.
  ['BAD_OPCODE', 'this type of queue pair has no 99', t => t.post({ id: 1, opcode: 99 })],
  [
    'TOO_MANY_SGE',
    'the request has more scatter/gather elements than max_send_sge, 4',
    t => t.post({ id: 1, opcode: SEND, sges: Array.from({ length: 5 }, () => ({ at: 0, length: 1 })) }),
  ],
  ['NOT_INLINE', 'READ does not support inline data', t => t.post({ id: 1, opcode: READ, inline: new Uint8Array(4) })],
  [
    'BAD_FLUSH',
    'placement 0 with selectivity 0 is not a valid FLUSH',
    t => t.post({ id: 1, opcode: wr.FLUSH, compare: 1n, swap: 0n }),
  ],
  ['MESSAGE_TOO_LONG', 'the message is longer than 2147483648 bytes', t => t.post({ id: 1, opcode: SEND, ...tooLong })],
  ['ATOMIC_LENGTH', 'the request has 4 bytes; an atomic needs 8', t => t.post({ id: 1, opcode: FAA, ...sge(0, 4) })],
  [
    'REFUSED',
    'the queue pair does not accept the request',
    t => t.post({ id: 1, opcode: SEND, refused: LOC_QP_OP_ERR }),
  ],
  [
    'INLINE_TOO_LONG',
    'the inline data is longer than max_inline_data of the queue pair',
    t => t.post({ id: 1, opcode: SEND, refused: refusedFor(LOC_LEN_ERR, 'INLINE_TOO_LONG') }),
  ],
  [
    'NO_ADDRESS_HANDLE',
    'the protection domain has no such address handle',
    t => t.post({ id: 1, opcode: SEND, refused: refusedFor(LOC_QP_OP_ERR, 'NO_ADDRESS_HANDLE') }),
  ],
  [
    'LKEY_REFUSED',
    `lkey 0x7 does not allow [${addressText(16)}, ${addressText(26)})`,
    t => t.post({ id: 1, opcode: SEND, sges: [{ at: 16, length: 10, key: 7 }] }),
  ],
  [
    'LOCAL_FAULT',
    `lkey 0x1111: memory [${addressText(16)}, ${addressText(26)}) is unmapped or protected`,
    t => {
      t.node.faults.read = Errno.EFAULT
      t.post({ id: 1, opcode: SEND, ...sge(16, 10) })
    },
  ],
  [
    'LOCAL_ENDED',
    'the program that owns the memory has ended',
    t => {
      t.node.faults.read = Errno.ESRCH
      t.post({ id: 1, opcode: SEND, ...sge(16, 10) })
    },
  ],
  [
    'LOCAL_SLOW',
    `lkey 0x1111: memory [${addressText(16)}, ${addressText(26)}) took too long to access; the daemon has disconnected the program`,
    t => {
      t.node.faults.read = Errno.ETIMEDOUT
      t.post({ id: 1, opcode: SEND, ...sge(16, 10) })
    },
  ],
  [
    'BIND_REFUSED',
    'window 0x0 cannot be bound with these arguments',
    t => t.post({ id: 1, opcode: wr.BIND_MW, rkey: 0 }),
  ],
  [
    'LOCAL_INVALIDATE',
    'rkey 0x7 is not a type 2 window bound to the queue pair',
    t => t.post({ id: 1, opcode: wr.LOCAL_INV, imm: 7 }),
  ],
  ...(
    [
      ['NAK_INVALID_REQUEST', 'the peer answered: invalid request', NAK.INVALID],
      ['NAK_REMOTE_ACCESS', 'the peer answered: remote access error', NAK.ACCESS],
      ['NAK_REMOTE_OPERATION', 'the peer answered: remote operational error', NAK.OPERATION],
      ['NAK_INVALID_RD', 'the peer answered: invalid RD request', NAK.INVALID_RD],
    ] as const
  ).map(([cause, text, syndrome]): (typeof requester)[number] => [
    cause,
    text,
    t => {
      t.post({ id: 1, opcode: SEND, ...sge(0, 1) })
      t.sent()
      t.response('ACKNOWLEDGE', 0, { syndrome })
    },
  ]),
  [
    'BAD_RESPONSE',
    'the response does not match READ or its length',
    t => {
      t.post({ id: 1, opcode: READ, ...sge(0, 8) })
      t.sent()
      t.response('READ_RESP_ONLY', 0, { payload: 4 })
    },
  ],
]

/** A key that no region has. */
export const UNKNOWN_KEY = 7
/** The text of RKEY_REFUSED for a range of client memory. */
export const refusedRkeyText = (key: number, offset: number, length: number): string =>
  `rkey 0x${key.toString(16)} does not allow [${addressText(offset)}, ${addressText(offset + length)})`

/** Requests that the responder refuses. The queue pair has one receive WQE of 8 bytes. */
export const responder: readonly [id: CauseName, text: string, play: (t: Script) => void, access?: number][] = [
  [
    'OUT_OF_PLACE',
    'a packet with BTH opcode 0x1 does not continue the message',
    t => t.request('SEND_MIDDLE', 0, { payload: 1024 }),
  ],
  [
    'PACKET_LENGTH',
    'a packet with 2000 bytes does not fit path MTU 1024; both ends must have the same',
    t => t.request('SEND_ONLY', 0, { payload: 2000 }),
  ],
  [
    'QP_NO_RIGHT',
    'the queue pair has no REMOTE_WRITE in its access flags',
    t => t.request('WRITE_ONLY', 0, { payload: 8 }),
    0,
  ],
  [
    'QP_NO_RIGHT',
    'the queue pair has no REMOTE_READ in its access flags',
    t => t.request('READ_REQUEST', 0),
    Access.REMOTE_WRITE,
  ],
  [
    'QP_NO_RIGHT',
    'the queue pair has no REMOTE_ATOMIC in its access flags',
    t => t.request('FETCH_ADD', 0),
    Access.REMOTE_WRITE,
  ],
  [
    'QP_NO_RIGHT',
    'the queue pair has no FLUSH_GLOBAL in its access flags',
    t => t.request('FLUSH', 0, { dmaLen: 8 }),
    Access.REMOTE_WRITE,
  ],
  [
    'REMOTE_TOO_LONG',
    'a message of 4294967295 bytes is longer than 2147483648',
    t => t.request('READ_REQUEST', 0, { dmaLen: 0xffff_ffff }),
  ],
  [
    'DMA_LENGTH',
    'a packet does not match the 9 bytes of the request that remain',
    t => t.request('WRITE_ONLY', 0, { payload: 8, dmaLen: 9 }),
  ],
  [
    'RECEIVE_TOO_SHORT',
    'the receive buffer of 8 bytes is too short for a message of 100 bytes or more',
    t => t.request('SEND_ONLY', 0, { payload: 100 }),
  ],
  [
    'TOO_MANY_READS',
    'more READs and atomics are outstanding than max_dest_rd_atomic, 4',
    t => {
      for (let psn = 0; psn < 5; psn++) t.request('READ_REQUEST', psn, { dmaLen: 8 })
    },
  ],
  [
    'ATOMIC_ADDRESS',
    `address ${addressText(4)} of an atomic is not a multiple of 8`,
    t => t.request('COMPARE_SWAP', 0, { remote: 4 }),
  ],
  [
    'FLUSH_KIND',
    'a FLUSH with placement 4 and selectivity 0 is not supported',
    t => t.request('FLUSH', 0, { dmaLen: 8, plt: 4 }),
  ],
  ['ATOMIC_WRITE_LENGTH', 'an ATOMIC WRITE has 8 bytes, not 4', t => t.request('ATOMIC_WRITE', 0, { payload: 4 })],
  [
    'NOT_INVALIDATED',
    'rkey 0x7 of a SEND with invalidate is not a type 2 window bound to the queue pair',
    t => t.request('SEND_ONLY_INV', 0, { payload: 4, imm: UNKNOWN_KEY }),
  ],
  [
    'RKEY_REFUSED',
    refusedRkeyText(UNKNOWN_KEY, 64, 8),
    t => t.request('WRITE_ONLY', 0, { payload: 8, remote: 64, rkey: UNKNOWN_KEY }),
  ],
  [
    'RKEY_REFUSED',
    refusedRkeyText(UNKNOWN_KEY, 64, 8),
    t => t.request('READ_REQUEST', 0, { dmaLen: 8, remote: 64, rkey: UNKNOWN_KEY }),
  ],
  [
    'REMOTE_FAULT',
    `rkey 0x80002222: memory [${addressText(64)}, ${addressText(72)}) is unmapped or protected`,
    t => {
      t.node.faults.write = Errno.EFAULT
      t.request('WRITE_ONLY', 0, { payload: 8, remote: 64 })
    },
  ],
  [
    'REMOTE_ENDED',
    'the program that owns the memory has ended',
    t => {
      t.node.faults.write = Errno.ESRCH
      t.request('WRITE_ONLY', 0, { payload: 8, remote: 64 })
    },
  ],
  [
    'REMOTE_SLOW',
    `rkey 0x80002222: memory [${addressText(64)}, ${addressText(72)}) took too long to access; the daemon has disconnected the program`,
    t => {
      t.node.faults.write = Errno.ETIMEDOUT
      t.request('WRITE_ONLY', 0, { payload: 8, remote: 64 })
    },
  ],
]
