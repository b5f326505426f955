/*
 * Kind `fields` of torment (spec/check/torment.ts): a program finds arbitrary values in the fields of a completion in
 * error that ibv_poll_cq(3) leaves undefined. Adapters leave in them what was there before: the program's own memory,
 * or another completion. The device's own records keep the true values.
 */

import { WcFlags, WcOpcode, WcStatus } from '../../../spec/work.ts'
import { Completion } from '../../../transport/engine/types.ts'
import type { Decisions } from '../../../transport/phy/faults/torment-decisions.ts'
import type { ProgramWords } from '../completions.ts'
import { isReceiveCompletion } from './completions.ts'
import type { TormentedObject } from './objects.ts'

const { STATUS, OPCODE, BYTES, IMM, SRC_QPN, FLAGS, PKEY_INDEX, SL, QPN } = Completion
const { SUCCESS } = WcStatus.values
const { SEND, RDMA_WRITE, RDMA_READ, COMP_SWAP, FETCH_ADD, RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
/** Opcodes that programs handle: a wrong one has an effect. */
const opcodes = [SEND, RDMA_WRITE, RDMA_READ, COMP_SWAP, FETCH_ADD, RECV, RECV_RDMA_WITH_IMM]
const { GRH, WITH_IMM, WITH_INV } = WcFlags.values
const flags = [0, GRH, WITH_IMM, WITH_INV, GRH | WITH_IMM]
const MAX_WORD = 2 ** 32
const MAX_QPN = 2 ** 24
const MAX_BYTE = 2 ** 8

export const withUndefinedFields =
  (objectOf: (qpn: number) => TormentedObject, decisions: Decisions): ProgramWords =>
  words => {
    if (words[STATUS] === SUCCESS) return words
    const qpn = words[QPN]
    const object = objectOf(qpn)
    const thing = isReceiveCompletion(words) ? 'failed-receive' : 'failed-send'
    const decision = decisions.decide('fields', object.name, thing, object.next(thing))
    if (decision === undefined) return words
    const seen = words.slice()
    seen[OPCODE] = opcodes[decision.below(opcodes.length)]
    seen[FLAGS] = flags[decision.below(flags.length)]
    seen[BYTES] = decision.below(MAX_WORD)
    seen[IMM] = decision.below(MAX_WORD)
    seen[SRC_QPN] = decision.below(MAX_QPN)
    // with the SLID in the upper half
    seen[PKEY_INDEX] = decision.below(MAX_WORD)
    seen[SL] = decision.below(MAX_BYTE)
    decision.note(
      () => `a completion of QP 0x${qpn.toString(16)} in error has opcode ${seen[OPCODE]} and byte_len ${seen[BYTES]}`,
    )
    return seen
  }
