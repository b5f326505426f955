/*
 * Block signatures of one device: its PSVs (protection signature values), and errors, which become completions of their
 * own (CompletionKind.SIGNATURE_ERROR): of a queue pair's own requests in the queue of its sends, otherwise in that of
 * its receives. A queue pair whose program wants it (`drain_sigerr`) stops after an error of its own requests, in SQD.
 */
import type { Accessor, MemoryTable } from '../../../core/memory/region-table.ts'
import { findKey } from '../../../core/memory/region-table.ts'
import { QpState } from '../../../spec/enums.ts'
import { callError } from '../../../spec/errno.ts'
import { TWO_32 } from '../../../spec/memory.ts'
import { Completion, Sge } from '../../../transport/engine/types.ts'
import type { Arena } from '../../../transport/wire/arena.ts'
import { writeCompletion } from '../../soft/completions.ts'
import { AttributeBits, type SoftState } from '../../soft/state.ts'
import type { Mlx5Cq } from '../completions.ts'
import type { Psv, SignatureFault } from './signature.ts'
import { type PsvTable, SCRATCH_BYTES, type SignatureShop, SignedSpace, type WireLengths } from './signed-space.ts'

const { RTS, SQD } = QpState.values

/** Numbers of PSVs have 24 bits. */
const MAX_PSVS = 0xff_ffff
const MAX_LENGTH = 0xffff_ffff

export class Signatures implements SignatureShop, PsvTable {
  readonly psvs = new Map<number, Psv>()
  wireOnly = 0
  readonly #soft: SoftState
  readonly #drains: (qpn: number) => boolean
  readonly #allocate: (bytes: number) => Arena
  readonly #words = new Uint32Array(Completion.WORDS)
  #scratch: readonly [Arena, Arena] | undefined
  #lastNumber = 0

  /** `drains`: whether an error stops the sends of a queue pair. */
  constructor(soft: SoftState, allocate: (bytes: number) => Arena, drains: (qpn: number) => boolean) {
    this.#soft = soft
    this.#drains = drains
    this.#allocate = allocate
  }

  get image(): Arena {
    return this.#arenas()[0]
  }
  get data(): Arena {
    return this.#arenas()[1]
  }
  #arenas(): readonly [Arena, Arena] {
    this.#scratch ??= [this.#allocate(SCRATCH_BYTES), this.#allocate(SCRATCH_BYTES)]
    return this.#scratch
  }

  /** For the queues of the device with this table. */
  requestLengths(table: MemoryTable): WireLengths {
    const signatures = this
    return {
      get areNeeded() {
        return signatures.wireOnly > 0
      },
      adjust(words, at) {
        const row = findKey(table, words[at + Sge.LKEY]!)
        const space = row < 0 ? undefined : table.spaces[table.space[row]!]
        if (!(space instanceof SignedSpace)) return
        const [iovaHi, iovaLo] = [table.iovaHi[row]!, table.iovaLo[row]!]
        const offset = (words[at + Sge.HI]! - iovaHi) * TWO_32 + (words[at + Sge.LO]! - iovaLo)
        if (offset < 0 || offset > table.length[row]!) return
        const start = space.wireOffset(offset)
        const length = space.wireOffset(offset + words[at + Sge.LENGTH]!) - start
        const low = iovaLo + start
        words[at + Sge.HI] = iovaHi + Math.floor(low / TWO_32)
        words[at + Sge.LO] = low
        words[at + Sge.LENGTH] = Math.min(length, MAX_LENGTH)
      },
    }
  }

  /** Makes a PSV of the protection domain with this id, and returns its number. Throws CallError ENOMEM. */
  create(pd: number): number {
    if (this.psvs.size === MAX_PSVS) throw callError.ENOMEM`all ${MAX_PSVS} protection signatures are in use`
    do this.#lastNumber = (this.#lastNumber % MAX_PSVS) + 1
    while (this.psvs.has(this.#lastNumber))
    this.psvs.set(this.#lastNumber, { pd, hi: 0, lo: 0, isFailed: false })
    return this.#lastNumber
  }

  /** False: the protection domain has no PSV of the number. */
  set(pd: number, number: number, hi: number, lo: number): boolean {
    const psv = this.psvs.get(number)
    if (psv?.pd !== pd) return false
    psv.hi = hi
    psv.lo = lo
    psv.isFailed = false
    return true
  }

  report(fault: SignatureFault, { qpn, isRequester }: Accessor): void {
    const soft = this.#soft
    const row = soft.qpns.rowOf(qpn)
    if (row < 0) return
    const engine = soft.engine()
    const { sendCq, recvCq, state } = engine.query(row)
    const number = isRequester ? sendCq : recvCq
    if (number < 0) return
    const cq = soft.cqs.get(number)
    const queue = cq.state as Mlx5Cq
    this.#words[Completion.QPN] = qpn
    queue.fault = fault
    writeCompletion(soft, cq, this.#words, false)
    queue.fault = undefined
    if (!isRequester || state !== RTS || !this.#drains(qpn)) return
    const object = soft.qps[row]
    if (object !== undefined) object.state.attributeBits |= AttributeBits.SQD_EVENT
    engine.modify(row, SQD, {})
  }
}
