/*
 * The built page (scripts/page.mjs): its files, and their content security policies.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Page {
  readonly html: string
  readonly script: string
  readonly style: string
}

/** Reads the page from the folder dist/page. Throws an Error with the remedy if it was not built. */
export const readPage = (folder: string): Page => {
  if (!existsSync(join(folder, 'index.html')))
    throw new Error(`the page ${folder} is not built; run \`npm ci && npm run build\` in the checkout`)
  const file = (name: string): string => readFileSync(join(folder, name), 'utf8')
  return { html: file('index.html'), script: file('page.js'), style: file('page.css') }
}

const policy = (sources: Readonly<Record<string, string>>): string =>
  Object.entries({
    'default-src': "'none'",
    ...sources,
    'base-uri': "'none'",
    'form-action': "'none'",
  })
    .map(([name, source]) => `${name} ${source}`)
    .join('; ')

/** For the page that a server sends: its own files and its own connections only. */
export const SERVED_POLICY = `${policy({ 'script-src': "'self'", 'style-src': "'self'", 'img-src': "'self' data:", 'connect-src': "'self'" })}; frame-ancestors 'none'`

const hashOf = (text: string): string => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

/** For a page in one file: only this script, if it has one, and this style, and no connections. */
export const filePolicy = ({ script, style }: Pick<Page, 'style'> & Partial<Page>): string =>
  policy({
    ...(script !== undefined && { 'script-src': hashOf(script) }),
    'style-src': hashOf(style),
    'img-src': 'data:',
  })

/** For the text of an element, and for the value of an attribute in double quotes. */
export const escapeHtml = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
