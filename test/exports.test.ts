/*
 * Every export has a use: another file imports it, or it is of an entry point of the package. Tests alone are no use
 * for what src/ itself does not use; `OTHER_USES` has the exceptions.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from './paths.ts'
import { readSources, withoutComments } from './sources.ts'

/** Uses that no import shows, by file and names. */
const OTHER_USES: Readonly<Record<string, string>> = {
  // Node.js calls it for each import of a driver.
  'src/daemon/devices/driver-modules.ts': 'resolve',
  // What V8 computes it for.
  'bench/loops.ts': 'computed',
  // Generated pages of docs/reference have them.
  'src/spec/drivers/mlx5-firmware/commands.ts': 'commandLimits',
  'src/drivers/mlx5/commands/status.ts': 'statusErrno',
  'src/uapi/linux/umad-layout.ts': 'umadCalls',
  // scripts/generate-protocol.mjs writes them for C.
  'src/tools/observe/file-layout.ts': 'ObserveLimits RangeDirection',
}

const DECLARATION =
  /^export (?:declare )?(?:abstract )?(?:async )?(?:const enum|const|let|function\*?|class|type|interface|enum) (\w+)/gm
const LIST = /^(import|export)\s+(?:type\s+)?\{([^}]*)\}(?:\s*from\s*['"]([^'"\n]+)['"])?/gm
const WHOLE = /^(?:import|export)\s+(?:type\s+)?\*\s*(?:as\s+\w+\s*)?from\s*['"]([^'"\n]+)['"]/gm
const DYNAMIC = /\bimport\(\s*['"`]([^'"`\n]+)['"`]\s*\)/g

/** How often `name` is in `code` as a word. */
const countOf = (name: string, code: string): number => code.match(new RegExp(`\\b${name}\\b`, 'g'))?.length ?? 0

/** The source that `module` is in an import of the file `path`; compiled files stand for their sources. */
const sourceOf = (path: string, module: string): string =>
  module.startsWith('.')
    ? posix
        .join(posix.dirname(path), module)
        .replace(/^dist\//, '')
        .replace(/\.js$/, '.ts')
    : module

/** Exports without a use, one sentence each. `sources`: text by path; `entries`: files whose exports all have one. */
const unusedExports = (
  sources: ReadonlyMap<string, string>,
  entries: ReadonlySet<string>,
  otherUses = OTHER_USES,
): string[] => {
  const exported: { path: string; name: string; isUsedHere(): boolean }[] = []
  // Users, by file and name, or by file and '*' for all names.
  const users = new Map<string, string[]>()
  const use = (file: string, name: string, path: string): void => {
    const key = `${file} ${name}`
    const known = users.get(key)
    if (known) known.push(path)
    else users.set(key, [path])
  }
  for (const [path, source] of sources) {
    const code = withoutComments(source)
    // Names with the number of their declarations.
    const declared = new Map<string, number>()
    for (const [, name] of code.matchAll(DECLARATION)) declared.set(name, (declared.get(name) ?? 0) + 1)
    for (const [, keyword, list, module] of code.matchAll(LIST)) {
      for (const [, name, alias] of list.matchAll(/(?:^|,)\s*(?:type\s+)?(\w+)(?:\s+as\s+(\w+))?/g)) {
        if (module !== undefined) use(sourceOf(path, module), name, path)
        if (keyword === 'export') declared.set(alias ?? name, 1)
      }
    }
    for (const [, module] of code.matchAll(WHOLE)) use(sourceOf(path, module), '*', path)
    for (const [, module] of code.matchAll(DYNAMIC))
      for (const word of new Set(code.match(/\w+/g))) use(sourceOf(path, module), word, path)
    if (entries.has(path) || !path.endsWith('.ts')) continue
    for (const [name, count] of declared) exported.push({ path, name, isUsedHere: () => countOf(name, code) > count })
  }
  return exported.flatMap(({ path, name, isUsedHere }) => {
    const by = [...(users.get(`${path} ${name}`) ?? []), ...(users.get(`${path} *`) ?? [])]
    if (otherUses[path]?.split(' ').includes(name)) return []
    if (by.length === 0) return [`${path}: no other file imports ${name}`]
    return path.startsWith('test/') || by.some(user => !user.startsWith('test/')) || isUsedHere()
      ? []
      : [`${path}: only tests use ${name}`]
  })
}

describe('exports', () => {
  it('have a use', () => {
    const sources = ['src', 'test', 'web', 'bench', 'scripts', 'examples', 'docs'].flatMap(folder =>
      readSources(folder, ['.ts', '.tsx', '.mjs']),
    )
    const { exports } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as {
      exports: Record<string, string | { types: string }>
    }
    const entries = Object.values(exports).flatMap(target =>
      typeof target === 'string' ? [] : [target.types.replace('./dist/', '').replace(/\.d\.ts$/, '.ts')],
    )
    const found = unusedExports(new Map(sources), new Set(entries))
    assert.ok(found.length === 0, found.join('\n'))
  })
})

describe('the check of exports', () => {
  const find = (files: Record<string, string>) =>
    unusedExports(new Map(Object.entries(files)), new Set(['src/index.ts']))

  it('finds what nothing imports, and what only tests use', () => {
    assert.deepEqual(
      find({
        'src/a.ts':
          'export const used = 1\nexport type Unused = 1\nexport const tested = 2\nexport const both = 3\nboth',
        'src/b.ts': "import { used } from './a.ts'\n/* import { Unused } from './a.ts' */\nexport { used as other }",
        'test/a.test.ts': "import { both, tested } from '../src/a.ts'",
        'src/index.ts': 'export const entry = 1',
      }),
      [
        'src/a.ts: no other file imports Unused',
        'src/a.ts: only tests use tested',
        'src/b.ts: no other file imports other',
      ],
    )
  })

  it('knows imports of all names, of compiled files and within functions', () => {
    assert.deepEqual(
      find({
        'src/a.ts': 'export const a = 1',
        'src/b.ts': 'export const b = 1\nexport const c = 1',
        'src/d.ts': 'export interface D {}',
        'src/index.ts': "export * from './a.ts'\nconst { b } = await import('./b.ts')\ntype X = import('./d.ts').D",
        'scripts/c.mjs': "import { c } from '../dist/src/b.js'",
      }),
      [],
    )
  })
})
