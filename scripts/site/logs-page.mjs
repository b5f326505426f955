/*
 * The page that explains logs in a browser, as one file: its script and style are in it, and its policy forbids all
 * else, the network too. It works from a web server and from a file.
 */
import { createHash } from 'node:crypto'
import { inRoot } from '../common.mjs'

const STYLE = `:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
textarea{box-sizing:border-box;width:100%;height:12em;font:13px/1.4 ui-monospace,monospace}
pre{font:13px/1.45 ui-monospace,monospace;white-space:pre-wrap;overflow-wrap:anywhere}
`

const BODY = `<h1>Why did RDMA fail?</h1>
<p>Paste lines of a log, drop files of one or several hosts on this page, or choose them: of NCCL, UCX, libfabric, MPI, perftest, SPDK,
the kernel (dmesg) and others. Nothing leaves this browser. It is what <code>userdma explain</code> prints.</p>
<label>Lines, or one value such as <code>vendor err 129</code>:<textarea spellcheck="false"></textarea></label>
<p><label>Files (text, gzip, tar): <input type="file" multiple></label> <span id="state" role="status"></span></p>
<pre aria-live="polite"></pre>
`

const hashOf = text => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

/** The page, as text. */
export const logsPage = async () => {
  const { build } = await import('esbuild')
  const { outputFiles } = await build({
    entryPoints: [inRoot('web', 'logs', 'page.ts')],
    bundle: true,
    minify: true,
    format: 'iife',
    target: 'es2022',
    write: false,
    charset: 'utf8',
    legalComments: 'none',
  })
  const script = outputFiles[0].text.replaceAll('</script', '<\\/script')
  const policy = `default-src 'none'; script-src ${hashOf(script)}; style-src ${hashOf(STYLE)}; base-uri 'none'; form-action 'none'`
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Why did RDMA fail?</title>
<style>${STYLE}</style>
</head>
<body>
${BODY}<script>${script}</script>
</body>
</html>
`
}
