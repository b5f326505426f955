/*
 * joinDaemon joins the user's daemon, or starts one.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it, type TestContext } from 'node:test'
import { joinDaemon } from '../../src/cli/join.ts'
import { hasNative } from '../../src/host/native.ts'
import { SessionEnv } from '../../src/spec/session.ts'
import { temporaryFolder } from '../system/programs.ts'

/** Gives this process a folder for its daemon's socket, and restores environment and `execArgv` after the test. */
const useOwnFolder = (t: TestContext): string => {
  const folder = temporaryFolder(t)
  const { env, execArgv } = process
  const { XDG_RUNTIME_DIR, [SessionEnv.socket]: socket } = env
  t.after(() => {
    for (const [name, value] of [
      ['XDG_RUNTIME_DIR', XDG_RUNTIME_DIR],
      [SessionEnv.socket, socket],
    ] as const)
      if (value === undefined) delete env[name]
      else env[name] = value
    process.execArgv = execArgv
  })
  env.XDG_RUNTIME_DIR = folder
  delete env[SessionEnv.socket]
  return folder
}

it('joins a daemon that only the last attempt starts', { skip: !hasNative() && 'koffi is missing' }, async t => {
  const folder = useOwnFolder(t)
  // The first four daemons end before they are ready.
  const starts = join(folder, 'starts')
  const endsFourTimes = join(folder, 'ends.mjs')
  writeFileSync(starts, '')
  writeFileSync(
    endsFourTimes,
    `import { appendFileSync, readFileSync } from 'node:fs'
     appendFileSync(${JSON.stringify(starts)}, '+')
     if (readFileSync(${JSON.stringify(starts)}).length < 5) process.exit(3)`,
  )
  process.execArgv = [...process.execArgv, '--import', endsFourTimes]
  const { client, leave } = await joinDaemon({})
  assert.ok(client.daemon > 0)
  await leave()
})

it('joins a daemon whose Node.js prints lines of its own', { skip: !hasNative() && 'koffi is missing' }, async t => {
  const printing = join(useOwnFolder(t), 'prints.mjs')
  writeFileSync(printing, "console.log('a line')")
  process.execArgv = [...process.execArgv, '--import', printing]
  const { client, leave } = await joinDaemon({ private: true })
  assert.ok(client.daemon > 0)
  await leave()
})
