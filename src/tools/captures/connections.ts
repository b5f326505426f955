/*
 * Connections that the communication manager made within the capture: REQ, REP, RTU, REJ, DREQ and their answers, and
 * the datagram services' SIDR. Messages may be cut: what was not captured is undefined, not zero.
 */
import { Mtu } from '../../spec/enums.ts'
import { mtuBytes } from '../../spec/mtu.ts'
import { CM_CLASS, type CmMessageName, cmMessages, GSI_QPN, MAD_BYTES } from '../../spec/wire/mad.ts'
import { parseRdmaCmHeader, viewCm } from '../../transport/wire/mad/mad.ts'
import type { RawPacket } from './file.ts'
import type { Flow } from './flows/flow.ts'
import type { Located } from './located.ts'

/** Connections beyond are counted only. */
const MAX_CONNECTIONS = 1 << 17
/** Offset of the MAD in the transport packet: behind BTH and DETH. */
const MAD_AT = 20

/** Nanoseconds (IBA 9.7.6.1.3). */
const ACK_TIMEOUT_UNIT = 4096

export interface SeenMessage {
  readonly frame: number
  /** Nanoseconds since the first packet of the capture. */
  readonly time: number
  /** How often it was sent. */
  count: number
  lastFrame: number
  lastTime: number
}

/** A REJ of a connection of which the capture has no other message. Numbers of addresses. */
export interface LoneReject extends SeenMessage {
  readonly source: number
  readonly destination: number
  /** `cmAnswered`: the message that it rejects. */
  readonly message: number | undefined
  readonly reason: number | undefined
  readonly data: Uint8Array | undefined
}

export interface CaptureConnection {
  /** Numbers of addresses. */
  readonly client: number
  readonly server: number
  readonly clientId: number
  serverId: number | undefined
  /** Numbers of fields that were captured. */
  clientQpn: number | undefined
  serverQpn: number | undefined
  /** The first PSN that each end sends. */
  clientPsn: number | undefined
  serverPsn: number | undefined
  /** 256 to 4096. */
  mtu: number | undefined
  retryCount: number | undefined
  /** Of the server's RNR NAKs to the client, and of the client's to the server. */
  clientRnrRetry: number | undefined
  serverRnrRetry: number | undefined
  /** Of the ACK timeout: 4.096 µs × 2^n. */
  ackTimeout: number | undefined
  /** READs and atomics that each end may have outstanding. */
  clientReads: number | undefined
  serverReads: number | undefined
  pkey: number | undefined
  serviceId: bigint | undefined
  /** `rdma_cm`'s, from the service id. */
  port: number | undefined
  clientData: Uint8Array | undefined
  serverData: Uint8Array | undefined
  rejectReason: number | undefined
  rejectData: Uint8Array | undefined
  /** Who sent the REJ, and of which message (`cmAnswered`). */
  rejectedBy: 'client' | 'server' | undefined
  rejectedMessage: number | undefined
  /** 'client' or 'server': who sent the first DREQ. */
  closedBy: 'client' | 'server' | undefined
  readonly isDatagram: boolean
  readonly messages: Partial<Record<CmMessageName, SeenMessage>>
}

/** The bytes up to the last one that is not zero. */
const trimmed = (bytes: Uint8Array): Uint8Array => {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return bytes.slice(0, end)
}

export class ConnectionTable {
  readonly connections: CaptureConnection[] = []
  leftOut = 0
  readonly #loneRejects = new Map<string, LoneReject>()
  /** Management datagrams that are not of the connection manager. */
  otherMads = 0
  /** By address and communication id of an end. */
  readonly #byId = new Map<string, CaptureConnection>()
  /** By address and QPN of an end: the latest connection. */
  readonly #byQp = new Map<number, CaptureConnection>()
  readonly #mad = new Uint8Array(MAD_BYTES)

  get loneRejects(): Iterable<LoneReject> {
    return this.#loneRejects.values()
  }

  /** The connection of the queue pair `qpn` at an address. */
  ofQp(address: number, qpn: number): CaptureConnection | undefined {
    return this.#byQp.get(address * 0x100_0000 + qpn)
  }

  /** Where the packets of a flow's peer go. */
  readonly peerOf = (flow: Flow): { readonly address: number; readonly qpn: number } | undefined => {
    const connection = this.ofQp(flow.destination, flow.qpn)
    if (connection === undefined) return undefined
    const { client, server, clientQpn, serverQpn } = connection
    if (clientQpn === undefined || serverQpn === undefined) return undefined
    const isToServer = flow.qpn === serverQpn && flow.destination === server
    return isToServer ? { address: client, qpn: clientQpn } : { address: server, qpn: serverQpn }
  }

  /** Nanoseconds of the ACK timeout of a flow's queue pair, as the REQ has it; 0: not known, or without end. */
  readonly timeoutOf = (flow: Flow): number => {
    const code = this.ofQp(flow.destination, flow.qpn)?.ackTimeout ?? 0
    return code === 0 ? 0 : ACK_TIMEOUT_UNIT * 2 ** code
  }

  /**
   * A packet to queue pair 1. Returns a connection whose queue pairs became both known, or that has ended (DREP).
   * `time`: nanoseconds since the first packet.
   */
  add(packet: RawPacket, located: Located, qpn: number, time: number): CaptureConnection | undefined {
    if (qpn !== GSI_QPN) return undefined
    const available = Math.min(MAD_BYTES, located.captured - MAD_AT, located.length - MAD_AT - 4)
    if (available < 32) return undefined
    const from = located.at + MAD_AT
    this.#mad.fill(0)
    this.#mad.set(packet.arena.bytes.subarray(from, from + available))
    const message = this.#mad[1] === CM_CLASS ? viewCm(this.#mad) : undefined
    if (message === undefined) {
      this.otherMads++
      return undefined
    }
    return this.#message(message.name, message as object as Fields, available, packet.frame, located, time)
  }

  #message(
    name: CmMessageName,
    fields: Fields,
    available: number,
    frame: number,
    { source, destination }: Located,
    time: number,
  ): CaptureConnection | undefined {
    /** A field, if its bytes were captured. */
    const number = (field: string): number | undefined => {
      const bits = (cmMessages[name].fields as Readonly<Record<string, readonly [number, number]>>)[field]
      return bits[0] + bits[1] <= 8 * available ? Number(fields[field]) : undefined
    }
    const data = (): Uint8Array | undefined => {
      const { offset, bytes } = cmMessages[name].blobs.privateData
      return offset + bytes <= available ? trimmed(fields.privateData as Uint8Array) : undefined
    }
    const isDatagram = name === 'SIDR_REQ' || name === 'SIDR_REP'
    const localId = number(isDatagram ? 'requestId' : 'localId')!
    const remoteId = isDatagram ? localId : name === 'REQ' ? 0 : number('remoteId')!
    const find = (address: number, id: number): CaptureConnection | undefined =>
      this.#byId.get(`${address}/${id}/${isDatagram}`)
    const known =
      name === 'REQ' || name === 'SIDR_REQ'
        ? find(source, localId)
        : (find(destination, remoteId) ?? find(source, localId))
    const connection =
      known ??
      (name === 'REQ' || name === 'SIDR_REQ' ? this.#create(source, destination, localId, isDatagram) : undefined)
    const seenNow = { frame, time, count: 1, lastFrame: frame, lastTime: time }
    if (connection === undefined) {
      if (name !== 'REJ') return undefined
      const key = `${source}/${destination}/${localId}/${remoteId}/${number('reason')}`
      const alone = this.#loneRejects.get(key)
      if (alone !== undefined) this.#count(alone, frame, time)
      else if (this.#loneRejects.size < MAX_CONNECTIONS)
        this.#loneRejects.set(key, {
          ...seenNow,
          source,
          destination,
          message: number('message'),
          reason: number('reason'),
          data: data(),
        })
      return undefined
    }
    const isFromClient =
      source === connection.client && (source !== connection.server || localId === connection.clientId)
    const seen = connection.messages[name]
    if (seen === undefined) connection.messages[name] = seenNow
    else this.#count(seen, frame, time)
    if (name === 'REQ') {
      connection.clientQpn = number('qpn')
      // The receiver of the message sends its first packet with this PSN.
      connection.serverPsn = number('startingPsn')
      const mtu = number('pathMtu') ?? 0
      connection.mtu = mtu >= Mtu.values.MTU_256 && mtu <= Mtu.values.MTU_4096 ? mtuBytes(mtu) : undefined
      connection.retryCount = number('retryCount')
      connection.serverRnrRetry = number('rnrRetryCount')
      connection.ackTimeout = number('localAckTimeout')
      connection.pkey = number('pkey')
    } else if (name === 'REP') {
      connection.serverQpn = number('qpn')
      connection.clientPsn = number('startingPsn')
      connection.clientRnrRetry = number('rnrRetryCount')
      // The REP has what the server grants.
      connection.clientReads = number('responderResources')
      connection.serverReads = number('initiatorDepth')
      connection.serverId = localId
      connection.serverData = data()
      this.#byId.set(`${source}/${localId}/false`, connection)
    } else if (name === 'REJ') {
      connection.rejectReason = number('reason')
      connection.rejectData = data()
      connection.rejectedBy = isFromClient ? 'client' : 'server'
      connection.rejectedMessage = number('message')
    } else if (name === 'SIDR_REP') {
      connection.serverQpn = number('qpn')
      connection.rejectReason = number('status')
      connection.serverData = data()
    } else if (name === 'DREQ') connection.closedBy ??= isFromClient ? 'client' : 'server'
    if (name === 'REQ' || name === 'SIDR_REQ') {
      if (available >= 40) {
        connection.serviceId = fields.serviceId as bigint
        // rdma_cm: the port space, then the port, in the lower 32 bits.
        if (connection.serviceId >> 24n === 1n) connection.port = Number(connection.serviceId & 0xffffn)
      }
      const all = data()
      connection.clientData =
        all !== undefined &&
        connection.port !== undefined &&
        parseRdmaCmHeader(fields.privateData as Uint8Array) !== undefined
          ? trimmed((fields.privateData as Uint8Array).subarray(36))
          : all
    }
    if (name === 'REQ' && connection.clientQpn !== undefined)
      this.#setQp(connection.client, connection.clientQpn, connection)
    if (name === 'DREP') return connection
    if (name !== 'REP' || connection.serverQpn === undefined || isDatagram) return undefined
    this.#setQp(connection.server, connection.serverQpn, connection)
    return connection
  }

  #count(seen: SeenMessage, frame: number, time: number): void {
    seen.count++
    seen.lastFrame = frame
    seen.lastTime = time
  }

  #setQp(address: number, qpn: number, connection: CaptureConnection): void {
    this.#byQp.set(address * 0x100_0000 + qpn, connection)
  }

  #create(client: number, server: number, clientId: number, isDatagram: boolean): CaptureConnection | undefined {
    if (this.connections.length === MAX_CONNECTIONS) {
      this.leftOut++
      return undefined
    }
    const connection: CaptureConnection = {
      client,
      server,
      clientId,
      serverId: undefined,
      clientQpn: undefined,
      serverQpn: undefined,
      clientPsn: undefined,
      serverPsn: undefined,
      mtu: undefined,
      retryCount: undefined,
      clientRnrRetry: undefined,
      serverRnrRetry: undefined,
      ackTimeout: undefined,
      clientReads: undefined,
      serverReads: undefined,
      pkey: undefined,
      serviceId: undefined,
      port: undefined,
      clientData: undefined,
      serverData: undefined,
      rejectReason: undefined,
      rejectData: undefined,
      rejectedBy: undefined,
      rejectedMessage: undefined,
      closedBy: undefined,
      isDatagram,
      messages: {},
    }
    this.connections.push(connection)
    this.#byId.set(`${client}/${clientId}/${isDatagram}`, connection)
    return connection
  }
}

type Fields = Readonly<Record<string, number | bigint | Uint8Array | boolean | undefined>>
