/*
 * "Works here, fails there": operations and sizes that a program requests, compared with the adapters of `--like`
 * (spec/check/adapters.ts). Calls that were refused here are left out.
 */
import {
  type AdapterName,
  adapters,
  type LimitName,
  type OperationName,
  operationNames,
} from '../spec/check/adapters.ts'
import { AccessFlags, MrKind } from '../spec/enums.ts'
import { pageAbove, pageBelow } from '../spec/memory.ts'
import { WrOpcode } from '../spec/work.ts'
import type { KnownObject } from './objects.ts'
import type { Place } from './reporting.ts'
import type { Topic, World } from './topic.ts'

const { ATOMIC_CMP_AND_SWP, ATOMIC_FETCH_AND_ADD, FLUSH, ATOMIC_WRITE } = WrOpcode.values
const { REMOTE_ATOMIC, MW_BIND, FLUSH_GLOBAL, FLUSH_PERSISTENT } = AccessFlags.values

/** Operations that calls need, by `class.method`. */
const callOperations: Readonly<Record<string, OperationName>> = {
  'rc_qp.create': 'rc',
  'uc_qp.create': 'uc',
  'xrc_ini_qp.create': 'xrc',
  'xrc_tgt_qp.create': 'xrc',
  'xrc_srq.create': 'xrc',
  'srq.create': 'srq',
  'mw.create': 'mw',
  'ud_qp.attachMcast': 'multicast',
}
const requestOperations: ReadonlyMap<number, OperationName> = new Map([
  [ATOMIC_CMP_AND_SWP, 'atomics'],
  [ATOMIC_FETCH_AND_ADD, 'atomics'],
  [FLUSH, 'flush'],
  [ATOMIC_WRITE, 'atomicWrite'],
])
const accessOperations: readonly (readonly [bits: number, operation: OperationName])[] = [
  [REMOTE_ATOMIC, 'remoteAtomic'],
  [MW_BIND, 'mw'],
  [FLUSH_GLOBAL | FLUSH_PERSISTENT, 'flush'],
]

interface Asked {
  readonly class: string
  readonly method: string
  readonly args: Readonly<Record<string, unknown>>
}

const numberIn = (value: unknown): number =>
  typeof value === 'number' ? value : typeof value === 'bigint' ? Number(value) : 0

const isSrq = (name: string): boolean => name === 'srq' || name === 'xrc_srq'

const operationsOf = ({ class: name, method, args }: Asked): OperationName[] => {
  const operation = callOperations[`${name}.${method}`]
  const access = name === 'mr' ? numberIn(args.access) : 0
  return [
    ...(operation === undefined ? [] : [operation]),
    ...(name === 'cq' && method === 'modify' && args.cqe !== undefined ? ['cqResize' as const] : []),
    ...(isSrq(name) && method === 'modify' && args.maxWr !== undefined ? ['srqResize' as const] : []),
    ...accessOperations.filter(([bits]) => (access & bits) !== 0).map(([, needed]) => needed),
  ]
}

/** Sizes that a call requests, by limit. */
const amountsOf = ({ class: name, args }: Asked): Partial<Record<LimitName, unknown>> => {
  if (isSrq(name)) return { max_srq_wr: args.maxWr, max_srq_sge: args.maxSge }
  if (name === 'cq') return { max_cqe: args.cqe }
  if (name === 'mr') return { max_mr_size: args.length }
  if (!name.endsWith('_qp')) return {}
  const cap = (args.cap ?? {}) as Readonly<Record<string, unknown>>
  return {
    max_send_wr: cap.maxSendWr,
    max_send_sge: cap.maxSendSge,
    max_inline_data: cap.maxInlineData,
    // The sizes of a receive queue are ignored where there is a shared one.
    ...(args.srq === undefined && { max_recv_wr: cap.maxRecvWr, max_recv_sge: cap.maxRecvSge }),
    max_rd_atomic: args.maxRdAtomic,
    max_dest_rd_atomic: args.maxDestRdAtomic,
  }
}

const textOf = (name: AdapterName): string => `${name} (${adapters[name].model})`

export const createAdapters = (world: World): Topic => {
  const { like = [], lockLimit = () => Number.POSITIVE_INFINITY } = world.sources
  /** Bytes of the pages of each region, by object; and of all regions, by process. */
  const pinned = new Map<number, { readonly pid: number; readonly bytes: number }>()
  const sums = new Map<number, number>()

  const need = (operation: OperationName, place: Place, object: KnownObject): void => {
    for (const name of like) {
      const source = adapters[name].lacks[operation]
      if (source === undefined) continue
      const text = `${textOf(name)} lacks ${operationNames[operation]}`
      world.find('like-operation', place, { text, details: [`source: ${source}`], objects: [object] })
    }
  }

  const ask = (limit: LimitName, amount: number, place: Place, object: KnownObject): void => {
    for (const name of like) {
      const [max, source, classes = [object.class]] = adapters[name].limits[limit] ?? []
      if (max === undefined || amount <= max || !classes.includes(object.class)) continue
      const text = `${limit} ${amount} exceeds ${max} of ${textOf(name)}`
      world.find('like-limit', place, { text, details: [`source: ${source}`], objects: [object] })
    }
  }

  const add = (pid: number, bytes: number): number => {
    const sum = (sums.get(pid) ?? 0) + bytes
    if (sum > 0) sums.set(pid, sum)
    else sums.delete(pid)
    return sum
  }

  const unpin = (region: KnownObject): void => {
    const { pid, bytes } = pinned.get(region.id) ?? {}
    if (pid === undefined || bytes === undefined) return
    pinned.delete(region.id)
    add(pid, -bytes)
  }

  /** A region has this memory from now on. */
  const pin = (region: KnownObject, range: { readonly start?: unknown; readonly length?: unknown }, place: Place) => {
    const { program } = region
    if (program === undefined) return
    unpin(region)
    const start = numberIn(range.start)
    const bytes = pageAbove(start + numberIn(range.length)) - pageBelow(start)
    pinned.set(region.id, { pid: program.pid, bytes })
    const sum = add(program.pid, bytes)
    const limit = lockLimit(program)
    // Once, when the limit is passed.
    if (sum <= limit || sum - bytes > limit) return
    const text = `${sum} bytes are registered, more than RLIMIT_MEMLOCK, ${limit}: ${like.join(', ')} would refuse this without CAP_IPC_LOCK`
    const details = ['source: Linux drivers/infiniband/core/umem.c, ib_umem_get']
    world.find('like-memlock', place, { text, details, objects: [region] })
  }

  return {
    called(call, object) {
      const { class: name, method, args, refused, why } = call
      if (like.length === 0 || refused !== undefined) return
      if (name === 'mr' && method === 'destroy') unpin(object)
      if (why !== 'call') return
      for (const operation of operationsOf(call)) need(operation, call, object)
      for (const [limit, amount] of Object.entries(amountsOf(call)))
        ask(limit as LimitName, numberIn(amount), call, object)
      if (name !== 'mr') return
      const isMemory = (args.kind ?? MrKind.values.MEMORY) === MrKind.values.MEMORY
      if (method === 'create' && isMemory) pin(object, args, call)
      else if (method === 'modify' && args.translation !== undefined) pin(object, args.translation as object, call)
    },
    forked(pid, stack) {
      const regions = [...pinned].filter(([, region]) => region.pid === pid).map(([id]) => world.objects.find(id))
      const [first] = regions
      if (first === undefined) return
      const count = `${regions.length} region${regions.length === 1 ? '' : 's'}`
      const text = `process ${pid} forks with ${count} registered, and without ibv_fork_init`
      world.find('fork-unsafe', world.placeOf(first, stack), { text, objects: regions })
    },
    posted(request) {
      const operation = requestOperations.get(request.opcode)
      if (operation === undefined || like.every(name => adapters[name].lacks[operation] === undefined)) return
      const owner = world.objects.find(request.owner)
      if (owner !== undefined) need(operation, world.placeOfPost(owner, request), owner)
    },
  }
}
