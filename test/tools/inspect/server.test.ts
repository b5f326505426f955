/*
 * The server of the page: who gets what. Each rule of src/tools/inspect/access.ts and page.ts has a request that breaks
 * it.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { hostname } from 'node:os'
import { after, before, describe, it } from 'node:test'
import { MAX_CONNECTIONS } from '../../../src/tools/inspect/connections.ts'
import { filePolicy, SERVED_POLICY } from '../../../src/tools/inspect/page-files.ts'
import { type PageData, type PageServer, servePage } from '../../../src/tools/inspect/server.ts'

const BYTES = new Uint8Array(1000).map((_, i) => i)
const page = { html: '<!doctype html><title>page</title>', script: 'script()', style: 'a{}' }

const dataOf = (more: Partial<PageData> = {}): PageData => ({
  name: 'session.udr',
  isLive: false,
  state: () => ({ recording: 1, size: BYTES.length, isGrowing: false }),
  read: async (offset, length) => BYTES.subarray(offset, offset + length),
  onChange: () => () => {},
  ...more,
})

interface Reply {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Buffer
}

/** `fetch` would not send `Host` and `Origin` as given. */
const ask = (
  port: number,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
  body?: string,
  address = '127.0.0.1',
): Promise<Reply> =>
  new Promise((resolve, reject) => {
    const sent = request({ host: address, port, path, method, headers }, async response => {
      const parts: Buffer[] = []
      for await (const part of response as AsyncIterable<Buffer>) parts.push(part)
      resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(parts) })
    })
    sent.on('error', reject)
    sent.end(body)
  })

const tokenOf = (server: PageServer): string => new URL(server.link()).hash.slice('#token='.length)

const enter = async (server: PageServer): Promise<Record<string, string>> => {
  const { body } = await ask(server.port, '/api/session', {}, 'POST', tokenOf(server))
  return { 'x-userdma-session': body.toString() }
}

describe('the server of the page', () => {
  let server: PageServer
  before(async () => {
    server = await servePage(page, dataOf())
  })
  after(() => server.close())

  it('listens on loopback, and puts the token where browsers do not send it', () => {
    const { hostname, hash, search } = new URL(server.link())
    assert.equal(hostname, '127.0.0.1')
    assert.match(hash, /^#token=[\w-]{32}$/)
    assert.equal(search, '')
  })

  it('gives a session tokens for further links, each of which works once', async () => {
    const session = await enter(server)
    const { status, body } = await ask(server.port, '/api/token', session, 'POST')
    assert.equal(status, 200)
    const token = body.toString()
    assert.equal((await ask(server.port, '/api/about', { 'x-userdma-session': token })).status, 401)
    assert.equal((await ask(server.port, '/api/session', {}, 'POST', token)).status, 200)
    assert.equal((await ask(server.port, '/api/session', {}, 'POST', token)).status, 403)
    assert.equal((await ask(server.port, '/api/token', session)).status, 404)
  })

  it('sends a copy of a live recording, and closes it', async () => {
    const large = new Uint8Array(3 * 2 ** 20 + 5).map((_, i) => i)
    let isClosed = false
    const live = await servePage(
      page,
      dataOf({
        save: async () => ({
          size: large.length,
          read: async (offset, length) => large.subarray(offset, offset + length),
          close: async () => {
            isClosed = true
          },
        }),
      }),
    )
    try {
      const { body } = await ask(live.port, '/api/recording', await enter(live))
      assert.deepEqual(new Uint8Array(body), large)
      assert.ok(isClosed)
    } finally {
      await live.close()
    }
    assert.equal((await ask(server.port, '/api/recording', await enter(server))).status, 404)
  })

  it('gives data only to a session', async () => {
    const session = await enter(server)
    for (const headers of [{}, { 'x-userdma-session': 'x' }, { 'x-userdma-session': tokenOf(server) }]) {
      for (const path of [
        '/api/about',
        '/api/data?offset=0&length=10',
        '/api/changes',
        '/api/faults',
        '/api/recording',
      ])
        assert.equal((await ask(server.port, path, headers)).status, 401, path)
      assert.equal((await ask(server.port, '/api/token', headers, 'POST')).status, 401)
    }
    const { status, body } = await ask(server.port, '/api/data?offset=10&length=5', session)
    assert.equal(status, 200)
    assert.deepEqual([...body], [10, 11, 12, 13, 14])
  })

  it('exchanges a token once, and only a token', async () => {
    const token = tokenOf(server)
    assert.equal((await ask(server.port, '/api/session', {}, 'POST', token)).status, 200)
    const again = await ask(server.port, '/api/session', {}, 'POST', token)
    assert.equal(again.status, 403)
    assert.match(again.body.toString(), /was used before/)
    for (const wrong of ['', 'x', 'A'.repeat(32)])
      assert.equal((await ask(server.port, '/api/session', {}, 'POST', wrong)).status, 403)
    assert.equal((await ask(server.port, `/api/session?token=${tokenOf(server)}`)).status, 401)
  })

  it('refuses hosts that are not its own', async () => {
    const session = await enter(server)
    for (const host of [`attacker.example:${server.port}`, '127.0.0.1', `127.0.0.1:${server.port + 1}`]) {
      assert.equal((await ask(server.port, '/', { host })).status, 403, host)
      assert.equal((await ask(server.port, '/api/about', { ...session, host })).status, 403, host)
    }
    assert.equal((await ask(server.port, '/', { host: `localhost:${server.port}` })).status, 200)
  })

  it('on all addresses, accepts those and the names of the machine, and --host-name', async t => {
    const names = ['lab7.example', 'proxy.example:9000']
    const everywhere = await servePage(page, dataOf(), { host: '0.0.0.0', names })
    t.after(() => everywhere.close())
    const { port } = everywhere
    assert.notEqual(new URL(everywhere.link()).hostname, '0.0.0.0')
    const outer = new URL(everywhere.link()).host
    const to = async (host: string, address = '127.0.0.1') =>
      (await ask(port, '/', { host }, 'GET', '', address)).status
    assert.equal(await to(outer, outer.replace(/:\d+$/, '')), 200)
    for (const host of ['127.0.0.1', 'localhost', hostname(), 'LAB7.example'])
      assert.equal(await to(`${host}:${port}`), 200, host)
    assert.equal(await to('proxy.example:9000'), 200)
    for (const host of ['attacker.example', '127.0.0.2', 'proxy.example', 'lab7.example.attacker.example'])
      assert.equal(await to(`${host}:${port}`), 403, host)
    const { body } = await ask(port, '/', { host: 'attacker.example' })
    assert.match(body.toString(), /host "attacker\.example".*--host-name NAME/)
  })

  it('refuses pages of other origins', async () => {
    const session = await enter(server)
    for (const origin of ['http://attacker.example', 'null', `https://127.0.0.1:${server.port}`, 'http://127.0.0.1:1'])
      assert.equal((await ask(server.port, '/api/about', { ...session, origin })).status, 403, origin)
    assert.equal((await ask(server.port, '/api/about', { ...session, 'sec-fetch-site': 'cross-site' })).status, 403)
    const origin = `http://127.0.0.1:${server.port}`
    assert.equal((await ask(server.port, '/api/about', { ...session, origin })).status, 200)
  })

  it('forbids the page everything but its own files and connections', async () => {
    const session = await enter(server)
    for (const path of ['/', '/page.js', '/page.css', '/api/about', '/nothing']) {
      const { headers } = await ask(server.port, path, session)
      assert.equal(headers['content-security-policy'], SERVED_POLICY)
      assert.equal(headers['x-content-type-options'], 'nosniff')
      assert.equal(headers['cache-control'], 'no-store')
      assert.equal(headers['referrer-policy'], 'no-referrer')
      assert.equal(headers['access-control-allow-origin'], undefined)
    }
    for (const part of ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"])
      assert.ok(SERVED_POLICY.includes(part), part)
    assert.doesNotMatch(SERVED_POLICY, /unsafe|\*/)
  })

  it('answers unknown paths and wrong numbers with a sentence', async () => {
    const session = await enter(server)
    assert.equal((await ask(server.port, '/../package.json')).status, 404)
    assert.equal((await ask(server.port, '/api/nothing', session)).status, 404)
    for (const query of ['', '?offset=-1&length=1', '?offset=0&length=99999999', '?offset=x&length=1'])
      assert.match((await ask(server.port, `/api/data${query}`, session)).body.toString(), /give a number from 0/)
  })

  it('changes no faults without --allow-faults', async () => {
    const { status, body } = await ask(server.port, '/api/faults', await enter(server), 'PUT', 'drop=1%')
    assert.equal(status, 403)
    assert.match(body.toString(), /--allow-faults/)
  })
})

const isRoot = process.geteuid?.() === 0

describe('connections of another user', { skip: !isRoot && 'only root can be another user' }, () => {
  it('close each other at the limit, and none of the owner', async t => {
    const server = await servePage(page, dataOf())
    t.after(() => server.close())
    // One that has sent nothing yet, as browsers make them.
    const silent = connect(server.port, '127.0.0.1')
    t.after(() => silent.destroy())
    await once(silent, 'connect')
    // Each from another address. The reply to the newest says that the server has accepted all before it.
    const flood = `
      const net = require('net')
      let open = 0
      const make = () => {
        const socket = net.connect({ host: '127.0.0.1', port: ${server.port}, localAddress: '127.0.' + (open >> 6) + '.' + (1 + (open & 63)) })
        socket.on('error', () => {})
        socket.on('connect', () => { if (++open < ${4 * MAX_CONNECTIONS}) make(); else socket.write('GET / HTTP/1.1\\r\\n\\r\\n') })
        socket.once('data', () => console.log('flooded'))
      }
      make()`
    const other = spawn(process.execPath, ['-e', flood], {
      uid: 65534,
      gid: 65534,
      stdio: ['ignore', 'pipe', 'inherit'],
      cwd: '/',
    })
    t.after(() => other.kill())
    await once(other.stdout, 'data')
    assert.equal((await ask(server.port, '/api/about', await enter(server))).status, 200)
    // Those of the server and of this client.
    const open = process.getActiveResourcesInfo().filter(name => name === 'TCPSocketWrap').length
    assert.ok(open <= MAX_CONNECTIONS + 4, `${open} connections`)
    silent.write(`GET / HTTP/1.1\r\nHost: 127.0.0.1:${server.port}\r\n\r\n`)
    const [reply] = await once(silent, 'data')
    assert.match(String(reply), /^HTTP\/1.1 200/)
  })
})

describe('a page that may change faults', () => {
  it('passes rules on, and the sentence about a wrong rule', async () => {
    let rules: string | undefined
    const server = await servePage(
      page,
      dataOf({
        faults: async text => {
          if (text === 'wrong') throw new Error('"wrong" is no rule')
          rules = text ?? rules
          return [{ rule: rules ?? '', matched: 0, faults: 0 }]
        },
      }),
    )
    try {
      const session = await enter(server)
      const set = await ask(server.port, '/api/faults', session, 'PUT', 'drop=1%')
      assert.deepEqual(JSON.parse(set.body.toString()), [{ rule: 'drop=1%', matched: 0, faults: 0 }])
      const wrong = await ask(server.port, '/api/faults', session, 'PUT', 'wrong')
      assert.equal(wrong.status, 400)
      assert.equal(wrong.body.toString(), '"wrong" is no rule')
      assert.equal((await ask(server.port, '/api/faults', session, 'PUT', 'x'.repeat(70_000))).status, 413)
    } finally {
      await server.close()
    }
  })
})

describe('changes of a live recording', () => {
  it('are sent as lines, and end with the page', async () => {
    let size = 10
    let ended = 0
    const listeners = new Set<() => void>()
    const server = await servePage(
      page,
      dataOf({
        isLive: true,
        state: () => ({ recording: 1, size, isGrowing: true }),
        onChange(listener) {
          listeners.add(listener)
          return () => {
            ended++
            listeners.delete(listener)
          }
        },
      }),
    )
    try {
      const abort = new AbortController()
      const reply = await fetch(`http://127.0.0.1:${server.port}/api/changes`, {
        headers: await enter(server),
        signal: abort.signal,
      })
      const reader = reply.body!.pipeThrough(new TextDecoderStream()).getReader()
      assert.equal(JSON.parse((await reader.read()).value ?? '').size, 10)
      size = 20
      for (const listener of listeners) listener()
      assert.equal(JSON.parse((await reader.read()).value ?? '').size, 20)
      abort.abort()
      await reader.read().catch(() => undefined)
      while (ended === 0) await new Promise(resolve => setImmediate(resolve))
      assert.equal(listeners.size, 0)
    } finally {
      await server.close()
    }
  })
})

describe('the policy of a page in a file', () => {
  it('allows this script and this style, and no connections', () => {
    const policy = filePolicy(page)
    assert.match(policy, /script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}'/)
    assert.doesNotMatch(policy, /connect-src|'self'|unsafe/)
    assert.notEqual(filePolicy({ ...page, script: 'script(1)' }), policy)
  })
})
