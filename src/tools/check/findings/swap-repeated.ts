/*
 * Compare-and-swaps that a program repeats without effect: the word has not the value that it expects. Who wrote the
 * word (swap-writers.ts) tells why: a lock whose holder has ended, or a word in the byte order of the network. The word
 * itself is read when a wait is looked for.
 */
import { counted, hex } from '../../../base/text.ts'
import type { RequestElement } from '../../../spec/check/requests.ts'
import type { Wait } from '../../../spec/check/waits.ts'
import { AccessFlags } from '../../../spec/enums.ts'
import { remoteRights, WcStatus } from '../../../spec/work.ts'
import { requestText } from '../buffers.ts'
import type { Detector, DetectorServices, Topic } from '../detector.ts'
import { type KnownObject, moment } from '../objects.ts'
import { POSTED } from '../reporting.ts'
import { isSwap, type SwapRequest, SwapWriters, type WordWriter } from '../swap-writers.ts'

/** Swaps in a row, all alike, from which on they count as repeated. */
const MIN_SWAPS = 1000
const { REMOTE_WRITE, REMOTE_ATOMIC } = AccessFlags.values

interface Repeated {
  last: SwapRequest
  count: number
  /** Microseconds. */
  readonly since: number
}

/** Swaps without effect, and who wrote the word. */
interface Cause extends WordWriter {
  readonly qp: KnownObject
  readonly repeated: Repeated
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
  const writers = new SwapWriters(services)
  /** By the id of the queue pair: of the last wait. */
  const causes = new Map<number, Cause>()

  const waitOf = (repetition: Repeated, qp: KnownObject, found: bigint): Wait | undefined => {
    const { last, count, since } = repetition
    const { expected } = last.swap
    const writer = found === expected ? 'taken' : writers.of(last, since, qp, found)
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
        writers.ended(request)
      },
      completed({ owner }, { status }) {
        if (status !== WcStatus.values.SUCCESS) repeated.delete(owner)
      },
      queueReset(owner) {
        repeated.delete(owner)
        causes.delete(owner)
      },
      contextSettled: end => writers.contextEnds(end),
    },
  }
}
