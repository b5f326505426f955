/*
 * The comments of classes, methods, attributes and enumerations in the sources, which the reference pages show.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { repoRoot } from '../paths.ts'

const FOLDERS = ['src/spec', 'src/drivers']

const sources: readonly string[] = FOLDERS.flatMap(folder =>
  readdirSync(join(repoRoot, folder), { recursive: true, encoding: 'utf8' })
    .filter(name => name.endsWith('.ts'))
    .sort()
    .map(name => readFileSync(join(repoRoot, folder, name), 'utf8')),
)

/** Paragraphs of a comment without its stars: each as one line, a list as one line per item. */
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

/** The comment right before what the pattern matches. */
const commentBefore = (source: string, pattern: string): string[] | undefined => {
  const found = new RegExp(`${COMMENT}${pattern}`).exec(source)
  return found === null ? undefined : paragraphsOf(found[1])
}

const DECLARES = "objectClass('"

/** The documentation of one class: its file's opening, its methods, its attributes and fields. */
export interface ClassComments {
  /** Paragraphs. */
  readonly opening: readonly string[]
  method(name: string): readonly string[] | undefined
  attribute(method: string, name: string): string | undefined
  field(name: string): string | undefined
}

export const commentsOf = (className: string): ClassComments => {
  const own = sources.find(source => source.includes(`${DECLARES}${className}'`)) ?? ''
  const [fileHead, ...declarations] = own.split(DECLARES)
  const declaration = declarations.find(text => text.startsWith(`${className}'`)) ?? ''
  const commonToQps = className.endsWith('_qp') ? sources.filter(source => source.includes('const qpMethods =')) : []
  /** The texts that are searched for a comment, in this order. */
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
      // Attributes of one name differ between methods: only a comment in the first declaration of the method counts.
      for (const text of searched) {
        const at = text.search(new RegExp(`\\b${method}: method\\(`))
        if (at < 0) continue
        const fromMethod = text.slice(at)
        // The method ends at the next one, or at that one's comment: those of attributes are indented further.
        const end = fromMethod.slice(1).search(/\n {2,4}(?:\/\*\*|\w+: method\()/)
        return commentBefore(end < 0 ? fromMethod : fromMethod.slice(0, end + 1), `${name}: `)?.join(' ')
      }
      return undefined
    },
    field: name => first(`${name}: at\\(`)?.join(' '),
  }
}

/** The comment of an enumeration. */
export const commentOfEnumeration = (name: string): string | undefined => {
  for (const source of sources) {
    const paragraphs = commentBefore(source, `export const \\w+ = enumeration\\('${name}'`)
    if (paragraphs !== undefined) return paragraphs.join(' ')
  }
  return undefined
}
