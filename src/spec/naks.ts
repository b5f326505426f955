/*
 * What the syndrome of an AETH says (InfiniBand Architecture Specification, volume 1, clause 9.7.5), and what each NAK
 * that refuses a request leads to: for the requester's engine, and for what captures show.
 */
import type { CaptureCause } from './captures.ts'
import type { CauseName } from './check/causes.ts'
import { nakCode, SYNDROME_KIND_MASK, SYNDROME_VALUE_MASK, syndromeKind } from './wire/headers.ts'
import { WcStatus } from './work.ts'

interface Refusal {
  readonly code: number
  /** With which the request completes. */
  readonly status: number
  /** Of that completion. */
  readonly cause: Extract<CauseName, `NAK_${string}`>
  /** What `userdma explain FILE` calls it. */
  readonly captureCause: CaptureCause
}

const { REM_INV_REQ_ERR, REM_ACCESS_ERR, REM_OP_ERR, REM_INV_RD_REQ_ERR } = WcStatus.values

/** The NAKs that refuse a request. PSN_SEQUENCE asks for packets again; all other codes are reserved. */
const refusals: readonly Refusal[] = [
  {
    code: nakCode.INVALID_REQUEST,
    status: REM_INV_REQ_ERR,
    cause: 'NAK_INVALID_REQUEST',
    captureCause: 'invalid-request',
  },
  { code: nakCode.REMOTE_ACCESS, status: REM_ACCESS_ERR, cause: 'NAK_REMOTE_ACCESS', captureCause: 'remote-access' },
  {
    code: nakCode.REMOTE_OPERATION,
    status: REM_OP_ERR,
    cause: 'NAK_REMOTE_OPERATION',
    captureCause: 'remote-operation',
  },
  {
    code: nakCode.INVALID_RD_REQUEST,
    status: REM_INV_RD_REQ_ERR,
    cause: 'NAK_INVALID_RD',
    captureCause: 'invalid-rd-request',
  },
]

/** By NAK code. */
export const refusalOf: readonly (Refusal | undefined)[] = Array.from({ length: SYNDROME_VALUE_MASK + 1 }, (_, code) =>
  refusals.find(row => row.code === code),
)

/** What an answer with an AETH is. RESERVED: neither an acknowledgement nor a NAK, and requesters drop it. */
export const Verdict = { ACK: 0, RNR: 1, SEQUENCE: 2, REFUSAL: 3, RESERVED: 4 } as const

const verdict = (syndrome: number): number => {
  const value = syndrome & SYNDROME_VALUE_MASK
  switch (syndrome & SYNDROME_KIND_MASK) {
    case syndromeKind.ACK:
      return Verdict.ACK
    case syndromeKind.RNR_NAK:
      return Verdict.RNR
    case syndromeKind.NAK:
      if (value === nakCode.PSN_SEQUENCE) return Verdict.SEQUENCE
      return refusalOf[value] === undefined ? Verdict.RESERVED : Verdict.REFUSAL
    default:
      return Verdict.RESERVED
  }
}

/** By AETH.syndrome; its highest bit is reserved, and ignored. */
export const verdictOf = Uint8Array.from({ length: 256 }, (_, syndrome) => verdict(syndrome))
