/*
 * Draws the calls of the model test: mostly with valid arguments, sometimes with a wrong handle, descriptor or value.
 */
import { ChainErrors } from '../../../src/spec/classes/device/interface.ts'
import { ClassId } from '../../../src/spec/classes/ids.ts'
import { QpTypes } from '../../../src/spec/classes/qp/qp.ts'
import { Classes } from '../../../src/spec/classes.ts'
import { AccessFlags, CqKind, Mtu, MwType, QpState, XrcdFlags } from '../../../src/spec/enums.ts'
import { qpTransitions } from '../../../src/spec/qp-states.ts'
import type { AnyValues, ObjectClass } from '../../../src/spec/schema/schema.ts'
import type { RandomSource } from '../model/random.ts'
import type { Facts, Process } from './carriers/carrier.ts'
import type { Entry } from './chain.ts'
import { isCreate, type ModelObject, type Opening } from './reference.ts'
import { isKnown } from './rules.ts'

/** The process and opening for which a call is drawn. */
export interface CallSite {
  readonly random: RandomSource
  readonly facts: Facts
  readonly process: Process
  readonly opening: Opening
  /** In a chain: for each earlier entry the class of the object that the entry creates, if any. */
  readonly planned?: readonly (string | undefined)[]
}

/** The arguments of a call. */
interface Drawn {
  readonly args: AnyValues
  /** In a chain, by attribute: the index of the entry that creates the argument's object. */
  readonly refs: Record<string, number>
}

const classOf = (name: string): ObjectClass => (Classes as Readonly<Record<string, ObjectClass>>)[name]

/** Numbers that no object has. Devices have port 1 only, and completion vectors 0 and 1. */
const ABSENT_HANDLE = 4000
const ABSENT_QPN = 0xfffff
const ABSENT_PORT = 7
const ABSENT_VECTOR = 2

/** Usually a handle of the class, sometimes of another class, sometimes an unused handle. */
const handleOf = ({ random, opening }: CallSite, cls: string): number => {
  const ofClass = [...opening.handles].filter(([, modelObject]) => modelObject.class === cls)
  if (ofClass.length > 0 && random.hits(0.93)) return random.pick(ofClass)[0]
  const any = [...opening.handles.keys()]
  return any.length > 0 && random.hits(0.6) ? random.pick(any) : ABSENT_HANDLE
}

const fdsOf = ({ process }: CallSite, matches: (modelObject: ModelObject) => boolean): number[] =>
  [...process.fds].flatMap(([fd, modelObject]) => (matches(modelObject) ? [fd] : []))

/**
 * Undefined (an absent argument) at least half of the time; otherwise usually a descriptor of the class and of this
 * context.
 */
const fdOf = (site: CallSite, cls: string): number | undefined => {
  const { random, opening } = site
  if (random.hits(0.5)) return undefined
  const ofClass = fdsOf(site, modelObject => modelObject.class === cls && modelObject.home === opening)
  if (ofClass.length > 0 && random.hits(0.95)) return random.pick(ofClass)
  const any = fdsOf(site, () => true)
  return any.length === 0 || random.hits(0.7) ? undefined : random.pick(any)
}

const address = ({ random, facts, opening }: CallSite) => ({
  dgid: facts.gid(opening.device),
  flowLabel: 0,
  sgidIndex: 1,
  hopLimit: 1,
  trafficClass: 0,
  sl: 0,
  staticRate: 0,
  isGlobal: 1,
  port: random.hits(0.95) ? 1 : ABSENT_PORT,
})

const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC } = AccessFlags.values
const ALL_REMOTE = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC

// user handles are distinct: events identify their object by its user handle
let nextUserHandle = 1n
const userHandle = (): bigint => nextUserHandle++

const cap = { maxSendWr: 3, maxRecvWr: 3, maxSendSge: 1, maxRecvSge: 1, maxInlineData: 0 }
/** A multicast GID (first byte 0xff), sometimes a unicast one. */
const gid = (random: RandomSource): Uint8Array => {
  const bytes = new Uint8Array(16).fill(random.int(3), 1)
  bytes[0] = random.hits(0.9) ? 0xff : 0x20
  return bytes
}

/** Values of the attributes that transitions of queue pairs require. */
const transitionValues: Readonly<Record<string, (site: CallSite) => number | AnyValues>> = {
  pkeyIndex: () => 0,
  port: () => 1,
  accessFlags: () => ALL_REMOTE,
  qkey: () => 0x11,
  address: site => ({ ...address(site), port: 1 }),
  pathMtu: () => Mtu.values.MTU_1024,
  destQpn: () => 17,
  rqPsn: () => 5,
  sqPsn: () => 6,
  maxDestRdAtomic: () => 1,
  maxRdAtomic: () => 1,
  minRnrTimer: () => 1,
  timeout: () => 0,
  retryCnt: () => 1,
  rnrRetry: () => 1,
}

const { RESET, RTS, SQD } = QpState.values

const modifyQp = (site: CallSite, cls: string, target: ModelObject | undefined): AnyValues => {
  const { random } = site
  const names = Object.entries(QpState.values)
  const before = target?.qp?.state ?? RESET
  // usually the next state
  const after = random.hits(0.75) && before < SQD ? before + 1 : random.int(names.length)
  const nameOf = (state: number) => names.find(([, value]) => value === state)![0]
  const rows = qpTransitions[QpTypes[cls as keyof typeof QpTypes]] as Readonly<
    Record<string, Readonly<Record<string, { required: readonly string[] }>> | undefined>
  >
  const needed = rows[nameOf(before)]?.[nameOf(after)]?.required ?? []
  return {
    state: after,
    ...Object.fromEntries(needed.map(name => [name, transitionValues[name](site)])),
    ...(before === RTS && after === SQD && { enSqdAsyncNotify: random.int(2) }),
  } as AnyValues
}

/** The source of an attach or detach. Sometimes two are drawn: a call that names both must be refused. */
const eventSource = (site: CallSite): AnyValues => {
  const { random } = site
  const oneSource = (): AnyValues => {
    const choice = random.int(8)
    if (choice === 0) return { device: 1 }
    if (choice === 1) return { port: random.hits(0.8) ? 1 : ABSENT_PORT }
    const cls = random.pick(['cq', 'cq', 'srq', 'xrc_srq', 'rc_qp', 'ud_qp', 'xrc_tgt_qp'])
    return { [cls]: handleOf(site, cls) }
  }
  return random.hits(0.95) ? oneSource() : { ...oneSource(), ...oneSource() }
}

/** Draws the arguments of a call on `target`. `cls`: the method's class. */
type Maker = (site: CallSite, target: ModelObject | undefined, cls: string) => AnyValues

const pdAndSendCq = (site: CallSite): AnyValues => ({ pd: handleOf(site, 'pd'), sendCq: handleOf(site, 'cq') })
const qpArguments: Maker = site => ({
  ...pdAndSendCq(site),
  recvCq: handleOf(site, 'cq'),
  cap,
  userHandle: userHandle(),
  asyncFd: fdOf(site, 'async_fd'),
  ...(site.random.hits(0.3) && { srq: handleOf(site, 'srq') }),
})
const srqArguments: Maker = site => ({
  pd: handleOf(site, 'pd'),
  maxWr: 7,
  maxSge: 1,
  limit: 0,
  userHandle: userHandle(),
  asyncFd: fdOf(site, 'async_fd'),
})
/** The first multicast LID (IBA 4.1.3). */
const FIRST_MULTICAST_LID = 0xc000
const modifySrqArguments: Maker = ({ random }) => ({ limit: random.int(9) })
const modifyQpArguments: Maker = (site, target, cls) => modifyQp(site, cls, target)
const groupArguments: Maker = ({ random }) => ({ gid: gid(random), mlid: FIRST_MULTICAST_LID + random.int(2) })

/** Makers of arguments by method; methods without a maker are called without arguments. */
const makers: Readonly<Record<string, Maker>> = {
  'pd.createAhs': site => ({ addresses: Array.from({ length: site.random.int(4) }, () => address(site)) }),
  'pd.destroyAhs': site => ({
    handles: Array.from({ length: site.random.int(3) }, () => ({ handle: handleOf(site, 'ah') })),
  }),
  'mr.create': site => {
    const start = site.facts.address(site.process)
    return {
      pd: handleOf(site, 'pd'),
      start,
      length: 64n,
      iova: start,
      access: ALL_REMOTE | AccessFlags.values.MW_BIND,
    }
  },
  'mr.modify': site => ({
    ...(site.random.hits(0.6) && { pd: handleOf(site, 'pd') }),
    ...(site.random.hits(0.6) && { access: ALL_REMOTE | AccessFlags.values.MW_BIND }),
  }),
  'mw.create': site => ({ pd: handleOf(site, 'pd'), type: MwType.values.TYPE_1 }),
  'ah.create': site => ({ pd: handleOf(site, 'pd'), address: address(site), userHandle: 0n }),
  'ah.modify': site => ({ address: address(site) }),
  'cq.create': site => ({
    cqe: 3,
    userHandle: userHandle(),
    compVector: site.random.hits(0.95) ? site.random.int(2) : ABSENT_VECTOR,
    channel: fdOf(site, 'comp_channel'),
    asyncFd: fdOf(site, 'async_fd'),
    ...(site.random.hits(0.2) && { kind: CqKind.values.COUNTING }),
  }),
  'cq.modify': ({ random }) => ({ ...(random.hits(0.7) && { cqe: 1 + random.int(9) }) }),
  'cq.reqNotify': ({ random }) => ({ solicitedOnly: random.int(2) }),
  'srq.create': srqArguments,
  'srq.modify': modifySrqArguments,
  'xrc_srq.create': (site, ...rest) => ({
    ...srqArguments(site, ...rest),
    xrcd: handleOf(site, 'xrcd'),
    cq: handleOf(site, 'cq'),
  }),
  'xrc_srq.modify': modifySrqArguments,
  'xrcd.create': ({ random, facts }) => ({
    flags: random.weighted([
      { weight: 8, flags: XrcdFlags.values.CREAT },
      { weight: 1, flags: XrcdFlags.values.CREAT | XrcdFlags.values.EXCL },
      { weight: 1, flags: 0 },
    ]).flags,
    ...(random.hits(0.7) && { file: random.pick(facts.files) }),
  }),
  'rc_qp.create': qpArguments,
  'rc_qp.modify': modifyQpArguments,
  'uc_qp.create': qpArguments,
  'uc_qp.modify': modifyQpArguments,
  'ud_qp.create': qpArguments,
  'ud_qp.modify': modifyQpArguments,
  'ud_qp.attachMcast': groupArguments,
  'ud_qp.detachMcast': groupArguments,
  'xrc_ini_qp.create': site => ({ ...pdAndSendCq(site), cap, userHandle: userHandle() }),
  'xrc_ini_qp.modify': modifyQpArguments,
  'xrc_tgt_qp.create': site => {
    const numbers = [...site.opening.device.openings].flatMap(({ handles }) =>
      [...handles.values()].flatMap(({ class: cls, qp }) => (cls === 'xrc_tgt_qp' && qp ? [qp.qpn] : [])),
    )
    const opensExisting = numbers.length > 0 && site.random.hits(0.5)
    return {
      xrcd: handleOf(site, 'xrcd'),
      userHandle: userHandle(),
      ...(opensExisting && { qpNum: site.random.pick(numbers) }),
      ...(!opensExisting && site.random.hits(0.1) && { qpNum: ABSENT_QPN }),
    }
  },
  'xrc_tgt_qp.modify': modifyQpArguments,
  'event_queue.attach': site => ({ cookie: userHandle(), ...eventSource(site) }),
  'event_queue.detach': (site, target) => {
    const attachedObjects = [...site.opening.handles.values()].filter(
      ({ attached }) => attached !== undefined && attached.queue === target,
    )
    if (attachedObjects.length === 0 || site.random.hits(0.2)) return eventSource(site)
    const { class: cls, handle } = site.random.pick(attachedObjects)
    return { [cls]: handle }
  },
  'event_queue.getEvents': ({ random }) => ({ max: random.hits(0.5) ? 1 : 16 }),
  'device.queryHandles': ({ random }) => ({
    classes: ['pd', 'mr', 'cq', 'ah', 'rc_qp', 'srq']
      .filter(() => random.hits(0.5))
      .map(name => ({ id: ClassId[name as 'pd'] })),
  }),
}

const compact = (args: AnyValues): AnyValues =>
  Object.fromEntries(Object.entries(args).filter(([, value]) => value !== undefined))

/** Draws the arguments of a call on `target`; in a chain some arguments name the objects of earlier entries. */
const drawArguments = (site: CallSite, cls: ObjectClass, method: string, target: ModelObject | undefined): Drawn => {
  const { random, planned } = site
  const args = compact(makers[`${cls.name}.${method}`]?.(site, target, cls.name) ?? {})
  const refs: Record<string, number> = {}
  if (planned === undefined) return { args, refs }
  for (const [name, { type }] of Object.entries(cls.methods[method].in)) {
    if ((type.kind !== 'ref' && type.kind !== 'fd') || args[name] === undefined) continue
    const ofClass = [...planned.keys()].filter(i => planned[i] === type.class)
    if (ofClass.length > 0 && random.hits(0.8)) refs[name] = random.pick(ofClass)
    else if (random.hits(0.02)) refs[name] = random.int(planned.length + 2)
  }
  return { args, refs }
}

// ---- choice of calls ----

interface Weighted {
  readonly weight: number
  readonly cls: ObjectClass
  readonly method: string
}

const weightOf = (cls: string, method: string): number => {
  if (method === 'create') return cls === 'pd' || cls === 'cq' ? 5 : 2
  if (method === 'destroy') return 3
  return cls === 'device' ? 1 : 2
}

/** Queue pairs that rxe lacks, and the GSI queue pair, of which a port has one. */
const OMITTED_CLASSES = ['gsi_qp', 'smi_qp', 'raw_packet_qp', 'rd_qp', 'driver_qp', 'dci_qp', 'dct_qp']

const isDescriptorClass = (cls: ObjectClass): boolean => cls.identity === 'fd'
const called: readonly Weighted[] = Object.values(Classes as Readonly<Record<string, ObjectClass>>).flatMap(cls =>
  Object.keys(cls.methods)
    .filter(method => isKnown(cls.name, method) && !OMITTED_CLASSES.includes(cls.name))
    .map(method => ({ cls, method, weight: weightOf(cls.name, method) })),
)
const onContext = called.filter(({ cls, method }) => !isDescriptorClass(cls) || method === 'create')
const onDescriptors = called.filter(({ cls, method }) => isDescriptorClass(cls) && method !== 'create')

interface DrawnCall extends Drawn {
  readonly cls: ObjectClass
  readonly method: string
  readonly object: number
  readonly fd?: number
}

/** Whether an object of each required class exists. */
const isPossible = ({ opening, planned = [] }: CallSite, { cls, method }: Weighted): boolean => {
  const existing = new Set([...[...opening.handles.values()].map(modelObject => modelObject.class), ...planned])
  const needed = Object.values(cls.methods[method].in).flatMap(({ type, optional }) =>
    type.kind === 'ref' && !optional ? [type.class] : [],
  )
  if (cls.identity === 'handle' && !isCreate(cls.methods[method])) needed.push(cls.name)
  return needed.every(name => existing.has(name))
}

/** Picks a method by its weight; usually a possible one. */
const choose = (site: CallSite, methods: readonly Weighted[]): Weighted => {
  const possible = methods.filter(weighted => isPossible(site, weighted))
  return site.random.weighted(possible.length > 0 && site.random.hits(0.96) ? possible : methods)
}

/** Draws a call on a context. */
export const drawCall = (site: CallSite): DrawnCall => {
  const { cls, method } = choose(site, onContext)
  const creates = isCreate(cls.methods[method])
  const object = creates || cls.identity !== 'handle' ? 0 : handleOf(site, cls.name)
  return { cls, method, object, ...drawArguments(site, cls, method, site.opening.handles.get(object)) }
}

/** Draws a call on a descriptor of the process; undefined if the process has none. */
export const drawOnDescriptor = (site: CallSite): DrawnCall | undefined => {
  const { random, process } = site
  if (process.fds.size === 0) return undefined
  const withEvents = [...process.fds].filter(([, modelObject]) => modelObject.unread.length > 0)
  const [fd, modelObject] = random.pick(withEvents.length > 0 && random.hits(0.6) ? withEvents : [...process.fds])
  const fitting = onDescriptors.filter(({ cls }) => cls.name === modelObject.class || random.hits(0.02))
  const { cls, method } = random.weighted(fitting)
  return {
    cls,
    method,
    object: 0,
    fd,
    ...drawArguments({ ...site, opening: modelObject.home }, cls, method, modelObject),
  }
}

/** Draws a chain of up to eight calls. */
export const drawChain = (site: CallSite): { entries: Entry[]; undo: boolean } => {
  const { random } = site
  const undo = random.hits(0.6)
  const planned: (string | undefined)[] = []
  const entries: Entry[] = []
  for (let calls = 1 + random.int(8); calls > 0; calls--) {
    const inChain = { ...site, planned }
    const usesPlanned = planned.some(name => name !== undefined) && random.hits(0.35)
    if (usesPlanned) {
      const targetEntry = random.pick([...planned.keys()].filter(i => planned[i] !== undefined))
      const cls = classOf(random.hits(0.97) ? (planned[targetEntry] as string) : 'pd')
      const fitting = called.filter(weighted => weighted.cls === cls && weighted.method !== 'create')
      if (fitting.length > 0) {
        const { method } = random.weighted(fitting)
        const drawn = drawArguments(inChain, cls, method, undefined)
        entries.push({ cls, methodName: method, object: 0, targetEntry, ...drawn })
        planned.push(undefined)
        continue
      }
    }
    const call = random.hits(undo ? 0.03 : 0.15) ? drawCall(inChain) : drawCreate(inChain)
    entries.push({ cls: call.cls, methodName: call.method, object: call.object, args: call.args, refs: call.refs })
    planned.push(call.method === 'create' ? call.cls.name : undefined)
  }
  return { entries, undo }
}

const createMethods = onContext.filter(({ method }) => method === 'create')
const drawCreate = (site: CallSite): DrawnCall => {
  const { cls, method } = choose(site, createMethods)
  return { cls, method, object: 0, ...drawArguments(site, cls, method, undefined) }
}

export const onErrorOf = (undo: boolean): number => (undo ? ChainErrors.values.UNDO : ChainErrors.values.STOP)
