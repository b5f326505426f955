/*
 * Comments of classes, methods, attributes and enumerations in the sources, for the reference pages.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../../paths.ts'

const FOLDERS = ['src/spec', 'src/drivers']

const sources: readonly string[] = FOLDERS.flatMap(folder =>
  readdirSync(join(repoRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts'))
    .sort()
    .map(name => readFileSync(join(repoRoot, folder, name), 'utf8')),
)

/** Each paragraph becomes one line, each list item too. */
const paragraphsOf = (comment: string): string[] =>
  comment
    .replace(/^\/\*+/, '')
    .replace(/\*\/$/, '')
    .split('\n')
    .map(line => line.replace(/^\s*\* ?/, '').trim())
    .join('\n')
    .trim()
    .split(/\n\n+/)
    .map(paragraph => paragraph.replace(/\n(?!- )/g, ' '))

const COMMENT = String.raw`\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*`

const commentBefore = (source: string, pattern: string): string[] | undefined => {
  const found = new RegExp(`${COMMENT}${pattern}`).exec(source)
  return found === null ? undefined : paragraphsOf(found[1])
}

const DECLARES = "objectClass('"

/** `opening`: the comment at the start of the class's file. */
export interface ClassComments {
  readonly opening: readonly string[]
  method(name: string): readonly string[] | undefined
  attribute(method: string, name: string): string | undefined
  /** A field of a record. */
  field(name: string): string | undefined
}

export const commentsOf = (className: string): ClassComments => {
  const own = sources.find(source => source.includes(`${DECLARES}${className}'`)) ?? ''
  const [fileHead, ...declarations] = own.split(DECLARES)
  const declaration = declarations.find(text => text.startsWith(`${className}'`)) ?? ''
  const commonToQps = className.endsWith('_qp') ? sources.filter(source => source.includes('const qpMethods =')) : []
  /** In the order of the search. */
  const searched = [declaration, fileHead, ...commonToQps]
  const first = (pattern: string): string[] | undefined => {
    for (const text of searched) {
      const paragraphs = commentBefore(text, pattern)
      if (paragraphs !== undefined) return paragraphs
    }
    return undefined
  }
  const opening = /^\/\*(?!\*)[\s\S]*?\*\//.exec(own)
  return {
    opening: opening === null ? [] : paragraphsOf(opening[0]),
    method: name => first(`${name}: (?:method|postSend)\\(`),
    attribute(method, name) {
      // Attributes of different methods may have the same name: search only in the declaration of this method.
      for (const text of searched) {
        const at = text.search(new RegExp(`\\b${method}: method\\(`))
        if (at < 0) continue
        const fromMethod = text.slice(at)
        // The declaration ends at the next method or the comment before it. Comments of attributes are indented
        // further.
        const end = fromMethod.slice(1).search(/\n {2,4}(?:\/\*\*|\w+: method\()/)
        return commentBefore(end < 0 ? fromMethod : fromMethod.slice(0, end + 1), `${name}: `)?.join(' ')
      }
      return undefined
    },
    field: name => first(`${name}: at\\(`)?.join(' '),
  }
}

export const commentOfEnumeration = (name: string): string | undefined => {
  for (const source of sources) {
    const paragraphs = commentBefore(source, `export const \\w+ = enumeration\\('${name}'`)
    if (paragraphs !== undefined) return paragraphs.join(' ')
  }
  return undefined
}
