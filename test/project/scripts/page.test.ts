/*
 * scripts/page.mjs: the server of the page for work on it.
 */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { repoRoot } from '../../paths.ts'

test('the sources of the page are served, with the data of `userdma inspect`', async t => {
  // As src/tools/inspect/access.ts: only requests of its own page.
  const inspect = createServer(({ headers }, response) => {
    const isOwn = headers.origin === undefined && headers.host === new URL(origin).host
    response.statusCode = isOwn ? 200 : 403
    response.end(`${headers['x-userdma-session']}`)
  })
  await new Promise<void>(resolve => inspect.listen(0, '127.0.0.1', resolve))
  t.after(() => inspect.close())
  const origin = `http://127.0.0.1:${(inspect.address() as AddressInfo).port}`
  const { servePage } = (await import(pathToFileURL(join(repoRoot, 'scripts', 'page.mjs')).href)) as {
    servePage(link: string): Promise<{ link: string; close(): Promise<void> }>
  }
  const { link, close } = await servePage(`${origin}/#the-token`)
  t.after(close)
  const own = new URL(link)
  assert.equal(own.hash, '#the-token')
  const module = await fetch(new URL('/main.tsx', own))
  assert.match(module.headers.get('content-type') ?? '', /javascript/)
  assert.match(await module.text(), /app\.tsx/)
  const headers = { origin: own.origin, 'x-userdma-session': 'mine' }
  const answer = await fetch(new URL('/api/about', own), { headers })
  assert.deepEqual([answer.status, await answer.text()], [200, 'mine'])
})
