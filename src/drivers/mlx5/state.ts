/*
 * What mlx5 devices keep beside the soft device's state.
 */
import type { CallContext, Limit } from '../../core/model.ts'
import { callError } from '../../spec/errno.ts'
import { type Place, the } from '../../spec/reason.ts'
import type { Address } from '../soft/address/path.ts'
import type { SoftState } from '../soft/state.ts'
import type { Armings } from './armings.ts'
import type { CompletedQueues, Mlx5Cq } from './completions.ts'
import type { DcTransport } from './dc/transport.ts'
import type { DoorbellRegister } from './doorbell-register.ts'
import type { InlineRegion } from './inline-region.ts'
import type { ProgramRecord, SharedPart } from './program-memory.ts'
import type { Station } from './raw/frame-link.ts'
import type { Receives } from './receives.ts'
import type { Sends } from './sends.ts'
import type { Signatures } from './signature/signatures.ts'

/** The program's queues of a queue pair or shared receive queue. */
export interface ProgramQueues extends CompletedQueues {
  /** One range with both queues; of raw packets one for each queue that there is. */
  readonly buffers: readonly SharedPart[]
  readonly record: ProgramRecord
  readonly sends: Sends | undefined
  readonly receives: Receives | undefined
  readonly inline?: InlineRegion | undefined
  readonly register?: DoorbellRegister | undefined
  /** Charged to the context's account. */
  readonly bytes: number
}

export interface Mlx5State {
  readonly soft: Mlx5Soft
  /** By QPN. */
  readonly queues: Map<number, ProgramQueues>
  /** Shared receive queues, by their queue in the soft device. */
  readonly shared: Map<object, ProgramQueues>
  /** Of CQs with a channel. */
  readonly armings: Armings<Mlx5Cq>
  readonly dc: DcTransport
  /** By QPN, of queue pairs of DC: only for queries, since requests name their paths, and answers return on them. */
  readonly dcAddresses: Map<number, Address>
  readonly signatures: Signatures
  /** Numbers of contexts that may give firmware commands. */
  readonly uids: Set<number>
  /** Numbers of queue pairs that commands have reserved. */
  readonly reserved: Limit
  /** The device on the link of raw packets; undefined if the link has none. */
  readonly station: Station | undefined
}

export type Mlx5Soft = SoftState<Mlx5State>

export const stateOf = ({ device }: Pick<CallContext, 'device'>): Mlx5State => (device.state as Mlx5Soft).own!

export const requirePowerOfTwo = (what: Place, count: number, max: number): void => {
  if (count < 1 || count > max || (count & (count - 1)) !== 0)
    throw callError.EINVAL`${what}: ${count} is no power of two from 1 to ${max}`
}

/** Throws CallError EOPNOTSUPP if the device's link carries no frames. */
export const requireFrames = (call: CallContext, method: string): void => {
  if (stateOf(call).station === undefined)
    throw callError.EOPNOTSUPP`${the.method(method)}: the link carries packets of RoCE only, no other frames: use --link memory, between devices of one daemon`
}

/** The queues that a completion of `qpn` names: an XRC target has its SRQ's, a responder of DC its target's. */
export const queuesOf = ({ soft, queues, shared, dc }: Mlx5State, qpn: number): CompletedQueues | undefined => {
  const own = queues.get(qpn) ?? dc.targets.completedOf(qpn)
  if (own !== undefined) return own
  const receive = soft.queues[soft.qpns.rowOf(qpn)]?.receive
  return receive === undefined ? undefined : shared.get(receive)
}
