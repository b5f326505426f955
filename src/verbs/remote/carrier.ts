/*
 * The carrier of devices in a daemon (docs/decisions/one-provider.md): does what a program does through the preload
 * library, in TypeScript. Calls are messages, rings are in the context's memory file, buffers have their real
 * addresses, events arrive on descriptors. Posting wakes the daemon if it sleeps.
 */

import { yieldProcessor } from '../../host/event-loop/yield.ts'
import { loadWord } from '../../host/memory/fence.ts'
import { addressOf } from '../../host/memory/mapping.ts'
import { close, sendSmall } from '../../host/net/sockets.ts'
import { Device as DeviceClass } from '../../spec/classes/device/device.ts'
import { Interface } from '../../spec/classes/device/interface.ts'
import { AsyncFd } from '../../spec/classes/events/async_fd.ts'
import { CompChannel } from '../../spec/classes/events/comp_channel.ts'
import { rxeLayout } from '../../spec/drivers/ring-layout.ts'
import { AsyncEventType } from '../../spec/enums.ts'
import { errnoName } from '../../spec/errno.ts'
import { declare } from '../../spec/schema/description.ts'
import type { ObjectClass } from '../../spec/schema/schema.ts'
import { OpenWants, ParkedPage } from '../../spec/session.ts'
import { writeRequest } from '../../uapi/session-codec.ts'
import type { AnyCall, AnyCallAsync, Carrier } from '../carrier.ts'
import type { Checked } from '../check/checked.ts'
import { invalidArgument, RdmaError, refusal, refused } from '../error.ts'
import { CLOSED, isClosed } from '../plan.ts'
import { joinDaemon, type Session } from './daemon-session.ts'
import { remoteDescriptors } from './descriptors.ts'
import { createFileRings } from './file-rings.ts'
import { createCalls } from './messages.ts'
import { createPostLog } from './post-log.ts'
import { ASYNC_RECORD, COMPLETION_RECORD } from './records.ts'
import { areStacksWanted } from './stack-numbers.ts'

const { DEVICE_FATAL, PORT_ACTIVE, PORT_ERR, LID_CHANGE, PKEY_CHANGE, SM_CHANGE, CLIENT_REREGISTER, GID_CHANGE } =
  AsyncEventType.values
/** Events whose element is a port's number. */
const OF_PORT = new Set<number>([
  PORT_ACTIVE,
  PORT_ERR,
  LID_CHANGE,
  PKEY_CHANGE,
  SM_CHANGE,
  CLIENT_REREGISTER,
  GID_CHANGE,
])
/** A doorbell for no queue pair. */
const NO_QP = 0xffff_ffff
/** Empty polls between two checks that the daemon is alive. */
const POLLS_PER_CHECK = 128

export interface RemoteDevice {
  readonly name: string
  readonly address: string
  /** N of uverbsN. */
  readonly node: number
}

interface RemoteCarrier extends Carrier {
  readonly device: RemoteDevice
  /** Only under `userdma check`. */
  readonly checked: Checked | undefined
}

/** The devices of a daemon, sorted by node number. */
const devicesOf = (session: Session): readonly RemoteDevice[] => {
  const answer = session.tool({ what: 'config' })
  if (!('config' in answer)) throw refused('EIO', 'open', `the daemon at ${session.socket} does not list its devices`)
  return answer.config.devices
}

/** The context's descriptors: memory file and doorbell; and its number. */
const openContext = (session: Session, wanted: string | undefined) => {
  if (session.memory !== undefined)
    throw refused(
      'EACCES',
      'open',
      `the daemon at ${session.socket} may not access this program's memory`,
      'start the daemon as the same user or as root; see also /proc/sys/kernel/yama/ptrace_scope',
    )
  const devices = devicesOf(session)
  const device = devices.find(({ name, address }) => (wanted === undefined ? address !== '' : name === wanted))
  if (device === undefined)
    throw refused(
      'ENODEV',
      'open',
      `no device ${wanted ?? 'in a network'}; there are ${devices.map(({ name }) => name).join(', ')}`,
    )
  const { reply, fds } = session.ask('open', (to, from) =>
    writeRequest(to, 'OPEN', from, { node: device.node, wants: OpenWants.PACKED_RINGS }),
  )
  if (reply.error !== 0)
    throw refusal(errnoName(reply.error), reply.error, 'open', `device ${device.name} cannot be opened`)
  return { device, context: reply.context, file: fds[0]!, doorbell: fds[1]! }
}

/** Opens a device of the daemon at `socket`, by name or the first one. Throws RdmaError. */
export const remoteCarrier = (socket: string, wanted?: string): RemoteCarrier => {
  const session = joinDaemon(socket)
  let opened: ReturnType<typeof openContext>
  try {
    opened = openContext(session, wanted)
  } catch (error) {
    session.leave()
    throw error
  }
  const { device, context, file, doorbell } = opened
  const send = createCalls(session, context, file)
  const rings = createFileRings(file)
  /** Registered buffers, which must not be garbage-collected, and the number of registrations of each. */
  const known = new Map<Uint8Array, number>()
  const token = new Uint8Array(4)
  const tokenView = new DataView(token.buffer)
  let polls = 0
  let closed = false

  const descriptors = remoteDescriptors(session, () => session.check())
  /** Reads the records of an event descriptor as they arrive, until its end. */
  const read = (fd: number, bytes: number, take: (record: DataView) => void): void => {
    descriptors.made(fd)
    descriptors.read(fd, bytes, take, () => carrier.targets?.ended())
  }

  const end = (): undefined => {
    if (closed) return
    closed = true
    descriptors.closeAll()
    close(doorbell)
    close(file)
    rings.close()
    known.clear()
    session.leave()
  }

  let channel: number | undefined
  let classes: readonly ObjectClass[]
  try {
    const { out } = send(DeviceClass, 'open', 0, {})
    if (typeof out.numCompVectors !== 'number') throw refused('EIO', 'device.open', 'an unexpected answer')
    classes = declare(send(Interface, 'query', 0, {}).out as Parameters<typeof declare>[0])
    send.learn(classes)
    const events = send(AsyncFd, 'create', 0, {}).object
    read(events, ASYNC_RECORD, record => {
      const element = record.getUint32(0, true)
      const type = record.getUint32(8, true)
      if (type === DEVICE_FATAL) carrier.targets?.event(type, undefined, undefined)
      else if (OF_PORT.has(type)) carrier.targets?.event(type, undefined, element)
      else carrier.targets?.event(type, element, undefined)
      if (type === DEVICE_FATAL) carrier.targets?.ended()
    })
    // A device without verbs has no completions.
    if (classes.some(({ name }) => name === CompChannel.name)) {
      channel = send(CompChannel, 'create', 0, {}).object
      read(channel, COMPLETION_RECORD, record => carrier.targets?.completion(record.getUint32(0, true)))
    }
  } catch (error) {
    end()
    throw error
  }

  const alive = (call: string): void => {
    if (closed) throw refused('EIO', call, 'the device is closed')
  }

  const call: AnyCall = (cls, method, object, args) => {
    const name = `${cls.name}.${method}`
    if (object === CLOSED) throw isClosed(name)
    alive(name)
    const answered = send(cls, method, object, args)
    if (cls.identity === 'fd' && method === 'create') descriptors.made(answered.object)
    return answered
  }
  const callAsync: AnyCallAsync = async (cls, method, object, args, signal) => {
    signal?.throwIfAborted()
    return call(cls, method, object, args)
  }

  /** Wakes the daemon if it sleeps, and lets it run. */
  const wake = (): void => {
    carrier.posted(NO_QP)
    yieldProcessor()
  }

  const carrier: RemoteCarrier = {
    remote: true,
    device,
    checked: areStacksWanted() ? createPostLog(session, context, file, wake) : undefined,
    classes,
    call: call as Carrier['call'],
    callAsync: callAsync as Carrier['callAsync'],
    descriptors,
    layout: rxeLayout,
    ring: rings.ring,
    release: rings.release,
    channel: channel === undefined ? {} : { channel },
    counters() {
      const answer = session.tool({ what: 'stat' })
      const found = 'stat' in answer ? answer.stat.devices.find(({ name }) => name === device.name) : undefined
      if (found === undefined) throw refused('EIO', 'device.counters', 'the daemon does not report them')
      const { hw_counters, counters, port, transport, faults } = found
      return { hw_counters, counters, port, transport, faults }
    },
    waiting: descriptors.waiting,
    posted(handle) {
      // The preceding store of the ring's index is a full barrier (host/memory/fence.ts).
      if (closed || loadWord(session.parked, ParkedPage.PARKED) === 0) return
      tokenView.setUint32(0, handle, true)
      // A full socket already holds tokens: the daemon will poll.
      sendSmall(doorbell, token)
    },
    drive() {
      if (++polls % POLLS_PER_CHECK === 0 && (closed || !session.check()))
        throw new RdmaError('EIO', 5, 'cq.poll', `the daemon of device ${device.name} is gone`)
      yieldProcessor()
      return true
    },
    // Events arrive through the event loop anyway.
    pause: () => undefined,
    awaitsNextTurn: () => false,
    addressOf(buffer) {
      const backing = buffer.buffer as ArrayBufferLike & { resizable?: boolean; growable?: boolean }
      if (backing.resizable || backing.growable)
        throw invalidArgument('pd.register', 'a resizable buffer cannot be registered: copy it into one of fixed size')
      known.set(buffer, (known.get(buffer) ?? 0) + 1)
      return addressOf(buffer)
    },
    forget(buffer) {
      const uses = (known.get(buffer) ?? 1) - 1
      if (uses === 0) known.delete(buffer)
      else known.set(buffer, uses)
    },
    targets: undefined,
    close: end,
  }
  return carrier
}
