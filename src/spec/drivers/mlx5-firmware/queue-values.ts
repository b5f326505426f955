/*
 * Values of fields in firmware commands for queues (mlx5_ifc.h, qp.h of Linux), and the extension of RTS2RTS_QP.
 */
import { QpState } from '../../enums.ts'
import { bits, long, nested, struct } from './fields.ts'
import { qpc } from './queues.ts'

/** Of `st`. */
export const QpTypes = { RC: 0, UC: 1, UD: 2, DCI: 5 } as const
/** Of `rq_type`: a queue of its own, an SRQ or RMP, an XRQ, none. */
export const ReceiveType = { OWN: 0, SHARED: 1, XRQ: 2, NONE: 3 } as const
/** Of `wq_type`, without strides. */
export const ReceiveTopology = { LIST: 0, RING: 1 } as const
/** Of `rmp_state`, and of `state` of an RMP. */
export const RMP_READY = 1

const { values: Ib } = QpState
/** Of `state` of a queue pair, by ibv_qp_state. */
export const firmwareStates: Readonly<Record<number, number>> = {
  [Ib.RESET]: 0,
  [Ib.INIT]: 1,
  [Ib.RTR]: 2,
  [Ib.RTS]: 3,
  [Ib.SQE]: 4,
  [Ib.SQD]: 5,
  [Ib.ERR]: 6,
}
/** By `stat_rate` of a path: the rate of ib_verbs.h (ib_rate), as Linux's driver translates rates. */
export const StaticRates: readonly number[] = [0, 12, 15, 16, 17, 20, 21, 2, 3, 4, 5, 6, 7, 8, 9, 10]
/** Of `pm_state`: there is no path migration. */
export const PATH_MIGRATED = 3

/** Bits of `opt_param_mask` (MLX5_QP_OPTPAR_…). */
export const QpOption = {
  RRE: 1 << 1,
  RAE: 1 << 2,
  RWE: 1 << 3,
  Q_KEY: 1 << 5,
  RNR_TIMEOUT: 1 << 6,
  /** Of INIT2INIT. */
  DRAIN_SIGERR: 1 << 11,
  PRIMARY_PORT: 1 << 16,
} as const
/** Bits of `opt_param_mask_95_32`; STREAM: `dci_stream_channel_id`, with `qpc_ext`. */
export const ExtendedOption = { STREAM: 1n, UDP_SPORT: 4n } as const

const qpcExt = struct(192, { mmo: bits(0x2, 1), dci_stream_channel_id: bits(0x10, 16) })

/** RTS2RTS_QP; its extension is there if `qpc_ext` is 1. */
export const rts2rtsQpIn = struct(464, {
  qpc_ext: bits(0x40, 1),
  qpn: bits(0x48, 24),
  opt_param_mask: bits(0x80, 32),
  qpc: nested(0xc0, qpc),
  opt_param_mask_95_32: long(0x840),
  qpc_data_ext: nested(0x880, qpcExt),
})
