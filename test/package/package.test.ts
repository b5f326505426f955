/*
 * The npm packages as programs use them: made by scripts/package.mjs, and unpacked into a node_modules folder.
 */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createContext, runInContext } from 'node:vm'
import { hasNative } from '../../src/host/native.ts'
import { repoRoot } from '../paths.ts'
import { findTool, requireTool } from '../tools.ts'

const folder = mkdtempSync(join(tmpdir(), 'userdma-package-'))
const installed = (name: string): string => join(repoRoot, 'node_modules', name)
const pathOf = (name: string): string => join(folder, name)
// With NODE_TEST_CONTEXT, Node would take the programs for test files.
const { NODE_TEST_CONTEXT: _, ...env } = process.env
const node = (...args: string[]): string => execFileSync(process.execPath, args, { cwd: folder, env, encoding: 'utf8' })
const { version } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as { version: string }
const write = (name: string, text: string): string => {
  writeFileSync(pathOf(name), text)
  return name
}

let tarball: Uint8Array<ArrayBuffer>

/** Makes a package with scripts/package.mjs, and unpacks it; returns the archive. */
const install = (kind: 'npm' | 'platform', name: string): string => {
  const output = mkdtempSync(join(folder, 'packed-'))
  const script = join(repoRoot, 'scripts', 'package.mjs')
  execFileSync(process.execPath, [script, kind, '--arch', process.arch, '--output', output], { env, stdio: 'pipe' })
  const archive = join(output, `${name}-${version}.tgz`)
  mkdirSync(pathOf(`node_modules/${name}`), { recursive: true })
  execFileSync('tar', ['-xzf', archive, '-C', pathOf(`node_modules/${name}`), '--strip-components=1'])
  return archive
}

before(() => {
  tarball = Uint8Array.from(readFileSync(install('npm', 'userdma')))
  for (const name of ['koffi', '@koromix', '@types', 'undici-types', 'commander'])
    if (existsSync(installed(name))) symlinkSync(installed(name), pathOf(`node_modules/${name}`))
  write('package.json', '{ "type": "module" }')
})
after(() => rmSync(folder, { recursive: true }))

/** The end of a program that has imported `open`. */
const openAndClose = (link: string) => `
  open(${link === 'memory' ? '' : `{ link: '${link}', address: '127.0.0.71' }`}).then(async device => {
    console.log(device.name)
    await device.close()
  })`

test('the package has the documents, the header, the examples and their compiled files, and no tests', () => {
  const header = 'shim/include/userdma_check.h'
  for (const name of ['README.md', 'CHANGELOG.md', 'docs/start/library.md', 'examples/ping-pong.ts', header])
    assert.ok(existsSync(pathOf(`node_modules/userdma/${name}`)), name)
  assert.ok(!existsSync(pathOf('node_modules/userdma/dist/test')))
  assert.match(node('node_modules/userdma/dist/examples/ping-pong.js', '20'), /^20 round trips/)
})

test('the package names what it contains, with licences', () => {
  const { components } = JSON.parse(readFileSync(pathOf('node_modules/userdma/sbom.cdx.json'), 'utf8'))
  const names = components.map((component: { name: string }) => component.name)
  assert.deepEqual(names, ['commander'])
  for (const name of ['LICENSE', 'licenses/commander/LICENSE'])
    assert.ok(existsSync(pathOf(`node_modules/userdma/${name}`)), name)
})

test('import and require give the same library', () => {
  const imports = "import { createRequire } from 'node:module'; import { open } from 'userdma'\n"
  const compare = "console.log(createRequire(import.meta.url)('userdma').open === open)"
  assert.equal(node(write('same.mjs', imports + compare)), 'true\n')
  assert.equal(node(write('a.cjs', `const { open } = require('userdma')${openAndClose('memory')}`)), 'rxe0\n')
})

test('devices in one process load no native code', () => {
  assert.equal(
    node('--no-addons', write('bare.mjs', `import { open } from 'userdma'${openAndClose('memory')}`)),
    'rxe0\n',
  )
})

describe('the preload library', { skip: !hasNative() && 'native code does not work here' }, () => {
  const run = (...args: string[]) => {
    const path = mkdtempSync(join(folder, 'path-'))
    for (const name of ['node', 'env', 'ibv_devices', 'true']) {
      const program = name === 'node' ? process.execPath : findTool(name)
      if (program !== undefined) symlinkSync(program, join(path, name))
    }
    const { USERDMA_SOCKET: __, ...rest } = env
    const command = [pathOf('node_modules/userdma/bin/userdma'), 'run', '--private', '--', ...args]
    return spawnSync(process.execPath, command, { env: { ...rest, PATH: path }, encoding: 'utf8' })
  }
  const platform = `userdma-linux-${process.arch}`

  test('is missed with a message that says what to do', () => {
    const { status, stderr } = run('true')
    assert.equal(status, 1)
    assert.match(stderr, new RegExp(`^userdma: .* is not installed .*npm install ${platform}@${version}.*build-native`))
  })

  test('comes with a package, without a compiler', t => {
    if (!requireTool('cc', t) || !requireTool('ibv_devices', t, 'ibverbs-utils')) return
    install('platform', platform)
    const { status, stdout, stderr } = run('ibv_devices')
    assert.equal(status, 0, stderr)
    assert.match(stdout, /rxe0/)
  })
})

test('there are no source maps, which would name files outside the package; stacks begin at the program', () => {
  assert.deepEqual(
    readdirSync(pathOf('node_modules/userdma'), { recursive: true }).filter(name => String(name).endsWith('.map')),
    [],
  )
  const program = write('throws.mjs', "import { open } from 'userdma'\n(await open()).cq({ entries: 0 })")
  const { stderr } = spawnSync(process.execPath, ['--enable-source-maps', program], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
  assert.match(stderr, /^RdmaError: device\.cq: entries: 0 .*\n {4}at \S*throws\.mjs:2:\d+ \{$/m)
})

describe('esbuild', { skip: !existsSync(installed('esbuild')) && 'esbuild is not installed' }, () => {
  const bundle = async (entry: string, format: 'esm' | 'cjs' | 'iife', platform: 'node' | 'browser') => {
    const { build } = await import('esbuild')
    const outfile = pathOf(`${format}-${platform}.${format === 'cjs' ? 'cjs' : 'mjs'}`)
    const entryPoints = [pathOf(entry)]
    const logOverride = { 'empty-import-meta': 'silent' } as const
    await build({ entryPoints, bundle: true, platform, format, outfile, external: ['koffi'], logOverride })
    return outfile
  }

  for (const format of ['esm', 'cjs'] as const)
    test(`bundles for Node as ${format}, with memory and UDP`, async () => {
      for (const link of hasNative() ? ['memory', 'udp'] : ['memory']) {
        const entry = write(`${link}.mjs`, `import { open } from 'userdma'${openAndClose(link)}`)
        assert.equal(node(await bundle(entry, format, 'node')), 'rxe0\n')
      }
    })

  // 600 WRITEs: more than BUDGET of src/verbs/local/network.ts, so the library must await turns of the event loop.
  test('bundles for a browser: devices in one page', async () => {
    const entry = write(
      'browser.mjs',
      `import { createNetwork, open } from 'userdma'
      globalThis.run = async options => {
        const network = createNetwork(options)
        const side = async () => {
          const device = await open({ network })
          const pd = device.pd()
          return { device, mr: pd.register(new Uint8Array(5000), { remoteWrite: true }), qp: pd.rcQp() }
        }
        const [a, b] = [await side(), await side()]
        a.qp.connect(b.qp.endpoint)
        b.qp.connect(a.qp.endpoint)
        const message = b.qp.receive(b.mr.slice())
        await a.qp.send(a.mr.slice())
        for (let i = 0; i < 600; i++) await a.qp.write(Uint8Array.of(i), b.mr.remote(i, 1))
        await a.device.close()
        await b.device.close()
        return (await message).bytes
      }`,
    )
    const source = readFileSync(await bundle(entry, 'iife', 'browser'), 'utf8')
    // Ports keep Node running until they are closed.
    const channels: InstanceType<typeof MessageChannel>[] = []
    const TrackedChannel = class {
      constructor() {
        const channel = new MessageChannel()
        channels.push(channel)
        Object.assign(this, { port1: channel.port1, port2: channel.port2 })
      }
    }
    // Only globals that browsers have.
    const timers = { performance, queueMicrotask, setTimeout, clearTimeout }
    const globals = { ...timers, TextEncoder, TextDecoder, crypto, MessageChannel: TrackedChannel }
    const context = createContext({ ...globals, AbortController, AbortSignal })
    runInContext(source, context)
    const run = context.run as (options: object) => Promise<number>
    assert.equal(await run({}), 5000)
    assert.equal(await run({ path: 'packets', fault: 'drop=5%,seed=1' }), 5000)
    for (const { port1 } of channels) port1.close()
  })
})

describe('linters of packages', () => {
  /** Module resolutions that a profile of arethetypeswrong omits. */
  const UNSERVED = { 'esm-only': ['node10', 'node16-cjs'] }

  test('arethetypeswrong finds nothing', async () => {
    const { checkPackage, createPackageFromTarballData } = await import('@arethetypeswrong/core')
    const { profile } = JSON.parse(readFileSync(join(repoRoot, '.attw.json'), 'utf8')) as { profile: 'esm-only' }
    const result = await checkPackage(createPackageFromTarballData(tarball))
    assert.ok(result.types, 'the package has types')
    const served = result.problems.filter(
      problem => !('resolutionKind' in problem && UNSERVED[profile].includes(problem.resolutionKind)),
    )
    assert.deepEqual(served, [])
  })

  // `level` hides one suggestion: to use `exports` instead of `browser`, which maps Node's own modules.
  test('publint finds no error and no warning', async () => {
    const { publint } = await import('publint')
    const { messages } = await publint({ pack: { tarball: tarball.buffer }, level: 'warning', strict: true })
    assert.deepEqual(messages, [])
  })
})

const oldest = installed('typescript-oldest')
const strict = ['--noEmit', '--strict', '--target', 'es2022', '--lib', 'es2022,esnext.disposable']
const nodeModules = [...strict, '--module', 'nodenext', '--moduleResolution', 'nodenext']

const MISTAKES: readonly (readonly [wrong: string, right: string])[] = [
  ['pd.rcQp({ sendCq: pd })', 'pd.rcQp({ sendCq: cq })'],
  ['pd.rcQp({ sendCq: cq, srq: cq })', 'pd.rcQp({ sendCq: cq, srq })'],
  ["qp.modify({ state: 'READY' })", "qp.modify({ state: 'RTS' })"],
  ['pd.register(bytes, { remoteWrites: true })', 'pd.register(bytes, { remoteWrite: true })'],
  ['pd.register(64)', 'pd.register(bytes)'],
  ["device.cq({ entries: '64' })", 'device.cq({ entries: 64 })'],
  ['pd.window(3)', 'pd.window(2)'],
  ['pd.srq({ maxWr: 4n })', 'pd.srq({ maxWr: 4 })'],
  ["export const code: RdmaError['code'] = 'EWRONG'", "export const right: RdmaError['code'] = 'EINVAL'"],
]

test('lines with a type error do not compile, their corrections do', () => {
  const header = [
    "import { open, type RdmaError } from 'userdma'",
    'const device = await open()',
    'const bytes = new Uint8Array(64)',
    'const [pd, cq] = [device.pd(), device.cq()]',
    'const [srq, qp] = [pd.srq(), pd.rcQp({ sendCq: cq })]',
  ]
  write('mistakes.ts', [...header, ...MISTAKES.flat()].join('\n'))
  const tsc = join(installed('typescript'), 'bin', 'tsc')
  const { stdout } = spawnSync(process.execPath, [tsc, ...nodeModules, 'mistakes.ts'], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
  const refusedLines = new Set([...stdout.matchAll(/^mistakes\.ts\((\d+),/gm)].map(match => Number(match[1])))
  const wrongLines = MISTAKES.map((_, i) => header.length + 2 * i + 1)
  assert.deepEqual([...refusedLines], wrongLines, stdout)
})

test('a CommonJS file in TypeScript compiles with `module: nodenext`', () => {
  write(
    'common.cts',
    "import userdma = require('userdma')\nexport const opening: Promise<userdma.Device> = userdma.open()",
  )
  node(join(installed('typescript'), 'bin', 'tsc'), ...nodeModules, '--types', 'node', 'common.cts')
})

test('the oldest TypeScript compiles a program', { skip: !existsSync(oldest) && 'it is not installed' }, () => {
  write(
    'typed.ts',
    `import { createNetwork, open, type RdmaError, requestWindow } from 'userdma'
    import { createCtxDevice } from 'userdma/drivers'
    import { parsePacket } from 'userdma/wire'
    const network = createNetwork()
    network.addDevice(core => createCtxDevice(core, 'ctx0'))
    await using device = await open({ network })
    const pd = device.pd()
    const window = requestWindow(3)
    await window.add(() => pd.rcQp().ping())
    pd.rcQp({ sendCq: device.cq() }).modify({ state: 'RESET' })
    export const code: RdmaError['code'] = 'EINVAL'
    export const parse = parsePacket`,
  )
  for (const [module, resolution] of [
    ['nodenext', 'nodenext'],
    ['esnext', 'bundler'],
  ] as const)
    node(join(oldest, 'bin', 'tsc'), ...strict, '--module', module, '--moduleResolution', resolution, 'typed.ts')
})

/** The programs on a page. */
const blocksOf = (page: string): string[] =>
  [...readFileSync(join(repoRoot, page), 'utf8').matchAll(/^```[jt]s\n([\s\S]*?)^```$/gm)].map(
    ([, block = '']) => block,
  )

/** Options of the compiler that strict programs turn on, or leave off. */
const FLAGS = ['--noUncheckedIndexedAccess', '--exactOptionalPropertyTypes']

test('the programs of the guide and the README compile under `strict`, with and without the stricter options', () => {
  const others = ['docs/how-to/check.md', 'docs/reference/ip.md', 'docs/why/object-model.md'].flatMap(blocksOf)
  const whole = ['library', 'tutorials/key-value', 'rdma-in-ten-minutes']
    .map(name => `docs/start/${name}.md`)
    .map(page => blocksOf(page).join('\n'))
  const programs = [...whole, ...blocksOf('README.md'), ...others]
  const files = programs.map((program, i) => write(`snippet${i}.ts`, program))
  const compilers = [installed('typescript'), oldest].filter(existsSync)
  for (const compiler of compilers)
    for (const value of ['true', 'false']) {
      const flags = FLAGS.flatMap(flag => [flag, value])
      const options = [...nodeModules, '--types', 'node', '--skipLibCheck', ...flags, ...files]
      const { stdout } = spawnSync(process.execPath, [join(compiler, 'bin', 'tsc'), ...options], {
        cwd: folder,
        env,
        encoding: 'utf8',
      })
      assert.equal(stdout, '')
    }
})

test('options accept undefined, counters and buffers keep their types', () => {
  write(
    'undefined.ts',
    `import { connect, createNetwork, type MetricName, open } from 'userdma'
    const u = undefined
    const network = createNetwork({ path: u, random: u, check: u })
    const device = await open({ network, link: u, check: u, rings: u })
    const pd = device.pd()
    const mr = pd.register(Buffer.alloc(8), { localWrite: u, remoteRead: u, remoteWrite: true })
    console.log(mr.buffer.readUInt8(0))
    const cq = device.cq({ entries: u, vector: u, kind: u })
    const a = pd.rcQp({ sendCq: u, maxSendWr: u, maxRecvWr: u, maxInlineData: u, initial: u, peer: u, connection: u })
    const b = pd.polledRcQp({ sendCq: cq, recvCq: u, srq: u, signalAll: u })
    a.connect(b.endpoint, { timeout: u, timeoutExponent: u, retryCount: u, pathMtu: u, access: u, maxRdAtomic: u })
    b.connect(a.endpoint)
    await a.write(Uint8Array.of(1), mr.remote(), { fence: u, immediate: u, solicited: u })
    b.write(Uint8Array.of(2), mr.remote(), { id: u, signaled: u })
    await cq.wait({ signal: u, completions: u })
    const { timeoutExponent, retryCount, rnrRetryCount } = a.query()
    const name: MetricName = 'transport.sends'
    const values = [device.counters().transport.retransmissions, device.metrics()[name], device.counters().hw_counters.rcvd_rnr_err]
    const options = { device, pd: u, qp: u, prepare: u, privateData: u, maxRdAtomic: u, timeout: u, signal: u }
    await connect('rdma://127.0.0.1:9', options).catch(({ code }) => console.log(code, timeoutExponent, retryCount, rnrRetryCount, values))
    await device.close({ drain: u, signal: u })`,
  )
  const options = [
    ...nodeModules.slice(1),
    '--types',
    'node',
    '--exactOptionalPropertyTypes',
    '--skipLibCheck',
    'undefined.ts',
  ]
  node(join(installed('typescript'), 'bin', 'tsc'), ...options)
  assert.equal(node('undefined.js'), '0\nECONNREFUSED 14 7 7 [ 0, 0, 0 ]\n')
})
