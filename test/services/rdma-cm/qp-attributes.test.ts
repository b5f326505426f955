/*
 * The attributes of a connection's queue pair (rdma_init_qp_attr), by the type and side of the queue pair.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Identifier } from '../../../src/services/rdma-cm/identifier.ts'
import { qpAttributesFor } from '../../../src/services/rdma-cm/qp-attributes.ts'
import { AccessFlags, CmPortSpace, QpState, QpType } from '../../../src/spec/enums.ts'
import { errnoOf } from '../../core/fixture.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { attributesOf, ip4, parametersOf, twoHosts } from './hosts.ts'

const PORT = 7471
const { RC, UC, XRC_INI, XRC_TGT } = QpType.values
const { RESET, INIT, RTR, RTS, ERR } = QpState.values
const { REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, FLUSH_GLOBAL } = AccessFlags.values
/** The exponent of the ACK timeout that follows from rxe's ACK delay and the default packet life time. */
const ACK_TIMEOUT = 17
const MTU_4096 = 5

/**
 * Both ends of a connection after the REP has arrived, with QPNs 0x11 (active) and 0x22. The REP's limits of READs, not
 * the REQ's, are those of the connection: the active end issues 2 and serves 1.
 */
const connectedEnds = (activeType: number, passiveType: number) => {
  const { network, a, b } = twoHosts()
  const listener = b.create(CmPortSpace.values.IB, passiveType)
  b.cm.bind(listener, ip4(2, PORT))
  b.cm.listen(listener, 0)
  const active = a.create(CmPortSpace.values.IB, activeType)
  a.resolve(active, ip4(2, PORT))
  const request = { responderResources: 4, initiatorDepth: 3, retryCount: 5, rnrRetryCount: 6 }
  a.cm.connect(active, { ...parametersOf(0x11), ...request })
  network.settle()
  const [passive] = b.requests(listener)
  assert.ok(passive)
  const reply = { responderResources: 2, initiatorDepth: 1, rnrRetryCount: 3 }
  b.cm.accept(passive, { ...parametersOf(0x22), ...reply })
  network.settle()
  return { active, passive }
}

/**
 * The attributes for RTR without those of every connected queue pair, which are asserted. `own`, `peer`: last bytes of
 * the addresses of the hosts.
 */
const rtrOf = (id: Identifier, peerQpn: number, [own, peer]: readonly [number, number]) => {
  const { state, address, pathMtu, destQpn, rqPsn, ...others } = attributesOf(id, RTR)
  assert.deepEqual([state, pathMtu, destQpn, rqPsn], [RTR, MTU_4096, peerQpn, id.startingPsn])
  const { dgid, isGlobal, port, hopLimit, sgidIndex } = address!
  assert.deepEqual([dgid, isGlobal, port, hopLimit], [ipv4(10, 0, 0, peer), 1, 1, 64])
  assert.deepEqual(id.device?.device.ports[0]?.gids.entries[sgidIndex]?.gid, ipv4(10, 0, 0, own))
  return others
}

/** The attributes for RTS without `state` and `sqPsn`, which are asserted. The second argument is the peer. */
const rtsOf = (id: Identifier, { startingPsn }: Identifier) => {
  const { state, sqPsn, ...others } = attributesOf(id, RTS)
  assert.deepEqual([state, sqPsn], [RTS, startingPsn])
  return others
}

describe('the attributes of a queue pair', () => {
  it('of RC have the limits of READs and the retries of both ends', () => {
    const { active, passive } = connectedEnds(RC, RC)
    assert.deepEqual(rtrOf(active, 0x22, [1, 2]), { maxDestRdAtomic: 1, minRnrTimer: 0 })
    assert.deepEqual(rtsOf(active, passive), { timeout: ACK_TIMEOUT, retryCnt: 5, rnrRetry: 3, maxRdAtomic: 2 })
    assert.deepEqual(rtrOf(passive, 0x11, [2, 1]), { maxDestRdAtomic: 2, minRnrTimer: 0 })
    assert.deepEqual(rtsOf(passive, active), { timeout: ACK_TIMEOUT, retryCnt: 5, rnrRetry: 6, maxRdAtomic: 1 })
  })

  it('of XRC have those of a responder at the target, and those of a requester at the initiator', () => {
    const { active, passive } = connectedEnds(XRC_INI, XRC_TGT)
    assert.deepEqual(rtrOf(active, 0x22, [1, 2]), {})
    const { timeout, maxRdAtomic } = rtsOf(active, passive)
    assert.deepEqual([timeout, maxRdAtomic], [ACK_TIMEOUT, 2])
    assert.deepEqual(rtrOf(passive, 0x11, [2, 1]), { maxDestRdAtomic: 2, minRnrTimer: 0 })
    assert.deepEqual(rtsOf(passive, active), { timeout: ACK_TIMEOUT })
  })

  it('of UC have neither limits of READs nor retries', () => {
    const { active, passive } = connectedEnds(UC, UC)
    assert.deepEqual([rtrOf(active, 0x22, [1, 2]), rtsOf(active, passive)], [{}, {}])
    assert.deepEqual([rtrOf(passive, 0x11, [2, 1]), rtsOf(passive, active)], [{}, {}])
  })

  it('for INIT grant READs and atomics only to a peer that may send them', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    for (const [initiatorDepth, rights] of [
      [0, REMOTE_WRITE],
      // As in Linux, FLUSH too if the device has it: rxe has FLUSH_GLOBAL.
      [1, REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | FLUSH_GLOBAL],
    ] as const) {
      const active = a.create()
      a.resolve(active, ip4(2, PORT))
      a.cm.connect(active, { ...parametersOf(0x11 + initiatorDepth), initiatorDepth })
      network.settle()
      const [passive] = b.requests(listener)
      assert.ok(passive)
      assert.deepEqual(qpAttributesFor(passive, INIT), { state: INIT, accessFlags: rights, pkeyIndex: 0, port: 1 })
    }
  })

  it('are refused without a device, for RTR and RTS before the REP, and for other and unknown states', () => {
    const { network, a, b } = twoHosts()
    b.listen(ip4(2, PORT))
    const withoutDevice = a.create()
    const unconnected = a.create()
    a.resolve(unconnected, ip4(2, PORT))
    const active = a.connect(ip4(2, PORT), 0x11)
    network.settle()
    const { active: connected } = connectedEnds(RC, RC)
    const refused = [
      [withoutDevice, INIT],
      [unconnected, ERR + 1],
      [active, RTR],
      [active, RTS],
      [connected, RESET],
      [connected, ERR],
      [connected, ERR + 1],
    ] as const
    for (const [id, state] of refused)
      assert.equal(
        errnoOf(() => qpAttributesFor(id, state)),
        'EINVAL',
      )
    assert.equal(attributesOf(active, INIT).state, INIT)
    assert.equal(attributesOf(unconnected, ERR).state, ERR)
  })
})
