/*
 * Fault rules for messages of the connection manager, by their names: lost, late and twice.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { assertNothingLeft, type Host, ip4, parametersOf, twoHosts } from './hosts.ts'

const PORT = 7471

/** What both ends are told of one connection, which the active side ends: names with their status, if it is not 0. */
const eventsOf = (fault: string): readonly [active: string, passive: string] => {
  const { network, a, b } = twoHosts(fault)
  const listener = b.listen(ip4(2, PORT))
  const active = a.connect(ip4(2, PORT), 0x11)
  /** Advances time until an event of this name was reported, or no timer is left. */
  const until = ({ reported }: Host, name: string): boolean => {
    network.settle()
    while (!reported.some(event => event.name === name)) if (!network.tick()) return false
    return true
  }
  until(b, 'CONNECT_REQUEST')
  const [passive] = b.requests(listener)
  if (passive !== undefined) {
    b.cm.accept(passive, parametersOf(0x22))
    if (until(a, 'CONNECT_RESPONSE')) {
      a.cm.accept(active, undefined)
      until(b, 'ESTABLISHED')
      a.cm.disconnect(active)
      // As programs do, the peer answers.
      if (until(b, 'DISCONNECTED')) b.cm.disconnect(passive)
    }
    network.runTimers()
  }
  const told = (host: Host, id: typeof active | undefined): string =>
    id === undefined
      ? ''
      : host
          .take(id)
          .map(({ name, details: { status = 0 } }) => `${name}${status === 0 ? '' : ` ${status}`}`)
          .join(' ')
  const events = [told(a, active), told(b, passive)] as const
  a.cm.destroy(active)
  // A REQ that is repeated after the passive side has given up is another request.
  for (const id of [passive, ...b.requests(listener), listener]) if (id !== undefined) b.cm.destroy(id)
  assertNothingLeft(network)
  return events
}

const RESOLVED = 'ADDR_RESOLVED ROUTE_RESOLVED'
const TIMED_OUT = -110

describe('messages of the connection manager', () => {
  it('that are lost for ever end as the CM has them end', () => {
    const good = eventsOf('')
    assert.match(good[0], /CONNECT_RESPONSE DISCONNECTED TIMEWAIT_EXIT$/)
    assert.match(good[1], /^ESTABLISHED DISCONNECTED/)
    assert.deepEqual(eventsOf('cm=REQ,drop=1'), [`${RESOLVED} UNREACHABLE ${TIMED_OUT}`, ''])
    const noReply = eventsOf('cm=REP,drop=1')
    assert.match(noReply[0], /UNREACHABLE -110/)
    const noRequest = eventsOf('cm=DREQ,drop=1')
    assert.match(noRequest[0], new RegExp(`CONNECT_RESPONSE DISCONNECTED ${TIMED_OUT}`))
    assert.equal(noRequest[1], 'ESTABLISHED', 'the peer learns nothing')
    assert.match(eventsOf('cm=DREP,drop=1')[0], new RegExp(`DISCONNECTED ${TIMED_OUT}`))
    assert.match(eventsOf('cm=DREP,drop=1')[1], /^ESTABLISHED DISCONNECTED/)
  })

  it('that are lost once, late or twice change nothing of what is told', () => {
    const good = eventsOf('')
    for (const message of ['REQ', 'REP', 'RTU', 'DREQ', 'DREP'])
      for (const effect of ['nth=1,drop=1', 'dup=1', 'delay=10ms'])
        assert.deepEqual(eventsOf(`cm=${message},${effect}`), good, `${message} ${effect}`)
  })

  it('are no other packets', () => {
    assert.deepEqual(eventsOf('cm=LAP+APR+SIDR_REQ,drop=1'), eventsOf(''))
  })
})
