#!/usr/bin/env node
/*
 * Makes the pictures of docs/how-to/inspect.md: records a transfer that loses packets, opens its page in Chromium, and
 * writes a picture of each view into docs/images/. Run it after a change of the page: `node scripts/screenshots.mjs`.
 */
import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { chromium } from 'playwright-core'
import { findProgram, inRoot, main, root, run, StepError, say } from './common.mjs'

const OUTPUT = inRoot('docs', 'images')
const USERDMA = inRoot('bin', 'userdma')
const SIZE = { width: 1320, height: 560 }

const TRANSFER =
  'ib_write_bw -x 1 -s 16384 -n 60 -t 1 >/dev/null & sleep 1; ib_write_bw -x 1 -s 16384 -n 60 -t 1 localhost >/dev/null; wait'

/**
 * Recordings with their pictures. `args`: of the command that records into the file; `program`: a copy of a program of
 * docs/findings, so that the stacks have no path of this machine. `keys` are pressed and `click` is clicked before the
 * picture is taken.
 */
const RECORDINGS = [
  {
    file: 'lost-packet.udr',
    args: file => [
      ...['run', '--private', '--fault', 'opcode=RC_WRITE_MIDDLE,drop=3%,seed=11', '--record', file],
      ...['--', 'sh', '-c', TRANSFER],
    ],
    pictures: [
      { name: 'ladder', route: 'ladder', keys: ['n', 'n'] },
      { name: 'overview', route: 'overview' },
      { name: 'objects', route: 'objects?class=rc_qp', click: '.table-row[role=row]' },
      { name: 'states', route: 'states' },
      { name: 'calls', route: 'calls' },
      { name: 'charts', route: 'charts' },
    ],
  },
  {
    file: 'finding.udr',
    args: (file, program) => ['check', '--fail-on', 'never', '--record', file, '--', program],
    pictures: [{ name: 'findings', route: 'findings' }],
  },
]

const linkOf = child =>
  new Promise((resolve, reject) => {
    let text = ''
    child.stdout.on('data', chunk => {
      text += chunk
      const link = /http:\S+/.exec(text)?.[0]
      if (link) resolve(link)
    })
    child.on('exit', () => reject(new StepError(`userdma inspect has ended: ${text}`)))
  })

const take = async (page, { name, route, keys = [], click }) => {
  await page.evaluate(hash => {
    globalThis.location.hash = hash
  }, `#/${route}`)
  // Charts and lists are drawn after the view.
  await page.waitForTimeout(800)
  if (click !== undefined) await page.locator(click).first().click()
  for (const key of keys) {
    await page.keyboard.press(key)
    await page.waitForTimeout(400)
  }
  const path = join(OUTPUT, `inspect-${name}.png`)
  await page.screenshot({ path })
  say(`${relative(root, path)}: ${Math.round(statSync(path).size / 1024)} KiB`)
}

/** Records, and takes the pictures of the recording's page. */
const takeAll = async (browser, folder, { file, args, pictures }) => {
  const path = join(folder, file)
  const program = join(folder, 'stale-rkey')
  copyFileSync(inRoot('build', 'findings', 'stale-rkey'), program)
  if (!run(USERDMA, args(path, program), { stdio: 'ignore' })) throw new StepError(`${file}: the program failed`)
  const inspect = spawn(USERDMA, ['inspect', path], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const page = await browser.newPage({ viewport: SIZE, colorScheme: 'light' })
    await page.goto(await linkOf(inspect))
    await page.locator('nav').waitFor()
    for (const picture of pictures) await take(page, picture)
  } finally {
    inspect.kill()
  }
}

main(async () => {
  const executablePath = findProgram('chromium')
  if (executablePath === undefined) throw new StepError('chromium is missing (Debian: apt-get install chromium)')
  mkdirSync(OUTPUT, { recursive: true })
  const folder = mkdtempSync(join(tmpdir(), 'screenshots-'))
  // Chromium's own sandbox does not work as root.
  const browser = await chromium.launch({ executablePath, args: process.getuid() === 0 ? ['--no-sandbox'] : [] })
  try {
    for (const recording of RECORDINGS) await takeAll(browser, folder, recording)
  } finally {
    await browser.close()
    rmSync(folder, { recursive: true })
  }
})
