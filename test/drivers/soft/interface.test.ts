/*
 * A soft device follows its network interface: link state, MTU, addresses.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findGid, getGid, holdGid } from '../../../src/core/devices/gids.ts'
import { NO_EVENT } from '../../../src/core/driver-contract.ts'
import { invokeNow } from '../../../src/core/index.ts'
import { addGid, removeGid, replaceInterface, replaceMac, setLink } from '../../../src/drivers/soft/interface.ts'
import { Ah } from '../../../src/spec/classes/ah.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { AsyncEventType, LinkSpeed, LinkWidth, Mtu, PhysState, PortState } from '../../../src/spec/enums.ts'
import { connectQps, ipv4, machine, makeCq, makeQp, modify, path, program, Qps, toInit, toRtr } from '../rxe/machine.ts'

const { PORT_ACTIVE, PORT_ERR, GID_CHANGE } = AsyncEventType.values
const { ACTIVE, DOWN } = PortState.values
const { LINK_UP, POLLING, DISABLED } = PhysState.values

/** What `setLink`, `addGid` and `removeGid` return if they change nothing. NO_EVENT: a change without an event. */
const UNCHANGED = undefined

test('the port is active if the interface is up and has a carrier; only the loss of an active link is counted', () => {
  const {
    device,
    device: { state },
  } = machine(1).devices[0]
  const steps: readonly (readonly [
    isUp: boolean,
    hasCarrier: boolean,
    event: number | undefined,
    state: number,
    physState: number,
    linkDowned: number,
  ])[] = [
    [true, true, UNCHANGED, ACTIVE, LINK_UP, 0],
    [true, false, PORT_ERR, DOWN, POLLING, 1],
    [false, true, NO_EVENT, DOWN, DISABLED, 1],
    [false, false, UNCHANGED, DOWN, DISABLED, 1],
    [true, true, PORT_ACTIVE, ACTIVE, LINK_UP, 1],
    [false, false, PORT_ERR, DOWN, DISABLED, 2],
  ]
  for (const [isUp, hasCarrier, event, ...expected] of steps) {
    assert.equal(setLink(device, { isUp, hasCarrier }), event)
    const { attributes } = device.ports[0]
    assert.deepEqual([attributes.state, attributes.physState, state.linkDowned], expected)
  }
})

test('a new MTU is an event of an active port', () => {
  const { device } = machine(1).devices[0]
  const up = { isUp: true, hasCarrier: true }
  assert.equal(setLink(device, { ...up, pathMtu: 1024 }), PORT_ACTIVE)
  assert.equal(device.ports[0].attributes.activeMtu, Mtu.values.MTU_1024)
  assert.equal(setLink(device, { ...up, pathMtu: 1024 }), UNCHANGED)
  setLink(device, { isUp: false, hasCarrier: false })
  assert.equal(setLink(device, { isUp: false, hasCarrier: false, pathMtu: 512 }), NO_EVENT)
  assert.equal(device.ports[0].attributes.activeMtu, Mtu.values.MTU_512)
})

test("the port's width and speed are Linux's for the speed of the interface, 1X SDR if that is unknown", () => {
  const { device } = machine(1).devices[0]
  const { attributes } = device.ports[0]
  const { X1, X4 } = LinkWidth.values
  const { SDR, DDR, FDR10, EDR } = LinkSpeed.values
  for (const [speed, width, laneSpeed] of [
    [100, X1, SDR],
    [10_000, X1, FDR10],
    [20_000, X4, DDR],
    [25_000, X1, EDR],
    [40_000, X4, FDR10],
    [100_000, X4, EDR],
    [400_000, X4, EDR],
    [undefined, X1, SDR],
  ] as const) {
    assert.notEqual(setLink(device, { isUp: true, hasCarrier: true, speed }), PORT_ACTIVE)
    assert.deepEqual(
      [attributes.activeWidth, attributes.activeSpeed, attributes.activeSpeedEx],
      [width, laneSpeed, laneSpeed],
    )
  }
})

test('addresses take the first free index after the default GID, and leave the others where they are', () => {
  const {
    device,
    device: { state },
  } = machine(1).devices[0]
  const { gids } = device.ports[0]
  const [one, two, three] = [ipv4(10, 0, 0, 1), ipv4(10, 0, 0, 2), ipv4(10, 0, 0, 3)]
  // The device is created with GIDs 0 to 2.
  const added = () => gids.entries.slice(3, 5).map(entry => entry?.gid)
  assert.deepEqual([addGid(device, one), addGid(device, two), addGid(device, two)], [GID_CHANGE, GID_CHANGE, UNCHANGED])
  assert.deepEqual(added(), [one, two])
  assert.deepEqual([removeGid(device, one), removeGid(device, one)], [GID_CHANGE, UNCHANGED])
  assert.deepEqual(added(), [undefined, two])
  addGid(device, three)
  assert.deepEqual(added(), [three, two])
  assert.equal(
    gids.entries.findLastIndex(entry => entry !== undefined),
    4,
  )
  assert.equal(removeGid(device, state.identity.gids[0]), UNCHANGED)
  assert.deepEqual(getGid(gids, 0).gid, state.identity.gids[0], 'the default GID stays')
})

test('a replaced interface has its name and index in the identity and in all GIDs', () => {
  const {
    device,
    device: { state },
  } = machine(1).devices[0]
  const { guid } = state.identity
  replaceInterface(device, 'eth7', 7)
  assert.deepEqual(
    [state.identity.interfaceName, state.identity.interfaceIndex, state.identity.guid],
    ['eth7', 7, guid],
  )
  const { entries } = device.ports[0].gids
  assert.deepEqual(
    entries.flatMap(entry => (entry === undefined ? [] : [entry.ifindex])),
    [7, 7, 7],
  )
})

test('an index that queue pairs and address handles use is not free: a GID that returns gets another one', () => {
  const m = machine(1)
  const [{ device }] = m.devices
  const { gids } = device.ports[0]
  const own = ipv4(127, 0, 0, 1)
  const p = program(m)
  const cq = makeCq(p)
  const [a, b] = [makeQp(p, cq), makeQp(p, cq)]
  connectQps(a, b)
  const createAh = () =>
    invokeNow(p.context, Ah, 'create', 0, { pd: p.pd, userHandle: 0n, address: path(own) }, p.caller).object!
  const ah = createAh()
  /** Where the address is after it has left and returned. */
  const flap = (): number => {
    assert.deepEqual([removeGid(device, own), addGid(device, own)], [GID_CHANGE, GID_CHANGE])
    return findGid(gids, own)
  }
  assert.equal(flap(), 3, 'the first free one behind the GIDs 0 to 2')
  assert.throws(createAh, { code: 'ENODATA' })
  assert.throws(() => modify(a, { state: Qps.RTS, address: path(own) }), 'index 1 is empty')
  // As on Linux, RESET does not release it.
  for (const qp of [a, b]) modify(qp, { state: Qps.RESET })
  assert.equal(flap(), 3)
  modify(b, toInit())
  modify(b, toRtr(a.qpn, own, { address: path(own, { sgidIndex: 3 }) }))
  const destroy = (qp: typeof a): void => void invokeNow(p.context, RcQp, 'destroy', qp.handle, {}, p.caller)
  destroy(a)
  assert.equal(flap(), 4, 'the handle holds index 1, the second queue pair index 3')
  invokeNow(p.context, Ah, 'modify', ah, { address: path(own, { sgidIndex: 4 }) }, p.caller)
  assert.equal(flap(), 1)
  destroy(b)
  p.close()
  assert.deepEqual([...gids.users], [], 'the end of the program releases all')
  assert.equal(flap(), 1)
})

test('after another MAC all GIDs leave and return, the default one with another address', () => {
  const m = machine(1)
  const [{ device }] = m.devices
  const { gids } = device.ports[0]
  const mac = Uint8Array.of(0x52, 0x54, 0, 0xaa, 0xbb, 0xcc)
  const { identity } = device.state
  addGid(device, ipv4(10, 0, 0, 7))
  const changed = Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x50, 0x54, 0, 0xff, 0xfe, 0xaa, 0xbb, 0xcc)
  const others = [identity.gids[1], ipv4(10, 0, 0, 7), identity.gids[2]]
  assert.deepEqual(replaceMac(device, mac), new Array(5).fill(GID_CHANGE), 'all leave, and four return')
  const table = () => gids.entries.flatMap((entry, i) => (entry === undefined ? [] : [[i, entry.gid]]))
  assert.deepEqual(table(), [[0, changed], ...others.map((gid, i) => [i + 1, gid])], 'those of IPv4 first')
  assert.deepEqual(replaceMac(device, mac), [])
  assert.deepEqual([device.state.identity.guid, device.state.identity.gids[0]], [identity.guid, changed])
  holdGid(gids, 0)
  holdGid(gids, 2)
  assert.equal(replaceMac(device, Uint8Array.of(2, 0, 0, 0, 0, 1)).length, 4, 'no default GID while index 0 is in use')
  assert.deepEqual(
    table(),
    [1, 3, 4].map((index, i) => [index, others[i]]),
  )
})
