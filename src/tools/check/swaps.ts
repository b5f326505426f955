/*
 * Compare-and-swaps that a program repeats without effect: the word has not the value that it expects. Who wrote the word
 * tells why: a lock whose holder has ended, or a word in the byte order of the network.
 *
 * Of each queue pair the last writes and atomics are kept, by address. The word itself is read when a wait is looked for.
 */
import type { Stack } from '../../spec/check/finding.ts'
import type { ContextEnd } from '../../spec/check/program-events.ts'
import type { RequestElement, Swap, WorkRequest } from '../../spec/check/requests.ts'
import type { Wait } from '../../spec/check/waits.ts'
import { AccessFlags } from '../../spec/enums.ts'
import { counted, hex } from '../../spec/text.ts'
import { remoteRights, WcStatus } from '../../spec/work.ts'
import { requestText } from './buffers.ts'
import type { Detector, DetectorServices, Topic } from './detector.ts'
import { type KnownObject, moment } from './objects.ts'
import { POSTED } from './reporting.ts'

/** Swaps in a row, all alike, from which on they count as repeated. */
const MIN_SWAPS = 1000
/** Queue pairs whose writes are kept, the newest. */
const MAX_WRITERS = 1024
/** Kept writes of a queue pair, the latest. */
const MAX_WRITES = 8

const { REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

type SwapRequest = WorkRequest & { readonly swap: Swap; readonly remote: NonNullable<WorkRequest['remote']> }

/** A write or an atomic: the last of its queue pair to this address, of swaps with this expected value. */
interface Write {
  request: WorkRequest
  /** Microseconds of the end. */
  time: number
  /** Where the first swap was posted. */
  readonly stack: Stack
}

interface Writer {
  readonly qp: KnownObject
  /** The latest last. */
  readonly writes: Write[]
  end: ContextEnd['how'] | undefined
}

interface Repeated {
  last: SwapRequest
  count: number
  /** Microseconds. */
  readonly since: number
}

/** Swaps without effect, and who wrote the word. */
interface Cause {
  readonly qp: KnownObject
  readonly repeated: Repeated
  readonly by: Writer | undefined
  readonly write: Write | undefined
}

/** Where the value that a swap found is. */
interface FoundWord {
  readonly device: number
  readonly element: RequestElement
}

interface Swaps {
  /**
   * The waits of programs now, by the number of the context. `wordAt`: 8 bytes of a region; undefined: they cannot be
   * read.
   */
  waits(wordAt: (word: FoundWord) => bigint | undefined): readonly { readonly context: number; readonly wait: Wait }[]
}

export const SWAPS: Topic<Swaps> = { name: 'swaps' }

const isWrite = (opcode: number): boolean => (remoteRights(opcode) & (REMOTE_WRITE | REMOTE_ATOMIC)) !== 0
const isSwap = (request: WorkRequest): request is SwapRequest =>
  request.swap !== undefined && request.remote !== undefined

const swapped = (word: bigint): bigint => {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, word, true)
  return view.getBigUint64(0)
}

const endTexts = {
  exit: ', whose process has ended,',
  kill: ', whose process has ended,',
  close: ', whose device was closed,',
} as const

export const createSwaps = (services: DetectorServices): Detector => {
  const { objects, sources } = services
  /** By the id of the queue pair. */
  const repeated = new Map<number, Repeated>()
  const writers = new Map<number, Writer>()
  /** By the id of the queue pair: of the last wait. */
  const causes = new Map<number, Cause>()

  /** The writer of the last request. */
  let latestWriter: Writer | undefined

  const writerOf = (owner: number): Writer | undefined => {
    const known = writers.get(owner)
    const qp = known ? undefined : objects.find(owner)
    if (known !== undefined || qp === undefined) return known
    const [oldest] = writers.keys()
    if (writers.size === MAX_WRITERS && oldest !== undefined) {
      if (writers.get(oldest) === latestWriter) latestWriter = undefined
      writers.delete(oldest)
    }
    const writer: Writer = { qp, writes: [], end: undefined }
    writers.set(owner, writer)
    return writer
  }

  const isSame = (one: WorkRequest, other: WorkRequest): boolean =>
    one.remote!.address === other.remote!.address && one.swap?.expected === other.swap?.expected

  /** Of each WRITE: most often it is like the one before. */
  const note = (request: WorkRequest): void => {
    const writer = latestWriter?.qp.id === request.owner ? latestWriter : writerOf(request.owner)
    if (writer === undefined) return
    latestWriter = writer
    const { writes, qp } = writer
    const newest = writes[writes.length - 1]
    if (newest !== undefined && isSame(newest.request, request)) {
      newest.request = request
      newest.time = sources.now()
      return
    }
    const at = writes.findLastIndex(one => isSame(one.request, request))
    const [known] = at < 0 ? [] : writes.splice(at, 1)
    const stack = known?.stack ?? (isSwap(request) ? services.postStack(qp, request) : [])
    writes.push({ request, time: sources.now(), stack })
    if (writes.length > MAX_WRITES) writes.shift()
  }

  /** The memory of a request at the peer: of a region of a process that is known, as its own address. */
  const placeOf = ({ remote }: WorkRequest, qp: KnownObject): { readonly space: string; readonly start: number } => {
    const device = services.peerDeviceOf(qp)
    const { rkey, address } = remote!
    const region = device === undefined ? undefined : objects.region(device, rkey)
    if (region?.start === undefined || region.iova === undefined) return { space: `${device} ${rkey}`, start: address }
    return { space: `process ${region.program?.pid}`, start: address - region.iova + region.start }
  }

  /** Who wrote a word; 'taken': it is a lock that others give back meanwhile, so that the swap may have an effect yet. */
  const writerOfWord = (
    { last, since }: Repeated,
    qp: KnownObject,
    found: bigint,
  ): 'taken' | Pick<Cause, 'by' | 'write'> => {
    const word = placeOf(last, qp)
    let holder: { readonly by: Writer; readonly write: Write } | undefined
    let latest: { readonly by: Writer; readonly write: Write } | undefined
    for (const by of writers.values()) {
      const own = by.writes.filter(({ request }) => {
        const { space, start } = placeOf(request, by.qp)
        return space === word.space && start < word.start + 8 && word.start < start + request.remote!.length
      })
      const newest = own.at(-1)
      for (const write of own) {
        const { request, time } = write
        if (time > since && (request.swap === undefined || request.swap.value === last.swap.expected)) return 'taken'
        if (request.swap === undefined)
          latest = latest === undefined || latest.write.time < time ? { by, write } : latest
        else if (request.swap.value === found && write === newest && request !== last)
          // The one that has succeeded repeats it no more.
          holder = holder === undefined || time < holder.write.time ? { by, write } : holder
      }
    }
    return holder ?? latest ?? { by: undefined, write: undefined }
  }

  const waitOf = (repetition: Repeated, qp: KnownObject, found: bigint): Wait | undefined => {
    const { last, count } = repetition
    const { expected } = last.swap
    const writer = found === expected ? 'taken' : writerOfWord(repetition, qp, found)
    if (writer === 'taken') return undefined
    const { by, write } = writer
    causes.set(qp.id, { qp, repeated: repetition, by, write })
    const isOrder = swapped(found) === expected
    const end = by?.end === undefined ? '' : endTexts[by.end]
    const order = isOrder ? `, which is ${hex(expected)} in the other byte order` : ''
    const who =
      by === undefined || write === undefined
        ? 'no request that is known has written that'
        : `${by.qp.nameWithProgram}${end} has written that (${requestText(write.request)})`
    const device = by?.qp.device
    return {
      id: 'swap-repeated',
      severity: isOrder || end !== '' ? 'warning' : 'note',
      text: `${qp.name} repeats a compare-and-swap of the word at ${hex(last.remote.address)} without effect: it expects ${hex(expected)} and finds ${hex(found)}${order}; ${who}`,
      details: [`${counted(count, 'time')}, the last is ${requestText(last)}`],
      qpns: [qp.qpn!, ...(by === undefined ? [] : [by.qp.qpn!])],
      ...(device !== undefined && device !== qp.device && { peerDevice: device }),
      ...(isOrder
        ? {
            advice:
              'write and expect the word in the byte order of the host, without htobe64: the device compares numbers',
          }
        : end !== '' && {
            advice:
              'let the process that has the word reset it when the connection of the holder ends (DISCONNECTED, a socket)',
          }),
    }
  }

  services.tell(SWAPS, {
    waits(wordAt) {
      const found: { readonly context: number; readonly wait: Wait }[] = []
      for (const [owner, repetition] of repeated) {
        const qp = objects.find(owner)
        const [element] = repetition.last.elements
        if (qp === undefined || element === undefined || repetition.count < MIN_SWAPS) continue
        const word = wordAt({ device: qp.device, element })
        const wait = word === undefined ? undefined : waitOf(repetition, qp, word)
        if (wait !== undefined) found.push({ context: qp.context, wait })
      }
      return found
    },
  })

  return {
    refines: {
      'swap-repeated'({ qps: [qp] }) {
        const cause = qp && causes.get(qp.id)
        if (cause === undefined) return {}
        const { repeated: repetition, by, write } = cause
        const where = { stack: services.postStack(cause.qp, repetition.last), ...POSTED }
        if (by === undefined || write === undefined) return { where }
        const written = write.stack.length > 0 ? write.stack : services.postStack(by.qp, write.request)
        return { where, moments: [moment('the word was written', write.time, written)] }
      },
    },
    on: {
      ended(request) {
        const { owner, remote, opcode } = request
        if (remote === undefined || !isWrite(opcode)) return
        const last = repeated.get(owner)
        if (isSwap(request)) {
          const { swap } = request
          if (last?.last.swap.expected === swap.expected && last.last.remote.address === request.remote.address) {
            last.last = request
            last.count++
          } else repeated.set(owner, { last: request, count: 1, since: sources.now() })
        }
        note(request)
      },
      completed({ owner }, { status }) {
        if (status !== WcStatus.values.SUCCESS) repeated.delete(owner)
      },
      queueReset(owner) {
        repeated.delete(owner)
        causes.delete(owner)
      },
      contextSettled({ context, how }) {
        for (const writer of writers.values()) if (writer.qp.context === context) writer.end ??= how
      },
    },
  }
}
