/*
 * A model of rdma_cm's identifiers on three hosts. Consumers act at random, with and without packet loss. Events must
 * be legal in the identifier's stage. After all timers, stages must be stable, and without loss both ends of a
 * connection must agree. The destruction of all identifiers must leave no objects.
 */
import assert from 'node:assert/strict'
import type { Identifier } from '../../../src/services/rdma-cm/identifier.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { createRandomSource } from '../../random/model/random.ts'
import {
  any4,
  assertNothingLeft,
  cmOf,
  type Host,
  ip4,
  parametersOf,
  type ReportedEvent,
  VirtualNetwork,
} from './hosts.ts'

/**
 * The stage of an identifier from the program's view. `failed`: the connection is in IDLE. `rejected`: a REJ has moved
 * the connection to TIMEWAIT.
 */
type Stage =
  | 'requested'
  | 'replied'
  | 'incoming'
  | 'accepted'
  | 'established'
  | 'disconnecting'
  | 'disconnected'
  | 'rejected'
  | 'closed'
  | 'failed'

const endings = { DISCONNECTED: 'disconnected', REJECTED: 'rejected' } as const

/** The legal events of each stage, and the next stages. */
const stageAfter: Readonly<Record<Stage, Readonly<Record<string, Stage>>>> = {
  requested: { CONNECT_RESPONSE: 'replied', REJECTED: 'failed', UNREACHABLE: 'failed' },
  replied: { REJECTED: 'rejected' },
  incoming: { REJECTED: 'failed' },
  accepted: { ESTABLISHED: 'established', DISCONNECTED: 'disconnected', REJECTED: 'failed', UNREACHABLE: 'failed' },
  established: endings,
  disconnecting: endings,
  disconnected: { TIMEWAIT_EXIT: 'closed' },
  // As on Linux, the end of TIMEWAIT after a rejection is not reported.
  rejected: {},
  closed: {},
  failed: {},
}

/** Stages without further events. */
const ENDED: readonly Stage[] = ['rejected', 'closed', 'failed']
/** Stages after all timers have expired. */
const LASTING: readonly Stage[] = ['established', ...ENDED]
/** Stages that wait for the consumer. If the peer times out, its only REJ may be lost. */
const PEER_MAY_TIME_OUT: readonly Stage[] = ['incoming', 'replied']

interface ModelId {
  readonly id: Identifier
  readonly host: Host
  readonly isActive: boolean
  qpn: number
  stage: Stage
}

const HOSTS = 3
const PORT = 7471
const BACKLOG = 16
const MAX_IDENTIFIERS = 60
/** Microseconds, longer than any TIMEWAIT. */
const TIMEWAIT_BOUND = 9_000_000

class CmModel {
  readonly #network = new VirtualNetwork()
  readonly #random: ReturnType<typeof createRandomSource>
  readonly #hasLoss: boolean
  readonly #modelIds = new Map<Identifier, ModelId>()
  readonly #listeners: Identifier[] = []
  /** QPNs in TIMEWAIT, and the times at which they may be reused, earliest first. */
  readonly #inTimewait: { readonly qpn: number; readonly until: number }[] = []
  #nextQpn = 0x100
  /** The number of ends of connections that were established. */
  establishedEnds = 0

  constructor(seed: number, hasLoss: boolean) {
    this.#random = createRandomSource(seed)
    this.#hasLoss = hasLoss
    for (let i = 1; i <= HOSTS; i++) {
      const host = this.#network.host()
      host.plug(i, hasLoss ? `dir=sent,drop=8%,seed=${seed + i}` : '')
      this.#listeners.push(host.listen(any4(PORT), { backlog: BACKLOG }))
    }
  }

  /** A QPN whose TIMEWAIT has ended, or a new one. */
  #takeQpn(): number {
    const [first] = this.#inTimewait
    if (first === undefined || first.until > this.#network.now) return this.#nextQpn++
    this.#inTimewait.shift()
    return first.qpn
  }

  /** The queue pair enters TIMEWAIT. */
  #release(modelId: ModelId): void {
    if (modelId.qpn !== 0) this.#inTimewait.push({ qpn: modelId.qpn, until: this.#network.now + TIMEWAIT_BOUND })
    modelId.qpn = 0
  }

  #onEvent({ id, name, details, request }: ReportedEvent, host: Host): void {
    if (name === 'ADDR_RESOLVED' || name === 'ROUTE_RESOLVED') return
    if (request !== undefined) {
      this.#modelIds.set(request, { id: request, host, isActive: false, qpn: 0, stage: 'incoming' })
      return
    }
    const modelId = this.#modelIds.get(id)
    assert.ok(modelId, `${name} of a destroyed identifier`)
    const nextStage = stageAfter[modelId.stage][name]
    assert.ok(nextStage !== undefined, `${name} of an identifier in stage ${modelId.stage}`)
    const isStale = name === 'REJECTED' && details.status === rejReason.STALE_CONN
    assert.ok(!isStale || this.#hasLoss, 'a queue pair after TIMEWAIT is still in use')
    modelId.stage = isStale ? 'rejected' : nextStage
    if (nextStage === 'established') this.establishedEnds++
    if (nextStage === 'failed' || nextStage === 'closed') this.#release(modelId)
    // A program confirms a disconnect after the event.
    if (name === 'DISCONNECTED') host.cm.disconnect(id)
  }

  #settle(): void {
    for (;;) {
      this.#network.settle()
      const notified = this.#network.hosts.filter(({ reported }) => reported.length > 0)
      if (notified.length === 0) return
      for (const host of notified) for (const event of host.reported.splice(0)) this.#onEvent(event, host)
    }
  }

  #connect(host: Host): void {
    const id = host.create()
    const peer = 1 + this.#random.int(HOSTS)
    host.resolve(id, ip4(peer, this.#random.hits(0.95) ? PORT : PORT + 1))
    const modelId: ModelId = { id, host, isActive: true, qpn: this.#takeQpn(), stage: 'requested' }
    host.cm.connect(id, parametersOf(modelId.qpn))
    this.#modelIds.set(id, modelId)
  }

  /** A program's next step with an identifier. */
  #act(modelId: ModelId): void {
    const { id, host } = modelId
    const { cm } = host
    if (modelId.stage === 'incoming') {
      if (this.#random.hits(0.1)) {
        cm.reject(id, Uint8Array.of(1), rejReason.CONSUMER_DEFINED)
        modelId.stage = 'failed'
        return
      }
      modelId.qpn = this.#takeQpn()
      cm.accept(id, parametersOf(modelId.qpn))
      modelId.stage = 'accepted'
    } else if (modelId.stage === 'replied') {
      if (this.#random.hits(0.9)) {
        cm.accept(id, undefined)
        modelId.stage = 'established'
        this.establishedEnds++
      } else this.#destroy(modelId)
    } else if (modelId.stage === 'established') {
      if (this.#random.hits(0.6)) {
        cm.disconnect(id)
        modelId.stage = 'disconnecting'
      } else this.#destroy(modelId)
    } else if (modelId.stage === 'failed' && modelId.isActive && this.#random.hits(0.5)) {
      modelId.qpn = this.#takeQpn()
      cm.connect(id, parametersOf(modelId.qpn))
      modelId.stage = 'requested'
    } else if (ENDED.includes(modelId.stage)) this.#destroy(modelId)
  }

  #destroy(modelId: ModelId): void {
    modelId.host.cm.destroy(modelId.id)
    this.#modelIds.delete(modelId.id)
    this.#release(modelId)
  }

  /** Destroys all identifiers of a host's program, as a kill does. A new program then listens. */
  #killProgram(host: Host): void {
    for (const modelId of [...this.#modelIds.values()]) if (modelId.host === host) this.#destroy(modelId)
    const index = this.#network.hosts.indexOf(host)
    host.cm.destroy(this.#listeners[index]!)
    this.#listeners[index] = host.listen(any4(PORT), { backlog: BACKLOG })
  }

  /** One random action, and its effects. The limits of `dice` are cumulative probabilities in thousandths. */
  step(): void {
    const modelIds = [...this.#modelIds.values()]
    const dice = this.#random.int(1000)
    if (dice < 250 && modelIds.length < MAX_IDENTIFIERS) this.#connect(this.#random.pick(this.#network.hosts))
    else if (dice < 850 && modelIds.length > 0) this.#act(this.#random.pick(modelIds))
    else if (dice < 870 && modelIds.length > 0) this.#destroy(this.#random.pick(modelIds))
    else if (dice < 872) this.#killProgram(this.#random.pick(this.#network.hosts))
    else this.#network.tick()
    this.#settle()
  }

  /** Ends the run, and checks the invariants. */
  end(): void {
    this.#settle()
    for (let turns = 0; this.#network.tick(); turns++) {
      assert.ok(turns < 100_000, 'timers do not end')
      this.#settle()
    }
    for (const modelId of this.#modelIds.values()) {
      const isLost = this.#hasLoss && PEER_MAY_TIME_OUT.includes(modelId.stage)
      assert.ok(isLost || LASTING.includes(modelId.stage), `at the end an identifier is ${modelId.stage}`)
      if (modelId.stage === 'established' && !this.#hasLoss) this.#assertPeer(modelId)
    }
    for (const modelId of [...this.#modelIds.values()]) this.#destroy(modelId)
    this.#network.hosts.forEach(({ cm }, i) => {
      cm.destroy(this.#listeners[i]!)
    })
    this.#network.settle()
    for (const { reported } of this.#network.hosts) reported.length = 0
    assertNothingLeft(this.#network)
  }

  #assertPeer({ id }: ModelId): void {
    const { localId, remoteId } = cmOf(id)
    const peer = [...this.#modelIds.values()].find(other => cmOf(other.id).localId === remoteId)
    assert.ok(peer, 'a connection has no other end')
    assert.deepEqual([peer.stage, cmOf(peer.id).remoteId], ['established', localId])
  }
}

/** Runs the model; returns the number of established connections. A connection with one established end counts 0.5. */
export const runModel = (seed: number, steps: number, hasLoss: boolean): number => {
  const model = new CmModel(seed, hasLoss)
  try {
    for (let step = 0; step < steps; step++) model.step()
    model.end()
  } catch (error) {
    throw new Error(`seed ${seed}, ${steps} steps, ${hasLoss ? 'with' : 'without'} loss`, { cause: error })
  }
  return model.establishedEnds / 2
}
