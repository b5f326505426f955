/*
 * A start that fails says why, wherever it fails: no room, no /proc, too few descriptors.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { describe, it } from 'node:test'
import { hasNative } from '../../src/host/native.ts'
import { findTool, missing } from '../tools.ts'
import { cleanEnvironment, run, temporaryFolder, userdma } from './programs.ts'

const isRoot = process.getuid?.() === 0

describe('a start that fails', { skip: !hasNative() && 'there is no koffi' }, () => {
  const own = (script: string) => ['-m', 'sh', '-c', script]

  it('for want of room says so, and leaves nothing', async t => {
    if (!isRoot || findTool('unshare') === undefined)
      return void missing(t, 'a small file system needs root and unshare')
    const folder = temporaryFolder(t)
    const script = `mount -t tmpfs -o size=16k,mode=700 none ${folder} && head -c 20000 /dev/zero > ${folder}/fill; ${userdma} run -- true; echo "status $?"; ls -A ${folder}/userdma`
    const { stdout, stderr } = await run(t, 'unshare', own(script), {
      env: cleanEnvironment({ XDG_RUNTIME_DIR: folder }),
    })
    assert.match(
      stderr,
      /userdma: ENOSPC: no space left on device.*; there is no room: free some, or choose another place/,
    )
    assert.equal(stdout, 'status 1\n')
    assert.deepEqual(readdirSync(folder), [])
  })

  it('for want of /proc says so', async t => {
    if (!isRoot || findTool('unshare') === undefined) return void missing(t, 'another /proc needs root and unshare')
    const script = `mount -t tmpfs none /proc && ${userdma} run --private -- true; echo "status $?"`
    const { stdout, stderr } = await run(t, 'unshare', own(script), { env: cleanEnvironment() })
    assert.match(
      stderr,
      /\/proc is not mounted here, where programs' memory and descriptors are found: `mount -t proc proc \/proc`/,
    )
    assert.equal(stdout, 'status 1\n')
  })

  for (const most of [24, 40])
    it(`for want of descriptors says so: ${most}`, async t => {
      const script = `ulimit -n ${most}; ${userdma} run --private -- true; echo "status $?"`
      const { stdout, stderr } = await run(t, 'sh', ['-c', script], { env: cleanEnvironment() })
      assert.match(stderr, /EMFILE.*run `ulimit -n 1024` first/)
      assert.equal(stdout, 'status 1\n')
    })

  it('whatever the umask, a private daemon starts', async t => {
    const as =
      isRoot && findTool('setpriv') !== undefined
        ? 'setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/ '
        : ''
    const { status, stderr } = await run(t, 'sh', ['-c', `umask 777; ${as}${userdma} run --private -- true`], {
      env: cleanEnvironment(),
    })
    assert.equal(status, 0, stderr)
  })
})
