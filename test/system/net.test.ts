/*
 * `userdma net`: programs on hosts of a small net, and what is left of nets.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { findTool } from '../tools.ts'
import { canMakeNets, newNet, useNet } from './nets.ts'
import { assertGood, lacking, NOBODY, noOtherUser, runUserdma, temporaryFolder, userdma } from './programs.ts'

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

  it('is removed after SIGKILL and SIGINT in the middle, and not by two at once', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: 3')
    const plan = join(net.folder, 'userdma', 'net', net.name)
    const begun = async (isReached: () => boolean): Promise<ReturnType<typeof net.startNet>> => {
      const up = net.startNet('up', net.file)
      while (!isReached()) await new Promise(resolve => setTimeout(resolve, 2))
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

  it("leaves root's net of another folder as it is", async t => {
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

  it('is removed also if its state is damaged', async t => {
    if (!canMakeNets(t)) return
    const net = newNet(t, 'hosts: 1')
    await net.up()
    const state = join(net.folder, 'userdma', 'net', net.name, 'net.json')
    for (const text of ['{}', 'null', '{"phase":"up","file":"x","plan":{}}']) {
      writeFileSync(state, text)
      for (const words of [['show'], ['up', net.file], ['exec', 'h1', '--', 'true']])
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
    for (const name of ['ip', 'tc', 'nsenter', 'mount']) symlinkSync(findTool(name) ?? '/', join(tools, name))
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
