/*
 * Completions that fault rules fail (faults/program-faults.ts): between the engine and the completion queues. The
 * engine has executed the request, and perhaps the peer too, as when an adapter loses the last acknowledgement. The
 * queue pair goes to its error state at the end of the poll (`failQps`); what it completes until then is flushed.
 */
import { wrapper } from '../../base/wrapper.ts'
import type { DecideCompletion, InjectedCompletion } from '../../core/driver-contract.ts'
import { causeOfRule, vendorErrorOf } from '../../spec/check/causes.ts'
import { joinWords } from '../../spec/memory.ts'
import { sendOperations, WcOpcode, WcStatus } from '../../spec/work.ts'
import { Completion, type Completions, type Environment, Send } from '../../transport/engine/types.ts'
import type { SoftState } from './state.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values
const { RECV } = WcOpcode.values
const { ID_LO, ID_HI, STATUS, OPCODE, QPN, VENDOR } = Completion

/** The first ibv_wr_opcode with this ibv_wc_opcode. */
const requestOpcodeOf = (completion: number): number =>
  Number(Object.entries(sendOperations).find(([, operation]) => operation.completion === completion)?.[0] ?? 0)

/** A failed completion of the same request. */
const failedWords = (words: Uint32Array, status: number, vendorError: number): Uint32Array => {
  const failed = new Uint32Array(words.length)
  for (const field of [ID_LO, ID_HI, OPCODE, QPN]) failed[field] = words[field]
  if ((words[OPCODE] & RECV) !== 0) failed[OPCODE] = RECV
  failed[STATUS] = status
  failed[VENDOR] = vendorError
  return failed
}

const reportFault = (state: SoftState, row: number, words: Uint32Array, rule: InjectedCompletion) => {
  const { status } = rule
  const cause = causeOfRule(rule)
  const isSend = (words[OPCODE] & RECV) === 0
  if (isSend) {
    const request = new Uint32Array(Send.SGE)
    request[Send.OPCODE] = requestOpcodeOf(words[OPCODE])
    request[Send.ID_HI] = words[ID_HI]
    request[Send.ID_LO] = words[ID_LO]
    state.failures.send(row, request, 0, status, cause)
  } else state.failures.receive(row, words[ID_HI], words[ID_LO], status, cause)
  state.failingQps.push({ qpn: words[QPN], cause, isLost: false, isSend })
  return cause
}

/** The failed completion instead of a successful one; undefined: it does not fail. */
const failedInstead = (state: SoftState, words: Uint32Array, decide: DecideCompletion): Uint32Array | undefined => {
  const row = state.qpns.rowOf(words[QPN])
  const qp = row < 0 ? undefined : state.qps[row]
  if (qp === undefined) return undefined
  if (state.failingQps.some(({ qpn, isLost }) => qpn === words[QPN] && !isLost))
    return failedWords(words, WR_FLUSH_ERR, vendorErrorOf('FLUSHED'))
  const fault = decide(qp, words[OPCODE], joinWords(words[ID_HI], words[ID_LO]))
  if (fault === undefined) return undefined
  return failedWords(words, fault.status, vendorErrorOf(reportFault(state, row, words, fault).id))
}

/** Whether nothing is told of the queue pair of a row any more: of half of them, the first one among them. */
export const isSilent = ({ taps: { silenced } }: SoftState, row: number): boolean =>
  silenced !== undefined && (!silenced.isHalf || row % 2 === 0)

/** The environment with completions that `DeviceTaps.decideCompletion` may fail. */
export const withCompletionFaults = (state: SoftState, environment: Environment): Environment => {
  const { completions } = environment
  return {
    ...environment,
    completions: wrapper<Completions>({
      push(cq, words, solicited) {
        const { decideCompletion, silenced } = state.taps
        if (silenced !== undefined && isSilent(state, state.qpns.rowOf(words[QPN]))) return
        const failed =
          decideCompletion === undefined || words[STATUS] !== SUCCESS
            ? undefined
            : failedInstead(state, words, decideCompletion)
        completions.push(cq, failed ?? words, solicited || failed !== undefined)
      },
    }),
  }
}
