/*
 * `userdma net`: programs on hosts of a small net, and what is left of nets.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { until } from '../limits.ts'
import { longOnly } from '../long-run.ts'
import { findTool } from '../tools.ts'
import { canMakeNets, newNet, useNet } from './nets.ts'
import {
  assertGood,
  lacking,
  NOBODY,
  noOtherUser,
  run,
  runUserdma,
  start,
  temporaryFolder,
  userdma,
} from './programs.ts'

const skip = lacking('ibv_rc_pingpong', 'ibv_devinfo', 'ip')

describe('userdma net', { skip, concurrency: true }, () => {
  // Without root, where a test of root can be another user; net.long.test.ts has root.
  it('makes hosts on which programs find devices and each other', async t => {
    if (noOtherUser() !== false) return useNet(t, {})
    const folder = temporaryFolder(t)
    chownSync(folder, NOBODY, NOBODY)
    chmodSync(folder, 0o700)
    await useNet(t, { uid: NOBODY, gid: NOBODY }, folder)
  })

  it('has routers: two hosts of two subnets, over the one of two routers that is left', async t => {
    if (!canMakeNets(t)) return
    const routers = ['r', 'q'].flatMap(router => [`{ between: [s, ${router}] }`, `{ between: [${router}, z] }`])
    const net = newNet(
      t,
      `hosts: [a, b]\nswitches: [s, z]\nrouters: [r, q]\nlinks: [{ between: [a, s] }, { between: [b, z] }, ${routers.join(', ')}]\n`,
    )
    const file = join(net.folder, 'play.yaml')
    const run = 'stdbuf -oL ibv_rc_pingpong -g 1 -n 500'
    writeFileSync(
      file,
      `net: ${net.file}
programs:
  server: { host: b, run: "${run}" }
  client: { host: a, run: "${run} b", when: { line: { program: server, matches: "local address" } }, expect: { output: 500 iters } }
events:
  - { when: { completions: { program: client, nth: 300 } }, router: { name: r, down: 100ms } }
`,
    )
    // Of the same router: Linux may take a second until it carries packets again.
    const played = await net.net('play', file, '--fault', 'a:completion=*,nth=600,cable=r:z:100ms')
    assertGood(played)
    assert.match(
      played.stdout,
      /the router r goes down for 100ms\n(?:.*\n)*.* the link between r and z goes down for 100ms/,
    )
    net.assertGone()
  })

  it('is removed after SIGKILL and SIGINT in the middle, and not by two at once', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: 3')
    const plan = join(net.folder, 'userdma', 'net', net.name)
    const begun = async (isReached: () => boolean): Promise<ReturnType<typeof net.startNet>> => {
      const up = net.startNet('up', net.file)
      await until(isReached, () => 'the net does not come up')
      return up
    }
    const killed = await begun(() => existsSync(join(plan, 'h3')))
    killed.child.kill('SIGKILL')
    await killed.ended
    const early = await net.net('exec', '--net', net.name, 'h1', '--', 'true')
    assert.match(
      early.stderr,
      /^userdma: the net \w+ is not up: its `net up` is at work or was killed; `userdma net down/,
    )
    assertGood(await net.net('down', net.name))
    net.assertGone()
    const again = await begun(() => existsSync(join(plan, 'h1')))
    again.child.kill('SIGSTOP')
    const other = await net.net('up', net.file)
    assert.match(other.stderr, /^userdma: \S+\.lock is locked by process \d+, which changes the net \w+; end it and/)
    again.child.kill('SIGINT')
    again.child.kill('SIGCONT')
    assert.equal((await again.ended).signal, 'SIGINT')
    net.assertGone()
    const none = await net.net('down', net.name)
    assert.deepEqual([none.status, none.stderr], [1, `userdma: there is no net "${net.name}"\n`])
  })

  it("leaves root's net of another folder as it is", { skip: longOnly }, async t => {
    if (process.geteuid?.() !== 0 || !canMakeNets(t)) return
    const net = newNet(t, 'hosts: 1')
    await net.up()
    const folder = temporaryFolder(t)
    const elsewhere = (...args: string[]) =>
      runUserdma(t, ['net', ...args], { env: { ...process.env, XDG_RUNTIME_DIR: folder } })
    const up = await elsewhere('up', net.file)
    assert.equal(up.status, 1)
    assert.ok(
      up.stderr.startsWith(
        `userdma: root has a net ${net.name} already, in the folder ${net.folder}/userdma/net/${net.name}; give`,
      ),
      up.stderr,
    )
    assert.equal((await elsewhere('down', net.name)).stderr, `userdma: there is no net "${net.name}"\n`)
    assert.equal((await net.show()).hosts[0]!.daemon.state, 'running')
    assertGood(await net.net('down', net.name))
    net.assertGone()
  })

  it('is removed also if its state is damaged', { skip: longOnly }, async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: 1')
    await net.up()
    const state = join(net.folder, 'userdma', 'net', net.name, 'net.json')
    for (const text of ['{}', 'null', '{"phase":"up","file":"x","plan":{}}']) {
      writeFileSync(state, text)
      for (const words of text === '{}' ? [['show'], ['up', net.file], ['exec', 'h1', '--', 'true']] : [['show']])
        assert.equal(
          (await net.net(...words)).stderr,
          `userdma: the state of the net ${net.name}, ${state}, is damaged; \`userdma net down ${net.name}\` removes the net\n`,
        )
    }
    assertGood(await net.net('down'))
    net.assertGone()
  })

  it('says what is missing', async t => {
    const folder = temporaryFolder(t)
    const file = join(folder, 'lab.yaml')
    writeFileSync(file, 'hosts: 2\nlinks: [{ between: [h1, h2], mtu: 68 }]\n')
    const env = { ...process.env, XDG_RUNTIME_DIR: folder }
    const up = (path: string, more = {}) => runUserdma(t, ['net', 'up', path], { env, ...more })
    const [wrong, none] = await Promise.all([up(file), up(join(folder, 'none'))])
    assert.deepEqual(
      [wrong.status, wrong.stderr],
      [2, `userdma: ${file}:2:35: mtu "68": give an integer from 352 to 65535\n`],
    )
    assert.deepEqual([none.status, none.stderr], [2, `userdma: cannot read the topology ${folder}/none: ENOENT\n`])
    // A folder with `unshare` that fails, as where the system refuses user namespaces.
    writeFileSync(file, 'hosts: 2\n')
    if (noOtherUser() !== false) return
    const tools = join(folder, 'tools')
    mkdirSync(tools)
    for (const name of ['ip', 'tc', 'nsenter', 'mount', 'sh', 'hostname'])
      symlinkSync(findTool(name) ?? '/', join(tools, name))
    writeFileSync(join(tools, 'unshare'), '#!/bin/sh\necho "unshare failed: Operation not permitted" >&2; exit 1\n')
    chmodSync(join(tools, 'unshare'), 0o755)
    spawnSync('chown', ['-R', `${NOBODY}`, folder])
    const refused = await up(file, {
      env: { ...env, PATH: `${tools}:${process.env.PATH}` },
      uid: NOBODY,
      gid: NOBODY,
      cwd: '/',
    })
    assert.match(
      refused.stderr,
      /^userdma: nets need network namespaces, which this system gives only to root \(unshare failed: Operation not permitted\); run `userdma net` as root, or allow user namespaces/,
    )
    assert.ok(!existsSync(join(folder, 'userdma', 'net', 'lab')), userdma)
  })
})

// By themselves: the clean-up of each keeps this process from looking, which the tests above do often.
describe('hosts of userdma net', { skip }, () => {
  it('gives hosts folders of their own, and one path to the daemon of each; `exec --shell` goes from host to host', async t => {
    if (!canMakeNets(t)) return
    const shared = join(temporaryFolder(t), 'shared')
    mkdirSync(shared)
    chmodSync(shared, 0o1777)
    const net = newNet(t, `hosts: { h1:, h2:, h3: { driver: none } }\nfolders: [${shared}]`)
    await net.up()
    assert.deepEqual(
      (await net.show()).hosts.map(({ daemon, interfaces }) => [daemon.state, interfaces[0]!.device]),
      [
        ['running', 'rxe0'],
        ['running', 'rxe0'],
        ['none', undefined],
      ],
    )
    const output = async (host: string, ...words: readonly string[]): Promise<string> => {
      const ended = await net.net('exec', '--net', net.name, '--shell', host, ...words)
      assertGood(ended)
      return ended.stdout
    }
    const hop = `${userdma} net exec --net ${net.name} --shell`
    const look = `hostname; cat ${shared}/x; stat -c %a ${shared}; stat -c '%n %i' "$USERDMA_SOCKET"`
    await output('h1', 'echo', 'one', '>', `${shared}/x`)
    assert.equal(await output('h3', `ls ${shared}; echo "[$USERDMA_SOCKET]"`), '[]\n')
    await output('h1', `${hop} h2 'echo two > ${shared}/x'`)
    const [first, second] = [await output('h1', look), await output('h1', `${hop} h2 '${look.replaceAll("'", '"')}'`)]
    assert.match(first, /^h1\none\n1777\n/)
    assert.match(second, /^h2\ntwo\n1777\n/)
    const socket = (text: string): string[] => text.trim().split('\n').at(-1)!.split(' ')
    assert.equal(socket(first)[0], socket(second)[0])
    assert.notEqual(socket(first)[1], socket(second)[1])
    assert.deepEqual(readdirSync(shared), [])
    if (process.geteuid?.() === 0)
      assert.deepEqual(
        (await output('h3', 'ls /sys/fs/cgroup')).split('\n').filter(Boolean),
        readdirSync('/sys/fs/cgroup').sort(),
      )
    const late = await net.net('exec', 'h1', '--net', net.name, '--', 'true')
    assert.match(late.stderr, /^userdma: net exec: options such as "--net" stand before the host/)
    const down = `${userdma} net down ${net.name} 2>&1; true`
    assert.match(await output('h1', down), /^userdma: this is a host of the net \S+; run `userdma net down` outside/)
    await output('h1', 'true')
    assertGood(await net.net('down', net.name))
    net.assertGone()
    const refusal = async (path: string): Promise<string> =>
      (await newNet(t, `hosts: 1\nfolders: [${path}]`, {}, net.folder).tryUp()).stderr
    assert.match(await refusal('/none'), /^userdma: folders: \/none is no folder of this machine; make it/)
    assert.match(
      await refusal(net.folder),
      /^userdma: folders: \S+ has the state of the net, \S+; name folders below it/,
    )
  })

  it('takes a holder that has ended and is a zombie for ended', { skip: longOnly || noOtherUser() }, async t => {
    // Nothing takes the status of processes whose parent is this `sleep`.
    const init = start(t, 'unshare', [
      '--pid',
      '--fork',
      '--mount-proc',
      '--kill-child',
      'sh',
      '-c',
      'echo ready; exec sleep 1000',
    ])
    await init.printed(/ready/)
    const [pid = ''] = readFileSync(`/proc/${init.child.pid}/task/${init.child.pid}/children`, 'utf8').split(' ')
    const folder = temporaryFolder(t)
    chownSync(folder, NOBODY, NOBODY)
    chmodSync(folder, 0o700)
    const file = join(folder, 'z.yaml')
    writeFileSync(file, `name: z${process.pid}\nhosts: 1\n`)
    const user = [
      'setpriv',
      `--reuid=${NOBODY}`,
      `--regid=${NOBODY}`,
      '--clear-groups',
      'env',
      `XDG_RUNTIME_DIR=${folder}`,
    ]
    const net = (...words: string[]) =>
      run(t, 'nsenter', [`--target=${pid}`, '--pid', '--mount', '--', ...user, userdma, 'net', ...words], { cwd: '/' })
    const up = await net('up', file)
    if (/only to root/.test(up.stderr)) return t.skip('user namespaces are refused')
    assertGood(up)
    const state = readFileSync(join(folder, 'userdma', 'net', `z${process.pid}`, 'net.json'), 'utf8')
    const { holder } = JSON.parse(state) as { readonly holder: { readonly pid: number } }
    const ended = 'kill -KILL "$1"; while ! grep -q "^State:.Z" "/proc/$1/status"; do :; done'
    assertGood(
      await run(t, 'nsenter', [`--target=${pid}`, '--pid', '--mount', '--', 'sh', '-c', ended, 'sh', `${holder.pid}`]),
    )
    assert.match(
      (await net('exec', 'h1', 'true')).stderr,
      /^userdma: process \d+, which kept the namespaces of the net z\d+, was killed/,
    )
    assert.match((await net('show')).stdout, /^h1 .* process \d+$/m)
    assertGood(await net('down'))
  })
})
