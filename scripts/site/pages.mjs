/*
 * The documentation as pages of a site: docs/ and the documents of the root, and a page for each file and folder that
 * they link to. A README.md becomes its folder's index; the root's README.md is the first page.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, extname, join, normalize, relative } from 'node:path'
import { filesBelow, inRoot, root } from '../common.mjs'

/** Languages of files whose names end so; other files are shown as text. */
const LANGUAGES = { '.ts': 'ts', '.mjs': 'js', '.c': 'c', '.h': 'c', '.yml': 'yaml', '.json': 'json', '.sh': 'sh' }

/** Pictures are copied, not shown on a page. */
const PICTURE = /\.(?:png|svg)$/

const CODE = /(^```[\s\S]*?^```$)/gm

/** Gives a page's headings GitHub's anchors, which the links of the documents use: the second `name` is `name-1`. */
const anchorMaker = () => {
  const counts = new Map()
  return heading => {
    const name = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-')
    const count = counts.get(name) ?? 0
    counts.set(name, count + 1)
    return count === 0 ? name : `${name}-${count}`
  }
}

/** The page of a document, a file or a folder; paths relative to the root. */
const pageOf = path => {
  if (path === 'README.md') return 'index.md'
  if (path.endsWith('.md')) return path.replace(/README\.md$/, 'index.md')
  return `files/${path}.md`
}

/** The relative link from one page to another. */
const linkBetween = (from, to) => {
  const path = relative(dirname(from), to)
  return path.startsWith('.') ? path : `./${path}`
}

const showFile = path => {
  const text = readFileSync(inRoot(path), 'utf8')
  // The search is for documents.
  return `---\nsearch: false\n---\n\n# ${path}\n\n\`\`\`\`${LANGUAGES[extname(path)] ?? 'text'}\n${text}\`\`\`\`\n`
}

const showFolder = path => {
  const names = readdirSync(inRoot(path)).filter(name => statSync(inRoot(path, name)).isFile())
  return `# ${path}\n\n${names.map(name => `- [${name}](${join(path, name)})`).join('\n')}\n`
}

/** The text of a document with the links of its page. `found` gets each path that is linked to. */
const withLinks = (text, path, page, found) => {
  const anchorOf = anchorMaker()
  const link = target => {
    const [to, anchor] = target.split('#')
    if (/^[a-z]+:/.test(target) || to === '') return target
    const linked = normalize(join(dirname(path), to)).replace(/\/$/, '')
    found(linked)
    if (PICTURE.test(linked)) return linkBetween(page, linked)
    return linkBetween(page, pageOf(linked)) + (anchor === undefined ? '' : `#${anchor}`)
  }
  return text
    .split(CODE)
    .map((part, i) => {
      if (i % 2 === 1) return part
      return part
        .replace(/\]\(([^)\s]+)\)/g, (_, target) => `](${link(target)})`)
        .replace(/^(#+) (.+)$/gm, (_, marks, heading) => `${marks} ${heading} {#${anchorOf(heading)}}`)
    })
    .join('')
}

/** Programs of findings, to which docs/findings.md links, with their text: the site's reader need not open each. */
const withPrograms = text =>
  text.replace(/^- \[`(\S+\.c)`\]\(findings\/\1\): .*$/gm, (_, name) => {
    const program = readFileSync(inRoot('docs', 'findings', name), 'utf8').trimEnd()
    return `\`docs/findings/${name}\`\n\n\`\`\`c\n${program}\n\`\`\`\n`
  })

/** The links of a folder's list are relative to the root. */
const textOf = path => {
  if (path === 'docs/findings.md') return { text: withPrograms(readFileSync(inRoot(path), 'utf8')), base: path }
  if (path.endsWith('.md')) return { text: readFileSync(inRoot(path), 'utf8'), base: path }
  if (statSync(inRoot(path)).isDirectory()) return { text: showFolder(path), base: 'folder' }
  return { text: showFile(path), base: path }
}

/**
 * All pages by their paths in the site, with their texts; and the paths of the pictures, which are the same in both.
 */
export const sitePages = () => {
  const documents = [
    ...readdirSync(root).filter(name => name.endsWith('.md')),
    ...filesBelow(inRoot('docs'), path => path.endsWith('.md')).map(path => relative(root, path)),
  ]
  const pages = new Map()
  const pictures = new Set()
  const waiting = [...documents]
  const seen = new Set(documents)
  const found = path => {
    if (PICTURE.test(path)) pictures.add(path)
    else if (!seen.has(path)) {
      seen.add(path)
      waiting.push(path)
    }
  }
  for (let path = waiting.pop(); path !== undefined; path = waiting.pop()) {
    const page = pageOf(path)
    const { text, base } = textOf(path)
    pages.set(page, path.endsWith('.md') || base === 'folder' ? withLinks(text, base, page, found) : text)
  }
  return { pages, pictures }
}

/** The groups of the site's menu: the tables of docs/README.md. */
export const siteMenu = () => {
  const groups = []
  for (const line of readFileSync(inRoot('docs', 'README.md'), 'utf8').split('\n')) {
    const heading = /^## (.+)$/.exec(line)
    if (heading) groups.push({ text: heading[1], collapsed: false, items: [] })
    const row = /^\| \[([^\]]+)\]\(([^)#]+)[^)]*\)/.exec(line)
    if (!row || groups.length === 0) continue
    const page = pageOf(normalize(join('docs', row[2])))
    groups.at(-1).items.push({ text: row[1], link: `/${page.replace(/(?:index)?\.md$/, '')}` })
  }
  return groups
}
