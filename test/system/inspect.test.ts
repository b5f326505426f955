/*
 * `userdma inspect` and `userdma export --to html` as a user calls them, without a browser: the page's requests are
 * made here.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { About, FaultState, SymbolState, WaitState } from '../../src/tools/inspect/protocol.ts'
import { openSession, type SessionSource } from '../../src/tools/record/reader.ts'
import { repoRoot } from '../paths.ts'
import {
  assertGood,
  cleanEnvironment,
  lacking,
  ownProgram,
  runUserdma,
  type Scope,
  start,
  startDaemon,
  temporaryFolder,
  userdma,
} from './programs.ts'

const LOOPBACK = ownProgram('loopback')
const skip = lacking(LOOPBACK)
/** Its peer posts no receive: it waits until an alarm. */
const ENDLESS = join(repoRoot, 'build', 'findings', 'endless-rnr')
const STALE = join(repoRoot, 'build', 'findings', 'stale-rkey')

/** `userdma inspect` with its session. */
const inspect = async (t: Scope, ...args: readonly string[]) => {
  const running = start(t, userdma, ['inspect', ...args], { env: cleanEnvironment() })
  const [, origin, token] = await running.printed(/(http:\/\/127\.0\.0\.1:\d+\/)#token=(\S+)/)
  const session = await (await fetch(`${origin}api/session`, { method: 'POST', body: token })).text()
  const ask = (path: string, init: RequestInit = {}): Promise<Response> =>
    fetch(`${origin}api/${path}`, { ...init, headers: { 'x-userdma-session': session } })
  const about = async (): Promise<About> => (await (await ask('about')).json()) as About
  const source = (size: number): SessionSource => ({
    size,
    read: async (offset, length) =>
      new Uint8Array(await (await ask(`data?offset=${offset}&length=${length}`)).arrayBuffer()),
  })
  /** Calls `isReached` after each change until it is true. */
  const until = async (isReached: (about: About) => boolean | Promise<boolean>): Promise<void> => {
    const { body } = await ask('changes')
    for await (const _ of body as AsyncIterable<Uint8Array>) if (await isReached(await about())) return
  }
  return { running, origin, token, session, ask, about, source, until }
}

const record = async (t: Scope): Promise<string> => {
  const file = join(temporaryFolder(t), 'session.udr')
  assertGood(await runUserdma(t, ['run', '--private', '--record', file, '--', LOOPBACK]))
  return file
}

describe('userdma inspect FILE', { skip }, () => {
  it('serves the page and the bytes of the file, and has no secret in its arguments', async t => {
    const file = await record(t)
    const { running, origin, token, session, about, source } = await inspect(t, file)
    assert.match(await (await fetch(origin)).text(), /<div id="app">/)
    const { name, isLive, hasFaults, state } = await about()
    assert.deepEqual({ name, isLive, hasFaults }, { name: file, isLive: false, hasFaults: false })
    const opened = await openSession(source(state.size))
    const addresses: string[] = []
    for await (const event of opened.eventsIn()) if (event.kind === 'device') addresses.push(event.address)
    // The IPv4 address, not the link-local one of GID 0.
    assert.equal(addresses[0], '127.0.0.1')
    assert.deepEqual(Buffer.from(await source(state.size).read(0, state.size)), readFileSync(file))
    const shown = readFileSync(`/proc/${running.child.pid}/cmdline`, 'utf8')
    for (const secret of [token, session]) assert.ok(!shown.includes(secret))
    running.child.kill('SIGINT')
    assert.equal((await running.ended).status, 0)
  })

  it('refuses what is no session, and options that do not fit', async t => {
    const folder = temporaryFolder(t)
    const garbled = join(folder, 'garbled')
    writeFileSync(garbled, 'userdma session 1: x\nnot JSON\n')
    const foreign = join(folder, 'foreign')
    writeFileSync(foreign, 'hello')
    for (const [args, message] of [
      [[garbled], /garbled: the header of the session file is damaged/],
      [[foreign], /foreign is neither a session file nor a capture/],
      [[join(folder, 'none')], /none/],
      [[foreign, '--allow-faults'], /--allow-faults is for a daemon/],
      [[foreign, '--socket', 'x'], /--socket is for a daemon/],
      [['--listen', 'here'], /--listen "here": give an address/],
      [['--socket', join(folder, 'sock')], /no daemon at/],
    ] as const) {
      const { status, stderr } = await runUserdma(t, ['inspect', ...args])
      assert.notEqual(status, 0)
      assert.match(stderr, message)
    }
  })
})

describe('userdma inspect of a daemon', { skip }, () => {
  it('shows what programs do, changes faults, and goes on with the next daemon', async t => {
    const daemon = await startDaemon(t)
    const page = await inspect(t, '--socket', daemon.socket, '--allow-faults')
    const { isLive, run } = await page.about()
    assert.deepEqual([isLive, run], [true, `userdma run --socket ${daemon.socket} --`])
    const ran = runUserdma(t, ['run', '--socket', daemon.socket, '--', LOOPBACK])
    await page.until(async ({ state }) => {
      const { events } = await openSession(page.source(state.size))
      return events > 10
    })
    assertGood(await ran)

    const set = await page.ask('faults', { method: 'PUT', body: 'drop=1%;dir=sent,delay=1ms' })
    assert.deepEqual(
      ((await set.json()) as FaultState[]).map(({ rule }) => rule),
      ['drop=0.01', 'dir=sent,delay=1'],
    )
    const wrong = await page.ask('faults', { method: 'PUT', body: 'drop=lots' })
    assert.equal(wrong.status, 400)
    assert.match(await wrong.text(), /drop/)

    daemon.running.child.kill('SIGTERM')
    await daemon.running.ended
    await page.until(({ state }) => state.notice !== undefined)
    const next = start(t, userdma, ['daemon', '--socket', daemon.socket], { env: cleanEnvironment() })
    await next.printed(/ready/)
    await page.until(({ state }) => state.recording === 2 && state.notice === undefined && state.size > 0)
  })

  it('has the symbols of stacks while the recording goes on', { skip: lacking(STALE) }, async t => {
    const daemon = await startDaemon(t, { options: ['--check'] })
    const page = await inspect(t, '--socket', daemon.socket)
    await runUserdma(t, ['check', '--socket', daemon.socket, '--', STALE])
    const symbols = async (from: number): Promise<readonly SymbolState[]> =>
      (await (await page.ask(`symbols?from=${from}`)).json()) as SymbolState[]
    let found: readonly SymbolState[] = []
    await page.until(async () => {
      found = await symbols(0)
      return found.some(({ frames }) => frames.some(({ function: name }) => name === 'main'))
    })
    const main = found.flatMap(({ frames }) => frames).find(({ function: name }) => name === 'main')
    assert.match(main?.file ?? '', /stale-rkey\.c$/)
    assert.ok(main?.source?.lines.length)
    // others may still come
    await page.until(async () => {
      found = await symbols(0)
      return (await symbols(found.length)).length === 0
    })
    assert.equal((await page.ask('symbols?from=x')).status, 400)
  })

  it('says what programs wait for', { skip: lacking(ENDLESS) }, async t => {
    const daemon = await startDaemon(t)
    const page = await inspect(t, '--socket', daemon.socket)
    const waits = async (): Promise<readonly WaitState[]> => (await (await page.ask('waits')).json()) as WaitState[]
    assert.deepEqual(await waits(), [])
    // Each ends after three seconds.
    const program = ['sh', '-c', 'for i in 1 2 3 4 5 6 7 8; do "$0"; done', ENDLESS]
    start(t, userdma, ['run', '--socket', daemon.socket, '--', ...program], { env: cleanEnvironment() })
    let found: readonly WaitState[] = []
    while (found.length === 0) found = await waits()
    assert.equal(found[0].command, 'endless-rnr')
    assert.match(found[0].text, /rnr_retry/i)
  })

  it('keeps faults as they are without --allow-faults', async t => {
    const daemon = await startDaemon(t)
    const page = await inspect(t, '--socket', daemon.socket)
    assert.equal((await page.about()).hasFaults, false)
    assert.equal((await page.ask('faults', { method: 'PUT', body: 'drop=1%' })).status, 403)
  })
})

describe('userdma export --to html', { skip }, () => {
  it('writes the page with the session, and allows it no connection', async t => {
    const file = await record(t)
    for (const options of [[], ['--redact']]) {
      const { status, stdout, stderr } = await runUserdma(t, ['export', file, '--to', 'html', ...options])
      assert.deepEqual({ status, stderr }, { status: 0, stderr: '' })
      const [, policy] = /Content-Security-Policy" content="([^"]*)"/.exec(stdout) ?? []
      assert.match(policy, /^default-src 'none'; script-src 'sha256-/)
      assert.doesNotMatch(policy, /connect-src|unsafe/)
      assert.equal([...stdout.matchAll(/<script type="module">/g)].length, 1)
      assert.match(stdout, /data-name="session.udr"/)
    }
  })
})

describe('the built page', () => {
  it('is small', () => {
    const script = readFileSync(join(repoRoot, 'dist', 'page', 'page.js'))
    assert.ok(script.length < 500_000, `${script.length} bytes`)
  })
})
