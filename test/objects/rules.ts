/*
 * The specific behaviour and refusals of each class's methods, by the specification and the declarations, on top of the
 * reference (reference.ts), which has what all classes share: handles, names, uses.
 */
import { ClassId } from '../../src/spec/classes/ids.ts'
import { QP_CLASSES, QpTypes } from '../../src/spec/classes/qp.ts'
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
  newThing,
  type Opening,
  type QpFacts,
  raise,
  readEvent,
  uses,
} from './reference.ts'

interface Asked {
  readonly names: Names
  readonly opening: Opening
  readonly cls: ObjectClass
  readonly args: AnyValues
  readonly named: Readonly<Record<string, ModelObject | undefined>>
}

interface Rule {
  /** Refusals beyond names and uses; changes nothing. */
  refuse?(asked: Asked, thing: ModelObject | undefined): Code | undefined
  /** The effect of the call; returns the predictable results. */
  does?(asked: Asked, thing: ModelObject): AnyValues | undefined
}

export interface Outcome {
  readonly code: Code
  /** Predictable results. */
  readonly out: AnyValues
  /** The created object and any others. */
  readonly thing?: ModelObject
  readonly also?: readonly ModelObject[]
}

const { CREAT, EXCL } = XrcdFlags.values
const { SQ_DRAINED, QP_LAST_WQE_REACHED } = AsyncEventType.values
const { RESET, ERR, RTS, SQD } = QpState.values

// ---- classes ----

const destroyed = (_asked: Asked, { read }: ModelObject): AnyValues => ({ events: read.asyncs })

/** A valid address of this device; a test invalidates it with another port. */
const isGood = (address: unknown): boolean => (address as { port: number }).port === 1

const xrcd: Readonly<Record<string, Rule>> = {
  create: {
    refuse({ opening: { device }, args: { file, flags } }) {
      const there = file === undefined ? undefined : device.domains.get(file as number)
      if (there === undefined && !((flags as number) & CREAT)) return 'EAGAIN'
      return there !== undefined && (flags as number) & EXCL ? 'EINVAL' : undefined
    },
    does({ opening: { device }, args }, thing) {
      const file = args.file as number | undefined
      const there = file === undefined ? undefined : device.domains.get(file)
      const domain: Domain = there ?? { file, openers: 0, targets: new Map() }
      domain.openers++
      if (file !== undefined) device.domains.set(file, domain)
      thing.domain = domain
      return {}
    },
  },
  query: {
    does(_asked, thing) {
      const { file, openers } = thing.domain as Domain
      return { shared: file === undefined ? 0 : 1, openers, users: uses(thing) }
    },
  },
  destroy: {},
}

const qp = (name: (typeof QP_CLASSES)[number]): Readonly<Record<string, Rule>> => ({
  create: {
    does({ args }, thing) {
      thing.userHandle = args.userHandle as bigint
      thing.qp = { state: RESET, qpn: 0, openers: [thing] }
      return {}
    },
  },
  query: { does: (_asked, thing) => ({ state: thing.qp!.state }) },
  modify: {
    refuse({ args }, thing) {
      const { state } = thing!.qp!
      const to = args.state as number
      return checkTransition(QpTypes[name], state, to, Object.keys(args)) === undefined ? undefined : 'EINVAL'
    },
    does({ args }, thing) {
      const facts = thing.qp as QpFacts
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
    refuse: (_asked, thing) => (thing!.groups.size > 0 ? 'EBUSY' : undefined),
    does: destroyed,
  },
})

/** An XRC target's receives belong to its domain. */
const sharesReceives = ({ class: name, parents }: ModelObject): boolean =>
  name === 'xrc_tgt_qp' || parents.some(parent => parent.class === 'srq')

const membership = ({ args }: Asked): string => `${(args.gid as Uint8Array).join('.')} ${args.mlid}`

const sourceOf = ({ args, named: names }: Asked): ModelObject | number | Code => {
  const objects = Object.values(names).filter(one => one !== undefined)
  const given = objects.length + Number(args.port !== undefined) + Number(args.device !== undefined)
  if (given !== 1 || ((args.port as number | undefined) ?? 1) > 1) return 'EINVAL'
  return objects[0] ?? (args.device !== undefined ? 0 : (args.port as number))
}

const shared: Readonly<Record<string, Rule>> = {
  create: {
    does({ args }, thing) {
      thing.userHandle = args.userHandle as bigint
      thing.limit = 0
      return {}
    },
  },
  query: { does: (_asked, { limit }) => ({ limit }) },
  modify: {
    // The queue has 7 requests, and is not resized here.
    refuse: ({ args }) => ((args.limit as number) > 7 ? 'EINVAL' : undefined),
    does({ args }, thing) {
      thing.limit = args.limit as number
      return {}
    },
  },
  destroy: { does: destroyed },
}

const rules: Readonly<Record<string, Readonly<Record<string, Rule>>>> = {
  pd: {
    create: {},
    destroy: {},
    createAhs: {
      refuse: ({ args }) => ((args.addresses as object[]).every(isGood) ? undefined : 'EINVAL'),
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
      does({ opening, args }) {
        for (const { handle } of args.handles as { handle: number }[]) forget(opening.handles.get(handle)!)
        return {}
      },
    },
  },
  mr: {
    create: {},
    query: { does: (_asked, { key }) => ({ lkey: key }) },
    modify: {
      refuse: ({ args, opening }, mr) =>
        args.pd === undefined && args.access === undefined ? 'EINVAL' : boundTo(opening, mr) > 0 ? 'EBUSY' : undefined,
      does({ named: { pd } }, mr) {
        if (pd !== undefined) mr.parents = [pd]
        return { lkey: mr.key }
      },
    },
    destroy: { refuse: ({ opening }, mr) => (boundTo(opening, mr) > 0 ? 'EBUSY' : undefined) },
  },
  mw: { create: {}, destroy: {} },
  ah: {
    create: { refuse: ({ args }) => (isGood(args.address) ? undefined : 'EINVAL') },
    query: {},
    modify: { refuse: ({ args }) => (isGood(args.address) ? undefined : 'EINVAL') },
    destroy: {},
  },
  cq: {
    create: {
      refuse: ({ args }) => ((args.compVector as number) > 1 ? 'EINVAL' : undefined),
      does({ args }, thing) {
        thing.userHandle = args.userHandle as bigint
        thing.counting = args.kind === CqKind.values.COUNTING
        return {}
      },
    },
    query: { does: () => ({ completions: 0n, errors: 0n }) },
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
      does({ args }, cq) {
        if (cq.armed !== 2) cq.armed = args.solicitedOnly === 0 ? 2 : 1
        return {}
      },
    },
    destroy: { does: (_asked, { read }) => ({ compEvents: read.completions, asyncEvents: read.asyncs }) },
  },
  srq: shared,
  xrc_srq: shared,
  xrcd,
  ...Object.fromEntries(QP_CLASSES.map(name => [name, qp(name)])),
  ud_qp: {
    ...qp('ud_qp'),
    attachMcast: {
      refuse: ({ args }) => ((args.gid as Uint8Array)[0] === 0xff ? undefined : 'EINVAL'),
      does(asked, { groups }) {
        groups.add(membership(asked))
        return {}
      },
    },
    detachMcast: {
      refuse: (asked, thing) => (thing!.groups.has(membership(asked)) ? undefined : 'EINVAL'),
      does(asked, { groups }) {
        groups.delete(membership(asked))
        return {}
      },
    },
  },
  xrc_tgt_qp: {
    ...qp('xrc_tgt_qp'),
    create: {
      refuse: ({ args, named: { xrcd: domain } }) =>
        args.qpNum === undefined || domain!.domain!.targets.has(args.qpNum as number) ? undefined : 'EINVAL',
      does({ args, named: { xrcd: opened } }, thing) {
        thing.userHandle = args.userHandle as bigint
        const domain = opened!.domain as Domain
        thing.domain = domain
        const there = args.qpNum === undefined ? undefined : domain.targets.get(args.qpNum as number)
        thing.qp = there ?? { state: RESET, qpn: 0, openers: [] }
        thing.qp.openers.push(thing)
        return there === undefined ? {} : { qpNum: there.qpn }
      },
    },
  },
  comp_channel: {
    create: {},
    query: {
      does({ opening: { handles } }, fd) {
        const cqs = [...handles.values()].filter(one => one.class === 'cq' && one.channel === fd)
        return {
          cqs: cqs.map(({ handle }) => ({ handle })).sort((a, b) => a.handle - b.handle),
          unread: fd.unread.length,
        }
      },
    },
    getEvent: {
      refuse: (_asked, fd) => (fd!.unread.length > 0 ? undefined : 'EAGAIN'),
      does: (_asked, fd) => ({ userHandle: (readEvent(fd)!.source as ModelObject).userHandle }),
    },
  },
  async_fd: {
    create: {
      does({ opening }, fd) {
        opening.asyncFd ??= fd
        return {}
      },
    },
    query: { does: ({ opening }, fd) => ({ unread: fd.unread.length, isDefault: opening.asyncFd === fd ? 1 : 0 }) },
    getEvent: {
      refuse: (_asked, fd) => (fd!.unread.length > 0 ? undefined : 'EAGAIN'),
      does(_asked, fd) {
        const { source, type } = readEvent(fd)!
        return { element: typeof source === 'number' ? BigInt(source) : source.userHandle, type }
      },
    },
  },
  event_queue: {
    create: {},
    query: { does: (_asked, { unread }) => ({ unread: unread.length }) },
    attach: {
      refuse(asked, queue) {
        const source = sourceOf(asked)
        if (typeof source === 'string') return source
        const taken = typeof source === 'number' ? queue!.ports.has(source) : source.attached !== undefined
        return taken ? 'EBUSY' : undefined
      },
      does(asked, queue) {
        const source = sourceOf(asked) as ModelObject | number
        const cookie = asked.args.cookie as bigint
        if (typeof source === 'number') queue.ports.set(source, cookie)
        else source.attached = { queue, cookie }
        return {}
      },
    },
    detach: {
      refuse(asked, queue) {
        const source = sourceOf(asked)
        if (typeof source === 'string') return source
        const isThere = typeof source === 'number' ? queue!.ports.has(source) : source.attached?.queue === queue
        return isThere ? undefined : 'ENOENT'
      },
      does(asked, queue) {
        const source = sourceOf(asked) as ModelObject | number
        if (typeof source === 'number') detachPort(queue, source)
        else detach(source)
        return {}
      },
    },
    getEvents: {
      refuse: (_asked, fd) => (fd!.unread.length > 0 ? undefined : 'EAGAIN'),
      does({ args }, fd) {
        const count = Math.min(args.max as number, fd.unread.length)
        return { events: Array.from({ length: count }, () => asRecord(fd)) }
      },
    },
  },
  device: {
    queryHandles: {
      does({ opening: { handles }, args }) {
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
  const about =
    typeof source === 'number'
      ? { cookie: fd.ports.get(source), object: source, class: source === 0 ? ClassId.device : ClassId.port }
      : { cookie: source.attached?.cookie, object: source.handle, class: ClassId[source.class as keyof typeof ClassId] }
  readEvent(fd)
  return { ...about, type, reserved: 0 } as unknown as { [name: string]: number | bigint }
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
  const asked: Asked = { names, opening, cls, args, named: found }
  if (isCreate(method)) {
    const code = rule.refuse?.(asked, undefined)
    if (code !== undefined) return refused(code)
    const thing = newThing(opening, cls, found)
    return { code: 'ok', out: rule.does?.(asked, thing) ?? {}, thing }
  }
  if (cls.identity === 'fixed') return { code: 'ok', out: rule.does?.(asked, undefined as never) ?? {} }
  const thing = typeof object === 'number' ? byHandle(names, object, cls.name) : object
  if (typeof thing === 'string') return refused(thing)
  if (thing.class !== cls.name) return refused(thing.handle < 0 ? 'EBADF' : 'EINVAL')
  if (isDestroy(method) && uses(thing) > 0) return refused('EBUSY')
  const code = rule.refuse?.(asked, thing)
  if (code !== undefined) return refused(code)
  const out = rule.does?.(asked, thing) ?? {}
  if (isDestroy(method)) forget(thing)
  if (methodName !== 'createAhs') return { code: 'ok', out }
  const ah = { name: 'ah', identity: 'handle' } as ObjectClass
  const also = (args.addresses as object[]).map(() => newThing(opening, ah, { pd: thing }))
  return { code: 'ok', out: { handles: also.map(({ handle }) => ({ handle })) }, also }
}
