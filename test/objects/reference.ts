/*
 * A simple reference of the object model (R23, R34, R35, R37, R38): handles are keys of a map and the lowest free one
 * is searched, uses are counted on demand, events are in lists. rules.ts has the specific behaviour of each class; both
 * know declarations and nothing of core's implementation.
 */
import { CREATE, CREATE_FD, DESTROY, type Method, type ObjectClass } from '../../src/spec/schema/schema.ts'

/** An errno by name, or 'ok'. */
export type Code = string

export interface Event {
  /** A port's number, 0 for the device; or an object. */
  readonly source: ModelObject | number
  /** ibv_event_type; COMPLETION for a completion. */
  readonly type: number
}
export const COMPLETION = 0x100

/** A queue pair's state, shared by all objects of one XRC target. */
export interface QpFacts {
  state: number
  qpn: number
  readonly openers: ModelObject[]
}

export interface Domain {
  readonly file: number | undefined
  openers: number
  readonly targets: Map<number, QpFacts>
}

export interface ModelObject {
  /** Order of creation. */
  readonly id: number
  /** Identifies it in events. */
  userHandle: bigint
  readonly class: string
  readonly home: Opening
  /** Handle in its context; unused for a descriptor. */
  handle: number
  parents: ModelObject[]
  gone: boolean
  /** Of a descriptor: the client has closed its last copy. */
  closed: boolean
  /** Of a descriptor: unread events, oldest first. */
  readonly unread: Event[]
  readonly channel: ModelObject | undefined
  readonly asyncFd: ModelObject | undefined
  armed: 0 | 1 | 2
  /** Events that the client has read. */
  read: { completions: number; asyncs: number }
  attached: { readonly queue: ModelObject; readonly cookie: bigint } | undefined
  /** Of an event queue: cookies of the device (0) and ports. */
  readonly ports: Map<number, bigint>
  // Fields of single classes.
  key?: number
  counting?: boolean
  limit?: number
  qp?: QpFacts
  readonly groups: Set<string>
  domain?: Domain
  /** Of a window: its region. */
  bound?: ModelObject | undefined
}

export interface Opening {
  readonly device: ModelDevice
  readonly handles: Map<number, ModelObject>
  readonly descriptors: Set<ModelObject>
  /** The first async fd. */
  asyncFd: ModelObject | undefined
  /** Processes that have it open. */
  holders: number
  ended: boolean
}

export interface ModelDevice {
  readonly name: string
  alive: boolean
  readonly openings: Set<Opening>
  readonly domains: Map<number, Domain>
  /** Used keys. A key must not be reused soon. */
  readonly stale: Set<number>
}

let made = 0

export const newDevice = (name: string): ModelDevice => ({
  name,
  alive: true,
  openings: new Set(),
  domains: new Map(),
  stale: new Set(),
})

export const newOpening = (device: ModelDevice): Opening => {
  const opening: Opening = {
    device,
    handles: new Map(),
    descriptors: new Set(),
    asyncFd: undefined,
    holders: 1,
    ended: false,
  }
  device.openings.add(opening)
  return opening
}

const lowest = (handles: ReadonlyMap<number, unknown>): number => {
  let handle = 0
  while (handles.has(handle)) handle++
  return handle
}

/** A new object that names `parents`. */
export const newObject = (
  home: Opening,
  cls: ObjectClass,
  named: Readonly<Record<string, ModelObject | undefined>>,
): ModelObject => {
  const modelObject: ModelObject = {
    id: ++made,
    userHandle: 0n,
    class: cls.name,
    home,
    handle: cls.identity === 'fd' ? -1 : lowest(home.handles),
    parents: Object.values(named).filter(one => one !== undefined),
    gone: false,
    closed: false,
    unread: [],
    channel: named.channel,
    asyncFd: named.asyncFd ?? home.asyncFd,
    armed: 0,
    read: { completions: 0, asyncs: 0 },
    attached: undefined,
    ports: new Map(),
    groups: new Set(),
  }
  if (cls.identity === 'fd') home.descriptors.add(modelObject)
  else home.handles.set(modelObject.handle, modelObject)
  return modelObject
}

export const allObjects = ({ handles, descriptors }: Opening): ModelObject[] => [...handles.values(), ...descriptors]

/** How many objects need this one, counting each reference. */
export const uses = (modelObject: ModelObject): number =>
  allObjects(modelObject.home).reduce(
    (n, { parents }) => n + parents.filter(parent => parent === modelObject).length,
    0,
  )

// ---- events ----

const post = (fd: ModelObject | undefined, event: Event): void => {
  if (fd !== undefined && !fd.closed && !fd.gone) fd.unread.push(event)
}

export const raise = (modelObject: ModelObject, type: number): void =>
  post(modelObject.attached?.queue ?? modelObject.asyncFd, { source: modelObject, type })

export const complete = (modelObject: ModelObject, solicited: boolean): void => {
  if (modelObject.armed === 0 || (modelObject.armed === 1 && !solicited)) return
  modelObject.armed = 0
  post(modelObject.attached?.queue ?? modelObject.channel, { source: modelObject, type: COMPLETION })
}

/** An event of a device or one of its ports; `source` as in `Event`: listeners have that attached. */
export const raisePort = (device: ModelDevice, source: number, type: number): void => {
  for (const { descriptors } of device.openings)
    for (const fd of descriptors) if (fd.class === 'async_fd' || fd.ports.has(source)) post(fd, { source, type })
}

const withdraw = (fd: ModelObject | undefined, source: ModelObject | number): void => {
  if (fd === undefined) return
  const kept = fd.unread.filter(event => event.source !== source)
  fd.unread.splice(0, fd.unread.length, ...kept)
}

export const detach = (modelObject: ModelObject): void => {
  withdraw(modelObject.attached?.queue, modelObject)
  modelObject.attached = undefined
}

export const detachPort = (queue: ModelObject, port: number): void => {
  withdraw(queue, port)
  queue.ports.delete(port)
}

/** The client reads the oldest event. */
export const readEvent = (fd: ModelObject): Event | undefined => {
  const event = fd.unread.shift()
  if (event !== undefined && typeof event.source !== 'number') {
    if (event.type === COMPLETION) event.source.read.completions++
    else event.source.read.asyncs++
  }
  return event
}

// ---- destruction ----

/** Destroys the object; a closed descriptor is destroyed with its last user. */
export const forget = (modelObject: ModelObject): void => {
  if (modelObject.gone) return
  modelObject.gone = true
  const { home, parents } = modelObject
  for (const fd of home.descriptors) withdraw(fd, modelObject)
  if (modelObject.class === 'comp_channel' || modelObject.class === 'async_fd' || modelObject.class === 'event_queue') {
    home.descriptors.delete(modelObject)
    closeQueue(modelObject)
  } else home.handles.delete(modelObject.handle)
  if (modelObject.key !== undefined) home.device.stale.add(modelObject.key)
  const { domain, qp } = modelObject
  if (modelObject.class === 'xrcd' && domain !== undefined && --domain.openers === 0 && domain.file !== undefined)
    home.device.domains.delete(domain.file)
  if (qp !== undefined) {
    qp.openers.splice(qp.openers.indexOf(modelObject), 1)
    if (qp.openers.length === 0) domain?.targets.delete(qp.qpn)
  }
  for (const parent of parents) if (parent.closed && uses(parent) === 0) forget(parent)
}

/** A descriptor is closed: attached objects notify their former listeners again. */
const closeQueue = (fd: ModelObject): void => {
  fd.closed = true
  fd.unread.length = 0
  for (const modelObject of fd.home.handles.values())
    if (modelObject.attached?.queue === fd) modelObject.attached = undefined
}

/** The last copy of a descriptor is closed. */
export const closeFd = (fd: ModelObject): void => {
  if (fd.gone || fd.closed) return
  closeQueue(fd)
  if (uses(fd) === 0) forget(fd)
}

/** The last process that had the context has closed it, or its device was removed. */
export const endOpening = (opening: Opening): void => {
  opening.ended = true
  opening.device.openings.delete(opening)
  const all = allObjects(opening).sort((a, b) => b.id - a.id)
  for (const modelObject of all.filter(modelObject => modelObject.handle >= 0)) forget(modelObject)
  for (const modelObject of all) {
    modelObject.gone = true
    opening.descriptors.delete(modelObject)
  }
}

/** Device removal: every listener gets the event, then everything is destroyed. */
export const endDevice = (device: ModelDevice, fatal: number): void => {
  device.alive = false
  raisePort(device, 0, fatal)
  for (const opening of [...device.openings]) endOpening(opening)
}

// ---- lookup ----

/** Objects that the call may name: by handle, descriptors by number. */
export interface Names {
  readonly opening: Opening
  /** Descriptors of the calling process. */
  readonly fds: ReadonlyMap<number, ModelObject>
}

/** The expected result of naming a handle of a class. */
export const byHandle = ({ opening }: Names, handle: number, cls: string): Code | ModelObject => {
  const found = opening.handles.get(handle)
  if (found === undefined) return 'ENOENT'
  return found.class === cls ? found : 'EINVAL'
}

const byFd = ({ opening, fds }: Names, fd: number, cls: string): Code | ModelObject => {
  const found = fds.get(fd)
  if (found === undefined || found.home !== opening || found.closed || found.gone) return 'EBADF'
  return found.class === cls ? found : 'EBADF'
}

/** Objects that the arguments name. */
export const lookUp = (
  names: Names,
  method: Method,
  args: Readonly<Record<string, unknown>>,
): Code | Record<string, ModelObject | undefined> => {
  const named: Record<string, ModelObject | undefined> = {}
  for (const [name, { of }] of Object.entries(method.in)) {
    const value = args[name] as number | undefined
    if (value === undefined || (of.kind !== 'ref' && of.kind !== 'fd')) continue
    const found = of.kind === 'ref' ? byHandle(names, value, of.class) : byFd(names, value, of.class)
    if (typeof found === 'string') return found
    named[name] = found
  }
  return named
}

export const isCreate = ({ call }: Method): boolean => call === CREATE || call === CREATE_FD
export const isDestroy = ({ call }: Method): boolean => call === DESTROY
