/*
 * EFA devices on a memory link in this process, with the test's own clock, and programs that write descriptors as
 * libefa does. All messages are packets if a fault rule is given, otherwise they are delivered directly.
 */
import { attachSink, createEventQueue, createLocalSpace, invokeNow, openContext } from '../../../src/core/index.ts'
import { findableMemory, type MappedChunk } from '../../../src/core/memory/mappable-memory.ts'
import type { Account } from '../../../src/core/model.ts'
import { efaDriver } from '../../../src/drivers/efa/device.ts'
import type { EfaState } from '../../../src/drivers/efa/device-state.ts'
import { Ah } from '../../../src/spec/classes/ah.ts'
import { Cq } from '../../../src/spec/classes/cq.ts'
import { AsyncFd } from '../../../src/spec/classes/events/async_fd.ts'
import { CompChannel } from '../../../src/spec/classes/events/comp_channel.ts'
import { Mr } from '../../../src/spec/classes/mr.ts'
import { Pd } from '../../../src/spec/classes/pd.ts'
import { DriverQp } from '../../../src/spec/classes/qp/driver_qp.ts'
import { QpAddress } from '../../../src/spec/classes/qp/qp.ts'
import { UdQp } from '../../../src/spec/classes/qp/ud_qp.ts'
import { EfaQpFlags } from '../../../src/spec/drivers/efa.ts'
import {
  CompletionEntry,
  CompletionFlag,
  CqDoorbell,
  SendControl,
  SendDescriptor,
} from '../../../src/spec/drivers/efa-queues.ts'
import { AccessFlags, QpState } from '../../../src/spec/enums.ts'
import { zeroRecord } from '../../../src/spec/schema/schema.ts'
import type { Port } from '../../../src/transport/phy/port.ts'
import { callerOn, driverMachine, ipv4, type MachineOptions, QKEY } from '../machine.ts'

export { ipv4, QKEY }

export const machine = (
  count: number,
  fault = '',
  { torment, runs }: Pick<MachineOptions, 'torment' | 'runs'> = {},
) => {
  /** Devices whose ports have no room for packets. */
  const full = new Set<number>()
  const names = Array.from({ length: count }, (_, i) => `efa${i}`)
  const onPort = (port: Port, i: number): void => {
    const { reserve } = port
    port.reserve = bytes => (full.has(i) ? -1 : reserve.call(port, bytes))
  }
  const made = driverMachine(efaDriver, names, fault, { onPort, torment, runs })
  return { ...made, full }
}
export type Machine = ReturnType<typeof machine>

export interface Completion {
  readonly id: number
  readonly status: number
  readonly isSend: boolean
  readonly operation: number
  readonly isUnsolicited: boolean
  readonly imm: number | undefined
  readonly bytes: number
  readonly sourceQpn: number
}

/** A range at the peer. */
export interface Remote {
  readonly address: number
  readonly rkey: number
}

const BYTES = 1 << 18

/** A program with one queue pair of SRD, or of UD, a region of 256 KiB and a completion queue. */
export const program = (
  m: Machine,
  device: number,
  options: {
    rnrRetry?: number
    unsolicited?: boolean
    bytes?: number
    entries?: number
    channel?: boolean
    isUd?: boolean
    account?: Account
  } = {},
) => {
  const { device: efa } = m.devices[device]!
  const mapped = findableMemory()
  const { account } = options
  const context = openContext(efa, { isOpened: true, mapped, ...(account && { account }) })
  const space = createLocalSpace()
  const caller = callerOn(space)
  const watch = (fd: number) => {
    const queue = createEventQueue()
    attachSink(m.core.descriptors.get(fd)!, queue)
    return queue
  }
  const asyncFd = invokeNow(context, AsyncFd, 'create', 0, {}, caller).descriptors![0]!.object
  const asyncEvents = watch(asyncFd)
  const channel = invokeNow(context, CompChannel, 'create', 0, {}, caller).descriptors![0]!.object
  const cqEvents = watch(channel)
  const pd = invokeNow(context, Pd, 'create', 0, {}, caller).object!
  const bytes = new Uint8Array(options.bytes ?? BYTES)
  const address = space.add(bytes)
  const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, RELAXED_ORDERING } = AccessFlags.values
  const region = invokeNow(
    context,
    Mr,
    'create',
    0,
    {
      pd,
      start: BigInt(address),
      length: BigInt(bytes.length),
      iova: BigInt(address),
      access: LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE | RELAXED_ORDERING,
    },
    caller,
  ).out as { lkey: number; rkey: number }
  const entries = options.entries ?? 1024
  const created = invokeNow(
    context,
    Cq,
    'create',
    0,
    {
      cqe: entries,
      userHandle: 0n,
      compVector: 0,
      entryBytes: 32,
      asyncFd,
      ...(options.channel && { channel }),
    } as never,
    caller,
  )
  const cqOut = created.out as unknown as { ringKey: bigint; doorbellKey: bigint; doorbellOffset: number }
  const qpArguments = {
    pd,
    sendCq: created.object!,
    recvCq: created.object!,
    cap: { maxSendWr: 256, maxRecvWr: 256, maxSendSge: 2, maxRecvSge: 1, maxInlineData: 32 },
    userHandle: 0n,
    qpFlags: options.unsolicited ? EfaQpFlags.UNSOLICITED_WRITE_RECEIVE : 0,
  }
  const cls = (options.isUd ? UdQp : DriverQp) as typeof DriverQp
  const qp = invokeNow(context, cls, 'create', 0, qpArguments as never, caller)
  const keys = qp.out as unknown as Record<string, bigint> & { qpNum: number }
  const { INIT, RTR, RTS } = QpState.values
  const modify = (args: object): void => void invokeNow(context, cls, 'modify', qp.object!, args as never, caller)
  modify({ state: INIT, pkeyIndex: 0, port: 1, qkey: QKEY })
  modify({ state: RTR })
  modify({ state: RTS, sqPsn: 0, ...(options.rnrRetry !== undefined && { rnrRetry: options.rnrRetry }) })

  const at = (key: bigint): MappedChunk => mapped.at(key)
  const ring = (chunk: MappedChunk, offset: number, value: number): void =>
    chunk.view.setUint32(chunk.at + offset, value, true)
  let sent = 0
  let posted = 0
  let polled = 0
  let events = 0
  const ringCq = (isArmed: boolean): void => {
    const { EVENTS_SHIFT, EVENTS_MASK, ARM } = CqDoorbell
    const value = (polled & 0xffff) | ((events & EVENTS_MASK) << EVENTS_SHIFT) | (isArmed ? ARM : 0)
    ring(at(cqOut.doorbellKey), cqOut.doorbellOffset, value >>> 0)
  }

  const handle = (other: number): { number: number; destroy: () => void } => {
    const address = { ...zeroRecord(QpAddress), dgid: ipv4(other + 1), isGlobal: 1, port: 1 }
    const { object, out } = invokeNow(context, Ah, 'create', 0, { pd, userHandle: 0n, address }, caller)
    const { number } = out as { number: number }
    return { number, destroy: () => void invokeNow(context, Ah, 'destroy', object!, {}, caller) }
  }

  return {
    context,
    bytes,
    address,
    region,
    qpn: keys.qpNum,
    modify,
    state: (efa.state as EfaState).qps.get(keys.qpNum)!.state,
    /** Stores to the doorbell of receives. */
    ringReceives: (value: number): void =>
      ring(at(keys.receiveDoorbellKey!), Number(keys.receiveDoorbellOffset), value & 0xffff),
    /** Creates an address handle for a device; returns its number. */
    handleOf: (other: number): number => handle(other).number,
    handle,

    post(send: {
      id: number
      operation: number
      ah: number
      qpn: number
      offset: number
      length: number
      imm?: number
      remote?: Remote
      qkey?: number
    }): void {
      const chunk = at(keys.sendRingKey!)
      const here = chunk.at + (sent & 255) * 64
      const { view } = chunk
      for (let i = 0; i < 64; i += 4) view.setUint32(here + i, 0)
      view.setUint16(here + SendDescriptor.REQUEST_ID, send.id, true)
      const control = SendControl.META | send.operation | (send.imm === undefined ? 0 : SendControl.HAS_IMM)
      view.setUint8(here + SendDescriptor.CONTROL_1, control)
      view.setUint16(here + SendDescriptor.DEST_QPN, send.qpn, true)
      view.setUint16(here + SendDescriptor.LENGTH, 1, true)
      view.setUint32(here + SendDescriptor.IMM, send.imm ?? 0, true)
      view.setUint16(here + SendDescriptor.AH, send.ah, true)
      view.setUint32(here + SendDescriptor.QKEY, send.qkey ?? QKEY, true)
      let data = here + SendDescriptor.DATA
      if (send.remote !== undefined) {
        view.setUint32(data, send.length, true)
        view.setUint32(data + 4, send.remote.rkey, true)
        view.setBigUint64(data + 8, BigInt(send.remote.address), true)
        data += 16
      }
      view.setUint32(data, send.length, true)
      view.setUint32(data + 4, region.lkey, true)
      view.setBigUint64(data + 8, BigInt(address + send.offset), true)
      sent++
      ring(at(keys.sendDoorbellKey!), Number(keys.sendDoorbellOffset), sent & 0xffff)
    },

    receive(id: number, offset: number, length: number): void {
      const chunk = at(keys.receiveRingKey!)
      const here = chunk.at + (posted & 255) * 16
      chunk.view.setBigUint64(here, BigInt(address + offset), true)
      chunk.view.setUint16(here + 8, id, true)
      chunk.view.setUint16(here + 10, length, true)
      chunk.view.setUint32(here + 12, (region.lkey | (3 << 30)) >>> 0, true)
      posted++
      ring(at(keys.receiveDoorbellKey!), Number(keys.receiveDoorbellOffset), posted & 0xffff)
    },

    /** New completions, oldest first. */
    poll(): Completion[] {
      const chunk = at(cqOut.ringKey)
      const { view } = chunk
      const all: Completion[] = []
      for (;;) {
        const here = chunk.at + (polled & (entries - 1)) * 32
        const flags = view.getUint8(here + CompletionEntry.FLAGS)
        const phase = (polled & entries) === 0 ? 1 : 0
        if ((flags & CompletionFlag.PHASE) !== phase) break
        const isSend = (flags & 6) === CompletionFlag.SEND_QUEUE
        const operation = (flags >> CompletionFlag.OPERATION_SHIFT) & 7
        all.push({
          id: view.getUint16(here, true),
          status: view.getUint8(here + CompletionEntry.STATUS),
          isSend,
          operation,
          isUnsolicited: (flags & CompletionFlag.UNSOLICITED) !== 0,
          imm: (flags & CompletionFlag.HAS_IMM) === 0 ? undefined : view.getUint32(here + CompletionEntry.IMM, true),
          bytes: isSend
            ? 0
            : view.getUint16(here + CompletionEntry.LENGTH, true) +
              (operation === 2 ? view.getUint16(here + CompletionEntry.LENGTH_HIGH, true) * 65536 : 0),
          sourceQpn: isSend ? 0 : view.getUint16(here + CompletionEntry.SOURCE_QPN, true),
        })
        polled++
        ringCq(false)
      }
      return all
    },

    /** Stores to the doorbell of the CQ. */
    ringCq: (value: number): void => ring(at(cqOut.doorbellKey), cqOut.doorbellOffset, value),
    /** Asks for an event of the CQ. */
    arm: (): void => ringCq(true),
    /** Takes an event of the CQ; false if there is none. */
    takeEvent(): boolean {
      if (cqEvents.take(1).length === 0) return false
      events++
      return true
    },
    /** Types of the asynchronous events so far. */
    asyncEvents: (): number[] => asyncEvents.queue.map(({ type }) => type),
  }
}
export type Program = ReturnType<typeof program>
