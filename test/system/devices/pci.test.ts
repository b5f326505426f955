/*
 * Devices with a PCI function as their parent (`--device NAME@ADDRESS,pci=BDF`): what programs find in sysfs. Programs
 * that look for adapters this way are in pci.long.test.ts.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { describe, it } from 'node:test'
import { openToolSession } from '../../../src/daemon/client/tool-session.ts'
import { parseDevice } from '../../../src/daemon/devices/device-spec.ts'
import { lacking, run, runUserdma, type Scope, startDaemon, type TestDaemon } from '../programs.ts'

const BDF = '0000:81:00.0'
const FOLDER = `/sys/devices/pci0000:81/${BDF}`
const DEVICE = `mlx5_0@127.0.0.1,pci=${BDF},numa=0,model=mlx5`
const MACHINE = '/sys/bus/pci/devices'

/** The lines that a shell script prints, under the daemon. */
const script = async (t: Scope, { env }: TestDaemon, text: string): Promise<string[]> => {
  const { status, stdout, stderr } = await run(t, 'sh', ['-ec', text], { env })
  assert.equal(stderr, '')
  assert.equal(status, 0)
  return stdout.trim().split('\n')
}

/** The daemon's message, if it refuses the change. */
const change = async ({ socket }: TestDaemon, request: { add: string } | { remove: string }): Promise<string> => {
  const client = await openToolSession(socket)
  try {
    await client.changeDevices('add' in request ? { add: parseDevice(request.add) } : request)
    return ''
  } catch (error) {
    return (error as Error).message
  } finally {
    client.close()
  }
}

describe('a device with a PCI function', { skip: lacking('ibv_devinfo') }, () => {
  it('is below the function, and the function beside those of the machine', async t => {
    const daemon = await startDaemon(t, { devices: [DEVICE, 'rxe1@127.0.0.2'] })
    const lines = await script(
      t,
      daemon,
      `cd /sys/class/infiniband
      readlink mlx5_0 mlx5_0/device mlx5_0/device/driver
      realpath mlx5_0/device mlx5_0/device/driver mlx5_0/device/subsystem ${MACHINE}/${BDF} ../infiniband_verbs/uverbs0/device
      cat mlx5_0/device/vendor mlx5_0/device/device mlx5_0/device/class mlx5_0/device/numa_node
      ls mlx5_0/device/net; cat mlx5_0/device/net/lo/address
      cd mlx5_0/device; pwd -P; cat ../${BDF}/infiniband/mlx5_0/ports/1/hw_counters/lifespan
      cd /sys/bus/pci/devices; cat ${BDF}/uevent; cd /sys/bus; cat pci/devices/${BDF}/irq
      cat ${MACHINE}/../drivers/mlx5_core/${BDF}/enable
      ls -d /sys/class/infiniband/rxe1/device 2>&1 || true`,
    )
    assert.deepEqual(lines, [
      `../../devices/pci0000:81/${BDF}/infiniband/mlx5_0`,
      `../../../${BDF}`,
      '../../../bus/pci/drivers/mlx5_core',
      FOLDER,
      '/sys/bus/pci/drivers/mlx5_core',
      '/sys/bus/pci',
      FOLDER,
      FOLDER,
      ...['0x15b3', '0x1017', '0x020000', '0'],
      ...['lo', '00:00:00:00:00:00'],
      FOLDER,
      '10',
      'DRIVER=mlx5_core',
      'PCI_CLASS=20000',
      'PCI_ID=15B3:1017',
      'PCI_SUBSYS_ID=15B3:0006',
      `PCI_SLOT_NAME=${BDF}`,
      'MODALIAS=pci:v000015B3d00001017sv000015B3sd00000006bc02sc00i00',
      ...['0', '1'],
      "ls: cannot access '/sys/class/infiniband/rxe1/device': No such file or directory",
    ])
    const own = existsSync(MACHINE) ? readdirSync(MACHINE) : []
    assert.deepEqual((await script(t, daemon, `ls ${MACHINE}`)).sort(), [...own, BDF].sort())
    const found = await script(t, daemon, `find ${MACHINE} /sys/devices/pci0000:81 -maxdepth 1 -name '*:*'`)
    assert.deepEqual(
      found.sort(),
      [...own.concat(BDF).map(name => `${MACHINE}/${name}`), '/sys/devices/pci0000:81', FOLDER].sort(),
    )
    for (const name of own) assert.ok(existsSync(`${MACHINE}/${name}`), 'the machine is as before')
    // libmlx5 could not open the device.
    const { status, stdout } = await run(t, 'ibv_devinfo', ['-d', 'mlx5_0'], { env: daemon.env })
    assert.deepEqual([status, /PORT_ACTIVE/.test(stdout)], [0, true], stdout)
  })

  it('is an InfiniBand controller if its port is one', async t => {
    const daemon = await startDaemon(t, { devices: [`mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband,pci=${BDF}`] })
    const lines = await script(t, daemon, `cd ${FOLDER}; cat class uevent; od -An -tx1 -j9 -N3 config`)
    assert.equal(lines[0], '0x020700')
    assert.ok(lines.includes('PCI_CLASS=20700'), lines.join(' '))
    assert.match(lines.join(' '), /bc02sc07i00.* 00 07 02/)
  })

  it('is added, renamed and removed while the daemon runs', { skip: lacking('rdma') }, async t => {
    const daemon = await startDaemon(t, { devices: ['rxe0@127.0.0.2'] })
    const list = 'ls /sys/class/infiniband; readlink -f /sys/class/infiniband/*/device; ls -d /sys/devices/pci0000:8*'
    assert.equal(await change(daemon, { add: DEVICE }), '')
    assert.equal(await change(daemon, { add: 'efa1@127.0.0.3,model=efa,pci=82:00.1' }), '')
    await run(t, 'rdma', ['dev', 'set', 'mlx5_0', 'name', 'mlx5_7'], { env: daemon.env })
    const functions = ['/sys/devices/pci0000:81/0000:81:00.0', '/sys/devices/pci0000:82/0000:82:00.1']
    assert.deepEqual(await script(t, daemon, `${list} | cat; cat /sys/class/infiniband/mlx5_7/uevent`), [
      ...['efa1', 'mlx5_7', 'rxe0'],
      functions[1],
      functions[0],
      ...['/sys/devices/pci0000:81', '/sys/devices/pci0000:82'],
      'NAME=mlx5_7',
    ])
    const { stdout } = await runUserdma(t, ['devices', '--socket', daemon.socket])
    const column = stdout
      .trim()
      .split('\n')
      .map(line => line.split(/ {2,}/).at(-1))
    assert.deepEqual(column, ['PCI function', '-', `${BDF} (mlx5, NUMA node 0)`, '0000:82:00.1 (efa)'])

    const [own] = existsSync(MACHINE) ? readdirSync(MACHINE) : []
    for (const [device, message] of [
      [`mlx5_1@127.0.0.4,pci=${BDF}`, `devices mlx5_7 and mlx5_1 have the same PCI address ${BDF}; each needs its own`],
      ['mlx5_1@127.0.0.4,pci=83:00.0,numa=900', /numa=900 is no NUMA node of this machine, which has 0/],
      ...(own === undefined
        ? []
        : ([[`mlx5_1@127.0.0.4,pci=${own}`, `pci=${own} is a function of this machine`]] as const)),
    ] as const)
      assert.match(await change(daemon, { add: device }), new RegExp(message))

    await change(daemon, { remove: 'mlx5_7' })
    assert.deepEqual(await script(t, daemon, `${list}; ls -d ${MACHINE}/000*:8*`), [
      ...['efa1', 'rxe0'],
      functions[1],
      '/sys/devices/pci0000:82',
      `${MACHINE}/0000:82:00.1`,
    ])
  })

  const isRoot = process.geteuid?.() === 0
  it('is found where the machine has no PCI bus', { skip: !isRoot && 'needs root: it mounts' }, async t => {
    const daemon = await startDaemon(t, { devices: [DEVICE] })
    const text = `mount -t tmpfs none /sys/bus; ls /sys/bus ${MACHINE}; cat ${MACHINE}/${BDF}/vendor`
    const { stdout, stderr } = await run(t, 'unshare', ['-m', 'sh', '-ec', text], { env: daemon.env })
    assert.equal(stdout, `/sys/bus:\npci\n\n${MACHINE}:\n${BDF}\n0x15b3\n`, stderr)
  })
})
