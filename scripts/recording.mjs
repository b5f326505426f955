#!/usr/bin/env node
/*
 * Makes docs/images/demo.svg: what `npm start` prints, as a terminal that scrolls. Run it after a change of the demo:
 * `node scripts/recording.mjs`.
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { inRoot, main, say } from './common.mjs'

const OUTPUT = inRoot('docs', 'images', 'demo.svg')
const COLUMNS = 104
const ROWS = 26
const LINE_PX = 16
const LINES_PER_SECOND = 6
/** The first and the last screen stay for this share of a round. */
const HOLD = 0.15

const escapeXml = text => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')

const classOf = line => {
  if (/^\d\. |^userdma: /.test(line)) return ' class="heading"'
  if (/^ +\$ /.test(line)) return ' class="command"'
  return ''
}

/** An SVG in which the lines scroll through a terminal. */
const svgOf = lines => {
  const width = COLUMNS * 8
  const height = (ROWS + 1) * LINE_PX
  const steps = lines.length - ROWS
  const seconds = Math.round(steps / LINES_PER_SECOND / (1 - 2 * HOLD))
  const texts = lines.map((line, i) =>
    line === '' ? '' : `<text x="12" y="${(i + 1) * LINE_PX}"${classOf(line)}>${escapeXml(line)}</text>\n`,
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}">
<title>What npm start prints</title>
<style>
text { font: 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #d5dae1; white-space: pre }
.heading { fill: #7cc7ff; font-weight: bold }
.command { fill: #9be38a }
@keyframes scroll {
  from, ${100 * HOLD}% { transform: none }
  ${100 * (1 - HOLD)}%, to { transform: translateY(${-steps * LINE_PX}px) }
}
#lines { animation: scroll ${seconds}s steps(${steps}) infinite }
@media (prefers-reduced-motion) { #lines { animation: none } }
</style>
<rect width="100%" height="100%" rx="6" fill="#16191f"/>
<g id="lines">
${texts.join('')}</g>
</svg>
`
}

main(() => {
  const output = execFileSync(process.execPath, [inRoot('dist', 'src', 'cli', 'main.js'), 'demo'], { encoding: 'utf8' })
  // A tab of a terminal ends at a multiple of 8; those of ibv_devinfo are inside the demo's indent.
  const expand = line => {
    let text = ''
    for (const c of line) text += c === '\t' ? ' '.repeat(8 - (text.length % 8)) : c
    return text
  }
  const lines = output.trim().split('\n').map(expand)
  writeFileSync(OUTPUT, svgOf(lines))
  say(`${lines.length} lines in docs/images/demo.svg`)
})
