/*
 * Rules of the source tree (ARCHITECTURE.md, CONTRIBUTING.md).
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { join, posix } from 'node:path'
import { describe, it } from 'node:test'
import { repoRoot } from './paths.ts'
import { importsOf, readSources, withoutComments } from './sources.ts'

interface Folder {
  readonly floor: number
  /** Other folders of src/ that this folder may import from. */
  readonly imports: readonly string[]
  /** Permitted modules of Node. */
  readonly node: readonly string[] | 'all'
  readonly packages?: readonly string[]
  /** Time and randomness are arguments here. */
  readonly isTimeless?: boolean
  /** Its subfolders do not import each other, and other folders import only the files beside them. */
  readonly hasSeparateFolders?: boolean
  /** Of separate folders: those of which the others are made. Each may import those before it. */
  readonly sharedFolders?: readonly string[]
  /** The only file that other folders import. */
  readonly door?: string
  /** May import from subfolders of folders with `hasSeparateFolders`. */
  readonly knowsSeparateFolders?: boolean
}

/** A folder of src/, or one inside it that has rules of its own. */
const FOLDERS: Readonly<Record<string, Folder>> = {
  base: { floor: 0, imports: [], node: [], isTimeless: true },
  spec: { floor: 0, imports: [], node: [], isTimeless: true },
  faults: { floor: 1, imports: ['base', 'spec'], node: [], isTimeless: true },
  settings: { floor: 1, imports: ['base', 'spec'], node: [], isTimeless: true },
  host: { floor: 1, imports: [], node: 'all', packages: ['koffi'] },
  uapi: { floor: 1, imports: ['spec'], node: [], isTimeless: true },
  'transport/wire': { floor: 1, imports: ['spec'], node: ['node:zlib'], isTimeless: true },
  'tools/events': { floor: 1, imports: ['spec'], node: [], isTimeless: true },
  core: { floor: 2, imports: ['spec', 'uapi'], node: [], isTimeless: true },
  'transport/engine': { floor: 2, imports: ['spec', 'transport/wire'], node: [], isTimeless: true },
  'transport/phy': {
    floor: 2,
    imports: ['base', 'spec', 'faults', 'host', 'transport/wire'],
    node: 'all',
    isTimeless: true,
  },
  'services/cm-engine': { floor: 2, imports: ['spec', 'transport/wire'], node: [], isTimeless: true },
  'services/mad-engine': { floor: 2, imports: ['spec', 'transport/wire'], node: [], isTimeless: true },
  'services/subnet-engine': { floor: 2, imports: ['spec', 'transport/wire'], node: [], isTimeless: true },
  'services/ip-engine': { floor: 2, imports: ['spec', 'transport/wire'], node: [], isTimeless: true },
  'tools/check': { floor: 2, imports: ['base', 'spec', 'settings', 'transport/wire'], node: [], isTimeless: true },
  'tools/trace': { floor: 2, imports: ['base', 'spec', 'uapi', 'transport/wire'], node: [], isTimeless: true },
  'tools/record': { floor: 2, imports: ['base', 'spec', 'transport/wire', 'tools/events'], node: [], isTimeless: true },
  'tools/logs': { floor: 2, imports: ['base', 'spec'], node: [], isTimeless: true },
  drivers: {
    floor: 3,
    imports: [
      'base',
      'spec',
      'settings',
      'host',
      'uapi',
      'transport/wire',
      'core',
      'transport/engine',
      'transport/phy',
    ],
    node: 'all',
    hasSeparateFolders: true,
    sharedFolders: ['soft', 'rings'],
  },
  services: {
    floor: 3,
    imports: [
      'spec',
      'settings',
      'transport/wire',
      'core',
      'services/cm-engine',
      'services/mad-engine',
      'services/subnet-engine',
      'services/ip-engine',
    ],
    node: 'all',
  },
  'daemon/client': { floor: 3, imports: ['spec', 'settings', 'host', 'uapi'], node: 'all' },
  'tools/observe': {
    floor: 3,
    imports: [
      'spec',
      'faults',
      'host',
      'uapi',
      'transport/wire',
      'tools/events',
      'tools/check',
      'tools/trace',
      'tools/record',
    ],
    node: 'all',
    door: 'observe.ts',
  },
  'tools/topology': {
    floor: 3,
    imports: ['base', 'spec', 'faults', 'settings', 'transport/phy'],
    node: ['node:fs', 'node:path'],
    packages: ['yaml'],
    isTimeless: true,
  },
  'tools/captures': {
    floor: 3,
    imports: ['base', 'spec', 'transport/wire', 'tools/record'],
    node: [],
    isTimeless: true,
  },
  'tools/sim': {
    floor: 3,
    imports: ['spec', 'transport/wire', 'transport/engine', 'transport/phy'],
    node: [],
    isTimeless: true,
  },
  'tools/clients': {
    floor: 4,
    imports: [
      'spec',
      'faults',
      'host',
      'transport/wire',
      'core',
      'transport/phy',
      'tools/events',
      'tools/check',
      'tools/record',
      'services',
    ],
    node: 'all',
  },
  assembly: {
    floor: 4,
    imports: [
      'spec',
      'faults',
      'settings',
      'host',
      'uapi',
      'transport/wire',
      'core',
      'transport/phy',
      'tools/trace',
      'drivers',
      'services',
    ],
    node: 'all',
  },
  'library/verbs': {
    floor: 4,
    imports: ['base', 'spec', 'host', 'uapi', 'transport/wire', 'core', 'transport/phy', 'daemon/client'],
    node: 'all',
  },
  daemon: {
    floor: 5,
    imports: [
      'base',
      'spec',
      'faults',
      'settings',
      'host',
      'uapi',
      'transport/wire',
      'core',
      'transport/phy',
      'tools/events',
      'tools/check',
      'tools/trace',
      'tools/record',
      'drivers',
      'services',
      'daemon/client',
      'tools/topology',
      'tools/clients',
      'assembly',
    ],
    node: 'all',
  },
  'tools/inspect': { floor: 4, imports: ['spec', 'host', 'tools/record', 'daemon/client'], node: 'all' },
  'library/self-check': {
    floor: 5,
    imports: ['spec', 'transport/wire', 'core', 'tools/events', 'tools/check', 'tools/clients', 'library/verbs'],
    node: ['node:path'],
  },
  'library/network': {
    floor: 6,
    imports: [
      'base',
      'spec',
      'faults',
      'settings',
      'host',
      'uapi',
      'transport/wire',
      'core',
      'transport/phy',
      'tools/trace',
      'tools/record',
      'drivers',
      'services',
      'tools/topology',
      'tools/clients',
      'assembly',
      'library/verbs',
      'library/self-check',
    ],
    node: 'all',
  },
  'library/open': {
    floor: 7,
    imports: ['base', 'spec', 'host', 'uapi', 'core', 'library/verbs', 'library/self-check', 'library/network'],
    node: [],
  },
  'library/connections': {
    floor: 8,
    imports: ['spec', 'host', 'transport/wire', 'services', 'library/verbs', 'library/open'],
    node: 'all',
  },
  library: {
    floor: 9,
    imports: [
      'spec',
      'transport/wire',
      'tools/captures',
      'library/verbs',
      'library/self-check',
      'library/network',
      'library/open',
      'library/connections',
    ],
    node: [],
  },
  cli: {
    floor: 10,
    imports: [
      'base',
      'spec',
      'faults',
      'settings',
      'host',
      'uapi',
      'transport/wire',
      'core',
      'tools/check',
      'tools/trace',
      'tools/record',
      'drivers',
      'services',
      'daemon/client',
      'tools/observe',
      'tools/topology',
      'tools/captures',
      'tools/logs',
      'tools/sim',
      'daemon',
      'tools/inspect',
      'library/open',
      'library',
    ],
    node: 'all',
    packages: ['commander', 'yaml', '@grpc/grpc-js'],
    knowsSeparateFolders: true,
  },
}

const UNTYPED = /[:<,|(]\s*any\b|\bas any\b/
/** Of long functions, with a reason; of such there are few. */
const LONG_FUNCTION = 'biome-ignore lint/complexity/noExcessiveLinesPerFunction:'
const MAX_LONG_FUNCTIONS = 12
const SUPPRESSION =
  /@ts-(?:ignore|expect-error|nocheck)|biome-ignore(?! lint\/complexity\/noExcessiveLinesPerFunction: \S)/
const CLOCKS_AND_RANDOMNESS =
  /\b(?:Date\.now|new Date|performance\.now|Math\.random|setTimeout|setInterval|setImmediate|process\.\w+)\b/

const PATH = /(?<![\w./<*-])(?:[\w-]+\/)+[\w.-]*\.(?:ts|c|h|mjs|md|txt|json|out)\b/g
/** Headers of the system, and placeholders. */
const FOREIGN_FILES = /^(?:asm-generic|infiniband|linux|rdma|sys)\/|\bNAME\b/

/** Files that comments name by a path with a folder, for example `spec/session.ts`. */
const namedFiles = (source: string): string[] => {
  const code = withoutComments(source)
  const comments = source.replace(/[\s\S]/g, (unit, i: number) => (code[i] === unit ? ' ' : unit))
  return [...comments.matchAll(PATH)].map(match => match[0]).filter(name => !FOREIGN_FILES.test(name))
}

/** The folder of FOLDERS that a file of src/ is in: the innermost one. */
const folderOf = (path: string): string => {
  const [, outer, inner] = path.split('/')
  return `${outer}/${inner}` in FOLDERS ? `${outer}/${inner}` : outer
}

/** The rule that an import breaks, as a sentence; undefined if none. Paths begin with src/ and use slashes. */
const wrongImport = (path: string, module: string): string | undefined => {
  const folder = folderOf(path)
  const rules = FOLDERS[folder]
  if (module.startsWith('node:')) {
    return rules.node === 'all' || rules.node.includes(module) ? undefined : `${folder}/ may not use ${module}`
  }
  if (!module.startsWith('.')) {
    return rules.packages?.includes(module) ? undefined : `${folder}/ may not use the package ${module}`
  }
  const target = posix.join(posix.dirname(path), module)
  if (!target.startsWith('src/')) return `imports ${module}, outside of src/`
  const other = folderOf(target)
  if (other !== folder) {
    if (!rules.imports.includes(other)) return `${folder}/ may not import from ${other}/`
    const { door } = FOLDERS[other]
    if (door !== undefined && target !== `src/${other}/${door}`)
      return `other folders import only ${door} of ${other}/, not ${target}`
    const isInside = FOLDERS[other].hasSeparateFolders && target.split('/').length > 3
    return isInside && !rules.knowsSeparateFolders
      ? `${folder}/ may import only the files of ${other}/ itself, not ${target}`
      : undefined
  }
  const [part, otherPart] = [path, target].map(file => file.split('/').slice(2, -1)[0])
  if (rules.hasSeparateFolders && part !== undefined && otherPart !== undefined && part !== otherPart) {
    const { sharedFolders = [] } = rules
    const [own, others] = [part, otherPart].map(name => sharedFolders.indexOf(name))
    if (others >= 0 && (own < 0 || others < own)) return undefined
    return `${folder}/${part} may not import from ${folder}/${otherPart}`
  }
  return undefined
}

/** Files that name each other's types: a device has a driver, and a driver makes devices. */
const MUTUAL = ['src/core/model.ts', 'src/core/driver-contract.ts'] as const

/** A cycle of imports, as paths; the last path is the first one. */
const findCycle = (graph: ReadonlyMap<string, readonly string[]>): string[] | undefined => {
  const visited = new Set<string>()
  const stack: string[] = []
  const visit = (path: string): string[] | undefined => {
    if (stack.includes(path)) return [...stack.slice(stack.indexOf(path)), path]
    if (visited.has(path)) return undefined
    stack.push(path)
    for (const next of graph.get(path) ?? []) {
      const cycle = visit(next)
      if (cycle) return cycle
    }
    stack.pop()
    visited.add(path)
    return undefined
  }
  for (const path of graph.keys()) {
    const cycle = visit(path)
    if (cycle) return cycle
  }
  return undefined
}

/** A cycle of imports between `sources`, text by path, as a sentence; [] if there is none. */
const cyclesIn = (sources: ReadonlyMap<string, string>): string[] => {
  const graph = new Map<string, string[]>()
  for (const [path, source] of sources) {
    const relative = importsOf(source).filter(module => module.startsWith('.'))
    const imported = relative.map(module => posix.join(posix.dirname(path), module))
    graph.set(path, path === MUTUAL[0] ? imported.filter(file => file !== MUTUAL[1]) : imported)
  }
  const cycle = findCycle(graph)
  return cycle === undefined ? [] : [`imports form a cycle: ${cycle.join(' → ')}`]
}

/** The violations of rules, one sentence each. `sources`: text of files of src/ by path. */
const findViolations = (sources: ReadonlyMap<string, string>): string[] => {
  const found: string[] = []
  for (const [path, source] of sources) {
    const rules = FOLDERS[folderOf(path)]
    if (rules === undefined || path.split('/').length < 3) {
      found.push(`${path}: is in no folder of the table: ${Object.keys(FOLDERS).join(', ')}`)
      continue
    }
    for (const module of importsOf(source)) {
      const violation = wrongImport(path, module)
      if (violation) found.push(`${path}: ${violation}`)
    }
    const code = withoutComments(source)
    const clock = rules.isTimeless && CLOCKS_AND_RANDOMNESS.exec(code)
    if (clock) found.push(`${path}: uses ${clock[0]}; time, randomness and process are arguments here`)
    const untyped = UNTYPED.exec(code) ?? SUPPRESSION.exec(source)
    if (untyped) found.push(`${path}: has "${untyped[0]}"`)
  }
  return [...found, ...cyclesIn(sources)]
}

const compiled = new Map<string, readonly string[]>()

/** Compiled modules that a compiled module imports, also later by import(). */
const compiledImports = (path: string): readonly string[] => {
  const known = compiled.get(path)
  if (known !== undefined) return known
  const relative = importsOf(readFileSync(join(repoRoot, path), 'utf8')).filter(module => module.startsWith('.'))
  const imported = relative.map(module => posix.join(posix.dirname(path), module))
  compiled.set(path, imported)
  return imported
}

const MAIN = 'dist/src/cli/main.js'

/**
 * Compiled modules that are loaded with `path`, of MAIN without commands, and those that bundles among them consist of.
 */
const loadedBy = (path: string): string[] => {
  const loaded = new Set([path])
  for (const one of loaded)
    if (existsSync(join(repoRoot, one)))
      for (const next of compiledImports(one)) if (path !== MAIN || !next.includes('/commands/')) loaded.add(next)
  const bundled = [...loaded]
    .filter(one => one.startsWith('dist/lib/'))
    .flatMap(one => [...readFileSync(join(repoRoot, one), 'utf8').matchAll(/^\/\/ (dist\/\S+)$/gm)])
  return [...loaded, ...bundled.map(([, name]) => name)]
}

/** Commands that run the checker: of a program, of what a daemon in their own process sees, or of files. */
const RUN_THE_CHECKER =
  /commands\/(?:check|check-files|daemon|demo|demo-in-process|doctor|net|run|torment-search|trace|walk)\.js$/

describe('the source tree', () => {
  it('breaks no rule about imports, clocks and types in src/', () => {
    const sources = new Map(readSources('src', ['.ts']))
    assert.ok(sources.size > 50, `only ${sources.size} sources found below ${repoRoot}`)
    assert.deepEqual(findViolations(sources), [])
  })

  it(`has at most ${MAX_LONG_FUNCTIONS} functions in src/, web/ and scripts/ that biome finds too long`, () => {
    const long = ['src', 'web', 'scripts']
      .flatMap(folder => readSources(folder, ['.ts', '.tsx', '.mjs', '.cjs']))
      .flatMap(([path, source]) =>
        source
          .split(LONG_FUNCTION)
          .slice(1)
          .map(() => path),
      )
    assert.ok(long.length <= MAX_LONG_FUNCTIONS, long.join('\n'))
  })

  it('lets the page import only what runs in browsers, and of its server the protocol, without cycles', () => {
    const allowed =
      /^src\/(?:spec|transport\/wire|tools\/trace|tools\/record|tools\/logs)\/|^src\/tools\/inspect\/protocol\.ts$|^web\//
    const sources = readSources('web', ['.ts', '.tsx'])
    assert.deepEqual(cyclesIn(new Map(sources)), [])
    assert.deepEqual(importsOf(readFileSync(join(repoRoot, 'src/tools/inspect/protocol.ts'), 'utf8')), [])
    for (const [path, source] of sources) {
      for (const module of importsOf(source)) {
        const target = module.startsWith('.') ? posix.join(posix.dirname(path), module) : module
        const isAllowed = allowed.test(target) || /^(?:preact(?:\/hooks)?|uplot)$/.test(target)
        assert.ok(isAllowed, `${path} imports ${module}`)
      }
    }
  })

  it('lets each folder import only from floors below its own', () => {
    for (const [name, { floor, imports }] of Object.entries(FOLDERS)) {
      for (const other of imports) assert.ok(FOLDERS[other].floor < floor, `${name} → ${other}`)
    }
  })

  it('imports from every folder that the table lets it import from', () => {
    const used = new Set(
      readSources('src', ['.ts']).flatMap(([path, source]) =>
        importsOf(source).map(module => `${folderOf(path)} → ${folderOf(posix.join(posix.dirname(path), module))}`),
      ),
    )
    const listed = Object.entries(FOLDERS).flatMap(([name, { imports }]) => imports.map(other => `${name} → ${other}`))
    assert.deepEqual(
      listed.filter(pair => !used.has(pair)),
      [],
    )
  })

  it('has the same floors in ARCHITECTURE.md, and a row for each folder', () => {
    const text = readFileSync(join(repoRoot, 'ARCHITECTURE.md'), 'utf8')
    const pictured = [...text.matchAll(/^ ?(\d+) {3}(\w.*)$/gm)].flatMap(([, floor, names]) =>
      names.split(/\s+/).map(name => [name, Number(floor)]),
    )
    const actual = Object.entries(FOLDERS).map(([name, { floor }]) => [name, floor])
    assert.deepEqual(Object.fromEntries(pictured), Object.fromEntries(actual))
    const rows = [...text.matchAll(/^\| (`.*?) \|/gm)].flatMap(([, cell]) => [...cell.matchAll(/`([\w/-]+)\/`/g)])
    const described = new Set(rows.map(([, name]) => name))
    assert.deepEqual(
      Object.keys(FOLDERS).filter(name => !described.has(name)),
      [],
    )
  })

  it('names only existing paths in README.md, ARCHITECTURE.md and CONTRIBUTING.md', () => {
    for (const document of ['README.md', 'ARCHITECTURE.md', 'CONTRIBUTING.md']) {
      const text = readFileSync(join(repoRoot, document), 'utf8')
      const paths = [...text.matchAll(/`((?:src|shim|native|test|bench|scripts|docs)\/[\w./-]*)`/g)].map(
        match => match[1],
      )
      for (const path of paths) assert.ok(existsSync(join(repoRoot, path)), `${document} names ${path}`)
    }
  })

  it('names only existing files in its comments', () => {
    const named = ['src', 'test', 'shim', 'native', 'bench', 'scripts']
      .flatMap(folder => readSources(folder, ['.ts', '.c', '.h', '.mjs']))
      .flatMap(([path, source]) => namedFiles(source).map(name => ({ path, name })))
    assert.ok(named.length > 30, `only ${named.length} files are named`)
    const isThere = (path: string, name: string): boolean =>
      ['', 'src', 'test', posix.dirname(path)].some(from => existsSync(join(repoRoot, from, name)))
    assert.deepEqual(
      named.filter(({ path, name }) => !isThere(path, name)).map(({ path, name }) => `${path} names ${name}`),
      [],
    )
  })

  for (const [entry, others] of [
    [
      'messages',
      ['assembly', 'drivers', 'transport/engine', 'services/cm-engine', 'transport/phy', 'library/self-check'],
    ],
    ['test', ['library/connections', 'library/self-check']],
  ] as const)
    it(`loads userdma/${entry} without ${others.join(', ')}`, () => {
      const loaded = new Set<string>()
      const load = (path: string): void => {
        if (loaded.has(path)) return
        loaded.add(path)
        const code = withoutComments(readFileSync(join(repoRoot, path), 'utf8'))
        const values = code.replace(/^(?:import|export) type\b[^'"]*['"][^'"\n]+['"]/gm, '')
        for (const [, module] of values.matchAll(/^(?:import|export)\b[^'";]*?\bfrom\s*['"](\.[^'"\n]+)['"]/gm))
          load(posix.join(posix.dirname(path), module))
      }
      load(`src/library/${entry}.ts`)
      assert.ok(loaded.size > 50, `only ${loaded.size} files`)
      const folders = new Set([...loaded].map(folderOf))
      assert.deepEqual(
        others.filter(folder => folders.has(folder)),
        [],
      )
    })

  it('has detectors of the checker in nothing that only needs rows of findings', () => {
    const check = 'dist/src/tools/check'
    const detectors = new Set([`${check}/checker.js`, ...compiledImports(`${check}/detector-table.js`)])
    assert.ok(detectors.size > 40, `only ${detectors.size} detectors`)
    const commands = readSources('src/cli/commands', ['.ts']).map(([path]) => `dist/${path.replace(/\.ts$/, '.js')}`)
    for (const entry of [
      MAIN,
      'dist/lib/spec.js',
      'dist/web/main.js',
      'dist/test/spec/findings.test.js',
      ...commands,
    ]) {
      const loaded = loadedBy(entry)
      const found = loaded.filter(path => detectors.has(path))
      if (RUN_THE_CHECKER.test(entry)) assert.ok(found.length > 0, `${entry} has no detector any more`)
      else assert.deepEqual(found, [], entry)
    }
  })

  it('exports only existing sources', () => {
    const { exports } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as {
      exports: Record<string, string | { types: string }>
    }
    const sources = new Set(readSources('src', ['.ts']).map(([path]) => path))
    for (const [name, target] of Object.entries(exports)) {
      if (typeof target === 'string') continue
      const source = target.types.replace('./dist/', '').replace(/\.d\.ts$/, '.ts')
      assert.ok(sources.has(source), `package.json exports ${name} from ${source}, which does not exist`)
    }
  })
})

describe('the check of src/', () => {
  const findIn = (path: string, source: string) => findViolations(new Map([[path, source]]))
  const refused: readonly (readonly [path: string, source: string, message: RegExp])[] = [
    ['src/transport/wire/a.ts', "import { x } from '../../core/b.ts'", /transport\/wire\/ may not import from core\//],
    [
      'src/core/a.ts',
      "import type { X } from '../transport/wire/b.ts'",
      /core\/ may not import from transport\/wire\//,
    ],
    ['src/core/a.ts', "export * from '../transport/engine/b.ts'", /core\/ may not import from transport\/engine\//],
    [
      'src/core/a.ts',
      "import {\n  x,\n  y,\n} from '../transport/phy/b.ts'",
      /core\/ may not import from transport\/phy\//,
    ],
    [
      'src/daemon/a.ts',
      "const b = await import('../tools/inspect/b.ts')",
      /daemon\/ may not import from tools\/inspect\//,
    ],
    [
      'src/transport/engine/a.ts',
      "type X = import('../../core/b.ts').X",
      /transport\/engine\/ may not import from core\//,
    ],
    ['src/drivers/rxe/a.ts', "import { x } from '../siw/b.ts'", /drivers\/rxe may not import from drivers\/siw/],
    ['src/drivers/mlx5/a.ts', "import { x } from '../rxe/b.ts'", /drivers\/mlx5 may not import from drivers\/rxe/],
    ['src/drivers/soft/a.ts', "import { x } from '../rings/b.ts'", /drivers\/soft may not import from drivers\/rings/],
    ['src/drivers/soft/a.ts', "import { x } from '../mlx5/b.ts'", /drivers\/soft may not import from drivers\/mlx5/],
    ['src/transport/wire/a.ts', "import '../../../bench/harness.ts'", /outside of src/],
    ['src/daemon/a.ts', "import { x } from '../drivers/rxe/b.ts'", /daemon\/ may import only the files of drivers\//],
    [
      'src/library/network/a.ts',
      "import type { X } from '../../drivers/ctx/b.ts'",
      /library\/network\/ may import only the files of drivers\//,
    ],
    [
      'src/library/verbs/a.ts',
      "const b = await import('../network/b.ts')",
      /verbs\/ may not import from library\/network\//,
    ],
    ['src/library/connections/a.ts', "import { x } from '../network/b.ts'", /may not import from library\/network\//],
    ['src/cli/a.ts', "import { x } from '../tools/observe/b.ts'", /import only observe\.ts of tools\/observe\//],
    ['src/core/a.ts', "import { readFileSync } from 'node:fs'", /core\/ may not use node:fs/],
    ['src/transport/wire/a.ts', "import { connect } from 'node:net'", /transport\/wire\/ may not use node:net/],
    ['src/drivers/rxe/a.ts', "import koffi from 'koffi'", /may not use the package koffi/],
    ['src/daemon/a.ts', "const koffi = createRequire(import.meta.url)('koffi')", /may not use the package koffi/],
    ['src/cli/a.ts', "import x from 'left-pad'", /may not use the package left-pad/],
    ['src/util/a.ts', '', /is in no folder of the table/],
    ['src/a.ts', '', /is in no folder of the table/],
    ['src/transport/engine/a.ts', 'const now = Date.now()', /uses Date\.now/],
    ['src/transport/engine/a.ts', 'if (Math.random() < 0.5) drop()', /uses Math\.random/],
    ['src/core/a.ts', 'const a = process.env.HOME', /uses process\.env/],
    ['src/host/a.ts', 'const a: any = 1', /has ": any"/],
    ['src/host/a.ts', 'const a = b as any', /has "as any"/],
    ['src/host/a.ts', 'const a: Map<string, any> = b', /has ", any"/],
    ['src/host/a.ts', `// @ts-${'ignore'}\nf()`, /has "@ts-/],
    ['src/host/a.ts', `// biome-${'ignore'} lint: x\nf()`, /has "biome-/],
    ['src/host/a.ts', `// ${LONG_FUNCTION}\nf()`, /has "biome-/],
  ]
  for (const [path, source, message] of refused) {
    it(`refuses ${JSON.stringify(source.slice(0, 60))} in ${path}`, () => {
      const found = findIn(path, source)
      assert.equal(found.length, 1, found.join('; '))
      assert.match(found[0], message)
    })
  }

  const accepted: readonly (readonly [path: string, source: string])[] = [
    ['src/transport/wire/a.ts', "import { x } from '../../spec/opcodes.ts'\nimport { crc32 } from 'node:zlib'"],
    ['src/transport/wire/a.ts', "/* import { x } from '../core/b.ts' */\n// import '../core/b.ts'"],
    ['src/host/a.ts', `// ${LONG_FUNCTION} a table\nf()`],
    ['src/transport/engine/a.ts', '/* Never calls Date.now: time is an argument. */'],
    ['src/host/a.ts', "const koffi = createRequire(import.meta.url)('koffi')\nconst url = 'http://x' // any"],
    ['src/daemon/a.ts', "import { x } from '../drivers/index.ts'\nimport type { Y } from '../spec/drivers/b.ts'"],
    ['src/drivers/index.ts', "export { rxe } from './rxe/index.ts'"],
    ['src/cli/main.ts', "import { Command } from 'commander'\nimport { serve } from '../daemon/serve.ts'"],
  ]
  for (const [path, source] of accepted) {
    it(`accepts ${JSON.stringify(source.slice(0, 60))} in ${path}`, () => {
      assert.deepEqual(findIn(path, source), [])
    })
  }

  it('finds only files that comments name, also after a character of two UTF-16 units', () => {
    assert.deepEqual(namedFiles("'🚀'\n// wire/a.ts\nopen('wire/b.ts')"), ['wire/a.ts'])
  })

  it('refuses import cycles through any number of files', () => {
    const sources = new Map([
      ['src/core/a.ts', "import { b } from './b.ts'"],
      ['src/core/b.ts', "import { c } from './c.ts'\nimport { d } from './d.ts'"],
      ['src/core/c.ts', "import { d } from './d.ts'"],
      ['src/core/d.ts', ''],
    ])
    assert.deepEqual(findViolations(sources), [])
    sources.set('src/core/d.ts', "import type { A } from './a.ts'")
    assert.deepEqual(findViolations(sources), [
      'imports form a cycle: src/core/a.ts → src/core/b.ts → src/core/c.ts → src/core/d.ts → src/core/a.ts',
    ])
  })
})
