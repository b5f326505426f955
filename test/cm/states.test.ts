/*
 * The connection manager in each state of its table: illegal commands, destruction, messages for other ids, and removal
 * of the device.
 */
import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import type { CmConnection } from '../../src/cm/connection.ts'
import { CmError } from '../../src/cm/error.ts'
import { type CmState, cmStates } from '../../src/spec/cm-states.ts'
import { type CmDraft, emitCm } from '../../src/wire/mad.ts'
import { established, type Host, offer, Pair, pathTo, request, SERVICE } from './pair.ts'

let pair: Pair
beforeEach(() => {
  pair = new Pair()
  pair.b.engine.listen(SERVICE)
})

/** A connection that the active host has requested, at both ends. */
const requested = (): [CmConnection, CmConnection] => {
  const active = pair.a.engine.create(pathTo(1, 2))
  pair.a.engine.connect(active, request(0x11), pair.now)
  pair.exchange()
  return [active, pair.b.events()[0]!.connection]
}

/** A connection of host 1 or 2 in each state, and its host. */
const inState: Readonly<Record<CmState, () => [Host, CmConnection]>> = {
  IDLE: () => [pair.a, pair.a.engine.create(pathTo(1, 2))],
  REQ_SENT: () => {
    const active = pair.a.engine.create(pathTo(1, 2))
    pair.a.engine.connect(active, request(0x11), pair.now)
    return [pair.a, active]
  },
  MRA_REQ_RCVD: () => {
    const [active, passive] = requested()
    pair.b.engine.delay(passive, 20)
    pair.exchange()
    return [pair.a, active]
  },
  REQ_RCVD: () => [pair.b, requested()[1]],
  MRA_REQ_SENT: () => {
    const [, passive] = requested()
    pair.b.engine.delay(passive, 20)
    return [pair.b, passive]
  },
  REP_RCVD: () => {
    const [active, passive] = requested()
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    pair.exchange()
    return [pair.a, active]
  },
  MRA_REP_SENT: () => {
    const [host, active] = inState.REP_RCVD()
    host.engine.delay(active, 20)
    return [host, active]
  },
  REP_SENT: () => {
    const [, passive] = requested()
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    return [pair.b, passive]
  },
  MRA_REP_RCVD: () => {
    const [active, passive] = requested()
    pair.b.engine.reply(passive, offer(0x22), pair.now)
    pair.exchange()
    pair.a.engine.delay(active, 20)
    pair.exchange()
    return [pair.b, passive]
  },
  ESTABLISHED: () => [pair.a, established(pair)[0]],
  DREQ_SENT: () => {
    const [active] = established(pair)
    pair.a.engine.disconnect(active, pair.now)
    return [pair.a, active]
  },
  DREQ_RCVD: () => {
    const [active, passive] = established(pair)
    pair.a.engine.disconnect(active, pair.now)
    pair.exchange()
    return [pair.b, passive]
  },
  TIMEWAIT: () => {
    const [host, passive] = inState.DREQ_RCVD()
    host.engine.confirmDisconnect(passive, pair.now)
    return [host, passive]
  },
  SIDR_REQ_SENT: () => {
    const resolution = pair.a.engine.create(pathTo(1, 2))
    const path = pathTo(1, 2)
    pair.a.engine.resolve(resolution, { path, serviceId: SERVICE, responseTimeout: 20, maxCmRetries: 3 }, pair.now)
    return [pair.a, resolution]
  },
  SIDR_REQ_RCVD: () => {
    inState.SIDR_REQ_SENT()
    pair.exchange()
    return [pair.b, pair.b.events()[0]!.connection]
  },
}

for (const state of Object.keys(cmStates) as CmState[]) {
  describe(`in ${state}`, () => {
    test('commands that the table lacks are refused, and the error lists the allowed ones', () => {
      const [host, connection] = inState[state]()
      const commands = {
        REQ: () => host.engine.connect(connection, request(0x77), pair.now),
        MRA: () => host.engine.delay(connection, 20),
        REP: () => host.engine.reply(connection, offer(0x77), pair.now),
        RTU: () => host.engine.ready(connection),
        REJ: () => host.engine.reject(connection, { reason: 28 }, pair.now),
        DREQ: () => host.engine.disconnect(connection, pair.now),
        DREP: () => host.engine.confirmDisconnect(connection, pair.now),
        ESTABLISH: () => host.engine.establish(connection),
        SIDR_REQ: () =>
          host.engine.resolve(
            connection,
            { path: pathTo(1, 2), serviceId: 1n, responseTimeout: 1, maxCmRetries: 0 },
            pair.now,
          ),
        SIDR_REP: () => host.engine.resolved(connection, { status: 0 }),
      }
      pair.lose()
      for (const [command, run] of Object.entries(commands)) {
        if (command in cmStates[state].command) continue
        assert.throws(run, (error: unknown) => error instanceof CmError && error.message.includes(state), command)
      }
      assert.deepEqual(pair.lose(), [])
      assert.equal(connection.state, state)
    })

    test('destroyed, it ends or rests in TIMEWAIT, and nothing of it remains in the end', () => {
      const [host, connection] = inState[state]()
      pair.lose()
      host.events()
      host.engine.destroy(connection, pair.now)
      host.engine.destroy(connection, pair.now)
      const { destroy } = cmStates[state]
      assert.deepEqual(pair.lose(), destroy?.send ? [destroy.send] : [])
      const rests = destroy?.rest === true || state === 'TIMEWAIT'
      assert.equal(connection.state, rests ? 'TIMEWAIT' : 'IDLE')
      if (rests) host.engine.onTimeout(host.engine.nextTimeout())
      assert.deepEqual(
        host.events().map(({ name }) => name),
        rests ? ['TIMEWAIT_EXIT'] : [],
      )
      assert.equal(host.engine.size, 0)
      assert.equal(host.engine.nextTimeout(), Number.POSITIVE_INFINITY)
      assert.throws(() => host.engine.disconnect(connection, pair.now), /destroyed cannot do DREQ/)
    })

    test('messages for other ids change nothing', () => {
      const [host, connection] = inState[state]()
      pair.lose()
      host.events()
      const peer = pathTo(host.number, 3 - host.number)
      for (const name of ['RTU', 'DREP', 'DREQ', 'MRA', 'REJ', 'APR', 'SIDR_REP'] as const) {
        const ids = { localId: connection.remoteId ^ 1, remoteId: connection.localId ^ 1 }
        host.engine.onMad(emitCm({ name, tid: 1n, ...ids } as CmDraft), peer, pair.now)
      }
      assert.equal(connection.state, state)
      assert.deepEqual(
        host.events().map(({ name }) => name),
        [],
      )
    })

    test('device removal destroys it silently', () => {
      const [host, connection] = inState[state]()
      pair.lose()
      assert.deepEqual(host.engine.removeDevice(0), [connection])
      assert.deepEqual(pair.lose(), [])
      assert.equal(host.engine.size, 0)
      assert.equal(host.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    })
  })
}
