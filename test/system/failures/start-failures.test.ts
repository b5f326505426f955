/*
 * Starts of the daemon that fail for a reason outside userdma, and starts that succeed.
 */
import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { hasNative } from '../../../src/host/native.ts'
import { until } from '../../limits.ts'
import { findTool, skipTest } from '../../tools.ts'
import { cleanEnvironment, NOBODY, noOtherUser, run, temporaryFolder, userdma } from '../programs.ts'

const isRoot = process.getuid?.() === 0
/** A user who does not own the files. */
const OTHER_USER = 65533

describe('a failed start', { skip: !hasNative() && 'koffi is missing' }, () => {
  /** Arguments of unshare. */
  const inMountNamespace = (script: string) => ['-m', 'sh', '-c', script]

  it('without disk space gives the reason and leaves no files', async t => {
    if (!isRoot || findTool('unshare') === undefined)
      return void skipTest(t, 'a small file system needs root and unshare')
    const folder = temporaryFolder(t)
    const script = `
      mount -t tmpfs -o size=16k,mode=700 none ${folder} || exit
      head -c 20000 /dev/zero > ${folder}/fill
      ${userdma} run -- true
      echo "status $?"
      rm ${folder}/fill
      find ${folder} -type f`
    const { stdout, stderr } = await run(t, 'unshare', inMountNamespace(script), {
      env: cleanEnvironment({ XDG_RUNTIME_DIR: folder }),
    })
    assert.match(
      stderr,
      /userdma: ENOSPC: no space left on device.*; free some disk space, or choose another file system with --socket PATH or, for a private daemon, TMPDIR/,
    )
    assert.equal(stdout, 'status 1\n', 'find lists no files')
  })

  it('without space for the page of a clock gives the reason, before a program could fail for it', async t => {
    if (!isRoot || findTool('unshare') === undefined)
      return void skipTest(t, 'a small file system needs root and unshare')
    const folder = temporaryFolder(t)
    const script = `
      mount -t tmpfs -o size=1m,mode=700 none ${folder} || exit
      ${userdma} run --private --clock skip -- true
      echo "status $?"
      find ${folder} -type f`
    const { stdout, stderr } = await run(t, 'unshare', inMountNamespace(script), {
      env: cleanEnvironment({ TMPDIR: folder }),
    })
    assert.match(stderr, /ENOSPC: .*\.clock; free some disk space/)
    assert.equal(stdout, 'status 1\n', 'find lists no files')
  })

  it('without /proc gives the reason', async t => {
    if (!isRoot || findTool('unshare') === undefined) return void skipTest(t, 'another /proc needs root and unshare')
    const script = `mount -t tmpfs none /proc && ${userdma} run --private -- true; echo "status $?"`
    const { stdout, stderr } = await run(t, 'unshare', inMountNamespace(script), { env: cleanEnvironment() })
    assert.match(
      stderr,
      /\/proc is not mounted, and the daemon needs it for programs' memory and descriptors: `mount -t proc proc \/proc`/,
    )
    assert.equal(stdout, 'status 1\n')
  })

  // Node 26 itself needs 22; userdma needs 160 (bin/userdma).
  for (const limit of [24, 40, 159])
    it(`without enough descriptors gives the reason: ${limit}`, async t => {
      const script = `ulimit -n ${limit}; ${userdma} run --private -- true; echo "status $?"`
      const { stdout, stderr } = await run(t, 'sh', ['-c', script], { env: cleanEnvironment() })
      assert.match(
        stderr,
        /^userdma: this process may have \d+ files open \(EMFILE\).* run `ulimit -n 1024` first; .*\n$/,
      )
      assert.equal(stdout, 'status 1\n')
    })

  it('under a low limit names the limit', async t => {
    const folder = temporaryFolder(t)
    const abort = join(folder, 'abort.cjs')
    writeFileSync(abort, "if (process.argv[2] === 'daemon') process.abort()")
    const messageOf = async (script: string) => {
      const { stderr } = await run(t, 'sh', ['-c', `ulimit -c 0; ${script}`], { env: cleanEnvironment() })
      return stderr
    }
    assert.match(
      await messageOf(`ulimit -f 0; ${userdma} run --private -- true`),
      /^userdma: ftruncate: EFBIG: .*; a limit of this process may be too low: `ulimit -f` is 0\n$/,
    )
    assert.match(
      await messageOf(`ulimit -n 190; NODE_OPTIONS='-r ${abort}' ${userdma} run --private -- true`),
      /^userdma: the daemon ended with SIGABRT before it was ready.*: `ulimit -n` is 190\n$/,
    )
    assert.match(
      await messageOf(`ulimit -n 190; ${userdma} run --private -- sh -c 'kill -ABRT $$'`),
      /^userdma: sh ended by SIGABRT; a limit of this process may be too low: `ulimit -n` is 190\n/,
    )
  })

  it('in a user namespace reports that the owner of the files is outside', async t => {
    if (!isRoot || findTool('unshare') === undefined || findTool('setpriv') === undefined)
      return void skipTest(t, 'a user namespace without the owner of the files needs root, unshare and setpriv')
    const reason = noOtherUser()
    if (reason !== false) return t.skip(reason)
    const folder = temporaryFolder(t)
    chmodSync(folder, 0o755)
    mkdirSync(join(folder, 'userdma-0'), { mode: 0o755 })
    /** Standard error of a command as UID 0 of a user namespace that lacks the owner of `folder`. */
    const messageOf = async (command: string, env: NodeJS.ProcessEnv = {}) => {
      const asOther = [`--reuid=${OTHER_USER}`, `--regid=${OTHER_USER}`, '--clear-groups']
      const words = [...asOther, 'unshare', '-Ur', 'sh', '-c', command]
      const { stderr } = await run(t, 'setpriv', words, { cwd: '/', env: cleanEnvironment({ HOME: '/', ...env }) })
      return stderr
    }
    const foreignFolder = `${folder}/userdma-0, where your daemon's socket should be, belongs to a user outside this user namespace`
    assert.ok(
      (await messageOf(`${userdma} run -- true`, { TMPDIR: folder })).startsWith(
        `userdma: ${foreignFolder}, not to you`,
      ),
    )
    assert.match(
      await messageOf(`${userdma} daemon --socket ${folder}/sock`),
      /EACCES.* belongs to a user outside this user namespace: use a folder of your own \(`mkdir -m 700 FOLDER`/,
    )
    chmodSync(folder, 0o700)
    assert.match(
      await messageOf(`${userdma} stat --socket ${folder}/sock`),
      /the folder of .* is closed to you \(user 0\)/,
    )
  })
})

describe('a successful start', { skip: !hasNative() && 'koffi is missing' }, () => {
  it('leaves a log with the devices and the reason of the exit', async t => {
    const folder = temporaryFolder(t)
    chmodSync(folder, 0o700)
    const { status, stderr } = await run(t, userdma, ['run', '--', 'true'], {
      env: cleanEnvironment({ XDG_RUNTIME_DIR: folder }),
    })
    assert.equal(status, 0, stderr)
    const log = join(folder, 'userdma', 'daemon.log')
    const expectedLog =
      /^userdma daemon: process \d+ serves .*sock \(rxe0@.*\nuserdma daemon: process \d+ ends: its last client has ended, .*\n$/
    const written = (): string => readFileSync(log, 'utf8')
    // The daemon ends, and writes its last line, after `userdma run` has ended.
    await until(() => expectedLog.test(written()), written)
  })

  it('of a private daemon is possible with a umask of 777', async t => {
    // A umask does not restrict root.
    const asNobody =
      findTool('setpriv') !== undefined && noOtherUser() === false
        ? `setpriv --reuid=${NOBODY} --regid=${NOBODY} --clear-groups env HOME=/ `
        : ''
    const { status, stderr } = await run(t, 'sh', ['-c', `umask 777; ${asNobody}${userdma} run --private -- true`], {
      env: cleanEnvironment(),
    })
    assert.equal(status, 0, stderr)
  })
})
