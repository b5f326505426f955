/*
 * Routes and groups of rdma_cm on an InfiniBand port, by the subnet administrator (Linux: cma_query_ib_route,
 * cma_join_ib_multicast).
 */
import { addEventHandler } from '../../core/devices/clients.ts'
import type { ConnectionEnd, DatagramParameters, GroupRequest } from '../../core/driver-contract.ts'
import type { Device } from '../../core/model.ts'
import { AsyncEventType, CmPortSpace, PortState } from '../../spec/enums.ts'
import { callError, Errno } from '../../spec/errno.ts'
import { the } from '../../spec/reason.ts'
import { MULTICAST_QPN } from '../../spec/wire/headers.ts'
import { MadMethod } from '../../spec/wire/management.ts'
import { FULL_MEMBER, JoinState, Selector } from '../../spec/wire/subnet.ts'
import { type SaRecord, saCodecs } from '../../transport/wire/mad/subnet.ts'
import { pkeyIndexOf } from '../cm-client/path.ts'
import type { MadLayer } from '../mad-client/layer.ts'
import { Family, isAny } from '../socket-address.ts'
import { SubnetAdministrator } from './administrator.ts'
import { broadcastGid, groupGid, isGivenGid } from './group-gid.ts'
import { PortGroups } from './groups.ts'

const { UDP, IPOIB } = CmPortSpace.values
const MICROSECONDS = 1000
const { PORT_ACTIVE, LID_CHANGE, SM_CHANGE, PKEY_CHANGE, CLIENT_REREGISTER } = AsyncEventType.values
/** After which a port is not in the group of broadcasts any more, or may join it now. */
const CHANGES: readonly number[] = [PORT_ACTIVE, LID_CHANGE, SM_CHANGE, PKEY_CHANGE, CLIENT_REREGISTER]
/** Of librdmacm's own calls, ms. */
const DEFAULT_TIMEOUT = 2000

export class SubnetRoutes {
  readonly #device: Device
  readonly #administrator: SubnetAdministrator
  readonly #groups: PortGroups
  /** The group of IP's broadcasts, in which the port is as if it had IPoIB's interface. */
  #broadcast: SaRecord<'MCMemberRecord'> | undefined
  #leaveBroadcast: (() => void) | undefined
  readonly #stopEvents: () => void

  constructor(device: Device, mads: Pick<MadLayer, 'createAgent'>, random: () => number) {
    this.#device = device
    this.#administrator = new SubnetAdministrator(device, mads, random)
    this.#groups = new PortGroups(device, this.#administrator)
    // After the groups, which lose their members at these events.
    this.#stopEvents = addEventHandler(device, ({ type }) => {
      if (CHANGES.includes(type)) this.#joinBroadcast()
    })
    this.#joinBroadcast()
  }

  close(): void {
    this.#stopEvents()
    this.#groups.close()
    this.#administrator.close()
  }

  /** The port, in the partition of IP over InfiniBand, or in that of an AF_IB address. */
  #own(pkey?: number): { readonly portGid: Uint8Array; readonly pkey: number } {
    const { gids, pkeys } = this.#device.ports[0]!
    return { portGid: gids.entries[0]!.gid, pkey: pkey ?? pkeys[0]! | FULL_MEMBER }
  }

  #joinBroadcast(): void {
    const { state, smLid } = this.#device.ports[0]!.attributes
    this.#leaveBroadcast?.()
    this.#broadcast = undefined
    if (state !== PortState.values.ACTIVE || smLid === 0) return
    const { portGid, pkey } = this.#own()
    this.#leaveBroadcast = this.#groups.join(
      { mgid: broadcastGid(pkey), portGid, joinState: JoinState.FULL },
      outcome => {
        this.#broadcast = typeof outcome === 'number' ? undefined : outcome
        // Without an answer once more; what else it is, the next change of the port may end.
        if (outcome === -Errno.ETIMEDOUT) this.#joinBroadcast()
      },
    )
  }

  /** As `ConnectionProtocol.datagramKeys`. */
  datagramKeys({ portSpace, qkey, pkey }: ConnectionEnd): { readonly qkey: number; readonly pkeyIndex: number } {
    const { pkeys } = this.#device.ports[0]!
    return {
      qkey: portSpace === IPOIB ? (this.#broadcast?.qkey ?? qkey) : qkey,
      pkeyIndex: pkey === undefined ? 0 : pkeyIndexOf(pkeys, pkey),
    }
  }

  /** As `ConnectionProtocol.resolveRoute`. */
  resolveRoute(
    { localGid, remoteGid, trafficClass, destination, pkey }: ConnectionEnd,
    serviceId: bigint,
    timeout: number,
    done: (path: Uint8Array | number) => void,
  ): () => void {
    if (localGid === undefined || remoteGid === undefined || destination === undefined)
      throw callError.EINVAL`${the.method('cm_id.resolveRoute')}: the address is not resolved`
    const codec = saCodecs.PathRecord
    const quality = destination.family === Family.INET ? { qosClass: trafficClass } : { trafficClass }
    const service = { serviceIdHigh: Number(serviceId >> 32n), serviceIdLow: Number(serviceId & 0xffff_ffffn) }
    const ends = { sgid: localGid, dgid: remoteGid, pkey: this.#own(pkey).pkey }
    const record = { ...service, ...ends, reversible: true, numbPath: 1, ...quality }
    return this.#administrator.ask(
      { name: 'PathRecord', method: MadMethod.GET, record, timeout: (timeout || DEFAULT_TIMEOUT) * MICROSECONDS },
      answer => done(typeof answer === 'number' ? answer : codec.emit({ ...answer, ...service })),
    )
  }

  /** As `ConnectionProtocol.joinGroup`. */
  joinGroup(
    { portSpace, qkey: ownQkey, pkey: ownPkey }: ConnectionEnd,
    { address, isSendOnly }: GroupRequest,
    report: (outcome: Partial<DatagramParameters> | number) => void,
  ): () => void {
    const broadcast = this.#broadcast
    if (broadcast === undefined)
      throw callError.EADDRNOTAVAIL`${the.method('cm_multicast.create')}: ${this.#device.name} has not joined the group of IP's broadcasts, of which other groups take their attributes: it has no subnet manager yet, or one without that group`
    const { family, address: group } = address
    const { portGid, pkey } = this.#own(ownPkey)
    const isOwn = isAny(address) || family === Family.IB || (family === Family.INET6 && isGivenGid(group))
    const mgid = isAny(address) ? new Uint8Array(16) : isOwn ? group : groupGid(group, pkey, portSpace === UDP)
    const { sl, flowLabel, trafficClass, rate, mtu, hopLimit } = broadcast
    const qkey = portSpace === IPOIB ? broadcast.qkey : ownQkey
    const wanted = {
      ...{ mgid, portGid, pkey, qkey },
      ...{ sl, flowLabel, trafficClass, joinState: isSendOnly ? JoinState.SEND_ONLY_FULL : JoinState.FULL },
      ...(portSpace === IPOIB && { rateSelector: Selector.EXACT, rate, mtuSelector: Selector.EXACT, mtu, hopLimit }),
    }
    return this.#groups.join(wanted, outcome =>
      report(
        typeof outcome === 'number'
          ? outcome
          : {
              ...{ qpNum: MULTICAST_QPN, qkey: outcome.qkey, dgid: outcome.mgid, dlid: outcome.mlid, sl: outcome.sl },
              ...{ flowLabel: outcome.flowLabel, hopLimit: outcome.hopLimit, trafficClass: outcome.trafficClass },
              ...{ staticRate: outcome.rate, isGlobal: 1, sgidIndex: 0, port: 1 },
            },
      ),
    )
  }
}
