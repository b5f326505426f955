/*
 * The specific behaviour and refusals of each class's methods, by the specification and the declarations, on top of the
 * reference (reference.ts), which has what all classes share: handles, names, uses.
 */
import { ClassId } from '../../src/spec/classes/ids.ts'
import { QP_CLASSES, QpTypes } from '../../src/spec/classes/qp/qp.ts'
import { AsyncEventType, CqKind, QpState, XrcdFlags } from '../../src/spec/enums.ts'
import { checkTransition } from '../../src/spec/qp-states.ts'
import type { AnyValues, ObjectClass } from '../../src/spec/schema/schema.ts'
import {
  byHandle,
  type Code,
  type Domain,
  detach,
  detachPort,
  forget,
  isCreate,
  isDestroy,
  lookUp,
  type ModelObject,
  type Names,
  newObject,
  type Opening,
  type QpFacts,
  raise,
  readEvent,
  uses,
} from './reference.ts'

interface CheckedCall {
  readonly names: Names
  readonly opening: Opening
  readonly cls: ObjectClass
  readonly args: AnyValues
  readonly named: Readonly<Record<string, ModelObject | undefined>>
}

interface Rule {
  /** The errno for a refusal that names and uses do not explain; undefined to accept. Changes nothing. */
  refuse?(call: CheckedCall, modelObject: ModelObject | undefined): Code | undefined
  /** The effect of the call; returns the predictable results. */
  apply?(call: CheckedCall, modelObject: ModelObject): AnyValues | undefined
}

export interface Outcome {
  readonly code: Code
  /** Results that the reference can predict. */
  readonly out: AnyValues
  /** The created object and any others. */
  readonly modelObject?: ModelObject
  readonly others?: readonly ModelObject[]
}

const { CREAT, EXCL } = XrcdFlags.values
const { SQ_DRAINED, QP_LAST_WQE_REACHED } = AsyncEventType.values
const { RESET, ERR, RTS, SQD } = QpState.values

// ---- classes ----

const destroyed = (_call: CheckedCall, { read }: ModelObject): AnyValues => ({ events: read.asyncs })

/** A valid address of this device; a test invalidates it with another port. */
const isValidAddress = (address: unknown): boolean => (address as { port: number }).port === 1

const xrcd: Readonly<Record<string, Rule>> = {
  create: {
    refuse({ opening: { device }, args: { file, flags } }) {
      const there = file === undefined ? undefined : device.domains.get(file as number)
      if (there === undefined && !((flags as number) & CREAT)) return 'EAGAIN'
      return there !== undefined && (flags as number) & EXCL ? 'EINVAL' : undefined
    },
    apply({ opening: { device }, args }, modelObject) {
      const file = args.file as number | undefined
      const there = file === undefined ? undefined : device.domains.get(file)
      const domain: Domain = there ?? { file, openers: 0, targets: new Map() }
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

const qp = (name: (typeof QP_CLASSES)[number]): Readonly<Record<string, Rule>> => ({
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
      const to = args.state as number
      return checkTransition(QpTypes[name], state, to, Object.keys(args)) === undefined ? undefined : 'EINVAL'
    },
    apply({ args }, modelObject) {
      const facts = modelObject.qp as QpFacts
      const before = facts.state
      facts.state = args.state as number
      for (const one of facts.openers) {
        if (before === RTS && facts.state === SQD && args.enSqdAsyncNotify === 1) raise(one, SQ_DRAINED)
        if (facts.state === ERR && before !== ERR && sharesReceives(one)) raise(one, QP_LAST_WQE_REACHED)
      }
      return {}
    },
  },
  destroy: {
    refuse: (_call, modelObject) => (modelObject!.groups.size > 0 ? 'EBUSY' : undefined),
    apply: destroyed,
  },
})

/** An XRC target's receives belong to its domain. */
const sharesReceives = ({ class: name, parents }: ModelObject): boolean =>
  name === 'xrc_tgt_qp' || parents.some(parent => parent.class === 'srq')

const membership = ({ args }: CheckedCall): string => `${(args.gid as Uint8Array).join('.')} ${args.mlid}`

const sourceOf = ({ args, named: names }: CheckedCall): ModelObject | number | Code => {
  const objects = Object.values(names).filter(one => one !== undefined)
  const given = objects.length + Number(args.port !== undefined) + Number(args.device !== undefined)
  if (given !== 1 || ((args.port as number | undefined) ?? 1) > 1) return 'EINVAL'
  return objects[0] ?? (args.device !== undefined ? 0 : (args.port as number))
}

const shared: Readonly<Record<string, Rule>> = {
  create: {
    apply({ args }, modelObject) {
      modelObject.userHandle = args.userHandle as bigint
      modelObject.limit = 0
      return {}
    },
  },
  query: { apply: (_call, { limit }) => ({ limit }) },
  modify: {
    // The queue has 7 requests, and is not resized here.
    refuse: ({ args }) => ((args.limit as number) > 7 ? 'EINVAL' : undefined),
    apply({ args }, modelObject) {
      modelObject.limit = args.limit as number
      return {}
    },
  },
  destroy: { apply: destroyed },
}

const rules: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  pd: {
    create: {},
    destroy: {},
    createAhs: {
      refuse: ({ args }) => ((args.addresses as object[]).every(isValidAddress) ? undefined : 'EINVAL'),
    },
    destroyAhs: {
      refuse({ names, args }, pd) {
        const seen = new Set<number>()
        for (const { handle } of args.handles as { handle: number }[]) {
          const ah = seen.has(handle) ? 'ENOENT' : byHandle(names, handle, 'ah')
          if (typeof ah === 'string') return ah
          if (!ah.parents.includes(pd!)) return 'EINVAL'
          seen.add(handle)
        }
        return undefined
      },
      apply({ opening, args }) {
        for (const { handle } of args.handles as { handle: number }[]) forget(opening.handles.get(handle)!)
        return {}
      },
    },
  },
  mr: {
    create: {},
    query: { apply: (_call, { key }) => ({ lkey: key }) },
    modify: {
      refuse: ({ args, opening }, mr) =>
        args.pd === undefined && args.access === undefined ? 'EINVAL' : boundTo(opening, mr) > 0 ? 'EBUSY' : undefined,
      apply({ named: { pd } }, mr) {
        if (pd !== undefined) mr.parents = [pd]
        return { lkey: mr.key }
      },
    },
    destroy: { refuse: ({ opening }, mr) => (boundTo(opening, mr) > 0 ? 'EBUSY' : undefined) },
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
      refuse: ({ args }) => ((args.compVector as number) > 1 ? 'EINVAL' : undefined),
      apply({ args }, modelObject) {
        modelObject.userHandle = args.userHandle as bigint
        modelObject.counting = args.kind === CqKind.values.COUNTING
        return {}
      },
    },
    query: { apply: () => ({ completions: 0n, errors: 0n }) },
    modify: {
      refuse: ({ args }, cq) =>
        args.cqe === undefined
          ? args.count === undefined
            ? 'EINVAL'
            : undefined
          : cq!.counting
            ? 'EINVAL'
            : undefined,
    },
    reqNotify: {
      apply({ args }, cq) {
        if (cq.armed !== 2) cq.armed = args.solicitedOnly === 0 ? 2 : 1
        return {}
      },
    },
    destroy: { apply: (_call, { read }) => ({ compEvents: read.completions, asyncEvents: read.asyncs }) },
  },
  srq: shared,
  xrc_srq: shared,
  xrcd,
  ...Object.fromEntries(QP_CLASSES.map(name => [name, qp(name)])),
  ud_qp: {
    ...qp('ud_qp'),
    attachMcast: {
      refuse: ({ args }) => ((args.gid as Uint8Array)[0] === 0xff ? undefined : 'EINVAL'),
      apply(call, { groups }) {
        groups.add(membership(call))
        return {}
      },
    },
    detachMcast: {
      refuse: (call, modelObject) => (modelObject!.groups.has(membership(call)) ? undefined : 'EINVAL'),
      apply(call, { groups }) {
        groups.delete(membership(call))
        return {}
      },
    },
  },
  xrc_tgt_qp: {
    ...qp('xrc_tgt_qp'),
    create: {
      refuse: ({ args, named: { xrcd: domain } }) =>
        args.qpNum === undefined || domain!.domain!.targets.has(args.qpNum as number) ? undefined : 'EINVAL',
      apply({ args, named: { xrcd: opened } }, modelObject) {
        modelObject.userHandle = args.userHandle as bigint
        const domain = opened!.domain as Domain
        modelObject.domain = domain
        const there = args.qpNum === undefined ? undefined : domain.targets.get(args.qpNum as number)
        modelObject.qp = there ?? { state: RESET, qpn: 0, openers: [] }
        modelObject.qp.openers.push(modelObject)
        return there === undefined ? {} : { qpNum: there.qpn }
      },
    },
  },
  comp_channel: {
    create: {},
    query: {
      apply({ opening: { handles } }, fd) {
        const cqs = [...handles.values()].filter(one => one.class === 'cq' && one.channel === fd)
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
        const taken = typeof source === 'number' ? queue!.ports.has(source) : source.attached !== undefined
        return taken ? 'EBUSY' : undefined
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
        const isThere = typeof source === 'number' ? queue!.ports.has(source) : source.attached?.queue === queue
        return isThere ? undefined : 'ENOENT'
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
        return { events: Array.from({ length: count }, () => asRecord(fd)) }
      },
    },
  },
  device: {
    queryHandles: {
      apply({ opening: { handles }, args }) {
        const ids = (args.classes as { id: number }[]).map(({ id }) => id)
        const found = [...handles.values()].filter(one => ids.includes(ClassId[one.class as keyof typeof ClassId]))
        return { handles: found.sort((a, b) => b.id - a.id).map(({ handle }) => ({ handle })) }
      },
    },
  },
}

const boundTo = ({ handles }: Opening, mr: ModelObject | undefined): number =>
  [...handles.values()].filter(({ bound }) => bound === mr).length

const asRecord = (fd: ModelObject) => {
  const { source, type } = fd.unread[0]
  const element =
    typeof source === 'number'
      ? { cookie: fd.ports.get(source), object: source, class: source === 0 ? ClassId.device : ClassId.port }
      : { cookie: source.attached?.cookie, object: source.handle, class: ClassId[source.class as keyof typeof ClassId] }
  readEvent(fd)
  return { ...element, type, reserved: 0 } as unknown as { [name: string]: number | bigint }
}

/** The result of read(2) on a descriptor: the oldest event in bytes. */
export const readRecord = (fd: ModelObject): { code: Code; bytes?: Uint8Array } => {
  if (fd.unread.length === 0) return { code: fd.gone ? 'EIO' : 'EAGAIN' }
  if (fd.class === 'event_queue') {
    const { cookie, object, class: cls, type } = asRecord(fd)
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

/** A single call. `object`: the target's handle, or the object itself if it is a descriptor. */
export const perform = (
  names: Names,
  cls: ObjectClass,
  methodName: string,
  object: number | ModelObject,
  args: AnyValues,
): Outcome => {
  const { opening } = names
  const method = cls.methods[methodName]
  const rule = rules[cls.name][methodName]
  const refused = (code: Code): Outcome => ({ code, out: {} })
  if (!opening.device.alive || opening.ended) return refused('EIO')
  const found = lookUp(names, method, args)
  if (typeof found === 'string') return refused(found)
  const call: CheckedCall = { names, opening, cls, args, named: found }
  if (isCreate(method)) {
    const code = rule.refuse?.(call, undefined)
    if (code !== undefined) return refused(code)
    const modelObject = newObject(opening, cls, found)
    return { code: 'ok', out: rule.apply?.(call, modelObject) ?? {}, modelObject }
  }
  if (cls.identity === 'fixed') return { code: 'ok', out: rule.apply?.(call, undefined as never) ?? {} }
  const modelObject = typeof object === 'number' ? byHandle(names, object, cls.name) : object
  if (typeof modelObject === 'string') return refused(modelObject)
  if (modelObject.class !== cls.name) return refused(modelObject.handle < 0 ? 'EBADF' : 'EINVAL')
  if (isDestroy(method) && uses(modelObject) > 0) return refused('EBUSY')
  const code = rule.refuse?.(call, modelObject)
  if (code !== undefined) return refused(code)
  const out = rule.apply?.(call, modelObject) ?? {}
  if (isDestroy(method)) forget(modelObject)
  if (methodName !== 'createAhs') return { code: 'ok', out }
  const ah = { name: 'ah', identity: 'handle' } as ObjectClass
  const others = (args.addresses as object[]).map(() => newObject(opening, ah, { pd: modelObject }))
  return { code: 'ok', out: { handles: others.map(({ handle }) => ({ handle })) }, others }
}
