/*
 * Sanitizers × mistakes × devices: each cell is a run. GCC's and Clang's runtimes, shared and static, and memcheck.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from '../../paths.ts'
import { scratchFolder } from '../../tools.ts'
import { lacking, run, startDaemon } from '../programs.ts'
import { ASAN, casesOf, MEMCHECK, programs, type Sanitizer, TSAN, wrongReport } from './sanitized.ts'

const folder = scratchFolder()

interface Tool {
  readonly sanitizer: Sanitizer
  readonly compiler: readonly string[]
  readonly wrapper?: readonly string[]
  /** A case that it reports by chance, if at all. */
  readonly byChance?: string
}

const VALGRIND = ['valgrind', '-q', '--error-exitcode=9']
const tools: Readonly<Record<string, Tool>> = {
  'gcc, ASan': { sanitizer: ASAN, compiler: ['gcc', '-fsanitize=address'] },
  // A static runtime's own options are found before ours: frames that have returned are not watched.
  'gcc, static ASan': {
    sanitizer: ASAN,
    compiler: ['gcc', '-fsanitize=address', '-static-libasan'],
    byChance: 'posted_after_return',
  },
  'clang, ASan': { sanitizer: ASAN, compiler: ['clang', '-fsanitize=address'], byChance: 'posted_after_return' },
  'clang, shared ASan': { sanitizer: ASAN, compiler: ['clang', '-fsanitize=address', '-shared-libsan'] },
  'gcc, TSan': { sanitizer: TSAN, compiler: ['gcc', '-fsanitize=thread'] },
  'gcc, static TSan': { sanitizer: TSAN, compiler: ['gcc', '-fsanitize=thread', '-static-libtsan'] },
  'clang, TSan': { sanitizer: TSAN, compiler: ['clang', '-fsanitize=thread'] },
  memcheck: { sanitizer: MEMCHECK, compiler: ['gcc'], wrapper: VALGRIND },
}

const devices: Readonly<Record<string, string>> = {
  rxe: 'rxe0@127.0.0.1',
  mlx5: 'mlx5_0@127.0.0.1,driver=mlx5',
  EFA: 'efa_0@127.0.0.1,driver=efa',
  InfiniBand: 'mlx5_0@127.0.0.1,driver=mlx5,layer=infiniband',
}

for (const [name, { sanitizer, compiler, wrapper = [], byChance }] of Object.entries(tools))
  describe(name, { skip: lacking(...compiler.slice(0, 1), ...wrapper.slice(0, 1)) }, () => {
    const cells = Object.keys(programs).flatMap(source => Object.keys(devices).map(device => ({ source, device })))
    for (const { source, device } of cells)
      it(`${source} of ${device}`, async t => {
        const isSrd = device === 'EFA'
        const { mistakes, right } = programs[source]!
        const path = join(repoRoot, 'test', 'programs', 'sanitizers', `${source}.c`)
        const program = join(folder, `${name}-${source}-${device}`.replaceAll(/\W+/g, '-'))
        const options = [...compiler.slice(1), '-g', ...(isSrd ? ['-DSRD'] : []), path, '-o', program]
        const rpath = options.includes('-shared-libsan')
          ? [`-Wl,-rpath,${(await run(t, 'clang', ['-print-runtime-dir'])).stdout.trim()}`]
          : []
        const libraries = ['-libverbs', '-lpthread', ...(isSrd ? ['-lefa'] : []), ...rpath]
        const built = await run(t, compiler[0]!, [...options, ...libraries])
        assert.equal(built.status, 0, built.stderr)
        const { env } = await startDaemon(t, { devices: [devices[device]!] })
        const settings = { ...env, ASAN_OPTIONS: 'detect_leaks=0' }
        const start = (cases: readonly string[]) => {
          const [first, ...rest] = [...wrapper, program, ...cases]
          return run(t, first!, rest, { env: settings })
        }
        const wrong: (string | undefined)[] = []
        for (const mistake of casesOf(mistakes, isSrd)) {
          if (mistake === byChance) continue
          const { stdout, stderr } = await start([mistake])
          wrong.push(wrongReport(mistake, mistakes[mistake]!, sanitizer, stdout + stderr))
        }
        assert.deepEqual(
          wrong.filter(text => text !== undefined),
          [],
        )
        const { stderr, status } = await start(casesOf(right, isSrd))
        assert.equal(status, 0, stderr)
        assert.equal(stderr, '')
      })
  })
