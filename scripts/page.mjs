#!/usr/bin/env node
/*
 *   npm run page -- LINK      serves web/ itself, for work on the page; LINK is what `userdma inspect` has printed
 *
 * Builds the page of `userdma inspect` from web/ into dist/page: index.html, page.js, page.css, and the licences of the
 * packages in page.js. The modules that it was built from are listed in inputs.json, so that the page is built again
 * only if one of them has changed.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { inRoot, isMain, main, modified, root, StepError, say } from './common.mjs'

const SOURCE = inRoot('web')
const OUTPUT = inRoot('dist', 'page')
const INPUTS = join(OUTPUT, 'inputs.json')
/** Files besides the modules: a change of the packages changes the page. */
const OTHER_INPUTS = ['web/index.html', 'scripts/page.mjs', 'package-lock.json']

const isCurrent = () => {
  const built = modified(INPUTS)
  if (built === 0) return false
  const inputs = JSON.parse(readFileSync(INPUTS, 'utf8'))
  // A file that does not exist has the time 0, and its importer has changed.
  return inputs.every(path => modified(inRoot(path)) <= built)
}

/** Packages whose code is in page.js. */
const PACKAGES = ['preact', 'uplot']

/** A plugin of vite that writes the list of modules, and the licences. */
const listInputs = {
  name: 'list inputs',
  writeBundle() {
    const modules = [...this.getModuleIds()]
      .map(id => relative(root, id.split('?')[0]))
      .filter(path => /^(web|src)\//.test(path))
    const licence = name => `${name}\n\n${readFileSync(inRoot('node_modules', name, 'LICENSE'), 'utf8')}`
    writeFileSync(join(OUTPUT, 'LICENSES.txt'), PACKAGES.map(licence).join('\n'))
    writeFileSync(INPUTS, `${JSON.stringify([...new Set([...OTHER_INPUTS, ...modules])].sort(), null, 2)}\n`)
  },
}

const SETTINGS = {
  configFile: false,
  root: SOURCE,
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
}

/** Builds the page if it is out of date. Does nothing without its sources. False after a failure. */
export const buildPage = async () => {
  if (!existsSync(join(SOURCE, 'index.html')) || isCurrent()) return true
  let vite
  try {
    vite = await import('vite')
  } catch {
    say('build: vite is not installed (npm ci): without it `userdma inspect` has no page')
    return true
  }
  try {
    await vite.build({
      ...SETTINGS,
      base: './',
      logLevel: 'warn',
      build: {
        outDir: OUTPUT,
        emptyOutDir: true,
        target: 'es2023',
        modulePreload: false,
        cssCodeSplit: false,
        assetsInlineLimit: 0,
        rolldownOptions: {
          output: { entryFileNames: 'page.js', assetFileNames: 'page[extname]', codeSplitting: false },
        },
      },
      plugins: [listInputs],
    })
    return true
  } catch (error) {
    say(`build: the page was not built: ${error.message}`)
    return false
  }
}

/**
 * Serves the sources of the page, which the browser loads again after each change. Its data comes from the server of
 * `userdma inspect` at `link`, which accepts only requests of its own page: so a request loses the `Origin` of this
 * server, and gets the other `Host`. Resolves with the link to open, and a function that ends the server.
 */
export const servePage = async link => {
  const { origin, hash } = new URL(link)
  const { createServer } = await import('vite')
  const forgetOrigin = proxy => proxy.on('proxyReq', request => request.removeHeader('origin'))
  const server = await createServer({
    ...SETTINGS,
    logLevel: 'error',
    // the packages are ES modules: nothing has to be bundled for development
    optimizeDeps: { noDiscovery: true },
    server: {
      host: '127.0.0.1',
      cors: false,
      fs: { allow: [root] },
      proxy: { '/api': { target: origin, changeOrigin: true, configure: forgetOrigin } },
    },
  })
  await server.listen()
  return { link: `${server.resolvedUrls.local[0]}${hash}`, close: () => server.close() }
}

if (isMain(import.meta.url))
  main(async ([link]) => {
    if (!URL.canParse(link ?? ''))
      throw new StepError(
        `usage: npm run page -- LINK, the link that \`userdma inspect\` has printed and nobody has opened; got: ${link ?? 'nothing'}`,
      )
    say(`open ${(await servePage(link)).link}`)
  })
