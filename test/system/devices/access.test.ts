/*
 * Programs whose memory the daemon may not access, because they are not dumpable.
 */
import assert from 'node:assert/strict'
import type { SpawnOptions } from 'node:child_process'
import { chownSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'node:test'
import { DaemonLine } from '../../../src/spec/session.ts'
import { repoRoot } from '../../paths.ts'
import {
  cleanEnvironment,
  lacking,
  NOBODY,
  noOtherUser,
  run,
  runUserdma,
  start,
  startDaemon,
  temporaryFolder,
  userdma,
} from '../programs.ts'

const isRoot = process.getuid?.() === 0

/** Option of prctl(2). */
const PR_SET_DUMPABLE = 4

/** NODE_OPTIONS that make a program undumpable. */
const undumpableOptions = (): string => {
  const koffi = import.meta.resolve('koffi')
  const module = `import koffi from '${koffi}'; koffi.load(null).func('int prctl(int, long)')(${PR_SET_DUMPABLE}, 0)`
  return `--import=data:text/javascript,${encodeURIComponent(module)}`
}

/**
 * Starts a daemon (as root: a daemon of another user). Returns its socket, and options for programs whose memory the
 * daemon may not access.
 */
const startWithoutAccess = async (t: TestContext): Promise<{ socket: string; options: SpawnOptions }> => {
  const NODE_OPTIONS = undumpableOptions()
  if (!isRoot) {
    const { socket } = await startDaemon(t)
    return { socket, options: { env: cleanEnvironment({ NODE_OPTIONS }) } }
  }
  const folder = temporaryFolder(t)
  chownSync(folder, NOBODY, NOBODY)
  const socket = join(folder, 'sock')
  const env = cleanEnvironment({ HOME: folder, TMPDIR: folder })
  const asNobody = { uid: NOBODY, gid: NOBODY }
  await start(t, userdma, ['daemon', '--socket', socket], { ...asNobody, env }).printed(new RegExp(DaemonLine.READY))
  return { socket, options: { ...asNobody, env: { ...env, NODE_OPTIONS } } }
}

describe('a program whose memory the daemon may not access', { skip: lacking('python3') }, () => {
  it('lists the names and attributes of devices, and cannot open one', { skip: isRoot && noOtherUser() }, async t => {
    const { socket, options } = await startWithoutAccess(t)
    const devices = await runUserdma(t, ['devices', '--socket', socket], options)
    assert.deepEqual([devices.status, devices.stderr], [0, ''])
    assert.match(devices.stdout, /^rxe0 +uverbs0 +CA +rxe /m)
    const schema = await runUserdma(t, ['schema', '--device', 'rxe0', '--socket', socket], options)
    assert.deepEqual([schema.status, schema.stderr], [0, ''])
    assert.match(schema.stdout, /^class rc_qp /m)
    const script = "import('userdma').then(m => m.open({ socket: process.argv[1] })).catch(e => console.log(e.message))"
    const { stdout } = await run(t, process.execPath, ['-e', script, socket], { ...options, cwd: repoRoot })
    assert.match(stdout, /^open: the daemon at .* may not access this program's memory \(EACCES\); start the daemon as/)
  })

  it('is reported once, and finds no device', { skip: isRoot && 'root may access any memory' }, async t => {
    const daemon = await startDaemon(t)
    const script = `import ctypes, os; ctypes.CDLL(None).prctl(${PR_SET_DUMPABLE}, 0); print(os.path.exists("/sys/class/infiniband/rxe0"))`
    const { stdout, stderr } = await run(t, 'python3', ['-c', script], { env: daemon.env })
    assert.equal(stdout, 'False\n')
    assert.match(
      stderr,
      /^userdma: the daemon at .*: it may not access the memory of this program, which is not dumpable .*\n$/,
    )
  })
})
