/*
 * The connection manager in each state of its table.
 */
import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { cmStates } from '../../../src/services/cm-engine/cm-states.ts'
import { CmError } from '../../../src/services/cm-engine/error.ts'
import { rejReason } from '../../../src/spec/wire/mad.ts'
import { type CmDraft, emitCm } from '../../../src/transport/wire/mad/mad.ts'
import { enter, statesAndRoles } from './in-state.ts'
import { offer, Pair, pathTo, peerOf, request, SERVICE } from './pair.ts'

let pair: Pair
beforeEach(() => {
  pair = new Pair()
  pair.b.engine.listen(SERVICE)
})

for (const [state, role] of statesAndRoles) {
  describe(`in ${state}, ${role}`, () => {
    test('a command that the table lacks is refused with the name of the state', () => {
      const [host, connection] = enter(pair, state, role)
      const commands = {
        REQ: () => host.engine.connect(connection, request(0x77), pair.now),
        MRA: () => host.engine.delay(connection, 20),
        REP: () => host.engine.reply(connection, offer(0x77), pair.now),
        RTU: () => host.engine.ready(connection),
        REJ: () => host.engine.reject(connection, { reason: rejReason.CONSUMER_DEFINED }, pair.now),
        DREQ: () => host.engine.disconnect(connection, pair.now),
        DREP: () => host.engine.confirmDisconnect(connection, pair.now),
        ESTABLISH: () => host.engine.establish(connection),
        SIDR_REQ: () =>
          host.engine.resolve(
            connection,
            { path: pathTo(1, 2), serviceId: 1n, responseTimeout: 1, maxCmRetries: 0 },
            pair.now,
          ),
        SIDR_REP: () => host.engine.replyToResolve(connection, { status: 0 }),
      }
      pair.lose()
      for (const [command, run] of Object.entries(commands)) {
        if (command in cmStates[state].command) continue
        assert.throws(run, (error: unknown) => error instanceof CmError && error.message.includes(state), command)
      }
      assert.deepEqual(pair.lose(), [])
      assert.equal(connection.state, state)
    })

    test('a destroyed connection is removed, in some states after TIMEWAIT; a second destroy has no effect', () => {
      const [host, connection] = enter(pair, state, role)
      pair.lose()
      host.events()
      host.engine.destroy(connection, pair.now)
      host.engine.destroy(connection, pair.now)
      const { destroy } = cmStates[state]
      assert.deepEqual(pair.lose(), destroy?.send ? [destroy.send] : [])
      const entersTimewait = destroy?.timewait === true || state === 'TIMEWAIT'
      assert.equal(connection.state, entersTimewait ? 'TIMEWAIT' : 'IDLE')
      if (entersTimewait) host.engine.onTimeout(host.engine.nextTimeout())
      assert.deepEqual(
        host.events().map(({ name }) => name),
        entersTimewait ? ['TIMEWAIT_EXIT'] : [],
      )
      assert.equal(host.engine.size, 0)
      assert.equal(host.engine.nextTimeout(), Number.POSITIVE_INFINITY)
      assert.throws(() => host.engine.disconnect(connection, pair.now), /destroyed does not allow DREQ/)
    })

    test('messages for other ids change nothing', () => {
      const [host, connection] = enter(pair, state, role)
      pair.lose()
      host.events()
      const peer = pathTo(host.number, peerOf(host.number))
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

    test('the removal of the device removes the connection without a message', () => {
      const [host] = enter(pair, state, role)
      pair.lose()
      host.engine.removeDevice(0)
      assert.deepEqual(pair.lose(), [])
      assert.equal(host.engine.size, 0)
      assert.equal(host.engine.nextTimeout(), Number.POSITIVE_INFINITY)
    })
  })
}
