#!/usr/bin/env node
/*
 * Makes the documentation's site in site/out/, which any web server can serve. The search works offline.
 *
 *   npm run site               makes it, and fails if a link is broken
 *   npm run site -- --serve    and serves it at http://localhost:4173
 *
 * VitePress and its packages, and Mermaid, which draws diagrams, are installed below site/ only, at the first run.
 */
import { copyFileSync, cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { filesBelow, findProgram, inRoot, main, modified, run, StepError, say } from './common.mjs'
import { brokenLinks } from './site/links.mjs'
import { logsPage } from './site/logs-page.mjs'
import { siteMenu, sitePages } from './site/pages.mjs'

const SITE = inRoot('site')
const PAGES = join(SITE, 'pages')
const OUTPUT = join(SITE, 'out')

const config = menu => ({
  title: 'userdma',
  description: 'A complete RDMA subsystem in user space',
  outDir: OUTPUT,
  cacheDir: join(SITE, 'node_modules', '.cache'),
  cleanUrls: false,
  // Otherwise browsers request /favicon.ico.
  head: [['link', { rel: 'icon', href: 'data:,' }]],
  // Some documents write <name> for a name that the reader puts in.
  markdown: { html: false },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      { text: 'Documentation', link: '/docs/' },
      { text: 'Library', link: '/docs/start/library' },
      { text: 'Explain a log', link: '/explain-logs.html', target: '_self' },
      { text: 'Changes', link: '/CHANGELOG' },
    ],
    sidebar: menu,
  },
})

const installVitePress = () => {
  if (modified(join(SITE, 'node_modules', '.package-lock.json')) >= modified(join(SITE, 'package-lock.json'))) return
  say('installing VitePress (npm ci in site/)')
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund']
  if (!run(findProgram('npm') ?? 'npm', args, { cwd: SITE, stdio: ['ignore', 2, 2] }))
    throw new StepError('npm ci in site/ failed (see above): check the network and the npm registry')
}

/**
 * Mermaid's modules as its package has them, bundled: as a dependency of the theme they would double the time of the
 * site. Not every web server knows the type of `.mjs`.
 */
const mermaidFiles = () => {
  const folder = join(SITE, 'node_modules', 'mermaid', 'dist')
  const named = text => text.replace(/\.mjs(?=["']|$)/g, '.js')
  return filesBelow(folder, path => /mermaid\.esm\.min(?:\/.+)?\.mjs$/.test(path)).map(path => [
    named(relative(folder, path)),
    named(readFileSync(path, 'utf8')),
  ])
}

const writePages = async () => {
  rmSync(PAGES, { recursive: true, force: true })
  const { pages, pictures } = sitePages()
  const inPages = path => {
    const file = join(PAGES, path)
    mkdirSync(dirname(file), { recursive: true })
    return file
  }
  for (const [path, text] of pages) writeFileSync(inPages(path), text)
  for (const path of pictures) copyFileSync(inRoot(path), inPages(path))
  for (const [path, text] of mermaidFiles()) writeFileSync(inPages(join('public', 'mermaid', path)), text)
  writeFileSync(inPages('public/explain-logs.html'), await logsPage())
  cpSync(inRoot('scripts', 'site', 'theme'), join(PAGES, '.vitepress', 'theme'), { recursive: true })
  writeFileSync(inPages('.vitepress/theme/index.mjs'), "export { theme as default } from './theme.mjs'\n")
  writeFileSync(
    inPages('.vitepress/config.mjs'),
    `import { renderCode } from './theme/code.mjs'
import { searchOptions } from './theme/search.mjs'

const config = ${JSON.stringify(config(siteMenu()), null, 2)}
config.themeConfig.search.options = searchOptions
export default { ...config, markdown: { ...config.markdown, config: renderCode } }
`,
  )
  return pages.size
}

main(async args => {
  const { values } = parseArgs({ args, options: { serve: { type: 'boolean' } } })
  installVitePress()
  const count = await writePages()
  const vitepress = join(SITE, 'node_modules', 'vitepress', 'bin', 'vitepress.js')
  if (!run(process.execPath, [vitepress, 'build', PAGES])) throw new StepError('VitePress failed (see above)')
  const broken = brokenLinks(OUTPUT)
  if (broken.length > 0) throw new StepError(`broken links in the site:\n  ${broken.join('\n  ')}`)
  say(`${count} pages in site/out/, no broken links`)
  if (values.serve) run(process.execPath, [vitepress, 'preview', PAGES])
})
