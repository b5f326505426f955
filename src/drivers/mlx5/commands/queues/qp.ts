/*
 * Firmware commands that create and query queue pairs: RC, UC, UD, and initiators of DC, the queue pairs of verbs.
 * transitions.ts moves them from state to state.
 */
import { callWithin } from '../../../../core/dispatch/owned.ts'
import type { CallContext, CoreObject } from '../../../../core/model.ts'
import { addParent } from '../../../../core/objects/lifetime.ts'
import { DciQp } from '../../../../spec/classes/qp/dc_qp.ts'
import { RcQp } from '../../../../spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../../spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../../../spec/classes/qp/ud_qp.ts'
import { Mlx5QpFlags } from '../../../../spec/drivers/mlx5.ts'
import { Commands } from '../../../../spec/drivers/mlx5-firmware/commands.ts'
import type { PartOf, RecordOf } from '../../../../spec/drivers/mlx5-firmware/fields.ts'
import {
  firmwareStates,
  PATH_MIGRATED,
  QpTypes,
  ReceiveType,
  StaticRates,
} from '../../../../spec/drivers/mlx5-firmware/queue-values.ts'
import type { qpc } from '../../../../spec/drivers/mlx5-firmware/queues.ts'
import { BLOCK_BYTES } from '../../../../spec/drivers/mlx5-queues.ts'
import { AccessFlags } from '../../../../spec/enums.ts'
import type { ObjectClass } from '../../../../spec/schema/schema.ts'
import type { Address, StoredAddress } from '../../../soft/address/path.ts'
import type { QpObject } from '../../../soft/state.ts'
import type { DoorbellPage } from '../../doorbell-register.ts'
import { receiveElements } from '../../format.ts'
import { stateOf } from '../../state.ts'
import { sendEventsOf } from '../events/subscriptions.ts'
import { creation, objectCommand, refuseCommand } from '../handler.ts'
import { findPd, findUar } from '../lookup.ts'
import { makeObject } from './make.ts'
import { findCq, findShared, placeOf, recordPlaceOf, refuseFeatures } from './places.ts'

type Qpc = RecordOf<typeof qpc>

const classes: Readonly<Record<number, ObjectClass>> = {
  [QpTypes.RC]: RcQp,
  [QpTypes.UC]: UcQp,
  [QpTypes.UD]: UdQp,
  [QpTypes.DCI]: DciQp,
}
/** Of `ts_format`. */
const REAL_TIME = 2
/** Of `send_dbr_mode`: the program stores its requests in the doorbell page. */
const NO_DBR_EXT = 1
/** Log2 of the bytes of a receive, of `log_rq_stride` 0. */
const LOG_RECEIVE = 4

/** Numbers of requests; 0: there is no such queue. */
const sizesOf = ({ no_sq, log_sq_size, rq_type, log_rq_size, log_rq_stride }: Qpc) => {
  const hasReceives = rq_type === ReceiveType.OWN
  return {
    sendBlocks: no_sq === 1 ? 0 : 2 ** log_sq_size,
    receiveRequests: hasReceives ? 2 ** log_rq_size : 0,
    receiveShift: hasReceives ? LOG_RECEIVE + log_rq_stride : 0,
  }
}

const checkFields = (context: Qpc): void => {
  const { wq_signature, send_dbr_mode, offload_type, rdma_wr_disabled, ts_format, rlky, rq_type, st } = context
  if (send_dbr_mode > NO_DBR_EXT)
    refuseCommand('unsupportedFeature', `send_dbr_mode ${send_dbr_mode}; there are 0 and 1`)
  refuseFeatures({ wq_signature, offload_type, rdma_wr_disabled, rlky })
  if (ts_format === REAL_TIME) refuseCommand('unsupportedFeature', 'ts_format 2; time stamps are free running (0, 1)')
  if (rq_type === ReceiveType.XRQ) refuseCommand('unsupportedFeature', 'rq_type 2; there are 0, 1 and 3')
  if (st !== QpTypes.DCI) {
    const { log_num_dci_stream_channels, log_num_dci_errored_streams } = context
    refuseFeatures({ log_num_dci_stream_channels, log_num_dci_errored_streams })
  }
}

/** The doorbell page, which the new queue pair uses from now on. */
const registerOf = (object: CoreObject, uar: CoreObject): CoreObject => {
  if ((uar.state as DoorbellPage).register === true)
    refuseCommand('inUse', 'the doorbell page has a queue without doorbell record already')
  addParent(object, uar)
  return uar
}

const streamsOf = ({ log_num_dci_stream_channels, log_num_dci_errored_streams }: Qpc) => {
  const hasStreams = log_num_dci_stream_channels !== 0 || log_num_dci_errored_streams !== 0
  return {
    qpFlags: Mlx5QpFlags.TYPE_DCI | (hasStreams ? Mlx5QpFlags.DCI_STREAM : 0),
    logStreams: log_num_dci_stream_channels,
    logErroredStreams: log_num_dci_errored_streams,
  }
}

// ---- answers of QUERY_QP ----

const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

const rightsOf = (access: number) => ({
  rre: +((access & REMOTE_READ) !== 0),
  rwe: +((access & REMOTE_WRITE) !== 0),
  rae: +((access & REMOTE_ATOMIC) !== 0),
})

const macFields = (mac: Uint8Array | undefined) => ({
  rmac_47_32: mac === undefined ? 0 : (mac[0]! << 8) | mac[1]!,
  rmac_31_0: mac === undefined ? 0 : new DataView(mac.buffer, mac.byteOffset).getUint32(2),
})

const pathFields = ({ address, dmac }: { readonly address: Address; readonly dmac?: Uint8Array }) => ({
  src_addr_index: address.sgidIndex,
  stat_rate: StaticRates.indexOf(address.staticRate),
  hop_limit: address.hopLimit,
  tclass: address.trafficClass,
  dscp: address.trafficClass >>> 2,
  ecn: address.trafficClass & 3,
  flow_label: address.flowLabel,
  rgid_rip: address.dgid,
  grh: address.isGlobal,
  rlid: address.dlid,
  sl: address.sl,
  eth_prio: address.sl & 7,
  vhca_port_num: address.port,
  ...macFields(dmac),
})

/** What a query of a queue pair of any type returns. */
interface QpAnswer {
  readonly state: number
  readonly accessFlags?: number
  readonly pkeyIndex?: number
  readonly port?: number
  readonly qkey?: number
  readonly address?: StoredAddress
  readonly dmac?: Uint8Array
  readonly pathMtu?: number
  readonly timeout?: number
  readonly retryCnt?: number
  readonly rnrRetry?: number
  readonly rqPsn?: number
  readonly sqPsn?: number
  readonly maxRdAtomic?: number
  readonly maxDestRdAtomic?: number
  readonly minRnrTimer?: number
  readonly destQpn?: number
  readonly cap: { readonly maxSendWr: number; readonly maxRecvWr: number; readonly maxRecvSge: number }
}

const logOf = (count: number | undefined): number =>
  count === undefined || count < 1 ? 0 : Math.floor(Math.log2(count))

const typeOf = ({ class: cls }: CoreObject): number =>
  Number(Object.entries(classes).find(([, other]) => other.name === cls.name)?.[0] ?? QpTypes.RC)

const contextFields = (object: QpObject, answer: QpAnswer): PartOf<typeof qpc> => {
  const { address, dmac, cap, pathMtu, port } = answer
  return {
    state: firmwareStates[answer.state] ?? 0,
    st: typeOf(object),
    pm_state: PATH_MIGRATED,
    mtu: pathMtu ?? 0,
    log_rq_size: logOf(cap.maxRecvWr),
    log_rq_stride: cap.maxRecvWr === 0 ? 0 : Math.ceil(Math.log2(Math.max(1, cap.maxRecvSge))),
    log_sq_size: logOf(cap.maxSendWr),
    remote_qpn: answer.destQpn ?? 0,
    primary_address_path: {
      ...(address !== undefined && pathFields({ address, ...(dmac && { dmac }) })),
      pkey_index: answer.pkeyIndex ?? 0,
      ack_timeout: answer.timeout ?? 0,
      vhca_port_num: address?.port || port || 0,
    },
    log_sra_max: logOf(answer.maxRdAtomic),
    log_rra_max: logOf(answer.maxDestRdAtomic),
    retry_count: answer.retryCnt ?? 0,
    rnr_retry: answer.rnrRetry ?? 0,
    next_send_psn: answer.sqPsn ?? 0,
    next_rcv_psn: answer.rqPsn ?? 0,
    min_rnr_nak: answer.minRnrTimer ?? 0,
    q_key: answer.qkey ?? 0,
    ...rightsOf(answer.accessFlags ?? 0),
  }
}

export const queryQp = (call: CallContext, object: CoreObject): QpAnswer =>
  callWithin(call, object, { ...object.class.methods.query!, name: 'query' }, {}) as unknown as QpAnswer

export const qpCommands = [
  creation(Commands.CREATE_QP, ({ call, input }, object) => {
    const { qpc: context, wq_umem_id, wq_umem_offset, input_qpn } = input
    const { st, uar_page, rq_type, srqn_rmpn_xrqn, page_offset } = context
    const cls =
      classes[st] ?? refuseCommand('unsupportedFeature', `st ${st}; there are 0 (RC), 1 (UC), 2 (UD), 5 (DCI)`)
    checkFields(context)
    if (input_qpn !== 0) refuseCommand('unsupportedFeature', `input_qpn ${input_qpn}; the device chooses numbers`)
    const uar = findUar(call, uar_page)
    const doorbellPage = context.send_dbr_mode === NO_DBR_EXT ? registerOf(object, uar) : undefined
    const sizes = sizesOf(context)
    const { sendBlocks, receiveRequests, receiveShift } = sizes
    const isShared = rq_type === ReceiveType.SHARED
    const srq = isShared ? findShared(call, 'srqn_rmpn_xrqn', srqn_rmpn_xrqn) : undefined
    const { maxSge, maxRecvSge = maxSge, maxInline } = stateOf(call).soft.limits
    const bytes = receiveRequests * 2 ** receiveShift + sendBlocks * BLOCK_BYTES
    const offset = wq_umem_offset
    const args = {
      pd: findPd(call, context.pd),
      sendCq: findCq(call, 'cqn_snd', context.cqn_snd),
      recvCq: findCq(call, 'cqn_rcv', context.cqn_rcv),
      cap: {
        maxSendWr: sendBlocks,
        maxRecvWr: receiveRequests,
        maxSendSge: sendBlocks === 0 ? 0 : maxSge - 1,
        maxRecvSge: receiveRequests === 0 ? 0 : Math.min(receiveElements(receiveShift), maxRecvSge),
        maxInlineData: sendBlocks === 0 ? 0 : maxInline,
      },
      userHandle: 0n,
      ...(srq !== undefined && { srq }),
      ...(bytes > 0 && {
        bufferAddress: placeOf(call, object, {
          field: 'wq_umem_id',
          umem: wq_umem_id,
          offset,
          pageOffset: page_offset,
          bytes,
        }),
        doorbellAddress: recordPlaceOf(call, object, context),
      }),
      ...sizes,
      ...(doorbellPage && { doorbellPage }),
      ...(st === QpTypes.DCI ? streamsOf(context) : { qpFlags: 0 }),
      uidx: context.user_index,
    }
    return makeObject(call, object, cls, args, ({ object: target, out }) => {
      const qpn = (out as { readonly qpNum: number }).qpNum
      sendEventsOf(object, target, qpn)
      return { out: { qpn }, target, own: context }
    })
  }),

  objectCommand(Commands.QUERY_QP, ({ call }, { object, own }) => {
    const answer = queryQp(call, object)
    const sends = stateOf(call).queues.get((object as QpObject).state.qpn)?.sends
    const place = { hw_sq_wqebb_counter: sends?.taken ?? 0, drain_sigerr: +(sends?.drainsOnFault ?? false) }
    return { qpc: { ...(own as Qpc | undefined), ...contextFields(object as QpObject, answer), ...place } }
  }),
]
