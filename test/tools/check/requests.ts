/*
 * A checker with two connected queue pairs, a CQ and a region, for scripts of requests in virtual time.
 */

import type { Cause } from '../../../src/spec/check/causes.ts'
import type { Failure } from '../../../src/spec/check/failures.ts'
import type { Finding } from '../../../src/spec/check/finding.ts'
import type {
  BeginningCall,
  CheckedCall,
  ObjectName,
  PreloadEvent,
  ProgramEvent,
} from '../../../src/spec/check/program-events.ts'
import type { WorkRequest } from '../../../src/spec/check/requests.ts'
import { QpState } from '../../../src/spec/enums.ts'
import { PostQueue } from '../../../src/spec/session.ts'
import { WcOpcode, WcStatus, WrOpcode } from '../../../src/spec/work.ts'
import { Checker } from '../../../src/tools/check/checker.ts'
import type { CheckerSources } from '../../../src/tools/check/detector.ts'

const { RTS } = QpState.values
const program = { pid: 1, command: 'client' }
const gid = new Uint8Array(16)
const address = { dgid: gid, sgidIndex: 1 }
/** Key and address of the region of 4096 bytes. */
export const LKEY = 0x100
export const START = 0x10000

/** A signaled WRITE of 8 bytes, posted to queue pair 1. */
export const workRequest = (changes: Partial<WorkRequest> = {}): WorkRequest => ({
  id: 1,
  time: 1,
  owner: 1,
  queue: PostQueue.SEND,
  number: 1,
  index: 0,
  postIndex: changes.index ?? 0,
  wrId: 0n,
  opcode: WrOpcode.values.RDMA_WRITE,
  flags: 0,
  isSignaled: true,
  length: 8,
  elements: [],
  remote: undefined,
  destQpn: undefined,
  destination: undefined,
  ...changes,
})

export const requestScenario = ({
  hasChannel = false,
  isLibrary = false,
  peerClass = 'rc_qp',
  stack: callStack,
  ...sources
}: Partial<
  Pick<
    CheckerSources,
    | 'buffers'
    | 'findsWaits'
    | 'isCopiedByFork'
    | 'memoryOf'
    | 'postStack'
    | 'rangeHash'
    | 'tormentName'
    | 'unreadEvents'
  >
> & {
  readonly hasChannel?: boolean
  readonly isLibrary?: boolean
  readonly peerClass?: string
  /** Of all calls; absent: the name of each. */
  readonly stack?: readonly string[]
} = {}) => {
  const found: Finding[] = []
  /** `Checker.counts` at the last call of `forget`. */
  let forgotten: readonly number[] = []
  let now = 0
  let lastId = 0
  let completions = 0
  /** Digests of the sampled and of the other bytes of sends' buffers. */
  const digests: { sampledDigest: number; otherDigest: number; atPost?: number } = { sampledDigest: 0, otherDigest: 0 }
  const checker = new Checker(finding => found.push(finding), {
    now: () => now,
    deviceWithGid: () => 0,
    deviceName: () => 'rxe0',
    postStack: () => ['posted'],
    isCopiedByFork: () => true,
    postHash: () => (digests.atPost === undefined ? undefined : { hash: digests.atPost, isWhole: false }),
    digest: (_device, _request, isWhole) =>
      isWhole ? digests.sampledDigest + digests.otherDigest : digests.sampledDigest,
    ...sources,
  })
  const origin = { device: 'rxe0', deviceNumber: 0, context: 0, program, why: 'call' as const }
  const names = new Map<number, ObjectName>()
  const create = (name: string, args: Record<string, unknown> = {}, out: Record<string, unknown> = {}): number => {
    const object = { id: ++lastId, handle: lastId, class: { name } }
    names.set(object.id, object)
    checker.event({
      event: 'called',
      ...origin,
      time: now,
      class: name,
      method: 'create',
      object,
      isLibrary,
      args,
      out,
      stack: [`create ${name}`],
    })
    return object.id
  }
  const call = (
    name: string,
    method: string,
    id: number,
    args: Record<string, unknown> = {},
    {
      pendingSends,
      ...outcome
    }: Partial<Pick<CheckedCall, 'refused' | 'thread' | 'why'> & Pick<BeginningCall, 'pendingSends'>> = {},
  ): void => {
    const stack = callStack ?? [`${name}.${method}`]
    if (outcome.why === undefined)
      checker.event({
        event: 'calling',
        object: id,
        class: name,
        method,
        program,
        args,
        stack,
        ...(pendingSends !== undefined && { pendingSends }),
      })
    const object = names.get(id)
    checker.event({
      event: 'called',
      ...origin,
      time: now,
      class: name,
      method,
      object,
      args,
      out: {},
      stack,
      ...outcome,
    })
  }
  const channel = hasChannel ? create('comp_channel') : undefined
  const cq = create('cq', { ...(channel && { channel: names.get(channel) }) }, { cqe: 100 })
  const cap = { maxSendWr: 8, maxRecvWr: 8 }
  const uses = { sendCq: names.get(cq), recvCq: names.get(cq), cap }
  const qp = create('rc_qp', uses, { qpNum: 1 })
  const peer = create(peerClass, uses, { qpNum: 2 })
  call('rc_qp', 'modify', qp, { state: RTS, destQpn: 2, address, timeout: 14, rnrRetry: 2 })
  call(peerClass, 'modify', peer, { state: RTS, destQpn: 1, address, timeout: 14 })
  const region = create('mr', { start: BigInt(START), iova: BigInt(START), length: 4096n }, { lkey: LKEY, rkey: LKEY })

  const post = (changes: Partial<WorkRequest> = {}): WorkRequest => {
    const request = workRequest({
      id: ++lastId,
      time: now,
      owner: qp,
      wrId: BigInt(lastId),
      length: 64,
      elements: [{ address: START, length: 64, lkey: LKEY }],
      ...changes,
    })
    checker.requests.posted(request)
    return request
  }
  const end = (request: WorkRequest): void => checker.requests.ended(request)
  return {
    checker,
    found,
    qp,
    peer,
    cq,
    region,
    create,
    call,
    post,
    end,
    /** The program changes buffers: bytes that are sampled. */
    changeSampledBytes: () => void digests.sampledDigest++,
    /** The preload library hashes the buffers of the requests that follow, at their post. */
    hashAtPost(): void {
      digests.atPost = digests.sampledDigest
    },
    /** The preload library of the program tells this. */
    told: (event: PreloadEvent): void => checker.event({ ...origin, time: now, stack: [], ...event } as ProgramEvent),
    /** The program changes buffers: bytes that are digested only if all are. */
    changeOtherBytes: () => void digests.otherDigest++,
    register: (memory: Record<string, bigint | number>, key: number) => create('mr', memory, { lkey: key, rkey: key }),
    advance(microseconds: number): void {
      now += microseconds
    },
    destroy: (name: string, id: number): void => call(name, 'destroy', id),
    /** `message`: what a receive received. `intoCq`, `qp`: `CoreObject.id` of the CQ and the queue pair. */
    complete(
      request: WorkRequest,
      status = WcStatus.values.SUCCESS as number,
      {
        message,
        intoCq = cq,
        wasArmed,
        solicited = false,
        qp = request.owner,
      }: {
        readonly message?: WorkRequest
        readonly intoCq?: number
        readonly wasArmed?: true
        readonly solicited?: boolean
        readonly qp?: number
      } = {},
    ): void {
      if (request.queue === PostQueue.SEND) end(request)
      const { SEND, RECV, RECV_RDMA_WITH_IMM } = WcOpcode.values
      const receiveOpcode = message?.opcode === WrOpcode.values.RDMA_WRITE_WITH_IMM ? RECV_RDMA_WITH_IMM : RECV
      const completion = {
        status,
        opcode: request.queue === PostQueue.SEND ? SEND : receiveOpcode,
        bytes: request.length,
        cq: intoCq,
        ...(wasArmed && { wasArmed }),
        cqPosition: ++completions,
        solicited,
        qp,
        message,
      }
      checker.requests.completed(request, completion)
    },
    /** `total`: completions polled since the creation of the CQ. */
    poll: (total: number): void => checker.requests.polled(cq, total),
    /** The first queue pair fails. */
    fail(cause: Cause, facts: Partial<Failure> = {}): void {
      const failure = { kind: 'send', device: 'rxe0', qpn: 1, cause, peer: { qpn: 2, address: '' }, ...facts } as const
      const origin = { deviceNumber: 0, context: 0, program, peerDevice: 0 }
      checker.event({ event: 'failed', ...origin, time: now, failure })
    },
    /** Id and severity of each occurrence since `forget`, by finding: a repeated finding is not in `found` again. */
    ids: (): string[] =>
      found.flatMap(({ id, severity }, i) =>
        new Array<string>(checker.counts[i]! - (forgotten[i] ?? 0)).fill(`${id} ${severity}`),
      ),
    forget(): void {
      forgotten = [...checker.counts]
    },
  }
}
