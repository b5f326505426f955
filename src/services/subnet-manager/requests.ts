/*
 * Requests of a subnet manager by directed routes: some at a time, repeated without an answer, given up after the last
 * repetition. Times are microseconds.
 */
import { MAD_BASE_VERSION } from '../../spec/wire/mad.ts'
import { MadClass, MadMethod } from '../../spec/wire/management.ts'
import { PERMISSIVE_LID, SMI_QPN, SUBNET_VERSION, smAttributes } from '../../spec/wire/subnet.ts'
import {
  type SmAttribute,
  type SmAttributeName,
  type Smp,
  smCodecs,
  smpCodec,
} from '../../transport/wire/mad/subnet.ts'
import type { SubnetPacket } from '../subnet-engine/packet.ts'

const TIMEOUT = 200_000
const RETRIES = 3
/** Requests without an answer so far; others wait. */
const MAX_OUTSTANDING = 64

/** Output ports from the manager's port on. */
export type Path = readonly number[]

interface Request {
  readonly name: SmAttributeName
  readonly smp: Smp
  readonly done: (answer: Smp | undefined) => void
  retriesLeft: number
  due: number
}

interface RequestOwner {
  send(packet: SubnetPacket): void
  wakeAt(time: number): void
}

/** A packet of subnet management from the manager's port. */
export const smpPacket = (smp: Smp, lids: Pick<SubnetPacket, 'slid' | 'dlid'>): SubnetPacket => ({
  ...lids,
  sl: 0,
  sourceQp: SMI_QPN,
  destQp: SMI_QPN,
  pkey: 0,
  qkey: 0,
  mad: smpCodec.emit(smp),
  hops: 0,
})

export class SmpRequests {
  readonly #owner: RequestOwner
  readonly #outstanding = new Map<bigint, Request>()
  readonly #waiting: Request[] = []
  #tid: bigint
  readonly #mKey: bigint

  /** `firstTid`: a random number, so that nobody who does not see requests can answer them. */
  constructor(owner: RequestOwner, firstTid: bigint, mKey: bigint) {
    this.#owner = owner
    this.#tid = firstTid
    this.#mKey = mKey
  }

  /** Whether no request waits for its answer. */
  get isIdle(): boolean {
    return this.#outstanding.size === 0 && this.#waiting.length === 0
  }

  /** `done`: with the attribute of the response, and its status; undefined: no response came. */
  get<N extends SmAttributeName>(
    path: Path,
    name: N,
    modifier: number,
    now: number,
    done: (value: SmAttribute<N> | undefined, status: number) => void,
  ): void {
    this.#add(MadMethod.GET, path, name, modifier, now, done)
  }

  set<N extends SmAttributeName>(
    path: Path,
    name: N,
    modifier: number,
    value: Partial<SmAttribute<N>>,
    now: number,
    done: (value: SmAttribute<N> | undefined, status: number) => void,
  ): void {
    this.#add(MadMethod.SET, path, name, modifier, now, done, value)
  }

  #add<N extends SmAttributeName>(
    method: number,
    path: Path,
    name: N,
    modifier: number,
    now: number,
    done: (value: SmAttribute<N> | undefined, status: number) => void,
    value?: Partial<SmAttribute<N>>,
  ): void {
    const codec = smCodecs[name] as unknown as {
      parse(bytes: Uint8Array): SmAttribute<N>
      emit(record: Partial<SmAttribute<N>>, bytes: Uint8Array): void
    }
    const smp: Smp = {
      baseVersion: MAD_BASE_VERSION,
      mgmtClass: MadClass.SUBNET_DIRECTED_ROUTE,
      classVersion: SUBNET_VERSION,
      method,
      isReturning: false,
      status: 0,
      hopPointer: 0,
      hopCount: path.length,
      tid: this.#tid++ & 0xffff_ffff_ffff_ffffn,
      attribute: smAttributes[name].id,
      modifier,
      mKey: this.#mKey,
      drSlid: PERMISSIVE_LID,
      drDlid: PERMISSIVE_LID,
      data: new Uint8Array(64),
      initialPath: Uint8Array.from([0, ...path]),
      returnPath: new Uint8Array(64),
    }
    if (value !== undefined) codec.emit(value, smp.data)
    this.#waiting.push({
      name,
      smp,
      retriesLeft: RETRIES,
      due: 0,
      done: answer => done(answer?.status === 0 ? codec.parse(answer.data) : undefined, answer?.status ?? -1),
    })
    this.#fill(now)
  }

  #fill(now: number): void {
    while (this.#outstanding.size < MAX_OUTSTANDING) {
      const next = this.#waiting.shift()
      if (next === undefined) return
      this.#outstanding.set(next.smp.tid, next)
      this.#send(next, now)
    }
  }

  #send(request: Request, now: number): void {
    request.due = now + TIMEOUT
    this.#owner.send(smpPacket(request.smp, { slid: PERMISSIVE_LID, dlid: PERMISSIVE_LID }))
    this.#owner.wakeAt(request.due)
  }

  /** A response; ignored unless it is that of a request, for the same attribute by the same route. */
  onResponse(smp: Smp, now: number): void {
    const request = this.#outstanding.get(smp.tid)
    if (request === undefined) return
    const { mgmtClass, attribute, modifier, hopCount, initialPath } = request.smp
    if (smp.mgmtClass !== mgmtClass || smp.attribute !== attribute || smp.modifier !== modifier) return
    if (smp.hopCount !== hopCount || initialPath.some((port, hop) => hop > 0 && smp.initialPath[hop] !== port)) return
    this.#outstanding.delete(smp.tid)
    request.done(smp)
    this.#fill(now)
  }

  onTimeout(now: number): void {
    for (const [tid, request] of [...this.#outstanding]) {
      if (request.due > now) this.#owner.wakeAt(request.due)
      else if (request.retriesLeft > 0) {
        request.retriesLeft--
        this.#send(request, now)
      } else if (this.#outstanding.delete(tid)) request.done(undefined)
    }
    this.#fill(now)
  }

  /** Forgets all requests, without a call of `done`. */
  clear(): void {
    this.#outstanding.clear()
    this.#waiting.length = 0
  }
}
