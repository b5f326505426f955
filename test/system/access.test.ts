import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chownSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { openSession } from '../../src/cli/client.ts'
import { programEnvironment } from '../../src/cli/program.ts'
import { READY } from '../../src/cli/start.ts'
import { cleanEnvironment, lacking, run, start, startDaemon, temporaryFolder, userdma } from './programs.ts'

const isRoot = process.getuid?.() === 0
const NOBODY = 65534

/** Why a daemon of another user cannot be started here. */
const noOtherUser = (): string | false => {
  if (!isRoot) return 'only root can start a daemon as another user'
  const { status } = spawnSync(userdma, ['--version'], { uid: NOBODY, gid: NOBODY })
  return status === 0 ? false : 'other users may not read this checkout'
}

describe('a program whose memory the daemon may not access', { skip: lacking('python3') }, () => {
  it('is told so once, when the daemon is another user', { skip: noOtherUser() }, async t => {
    const folder = temporaryFolder(t)
    chownSync(folder, NOBODY, NOBODY)
    const socket = join(folder, 'sock')
    const env = cleanEnvironment({ HOME: folder, TMPDIR: folder })
    const daemon = start(t, userdma, ['daemon', '--socket', socket], { uid: NOBODY, gid: NOBODY, env })
    await daemon.said(new RegExp(READY))
    const args = ['-c', 'import os; print([os.path.exists(f"/sys/class/infiniband/rxe{i}") for i in (0, 1)])']
    const { status, stdout, stderr } = await run(t, 'python3', args, { env: programEnvironment(socket) })
    assert.equal(status, 0)
    assert.equal(stdout, '[False, False]\n')
    assert.equal(
      stderr,
      `userdma: the daemon at ${socket}: it runs as user 65534 and this program as user 0, so it may not access the program's memory; start it as user 0 or as root\n`,
    )
    // A tool is served none the less.
    const client = await openSession(socket)
    assert.equal((await client.stat()).contexts, 0)
    client.close()
  })

  it('is told so once, when it does not let itself be looked at', { skip: isRoot && 'root may look' }, async t => {
    const daemon = await startDaemon(t)
    const script =
      'import ctypes, os; ctypes.CDLL(None).prctl(4, 0); print(os.path.exists("/sys/class/infiniband/rxe0"))'
    const { stdout, stderr } = await run(t, 'python3', ['-c', script], { env: daemon.env })
    assert.equal(stdout, 'False\n')
    assert.match(stderr, /^userdma: the daemon at .*: this program does not let it access its memory .*\n$/)
  })
})
