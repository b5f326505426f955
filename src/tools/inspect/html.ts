/*
 * The page with a session file in one HTML file, which opens without a server and without a network. The session is in
 * elements that browsers do not run: parts of PART_BYTES bytes, compressed and in base64 (web/data/source.ts reads
 * them).
 */
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { SessionSource } from '../record/reader.ts'
import { escapeHtml, filePolicy, type Page } from './page-files.ts'
import { PART_TYPE } from './protocol.ts'

/** A multiple of the pages in which the page reads. */
const PART_BYTES = 2 ** 20

/** More bytes do not fit into a browser's memory. */
const MAX_HTML_SESSION = 2 ** 30

/** Code for an element `end`. Throws an Error if the code would end the element. */
const inElement = (code: string, end: string): string => {
  if (new RegExp(`</${end}`, 'i').test(code)) throw new Error(`the page's ${end} has "</${end}"`)
  return code
}

/** Writes the file. `name`: of the session, as the page shows it. Throws an Error if the session is too large. */
export const writeHtml = async (
  page: Page,
  name: string,
  source: SessionSource,
  write: (text: string) => void,
): Promise<void> => {
  if (source.size > MAX_HTML_SESSION)
    throw new Error(
      `the session has ${source.size} bytes; a page can have ${MAX_HTML_SESSION}: use \`userdma inspect\``,
    )
  const { script, style, html } = page
  const [, lang = 'en'] = /<html lang="(\w+)"/.exec(html) ?? []
  write(`<!doctype html>
<html lang="${lang}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escapeHtml(filePolicy(page))}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>userdma</title>
<style>${inElement(style, 'style')}</style>
</head>
<body>
<div id="app"></div>
`)
  const compress = promisify(gzip)
  for (let at = 0; at < Math.max(1, source.size); at += PART_BYTES) {
    const part = await source.read(at, PART_BYTES)
    const text = (await compress(part)).toString('base64')
    write(
      `<script type="${PART_TYPE}" data-name="${escapeHtml(name)}" data-size="${source.size}" data-part-bytes="${PART_BYTES}">${text}</script>\n`,
    )
  }
  write(`<script type="module">${inElement(script, 'script')}</script>
</body>
</html>
`)
}
