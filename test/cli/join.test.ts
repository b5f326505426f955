/*
 * joinDaemon joins the user's daemon, or starts one.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { joinDaemon } from '../../src/cli/join.ts'
import { hasNative } from '../../src/host/native.ts'
import { SessionEnv } from '../../src/spec/session.ts'
import { temporaryFolder } from '../system/programs.ts'

it('joins a daemon that only the last attempt starts', { skip: !hasNative() && 'koffi is missing' }, async t => {
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
  process.execArgv = [...execArgv, '--import', endsFourTimes]
  const { client, leave } = await joinDaemon({})
  assert.ok(client.daemon > 0)
  await leave()
})
