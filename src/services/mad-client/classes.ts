/*
 * The classes of management datagrams: channels and agents, for umad files and the object model (R18, R40). Rules and
 * errors follow Linux's user_mad.c and ib_register_mad_agent.
 */
import { driverClass } from '../../core/devices/driver.ts'
import { findGid, getGid } from '../../core/devices/gids.ts'
import type { DriverClass, MadAddress } from '../../core/driver-contract.ts'
import type { CoreObject, FdObject } from '../../core/model.ts'
import { destroyNow, dropParent } from '../../core/objects/lifetime.ts'
import { PeerTable } from '../../core/objects/peer-table.ts'
import { onUndelivered } from '../../core/undelivered.ts'
import { MadAgentClass } from '../../spec/classes/mad/mad_agent.ts'
import { MAD_CHANNEL_AGENTS, MadChannel } from '../../spec/classes/mad/mad_channel.ts'
import type { IbAddress, QpAddress } from '../../spec/classes/qp/qp.ts'
import { MadAgentFlags } from '../../spec/enums.ts'
import { callError, Errno } from '../../spec/errno.ts'
import { copyOfBytes } from '../../spec/memory.ts'
import { because, type Place, type Reason, the } from '../../spec/reason.ts'
import type { In, RecordOf } from '../../spec/schema/schema.ts'
import { GSI_QPN, MAD_BYTES } from '../../spec/wire/mad.ts'
import {
  dataOffset,
  isSubnetManagement,
  isVendorClass,
  MAD_CLASSES,
  MAD_HEADER_BYTES,
  RMPP_HEADER_END,
  RMPP_VERSION,
  usesRmpp,
} from '../../spec/wire/management.ts'
import { SMI_QPN } from '../../spec/wire/subnet.ts'
import { isMappedIpv4 } from '../../transport/wire/address.ts'
import { madFields } from '../../transport/wire/mad/management.ts'
import { methodsOf } from '../mad-engine/registrations.ts'
import { MadQueue } from './channel.ts'
import type { MadAgent, MadAgentOptions, MadLayer } from './layer.ts'

/** Maximum unfinished sends of one agent. */
const MAX_OUTSTANDING = 1024
/** Linux's MAX_MGMT_VERSION: class versions are below it. */
const MAX_MGMT_VERSION = 0x83
const MICROSECONDS_PER_MS = 1000
const NO_GID = new Uint8Array(16)

interface AgentState {
  readonly queue: MadQueue
  readonly agent: MadAgent<Uint8Array | undefined>
  readonly rmppVersion: number
}

/** `subject`: the call, or an attribute of it. */
const refuse = (subject: Place, why: Reason | string): never => {
  throw callError.EINVAL`${subject}: ${why}`
}

/**
 * Checks an agent's registration, in Linux's order. `agentCount`: number of agents of the channel. Throws CallError
 * EINVAL, ENOMEM, EPROTONOSUPPORT.
 */
const optionsOf = (
  {
    mgmtClass,
    classVersion,
    methods,
    oui = 0,
    rmppVersion = 0,
    flags = 0,
    qpn = GSI_QPN,
  }: In<(typeof MadAgentClass.methods)['create'], CoreObject>,
  agentCount: number,
): MadAgentOptions => {
  const refuseAttribute = (attribute: string, why: string) =>
    refuse(because`${the.method('mad_agent.create')}: ${the.attribute(attribute)}`, why)
  if (qpn !== GSI_QPN && qpn !== SMI_QPN)
    refuseAttribute('qpn', `${qpn} is not ${GSI_QPN}, the queue pair of the general services, or ${SMI_QPN}`)
  if (agentCount >= MAD_CHANNEL_AGENTS)
    throw callError.ENOMEM`${the.method('mad_agent.create')}: the channel has ${MAD_CHANNEL_AGENTS} agents already, the maximum`
  if (rmppVersion !== 0 && rmppVersion !== RMPP_VERSION)
    refuseAttribute('rmppVersion', `${rmppVersion} is not ${RMPP_VERSION}`)
  const isUserRmpp = (flags & MadAgentFlags.values.USER_RMPP) !== 0
  const engineDoesRmpp = rmppVersion !== 0 && !isUserRmpp
  if (mgmtClass === 0) {
    if (isUserRmpp) refuseAttribute('flags', 'USER_RMPP is for agents of a class')
    return { claim: undefined, engineDoesRmpp, qpn }
  }
  if (qpn === SMI_QPN && !isSubnetManagement(mgmtClass))
    refuseAttribute('mgmtClass', `${mgmtClass} is not a class of subnet management`)
  if (qpn === GSI_QPN && (mgmtClass >= MAD_CLASSES || isSubnetManagement(mgmtClass)))
    refuseAttribute('mgmtClass', `${mgmtClass} is not a class of the general services below ${MAD_CLASSES}`)
  if (classVersion >= MAX_MGMT_VERSION)
    refuseAttribute('classVersion', `${classVersion} is not below ${MAX_MGMT_VERSION}`)
  if (isVendorClass(mgmtClass) && oui === 0)
    refuseAttribute('oui', `class ${mgmtClass} is a vendor class, which needs an OUI`)
  if (rmppVersion !== 0 && !usesRmpp(mgmtClass))
    refuseAttribute('rmppVersion', `class ${mgmtClass} has no long messages`)
  return { claim: { mgmtClass, classVersion, oui, methods: methodsOf(methods) }, engineDoesRmpp, qpn }
}

/**
 * The path to an address, with the first P_Key of the port. Throws CallError: EINVAL; ENODATA for an empty entry of the
 * GID table.
 */
const pathOf = (
  agent: CoreObject,
  qpn: number,
  { dgid, sgidIndex, flowLabel, trafficClass, hopLimit, isGlobal }: RecordOf<typeof QpAddress>,
): MadAddress => {
  const attribute = because`${the.method('mad_agent.send')}: ${the.attribute('address')}`
  if (!isGlobal) refuse(attribute, 'isGlobal is 0: a RoCE path needs a global route')
  const { gids, pkeys } = agent.context!.device.ports[0]!
  const { gid } = getGid(gids, sgidIndex)
  if (isMappedIpv4(gid) !== isMappedIpv4(dgid))
    refuse(attribute, `GID index ${sgidIndex} and the destination GID are not both IPv4 or both IPv6`)
  return {
    localGid: gid,
    remoteGid: copyOfBytes(dgid),
    // as on Linux, only 24 bits of the number count
    qpn: qpn & 0xff_ffff,
    pkey: pkeys[0]!,
    flowLabel,
    trafficClass,
    hopLimit,
  }
}

/** The path to a LID. `pkeyIndex`: of the port's table. */
const lidPathOf = (
  agent: CoreObject,
  qpn: number,
  pkeyIndex: number,
  { dgid, dlid, sl, sgidIndex, flowLabel, trafficClass, hopLimit, isGlobal }: RecordOf<typeof IbAddress>,
): MadAddress => {
  const { gids, pkeys, attributes } = agent.context!.device.ports[0]!
  const isWithGrh = isGlobal !== 0
  return {
    localGid: isWithGrh ? getGid(gids, sgidIndex).gid : NO_GID,
    remoteGid: isWithGrh ? copyOfBytes(dgid) : NO_GID,
    lids: { local: attributes.lid, remote: dlid, sl, isGlobal: isWithGrh },
    qpn: qpn & 0xff_ffff,
    pkey: pkeys[pkeyIndex] ?? 0,
    flowLabel,
    trafficClass,
    hopLimit,
  }
}

/** The message to send: one datagram padded to MAD_BYTES, or an RMPP transfer. Throws CallError EINVAL. */
const messageOf = (data: Uint8Array, { agent, rmppVersion }: AgentState): Uint8Array => {
  const refuseData = (why: string) => refuse(because`${the.method('mad_agent.send')}: ${the.attribute('data')}`, why)
  if (data.length < RMPP_HEADER_END) refuseData(`${data.length} bytes; the headers have ${RMPP_HEADER_END}`)
  const { mgmtClass } = madFields(data)
  if (data.length < dataOffset(mgmtClass))
    refuseData(`${data.length} bytes; class ${mgmtClass} has headers of ${dataOffset(mgmtClass)}`)
  if (rmppVersion !== 0 && !usesRmpp(mgmtClass))
    refuseData(`class ${mgmtClass} has no long messages, but the agent is registered for them`)
  const isTransfer = agent.isTransfer(data, mgmtClass)
  if (data.length > MAD_BYTES && !isTransfer)
    refuseData(
      `${data.length} bytes are more than a datagram has (${MAD_BYTES}), and this is not an RMPP message of the agent`,
    )
  const message = new Uint8Array(isTransfer ? data.length : MAD_BYTES)
  message.set(data)
  return message
}

const agentsOf = ({ context, state }: FdObject<MadQueue>): CoreObject<AgentState>[] =>
  context.handles.slots.filter(
    (object): object is CoreObject<AgentState> =>
      object?.class.id === MadAgentClass.id && (object.state as AgentState | undefined)?.queue === state,
  )

/** The sender of a received message, as the address for an answer. */
const addressOf = (
  { remoteGid, localGid, lids, flowLabel, hopLimit, trafficClass }: MadAddress,
  object: CoreObject,
): { readonly address: RecordOf<typeof QpAddress> } | { readonly ibAddress: RecordOf<typeof IbAddress> } => {
  const global = {
    dgid: remoteGid,
    flowLabel,
    // 0 if the port has lost the GID since
    sgidIndex: Math.max(0, findGid(object.context!.device.ports[0]!.gids, localGid)),
    hopLimit,
    trafficClass,
    staticRate: 0,
    port: 1,
  }
  if (lids === undefined) return { address: { ...global, sl: 0, isGlobal: 1 } }
  return {
    ibAddress: { ...global, sl: lids.sl, isGlobal: lids.isGlobal ? 1 : 0, srcPathBits: 0, dlid: lids.remote },
  }
}

/** `layer` returns the MAD layer, and starts it if necessary. */
export const madClasses = (layer: () => MadLayer): readonly DriverClass[] => {
  const unread = new PeerTable('bytes of unread management messages', Number.POSITIVE_INFINITY, 1)
  const channelClass = driverClass<typeof MadChannel, MadQueue>(MadChannel, {
    create({ device }, object, { isManager }) {
      if (isManager === 1) {
        const { name, driver } = device
        if (driver.link !== 'ib' || driver.setSubnetManager === undefined)
          throw callError.EOPNOTSUPP`${the.method('mad_channel.create')}: ${the.attribute('isManager')}: ${name} has no InfiniBand port`
        if (!driver.setSubnetManager(device, true))
          throw callError.EAGAIN`${the.method('mad_channel.create')}: a subnet manager has the port of ${name} already`
      }
      object.state = new MadQueue(object as FdObject, unread, isManager === 1)
      return {}
    },
    query: (_call, { state }) => ({ unread: state.unread }),
    receive(call, object, { bufferBytes }) {
      const { state } = object
      const { message, data, isTaken } = state.take(bufferBytes)
      if (isTaken) onUndelivered(call, () => state.putBack(message))
      const { agent, from, tag, data: fullMessage } = message
      const senderAttributes = from && { ...addressOf(from, object), qpn: from.qpn, pkeyIndex: 0 }
      const status = from === undefined ? Errno.ETIMEDOUT : 0
      return { agent, status, length: fullMessage.length, data, ...senderAttributes, ...(tag && { tag }) }
    },
    destroy({ device }, object) {
      for (const agent of agentsOf(object as FdObject<MadQueue>)) destroyNow(agent, 'close')
      object.state.clear()
      if (object.state.isManager) device.driver.setSubnetManager?.(device, false)
      return {}
    },
  })

  const transfers = new PeerTable('bytes of long messages that are being received', Number.POSITIVE_INFINITY, 1)
  const agentClass = driverClass<typeof MadAgentClass, AgentState>(MadAgentClass, {
    create({ device, context }, object, args) {
      const channel = args.channel as FdObject<MadQueue>
      const { state: queue } = channel
      const options = optionsOf(args, queue.agentCount)
      const agent = layer().createAgent<Uint8Array | undefined>(device, options, {
        receive: (data, from) => queue.post({ agent: object.handle, data, from, tag: undefined }),
        ended(tag, outcome, message) {
          queue.endSend(message)
          if (outcome !== 'timeout') return
          queue.post({ agent: object.handle, data: message.slice(0, MAD_HEADER_BYTES), from: undefined, tag })
        },
        reserve: bytes => transfers.take({ context, qpn: GSI_QPN }, bytes),
        release: bytes => transfers.release(context.account, bytes),
      })
      object.state = { queue, agent, rmppVersion: args.rmppVersion ?? 0 }
      queue.agentCount++
      // The channel is destroyed with its descriptor, even if it has agents; `destroy` destroys them.
      dropParent(object, channel)
      return {}
    },
    query: (_call, { state }) => ({ outstanding: state.agent.outstanding }),
    destroy(_call, { state: { queue, agent } }) {
      agent.close()
      queue.agentCount--
      return {}
    },
    send(_call, object, { address, ibAddress, qpn, pkeyIndex = 0, timeout = 0, retries = 0, tag, data }) {
      const { queue, agent } = object.state
      const path = ibAddress === undefined ? pathOf(object, qpn, address) : lidPathOf(object, qpn, pkeyIndex, ibAddress)
      const message = messageOf(data, object.state)
      if (agent.outstanding >= MAX_OUTSTANDING)
        throw callError.ENOMEM`${the.method('mad_agent.send')}: ${agent.outstanding} sends wait for their response`
      queue.beginSend(message)
      let isSent = false
      try {
        isSent = agent.send(message, path, {
          timeout: timeout * MICROSECONDS_PER_MS,
          retries,
          tag: tag && copyOfBytes(tag),
        })
      } finally {
        if (!isSent) queue.endSend(message)
      }
      if (isSent) return {}
      return refuse(
        the.method('mad_agent.send'),
        because`${the.attribute('data')}: another message with its transaction id waits for its response`,
      )
    },
  })
  return [channelClass, agentClass]
}
