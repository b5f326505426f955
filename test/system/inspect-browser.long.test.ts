/*
 * The page of `userdma inspect` in Chromium: each view on real programs, faults on sliders, a restart of the daemon,
 * the page in one file without a network, hostile texts, and a session of a million events. axe finds no serious fault.
 */
import assert from 'node:assert/strict'
import { closeSync, copyFileSync, openSync, readFileSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setImmediate as immediate } from 'node:timers/promises'
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core'
import type { LocalNetwork } from '../../src/library/network/contract.ts'
import { createNetwork, open as openDevice } from '../../src/library/test.ts'
import { opcodeNumber } from '../../src/spec/wire/opcodes.ts'
import { SessionWriter } from '../../src/tools/record/writer.ts'
import { scaled } from '../limits.ts'
import { repoRoot } from '../paths.ts'
import { createMemorySink } from '../tools/record/memory-sink.ts'
import { findTool } from '../tools.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  suiteScope,
  temporaryFolder,
  userdma,
} from './programs.ts'

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const HANG = join(repoRoot, 'build', 'findings', 'both-receive')
const REFUSED = join(repoRoot, 'build', 'findings', 'refused-call')
const ENDLESS = join(repoRoot, 'build', 'findings', 'endless-rnr')
const VIEWS = ['overview', 'ladder', 'objects', 'states', 'calls', 'charts', 'times', 'findings'] as const
const MAX_NODES = 2000
const LIMIT = 30_000

const skip = lacking('chromium', 'ibv_rc_pingpong', 'ib_write_bw', 'rping', 'ibv_ud_pingpong')

/** Two programs: a server, and a client that starts when the server listens. */
const pair = (server: string, client: string): string => `${server} >/dev/null & sleep 1; ${client} >/dev/null; wait`

const PROGRAMS = {
  pingpong: { script: pair('ibv_rc_pingpong -g 1 -n 200', 'ibv_rc_pingpong -g 1 -n 200 localhost'), options: [] },
  'perftest with loss': {
    script: pair('ib_write_bw -x 1 -s 65536 -n 200 -t 16', 'ib_write_bw -x 1 -s 65536 -n 200 -t 16 localhost'),
    options: ['--fault', 'drop=1%,seed=3'],
  },
  'perftest of mlx5': {
    script: pair('ib_write_bw -q 2 -x 1 -n 500 -s 4096', 'ib_write_bw -q 2 -x 1 -n 500 -s 4096 localhost'),
    options: ['--device', 'mlx5_0@127.0.0.1,driver=mlx5'],
  },
  'perftest by LID': {
    script: pair('ib_write_bw -d mlx5_0 -n 100 -s 4096', 'ib_write_bw -d mlx5_1 -n 100 -s 4096 localhost'),
    options: [
      ...['--path', 'packets', '--fabric', 'fat-tree,leaves=2,spines=2'],
      ...['--device', 'mlx5_0@127.0.0.2,driver=mlx5,layer=infiniband'],
      ...['--device', 'mlx5_1@127.0.0.3,driver=mlx5,layer=infiniband'],
    ],
  },
  '200 connections of mlx5': {
    script: pair(
      'ib_write_bw -q 200 -x 1 -n 100 -t 100 -s 4096',
      'ib_write_bw -q 200 -x 1 -n 100 -t 100 -s 4096 localhost',
    ),
    options: ['--device', 'mlx5_0@127.0.0.1,driver=mlx5'],
  },
  'perftest over SRD of EFA': {
    script: pair('ib_send_bw -c SRD -x 0 -q 2 -n 500', 'ib_send_bw -c SRD -x 0 -q 2 -n 500 localhost'),
    options: ['--device', 'efa_0@127.0.0.1,driver=efa'],
  },
  rping: { script: pair('rping -s -a 127.0.0.1 -C 10', 'rping -c -a 127.0.0.1 -C 10'), options: [] },
  datagrams: { script: pair('ibv_ud_pingpong -g 1 -n 50', 'ibv_ud_pingpong -g 1 -n 50 localhost'), options: [] },
} as const

interface Opened {
  readonly page: Page
  /** Errors of the page, and messages of its policy. */
  readonly errors: readonly string[]
}

const openPage = async (browser: BrowserContext | Browser, address: string): Promise<Opened> => {
  const page = await browser.newPage()
  page.setDefaultTimeout(scaled(LIMIT))
  const errors: string[] = []
  page.on('pageerror', error => errors.push(error.message))
  page.on('console', message => message.type() === 'error' && errors.push(message.text()))
  page.on('dialog', dialog => {
    errors.push(`dialog ${dialog.message()}`)
    void dialog.dismiss()
  })
  await page.goto(address)
  await page.getByRole('navigation', { name: 'Views' }).waitFor()
  return { page, errors }
}

const goTo = async (page: Page, route: string): Promise<void> => {
  await page.evaluate(`location.hash = ${JSON.stringify(`#/${route}`)}`)
  await page.locator('nav [aria-current]').waitFor()
}

const nodesOf = (page: Page): Promise<number> => page.evaluate<number>('document.querySelectorAll("*").length')

/** Serious faults that axe finds, as texts. */
const faultsOf = async (page: Page): Promise<string[]> => {
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(axe)
  return page.evaluate(async () => {
    const { violations } = await (
      globalThis as unknown as {
        axe: { run(): Promise<{ violations: { impact: string; id: string; nodes: { html: string }[] }[] }> }
      }
    ).axe.run()
    return violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes[0].html.slice(0, 120)}`)
  })
}

/**
 * Cells of rows that overlap, or that are cut and do not say what they have, as texts; and what is wider than the
 * window.
 */
const faultsOfLayout = (page: Page): Promise<string[]> =>
  page.evaluate<string[]>(`(() => {
    const overlap = (a, b) =>
      Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1
    const found = []
    for (const row of document.querySelectorAll('.table-row, .call-row, .row, tr, .toolbar, .tiles, nav')) {
      const cells = [...row.children].filter(cell => getComputedStyle(cell).position === 'static')
      for (const [i, one] of cells.entries())
        for (const other of cells.slice(i + 1))
          if (overlap(one.getBoundingClientRect(), other.getBoundingClientRect()))
            found.push(row.className + ': "' + one.textContent + '" and "' + other.textContent + '"')
    }
    for (const cell of document.querySelectorAll('.process'))
      if (cell.lastElementChild.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1)
        found.push(cell.parentElement.className + ': the process id of "' + cell.textContent + '" is cut')
    for (const text of document.body.innerText.split('\\n'))
      if (text.includes('\x60')) found.push('backticks: ' + text)
    for (const cell of document.querySelectorAll('.table-row > span, td, th'))
      if (cell.scrollWidth > cell.clientWidth + 1 && getComputedStyle(cell).overflowX !== 'visible' && cell.title === '')
        found.push(cell.parentElement.className + ': "' + cell.textContent + '" is cut')
    const scrolls = [...document.querySelectorAll('*')].filter(one =>
      one.scrollWidth > one.clientWidth + 1 && /auto|scroll/.test(getComputedStyle(one).overflowX))
    for (const one of scrolls)
      if (scrolls.some(other => other !== one && other.contains(one))) found.push(one.className + ': a scroll bar in another one')
    const { scrollWidth, clientWidth } = document.documentElement
    if (scrollWidth > clientWidth) found.push('the page is ' + scrollWidth + ' pixels wide, the window ' + clientWidth)
    return found.slice(0, 5)
  })()`)

const startInspect = async (t: Scope, ...args: readonly string[]) => {
  const running = start(t, userdma, ['inspect', ...args], { env: cleanEnvironment() })
  return (await running.printed(/http:\S+/))[0]
}

describe('the page in a browser', { skip }, () => {
  let browser: Browser
  const scope = suiteScope()
  before(async () => {
    browser = await chromium.launch({
      executablePath: findTool('chromium') ?? 'chromium',
      // Chromium's own sandbox does not work as root.
      args: process.geteuid?.() === 0 ? ['--no-sandbox'] : [],
    })
  })
  after(() => browser?.close())

  const record = async (t: Scope, name: keyof typeof PROGRAMS): Promise<string> => {
    const { script, options } = PROGRAMS[name]
    const file = join(temporaryFolder(t), 'session.udr')
    assertGood(await runUserdma(t, ['run', '--private', '--record', file, ...options, '--', 'sh', '-c', script]))
    return file
  }

  for (const name of Object.keys(PROGRAMS) as (keyof typeof PROGRAMS)[])
    it(`shows ${name} in every view, in light and dark, without serious faults for axe`, async t => {
      const file = await record(t, name)
      const html = join(temporaryFolder(t), 'session.html')
      assertGood(await runUserdma(t, ['export', file, '--to', 'html', '-o', html]))
      for (const colorScheme of ['light', 'dark'] as const) {
        // axe runs code, which the page's policy forbids.
        const context = await browser.newContext({ colorScheme, bypassCSP: true })
        const { page, errors } = await openPage(context, `file://${html}`)
        for (const view of VIEWS) {
          await goTo(page, view)
          if (view === 'ladder') {
            await page.locator('.row.kind-packet').first().click()
            await page.locator('.detail .field').first().hover()
            assert.ok((await page.locator('.byte.marked').count()) > 0)
            if (name === 'perftest by LID')
              assert.match(
                await page.locator('.detail').innerText(),
                /LID \d+\s+To\s+LID \d+\s+Service level\s+0\s+GRH\s+none/,
              )
          }
          if (view === 'objects') await page.locator('.table-row[role=row]').first().click()
          if (view === 'calls') await page.locator('.call-row[role=row]').first().click()
          if (view === 'times') await page.locator('.time-row[role=row]').first().click()
          assert.deepEqual(await faultsOf(page), [], `${view}, ${colorScheme}`)
          assert.ok((await nodesOf(page)) <= MAX_NODES, view)
          for (const width of [1280, 1440, 1920, 390]) {
            await page.setViewportSize({ width, height: 800 })
            assert.deepEqual(await faultsOfLayout(page), [], `${view}, ${colorScheme}, ${width} pixels`)
          }
          await page.setViewportSize({ width: 1280, height: 800 })
        }
        await goTo(page, 'objects?class=pd')
        assert.deepEqual(await faultsOfLayout(page), [])
        assert.deepEqual(errors, [])
        await context.close()
      }
    })

  it('has the colours of the browser, or the chosen ones, and draws the strip anew with them', async t => {
    const file = await record(t, 'perftest with loss')
    const html = join(temporaryFolder(t), 'session.html')
    assertGood(await runUserdma(t, ['export', file, '--to', 'html', '-o', html]))
    const context = await browser.newContext({ colorScheme: 'dark' })
    const { page, errors } = await openPage(context, `file://${html}`)
    await goTo(page, 'ladder')
    await page.locator('.row.kind-packet').first().waitFor()
    const look = () =>
      page.evaluate<{ background: string; strip: string }>(
        `({
          background: getComputedStyle(document.body).backgroundColor,
          strip: document.querySelector('.strip').toDataURL(),
        })`,
      )
    const [darkBackground, lightBackground] = ['rgb(20, 24, 29)', 'rgb(255, 255, 255)']
    const dark = await look()
    assert.equal(dark.background, darkBackground)
    await page.getByRole('button', { name: 'Colours: auto' }).click()
    const light = await look()
    assert.equal(light.background, lightBackground)
    assert.notEqual(light.strip, dark.strip)
    await page.emulateMedia({ colorScheme: 'light' })
    await page.getByRole('button', { name: 'Colours: light' }).click()
    assert.equal((await look()).background, darkBackground)
    await page.getByRole('button', { name: 'Colours: dark' }).click()
    assert.equal((await look()).background, lightBackground)
    await page.emulateMedia({ colorScheme: 'dark' })
    await page.locator('html[data-theme=dark]').waitFor()
    assert.equal((await look()).background, darkBackground)
    assert.deepEqual(errors, [])
    await context.close()
  })

  it('at 390 pixels shows the current view in the row of views, and charts with values and axes without a pointer', async t => {
    const file = await record(t, 'rping')
    const html = join(temporaryFolder(t), 'session.html')
    assertGood(await runUserdma(t, ['export', file, '--to', 'html', '-o', html]))
    const { page, errors } = await openPage(browser, `file://${html}`)
    /** Whether the current view is wholly in sight in the row. */
    const isInSight = () =>
      page.evaluate<boolean>(`(() => {
        const [row, link] = ['nav', 'nav [aria-current]'].map(one => document.querySelector(one).getBoundingClientRect())
        return link.left >= row.left - 1 && link.right <= row.right + 1
      })()`)
    await goTo(page, 'findings')
    await page.setViewportSize({ width: 390, height: 800 })
    await page.waitForFunction('document.querySelector("nav").scrollLeft > 0')
    assert.ok(await isInSight())
    for (const view of [...VIEWS, ...VIEWS.toReversed()]) {
      await goTo(page, view)
      await page.locator('nav [aria-current]', { hasText: new RegExp(view, 'i') }).waitFor()
      assert.ok(await isInSight(), view)
    }

    await goTo(page, 'charts')
    const chart = page.locator('.chart', { hasText: 'Packets that were lost or sent again' })
    await chart.locator('.u-legend').waitFor()
    const legends = () => chart.locator('.u-legend .u-value').allInnerTexts()
    const [at, ...values] = await legends()
    assert.match(at ?? '', /^[\d.]+ (?:µs|ms|s)$/)
    assert.deepEqual(values, ['0', '0'])
    for (const legend of await page.locator('.u-legend .u-value').allInnerTexts()) assert.notEqual(legend.trim(), '')
    await chart.locator('.u-over').hover({ position: { x: 5, y: 20 } })
    assert.notDeepEqual((await legends())[0], at, 'at the pointer')
    await page.mouse.move(5, 5)
    assert.deepEqual(await legends(), [at, ...values])

    await goTo(page, 'overview')
    const states = page
      .locator('section', { has: page.getByRole('heading', { name: 'Connections' }) })
      .locator('tbody tr')
    await states.first().locator('td').nth(6).locator('a').click()
    await page.locator('nav [aria-current]', { hasText: 'States' }).waitFor()
    assert.deepEqual(errors, [])
  })

  it('leads from a descriptor to its calls and back, by the number that the program has', async t => {
    const { page, errors } = await openPage(browser, await startInspect(t, await record(t, 'pingpong')))
    await goTo(page, 'calls?filter=async_fd.create')
    await page.locator('.call-row[role=row]').first().click()
    const text = await page.locator('.call-row[role=row]').first().innerText()
    const [, fd] = /\{object fd (\d+)\}/.exec(text) ?? []
    await page.locator('.detail a', { hasText: `async_fd fd ${fd}` }).click()
    await page.locator('.detail h2', { hasText: `async_fd fd ${fd}` }).waitFor()
    await page.locator('.detail h3', { hasText: 'destroyed' }).waitFor()
    await page.locator('.detail a', { hasText: 'Calls' }).click()
    await page.locator('.status', { hasText: /^1 call of/ }).waitFor()
    assert.match(await page.locator('.call-row[role=row]').innerText(), /async_fd\.create/)
    assert.deepEqual(errors, [])
  })

  it('shows a lost packet, its NAK and its retransmission, and finds them by keys, filter and link', async t => {
    const link = await startInspect(t, await record(t, 'perftest with loss'))
    const { page, errors } = await openPage(browser, link)
    await goTo(page, 'ladder?filter=userdma.outcome%20%3D%3D%20dropped')
    await page.locator('.row.tone-lost').first().waitFor()
    assert.equal(await page.locator('.row.tone-data').count(), 0)
    await goTo(page, 'ladder')
    // not among the rows of the filter
    await page.locator('.row.tone-data').first().waitFor()
    // One count in one wording.
    const wording = /[\d,]+ packets lost and repaired/
    const losses: (string | undefined)[] = []
    for (const view of ['overview', 'ladder', 'charts', 'findings']) {
      await goTo(page, view)
      const told = page.getByText(wording).first()
      await told.waitFor()
      losses.push(wording.exec(await told.innerText())?.[0])
      assert.doesNotMatch(await page.locator('main').innerText(), /[1-9]\d* problem/)
    }
    assert.equal(new Set(losses).size, 1, losses.join('; '))
    await goTo(page, 'ladder')
    await page.locator('.row.tone-data').first().waitFor()
    await page.keyboard.press('n')
    await page.locator('.detail').waitFor()
    const href = page.url()
    const title = await page.locator('.detail h2').innerText()
    await page.reload()
    await page.locator('.detail').waitFor()
    assert.equal(page.url(), href)
    assert.equal(await page.locator('.detail h2').innerText(), title)
    await page
      .locator('.tone-retry .note', { hasText: /retransmission after NAK|not acknowledged/ })
      .first()
      .waitFor()
    assert.deepEqual(errors, [])
    // The link is used up.
    const second = await browser.newPage()
    await second.goto(link)
    await second.getByText('used before').waitFor()
  })

  it('loses packets with a slider, and shows their retransmissions in ladder and chart; goes on after a restart', async t => {
    const daemon = await startDaemon(t)
    // axe runs code, which the page's policy forbids.
    const context = await browser.newContext({ bypassCSP: true })
    const { page } = await openPage(context, await startInspect(t, '--socket', daemon.socket, '--allow-faults'))
    await page.getByText('Nothing has happened yet').waitFor()
    await page.getByText(`userdma run --socket ${daemon.socket} -- ibv_rc_pingpong`).waitFor()
    const script = pair('ibv_rc_pingpong -g 1 -n 100000', 'ibv_rc_pingpong -g 1 -n 100000 localhost')
    const running = start(t, userdma, ['run', '--socket', daemon.socket, '--', 'sh', '-c', script], {
      env: cleanEnvironment(),
      detached: true,
    })
    await goTo(page, 'faults')
    await page.locator('input[type=range]').first().fill('7')
    await page.locator('td.mono', { hasText: 'drop=0.1' }).waitFor()
    assert.deepEqual(await faultsOf(page), [])
    await goTo(page, 'charts')
    await page
      .locator('.chart h2', { hasText: /[1-9][\d,]* packets? lost.*, [1-9][\d,]* packets? sent again/ })
      .waitFor()
    await goTo(page, 'ladder?filter=userdma.retransmission')
    const newest = page.getByText('Go to the newest')
    await page.locator('.row.tone-retry').or(newest).first().waitFor()
    if ((await page.locator('.row.tone-retry').count()) === 0) await newest.click()
    await page.locator('.row.tone-retry .note', { hasText: 'retransmission' }).first().waitFor()

    running.child.kill('SIGTERM')
    daemon.running.child.kill('SIGTERM')
    await page.locator('.notice', { hasText: 'the daemon has ended' }).waitFor()
    const next = start(t, userdma, ['daemon', '--socket', daemon.socket], { env: cleanEnvironment() })
    await next.printed(/ready/)
    await page.locator('.notice').waitFor({ state: 'detached' })
  })

  it('saves a live session, and opens its view in another browser by a link that works once', async t => {
    const daemon = await startDaemon(t)
    const context = await browser.newContext({ permissions: ['clipboard-read', 'clipboard-write'] })
    const { page, errors } = await openPage(context, await startInspect(t, '--socket', daemon.socket))
    await page.getByText('Nothing has happened yet').waitFor()
    const script = pair('ibv_rc_pingpong -g 1 -n 50', 'ibv_rc_pingpong -g 1 -n 50 localhost')
    assertGood(await runUserdma(t, ['run', '--socket', daemon.socket, '--', 'sh', '-c', script]))
    await goTo(page, 'calls?filter=rc_qp.create')
    await page.locator('.status', { hasText: /^2 calls of/ }).waitFor()
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: 800 })
      assert.deepEqual(await faultsOfLayout(page), [], `${width} pixels`)
    }
    await page.setViewportSize({ width: 1280, height: 800 })
    const clipboard = () => page.evaluate<string>('navigator.clipboard.readText()')
    await page.locator('.call-row[role=row]').first().click()
    await page.locator('.detail').waitFor()
    await page.keyboard.press('c')
    await page.locator('.copy', { hasText: 'Copied' }).waitFor()
    assert.match(await clipboard(), /^\[pid \d+ ibv_rc_pingpong\] fd \d+ rc_qp\.create\(.*\) = .* <[\d.]+>$/)
    const calls = page.url()
    await goTo(page, 'ladder?filter=opcode+%3D%3D+%22RC+Acknowledge%22')
    await page.locator('.row.kind-packet').first().click()
    assert.deepEqual(await faultsOfLayout(page), [])
    await page.getByRole('button', { name: 'Copy the row' }).click()
    await page.locator('.copy', { hasText: 'Copied' }).waitFor()
    assert.match(await clipboard(), /^\d+\.\d{6} ACKNOWLEDGE qp 0x[0-9a-f]+ psn 0x[0-9a-f]{6} ACK /)
    await page.goto(calls)
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Save', exact: true }).click(),
    ])
    const file = join(temporaryFolder(t), 'saved.udr')
    await download.saveAs(file)
    assert.match(download.suggestedFilename(), /^session-.*\.udr$/)

    await page.getByRole('button', { name: 'Copy link' }).click()
    await page.getByText('Copied: the link works once').waitFor()
    assert.deepEqual(await faultsOfLayout(page), [])
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT })
    const copied = await clipboard()
    const other = await browser.newContext()
    const second = await openPage(other, copied)
    await second.page.locator('.status', { hasText: /^2 calls of/ }).waitFor()
    assert.match(second.page.url(), /\/#\/calls\?filter=rc_qp\.create&call=[\d.]+$/)
    const third = await (await browser.newContext()).newPage()
    await third.goto(copied)
    await third.getByText('used before').waitFor()

    const saved = await openPage(browser, await startInspect(t, file))
    assert.equal(await saved.page.locator('.notice').count(), 0)
    await goTo(saved.page, 'calls?filter=rc_qp.create')
    await saved.page.locator('.status', { hasText: /^2 calls of/ }).waitFor()
    assert.equal(await saved.page.getByRole('button', { name: 'Save', exact: true }).count(), 0)
    for (const one of [errors, second.errors, saved.errors]) assert.deepEqual(one, [])
    await context.close()
    await other.close()
  })

  it('says first what programs wait for', async t => {
    const daemon = await startDaemon(t)
    const context = await browser.newContext({ bypassCSP: true })
    const { page } = await openPage(context, await startInspect(t, '--socket', daemon.socket))
    // Its peer posts no receive: each waits for three seconds.
    const program = ['sh', '-c', 'for i in 1 2 3 4 5 6 7 8; do "$0"; done', ENDLESS]
    start(t, userdma, ['run', '--socket', daemon.socket, '--', ...program], { env: cleanEnvironment() })
    await page
      .locator('.sentences li', { hasText: /endless-rnr \d+.*rnr_retry/i })
      .first()
      .waitFor()
    assert.equal(await page.locator('.page section').first().locator('h2').innerText(), 'What programs wait for')
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT })
    assert.deepEqual(await faultsOf(page), [])
  })

  it('says first what the programs of a recording waited for and what ended them, also at the queue pair', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    await runUserdma(t, ['run', '--private', '--record', file, '--', HANG])
    const context = await browser.newContext({ bypassCSP: true })
    const { page, errors } = await openPage(context, await startInspect(t, file))
    await page.locator('.sentences li', { hasText: /both-receive \d+.*was ended by SIGALRM/ }).waitFor()
    assert.deepEqual(await page.locator('.page section h2').first().innerText(), 'How programs ended')
    const wait = page.locator('.sentences li', { hasText: /both have receives posted/ })
    assert.match(await wait.innerText(), /until the program ended/)
    assert.deepEqual(await faultsOf(page), [])
    await wait.locator('a').click()
    await page
      .locator('.ladder .sentence', { hasText: /both-receive \d+ waited: .*both have receives posted/ })
      .waitFor()
    await goTo(page, 'objects?class=rc_qp')
    await page.locator('.table-row[role=row]').first().click()
    await page.locator('.detail .sentence', { hasText: /both have receives posted/ }).waitFor()
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT })
    assert.deepEqual(errors, [])
  })

  it('opens a page in one file without a network', async t => {
    const html = join(temporaryFolder(t), 'session.html')
    const file = await record(t, 'pingpong')
    assertGood(await runUserdma(t, ['export', file, '--to', 'html', '--redact', '-o', html]))
    const context = await browser.newContext({ offline: true })
    const requests: string[] = []
    context.on('request', request => requests.push(request.url()))
    const { page, errors } = await openPage(context, `file://${html}`)
    await goTo(page, 'ladder')
    await page.locator('.row.kind-packet').first().waitFor()
    // libibverbs' probe, which ends with ENOSPC by design, is no failure.
    await goTo(page, 'overview')
    const processes = page.locator('section', { has: page.getByRole('heading', { name: 'Processes' }) })
    assert.deepEqual(await processes.locator('tbody td:last-child').allInnerTexts(), ['0', '0'])
    assert.deepEqual(errors, [])
    assert.deepEqual(
      requests.filter(url => !url.startsWith('file:') && !url.startsWith('data:')),
      [],
    )
    await context.close()
  })

  it('says which views cannot show records of unexpected content', async t => {
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, { application: 'x', machine: 'x', origin: 0, payload: 0 })
    for (const values of [{ state: {}, address: 7 }, { state: 99, destQpn: 'x' }, { sqPsn: null }])
      writer.object(1, {
        change: 'created',
        object: 1,
        device: 3,
        context: 1,
        program: undefined,
        class: 'rc_qp',
        handle: 1,
        number: 7,
        method: '',
        why: '',
        stack: [],
        details: { uses: 'x', values } as never,
      })
    writer.call(2, { object: 1, stack: [], call: { ret: 'x', call: { message: 7 } } as never })
    writer.failure(3, 1, { failure: null } as never)
    writer.finding(4, { text: 7, moments: 'x', objects: [{}] } as never)
    await writer.end(5, 'done')
    const folder = temporaryFolder(t)
    const file = join(folder, 'session.udr')
    writeFileSync(file, sink.bytes)
    const { page, errors } = await openPage(browser, await startInspect(t, file))
    for (const view of VIEWS) {
      await goTo(page, view)
      await page.locator('main > *').first().waitFor()
      assert.equal(await page.locator('nav').count(), 1)
    }
    assert.deepEqual(
      errors.filter(error => /CSP|Content Security/.test(error)),
      [],
    )
  })

  it('reaches each of 55 findings, 200 failures and 600 queue pairs', async t => {
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, { application: 'x', machine: 'x', origin: 0, payload: 0 })
    writer.device(1, { change: 'added', device: 0, name: 'rxe0', address: '' })
    for (let object = 1; object <= 600; object++)
      writer.object(2, {
        change: 'created',
        object,
        device: 0,
        context: 1,
        program: { pid: object, command: 'test' },
        class: 'rc_qp',
        handle: object,
        number: object,
        method: 'create',
        why: 'call',
        stack: [],
        details: { uses: [], values: { state: 0 } },
      })
    for (let number = 1; number <= 55; number++)
      writer.finding(number + 2, {
        number,
        id: 'leak',
        severity: 'error',
        text: `mistake number ${number}`,
        details: ['look with `ibv_devinfo -v`'],
        advice: 'start `opensm`',
        device: 'rxe0',
        time: number + 2,
        moments: [],
        objects: [],
      } as never)
    for (let number = 1; number <= 200; number++) {
      const failure = {
        kind: 'send',
        device: 'x',
        cause: 'x',
        vendorErr: 1,
        args: {},
        text: `failure number ${number}`,
      }
      writer.failure(number + 60, 1, { time: 0, pid: 1, command: 'x', device: 'x', failure } as never)
    }
    await writer.end(300, 'done')
    const file = join(temporaryFolder(t), 'session.udr')
    writeFileSync(file, sink.bytes)
    const { page, errors } = await openPage(browser, await startInspect(t, file))
    for (const [name, last] of [
      ['connections', '0x258'],
      ['processes', '600'],
    ] as const) {
      await goTo(page, `overview?${name}=9`)
      const pages = page.getByRole('navigation', { name: `Pages of ${name}` })
      await pages.getByText('481 to 540 of 600').waitFor()
      await pages.getByText('Next').click()
      await page.getByRole('cell', { name: last, exact: true }).first().waitFor()
    }
    assert.deepEqual(await faultsOf(page), [])
    await page.getByRole('link', { name: 'All 200 failures' }).waitFor()
    await goTo(page, 'findings?number=55')
    await page.locator('details[open]', { hasText: 'mistake number 55' }).waitFor()
    for (const code of ['ibv_devinfo -v', 'opensm'])
      await page.locator('details[open] code', { hasText: code }).waitFor()
    assert.deepEqual(await faultsOfLayout(page), [])
    await page.getByRole('navigation', { name: 'Pages of findings' }).getByText('41 to 55 of 55').waitFor()
    await page.getByRole('navigation', { name: 'Pages of findings' }).getByText('Previous').click()
    await page.getByText('mistake number 40', { exact: true }).waitFor()
    await page.getByRole('navigation', { name: 'Pages of failures' }).getByText('Next').click()
    await page.getByText('failure number 200').waitFor()
    await goTo(page, 'findings?number=56')
    await page.getByText('There is no finding 56').waitFor()
    await goTo(page, 'states')
    await page.getByLabel('Search: Queue pair').fill('test 599')
    assert.equal(await page.locator('option', { hasText: 'test 599' }).count(), 1)
    await page.locator('select').selectOption('599')
    await page.waitForFunction('location.hash.includes("qp=599")')
    assert.deepEqual(errors, [])
    await page.close()
  })

  it('has charts of each of 10,000 queue pairs, and of their losses what the ladder has', async t => {
    const file = join(temporaryFolder(t), 'session.udr')
    const network = createNetwork({ record: file })
    const [left, right] = [await openDevice({ network }), await openDevice({ network })]
    const [ofLeft, ofRight] = [left.pd(), right.pd()]
    const [from, to] = [ofLeft, ofRight].map(pd =>
      pd.register(new Uint8Array(4096), { localWrite: true, remoteWrite: true }),
    )
    network.setFaults('drop=1%,seed=3')
    // The recorder writes between two parts: it has a limited memory.
    for (let part = 0; part < 100; part++) {
      const senders = Array.from({ length: 50 }, () => {
        const [a, b] = [ofLeft.rcQp(), ofRight.rcQp()]
        a.connect(b.endpoint)
        b.connect(a.endpoint)
        return a
      })
      for (let i = 0; i < 3; i++)
        await Promise.all(senders.map(qp => qp.write(from.slice(0, 2048), to.remote(0, 2048))))
      await immediate()
    }
    await left.close()
    await right.close()
    // It ends with the process otherwise.
    await (network as LocalNetwork).endRecording?.()

    const { page, errors } = await openPage(browser, await startInspect(t, file))
    await page.locator('progress').waitFor({ state: 'detached' })
    assert.equal(await page.getByRole('button', { name: 'Read all' }).count(), 0)
    await goTo(page, 'times?order=lost')
    await page.locator('.status', { hasText: '5,000 queue pairs' }).waitFor()
    assert.ok((await nodesOf(page)) <= MAX_NODES)
    await page.locator('.time-row[role=row]').first().click()
    await page.locator('.detail').getByRole('link', { name: 'Charts', exact: true }).click()
    const chart = (title: string) => page.locator('.chart h2', { hasText: title })
    await chart('Latency of sends over time').waitFor()
    const losses = await chart('Packets that were lost').innerText()
    const lost = Number(/([\d,]+) packets? lost and repaired/.exec(losses)?.[1])
    assert.ok(lost > 0, losses)
    assert.ok((await nodesOf(page)) <= MAX_NODES)
    for (const width of [1280, 390]) {
      await page.setViewportSize({ width, height: 800 })
      assert.deepEqual(await faultsOfLayout(page), [], `${width} pixels`)
    }
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT })
    const qp = /qp=\d+/.exec(page.url())?.[0]
    await goTo(page, `ladder?${qp}&filter=${encodeURIComponent('userdma.outcome == dropped')}`)
    await page.locator('.status', { hasText: new RegExp(`^${lost} rows? of \\d+$`) }).waitFor()
    await goTo(page, 'charts?qp=4711000')
    await page.getByText('There is no queue pair 4711000').waitFor()
    assert.deepEqual(errors, [])
    await page.close()
  })

  it('reads what fits into its memory of a file of more than 300 MB, says exactly what, and reads all if told', async t => {
    const file = join(temporaryFolder(t), 'large.udr')
    const fd = openSync(file, 'w')
    const writer = new SessionWriter(
      {
        write(position, bytes, done) {
          writeSync(fd, bytes, 0, bytes.length, position)
          done()
        },
      },
      { application: 'x', machine: 'x', origin: 0, payload: 0 },
    )
    const COUNT = 1_600_000
    for (let i = 0; i < COUNT; i++)
      writer.call(i, {
        object: 0,
        stack: [],
        call: {
          ...{ time: i, duration: 1, pid: 1, tid: 1, command: 'test', device: 'rxe0', dialect: 'ioctl', fd: 3, ret: 0 },
          call: { class: 'mr', method: 'create', args: { address: i, length: 4096, text: `${i} `.repeat(8) } },
          args: {},
          out: {},
        } as never,
      })
    await writer.end(COUNT, 'done')
    closeSync(fd)
    assert.ok(statSync(file).size > 300e6, `${statSync(file).size} bytes`)
    const { page, errors } = await openPage(browser, await startInspect(t, file))
    const readAll = page.getByRole('button', { name: 'Read all' })
    await readAll.waitFor({ timeout: 0 })
    const number = (text: string | undefined): number => Number(text?.replaceAll(',', ''))
    const text = await page.locator('body').innerText()
    const [, shown, all] = /show the first ([\d,]+) of ([\d,]+) events/.exec(text) ?? []
    // Beside the calls, the recording has its end.
    assert.ok(Math.abs(number(all) - COUNT) <= 1, text.slice(0, 500))
    await goTo(page, 'calls')
    const list = page.locator('.status', { hasText: /calls?/ })
    assert.ok(number(shown) > 0 && number(shown) < COUNT)
    assert.match(await list.innerText(), /^[\d,]+ calls/)
    await readAll.click()
    await page.locator('progress').waitFor()
    await page.locator('progress').waitFor({ state: 'detached', timeout: 0 })
    assert.equal(await readAll.count(), 0)
    const [, kept, later] = /^([\d,]+) calls; ([\d,]+) later ones did not fit/.exec(await list.innerText()) ?? []
    assert.equal(number(kept) + number(later), COUNT)
    assert.deepEqual(errors, [])
    await page.close()
  })

  it('moves in lists with the keys of a grid, keeps the focus in dialogs and gives it back', async t => {
    const { page, errors } = await openPage(browser, await startInspect(t, await record(t, 'pingpong')))
    /** The row or cell that has the focus; `cell`: -1: the row. */
    const focus = () =>
      page.evaluate<{ row: number; cell: number; isSelected: boolean; stops: number }>(`(() => {
        const element = document.activeElement
        const row = element.closest('[role=row]')
        return {
          row: Number(row?.getAttribute('aria-rowindex')),
          cell: [...(row?.children ?? [])].indexOf(element),
          isSelected: row?.getAttribute('aria-selected') === 'true',
          stops: document.querySelectorAll('.list[tabindex="0"], .list [tabindex="0"]').length,
        }
      })()`)
    const hasFocus = (row: number) =>
      page.locator(`[role=row][aria-selected=true][aria-rowindex="${row}"]:focus-within`).waitFor()
    for (const view of ['ladder', 'calls', 'objects', 'times']) {
      await goTo(page, view)
      const grid = page.getByRole('grid')
      await grid.getByRole('row').first().waitFor()
      await page.locator('.status', { hasNotText: 'reading' }).waitFor()
      const count = Number(await grid.getAttribute('aria-rowcount'))
      const columns = Number(await grid.getAttribute('aria-colcount'))
      assert.equal(await grid.getByRole('row').first().getByRole('gridcell').count(), columns, view)
      await grid.getByRole('row').first().focus()
      // Rows without events are passed over.
      const second = grid.locator('[role=row]:not([aria-disabled])').nth(1)
      const next = count > 1 ? Number(await second.getAttribute('aria-rowindex')) : 1
      for (const [key, expected] of [
        ['End', count],
        ['Home', 1],
        ['ArrowDown', next],
        ['Control+End', count],
        ['Control+Home', 1],
      ] as const) {
        await page.keyboard.press(key)
        await hasFocus(expected)
        assert.deepEqual(await focus(), { row: expected, cell: -1, isSelected: true, stops: 1 }, `${view} ${key}`)
      }
      for (const [key, cell] of [
        ['ArrowRight', 0],
        ['ArrowRight', 1],
        ['End', columns - 1],
        ['Home', 0],
        ['ArrowLeft', -1],
      ] as const) {
        await page.keyboard.press(key)
        assert.equal((await focus()).cell, cell, `${view} ${key}`)
      }
      if (count > 100) {
        await page.keyboard.press('PageDown')
        await page.locator('[role=row]:focus:not([aria-rowindex="1"])').waitFor()
        // A row that is scrolled away keeps the place of the focus.
        await page.keyboard.press('PageDown')
        await page.keyboard.press('Home')
        await hasFocus(1)
        await page.evaluate(`document.querySelector('.list').scrollTo(0, 1e6)`)
        await page.locator('[role=grid]:focus').waitFor()
        await page.keyboard.press('ArrowDown')
        await hasFocus(next)
        await page.keyboard.press('Home')
        await hasFocus(1)
      }
      await page.keyboard.press('Escape')
      await page.locator('.detail').waitFor({ state: 'detached' })
      await page.keyboard.press('Enter')
      await hasFocus(1)
      await page.getByRole('button', { name: 'Close the details' }).click()
      await page.locator('.detail').waitFor({ state: 'detached' })
      assert.deepEqual(await focus(), { row: 1, cell: -1, isSelected: false, stops: 1 }, view)
    }
    await page.keyboard.press('?')
    await page.getByRole('dialog').waitFor()
    const isInside = () => page.evaluate<boolean>(`document.activeElement.closest('dialog') !== null`)
    assert.ok(await isInside())
    // A view behind a dialog takes no keys.
    await page.keyboard.press('2')
    assert.match(page.url(), /times/)
    await page.keyboard.press('Escape')
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    assert.equal((await focus()).row, 1)
    await page.getByRole('button', { name: 'Keys' }).click()
    await page.getByRole('button', { name: 'Close', exact: true }).click()
    await page.getByRole('dialog').waitFor({ state: 'detached' })
    assert.equal(await page.evaluate(`document.activeElement.getAttribute('aria-label')`), 'Keys (?)')
    assert.deepEqual(errors, [])
    await page.close()
  })

  it('gives the list of a view its keys after a click on the link to the view, and the filter the slash', async t => {
    const { script, options } = PROGRAMS['perftest with loss']
    const file = join(temporaryFolder(t), 'session.udr')
    const all = `${script}; ${REFUSED}; true`
    assertGood(await runUserdma(t, ['run', '--private', '--record', file, ...options, '--', 'sh', '-c', all]))
    const { page, errors } = await openPage(browser, await startInspect(t, file))
    const row = (state: string) => page.locator(`[role=row][aria-selected=true]${state}`)
    for (const view of ['Ladder', 'Calls', 'Objects', 'Times']) {
      const open = async (): Promise<void> => {
        await goTo(page, 'overview')
        await page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: view }).click()
        await page.getByRole('grid').getByRole('row').first().waitFor()
        await page.locator('.status', { hasNotText: 'reading' }).waitFor()
      }
      for (const key of ['j', 'ArrowDown', 'PageDown', 'End']) {
        await open()
        await page.keyboard.press(key)
        await row(':focus').waitFor()
      }
      // From the details too.
      if (view !== 'Objects') await page.locator('.detail button').first().focus()
      await page.keyboard.press('k')
      await row(':focus').waitFor()
      await page.locator('.detail .close').focus()
      await page.keyboard.press('Escape')
      await page.locator('.detail').waitFor({ state: 'detached' })
      if (view !== 'Ladder' && view !== 'Calls') continue
      await open()
      await page.keyboard.press('n')
      await row('').waitFor()
      assert.match(
        (await row('').getAttribute('class')) ?? '',
        view === 'Ladder' ? /tone-(?:lost|nak|retry)/ : /failed/,
      )
      await open()
      await page.keyboard.press('/')
      await page.locator('.filter input:focus').waitFor()
      // Also where no row matches.
      await goTo(page, `${view.toLowerCase()}?filter=${encodeURIComponent('"no such text"')}`)
      await page.locator('.filter input:focus').evaluate(`document.activeElement.blur()`)
      await page.keyboard.press('/')
      await page.locator('.filter input:focus').waitFor()
    }
    assert.deepEqual(errors, [])
    await page.close()
  })

  it('shows functions and source beside the stacks of a program that is gone', async t => {
    const folder = temporaryFolder(t)
    const [file, program] = [join(folder, 'session.udr'), join(folder, 'stale-rkey')]
    copyFileSync(join(repoRoot, 'build', 'findings', 'stale-rkey'), program)
    await runUserdma(t, ['check', '--record', file, '--', program])
    rmSync(program)
    const { page, errors } = await openPage(browser, await startInspect(t, file))
    await goTo(page, 'findings')
    const frame = page.locator('.stack summary', { hasText: /main at docs\/findings\/stale-rkey\.c:\d+/ })
    await frame.first().waitFor()
    await page
      .locator('.story td', { hasText: /decisive: deregistered.*main at docs\/findings\/stale-rkey\.c:\d+/ })
      .waitFor()
    await goTo(page, 'ladder')
    await page.locator('.row.kind-posted', { hasText: 'WRITE' }).first().click()
    const source = page.locator('.detail details[open] .source li[aria-current]', { hasText: 'ibv_post_send(' })
    await source.first().waitFor()
    assert.equal(await page.locator('.detail .source:visible').count(), 1)
    if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT })
    for (const colorScheme of ['light', 'dark'] as const)
      for (const width of [1280, 390]) {
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize({ width, height: 800 })
        assert.deepEqual(await faultsOf(page), [], `${colorScheme}, ${width} pixels`)
        assert.deepEqual(await faultsOfLayout(page), [], `${colorScheme}, ${width} pixels`)
      }
    const html = join(folder, 'session.html')
    assertGood(await runUserdma(t, ['export', file, '--to', 'html', '--redact', '-o', html]))
    await page.goto(`file://${html}#/ladder`)
    await page.locator('.row.kind-posted', { hasText: 'WRITE' }).first().click()
    await page.locator('.detail .stack li', { hasText: /^main at stale-rkey\.c:\d+$/ }).waitFor()
    assert.equal(await page.locator('.source').count(), 0)
    assert.deepEqual(errors, [])
    await page.close()
  })

  it('shows hostile texts as texts', async t => {
    const hostile = '<img src=x onerror=alert(1)><script>alert(2)</script>"\'javascript:alert(3)'
    const sink = createMemorySink()
    const writer = new SessionWriter(sink, { application: hostile, machine: hostile, origin: 0, payload: 0 })
    writer.device(1, { change: 'added', device: 0, name: hostile, address: hostile })
    for (const object of [1, 2])
      writer.object(2, {
        change: 'created',
        object,
        device: 0,
        context: 1,
        program: { pid: object, command: hostile },
        class: object === 1 ? 'rc_qp' : hostile,
        handle: 1,
        number: 7,
        method: hostile,
        why: 'call',
        stack: [hostile],
        details: { uses: [2], values: { [hostile]: hostile } },
      })
    const failure = { kind: 'send', device: hostile, cause: hostile, vendorErr: 1, args: {}, text: hostile }
    writer.failure(3, 1, { time: 0, pid: 1, command: hostile, device: hostile, failure } as never)
    await writer.end(4, hostile)
    const folder = temporaryFolder(t)
    const file = join(folder, '<b>"session.udr')
    writeFileSync(file, sink.bytes)
    const html = join(folder, 'session.html')
    assertGood(await runUserdma(t, ['export', file, '--to', 'html', '-o', html]))
    const { page, errors } = await openPage(browser, `file://${html}`)
    for (const view of [...VIEWS.slice(0, 2), 'objects?id=1', ...VIEWS.slice(3)]) {
      await goTo(page, view)
      assert.equal(await page.locator('main img, main script').count(), 0)
    }
    await goTo(page, 'findings')
    await page.getByText('<img src=x').first().waitFor()
    assert.deepEqual(errors, [])
  })

  it('shows a million events at once, reads all of them in the background, and keeps at most 2,000 nodes', async () => {
    const file = join(temporaryFolder(scope), 'million.udr')
    const fd = openSync(file, 'w')
    const writer = new SessionWriter(
      {
        write(position, bytes, done) {
          writeSync(fd, bytes, 0, bytes.length, position)
          done()
        },
      },
      { application: 'test', machine: 'test', origin: 0, payload: 0 },
    )
    const qp = (object: number, state: number) => ({
      change: state === 0 ? ('created' as const) : ('changed' as const),
      object,
      device: 0,
      context: 1,
      program: { pid: object, command: 'test' },
      class: 'rc_qp',
      handle: object,
      number: object,
      method: 'modify',
      why: 'call',
      stack: [],
      details: { uses: [], values: { state, destQpn: 23 - object, sqPsn: 0 } },
    })
    writer.device(0, { change: 'added', device: 0, name: 'rxe0', address: '' })
    for (const object of [11, 12]) for (const state of [0, 1, 2, 3]) writer.object(0, qp(object, state))
    const bytes = new Uint8Array(16)
    const view = new DataView(bytes.buffer)
    const flow = {
      source: new Uint8Array(16),
      destination: new Uint8Array(16),
      sourcePort: 1,
      trafficClass: 0,
      hopLimit: 1,
      flowLabel: 0,
    }
    const facts = { device: 0, direction: 0, outcome: 0, flow, identification: 0 }
    const EVENTS = 1_000_000
    for (let i = 0; i < EVENTS; i++) {
      view.setUint32(0, opcodeNumber.RC_SEND_ONLY * 2 ** 24 + 0xffff)
      view.setUint32(4, i % 2 === 0 ? 12 : 11)
      view.setUint32(8, (2 * i) % 2 ** 24)
      writer.packets(i * 10, facts, bytes, view, 0, 16, 1, 16)
    }
    await writer.end(EVENTS * 10, 'done')
    closeSync(fd)

    const page = await browser.newPage()
    let isHeld = true
    const held: (() => void)[] = []
    let read = 0
    // What comes after the first 8 MB waits until the page was looked at.
    await page.route('**/api/data*', async route => {
      if (read > 8 * 2 ** 20 && isHeld) await new Promise<void>(resolve => held.push(resolve))
      const response = await route.fetch()
      read += (await response.body()).length
      await route.fulfill({ response })
    })
    await page.goto(await startInspect(scope, file))
    await page.locator('nav').waitFor()
    await page.locator('.reading', { hasText: /Reading: [\d.]+ .iB of [\d.]+ MiB/ }).waitFor()
    await goTo(page, 'ladder')
    await page.locator('.row.kind-packet').first().waitFor()
    isHeld = false
    for (const release of held) release()
    await page.locator('.reading').waitFor({ state: 'detached', timeout: 0 })
    assert.equal(await page.getByRole('button', { name: 'Read all' }).count(), 0)
    await goTo(page, 'overview')
    await page.locator('.tiles', { hasText: '1,000,000' }).waitFor()
    await goTo(page, 'ladder')
    await page.locator('.row.kind-packet').first().waitFor()
    assert.ok((await nodesOf(page)) <= MAX_NODES)
    await page.locator('.list').evaluate(list => {
      list.scrollTop = list.scrollHeight
    })
    await page.locator('.status', { hasText: /[5-9],\d{3} rows|10,\d{3} rows/ }).waitFor()
    assert.ok((await nodesOf(page)) <= MAX_NODES)
    // A filter searches the whole session: this is the PSN of the last packet.
    await goTo(page, `ladder?filter=${encodeURIComponent(`infiniband.bth.psn == ${2 * (EVENTS - 1)}`)}`)
    await page.locator('.status', { hasText: /^1 row of 1,0\d\d,\d{3}$/ }).waitFor({ timeout: 0 })
    await goTo(page, 'ladder?filter=userdma.wr_id%20%3D%3D%204711')
    await page.locator('.empty', { hasText: 'No row matches' }).waitFor({ timeout: 0 })
    await page.close()
  })
})
