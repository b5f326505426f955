/*
 * A driver with a link and a connection protocol of its own (docs/how-to/drivers.md). Each connection is a TCP stream, as
 * with iWARP; there are no packets, no datagrams and no management port. The verbs are those of loop.mjs.
 *
 *   userdma daemon --driver examples/drivers/wire.mjs --device wire0@127.0.0.1,driver=wire
 *   userdma run -- rping -s -a 127.0.0.1 &
 *   userdma run -- rping -c -a 127.0.0.1 -C 5 -v
 *
 * A stream carries frames: a header, and data. The active end sends CONNECT first, gets ACCEPT or REJECT, and sends
 * CONFIRM; then both ends send requests of verbs (SEND, WRITE, READ), each answered by STATUS, with the data of a READ. A queue pair sends one
 * request at a time. The end of the stream is the end of the connection.
 */
import { connect, createServer } from 'node:net'
import * as spec from 'userdma/spec'
import {
  arrive,
  finishSend,
  isIpv4,
  MAX_MESSAGE,
  modifyQp,
  networkDevice,
  registerDevice,
  SENT,
  textOf,
  verbsDriver,
} from './loop.mjs'

const { CallError, coded, Errno } = spec
const { CONNECT_REQUEST, CONNECT_RESPONSE, ESTABLISHED, REJECTED, UNREACHABLE, DISCONNECTED } = spec.CmEventType.values
const { INIT, RTR, RTS, RESET, ERR } = spec.QpState.values
const { SEND, RDMA_WRITE, RDMA_READ } = spec.WrOpcode.values
const { REMOTE_WRITE, REMOTE_READ } = spec.AccessFlags.values
const Status = spec.WcStatus.values
const statuses = new Set(Object.values(Status))

const PORT = 4790
const MAX_STREAMS = 1024
const MAX_PRIVATE_DATA = 255
/** Frames of a stream that one poll takes, so that other queue pairs get their turn. */
const MAX_FRAMES = 64
/** Milliseconds for a peer to send CONNECT; to answer CONNECT or ACCEPT, which its program does; and to close its end. */
const Time = { CONNECT: 10_000, ANSWER: 120_000, CLOSE: 10_000 }
/** InfiniBand's reasons of a REJ, which programs of rdma_cm know. */
const Reason = { INVALID_SERVICE_ID: 8, CONSUMER: 28 }

// ---- frames ----

const Type = { CONNECT: 1, ACCEPT: 2, REJECT: 3, SEND: 4, WRITE: 5, READ: 6, STATUS: 7, CONFIRM: 8 }
/** Offsets in a header, little endian. */
const Field = { LENGTH: 0, TYPE: 4, FLAG: 5, DEPTHS: 6, LO: 8, HI: 12, WORD: 16, BYTES: 20 }
const HEADER = 24

/**
 * `word`: a QPN, key, status or reason. `lo`, `hi`: the peer's memory; of CONNECT the two ports. `bytes`: of a READ.
 */
const frame = (type, { flag = 0, depths = 0, lo = 0, hi = 0, word = 0, bytes = 0 }, data = new Uint8Array()) => {
  const header = Buffer.alloc(HEADER)
  header.writeUInt32LE(data.length, Field.LENGTH)
  header.writeUInt8(type, Field.TYPE)
  header.writeUInt8(flag, Field.FLAG)
  header.writeUInt16LE(depths, Field.DEPTHS)
  for (const [value, at] of [
    [lo, Field.LO],
    [hi, Field.HI],
    [word, Field.WORD],
    [bytes, Field.BYTES],
  ])
    header.writeUInt32LE(value, at)
  return Buffer.concat([header, data])
}

const requests = [Type.SEND, Type.WRITE, Type.READ]
/** The frames that a peer may send in each state of a connection. In other states, what arrives is dropped. */
const expected = {
  opened: [Type.CONNECT],
  requested: [],
  connecting: [Type.ACCEPT, Type.REJECT],
  accepted: [Type.CONFIRM, Type.REJECT],
  // These wait until this end has confirmed.
  responded: requests,
  established: [...requests, Type.STATUS],
}
const isLong = type => requests.includes(type) || type === Type.STATUS
/** More is not in flight: a request, and the status of ours. */
const MAX_RECEIVED = 2 * (HEADER + MAX_MESSAGE) + HEADER

/**
 * The frame at the begin of `bytes`, and its size; undefined if it is not complete. Throws RangeError: it is not one of
 * `types`, or too long.
 */
const firstFrame = (bytes, types) => {
  if (bytes.length < HEADER) return undefined
  const u32 = at => bytes.readUInt32LE(at)
  const length = u32(Field.LENGTH)
  const type = bytes[Field.TYPE]
  if (!types.includes(type)) throw new RangeError(`a frame of type ${type}`)
  if (Math.max(length, u32(Field.BYTES)) > (isLong(type) ? MAX_MESSAGE : MAX_PRIVATE_DATA))
    throw new RangeError('a frame is too long')
  const size = HEADER + length
  if (bytes.length < size) return undefined
  return {
    size,
    type,
    flag: bytes[Field.FLAG],
    depths: bytes.readUInt16LE(Field.DEPTHS),
    lo: u32(Field.LO),
    hi: u32(Field.HI),
    word: u32(Field.WORD),
    bytes: u32(Field.BYTES),
    data: bytes.subarray(HEADER, size),
  }
}

// ---- addresses ----

/** An address of rdma_cm. */
const socketAddress = (address, port) => ({
  family: isIpv4(address) ? 2 : 10,
  port,
  address,
  ...{ flowInfo: 0, scope: 0, serviceId: 0n, serviceMask: 0n },
})

/** 16 bytes, of the text of an address that a socket has. */
const addressOf = text => {
  const ipv4 = /(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(text)
  if (ipv4 !== null) return Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...ipv4.slice(1).map(Number))
  const [head, tail] = text
    .split('%')[0]
    .split('::')
    .map(part => part.split(':').filter(Boolean))
  const groups = tail === undefined ? head : [...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail]
  return Uint8Array.from(groups.flatMap(group => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff]))
}

// ---- connections ----

const NOTHING = Buffer.alloc(0)

/** A connection of rdma_cm (`Connection` of userdma/core), or a stream whose CONNECT has not arrived. */
class Connection {
  /** The identifier; undefined before a request arrives, and after its end. */
  end
  #protocol
  #socket
  #received = NOTHING
  /** Ends the stream if the peer does not do its part of `#state`. */
  #timer
  /** The queue pair of this end, from `accept` or ACCEPT on. */
  #qp
  #qpn = 0
  /** GID and QPN of the peer's queue pair. */
  #peer
  #state = 'idle'

  constructor(protocol, end, socket) {
    this.#protocol = protocol
    this.end = end
    if (socket !== undefined) this.#use(socket, 'opened', Time.CONNECT)
  }

  get isIdle() {
    return this.#state === 'idle'
  }

  connect(parameters) {
    this.#checked(parameters)
    const { localGid, remoteGid, source, destination } = this.end
    const { streams } = this.#protocol
    if (streams.size >= MAX_STREAMS)
      throw new CallError('ENOMEM', `cm_id.connect: the device has ${MAX_STREAMS} streams to peers`)
    const socket = connect({ host: textOf(remoteGid), port: PORT, localAddress: textOf(localGid) })
    streams.add(socket)
    socket.on('close', () => streams.delete(socket))
    this.#use(socket, 'connecting', Time.ANSWER)
    this.#answer(Type.CONNECT, parameters, { lo: destination.port, hi: source.port })
  }

  accept(parameters) {
    const qp = this.#checked(parameters)
    if (this.#state !== 'requested')
      throw new CallError('EINVAL', coded('connection-state')`cm_id.accept: the request was withdrawn`)
    this.#establish(qp, 'accepted', Time.ANSWER)
    this.#answer(Type.ACCEPT, parameters)
  }

  confirm() {
    const qp = this.#protocol.device.state.qps.get(this.#qpn)
    if (this.#state !== 'responded' || qp?.state.state !== INIT)
      throw new CallError('EINVAL', 'cm_id: there is no response to confirm, or no queue pair in state INIT')
    this.#establish(qp, 'established')
    this.#socket.write(frame(Type.CONFIRM, {}))
  }

  reject(privateData, _reason) {
    if (this.#state !== 'requested' && this.#state !== 'responded')
      throw new CallError('EINVAL', 'cm_id.reject: there is no request')
    this.#refuse(Reason.CONSUMER, privateData)
  }

  disconnect() {
    if (this.#state === 'established' || this.#state === 'accepted') this.#leave('disconnecting')
  }

  queuePairAttributes(state) {
    return state === INIT ? { accessFlags: REMOTE_WRITE | REMOTE_READ, pkeyIndex: 0, port: 1 } : undefined
  }

  destroy() {
    this.end = undefined
    this.#protocol.connections.delete(this)
    this.#leave('ended')
  }

  /** Sends a request of verbs. */
  send({ opcode, length, hi, lo, key, isSolicited }) {
    const { device } = this.#protocol
    const data = opcode === RDMA_READ ? undefined : Buffer.from(device.state.scratch.bytes.subarray(0, length))
    const type = { [SEND]: Type.SEND, [RDMA_WRITE]: Type.WRITE, [RDMA_READ]: Type.READ }[opcode]
    const bytes = opcode === RDMA_READ ? length : 0
    this.#socket.write(frame(type, { flag: isSolicited ? 1 : 0, hi, lo, word: key, bytes }, data))
    return SENT
  }

  /** Takes what has arrived. True if there was anything. */
  poll() {
    let taken = 0
    try {
      for (; taken < MAX_FRAMES && this.#received.length > 0; taken++) {
        const next = firstFrame(this.#received, expected[this.#state])
        if (next === undefined || !this.#take(next)) break
        this.#received = this.#received.subarray(next.size)
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      this.#received = NOTHING
      this.#socket.destroy(error)
    }
    return taken > 0
  }

  /** The stream has ended. */
  #ended(error) {
    this.#protocol.connections.delete(this)
    this.#socket = undefined
    const state = this.#state
    // After a failure to connect, a program may try again.
    this.#enter(state === 'connecting' ? 'idle' : 'ended')
    this.#part()
    if (state === 'connecting') this.end?.report(UNREACHABLE, { status: -(Errno[error?.code] ?? Errno.ETIMEDOUT) })
    else if (state !== 'refused')
      this.end?.report(DISCONNECTED, { status: error ? -(Errno[error.code] ?? Errno.ECONNRESET) : 0 })
  }

  #use(socket, state, time) {
    const { arrived, connections } = this.#protocol
    let failure
    this.#socket = socket
    this.#enter(state, time)
    socket.setNoDelay(true)
    socket.unref()
    socket.on('data', bytes => {
      if (this.#socket !== socket || expected[this.#state] === undefined) return
      this.#received = Buffer.concat([this.#received, bytes])
      if (this.#received.length > MAX_RECEIVED) socket.destroy(new RangeError('too many frames'))
      arrived()
    })
    socket.on('drain', () => arrived())
    socket.on('error', error => {
      failure = error
    })
    socket.on('close', () =>
      arrived(() => {
        while (this.#socket === socket && this.poll());
        if (this.#socket === socket) this.#ended(failure)
      }),
    )
    connections.add(this)
  }

  /** `time`: milliseconds until the stream ends, if the state has not changed. */
  #enter(state, time) {
    const socket = this.#socket
    clearTimeout(this.#timer)
    this.#state = state
    if (expected[state] === undefined) this.#received = NOTHING
    if (socket === undefined || time === undefined) return
    const timedOut = Object.assign(new Error('the peer does not answer'), { code: 'ETIMEDOUT' })
    this.#timer = setTimeout(() => socket.destroy(timedOut), time).unref()
  }

  /** This side ends the connection. What was sent still arrives: a rejection, or the status of the peer's last request. */
  #leave(state) {
    this.#enter(state, Time.CLOSE)
    this.#part()
    if (this.#socket?.connecting) this.#socket.destroy()
    else this.#socket?.end()
  }

  /** The queue pair that a program has named. Throws CallError EINVAL. */
  #checked({ qpNum, privateDataLength }) {
    const qp = this.#protocol.device.state.qps.get(qpNum)
    if (qp === undefined || qp.state.stream !== undefined || qp.state.state !== INIT)
      throw new CallError('EINVAL', `cm_id: queue pair ${qpNum} is not an unconnected one in state INIT`)
    if (privateDataLength > MAX_PRIVATE_DATA)
      throw new CallError('EINVAL', `cm_id: at most ${MAX_PRIVATE_DATA} bytes of private data`)
    this.#qpn = qpNum
    return qp
  }

  #answer(type, { qpNum, privateData, privateDataLength, initiatorDepth, responderResources }, fields = {}) {
    const depths = (initiatorDepth << 8) | responderResources
    this.#socket.write(frame(type, { ...fields, depths, word: qpNum }, privateData.subarray(0, privateDataLength)))
  }

  #refuse(reason, privateData) {
    this.#socket.write(frame(Type.REJECT, { word: reason }, privateData))
    this.#leave('refused')
  }

  /** The protocol moves the queue pair to RTS. */
  #establish(qp, state, time) {
    this.#enter(state, time)
    this.#qp = qp
    qp.state.stream = this
    qp.state.peer = this.#peer
    qp.state.attributes.destQpn = this.#peer.qpn
    qp.state.state = RTS
    qp.context.device.taps.requests?.beginsToReceive(qp)
  }

  /** The queue pair can reach its peer no longer. */
  #part() {
    const qp = this.#qp
    this.#qp = undefined
    if (qp?.state.stream !== this) return
    qp.state.stream = undefined
    const { sent } = qp.state.send
    if (sent !== undefined) finishSend(this.#protocol.device, qp, sent, Status.RETRY_EXC_ERR)
  }

  /** False: later. */
  #take(next) {
    const { type, word, data } = next
    if (type === Type.CONNECT) this.#request(next)
    else if (type === Type.ACCEPT) this.#accepted(next)
    else if (type === Type.REJECT) this.#rejected(next)
    else if (type === Type.STATUS) this.#completed(word, data)
    else if (type !== Type.CONFIRM) return this.#execute(next)
    else {
      this.#enter('established')
      this.end?.report(ESTABLISHED)
    }
    return true
  }

  #request({ lo, hi, word, depths, data }) {
    const [localGid, remoteGid] = [this.#socket.localAddress, this.#socket.remoteAddress].map(text =>
      addressOf(text ?? ''),
    )
    const found = this.#protocol.listeners.request(
      {
        portSpace: spec.CmPortSpace.values.TCP,
        qpType: spec.QpType.values.RC,
        local: socketAddress(localGid, lo & 0xffff),
        peer: socketAddress(remoteGid, hi & 0xffff),
        path: { localGid, remoteGid },
      },
      this,
    )
    if (typeof found === 'string') {
      this.#refuse(Reason.INVALID_SERVICE_ID, new Uint8Array())
      return
    }
    this.#enter('requested')
    this.end = found
    this.#peer = { gid: remoteGid, qpn: word }
    found.report(CONNECT_REQUEST, newsOf(word, depths, data))
  }

  #accepted({ word, depths, data }) {
    this.#enter('responded')
    this.#peer = { gid: this.end?.remoteGid, qpn: word }
    // librdmacm moves what it knows of the queue pair to RTS, and confirms.
    this.end?.report(CONNECT_RESPONSE, newsOf(word, depths, data))
  }

  #rejected({ word, data }) {
    this.#protocol.connections.delete(this)
    this.#socket.destroy()
    this.#socket = undefined
    this.#enter('idle')
    this.#part()
    this.end?.report(REJECTED, { status: word, privateData: data })
  }

  /** A request of the peer. */
  #execute({ type, flag, hi, lo, word, bytes, data }) {
    const qp = this.#qp
    const opcode = { [Type.SEND]: SEND, [Type.WRITE]: RDMA_WRITE, [Type.READ]: RDMA_READ }[type]
    // Until this end has confirmed, and while the peer does not read.
    if (this.#state === 'responded' || this.#socket.writableLength > MAX_MESSAGE) return false
    if (qp?.state.stream !== this) return true
    const { device } = this.#protocol
    const { scratch } = device.state
    const isRead = opcode === RDMA_READ
    const length = isRead ? bytes : data.length
    if (!isRead) scratch.bytes.set(data)
    const status = arrive(device, qp, { opcode, length, hi, lo, key: word, isSolicited: flag === 1 })
    if (status === undefined) {
      device.state.isWaiting = true
      return false
    }
    const answer = isRead && status === Status.SUCCESS ? Buffer.from(scratch.bytes.subarray(0, length)) : undefined
    this.#socket.write(frame(Type.STATUS, { word: status }, answer))
    return true
  }

  /** The peer has executed the sent request. */
  #completed(status, data) {
    const sent = this.#qp?.state.send.sent
    if (sent === undefined) return
    const { device } = this.#protocol
    const hasData = sent.opcode === RDMA_READ && status === Status.SUCCESS
    const isValid = statuses.has(status) && data.length === (hasData ? sent.length : 0)
    if (isValid) device.state.scratch.bytes.set(data)
    finishSend(device, this.#qp, sent, isValid ? status : Status.BAD_RESP_ERR)
  }
}

/** What an event of a connection says of the peer. */
const newsOf = (qpNum, depths, privateData) => ({
  privateData,
  connection: { qpNum, responderResources: depths >> 8, initiatorDepth: depths & 0xff },
})

/** `ConnectionProtocol` of userdma/core. */
class Protocol {
  device
  listeners
  connections = new Set()
  /** Sockets to peers. */
  streams = new Set()
  /** Called with what is to be done in the next poll, if anything. */
  arrived
  #server
  /** Why the port is not open. */
  #failure

  constructor(device, listeners) {
    const { events, wake, address } = device.state
    this.device = device
    this.listeners = listeners
    this.arrived = event => {
      if (event !== undefined) events.push(event)
      wake()
    }
    device.state.protocol = this
    this.#server = createServer(socket => new Connection(this, undefined, socket))
    this.#server.maxConnections = MAX_STREAMS
    // Without the port the device can still connect to others.
    this.#server.on('error', ({ code }) => {
      this.#failure = Errno[code] === undefined ? 'EADDRNOTAVAIL' : code
      console.error(`${device.name}: port ${PORT} of ${textOf(address)}: ${code}`)
    })
    this.#server.listen({ host: textOf(address), port: PORT })
    this.#server.unref()
  }

  get size() {
    return this.connections.size
  }

  /** The stream of each request is accepted, and refused if rdma_cm has no listener. */
  listen() {
    if (this.#failure !== undefined)
      throw new CallError(this.#failure, `cm_id.listen: port ${PORT} of ${this.device.name} is not open`)
    return () => {}
  }

  create(end) {
    return new Connection(this, end, undefined)
  }

  close() {
    this.#server.close()
    for (const connection of this.connections) connection.destroy()
    this.device.state.protocol = undefined
  }
}

// ---- the driver ----

/** The link: a request goes to the peer's end of the stream. */
const carry = (_device, qp, request) => qp.state.stream?.send(request) ?? Status.RETRY_EXC_ERR

/** The protocol moves queue pairs to RTR and RTS. */
const modify = (call, object, args) => {
  const { state } = object.state
  const isOfProtocol = (args.state === RTR || args.state === RTS) && state !== RESET && state !== ERR
  return isOfProtocol ? {} : modifyQp(call, object, args)
}

const createDevice = (owner, name, site) => {
  const [, address] = site.network.identity.gids
  const events = []
  const link = { carry, address, events, wake: site.wake, protocol: undefined }
  const device = registerDevice(owner, name, site, driver, link)
  const network = networkDevice(device)
  return {
    ...network,
    poll(now, scope) {
      let hasWorked = network.poll(now, scope)
      for (const event of events.splice(0)) event()
      for (const connection of device.state.protocol?.connections ?? []) hasWorked = connection.poll() || hasWorked
      return hasWorked
    },
  }
}

export const driver = verbsDriver(
  'wire',
  carry,
  {
    hasAddress: true,
    createDevice,
    requests: { peerOf: ({ state }) => state.peer },
    openConnections: (device, listeners) => new Protocol(device, listeners),
  },
  modify,
)
