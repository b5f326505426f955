/*
 * What the parts of the engine have in common.
 */
import { QpState } from '../../spec/enums.ts'
import { opcodeNumber } from '../../spec/wire/opcodes.ts'
import { timerFactor } from '../../spec/work.ts'

const { RTR, RTS, SQD, SQE } = QpState.values

/** Bytes of the buffer through which messages within the process pass. */
export const SCRATCH_BYTES = 0x1_0000
/** Bytes of one READ or WRITE that one poll executes. */
export const MAX_TRANSFER = 0x10_0000
/** A message without receive is sent again after this time, or when a receive is posted. */
export const NOT_READY_DELAY = 1000
/** `rnrRetry` for no limit. */
export const ENDLESS = 7
/** Time until an unacknowledged packet is sent again, doubled at each try. */
export const FIRST_TIMEOUT = 4000
const MAX_TIMEOUT = 256_000
/** The hop limit of all packets. */
export const HOP_LIMIT = 64
/** The request waits: it is not completed now. */
export const WAIT = -1

export const UD_SEND = opcodeNumber.UD_SEND_ONLY
export const UD_SEND_IMM = opcodeNumber.UD_SEND_ONLY_IMM

export const receives = (state: number): boolean => state === RTR || state === RTS || state === SQD || state === SQE

/** Microseconds until a packet is sent again that was sent `tries` times. */
export const timeoutOf = (tries: number): number =>
  Math.min(FIRST_TIMEOUT * 2 ** (tries - 1), MAX_TIMEOUT) * timerFactor
