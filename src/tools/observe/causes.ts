/*
 * Why a request on an adapter failed, as far as the calls and posts of the observed programs tell. An adapter reports
 * only a status and a number of its vendor.
 */
import { type Cause, createCause } from '../../spec/check/causes.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import { AccessFlags, REMOTE_RIGHTS } from '../../spec/enums.ts'
import {
  ATOMIC_BYTES,
  countsAsRead,
  isAtomic,
  remoteRights,
  returnsData,
  takesReceive,
  WcStatus,
  WrOpcode,
} from '../../spec/work.ts'

const { LOCAL_WRITE } = AccessFlags.values

export interface KnownRegion {
  /** Handle of its protection domain, and number of its context. */
  readonly pd: unknown
  readonly context: number
  start: number
  length: number
  access: number
  isDeregistered: boolean
}

/** What is known of one end of a connection when a request fails. */
export interface KnownEnd {
  readonly pd: unknown
  readonly context: number
  readonly regions: ReadonlyMap<number, KnownRegion>
  /** qp_access_flags; undefined: unknown. */
  readonly accessFlags: number | undefined
  readonly pathMtu: number | undefined
  readonly maxDestRdAtomic: number | undefined
  /** False: the device has keys that no decoded call has created, such as those of memory windows. */
  readonly knowsAllKeys: boolean
  /** The oldest receive that is not complete, or the receive that failed last. */
  readonly receive: WorkRequest | undefined
  /** The oldest send that is not complete. */
  readonly send: WorkRequest | undefined
}

export interface FailedRequest {
  readonly status: number
  readonly vendorErr: number
  /** Undefined: its post was not seen. */
  readonly request: WorkRequest | undefined
  readonly own: KnownEnd
  /** Undefined: the peer is not observed by the same command. */
  readonly peer: KnownEnd | undefined
  readonly maxSendSge: number | undefined
  readonly maxRdAtomic: number | undefined
  readonly retryCnt: number | undefined
  readonly rnrRetry: number | undefined
}

/** `isAtPeer`: the peer's objects are the cause. */
interface FoundCause {
  readonly cause: Cause
  readonly isAtPeer?: true
}

const rangeArgs = (region: KnownRegion, start: number, length: number) => ({
  accessStart: start,
  accessEnd: start + length,
  rangeStart: region.start,
  rangeEnd: region.start + region.length,
})

const isOutside = ({ start, length }: KnownRegion, address: number, bytes: number): boolean =>
  address < start || address + bytes > start + length

const localCause = (request: WorkRequest, { regions, pd, context, knowsAllKeys }: KnownEnd): Cause | undefined => {
  const { opcode } = request
  const writes = opcode < 0 || returnsData(opcode)
  for (const { address, length, lkey: key } of request.elements) {
    if (length === 0) continue
    const region = regions.get(key)
    if (region === undefined) return knowsAllKeys ? createCause('LKEY_UNKNOWN', { key }) : undefined
    const { rangeStart, rangeEnd } = rangeArgs(region, address, length)
    if (region.isDeregistered) return createCause('LKEY_DEREGISTERED', { key, rangeStart, rangeEnd })
    if (region.context === context && region.pd !== pd) return createCause('LKEY_OTHER_PD', { key })
    if (isOutside(region, address, length))
      return createCause('LKEY_RANGE', { key, ...rangeArgs(region, address, length) })
    if (writes && (region.access & LOCAL_WRITE) === 0) return createCause('LKEY_NO_RIGHT', { key, right: LOCAL_WRITE })
  }
  return undefined
}

/** As core's explanation of an rkey that is not live. */
const unknownKey = (regions: KnownEnd['regions'], key: number, address: number, opcode: number): Cause => {
  const having = [...regions.values()].filter(one => !one.isDeregistered && !isOutside(one, address, 1))
  const areLocal = having.length > 0 && having.every(({ access }) => (access & REMOTE_RIGHTS) === 0)
  return key === 0 && areLocal
    ? createCause('RKEY_NONE', { right: remoteRights(opcode), accessStart: BigInt(address) })
    : { id: 'RKEY_UNKNOWN', args: { key, accessStart: BigInt(address) } }
}

const remoteCause = (
  { remote, opcode }: WorkRequest,
  { regions, pd, context, knowsAllKeys }: KnownEnd,
): Cause | undefined => {
  if (remote === undefined) return undefined
  const { address, length, rkey: key } = remote
  const region = regions.get(key)
  if (region === undefined) return knowsAllKeys ? unknownKey(regions, key, address, opcode) : undefined
  const { rangeStart, rangeEnd } = rangeArgs(region, address, length)
  if (region.isDeregistered) return createCause('RKEY_DEREGISTERED', { key, rangeStart, rangeEnd })
  if (region.context === context && region.pd !== pd) return createCause('RKEY_OTHER_PD', { key })
  if (isOutside(region, address, length))
    return createCause('RKEY_RANGE', { key, ...rangeArgs(region, address, length) })
  const right = remoteRights(opcode)
  return right === 0 || (region.access & right) !== 0 ? undefined : createCause('RKEY_NO_RIGHT', { key, right })
}

/** Bytes of an ibv_mtu. */
const mtuBytes = (mtu: number): number => 128 << mtu

/** Why the peer refused a request. */
const refusedCause = (
  request: WorkRequest,
  own: KnownEnd,
  peer: KnownEnd,
  maxRdAtomic: number | undefined,
): Cause | undefined => {
  const { opcode } = request
  const right = remoteRights(opcode)
  if (isAtomic(opcode) && request.remote !== undefined && request.remote.address % ATOMIC_BYTES !== 0)
    return createCause('ATOMIC_ADDRESS', { address: request.remote.address })
  if (own.pathMtu !== undefined && peer.pathMtu !== undefined && own.pathMtu !== peer.pathMtu)
    return createCause('PACKET_LENGTH', {
      payload: Math.min(request.length, mtuBytes(own.pathMtu)),
      mtu: mtuBytes(peer.pathMtu),
    })
  if (right !== 0 && peer.accessFlags !== undefined && (peer.accessFlags & right) === 0)
    return createCause('QP_NO_RIGHT', { right })
  const bufferBytes = peer.receive?.length
  if (takesReceive(opcode) && request.remote === undefined && bufferBytes !== undefined && bufferBytes < request.length)
    return createCause('RECEIVE_TOO_SHORT', { bufferBytes, length: request.length })
  const max = peer.maxDestRdAtomic
  return countsAsRead(opcode) && max !== undefined && maxRdAtomic !== undefined && maxRdAtomic > max
    ? createCause('TOO_MANY_READS', { max })
    : undefined
}

/** With the opcodes of adapters, DRIVER1 and TSO. */
const OPCODES: readonly number[] = [...Object.values(WrOpcode.values), 10, 11]

const operationCause = (request: WorkRequest, { maxSendSge, maxRdAtomic }: FailedRequest): Cause | undefined => {
  const { opcode } = request
  if (opcode >= 0 && !OPCODES.includes(opcode)) return createCause('BAD_OPCODE', { opcode })
  if (maxSendSge !== undefined && request.elements.length > maxSendSge)
    return createCause('TOO_MANY_SGE', { max: maxSendSge })
  return countsAsRead(opcode) && maxRdAtomic === 0 ? createCause('NO_READS', {}) : undefined
}

/** A receive that is shorter than the peer's message, as far as the peer's post was seen. */
const tooShortCause = (request: WorkRequest, peer: KnownEnd | undefined): Cause | undefined => {
  const length = peer?.send?.length ?? 0
  const bufferBytes = request.length
  return request.opcode < 0 && length > bufferBytes
    ? createCause('RECEIVE_TOO_SHORT', { bufferBytes, length })
    : undefined
}

const atPeer = (cause: Cause | undefined): FoundCause | undefined => cause && { cause, isAtPeer: true }
const here = (cause: Cause | undefined): FoundCause | undefined => cause && { cause }

const knownCause = (failed: FailedRequest): FoundCause | undefined => {
  const { status, request, own, peer, retryCnt = 0, rnrRetry = 0, maxRdAtomic } = failed
  switch (status) {
    case WcStatus.values.RETRY_EXC_ERR:
      return here(createCause('NO_ANSWER', { tries: retryCnt + 1, retryCnt }))
    case WcStatus.values.RNR_RETRY_EXC_ERR:
      return here(createCause('RNR_EXCEEDED', { rnrNaks: rnrRetry + 1, rnrRetry }))
    case WcStatus.values.REM_ACCESS_ERR:
      return (
        atPeer(request && peer && (remoteCause(request, peer) ?? refusedCause(request, own, peer, maxRdAtomic))) ??
        here(createCause('NAK_REMOTE_ACCESS', {}))
      )
    case WcStatus.values.REM_INV_REQ_ERR:
      return (
        atPeer(request && peer && refusedCause(request, own, peer, maxRdAtomic)) ??
        here(createCause('NAK_INVALID_REQUEST', {}))
      )
    case WcStatus.values.REM_OP_ERR:
      return here(createCause('NAK_REMOTE_OPERATION', {}))
    case WcStatus.values.LOC_PROT_ERR:
      return here(request && localCause(request, own))
    case WcStatus.values.LOC_QP_OP_ERR:
      // Linux's rxe completes requests with a wrong lkey with this status too, and receives that are too short.
      return here(
        request && (operationCause(request, failed) ?? localCause(request, own) ?? tooShortCause(request, peer)),
      )
    case WcStatus.values.LOC_LEN_ERR: {
      const length = peer?.send?.length
      if (request === undefined || request.opcode >= 0) return undefined
      const isLonger = length !== undefined && length > request.length
      return here(
        createCause('RECEIVE_TOO_SHORT', {
          bufferBytes: request.length,
          length: isLonger ? length : request.length + 1,
        }),
      )
    }
    case WcStatus.values.BAD_RESP_ERR:
      return here(request && createCause('BAD_RESPONSE', { opcode: request.opcode }))
    default:
      return undefined
  }
}

/** The cause of a failed request, not a flushed one. */
export const causeOfFailure = (failed: FailedRequest): FoundCause =>
  knownCause(failed) ?? { cause: createCause('NOT_OBSERVED', { vendorErr: failed.vendorErr }) }
