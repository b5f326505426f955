/*
 * mlx5 devices on a memory link in this process, with the test's own clock, and programs that keep their queues as
 * libmlx5 does: in their own memory, with requests in blocks and doorbell records, big-endian. The queues are made by
 * verbs, or by firmware commands.
 */
import assert from 'node:assert/strict'
import { attachSink, createEventQueue, createLocalSpace, invokeNow, openContext } from '../../../src/core/index.ts'
import { findableMemory, type MappedChunk, type MappedMemory } from '../../../src/core/memory/mappable-memory.ts'
import type { Account, Context } from '../../../src/core/model.ts'
import { EventRecord, ObjectEvents } from '../../../src/drivers/mlx5/commands/events/event-types.ts'
import { mlx5Driver } from '../../../src/drivers/mlx5/device.ts'
import { Ah } from '../../../src/spec/classes/ah.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { AsyncFd } from '../../../src/spec/classes/events/async_fd.ts'
import { CompChannel } from '../../../src/spec/classes/events/comp_channel.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { Mw } from '../../../src/spec/classes/mw.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { DciQp, DctQp } from '../../../src/spec/classes/qp/dc_qp.ts'
import { IbAddress, QpAddress } from '../../../src/spec/classes/qp/qp.ts'
import { RawPacketQp } from '../../../src/spec/classes/qp/raw_packet_qp.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { UdQp } from '../../../src/spec/classes/qp/ud_qp.ts'
import { Srq } from '../../../src/spec/classes/srq.ts'
import { Wq } from '../../../src/spec/classes/wq.ts'
import { Mlx5CqFlags, Mlx5QpFlags } from '../../../src/spec/drivers/mlx5.ts'
import { Devx, DevxAsyncEventFd } from '../../../src/spec/drivers/mlx5-devx.ts'
import type { CommandName } from '../../../src/spec/drivers/mlx5-firmware/commands.ts'
import { QpTypes, ReceiveTopology } from '../../../src/spec/drivers/mlx5-firmware/queue-values.ts'
import { BLOCK_BYTES, CompletionEntry, CompletionKind, Mlx5Opcode } from '../../../src/spec/drivers/mlx5-queues.ts'
import { AccessFlags, CqFlags, MwType, PortState, QpState } from '../../../src/spec/enums.ts'
import { type ObjectClass, zeroRecord } from '../../../src/spec/schema/schema.ts'
import type { PortSubnet } from '../../../src/spec/subnet-port.ts'
import { FIRST_MULTICAST_LID } from '../../../src/spec/wire/subnet.ts'
import type { Port } from '../../../src/transport/phy/port.ts'
import { callerOn, driverMachine, ipv4, QKEY } from '../machine.ts'
import { type Firmware, firmwareOf } from './queue-commands.ts'

export { ipv4, QKEY }

/** PSN of the first request of each queue pair. */
const PSN = 7

export const machine = (count: number, fault = '', onPort?: (port: Port, device: number) => void, dcqcn?: number) => {
  const names = Array.from({ length: count }, (_, i) => `mlx5_${i}`)
  return driverMachine(mlx5Driver, names, fault, { onPort, dcqcn })
}
export type Machine = ReturnType<typeof machine>

const { ACTIVE } = PortState.values

type PortNews = Parameters<PortSubnet['news']>[0]

/** Devices with InfiniBand ports on one switch: LID 1 and so on, ACTIVE, as a manager makes them. Groups reach all. */
export const fabric = (
  count: number,
  {
    fault = '',
    onPort,
    pkeys,
    news,
  }: {
    fault?: string
    onPort?: (port: Port, device: number) => void
    pkeys?: number[]
    /** Gets what the ports tell their subnet. */
    news?: PortNews[]
  } = {},
): Machine => {
  const names = Array.from({ length: count }, (_, i) => `mlx5_${i}`)
  const m = driverMachine(mlx5Driver, names, fault, { onPort, fabric: { pkeys } })
  const ports = m.devices.map(({ subnetPort }) => subnetPort!)
  ports.forEach((port, i) => {
    port.attach({
      send: () => {},
      news: each => void news?.push(each),
      reached: dlid => ports.filter(({ settings: { lid } }) => dlid >= FIRST_MULTICAST_LID || lid === dlid),
      lost: () => {},
      disturb: () => undefined,
      removed: () => {},
    })
    port.set({ state: ACTIVE, lid: i + 1, smLid: 1 })
  })
  return m
}

/** The path to the port of another device. */
const addressOf = (m: Machine, other: number, sgidIndex = GID_INDEX): object =>
  m.devices[other]?.subnetPort === undefined
    ? { address: { ...zeroRecord(QpAddress), dgid: ipv4(other + 1), sgidIndex, hopLimit: 5, isGlobal: 1, port: 1 } }
    : { ibAddress: { ...zeroRecord(IbAddress), dlid: other + 1, sl: 3, port: 1 } }

const PAGE = 4096

/** The pages of a program in which its queues are. */
const programPages = (space: ReturnType<typeof createLocalSpace>) => {
  const buffer = new ArrayBuffer(4 << 20)
  // aligned addresses: the space's are those of no real pages
  const start = BigInt(space.add(new Uint8Array(buffer)))
  assert.equal(start % BigInt(PAGE), 0n)
  const view = new DataView(buffer)
  const mapped = findableMemory()
  const adopted = new Map<MappedChunk, string>()
  let used = 0
  const memory: MappedMemory = {
    allocate: bytes => mapped.allocate(bytes),
    free(chunk) {
      if (!adopted.delete(chunk)) mapped.free(chunk)
    },
    adopt(address, bytes) {
      const at = Number(address - start)
      assert.ok(at >= 0 && at % PAGE === 0 && at + bytes <= buffer.byteLength && bytes > 0)
      const words = new Int32Array(buffer)
      const chunk = { offset: at, length: bytes, at, bytes: new Uint8Array(buffer), view, words }
      adopted.set(chunk, `${at}+${bytes}`)
      return chunk
    },
    join(parts) {
      const [{ offset: at } = { offset: 0 }] = parts
      const length = parts.reduce((sum, part) => sum + part.length, 0)
      const chunk = { offset: at, length, at, bytes: new Uint8Array(buffer), view, words: new Int32Array(buffer) }
      adopted.set(chunk, `joined ${at}+${length}`)
      return chunk
    },
  }
  return {
    memory,
    view,
    bytes: new Uint8Array(buffer),
    /** Number of ranges that the device shares. */
    shared: () => adopted.size,
    /** Offset of new pages, filled as a program may leave them. */
    take(bytes: number): number {
      const at = used
      used += Math.ceil(bytes / PAGE) * PAGE
      return at
    },
    put: (address: bigint, bytes: Uint8Array): void => new Uint8Array(buffer).set(bytes, Number(address - start)),
    addressOf: (at: number): bigint => start + BigInt(at),
  }
}

export interface Completion {
  /** `CompletionKind`. */
  readonly kind: number
  readonly counter: number
  readonly uidx: number
  readonly opcode: number
  readonly qpn: number
  readonly bytes: number
  readonly imm: number
  readonly sourceQpn: number
  readonly hasGrh: boolean
  /** On InfiniBand. */
  readonly slid: number
  readonly sl: number
  readonly syndrome: number
  readonly vendor: number
  /** `FrameHeaders` of a raw packet. */
  readonly headers: number
  /** The whole entry. */
  readonly entry: Uint8Array
}

export interface Element {
  readonly address: bigint
  readonly length: number
  readonly lkey: number
}

export interface Request {
  readonly opcode: number
  /** Of the opcode. */
  readonly modifier?: number
  readonly data?: readonly Element[]
  readonly inline?: Uint8Array
  readonly remote?: { readonly address: bigint; readonly rkey: number }
  readonly atomic?: { readonly swapAdd: bigint; readonly compare: bigint }
  /** `key`: the access key of a target of DC, instead of the Q_Key. */
  readonly destination?: {
    readonly gid: Uint8Array
    /** Of the own GID. */
    readonly gidIndex?: number
    readonly qpn: number
    readonly qkey?: number
    readonly key?: bigint
    readonly hopLimit?: number
    /** On InfiniBand. */
    readonly lid?: number
    readonly sl?: number
    readonly isGlobal?: boolean
  }
  /** The Ethernet segment of a raw packet. */
  readonly ethernet?: { readonly checksums?: number; readonly header?: Uint8Array }
  readonly imm?: number
  /** Of an initiator of DC. */
  readonly stream?: number
  /** Bits of the control segment; default signaled. */
  readonly flags?: number
  /** Segments after the control segment, instead of all others. */
  readonly raw?: Uint8Array
}

const BYTES = 1 << 18
/** RoCE v2 of a device's address: before it are v1 and v2 of the link-local one, and v1. */
const GID_INDEX = 3

type Modification = { readonly state?: number } & { readonly [name: string]: unknown }

/** The commands that do what a modification of verbs does. */
const commandsFor = (args: Modification): readonly (readonly [CommandName, object])[] => {
  const { INIT, RTR, RTS, RESET, ERR } = QpState.values
  const { port = 1, accessFlags = 0, qkey = 0, address, pathMtu = 0, destQpn = 0, rqPsn = 0, minRnrTimer = 0 } = args
  const { sqPsn = 0, timeout = 0, retryCnt = 0, rnrRetry = 0, maxRdAtomic = 1, maxDestRdAtomic = 1 } = args
  const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values
  const has = (right: number): number => +(((accessFlags as number) & right) !== 0)
  const given = (address ?? {}) as { dgid?: Uint8Array; sgidIndex?: number; hopLimit?: number }
  const { dgid = new Uint8Array(16), sgidIndex = 0, hopLimit = 0 } = given
  switch (args.state) {
    case INIT: {
      const rights = { rre: has(REMOTE_READ), rwe: has(REMOTE_WRITE), rae: has(REMOTE_ATOMIC) }
      return [['RST2INIT_QP', { primary_address_path: { vhca_port_num: port }, q_key: qkey, ...rights }]]
    }
    case RTR: {
      const path = {
        rgid_rip: dgid,
        src_addr_index: sgidIndex,
        hop_limit: hopLimit,
        vhca_port_num: 1,
        udp_sport: 0xdcba,
      }
      const rest = { mtu: pathMtu, remote_qpn: destQpn, next_rcv_psn: rqPsn, min_rnr_nak: minRnrTimer }
      return [
        ['INIT2RTR_QP', { primary_address_path: path, ...rest, log_rra_max: Math.log2(maxDestRdAtomic as number) }],
      ]
    }
    case RTS: {
      const rest = { next_send_psn: sqPsn, retry_count: retryCnt, rnr_retry: rnrRetry }
      const path = { ack_timeout: timeout, vhca_port_num: 1 }
      return [['RTR2RTS_QP', { primary_address_path: path, ...rest, log_sra_max: Math.log2(maxRdAtomic as number) }]]
    }
    case RESET:
      return [['2RST_QP', {}]]
    case ERR:
      return [['2ERR_QP', {}]]
    default:
      return assert.fail(`no command for state ${args.state}`)
  }
}

/** A program with a region of 256 KiB and a completion queue. `commands`: firmware commands make its queues. */
export const program = (
  m: Machine,
  index: number,
  {
    entries = 1024,
    entryBytes = 64,
    events = false,
    commands = false,
    cqFlags = 0,
    isPadded = false,
    account = undefined as Account | undefined,
  } = {},
) => {
  const { device } = m.devices[index]!
  const space = createLocalSpace()
  const pages = programPages(space)
  const options = { isOpened: true, mapped: pages.memory, ...(account && { account }) }
  const context: Context = openContext(device, options)
  const caller = callerOn(space, (address, bytes) => pages.put(address, bytes))
  const call = <T = Record<string, never>>(cls: ObjectClass, method: string, object: number, args: object) => {
    const { object: created, out } = invokeNow(context, cls as never, method as never, object, args as never, caller)
    return { object: created as number, out: out as T }
  }
  const asyncEvents = createEventQueue()
  const asyncFd = invokeNow(context, AsyncFd, 'create', 0, {}, caller).descriptors![0]!.object
  attachSink(m.core.descriptors.get(asyncFd)!, asyncEvents)
  const channel =
    events && !commands ? invokeNow(context, CompChannel, 'create', 0, {}, caller).descriptors![0]!.object : undefined
  const pd = call(Pd, 'create', 0, {}).object
  const bytes = new Uint8Array(BYTES)
  const address = BigInt(space.add(bytes))
  const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC, MW_BIND, RELAXED_ORDERING } = AccessFlags.values
  const access = LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE | REMOTE_ATOMIC | MW_BIND | RELAXED_ORDERING
  const { out: region } = call<{ lkey: number; rkey: number }>(Mr, 'create', 0, {
    pd,
    start: address,
    length: BigInt(bytes.length),
    iova: address,
    access,
  })
  const records = pages.take(PAGE)
  let nextRecord = records
  const record = (): number => {
    nextRecord += 8
    return nextRecord - 8
  }
  const { view } = pages
  const firmware = commands ? firmwareOf(context, caller, pages.addressOf(0), view.byteLength) : undefined
  /** The place of a doorbell record, as in commands. */
  const recordPlace = (at: number) => ({ dbr_umem_id: firmware!.umem, dbr_addr: BigInt(at) })

  // the completion queue
  const cq = { at: 0, entries: 0, entryBytes: 0, record: record(), polled: 0, serial: 0, object: 0, number: 0 }
  const prepareEntries = (count: number, size: number): number => {
    const at = pages.take(count * size)
    for (let i = 0; i < count; i++) view.setUint8(at + (i + 1) * size - 1, CompletionKind.INVALID << 4)
    return at
  }
  Object.assign(cq, { at: prepareEntries(entries, entryBytes), entries, entryBytes })
  if (firmware === undefined)
    cq.object = call(Cq, 'create', 0, {
      cqe: entries - 1,
      userHandle: 5n,
      compVector: 0,
      bufferAddress: pages.addressOf(cq.at),
      doorbellAddress: pages.addressOf(cq.record),
      entryBytes,
      flags: cqFlags,
      ...(isPadded && { cqFlags: Mlx5CqFlags.PAD_128 }),
      ...(channel !== undefined && { channel }),
    }).object
  else
    Object.assign(
      cq,
      firmware.create('CREATE_CQ', {
        cq_context: {
          log_cq_size: Math.log2(entries),
          cqe_sz: +(entryBytes === 128),
          uar_page: firmware.uar,
          c_eqn: firmware.eqn,
          ...recordPlace(cq.record),
        },
        cq_umem_id: firmware.umem,
        cq_umem_offset: BigInt(cq.at),
      }),
    )

  /** Events of objects that commands have made. */
  const firmwareEvents = createEventQueue()
  const eventFd =
    firmware && events
      ? invokeNow(context, DevxAsyncEventFd, 'create', 0, { flags: 0 }, caller).descriptors![0]!.object
      : undefined
  if (eventFd !== undefined) attachSink(m.core.descriptors.get(eventFd)!, firmwareEvents)
  const watch = (handle: number, ...types: readonly { readonly type: number }[]): void => {
    if (eventFd === undefined) return
    const list = new Uint8Array(Uint16Array.from(types, ({ type }) => type).buffer)
    invokeNow(context, Devx, 'subscribe', 0, { channel: eventFd, handle, types: list, cookie: 0n }, caller)
  }
  watch(cq.object, ObjectEvents.COMP, ObjectEvents.CQ_ERROR)

  const entryAt = (position: number): number =>
    cq.at + (position & (cq.entries - 1)) * cq.entryBytes + cq.entryBytes - 64
  const isReady = (position: number): boolean => {
    const owner = view.getUint8(entryAt(position) + CompletionEntry.OWNER)
    return owner >> 4 !== CompletionKind.INVALID && (owner & 1) === ((position & cq.entries) === 0 ? 0 : 1)
  }
  const element = (offset: number, length: number): Element => ({
    address: address + BigInt(offset),
    length,
    lkey: region.lkey,
  })
  const putElement = (at: number, { address: start, length, lkey }: Element): void => {
    view.setUint32(at, length)
    view.setUint32(at + 4, lkey)
    view.setBigUint64(at + 8, start)
  }

  const queuePair = (
    kind: 'rc' | 'ud' | 'dci' | 'raw',
    {
      sends = 64,
      receives = 64,
      sges = 4,
      inline = 128,
      srq,
      streams,
      isRecordless = false,
    }: {
      sends?: number
      receives?: number
      sges?: number
      inline?: number
      srq?: number
      streams?: { readonly logStreams: number; readonly logErroredStreams: number }
      /** Of commands: the sends have no doorbell record. */
      isRecordless?: boolean
    } = {},
  ) => {
    const cls = { rc: RcQp, ud: UdQp, dci: DciQp, raw: RawPacketQp }[kind]
    const count = srq === undefined && kind !== 'dci' ? receives : 0
    const shift = 4 + Math.ceil(Math.log2(sges))
    // the queues of raw packets are apart
    const receiveBytes = kind === 'raw' ? Math.ceil((count * 2 ** shift) / PAGE) * PAGE : count * 2 ** shift
    const receivesAt = pages.take(receiveBytes + sends * BLOCK_BYTES)
    pages.bytes.fill(0xaa, receivesAt, receivesAt + receiveBytes + sends * BLOCK_BYTES)
    const sendsAt = receivesAt + receiveBytes
    const doorbell = record()
    const uidx = 100 + doorbell
    const createByCommand = (f: Firmware) => {
      const { object, number } = f.create('CREATE_QP', {
        qpc: {
          st: { rc: QpTypes.RC, ud: QpTypes.UD, dci: QpTypes.DCI, raw: 9 }[kind],
          pd: f.pd,
          uar_page: f.uar,
          log_sq_size: Math.log2(sends),
          log_rq_size: count === 0 ? 0 : Math.log2(count),
          log_rq_stride: shift - 4,
          rq_type: count > 0 ? 0 : srq === undefined ? 3 : 1,
          srqn_rmpn_xrqn: srq ?? 0,
          cqn_snd: cq.number,
          cqn_rcv: cq.number,
          user_index: uidx,
          send_dbr_mode: +isRecordless,
          log_num_dci_stream_channels: streams?.logStreams ?? 0,
          log_num_dci_errored_streams: streams?.logErroredStreams ?? 0,
          ...recordPlace(doorbell),
        },
        wq_umem_id: f.umem,
        wq_umem_offset: BigInt(receivesAt),
      })
      watch(object, ObjectEvents.SRQ_LAST_WQE, ObjectEvents.WQ_CATAS_ERROR, ObjectEvents.WQ_ACCESS_ERROR)
      return { object, out: { qpNum: number } }
    }
    const createByVerbs = () =>
      call<{ qpNum: number }>(cls, 'create', 0, {
        pd,
        sendCq: cq.object,
        recvCq: cq.object,
        cap: {
          maxSendWr: sends,
          maxRecvWr: count,
          maxSendSge: sges,
          maxRecvSge: kind === 'dci' ? 0 : sges,
          maxInlineData: inline,
        },
        userHandle: 0n,
        ...(srq !== undefined && { srq }),
        bufferAddress: pages.addressOf(receivesAt),
        doorbellAddress: pages.addressOf(doorbell),
        sendBlocks: sends,
        receiveRequests: count,
        receiveShift: count === 0 ? 0 : shift,
        ...(kind === 'raw' && { sendBufferAddress: pages.addressOf(sendsAt) }),
        uidx,
        qpFlags: (kind === 'dci' ? Mlx5QpFlags.TYPE_DCI : 0) | (streams === undefined ? 0 : Mlx5QpFlags.DCI_STREAM),
        ...streams,
      })
    const { object, out } = firmware === undefined ? createByVerbs() : createByCommand(firmware)
    const state = { blocks: 0, received: 0 }
    const { INIT, RTR, RTS, RESET, ERR } = QpState.values
    const modify = (args: object): void => {
      if (firmware === undefined) call(cls, 'modify', object, args)
      else
        for (const [name, qpc] of commandsFor(args as Modification))
          firmware.modify(object, name, { qpn: out.qpNum, qpc })
    }
    const putAt = (offset: number): number => sendsAt + (offset & (sends * BLOCK_BYTES - 1))
    return {
      object,
      qpn: out.qpNum,
      uidx,
      modify,
      /** `inInit`: called in INIT. `gidIndex`: of the own GID. */
      connect(peer: { qpn: number }, other: number, rnrRetry = 7, inInit = () => {}, gidIndex = GID_INDEX): void {
        modify({ state: INIT, pkeyIndex: 0, port: 1, accessFlags: access & ~MW_BIND })
        inInit()
        modify({
          state: RTR,
          ...addressOf(m, other, gidIndex),
          pathMtu: 3,
          destQpn: peer.qpn,
          rqPsn: PSN,
          maxDestRdAtomic: 4,
          minRnrTimer: 1,
        })
        modify({ state: RTS, sqPsn: PSN, timeout: 14, retryCnt: 7, rnrRetry, maxRdAtomic: 4 })
      },
      /** Of an initiator. */
      start({ timeout = 14, retryCnt = 7, rnrRetry = 7 } = {}): void {
        modify({ state: INIT, pkeyIndex: 0, port: 1 })
        modify({ state: RTR, pathMtu: 3 })
        modify({ state: RTS, sqPsn: PSN, timeout, retryCnt, rnrRetry, maxRdAtomic: 4 })
      },
      attach: (gid: Uint8Array, mlid: number): void => void call(cls, 'attachMcast', object, { gid, mlid }),
      activate(): void {
        const isUd = kind === 'ud'
        modify({ state: INIT, port: 1, ...(isUd && { pkeyIndex: 0, qkey: QKEY }) })
        modify({ state: RTR })
        modify({ state: RTS, ...(isUd && { sqPsn: 0 }) })
      },
      /** As libmlx5: the counters are set to 0 after the call; with commands that of sends is not, as by UCX. */
      reset(): void {
        modify({ state: RESET })
        state.blocks = 0
        state.received = 0
        view.setUint32(doorbell, 0)
        if (!commands) view.setUint32(doorbell + 4, 0)
      },
      fail: (): void => modify({ state: ERR }),
      /** Stores a request and, by default, the doorbell record. Returns the number of its first block. */
      post(request: Request, isRung = true): number {
        const first = state.blocks
        let offset = first * BLOCK_BYTES + 16
        const put = (write: (at: number) => void, size = 16): void => {
          write(putAt(offset))
          offset += size
        }
        const { destination, remote, atomic, raw, ethernet } = request
        if (ethernet !== undefined) {
          const header = ethernet.header ?? new Uint8Array()
          const size = Math.max(16, Math.ceil((14 + header.length) / 16) * 16)
          const start = offset
          for (let i = 0; i < size; i++) view.setUint8(putAt(start + i), 0)
          view.setUint8(putAt(start + 4), ethernet.checksums ?? 0)
          view.setUint16(putAt(start + 12), header.length)
          for (const [i, byte] of header.entries()) view.setUint8(putAt(start + 14 + i), byte)
          offset += size
        }
        if (destination !== undefined)
          put(at => {
            pages.bytes.fill(0, at, at + 48)
            if (destination.key === undefined) view.setUint32(at, destination.qkey ?? QKEY)
            else view.setBigUint64(at, destination.key)
            view.setUint32(at + 8, (destination.qpn | 0x8000_0000) >>> 0)
            const { lid, sl = 0, isGlobal = false, hopLimit = 9 } = destination
            view.setUint8(at + 27, hopLimit)
            if (lid !== undefined) {
              view.setUint8(at + 12, sl)
              view.setUint16(at + 14, lid)
            }
            view.setUint32(
              at + 28,
              lid === undefined ? (destination.gidIndex ?? GID_INDEX) << 20 : isGlobal ? 1 << 30 : 0,
            )
            pages.bytes.set(destination.gid, at + 32)
          }, 48)
        if (remote !== undefined)
          put(at => {
            view.setBigUint64(at, remote.address)
            view.setUint32(at + 8, remote.rkey)
          })
        if (atomic !== undefined)
          put(at => {
            view.setBigUint64(at, atomic.swapAdd)
            view.setBigUint64(at + 8, atomic.compare)
          })
        for (const data of request.data ?? []) put(at => putElement(at, data))
        if (request.inline !== undefined) {
          const start = offset
          view.setUint32(putAt(start), request.inline.length | 0x8000_0000)
          for (const [i, byte] of request.inline.entries()) view.setUint8(putAt(start + 4 + i), byte)
          offset += Math.ceil((4 + request.inline.length) / 16) * 16
        }
        for (const [i, byte] of raw?.entries() ?? []) view.setUint8(putAt(offset + i), byte)
        offset += raw?.length ?? 0
        const segments = (offset - first * BLOCK_BYTES) / 16
        const control = putAt(first * BLOCK_BYTES)
        view.setUint32(control, ((request.modifier ?? 0) << 24) | ((first & 0xffff) << 8) | request.opcode)
        view.setUint32(control + 4, ((out.qpNum << 8) | segments) >>> 0)
        view.setUint32(control + 8, ((request.stream ?? 0) << 8) | (request.flags ?? 8))
        view.setUint32(control + 12, request.imm ?? 0)
        state.blocks += Math.ceil(segments / 4)
        if (isRung) view.setUint32(doorbell + 4, state.blocks & 0xffff)
        return first
      },
      ringReceives: (value: number): void => view.setUint32(doorbell, value),
      /** Offset of the first block. */
      sendsAt,
      ringSends: (value = state.blocks): void => view.setUint32(doorbell + 4, value & 0xffff),
      receive(...elements: readonly Element[]): void {
        const at = receivesAt + (state.received & (count - 1)) * 2 ** shift
        for (const [i, data] of elements.entries()) putElement(at + i * 16, data)
        if (elements.length < 2 ** shift / 16)
          putElement(at + elements.length * 16, { address: 0n, length: 0, lkey: 0x100 })
        state.received++
        view.setUint32(doorbell, state.received & 0xffff)
      },
      /** Handles of objects that commands have made are of class devx_obj. */
      destroy: (): void => (firmware === undefined ? void call(cls, 'destroy', object, {}) : firmware.destroy(object)),
    }
  }

  const targetByCommand = (f: Firmware, srq: number, key: bigint) => {
    const uidx = 5000 + record()
    const { object, number: qpn } = f.create('CREATE_DCT', {
      dct_context_entry: {
        pd: f.pd,
        cqn: cq.number,
        srqn_xrqn: srq,
        user_index: uidx,
        dc_access_key: key,
        rre: 1,
        rwe: 1,
        rae: 1,
        mtu: 3,
        min_rnr_nak: 1,
        my_addr_index: GID_INDEX,
      },
    })
    const modify = (args: object): never => assert.fail(`no command modifies a target: ${Object.keys(args)}`)
    const destination = { gid: ipv4(index + 1), qpn, key }
    return { object, qpn, uidx, modify, destination, destroy: (): void => f.destroy(object) }
  }

  /** A target of DC in RTR, or in RESET. */
  const target = (srq: number, key: bigint, isReady = true) => {
    if (firmware !== undefined) return targetByCommand(firmware, srq, key)
    const uidx = 5000 + record()
    const { object, out } = call<{ qpNum: number }>(DctQp, 'create', 0, {
      pd,
      sendCq: cq.object,
      recvCq: cq.object,
      cap: { maxSendWr: 0, maxRecvWr: 0, maxSendSge: 0, maxRecvSge: 0, maxInlineData: 0 },
      userHandle: 0n,
      srq,
      qpFlags: Mlx5QpFlags.TYPE_DCT,
      sendBufferAddress: key,
      uidx,
    })
    const modify = (args: object) => call<{ number?: number }>(DctQp, 'modify', object, args).out
    const address = { ...addressOf(m, index) }
    const { INIT, RTR } = QpState.values
    if (isReady) {
      modify({ state: INIT, pkeyIndex: 0, port: 1, accessFlags: access & ~MW_BIND })
      assert.equal(modify({ state: RTR, pathMtu: 3, minRnrTimer: 1, ...address }).number, out.qpNum)
    }
    return {
      object,
      qpn: out.qpNum,
      uidx,
      modify,
      destination: {
        gid: ipv4(index + 1),
        qpn: out.qpNum,
        key,
        ...(m.devices[index]!.subnetPort && { lid: index + 1 }),
      },
      destroy: (): void => void call(DctQp, 'destroy', object, {}),
    }
  }

  /** A work queue, in RESET. */
  const workQueue = (receives = 64) => {
    const at = pages.take(receives * 16)
    const doorbell = record()
    const uidx = 5000 + doorbell
    const { object, out } = call<{ wqNum: number }>(Wq, 'create', 0, {
      pd,
      cq: cq.object,
      type: 0,
      maxWr: receives,
      maxSge: 1,
      userHandle: 0n,
      bufferAddress: pages.addressOf(at),
      doorbellAddress: pages.addressOf(doorbell),
      receiveRequests: receives,
      receiveShift: 4,
      uidx,
    })
    let received = 0
    return {
      object,
      number: out.wqNum,
      uidx,
      modify: (args: object): void => void call(Wq, 'modify', object, args),
      receive(data: Element): void {
        putElement(at + (received & (receives - 1)) * 16, data)
        view.setUint32(doorbell, ++received & 0xffff)
      },
      destroy: (): void => void call(Wq, 'destroy', object, {}),
    }
  }

  /**
   * `order`: of a pool that a command makes. By command, `object` is the number, as queue pairs name it, and `handle`
   * the handle.
   */
  const sharedReceives = (count = 16, sges = 1, order: keyof typeof ReceiveTopology = 'LIST') => {
    const shift = Math.max(5, Math.ceil(Math.log2(16 + sges * 16)))
    const at = pages.take(count * 2 ** shift)
    for (let i = 0; i < count; i++) view.setUint16(at + i * 2 ** shift + 2, (i + 1) % count)
    const doorbell = record()
    const pool = firmware?.create('CREATE_RMP', {
      ctx: {
        state: 1,
        wq: {
          wq_type: ReceiveTopology[order],
          log_wq_sz: Math.log2(count),
          log_wq_stride: shift,
          pd: firmware.pd,
          wq_umem_id: firmware.umem,
          wq_umem_offset: BigInt(at),
          ...recordPlace(doorbell),
        },
      },
    })
    const object =
      pool?.number ??
      call(Srq, 'create', 0, {
        pd,
        maxWr: count - 1,
        maxSge: sges,
        limit: 0,
        userHandle: 6n,
        bufferAddress: pages.addressOf(at),
        doorbellAddress: pages.addressOf(doorbell),
        uidx: 77,
      }).object
    const state = { head: 0, tail: count - 1, posted: 0 }
    return {
      object,
      handle: pool?.object,
      /** Offsets of the requests and of the doorbell record. */
      at,
      record: doorbell,
      /** Returns the index of the request. */
      receive(data: Element): number {
        const index = state.head
        assert.notEqual(index, state.tail, 'the queue is full')
        const request = at + index * 2 ** shift
        state.head = order === 'LIST' ? view.getUint16(request + 2) : (state.head + 1) % count
        putElement(request + 16, data)
        if (sges * 16 + 16 < 2 ** shift) putElement(request + 32, { address: 0n, length: 0, lkey: 0x100 })
        state.posted++
        view.setUint32(doorbell, state.posted & 0xffff)
        return index
      },
      /** The program has polled the completion of request `index`. */
      free(index: number): void {
        view.setUint16(at + state.tail * 2 ** shift + 2, index)
        state.tail = index
      },
      limit(limit: number): void {
        if (pool === undefined) call(Srq, 'modify', object, { limit })
        else {
          const ctx = { state: 1, wq: { lwm: limit } }
          firmware!.modify(pool.object, 'MODIFY_RMP', { rmpn: object, rmp_state: 1, lwm: 1, ctx })
        }
      },
      destroy: (): void =>
        pool === undefined ? void call(Srq, 'destroy', object, {}) : firmware!.destroy(pool.object),
    }
  }

  return {
    firmware,
    recordPlace,
    record,
    context,
    device,
    bytes,
    address,
    region,
    pages,
    element,
    queuePair,
    sharedReceives,
    target,
    workQueue,
    call,
    pd,
    cq,
    channel,
    window: (): { object: number; rkey: number } => {
      const { object, out } = call<{ rkey: number }>(Mw, 'create', 0, { pd, type: MwType.values.TYPE_2 })
      return { object, rkey: out.rkey }
    },
    handleOf: (other: number): void => {
      const path = { ...zeroRecord(QpAddress), dgid: ipv4(other + 1), sgidIndex: GID_INDEX, isGlobal: 1, port: 1 }
      call(Ah, 'create', 0, { pd, userHandle: 0n, address: path })
    },
    /** Types of the asynchronous events so far. */
    asyncEvents: (): number[] => [
      ...asyncEvents.queue.map(({ type }) => type),
      ...firmwareEvents.queue.flatMap(({ bytes: record }) => {
        const type = record[EventRecord.TYPE]
        return Object.values(ObjectEvents).flatMap(known => (known.type === type ? (known.event ?? []) : []))
      }),
    ],
    /** As ibv_req_notify_cq of libmlx5. */
    arm(isSolicitedOnly = false): void {
      const word = ((cq.serial & 3) << 28) | (isSolicitedOnly ? 1 << 24 : 0) | (cq.polled & 0xff_ffff)
      view.setUint32(cq.record + 4, word)
    },
    /** As ibv_resize_cq of libmlx5: moves what is left to the new entries. */
    resize(count: number): void {
      const old = { ...cq }
      const at = prepareEntries(count, cq.entryBytes)
      call(Cq, 'modify', cq.object, { cqe: count - 1, bufferAddress: pages.addressOf(at), entryBytes: cq.entryBytes })
      let i = cq.polled
      for (; view.getUint8(entryAt(i) + CompletionEntry.OWNER) >> 4 !== CompletionKind.RESIZED; i++) {
        assert.ok(isReady(i), 'no entry says that the queue was resized')
        const to = at + ((i + 1) & (count - 1)) * cq.entryBytes
        const from = entryAt(i) + 64 - cq.entryBytes
        pages.bytes.copyWithin(to, from, from + cq.entryBytes)
        const owner = to + cq.entryBytes - 1
        view.setUint8(owner, (view.getUint8(owner) & ~1) | (((i + 1) & count) === 0 ? 0 : 1))
      }
      assert.ok(i - old.polled <= old.entries)
      Object.assign(cq, { at, entries: count, polled: cq.polled + 1 })
    },
    /** New completions, oldest first, at most `max`. */
    poll(max = Number.POSITIVE_INFINITY): Completion[] {
      const all: Completion[] = []
      while (all.length < max && isReady(cq.polled)) {
        const at = entryAt(cq.polled)
        const kind = view.getUint8(at + CompletionEntry.OWNER) >> 4
        const source = view.getUint32(at + CompletionEntry.SOURCE)
        const isError = kind === CompletionKind.REQUEST_ERROR || kind === CompletionKind.RECEIVE_ERROR
        all.push({
          kind,
          counter: view.getUint16(at + CompletionEntry.COUNTER),
          uidx: view.getUint32(at + CompletionEntry.UIDX),
          opcode: view.getUint8(at + CompletionEntry.OPCODE_QPN),
          qpn: view.getUint32(at + CompletionEntry.OPCODE_QPN) & 0xff_ffff,
          bytes: isError ? 0 : view.getUint32(at + CompletionEntry.LENGTH),
          imm: isError ? 0 : view.getUint32(at + CompletionEntry.IMM),
          sourceQpn: isError ? 0 : source & 0xff_ffff,
          slid: isError ? 0 : view.getUint16(at + CompletionEntry.SLID),
          sl: isError ? 0 : (source >>> 24) & 15,
          hasGrh: !isError && ((source >>> 28) & 3) !== 0,
          syndrome: isError ? view.getUint8(at + CompletionEntry.SYNDROME) : 0,
          vendor: isError ? view.getUint8(at + CompletionEntry.VENDOR_SYNDROME) : 0,
          headers: isError ? 0 : view.getUint16(at + CompletionEntry.FRAME_HEADERS),
          entry: pages.bytes.slice(at, at + CompletionEntry.BYTES),
        })
        cq.polled++
      }
      // a CQ that ignores overruns does not need the index: UCX does not store it
      if ((cqFlags & CqFlags.values.IGNORE_OVERRUN) === 0) view.setUint32(cq.record, cq.polled & 0xff_ffff)
      return all
    },
  }
}
export type Program = ReturnType<typeof program>

export const { SEND, SEND_IMM, SEND_INVAL, RDMA_WRITE, RDMA_WRITE_IMM, RDMA_READ, ATOMIC_CS, ATOMIC_FA, UMR, MMO } =
  Mlx5Opcode
