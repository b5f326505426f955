/*
 * A new driver is a folder and a line of src/drivers/registered.ts: a copy of the compiled tree with the driver of
 * examples/drivers/wire.mjs, which has a link and connections of its own, as a built-in one.
 */
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { it } from 'node:test'
import { DaemonLine } from '../../src/spec/session.ts'
import { repoRoot } from '../paths.ts'
import { cleanEnvironment, type Scope, start, temporaryFolder } from '../system/programs.ts'

const ADDRESS = `127.${0x40 | (process.pid >> 16)}.${(process.pid >> 8) & 0xff}.${process.pid & 0xff}`

/** The tree with the driver; returns its folder. */
const treeWithDriver = (t: Scope): string => {
  const root = temporaryFolder(t)
  const isCode = (path: string): boolean => !/\.(map|d\.ts)$/.test(path)
  for (const path of ['bin', 'package.json', 'scripts/bundled.json', 'dist/src'])
    cpSync(join(repoRoot, path), join(root, path), { recursive: true, filter: isCode })
  for (const path of ['node_modules', 'build']) symlinkSync(join(repoRoot, path), join(root, path))

  const drivers = join(root, 'dist/src/drivers')
  mkdirSync(join(drivers, 'wire'))
  for (const [example, file] of [
    ['wire.mjs', 'device.js'],
    ['loop.mjs', 'verbs.js'],
  ] as const) {
    const source = readFileSync(join(repoRoot, 'examples/drivers', example), 'utf8')
    const moved = source
      .replaceAll("'userdma/core'", "'../../core/index.js'")
      .replaceAll("'userdma/spec'", "'../../spec/index.js'")
      .replaceAll("'./loop.mjs'", "'./verbs.js'")
    writeFileSync(join(drivers, 'wire', file), moved)
  }
  const registered = join(drivers, 'registered.js')
  const before = readFileSync(registered, 'utf8')
  const after = before.replace(/registeredDrivers = \[/, '$&wireDriver, ')
  assert.notEqual(after, before)
  writeFileSync(registered, `import { driver as wireDriver } from './wire/device.js'\n${after}`)
  return root
}

it('a driver in its folder, and in the line that registers it, has devices and what tools know of them', async t => {
  const root = treeWithDriver(t)
  const socket = join(root, 'socket')
  const run = (...args: string[]) => start(t, join(root, 'bin/userdma'), args, { env: cleanEnvironment() })
  const daemon = run('daemon', '--socket', socket, '--device', `wire0@${ADDRESS},driver=wire`)
  await daemon.printed(new RegExp(DaemonLine.READY))
  const told = async (...args: string[]): Promise<string> => {
    const { stdout, stderr } = await run(...args).ended
    return stdout + stderr
  }
  assert.match(await told('devices', '--socket', socket), new RegExp(`wire0.*${ADDRESS.replaceAll('.', '\\.')}`))
  assert.match(
    await told('device', 'add', 'wire1@127.0.0.9,driver=wrie', '--socket', socket),
    /driver="wrie" is not one of wire, rxe, efa, mlx5, ctx, null, did you mean "wire"\?/,
  )
  const schema = await told('schema', '--device', 'wire0', '--socket', socket)
  for (const cls of ['rc_qp', 'cq', 'cm_id']) assert.match(schema, new RegExp(`\\b${cls}\\b`))
})
