/*
 * The tree of files that RDMA programs read before they open a device.
 */
import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { identify } from '../../../src/core/devices/identity.ts'
import {
  hasNode,
  makeRoot,
  nodeRdev,
  removeFromTree,
  renameInTree,
  type TreeDevice,
  updateTree,
  writeTree,
} from '../../../src/daemon/files/tree.ts'
import { GidType, LinkLayer, LinkSpeed, LinkWidth, NodeType, PhysState, PortState } from '../../../src/spec/enums.ts'
import { CM_NODE, SYSTEM_NODE, UMAD_NODES } from '../../../src/spec/session.ts'
import { makedev, scratchFolder } from '../../tools.ts'

const device = (name: string, node: number): TreeDevice => {
  const mac = Uint8Array.of(0x52, 0x54, 0, 0x77, 0, 2)
  const address = Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 77, 0, 2])
  const identity = identify(address, { mac, name: 'enp1s0', index: 2 })
  const gids = identity.gids.map((gid, index) => ({ index, gid, type: GidType.values.ROCE_V2 }))
  const port = {
    gids,
    state: PortState.values.ACTIVE,
    physState: PhysState.values.LINK_UP,
    linkLayer: LinkLayer.values.ETHERNET,
    activeWidth: LinkWidth.values.X1,
    activeSpeed: LinkSpeed.values.SDR,
    pkeys: [0xffff],
    lid: 0,
    lmc: 0,
    smLid: 0,
    smSl: 0,
    portCapFlags: 0x10000,
  }
  return {
    ...identity,
    name,
    node,
    nodeType: NodeType.values.CA,
    driver: 'rxe',
    abi: 2,
    port,
    hasUmad: true,
    hasIssm: false,
  }
}

const folder = scratchFolder()

test('the tree has the files in which libibverbs looks for devices', () => {
  const root = join(folder, 'a')
  writeTree(root, [device('rxe0', 0), device('rxe7', 1)])
  const read = (path: string): string => readFileSync(join(root, path), 'latin1')
  assert.equal(read('sys/class/infiniband_verbs/abi_version'), '6\n')
  assert.deepEqual(readdirSync(join(root, 'sys/class/infiniband')).sort(), ['rxe0', 'rxe7'])
  assert.equal(read('sys/class/infiniband_verbs/uverbs1/ibdev'), 'rxe7\n')
  assert.equal(read('sys/class/infiniband_verbs/uverbs1/dev'), '231:193\n')
  assert.equal(read('sys/class/infiniband_verbs/uverbs1/abi_version'), '2\n')
  assert.equal(read('sys/class/infiniband/rxe0/node_type'), '1: CA\n')
  assert.equal(read('sys/class/infiniband/rxe0/node_guid'), '5054:00ff:fe77:0002\n')
  assert.equal(read('sys/class/infiniband/rxe0/ports/1/gids/0'), 'fe80:0000:0000:0000:5054:00ff:fe77:0002\n')
  assert.equal(read('sys/class/infiniband/rxe0/ports/1/gids/1'), '0000:0000:0000:0000:0000:ffff:0a4d:0002\n')
  assert.equal(read('sys/class/infiniband/rxe0/ports/1/gid_attrs/types/1'), 'RoCE v2\n')
  assert.equal(read('sys/class/infiniband/rxe0/ports/1/gid_attrs/ndevs/1'), 'enp1s0\n')
  assert.equal(read('sys/class/infiniband/rxe0/ports/1/pkeys/0'), '0xffff\n')
  assert.equal(read('sys/class/infiniband/rxe0/ports/1/state'), '4: ACTIVE\n')
  assert.ok(existsSync(join(root, 'dev/infiniband/uverbs0')) && existsSync(join(root, 'dev/infiniband/uverbs1')))
  assert.ok(existsSync(join(root, 'dev/infiniband/userdma')))
  assert.equal(nodeRdev(1), makedev(231, 193))
  assert.equal(nodeRdev(65), 2 ** 20 + makedev(231, 1), 'makedev(231, 257)')
  assert.deepEqual([UMAD_NODES, UMAD_NODES + 1, CM_NODE, SYSTEM_NODE].map(nodeRdev), [
    makedev(231, 0),
    makedev(231, 1),
    makedev(10, 122),
    0,
  ])
  assert.equal(read('sys/class/infiniband_mad/umad1/dev'), '231:1\n')
  assert.equal(read('sys/dev/char/231:193/ibdev'), 'rxe7\n')
  assert.equal(read('sys/dev/char/231:1/dev'), '231:1\n')
  assert.equal(readlinkSync(join(root, 'dev/char/231:0')), '../infiniband/umad0')
  assert.ok(existsSync(join(root, 'dev/char/231:193')))
  assert.equal(
    read('sys/class/infiniband_verbs/uverbs1/uevent'),
    'MAJOR=231\nMINOR=193\nDEVNAME=infiniband/uverbs1\nDEVMODE=0666\n',
  )
})

test('a device without a port has neither a port nor a umad file, also after a rename', () => {
  const root = join(folder, 'f')
  const withoutPort = (name: string): TreeDevice => ({ ...device(name, 0), port: undefined, hasUmad: false })
  writeTree(root, [withoutPort('ctx0')])
  renameInTree(root, 'ctx0', withoutPort('ctx1'))
  updateTree(root, withoutPort('ctx1'))
  assert.equal(existsSync(join(root, 'sys/class/infiniband/ctx1/ports')), false)
  assert.equal(existsSync(join(root, 'sys/class/infiniband/ctx1/parent')), false)
  assert.deepEqual(readdirSync(join(root, 'sys/class/infiniband_mad')), ['abi_version'])
  assert.equal(existsSync(join(root, 'sys/devices/virtual/infiniband_mad')), false)
  assert.deepEqual(readdirSync(join(root, 'dev/infiniband')).sort(), ['rdma_cm', 'userdma', 'uverbs0'])
})

test('after a rename, classes link to their devices, and only node_desc is writable; a removal leaves no file', () => {
  const root = join(folder, 'e')
  writeTree(root, [device('rxe0', 0)])
  renameInTree(root, 'rxe0', device('mlx5_0', 0))
  const entries = ['infiniband/mlx5_0', 'infiniband_verbs/uverbs0', 'infiniband_mad/umad0', 'misc/rdma_cm']
  for (const entry of entries) {
    assert.equal(readlinkSync(join(root, 'sys/class', entry)), `../../devices/virtual/${entry}`)
    const parent = realpathSync(join(root, 'sys/class', entry, 'subsystem'))
    assert.equal(parent, join(realpathSync(root), 'sys/class', dirname(entry)))
  }
  const attribute = (path: string) => join(root, 'sys/class', path)
  assert.equal(readFileSync(attribute('infiniband/mlx5_0/uevent'), 'latin1'), 'NAME=mlx5_0\n')
  const cm = 'MAJOR=10\nMINOR=122\nDEVNAME=infiniband/rdma_cm\nDEVMODE=0666\n'
  assert.equal(readFileSync(attribute('misc/rdma_cm/uevent'), 'latin1'), cm)
  const modes = ['infiniband/mlx5_0/node_guid', 'infiniband_verbs/uverbs0/ibdev', 'infiniband/mlx5_0/node_desc']
  assert.deepEqual(
    modes.map(path => statSync(attribute(path)).mode & 0o777),
    [0o444, 0o444, 0o644],
  )
  removeFromTree(root, { name: 'mlx5_0', node: 0 })
  for (const parent of ['sys/class', 'sys/devices/virtual'])
    assert.deepEqual(readdirSync(join(root, parent, 'infiniband')), [])
  assert.deepEqual(readdirSync(join(root, 'dev/infiniband')).sort(), ['rdma_cm', 'userdma'])
  for (const parent of ['dev', 'sys/dev']) assert.deepEqual(readdirSync(join(root, parent, 'char')), [])
})

test('a device with a PCI function follows its interface, and a removal leaves the functions of other devices', () => {
  const root = join(folder, 'pci')
  const onBus = (name: string, node: number, number: number): TreeDevice => ({
    ...device(name, node),
    pci: { address: `0000:81:00.${number}`, node: -1, model: 'mlx5' },
  })
  const bus = (path: string): string[] => readdirSync(join(root, 'sys', path)).sort()
  writeTree(root, [onBus('mlx5_0', 0, 0), onBus('mlx5_1', 1, 1)])
  assert.equal(readlinkSync(join(root, 'sys/class/infiniband/mlx5_1/device/net/enp1s0')), '/sys/class/net/enp1s0')
  updateTree(root, { ...onBus('mlx5_1', 1, 1), interfaceName: 'eth7' })
  assert.deepEqual(bus('class/infiniband/mlx5_1/device/net'), ['eth7'])
  renameInTree(root, 'mlx5_1', onBus('mlx5_9', 1, 1))
  assert.deepEqual(bus('devices/pci0000:81/0000:81:00.1/infiniband'), ['mlx5_9'])
  removeFromTree(root, onBus('mlx5_0', 0, 0))
  for (const path of ['bus/pci/devices', 'bus/pci/drivers/mlx5_core', 'devices/pci0000:81'])
    assert.deepEqual(bus(path), ['0000:81:00.1'])
  removeFromTree(root, onBus('mlx5_9', 1, 1))
  assert.deepEqual([bus('bus/pci/devices'), bus('bus/pci/drivers'), bus('devices')], [[], [], ['virtual']])
  assert.deepEqual(bus('class/infiniband'), [])
})

test('the number of umad192 is also that of uverbs0, and leads to uverbs0', () => {
  const root = join(folder, 'numbers')
  writeTree(root, [device('rxe0', 0), device('rxe192', 192)])
  const target = () => readlinkSync(join(root, 'dev/char/231:192'))
  assert.equal(target(), '../infiniband/uverbs0')
  assert.ok(existsSync(join(root, 'sys/class/infiniband/rxe192/node_guid')))
  removeFromTree(root, { name: 'rxe192', node: 192 })
  assert.equal(target(), '../infiniband/uverbs0')
})

test('an old tree is removed completely', () => {
  const root = join(folder, 'b')
  mkdirSync(join(root, 'sys/class/infiniband/rxe9'), { recursive: true })
  writeFileSync(join(root, 'sys/class/infiniband/rxe9/node_type'), 'old')
  makeRoot(root)
  writeTree(root, [])
  assert.deepEqual(readdirSync(join(root, 'sys/class/infiniband')), [], 'without devices the list exists and is empty')
})

test("node_type has Linux's names", () => {
  const root = join(folder, 'node-types')
  const { RNIC, SWITCH, USNIC_UDP, UNSPECIFIED } = NodeType.values
  const texts = [RNIC, SWITCH, USNIC_UDP, UNSPECIFIED].map(nodeType => {
    makeRoot(root)
    writeTree(root, [{ ...device('rxe0', 0), nodeType }])
    return readFileSync(join(root, 'sys/class/infiniband/rxe0/node_type'), 'latin1')
  })
  assert.deepEqual(texts, ['4: RNIC\n', '2: switch\n', '6: usNIC UDP\n', '7: unspecified\n'])
})

test('a renamed device has its files under the new name', () => {
  const root = join(folder, 'd')
  writeTree(root, [device('rxe0', 0), device('rxe1', 1)])
  renameInTree(root, 'rxe1', device('mlx5_0', 1))
  assert.deepEqual(readdirSync(join(root, 'sys/class/infiniband')).sort(), ['mlx5_0', 'rxe0'])
  assert.equal(readFileSync(join(root, 'sys/class/infiniband_verbs/uverbs1/ibdev'), 'latin1'), 'mlx5_0\n')
  assert.equal(hasNode(root, 'uverbs1'), true)
  assert.equal(readFileSync(join(root, 'sys/class/infiniband_mad/umad1/ibdev'), 'latin1'), 'mlx5_0\n')
  assert.equal(hasNode(root, 'umad1'), true)
  assert.equal(hasNode(root, 'issm1'), false)
})

test('a port of an EFA device has the link layer, rate and GID type that Linux writes for one', () => {
  const root = join(folder, 'efa')
  const rxe = device('efa0', 0)
  const link = {
    linkLayer: LinkLayer.values.UNSPECIFIED,
    activeWidth: LinkWidth.values.X4,
    activeSpeed: LinkSpeed.values.EDR,
  }
  const gids = [{ index: 0, gid: new Uint8Array(16), type: GidType.values.IB }]
  writeTree(root, [{ ...rxe, driver: 'efa', port: { ...rxe.port!, ...link, gids, lmc: 1, portCapFlags: 0 } }])
  const port = join(root, 'sys/class/infiniband/efa0/ports/1')
  const read = (path: string): string => readFileSync(join(port, path), 'latin1')
  assert.deepEqual(['link_layer', 'rate', 'gid_attrs/types/0', 'lid_mask_count', 'cap_mask'].map(read), [
    'Unknown\n',
    '100 Gb/sec (4X EDR)\n',
    'IB/RoCE v1\n',
    '1\n',
    '0x00000000\n',
  ])
})

test('an update rewrites the files of a port, and removes files of removed GIDs', () => {
  const root = join(folder, 'c')
  const before = device('rxe0', 0)
  writeTree(root, [before])
  const gid = new Uint8Array(16).fill(0xab)
  updateTree(root, {
    ...before,
    interfaceName: 'eth7',
    port: {
      ...before.port!,
      gids: [{ index: 2, gid, type: GidType.values.ROCE_V2 }],
      state: PortState.values.DOWN,
      physState: PhysState.values.DISABLED,
    },
  })
  const port = join(root, 'sys/class/infiniband/rxe0/ports/1')
  const read = (path: string): string => readFileSync(join(port, path), 'latin1')
  assert.deepEqual([read('state'), read('phys_state')], ['1: DOWN\n', '3: Disabled\n'])
  for (const names of ['gids', 'gid_attrs/types', 'gid_attrs/ndevs'])
    assert.deepEqual(readdirSync(join(port, names)), ['2'])
  assert.match(read('gids/2'), /^abab(:abab){7}\n$/)
  assert.equal(read('gid_attrs/ndevs/2'), 'eth7\n')
  assert.equal(read('../../parent'), 'eth7\n', 'the interface was renamed')
  assert.deepEqual(readdirSync(root).sort(), ['dev', 'sys'])
})

test('attributes of equal text are one file with several names, until one of them changes', () => {
  const root = join(folder, 'equal')
  const before = device('mlx5_0', 0)
  const withKeys = (...pkeys: number[]): TreeDevice => ({ ...before, port: { ...before.port!, pkeys } })
  writeTree(root, [withKeys(0xffff, 0, 0, 0)])
  const keys = join(root, 'sys/class/infiniband/mlx5_0/ports/1/pkeys')
  assert.equal(statSync(join(keys, '1')).ino, statSync(join(keys, '3')).ino)
  updateTree(root, withKeys(0xffff, 0, 0x8001, 0), withKeys(0xffff, 0, 0, 0))
  const texts = [0, 1, 2, 3].map(i => readFileSync(join(keys, String(i)), 'latin1'))
  assert.deepEqual(texts, ['0xffff\n', '0x0000\n', '0x8001\n', '0x0000\n'])
})
