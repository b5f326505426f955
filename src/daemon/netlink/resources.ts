/*
 * Lists the objects of devices (Linux: res_get_common_doit, res_get_common_dumpit and their fillers). As in Linux,
 * every program sees all objects and their processes, but keys need CAP_NET_ADMIN. The number of a queue pair is its
 * QPN. Other objects, and contexts, have core's numbers, which are never reused.
 */
import { keysOf, type MrState } from '../../core/base/mr.ts'
import type { QpResource } from '../../core/driver-contract.ts'
import { OnDemandSpace } from '../../core/memory/on-demand.ts'
import type { Context, CoreObject } from '../../core/model.ts'
import { countOf, objectsOf, openedContexts, pdOf } from '../../core/resources.ts'
import { callError } from '../../spec/errno.ts'
import {
  MAX_DATAGRAM_BYTES,
  type NldevResourceName,
  NldevResources,
  QpSubtypes,
  QpTypeNumbers,
  SrqTypeNumbers,
} from '../../spec/linux/nldev.ts'
import { GSI_QPN } from '../../spec/wire/mad.ts'
import { type Entries, type Entry, encodeAttributes } from '../../uapi/nldev/attributes.ts'
import type { DaemonDevice } from '../devices/devices.ts'
import {
  type AnswerList,
  type AnswerOne,
  type Answers,
  byIndex,
  deviceOf,
  handleOf,
  hwCounters,
  type Managed,
  type ParsedRequest,
  portOf,
  required,
  tableMessages,
  type Work,
} from './answers.ts'
import { cmIdsOf, describeCmId } from './connections.ts'

/** Names of the classes of each kind of resource. */
const CLASSES: Readonly<Record<Exclude<NldevResourceName, 'ctx' | 'cm_id'>, ReadonlySet<string>>> = {
  pd: new Set(['pd']),
  cq: new Set(['cq']),
  qp: new Set(Object.keys(QpTypeNumbers)),
  mr: new Set(['mr']),
  srq: new Set(Object.keys(SrqTypeNumbers)),
}

/** The lower 32 bits of a core number. */
const u32 = (id: number): number => id % 2 ** 32

/** The device and sender of a request. */
interface ResourceQuery {
  readonly daemon: Managed
  readonly found: DaemonDevice
  readonly isAdmin: boolean
}

/** The process of a context, or the name that Linux's kernel clients have. */
const ownerOf = ({ failures }: Managed, context: Context | undefined): Entry => {
  const owner = context && failures.ownerOf(context)
  return owner === undefined ? ['RES_KERN_NAME', 'ib_core'] : ['RES_PID', owner.pid]
}

/** Contexts of processes. As in Linux, contexts of clients in the daemon are not listed. */
function* contextsOf({ failures }: Managed, { device }: DaemonDevice): Generator<Context> {
  // The context of a umad file has no mapped memory, and is not listed.
  for (const context of openedContexts(device))
    if (context.mapped !== undefined && failures.ownerOf(context) !== undefined) yield context
}

const contextNumber = ({ context }: CoreObject): readonly Entry[] =>
  context === undefined ? [] : [['RES_CTXN', u32(context.id)]]

const pdNumber = (object: CoreObject): readonly Entry[] => {
  const pd = pdOf(object)
  return pd === undefined ? [] : [['RES_PDN', u32(pd.id)]]
}

/** Returns the attributes of an object; undefined if it is not listed. */
type Describe = (query: ResourceQuery, object: CoreObject) => Entries | undefined | Work<Entries>

const describePd: Describe = ({ daemon, isAdmin }, pd) => [
  ...(isAdmin ? ([['RES_LOCAL_DMA_LKEY', 0]] as const) : []),
  ['RES_USECNT', BigInt(pd.uses)],
  ['RES_PDN', u32(pd.id)],
  ...contextNumber(pd),
  ownerOf(daemon, pd.context),
]

const describeCq: Describe = ({ daemon, found }, cq) => [
  ['RES_CQE', found.network?.queues?.cqEntries(cq) ?? 0],
  ['RES_USECNT', BigInt(cq.uses)],
  ['DEV_DIM', 0],
  ['RES_CQN', u32(cq.id)],
  ...contextNumber(cq),
  ownerOf(daemon, cq.context),
]

const TYPES_WITH_REMOTE_QPN: ReadonlySet<string> = new Set(['rc_qp', 'uc_qp'])
const TYPES_WITH_PATH_MIGRATION: ReadonlySet<string> = new Set([...TYPES_WITH_REMOTE_QPN, 'xrc_ini_qp', 'xrc_tgt_qp'])

/** `name`: class name. `related`: attributes of the protection domain and owner. */
const qpEntries = (name: string, facts: QpResource, related: readonly Entry[]): Entries => [
  ...(facts.port === 0 ? [] : ([['PORT_INDEX', facts.port]] as const)),
  ['RES_LQPN', facts.qpn],
  ...related,
  ...(TYPES_WITH_REMOTE_QPN.has(name)
    ? ([
        ['RES_RQPN', facts.destQpn],
        ['RES_RQ_PSN', facts.rqPsn],
      ] as const)
    : []),
  ['RES_SQ_PSN', facts.sqPsn],
  ...(TYPES_WITH_PATH_MIGRATION.has(name) ? ([['RES_PATH_MIG_STATE', 0]] as const) : []),
  ['RES_TYPE', QpTypeNumbers[name]!],
  ...(QpSubtypes[name] === undefined ? [] : ([['RES_SUBTYPE', QpSubtypes[name]]] as const)),
  ['RES_STATE', facts.state],
]

const describeQp: Describe = ({ daemon, found }, qp) => {
  const facts = found.network?.queues?.qp(qp)
  return facts && qpEntries(qp.class.name, facts, [...pdNumber(qp), ownerOf(daemon, qp.context)])
}

/** Queue pairs of clients in the daemon: QPN 1 of the MAD layer, others of IP over the device. */
const describeCoreQueues = ({ daemon, found }: ResourceQuery): readonly Entries[] =>
  (found.network?.queues?.clientQps?.() ?? []).map(facts =>
    qpEntries(facts.qpn === GSI_QPN ? 'gsi_qp' : 'ud_qp', facts, [ownerOf(daemon, undefined)]),
  )

const describeMr: Describe = ({ daemon, found, isAdmin }, mr) => {
  const { row } = (mr as CoreObject<MrState>).state
  const { memory } = found.device
  const { lkey, rkey } = keysOf(memory, row)
  const space = memory.spaces[memory.space[row]!]
  const counters = space instanceof OnDemandSpace ? space.counters() : undefined
  return [
    ...(isAdmin
      ? ([
          ['RES_RKEY', rkey],
          ['RES_LKEY', lkey],
        ] as const)
      : []),
    ['RES_MRLEN', BigInt(memory.length[row]!)],
    ['RES_MRN', u32(mr.id)],
    ...pdNumber(mr),
    ownerOf(daemon, mr.context),
    ...(counters === undefined
      ? []
      : [
          hwCounters([
            ['page_faults', counters.pageFaults],
            ['page_faults_handled', counters.pageFaultsHandled],
            ['page_prefetch', counters.pagesPrefetched],
          ]),
        ]),
  ]
}

/** Maximum bytes of a range of QPNs, and of the rest of an SRQ's entry. */
const RANGE_BYTES = 20
const REST_BYTES = 512
/** As many ranges as fit in one message. */
const MAX_RANGES = Math.floor((MAX_DATAGRAM_BYTES - REST_BYTES) / RANGE_BYTES)

/** Numbers as ranges, lowest first. Ranges beyond MAX_RANGES are omitted. */
const rangesOf = (numbers: readonly number[]): Entry[] => {
  const ranges: { min: number; max: number }[] = []
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = ranges.at(-1)
    if (last !== undefined && number === last.max + 1) last.max = number
    else ranges.push({ min: number, max: number })
  }
  return ranges.slice(0, MAX_RANGES).map(({ min, max }) => [
    'RES_QP_ENTRY',
    {
      flagged:
        min === max
          ? [['RES_LQPN', min]]
          : [
              ['MIN_RANGE', min],
              ['MAX_RANGE', max],
            ],
    },
  ])
}

function* describeSrq({ daemon, found }: ResourceQuery, srq: CoreObject): Work<Entries> {
  const qpns: number[] = []
  for (const qpn of found.network?.queues?.qpsOfSrq?.(srq) ?? []) {
    if (qpn === undefined) yield
    else qpns.push(qpn)
  }
  // of an XRC shared receive queue
  const cq = srq.parents.find(({ class: { name } }) => name === 'cq')
  return [
    ['RES_SRQN', u32(srq.id)],
    ['RES_TYPE', SrqTypeNumbers[srq.class.name]!],
    ...pdNumber(srq),
    ...(cq === undefined ? [] : ([['RES_CQN', u32(cq.id)]] as const)),
    ['RES_QP', { flagged: rangesOf(qpns) }],
    ownerOf(daemon, srq.context),
  ]
}

const describeContext = (daemon: Managed, context: Context): Entries => [
  ['RES_CTXN', u32(context.id)],
  ownerOf(daemon, context),
]

const describers: Readonly<Record<Exclude<NldevResourceName, 'ctx'>, Describe>> = {
  pd: describePd,
  cq: describeCq,
  qp: describeQp,
  cm_id: ({ daemon }, id) => [...describeCmId(id), ['RES_CM_IDN', u32(id.id)], ownerOf(daemon, id.context)],
  mr: describeMr,
  srq: describeSrq,
}

// ---- lists ----

/** The result of `work`, which is run to its end if it is a generator. */
function* resultOf<T>(work: T | Work<T>): Generator<undefined, T> {
  const isWork = typeof work === 'object' && work !== null && Symbol.iterator in work && 'next' in work
  return isWork ? yield* work as Work<T> : (work as T)
}

/** The attributes of each object of a kind; undefined between steps. */
function* allOfKind(query: ResourceQuery, kind: NldevResourceName): Generator<Entries | undefined> {
  const { daemon, found } = query
  if (kind === 'ctx') {
    for (const context of contextsOf(daemon, found)) yield describeContext(daemon, context)
    return
  }
  for (const object of kind === 'cm_id' ? cmIdsOf(daemon, found) : objectsOf(found.device, CLASSES[kind])) {
    if (object === undefined) {
      yield undefined
      continue
    }
    const described = yield* resultOf(describers[kind](query, object))
    if (described !== undefined) yield described
  }
  if (kind === 'qp') yield* describeCoreQueues(query)
}

const queryOf = (daemon: Managed, parsed: ParsedRequest): ResourceQuery => ({
  daemon,
  found: deviceOf(daemon, parsed),
  isAdmin: parsed.isAdmin,
})

const hasValue = (described: Entries, attribute: string, value: number): boolean =>
  described.some(([name, present]) => name === attribute && present === value)

/** A handler that lists the objects of a kind. `select` chooses the attributes of the answer. */
const listOf = (
  kind: NldevResourceName,
  select: (described: Entries) => Entries = described => described,
): AnswerList =>
  function* (daemon, parsed) {
    const query = queryOf(daemon, parsed)
    const resource = NldevResources[kind]
    const port = portOf(query.found, parsed)
    const isListed = (described: Entries): boolean =>
      port === undefined || !('hasPort' in resource) || hasValue(described, 'PORT_INDEX', port)
    const entries = function* (): Generator<Entry | undefined> {
      for (const described of allOfKind(query, kind))
        if (described === undefined) yield undefined
        else if (isListed(described)) yield [resource.entry, select(described)]
    }
    yield* tableMessages(handleOf(query.found), resource.table, entries())
  }

/**
 * Objects of a kind, among them the object with number `id`, if there is one. For queue pairs, only the program's queue
 * pair with this QPN, or else all queue pairs of clients in the daemon.
 */
function* candidatesOf(query: ResourceQuery, kind: NldevResourceName, id: number): Generator<Entries | undefined> {
  const { found } = query
  const qp = kind === 'qp' ? found.network?.queues?.qpOfNumber(id) : undefined
  if (kind !== 'qp') yield* allOfKind(query, kind)
  else if (qp !== undefined) {
    const described = yield* resultOf(describeQp(query, qp))
    yield described
  } else yield* describeCoreQueues(query)
}

/** A handler for the object that the request names. `select` chooses the attributes of the answer. */
const oneOf = (kind: NldevResourceName, select: (described: Entries) => Entries = described => described): AnswerOne =>
  function* (daemon, parsed): Work<Entries> {
    const query = queryOf(daemon, parsed)
    const resource = NldevResources[kind]
    const id = required(parsed.attributes, resource.id)
    const port = portOf(query.found, parsed)
    const needsPort = 'hasPort' in resource
    if (needsPort !== (port !== undefined))
      throw callError.EINVAL`attribute PORT_INDEX ${needsPort ? 'is missing' : `is not allowed for a ${kind}`}`
    for (const described of candidatesOf(query, kind, id)) {
      if (described === undefined) {
        yield
        continue
      }
      if (!hasValue(described, resource.id, id)) continue
      // Linux's errno for an object of another port, or of none yet.
      if (port !== undefined && !hasValue(described, 'PORT_INDEX', port))
        throw callError.EAGAIN`${kind} ${id} does not belong to port ${port}`
      return [...handleOf(query.found), ...select(described)]
    }
    throw callError.ENOENT`device ${query.found.device.name} has no ${kind} ${id}`
  }

function* countOfKind(daemon: Managed, found: DaemonDevice, kind: NldevResourceName): Work<number> {
  if (kind !== 'ctx' && kind !== 'cm_id') {
    const { queues } = found.network ?? {}
    const ofPrograms = kind === 'qp' && queues?.count ? yield* queues.count() : countOf(found.device, CLASSES[kind])
    return ofPrograms + (kind === 'qp' ? (queues?.clientQps?.().length ?? 0) : 0)
  }
  let sum = 0
  for (const object of kind === 'ctx' ? contextsOf(daemon, found) : cmIdsOf(daemon, found)) {
    if (object === undefined) yield
    else sum++
  }
  return sum
}

/** As in Linux, kinds without a maximum have no RES_SUMMARY_ENTRY_MAX. */
const maxima = ({ device: { attributes } }: DaemonDevice): Readonly<Partial<Record<NldevResourceName, number>>> => ({
  pd: attributes.maxPd,
  cq: attributes.maxCq,
  qp: attributes.maxQp,
  mr: attributes.maxMr,
  srq: attributes.maxSrq,
})

function* summaryOf(daemon: Managed, found: DaemonDevice): Work<Entries> {
  const max = maxima(found)
  const counted: Entry[] = []
  for (const { name } of Object.values(NldevResources))
    counted.push([
      'RES_SUMMARY_ENTRY',
      [
        ['RES_SUMMARY_ENTRY_NAME', name],
        ['RES_SUMMARY_ENTRY_CURR', BigInt(yield* countOfKind(daemon, found, name))],
        ...(max[name] ? ([['RES_SUMMARY_ENTRY_MAX', BigInt(max[name])]] as const) : []),
      ],
    ])
  return [...handleOf(found), ['RES_SUMMARY', counted]]
}

/** Devices that are removed between the steps are omitted. */
function* summaries(daemon: Managed): Generator<Uint8Array | undefined> {
  for (const found of byIndex(daemon.devices))
    if (found.device.isAlive) yield encodeAttributes(yield* summaryOf(daemon, found))
}

/** No driver provides raw data of its objects. A request for an unknown object gets ENOENT first. */
const refuseRaw = (): never => {
  throw callError.EINVAL`the driver does not provide raw data of its objects`
}

/**
 * No device has pools of regions (Linux: ib_frmr_pools_init): as in Linux, their list is empty and they cannot be set.
 */
const frmrPools: AnswerList = (daemon, parsed) => tableMessages(handleOf(deviceOf(daemon, parsed)), 'FRMR_POOLS', [])
const setFrmrPools: AnswerOne = (daemon, parsed) => {
  const { device } = deviceOf(daemon, parsed)
  const { FRMR_POOLS_AGING_PERIOD: period, FRMR_POOL_PINNED_HANDLES: handles } = parsed.attributes
  if (period === undefined && handles === undefined) return undefined
  throw callError.EINVAL`device ${device.name} has no pools of regions`
}

const oneAndList = (kind: NldevResourceName) => ({ one: oneOf(kind), list: listOf(kind) })
const rawData = (kind: NldevResourceName) => ({ one: oneOf(kind, refuseRaw), list: listOf(kind, refuseRaw) })

/** Of a memory region: its number, and the counters of on-demand regions, with the names of Linux's mlx5. */
const counted = (described: Entries): Entries =>
  described.filter(([name]) => name === 'RES_MRN' || name === 'STAT_HWCOUNTERS')
export const mrStatistic = oneOf('mr', counted)
export const mrStatistics = listOf('mr', counted)
const uncounted = (described: Entries): Entries => described.filter(([name]) => name !== 'STAT_HWCOUNTERS')

export const resourceAnswers: Answers = {
  RES_GET: { one: (daemon, parsed) => summaryOf(daemon, deviceOf(daemon, parsed)), list: summaries },
  RES_QP_GET: oneAndList('qp'),
  RES_CM_ID_GET: oneAndList('cm_id'),
  RES_CQ_GET: oneAndList('cq'),
  RES_MR_GET: { one: oneOf('mr', uncounted), list: listOf('mr', uncounted) },
  RES_PD_GET: oneAndList('pd'),
  RES_CTX_GET: oneAndList('ctx'),
  RES_SRQ_GET: oneAndList('srq'),
  RES_QP_GET_RAW: rawData('qp'),
  RES_CQ_GET_RAW: rawData('cq'),
  RES_MR_GET_RAW: rawData('mr'),
  RES_SRQ_GET_RAW: rawData('srq'),
  FRMR_POOLS_GET: { list: frmrPools },
  FRMR_POOLS_SET: { one: setFrmrPools },
}
