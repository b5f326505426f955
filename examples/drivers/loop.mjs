/*
 * A driver with verbs of its own (docs/how-to/drivers.md): reliable connected queue pairs that reach only each other, by
 * SEND, RDMA WRITE and RDMA READ. Rings and responses are those of Linux's rxe, so libibverbs' provider `rxe` drives the device:
 *
 *   userdma daemon --driver examples/drivers/loop.mjs --device loop0
 *   userdma run -- ibv_rc_pingpong -d loop0 -g 0
 *
 * A request is copied from the sender's memory to the receiver's in one `poll`. There are no packets. A driver with a
 * link of its own gets the rest from `verbsDriver`: wire.mjs.
 */
import * as core from 'userdma/core'
import * as spec from 'userdma/spec'

const { Classes, callError, the, RecvWqe, RingSge, SendWqe, Wc } = spec
const { RESET, RTR, RTS, ERR } = spec.QpState.values
const { SIGNALED, SOLICITED, INLINE } = spec.SendFlags.values
const Opcode = spec.WrOpcode.values
const Status = spec.WcStatus.values
const { RECV, ...Completed } = spec.WcOpcode.values
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ } = spec.AccessFlags.values

const Limits = { requests: 4096, sges: 8, inline: 128, completions: 8192, queues: 1024 }
/** Bytes of the longest message. */
export const MAX_MESSAGE = 1 << 20
/** Microseconds until a SEND without a receive is tried again: posting a receive rings no doorbell. */
const RNR_DELAY = 1000
const FIRST_QPN = 17
/** The completion's opcode of each kind of send. */
const completedOf = {
  [Opcode.SEND]: Completed.SEND,
  [Opcode.RDMA_WRITE]: Completed.RDMA_WRITE,
  [Opcode.RDMA_READ]: Completed.RDMA_READ,
}

// ---- work requests: programs can write anything to rings, so values are read once and checked ----

const u32 = ({ view }, at) => view.getUint32(at, true)
const idAt = ({ view }, at) => view.getBigUint64(at, true)

/** Copies between the program's memory, at a request's scatter/gather elements, and `scratch`. Returns a WcStatus. */
const copySges = (device, qp, ring, at, count, length, direction) => {
  const { memory, state } = device
  const { area } = ring
  let copied = 0
  for (let i = 0; i < Math.min(count, Limits.sges) && copied < length; i++) {
    const sge = at + i * RingSge.BYTES
    const [lo, hi, key] = [u32(area, sge), u32(area, sge + 4), u32(area, sge + RingSge.LKEY)]
    const bytes = Math.min(u32(area, sge + RingSge.LENGTH), length - copied)
    const access = direction === 'write' ? LOCAL_WRITE : 0
    if (!copyMemory(memory, qp, key, hi, lo, state.scratch, copied, bytes, access, direction))
      return Status.LOC_PROT_ERR
    copied += bytes
  }
  return copied < length ? Status.LOC_LEN_ERR : Status.SUCCESS
}

/** Copies within one registered region; false if `key` does not permit it, or the memory is gone. */
const copyMemory = (memory, qp, key, hi, lo, scratch, at, length, access, direction) => {
  if (length === 0) return true
  const { pd, qpn } = qp.state
  const row = core.resolve(memory, pd, key, hi, lo, length, access, qpn)
  const space = row < 0 ? undefined : memory.spaces[memory.space[row]]
  const [spaceHi, spaceLo] = row < 0 ? [] : [core.addressHi(memory, row, hi, lo), core.addressLo(memory, row, lo)]
  const errno = space?.[direction](spaceHi, spaceLo, scratch, at, length, length, length)
  if (errno === 0) return true
  const reason = core.explainKey(memory, pd, key, hi, lo, length, access, qpn)
  qp.context.device.state.cause = reason ?? gone(key, hi, lo, length, access, errno === spec.Errno.ESRCH)
  return false
}

/** The cause for memory that is registered, and is not there. */
const gone = (key, hi, lo, length, access, hasEnded) => {
  const whose = (access & (REMOTE_READ | REMOTE_WRITE)) === 0 ? 'LOCAL' : 'REMOTE'
  if (hasEnded) return { id: `${whose}_ENDED`, args: {} }
  const accessStart = (BigInt(hi) << 32n) | BigInt(lo)
  const id = `${whose}_FAULT`
  return { id, args: { key, accessStart, accessEnd: accessStart + BigInt(length) } }
}

// ---- addresses ----

export const isIpv4 = gid => gid[10] === 0xff && gid[11] === 0xff && gid.subarray(0, 10).every(byte => byte === 0)

/** A GID as text, as failures name it. */
export const textOf = gid =>
  isIpv4(gid)
    ? gid.subarray(12).join('.')
    : Array.from({ length: 8 }, (_, i) => ((gid[2 * i] << 8) | gid[2 * i + 1]).toString(16)).join(':')

/** The address of the peer: a queue pair of the same device, if the link has not named another one. */
const peerAddress = (device, { peer }) => textOf(peer?.gid ?? core.getGid(device.ports[0].gids, 0).gid)

// ---- failures: why requests fail, for the daemon's log and `userdma check` ----

/** By status: the cause, if none was found in the memory. */
const causes = {
  [Status.RETRY_EXC_ERR]: { id: 'NO_ANSWER', args: { tries: 1, retryCnt: 0 } },
  [Status.REM_INV_REQ_ERR]: { id: 'NAK_INVALID_REQUEST', args: {} },
  [Status.REM_ACCESS_ERR]: { id: 'NAK_REMOTE_ACCESS', args: {} },
  [Status.REM_OP_ERR]: { id: 'NAK_REMOTE_OPERATION', args: {} },
}

/** A request has failed. `more`: fields of the failure (`Failure` of userdma/spec). */
const report = (qp, status, more) => {
  const { context } = qp
  const { device } = context
  const cause = device.state.cause ?? more.cause ?? causes[status] ?? { id: 'REFUSED', args: {} }
  device.state.cause = undefined
  core.reportFailure({ ...more, device: device.name, qpn: qp.state.qpn, status, cause }, device, context)
}

/** The request of a send at `at` of its ring, without its data. */
const sendAt = ({ area }, at) => ({
  at,
  wrId: idAt(area, at + SendWqe.WR_ID),
  opcode: u32(area, at + SendWqe.OPCODE),
  flags: u32(area, at + SendWqe.FLAGS),
  length: u32(area, at + SendWqe.DMA_LENGTH),
  elements: Math.min(u32(area, at + SendWqe.DMA_NUM_SGE), Limits.sges),
  /** The peer's memory. */
  hi: u32(area, at + SendWqe.REMOTE + 4),
  lo: u32(area, at + SendWqe.REMOTE),
  key: u32(area, at + SendWqe.RKEY),
})

/** Collects a send's data in `scratch`. */
const gather = (device, qp, { at, flags, length, elements }) => {
  const { ring } = qp.state.send
  const data = at + SendWqe.SGE
  if ((flags & INLINE) === 0) return copySges(device, qp, ring, data, elements, length, 'read')
  if (length > Limits.inline) return Status.LOC_LEN_ERR
  device.state.scratch.bytes.set(ring.area.bytes.subarray(data, data + length))
  return Status.SUCCESS
}

// ---- completions ----

const polled = ({ ring, produced }) => produced - ((produced - core.loadConsumer(ring)) & ring.mask)

const overrun = cq => {
  const { device } = cq.context
  const event = spec.AsyncEventType.values.CQ_ERR
  const cause = { id: 'CQ_FULL', args: { cq: cq.handle, entries: cq.state.ring.capacity } }
  core.reportFailure({ kind: 'event', device: device.name, event, cause }, device, cq.context)
  core.raiseObjectEvent(cq, event)
}

const complete = (qp, cq, { wrId, status, opcode, bytes, isSolicited }) => {
  const { ring, produced } = cq.state
  const { taps } = qp.context.device
  const completion = { status, opcode, bytes, sourceQpn: qp.state.attributes.destQpn ?? 0, solicited: isSolicited }
  if (produced - polled(cq.state) === ring.capacity) {
    if (!cq.state.hasOverrun) overrun(cq)
    cq.state.hasOverrun = true
    taps.requests?.completed(qp, cq, { ...completion, position: 0 })
    return
  }
  const at = core.elementAt(ring, cq.state.produced)
  const { view } = ring.area
  ring.area.bytes.fill(0, at, at + 2 ** ring.log2Element)
  view.setBigUint64(at + Wc.WR_ID, wrId, true)
  view.setUint32(at + Wc.STATUS, status, true)
  view.setUint32(at + Wc.OPCODE, opcode, true)
  view.setUint32(at + Wc.BYTE_LEN, bytes, true)
  view.setUint32(at + Wc.QP_NUM, qp.state.qpn, true)
  core.storeProducer(ring, ++cq.state.produced)
  if (cq.events !== undefined) core.completed(cq.events, isSolicited)
  taps.requests?.completed(qp, cq, { ...completion, position: cq.state.produced })
}

const hasNext = ({ ring, taken }) => core.loadProducer(ring) !== (taken & ring.mask)

/** Takes the oldest request of a queue. */
const retire = queue => core.storeConsumer(queue.ring, ++queue.taken)

/** Completes a queue's oldest request. Returns its status: a fault rule may fail it. */
const finish = (qp, queue, wrId, requestStatus, opcode, bytes, isSolicited = false) => {
  const { decideCompletion } = qp.context.device.taps
  const fault = requestStatus === Status.SUCCESS ? decideCompletion?.(qp, opcode, wrId) : undefined
  const status = fault?.status ?? requestStatus
  retire(queue)
  complete(qp, queue.cq, { wrId, status, opcode, bytes, isSolicited })
  return status
}

/** Moves a queue pair to ERR: what is posted completes with WR_FLUSH_ERR. */
const fail = qp => {
  const { send, receive } = qp.state
  qp.state.state = ERR
  send.sent = undefined
  for (const queue of [send, receive])
    for (let left = queue.ring.capacity; left > 0 && hasNext(queue); left--) {
      const at = core.elementAt(queue.ring, queue.taken)
      const wrId = idAt(queue.ring.area, at + (queue === send ? SendWqe.WR_ID : RecvWqe.WR_ID))
      if (queue === send) tapLoaded(qp, sendAt(queue.ring, at))
      if (queue === send) tapsOf(qp)?.retired(qp, 1, true)
      else tapsOf(qp)?.taken(qp, qp, receiveAt(queue.ring.area, at))
      finish(qp, queue, wrId, Status.WR_FLUSH_ERR, queue === send ? Completed.SEND : RECV, 0)
    }
}

// ---- taps: what `userdma check` and recordings see of requests ----

const tapsOf = qp => qp.context.device.taps.requests

const elementsAt = (area, at, count) =>
  Array.from({ length: Math.min(count, Limits.sges) }, (_, i) => {
    const sge = at + i * RingSge.BYTES
    const address = u32(area, sge + 4) * 2 ** 32 + u32(area, sge)
    return { address, length: u32(area, sge + RingSge.LENGTH), lkey: u32(area, sge + RingSge.LKEY) }
  })

const receiveAt = (area, at) => {
  const elements = elementsAt(area, at + RecvWqe.SGE, u32(area, at + RecvWqe.DMA_NUM_SGE))
  const length = elements.reduce((sum, element) => sum + element.length, 0)
  return { wrId: idAt(area, at + RecvWqe.WR_ID), opcode: -1, flags: 0, isSignaled: true, length, elements }
}

/** The oldest send is about to be executed; perhaps again, because there was no receive. */
const tapLoaded = (qp, { at, wrId, opcode, flags, length, elements: count, hi, lo, key }) => {
  const { send, sqSigAll } = qp.state
  const taps = tapsOf(qp)
  if (taps === undefined || send.tapped === send.taken) return
  send.tapped = send.taken
  const elements = (flags & INLINE) !== 0 ? [] : elementsAt(send.ring.area, at + SendWqe.SGE, count)
  const remote = opcode === Opcode.SEND ? undefined : { address: hi * 2 ** 32 + lo, length, rkey: key }
  const isSignaled = sqSigAll || (flags & SIGNALED) !== 0
  taps.loaded(qp, { wrId, opcode, flags, isSignaled, length, elements, remote })
}

// ---- requests ----

/** The data in `scratch` arrives at `peer` as a message. Returns the sender's status; undefined: no receive is posted. */
const receive = (device, peer, length, isSolicited) => {
  const { receive: queue } = peer.state
  const { ring } = queue
  if (!hasNext(queue)) {
    tapsOf(peer)?.notReady(peer)
    return undefined
  }
  const at = core.elementAt(ring, queue.taken)
  tapsOf(peer)?.taken(peer, peer, receiveAt(ring.area, at))
  const wrId = idAt(ring.area, at + RecvWqe.WR_ID)
  const count = u32(ring.area, at + RecvWqe.DMA_NUM_SGE)
  const status = copySges(device, peer, ring, at + RecvWqe.SGE, count, length, 'write')
  device.state.counts.receives++
  if (status !== Status.SUCCESS) {
    const { length: bufferBytes } = receiveAt(ring.area, at)
    report(peer, status, { kind: 'receive', wrId, cause: { id: 'RECEIVE_TOO_SHORT', args: { bufferBytes, length } } })
  }
  if (finish(peer, queue, wrId, status, RECV, length, isSolicited) !== Status.SUCCESS) fail(peer)
  if (status === Status.SUCCESS) return status
  return status === Status.LOC_LEN_ERR ? Status.REM_INV_REQ_ERR : Status.REM_OP_ERR
}

/**
 * A request arrives at the queue pair `peer`. The data is in `scratch`; that of a READ is then there. Returns the sender's
 * status; undefined: later, because no receive is posted.
 */
export const arrive = (device, peer, { opcode, length, hi, lo, key, isSolicited }) => {
  if (peer.state.state !== RTR && peer.state.state !== RTS) return Status.RETRY_EXC_ERR
  if (opcode === Opcode.SEND) return receive(device, peer, length, isSolicited)
  const [access, direction] = opcode === Opcode.RDMA_READ ? [REMOTE_READ, 'read'] : [REMOTE_WRITE, 'write']
  return copyMemory(device.memory, peer, key, hi, lo, device.state.scratch, 0, length, access, direction)
    ? Status.SUCCESS
    : Status.REM_ACCESS_ERR
}

/** The link of the loop driver: the peer is a queue pair of the same device. */
const carry = (device, qp, request) => {
  const peer = device.state.qps.get(qp.state.attributes.destQpn)
  if (peer?.state.attributes.destQpn !== qp.state.qpn) return Status.RETRY_EXC_ERR
  return arrive(device, peer, request)
}

/** The result of a link that has sent the request, and calls `finishSend` with its status. */
export const SENT = Symbol('sent')

/** The oldest send has ended with a status. The data of a READ is in `scratch`. */
export const finishSend = (device, qp, request, linkStatus) => {
  const { send, sqSigAll } = qp.state
  const { at, wrId, opcode, flags, length, elements } = request
  send.sent = undefined
  let status = linkStatus
  if (status === Status.SUCCESS && opcode === Opcode.RDMA_READ)
    status = copySges(device, qp, send.ring, at + SendWqe.SGE, elements, length, 'write')
  device.state.counts.sends++
  if (status !== Status.SUCCESS) {
    const { destQpn } = qp.state.attributes
    const other = device.state.qps.get(destQpn)
    const peer = { qpn: destQpn ?? 0, address: peerAddress(device, qp.state), state: other?.state.state ?? 'none' }
    const isCauseAtPeer = status === Status.REM_ACCESS_ERR && device.state.cause !== undefined
    report(qp, status, { kind: 'send', opcode, wrId, peer, ...(isCauseAtPeer && { isCauseAtPeer }) })
  }
  tapsOf(qp)?.retired(qp, 1, false)
  if (status !== Status.SUCCESS || sqSigAll || (flags & SIGNALED) !== 0)
    status = finish(qp, send, wrId, status, completedOf[opcode] ?? Completed.SEND, length)
  else retire(send)
  if (status !== Status.SUCCESS) fail(qp)
}

/** Begins the send. Returns its status, SENT, or undefined: later. */
const begin = (device, qp, request) => {
  const { opcode, flags, length } = request
  if (completedOf[opcode] === undefined) return Status.LOC_QP_OP_ERR
  if (length > MAX_MESSAGE) return Status.LOC_LEN_ERR
  const status = opcode === Opcode.RDMA_READ ? Status.SUCCESS : gather(device, qp, request)
  if (status !== Status.SUCCESS) return status
  return device.state.carry(device, qp, { ...request, isSolicited: (flags & SOLICITED) !== 0 })
}

/** Executes the requests of a queue pair; true if there were any. A link has one sent request per queue pair. */
const work = (device, qp) => {
  const { send } = qp.state
  let hasWorked = false
  if (qp.state.state === ERR) fail(qp)
  // Bounded: a program may post without end.
  for (let left = send.ring.capacity; left > 0 && qp.state.state === RTS && hasNext(send); left--) {
    if (send.sent !== undefined) break
    const request = sendAt(send.ring, core.elementAt(send.ring, send.taken))
    tapLoaded(qp, request)
    const status = begin(device, qp, request)
    if (status === undefined) {
      device.state.isWaiting = true
      break
    }
    hasWorked = true
    if (status === SENT) send.sent = request
    else finishSend(device, qp, request, status)
  }
  return hasWorked
}

// ---- classes ----

const refuseAbove = (method, attribute, value, max) => {
  if (value > max) throw callError.EINVAL`${the.method(method)}: ${the.attribute(attribute)}: ${value} is above ${max}`
}

/** An answer in which every attribute that `known` lacks is 0. */
const answer = (attributes, known) =>
  Object.fromEntries(
    Object.entries(attributes).map(([name, { type }]) => [
      name,
      known[name] ?? (type.kind === 'record' ? spec.zeroRecord(type.fields) : 0),
    ]),
  )

const cqClass = core.driverClass(
  Classes.cq,
  {
    create({ context }, object, { cqe, userHandle, channel, asyncFd }) {
      refuseAbove('cq.create', 'cqe', cqe, Limits.completions)
      const memory = core.mappedRings(core.mappedMemoryOf(context))
      const ring = core.createRing(memory, cqe, 1 << Wc.ELEMENT_SHIFT)
      object.state = { ring, memory, produced: 0, hasOverrun: false }
      core.affiliate(object, userHandle, { channel, asyncFd })
      return { cqe: ring.capacity, queue: core.mmapInfo(ring) }
    },
    modify: null,
    destroy(call, object, args, coreDestroy) {
      object.state.memory.free(object.state.ring)
      return coreDestroy(call, object, args)
    },
  },
  spec.RxeAttributes.cq,
)

export const modifyQp = (_call, object, args) => {
  const { state } = object
  const after = args.state ?? state.state
  const names = Object.keys(args).filter(name => args[name] !== undefined)
  const reason = spec.checkTransition('RC', state.state, after, names, args.curState)
  if (reason !== undefined) throw callError.EINVAL`${the.method('rc_qp.modify')}: ${reason}`
  state.state = after
  Object.assign(state.attributes, args)
  if (after === RESET) {
    state.attributes = {}
    for (const queue of [state.send, state.receive]) {
      core.clearRing(queue.ring)
      queue.taken = 0
    }
    state.send.tapped = -1
    state.send.sent = undefined
    tapsOf(object)?.reset(object)
  }
  return {}
}

const qpMethods = {
  create({ context, device }, object, { pd, sendCq, recvCq, cap, flags = 0, userHandle, asyncFd, srq }) {
    if (srq !== undefined)
      throw callError.EOPNOTSUPP`${the.method('rc_qp.create')}: the device has no shared receive queues`
    for (const name of ['maxSendWr', 'maxRecvWr'])
      refuseAbove('rc_qp.create', `cap.${name}`, cap[name], Limits.requests)
    for (const name of ['maxSendSge', 'maxRecvSge']) refuseAbove('rc_qp.create', `cap.${name}`, cap[name], Limits.sges)
    refuseAbove('rc_qp.create', 'cap.maxInlineData', cap.maxInlineData, Limits.inline)
    const memory = core.mappedRings(core.mappedMemoryOf(context))
    const data = Limits.sges * RingSge.BYTES
    const receives = core.createRing(memory, cap.maxRecvWr, RecvWqe.SGE + data)
    const sends = core.createRing(memory, cap.maxSendWr, SendWqe.SGE + Math.max(data, Limits.inline))
    const qpn = device.state.nextQpn++
    object.state = {
      qpn,
      pd: pd.id,
      state: RESET,
      attributes: {},
      sqSigAll: (flags & spec.QpFlags.values.SQ_SIG_ALL) !== 0,
      memory,
      /** `tapped`: as `taken`, when the taps were told of a send. `sent`: the request that the link has sent. */
      send: { ring: sends, cq: sendCq, taken: 0, tapped: -1, sent: undefined },
      receive: { ring: receives, cq: recvCq, taken: 0 },
      cap: { ...cap, maxInlineData: Limits.inline },
    }
    device.state.qps.set(qpn, object)
    core.affiliate(object, userHandle, { asyncFd })
    return { cap: object.state.cap, qpNum: qpn, recvQueue: core.mmapInfo(receives), sendQueue: core.mmapInfo(sends) }
  },
  query: (_call, { state: { attributes, state, cap } }) =>
    answer(Classes.rc_qp.methods.query.out, { ...attributes, state, curState: state, cap }),
  /** Called for programs that ring the doorbell by a call. The daemon polls after every call. */
  postSend: () => ({ badWr: 0 }),
  destroy(call, object, args, coreDestroy) {
    const { qpn, memory, send, receive: receives } = object.state
    tapsOf(object)?.reset(object)
    call.device.state.qps.delete(qpn)
    // A link may still know the queue pair.
    object.state.state = RESET
    send.sent = undefined
    for (const { ring } of [send, receives]) memory.free(ring)
    return coreDestroy(call, object, args)
  },
}

const { interface: Interface, device: Device, port: Port, async_fd, comp_channel, event_queue, pd, mr } = Classes

/**
 * The record of a driver with these verbs. `carry(device, qp, request)` sends a request to the queue pair's peer, as
 * `carry` above. `members`: more members of the record, or other ones. `modify`: of queue pairs.
 */
export const verbsDriver = (name, carryRequest, { requests, ...members } = {}, modify = modifyQp) => {
  const driver = {
    name,
    id: spec.RXE_DRIVER_ID,
    abi: spec.RXE_ABI,
    linux: spec.RxeAbi,
    link: 'roce',
    classes: [
      ...[Interface, Device, Port, async_fd, comp_channel, event_queue, pd, mr].map(cls => core.driverClass(cls)),
      cqClass,
      core.driverClass(Classes.rc_qp, { ...qpMethods, modify }, spec.QpQueues),
    ],
    createDevice: (owner, deviceName, site) =>
      networkDevice(registerDevice(owner, deviceName, site, driver, { carry: carryRequest })),
    /** What the taps may ask: how far programs have polled. */
    requests: { completions: ({ state }) => ({ written: state.produced, polled: polled(state) }), ...requests },
    /** The device is being removed: programs that only poll get their completions. */
    *removing({ state }) {
      for (const qp of state.qps.values()) yield fail(qp)
    },
    ...members,
  }
  return driver
}

export const driver = verbsDriver('loop', carry)

// ---- the device, and what the daemon needs of it ----

const { LinkLayer, LinkSpeed, LinkWidth, Mtu, PhysState, PortState, GidType } = spec

/** A device with an address has the GUID and the GIDs that follow from it. `linkState`: `carry`, and the link's own. */
export const registerDevice = (owner, name, { allocate, network }, driver, linkState) => {
  const ownGuid = Uint8Array.of(2, 0x6c, 0x6f, 0xff, 0xfe, 0x6f, 0x70, owner.devices.size)
  const ownGid = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...ownGuid)
  const { guid, gids, interfaceIndex } = network?.identity ?? { guid: ownGuid, gids: [ownGid], interfaceIndex: 0 }
  const state = {
    qps: new Map(),
    nextQpn: FIRST_QPN,
    counts: { sends: 0, receives: 0 },
    scratch: allocate(MAX_MESSAGE),
    ...linkState,
    /** Whether a SEND waits for a receive. */
    isWaiting: false,
  }
  const device = core.register(owner, {
    name,
    driver,
    state,
    attributes: {
      ...spec.zeroRecord(spec.DeviceAttributes),
      ...{
        nodeGuid: guid,
        sysImageGuid: guid,
        physPortCnt: 1,
        maxMrSize: 2n ** 40n,
        maxPkeys: 1,
        maxQpRdAtom: 1,
        maxQpInitRdAtom: 1,
      },
      ...{ maxQp: Limits.queues, maxQpWr: Limits.requests, maxSge: Limits.sges, maxPd: Limits.queues },
      ...{ maxCq: Limits.queues, maxCqe: Limits.completions, maxMr: Limits.queues },
    },
    extended: spec.zeroRecord(spec.ExtendedDeviceAttributes),
    ports: [
      {
        ...spec.zeroRecord(spec.PortAttributes),
        ...{
          state: PortState.values.ACTIVE,
          physState: PhysState.values.LINK_UP,
          linkLayer: LinkLayer.values.ETHERNET,
        },
        ...{ maxMtu: Mtu.values.MTU_4096, activeMtu: Mtu.values.MTU_4096, maxMsgSz: MAX_MESSAGE },
        ...{
          activeWidth: LinkWidth.values.X1,
          activeSpeed: LinkSpeed.values.SDR,
          gidTblLen: gids.length,
          pkeyTblLen: 1,
        },
      },
    ],
    numCompVectors: 1,
    limits: { pd: Limits.queues, cq: Limits.queues, mr: Limits.queues, rc_qp: Limits.queues },
  })
  for (const [index, gid] of gids.entries())
    core.setGid(device.ports[0].gids, index, { gid, type: GidType.values.ROCE_V2, ifindex: interfaceIndex })
  return device
}

const stateNames = Object.entries(spec.QpState.values)
const pending = ({ ring, taken }) => (core.loadProducer(ring) - taken) & ring.mask

/** A line of `userdma stat --qps`. */
const qpFacts = ({ class: { name }, state: { qpn, state, send, receive: receives } }) => ({
  qpn,
  type: name,
  state: stateNames.find(([, number]) => number === state)[0],
  send: { pending: pending(send), depth: send.ring.capacity },
  receive: { pending: pending(receives), depth: receives.ring.capacity },
})

/** `NetworkDevice` of userdma/core. There is no `link`: the device has no network interface. */
export const networkDevice = device => {
  const { state } = device
  let polledAt = 0
  return {
    device,
    // The few queue pairs are checked at each poll, so the scope of the poll and doorbells do not matter.
    poll(now) {
      polledAt = now
      state.isWaiting = false
      let hasWorked = false
      for (const qp of state.qps.values()) hasWorked = work(device, qp) || hasWorked
      return hasWorked
    },
    onDoorbell() {},
    nextTimeout: () => (state.isWaiting ? polledAt + RNR_DELAY : Number.POSITIVE_INFINITY),
    counters: () => ({ engine: state.counts, port: {} }),
    queues: {
      qpOfNumber: qpn => state.qps.get(qpn),
      qp({ state: qp }) {
        const { destQpn = 0, rqPsn = 0, sqPsn = 0, port = 0 } = qp.attributes
        return { qpn: qp.qpn, port, state: qp.state, destQpn, rqPsn, sqPsn }
      },
      cqEntries: cq => cq.state.ring.capacity,
      list(from, max) {
        const all = [...state.qps.values()].slice(from)
        const qps = all.slice(0, max).map(qp => ({ facts: qpFacts(qp), context: qp.context }))
        return all.length > max ? { qps, next: from + max } : { qps }
      },
    },
  }
}
