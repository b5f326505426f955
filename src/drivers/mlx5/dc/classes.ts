/*
 * Classes `dci_qp` and `dct_qp` of mlx5 devices: differences from the soft device's queue pairs (R9, R22). An initiator
 * has a row of the engine that is connected to one responder after the other (initiators.ts). The row of a target only
 * has its state and attributes, which its responders get (targets.ts): packets to its number are for connections.
 */
import { overlayClass, withoutOptions } from '../../../core/devices/driver.ts'
import type { DriverClass, MethodAdditions } from '../../../core/driver-contract.ts'
import type { CallContext } from '../../../core/model.ts'
import { DciQp, DctQp } from '../../../spec/classes/qp/dc_qp.ts'
import { Mlx5Attributes, Mlx5QpFlags, RESPONSE_BYTES } from '../../../spec/drivers/mlx5.ts'
import { QpState } from '../../../spec/enums.ts'
import { callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import { Service } from '../../../spec/wire/services.ts'
import { qpClass, UNSUPPORTED_ATTRIBUTES, useGid } from '../../soft/classes/qp-class.ts'
import type { CqObject, QueuePair, SrqObject } from '../../soft/state.ts'
import { blockFormat, checkStaticRate } from '../format.ts'
import { stateOf } from '../state.ts'
import { MAX_LOG_STREAMS } from './answers.ts'

const { RESET, RTR, ERR } = QpState.values
const NO_QUEUE = { maxSendWr: 0, maxRecvWr: 0, maxSendSge: 0, maxRecvSge: 0, maxInlineData: 0 }
const DWORD = 32n

/** The class with the address that a program has set; both classes have these methods. */
const withAddress = (soft: DriverClass): DriverClass =>
  overlayClass<typeof DciQp, QueuePair>(soft, soft.additions, inner => ({
    query(call, object, args, core) {
      const answer = inner.query(call, object, args, core)
      const { dcAddresses, soft } = stateOf(call)
      const address = dcAddresses.get(object.state.qpn)
      return address === undefined ? answer : { ...answer, ...soft.paths.answer(address) }
    },
    modify(call, object, args, core) {
      const { dcAddresses, soft } = stateOf(call)
      const answer = inner.modify(call, object, args, core)
      const address = soft.paths.given(args)
      if (address !== undefined) {
        dcAddresses.set(object.state.qpn, address)
        useGid(call.device.ports[0].gids, object.state, soft.paths.gidIndexOf(address))
      }
      if (args.state === RESET) dcAddresses.delete(object.state.qpn)
      return answer
    },
    destroy(call, object, args, core) {
      const { dcAddresses } = stateOf(call)
      const { qpn } = object.state
      const answer = inner.destroy(call, object, args, core)
      dcAddresses.delete(qpn)
      return answer
    },
  }))

const softClass = (
  cls: typeof DciQp | typeof DctQp,
  type: 'DCI' | 'DCT',
  service: number,
  additions: MethodAdditions,
): DriverClass => withAddress(qpClass(cls, type, service, blockFormat(additions)))

// ---- initiators ----

const initiatorsOf = (call: CallContext) => stateOf(call).dc.initiators(call.device.core.random)

/** Streams in error with which an initiator goes to ERR. Throws CallError EINVAL. */
const maxErroredOf = ({
  qpFlags = 0,
  logStreams = 0,
  logErroredStreams = 0,
}: {
  readonly qpFlags?: number
  readonly logStreams?: number
  readonly logErroredStreams?: number
}): number => {
  if ((qpFlags & Mlx5QpFlags.DCI_STREAM) === 0) return 1
  const { concurrent, errored } = MAX_LOG_STREAMS
  if (logStreams > concurrent || logErroredStreams > errored)
    throw callError.EINVAL`${the.method('dci_qp.create')}: 2^${logStreams} streams, 2^${logErroredStreams} of them in error: at most 2^${concurrent} and 2^${errored}`
  return 2 ** logErroredStreams
}

const dciClass = withoutOptions(
  overlayClass<typeof DciQp, QueuePair, typeof Mlx5Attributes.dci_qp>(
    softClass(DciQp, 'DCI', Service.DCI, Mlx5Attributes.dci_qp),
    Mlx5Attributes.dci_qp,
    inner => ({
      create(call, object, { srq: _, ...args }, core) {
        if (args.cap.maxRecvWr !== 0 || args.cap.maxRecvSge !== 0)
          throw callError.EINVAL`${the.method('dci_qp.create')}: ${the.attribute('cap')}: an initiator has no receive queue`
        const maxErrored = maxErroredOf(args)
        // programs pass an SRQ, which would answer requests of peers
        const answer = inner.create(call, object, args, core)
        const sends = stateOf(call).queues.get(object.state.qpn)?.sends
        if (sends !== undefined) initiatorsOf(call).add({ object, sends, maxErrored })
        return answer
      },
      query(call, object, args, core) {
        initiatorsOf(call).settle(object.state.qpn)
        return inner.query(call, object, args, core)
      },
      modify(call, object, args, core) {
        const initiators = initiatorsOf(call)
        const { qpn } = object.state
        initiators.settle(qpn)
        const address = stateOf(call).soft.paths.given(args)
        if (address !== undefined) checkStaticRate('dci_qp.modify', address)
        // a context has the logarithm, so that Linux's mlx5 makes 1 of 0
        const maxRdAtomic = args.maxRdAtomic === 0 ? 1 : args.maxRdAtomic
        const answer = inner.modify(call, object, { ...args, ...(maxRdAtomic !== undefined && { maxRdAtomic }) }, core)
        if (args.state === RESET) initiators.reset(qpn)
        if (args.state === ERR) initiators.end(qpn)
        return answer
      },
      destroy(call, object, args, core) {
        initiatorsOf(call).remove(object.state.qpn)
        return inner.destroy(call, object, args, core)
      },
    }),
  ),
  UNSUPPORTED_ATTRIBUTES,
)

// ---- targets ----

const dctClass = withoutOptions(
  overlayClass<typeof DctQp, QueuePair, typeof Mlx5Attributes.dct_qp>(
    softClass(DctQp, 'DCT', Service.RC, Mlx5Attributes.dct_qp),
    Mlx5Attributes.dct_qp,
    inner => ({
      create(call, object, args, core) {
        const { pd, recvCq, cap, qpFlags = 0, uidx = 0, sendBufferAddress: key = 0n } = args
        const srq = args.srq as SrqObject | undefined
        if (srq === undefined)
          throw callError.EINVAL`${the.method('dct_qp.create')}: ${the.attribute('srq')}: a target needs one`
        const others = qpFlags & ~(Mlx5QpFlags.TYPE_DCT | Mlx5QpFlags.SCATTER_CQE | Mlx5QpFlags.UAR_PAGE_INDEX)
        if (others !== 0)
          throw callError.EOPNOTSUPP`${the.method('dct_qp.create')}: flags 0x${others.toString(16)}: a target has none of them`
        inner.create(call, object, { ...args, cap: NO_QUEUE, qpFlags: 0, sendBlocks: 0, receiveRequests: 0 }, core)
        const { dc, soft } = stateOf(call)
        const { qpn } = object.state
        soft.qpns.bind(qpn, -1)
        dc.takePackets(qpn)
        dc.targets.add({
          object,
          keyHi: Number(key >> DWORD),
          keyLo: Number(BigInt.asUintN(32, key)),
          uidx,
          pd: pd.id,
          recvPd: srq.state.pd,
          recvCq: (recvCq as CqObject).state.number,
          connections: new Map(),
          violations: 0,
          onViolation: undefined,
        })
        return { cap, qpNum: qpn }
      },
      modify(call, object, args, core) {
        const { state } = args
        if (state === RESET || state === ERR)
          throw callError.EINVAL`${the.method('dct_qp.modify')}: ${the.attribute('state')}: a target can only be destroyed`
        inner.modify(call, object, args, core)
        return state === RTR ? { responseBytes: RESPONSE_BYTES.dct, number: object.state.qpn } : {}
      },
      destroy(call, object, args, core) {
        const { dc } = stateOf(call)
        const { qpn } = object.state
        dc.targets.remove(qpn)
        dc.forgetPackets(qpn)
        return inner.destroy(call, object, args, core)
      },
    }),
  ),
  UNSUPPORTED_ATTRIBUTES,
)

export const dcQpClasses: readonly DriverClass[] = [dciClass, dctClass]
