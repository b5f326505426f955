/*
 * A driver with verbs from outside, examples/drivers/loop.mjs, in a daemon beside rxe (`userdma daemon --driver`).
 */
import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  lchownSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, it } from 'node:test'
import { loadDrivers } from '../../../src/daemon/devices/driver-file.ts'
import type { SessionEvent } from '../../../src/spec/session-events.ts'
import { bytesSource, openSession } from '../../../src/tools/record/reader.ts'
import { repoRoot } from '../../paths.ts'
import { assertGoodPair, runPair, startPair } from '../pairs/pingpong.ts'
import { isEmpty, lacking, run, runUserdma, type Scope, startDaemon, temporaryFolder } from '../programs.ts'

const EXAMPLE = 'examples/drivers/loop.mjs'

/** A copy of the driver, as a user has it, in a folder without the package. */
const copyDriver = (t: Scope): string => {
  const file = join(temporaryFolder(t), 'loop.mjs')
  copyFileSync(join(repoRoot, EXAMPLE), file)
  chmodSync(file, 0o644)
  return file
}

describe('a driver from a file', { skip: lacking('ibv_rc_pingpong', 'ib_write_lat', 'rdma') }, () => {
  it('has verbs beside rxe in one daemon, and all tools know its devices', async t => {
    // The options of docs/how-to/drivers.md.
    const page = readFileSync(join(repoRoot, 'docs/how-to/drivers.md'), 'utf8')
    const [, options = ''] = /^userdma daemon (.*)$/m.exec(page) ?? []
    const [option, path, ...devices] = options.split(' ')
    assert.deepEqual([option, path], ['--driver', EXAMPLE])
    const daemon = await startDaemon(t, { devices: [], options: ['--check', '--driver', copyDriver(t), ...devices] })
    const { env, socket } = daemon
    const tool = async (...args: string[]): Promise<string> =>
      (await runUserdma(t, [...args, '--socket', socket])).stdout

    const { stdout: listed } = await run(t, 'ibv_devinfo', [], { env })
    assert.deepEqual(listed.match(/(?<=hca_id:\s*)\w+/g), ['loop0', 'rxe0'])

    const loops = { devices: ['loop0', 'loop0'] as const }
    assertGoodPair(await runPair(t, daemon, ['-g', '0', '-c', '-n', '20'], loops))
    assertGoodPair(await runPair(t, daemon, ['-g', '1', '-c', '-n', '20']))
    const { server, client } = await runPair(t, daemon, ['-x', '0', '-n', '5'], { ...loops, program: 'ib_write_lat' })
    assert.deepEqual([server.status, client.status], [0, 0], server.stdout + server.stderr)

    // A server that waits for its client has a queue pair.
    const pair = await startPair(t, daemon, ['-g', '0', '-n', '100000'], loops)
    assert.match(await tool('stat', '--qps'), /loop0 .*ibv_rc_pingpong .*rc_qp/)
    const { stdout: resources } = await run(t, 'rdma', ['resource', 'show', 'qp'], { env })
    assert.match(resources, /link loop0\/1 lqpn \d+ .*type RC .*comm ibv_rc_pingpong/)
    for (const { child } of [pair.server, pair.client]) child.kill()
    await Promise.all([pair.server.ended, pair.client.ended])

    const { devices: counted } = await daemon.settled(isEmpty)
    const counts = counted.find(({ name }) => name === 'loop0')?.hw_counters
    assert.ok(counts !== undefined && counts.rdma_sends >= 50 && counts.rdma_recvs >= 40, JSON.stringify(counts))

    assert.equal(await tool('device', 'add', 'loop1'), '')
    assertGoodPair(await runPair(t, daemon, ['-g', '0', '-n', '10'], { devices: ['loop1', 'loop1'] }))
    assert.equal(await tool('device', 'remove', 'loop1'), '')
    assert.doesNotMatch(await tool('devices'), /loop1/)

    const tooMany = ['ibv_rc_pingpong', '-d', 'loop0', '-g', '0', '-r', '100000']
    const traced = await runUserdma(t, ['trace', '--socket', socket, '--', ...tooMany])
    assert.match(
      traced.stdout + traced.stderr,
      /cq\.create\(cqe 100001, .*EINVAL \(cq\.create: attribute cqe: 100001 is above/,
    )
    const checked = await runUserdma(t, ['check', '--socket', socket, '--', ...tooMany])
    assert.match(checked.stderr, /warning refused-call: .*loop0: EINVAL: ibv_create_cq: cqe: 100001 is above 8192/)
  })

  it('tells its taps about requests: recordings have them, and fault rules fail completions', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    const options = ['--driver', copyDriver(t), '--device', 'loop0', '--record', file]
    const daemon = await startDaemon(t, { devices: [], options })
    const loops = { devices: ['loop0', 'loop0'] as const }
    const messages = 5
    assertGoodPair(await runPair(t, daemon, ['-g', '0', '-n', String(messages)], loops))
    const rule = 'completion=RECV,status=LOC_PROT_ERR,nth=3'
    assert.equal((await runUserdma(t, ['fault', 'set', rule, '--socket', daemon.socket])).status, 0)
    const pair = await startPair(t, daemon, ['-g', '0', '-n', '10'], loops)
    const failed = await Promise.race([pair.server.ended, pair.client.ended])
    assert.match(failed.stderr, /Failed status local protection error/)
    for (const { child } of [pair.server, pair.client]) child.kill()
    assert.equal((await runUserdma(t, ['stop', '--socket', daemon.socket])).status, 0)

    const events: SessionEvent[] = []
    for await (const event of (await openSession(bytesSource(readFileSync(file)))).eventsIn()) events.push(event)
    const sends = events.filter(event => event.kind === 'posted' && event.request.opcode >= 0)
    assert.ok(sends.length >= 2 * messages, `${sends.length} sends`)
    // Each of the first messages has found its receive.
    const received = events.filter(event => event.kind === 'completed' && event.message !== 0)
    assert.ok(received.length >= 2 * messages, `${received.length} messages`)
    assert.ok(events.some(({ kind }) => kind === 'polled'))
  })

  it('makes devices with addresses, by --device and by netlink, if it says so', async t => {
    const file = copyDriver(t)
    const wire = join(file, '..', 'wire.mjs')
    writeFileSync(
      wire,
      `import { driver as loop } from './loop.mjs'
      const createDevice = (core, name, site) => {
        if (site.network?.identity.gids.length !== 2) throw new Error('no identity')
        return loop.createDevice(core, name, site)
      }
      export const driver = { ...loop, name: 'wire', hasAddress: true, createDevice }`,
      { mode: 0o644 },
    )
    const options = ['--driver', wire, '--device', 'rxe0@127.0.0.1', '--device', 'any0@127.0.0.2,driver=wire']
    const daemon = await startDaemon(t, { devices: [], options })
    const { env, socket } = daemon
    const pair = { devices: ['any0', 'any0'] as const }
    assertGoodPair(await runPair(t, daemon, ['-g', '0', '-n', '10'], pair))
    const devices = async (): Promise<string> => (await runUserdma(t, ['devices', '--socket', socket])).stdout
    assert.match(await devices(), /any0/)
    assert.equal((await runUserdma(t, ['device', 'remove', 'rxe0', '--socket', socket])).status, 0)
    const add = (...args: string[]) => run(t, 'rdma', ['link', 'add', ...args, 'netdev', 'lo'], { env })
    const unknown = await add('new0', 'type', 'siw')
    assert.notEqual(unknown.status, 0)
    assert.equal((await runUserdma(t, ['device', 'remove', 'any0', '--socket', socket])).status, 0)
    assert.equal((await add('new0', 'type', 'wire')).status, 0)
    assertGoodPair(await runPair(t, daemon, ['-g', '0', '-n', '10'], { devices: ['new0', 'new0'] }))
    const { stderr } = await runUserdma(t, ['device', 'add', 'x@127.0.0.9,driver=wrie', '--socket', socket])
    assert.match(stderr, /driver="wrie" is not one of wire, rxe, efa, mlx5, ctx, null, did you mean "wire"\?/)
  })

  it('is refused if others could change it, or if it is no driver', async t => {
    const file = copyDriver(t)
    const folder = join(file, '..')
    const refusal = (...paths: string[]): Promise<string> =>
      loadDrivers(paths).then(
        () => assert.fail(`${paths} was loaded`),
        (error: Error) => error.message,
      )
    assert.match(await refusal(file, file), /its name "loop" cannot be told from that of driver loop/)
    assert.match(await refusal(join(folder, 'loop.js')), /whose name ends with \.mjs/)
    assert.match(await refusal(join(folder, 'none.mjs')), /no such file/)
    const write = (name: string, text: string): string => {
      writeFileSync(join(folder, name), text, { mode: 0o600 })
      return join(folder, name)
    }
    assert.match(await refusal(write('empty.mjs', '')), /exports no `driver`/)
    assert.match(
      await refusal(write('throws.mjs', 'throw new Error("of the driver")')),
      /cannot be loaded: of the driver/,
    )
    chmodSync(file, 0o664)
    assert.match(await refusal(file), /others may write to \S+loop\.mjs \(mode 0664\)/)
    chmodSync(file, 0o644)
    const { status, stderr } = await runUserdma(t, ['daemon', '--driver', file, '--device', 'other0'])
    assert.match(stderr, /device "other0": the address is missing/)
    assert.equal(status, 2)
    chmodSync(folder, 0o777)
    assert.match(await refusal(file), /others may write to \S+ \(mode 0777\)/)
  })

  it('gets the running package, and no module that others could have written or chosen', {
    skip: process.geteuid?.() !== 0 && 'only root can give files away',
  }, async t => {
    const OTHER_USER = 65534
    const open = join(temporaryFolder(t), 'open')
    const own = join(open, 'own')
    const modules = join(open, 'node_modules')
    for (const folder of [own, join(own, 'node_modules/good'), join(own, 'node_modules/loose'), modules])
      mkdirSync(folder, { recursive: true })
    chmodSync(open, 0o1777)
    const write = (path: string, text: string, mode = 0o644): void => {
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, text)
      chmodSync(path, mode)
    }
    const foreignCode = 'export const createCore = 0; globalThis.ranForeignCode = true'
    const package_ = (name: string): string => JSON.stringify({ name, type: 'module', exports: './index.js' })
    for (const name of ['userdma', 'foreign']) {
      write(
        join(modules, name, 'package.json'),
        JSON.stringify({ name, type: 'module', exports: { './core': './index.js', '.': './index.js' } }),
      )
      write(join(modules, name, 'index.js'), foreignCode)
    }
    write(join(own, 'node_modules/good/package.json'), package_('good'))
    write(join(own, 'node_modules/good/index.js'), "import './part.js'")
    write(join(own, 'node_modules/good/part.js'), '')
    write(join(own, 'node_modules/loose/package.json'), package_('loose'))
    write(join(own, 'node_modules/loose/index.js'), '', 0o666)
    for (const folder of ['node_modules/listed', 'node_modules/plain/sub', 'folder']) {
      write(join(own, folder, 'package.json'), JSON.stringify({ name: 'listed', main: './index.js' }), 0o666)
      write(join(own, folder, 'index.js'), '')
    }
    symlinkSync(join(own, 'node_modules/good'), join(modules, 'chosen'))
    for (const path of [modules, ...['userdma', 'foreign', 'chosen'].map(name => join(modules, name))])
      lchownSync(path, OTHER_USER, OTHER_USER)
    for (const name of ['userdma', 'foreign']) chownSync(join(modules, name, 'index.js'), OTHER_USER, OTHER_USER)
    write(join(own, 'part.mjs'), "import 'good'")
    write(join(own, 'loose.mjs'), '', 0o666)
    write(join(own, 'required.cjs'), "require('foreign')")

    let count = 0
    const load = (code: string) => {
      const path = join(own, `driver${count++}.mjs`)
      write(path, `${code}\nexport const driver = { name: 'own', id: 0, classes: [], createDevice() {} }`)
      return loadDrivers([path])
    }
    const requiring = (name: string): string =>
      `import { createRequire } from 'node:module'\nconst found = createRequire(import.meta.url)('${name}')`
    await load(
      "import { createCore } from 'userdma/core'\nif (typeof createCore !== 'function') throw new Error('foreign')",
    )
    await load(`${requiring('userdma/core')}\nif (typeof found.createCore !== 'function') throw new Error('foreign')`)
    await load("import 'node:fs'\nimport './part.mjs'\nimport 'good'")
    for (const [code, reason] of [
      [
        "import './loose.mjs'",
        /import of "\.\/loose\.mjs" is refused: others may write to \S+loose\.mjs \(mode 0666\)/,
      ],
      ["import 'loose'", /import of "loose" is refused: others may write to \S+index\.js/],
      ["import 'foreign'", /import of "foreign" is refused: \S+open\/node_modules belongs to user 65534/],
      ["import 'chosen'", /import of "chosen" is refused: \S+open\/node_modules belongs to user 65534/],
      ["await import('foreign')", /import of "foreign" is refused/],
      ["import 'listed'", /import of "listed" is refused: others may write to \S+listed\/package\.json/],
      [requiring('plain/sub'), /import of "plain\/sub" is refused: others may write to \S+sub\/package\.json/],
      [requiring('./folder'), /import of "\.\/folder" is refused: others may write to \S+folder\/package\.json/],
      [requiring('foreign'), /import of "foreign" is refused/],
      [requiring('./required.cjs'), /import of "foreign" is refused/],
    ] as const)
      await assert.rejects(load(code), reason, code)
    write(join(open, 'package.json'), JSON.stringify({ name: 'self', exports: './own/part.mjs' }))
    chownSync(join(open, 'package.json'), OTHER_USER, OTHER_USER)
    await assert.rejects(load("import 'self'"), /import of "self" is refused: \S+package\.json belongs to user 65534/)
    assert.ok(!('ranForeignCode' in globalThis))
  })
})
