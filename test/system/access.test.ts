import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chownSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { openSession } from '../../src/cli/client.ts'
import { programEnvironment } from '../../src/cli/program.ts'
import { READY } from '../../src/cli/start.ts'
import { repoRoot } from '../paths.ts'
import { cleanEnvironment, lacking, run, runUserdma, start, startDaemon, temporaryFolder, userdma } from './programs.ts'

const isRoot = process.getuid?.() === 0
const NOBODY = 65534

/** Why a daemon of another user cannot be started here. */
const noOtherUser = (): string | false => {
  if (!isRoot) return 'only root can start a daemon as another user'
  const { status } = spawnSync(userdma, ['--version'], { uid: NOBODY, gid: NOBODY })
  return status === 0 ? false : 'other users may not read this checkout'
}

/** A daemon, and an environment in which it may not look at programs of ours. */
const apart = async (t: TestContext): Promise<{ socket: string; env: NodeJS.ProcessEnv }> => {
  if (!isRoot) {
    const koffi = import.meta.resolve('koffi')
    const hide = `import koffi from '${koffi}'; koffi.load(null).func('int prctl(int, long)')(4, 0)`
    const { socket } = await startDaemon(t)
    const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(hide)}`
    return { socket, env: cleanEnvironment({ NODE_OPTIONS }) }
  }
  const folder = temporaryFolder(t)
  chownSync(folder, NOBODY, NOBODY)
  const socket = join(folder, 'sock')
  const env = cleanEnvironment({ HOME: folder, TMPDIR: folder })
  const daemon = start(t, userdma, ['daemon', '--socket', socket], { uid: NOBODY, gid: NOBODY, env })
  await daemon.said(new RegExp(READY))
  return { socket, env: cleanEnvironment() }
}

describe('a program whose memory the daemon may not access', { skip: lacking('python3') }, () => {
  it('is told so once, when the daemon is another user', { skip: noOtherUser() }, async t => {
    const { socket } = await apart(t)
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

  it('learns which devices there are and what they have', { skip: isRoot && noOtherUser() }, async t => {
    const { socket, env } = await apart(t)
    const devices = await runUserdma(t, ['devices', '--socket', socket], { env })
    assert.deepEqual([devices.status, devices.stderr], [0, ''])
    assert.match(devices.stdout, /^rxe0 +uverbs0 +CA +rxe /m)
    const schema = await runUserdma(t, ['schema', '--device', 'rxe0', '--socket', socket], { env })
    assert.deepEqual([schema.status, schema.stderr], [0, ''])
    assert.match(schema.stdout, /^class rc_qp /m)
    const script = "import('userdma').then(m => m.open({ socket: process.argv[1] })).catch(e => console.log(e.message))"
    const { stdout } = await run(t, process.execPath, ['-e', script, socket], { env, cwd: repoRoot })
    assert.match(stdout, /^open: the daemon at .* may not access this program's memory \(EACCES\); start the daemon as/)
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
