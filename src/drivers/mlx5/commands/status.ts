/*
 * Answers of firmware commands: status (MLX5_CMD_STAT_…) and syndrome. A status tells the kind of a refusal, and Linux
 * and rdma-core derive an errno from it. An adapter's syndromes differ from firmware to firmware, and are not
 * published; those here are this device's own. docs/reference/mlx5-commands.md lists them.
 */
import type { ErrnoName } from '../../../spec/errno.ts'

export const CommandStatus = {
  OK: 0x0,
  INT_ERR: 0x1,
  BAD_OP_ERR: 0x2,
  BAD_PARAM_ERR: 0x3,
  BAD_SYS_STATE_ERR: 0x4,
  BAD_RES_ERR: 0x5,
  RES_BUSY: 0x6,
  NOT_READY: 0x7,
  LIM_ERR: 0x8,
  BAD_RES_STATE_ERR: 0x9,
  IX_ERR: 0xa,
  NO_RES_ERR: 0xf,
  BAD_QP_STATE_ERR: 0x10,
  BAD_PKT_ERR: 0x30,
  BAD_SIZE_OUTS_CQES_ERR: 0x40,
  BAD_INP_LEN_ERR: 0x50,
  BAD_OUTP_LEN_ERR: 0x51,
} as const
export type StatusName = keyof typeof CommandStatus

/** The errno that Linux (mlx5_cmd_check) and rdma-core make of a status. */
export const statusErrno: Readonly<Record<Exclude<StatusName, 'OK'>, ErrnoName>> = {
  INT_ERR: 'EIO',
  BAD_OP_ERR: 'EINVAL',
  BAD_PARAM_ERR: 'EINVAL',
  BAD_SYS_STATE_ERR: 'EIO',
  BAD_RES_ERR: 'EINVAL',
  RES_BUSY: 'EBUSY',
  NOT_READY: 'EAGAIN',
  LIM_ERR: 'ENOMEM',
  BAD_RES_STATE_ERR: 'EINVAL',
  IX_ERR: 'EINVAL',
  NO_RES_ERR: 'EAGAIN',
  BAD_QP_STATE_ERR: 'EINVAL',
  BAD_PKT_ERR: 'EINVAL',
  BAD_SIZE_OUTS_CQES_ERR: 'EINVAL',
  BAD_INP_LEN_ERR: 'EIO',
  BAD_OUTP_LEN_ERR: 'EIO',
}

export interface Syndrome {
  readonly number: number
  readonly status: Exclude<StatusName, 'OK'>
  /** What is wrong, in general; a refusal adds the values. */
  readonly text: string
}

const syndrome = (number: number, status: Syndrome['status'], text: string): Syndrome => ({ number, status, text })

/** By the name in our code. Numbers are never reused. */
export const Syndromes = {
  unsupportedCommand: syndrome(0x10_0001, 'BAD_OP_ERR', 'the device does not have the command'),
  unsupportedModifier: syndrome(0x10_0002, 'BAD_OP_ERR', 'the device does not have the operation modifier'),
  shortInput: syndrome(0x10_0003, 'BAD_INP_LEN_ERR', 'the input is shorter than the struct of the command'),
  shortOutput: syndrome(0x10_0004, 'BAD_OUTP_LEN_ERR', 'the output is shorter than the struct of the command'),
  unsupportedObject: syndrome(0x10_0005, 'BAD_OP_ERR', 'the device has no general objects of the type'),
  unsupportedFeature: syndrome(
    0x10_0006,
    'BAD_PARAM_ERR',
    'a field asks for a capability that the device does not tell',
  ),
  badValue: syndrome(0x10_0007, 'BAD_PARAM_ERR', 'a field has a value that is not allowed'),
  noSuchPd: syndrome(0x10_0010, 'BAD_RES_ERR', 'the context has no protection domain of the number'),
  noSuchCq: syndrome(0x10_0011, 'BAD_RES_ERR', 'the context has no completion queue of the number'),
  noSuchUar: syndrome(0x10_0012, 'BAD_RES_ERR', 'the context has no doorbell page of the number'),
  noSuchUmem: syndrome(0x10_0013, 'BAD_RES_ERR', 'the context has no user memory (UMEM) of the number'),
  noSuchReceiveQueue: syndrome(0x10_0014, 'BAD_RES_ERR', 'the context has no receive queue of the number'),
  noSuchXrcd: syndrome(0x10_0015, 'BAD_RES_ERR', 'the context has no XRC domain of the number'),
  noSuchEq: syndrome(0x10_0016, 'BAD_RES_ERR', 'the device has no event queue of the number'),
  noSuchKey: syndrome(0x10_0017, 'BAD_RES_ERR', 'the protection domain has no memory key of the value'),
  outsideUmem: syndrome(0x10_0018, 'BAD_PARAM_ERR', 'the range is not in the user memory (UMEM)'),
  noSuchIndex: syndrome(0x10_0019, 'IX_ERR', 'the table has no entry of the index'),
  noSuchTransportDomain: syndrome(0x10_001b, 'BAD_RES_ERR', 'the context has no transport domain of the number'),
  limit: syndrome(0x10_0020, 'LIM_ERR', 'the caller has used up its share of a limit'),
  inUse: syndrome(0x10_0021, 'BAD_RES_STATE_ERR', 'the object is in use'),
  badState: syndrome(0x10_0022, 'BAD_QP_STATE_ERR', 'the queue pair is not in a state that permits the transition'),
  refused: syndrome(0x10_0023, 'BAD_PARAM_ERR', 'the device refuses the arguments'),
  failed: syndrome(0x10_0024, 'INT_ERR', 'the device could not execute the command'),
} as const satisfies Readonly<Record<string, Syndrome>>
export type SyndromeName = keyof typeof Syndromes
