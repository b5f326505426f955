/*
 * The behaviour and refusals of each class's methods in the reference. reference.ts has what all classes share.
 */
import { Armed } from '../../../src/core/model.ts'
import { ClassId } from '../../../src/spec/classes/ids.ts'
import { QP_CLASSES, QpTypes } from '../../../src/spec/classes/qp/qp.ts'
import { AsyncEventType, CqKind, QpState, XrcdFlags } from '../../../src/spec/enums.ts'
import { checkTransition } from '../../../src/spec/qp-states.ts'
import type { AnyValues, ObjectClass } from '../../../src/spec/schema/schema.ts'
import {
  byHandle,
  type Code,
  type Domain,
  destroyObject,
  detach,
  detachPort,
  isCreate,
  isDestroy,
  lookUp,
  type ModelObject,
  NO_HANDLE,
  newObject,
  type Opening,
  type QpFacts,
  raise,
  readEvent,
  type Scope,
  uses,
} from './reference.ts'

interface CheckedCall {
  readonly scope: Scope
  readonly opening: Opening
  readonly cls: ObjectClass
  readonly args: AnyValues
  /** Objects that the arguments name, by attribute. */
  readonly references: Readonly<Record<string, ModelObject | undefined>>
}

interface Rule {
  /** The errno of a refusal, or undefined. `perform` refuses wrong object references and objects in use. */
  refuse?(call: CheckedCall, modelObject: ModelObject | undefined): Code | undefined
  /** Makes the call's changes and returns the results that the reference can predict. */
  apply?(call: CheckedCall, modelObject: ModelObject): AnyValues | undefined
}

export interface Outcome {
  readonly code: Code
  /** Results that the reference can predict. */
  readonly out: AnyValues
  /** The created object. */
  readonly modelObject?: ModelObject
  /** The address handles that pd.createAhs created. */
  readonly createdAhs?: readonly ModelObject[]
}

const { CREAT, EXCL } = XrcdFlags.values
const { SQ_DRAINED, QP_LAST_WQE_REACHED } = AsyncEventType.values
const { RESET, ERR, RTS, SQD } = QpState.values
/** maxWr of every SRQ that random-calls.ts creates. */
const DRAWN_SRQ_WR = 7
/** Ports and completion vectors of a soft device. */
const PORTS = 1
const COMP_VECTORS = 2
/** First byte of a multicast GID. */
const MULTICAST_PREFIX = 0xff

// ---- classes ----

/** The result of destroy: the number of the object's async events that the client has read. */
const countAsyncEvents = (_call: CheckedCall, { read }: ModelObject): AnyValues => ({ events: read.asyncs })

/** Drawn addresses (random-calls.ts) can be wrong only in the port. The device has port 1 only. */
const isValidAddress = (address: unknown): boolean => (address as { port: number }).port === 1

const xrcdRules: Readonly<Record<string, Rule>> = {
  create: {
    refuse({ opening: { device }, args: { file, flags } }) {
      const existing = file === undefined ? undefined : device.domains.get(file as number)
      if (file !== undefined && existing === undefined && !((flags as number) & CREAT)) return 'EAGAIN'
      return existing !== undefined && (flags as number) & EXCL ? 'EINVAL' : undefined
    },
    apply({ opening: { device }, args }, modelObject) {
      const file = args.file as number | undefined
      const existing = file === undefined ? undefined : device.domains.get(file)
      const domain: Domain = existing ?? { file, openers: 0, targets: new Map() }
      domain.openers++
      if (file !== undefined) device.domains.set(file, domain)
      modelObject.domain = domain
      return {}
    },
  },
  query: {
    apply(_call, modelObject) {
      const { file, openers } = modelObject.domain as Domain
      return { shared: file === undefined ? 0 : 1, openers, users: uses(modelObject) }
    },
  },
  destroy: {},
}

const qpRules = (name: (typeof QP_CLASSES)[number]): Readonly<Record<string, Rule>> => ({
  create: {
    apply({ args }, modelObject) {
      modelObject.userHandle = args.userHandle as bigint
      modelObject.qp = { state: RESET, qpn: 0, openers: [modelObject] }
      return {}
    },
  },
  query: { apply: (_call, modelObject) => ({ state: modelObject.qp!.state }) },
  modify: {
    refuse({ args }, modelObject) {
      const { state } = modelObject!.qp!
      const newState = args.state as number
      return checkTransition(QpTypes[name], state, newState, Object.keys(args)) === undefined ? undefined : 'EINVAL'
    },
    apply({ args }, modelObject) {
      const facts = modelObject.qp as QpFacts
      const before = facts.state
      facts.state = args.state as number
      for (const opener of facts.openers) {
        if (before === RTS && facts.state === SQD && args.enSqdAsyncNotify === 1) raise(opener, SQ_DRAINED)
        if (facts.state === ERR && before !== ERR && usesSrq(opener)) raise(opener, QP_LAST_WQE_REACHED)
      }
      return {}
    },
  },
  destroy: {
    refuse: (_call, modelObject) => (modelObject!.groups.size > 0 ? 'EBUSY' : undefined),
    apply: countAsyncEvents,
  },
})

/** Whether the queue pair has an SRQ; an XRC target uses the SRQs of its domain. */
const usesSrq = ({ class: name, parents }: ModelObject): boolean =>
  name === 'xrc_tgt_qp' || parents.some(parent => parent.class === 'srq')

/** The key of a multicast group in `groups`. */
const groupKey = ({ args }: CheckedCall): string => `${(args.gid as Uint8Array).join('.')} ${args.mlid}`

/** The source that attach and detach name: an object, a port's number, or 0 for the device; otherwise the errno. */
const sourceOf = ({ args, references }: CheckedCall): ModelObject | number | Code => {
  const objects = Object.values(references).filter(object => object !== undefined)
  const sources = objects.length + Number(args.port !== undefined) + Number(args.device !== undefined)
  const hasWrongPort = args.port !== undefined && (args.port as number) > PORTS
  if (sources !== 1 || hasWrongPort) return 'EINVAL'
  return objects[0] ?? (args.device !== undefined ? 0 : (args.port as number))
}

const srqRules: Readonly<Record<string, Rule>> = {
  create: {
    apply({ args }, modelObject) {
      modelObject.userHandle = args.userHandle as bigint
      modelObject.limit = 0
      return {}
    },
  },
  query: { apply: (_call, { limit }) => ({ limit }) },
  modify: {
    // the limit of a soft device's SRQ is at most its size
    refuse: ({ args }) => ((args.limit as number) > DRAWN_SRQ_WR ? 'EINVAL' : undefined),
    apply({ args }, modelObject) {
      modelObject.limit = args.limit as number
      return {}
    },
  },
  destroy: { apply: countAsyncEvents },
}

const rules: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  pd: {
    create: {},
    destroy: {},
    /** `perform` creates the handles. */
    createAhs: {
      refuse: ({ args }) => ((args.addresses as object[]).every(isValidAddress) ? undefined : 'EINVAL'),
    },
    destroyAhs: {
      refuse({ scope, args }, pd) {
        const seen = new Set<number>()
        for (const { handle } of args.handles as { handle: number }[]) {
          const ah = seen.has(handle) ? 'ENOENT' : byHandle(scope, handle, 'ah')
          if (typeof ah === 'string') return ah
          if (!ah.parents.includes(pd!)) return 'EINVAL'
          seen.add(handle)
        }
        return undefined
      },
      apply({ opening, args }) {
        for (const { handle } of args.handles as { handle: number }[]) destroyObject(opening.handles.get(handle)!)
        return {}
      },
    },
  },
  mr: {
    create: {},
    query: { apply: (_call, { key }) => ({ lkey: key }) },
    modify: {
      refuse({ args, opening }, mr) {
        const hasNoChange = args.pd === undefined && args.access === undefined
        if (hasNoChange) return 'EINVAL'
        return boundWindows(opening, mr) > 0 ? 'EBUSY' : undefined
      },
      apply({ references: { pd } }, mr) {
        if (pd !== undefined) mr.parents = [pd]
        return { lkey: mr.key }
      },
    },
    destroy: { refuse: ({ opening }, mr) => (boundWindows(opening, mr) > 0 ? 'EBUSY' : undefined) },
  },
  mw: { create: {}, destroy: {} },
  ah: {
    create: { refuse: ({ args }) => (isValidAddress(args.address) ? undefined : 'EINVAL') },
    query: {},
    modify: { refuse: ({ args }) => (isValidAddress(args.address) ? undefined : 'EINVAL') },
    destroy: {},
  },
  cq: {
    create: {
      refuse: ({ args }) => ((args.compVector as number) < COMP_VECTORS ? undefined : 'EINVAL'),
      apply({ args }, modelObject) {
        modelObject.userHandle = args.userHandle as bigint
        modelObject.isCounting = args.kind === CqKind.values.COUNTING
        return {}
      },
    },
    query: { apply: () => ({ completions: 0n, errors: 0n }) },
    modify: {
      refuse({ args }, cq) {
        if (args.cqe === undefined && args.count === undefined) return 'EINVAL'
        return args.cqe !== undefined && cq!.isCounting ? 'EINVAL' : undefined
      },
    },
    reqNotify: {
      apply({ args }, cq) {
        if (cq.armed !== Armed.NEXT) cq.armed = args.solicitedOnly === 0 ? Armed.NEXT : Armed.SOLICITED
        return {}
      },
    },
    destroy: { apply: (_call, { read }) => ({ compEvents: read.completions, asyncEvents: read.asyncs }) },
  },
  srq: srqRules,
  xrc_srq: srqRules,
  xrcd: xrcdRules,
  ...Object.fromEntries(QP_CLASSES.map(name => [name, qpRules(name)])),
  ud_qp: {
    ...qpRules('ud_qp'),
    attachMcast: {
      refuse: ({ args }) => ((args.gid as Uint8Array)[0] === MULTICAST_PREFIX ? undefined : 'EINVAL'),
      apply(call, { groups }) {
        groups.add(groupKey(call))
        return {}
      },
    },
    detachMcast: {
      refuse: (call, modelObject) => (modelObject!.groups.has(groupKey(call)) ? undefined : 'EINVAL'),
      apply(call, { groups }) {
        groups.delete(groupKey(call))
        return {}
      },
    },
  },
  xrc_tgt_qp: {
    ...qpRules('xrc_tgt_qp'),
    create: {
      refuse: ({ args, references: { xrcd } }) =>
        args.qpNum === undefined || xrcd!.domain!.targets.has(args.qpNum as number) ? undefined : 'EINVAL',
      apply({ args, references: { xrcd } }, modelObject) {
        modelObject.userHandle = args.userHandle as bigint
        const domain = xrcd!.domain as Domain
        modelObject.domain = domain
        const existing = args.qpNum === undefined ? undefined : domain.targets.get(args.qpNum as number)
        modelObject.qp = existing ?? { state: RESET, qpn: 0, openers: [] }
        modelObject.qp.openers.push(modelObject)
        return existing === undefined ? {} : { qpNum: existing.qpn }
      },
    },
  },
  comp_channel: {
    create: {},
    query: {
      apply({ opening: { handles } }, fd) {
        const cqs = [...handles.values()].filter(object => object.class === 'cq' && object.channel === fd)
        return {
          cqs: cqs.map(({ handle }) => ({ handle })).sort((a, b) => a.handle - b.handle),
          unread: fd.unread.length,
        }
      },
    },
    getEvent: {
      refuse: (_call, fd) => (fd!.unread.length > 0 ? undefined : 'EAGAIN'),
      apply: (_call, fd) => ({ userHandle: (readEvent(fd)!.source as ModelObject).userHandle }),
    },
  },
  async_fd: {
    create: {
      apply({ opening }, fd) {
        opening.asyncFd ??= fd
        return {}
      },
    },
    query: { apply: ({ opening }, fd) => ({ unread: fd.unread.length, isDefault: opening.asyncFd === fd ? 1 : 0 }) },
    getEvent: {
      refuse: (_call, fd) => (fd!.unread.length > 0 ? undefined : 'EAGAIN'),
      apply(_call, fd) {
        const { source, type } = readEvent(fd)!
        return { element: typeof source === 'number' ? BigInt(source) : source.userHandle, type }
      },
    },
  },
  event_queue: {
    create: {},
    query: { apply: (_call, { unread }) => ({ unread: unread.length }) },
    attach: {
      refuse(call, queue) {
        const source = sourceOf(call)
        if (typeof source === 'string') return source
        const isAttached = typeof source === 'number' ? queue!.ports.has(source) : source.attached !== undefined
        return isAttached ? 'EBUSY' : undefined
      },
      apply(call, queue) {
        const source = sourceOf(call) as ModelObject | number
        const cookie = call.args.cookie as bigint
        if (typeof source === 'number') queue.ports.set(source, cookie)
        else source.attached = { queue, cookie }
        return {}
      },
    },
    detach: {
      refuse(call, queue) {
        const source = sourceOf(call)
        if (typeof source === 'string') return source
        const isAttached = typeof source === 'number' ? queue!.ports.has(source) : source.attached?.queue === queue
        return isAttached ? undefined : 'ENOENT'
      },
      apply(call, queue) {
        const source = sourceOf(call) as ModelObject | number
        if (typeof source === 'number') detachPort(queue, source)
        else detach(source)
        return {}
      },
    },
    getEvents: {
      refuse: (_call, fd) => (fd!.unread.length > 0 ? undefined : 'EAGAIN'),
      apply({ args }, fd) {
        const count = Math.min(args.max as number, fd.unread.length)
        return { events: Array.from({ length: count }, () => takeRecord(fd)) }
      },
    },
  },
  device: {
    queryHandles: {
      apply({ opening: { handles }, args }) {
        const ids = (args.classes as { id: number }[]).map(({ id }) => id)
        const found = [...handles.values()].filter(object =>
          ids.includes(ClassId[object.class as keyof typeof ClassId]),
        )
        // the newest object first
        return { handles: found.sort((a, b) => b.id - a.id).map(({ handle }) => ({ handle })) }
      },
    },
  },
}

/** Number of windows bound to a region. */
const boundWindows = ({ handles }: Opening, mr: ModelObject | undefined): number =>
  [...handles.values()].filter(({ bound }) => bound === mr).length

/** Takes the oldest event of an event queue and returns its record. */
const takeRecord = (fd: ModelObject) => {
  const { source, type } = fd.unread[0]
  const element =
    typeof source === 'number'
      ? { cookie: fd.ports.get(source), object: source, class: source === 0 ? ClassId.device : ClassId.port }
      : { cookie: source.attached?.cookie, object: source.handle, class: ClassId[source.class as keyof typeof ClassId] }
  readEvent(fd)
  return { ...element, type, reserved: 0 } as unknown as { [name: string]: number | bigint }
}

/** The result of read(2) on a descriptor. */
export const readRecord = (fd: ModelObject): { code: Code; bytes?: Uint8Array } => {
  if (fd.unread.length === 0) return { code: fd.isGone ? 'EIO' : 'EAGAIN' }
  // Records of event queues, comp_channel (struct ib_uverbs_comp_event_desc) and async_fd (ib_uverbs_async_event_desc).
  if (fd.class === 'event_queue') {
    const { cookie, object, class: cls, type } = takeRecord(fd)
    const view = new DataView(new ArrayBuffer(24))
    view.setBigUint64(0, BigInt(cookie), true)
    view.setUint32(8, Number(object), true)
    view.setUint16(12, Number(cls), true)
    view.setUint32(16, Number(type), true)
    return { code: 'ok', bytes: new Uint8Array(view.buffer) }
  }
  const { source, type } = readEvent(fd)!
  const view = new DataView(new ArrayBuffer(fd.class === 'comp_channel' ? 8 : 16))
  view.setBigUint64(0, typeof source === 'number' ? BigInt(source) : source.userHandle, true)
  if (fd.class === 'async_fd') view.setUint32(8, type, true)
  return { code: 'ok', bytes: new Uint8Array(view.buffer) }
}

/** Whether the reference implements a method. */
export const isKnown = (cls: string, method: string): boolean => rules[cls]?.[method] !== undefined

/** Performs one call in the reference on `object`, the target or its handle. */
export const perform = (
  scope: Scope,
  cls: ObjectClass,
  methodName: string,
  object: number | ModelObject,
  args: AnyValues,
): Outcome => {
  const { opening } = scope
  const method = cls.methods[methodName]
  const rule = rules[cls.name][methodName]
  const refused = (code: Code): Outcome => ({ code, out: {} })
  if (!opening.device.isAlive || opening.hasEnded) return refused('EIO')
  const found = lookUp(scope, method, args)
  if (typeof found === 'string') return refused(found)
  const call: CheckedCall = { scope, opening, cls, args, references: found }
  if (isCreate(method)) {
    const code = rule.refuse?.(call, undefined)
    if (code !== undefined) return refused(code)
    const modelObject = newObject(opening, cls, found)
    return { code: 'ok', out: rule.apply?.(call, modelObject) ?? {}, modelObject }
  }
  if (cls.identity === 'fixed') return { code: 'ok', out: rule.apply?.(call, undefined as never) ?? {} }
  const modelObject = typeof object === 'number' ? byHandle(scope, object, cls.name) : object
  if (typeof modelObject === 'string') return refused(modelObject)
  if (modelObject.class !== cls.name) return refused(modelObject.handle === NO_HANDLE ? 'EBADF' : 'EINVAL')
  if (isDestroy(method) && uses(modelObject) > 0) return refused('EBUSY')
  const code = rule.refuse?.(call, modelObject)
  if (code !== undefined) return refused(code)
  const out = rule.apply?.(call, modelObject) ?? {}
  if (isDestroy(method)) destroyObject(modelObject)
  if (methodName !== 'createAhs') return { code: 'ok', out }
  const ah = { name: 'ah', identity: 'handle' } as ObjectClass
  const createdAhs = (args.addresses as object[]).map(() => newObject(opening, ah, { pd: modelObject }))
  return { code: 'ok', out: { handles: createdAhs.map(({ handle }) => ({ handle })) }, createdAhs }
}
