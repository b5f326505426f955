/*
 * The npm packages as programs use them.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, symlinkSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, test } from 'node:test'
import { hasNative } from '../../../src/host/native.ts'
import { repoRoot } from '../../paths.ts'
import { findTool, requireTool } from '../../tools.ts'
import { makePackages } from './making.ts'
import { env, folder, installed, node, nodeModules, openAndClose, pathOf, unpack, version, write } from './unpacked.ts'

const SLURM = 'deploy/slurm/userdma.sh'

/** Files of the package. */
const packaged = () => readdirSync(pathOf('node_modules/userdma'), { recursive: true, encoding: 'utf8' })

test('the package has the documents, the headers, the files for other languages, the examples and their compiled files', () => {
  const headers = ['userdma.h', 'userdma_check.h', 'userdma_gtest.h'].map(name => `shim/include/${name}`)
  const languages = ['userdma.py', 'pytest_userdma.py', 'userdma.rs', 'userdma.go'].map(
    name => `shim/languages/${name}`,
  )
  const documents = ['README.md', 'CHANGELOG.md', 'docs/start/library.md', 'examples/ping-pong.ts', SLURM]
  for (const name of [...documents, ...headers, ...languages])
    assert.ok(existsSync(pathOf(`node_modules/userdma/${name}`)), name)
  assert.match(node('node_modules/userdma/dist/examples/ping-pong.js', '20'), /^20 round trips/)
})

test('the package has nothing that only a checkout needs', () => {
  const checkouts =
    /^(?:dist\/(?:src|test|bench|web)|docs\/decisions|docs\/findings\/.*|.*\.(?:map|cache|tsbuildinfo))$/
  assert.deepEqual(
    packaged().filter(name => checkouts.test(name)),
    [],
  )
  const pages = packaged().filter(name => /^docs\/.*\.md$/.test(name))
  const shown = pages.flatMap(page =>
    [...readFileSync(pathOf(`node_modules/userdma/${page}`), 'utf8').matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)].map(
      ([, image = '']) => join(dirname(page), image),
    ),
  )
  assert.deepEqual(new Set(packaged().filter(name => /^docs\/images\/./.test(name))), new Set(shown))
})

test('`userdma help` prints every page that a checkout has', () => {
  const help = (...args: string[]) => spawnSync(process.execPath, args, { cwd: folder, env, encoding: 'utf8' }).stdout
  const script = pathOf('node_modules/userdma/bin/userdma')
  assert.equal(help(script, 'help', 'pages'), help(join(repoRoot, 'bin/userdma'), 'help', 'pages'))
  assert.match(help(script, 'help', 'findings#stale-rkey'), /deregister/)
})

test('a daemon of the package has the driver of a file', () => {
  const driver = join(repoRoot, 'examples/drivers/loop.mjs')
  const [socket, copy] = ['driver-socket', 'loop.mjs'].map(pathOf) as [string, string]
  copyFileSync(driver, copy)
  chmodSync(copy, 0o644)
  const run = (...args: string[]) =>
    spawnSync(process.execPath, [pathOf('node_modules/userdma/bin/userdma'), ...args, '--socket', socket], {
      cwd: folder,
      env,
      encoding: 'utf8',
    })
  const { status, stderr } = run('daemon', '--detach', '--driver', copy, '--device', 'loop0')
  try {
    assert.equal(status, 0, stderr)
    assert.match(run('devices').stdout, /loop0/)
  } finally {
    run('stop')
  }
})

test('the package names what it contains, with licences', () => {
  const { components } = JSON.parse(readFileSync(pathOf('node_modules/userdma/sbom.cdx.json'), 'utf8'))
  const names = components.map((component: { name: string }) => component.name)
  assert.deepEqual(names, ['preact', 'uplot'])
  for (const name of ['LICENSE', ...names.map((name: string) => `licenses/${name}/LICENSE`)])
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
    assert.match(
      stderr,
      new RegExp(`^userdma: .* is not installed; .*npm install \\./${platform}-${version}\\.tgz.*build-native`),
    )
  })

  test('comes with a package, without a compiler; packages that this machine cannot make are left out', t => {
    if (!requireTool('cc', t) || !requireTool('ibv_devices', t, 'ibverbs-utils')) return
    const tools = ['gcc', 'as', 'ld', 'objdump', 'strip', 'npm', 'env', 'node', 'sh', 'git']
    if (tools.some(tool => !findTool(tool))) return t.skip(`one of ${tools.join(', ')} is missing`)
    const packages = makePackages(tools, 'platform')
    assert.equal(packages.status, 0, packages.stderr)
    assert.deepEqual(packages.made, [`${platform}-${version}.tgz`])
    const [other, compiler] =
      process.arch === 'x64' ? ['arm64', 'gcc-aarch64-linux-gnu'] : ['x64', 'gcc-x86-64-linux-gnu']
    const leftOut = `^userdma: left out: platform for ${other}; .*apt-get install ${compiler} libc6-dev-\\S+-cross\n`
    assert.match(packages.stderr, new RegExp(leftOut))
    unpack(join(packages.output, packages.made[0]!), platform)
    const { status, stdout, stderr } = run('ibv_devices')
    assert.equal(status, 0, stderr)
    assert.match(stdout, /rxe0/)
  })
})

test('no source map is named; stacks begin at the program', () => {
  const root = pathOf('node_modules/userdma')
  const compiled = packaged().filter(name => /^dist\/.*\.js$/.test(name))
  assert.ok(compiled.length > 100)
  assert.deepEqual(
    compiled.filter(name => readFileSync(join(root, name), 'utf8').includes('sourceMappingURL')),
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

test('what an error of a callback prints is readable', () => {
  const program = write(
    'callback.mjs',
    `import { createNetwork, open } from 'userdma'
    const network = createNetwork()
    const device = await open({ network })
    device.onEvent(() => { throw new Error('mine') })
    network.setLink(device.name, false)`,
  )
  const { status, stderr } = spawnSync(process.execPath, [program], { cwd: folder, env, encoding: 'utf8' })
  assert.equal(status, 1)
  assert.ok(Math.max(...stderr.split('\n').map(line => line.length)) <= 160, stderr)
  assert.match(stderr, /^Error: mine\n {4}at \S*.*callback\.mjs:4:/m)
})

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
    a.connect(b.endpoint, { ackTimeout: u, ackTimeoutExponent: u, retryCount: u, pathMtu: u, access: u, maxRdAtomic: u })
    b.connect(a.endpoint)
    await a.write(Uint8Array.of(1), mr.remote(), { fence: u, immediate: u, solicited: u })
    b.write(Uint8Array.of(2), mr.remote(), { id: u, signaled: u })
    await cq.wait({ signal: u, completions: u })
    const { ackTimeoutExponent, retryCount, rnrRetryCount } = a.query()
    const name: MetricName = 'transport.sends'
    const values = [device.counters().transport.retransmissions, device.metrics()[name], device.counters().hw_counters.rcvd_rnr_err]
    const options = { device, pd: u, qp: u, prepare: u, privateData: u, maxRdAtomic: u, ackTimeout: u, timeout: u, signal: u }
    await connect('rdma://127.0.0.1:9', options).catch(({ code }) => console.log(code, ackTimeoutExponent, retryCount, rnrRetryCount, values))
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
