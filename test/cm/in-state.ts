/*
 * A connection in each state of the connection manager, on the active or the passive side, and its host.
 */
import assert from 'node:assert/strict'
import type { CmConnection } from '../../src/cm/connection.ts'
import type { CmState } from '../../src/spec/cm-states.ts'
import { established, type Host, offer, type Pair, pathTo, request, SERVICE } from './pair.ts'

export type Role = 'active' | 'passive'
type At = readonly [host: Host, connection: CmConnection]

/** A connection that the active host has requested, at both ends. */
const requested = (pair: Pair): [CmConnection, CmConnection] => {
  const active = pair.a.engine.create(pathTo(1, 2))
  pair.a.engine.connect(active, request(0x11), pair.now)
  pair.exchange()
  return [active, pair.b.events()[0]!.connection]
}

const replied = (pair: Pair): [CmConnection, CmConnection] => {
  const [active, passive] = requested(pair)
  pair.b.engine.reply(passive, offer(0x22), pair.now)
  return [active, passive]
}

const resolving = (pair: Pair): CmConnection => {
  const resolution = pair.a.engine.create(pathTo(1, 2))
  const path = pathTo(1, 2)
  pair.a.engine.resolve(resolution, { path, serviceId: SERVICE, responseTimeout: 20, maxCmRetries: 3 }, pair.now)
  return resolution
}

/** The end of an established connection that has this role, and the other one. */
const ends = (pair: Pair, role: Role): [At, At] => {
  const [active, passive] = established(pair)
  const both: [At, At] = [
    [pair.a, active],
    [pair.b, passive],
  ]
  return role === 'active' ? both : [both[1], both[0]]
}

/** The other end has sent its DREQ. */
const disconnected = (pair: Pair, role: Role): At => {
  const [mine, [host, other]] = ends(pair, role)
  host.engine.disconnect(other, pair.now)
  pair.exchange()
  return mine
}

type Ways = Partial<Readonly<Record<Role, (pair: Pair) => At>>>

/** States that both sides can have. */
const both = (way: (pair: Pair, role: Role) => At): Ways => ({
  active: pair => way(pair, 'active'),
  passive: pair => way(pair, 'passive'),
})

const ways: Readonly<Record<CmState, Ways>> = {
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
      const [active, passive] = requested(pair)
      pair.b.engine.delay(passive, 20)
      pair.exchange()
      return [pair.a, active]
    },
  },
  REQ_RCVD: { passive: pair => [pair.b, requested(pair)[1]] },
  MRA_REQ_SENT: {
    passive: pair => {
      const [, passive] = requested(pair)
      pair.b.engine.delay(passive, 20)
      return [pair.b, passive]
    },
  },
  REP_RCVD: {
    active: pair => {
      const [active] = replied(pair)
      pair.exchange()
      return [pair.a, active]
    },
  },
  MRA_REP_SENT: {
    active: pair => {
      const [active] = replied(pair)
      pair.exchange()
      pair.a.engine.delay(active, 20)
      return [pair.a, active]
    },
  },
  REP_SENT: { passive: pair => [pair.b, replied(pair)[1]] },
  MRA_REP_RCVD: {
    passive: pair => {
      const [active, passive] = replied(pair)
      pair.exchange()
      pair.a.engine.delay(active, 20)
      pair.exchange()
      return [pair.b, passive]
    },
  },
  ESTABLISHED: both((pair, role) => ends(pair, role)[0]),
  DREQ_SENT: both((pair, role) => {
    const [mine] = ends(pair, role)
    mine[0].engine.disconnect(mine[1], pair.now)
    return mine
  }),
  DREQ_RCVD: both(disconnected),
  TIMEWAIT: both((pair, role) => {
    const [host, connection] = disconnected(pair, role)
    host.engine.confirmDisconnect(connection, pair.now)
    return [host, connection]
  }),
  SIDR_REQ_SENT: { active: pair => [pair.a, resolving(pair)] },
  SIDR_REQ_RCVD: {
    passive: pair => {
      resolving(pair)
      pair.exchange()
      return [pair.b, pair.b.events()[0]!.connection]
    },
  },
}

/** Every state, with the roles that can be in it. */
export const statesAndRoles = Object.entries(ways).flatMap(([state, by]) =>
  (Object.keys(by) as Role[]).map(role => [state as CmState, role] as const),
)

/** A connection of a new pair whose host 2 listens to SERVICE. */
export const enter = (pair: Pair, state: CmState, role: Role): At => {
  const way = ways[state][role]
  assert.ok(way, `no ${role} connection is in ${state}`)
  const at = way(pair)
  assert.equal(at[1].state, state)
  return at
}
