/*
 * Classes of mlx5 devices: contexts, memory and completion queues (R19, R22). format.ts has the other queues.
 */
import { adviceTaker } from '../../core/base/advise.ts'
import { driverClass, withMethods, withoutOptions } from '../../core/devices/driver.ts'
import type { DriverClass } from '../../core/driver-contract.ts'
import { affiliate } from '../../core/events/events.ts'
import { mappedMemoryOf } from '../../core/memory/mappable-memory.ts'
import type { AnyHandler, CallContext, CoreObject } from '../../core/model.ts'
import { Cq } from '../../spec/classes/cq.ts'
import { DeviceClass } from '../../spec/classes/device/device.ts'
import { PortClass } from '../../spec/classes/device/port.ts'
import { Pd } from '../../spec/classes/pd.ts'
import {
  HAS_NULL_KEY,
  HAS_SQD_TO_RTS,
  MLX5_CONTEXT_DEVX,
  Mlx5Attributes,
  Mlx5Clock,
  Mlx5CqFlags,
  Mlx5DeviceFlags,
  Mlx5Responses,
  NULL_KEY,
  queryNumber,
  querySwitchPort,
  RESPONSE_BYTES,
  RX_HASH_FIELDS,
  TOEPLITZ,
  Uar,
  Var,
} from '../../spec/drivers/mlx5.ts'
import { ArmWord, CompletionEntry } from '../../spec/drivers/mlx5-queues.ts'
import { CqFlags, CqKind } from '../../spec/enums.ts'
import { callError } from '../../spec/errno.ts'
import { PAGE_BYTES, wholePages } from '../../spec/memory.ts'
import { because, the } from '../../spec/reason.ts'
import { NO_VLAN } from '../soft/address/path.ts'
import type { QueueLimits } from '../soft/attributes.ts'
import { ahClass as softAhs } from '../soft/classes/ah-class.ts'
import { afterCatchUp, describeCq } from '../soft/classes/cq-query.ts'
import { readConsumer } from '../soft/completion-queue.ts'
import { Limits } from './attributes.ts'
import { clockOf, openClock } from './clock.ts'
import { openCommands } from './commands/context.ts'
import { Mlx5Cq, resizeCq } from './completions.ts'
import { MAX_LOG_STREAMS } from './dc/answers.ts'
import type { DoorbellPage } from './doorbell-register.ts'
import { giveNumber, takeNumber } from './numbers.ts'
import { ProgramRecord, share, unshare } from './program-memory.ts'
import { queuesOf, requirePowerOfTwo, stateOf } from './state.ts'

// ---- contexts, protection domains, address handles ----

/** What a context tells its program. */
const contextFacts = ({ maxQpWr, maxSrqWr }: QueueLimits, hasClock: boolean) => ({
  qpTableSize: 0x4_0000,
  cacheLineSize: 64,
  maxSendBytes: Limits.maxSendBytes,
  maxReceiveBytes: Limits.maxReceiveBytes,
  maxSendBlocks: maxQpWr,
  maxReceives: maxQpWr,
  maxSharedReceives: maxSrqWr,
  ports: 1,
  responseMask: HAS_NULL_KEY | HAS_SQD_TO_RTS | (hasClock ? Mlx5Clock.HAS_CORE_CLOCK : 0),
  nullKey: NULL_KEY,
  clockInfoVersions: hasClock ? Mlx5Clock.INFO_V1 : 0,
  responseBytes: RESPONSE_BYTES.context,
  cqeVersion: 1,
  responses: Mlx5Responses.QUERY_DEVICE | Mlx5Responses.CREATE_AH,
  minInline: 1,
  logUarBytes: Math.log2(PAGE_BYTES),
  uarsPerPage: 1,
})

export const deviceClass = driverClass<typeof DeviceClass, unknown, typeof Mlx5Attributes.device>(
  DeviceClass,
  {
    open(call, object, args, core) {
      if (((args.contextFlags ?? 0) & MLX5_CONTEXT_DEVX) !== 0) openCommands(call)
      const hasClock = openClock(call.context, stateOf(call).soft.now, performance.timeOrigin * 1e6)
      return { ...core(call, object, args), ...contextFacts(stateOf(call).soft.limits, hasClock) }
    },
    query: (call, object, args, core) => ({
      ...core(call, object, args),
      ...contextFacts(stateOf(call).soft.limits, clockOf(call.context) !== undefined),
      driverBytes: RESPONSE_BYTES.device,
      driverFlags: Mlx5DeviceFlags.CQE_128B_PAD | Mlx5DeviceFlags.OOO_DP,
      maxLogStreams: MAX_LOG_STREAMS.concurrent,
      maxLogErroredStreams: MAX_LOG_STREAMS.errored,
      ...(stateOf(call).station && { rssFields: BigInt(RX_HASH_FIELDS), rssFunctions: TOEPLITZ }),
    }),
  },
  Mlx5Attributes.device,
)

interface Mlx5Pd {
  /** In firmware commands. */
  readonly number: number
}

export const pdClass = withMethods(
  driverClass<typeof Pd, Mlx5Pd, typeof Mlx5Attributes.pd>(
    Pd,
    {
      create(call, object, args, core) {
        const out = core(call, object, args)
        object.state = { number: giveNumber(call.context, 'pd', object) }
        return { ...out, number: object.state.number }
      },
      destroy(call, object, args, core) {
        const out = core(call, object, args)
        takeNumber(call.context, 'pd', object.state.number)
        return out
      },
      // as get_prefetchable_mr of Linux
      advise: adviceTaker({ unknown: 'ENOENT', window: 'EINVAL', otherDomain: 'EPERM', readOnly: 'EPERM' }),
    },
    Mlx5Attributes.pd,
  ),
  { queryNumber },
  { queryNumber: (_call, object) => ({ number: (object.state as Mlx5Pd).number }) },
)

/** The program writes addresses into its requests; a handle only checks that there is a path. */
export const ahClass = withoutOptions(
  {
    ...softAhs,
    handlers: {
      ...softAhs.handlers,
      create(call, object, args, core) {
        ;(softAhs.handlers.create as AnyHandler)(call, object, args, core)
        return { driverBytes: RESPONSE_BYTES.ah, nextHop: new Uint8Array(6) }
      },
    },
    additions: Mlx5Attributes.ah,
  } satisfies DriverClass,
  NO_VLAN,
)

interface UarState extends DoorbellPage {
  /** In creations of queues. */
  readonly number: number
}

/** Of classes whose objects are pages that programs map. `kind`: of their numbers. */
const pageHandlers = (kind: 'uar' | 'var') => ({
  create(call: CallContext, object: CoreObject<UarState>) {
    const page = mappedMemoryOf(call.context).allocate(PAGE_BYTES, 'doorbells')
    object.state = { page, number: giveNumber(call.context, kind, object) }
    return { offset: BigInt(page.offset), length: page.length, page: object.state.number }
  },
  destroy(call: CallContext, { state }: CoreObject<UarState>) {
    takeNumber(call.context, kind, state.number)
    mappedMemoryOf(call.context).free(state.page)
    return {}
  },
})

/** Programs store to these pages to wake the device; it reads the doorbell records. */
export const uarClass = driverClass<typeof Uar, UarState>(Uar, pageHandlers('uar'))

export const varClass = driverClass<typeof Var, UarState>(Var, pageHandlers('var'))

// ---- ports ----

/** The device is no port of a switch. */
export const portClass = withMethods(
  driverClass(PortClass),
  { querySwitchPort },
  { querySwitchPort: () => ({ flags: 0n }) },
)

// ---- completion queues ----

/**
 * Of queues that firmware commands make: their armings are taken without a channel. No program's call has this
 * argument.
 */
interface ArmedByCommands {
  readonly hasArmings?: number
}

const requireEntries = (call: CallContext, method: string, entries: number, entryBytes: number): void => {
  // a limit that is lowered may be another number than that of the entries of a queue
  const most = 2 ** Math.ceil(Math.log2(stateOf(call).soft.limits.maxCqe + 1))
  requirePowerOfTwo(because`${the.method(method)}: the number of entries`, entries, most)
  if (entryBytes !== CompletionEntry.BYTES && entryBytes !== 2 * CompletionEntry.BYTES)
    throw callError.EINVAL`${the.method(method)}: entries of ${entryBytes} bytes; they have 64 or 128`
}

export const cqClass = driverClass<typeof Cq, Mlx5Cq, typeof Mlx5Attributes.cq>(
  Cq,
  {
    create(call, object, args) {
      const { cqe, userHandle, channel, compVector, flags = 0, asyncFd, kind = CqKind.values.ENTRIES } = args
      const { bufferAddress = 0n, doorbellAddress = 0n, entryBytes = 64, isCompressed = 0, cqFlags = 0 } = args
      const { IGNORE_OVERRUN, TIMESTAMP_COMPLETION } = CqFlags.values
      if ((flags & ~(IGNORE_OVERRUN | TIMESTAMP_COMPLETION)) !== 0 || kind !== CqKind.values.ENTRIES)
        throw callError.EOPNOTSUPP`${the.method('cq.create')}: of flags the device has IGNORE_OVERRUN and TIMESTAMP_COMPLETION, and it has no counting queues`
      if (isCompressed !== 0 || (cqFlags & ~(Mlx5CqFlags.UAR_PAGE_INDEX | Mlx5CqFlags.PAD_128)) !== 0)
        throw callError.EOPNOTSUPP`${the.method('cq.create')}: the device does not compress entries, and time stamps are free running`
      const entries = cqe + 1
      requireEntries(call, 'cq.create', entries, entryBytes)
      const isPadded = (cqFlags & Mlx5CqFlags.PAD_128) !== 0
      if (isPadded && entryBytes !== 2 * CompletionEntry.BYTES)
        throw callError.EOPNOTSUPP`${the.method('cq.create')}: only entries of 128 bytes are padded, not of ${entryBytes}`
      if (compVector >= call.device.numCompVectors)
        throw callError.EINVAL`${the.method('cq.create')}: ${the.attribute('compVector')}: ${compVector}: the device has ${call.device.numCompVectors}`
      const mlx5 = stateOf(call)
      const buffer = share(call, bufferAddress, entries * entryBytes)
      let record: ProgramRecord
      try {
        record = new ProgramRecord(call, doorbellAddress, ArmWord.TAKEN)
      } catch (error) {
        unshare(buffer)
        throw error
      }
      const hasChannel = channel !== undefined || (args as ArmedByCommands).hasArmings === 1
      const ignoresOverrun = (flags & IGNORE_OVERRUN) !== 0
      const clock = clockOf(call.context)
      const description = {
        entries,
        entryBytes,
        isPadded,
        buffer,
        record,
        compVector,
        hasChannel,
        ignoresOverrun,
        clock,
      }
      object.state = new Mlx5Cq(description, qpn => queuesOf(mlx5, qpn))
      object.state.number = mlx5.soft.cqs.add(object)
      affiliate(object, userHandle, { channel, asyncFd })
      if (hasChannel) {
        mlx5.armings.add(object.state)
        object.state.object = object
      }
      return { cqe, number: object.state.number }
    },
    query: (call, object) => afterCatchUp(call, false, () => describeCq(object)),
    modify(call, object, args, core) {
      const { cqe, bufferAddress = 0n, entryBytes = 64, ...moderation } = args
      const { state } = object
      if ((moderation.period ?? 0) > Limits.moderationPeriod)
        throw callError.EINVAL`${the.method('cq.modify')}: ${the.attribute('period')}: ${moderation.period} microseconds are above ${Limits.moderationPeriod}`
      if (cqe === undefined) {
        core(call, object, moderation)
        return { cqe: state.entries - 1 }
      }
      const entries = cqe + 1
      requireEntries(call, 'cq.modify', entries, entryBytes)
      stateOf(call).soft.pollNow()
      readConsumer(state)
      if (state.outstanding >= entries)
        throw callError.EINVAL`${the.method('cq.modify')}: ${the.attribute('cqe')}: ${cqe} is less than the ${state.outstanding} completions that wait`
      // the entry that tells the program of the new ones would overwrite the oldest
      if (state.outstanding >= state.entries)
        throw callError.EBUSY`${the.method('cq.modify')}: all ${state.outstanding} entries have completions that wait; poll one first`
      const old = state.buffer
      // completions of the present traffic are written to it before the program has mapped it
      const buffer = share(call, bufferAddress, wholePages(entries * entryBytes), { writer: 'device' })
      resizeCq(state, entries, entryBytes, buffer)
      unshare(old)
      return { cqe }
    },
    reqNotify: null,
    destroy(call, object, args, core) {
      const mlx5 = stateOf(call)
      mlx5.soft.cqs.remove(object.state.number)
      mlx5.armings.delete(object.state)
      unshare(object.state.buffer)
      object.state.record.end()
      return core(call, object, args)
    },
  },
  Mlx5Attributes.cq,
)
