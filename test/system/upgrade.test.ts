/*
 * A daemon of an older version still serves its programs after an upgrade; newer programs use a daemon of their own.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { shimLibrary } from '../../src/cli/paths.ts'
import { SESSION_VERSION } from '../../src/spec/session.ts'
import { repoRoot } from '../paths.ts'
import { cleanEnvironment, lacking, run, runUserdma, start, temporaryFolder, userdma } from './programs.ts'

/** A module for `--import` that lowers the version of the session protocol, as before an upgrade. */
const OLDER = `
import { register } from 'node:module'
const load = async (url, context, next) => {
  const loaded = await next(url, context)
  if (!url.endsWith('/spec/session.js')) return loaded
  return { ...loaded, source: String(loaded.source).replace('SESSION_VERSION = ${SESSION_VERSION}', 'SESSION_VERSION = 1') }
}
register('data:text/javascript,' + encodeURIComponent('export const load = ' + load))
`

it('programs of a newer version use a daemon of their own, and say so once', {
  skip: lacking('ibv_devices'),
}, async t => {
  const folder = temporaryFolder(t)
  const env = cleanEnvironment({ XDG_RUNTIME_DIR: folder })
  const older = join(folder, 'older.mjs')
  writeFileSync(older, OLDER)
  const socket = join(folder, 'userdma', 'sock')
  // From the compiled modules: the bundle of the daemon has no module to replace.
  const main = join(repoRoot, 'dist/src/cli/main.js')
  const daemon = start(t, process.execPath, ['--import', older, main, 'daemon', '--device', 'old0@127.0.0.1'], { env })
  await daemon.printed(/ready on/)

  const beside = `${socket}.v${SESSION_VERSION}`
  // The daemon that the outer `run` starts lasts until its end.
  const inner = `unset USERDMA_SOCKET; ${userdma} run -- ibv_devices && ${userdma} devices`
  const both = await runUserdma(t, ['run', '--', 'sh', '-c', inner], { env })
  assert.equal(both.status, 0, both.stderr)
  assert.equal(both.stdout.match(/rxe0/g)?.length, 2, both.stdout)
  assert.equal(
    both.stderr,
    `userdma: the daemon at ${socket} is of another version; programs of this version use a new one at ${beside}\n`,
  )

  const preloaded = { ...env, LD_PRELOAD: shimLibrary(), USERDMA_SOCKET: socket }
  const { stdout, stderr } = await run(t, 'ibv_devices', [], { env: preloaded })
  assert.doesNotMatch(stdout, /old0/)
  assert.match(stderr, /^userdma: the daemon at \S+: it is of another version than .*$/m)
  assert.equal(stderr.match(/userdma:/g)?.length, 1)
  assert.equal(daemon.child.exitCode, null)
})
