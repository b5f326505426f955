/*
 * All mutants of the programs, in a random order that alternates between kinds and between locations. gcov tells which
 * lines a program executes; mutants of other lines are not run.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { createRandom } from '../../../src/base/random.ts'
import { type KindName, kindNames, kindOf } from './kinds.ts'
import { type Program, programs } from './programs.ts'
import { type Edit, type LineRange, linesOfEdit, searchable } from './source.ts'

export interface Mutant {
  readonly kind: KindName
  readonly program: Program
  /** The changed file: the program's C file or a header. */
  readonly file: string
  readonly edit: Edit
  /** The lines that the edit changes, in the changed file. */
  readonly lines: LineRange
}

export const locationOf = ({ file, lines }: Mutant): string => `${file}:${lines.first}`

/** The C file and the headers that it includes, below the program's folder. */
export const filesOf = ({ folder, file }: Program): string[] => {
  const found = [file]
  for (const name of found)
    for (const [, header = ''] of readFileSync(join(folder, name), 'utf8').matchAll(/#include "([^"]+)"/g)) {
      const path = join(dirname(name), header)
      if (!found.includes(path) && existsSync(join(folder, path))) found.push(path)
    }
  return found
}

const mutantsOf = (program: Program): Mutant[] =>
  filesOf(program).flatMap(file => {
    const source = readFileSync(join(program.folder, file), 'utf8')
    const text = searchable(source)
    return kindNames.flatMap(kind =>
      kindOf(kind)
        .edits(text)
        .map(edit => ({ kind, program, file, edit, lines: linesOfEdit(source, edit) })),
    )
  })

interface GcovLine {
  readonly line_number: number
  readonly count: number
}
interface GcovFile {
  readonly file: string
  readonly lines: readonly GcovLine[]
  readonly functions: readonly {
    readonly start_line: number
    readonly end_line: number
    readonly execution_count: number
  }[]
}

/**
 * Returns a function that tells whether a program executed a line of a file. The program was compiled with --coverage
 * in `folder`, and has run.
 */
export const readCoverage = (folder: string): ((file: string, line: number) => boolean) => {
  const data = readdirSync(folder).filter(name => name.endsWith('.gcda'))
  const { stdout } = spawnSync('gcov', ['--json-format', '--stdout', ...data], {
    cwd: folder,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  })
  const files = stdout
    .split('\n')
    .filter(Boolean)
    .flatMap(line => (JSON.parse(line) as { readonly files: readonly GcovFile[] }).files)
  return (file, line) =>
    files.some(covered => {
      if (basename(covered.file) !== basename(file)) return false
      const isFunctionRun = covered.functions.some(
        f => f.start_line <= line && line <= f.end_line && f.execution_count > 0,
      )
      const entries = covered.lines.filter(({ line_number: number }) => number === line)
      // a line without code of its own, for example a field of an initializer, has no entry
      return isFunctionRun && (entries.length === 0 || entries.some(({ count }) => count > 0))
    })
}

// ---- the order ----

const shuffled = <T>(list: readonly T[], seed: number): T[] => {
  const draw = createRandom(seed)
  const result = [...list]
  for (let i = result.length - 1; i > 0; i--) {
    const j = draw() % (i + 1)
    ;[result[i], result[j]] = [result[j]!, result[i]!]
  }
  return result
}

const grouped = <K, T>(list: readonly T[], keyOf: (element: T) => K): Map<K, T[]> => {
  const groups = new Map<K, T[]>()
  for (const element of list) {
    const key = keyOf(element)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [element])
    else group.push(element)
  }
  return groups
}

/** The first element of each group, then the second of each group, and so on. */
const alternating = <T>(groups: readonly (readonly T[])[]): T[] => {
  const longest = Math.max(0, ...groups.map(({ length }) => length))
  return Array.from({ length: longest }, (_, i) => groups.flatMap(group => group.slice(i, i + 1))).flat()
}

/** All mutants in the order of the run: one of each kind, then the next of each kind, at another location. */
export const inOrderOf = (seed: number, mutated: readonly Program[] = programs): Mutant[] => {
  const mutants = shuffled(mutated.flatMap(mutantsOf), seed)
  const byKind = kindNames.map(kind => {
    const ofKind = mutants.filter(mutant => mutant.kind === kind)
    return alternating([...grouped(ofKind, ({ file, edit }) => `${file} ${edit.from}`).values()])
  })
  return alternating(byKind)
}
