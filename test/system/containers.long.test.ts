/*
 * Containers of podman, from an unchanged Debian with ibverbs-utils and from the image of `npm run package`: a host's
 * daemon by CDI, a daemon in the container, without root; and attacks on the daemon from inside.
 */
import assert from 'node:assert/strict'
import { appendFileSync, chmodSync, chownSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { before, describe, it } from 'node:test'
import { repoRoot } from '../paths.ts'
import { DEBIAN, LIMITS, newPodman, noContainers, OWN, PAIR } from './podman.ts'
import { assertGood, cleanEnvironment, run, runUserdma, startDaemon, suiteScope, temporaryFolder } from './programs.ts'

const skip = noContainers('newuidmap')

describe('podman', { skip }, () => {
  const scope = suiteScope()
  const prepared = newPodman(scope, skip)
  const { storage, cdi, archive, run: podman } = prepared
  before(() => prepared.prepare())

  it('gives containers the devices of a daemon on the host, and no more than a guest has', async t => {
    const daemon = await startDaemon(t, {
      devices: ['rxe0@127.0.50.21', 'rxe1@127.0.50.22', 'mlx5_0@127.0.50.24,driver=mlx5'],
    })
    assertGood(await runUserdma(t, ['cdi', '--socket', daemon.socket, '--output', join(cdi, 'userdma.json')]))
    const inside = (...words: readonly string[]) =>
      podman('run', ...LIMITS, '--device', 'userdma.dev/rdma=rxe0', ...words)

    const devinfo = await inside(DEBIAN, 'ibv_devinfo', '-d', 'rxe0')
    assert.match(devinfo.stdout, /state:\s+PORT_ACTIVE/, devinfo.stderr)
    const pair = await inside(DEBIAN, 'sh', '-c', PAIR)
    assert.equal([...pair.stdout.matchAll(/100 iters in/g)].length, 2, pair.stderr)
    const adapter = PAIR.replaceAll('rxe0', 'mlx5_0')
    const mlx5 = await inside('--device', 'userdma.dev/rdma=mlx5_0', DEBIAN, 'sh', '-c', adapter)
    assert.equal([...mlx5.stdout.matchAll(/100 iters in/g)].length, 2, mlx5.stderr)
    const two = await inside('--device', 'userdma.dev/rdma=rxe1', DEBIAN, 'ibv_devices')
    assert.match(two.stdout, /rxe1/, two.stderr)
    const own = await inside('--user', '0', OWN, 'run', '--', 'ibv_devinfo', '-d', 'rxe0')
    assert.match(own.stdout, /PORT_ACTIVE/, own.stderr)
    const user = await inside(OWN, 'run', '--', 'ibv_devices')
    assert.match(user.stderr, /does not serve user 1000; root's daemon does if it is started with `--allow-user 1000`/)

    const attacks: readonly (readonly [options: readonly string[], command: readonly string[]])[] = [
      [[], ['stop']],
      [['--pid=host'], ['stop']],
      [[], ['fault', 'set', 'drop=1']],
      [[], ['device', 'remove', 'rxe0']],
      [[], ['trace', '--', 'true']],
      [[], ['stat', '--qps']],
      [[], ['run', '--record', '/tmp/x', '--', 'true']],
    ]
    for (const [options, command] of attacks) {
      const { status, stderr } = await inside('--user', '0', ...options, OWN, ...command)
      assert.notEqual(status, 0, command.join(' '))
      assert.match(stderr, /only the (?:daemon's own user|user of this daemon)/, command.join(' '))
    }
    const tree = `${daemon.socket}.tree`
    const writes = [`rm -rf ${tree}/sys`, `echo x >${tree}/x`, `rm ${daemon.socket}`, `mount -o remount,rw ${tree}`]
    for (const command of [...writes, `ls ${tree}/../daemon.log`, 'cat /dev/infiniband/umad0'])
      assert.notEqual((await inside('--user', '0', DEBIAN, 'sh', '-c', command)).status, 0, command)
    // The daemon is as before.
    assert.match((await inside(DEBIAN, 'ibv_devices')).stdout, /rxe0/)
    assert.equal((await daemon.stat()).pid, daemon.pid)
  })

  it('runs the daemon in the container, with the default seccomp profile', async () => {
    const { stdout, stderr } = await podman('run', ...LIMITS, OWN, 'run', '--', 'sh', '-c', PAIR)
    assert.equal([...stdout.matchAll(/100 iters in/g)].length, 2, stderr)
  })

  it('serves containers of a user without root; subordinate ids get the sentence', async t => {
    const uid = 54_321
    const home = temporaryFolder(t)
    chownSync(home, uid, uid)
    chmodSync(home, 0o755)
    // A user of this mount namespace only, with a range of subordinate ids.
    for (const [name, line] of [
      ['passwd', `rdmauser:x:${uid}:${uid}::${home}:/bin/sh`],
      ['group', `rdmauser:x:${uid}:`],
      ['subuid', 'rdmauser:600000:65536'],
      ['subgid', 'rdmauser:600000:65536'],
    ] as const) {
      const copy = join(storage, name)
      copyFileSync(`/etc/${name}`, copy)
      appendFileSync(copy, `${line}\n`)
    }
    const script = join(storage, 'rootless.sh')
    const env = cleanEnvironment()
    writeFileSync(
      script,
      `set -eu
export HOME=${home} XDG_RUNTIME_DIR=${home}/runtime PATH=${join(repoRoot, 'bin')}${delimiter}${env.PATH}
cd $HOME
mkdir -m 700 runtime
mkdir -m 755 s
podman() { command podman --storage-driver vfs --cgroup-manager cgroupfs "$@"; }
podman import --quiet ${archive} ${DEBIAN}
userdma daemon --detach --socket $HOME/s/sock --device rxe0@127.0.50.23
trap 'userdma stop --socket $HOME/s/sock; podman unshare rm -rf .local' EXIT
set -- ${LIMITS.join(' ')} -v $HOME/s/sock:$HOME/s/sock:ro -v $HOME/s/sock.tree:$HOME/s/sock.tree:ro
set -- "$@" -v ${join(repoRoot, 'build', 'native')}:/opt/userdma:ro
set -- "$@" -e USERDMA_SOCKET=$HOME/s/sock -e LD_PRELOAD=/opt/userdma/libuserdma_shim.so
podman run "$@" ${DEBIAN} sh -c '${PAIR}'
podman run "$@" --user 1000 ${DEBIAN} ibv_devices
`,
    )
    const outer = `
for name in passwd group subuid subgid; do mount --bind ${storage}/$name /etc/$name; done
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
setpriv --reuid=${uid} --regid=${uid} --clear-groups sh ${script}`
    const { stdout, stderr } = await run(t, 'unshare', ['--mount', 'sh', '-ec', outer], { env })
    assert.equal([...stdout.matchAll(/100 iters in/g)].length, 2, stdout + stderr)
    assert.match(stderr, /it does not serve user 1000; root's daemon does .*--allow-user 600999`/)
  })

  it('the commands of docs/how-to/containers.md run', async t => {
    const page = readFileSync(join(repoRoot, 'docs', 'how-to', 'containers.md'), 'utf8')
    const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(match => match[1])
    assert.equal(blocks.length, 1)
    const folder = temporaryFolder(t)
    const script = `set -eux
mkdir -p /run/userdma /etc/cdi
mount -t tmpfs -o mode=755 tmpfs /run/userdma
mount -t tmpfs tmpfs /etc/cdi
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
podman() {
  words="--storage-driver vfs --root ${storage}/root --runroot ${storage}/run"
  case $1 in run) shift; set -- run --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 "$@";; build) return;; esac
  command podman $words "$@"
}
${blocks.join('\n')}`
    const env = cleanEnvironment({ PATH: [join(repoRoot, 'bin'), process.env.PATH].join(delimiter) })
    const options = { cwd: folder, env }
    const { status, stdout, stderr } = await run(t, 'unshare', ['--mount', 'bash', '-c', script], options)
    assert.equal(status, 0, stdout + stderr)
    assert.match(stdout, /1000 iters in/)
  })
})
