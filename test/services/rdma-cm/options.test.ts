/*
 * Options of identifiers (rdma_set_option), and vendor options of requests and replies (ECE).
 */

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setOption } from '../../../src/services/rdma-cm/options.ts'
import { pathRecord } from '../../../src/services/rdma-cm/path-record.ts'
import { CmOptionLevel, CmPortSpace, QpState } from '../../../src/spec/enums.ts'
import { errnoOf } from '../../core/fixture.ts'
import { ipv4 } from '../../drivers/rxe/machine.ts'
import { assertNothingLeft, attributesOf, cmOf, type Host, ip4, parametersOf, twoHosts } from './hosts.ts'

const PORT = 7471
const { ID, IB } = CmOptionLevel.values
/** RDMA_OPTION_ID_* of level ID. NO_OPTION does not exist. */
const [TOS, REUSEADDR, AFONLY, ACK_TIMEOUT, NO_OPTION] = [0, 1, 2, 3, 4]
const IB_PATH = 1
const NO_LEVEL = 2
/** An option of type int. */
const int = (value: number): Uint8Array => Uint8Array.of(value, 0, 0, 0)

/** Offsets in struct ib_path_rec_data, whose PathRecord begins at 8, and its size. */
const At = {
  FLAGS: 0,
  RECORD: 8,
  DGID: 16,
  SGID: 32,
  FLOW_LABEL: 52,
  TCLASS: 56,
  PKEY: 58,
  SL: 61,
  MTU: 62,
  LIFE_TIME: 64,
}
const PATH_BYTES = 72
/** Selector "exactly" of MTU and packet life time. */
const EXACTLY = 0x80

const set = (host: Host, id: ReturnType<Host['create']>, level: number, option: number, value: Uint8Array): string =>
  errnoOf(() => setOption(host.cm, id, level, option, value))

describe('an option', () => {
  it('is refused with another level, number or size', () => {
    const { a } = twoHosts()
    const id = a.create()
    assert.equal(set(a, id, ID, TOS, Uint8Array.of(0x68)), 'ok')
    assert.equal(id.trafficClass, 0x68)
    assert.equal(set(a, id, ID, ACK_TIMEOUT, Uint8Array.of(17)), 'ok')
    assert.equal(set(a, id, ID, TOS, int(1)), 'EINVAL')
    assert.equal(set(a, id, ID, REUSEADDR, Uint8Array.of(1)), 'EINVAL')
    assert.equal(set(a, id, ID, NO_OPTION, int(1)), 'ENOSYS')
    assert.equal(set(a, id, IB, NO_OPTION, int(1)), 'ENOSYS')
    assert.equal(set(a, id, NO_LEVEL, TOS, Uint8Array.of(1)), 'ENOSYS')
    a.cm.destroy(id)
  })

  it('is refused in the wrong state of the identifier, or for the wrong type of queue pair', () => {
    const { a } = twoHosts()
    const id = a.create()
    assert.equal(set(a, id, ID, REUSEADDR, int(0)), 'ok')
    a.cm.bind(id, ip4(1, PORT))
    assert.equal(set(a, id, ID, REUSEADDR, int(1)), 'ok')
    assert.equal(set(a, id, ID, REUSEADDR, int(0)), 'EINVAL')
    assert.equal(set(a, id, ID, AFONLY, int(1)), 'ok')
    a.cm.listen(id, 0)
    assert.equal(set(a, id, ID, REUSEADDR, int(1)), 'EINVAL')
    assert.equal(set(a, id, ID, AFONLY, int(1)), 'EINVAL')
    const datagrams = a.create(CmPortSpace.values.UDP)
    assert.equal(set(a, datagrams, ID, ACK_TIMEOUT, Uint8Array.of(17)), 'EINVAL')
    for (const one of [id, datagrams]) a.cm.destroy(one)
  })
})

describe('the ACK timeout', () => {
  it('is twice the packet life time of the route that is resolved afterwards, also for the peer', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    assert.equal(set(b, listener, ID, ACK_TIMEOUT, Uint8Array.of(9)), 'ok')
    // 0 is no timeout. The default packet life time has the exponent 16, so the default ACK timeout has 17.
    for (const [timeout, peerTimeout] of [
      [20, 20],
      [0, 17],
    ] as const) {
      const id = a.create()
      assert.equal(set(a, id, ID, ACK_TIMEOUT, Uint8Array.of(timeout)), 'ok')
      a.resolve(id, ip4(2, PORT))
      const [path] = pathRecord(id)
      assert.equal(path?.record[At.LIFE_TIME - At.RECORD], EXACTLY | (peerTimeout - 1))
      a.cm.connect(id, parametersOf(0x11))
      network.settle()
      const [request] = b.requests(listener)
      assert.equal(cmOf(request).agreed.ackTimeout, peerTimeout)
      assert.ok(request)
      // As on Linux, a request does not inherit the option of its listener.
      assert.equal(attributesOf(request, QpState.values.RTS).timeout, peerTimeout)
      a.cm.destroy(id)
      b.cm.destroy(request)
      network.settle()
    }
    b.cm.destroy(listener)
    assertNothingLeft(network)
  })
})

/** struct ib_path_rec_data with a path to 10.0.0.2. */
const pathOption = (flags: number, source = ipv4(10, 0, 0, 1)): Uint8Array => {
  const bytes = new Uint8Array(PATH_BYTES)
  const view = new DataView(bytes.buffer)
  view.setUint32(At.FLAGS, flags, true)
  bytes.set(ipv4(10, 0, 0, 2), At.DGID)
  bytes.set(source, At.SGID)
  // The low byte is the hop limit.
  view.setUint32(At.FLOW_LABEL, (0x12345 << 8) | 9)
  view.setUint8(At.TCLASS, 0x60)
  view.setUint16(At.PKEY, 0xffff)
  view.setUint8(At.SL, 3)
  view.setUint8(At.MTU, EXACTLY | 2)
  view.setUint8(At.LIFE_TIME, EXACTLY | 14)
  return bytes
}
/** PRIMARY: IB_PATH_GMP | IB_PATH_PRIMARY | IB_PATH_BIDIRECTIONAL. GMP: IB_PATH_GMP. */
const PRIMARY = 0x2b
const GMP = 1

describe('a path set by the program', () => {
  it('may be in a Buffer, which the program may use again', () => {
    const { network, a } = twoHosts()
    const id = a.create()
    a.cm.resolveAddress(id, ip4(2, PORT), undefined)
    const value = Buffer.from(pathOption(PRIMARY))
    assert.equal(set(a, id, IB, IB_PATH, value), 'ok')
    value.fill(0)
    assert.deepEqual(pathRecord(id)[0]?.record, pathOption(PRIMARY).subarray(At.RECORD))
    a.cm.destroy(id)
    assertNothingLeft(network)
  })

  it('is accepted after the address is resolved, and is the path of the request', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const id = a.create()
    assert.equal(set(a, id, IB, IB_PATH, pathOption(PRIMARY)), 'EINVAL')
    a.cm.resolveAddress(id, ip4(2, PORT), undefined)
    assert.equal(set(a, id, IB, IB_PATH, pathOption(PRIMARY).subarray(1)), 'EINVAL')
    assert.equal(set(a, id, IB, IB_PATH, pathOption(GMP)), 'EINVAL')
    // rdma_cm uses the first path with the flags PRIMARY.
    const both = Uint8Array.of(...pathOption(GMP), ...pathOption(PRIMARY))
    assert.equal(set(a, id, IB, IB_PATH, both), 'ok')
    assert.deepEqual(a.eventNames(id), ['ADDR_RESOLVED', 'ROUTE_RESOLVED'])
    assert.equal(set(a, id, IB, IB_PATH, pathOption(PRIMARY)), 'EINVAL')
    assert.deepEqual(pathRecord(id), [{ flags: PRIMARY, reserved: 0, record: pathOption(PRIMARY).subarray(At.RECORD) }])

    a.cm.connect(id, parametersOf(0x11))
    network.settle()
    const [request] = b.requests(listener)
    assert.ok(request?.connection)
    const { flowLabel, hopLimit, trafficClass, sl, mtu } = cmOf(request).path
    // As on Linux, each side has its own hop limit.
    assert.deepEqual([flowLabel, hopLimit, trafficClass, sl, mtu], [0x12345, 64, 0x60, 3, 2])
    assert.equal(cmOf(id).path.hopLimit, 9)
    const received = pathRecord(request)[0]?.record
    assert.deepEqual(
      [At.SL, At.MTU].map(at => received?.[at - At.RECORD]),
      [3, EXACTLY | 2],
    )
    a.cm.destroy(id)
    for (const one of [request, listener]) b.cm.destroy(one)
    assertNothingLeft(network)
  })

  it('is the path to which datagrams are sent', () => {
    const { network, a, b } = twoHosts()
    const { UDP } = CmPortSpace.values
    const listener = b.listen(ip4(2, PORT), { portSpace: UDP })
    const id = a.create(UDP)
    a.cm.resolveAddress(id, ip4(2, PORT), undefined)
    assert.equal(set(a, id, IB, IB_PATH, pathOption(PRIMARY)), 'ok')
    a.cm.connect(id, parametersOf(0x11))
    network.settle()
    const [request] = b.requests(listener)
    assert.ok(request)
    b.cm.accept(request, parametersOf(0x22))
    network.settle()
    const established = a.take(id).at(-1)
    assert.equal(established?.name, 'ESTABLISHED')
    const { dgid, flowLabel, hopLimit, trafficClass, sl } = established.details.datagram!
    assert.deepEqual([dgid, flowLabel, hopLimit, trafficClass, sl], [ipv4(10, 0, 0, 2), 0x12345, 9, 0x60, 3])
    a.cm.destroy(id)
    for (const one of [request, listener]) b.cm.destroy(one)
    assertNothingLeft(network)
  })

  it('must be in the partition of the device', () => {
    const { a } = twoHosts()
    const id = a.create()
    a.cm.resolveAddress(id, ip4(2, PORT), undefined)
    const path = pathOption(PRIMARY)
    new DataView(path.buffer).setUint16(At.PKEY, 0x9234)
    assert.equal(set(a, id, IB, IB_PATH, path), 'ok')
    assert.equal(
      errnoOf(() => a.cm.connect(id, parametersOf(0x11))),
      'ENOENT',
    )
    a.cm.destroy(id)
  })

  it('must start at an address of the device', () => {
    const { a } = twoHosts()
    const id = a.create()
    a.cm.resolveAddress(id, ip4(2, PORT), undefined)
    assert.equal(set(a, id, IB, IB_PATH, pathOption(PRIMARY, ipv4(10, 9, 9, 9))), 'ok')
    assert.equal(
      errnoOf(() => a.cm.connect(id, parametersOf(0x11))),
      'EINVAL',
    )
    a.cm.destroy(id)
  })
})

describe('enhanced connection establishment (ECE)', () => {
  it('has a vendor id of 24 bits and 32 bits of options in the request and the reply', () => {
    const { network, a, b } = twoHosts()
    const listener = b.listen(ip4(2, PORT))
    const active = a.create()
    active.ece = { vendorId: 0xff12_3456, attrMod: 0xdead_beef }
    a.resolve(active, ip4(2, PORT))
    a.cm.connect(active, parametersOf(0x11))
    network.settle()
    const [request] = b.take(listener)
    assert.deepEqual(request?.details.ece, { vendorId: 0x12_3456, attrMod: 0xdead_beef })
    const passive = request?.request
    assert.ok(passive)
    passive.ece = { vendorId: 0x65_4321, attrMod: 1 }
    b.cm.accept(passive, parametersOf(0x22))
    network.settle()
    const answer = a.take(active).find(({ name }) => name === 'CONNECT_RESPONSE')
    assert.deepEqual(answer?.details.ece, { vendorId: 0x65_4321, attrMod: 1 })
    a.cm.destroy(active)
    for (const one of [passive, listener]) b.cm.destroy(one)
    assertNothingLeft(network)
  })
})
