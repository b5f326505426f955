/*
 * Generates the reference of the library from its types and comments (dist/src/library/index.d.ts), without
 * constructors and computed names. It uses TypeScript 5: TypeScript 7 has no API.
 */
import { createRequire } from 'node:module'
import { join } from 'node:path'
import type * as TypeScript from 'typescript-oldest'
import { repoRoot } from '../../paths.ts'

interface ApiPage {
  readonly text: string
  readonly undocumented: readonly string[]
}

const INTRO = `# The library: reference

Made from the types and their comments by \`npm run docs\`; [the guide](../start/library.md) shows how the parts go
together. Lengths are in bytes; each time is given with its unit. A refused call throws an \`RdmaError\`.

`

const oneLine = (text: string): string => text.replace(/\s+/g, ' ').trim()

/** Returns undefined without TypeScript 5, a development dependency. */
export const apiPage = (): ApiPage | undefined => {
  let ts: typeof TypeScript
  try {
    ts = createRequire(import.meta.url)('typescript-oldest') as typeof TypeScript
  } catch {
    return undefined
  }
  const entry = join(repoRoot, 'dist', 'src', 'library', 'index.d.ts')
  const program = ts.createProgram([entry], {
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    lib: ['lib.es2022.d.ts', 'lib.esnext.disposable.d.ts'],
    skipLibCheck: true,
    types: ['node'],
    typeRoots: [join(repoRoot, 'node_modules', '@types')],
  })
  const checker = program.getTypeChecker()
  const source = program.getSourceFile(entry)
  const module = source && checker.getSymbolAtLocation(source)
  if (module === undefined) throw new Error(`${entry} is not a module: build first`)

  const undocumented: string[] = []
  const docOf = (symbol: TypeScript.Symbol | undefined, name: string): string => {
    const text = symbol === undefined ? '' : ts.displayPartsToString(symbol.getDocumentationComment(checker))
    if (text === '') undocumented.push(name)
    return oneLine(text)
  }
  const isHidden = (member: TypeScript.ClassElement | TypeScript.TypeElement): boolean =>
    ts.isConstructorDeclaration(member) ||
    (member.name !== undefined && (ts.isPrivateIdentifier(member.name) || ts.isComputedPropertyName(member.name)))

  const printer = ts.createPrinter({ removeComments: true })
  const printed = (node: TypeScript.Node): string =>
    oneLine(printer.printNode(ts.EmitHint.Unspecified, node, node.getSourceFile())).replace(/^export (declare )?/, '')

  const members = (name: string, list: readonly (TypeScript.ClassElement | TypeScript.TypeElement)[]): string => {
    const rows = list
      .filter(member => !isHidden(member))
      .map(member => {
        const symbol = member.name && checker.getSymbolAtLocation(member.name)
        return `- \`${printed(member).replace(/;$/, '')}\`\n  ${docOf(symbol, `${name}.${member.name?.getText() ?? '?'}`)}`
      })
    return rows.length === 0 ? '' : `\n${rows.join('\n')}\n`
  }
  const declared = (name: string, declaration: TypeScript.Declaration): string => {
    if (ts.isInterfaceDeclaration(declaration) || ts.isClassDeclaration(declaration)) {
      const extended = (declaration.heritageClauses ?? []).map(printed).join(' ')
      const kind = ts.isClassDeclaration(declaration) ? 'class' : 'interface'
      const types = (declaration.typeParameters ?? []).map(printed).join(', ')
      return `\n\`${kind} ${name}${types === '' ? '' : `<${types}>`}${extended === '' ? '' : ` ${extended}`}\`\n${members(name, declaration.members)}`
    }
    const text = ts.isVariableDeclaration(declaration) ? `const ${printed(declaration)}` : printed(declaration)
    return `\n\`\`\`ts\n${text}\n\`\`\`\n`
  }
  const sections = checker
    .getExportsOfModule(module)
    .map(symbol => ((symbol.flags & ts.SymbolFlags.Alias) === 0 ? symbol : checker.getAliasedSymbol(symbol)))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(symbol => {
      const parts = (symbol.declarations ?? []).map(declaration => declared(symbol.name, declaration))
      return `## ${symbol.name}\n\n${docOf(symbol, symbol.name)}\n${parts.join('')}`
    })
  return { text: `${INTRO}${sections.join('\n')}`, undocumented }
}
