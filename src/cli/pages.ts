/*
 * The pages of documentation that every package contains, for `userdma help PAGE`. Messages name a page as PAGE, such
 * as how-to/doctor#kernel: its path below docs/ and a heading. They never name a file, which depends on the package.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { packageRoot } from './paths.ts'

const docs = join(packageRoot, 'docs')

/** Records of decisions are for those who change userdma: they have a checkout. */
const isForUsers = (file: string): boolean => file.endsWith('.md') && !file.startsWith('decisions/')

/** The pages, sorted; none if this package's documentation was removed. */
export const pageNames = (): readonly string[] =>
  existsSync(docs)
    ? readdirSync(docs, { recursive: true, encoding: 'utf8' })
        .filter(isForUsers)
        .map(file => file.slice(0, -'.md'.length))
        .sort()
    : []

/** The page; of findings with the text of the programs to which it links. */
const textOf = (name: string): string => {
  const text = readFileSync(join(docs, `${name}.md`), 'utf8')
  return name !== 'findings'
    ? text
    : text.replace(/^- \[`(.+\.c)`\]\(findings\/\1\): .*\n/gm, (line, file: string) => {
        const path = join(docs, 'findings', file)
        return existsSync(path) ? `${line}\n\`\`\`c\n${readFileSync(path, 'utf8').trimEnd()}\n\`\`\`\n\n` : line
      })
}

/** The heading as links name it. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(' ', '-')

/** The section under a heading, with those below it; undefined if the page has no such heading. */
const sectionOf = (page: string, anchor: string): string | undefined => {
  const lines = page.split('\n')
  let isCode = false
  const levels = lines.map(line => {
    if (line.startsWith('```')) isCode = !isCode
    return isCode ? 0 : (/^#+(?= )/.exec(line)?.[0].length ?? 0)
  })
  const start = lines.findIndex((line, i) => levels[i]! > 0 && anchorOf(line.slice(levels[i])) === anchor)
  if (start < 0) return undefined
  const end = levels.findIndex((level, i) => i > start && level > 0 && level <= levels[start]!)
  return `${lines
    .slice(start, end < 0 ? undefined : end)
    .join('\n')
    .trimEnd()}\n`
}

/** The text of PAGE or PAGE#HEADING; of `pages`: a list of all. Undefined if there is none. */
export const pageText = (topic: string): string | undefined => {
  const names = pageNames()
  if (topic === 'pages') {
    const width = Math.max(...names.map(name => name.length))
    return names.map(name => `${name.padEnd(width)}  ${/^# (.*)$/m.exec(textOf(name))?.[1] ?? ''}\n`).join('')
  }
  const [name = '', anchor] = topic.split('#')
  if (!names.includes(name)) return undefined
  return anchor === undefined ? textOf(name) : sectionOf(textOf(name), anchor)
}
