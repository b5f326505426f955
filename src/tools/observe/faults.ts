/*
 * Faults of observed programs (`--allow-host-faults`): answers what programs ask before they act (file-layout.ts), by
 * the rules and counts of our own devices' faults. It remembers which rule has acted, until the record of the failed
 * call, post or completion comes.
 */

import type { FaultSubject, ProgramFaults } from '../../faults/program-faults.ts'
import { siteOf } from '../../faults/survey.ts'
import { vendorErrorOf } from '../../spec/check/causes.ts'
import type { Stack } from '../../spec/check/finding.ts'
import { Errno } from '../../spec/errno.ts'
import type { ActingRule } from '../../spec/faults.ts'
import { completionNameOf, requestNameOf } from '../../spec/faults.ts'
import { offsetsOf } from '../../spec/message-layout.ts'
import { SendFlags, WcStatus } from '../../spec/work.ts'
import { AskKind, ObserveStructs } from './file-layout.ts'
import type { ObservedContext, ObservedObject } from './objects.ts'
import type { ObservedPost } from './records.ts'

const { question, answer, polledCompletion, completionVerdict } = ObserveStructs
const Question = offsetsOf(question)
const Answer = offsetsOf(answer)
const Polled = offsetsOf(polledCompletion)
const Verdict = offsetsOf(completionVerdict)
const { WR_FLUSH_ERR } = WcStatus.values

/** Posts of a thread that are kept until it asks about them. */
const MAX_POSTS = 4096

/** A question; of POST and COMPLETIONS `count` requests or completions. */
export interface ObservedQuestion {
  /** AskKind. */
  readonly kind: number
  readonly pid: number
  readonly tid: number
  readonly fd: number
  readonly queue: number
  readonly number: number
  readonly count: number
  readonly completions: readonly PolledCompletion[]
}

interface PolledCompletion {
  readonly wrId: bigint
  /** ibv_wc_opcode. */
  readonly opcode: number
  readonly qpn: number
  readonly canFail: boolean
}

/** The question that the bytes begin with; undefined: they are not complete. Throws RangeError for an invalid one. */
export const questionOf = (bytes: Uint8Array): ObservedQuestion | undefined => {
  if (bytes.length < question.size) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const word = (name: keyof typeof Question): number => view.getUint32(Question[name], true)
  const kind = word('kind')
  const count = word('count')
  const completions = kind === AskKind.COMPLETIONS ? count : 0
  if (completions > 64) throw new RangeError(`a question about ${count} completions`)
  if (bytes.length < question.size + completions * polledCompletion.size) return undefined
  return {
    kind,
    pid: word('pid'),
    tid: word('tid'),
    fd: view.getInt32(Question.fd, true),
    queue: word('queue'),
    number: word('number'),
    count,
    completions: Array.from({ length: completions }, (_, i) => {
      const at = question.size + i * polledCompletion.size
      return {
        wrId: view.getBigUint64(at + Polled.wrId, true),
        opcode: view.getUint32(at + Polled.opcode, true),
        qpn: view.getUint32(at + Polled.qpn, true),
        canFail: view.getUint32(at + Polled.canFail, true) !== 0,
      }
    }),
  }
}

const subjectOf = ({ device, process: { program } }: ObservedContext, stack: () => Stack): FaultSubject => ({
  device: device.name,
  pid: program.pid,
  program: () => program.command,
  site: () => siteOf(stack()),
})

const noFault = (): Uint8Array => new Uint8Array(answer.size)

/** By thread, whose ids are unique in a machine. An entry is taken by the record that follows the answer. */
type ByThread<T> = Map<number, T>

export class ObservedFaults {
  readonly #faults: ProgramFaults
  readonly #calls: ByThread<ActingRule> = new Map()
  readonly #refused: ByThread<ActingRule> = new Map()
  /** Posts that no question was about yet. */
  readonly #posts: ByThread<ObservedPost[]> = new Map()
  /** By the id of the queue pair and wr_id. */
  readonly #completions = new Map<string, ActingRule>()
  /** Ids of queue pairs of failed completions: what the adapter had completed before ERR is flushed. */
  readonly #failed = new Set<number>()

  constructor(faults: ProgramFaults) {
    this.#faults = faults
  }

  /** Bits of AskKind: what programs must ask about now. */
  get asks(): number {
    const { CALL, POST, COMPLETIONS } = AskKind
    return (
      (this.#faults.canAct('call') ? CALL : 0) |
      (this.#faults.canAct('post') ? POST : 0) |
      (this.#failed.size > 0 || this.#faults.canAct('completion') ? COMPLETIONS : 0)
    )
  }

  /** `method`: `class.method` of the thread's call; undefined: it was not decoded. */
  onCall(tid: number, context: ObservedContext, method: string | undefined, stack: Stack): Uint8Array {
    const fault =
      method === undefined
        ? undefined
        : this.#faults.onCall(
            subjectOf(context, () => stack),
            method,
          )
    const bytes = noFault()
    this.#calls.delete(tid)
    if (fault === undefined) return bytes
    const view = new DataView(bytes.buffer)
    view.setBigUint64(Answer.delay, BigInt(Math.round(fault.delay * 1e6)), true)
    if (fault.errno === '') return bytes
    view.setInt32(Answer.error, Errno[fault.errno], true)
    this.#calls.set(tid, fault)
    return bytes
  }

  posted(tid: number, posts: readonly ObservedPost[]): void {
    if (!this.#faults.canAct('post')) return
    const kept = this.#posts.get(tid) ?? []
    kept.push(...posts)
    kept.splice(0, kept.length - MAX_POSTS)
    this.#posts.set(tid, kept)
  }

  /** The thread has posted `count` requests to a queue of class `cls`. */
  onPosts(
    tid: number,
    context: ObservedContext,
    cls: string | undefined,
    qpn: number | undefined,
    count: number,
    stack: (wrId: bigint) => Stack,
  ): Uint8Array {
    const posts = this.#posts.get(tid)?.slice(-count) ?? []
    this.#posts.delete(tid)
    this.#refused.delete(tid)
    const bytes = noFault()
    if (cls === undefined || posts.length < count) return bytes
    for (const [index, post] of posts.entries()) {
      const { opcode, wrId, elements, flags } = post
      const subject = subjectOf(context, () => stack(wrId))
      const fault = this.#faults.onPost(subject, cls, qpn, requestNameOf(opcode < 0 ? undefined : opcode), {
        wrId,
        length: elements.reduce((sum, element) => sum + element.length, 0),
        ...(opcode >= 0 && { isInline: (flags & SendFlags.values.INLINE) !== 0 }),
      })
      if (fault === undefined) continue
      const view = new DataView(bytes.buffer)
      view.setInt32(Answer.error, Errno[fault.errno], true)
      view.setUint32(Answer.index, index, true)
      this.#refused.set(tid, fault)
      break
    }
    return bytes
  }

  onCompletions(
    context: ObservedContext,
    completions: readonly PolledCompletion[],
    stack: (completion: PolledCompletion) => Stack,
  ): Uint8Array {
    const bytes = new Uint8Array(completions.length * completionVerdict.size)
    const view = new DataView(bytes.buffer)
    for (const [i, completion] of completions.entries()) {
      const { qpn, opcode, wrId, canFail } = completion
      const qp = context.device.qps.get(qpn)
      if (qp === undefined || !canFail) continue
      const at = i * completionVerdict.size
      if (this.#failed.has(qp.id)) {
        view.setUint32(at + Verdict.status, WR_FLUSH_ERR, true)
        view.setUint32(at + Verdict.vendorErr, vendorErrorOf('FLUSHED'), true)
        continue
      }
      const subject = subjectOf(context, () => stack(completion))
      const fault = this.#faults.onCompletion(subject, qp.class.name, qpn, completionNameOf(opcode), wrId)
      if (fault === undefined) continue
      view.setUint32(at + Verdict.status, WcStatus.values[fault.status as keyof typeof WcStatus.values], true)
      view.setUint32(at + Verdict.vendorErr, vendorErrorOf('INJECTED'), true)
      view.setUint32(at + Verdict.fails, 1, true)
      this.#failed.add(qp.id)
      this.#completions.set(`${qp.id} ${wrId}`, fault)
    }
    return bytes
  }

  // ---- what was failed ----

  /** The rule that has failed the thread's call, post or completion. */
  takeCall(tid: number): ActingRule | undefined {
    return take(this.#calls, tid)
  }

  takeRefused(tid: number): ActingRule | undefined {
    return take(this.#refused, tid)
  }

  takeCompletion({ id }: ObservedObject, wrId: bigint): ActingRule | undefined {
    return take(this.#completions, `${id} ${wrId}`)
  }

  /** The queue pair was reset or destroyed. */
  reset(id: number): void {
    this.#failed.delete(id)
  }
}

const take = <K, T>(map: Map<K, T>, key: K): T | undefined => {
  const value = map.get(key)
  map.delete(key)
  return value
}
