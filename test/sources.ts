/*
 * Sources as text, for the tests of the tree's rules: what they import, without their comments.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from './paths.ts'

/** The source with spaces in place of comments. */
export const withoutComments = (source: string): string =>
  source.replace(
    /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`|\/\/[^\n]*|\/\*[\s\S]*?\*\//g,
    (token: string) => (token.startsWith('//') || token.startsWith('/*') ? token.replace(/[^\n]/g, ' ') : token),
  )

/** The modules in import and export statements, import(), typeof import() and createRequire()(). */
export const importsOf = (source: string): string[] => {
  const code = withoutComments(source)
  const statements = code.matchAll(/^\s*(?:import|export)\b(?:[^'";]*?\bfrom)?\s*['"]([^'"\n]+)['"]/gm)
  const calls = code.matchAll(/(?:\bimport|\brequire|createRequire\([^)]*\))\s*\(\s*['"`]([^'"`\n]+)['"`]/g)
  return [...statements, ...calls].map(match => match[1])
}

/** Path from the root, and text, of the sources below a folder. */
export const readSources = (folder: string, ends: readonly string[]): [string, string][] =>
  readdirSync(join(repoRoot, folder), { recursive: true, withFileTypes: true })
    .filter(entry => entry.isFile() && ends.some(end => entry.name.endsWith(end)))
    .map(entry => join(entry.parentPath, entry.name))
    .map(path => [path.slice(repoRoot.length + 1), readFileSync(path, 'utf8')])
