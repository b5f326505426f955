/*
 * HTML documents that need nothing else: no script, no network. In the colours of the page (web/style.css), light or
 * dark as the reader's system.
 */
import { escapeHtml, filePolicy } from '../tools/inspect/page-files.ts'

const STYLE = `:root{color-scheme:light dark;--bg:#fff;--raised:#f6f7f9;--line:#dfe3e8;--text:#1b2129;--quiet:#5c6672;--data:#2563a8;--retry:#8f4e00;--bad:#c0262d;--good:#1f7a45}
@media(prefers-color-scheme:dark){:root{--bg:#14181d;--raised:#1c2128;--line:#313842;--text:#e4e8ed;--quiet:#98a3b0;--data:#74b0f2;--retry:#e5a54b;--bad:#ff7b79;--good:#63c78a}}
body{background:var(--bg);color:var(--text);font:14px/1.45 system-ui,sans-serif;margin:2em auto;padding:0 1em}
:focus-visible{outline:2px solid var(--data)}
`

/** `title` and `style`: as text; `body`: as HTML. */
export const htmlDocument = (title: string, style: string, body: string): string => {
  const all = STYLE + style
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${escapeHtml(filePolicy({ style: all }))}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(title)}</title>
<style>${all}</style>
</head>
<body>
${body}</body>
</html>
`
}
