/*
 * The npm packages with bundlers, linters of packages and compilers.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { createContext, runInContext } from 'node:vm'
import { hasNative } from '../../../src/host/native.ts'
import { repoRoot } from '../../paths.ts'
import { env, folder, installed, node, nodeModules, openAndClose, pathOf, strict, tarball, write } from './unpacked.ts'

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

  // 600 WRITEs: more than BUDGET of src/library/network/network.ts, so the library must await turns of the event loop.
  test('bundles for a browser: devices in one page', async t => {
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
    t.after(() => {
      for (const { port1 } of channels) port1.close()
    })
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
