/*
 * A model of rdma_cm's identifiers: three hosts whose consumers connect, accept, reject, disconnect, destroy and die at
 * random, with and without packet loss. Each event of an identifier must be legal in its state; once all timers have
 * expired it is in a stable state, both ends of a connection agree, and when all are destroyed nothing is left. Queue
 * pairs are reused after TIMEWAIT, and only when no host uses them any more.
 */
import assert from 'node:assert/strict'
import type { Identifier } from '../../../src/clients/rdma-cm/identifier.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { createChance } from '../../model/random.ts'
import { any4, assertNothingLeft, type Host, ip4, parametersOf, type Told, World } from './world.ts'

type Stage = 'asked' | 'answered' | 'request' | 'waiting' | 'up' | 'leaving' | 'down' | 'over' | 'failed'

const ended = { DISCONNECTED: 'down', REJECTED: 'down' } as const

/** The events that an identifier may get in each stage, and the stage that follows. */
const hears: Readonly<Record<Stage, Readonly<Record<string, Stage>>>> = {
  asked: { CONNECT_RESPONSE: 'answered', REJECTED: 'failed', UNREACHABLE: 'failed' },
  answered: { REJECTED: 'down' },
  request: { REJECTED: 'failed' },
  waiting: { ESTABLISHED: 'up', DISCONNECTED: 'down', REJECTED: 'failed', UNREACHABLE: 'failed' },
  up: ended,
  leaving: ended,
  down: { TIMEWAIT_EXIT: 'over' },
  over: {},
  failed: {},
}

/** Stages without a running timer. */
const LASTING: readonly Stage[] = ['up', 'over', 'failed']
/** Stages that wait for the consumer, whose peer has given up and has sent its message once. */
const UNTOLD: readonly Stage[] = ['request', 'answered']

interface Thing {
  readonly id: Identifier
  readonly host: Host
  readonly isActive: boolean
  qpn: number
  stage: Stage
}

const HOSTS = 3
const PORT = 7471
const BACKLOG = 16
const MOST_THINGS = 60
/** Longer than any TIMEWAIT. Microseconds. */
const REST = 9_000_000

export class CmModel {
  readonly #world = new World()
  readonly #chance: ReturnType<typeof createChance>
  readonly #loses: boolean
  readonly #things = new Map<Identifier, Thing>()
  readonly #listeners: Identifier[] = []
  /** Queue pairs in TIMEWAIT, with the time at which each may be reused, earliest first. */
  readonly #resting: { readonly qpn: number; readonly until: number }[] = []
  #nextQpn = 0x100
  connections = 0

  constructor(seed: number, loses: boolean) {
    this.#chance = createChance(seed)
    this.#loses = loses
    for (let i = 1; i <= HOSTS; i++) {
      const host = this.#world.host()
      host.plug(i, loses ? `dir=sent,drop=8%,seed=${seed + i}` : '')
      this.#listeners.push(host.listen(any4(PORT), { backlog: BACKLOG }))
    }
  }

  #qpn(): number {
    const [first] = this.#resting
    if (first === undefined || first.until > this.#world.now) return this.#nextQpn++
    this.#resting.shift()
    return first.qpn
  }

  /** The queue pair enters TIMEWAIT, whatever the state of its connection. */
  #release(thing: Thing): void {
    if (thing.qpn !== 0) this.#resting.push({ qpn: thing.qpn, until: this.#world.now + REST })
    thing.qpn = 0
  }

  #hear({ id, name, details, request }: Told, host: Host): void {
    if (name === 'ADDR_RESOLVED' || name === 'ROUTE_RESOLVED') return
    if (request !== undefined) {
      this.#things.set(request, { id: request, host, isActive: false, qpn: 0, stage: 'request' })
      return
    }
    const thing = this.#things.get(id)
    assert.ok(thing, `${name} of a destroyed identifier`)
    const to = hears[thing.stage][name]
    assert.ok(to !== undefined, `${name} of an identifier in stage ${thing.stage}`)
    const isStale = name === 'REJECTED' && details.status === rejReason.STALE_CONN
    assert.ok(!isStale || this.#loses, 'a queue pair after TIMEWAIT is still in use')
    thing.stage = isStale ? 'down' : to
    if (to === 'up') this.connections++
    if (to === 'failed' || to === 'over') this.#release(thing)
    // Programs confirm a disconnect when its event arrives.
    if (name === 'DISCONNECTED') host.cm.disconnect(id)
  }

  #settle(): void {
    for (;;) {
      this.#world.settle()
      const heard = this.#world.hosts.filter(({ told }) => told.length > 0)
      if (heard.length === 0) return
      for (const host of heard) for (const told of host.told.splice(0)) this.#hear(told, host)
    }
  }

  #connect(host: Host): void {
    const id = host.create()
    const to = 1 + this.#chance.int(HOSTS)
    host.resolve(id, ip4(to, this.#chance.hits(0.95) ? PORT : PORT + 1))
    const thing: Thing = { id, host, isActive: true, qpn: this.#qpn(), stage: 'asked' }
    host.cm.connect(id, parametersOf(thing.qpn))
    this.#things.set(id, thing)
  }

  /** A program's next step with an identifier, by its stage. */
  #act(thing: Thing): void {
    const { id, host } = thing
    const { cm } = host
    if (thing.stage === 'request') {
      if (this.#chance.hits(0.1)) {
        cm.reject(id, Uint8Array.of(1), rejReason.CONSUMER_DEFINED)
        thing.stage = 'failed'
        return
      }
      thing.qpn = this.#qpn()
      cm.accept(id, parametersOf(thing.qpn))
      thing.stage = 'waiting'
    } else if (thing.stage === 'answered') {
      if (this.#chance.hits(0.9)) {
        cm.accept(id, undefined)
        thing.stage = 'up'
        this.connections++
      } else this.#destroy(thing)
    } else if (thing.stage === 'up') {
      if (this.#chance.hits(0.6)) {
        cm.disconnect(id)
        thing.stage = 'leaving'
      } else this.#destroy(thing)
    } else if (thing.stage === 'failed' && thing.isActive && this.#chance.hits(0.5)) {
      thing.qpn = this.#qpn()
      cm.connect(id, parametersOf(thing.qpn))
      thing.stage = 'asked'
    } else if (thing.stage === 'over' || thing.stage === 'failed') this.#destroy(thing)
  }

  #destroy(thing: Thing): void {
    thing.host.cm.destroy(thing.id)
    this.#things.delete(thing.id)
    this.#release(thing)
  }

  /** Destroys everything of a host's program, as when it is killed; a new program listens then. */
  #die(host: Host): void {
    for (const thing of [...this.#things.values()]) if (thing.host === host) this.#destroy(thing)
    const index = this.#world.hosts.indexOf(host)
    host.cm.destroy(this.#listeners[index]!)
    this.#listeners[index] = host.listen(any4(PORT), { backlog: BACKLOG })
  }

  step(): void {
    const things = [...this.#things.values()]
    const dice = this.#chance.int(1000)
    if (dice < 250 && things.length < MOST_THINGS) this.#connect(this.#chance.pick(this.#world.hosts))
    else if (dice < 850 && things.length > 0) this.#act(this.#chance.pick(things))
    else if (dice < 870 && things.length > 0) this.#destroy(this.#chance.pick(things))
    else if (dice < 872) this.#die(this.#chance.pick(this.#world.hosts))
    else this.#world.tick()
    this.#settle()
  }

  /** Ends the run and checks that nothing is left. */
  end(): void {
    this.#settle()
    for (let turns = 0; this.#world.tick(); turns++) {
      assert.ok(turns < 100_000, 'timers do not end')
      this.#settle()
    }
    for (const thing of this.#things.values()) {
      const isLost = this.#loses && UNTOLD.includes(thing.stage)
      assert.ok(isLost || LASTING.includes(thing.stage), `at the end an identifier is ${thing.stage}`)
      if (thing.stage === 'up' && !this.#loses) this.#assertPeer(thing)
    }
    for (const thing of [...this.#things.values()]) this.#destroy(thing)
    this.#world.hosts.forEach(({ cm }, i) => {
      cm.destroy(this.#listeners[i]!)
    })
    this.#world.settle()
    for (const { told } of this.#world.hosts) told.length = 0
    assertNothingLeft(this.#world)
  }

  #assertPeer({ id }: Thing): void {
    const { localId, remoteId } = id.connection!
    const peer = [...this.#things.values()].find(other => other.id.connection?.localId === remoteId)
    assert.ok(peer, 'a connection has no other end')
    assert.deepEqual([peer.stage, peer.id.connection?.remoteId], ['up', localId])
  }
}

/** The number of connections that were established. */
export const runModel = (seed: number, steps: number, loses: boolean): number => {
  const model = new CmModel(seed, loses)
  try {
    for (let step = 0; step < steps; step++) model.step()
    model.end()
  } catch (error) {
    throw new Error(`seed ${seed}, ${steps} steps, ${loses ? 'with' : 'without'} loss`, { cause: error })
  }
  return model.connections / 2
}
