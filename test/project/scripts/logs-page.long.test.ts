/*
 * scripts/site/logs-page.mjs: the page that explains logs, opened from a file in Chromium.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { fixture, repoRoot } from '../../paths.ts'
import { lacking, temporaryFolder } from '../../system/programs.ts'
import { findTool } from '../../tools.ts'

test('lines that are pasted and files that are chosen are explained, without a network', {
  skip: lacking('chromium'),
}, async t => {
  const { logsPage } = (await import(pathToFileURL(join(repoRoot, 'scripts', 'site', 'logs-page.mjs')).href)) as {
    logsPage(): Promise<string>
  }
  const file = join(temporaryFolder(t), 'explain-logs.html')
  writeFileSync(file, await logsPage())
  const { chromium: browsers } = await import('playwright-core')
  const browser = await browsers.launch({ executablePath: findTool('chromium')!, args: ['--no-sandbox'] })
  t.after(() => browser.close())
  const page = await browser.newPage()
  const errors: string[] = []
  page.on('pageerror', error => errors.push(error.message))
  page.on('console', message => message.type() === 'error' && errors.push(message.text()))
  await page.goto(pathToFileURL(file).href)
  await page.fill('textarea', 'vendor err 129')
  assert.match((await page.textContent('pre')) ?? '', /vendor error 0x81 .*RETRY_EXC_ERR/)
  await page.setInputFiles('input', fixture('logs', 'nccl-one-peer.log'))
  await page.waitForFunction("document.querySelector('pre').textContent.startsWith('On node1, mlx5_3: ')")
  const archive = join(temporaryFolder(t), 'logs.tar.gz')
  assert.equal(spawnSync('tar', ['-czf', archive, '-C', fixture('logs'), 'memlock.log']).status, 0)
  await page.setInputFiles('input', archive)
  await page.waitForFunction("document.querySelector('pre').textContent.includes('memory could not be registered')")
  assert.match((await page.textContent('pre')) ?? '', /logs\.tar\.gz\/memlock\.log:\d+: /)
  assert.deepEqual(errors, [])
})
