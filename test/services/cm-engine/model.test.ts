/*
 * Random operations of three connection managers. Invariants: no connection leaves TIMEWAIT early; the only event of a
 * destroyed connection is TIMEWAIT_EXIT; without losses, both ends of an established connection agree; the destruction
 * of all connections leaves nothing.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createRandom } from '../../../src/base/random.ts'
import { cmStates } from '../../../src/services/cm-engine/cm-states.ts'
import type { CmConnection } from '../../../src/services/cm-engine/connection.ts'
import { fromExponent } from '../../../src/services/cm-engine/timeout.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { parseCm } from '../../../src/transport/wire/mad/mad.ts'
import { Host, type OnWire, offer, pathTo, request, SERVICE } from './pair.ts'

const HOSTS = 3

class Simulation {
  now = 0
  readonly random: () => number
  readonly hosts: Host[] = []
  readonly wire: OnWire[] = []
  /** The consumer's connections, by host. */
  readonly live: Set<CmConnection>[] = []
  readonly timewaitEnd = new Map<CmConnection, number>()
  qpn = 0x10
  /** Ends of connections that received an event in the state ESTABLISHED. */
  readonly established = new Set<CmConnection>()

  constructor(seed: number) {
    this.random = createRandom(seed)
    for (let i = 1; i <= HOSTS; i++) this.boot(i)
  }

  randomInt(n: number): number {
    return this.random() % n
  }

  pick<T>(list: readonly T[]): T | undefined {
    return list[this.randomInt(Math.max(1, list.length))]
  }

  /** Starts or restarts a host, without state. */
  boot(number: number): void {
    const host = new Host(number, createRandom(this.random()))
    host.engine.listen(SERVICE)
    this.hosts[number - 1] = host
    this.live[number - 1] = new Set()
  }

  collect(): void {
    this.hosts.forEach(({ engine, number }, index) => {
      for (let sent = engine.pollTransmit(); sent; sent = engine.pollTransmit()) {
        this.wire.push({ from: number, to: sent.path.remoteGid[15] ?? 0, mad: sent.mad })
      }
      for (let event = engine.pollEvent(); event; event = engine.pollEvent()) {
        const { name, connection } = event
        if (name === 'TIMEWAIT_EXIT') {
          assert.ok(this.now >= (this.timewaitEnd.get(connection) ?? 0), 'TIMEWAIT ended early')
          this.timewaitEnd.delete(connection)
        } else assert.ok(!connection.isDestroyed, `${name} for a destroyed connection`)
        if (!connection.isDestroyed) this.live[index]?.add(connection)
        if (connection.state === 'ESTABLISHED') this.established.add(connection)
      }
      for (const connection of this.live[index] ?? []) this.recordTimewait(connection)
    })
  }

  recordTimewait(connection: CmConnection): void {
    if (connection.state !== 'TIMEWAIT' || this.timewaitEnd.has(connection)) return
    this.timewaitEnd.set(connection, this.now + fromExponent(connection.agreed.ackTimeout))
  }

  /** Delivers a message. `isRepeated`: the message stays on the wire. */
  deliver(index: number, isRepeated = false): void {
    const message = this.wire[index]
    if (message === undefined) return
    if (!isRepeated) this.wire.splice(index, 1)
    const { from, to, mad } = message
    this.hosts[to - 1]?.engine.onMad(mad, pathTo(to, from), this.now)
  }

  /** Expires the earliest timer of all hosts. */
  expire(): void {
    const next = Math.min(...this.hosts.map(({ engine }) => engine.nextTimeout()))
    if (next === Number.POSITIVE_INFINITY) return
    this.now = Math.max(this.now, next)
    for (const { engine } of this.hosts) engine.onTimeout(this.now)
  }

  /** The other end, if its consumer still has it. */
  peerOf({ path, remoteId }: CmConnection): CmConnection | undefined {
    const peer = path.remoteGid[15] ?? 0
    return [...(this.live[peer - 1] ?? [])].find(({ localId }) => localId === remoteId)
  }

  /** An action of the consumer that the connection's state allows. */
  act(host: Host, connection: CmConnection): void {
    const { engine } = host
    // Actions that build a connection are chosen more often than actions that end one.
    const commands = Object.keys(cmStates[connection.state].command)
    const building = commands.filter(name => name === 'REQ' || name === 'REP' || name === 'RTU')
    const command = this.pick([...commands, ...building, ...building, ...building])
    switch (command) {
      case 'REQ': {
        const peer = 1 + ((host.number + this.randomInt(HOSTS - 1)) % HOSTS)
        const path = pathTo(host.number, peer)
        engine.connect(connection, request(this.qpn++, { path, maxCmRetries: this.randomInt(3) }), this.now)
        break
      }
      case 'SIDR_REQ': {
        const path = pathTo(host.number, 1 + (host.number % HOSTS))
        engine.resolve(connection, { path, serviceId: SERVICE, responseTimeout: 18, maxCmRetries: 2 }, this.now)
        break
      }
      case 'SIDR_REP':
        engine.replyToResolve(connection, { status: this.randomInt(3), qpn: 5, qkey: 6 })
        break
      case 'MRA':
        engine.delay(connection, this.randomInt(22))
        break
      case 'REP':
        engine.reply(connection, offer(this.qpn++), this.now)
        break
      case 'RTU':
        engine.ready(connection)
        break
      case 'ESTABLISH':
        // Data arrives only from a peer that has sent its RTU.
        if (this.peerOf(connection)?.state === 'ESTABLISHED') engine.establish(connection)
        break
      case 'REJ':
        engine.reject(connection, { reason: rejReason.CONSUMER_DEFINED }, this.now)
        break
      case 'DREQ':
        engine.disconnect(connection, this.now)
        break
      case 'DREP':
        engine.confirmDisconnect(connection, this.now)
    }
    this.recordTimewait(connection)
  }

  destroy(host: Host, connection: CmConnection): void {
    host.engine.destroy(connection, this.now)
    this.recordTimewait(connection)
    this.live[host.number - 1]?.delete(connection)
  }

  /**
   * One random step. `faults`: messages may be lost, repeated and reordered, and hosts restarted. The limits of
   * `choice` are cumulative percentages.
   */
  step(faults: boolean): void {
    const anyMessage = (): number => this.randomInt(Math.max(1, this.wire.length))
    const host = this.pick(this.hosts)!
    const live = [...(this.live[host.number - 1] ?? [])].filter(({ isDestroyed }) => !isDestroyed)
    const connection = this.pick(live)
    const choice = this.randomInt(100)
    if (choice < 15) this.live[host.number - 1]?.add(host.engine.create(pathTo(host.number, 1 + (host.number % HOSTS))))
    else if (choice < 45 && connection) this.act(host, connection)
    else if (choice < 80) this.deliver(faults ? anyMessage() : 0)
    else if (choice < 84 && connection) this.destroy(host, connection)
    else if (choice < 88) this.expire()
    else if (faults && choice < 93) this.wire.splice(anyMessage(), 1)
    else if (faults && choice < 98) this.deliver(anyMessage(), true)
    else if (faults && choice === 99 && this.randomInt(20) === 0) this.boot(host.number)
    this.collect()
    const ids = live.map(({ localId }) => localId).filter(id => id !== 0)
    assert.equal(new Set(ids).size, ids.length, 'two connections have the same local ID')
  }

  /** Delivers messages and expires timers until none are left. */
  settle(): void {
    for (let turn = 0; turn < 10_000; turn++) {
      this.collect()
      if (this.wire.length > 0) this.deliver(0)
      else if (this.hosts.every(({ engine }) => engine.nextTimeout() === Number.POSITIVE_INFINITY)) return
      else this.expire()
    }
    assert.fail('the connection managers still send after many steps')
  }

  /** Asserts that both ends of every established connection agree. */
  checkAgreement(): void {
    this.hosts.forEach((host, index) => {
      for (const connection of this.live[index] ?? []) {
        if (connection.state !== 'ESTABLISHED') continue
        const other = this.peerOf(connection)
        const title = `host ${host.number}, connection 0x${connection.localId.toString(16)}`
        assert.ok(other, `${title}: the peer has no such connection`)
        assert.equal(other.remoteId, connection.localId, title)
        assert.ok(other.state === 'ESTABLISHED', `${title}: the peer is in ${other.state}`)
        assert.equal(other.agreed.remoteQpn, connection.agreed.localQpn, title)
        assert.equal(other.agreed.sqPsn, connection.agreed.rqPsn, title)
      }
    })
  }

  end(): void {
    this.hosts.forEach((host, index) => {
      for (const connection of [...(this.live[index] ?? [])]) this.destroy(host, connection)
    })
    this.settle()
    for (const { engine, number } of this.hosts) assert.equal(engine.size, 0, `host ${number} has connections left`)
  }
}

const run = (seed: number, steps: number, faults: boolean): number => {
  const simulation = new Simulation(seed)
  for (let step = 0; step < steps; step++) simulation.step(faults)
  simulation.settle()
  if (!faults) simulation.checkAgreement()
  simulation.end()
  return simulation.established.size
}

/** A test of 40 random runs with seeds 1 to 40. */
const testSeeds = (name: string, steps: number, faults: boolean): void => {
  test(name, () => {
    let established = 0
    for (let seed = 1; seed <= 40; seed++) {
      try {
        established += run(seed, steps, faults)
      } catch (error) {
        throw new Error(`seed ${seed}, ${steps} steps, faults ${faults}`, { cause: error })
      }
    }
    assert.ok(established > 50, `only ${established} ends of connections were established`)
  })
}

testSeeds('both ends agree without losses, and nothing is left', 1500, false)
testSeeds('nothing is left after losses, duplicates, reordering and restarted hosts', 1500, true)

test('messages with random bytes and attribute ids violate no invariant', () => {
  const simulation = new Simulation(7)
  for (let step = 0; step < 3000; step++) {
    simulation.step(true)
    const [message] = simulation.wire
    if (message === undefined || simulation.randomInt(3) > 0) continue
    const mad = Uint8Array.from(message.mad)
    // The common header has 24 bytes; attribute ids are 0x10 (REQ) to 0x1a (APR).
    for (let i = 0; i < 3; i++) mad[24 + simulation.randomInt(232)] = simulation.randomInt(256)
    mad[17] = 0x10 + simulation.randomInt(11)
    assert.ok(parseCm(mad))
    simulation.hosts[message.to - 1]?.engine.onMad(mad, pathTo(message.to, message.from), simulation.now)
    simulation.collect()
  }
  simulation.settle()
  simulation.end()
})
