/*
 * What the entry points of the package export, from their compiled types: a line for each name, with a hash of its
 * declaration. The files that names come from do not matter. It uses TypeScript 5: TypeScript 7 has no API.
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type * as TypeScript from 'typescript-oldest'
import { repoRoot } from '../../paths.ts'

const HASH_DIGITS = 10

/** Files of types by entry point, such as `userdma/spec`. */
const entryFiles = (): [string, string][] => {
  const { exports } = JSON.parse(readFileSync(join(repoRoot, 'package.json'), 'utf8')) as {
    exports: Record<string, string | { types: string }>
  }
  return Object.entries(exports).flatMap(([name, target]) =>
    typeof target === 'string' ? [] : [[`userdma${name.slice(1)}`, join(repoRoot, target.types)] as [string, string]],
  )
}

/** `ENTRY NAME HASH`, sorted. Undefined without TypeScript 5, a development dependency. */
export const entryLines = (): string[] | undefined => {
  let ts: typeof TypeScript
  try {
    ts = createRequire(import.meta.url)('typescript-oldest') as typeof TypeScript
  } catch {
    return undefined
  }
  const entries = entryFiles()
  const program = ts.createProgram(
    entries.map(([, file]) => file),
    {
      module: ts.ModuleKind.NodeNext,
      moduleResolution: ts.ModuleResolutionKind.NodeNext,
      target: ts.ScriptTarget.ES2022,
      lib: ['lib.es2022.d.ts', 'lib.esnext.disposable.d.ts'],
      skipLibCheck: true,
      types: ['node'],
      typeRoots: [join(repoRoot, 'node_modules', '@types')],
    },
  )
  const checker = program.getTypeChecker()
  const printer = ts.createPrinter({ removeComments: true })
  const textOf = (declaration: TypeScript.Declaration): string =>
    printer
      .printNode(ts.EmitHint.Unspecified, declaration, declaration.getSourceFile())
      .replace(/\bimport\("[^"]*"\)/g, 'import')
      .replace(/\s+/g, ' ')
  return entries
    .flatMap(([entry, file]) => {
      const source = program.getSourceFile(file)
      const module = source && checker.getSymbolAtLocation(source)
      if (module === undefined) throw new Error(`${file} is not a module: build first`)
      return checker.getExportsOfModule(module).map(exported => {
        const symbol = (exported.flags & ts.SymbolFlags.Alias) === 0 ? exported : checker.getAliasedSymbol(exported)
        const texts = (symbol.declarations ?? []).map(textOf)
        if (texts.length === 0) throw new Error(`${entry}: ${exported.name} has no declaration`)
        const hash = createHash('sha256').update(texts.join('\n')).digest('hex').slice(0, HASH_DIGITS)
        return `${entry} ${exported.name} ${hash}`
      })
    })
    .sort()
}
