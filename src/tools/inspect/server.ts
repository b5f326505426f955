/*
 * The HTTP server of the page: its files, and for pages with a session (access.ts) what protocol.ts has. The page
 * decodes the session file itself.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import { createAccess } from './access.ts'
import { isLoopback, machineNames, plainAddress, urlHost } from './addresses.ts'
import { limitConnections } from './connections.ts'
import { type Page, SERVED_POLICY } from './page-files.ts'
import {
  type About,
  type DataState,
  type FaultState,
  HOST_HEADER,
  MAX_READ,
  type SymbolState,
  type WaitState,
} from './protocol.ts'

/** A copy of the recording. */
export interface Snapshot {
  /** Bytes. */
  readonly size: number
  read(offset: number, length: number): Promise<Uint8Array>
  close(): Promise<void>
}

/** What the server shows. */
export interface PageData {
  /** The name of the file or daemon. */
  readonly name: string
  /** Absent: it is a file. The command line by which a program uses the daemon, without the program. */
  readonly run?: string
  readonly isLive: boolean
  state(): DataState
  read(offset: number, length: number): Promise<Uint8Array>
  /** Calls `listener` after changes of the state; returns a function that ends this. */
  onChange(listener: () => void): () => void
  /** Absent: no programs run. What lasts for two looks; throws an Error if the daemon has ended meanwhile. */
  waits?(): Promise<readonly WaitState[]>
  /** Absent: they are in the file. What the frames of stacks are, from number `from` on. */
  symbols?(from: number): readonly SymbolState[]
  /** Absent: it is a file. The recording so far, as a whole session file. */
  save?(): Promise<Snapshot>
  /** Absent: the page may not change faults. Reads the rules, or replaces them; throws an Error for a wrong rule. */
  faults?(rules?: string): Promise<readonly FaultState[]>
}

interface ServerOptions {
  /** Default: 127.0.0.1. */
  readonly host?: string
  /** 0: a free one. */
  readonly port?: number
  /** Further names by which browsers reach the server, `NAME` or `NAME:PORT` if the port is another one for them. */
  readonly names?: readonly string[]
}

export interface PageServer {
  /** The address with a new single-use token. */
  link(): string
  readonly port: number
  close(): Promise<void>
}

/** Bytes of a recording that are sent at once. */
const COPY_PART = 2 ** 20
/** Most bytes of a request's body: fault rules. */
const MAX_BODY = 64 * 2 ** 10
/** Milliseconds between two lines of /api/changes. */
const CHANGE_INTERVAL = 250

const HEADERS = {
  'Content-Security-Policy': SERVED_POLICY,
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
}

/** A request that cannot be met. `message`: a sentence for people. */
class RequestError extends Error {
  readonly status: number

  constructor(status: number, message: string) {
    super(message)
    this.status = status
  }
}

const send = (response: ServerResponse, status: number, type: string, body: string | Uint8Array): void => {
  response.writeHead(status, { ...HEADERS, 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) })
  response.end(body)
}
const sendJson = (response: ServerResponse, value: unknown): void =>
  send(response, 200, 'application/json', JSON.stringify(value))

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length
    if (length > MAX_BODY) throw new RequestError(413, `the request has more than ${MAX_BODY} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}

const wholeNumber = (url: URL, name: string, max: number): number => {
  const text = url.searchParams.get(name) ?? ''
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  if (!(value <= max)) throw new RequestError(400, `${name} "${text}": give a number from 0 to ${max}`)
  return value
}

/**
 * The names by which a browser reaches the server on this connection: the address that it has connected to, which is
 * one of the machine, and the machine's names. Names that others may give to the address are refused: their pages could
 * send requests here (DNS rebinding).
 */
const hostsOf = ({ localAddress = '' }: Socket, port: number, names: readonly string[]): string[] => {
  const address = plainAddress(localAddress)
  const own = [urlHost(address), ...machineNames()]
  if (isLoopback(address)) own.push('localhost')
  const hosts = [
    ...own.map(host => `${host}:${port}`),
    ...names.map(host => (host.includes(':') ? host : `${host}:${port}`)),
  ]
  return [...new Set(hosts.map(host => host.toLowerCase()))]
}

/** The address for the link: of a server on all addresses, one by which other machines reach it too. */
const linkAddress = (host: string): string => {
  const family = { '0.0.0.0': 'IPv4', '::': 'IPv6' }[host]
  if (family === undefined) return host
  const outer = Object.values(networkInterfaces())
    .flat()
    .find(one => one?.family === family && !one.internal && !one.address.startsWith('fe80:'))
  return outer?.address ?? (family === 'IPv4' ? '127.0.0.1' : '::1')
}

/** Sends the state after each change, at most every CHANGE_INTERVAL, and not while the client is slow. */
const streamChanges = (data: PageData, response: ServerResponse): void => {
  response.writeHead(200, { ...HEADERS, 'Content-Type': 'application/x-ndjson' })
  let timer: NodeJS.Timeout | undefined
  let hasChanged = false
  const write = (): void => {
    hasChanged = false
    timer = setTimeout(() => {
      timer = undefined
      if (hasChanged) write()
    }, CHANGE_INTERVAL)
    if (response.writableNeedDrain) hasChanged = true
    else response.write(`${JSON.stringify(data.state())}\n`)
  }
  const end = data.onChange(() => {
    if (timer === undefined) write()
    else hasChanged = true
  })
  write()
  response.on('close', () => {
    end()
    clearTimeout(timer)
  })
}

/** Sends a copy of the recording, as slowly as the client reads. */
const sendRecording = async (data: PageData, response: ServerResponse): Promise<void> => {
  if (data.save === undefined) throw new RequestError(404, 'the page shows a file, which is saved already')
  const copy = await data.save()
  try {
    response.writeHead(200, { ...HEADERS, 'Content-Type': 'application/octet-stream', 'Content-Length': copy.size })
    for (let at = 0; at < copy.size && !response.destroyed; at += COPY_PART)
      if (!response.write(await copy.read(at, COPY_PART))) await drained(response)
    response.end()
  } finally {
    await copy.close()
  }
}

/** Resolves when the client has taken what was written, or has gone. */
const drained = (response: ServerResponse): Promise<void> =>
  new Promise(resolve => {
    const done = (): void => {
      response.off('drain', done).off('close', done)
      resolve()
    }
    response.on('drain', done).on('close', done)
  })

/**
 * Starts the server. `shown`: one session, or that of each host, with different names. Throws the system's error if the
 * address cannot be used.
 */
export const servePage = async (
  page: Page,
  shown: PageData | readonly [PageData, ...PageData[]],
  options: ServerOptions = {},
): Promise<PageServer> => {
  const all = 'name' in shown ? ([shown] as const) : shown
  const { host = '127.0.0.1', port = 0, names = [] } = options
  const files: Readonly<Record<string, readonly [type: string, body: string]>> = {
    '/': ['text/html; charset=utf-8', page.html],
    '/page.js': ['text/javascript; charset=utf-8', page.script],
    '/page.css': ['text/css; charset=utf-8', page.style],
  }
  const server = createServer({ keepAliveTimeout: 5000, requestTimeout: 30_000 })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const bound = server.address() as AddressInfo
  const access = createAccess(({ socket }) => hostsOf(socket, bound.port, names))
  const connections = limitConnections(server)

  const dataOf = ({ headers }: IncomingMessage): PageData => {
    const name = headers[HOST_HEADER]
    const found = name === undefined ? all[0] : all.find(data => data.name === name)
    if (found === undefined) throw new RequestError(404, `there is no host "${String(name)}"`)
    return found
  }

  const changeFaults = async (data: PageData, rules?: string): Promise<readonly FaultState[]> => {
    if (data.faults === undefined)
      throw new RequestError(403, 'the page may not change faults: start `userdma inspect` with --allow-faults')
    try {
      return await data.faults(rules)
    } catch (error) {
      throw new RequestError(400, error instanceof Error ? error.message : String(error))
    }
  }

  const answerApi = async (request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> => {
    const data = dataOf(request)
    switch (`${request.method} ${url.pathname}`) {
      case 'GET /api/about':
        return sendJson(response, {
          name: data.name,
          isLive: data.isLive,
          hasFaults: data.faults !== undefined,
          ...(data.run !== undefined && { run: data.run }),
          state: data.state(),
          ...(all.length > 1 && { hosts: all.map(({ name }) => name) }),
        } satisfies About)
      case 'GET /api/data': {
        const offset = wholeNumber(url, 'offset', Number.MAX_SAFE_INTEGER)
        const length = wholeNumber(url, 'length', MAX_READ)
        return send(response, 200, 'application/octet-stream', await data.read(offset, length))
      }
      case 'GET /api/changes':
        return streamChanges(data, response)
      case 'GET /api/recording':
        return sendRecording(data, response)
      case 'POST /api/token':
        return send(response, 200, 'text/plain', access.createToken())
      case 'GET /api/waits':
        return sendJson(response, (await data.waits?.()) ?? [])
      case 'GET /api/symbols':
        return sendJson(response, data.symbols?.(wholeNumber(url, 'from', Number.MAX_SAFE_INTEGER)) ?? [])
      case 'GET /api/faults':
        return sendJson(response, await changeFaults(data))
      case 'PUT /api/faults':
        return sendJson(response, await changeFaults(data, await bodyOf(request)))
    }
    throw new RequestError(404, `there is no ${request.method} ${url.pathname}`)
  }

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const refusal = access.refuseOrigin(request)
    if (refusal !== undefined) throw new RequestError(403, refusal)
    const url = new URL(request.url ?? '/', 'http://page')
    const file = files[url.pathname]
    if (file !== undefined && request.method === 'GET') return send(response, 200, ...file)
    if (!url.pathname.startsWith('/api/')) throw new RequestError(404, `there is no ${url.pathname}`)
    if (request.method === 'POST' && url.pathname === '/api/session') {
      const session = access.exchange(await bodyOf(request))
      if (session === undefined)
        throw new RequestError(403, 'this link was used before: each link of `userdma inspect` opens one page')
      return send(response, 200, 'text/plain', session)
    }
    if (!access.hasSession(request)) throw new RequestError(401, 'the request has no session of this server')
    connections.noteSession(request)
    return answerApi(request, response, url)
  }

  server.on('request', (request: IncomingMessage, response: ServerResponse) => {
    answer(request, response).catch((error: unknown) => {
      if (response.headersSent) return void response.destroy()
      const status = error instanceof RequestError ? error.status : 500
      send(response, status, 'text/plain; charset=utf-8', error instanceof Error ? error.message : String(error))
    })
  })

  const origin = `http://${urlHost(linkAddress(host))}:${bound.port}/`
  return {
    port: bound.port,
    link: () => `${origin}#token=${access.createToken()}`,
    close() {
      server.closeAllConnections()
      return new Promise(resolve => {
        server.close(() => resolve())
      })
    },
  }
}
