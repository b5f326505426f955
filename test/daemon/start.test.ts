/*
 * Starts of a daemon that fail.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { scratchFolder } from '../tools.ts'

const folder = scratchFolder()
const moduleAt = (path: string): string => JSON.stringify(new URL(`../../src/daemon/${path}.js`, import.meta.url).href)

/** As if no descriptor were left for the reserve (src/daemon/session/reserve.ts). */
const failReserve = `
  const open = fs.openSync
  fs.openSync = (path, ...rest) => {
    if (path === '/dev/null') throw new Error('no descriptor in reserve')
    return open(path, ...rest)
  }
  syncBuiltinESMExports()
`

/**
 * Starts a daemon without devices; `fault`: its fault rules, `prepare`: statements that run first. The process ends if
 * nothing is left open.
 */
const script = (fault: string, prepare: string): string => `
  import fs from 'node:fs'
  import { syncBuiltinESMExports } from 'node:module'
  import { startDaemon } from ${moduleAt('daemon')}
  import { HotPlug } from ${moduleAt('devices/hot-plug')}
  ${prepare}
  const config = { devices: [], fault: ${JSON.stringify(fault)}, link: 'udp' }
  const socket = ${JSON.stringify(join(folder, 'sock'))}
  startDaemon({ socket, config, endWithLastClient: false }).catch(error => console.log(error.message))
`

for (const [title, fault, prepare, message] of [
  ['before it listens', 'device=none,drop=1', '', /there is no soft device "none"/],
  [
    'when it writes its files',
    '',
    "HotPlug.prototype.start = () => { throw new Error('the disk is full') }",
    /^the disk is full$/m,
  ],
  ['when it opens its descriptor in reserve', '', failReserve, /^no descriptor in reserve$/m],
] as const)
  test(`a start that fails ${title} lets its process end, and leaves no files except the lock file`, () => {
    const { stdout, signal } = spawnSync(process.execPath, ['--input-type=module', '--eval', script(fault, prepare)], {
      encoding: 'utf8',
    })
    assert.match(stdout, message)
    assert.equal(signal, null, 'the process ends')
    assert.deepEqual(
      readdirSync(folder).filter(name => name !== 'sock.lock'),
      [],
    )
  })
