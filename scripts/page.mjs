/*
 * Builds the page of `userdma inspect` from web/ into dist/page: index.html, page.js, page.css, and the licences of the
 * packages in page.js. The modules that it was built from are listed in inputs.json, so that the page is built again
 * only if one of them has changed.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { inRoot, modified, root, say } from './common.mjs'

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
      configFile: false,
      root: SOURCE,
      base: './',
      logLevel: 'warn',
      oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
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
