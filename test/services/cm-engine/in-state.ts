/*
 * Connections in each state of the connection manager.
 */
import assert from 'node:assert/strict'
import type { CmState } from '../../../src/services/cm-engine/cm-states.ts'
import type { CmConnection } from '../../../src/services/cm-engine/connection.ts'
import { established, type Host, offer, type Pair, pathTo, request, SERVICE } from './pair.ts'

export type Role = 'active' | 'passive'
type End = readonly [host: Host, connection: CmConnection]

/** Exponent of the service and response timeouts: 4.3 s. */
const SERVICE_TIMEOUT = 20

/** Both ends of a connection after the REQ has arrived. */
const sendRequest = (pair: Pair): [CmConnection, CmConnection] => {
  const active = pair.a.engine.create(pathTo(1, 2))
  pair.a.engine.connect(active, request(0x11), pair.now)
  pair.exchange()
  return [active, pair.b.events()[0]!.connection]
}

/** Both ends of a connection after the REP is sent, before the REP arrives. */
const sendReply = (pair: Pair): [CmConnection, CmConnection] => {
  const [active, passive] = sendRequest(pair)
  pair.b.engine.reply(passive, offer(0x22), pair.now)
  return [active, passive]
}

/** A resolution after the active host has sent the SIDR_REQ. */
const sendSidrRequest = (pair: Pair): CmConnection => {
  const resolution = pair.a.engine.create(pathTo(1, 2))
  const path = pathTo(1, 2)
  const times = { responseTimeout: SERVICE_TIMEOUT, maxCmRetries: 3 }
  pair.a.engine.resolve(resolution, { path, serviceId: SERVICE, ...times }, pair.now)
  return resolution
}

/** Both ends of an established connection; the end with the role is first. */
const ends = (pair: Pair, role: Role): [End, End] => {
  const [active, passive] = established(pair)
  const both: [End, End] = [
    [pair.a, active],
    [pair.b, passive],
  ]
  return role === 'active' ? both : [both[1], both[0]]
}

/** An end that has received the peer's DREQ. */
const disconnectByPeer = (pair: Pair, role: Role): End => {
  const [end, [peerHost, peerConnection]] = ends(pair, role)
  peerHost.engine.disconnect(peerConnection, pair.now)
  pair.exchange()
  return end
}

type Setups = Partial<Readonly<Record<Role, (pair: Pair) => End>>>

const both = (setup: (pair: Pair, role: Role) => End): Setups => ({
  active: pair => setup(pair, 'active'),
  passive: pair => setup(pair, 'passive'),
})

const setups: Readonly<Record<CmState, Setups>> = {
  IDLE: { active: pair => [pair.a, pair.a.engine.create(pathTo(1, 2))] },
  REQ_SENT: {
    active: pair => {
      const active = pair.a.engine.create(pathTo(1, 2))
      pair.a.engine.connect(active, request(0x11), pair.now)
      return [pair.a, active]
    },
  },
  MRA_REQ_RCVD: {
    active: pair => {
      const [active, passive] = sendRequest(pair)
      pair.b.engine.delay(passive, SERVICE_TIMEOUT)
      pair.exchange()
      return [pair.a, active]
    },
  },
  REQ_RCVD: { passive: pair => [pair.b, sendRequest(pair)[1]] },
  MRA_REQ_SENT: {
    passive: pair => {
      const [, passive] = sendRequest(pair)
      pair.b.engine.delay(passive, SERVICE_TIMEOUT)
      return [pair.b, passive]
    },
  },
  REP_RCVD: {
    active: pair => {
      const [active] = sendReply(pair)
      pair.exchange()
      return [pair.a, active]
    },
  },
  MRA_REP_SENT: {
    active: pair => {
      const [active] = sendReply(pair)
      pair.exchange()
      pair.a.engine.delay(active, SERVICE_TIMEOUT)
      return [pair.a, active]
    },
  },
  REP_SENT: { passive: pair => [pair.b, sendReply(pair)[1]] },
  MRA_REP_RCVD: {
    passive: pair => {
      const [active, passive] = sendReply(pair)
      pair.exchange()
      pair.a.engine.delay(active, SERVICE_TIMEOUT)
      pair.exchange()
      return [pair.b, passive]
    },
  },
  ESTABLISHED: both((pair, role) => ends(pair, role)[0]),
  DREQ_SENT: both((pair, role) => {
    const [end] = ends(pair, role)
    const [host, connection] = end
    host.engine.disconnect(connection, pair.now)
    return end
  }),
  DREQ_RCVD: both(disconnectByPeer),
  TIMEWAIT: both((pair, role) => {
    const [host, connection] = disconnectByPeer(pair, role)
    host.engine.confirmDisconnect(connection, pair.now)
    return [host, connection]
  }),
  SIDR_REQ_SENT: { active: pair => [pair.a, sendSidrRequest(pair)] },
  SIDR_REQ_RCVD: {
    passive: pair => {
      sendSidrRequest(pair)
      pair.exchange()
      return [pair.b, pair.b.events()[0]!.connection]
    },
  },
}

export const statesAndRoles = Object.entries(setups).flatMap(([state, setupsOfState]) =>
  (Object.keys(setupsOfState) as Role[]).map(role => [state as CmState, role] as const),
)

/** A connection in a state, and its host. `pair` is new, and `pair.b` listens on SERVICE. */
export const enter = (pair: Pair, state: CmState, role: Role): End => {
  const setup = setups[state][role]
  assert.ok(setup, `no ${role} connection is in ${state}`)
  const end = setup(pair)
  assert.equal(end[1].state, state)
  return end
}
