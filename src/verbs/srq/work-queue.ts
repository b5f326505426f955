/*
 * Work queues in the library, and tables of them (classes `wq` and `rwq_ind_table`; rdma-core: ibv_create_wq,
 * ibv_create_rwq_ind_table): receive queues that belong to no queue pair. A queue pair of raw packets that is made with
 * a table spreads what it receives over its queues. No device here has them.
 */
import { RwqIndTable, Wq } from '../../spec/classes/wq.ts'
import { WqFlags, WqState, WqType } from '../../spec/enums.ts'
import type { Out } from '../../spec/schema/schema.ts'
import { checkOptions, type Words } from '../checks/options.ts'
import { checkChoice, invalidArgument } from '../error.ts'
import { checkOwn, type DeviceContext, eventSource, type HeldObject, type Named, type Plan, plan } from '../plan.ts'
import { restart } from '../ring.ts'
import { closeMethods, mergeTables, withMethods } from '../shared-methods.ts'
import { endRequests, type ReceiveFields, type ReceiveQueue, receiveFields, receiving } from './receive-queue.ts'

/** What a queue does to the packets that it takes. */
export interface WorkQueueFlags {
  /** Takes the tag of a customer's VLAN off. */
  readonly cvlanStripping?: boolean
  /** Keeps the checksum of the frame. */
  readonly scatterFcs?: boolean
  /** Waits a little for a request before it drops a packet. */
  readonly delayDrop?: boolean
  /** Pads writes to whole cache lines. */
  readonly pciWriteEndPadding?: boolean
}

export interface WorkQueueOptions {
  /** What is received completes there. */
  readonly cq: Named
  /** Requests that can be posted at once; default 256. */
  readonly maxWr?: number
  /** Pieces of one request; default 1. */
  readonly maxSge?: number
  readonly flags?: WorkQueueFlags
}

export type WorkQueueState = keyof typeof WqState.values

export interface WorkQueueChanges {
  /** RESET → RDY, RDY → ERR, any → RESET. */
  readonly state?: WorkQueueState
  /** Only from this state. Throws RdmaError EINVAL if it is in another one. */
  readonly from?: WorkQueueState
  /** Those that are named are changed. */
  readonly flags?: WorkQueueFlags
}

export interface WorkQueue extends ReceiveQueue, Disposable {
  readonly handle: number
  readonly wqNumber: number
  readonly state: WorkQueueState
  modify(changes: WorkQueueChanges): void
  query(): Out<typeof Wq.methods.query>
  /** Throws RdmaError EBUSY while a table has it. */
  close(): void
}

const RECEIVES = 256
const optionWords: Words<WorkQueueOptions> = { cq: true, maxWr: true, maxSge: true, flags: true }
const changeWords: Words<WorkQueueChanges> = { state: true, from: true, flags: true }
const states = Object.keys(WqState.values) as WorkQueueState[]

const bits: Readonly<Record<keyof WorkQueueFlags, number>> = {
  cvlanStripping: WqFlags.values.CVLAN_STRIPPING,
  scatterFcs: WqFlags.values.SCATTER_FCS,
  delayDrop: WqFlags.values.DELAY_DROP,
  pciWriteEndPadding: WqFlags.values.PCI_WRITE_END_PADDING,
}

/** The flags that are named, and those of them that are set. */
const flagsOf = (call: string, flags: WorkQueueFlags): { readonly flags: number; readonly flagsMask: number } => {
  checkOptions(call, 'flags', flags, bits)
  let [set, named] = [0, 0]
  for (const [name, bit] of Object.entries(bits) as [keyof WorkQueueFlags, number][]) {
    if (flags[name] === undefined) continue
    named |= bit
    if (flags[name]) set |= bit
  }
  return { flags: set, flagsMask: named }
}

const stateOf = (option: string, state: WorkQueueState): number => {
  checkChoice('wq.modify', option, state, states)
  return WqState.values[state]
}

type WqFields = ReceiveFields & Pick<WorkQueue, 'wqNumber'>

const wqMethods = mergeTables(receiving('wq.receive'), {
  cls: Wq,
  get state(): WorkQueueState {
    const { state } = (this as unknown as WorkQueue).query()
    return states.find(name => WqState.values[name] === state) as WorkQueueState
  },
  modify(this: WqFields, changes: WorkQueueChanges): void {
    checkOptions('wq.modify', 'changes', changes, changeWords)
    const { state, from, flags } = changes
    this.kit.carrier.call(Wq, 'modify', this.handle, {
      ...(state !== undefined && { state: stateOf('state', state) }),
      ...(from !== undefined && { curState: stateOf('from', from) }),
      ...(flags !== undefined && flagsOf('wq.modify', flags)),
    })
    // The device begins anew, and so does this side.
    if (state === 'RESET') restart(this.ring)
  },
  query(this: WqFields) {
    return this.kit.carrier.call(Wq, 'query', this.handle, {}).out
  },
  ...closeMethods<WqFields>(Wq, endRequests),
})

/** A work queue in protection domain `pd`; it begins in state RESET. */
export const wqPlan = (kit: DeviceContext, pd: Named, options: WorkQueueOptions): Plan<WorkQueue> => {
  checkOptions('wq.create', 'options', options, optionWords)
  const { cq, maxWr = RECEIVES, maxSge = 1, flags = {} } = options
  checkOwn(kit, 'wq.create', 'pd', pd)
  checkOwn(kit, 'wq.create', 'cq', cq)
  const chosen = flagsOf('wq.create', flags)
  const source = eventSource(kit, Wq)
  const { number } = source
  const args = {
    pd: pd.handle,
    cq: cq.handle,
    type: WqType.values.RQ,
    maxWr,
    maxSge,
    flags: chosen.flags,
    userHandle: BigInt(number),
  }
  return plan(
    Wq,
    args,
    ({ object, out }) =>
      source.is(
        withMethods<WorkQueue>(wqMethods, {
          ...receiveFields(kit, number, object, out),
          wqNumber: out.wqNum,
        } satisfies WqFields),
      ),
    source.forget,
  )
}

/** A table of work queues. */
export interface ReceiveTable extends Disposable {
  readonly handle: number
  readonly tableNumber: number
  query(): Out<typeof RwqIndTable.methods.query>
  /** Throws RdmaError EBUSY while a queue pair spreads over it. */
  close(): void
}

type TableFields = HeldObject & Pick<ReceiveTable, 'tableNumber'>

const tableMethods: Omit<ReceiveTable, 'handle' | 'tableNumber'> & ThisType<TableFields> = {
  query() {
    return this.kit.carrier.call(RwqIndTable, 'query', this.handle, {}).out
  },
  ...closeMethods<TableFields>(RwqIndTable),
}

/** A table of `queues`, as many as a power of two, the same one several times if wanted. */
export const receiveTablePlan = (kit: DeviceContext, queues: readonly Named[]): Plan<ReceiveTable> => {
  const call = 'rwq_ind_table.create'
  if (!Array.isArray(queues)) throw invalidArgument(call, 'the queues are no list', 'give [pd.wq({ cq }), …]')
  if (!Number.isInteger(Math.log2(queues.length)))
    throw invalidArgument(call, `${queues.length} queues: it is 1, 2, 4, 8, …`, 'name queues several times')
  for (const [i, queue] of queues.entries()) {
    checkOwn(kit, call, `queues[${i}]`, queue)
    if (queue.handle < 0)
      throw invalidArgument(call, `queues[${i}] is not made yet`, 'make the table when the chain has made its queues')
  }
  return plan(RwqIndTable, { queues: queues.map(({ handle }) => ({ wq: handle })) }, ({ object: handle, out }) =>
    withMethods<ReceiveTable>(tableMethods, {
      kit,
      handle,
      isOpen: true,
      tableNumber: out.tableNum,
    } satisfies TableFields),
  )
}
