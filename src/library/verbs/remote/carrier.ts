/*
 * The carrier (library/verbs/carrier.ts) of devices in a daemon. Calls are messages, rings are in the context's memory
 * file, buffers have their real addresses, events arrive on descriptors. A post wakes the daemon if it sleeps.
 */
import { noDeviceText } from '../../../base/suggest.ts'
import { realClock } from '../../../host/event-loop/clock.ts'
import { yieldProcessor } from '../../../host/event-loop/yield.ts'
import { loadWord } from '../../../host/memory/fence.ts'
import { addressOf } from '../../../host/memory/mapping.ts'
import { close, sendBytes } from '../../../host/net/sockets.ts'
import { Cq } from '../../../spec/classes/cq.ts'
import { DeviceClass } from '../../../spec/classes/device/device.ts'
import { Interface } from '../../../spec/classes/device/interface.ts'
import { AsyncFd } from '../../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../../spec/classes/events/comp_channel.ts'
import { mappedLayout } from '../../../spec/drivers/ring-layout.ts'
import { AsyncEventType } from '../../../spec/enums.ts'
import { type ErrnoName, errnoName } from '../../../spec/errno.ts'
import type { AnyValues, ObjectClass } from '../../../spec/schema/schema.ts'
import { Messages, OpenWants, ParkedPage, PostInline, PostQueue, UNKNOWN_OPCODE } from '../../../spec/session.ts'
import { declare } from '../../../uapi/object/description.ts'
import { writeRequest } from '../../../uapi/session-codec.ts'
import {
  type AnyCall,
  type AnyCallAsync,
  type CallResult,
  type Carrier,
  type DeviceCounters,
  isInlineData,
  lengthOfData,
} from '../carrier.ts'
import { closedError, deviceClosedError, invalidArgument, refusal, refused } from '../error.ts'
import { CLOSED } from '../plan.ts'
import { closeAtThreadEnd, forgetThreadEnd } from '../thread-end.ts'
import type { OpenedCarrier } from '../watch/watch.ts'
import { armedByWord } from './arm-words.ts'
import { ANSWER_TIMEOUT, joinDaemon, restartHint, type Session } from './daemon-session.ts'
import { remoteDescriptors } from './descriptors.ts'
import { createFileRings } from './file-rings.ts'
import { createCalls } from './messages.ts'
import { createPostLog } from './post-log.ts'
import { ASYNC_RECORD, COMPLETION_RECORD } from './records.ts'
import { areStacksWanted } from './stack-numbers.ts'

const { DEVICE_FATAL, PORT_ACTIVE, PORT_ERR, LID_CHANGE, PKEY_CHANGE, SM_CHANGE, CLIENT_REREGISTER, GID_CHANGE } =
  AsyncEventType.values
/** Events of a port: their element is the port's number. */
const portEvents = new Set<number>([
  PORT_ACTIVE,
  PORT_ERR,
  LID_CHANGE,
  PKEY_CHANGE,
  SM_CHANGE,
  CLIENT_REREGISTER,
  GID_CHANGE,
])
/** A doorbell token that names no queue pair. */
const NO_QP = 0xffff_ffff
/** The result of a call that answers nothing. */
const NO_RESULT: CallResult<AnyValues> = { object: 0, out: {} }
/** Empty polls between two checks that the daemon is alive. */
const POLLS_PER_CHECK = 128

/** Characters of the field of a FAULT message, with its NUL. */
const MAX_FAULT_TEXT = Messages.faultRules.size

/** The rules for one device; those that name another one are unchanged. */
const byDevice = (text: string, device: string): string =>
  text
    .split(';')
    .map(rule => (rule.trim() === '' || /(^|,)\s*device\s*=/.test(rule) ? rule : `device=${device},${rule}`))
    .join(';')

interface RemoteDevice {
  readonly name: string
  /** IP address as text; '' for a device without a network. */
  readonly address: string
  /** N of uverbsN. */
  readonly node: number
}

interface RemoteCarrier extends OpenedCarrier {
  readonly device: RemoteDevice
}

/** The devices of a daemon, in its order. Throws RdmaError EIO; `call`: the call's name in errors. */
const devicesOf = (session: Session, call: string): readonly RemoteDevice[] => {
  const answer = session.tool({ kind: 'config' })
  if (!('config' in answer)) throw refused('EIO', call, `the daemon at ${session.socket} does not list its devices`)
  return answer.config.devices
}

/**
 * Opens a context on the device with this name, or on the first device with a network. Returns the device, the
 * context's number, and the context's descriptors (memory file, doorbell). Throws RdmaError: EACCES if the daemon may
 * not access this program's memory, ENODEV without such a device.
 */
const openContext = (session: Session, name: string | undefined) => {
  if (session.memory !== undefined)
    throw refused(
      'EACCES',
      'open',
      `the daemon at ${session.socket} may not access this program's memory`,
      'start the daemon as the same user or as root; see also /proc/sys/kernel/yama/ptrace_scope',
    )
  const devices = devicesOf(session, 'open')
  const device = devices.find(listed => (name === undefined ? listed.address !== '' : listed.name === name))
  if (device === undefined) {
    const names = devices.map(listed => listed.name)
    const inNetwork = `there is no device in a network; there are ${names.join(', ') || 'none'}`
    throw refused('ENODEV', 'open', name === undefined ? inNetwork : noDeviceText(name, names))
  }
  const { reply, fds } = session.ask('open', (buffer, header) =>
    writeRequest(buffer, 'OPEN', header, { node: device.node, wants: OpenWants.PACKED_RINGS }),
  )
  if (reply.error !== 0)
    throw refusal(errnoName(reply.error), reply.error, 'open', `device ${device.name} cannot be opened`)
  return { device, context: reply.context, file: fds[0]!, doorbell: fds[1]! }
}

/** Opens the device with this name, or the first device with a network, of the daemon at `socket`. Throws RdmaError. */
// biome-ignore lint/complexity/noExcessiveLinesPerFunction: one session and context
export const remoteCarrier = (socket: string, name?: string): RemoteCarrier => {
  const session = joinDaemon(socket, 'open')
  let opened: ReturnType<typeof openContext>
  try {
    opened = openContext(session, name)
  } catch (error) {
    session.leave()
    throw error
  }
  const { device, context, file, doorbell } = opened
  const descriptors = remoteDescriptors(session, () => session.checkAlive())
  const makeCall = createCalls(session, context, file, descriptors.add)
  const rings = createFileRings(file)
  const armings = armedByWord(file, session.parked)
  /** Wakes the daemon if it sleeps, and lets it run. */
  const wake = (): void => {
    carrier.posted(NO_QP)
    yieldProcessor()
  }
  const check = areStacksWanted() ? createPostLog(session, context, file, wake) : undefined
  /** Registered buffers, which must not be garbage-collected, and the number of registrations of each. */
  const registrations = new Map<Uint8Array, number>()
  /** The message to the doorbell: the handle of a queue pair. */
  const token = new Uint8Array(4)
  const tokenView = new DataView(token.buffer)
  let polls = 0
  let isClosed = false

  /** Reads the records of an event descriptor as they arrive, until its end. */
  const readEvents = (fd: number, bytes: number, onRecord: (record: DataView) => void): void =>
    descriptors.read(fd, bytes, onRecord, ended)
  /** Neither events nor completions follow: later calls throw. */
  const ended = (): void => {
    armings.end()
    carrier.targets?.ended()
  }

  const end = (): Promise<void> | undefined => {
    if (isClosed) return undefined
    isClosed = true
    descriptors.closeAll()
    check?.end()
    rings.close()
    armings.end()
    close(file)
    // The end of the doorbell ends the context only if the file is neither open nor mapped.
    close(doorbell)
    return new Promise(resolve => {
      const timer = setTimeout(resolve, ANSWER_TIMEOUT)
      // Until the daemon has destroyed the regions, requests in flight can write to the program's buffers.
      session.whenDestroyed(context, () => {
        clearTimeout(timer)
        forgetThreadEnd(endWithThread)
        registrations.clear()
        session.leave()
        resolve()
      })
    })
  }
  const endWithThread = (): void => {
    void end()
    session.waitDestroyed()
  }

  closeAtThreadEnd(endWithThread)
  let channel: number | undefined
  let classes: readonly ObjectClass[]
  try {
    const { out } = makeCall(DeviceClass, 'open', 0, {})
    if (typeof out.numCompVectors !== 'number')
      throw refused('EIO', 'device.open', `the daemon at ${socket} answers without numCompVectors`)
    classes = declare(makeCall(Interface, 'query', 0, {}).out as Parameters<typeof declare>[0])
    makeCall.setDeviceClasses(classes)
    const events = makeCall(AsyncFd, 'create', 0, {}).object
    readEvents(events, ASYNC_RECORD, record => {
      // struct ib_uverbs_async_event_desc: u64 element (a user handle or a port), u32 event_type.
      const element = record.getUint32(0, true)
      const type = record.getUint32(8, true)
      if (type === DEVICE_FATAL) carrier.targets?.event(type, undefined, undefined)
      else if (portEvents.has(type)) carrier.targets?.event(type, undefined, element)
      else carrier.targets?.event(type, element, undefined)
      if (type === DEVICE_FATAL) ended()
    })
    // A device without verbs has no completions.
    if (classes.some(({ name }) => name === CompChannel.name)) {
      channel = makeCall(CompChannel, 'create', 0, {}).object
      // struct ib_uverbs_comp_event_desc: u64 cq_handle, the user handle of the CQ.
      readEvents(channel, COMPLETION_RECORD, record => carrier.targets?.completion(record.getUint32(0, true)))
    }
  } catch (error) {
    void end()
    throw error
  }

  const call: AnyCall = (cls, method, object, args) => {
    const callName = `${cls.name}.${method}`
    if (object === CLOSED) throw closedError(callName)
    if (isClosed) throw deviceClosedError(callName)
    if (cls === Cq && method === 'reqNotify' && isArmedByWord(object, args)) return NO_RESULT
    return makeCall(cls, method, object, args)
  }
  /** Stacks, for `userdma check`, need the call; so does a threshold. */
  const isArmedByWord = (cq: number, { solicitedOnly, count, period }: AnyValues): boolean =>
    check === undefined && count === undefined && period === undefined && armings.arm(cq, solicitedOnly === 1)
  const callAsync: AnyCallAsync = async (cls, method, object, args, signal) => {
    signal?.throwIfAborted()
    return call(cls, method, object, args)
  }

  const carrier: RemoteCarrier = {
    clock: realClock,
    isRemote: true,
    refusesPost(handle, qpn, isSend, opcode = UNKNOWN_OPCODE, id, data) {
      if (loadWord(session.parked, ParkedPage.POSTS) === 0) return undefined
      const queue = qpn === undefined ? PostQueue.SHARED : isSend ? PostQueue.SEND : PostQueue.RECEIVE
      const inlined = isInlineData(data) ? PostInline.YES : isSend ? PostInline.NO : PostInline.UNKNOWN
      const posting = { wrId: BigInt(id), queue, number: qpn ?? handle, opcode, length: lengthOfData(data), inlined }
      const { reply } = session.ask('post', (buffer, header) =>
        writeRequest(buffer, 'POST', { ...header, context }, posting),
      )
      return reply.ret < 0n ? (errnoName(-Number(reply.ret)) as ErrnoName) : undefined
    },
    setFault(text) {
      const rules = byDevice(text, device.name)
      if (rules.length >= MAX_FAULT_TEXT)
        throw refused(
          'E2BIG',
          'device.fault',
          `the rules have ${rules.length} characters`,
          'set them one after the other',
        )
      const { reply } = session.ask('fault', (buffer, header) => writeRequest(buffer, 'FAULT', header, { rules }))
      if (reply.ret < 0n) throw refusal(errnoName(-Number(reply.ret)), -Number(reply.ret), 'device.fault', reply.why)
      const faultId = Number(reply.ret)
      const askAbout = (name: 'FAULT_COUNT' | 'FAULT_CLEAR'): number =>
        Number(session.ask('fault', (buffer, header) => writeRequest(buffer, name, header, { faultId })).reply.ret)
      return { count: () => askAbout('FAULT_COUNT'), clear: () => void (isClosed || askAbout('FAULT_CLEAR')) }
    },
    device,
    check,
    classes,
    call: call as Carrier['call'],
    callAsync: callAsync as Carrier['callAsync'],
    descriptors,
    layout: mappedLayout,
    ring: rings.ring,
    release: rings.release,
    channel: channel === undefined ? {} : { channel },
    counters() {
      if (isClosed) throw deviceClosedError('device.counters')
      // This call fails if the device was removed. Otherwise a later device with its node would be found below.
      makeCall(DeviceClass, 'query', 0, {})
      // The device may have been renamed.
      const listed = devicesOf(session, 'device.counters').find(({ node }) => node === device.node)
      const answer = listed && session.tool({ kind: 'stat', devices: [listed.name] })
      const stat =
        answer && 'stat' in answer ? answer.stat.devices.find(found => found.name === listed.name) : undefined
      if (stat === undefined)
        throw refused('EIO', 'device.counters', `the daemon does not report counters of device ${device.name}`)
      const { hw_counters, counters, port, transport, faults } = stat
      return { hw_counters, counters, port, transport, faults } as object as DeviceCounters
    },
    setWaiting: descriptors.setWaiting,
    posted(handle) {
      // The store of the ring's index before this load is a full barrier (host/memory/fence.ts).
      if (isClosed || loadWord(session.parked, ParkedPage.PARKED) === 0) return
      tokenView.setUint32(0, handle, true)
      // If the socket is full, this token may be lost, because the tokens in the socket wake the daemon.
      sendBytes(doorbell, token)
    },
    drive(callName) {
      if (++polls % POLLS_PER_CHECK === 0) {
        if (isClosed) throw deviceClosedError(callName)
        if (!session.checkAlive())
          throw refused('EIO', callName, `the daemon of device ${device.name} has ended`, restartHint(session.socket))
      }
      yieldProcessor()
      return true
    },
    // Waits for a daemon's events always let the event loop run.
    overdueTurn: () => undefined,
    awaitsNextTurn: () => false,
    addressOf(buffer, callName) {
      const backing = buffer.buffer as ArrayBufferLike & { resizable?: boolean; growable?: boolean }
      if (backing.resizable || backing.growable)
        throw invalidArgument(callName, 'a resizable buffer cannot be registered: copy it into one of fixed size')
      registrations.set(buffer, (registrations.get(buffer) ?? 0) + 1)
      return addressOf(buffer)
    },
    forget(buffer) {
      const count = (registrations.get(buffer) ?? 1) - 1
      if (count === 0) registrations.delete(buffer)
      else registrations.set(buffer, count)
    },
    targets: undefined,
    close: end,
  }
  return carrier
}
