/*
 * Events of mlx5's firmware to which programs subscribe (MLX5_EVENT_TYPE_…), as far as the device raises them, and the
 * entry that an event channel has for each (mlx5_eqe).
 */
import { AsyncEventType } from '../../../../spec/enums.ts'

const { values: Async } = AsyncEventType

/** Of an object, by name. `event`: the device's own event (ibv_event_type) that raises it. */
export const ObjectEvents = {
  COMP: { type: 0x00, event: undefined },
  COMM_EST: { type: 0x02, event: Async.COMM_EST },
  SQ_DRAINED: { type: 0x03, event: Async.SQ_DRAINED },
  CQ_ERROR: { type: 0x04, event: Async.CQ_ERR },
  WQ_CATAS_ERROR: { type: 0x05, event: Async.QP_FATAL },
  WQ_INVAL_REQ_ERROR: { type: 0x10, event: Async.QP_REQ_ERR },
  WQ_ACCESS_ERROR: { type: 0x11, event: Async.QP_ACCESS_ERR },
  SRQ_CATAS_ERROR: { type: 0x12, event: Async.SRQ_ERR },
  SRQ_LAST_WQE: { type: 0x13, event: Async.QP_LAST_WQE_REACHED },
  SRQ_RQ_LIMIT: { type: 0x14, event: Async.SRQ_LIMIT_REACHED },
  DCT_KEY_VIOLATION: { type: 0x1d, event: undefined },
} as const

/** Of the device. */
export const DeviceEvents = { PORT_CHANGE: 0x09 } as const
/** Kinds of PORT_CHANGE. */
export const PortChange = { DOWN: 1, ACTIVE: 4 } as const

const types = Object.values(ObjectEvents)
export const objectEventTypes: ReadonlySet<number> = new Set(types.map(({ type }) => type))
export const deviceEventTypes: ReadonlySet<number> = new Set(Object.values(DeviceEvents))
/** By ibv_event_type. */
export const typeOfEvent: ReadonlyMap<number, number> = new Map(
  types.flatMap(({ type, event }) => (event === undefined ? [] : [[event, type] as const])),
)

/** Events of one subscription call, at most. */
export const MAX_EVENT_TYPES = 16

/**
 * mlx5_ib_uapi_devx_async_event_hdr and mlx5_eqe: offsets in a record. NUMBER: of a queue pair, receive queue, target,
 * or completion queue (COMP). CQ_NUMBER: of CQ_ERROR. PORT: in the upper four bits.
 */
export const EventRecord = {
  COOKIE: 0,
  TYPE: 9,
  SUB_TYPE: 11,
  CQ_NUMBER: 40,
  CQ_SYNDROME: 51,
  PORT: 48,
  OBJECT_TYPE: 60,
  NUMBER: 64,
  COOKIE_BYTES: 8,
  BYTES: 72,
} as const
/** CQ_SYNDROME: the queue has overrun. */
export const CQ_OVERRUN = 1
