/*
 * Classes `dci_qp` and `dct_qp` of mlx5 devices: differences from the soft device's queue pairs (R9, R22). An initiator
 * has a row of the engine that is connected to one responder after the other (initiators.ts). The row of a target only has its state and attributes, which its
 * responders get (targets.ts): packets to its number are for connections.
 */
import { withoutOptions } from '../../../core/devices/driver.ts'
import type { DriverClass } from '../../../core/driver-contract.ts'
import type { AnyHandler, CallContext } from '../../../core/model.ts'
import { DciQp, DctQp } from '../../../spec/classes/qp/dc_qp.ts'
import { Mlx5Attributes, Mlx5QpFlags, RESPONSE_BYTES } from '../../../spec/drivers/mlx5.ts'
import { QpState } from '../../../spec/enums.ts'
import { CallError } from '../../../spec/errno.ts'
import { Service } from '../../../spec/wire/services.ts'
import { type Address, addressAnswer, copyAddress } from '../../rxe/address/path.ts'
import { qpClass, UNSUPPORTED_ATTRIBUTES } from '../../rxe/classes/qp-class.ts'
import type { CqObject, QpObject, QueuePair, SrqObject } from '../../rxe/state.ts'
import { stateOf, withProgramQueues } from '../classes.ts'
import { prepareRings } from '../shadow-rings.ts'

const { RESET, RTR, ERR } = QpState.values
const NO_QUEUE = { maxSendWr: 0, maxRecvWr: 0, maxSendSge: 0, maxRecvSge: 0, maxInlineData: 0 }
const DWORD = 32n

interface Passed {
  readonly state?: number
  readonly address?: Address
  readonly cap: typeof NO_QUEUE
  readonly qpFlags?: number
  readonly uidx?: number
  /** The access key of a target. */
  readonly sendBufferAddress?: bigint
}

/** The addresses of queue pairs: only for queries, since requests name their paths, and answers return on them. */
const addresses = new WeakMap<QueuePair, Address>()

const stateOfQp = (object: unknown): QueuePair => (object as QpObject).state

/** The class without doorbell call, and with the address that a program has set. */
const withAddress = (soft: DriverClass): DriverClass => {
  const { postSend: _, ...handlers } = soft.handlers as Readonly<Record<string, AnyHandler>>
  return {
    ...soft,
    handlers: {
      ...handlers,
      query(call, object, args, core) {
        const answer = handlers.query!(call, object, args, core) as Record<string, never>
        const address = addresses.get(stateOfQp(object))
        return address === undefined ? answer : { ...answer, ...addressAnswer(address) }
      },
      modify(call, object, args, core) {
        const { address, state } = args as unknown as Passed
        const answer = handlers.modify!(call, object, args, core)
        if (address !== undefined) addresses.set(stateOfQp(object), copyAddress(address))
        if (state === RESET) addresses.delete(stateOfQp(object))
        return answer
      },
    },
  }
}

// ---- initiators ----

const softInitiator = withAddress(qpClass(DciQp, 'DCI', Service.DCI))
const withQueues = withProgramQueues({
  ...softInitiator,
  handlers: {
    ...softInitiator.handlers,
    create(call, object, args, core) {
      const { cap } = args as unknown as Passed
      if (cap.maxRecvWr !== 0 || cap.maxRecvSge !== 0)
        throw new CallError('EINVAL', 'dci_qp.create: attribute cap: an initiator has no receive queue')
      // programs pass an SRQ, which would answer requests of peers
      return (softInitiator.handlers.create as AnyHandler)(call, object, { ...args, srq: undefined }, core)
    },
  },
})
const initiatorHandlers = withQueues.handlers as Readonly<Record<string, AnyHandler>>

const initiatorsOf = (call: CallContext) => stateOf(call).dc.initiators(call.device.core.random)

const dciClass: DriverClass = withoutOptions(
  {
    ...withQueues,
    additions: Mlx5Attributes.dci_qp,
    handlers: {
      ...initiatorHandlers,
      create(call, object, args, core) {
        const answer = initiatorHandlers.create!(call, object, args, core)
        const sends = stateOf(call).queues.get(stateOfQp(object).qpn)?.sends
        const { gids } = call.device.ports[0]
        if (sends !== undefined) initiatorsOf(call).add({ object: object as QpObject, sends, gids })
        return answer
      },
      modify(call, object, args, core) {
        const answer = initiatorHandlers.modify!(call, object, args, core)
        if ((args as unknown as Passed).state === RESET) initiatorsOf(call).reset(stateOfQp(object).qpn)
        return answer
      },
      destroy(call, object, args, core) {
        initiatorsOf(call).remove(stateOfQp(object).qpn)
        return initiatorHandlers.destroy!(call, object, args, core)
      },
    },
  },
  UNSUPPORTED_ATTRIBUTES,
)

// ---- targets ----

const softTarget = withAddress(qpClass(DctQp, 'DCT', Service.RC))
const targetHandlers = softTarget.handlers as Readonly<Record<string, AnyHandler>>

const dctClass: DriverClass = withoutOptions(
  {
    ...softTarget,
    additions: Mlx5Attributes.dct_qp,
    handlers: {
      ...targetHandlers,
      create(call, object, args, core) {
        const { pd, recvCq, srq } = args as unknown as { pd: { id: number }; recvCq: CqObject; srq?: SrqObject }
        const { qpFlags = 0, uidx = 0, sendBufferAddress: key = 0n, cap } = args as unknown as Passed
        if (srq === undefined) throw new CallError('EINVAL', 'dct_qp.create: attribute srq: a target needs one')
        const others = qpFlags & ~(Mlx5QpFlags.TYPE_DCT | Mlx5QpFlags.SCATTER_CQE | Mlx5QpFlags.UAR_PAGE_INDEX)
        if (others !== 0)
          throw new CallError('EOPNOTSUPP', `dct_qp.create: flags 0x${others.toString(16)}: a target has none of them`)
        prepareRings(call.context)
        targetHandlers.create!(call, object, { ...args, cap: NO_QUEUE }, core)
        const { dc, soft } = stateOf(call)
        const { qpn } = stateOfQp(object)
        soft.qpns.bind(qpn, -1)
        dc.takePackets(qpn)
        dc.targets.add({
          object: object as QpObject,
          keyHi: Number(key >> DWORD),
          keyLo: Number(BigInt.asUintN(32, key)),
          uidx,
          pd: pd.id,
          recvPd: srq.state.pd,
          recvCq: recvCq.state.number,
          connections: new Map(),
        })
        return { cap, qpNum: qpn }
      },
      modify(call, object, args, core) {
        const { state } = args as unknown as Passed
        if (state === RESET || state === ERR)
          throw new CallError('EINVAL', 'dct_qp.modify: attribute state: a target can only be destroyed')
        targetHandlers.modify!(call, object, args, core)
        return state === RTR ? { responseBytes: RESPONSE_BYTES.dct, number: stateOfQp(object).qpn } : {}
      },
      destroy(call, object, args, core) {
        const { dc } = stateOf(call)
        const { qpn } = stateOfQp(object)
        dc.targets.remove(qpn)
        dc.forgetPackets(qpn)
        return targetHandlers.destroy!(call, object, args, core)
      },
    },
  },
  UNSUPPORTED_ATTRIBUTES,
)

export const dcQpClasses: readonly DriverClass[] = [dciClass, dctClass]
