/*
 * Advice that fits the cause better than that of the finding's kind (spec/check/findings.ts). `undefined`: the kind's.
 */
import { causes } from '../../spec/check/causes.ts'
import type { Failure } from '../../spec/check/failures.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { type FindingId, findings } from '../../spec/check/findings.ts'
import { QpState } from '../../spec/enums.ts'
import { Errno } from '../../spec/errno.ts'
import { addressText, isLinkLocal } from '../../transport/wire/address.ts'
import { GRH_BYTES } from '../../transport/wire/ip.ts'
import { type KnownObject, typeOf } from './objects.ts'

/** Advice about a number in the other byte order. */
export const SWAPPED = 'convert the number once on each side: htonl before it is sent, ntohl after it was received'

/** Advice about a number that was cut to 16 bits. */
export const CUT_NUMBER = 'store and exchange numbers of queue pairs and keys in 32 bits (uint32_t), as verbs has them'

/** Advice about a value that was read at another place than it was written to. */
export const SAME_LAYOUT =
  'exchange addresses, keys and numbers in a struct that has the same layout at both ends: packing, and order, size and byte order of its members'

/** Advice about a WRITE of which all but the elements is 0. */
export const ADVICE_FOR_UNSET =
  'set opcode: 0, as in a struct that was only cleared, and as IBV_WC_SEND of completions, is IBV_WR_RDMA_WRITE. A message is IBV_WR_SEND; a WRITE also needs wr.rdma.remote_addr and wr.rdma.rkey'

/** The rkey of UCX's remote flush if the peer has no flush key (UCT_IB_MD_INVALID_FLUSH_RKEY of UCX 1.17 and newer). */
const UCX_NO_FLUSH_KEY = 0xff
const UCX_FLUSH_ADVICE =
  'UCX reads with rkey 0xff to fence, if the peer has no flush key: it gets one from the firmware of mlx5 adapters only (DEVX). Set UCX_FENCE_MODE=weak'

/**
 * Advice to a failed request, for what its arguments tell more than its cause. `qp`: the queue pair of the request.
 * `atAddress`: the region at the address of an unknown key.
 */
const adviceForArguments = (
  { cause: { id, args } }: Failure,
  qp: KnownObject | undefined,
  atAddress: KnownObject | undefined,
): string | undefined => {
  switch (id) {
    case 'LKEY_UNKNOWN':
      if (args.key !== 0 && args.key === atAddress?.rkey)
        return 'set lkey to that of the region (ibv_mr.lkey), not its rkey'
      return args.key === 0 && (qp?.limits.maxInlineData ?? 0) > 0
        ? `lkey 0 is no key. If the data was to be inline, set IBV_SEND_INLINE in send_flags (max_inline_data is ${qp?.limits.maxInlineData}); else set lkey to that of the region`
        : undefined
    case 'RKEY_UNKNOWN':
      if (args.key === UCX_NO_FLUSH_KEY) return UCX_FLUSH_ADVICE
      if (atAddress?.rkey === undefined || atAddress.rkey === 0) return undefined
      if (args.key === 0)
        return 'look at the structure in which address and rkey were exchanged: the address has arrived, the rkey has not. Its layout (packing, size and byte order) must be the same at both ends'
      return args.key === atAddress.lkey ? 'send the rkey of the region (ibv_mr.rkey), not its lkey' : undefined
    case 'RKEY_OLD':
      return isNotYetBound(args)
        ? 'post the bind (IBV_WR_BIND_MW) with this rkey, and use the rkey after its completion'
        : undefined
    case 'RECEIVE_TOO_SHORT':
      return isGrhMissing(args, qp)
        ? `post receives of UD that are ${GRH_BYTES} bytes longer than the message: the GRH comes first`
        : undefined
    default:
      return undefined
  }
}

export const adviceForFailure = (
  failure: Failure,
  qp: KnownObject | undefined,
  atAddress: KnownObject | undefined,
): string | undefined => adviceForArguments(failure, qp, atAddress) ?? causes[failure.cause.id].advice

/**
 * Advice about a peer that does not answer. `isKnown`: its device is one of this daemon's. `dgid`: its address.
 * `v1Index`: the GID index of RoCE v1 of the requests; undefined: they are of another kind.
 */
export const adviceForNoAnswer = (isKnown: boolean, dgid?: Uint8Array, v1Index?: number): string =>
  !isKnown && v1Index !== undefined
    ? `GID index ${v1Index} is of RoCE v1, whose frames no router forwards: if the peer is in another subnet, or answers on RoCE v2, choose the index of a RoCE v2 GID on both ends (ibv_query_gid_ex, NCCL_IB_GID_INDEX); else check that the peer runs, and choose timeout and retry_cnt for its longest pause`
    : !isKnown && dgid !== undefined && isLinkLocal(dgid)
      ? `dgid ${addressText(dgid)} is a link-local address, which no router forwards: if the peer is in another subnet, choose the index of a RoCE v2 GID of an IP address on both ends (ibv_query_gid_ex, NCCL_IB_GID_INDEX); else check that the peer runs, and choose timeout and retry_cnt for its longest pause`
      : isKnown
        ? 'choose timeout and retry_cnt for the longest pause of the peer, and look for what loses its packets'
        : 'check address, route and firewall (UDP port 4791), and that the peer runs; choose timeout and retry_cnt for its longest pause'

/** The peer's device has another address than the request names. */
export const ADVICE_FOR_ADDRESS =
  'compare the address (dgid of the address handle, or of the queue pair) with the GID of the device that the peer has opened'

/** Whether the key of a memory window is one of its next: the low byte grows with each bind (ibv_inc_rkey). */
export const isNotYetBound = ({ key, currentKey }: Failure['cause']['args']): boolean => {
  const ahead = (Number(key) - Number(currentKey)) & 0xff
  return ahead > 0 && ahead < 0x80
}

/**
 * Functions of librdmacm whose calls of verbs were refused, and what to look at: the program knows the function, not
 * the calls that it makes.
 */
const cmAdvice: Readonly<Record<string, string>> = {
  rdma_create_qp:
    'create a queue pair of the type of the port space: IBV_QPT_RC for RDMA_PS_TCP, IBV_QPT_UD for RDMA_PS_UDP; and with sizes that the device has',
  rdma_create_qp_ex:
    'create a queue pair of the type of the port space: IBV_QPT_RC for RDMA_PS_TCP, IBV_QPT_UD for RDMA_PS_UDP; and with sizes that the device has',
  rdma_connect:
    'create the queue pair before by rdma_create_qp, and set responder_resources and initiator_depth of rdma_conn_param',
  rdma_accept:
    'create the queue pair before by rdma_create_qp, and set responder_resources and initiator_depth of rdma_conn_param',
}
const CM_FRAME = /\/librdmacm\.so\S* (rdma_\w+)$/

/** The function of librdmacm that has made a refused call; undefined: the program has made it itself. */
export const cmFunctionIn = (stack: Stack): string | undefined =>
  stack.map(frame => CM_FRAME.exec(frame)?.[1]).findLast(name => name !== undefined)

export const adviceForCm = (name: string | undefined): string | undefined =>
  name !== undefined && Object.hasOwn(cmAdvice, name) ? cmAdvice[name] : undefined

/** Advice about a queue pair whose attributes librdmacm has set; undefined: the program has set them itself. */
export const adviceForCmAttributes = (id: FindingId, qp: KnownObject | undefined): string | undefined =>
  qp?.changes.some(({ stack }) => stack.some(frame => frame.includes('/librdmacm.so')))
    ? findings[id].cmAdvice
    : undefined

/** Whether a datagram would fit into its receive without the GRH. */
const isGrhMissing = ({ bufferBytes, length }: Failure['cause']['args'], qp: KnownObject | undefined): boolean =>
  qp !== undefined && typeOf(qp) === 'UD' && Number(length) - GRH_BYTES <= Number(bufferBytes)

/** Advice to a program that could not destroy an object. `users`: the objects that use it. */
export const adviceForBusy = (users: readonly KnownObject[]): string | undefined => {
  if (users.length === 0) return undefined
  const usersFirst = 'destroy the objects that use it first, and check the result of every destroy'
  const regions = users.filter(({ class: name }) => name === 'mr').length
  if (regions === users.length) return 'deregister its regions first (ibv_dereg_mr), and check the result of every call'
  return regions === 0 ? usersFirst : 'deregister its regions and destroy the other objects that use it first'
}

/** Advice to a program that could not destroy a queue pair in a multicast group. */
export const ADVICE_FOR_ATTACHED =
  'detach the queue pair from its multicast groups first (ibv_detach_mcast), and check the result of every destroy'

/** Advice to a program that asked for memory or a feature that the device does not take. */
export const adviceForUnsupported = (class_: string, errno: number): string | undefined => {
  if (errno === Errno.EFAULT && class_ === 'mr')
    return 'register memory that is mapped, and for any right of writing also writable: constants and files that are mapped read-only are not'
  return errno === Errno.EOPNOTSUPP ? 'ask the device for the feature first, or go on without it' : undefined
}

/** Advice to a program whose device has no route to its peer. */
export const ADVICE_FOR_ROUTE =
  'connect devices of one subnet (compare the GIDs of both ends), or give the interface of the device a route to the peer'

/** Advice to a program whose CQ is armed for solicited completions only, and gets no event. */
export const ADVICE_FOR_SOLICITED =
  'set IBV_SEND_SOLICITED in the send that the receiver waits for, or arm the CQ with solicited_only 0'

/** Advice to a program that posted in RESET although the queue pair has been in RTS. */
export const adviceForReset = ({ changes }: KnownObject): string | undefined =>
  changes.some(({ state }) => state === QpState.values.RTS)
    ? 'the queue pair was connected and then reset: connect it again before the next post, or look for the call that reset it'
    : undefined
