/*
 * Links in the documentation have targets, headings included, and comments refer to existing documents.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { repoRoot } from '../../paths.ts'

const filesBelow = (folder: string, ending: RegExp): string[] =>
  readdirSync(join(repoRoot, folder), { recursive: true, encoding: 'utf8' })
    .map(name => join(folder, name))
    .filter(name => ending.test(name) && !name.includes('fixtures') && statSync(join(repoRoot, name)).isFile())

const read = (path: string): string => readFileSync(join(repoRoot, path), 'utf8')
const documents = [...readdirSync(repoRoot).filter(name => name.endsWith('.md')), ...filesBelow('docs', /\.md$/)]

/** The anchors that GitHub gives to headings. */
const anchors = (text: string): ReadonlySet<string> =>
  new Set(
    [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading]) =>
      heading
        .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )

test('links in documents have existing targets', () => {
  const wrong: string[] = []
  for (const document of documents) {
    const text = read(document).replace(/^```[\s\S]*?^```$/gm, '')
    for (const [, target] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue
      const [path, anchor] = target.split('#')
      const file = path === '' ? document : join(dirname(document), path)
      if (!existsSync(join(repoRoot, file))) wrong.push(`${document}: ${target}`)
      else if (anchor !== undefined && !anchors(read(file)).has(anchor)) wrong.push(`${document}: ${target}`)
    }
  }
  assert.deepEqual(wrong, [])
})

/** Names with a folder; and three names without one, which are always reported, as no file in the root has them. */
const documentNames = /(?:docs\/[\w/-]+|\b(?:design|style|performance))\.md/g

test('code refers to existing documents', () => {
  const wrong: string[] = []
  for (const file of ['src', 'shim', 'native', 'test', 'bench', 'scripts'].flatMap(folder =>
    filesBelow(folder, /\.(ts|mjs|c|h)$/),
  ))
    for (const [named] of read(file).matchAll(documentNames))
      if (!existsSync(join(repoRoot, named))) wrong.push(`${file}: ${named}`)
  assert.deepEqual(wrong, [])
})

test('the glossary names existing files and folders, its words in order', () => {
  const text = read('docs/start/words.md')
  const paths = [...text.matchAll(/`((?:src|shim|native)\/[^`]*)`/g)].map(([, path]) => path)
  assert.ok(paths.length > 30)
  assert.deepEqual(
    paths.filter(path => !existsSync(join(repoRoot, path))),
    [],
  )
  const [table] = text.split('\n## ')
  const words = [...table.matchAll(/^\| ([^|]+?) \|/gm)].slice(2).map(([, word]) => word)
  assert.ok(words.includes('lend') && words.includes('walk'))
  assert.deepEqual(words, [...words].sort())
})

test('each page is in the index, each decision in the index of decisions', () => {
  const index = read('docs/README.md')
  const decisions = read('docs/decisions/README.md')
  for (const document of documents) {
    if (!document.startsWith('docs/') || document.endsWith('README.md')) continue
    if (document.startsWith('docs/reference/classes/')) continue
    if (document.startsWith('docs/decisions/'))
      assert.ok(decisions.includes(`(${relative('docs/decisions', document)})`), document)
    else assert.ok(index.includes(`(${relative('docs', document)})`), document)
  }
})

test('the catalogue of fixtures lists every entry with its origin', () => {
  const folder = join('test', 'fixtures')
  const catalogue = read(join(folder, 'README.md'))
  const listed = [...catalogue.matchAll(/^\| (`[^|]*) \|[^|]+\| [^|]+ \| [^|]+ \|$/gm)].flatMap(([, entries]) =>
    [...entries.matchAll(/`([^`]+?)\/?`/g)].map(([, name]) => name),
  )
  const present = readdirSync(join(repoRoot, folder)).filter(name => name !== 'README.md')
  assert.deepEqual(listed.sort(), present.sort())
})
