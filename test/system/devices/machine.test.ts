/*
 * Programs are shown another machine (--machine): its PCI tree, processors, nodes and interfaces in sysfs, with our
 * devices in the places of its adapters, and nothing of this machine. Programs that look for adapters are in
 * machine.long.test.ts.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { before, describe, it } from 'node:test'
import { machineText, parseMachine } from '../../../src/tools/topology/machine-file.ts'
import {
  lacking,
  ownProgram,
  removeDevice,
  run,
  runUserdma,
  type Scope,
  startDaemon,
  suiteScope,
  type TestDaemon,
  temporaryFolder,
  userdma,
} from '../programs.ts'

/** A file with a root port, a switch with a GPU and an adapter, and an adapter of another vendor without a switch. */
const TEXT = `userdma machine 1
system vendor="ACME" product="A 1"
package 0 cores=0+400..1+401
package 1 cores=2+402..3+403
node 0 cpus=0-1,400-401 memory=16G distances=10,21
node 1 cpus=2-3,402-403 memory=16G distances=21,10
iommu dmar0
bus 0000:00 node=0
  0000:00:01.0 060400 8086:352a driver=pcieport speed=32.0 width=16 iommu=1/DMA-FQ
    0000:01:00.0 060400 1000:c030 driver=pcieport speed=32.0 width=16
      0000:02:00.0 060400 1000:c030 driver=pcieport speed=32.0 width=16 acs=SrcValid+ReqRedir
        0000:03:00.0 030200 10de:2330 sub=10de:16c1 rev=a1 driver=nvidia speed=32.0 width=16 iommu=3/DMA-FQ
      0000:02:01.0 060400 1000:c030 driver=pcieport speed=32.0 width=16
        0000:04:00.0 020000 15b3:1021 driver=mlx5_core speed=32.0 width=16 rdma=mlx5_0 rate=4xNDR net=ens4f0np0
bus 0000:80 node=1
  0000:80:02.0 020000 14e4:1750 driver=bnxt_en speed=16.0 width=16 rdma=bnxt_re0 rate=1xEDR
  0000:80:03.0 020700 15b3:1021 driver=mlx5_core speed=32.0 width=16 rdma=mlx5_1 layer=infiniband rate=4xHDR net=ibx001122334455
`
const SWITCH = '/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0'
const ADAPTER = `${SWITCH}/0000:02:01.0/0000:04:00.0`
const GPU = `${SWITCH}/0000:02:00.0/0000:03:00.0`
const ALL = [
  ...['0000:00:01.0', '0000:01:00.0', '0000:02:00.0', '0000:02:01.0', '0000:03:00.0', '0000:04:00.0'],
  ...['0000:80:02.0', '0000:80:03.0'],
]

const fileOf = (t: Scope, text: string): string => {
  const file = join(temporaryFolder(t), 'test.machine')
  writeFileSync(file, text)
  return file
}

describe('another machine', { skip: lacking('ibv_devinfo') }, () => {
  const scope = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(scope, { devices: [], options: ['--machine', fileOf(scope, TEXT)] })
  })

  /** The lines that a shell script prints, under the daemon. */
  const script = async (text: string): Promise<string[]> => {
    const { status, stdout, stderr } = await run(scope, 'sh', ['-ec', text], { env: daemon.env })
    assert.equal(stderr, '')
    assert.equal(status, 0, stdout)
    return stdout.trim().split('\n')
  }

  it('has its functions in the places of the file, and none of this machine', async () => {
    const lines = await script(`cd /sys/class/infiniband
      realpath mlx5_0/device mlx5_0/device/driver mlx5_0/device/.. /sys/bus/pci/devices/0000:03:00.0
      realpath /sys/class/pci_bus/0000:04/../../0000:04:00.0 /sys/class/pci_bus/0000:80/device
      readlink mlx5_0 mlx5_0/device
      cat mlx5_0/device/device mlx5_0/device/class mlx5_0/device/numa_node bnxt_re0/device/numa_node
      cat mlx5_0/device/local_cpulist mlx5_0/device/../max_link_speed mlx5_0/ports/1/rate mlx5_1/ports/1/rate
      cat mlx5_0/hca_type mlx5_1/ports/1/link_layer
      ls mlx5_0/device/net; realpath /sys/class/net/ens4f0np0 /sys/class/net/lo; cat /sys/class/net/lo/ifindex
      ls bnxt_re0/device/modalias mlx5_0/device/modalias 2>/dev/null || true
      realpath ${GPU}/iommu_group; ls /sys/kernel/iommu_groups/3/devices /sys/class/iommu
      od -An -tx1 -j24 -N3 ${SWITCH}/config; od -An -tx1 -j256 -N8 ${SWITCH}/0000:02:00.0/config
      cat /sys/class/dmi/id/product_name`)
    assert.deepEqual(lines, [
      ADAPTER,
      '/sys/bus/pci/drivers/mlx5_core',
      `${SWITCH}/0000:02:01.0`,
      GPU,
      ADAPTER,
      '/sys/devices/pci0000:80',
      `../..${ADAPTER.slice('/sys'.length)}/infiniband/mlx5_0`,
      '../../../0000:04:00.0',
      ...[
        '0x1021',
        '0x020000',
        '0',
        '1',
        '0-1,400-401',
        '32.0 GT/s PCIe',
        '400 Gb/sec (4X NDR)',
        '200 Gb/sec (4X HDR)',
      ],
      ...['MT4129', 'InfiniBand'],
      ...['ens4f0np0', `${ADAPTER}/net/ens4f0np0`, '/sys/devices/virtual/net/lo', '1'],
      'mlx5_0/device/modalias',
      ...['/sys/kernel/iommu_groups/3', '/sys/class/iommu:', 'dmar0', '', '/sys/kernel/iommu_groups/3/devices:'],
      '0000:03:00.0',
      ...[' 01 02 04', ' 0d 00 01 00 7f 00 05 00', 'A 1'],
    ])
    assert.deepEqual(await script('ls /sys/bus/pci/devices; ls /sys/class/block; ls -d /sys/devices/pci*'), [
      ...ALL,
      ...['/sys/devices/pci0000:00', '/sys/devices/pci0000:80'],
    ])
  })

  it('has its processors and nodes in sysfs, and the processors of this machine to run on', async () => {
    const lines = await script(`cd /sys/devices/system
      cat cpu/online node/online node/node1/cpulist node/node1/distance cpu/cpu402/topology/thread_siblings_list
      cat cpu/cpu402/topology/physical_package_id; grep -c MemTotal: node/node0/meminfo; cat cpu/possible; nproc
      cat /sys/fs/cgroup/cpuset.cpus.effective 2>/dev/null || echo no cpuset
      echo $HWLOC_COMPONENTS`)
    const own = (await run(scope, 'nproc', [])).stdout.trim()
    assert.deepEqual(lines, [
      ...['0-3,400-403', '0-1', '2-3,402-403', '21 10', '2,402', '1', '1', '0-403', own, 'no cpuset'],
      process.arch === 'x64' ? '-x86' : '',
    ])
  })

  it('has devices with the drivers of the adapters’ vendors', async () => {
    const { stdout } = await run(scope, 'ibv_devinfo', [], { env: daemon.env })
    assert.deepEqual(
      [...stdout.matchAll(/hca_id:\s+(\S+)|vendor_part_id:\s+(\d+)|state:\s+(\S+)/g)].map(
        ([, name, part, state]) => name ?? part ?? state,
      ),
      ['mlx5_0', '4129', 'PORT_ACTIVE', 'bnxt_re0', '0', 'PORT_ACTIVE', 'mlx5_1', '4129', 'PORT_ACTIVE'],
    )
  })

  it('gives NCCL and Mooncake the places of adapters', { skip: lacking(ownProgram('topology_readers')) }, async () => {
    const { stdout } = await run(scope, ownProgram('topology_readers'), [], { env: daemon.env })
    const port = '0x060400,0x1000,32.0 GT/s PCIe,16'
    const nccl = `nccl mlx5_0 0000:04:00.0(0x020000,0x15b3,32.0 GT/s PCIe,16) 0000:02:01.0(${port}) 0000:01:00.0(${port})`
    const lines = stdout.trim().split('\n')
    assert.match(lines[0]!, /^.* 0000:00:01\.0\(0x060400,0x8086,.*\) node=0 cpus=\d+,[\d,]*00000003$/)
    assert.equal(lines[0]!.slice(0, nccl.length), nccl)
    assert.ok(lines.includes('mooncake mlx5_0 0000:04:00.0 node=0 gpu=0000:03:00.0'), stdout)
    assert.ok(
      lines.some(line => line.startsWith('mooncake bnxt_re0 0000:80:02.0 node=1')),
      stdout,
    )
  })

  it('is captured as its file says, without the addresses in names', async () => {
    const { stdout, stderr } = await run(scope, userdma, ['machine', 'capture'], { env: daemon.env })
    const text = TEXT.replace('net=ibx001122334455', 'net=netx0')
    assert.equal(stdout, machineText(parseMachine(text, 'text')))
    assert.match(stderr, /the name of netx0 is another here/)
  })

  it('keeps the place of a device that is removed', async () => {
    await removeDevice(scope, daemon, 'bnxt_re0')
    const place = '/sys/bus/pci/devices/0000:80:02.0'
    assert.deepEqual(
      await script(`cat ${place}/vendor; ls ${place} | grep infiniband || true; ls /sys/class/infiniband`),
      [...['0x14e4', 'mlx5_0', 'mlx5_1']],
    )
  })
})

describe('--machine', { skip: lacking('ibv_devices') }, () => {
  const devicesOf = async (t: Scope, ...options: readonly string[]): Promise<string[]> => {
    const args = [
      'run',
      '--private',
      ...options,
      '--',
      'sh',
      '-c',
      'cat /sys/class/infiniband/*/ports/1/gids/[13]; ls /sys/class/infiniband',
    ]
    const { stdout, stderr } = await runUserdma(t, args)
    return [...stdout.split('\n'), stderr].filter(Boolean)
  }

  it('takes addresses from --device, and adds others; without adapters the devices are as ever', async t => {
    const machine = ['--machine', fileOf(t, TEXT.replace(/ {2}0000:80:0[23].*\n/g, ''))]
    const lines = await devicesOf(t, ...machine, '--device', 'mlx5_0@127.0.0.9', '--device', 'rxe5@127.0.0.1')
    assert.deepEqual(lines.slice(-2), ['mlx5_0', 'rxe5'])
    assert.ok(lines.includes('0000:0000:0000:0000:0000:ffff:7f00:0009'), lines.join(' '))
    assert.deepEqual((await devicesOf(t, '--machine', 'laptop')).slice(-1), ['rxe0'])
  })

  it('names what it refuses', async t => {
    for (const [options, message] of [
      [['--machine', 'hgx'], /machine "hgx": there is no such file, and no machine of this name; there are .*hgx-h100/],
      [['--machine', fileOf(t, TEXT.replace('=4xNDR', '=4xNDX'))], /test\.machine:14: rate="4xNDX": give LANESxSPEED/],
      [['--machine', '/nonexistent'], /cannot read the machine file \/nonexistent: ENOENT/],
      [
        ['--machine', fileOf(t, TEXT), '--device', 'mlx5_0@127.0.0.1,driver=mlx5,pci=0000:05:00.0'],
        /pci=0000:05:00\.0 is another function than 0000:04:00\.0, where the machine has mlx5_0; leave pci= out/,
      ],
      [
        ['--machine', fileOf(t, TEXT), '--device', 'mlx5_0@127.0.0.9,max_qp=2147483647'],
        /device mlx5_0: max_qp=2147483647 is above/,
      ],
      [
        ['--machine', fileOf(t, TEXT), '--device', 'rxe7@127.0.0.9,pci=0000:03:00.0'],
        /pci=0000:03:00\.0 is a function of the machine file that has no rdma=/,
      ],
    ] as const) {
      const { status, stderr } = await runUserdma(t, ['run', '--private', ...options, '--', 'true'])
      assert.match(stderr, message)
      assert.notEqual(status, 0)
    }
  })

  it('is a setting that a command may want of the daemon that it joins', async t => {
    const daemon = await startDaemon(t, { options: ['--machine', fileOf(t, TEXT)] })
    const { stderr } = await runUserdma(t, ['run', '--socket', daemon.socket, '--machine', 'laptop', '--', 'true'])
    assert.match(stderr, /shows the machine \S+test\.machine, not \S+laptop\.machine \(--machine\)/)
  })
})

it('this machine is captured, shown and captured again', async t => {
  const file = join(temporaryFolder(t), 'own.machine')
  assert.equal((await runUserdma(t, ['machine', 'capture', '-o', file])).status, 0)
  const again = await runUserdma(t, ['run', '--private', '--machine', file, '--', userdma, 'machine', 'capture'])
  assert.equal(again.stdout, readFileSync(file, 'utf8'))
})

it('this machine is shown without --machine', {
  skip: !existsSync('/sys/bus/pci/devices') && 'no PCI bus',
}, async t => {
  const { stdout } = await runUserdma(t, ['run', '--private', '--', 'ls', '/sys/bus/pci/devices'])
  assert.deepEqual(stdout.trim().split('\n'), readdirSync('/sys/bus/pci/devices').sort())
})
