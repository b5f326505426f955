/*
 * Subnet administration (IBA 15), without I/O: answers queries about the subnet, keeps multicast groups, services and
 * subscriptions, and reports notices to subscribers. Records of more than one datagram go by RMPP
 * (services/mad-engine).
 */
import { GSI_QKEY, GSI_QPN, MAD_BASE_VERSION, MAD_BYTES } from '../../spec/wire/mad.ts'
import {
  MAD_STATUS_BUSY,
  MAD_STATUS_UNSUPPORTED,
  MadClass,
  MadMethod,
  RMPP_VERSION,
  RmppFlag,
  RmppType,
} from '../../spec/wire/management.ts'
import {
  CLASS_MANAGER,
  DEFAULT_PARTITION,
  FIRST_MULTICAST_LID,
  FULL_MEMBER,
  NoticeType,
  SA_VERSION,
  SaMethod,
  SaStatus,
  saRecords,
  Trap,
} from '../../spec/wire/subnet.ts'
import { addressKey } from '../../transport/wire/address.ts'
import { madFields } from '../../transport/wire/mad/management.ts'
import {
  noticeCodecs,
  type SaMad,
  type SaRecord,
  type SaRecordName,
  type SmAttribute,
  type SmAttributeName,
  saCodec,
  saCodecs,
  saRecordNames,
  smCodecs,
} from '../../transport/wire/mad/subnet.ts'
import { MadAgentEngine } from '../mad-engine/agent.ts'
import type { MadPath } from '../mad-engine/path.ts'
import type { SubnetPacket } from '../subnet-engine/packet.ts'
import { type Group, Groups, isFull } from './groups.ts'
import { arbitrationReads, serviceLevelReads, type TableRead } from './lanes.ts'
import {
  commonPkey,
  isInPartition,
  PACKET_LIFE_TIME,
  type PathRecord,
  portRate,
  qualityBetween,
  rateOrder,
  selected,
} from './paths.ts'
import type { Path } from './requests.ts'
import { Routes } from './routing.ts'
import { type Change, endPort, type FoundNode, type FoundPort, isSwitch, Subnet } from './subnet.ts'
import { guidRecords, linearRecords, multicastRecords, pkeyRecords, switchRecords } from './tables.ts'

/** The peer of a datagram. */
interface SaPath extends MadPath {
  readonly lid: number
  readonly sl: number
}

interface AdministrationOwner {
  send(packet: SubnetPacket): void
  wakeAt(time: number): void
  /** The members of a group have changed, or it is gone. */
  groupChanged(mlid: number): void
  /** The blocks of the multicast table that a switch has, by modifier. */
  multicastOf(guid: bigint): ReadonlyMap<number, readonly number[]>
  /** Asks a node; `done` is called unless `Administration.clear` is called before. Undefined: it has not answered. */
  read(path: Path, attribute: SmAttributeName, modifier: number, done: (value: object | undefined) => void): void
}

type Query<N extends SaRecordName> = {
  readonly record: SaRecord<N>
  readonly mask: bigint
  readonly from: FoundPort
  readonly path: SaPath
  readonly isTrusted: boolean
  readonly now: number
}

/** What a handler answers: records, or a status. */
type Answer<N extends SaRecordName> = readonly SaRecord<N>[] | number

interface Handler<N extends SaRecordName> {
  /** All records that may match; the mask of the query is applied to them. */
  readonly all?: (query: Query<N>) => readonly SaRecord<N>[]
  /** Records of a query that is more than a comparison; undefined: those of `all`. */
  readonly find?: (query: Query<N>) => Answer<N> | undefined
  /** Requests whose answers are the records. */
  readonly reads?: (query: Query<N>) => readonly TableRead<N>[]
  /** What the peer is told of a record of `all`. */
  readonly shown?: (record: SaRecord<N>, query: Query<N>) => SaRecord<N>
  readonly set?: (query: Query<N>) => Answer<N>
  readonly delete?: (query: Query<N>) => Answer<N>
}

interface Subscription {
  readonly lid: number
  readonly qpn: number
  readonly gid: Uint8Array
  readonly info: SaRecord<'InformInfo'>
}

interface Transfer {
  readonly lid: number
  readonly bytes: number
}

interface Service {
  readonly record: SaRecord<'ServiceRecord'>
  /** µs; Infinity: it has no lease. */
  readonly until: number
  /** Of the port that has registered it. */
  readonly lid: number
}

/** Of a port: each notice is sent to all that match, and repeated until it is answered. */
const MAX_SUBSCRIPTIONS = 64
/** Of a port. */
const MAX_SERVICES = 1024
/** Responses of several datagrams to a port that it has not acknowledged, and their bytes. */
const MAX_TRANSFERS = 32
const MAX_TRANSFER_BYTES = 16 << 20
/** Records of a response; also requests to nodes for records, of all queries together. */
const MAX_RECORDS = 65_536
const REPORT_TIMEOUT = 1_000_000
const REPORT_RETRIES = 3
const TRANSFER_RETRIES = 3
const RESPONSE = MadMethod.RESPONSE
const LEASE_FOREVER = 0xffff_ffff
/** SM_Key of queries that are told who the members of groups are. */
const TRUSTED_KEY = 1n
const HEADER_BYTES = 56
const SA_CAPABILITIES = { OPTIONAL_RECORDS: 1 << 9, UD_MULTICAST: 1 << 10, SUBSCRIBE: 1 << 1 } as const
/** In `capabilityMask2`: members that only send may be full members. */
const SEND_ONLY_FULL_MEMBERS = 1 << 12
/** RespTimeValue: about a second. */
const RESPONSE_TIME = 18
/** The group of IP over InfiniBand's broadcasts (RFC 4391), and what OpenSM gives it. */
const BROADCAST = { qkey: 0x0b1b, mtu: 4, rate: 3 } as const
const ANY_TYPE = 0xffff
const ANY_LID = 0xffff
const LINK_LOCAL_SCOPE = 2

const emptyGid = (): Uint8Array => new Uint8Array(16)
const gidOf = (prefix: bigint, guid: bigint): Uint8Array => {
  const gid = emptyGid()
  const view = new DataView(gid.buffer)
  view.setBigUint64(0, prefix)
  view.setBigUint64(8, guid)
  return gid
}
const guidOf = (gid: Uint8Array): bigint => new DataView(gid.buffer, gid.byteOffset).getBigUint64(8)
const isMulticast = (gid: Uint8Array): boolean => gid[0] === 0xff
/**
 * Whether a client may create this group: the upper flags are zero, and names that a manager gives have no link-local
 * scope (15.2.5.17.1, o15-0.1.6).
 */
const mayName = (mgid: Uint8Array): boolean =>
  isMulticast(mgid) &&
  (mgid[1]! & 0xe0) === 0 &&
  !(mgid[2] === 0xa0 && mgid[3] === 0x1b && (mgid[1]! & 0xf) === LINK_LOCAL_SCOPE)
const isZero = (bytes: Uint8Array): boolean => bytes.every(byte => byte === 0)

/** The address of a LID, as the engine of datagrams compares it. */
const peerAddress = (lid: number): Uint8Array => gidOf(0n, BigInt(lid))

export class Administration {
  readonly #gidPrefix: bigint
  readonly #owner: AdministrationOwner
  /** Sends of transfers have what they take. */
  readonly #agent: MadAgentEngine<SaPath, Transfer | undefined>
  /** Transfers that have not ended, by LID. */
  readonly #transfers = new Map<number, { count: number; bytes: number }>()
  readonly #groups = new Groups()
  /** Requests to nodes without an answer so far. */
  #openReads = 0
  readonly #services = new Map<string, Service>()
  readonly #subscriptions = new Map<string, Subscription>()
  #subnet = new Subnet()
  #routes = new Routes(this.#subnet)
  #ownGuid = 0n
  #ownSm: SmAttribute<'SMInfo'> | undefined
  #tid = 1n
  #now = 0
  #nextGroup: bigint

  constructor({ gidPrefix, random }: { gidPrefix: bigint; random: bigint }, owner: AdministrationOwner) {
    this.#gidPrefix = gidPrefix
    this.#owner = owner
    this.#nextGroup = random & 0xffff_ffffn
    this.#agent = new MadAgentEngine<SaPath, Transfer | undefined>(
      { highTid: Number((random >> 8n) & 0x7f_ffffn) + 1, engineDoesRmpp: true },
      {
        transmit: (mad, path) => this.#transmit(mad, path),
        wakeAt: time => owner.wakeAt(time),
        deliver: (message, path) => this.#onMessage(message, path),
        ended: transfer => transfer && this.#onTransferEnd(transfer),
      },
    )
  }

  #transmit(mad: Uint8Array, { lid, sl, qpn }: SaPath): void {
    const slid = this.#ownPort?.info.lid ?? 0
    const header = { slid, dlid: lid, sl, sourceQp: GSI_QPN, destQp: qpn, pkey: DEFAULT_PARTITION, qkey: GSI_QKEY }
    this.#owner.send({ ...header, mad, hops: 0 })
  }

  get #ownPort(): FoundPort | undefined {
    return this.#subnet.portOfGuid(this.#ownGuid)
  }

  /** LIDs of the groups. */
  mlids(): number[] {
    return [...this.#groups.all].map(({ record }) => record.mlid)
  }

  /** GUIDs of the ports in the group with this LID. */
  membersOf(mlid: number): bigint[] {
    return [...(this.#groups.ofLid(mlid)?.members.keys() ?? [])]
  }

  // ---- the subnet ----

  /**
   * After a sweep; `change`: all that it has found. Ports that came or went are told to subscribers; who went has left
   * its groups.
   */
  update(
    subnet: Subnet,
    routes: Routes,
    ownGuid: bigint,
    ownSm: SmAttribute<'SMInfo'>,
    now: number,
    change?: Change,
  ): void {
    const before = this.#subnet
    this.#subnet = subnet
    this.#routes = routes
    this.#ownGuid = ownGuid
    this.#ownSm = ownSm
    this.#now = now
    const guidsOf = (nodes: Iterable<FoundNode>) =>
      new Set([...nodes].flatMap(node => (endPort(node) === undefined ? [] : node.info.portGuid)))
    const [was, is] =
      change === undefined
        ? [guidsOf(before.nodes.values()), guidsOf(subnet.nodes.values())]
        : [guidsOf(change.removed), guidsOf(change.added)]
    this.#createBroadcastGroups([...is].flatMap(guid => subnet.portOfGuid(guid) ?? []))
    for (const guid of was)
      if (!is.has(guid)) {
        this.#notifyGid(Trap.GID_OUT, gidOf(this.#gidPrefix, guid))
        for (const group of [...this.#groups.all]) if (group.members.has(guid)) this.#leave(group, guid, 0xf)
      }
    if (before.nodes.size > 0)
      for (const guid of is) if (!was.has(guid)) this.#notifyGid(Trap.GID_IN, gidOf(this.#gidPrefix, guid))
  }

  /** One for each partition of these ports. */
  #createBroadcastGroups(ports: readonly FoundPort[]): void {
    const partitions = new Set<number>()
    for (const { pkeys } of ports) for (const key of pkeys) if (key !== 0) partitions.add(key | FULL_MEMBER)
    for (const pkey of [DEFAULT_PARTITION, ...partitions]) {
      if (pkey === FULL_MEMBER) continue
      const mgid = Uint8Array.from([
        0xff,
        0x12,
        0x40,
        0x1b,
        pkey >> 8,
        pkey & 0xff,
        0,
        0,
        0,
        0,
        0,
        0,
        255,
        255,
        255,
        255,
      ])
      if (this.#groups.find(mgid) !== undefined) continue
      const empty = saCodecs.MCMemberRecord.parse(new Uint8Array(saCodecs.MCMemberRecord.bytes))
      const life = { packetLifeTimeSelector: 2, packetLifeTime: PACKET_LIFE_TIME }
      this.#groups.create(
        { ...empty, mgid, ...BROADCAST, mtuSelector: 2, rateSelector: 2, ...life, pkey, scope: 2 },
        true,
      )
    }
  }

  /** Forgets groups, services and subscriptions: another manager has the subnet. */
  clear(): void {
    this.#groups.clear()
    this.#services.clear()
    this.#subscriptions.clear()
    this.#agent.close()
    this.#openReads = 0
    this.#subnet = new Subnet()
    this.#routes = new Routes(this.#subnet)
  }

  // ---- datagrams and time ----

  /** A datagram to queue pair 1 of the manager's port. Returns false if it is of another class. */
  onPacket({ mad, slid, sl, sourceQp }: SubnetPacket, now: number): boolean {
    if (mad[1] !== MadClass.SUBNET_ADMINISTRATION || mad.length !== MAD_BYTES) return false
    this.#now = now
    if (mad[0] !== MAD_BASE_VERSION || mad[2] !== SA_VERSION || slid === 0) return true
    const { method } = madFields(mad)
    // A response of the administration itself, or a table that a client sends: nothing that is asked for.
    if (method === (MadMethod.GET_TABLE | RESPONSE) && saCodec.parse(mad).rmpp[1] === RmppType.DATA) return true
    const path = { lid: slid, sl, qpn: sourceQp, localGid: emptyGid(), remoteGid: peerAddress(slid) }
    this.#agent.onMad(mad, path, now)
    return true
  }

  onTimeout(now: number): void {
    this.#now = now
    for (const [key, { until }] of this.#services) {
      if (until <= now) this.#services.delete(key)
      else if (until !== Number.POSITIVE_INFINITY) this.#owner.wakeAt(until)
    }
    this.#agent.onTimeout(now)
    this.#owner.wakeAt(this.#agent.nextTimeout())
  }

  #onMessage(message: Uint8Array, path: SaPath): void {
    if (message.length !== MAD_BYTES) return
    const request = saCodec.parse(message)
    if ((request.method & RESPONSE) !== 0) return
    const name = saRecordNames.get(request.attribute)
    if (name === undefined) {
      this.#respond(request, path, MAD_STATUS_UNSUPPORTED)
      return
    }
    const respond = (answer: Answer<SaRecordName>): void => {
      if (typeof answer === 'number') this.#respond(request, path, answer)
      else this.#respond(request, path, 0, name, answer)
    }
    const answer = this.#answer(name, request, path, respond)
    if (answer !== undefined) respond(answer)
  }

  /** Undefined: the answer is passed to `later`. */
  #answer(
    name: SaRecordName,
    request: SaMad,
    path: SaPath,
    later: (answer: Answer<SaRecordName>) => void,
  ): Answer<SaRecordName> | undefined {
    const handler = this.#handlers[name] as AnyHandler | undefined
    const from = this.#subnet.portOfLid(path.lid)
    if (handler === undefined) return MAD_STATUS_UNSUPPORTED
    if (from === undefined) return SaStatus.REQUEST_INVALID
    const codec = saCodecs[name] as unknown as AnyCodec
    const record = codec.parse(request.data)
    const isTrusted = request.smKey === TRUSTED_KEY
    const query = { record, mask: request.componentMask, from, path, isTrusted, now: this.#now }
    switch (request.method) {
      case MadMethod.GET:
      case MadMethod.GET_TABLE: {
        const found = handler.find?.(query)
        if (found !== undefined) return found
        if (handler.reads !== undefined) return this.#read(handler.reads(query), later)
        const all = handler.all?.(query)
        const matching = all?.filter(each => codec.matches(each, record, query.mask))
        const { shown } = handler
        return (shown === undefined ? matching : matching?.map(each => shown(each, query))) ?? MAD_STATUS_UNSUPPORTED
      }
      case MadMethod.SET:
        return handler.set?.(query) ?? MAD_STATUS_UNSUPPORTED
      case SaMethod.DELETE:
        return handler.delete?.(query) ?? MAD_STATUS_UNSUPPORTED
      default:
        return MAD_STATUS_UNSUPPORTED
    }
  }

  #read(
    reads: readonly TableRead<SaRecordName>[],
    done: (records: readonly SaRecord<SaRecordName>[]) => void,
  ): Answer<SaRecordName> | undefined {
    if (this.#openReads + reads.length > MAX_RECORDS) return MAD_STATUS_BUSY
    if (reads.length === 0) return []
    const records: (SaRecord<SaRecordName> | undefined)[] = []
    let open = reads.length
    this.#openReads += open
    for (const [i, { path, attribute, modifier, record }] of reads.entries())
      this.#owner.read(path, attribute, modifier, value => {
        this.#openReads--
        records[i] = value && record(value as never)
        if (--open === 0) done(records.filter(each => each !== undefined))
      })
    return undefined
  }

  #respond(request: SaMad, path: SaPath, status: number, name?: SaRecordName, records: readonly object[] = []): void {
    const isTable = request.method === MadMethod.GET_TABLE
    let failed = status
    // Of a Get there is one record.
    if (status === 0 && !isTable && records.length !== 1)
      failed = records.length === 0 ? SaStatus.NO_RECORDS : SaStatus.TOO_MANY_RECORDS
    if (records.length > MAX_RECORDS) failed = SaStatus.NO_RESOURCES
    const codec = name && (saCodecs[name] as unknown as AnyCodec)
    const step = codec === undefined ? 0 : Math.ceil(codec.bytes / 8)
    const transfer = { lid: path.lid, bytes: HEADER_BYTES + records.length * step * 8 }
    if (isTable && failed === 0 && !this.#mayTransfer(transfer)) failed = MAD_STATUS_BUSY
    const list = failed === 0 ? records : []
    const bytes = isTable && failed === 0 ? Math.max(HEADER_BYTES + list.length * step * 8, HEADER_BYTES) : MAD_BYTES
    const message = new Uint8Array(Math.max(bytes, HEADER_BYTES))
    const header = new Uint8Array(MAD_BYTES)
    const rmpp = Uint8Array.from([RMPP_VERSION, RmppType.DATA, isTable && failed === 0 ? RmppFlag.ACTIVE : 0])
    const method = request.method === MadMethod.SET || request.method === MadMethod.GET ? MadMethod.GET : request.method
    saCodec.emit(
      {
        ...request,
        method: method | RESPONSE,
        status: failed,
        rmpp: isTable && failed === 0 ? rmpp : new Uint8Array(12),
        attributeOffset: isTable ? step : 0,
        // A failed request comes back as it was.
        data: failed === 0 ? new Uint8Array(0) : request.data,
      },
      header,
    )
    message.set(header.subarray(0, message.length))
    for (const [i, record] of list.entries()) codec!.emit(record, message, HEADER_BYTES + i * step * 8)
    const options = { timeout: 0, retries: TRANSFER_RETRIES, tag: undefined }
    if (!isTable || failed !== 0) this.#agent.send(message, path, options, this.#now)
    else if (this.#agent.send(message, path, { ...options, tag: transfer }, this.#now)) this.#onTransfer(transfer)
  }

  #mayTransfer({ lid, bytes }: Transfer): boolean {
    const used = this.#transfers.get(lid)
    return used === undefined || (used.count < MAX_TRANSFERS && used.bytes + bytes <= MAX_TRANSFER_BYTES)
  }

  #onTransfer({ lid, bytes }: Transfer): void {
    const used = this.#transfers.get(lid) ?? { count: 0, bytes: 0 }
    this.#transfers.set(lid, { count: used.count + 1, bytes: used.bytes + bytes })
  }

  #onTransferEnd({ lid, bytes }: Transfer): void {
    const { count, bytes: all } = this.#transfers.get(lid) ?? { count: 1, bytes }
    if (count === 1) this.#transfers.delete(lid)
    else this.#transfers.set(lid, { count: count - 1, bytes: all - bytes })
  }

  // ---- records ----

  readonly #handlers: { readonly [N in SaRecordName]?: Handler<N> } = {
    ClassPortInfo: { find: () => [this.#classPortInfo()] },
    NodeRecord: {
      all: () =>
        this.#subnet.endPorts.map(({ node, info }) => ({ lid: info.lid, ...node.info, description: node.description })),
    },
    PortInfoRecord: {
      all: () =>
        this.#subnet.endPorts.flatMap(({ node, info: { lid: endPortLid } }) =>
          [...node.ports.values()].map(({ number: portNum, info }) => ({ endPortLid, portNum, options: 0, ...info })),
        ),
    },
    SMInfoRecord: {
      all: () => [
        ...(this.#ownSm === undefined ? [] : [{ lid: this.#ownPort?.info.lid ?? 0, ...this.#ownSm }]),
        ...this.#subnet.endPorts.flatMap(({ node, info }) => (node.smInfo ? [{ lid: info.lid, ...node.smInfo }] : [])),
      ],
    },
    LinkRecord: { all: () => this.#links() },
    SwitchInfoRecord: { all: () => switchRecords(this.#subnet) },
    LinearForwardingTableRecord: { all: () => linearRecords(this.#routes) },
    MulticastForwardingTableRecord: {
      all: () => multicastRecords(this.#subnet, node => this.#owner.multicastOf(node.info.portGuid)),
    },
    GUIDInfoRecord: { all: () => guidRecords(this.#subnet) },
    // Only who is trusted is told (15.4.1.2).
    P_KeyTableRecord: {
      find: ({ isTrusted }) => (isTrusted ? undefined : SaStatus.REQUEST_INVALID),
      all: () => pkeyRecords(this.#subnet),
    },
    SLtoVLMappingTableRecord: {
      reads: query => serviceLevelReads(this.#subnet, named('SLtoVLMappingTableRecord', query)),
    },
    VLArbitrationTableRecord: {
      reads: query => arbitrationReads(this.#subnet, named('VLArbitrationTableRecord', query)),
    },
    PathRecord: { find: query => this.#paths(query) },
    MCMemberRecord: {
      all: query => this.#memberRecords(query),
      set: query => this.#join(query),
      delete: query => this.#leaveBy(query),
    },
    ServiceRecord: {
      all: () => [...this.#services.values()].map(({ record }) => record),
      shown: (record, { isTrusted }) => shownService(record, isTrusted),
      set: query => this.#register(query),
      delete: query => this.#deregister(query),
    },
    InformInfo: { set: query => this.#subscribe(query) },
    InformInfoRecord: {
      all: () =>
        [...this.#subscriptions.values()].map(({ gid: subscriberGid, info }, enumeration) => ({
          subscriberGid,
          enumeration,
          ...info,
        })),
    },
  }

  #classPortInfo(): SaRecord<'ClassPortInfo'> {
    const empty = saCodecs.ClassPortInfo.parse(new Uint8Array(saCodecs.ClassPortInfo.bytes))
    const { OPTIONAL_RECORDS, UD_MULTICAST, SUBSCRIBE } = SA_CAPABILITIES
    return {
      ...empty,
      baseVersion: MAD_BASE_VERSION,
      classVersion: SA_VERSION,
      capabilityMask: OPTIONAL_RECORDS | UD_MULTICAST | SUBSCRIBE,
      capabilityMask2: SEND_ONLY_FULL_MEMBERS,
      responseTime: RESPONSE_TIME,
      redirectQpn: GSI_QPN,
      redirectQKey: GSI_QKEY,
      trapQKey: GSI_QKEY,
    }
  }

  #links(): SaRecord<'LinkRecord'>[] {
    const lidOf = (port: FoundPort): number =>
      isSwitch(port.node) ? (port.node.ports.get(0)?.info.lid ?? 0) : port.info.lid
    return [...this.#subnet.nodes.values()].flatMap(node =>
      [...node.ports.values()].flatMap(port =>
        port.peer === undefined
          ? []
          : [{ fromLid: lidOf(port), fromPort: port.number, toPort: port.peer.number, toLid: lidOf(port.peer) }],
      ),
    )
  }

  /** End ports that a query names by GID, LID, or not at all. */
  #endsOf(gid: Uint8Array | undefined, lid: number | undefined): readonly FoundPort[] {
    const byGid = gid && this.#portOfGid(gid)
    const byLid = lid === undefined ? undefined : this.#subnet.portOfLid(lid)
    if ((gid !== undefined && byGid === undefined) || (lid !== undefined && byLid === undefined)) return []
    if (byGid !== undefined && byLid !== undefined && byGid !== byLid) return []
    const one = byGid ?? byLid
    return one === undefined ? this.#subnet.endPorts : [one]
  }

  #portOfGid(gid: Uint8Array): FoundPort | undefined {
    const port = this.#subnet.portOfGuid(guidOf(gid))
    return port !== undefined && addressKey(gid) === addressKey(this.#gidOf(port)) ? port : undefined
  }

  #gidOf({ node }: FoundPort): Uint8Array {
    return gidOf(this.#gidPrefix, node.info.portGuid)
  }

  #paths({ record, mask }: Query<'PathRecord'>): Answer<'PathRecord'> {
    const codec = saCodecs.PathRecord
    const names = new Set(codec.names(mask))
    const given = <T>(name: keyof PathRecord, value: T): T | undefined => (names.has(name) ? value : undefined)
    const sources = this.#endsOf(given('sgid', record.sgid), given('slid', record.slid))
    const group = names.has('dgid') && isMulticast(record.dgid) ? this.#groups.find(record.dgid) : undefined
    if (group !== undefined) return this.#groupPaths(group, sources)
    const targets = this.#endsOf(given('dgid', record.dgid), given('dlid', record.dlid))
    const most = names.has('numbPath') && record.numbPath > 0 ? record.numbPath : Number.POSITIVE_INFINITY
    const isOfOnePair = sources.length === 1 && targets.length === 1
    const found: PathRecord[] = []
    for (const from of sources)
      for (const to of targets) {
        const path = this.#path(record, names, from, to)
        // NumbPath counts the paths of a pair, of which there is one.
        if (path !== undefined && (isOfOnePair || most > 0)) found.push(path)
        if (found.length > MAX_RECORDS) return SaStatus.NO_RESOURCES
      }
    return found
  }

  #path(record: PathRecord, names: ReadonlySet<string>, from: FoundPort, to: FoundPort): PathRecord | undefined {
    const quality = qualityBetween(this.#routes, from, to)
    const pkey = commonPkey(from, to, names.has('pkey') ? record.pkey : undefined)
    if (quality === undefined || pkey === undefined || (names.has('rawTraffic') && record.rawTraffic)) return undefined
    const wanted = (name: 'mtu' | 'rate' | 'packetLifeTime') =>
      names.has(name) && names.has(`${name}Selector`)
        ? { selector: record[`${name}Selector`], value: record[name] }
        : undefined
    const mtu = selected(quality.mtu, wanted('mtu'))
    const rate = selected(quality.rate, wanted('rate'), rateOrder)
    const packetLifeTime = selectedLifeTime(quality.packetLifeTime, wanted('packetLifeTime'))
    if (mtu === undefined || rate === undefined || packetLifeTime === undefined) return undefined
    return {
      ...emptyPath(),
      dgid: this.#gidOf(to),
      sgid: this.#gidOf(from),
      dlid: to.info.lid,
      slid: from.info.lid,
      flowLabel: names.has('flowLabel') ? record.flowLabel : 0,
      trafficClass: names.has('trafficClass') ? record.trafficClass : 0,
      reversible: true,
      pkey,
      sl: names.has('sl') ? record.sl : 0,
      mtuSelector: 2,
      mtu,
      rateSelector: 2,
      rate,
      packetLifeTimeSelector: 2,
      packetLifeTime,
    }
  }

  #groupPaths({ record: group }: Group, sources: readonly FoundPort[]): PathRecord[] {
    const { mgid: dgid, mlid: dlid, flowLabel, hopLimit, trafficClass, pkey, sl, mtu, rate, packetLifeTime } = group
    const fields = { dgid, dlid, flowLabel, hopLimit, trafficClass, pkey, sl, mtu, rate, packetLifeTime }
    const selectors = { mtuSelector: 2, rateSelector: 2, packetLifeTimeSelector: 2 }
    return sources
      .filter(from => isInPartition(from, pkey))
      .map(from => ({ ...emptyPath(), ...fields, ...selectors, sgid: this.#gidOf(from), slid: from.info.lid }))
  }

  // ---- multicast ----

  /** Groups; to those that may know, and where a port is asked for, members. */
  #memberRecords({ mask, isTrusted }: Query<'MCMemberRecord'>): SaRecord<'MCMemberRecord'>[] {
    const wantsMembers = isTrusted || saCodecs.MCMemberRecord.names(mask).includes('portGid')
    return [...this.#groups.all].flatMap(({ record, members }) =>
      wantsMembers && members.size > 0
        ? [...members].map(([guid, joinState]) => ({ ...record, portGid: gidOf(this.#gidPrefix, guid), joinState }))
        : [record],
    )
  }

  #join({ record, mask, from, now }: Query<'MCMemberRecord'>): Answer<'MCMemberRecord'> {
    const names = new Set(saCodecs.MCMemberRecord.names(mask))
    if (!['mgid', 'portGid', 'joinState'].every(name => names.has(name)) || record.joinState === 0)
      return SaStatus.INSUFFICIENT_COMPONENTS
    const port = this.#portOfGid(record.portGid)
    if (port === undefined) return SaStatus.INVALID_GID
    // For another port, of a partition of the requester's (o15-0.1.12).
    const isProxy = port !== from
    if (isProxy && commonPkey(from, port) === undefined) return SaStatus.REQUEST_INVALID
    let group = isZero(record.mgid) ? undefined : this.#groups.find(record.mgid)
    const isNew = group === undefined
    if (group === undefined) {
      const made = this.#create(record, names, port)
      if (typeof made === 'number') return made
      group = made
    } else if (!fitsGroup(record, names, group.record, port)) return SaStatus.REQUEST_INVALID
    const joinState = this.#groups.join(group, port.node.info.portGuid, record.joinState)
    if (joinState === undefined) return SaStatus.NO_RESOURCES
    if (isProxy && joinState === record.joinState) group.proxied.add(port.node.info.portGuid)
    else if (!isProxy) group.proxied.delete(port.node.info.portGuid)
    this.#now = now
    if (isNew) this.#notifyGid(Trap.GROUP_CREATED, group.record.mgid)
    this.#owner.groupChanged(group.record.mlid)
    return [{ ...group.record, portGid: record.portGid, joinState, proxyJoin: isProxy }]
  }

  /** A group with the fields of who creates it. */
  #create(record: SaRecord<'MCMemberRecord'>, names: ReadonlySet<string>, port: FoundPort): Group | number {
    const needed = ['qkey', 'pkey', 'trafficClass', 'sl', 'flowLabel']
    if (!isFull(record.joinState) || !needed.every(name => names.has(name))) return SaStatus.REQUEST_INVALID
    if (!isInPartition(port, record.pkey)) return SaStatus.REQUEST_INVALID
    const scope = names.has('scope') ? record.scope : 2
    const mgid = isZero(record.mgid) ? this.#newGid(scope) : record.mgid
    if (!isZero(record.mgid) && !mayName(mgid)) return SaStatus.REQUEST_INVALID
    const wanted = (name: 'mtu' | 'rate') =>
      names.has(name) && names.has(`${name}Selector`)
        ? { selector: record[`${name}Selector`], value: record[name] }
        : undefined
    const mtu = selected(port.info.neighborMtu, wanted('mtu'))
    const rate = selected(portRate(port), wanted('rate'), rateOrder)
    if (mtu === undefined || rate === undefined) return SaStatus.REQUEST_INVALID
    const packetLifeTime = names.has('packetLifeTime') ? record.packetLifeTime : PACKET_LIFE_TIME
    const { qkey, pkey, trafficClass, sl, flowLabel } = record
    const hopLimit = names.has('hopLimit') ? record.hopLimit : 0
    const selectors = { mtuSelector: 2, rateSelector: 2, packetLifeTimeSelector: 2 }
    const fields = { qkey, pkey, trafficClass, sl, flowLabel, hopLimit, scope, mtu, rate, packetLifeTime }
    return this.#groups.create({ ...record, mgid, ...fields, ...selectors }, false) ?? SaStatus.NO_RESOURCES
  }

  /** Transient, with the signature of groups that a manager names (15.2.5.17.1). */
  #newGid(scope: number): Uint8Array {
    for (;;) {
      const gid = Uint8Array.from([0xff, 0x10 | scope, 0xa0, 0x1b, ...emptyGid().subarray(4)])
      const view = new DataView(gid.buffer)
      view.setBigUint64(4, this.#gidPrefix)
      view.setUint32(12, Number(this.#nextGroup++ & 0xffff_ffffn))
      if (this.#groups.find(gid) === undefined) return gid
    }
  }

  #leaveBy({ record, mask, from }: Query<'MCMemberRecord'>): Answer<'MCMemberRecord'> {
    const names = saCodecs.MCMemberRecord.names(mask)
    if (!['mgid', 'portGid', 'joinState'].every(name => names.includes(name))) return SaStatus.INSUFFICIENT_COMPONENTS
    const group = this.#groups.find(record.mgid)
    const port = this.#portOfGid(record.portGid)
    const guid = guidOf(record.portGid)
    const state = group?.members.get(guid)
    // All of the join states that it gives up, and at least one (o15-0.1.14).
    const isHeld = state !== undefined && record.joinState !== 0 && (record.joinState & ~state) === 0
    if (group === undefined || !isHeld) return SaStatus.REQUEST_INVALID
    const isProxy = port !== undefined && group.proxied.has(guid) && commonPkey(from, port) !== undefined
    if (port !== from && !isProxy) return SaStatus.REQUEST_INVALID
    this.#leave(group, guid, record.joinState)
    // What it still has.
    return [{ ...group.record, portGid: record.portGid, joinState: state & ~record.joinState }]
  }

  #leave(group: Group, guid: bigint, joinState: number): void {
    if (this.#groups.leave(group, guid, joinState)) this.#notifyGid(Trap.GROUP_DELETED, group.record.mgid)
    this.#owner.groupChanged(group.record.mlid)
  }

  // ---- services ----

  #register({ record, mask, path: { lid }, now, isTrusted }: Query<'ServiceRecord'>): Answer<'ServiceRecord'> {
    const names = saCodecs.ServiceRecord.names(mask)
    if (!['serviceId', 'gid'].every(name => names.includes(name))) return SaStatus.INSUFFICIENT_COMPONENTS
    // As with OpenSM, a service may have any GID.
    const key = serviceKey(record)
    const known = this.#services.get(key)
    const own = [...this.#services.values()].filter(service => service.lid === lid)
    if (known === undefined && own.length >= MAX_SERVICES) return SaStatus.NO_RESOURCES
    const lease = names.includes('lease') ? record.lease : LEASE_FOREVER
    const until = lease === LEASE_FOREVER ? Number.POSITIVE_INFINITY : now + lease * 1_000_000
    const entry = { ...record, lease }
    this.#services.set(key, { record: entry, until, lid })
    this.#owner.wakeAt(until)
    return [shownService(entry, isTrusted)]
  }

  #deregister({ record, path: { lid }, isTrusted }: Query<'ServiceRecord'>): Answer<'ServiceRecord'> {
    const key = serviceKey(record)
    const known = this.#services.get(key)
    if (known === undefined) return SaStatus.NO_RECORDS
    // By who has registered it, or who knows its key.
    if (known.lid !== lid && addressKey(known.record.key) !== addressKey(record.key)) return SaStatus.REQUEST_INVALID
    this.#services.delete(key)
    return [shownService(known.record, isTrusted)]
  }

  // ---- notices ----

  #subscribe({ record: info, path, from }: Query<'InformInfo'>): Answer<'InformInfo'> {
    const { subscribe, gid, lidBegin, lidEnd, isGeneric, type, trapNumber, producerType } = info
    const key = [
      path.lid,
      path.qpn,
      addressKey(gid),
      lidBegin,
      lidEnd,
      isGeneric,
      type,
      trapNumber,
      producerType,
    ].join()
    if (subscribe > 1 || isGeneric > 1) return SaStatus.REQUEST_INVALID
    if (subscribe === 1) {
      const own = [...this.#subscriptions.values()].filter(({ lid }) => lid === path.lid)
      if (!this.#subscriptions.has(key) && own.length >= MAX_SUBSCRIPTIONS) return SaStatus.NO_RESOURCES
      this.#subscriptions.set(key, { lid: path.lid, qpn: path.qpn, gid: this.#gidOf(from), info })
    } else if (!this.#subscriptions.delete(key)) return SaStatus.REQUEST_INVALID
    return [info]
  }

  #notifyGid(trap: 64 | 65 | 66 | 67, gid: Uint8Array): void {
    const own = this.#ownPort
    if (own === undefined) return
    const notice = new Uint8Array(64)
    const data = new Uint8Array(54)
    noticeCodecs[trap].emit({ gid }, data)
    const kind = { isGeneric: true, type: NoticeType.SUBNET_MANAGEMENT, producerType: CLASS_MANAGER }
    smCodecs.Notice.emit({ ...kind, trapNumber: trap, issuerLid: own.info.lid, data }, notice)
    this.notify(notice, own, this.#now)
  }

  /** Reports a notice (64 bytes) of an end port to those who have subscribed to such ones. */
  notify(notice: Uint8Array, issuer: FoundPort, now: number): void {
    const fields = smCodecs.Notice.parse(notice)
    for (const [key, { lid, qpn, info }] of this.#subscriptions) {
      if (!wantsNotice(info, fields, issuer, this.#gidOf(issuer))) continue
      if (this.#subnet.portOfLid(lid) === undefined) {
        this.#subscriptions.delete(key)
        continue
      }
      const data = new Uint8Array(saCodecs.Notice.bytes)
      saCodecs.Notice.emit({ ...fields, issuerGid: this.#gidOf(issuer) }, data)
      const mad = saCodec.emit({
        baseVersion: MAD_BASE_VERSION,
        mgmtClass: MadClass.SUBNET_ADMINISTRATION,
        classVersion: SA_VERSION,
        method: MadMethod.REPORT,
        tid: this.#tid++ & 0xffff_ffffn,
        attribute: saRecords.Notice.id,
        data,
      })
      const path = { lid, sl: 0, qpn, localGid: emptyGid(), remoteGid: peerAddress(lid) }
      this.#agent.send(mad, path, { timeout: REPORT_TIMEOUT, retries: REPORT_RETRIES, tag: undefined }, now)
    }
  }
}

/** The fields of a query that its mask names. */
const named = <N extends SaRecordName>(name: N, { record, mask }: Query<N>): Partial<SaRecord<N>> =>
  Object.fromEntries(saCodecs[name].names(mask).map(field => [field, record[field as keyof typeof record]])) as Partial<
    SaRecord<N>
  >

interface AnyHandler {
  all?(query: object): readonly SaRecord<SaRecordName>[]
  shown?(record: object, query: object): SaRecord<SaRecordName>
  find?(query: object): Answer<SaRecordName> | undefined
  reads?(query: object): readonly TableRead<SaRecordName>[]
  set?(query: object): Answer<SaRecordName>
  delete?(query: object): Answer<SaRecordName>
}
interface AnyCodec {
  readonly bytes: number
  parse(bytes: Uint8Array): SaRecord<SaRecordName>
  emit(record: object, bytes: Uint8Array, at: number): void
  matches(record: object, query: object, mask: bigint): boolean
}

const emptyPath = (): PathRecord => saCodecs.PathRecord.parse(new Uint8Array(saCodecs.PathRecord.bytes))

/** Only who is trusted is told the key of a service (15.2.5.14). */
const shownService = (record: SaRecord<'ServiceRecord'>, isTrusted: boolean): SaRecord<'ServiceRecord'> =>
  isTrusted ? record : { ...record, key: emptyGid() }

const serviceKey = ({ serviceId, gid, pkey }: SaRecord<'ServiceRecord'>): string =>
  `${serviceId}.${addressKey(gid)}.${pkey}`

/** A lifetime that is wanted to be longer than the path's is true of no path. */
const selectedLifeTime = (own: number, wanted: { selector: number; value: number } | undefined): number | undefined =>
  wanted?.selector === 2 ? (wanted.value >= own ? own : undefined) : selected(own, wanted)

/** Whether what a port asks for on joining a group is what the group has. */
const fitsGroup = (
  record: SaRecord<'MCMemberRecord'>,
  names: ReadonlySet<string>,
  group: SaRecord<'MCMemberRecord'>,
  port: FoundPort,
): boolean => {
  const same = ['qkey', 'trafficClass', 'sl', 'flowLabel'] as const
  if (same.some(name => names.has(name) && record[name] !== group[name])) return false
  if (names.has('pkey') && ((record.pkey ^ group.pkey) & ~FULL_MEMBER) !== 0) return false
  if (!isInPartition(port, group.pkey) || port.info.neighborMtu < group.mtu) return false
  return (['mtu', 'rate'] as const).every(name => {
    if (!names.has(name) || !names.has(`${name}Selector`)) return true
    const wanted = { selector: record[`${name}Selector`], value: record[name] }
    const found = selected(group[name], wanted, name === 'rate' ? rateOrder : undefined)
    return found === group[name]
  })
}

const wantsNotice = (
  info: SaRecord<'InformInfo'>,
  notice: SmAttribute<'Notice'>,
  issuer: FoundPort,
  issuerGid: Uint8Array,
): boolean => {
  if (info.isGeneric !== Number(notice.isGeneric)) return false
  if (info.type !== ANY_TYPE && info.type !== notice.type) return false
  if (info.trapNumber !== ANY_TYPE && info.trapNumber !== notice.trapNumber) return false
  const anyProducer = info.producerType === 0xff_ffff || info.producerType === 0
  if (!anyProducer && info.producerType !== notice.producerType) return false
  // Notices of the manager itself are about the subnet, not about its port.
  if (notice.producerType === CLASS_MANAGER) return true
  if (!isZero(info.gid)) return addressKey(info.gid) === addressKey(issuerGid)
  if (info.lidBegin === ANY_LID || info.lidBegin === 0) return true
  const { lid } = issuer.info
  return lid >= info.lidBegin && lid <= Math.max(info.lidBegin, info.lidEnd) && lid < FIRST_MULTICAST_LID
}
