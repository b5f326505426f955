/*
 * Addresses in the library on a device of each link (R10, R27). Address fields of another link are refused.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setGid } from '../../../../src/core/devices/gids.ts'
import { addHook } from '../../../../src/core/index.ts'
import { createNetwork, open } from '../../../../src/library/index.ts'
import type { LinkName } from '../../../../src/spec/links.ts'
import { addressText, parseAddress } from '../../../../src/transport/wire/address.ts'
import { createThirdPartyDevice } from '../classes/third-party-driver.ts'
import { refuses } from '../mistakes/mistakes.ts'

const gid = parseAddress('2001:db8::7') as Uint8Array
const gidText = addressText(gid)
const plain = { sgidIndex: 1, port: 1, flowLabel: 0, hopLimit: 64, trafficClass: 0, sl: 0, staticRate: 0 }
const noGid = new Uint8Array(16)
/** LIDs of the device and of the peer. */
const [LOCAL_LID, PEER_LID] = [3, 9]

/** A device of a link. `passed` has the address arguments of the device's calls. */
const openOn = async (link: LinkName) => {
  const network = createNetwork()
  const passed: object[] = []
  network.addDevice(core => {
    const device = createThirdPartyDevice(core, 'third0', link, LOCAL_LID)
    setGid(device.ports[0].gids, 1, { gid, type: 0, ifindex: 0 })
    addHook(device, {
      pre({ entry: { class: cls, name } }, _object, args) {
        const names = Object.keys(args).filter(one => /address|dmac|vlan/i.test(one))
        if (names.length > 0)
          passed.push(Object.fromEntries([['call', `${cls.name}.${name}`], ...names.map(n => [n, args[n]])]))
      },
    })
    return device
  })
  const device = await open({ network, device: 'third0' })
  const pd = device.pd()
  return { device, pd, cq: device.cq({ entries: 7 }), passed }
}

for (const [link, name, list] of [
  ['ib', 'ibAddress', 'ibAddresses'],
  ['opa', 'opaAddress', 'opaAddresses'],
] as const)
  test(`${link}: a peer is addressed by a LID, and with \`isGlobal\` also by a GID`, async () => {
    const { device, pd, cq, passed } = await openOn(link)
    await using _ = device
    const qp = pd.rcQp({ sendCq: cq })
    assert.deepEqual({ ...qp.endpoint, psn: 0 }, { qpn: qp.qpn, gid: gidText, lid: LOCAL_LID, psn: 0 })
    qp.connect({ ...qp.endpoint, lid: PEER_LID }, { sl: 2 })
    qp.connect({ ...qp.endpoint, lid: PEER_LID }, { isGlobal: true, srcPathBits: 1 })
    const local = { ...plain, dgid: noGid, isGlobal: 0, srcPathBits: 0, dlid: PEER_LID }
    const routed = { ...local, dgid: gid, isGlobal: 1, srcPathBits: 1 }
    assert.deepEqual(passed.splice(0), [
      { call: 'rc_qp.modify', [name]: { ...local, sl: 2 } },
      { call: 'rc_qp.modify', [name]: routed },
    ])
    // One call creates a connected queue pair.
    pd.ucQp({ sendCq: cq, peer: { ...qp.endpoint, lid: PEER_LID } })
    assert.deepEqual(passed.splice(0)[0], { call: 'uc_qp.create', [name]: local })

    const ud = pd.udQp({ sendCq: cq })
    assert.equal(ud.endpoint.lid, LOCAL_LID)
    const ah = pd.addressHandle({ lid: PEER_LID })
    ah.modify({ lid: PEER_LID, gid: gidText, isGlobal: true, srcPathBits: 1 })
    assert.equal(pd.addressHandles([{ lid: PEER_LID }, { lid: PEER_LID }]).length, 2)
    assert.deepEqual(passed, [
      { call: 'ah.create', [name]: local },
      { call: 'ah.modify', [name]: routed },
      { call: 'pd.createAhs', [list]: [local, local] },
      // For each address the core calls ah.create.
      { call: 'ah.create', [name]: local },
      { call: 'ah.create', [name]: local },
    ])
    const { lid: _lid, ...withoutLid } = qp.endpoint
    refuses('qp.connect', /lid is missing: the device's link is (InfiniBand|Omni-Path)/, () => qp.connect(withoutLid))
    refuses('pd.addressHandle', /lid is missing/, () => pd.addressHandle({ gid: gidText }))
    refuses('pd.addressHandle', /gid undefined is not an address/, () =>
      pd.addressHandle({ lid: PEER_LID, isGlobal: true }),
    )
    refuses('pd.addressHandle', /vlan 7: the device's link is/, () => pd.addressHandle({ lid: PEER_LID, vlan: 7 }))
    refuses('qp.connect', /dmac "02:.*": the device's link is/, () =>
      qp.connect({ ...qp.endpoint, lid: PEER_LID }, { dmac: '02:00:00:00:00:01' }),
    )
  })

test('roce: a peer is addressed by a GID, with an explicit MAC address and VLAN', async () => {
  const { device, pd, cq, passed } = await openOn('roce')
  await using _ = device
  const qp = pd.rcQp({ sendCq: cq })
  assert.deepEqual(Object.keys(qp.endpoint), ['qpn', 'gid', 'psn'])
  const dmac = '02:00:00:00:00:fF'
  qp.connect(qp.endpoint, { dmac, vlan: 7 })
  pd.addressHandle({ gid: gidText, vlan: 0 }).modify({ gid: gidText, dmac })
  assert.equal(pd.addressHandles([{ gid: gidText }, { gid: gidText, dmac }]).length, 2)
  const address = { ...plain, dgid: gid, isGlobal: 1 }
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 255)
  assert.deepEqual(passed, [
    { call: 'rc_qp.modify', address, dmac: mac, vlan: 7 },
    { call: 'ah.create', address, vlan: 0 },
    { call: 'ah.modify', address, dmac: mac },
    { call: 'ah.create', address },
    { call: 'ah.create', address, dmac: mac },
  ])
  refuses('qp.connect', /lid 9: the device's link is RoCE/, () => qp.connect({ ...qp.endpoint, lid: PEER_LID }))
  refuses('pd.addressHandle', /srcPathBits 1: the device's link is RoCE/, () =>
    pd.addressHandle({ gid: gidText, srcPathBits: 1 }),
  )
  refuses('pd.addressHandle', /dmac "02:00" is not a MAC address/, () =>
    pd.addressHandle({ gid: gidText, dmac: '02:00' }),
  )
})

test('iwarp: a queue pair has no address; the connection has it', async () => {
  const { device, pd, cq, passed } = await openOn('iwarp')
  await using _ = device
  const qp = pd.rcQp({ sendCq: cq })
  qp.connect(qp.endpoint)
  assert.deepEqual(passed, [])
})

test('the soft device accepts and returns a MAC address; it adds no VLAN tags', async () => {
  await using device = await open()
  const pd = device.pd()
  const cq = device.cq()
  const dmac = '02:00:00:00:00:01'
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 1)
  const qp = pd.rcQp({ sendCq: cq })
  qp.connect(qp.endpoint, { dmac })
  assert.deepEqual(qp.query().dmac, mac)
  const withDmac = pd.rcQp({ sendCq: cq, peer: qp.endpoint, connection: { dmac } })
  assert.deepEqual(withDmac.query().dmac, mac)
  const withoutDmac = pd.rcQp({ sendCq: cq, peer: qp.endpoint })
  assert.equal(withoutDmac.query().dmac, undefined)
  const ah = pd.addressHandle({ ...qp.endpoint, dmac })
  assert.deepEqual(ah.query().dmac, mac)
  ah.modify(qp.endpoint)
  assert.equal(ah.query().dmac, undefined)

  const noVlans = { code: 'EOPNOTSUPP', attribute: 'vlan', message: /vlan: the device tags no frames; use a GID/ }
  assert.throws(() => pd.addressHandle({ ...qp.endpoint, vlan: 7 }), noVlans)
  assert.throws(() => pd.rcQp({ sendCq: cq, peer: qp.endpoint, connection: { vlan: 7 } }), noVlans)
  assert.throws(() => qp.modify({ dmac: mac }), { code: 'EINVAL', message: /dmac is part of the destination/ })
  // The description of the class has a MAC address, but no VLAN.
  const { modify, query } = device.interface().find(({ name }) => name === 'rc_qp')!.methods
  assert.deepEqual(
    [modify.in.dmac?.optional, modify.in.vlan, modify.out.vlan, query.out.vlan],
    [true, undefined, undefined, undefined],
  )
})
