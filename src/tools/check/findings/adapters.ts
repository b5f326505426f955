/*
 * Findings about operations and sizes that work on userdma's device but fail on an adapter, or a port of the other
 * link, that `--like` names (spec/check/adapters.ts). Paths that rdma_cm has found are of either link. Calls that
 * userdma refused are left out. With `--like` the detector also finds registrations beyond RLIMIT_MEMLOCK, and forks
 * with registered memory but without ibv_fork_init.
 */
import {
  type AdapterName,
  adapters,
  type LimitName,
  type OperationName,
  operationNames,
} from '../../../spec/check/adapters.ts'
import type { CheckedCall } from '../../../spec/check/program-events.ts'
import type { WorkRequest } from '../../../spec/check/requests.ts'
import { isQueuePairClass, isSrqClass } from '../../../spec/classes/ids.ts'
import { limitOfClass } from '../../../spec/device-limits.ts'
import { AccessFlags, MrKind, QpState } from '../../../spec/enums.ts'
import { pageAbove, pageBelow } from '../../../spec/memory.ts'
import { PostQueue } from '../../../spec/session.ts'
import { SendFlags, SendKind, sendOperations } from '../../../spec/work.ts'
import type { Detector, DetectorServices } from '../detector.ts'
import type { KnownObject } from '../objects.ts'
import type { Occurrence } from '../reporting.ts'

const { REMOTE_ATOMIC, MW_BIND, FLUSH_GLOBAL, FLUSH_PERSISTENT, ON_DEMAND } = AccessFlags.values
const { FENCE, SOLICITED } = SendFlags.values

/** Operations that calls use, by `class.method`. */
const callOperations: Readonly<Record<string, OperationName>> = {
  'rc_qp.create': 'rc',
  'uc_qp.create': 'uc',
  'ud_qp.create': 'ud',
  'xrc_ini_qp.create': 'xrc',
  'xrc_tgt_qp.create': 'xrc',
  'xrc_srq.create': 'xrc',
  'driver_qp.create': 'srd',
  'srq.create': 'srq',
  'mw.create': 'mw',
  'ud_qp.attachMcast': 'multicast',
  'raw_packet_qp.create': 'rawPackets',
}
/** The first byte of an address of rdma_cm that is a GID: AF_IB. */
const AF_IB = 27
/** Operations that requests use, by SendKind. */
const requestOperations: ReadonlyMap<number | undefined, OperationName> = new Map([
  [SendKind.ATOMIC, 'atomics'],
  [SendKind.FLUSH, 'flush'],
  [SendKind.ATOMIC_WRITE, 'atomicWrite'],
])
/** Operations that flags of a send use. */
const flagOperations: readonly (readonly [uses: (request: WorkRequest) => boolean, operation: OperationName])[] = [
  [({ isSignaled }) => !isSignaled, 'unsignaled'],
  [({ flags }) => (flags & SOLICITED) !== 0, 'solicited'],
  [({ flags }) => (flags & FENCE) !== 0, 'fence'],
]
/** Operations that access flags of a region allow. */
const accessOperations: readonly (readonly [bits: number, operation: OperationName])[] = [
  [REMOTE_ATOMIC, 'remoteAtomic'],
  [MW_BIND, 'mw'],
  [FLUSH_GLOBAL | FLUSH_PERSISTENT, 'flush'],
  [ON_DEMAND, 'onDemand'],
]

const operationsOfRequest = (request: WorkRequest): readonly OperationName[] => {
  if (request.queue !== PostQueue.SEND) return request.elements.length === 0 ? ['emptyReceives'] : []
  const operation = requestOperations.get(sendOperations[request.opcode]?.kind)
  return [
    ...(operation === undefined ? [] : [operation]),
    ...flagOperations.filter(([uses]) => uses(request)).map(([, used]) => used),
  ]
}

type CallWithArguments = Pick<CheckedCall, 'class' | 'method' | 'args' | 'stack'>

/** The address vectors in the arguments of a call: of a port of RoCE, and of InfiniBand. */
interface Vectors {
  readonly address?: { readonly sgidIndex: number; readonly dgid: Uint8Array }
  readonly ibAddress?: { readonly isGlobal: number }
}

const LIBRDMACM = '/librdmacm.so'
const isOfLibrary = (frame: string): boolean => frame.includes(LIBRDMACM) || frame.includes('/libmlx5.so')

/** A numeric argument as a Number; 0 for other values. */
const numberOf = (value: unknown): number =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : 0

const operationsOf = ({ class: name, method, args }: CallWithArguments): OperationName[] => {
  const operation = callOperations[`${name}.${method}`]
  const access = name === 'mr' ? numberOf(args.access) : 0
  return [
    ...(operation === undefined ? [] : [operation]),
    ...(name === 'cq' && method === 'modify' && args.cqe !== undefined ? ['cqResize' as const] : []),
    ...(isSrqClass(name) && method === 'modify' && args.maxWr !== undefined ? ['srqResize' as const] : []),
    ...accessOperations.filter(([bits]) => (access & bits) !== 0).map(([, needed]) => needed),
    ...(name === 'cm_id' && [args.source, args.destination].some(isGidAddress) ? ['gidAddresses' as const] : []),
  ]
}

const isLinkLocal = (gid: Uint8Array): boolean => gid[0] === 0xfe && (gid[1]! & 0xc0) === 0x80

const isGidAddress = (address: unknown): boolean => address instanceof Uint8Array && address[0] === AF_IB

/** The sizes that a call requests, by limit; undefined: not set by the call. */
const requestedSizes = ({ class: name, args }: CallWithArguments): Partial<Record<LimitName, unknown>> => {
  if (isSrqClass(name)) return { max_srq_wr: args.maxWr, max_srq_sge: args.maxSge }
  if (name === 'cq') return { max_cqe: args.cqe }
  if (name === 'mr') return { max_mr_size: (args.translation as { readonly length?: unknown })?.length ?? args.length }
  if (!isQueuePairClass(name)) return {}
  const cap = (args.cap ?? {}) as Readonly<Record<string, unknown>>
  return {
    max_send_wr: cap.maxSendWr,
    max_send_sge: cap.maxSendSge,
    max_inline_data: cap.maxInlineData,
    // A queue pair with an SRQ, and an XRC initiator, have no receive queue of their own.
    ...(args.srq === undefined &&
      name !== 'xrc_ini_qp' && { max_recv_wr: cap.maxRecvWr, max_recv_sge: cap.maxRecvSge }),
    pkey_index: args.pkeyIndex,
    max_rd_atomic: args.maxRdAtomic,
    max_dest_rd_atomic: args.maxDestRdAtomic,
  }
}

const adapterText = (name: AdapterName): string => `${name} (${adapters[name].model})`

export const createAdapterDetector = (services: DetectorServices): Detector => {
  const { adapters: names = [], lockLimit = () => Number.POSITIVE_INFINITY } = services.sources
  /** The smallest max_msg_sz of the adapters. */
  const smallestMessage = Math.min(
    ...names.map(name => adapters[name].limits.max_msg_sz?.[0] ?? Number.POSITIVE_INFINITY),
  )
  /** The process and the pinned bytes (whole pages) of each region, by `KnownObject.id`. */
  const pinned = new Map<number, { readonly pid: number; readonly bytes: number }>()
  /** Pinned bytes of all regions of a process, by pid. */
  const pinnedOfProcess = new Map<number, number>()

  /** By device and limit: the objects, or responder resources, of all programs together. */
  const totals = new Map<string, number>()
  /** Responder resources of queue pairs, by `KnownObject.id`. */
  const responses = new Map<number, number>()

  /** Adds to what the device has; reports if it was added, and that is more than an adapter has. */
  const addTotal = (limit: LimitName, count: number, call: CheckedCall, object: KnownObject): void => {
    const key = `${call.deviceNumber} ${limit}`
    const total = (totals.get(key) ?? 0) + count
    totals.set(key, total)
    if (count > 0) checkLimit(limit, total, call, object)
  }

  /** What a call adds to the totals of its device, or removes. */
  const count = (call: CheckedCall, object: KnownObject): void => {
    const { class: name, method, args, why } = call
    const limit = limitOfClass(name)
    if (limit === undefined) return
    if (method === 'create' && why === 'call') addTotal(limit, 1, call, object)
    else if (method === 'destroy') addTotal(limit, -1, call, object)
    const { maxDestRdAtomic, state } = args as { readonly maxDestRdAtomic?: number; readonly state?: number }
    const has = responses.get(object.id) ?? 0
    const wants = method === 'destroy' || state === QpState.values.RESET ? 0 : (maxDestRdAtomic ?? has)
    if (!object.isQp || wants === has) return
    responses.set(object.id, wants)
    if (wants === 0) responses.delete(object.id)
    addTotal('max_res_rd_atom', wants - has, call, object)
  }

  /** Contexts whose program has asked for the attributes of a port, with its pid. */
  const askers = new Map<number, number | undefined>()

  const checkOperation = (operation: OperationName, occurrence: Occurrence, object: KnownObject): void => {
    for (const name of names) {
      const source = adapters[name].lacks[operation]
      if (source === undefined) continue
      const text = `${adapterText(name)} lacks ${operationNames[operation]}`
      services.report('adapter-operation', occurrence, { text, details: [`source: ${source}`], objects: [object] })
    }
  }

  const checkLimit = (limit: LimitName, requested: number, occurrence: Occurrence, object: KnownObject): void => {
    for (const name of names) {
      const [max, source, classes = [object.class]] = adapters[name].limits[limit] ?? []
      if (max === undefined || requested <= max || !classes.includes(object.class)) continue
      const text = `${limit} ${requested} exceeds ${max} of ${adapterText(name)}`
      services.report('adapter-limit', occurrence, { text, details: [`source: ${source}`], objects: [object] })
    }
  }

  /** The path of a queue pair or an address handle, unless rdma_cm has found it. */
  const checkPath = (call: CheckedCall, object: KnownObject): void => {
    const { address, ibAddress } = call.args as Vectors
    if (address === undefined && ibAddress === undefined) return
    const isOfCm = object.isQp
      ? call.stack.some(frame => frame.includes(LIBRDMACM))
      : services.objects.existingOf(object.program, ['cm_id']) !== undefined
    if (isOfCm) return
    if (ibAddress?.isGlobal === 0) checkOperation('lidPaths', call, object)
    if (address === undefined) return
    checkLimit('sgid_index', address.sgidIndex, call, object)
    if (!isLinkLocal(address.dgid)) checkOperation('ipGids', call, object)
    if (![...askers.values()].includes(call.program?.pid)) checkOperation('gidPaths', call, object)
  }

  /**
   * Whether a datagram goes by an address handle without a GRH that libmlx5 made without a call, for which `checkPath`
   * looks.
   */
  const isByLid = ({ destination, owner }: WorkRequest): boolean => {
    if (destination?.hasNoGrh !== true) return false
    const program = services.objects.find(owner)?.program
    return services.objects.existingOf(program, ['cm_id', 'ah']) === undefined
  }

  /** Adds to the pinned bytes of a process; returns the sum. */
  const addPinned = (pid: number, bytes: number): number => {
    const sum = (pinnedOfProcess.get(pid) ?? 0) + bytes
    if (sum > 0) pinnedOfProcess.set(pid, sum)
    else pinnedOfProcess.delete(pid)
    return sum
  }

  const unpin = (region: KnownObject): void => {
    const { pid, bytes } = pinned.get(region.id) ?? {}
    if (pid === undefined || bytes === undefined) return
    pinned.delete(region.id)
    addPinned(pid, -bytes)
  }

  /** Adds the memory of a region; reports if its process now pins more than RLIMIT_MEMLOCK. */
  const pin = (
    region: KnownObject,
    range: { readonly start?: unknown; readonly length?: unknown },
    occurrence: Occurrence,
  ) => {
    const { program } = region
    if (program === undefined) return
    unpin(region)
    const start = numberOf(range.start)
    const bytes = pageAbove(start + numberOf(range.length)) - pageBelow(start)
    pinned.set(region.id, { pid: program.pid, bytes })
    const sum = addPinned(program.pid, bytes)
    const limit = lockLimit(program)
    const wasExceeded = sum - bytes > limit
    if (sum <= limit || wasExceeded) return
    const text = `${sum} bytes are registered, more than RLIMIT_MEMLOCK, ${limit}: ${names.join(', ')} would refuse this without CAP_IPC_LOCK`
    const details = ['source: Linux drivers/infiniband/core/umem.c, ib_umem_get']
    services.report('adapter-memlock', occurrence, { text, details, objects: [region] })
  }

  return {
    on: {
      asked({ class: name, method, context, program, stack }) {
        if (names.length > 0 && name === 'port' && method === 'query' && !stack.some(isOfLibrary))
          askers.set(context, program?.pid)
      },
      contextSettled({ context }) {
        askers.delete(context)
      },
      called(call, object) {
        const { class: name, method, args, refused, why } = call
        if (names.length === 0 || refused !== undefined) return
        if (name === 'mr' && method === 'destroy') unpin(object)
        count(call, object)
        // Undo, close and removal destroy objects without a call of the program.
        if (why !== 'call') return
        for (const operation of operationsOf(call)) checkOperation(operation, call, object)
        checkPath(call, object)
        for (const [limit, requested] of Object.entries(requestedSizes(call)))
          checkLimit(limit as LimitName, numberOf(requested), call, object)
        if (name !== 'mr') return
        const isMemory = (args.kind ?? MrKind.values.MEMORY) === MrKind.values.MEMORY
        if (method === 'create' && isMemory) pin(object, args, call)
        else if (method === 'modify' && args.translation !== undefined) pin(object, args.translation as object, call)
      },
      forked({ pid, stack }) {
        const regions = [...pinned].filter(([, region]) => region.pid === pid).map(([id]) => services.objects.find(id))
        const [first] = regions
        if (first === undefined) return
        const count = `${regions.length} region${regions.length === 1 ? '' : 's'}`
        const text = `process ${pid} forks with ${count} registered, and without ibv_fork_init`
        services.report('fork-unsafe', services.occurrenceAt(first, stack, 'forked'), { text, objects: regions })
      },
      posted(request) {
        if (request.queue === PostQueue.SEND && request.length > smallestMessage) {
          const owner = services.objects.find(request.owner)
          if (owner !== undefined)
            checkLimit('max_msg_sz', request.length, services.occurrenceAtPost(owner, request), owner)
        }
        if (names.length === 0) return
        for (const operation of [...operationsOfRequest(request), ...(isByLid(request) ? ['lidPaths' as const] : [])]) {
          if (names.every(name => adapters[name].lacks[operation] === undefined)) continue
          const owner = services.objects.find(request.owner)
          if (owner !== undefined) checkOperation(operation, services.occurrenceAtPost(owner, request), owner)
        }
      },
    },
  }
}
