/*
 * What observed programs post and poll: refused and failed requests as failures with their causes, and calls of
 * libibverbs that make no call of the kernel.
 */

import { type Cause, causeOfRule, createCause } from '../../spec/check/causes.ts'
import type { Failure } from '../../spec/check/failures.ts'
import { placeOf } from '../../spec/check/program-events.ts'
import type { WorkRequest } from '../../spec/check/requests.ts'
import { QpState } from '../../spec/enums.ts'
import type { ActingRule } from '../../spec/faults.ts'
import { CM_NAME, PostQueue } from '../../spec/session.ts'
import { WcStatus } from '../../spec/work.ts'
import { addressText } from '../../transport/wire/address.ts'
import type { Adapters } from './adapters.ts'
import { causeOfFailure, type KnownEnd } from './causes.ts'
import type { ObservedContext, ObservedDevice, ObservedObject, ObservedProcess } from './objects.ts'
import { callFacts, NO_STACK, numberOf, type Observation } from './observation.ts'
import type { Processes } from './processes.ts'
import type { Queues } from './queues.ts'
import type { ObservedCompletion, ObservedRecord } from './records.ts'
import type { ObservedRequests, RequestQueue } from './requests.ts'

const { SUCCESS, WR_FLUSH_ERR } = WcStatus.values
const { RESET, ERR } = QpState.values

export class ObservedWork {
  readonly #observation: Observation
  readonly #adapters: Adapters
  readonly #processes: Processes
  readonly #queues: Queues
  readonly #requests: ObservedRequests

  constructor(
    observation: Observation,
    adapters: Adapters,
    processes: Processes,
    queues: Queues,
    requests: ObservedRequests,
  ) {
    this.#observation = observation
    this.#adapters = adapters
    this.#processes = processes
    this.#queues = queues
    this.#requests = requests
  }

  posted(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'post' }>): void {
    const queue = this.#queueOf(process, record)
    const stack = process.stacks.get(record.stack) ?? NO_STACK
    this.#observation.faults?.posted(record.tid, record.requests)
    if (queue === undefined) return
    this.#observation.output.recording?.posting(stack)
    this.#requests.post(queue, record.requests, this.#observation.time, stack)
  }

  refused(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'refused' }>): void {
    const queue = this.#queueOf(process, record)
    const injected = this.#observation.faults?.takeRefused(record.tid)
    if (queue !== undefined) this.#refusedPost(process, record, queue, injected)
  }

  #queueOf(
    process: ObservedProcess,
    { fd, queue, number }: { readonly fd: number; readonly queue: number; readonly number: number },
  ): RequestQueue | undefined {
    return process.isLossy ? undefined : this.#queues.of(process.contexts.get(fd), queue, number)
  }

  #refusedPost(
    process: ObservedProcess,
    record: Extract<ObservedRecord, { readonly kind: 'refused' }>,
    queue: RequestQueue,
    injected: ActingRule | undefined,
  ): void {
    const context = this.#processes.contextOf(process, record.fd)
    const first = queue.outstanding.at(-record.count)
    const owner = record.queue === PostQueue.SHARED ? undefined : context.device.qps.get(record.number)
    this.#requests.refuse(queue, record.count)
    if (injected !== undefined) {
      const wrId = first?.wrId ?? 0n
      const failure: Failure = {
        kind: 'post',
        device: context.device.name,
        cause: causeOfRule(injected),
        wrId,
        errno: record.error,
        queue: record.queue === PostQueue.SEND ? 'send' : 'receive',
        ...(owner !== undefined && { qpn: record.number }),
        ...(first !== undefined && first.opcode >= 0 && { opcode: first.opcode }),
      }
      this.#failed(context, failure, first, undefined)
      return
    }
    this.#observation.stream.event({
      event: 'refusedPost',
      ...callFacts(this.#observation, context, process.stacks.get(record.stack) ?? NO_STACK),
      number: record.number,
      queue: record.queue,
      error: record.error,
      wrId: first?.wrId ?? 0n,
      state: numberOf(owner?.attributes.state) ?? RESET,
      request: {
        opcode: Math.max(first?.opcode ?? 0, 0),
        flags: first?.flags ?? 0,
        elements: first?.elements.length ?? 0,
        length: BigInt(first?.length ?? 0),
        addressLow: (first?.remote?.address ?? 0) % 2 ** 32,
        unsignaled: queue.outstanding.length - 1 - queue.outstanding.findLastIndex(({ isSignaled }) => isSignaled),
      },
    })
  }

  usedGone(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'use of gone' }>): void {
    this.#observation.stream.event({
      event: 'usedGone',
      time: this.#observation.time,
      program: process.program,
      function: record.function,
      kind: record.objectKind,
      number: record.number,
      use: record.use,
      isOwner: record.isOwner,
      stack: process.stacks.get(record.stack) ?? NO_STACK,
      // `age` is in nanoseconds, `time` in microseconds.
      destroyedAt: this.#observation.time - Number(record.age) / 1000,
      destroyedStack: process.stacks.get(record.destroyed) ?? NO_STACK,
      value: BigInt(record.age),
    })
  }

  refusedByLibrary(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'refusal' }>): void {
    const { function: name, object, error: errno, facts } = record
    const stack = process.stacks.get(record.stack) ?? NO_STACK
    const context = process.contexts.get(record.fd)
    const origin =
      context === undefined
        ? {
            time: this.#observation.time,
            device: CM_NAME,
            deviceNumber: -1,
            context: undefined,
            program: process.program,
            stack,
          }
        : callFacts(this.#observation, context, stack)
    this.#observation.stream.event({ event: 'refusedByLibrary', ...origin, function: name, object, errno, facts })
  }

  armed(process: ObservedProcess, record: Extract<ObservedRecord, { readonly kind: 'notify' }>): void {
    const context = process.contexts.get(record.fd)
    const cq = context?.objects.get(record.cq)
    if (context === undefined || cq === undefined) return
    const stack = process.stacks.get(record.stack) ?? NO_STACK
    const args = { solicitedOnly: record.solicitedOnly ? 1 : 0 }
    const facts = callFacts(this.#observation, context, stack)
    this.#observation.stream.event({
      event: 'calling',
      ...facts,
      object: cq.id,
      class: 'cq',
      method: 'reqNotify',
      args,
    })
    this.#observation.stream.event({
      event: 'called',
      ...facts,
      class: 'cq',
      method: 'reqNotify',
      object: cq,
      args,
      out: {},
      why: 'call',
    })
  }

  completed(process: ObservedProcess, fd: number, cqHandle: number, completion: ObservedCompletion): void {
    const context = process.contexts.get(fd)
    const cq = context?.objects.get(cqHandle)
    const qp = context?.device.qps.get(completion.qpn)
    if (context === undefined || cq === undefined || qp === undefined) return
    const queue = this.#queues.ofCompletion(qp, cq, completion)
    const request = queue && !process.isLossy ? this.#requests.complete(queue, completion, cq.id, qp.id) : undefined
    this.#requests.polled(cq.id)
    if (completion.status === SUCCESS) return
    const isSend = queue === undefined || queue.queue === PostQueue.SEND
    const injected = this.#observation.faults?.takeCompletion(qp, completion.wrId)
    const failure = this.#failureOf(context, qp, completion, request, isSend, injected && causeOfRule(injected))
    if (completion.status !== WR_FLUSH_ERR || injected !== undefined) qp.attributes.state = ERR
    this.#failed(context, failure, request, this.#adapters.ofPeer(qp))
  }

  #failed(
    context: ObservedContext,
    failure: Failure,
    request: WorkRequest | undefined,
    peerDevice: number | undefined,
  ): void {
    this.#observation.stream.event({
      event: 'failed',
      ...callFacts(this.#observation, context, NO_STACK),
      failure,
      ...(request && { request: placeOf(request) }),
      peerDevice,
    })
  }

  #peerOf(qp: ObservedObject): ObservedObject | undefined {
    const device = this.#adapters.ofPeer(qp)
    const destQpn = numberOf(qp.attributes.destQpn)
    return device === undefined || destQpn === undefined ? undefined : this.#adapters.at(device)?.qps.get(destQpn)
  }

  #endOf(qp: ObservedObject, device: ObservedDevice): KnownEnd {
    const [sends, receives] = this.#queues.ofQp(qp)
    const pd = qp.args.pd as ObservedObject | undefined
    const context = this.#processes.contextWith(qp)
    return {
      pd: pd?.handle,
      context: context?.id ?? 0,
      regions: device.regions,
      accessFlags: numberOf(qp.attributes.accessFlags),
      pathMtu: numberOf(qp.attributes.pathMtu),
      maxDestRdAtomic: numberOf(qp.attributes.maxDestRdAtomic),
      knowsAllKeys: device.knowsAllKeys,
      receive: receives?.failed ?? receives?.outstanding[0],
      send: sends?.outstanding[0],
    }
  }

  #failureOf(
    context: ObservedContext,
    qp: ObservedObject,
    { status, vendorErr, wrId, qpn }: ObservedCompletion,
    request: ReturnType<ObservedRequests['complete']>,
    isSend: boolean,
    injected: Cause | undefined,
  ): Failure {
    const { attributes, args, out } = qp
    const facts = { device: context.device.name, qpn, status }
    if (status === WR_FLUSH_ERR && injected === undefined) {
      const cause =
        attributes.state === ERR && !attributes.hasFailed
          ? createCause('MODIFIED', {})
          : createCause('FLUSHED', { state: ERR })
      return { ...facts, kind: 'flush', count: 1, queue: isSend ? 'send' : 'receive', cause }
    }
    attributes.hasFailed = true
    const peer = this.#peerOf(qp)
    const peerDevice = this.#adapters.ofPeer(qp)
    const { dgid } = (attributes.address ?? {}) as { readonly dgid?: Uint8Array }
    const destQpn = numberOf(attributes.destQpn)
    const { cause, isAtPeer } =
      injected !== undefined
        ? { cause: injected, isAtPeer: undefined }
        : causeOfFailure({
            status,
            vendorErr,
            request,
            own: this.#endOf(qp, context.device),
            peer: peer && peerDevice !== undefined ? this.#endOf(peer, this.#adapters.at(peerDevice)!) : undefined,
            maxSendSge: numberOf(((out.cap ?? args.cap) as { readonly maxSendSge?: number } | undefined)?.maxSendSge),
            maxRdAtomic: numberOf(attributes.maxRdAtomic),
            retryCnt: numberOf(attributes.retryCnt),
            rnrRetry: numberOf(attributes.rnrRetry),
          })
    const state = numberOf(peer?.attributes.state)
    return {
      ...facts,
      kind: isSend ? 'send' : 'receive',
      ...(isSend && { opcode: request?.opcode ?? 0 }),
      wrId,
      cause,
      ...(dgid !== undefined &&
        destQpn !== undefined && {
          peer: { qpn: destQpn, address: addressText(dgid), ...(state !== undefined && { state }) },
        }),
      ...(isAtPeer && { isCauseAtPeer: true }),
    }
  }
}
