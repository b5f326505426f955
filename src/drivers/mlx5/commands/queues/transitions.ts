/*
 * Firmware commands that move queue pairs from state to state, those of commands and those of verbs: MODIFY of verbs,
 * with the fields of a queue pair's context. A command takes all attributes of its transition from the context, and
 * others if `opt_param_mask` names them.
 *
 * A path needs a GID of the device's table. The MAC address of the next hop is kept for queries: the device's link
 * finds its peers by GID, as for queue pairs of verbs. `udp_sport` selects the UDP source port.
 */
import { callWithin } from '../../../../core/dispatch/owned.ts'
import type { CallContext, CoreObject } from '../../../../core/model.ts'
import { DciQp } from '../../../../spec/classes/qp/dc_qp.ts'
import { RcQp } from '../../../../spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../../spec/classes/qp/uc_qp.ts'
import { UdQp } from '../../../../spec/classes/qp/ud_qp.ts'
import { Commands } from '../../../../spec/drivers/mlx5-firmware/commands.ts'
import type { RecordOf } from '../../../../spec/drivers/mlx5-firmware/fields.ts'
import { ExtendedOption, QpOption, StaticRates } from '../../../../spec/drivers/mlx5-firmware/queue-values.ts'
import type { ads, qpc } from '../../../../spec/drivers/mlx5-firmware/queues.ts'
import { AccessFlags, QpState } from '../../../../spec/enums.ts'
import { type Address, type Paths, storedAddress } from '../../../soft/address/path.ts'
import type { QpModify, QpObject } from '../../../soft/state.ts'
import { stateOf } from '../../state.ts'
import { objectCommand, refuseCommand } from '../handler.ts'
import { queryQp } from './qp.ts'

type Qpc = RecordOf<typeof qpc>
type Attributes = { -readonly [K in keyof QpModify]: QpModify[K] }

const { RESET, INIT, RTR, RTS, SQE, ERR } = QpState.values
const stateNames = Object.fromEntries(Object.entries(QpState.values).map(([name, value]) => [value, name]))
const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

const FLOW_LABEL_MASK = 0xf_ffff
/** Source ports begin at 0xc000: a flow label of their lower bits selects one (IBA annex A17). */
const PORT_MASK = 0x3fff

const addressOf = ({ none }: Paths, path: RecordOf<typeof ads>): Address => ({
  dgid: path.rgid_rip,
  flowLabel: path.udp_sport === 0 ? path.flow_label & FLOW_LABEL_MASK : path.udp_sport & PORT_MASK,
  sgidIndex: path.src_addr_index,
  hopLimit: path.hop_limit,
  trafficClass: path.dscp === 0 && path.ecn === 0 ? path.tclass : (path.dscp << 2) | path.ecn,
  sl: path.eth_prio === 0 ? path.sl : path.eth_prio,
  staticRate: StaticRates[path.stat_rate] ?? 0,
  isGlobal: none.isGlobal | path.grh,
  port: path.vhca_port_num || 1,
  srcPathBits: path.mlid,
  dlid: path.rlid,
})

const macOf = ({ rmac_47_32, rmac_31_0 }: RecordOf<typeof ads>): Uint8Array => {
  const mac = new Uint8Array(6)
  const view = new DataView(mac.buffer)
  view.setUint16(0, rmac_47_32)
  view.setUint32(2, rmac_31_0)
  return mac
}

const accessOf = ({ rre, rwe, rae }: Qpc): number =>
  (rre && REMOTE_READ) | (rwe && REMOTE_WRITE) | (rae && REMOTE_ATOMIC)

/** The rights that `mask` names come from the context, the others stay. */
const optionalAccess = (context: Qpc, mask: number, present: number): number | undefined => {
  const named =
    (mask & QpOption.RRE && REMOTE_READ) |
    (mask & QpOption.RWE && REMOTE_WRITE) |
    (mask & QpOption.RAE && REMOTE_ATOMIC)
  return named === 0 ? undefined : (present & ~named) | (accessOf(context) & named)
}

/** Attributes of each type in a transition; an initiator of DC, and datagrams, have no path. */
type Pick = (context: Qpc, paths: Paths) => Attributes
const initAttributes = ({ primary_address_path: path }: Qpc): Attributes => ({
  pkeyIndex: path.pkey_index,
  port: path.vhca_port_num || 1,
})
const pathAttributes: Pick = (context, paths) => {
  const { primary_address_path: path, mtu, remote_qpn, next_rcv_psn } = context
  const address = paths.answer({ ...addressOf(paths, path), dmac: macOf(path) })
  return { ...address, pathMtu: mtu, destQpn: remote_qpn, rqPsn: next_rcv_psn }
}
const sendAttributes: Pick = context => ({
  sqPsn: context.next_send_psn,
  timeout: context.primary_address_path.ack_timeout,
  retryCnt: context.retry_count,
  rnrRetry: context.rnr_retry,
  maxRdAtomic: 2 ** context.log_sra_max,
})

const attributesByClass: Readonly<Record<string, { readonly init: Pick; readonly rtr: Pick; readonly rts: Pick }>> = {
  [RcQp.name]: {
    init: context => ({ ...initAttributes(context), accessFlags: accessOf(context) }),
    rtr: (context, paths) => ({
      ...pathAttributes(context, paths),
      maxDestRdAtomic: 2 ** context.log_rra_max,
      minRnrTimer: context.min_rnr_nak,
    }),
    rts: sendAttributes,
  },
  [UcQp.name]: {
    init: context => ({ ...initAttributes(context), accessFlags: accessOf(context) }),
    rtr: pathAttributes,
    rts: ({ next_send_psn }) => ({ sqPsn: next_send_psn }),
  },
  [UdQp.name]: {
    init: context => ({ ...initAttributes(context), qkey: context.q_key }),
    rtr: () => ({}),
    rts: ({ next_send_psn }) => ({ sqPsn: next_send_psn }),
  },
  [DciQp.name]: { init: initAttributes, rtr: ({ mtu }) => ({ pathMtu: mtu }), rts: sendAttributes },
}
const attributesOf = ({ class: { name } }: CoreObject) =>
  attributesByClass[name] ??
  refuseCommand('unsupportedFeature', `queue pairs of class ${name} are modified by verbs only`)

interface Step {
  readonly from: number
  readonly to: number
  readonly attributes: 'init' | 'rtr' | 'rts' | undefined
}

/** What `opt_param_mask` names, beside what the transition takes anyway. */
const optionsOf = (object: QpObject, context: Qpc, mask: number, present: number, { to, from }: Step): Attributes => {
  const hasAccess = object.class.name === RcQp.name || object.class.name === UcQp.name
  const accessFlags = hasAccess ? optionalAccess(context, mask, present) : undefined
  const isRc = object.class.name === RcQp.name
  const isUd = object.class.name === UdQp.name
  return {
    ...(accessFlags !== undefined && { accessFlags }),
    ...(isRc && to === RTS && (mask & QpOption.RNR_TIMEOUT) !== 0 && { minRnrTimer: context.min_rnr_nak }),
    ...(isUd && (mask & QpOption.Q_KEY) !== 0 && { qkey: context.q_key }),
    ...(from === INIT && to === INIT && (mask & QpOption.PRIMARY_PORT) !== 0 && initAttributes(context)),
  }
}

type TransitionInput = { readonly qpn: number; readonly opt_param_mask: number; readonly qpc: Qpc }

const move = (call: CallContext, object: CoreObject, input: TransitionInput, step: Step): Record<never, never> => {
  const { from, to, attributes } = step
  const attributesOfClass = attributesOf(object)
  const { state, accessFlags = 0 } = queryQp(call, object)
  if (state !== from)
    refuseCommand('badState', `qpn ${input.qpn} is in ${stateNames[state]}, not in ${stateNames[from]}`)
  const context = input.qpc
  const args: Attributes = {
    state: to,
    ...(attributes !== undefined && attributesOfClass[attributes](context, stateOf(call).soft.paths)),
    ...optionsOf(object as QpObject, context, input.opt_param_mask, accessFlags, step),
  }
  ;(object as QpObject).state.sendsGivenHops = true
  callWithin(call, object, { ...object.class.methods.modify!, name: 'modify' }, args)
  return {}
}

/** The packets of a connected queue pair come from another UDP port. */
const setSourcePort = (call: CallContext, { state }: QpObject, udpPort: number): void => {
  const { soft } = stateOf(call)
  const { qpn, row } = state
  const address =
    state.address ?? refuseCommand('unsupportedFeature', 'opt_param_mask_95_32: the queue pair has no path')
  const engine = soft.engine()
  const moved = { ...address, flowLabel: udpPort & PORT_MASK }
  const owner = { ecn: soft.ecn, qpn, destQpn: engine.query(row).destQpn, hopLimit: address.hopLimit }
  const flow = soft.paths.open(moved, 'RTS2RTS_QP', owner)
  engine.modify(row, undefined, { flow })
  soft.port.closeFlow(state.flow)
  state.flow = flow
  state.address = storedAddress(soft, moved, address.dmac, moved.hopLimit)
}

/** Whether a signature error of the queue pair's requests stops its queue. */
const setDrain = (call: CallContext, { state: { qpn } }: QpObject, { drain_sigerr }: Qpc): void => {
  const sends = stateOf(call).queues.get(qpn)?.sends
  if (sends !== undefined) sends.drainsOnFault = drain_sigerr === 1
}

const moveTo = (call: CallContext, object: CoreObject, state: number): Record<never, never> => {
  attributesOf(object)
  callWithin(call, object, { ...object.class.methods.modify!, name: 'modify' }, { state })
  return {}
}

export const transitionCommands = [
  objectCommand(Commands.RST2INIT_QP, ({ call, input }, { object }) =>
    move(call, object, input, { from: RESET, to: INIT, attributes: 'init' }),
  ),
  objectCommand(Commands.INIT2INIT_QP, ({ call, input }, { object }) => {
    const drains = (input.opt_param_mask & QpOption.DRAIN_SIGERR) !== 0
    if (drains && object.class.name !== RcQp.name)
      refuseCommand(
        'unsupportedFeature',
        `opt_param_mask: drain_sigerr: only RC queue pairs have it, not ${object.class.name}`,
      )
    const answer = move(call, object, input, { from: INIT, to: INIT, attributes: undefined })
    if (drains) setDrain(call, object as QpObject, input.qpc)
    return answer
  }),
  objectCommand(Commands.INIT2RTR_QP, ({ call, input }, { object }) =>
    move(call, object, input, { from: INIT, to: RTR, attributes: 'rtr' }),
  ),
  objectCommand(Commands.RTR2RTS_QP, ({ call, input }, { object }) =>
    move(call, object, input, { from: RTR, to: RTS, attributes: 'rts' }),
  ),
  objectCommand(Commands.RTS2RTS_QP, ({ call, input }, { object }) => {
    const { qpc_ext, opt_param_mask_95_32: mask, qpc_data_ext, qpc: context } = input
    const { STREAM, UDP_SPORT } = ExtendedOption
    const [hasStream, hasPort] = [(mask & STREAM) !== 0n, (mask & UDP_SPORT) !== 0n]
    if ((mask & ~(STREAM | UDP_SPORT)) !== 0n || (hasStream && qpc_ext === 0))
      refuseCommand(
        'unsupportedFeature',
        `opt_param_mask_95_32 0x${mask.toString(16)}, qpc_ext ${qpc_ext}; there are 1 (stream), with qpc_ext, and 4 (UDP source port)`,
      )
    if (hasStream && object.class.name !== DciQp.name)
      refuseCommand('unsupportedFeature', 'opt_param_mask_95_32: only initiators of DC have streams')
    const answer = move(call, object, input, { from: RTS, to: RTS, attributes: undefined })
    if (hasPort) setSourcePort(call, object as QpObject, context.primary_address_path.udp_sport)
    if (hasStream) {
      const { qpn } = (object as QpObject).state
      stateOf(call).dc.initiators(call.device.core.random).resetStream(qpn, qpc_data_ext.dci_stream_channel_id)
    }
    return answer
  }),
  objectCommand(Commands.SQERR2RTS_QP, ({ call, input }, { object }) =>
    move(call, object, input, { from: SQE, to: RTS, attributes: undefined }),
  ),
  objectCommand(Commands['2ERR_QP'], ({ call }, { object }) => moveTo(call, object, ERR)),
  objectCommand(Commands['2RST_QP'], ({ call }, { object }) => moveTo(call, object, RESET)),
]
