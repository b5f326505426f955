/*
 * Fuzz targets of management datagrams. `agents`: agents (src/services/mad-engine/) receive datagrams of a hostile
 * peer, and send messages. `umad`: a hostile program calls umad files of a device (src/uapi/linux/umad.ts,
 * src/services/mad-engine).
 */
import assert from 'node:assert/strict'
import { closeContext, dispatch, invokeNow, openContext, stat } from '../../../src/core/index.ts'
import { noMemory } from '../../../src/core/memory/address-space.ts'
import type { Caller } from '../../../src/core/model.ts'
import { findDescriptor } from '../../../src/core/objects/descriptors.ts'
import { umadDialects } from '../../../src/daemon/session/dialects.ts'
import type { AgentOptions } from '../../../src/services/mad-engine/agent.ts'
import { MadChannel } from '../../../src/spec/classes/mad/mad_channel.ts'
import { CallError } from '../../../src/spec/errno.ts'
import { GSI_QPN, MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import { MadClass, MadMethod, RmppFlag, RmppStatus, RmppType, rmppHeader } from '../../../src/spec/wire/management.ts'
import { answerRmpp, parseRmpp, respond } from '../../../src/transport/wire/mad/management.ts'
import { RegisterAgent, RegisterAgent2, UmadHeader, UmadIoctl } from '../../../src/uapi/linux/umad-layout.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { longMessage, Pair, plainMad, SECOND } from '../../services/mad-engine/pair.ts'
import { VirtualNetwork } from '../../services/rdma-cm/hosts.ts'
import { HEADER_BYTES, record, splitProgram } from './calls.ts'
import type { Target } from './fuzzer.ts'

const { GET, GET_TABLE, RESPONSE } = MadMethod
const SA = MadClass.SUBNET_ADMINISTRATION

const agents: readonly Partial<AgentOptions>[] = [{}, { engineDoesRmpp: false }]
/** Index of the second agent. */
const PROGRAM_DOES_RMPP = 1

/** Flags of a record. Without SEND the agent receives the record's bytes. */
const Flag = {
  /** Mask of the index in `agents`. */
  AGENT: 3,
  /** The agent sends a message of SEND_FACTOR times the record's bytes; without RMPP, at most its first MAD_BYTES. */
  SEND: 4,
  /** The received datagram has the transaction ID of the last sent datagram. */
  KNOWN: 8,
  /** The sent message is a response. */
  RESPONSE: 16,
  /** The agent does not wait for a response. */
  NO_TIMEOUT: 32,
} as const
/** Offset of the transaction ID in a datagram. */
const TID = 8
/** Offsets of RMPP's flags (one byte, with the response time) and of the segment number. */
const [RMPP_FLAGS, SEGMENT] = [rmppHeader.responseTime[0] >> 3, rmppHeader.segment[0] >> 3]
/** First bit of the number of retries in the flags. */
const RETRIES_SHIFT = 6
const TICK = SECOND / 4
const SEND_FACTOR = 16

// ---- agents: records {u8 flags, u8 ticks that pass, u16 bytes, u16 0, u16 0}, then the bytes ----

const agentPrograms = (): Uint8Array[] => {
  const { KNOWN, SEND } = Flag
  const pair = new Pair()
  // a transfer of three segments
  pair.send(pair.a, longMessage(GET_TABLE, 7, 500), 0)
  const first = pair.wire[0]!.mad
  pair.settle()
  const segmentOf = (flags: number, segment: number): Uint8Array => {
    const mad = first.slice()
    mad[RMPP_FLAGS] = flags
    mad.set([0, 0, 0, segment], SEGMENT)
    return mad
  }
  const next = segmentOf(RmppFlag.ACTIVE, 2)
  const last = segmentOf(RmppFlag.ACTIVE | RmppFlag.LAST, 3)
  const ack = (segment: number, window: number) =>
    answerRmpp(first, { type: RmppType.ACK, segment, lengthOrWindow: window })
  const scripts = [
    // received segments, the last one twice
    [record(0, first), record(0, next), record(0, last), record(0, last)],
    // a sent transfer, which the peer acknowledges
    [
      record(SEND, new Uint8Array(60)),
      record(KNOWN, ack(1, 65)),
      record(KNOWN, ack(5, 65)),
      record(KNOWN, ack(5, 65), 9),
    ],
    // a request of one datagram, and its response
    [record(SEND, new Uint8Array(3)), record(KNOWN, respond(plainMad(SA, GET, 1), 0))],
    // a sent transfer, which the peer aborts
    [
      record(SEND, new Uint8Array(90)),
      record(KNOWN, answerRmpp(first, { type: RmppType.ABORT, status: RmppStatus.TIME_TOO_LONG })),
    ],
    // a received transfer, which the peer stops
    [
      record(0, first),
      record(0, ack(0, 9)),
      record(0, answerRmpp(first, { type: RmppType.STOP, status: RmppStatus.RESX }), 200),
    ],
    // the agent whose program does RMPP
    [
      record(PROGRAM_DOES_RMPP | SEND, new Uint8Array(2)),
      record(PROGRAM_DOES_RMPP | KNOWN, respond(plainMad(SA, GET, 1), 12)),
    ],
    [record(PROGRAM_DOES_RMPP, first), record(PROGRAM_DOES_RMPP | SEND, new Uint8Array(2))],
  ]
  return scripts.map(records => new Uint8Array(Buffer.concat(records)))
}

const agentTarget: Target = {
  name: 'agents',
  split: splitProgram,
  seeds: agentPrograms,
  run(bytes, feature) {
    const pairs = agents.map(options => new Pair(options))
    let sent = 0
    for (const one of splitProgram(bytes)) {
      if (one.length < HEADER_BYTES) continue
      const [flags, ticks] = [one[0]!, one[1]!]
      const pair = pairs[(flags & Flag.AGENT) % pairs.length]!
      const length = Math.min(one.length - HEADER_BYTES, new DataView(one.buffer, one.byteOffset).getUint16(2, true))
      const { a } = pair
      pair.now += ticks * TICK
      a.engine.onTimeout(pair.now)
      if (flags & Flag.SEND) {
        const method = flags & Flag.RESPONSE ? GET_TABLE | RESPONSE : GET_TABLE
        const message = longMessage(method, sent++, length * SEND_FACTOR)
        const isLong = a.engine.isTransfer(message, SA)
        pair.send(
          a,
          isLong ? message : message.slice(0, MAD_BYTES),
          flags & Flag.NO_TIMEOUT ? 0 : SECOND,
          flags >> RETRIES_SHIFT,
        )
        continue
      }
      const mad = new Uint8Array(MAD_BYTES)
      mad.set(one.subarray(HEADER_BYTES, HEADER_BYTES + Math.min(length, MAD_BYTES)))
      const lastSent = pair.wire.at(-1)
      if (lastSent !== undefined && flags & Flag.KNOWN) mad.set(lastSent.mad.subarray(TID, TID + 8), TID)
      const before = pair.wire.length
      a.engine.onMad(mad, pair.pathOf(a), pair.now)
      const answer = pair.wire.length > before ? parseRmpp(pair.wire.at(-1)!.mad) : undefined
      // RMPP type and status of the answer, and the number of received messages
      feature(((answer?.type ?? 0) << 8) | ((answer?.status ?? 0) & 0xff) | (Math.min(a.received.length, 3) << 12))
    }
    for (const pair of pairs) {
      const { a } = pair
      for (let turns = 0; a.engine.nextTimeout() !== Number.POSITIVE_INFINITY; turns++) {
        assert.ok(turns < 10_000, 'timers do not end')
        pair.now = Math.max(pair.now, a.engine.nextTimeout())
        a.engine.onTimeout(pair.now)
      }
      assert.equal(a.engine.outstanding, 0)
      assert.ok(a.ended.length <= sent)
      assert.ok(pair.wire.length <= 100_000, `${pair.wire.length} datagrams sent`)
    }
  },
}

// ---- umad: records {u8 call, u8 read buffer bytes / 16, u16 memory bytes, u16 0, u16 0}, then the memory ----

const MAX_CALLS = 40
/** The address of the memory. */
const MEMORY = 0x10000
/** Descriptor numbers of the umad files. */
const FILE_FDS = [3, 4]
const UNKNOWN_IOCTL = 0x1b99
/** The low three bits of a record's first byte select the call, the fourth bit the file. */
const calls = [
  UmadIoctl.REGISTER_AGENT,
  UmadIoctl.REGISTER_AGENT2,
  UmadIoctl.UNREGISTER_AGENT,
  UmadIoctl.ENABLE_PKEY,
  'write',
  'read',
  'wait',
  UNKNOWN_IOCTL,
] as const
const callNumber = (call: (typeof calls)[number], file = 0): number => calls.indexOf(call) | (file << 3)

const registration = (fields: { mgmtClass?: number; methods?: number; oui?: number; rmpp?: number }): Uint8Array => {
  const { mgmtClass = 0, methods = 0, oui = 0, rmpp = 0 } = fields
  const bytes = new Uint8Array(RegisterAgent2.bytes)
  const view = new DataView(bytes.buffer)
  view.setUint32(RegisterAgent2.qpn, GSI_QPN, true)
  bytes[RegisterAgent2.mgmtClass] = mgmtClass
  bytes[RegisterAgent2.classVersion] = 1
  bytes[RegisterAgent2.methods] = methods
  view.setUint32(RegisterAgent2.oui, oui, true)
  bytes[RegisterAgent2.rmppVersion] = rmpp
  return bytes
}

/** The argument of write(2): a header for a datagram to 10.0.0.LAST, and `mad`. */
const writeArgument = (mad: Uint8Array, timeout: number, last = 1): Uint8Array => {
  const bytes = new Uint8Array(UmadHeader.bytes + mad.length)
  const view = new DataView(bytes.buffer)
  view.setUint32(UmadHeader.timeout, timeout, true)
  view.setUint32(UmadHeader.retries, 1, true)
  view.setUint32(UmadHeader.qpn, GSI_QPN)
  bytes[UmadHeader.grhPresent] = 1
  bytes[UmadHeader.gidIndex] = 1
  bytes.set(ipv4(10, 0, 0, last), UmadHeader.gid)
  bytes.set(mad, UmadHeader.bytes)
  return bytes
}

const umadPrograms = (): Uint8Array[] => {
  const { REGISTER_AGENT, REGISTER_AGENT2, UNREGISTER_AGENT, ENABLE_PKEY } = UmadIoctl
  const register = record(callNumber(REGISTER_AGENT2), registration({ mgmtClass: SA, rmpp: 1 }))
  const serve = record(callNumber(REGISTER_AGENT2, 1), registration({ mgmtClass: SA, methods: 1 << GET, rmpp: 1 }))
  const get = record(callNumber('write'), writeArgument(plainMad(SA, GET, 1), 100))
  const long = record(callNumber('write'), writeArgument(longMessage(GET, 2, 700), 100))
  const read = (file = 0, unitsOf16 = 255) => record(callNumber('read', file), new Uint8Array(0), unitsOf16)
  const wait = record(callNumber('wait'), new Uint8Array(0))
  const scripts = [
    [register, get, read(), read(0, 2), wait, read()],
    [register, serve, get, read(1), long, wait, read(1, 20), read(1, 255), wait, read()],
    [
      record(callNumber(REGISTER_AGENT), new Uint8Array(RegisterAgent.bytes)),
      record(callNumber(UNREGISTER_AGENT), new Uint8Array(4)),
      get,
    ],
    [
      record(callNumber(ENABLE_PKEY), new Uint8Array(0)),
      register,
      get,
      record(callNumber(UNKNOWN_IOCTL), new Uint8Array(0)),
    ],
  ]
  return scripts.map(records => new Uint8Array(Buffer.concat(records)))
}

let network: VirtualNetwork | undefined

const umadTarget: Target = {
  name: 'umad',
  split: splitProgram,
  seeds: umadPrograms,
  run(bytes, feature) {
    if (network === undefined) {
      network = new VirtualNetwork()
      network.host().plug(1)
    }
    const host = network.hosts[0]!
    const { device } = host.devices.get('rxe1')!
    let memory = new Uint8Array(0)
    const bytesAt = (address: bigint, length: number): Uint8Array => {
      const offset = Number(address) - MEMORY
      if (offset < 0 || offset + length > memory.length) throw new CallError('EFAULT', 'the address is not mapped')
      return memory.subarray(offset, offset + length)
    }
    const channels = new Map<number, number>()
    const caller: Caller = {
      memory: noMemory,
      copyIn: (address, length) => bytesAt(address, length).slice(),
      copyOut: (address, bytes) => bytesAt(address, bytes.length).set(bytes),
      descriptor: fd => channels.get(fd),
    }
    // each file has its own context, as in the daemon
    const files = FILE_FDS.map(fd => {
      const context = openContext(device, { isOpened: true })
      const { object } = invokeNow(context, MadChannel, 'create', 0, {}, caller).descriptors![0]!
      channels.set(fd, object)
      return { context, dialects: umadDialects(findDescriptor(host.core, object), fd) }
    })
    for (const one of splitProgram(bytes).slice(0, MAX_CALLS)) {
      if (one.length < HEADER_BYTES) continue
      const call = calls[one[0]! & 7]!
      const { context, dialects } = files[(one[0]! >> 3) & 1]!
      const length = new DataView(one.buffer, one.byteOffset).getUint16(2, true)
      const contents = one.slice(HEADER_BYTES, HEADER_BYTES + length)
      const bufferBytes = call === 'read' ? one[1]! * 16 : contents.length
      memory = new Uint8Array(Math.max(bufferBytes, contents.length))
      memory.set(contents)
      if (call === 'wait') {
        network.tick()
        continue
      }
      const answer =
        typeof call === 'number'
          ? dispatch(context, dialects.ioctl, [call, BigInt(MEMORY)], caller)
          : dispatch(context, dialects[call], [BigInt(MEMORY), bufferBytes], caller)
      assert.ok(!(answer instanceof Promise))
      if (answer.ret < 0) assert.ok(String(answer.reason).length > 9, 'no message')
      else assert.ok(answer.ret <= bufferBytes)
      // the errno, and the call and file
      feature(((answer.ret < 0 ? -answer.ret : 0) << 8) | one[0]!)
      network.settle()
    }
    for (const { context } of files) closeContext(context)
    network.runTimers()
    assert.deepEqual([stat(host.core).faults, stat(host.core).descriptors, device.counts.mad_agent ?? 0], [0, 0, 0])
  },
}

export const datagramTargets: readonly Target[] = [agentTarget, umadTarget]
