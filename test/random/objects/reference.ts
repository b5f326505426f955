/*
 * A simple reference of the object model: what all classes share. rules.ts has the behaviour of each class. Neither
 * file uses core's implementation, except the constants of `Armed`.
 */
import { Armed } from '../../../src/core/model.ts'
import { CREATE, CREATE_FD, DESTROY, type Method, type ObjectClass } from '../../../src/spec/schema/schema.ts'

/** An errno by name, or 'ok'. */
export type Code = string

/** An unread event. */
interface Event {
  /** The object that raised the event, a port's number, or 0 for the device. */
  readonly source: ModelObject | number
  /** An ibv_event_type, or COMPLETION. */
  readonly type: number
}
export const COMPLETION = 0x100
/** `ModelObject.handle` of an object that is a descriptor. */
export const NO_HANDLE = -1

/** The state of a queue pair. All objects that opened one XRC target share it. */
export interface QpFacts {
  state: number
  qpn: number
  readonly openers: ModelObject[]
}

/** An XRC domain. All xrcd objects that opened one domain share it. */
export interface Domain {
  /** Descriptor of the file that identifies the domain; undefined for a private domain. */
  readonly file: number | undefined
  openers: number
  /** XRC target queue pairs by QPN. */
  readonly targets: Map<number, QpFacts>
}

export interface ModelObject {
  /** Increases in the order of creation. */
  readonly id: number
  /** Identifies the object in events. */
  userHandle: bigint
  readonly class: string
  readonly home: Opening
  /** NO_HANDLE for a descriptor. */
  handle: number
  parents: ModelObject[]
  /** Whether the object was destroyed. */
  isGone: boolean
  /** For a descriptor: whether its last copy was closed. */
  isClosed: boolean
  /** For a descriptor: its unread events, oldest first. */
  readonly unread: Event[]
  readonly channel: ModelObject | undefined
  readonly asyncFd: ModelObject | undefined
  /** For a completion queue. */
  armed: Armed
  /** Numbers of the object's events that the client has read. */
  read: { completions: number; asyncs: number }
  /** The event queue that gets the object's events instead of `channel` and `asyncFd`. */
  attached: { readonly queue: ModelObject; readonly cookie: bigint } | undefined
  /** For an event queue: the cookies of attached ports, by port number; 0 is the device. */
  readonly ports: Map<number, bigint>
  /** The lkey of a region or the rkey of a window. */
  key?: number
  /** For a completion queue: whether its kind is COUNTING. */
  isCounting?: boolean
  /** For a shared receive queue: the limit for SRQ_LIMIT_REACHED. */
  limit?: number
  qp?: QpFacts
  /** For a UD queue pair: its multicast groups. */
  readonly groups: Set<string>
  domain?: Domain
  /** For a window: the region to which it is bound. */
  bound?: ModelObject | undefined
}

/** A context: one open of a device. */
export interface Opening {
  readonly device: ModelDevice
  readonly handles: Map<number, ModelObject>
  readonly descriptors: Set<ModelObject>
  /** The first async fd. It gets the events of objects created without an async fd. */
  asyncFd: ModelObject | undefined
  /** Number of processes that have the context open. */
  holders: number
  hasEnded: boolean
}

export interface ModelDevice {
  readonly name: string
  isAlive: boolean
  readonly openings: Set<Opening>
  readonly domains: Map<number, Domain>
  /** Keys of destroyed objects: no later object may get one of them. */
  readonly staleKeys: Set<number>
}

let createdObjects = 0

export const newDevice = (name: string): ModelDevice => ({
  name,
  isAlive: true,
  openings: new Set(),
  domains: new Map(),
  staleKeys: new Set(),
})

export const newOpening = (device: ModelDevice): Opening => {
  const opening: Opening = {
    device,
    handles: new Map(),
    descriptors: new Set(),
    asyncFd: undefined,
    holders: 1,
    hasEnded: false,
  }
  device.openings.add(opening)
  return opening
}

const lowestFree = (handles: ReadonlyMap<number, unknown>): number => {
  let handle = 0
  while (handles.has(handle)) handle++
  return handle
}

/** Creates an object whose parents are the objects in `references`. */
export const newObject = (
  home: Opening,
  cls: ObjectClass,
  references: Readonly<Record<string, ModelObject | undefined>>,
): ModelObject => {
  const modelObject: ModelObject = {
    id: ++createdObjects,
    userHandle: 0n,
    class: cls.name,
    home,
    handle: cls.identity === 'fd' ? NO_HANDLE : lowestFree(home.handles),
    parents: Object.values(references).filter(reference => reference !== undefined),
    isGone: false,
    isClosed: false,
    unread: [],
    channel: references.channel,
    asyncFd: references.asyncFd ?? home.asyncFd,
    armed: Armed.NO,
    read: { completions: 0, asyncs: 0 },
    attached: undefined,
    ports: new Map(),
    groups: new Set(),
  }
  if (cls.identity === 'fd') home.descriptors.add(modelObject)
  else home.handles.set(modelObject.handle, modelObject)
  return modelObject
}

const allObjects = ({ handles, descriptors }: Opening): ModelObject[] => [...handles.values(), ...descriptors]

/** The number of objects of each class. */
export const countsOf = ({ openings }: ModelDevice): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const { class: cls } of [...openings].flatMap(allObjects)) counts[cls] = (counts[cls] ?? 0) + 1
  return counts
}

/** Number of references to the object from objects of its context; one object may count twice. */
export const uses = (modelObject: ModelObject): number =>
  allObjects(modelObject.home).reduce(
    (n, { parents }) => n + parents.filter(parent => parent === modelObject).length,
    0,
  )

// ---- events ----

const post = (fd: ModelObject | undefined, event: Event): void => {
  if (fd !== undefined && !fd.isClosed && !fd.isGone) fd.unread.push(event)
}

export const raise = (modelObject: ModelObject, type: number): void =>
  post(modelObject.attached?.queue ?? modelObject.asyncFd, { source: modelObject, type })

export const complete = (modelObject: ModelObject, solicited: boolean): void => {
  if (modelObject.armed === Armed.NO || (modelObject.armed === Armed.SOLICITED && !solicited)) return
  modelObject.armed = Armed.NO
  post(modelObject.attached?.queue ?? modelObject.channel, { source: modelObject, type: COMPLETION })
}

/** Raises an event of a port, or of the device if `source` is 0. */
export const raisePort = (device: ModelDevice, source: number, type: number): void => {
  for (const { descriptors } of device.openings)
    for (const fd of descriptors) if (fd.class === 'async_fd' || fd.ports.has(source)) post(fd, { source, type })
}

/** Removes the unread events of `source` from a descriptor. */
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

/** Takes and counts the oldest event; undefined if there is none. */
export const readEvent = (fd: ModelObject): Event | undefined => {
  const event = fd.unread.shift()
  if (event !== undefined && typeof event.source !== 'number') {
    if (event.type === COMPLETION) event.source.read.completions++
    else event.source.read.asyncs++
  }
  return event
}

// ---- destruction ----

/** Destroys an object, and each closed descriptor that no other object uses. */
export const destroyObject = (modelObject: ModelObject): void => {
  if (modelObject.isGone) return
  modelObject.isGone = true
  const { home, parents } = modelObject
  for (const fd of home.descriptors) withdraw(fd, modelObject)
  if (modelObject.class === 'comp_channel' || modelObject.class === 'async_fd' || modelObject.class === 'event_queue') {
    home.descriptors.delete(modelObject)
    closeQueue(modelObject)
  } else home.handles.delete(modelObject.handle)
  if (modelObject.key !== undefined) home.device.staleKeys.add(modelObject.key)
  const { domain, qp } = modelObject
  if (modelObject.class === 'xrcd' && domain !== undefined && --domain.openers === 0 && domain.file !== undefined)
    home.device.domains.delete(domain.file)
  if (qp !== undefined) {
    qp.openers.splice(qp.openers.indexOf(modelObject), 1)
    if (qp.openers.length === 0) domain?.targets.delete(qp.qpn)
  }
  for (const parent of parents) if (parent.isClosed && uses(parent) === 0) destroyObject(parent)
}

/** Closes an event descriptor: objects attached to it notify their channel or async fd again. */
const closeQueue = (fd: ModelObject): void => {
  fd.isClosed = true
  fd.unread.length = 0
  for (const modelObject of fd.home.handles.values())
    if (modelObject.attached?.queue === fd) modelObject.attached = undefined
}

/** The effect of closing the last copy of a descriptor. */
export const closeFd = (fd: ModelObject): void => {
  if (fd.isGone || fd.isClosed) return
  closeQueue(fd)
  if (uses(fd) === 0) destroyObject(fd)
}

/** Ends a context: its last process has closed it, or its device was removed. */
export const endOpening = (opening: Opening): void => {
  opening.hasEnded = true
  opening.device.openings.delete(opening)
  const all = allObjects(opening).sort((a, b) => b.id - a.id)
  for (const modelObject of all.filter(modelObject => modelObject.handle >= 0)) destroyObject(modelObject)
  for (const modelObject of all) {
    modelObject.isGone = true
    opening.descriptors.delete(modelObject)
  }
}

/** Removes a device: every listener gets the event before all objects are destroyed. */
export const endDevice = (device: ModelDevice, eventType: number): void => {
  device.isAlive = false
  raisePort(device, 0, eventType)
  for (const opening of [...device.openings]) endOpening(opening)
}

// ---- lookup ----

/** Where the arguments of a call are looked up. */
export interface Scope {
  readonly opening: Opening
  /** Descriptors of the calling process. */
  readonly fds: ReadonlyMap<number, ModelObject>
}

/** The object with this handle and class, or the errno of the lookup. */
export const byHandle = ({ opening }: Scope, handle: number, cls: string): Code | ModelObject => {
  const found = opening.handles.get(handle)
  if (found === undefined) return 'ENOENT'
  return found.class === cls ? found : 'EINVAL'
}

const byFd = ({ opening, fds }: Scope, fd: number, cls: string): Code | ModelObject => {
  const found = fds.get(fd)
  if (found === undefined || found.home !== opening || found.isClosed || found.isGone) return 'EBADF'
  return found.class === cls ? found : 'EBADF'
}

/** The objects that the arguments name, by attribute, or the errno of the first lookup that fails. */
export const lookUp = (
  scope: Scope,
  method: Method,
  args: Readonly<Record<string, unknown>>,
): Code | Record<string, ModelObject | undefined> => {
  const references: Record<string, ModelObject | undefined> = {}
  for (const [name, { type }] of Object.entries(method.in)) {
    const value = args[name] as number | undefined
    if (value === undefined || (type.kind !== 'ref' && type.kind !== 'fd')) continue
    const found = type.kind === 'ref' ? byHandle(scope, value, type.class) : byFd(scope, value, type.class)
    if (typeof found === 'string') return found
    references[name] = found
  }
  return references
}

export const isCreate = ({ call }: Method): boolean => call === CREATE || call === CREATE_FD
export const isDestroy = ({ call }: Method): boolean => call === DESTROY
