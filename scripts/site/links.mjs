/*
 * Finds broken links in a built site: pages, files and anchors that do not exist.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { filesBelow } from '../common.mjs'

const decode = text => decodeURIComponent(text.replaceAll('&amp;', '&'))

/** The file that a server returns for a path of the site. */
const served = path => {
  if (existsSync(path) && statSync(path).isDirectory()) return join(path, 'index.html')
  return existsSync(path) ? path : `${path}.html`
}

/** A line for each broken link of the pages below `folder`. */
export const brokenLinks = folder => {
  const anchorsByFile = new Map()
  const anchors = file => {
    if (!anchorsByFile.has(file))
      anchorsByFile.set(file, new Set([...readFileSync(file, 'utf8').matchAll(/ id="([^"]+)"/g)].map(([, id]) => id)))
    return anchorsByFile.get(file)
  }
  const broken = []
  for (const page of filesBelow(folder, path => path.endsWith('.html'))) {
    for (const [, target] of readFileSync(page, 'utf8').matchAll(/<(?:a|img)\b[^>]*? (?:href|src)="([^"]*)"/g)) {
      if (/^[a-z]+:/.test(target)) continue
      const [path, anchor] = decode(target).split('#')
      const file = path === '' ? page : served(path.startsWith('/') ? join(folder, path) : join(dirname(page), path))
      const isBroken = !existsSync(file) || (anchor && file.endsWith('.html') && !anchors(file).has(anchor))
      if (isBroken) broken.push(`${relative(folder, page)}: ${target}`)
    }
  }
  return [...new Set(broken)]
}
