/*
 * Advice that fits the cause better than that of the finding's kind (spec/check/findings.ts). `undefined`: the kind's.
 */
import type { Failure } from '../../spec/check/failures.ts'
import { Errno } from '../../spec/errno.ts'
import { GRH_BYTES } from '../../transport/wire/ip.ts'
import { type KnownObject, typeOf } from './objects.ts'

/** Advice about the number of a queue pair in the other byte order. */
export const SWAPPED_QPN = 'convert the number once on each side: htonl before it is sent, ntohl after it was received'

/** Advice to a failed request. `qp`: the queue pair of the request. */
export const adviceForFailure = ({ cause: { id, args } }: Failure, qp: KnownObject | undefined): string | undefined => {
  switch (id) {
    case 'INLINE_TOO_LONG':
      return 'request a larger max_inline_data when creating the queue pair, or post without IBV_SEND_INLINE'
    case 'MESSAGE_TOO_LONG':
      return 'split the message'
    case 'ATOMIC_LENGTH':
      return 'give an atomic one scatter/gather element of 8 bytes, for its result'
    case 'DATAGRAM_TOO_LONG':
      return 'send at most one path MTU in a datagram, or use a connection'
    case 'RECEIVE_TOO_SHORT':
      return isGrhMissing(args, qp)
        ? `post receives of UD that are ${GRH_BYTES} bytes longer than the message: the GRH comes first`
        : undefined
    default:
      return undefined
  }
}

/** Whether a datagram would fit into its receive without the GRH. */
const isGrhMissing = ({ bufferBytes, length }: Failure['cause']['args'], qp: KnownObject | undefined): boolean =>
  qp !== undefined && typeOf(qp) === 'UD' && Number(length) - GRH_BYTES <= Number(bufferBytes)

/** Advice to a program that could not destroy an object. `users`: the objects that use it. */
export const adviceForBusy = (users: readonly KnownObject[]): string | undefined => {
  if (users.length === 0) return undefined
  const regions = users.filter(({ class: name }) => name === 'mr').length
  if (regions === users.length) return 'deregister its regions first (ibv_dereg_mr), and check the result of every call'
  return regions === 0 ? undefined : 'deregister its regions and destroy the other objects that use it first'
}

/** Advice to a program that asked for memory or a feature that the device does not take. */
export const adviceForUnsupported = (class_: string, errno: number): string | undefined => {
  if (errno === Errno.EFAULT && class_ === 'mr')
    return 'register memory that is mapped, and for any right of writing also writable: constants and files that are mapped read-only are not'
  return errno === Errno.EOPNOTSUPP ? 'ask the device for the feature first, or go on without it' : undefined
}

/** Advice to a program whose CQ is armed for solicited completions only, and gets no event. */
export const ADVICE_FOR_SOLICITED =
  'set IBV_SEND_SOLICITED in the send that the receiver waits for, or arm the CQ with solicited_only 0'

/** Advice to a program that posted in RESET although the queue pair has been in RTS. */
export const adviceForReset = ({ changes }: KnownObject): string | undefined =>
  changes.some(({ action }) => action === 'modified to RTS')
    ? 'the queue pair was connected and then reset: connect it again before the next post, or look for the call that reset it'
    : undefined
