/*
 * Queue pairs that connection management modifies (R17): their attributes, and what becomes of them when the connection
 * fails or ends.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { ConnectionParameters } from '../../../src/core/driver-contract.ts'
import { type CallContext, type CoreObject, invokeNow } from '../../../src/core/index.ts'
import { findHandle } from '../../../src/core/objects/handles.ts'
import { acceptWithQueuePair, connectQueuePair, unownedObject } from '../../../src/services/rdma-cm/queue-pair-owner.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { UcQp } from '../../../src/spec/classes/qp/uc_qp.ts'
import { AccessFlags, CmPortSpace, QpType } from '../../../src/spec/enums.ts'
import { DEFAULT_PKEY } from '../../../src/spec/wire/headers.ts'
import { cmAnswered, GSI_QPN, privateDataBytes, rejReason } from '../../../src/spec/wire/mad.ts'
import { emitCm } from '../../../src/transport/wire/mad/mad.ts'
import {
  cap,
  ipv4,
  makeCq,
  makeQp,
  modify,
  type Program,
  program,
  Qps,
  query,
  type TestCq,
} from '../../drivers/rxe/machine.ts'
import { cmOf, type Host, ip4, parametersOf, twoHosts, type VirtualNetwork } from './hosts.ts'

const PORT = 7471
/** Parameters without a QPN, which the queue pair supplies. */
const parameters = parametersOf(0)

const programOn = (network: VirtualNetwork, { core, devices }: Host) =>
  program({
    core,
    link: network.link,
    devices: [...devices.values()],
    ports: [],
    now: network.now,
    settle: () => network.settle(),
    tick: () => network.tick(),
  })

const makeUcQp = ({ context, caller, pd }: Program, cq: TestCq): CoreObject => {
  const args = { pd, sendCq: cq.handle, recvCq: cq.handle, cap: cap(), userHandle: 0n }
  const qp = findHandle(context.handles, invokeNow(context, UcQp, 'create', 0, args, caller).object!)
  assert.ok(qp)
  return qp
}

/** `b` has received a request of `a`, and has a queue pair. */
const receiveRequest = (request: Partial<ConnectionParameters> = {}) => {
  const { network, a, b } = twoHosts()
  const listener = b.listen(ip4(2, PORT))
  const programOfB = programOn(network, b)
  const qp = makeQp(programOfB, makeCq(programOfB))
  const active = a.create()
  a.resolve(active, ip4(2, PORT))
  a.cm.connect(active, { ...parametersOf(0x11), ...request })
  network.settle()
  const [passive] = b.requests(listener)
  const object = findHandle(programOfB.context.handles, qp.handle)
  assert.ok(passive && object)
  return { network, a, b, active, passive, qp, object, programOfB }
}

/** `b` has accepted a request of `a` with a queue pair. */
const acceptRequest = () => {
  const request = receiveRequest()
  const { network, b, passive, object, qp } = request
  acceptWithQueuePair(b.cm, passive, object, parameters)
  network.settle()
  assert.equal(query(qp).state, Qps.RTS)
  return request
}

it('a queue pair whose reply is rejected is moved to ERR, and the program may modify the queue pair', () => {
  const { network, a, b, active, passive, qp } = acceptRequest()
  a.cm.reject(active, new Uint8Array(0), rejReason.CONSUMER_DEFINED)
  network.settle()
  assert.deepEqual(b.eventNames(passive), ['REJECTED'])
  assert.equal(query(qp).state, Qps.ERR)
  modify(qp, { state: Qps.RESET })
})

it('a queue pair whose established connection is rejected is moved to ERR', () => {
  const { network, a, b, active, passive, qp } = acceptRequest()
  a.cm.accept(active, undefined)
  network.settle()
  const { tid, localId, remoteId } = cmOf(active)
  const rej = { tid, localId, remoteId, message: cmAnswered.OTHER, reason: rejReason.CONSUMER_DEFINED }
  const ends = { localGid: ipv4(10, 0, 0, 1), remoteGid: ipv4(10, 0, 0, 2), qpn: GSI_QPN, pkey: DEFAULT_PKEY }
  const path = { ...ends, flowLabel: 1, trafficClass: 0, hopLimit: 64 }
  a.mads.send(a.devices.get('rxe1')!.device, emitCm({ name: 'REJ', ...rej }), path)
  network.settle()
  assert.deepEqual(b.eventNames(passive), ['ESTABLISHED', 'REJECTED'])
  assert.equal(query(qp).state, Qps.ERR)
})

it('a queue pair whose reply is never answered is moved to ERR', () => {
  const { network, a, b, passive, qp } = acceptRequest()
  a.unplug(1)
  network.runTimers()
  assert.deepEqual(b.eventNames(passive), ['UNREACHABLE'])
  assert.equal(query(qp).state, Qps.ERR)
  modify(qp, { state: Qps.RESET })
})

it('a queue pair whose reply cannot be sent is moved to ERR, and the request is rejected', () => {
  const { network, a, b, active, passive, qp, object } = receiveRequest()
  const tooLong = new Uint8Array(privateDataBytes.REP + 1)
  assert.throws(() => acceptWithQueuePair(b.cm, passive, object, parametersOf(0, tooLong)), { code: 'EINVAL' })
  network.settle()
  assert.equal(a.eventNames(active).at(-1), 'REJECTED')
  assert.equal(query(qp).state, Qps.ERR)
  modify(qp, { state: Qps.RESET })
})

it('a queue pair whose identifier is destroyed is moved to ERR', () => {
  const { network, a, b, active, passive, qp } = acceptRequest()
  a.cm.accept(active, undefined)
  network.settle()
  b.cm.destroy(passive)
  assert.equal(query(qp).state, Qps.ERR)
  modify(qp, { state: Qps.RESET })
})

it('a queue pair of a connection cannot be used for a second one, and the program may only move it to ERR', () => {
  const { network, b, passive, qp, object, programOfB } = acceptRequest()
  const unowned = () => unownedObject({ context: programOfB.context } as CallContext, qp.handle, 'cm_id.connect')
  assert.throws(unowned, { code: 'EBUSY' })
  assert.throws(() => modify(qp, { accessFlags: 0 }), { code: 'EBUSY' })
  assert.throws(() => modify(qp, { state: Qps.RESET }), { code: 'EBUSY' })
  assert.throws(() => modify(qp, { state: Qps.ERR, accessFlags: 0 }), { code: 'EINVAL' })
  modify(qp, { state: Qps.ERR })
  assert.throws(unowned, { code: 'EBUSY' })
  b.cm.destroy(passive)
  network.settle()
  assert.equal(unowned(), object)
})

it('an RC queue pair gets the smaller limits of READs of the two ends, and an RNR timer of 0.64 ms', () => {
  for (const [request, limits, expected] of [
    [{ initiatorDepth: 4, responderResources: 3 }, { responderResources: 2, initiatorDepth: 1 }, [2, 1]],
    [{ initiatorDepth: 1, responderResources: 2 }, { responderResources: 8, initiatorDepth: 8 }, [1, 2]],
  ] as const) {
    const { b, passive, object, qp } = receiveRequest(request)
    acceptWithQueuePair(b.cm, passive, object, { ...parameters, ...limits })
    const { maxDestRdAtomic, maxRdAtomic, minRnrTimer } = query(qp)
    assert.deepEqual([maxDestRdAtomic, maxRdAtomic, minRnrTimer], [...expected, 12])
  }
})

it('a handle without an object, and a queue pair of another type than the identifier, are refused', () => {
  const { b, passive, programOfB } = receiveRequest()
  const { context } = programOfB
  assert.throws(() => unownedObject({ context } as CallContext, 99, 'cm_id.connect'), { code: 'ENOENT' })
  const ucQp = makeUcQp(programOfB, makeCq(programOfB))
  assert.throws(() => acceptWithQueuePair(b.cm, passive, ucQp, parameters), {
    code: 'EINVAL',
    message: /a uc_qp cannot be connected by this identifier/,
  })
})

it('a queue pair is connected to an address; if it is destroyed before the reply arrives, the reply is rejected', () => {
  for (const isDestroyed of [false, true]) {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const programOfA = programOn(network, a)
    const { context, caller } = programOfA
    const qp = makeQp(programOfA, makeCq(programOfA))
    const active = a.create()
    connectQueuePair(a.cm, active, findHandle(context.handles, qp.handle)!, parameters, ip4(2, PORT))
    network.settle()
    const [passive] = b.requests(listener)
    assert.ok(passive)
    if (isDestroyed) invokeNow(context, RcQp, 'destroy', qp.handle, {}, caller)
    b.cm.accept(passive, parametersOf(0x22))
    network.settle()
    assert.deepEqual(a.eventNames(active), [isDestroyed ? 'CONNECT_ERROR' : 'ESTABLISHED'])
    assert.deepEqual(b.eventNames(passive), [isDestroyed ? 'REJECTED' : 'ESTABLISHED'])
  }
})

it('the active side’s limits of READs are those at the call, if the program uses its parameters again', () => {
  const { network, a, b } = twoHosts()
  const listener = b.listen(ip4(2, PORT))
  const programOfA = programOn(network, a)
  const qp = makeQp(programOfA, makeCq(programOfA))
  const reused = { ...parameters, responderResources: 3, initiatorDepth: 2 }
  const active = a.create()
  const object = findHandle(programOfA.context.handles, qp.handle)!
  connectQueuePair(a.cm, active, object, reused, ip4(2, PORT))
  reused.responderResources = 0
  reused.initiatorDepth = 0
  network.settle()
  const [passive] = b.requests(listener)
  assert.ok(passive)
  b.cm.accept(passive, { ...parametersOf(0x22), responderResources: 8, initiatorDepth: 8 })
  network.settle()
  const { maxDestRdAtomic, maxRdAtomic } = query(qp)
  assert.deepEqual([maxDestRdAtomic, maxRdAtomic], [3, 2])
})

it('a UC queue pair on the active side grants remote writes to the peer', () => {
  const { network, a, b } = twoHosts()
  const { IB } = CmPortSpace.values
  const { UC } = QpType.values
  const listener = b.create(IB, UC)
  b.cm.bind(listener, ip4(2, PORT))
  b.cm.listen(listener, 0)
  const programOfA = programOn(network, a)
  const { context, caller } = programOfA
  const qp = makeUcQp(programOfA, makeCq(programOfA))
  const active = a.create(IB, UC)
  a.resolve(active, ip4(2, PORT))
  connectQueuePair(a.cm, active, qp, parameters, undefined)
  network.settle()
  const [passive] = b.requests(listener)
  assert.ok(passive)
  b.cm.accept(passive, parametersOf(0x22))
  network.settle()
  assert.equal(a.eventNames(active).at(-1), 'ESTABLISHED')
  const { state, accessFlags } = invokeNow(context, UcQp, 'query', qp.handle, {}, caller).out
  assert.equal(state, Qps.RTS)
  const { REMOTE_WRITE } = AccessFlags.values
  assert.equal(accessFlags & REMOTE_WRITE, REMOTE_WRITE)
})
