/*
 * `userdma metrics`: counters of daemons as metrics for Prometheus, printed once or served at /metrics
 * (docs/how-to/metrics.md). Each scrape asks anew, so that daemons may start and end; scrapes at the same time share one
 * look. The server tells counters only, and nothing can be changed by it.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { openToolSession } from '../../daemon/client/tool-session.ts'
import { namedSocket, userSocket } from '../../daemon/client/user-socket.ts'
import { isLoopback, machineNames, urlHost } from '../../tools/inspect/addresses.ts'
import { limitConnections } from '../../tools/inspect/connections.ts'
import type { Stat } from '../../uapi/tool.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { metricsOptions } from '../command-line/options.ts'
import { onEndSignal } from '../end-signals.ts'
import { listenAddress } from '../listen-address.ts'
import { contentTypes, exposition, type Format } from '../metrics/exposition.ts'
import { familiesOf, type Scraped } from '../metrics/families.ts'
import { ranInside } from '../net/inside.ts'
import { hostsWithDaemon } from '../net/plan.ts'
import { runningNet } from '../net/state.ts'

type MetricsOptions = OptionsOf<typeof metricsOptions>

/** Milliseconds for a daemon's answer; Prometheus waits 10 s by default. */
const ANSWER_TIME = 5000
/** Milliseconds for a request, and between requests; looked at each second. */
const TIMES = { requestTimeout: 5000, headersTimeout: 5000, keepAliveTimeout: 5000, connectionsCheckingInterval: 1000 }
const MAX_CONNECTIONS = 64

const statOf = async (socket: string): Promise<Stat> => {
  const client = await openToolSession(socket)
  try {
    return await client.stat()
  } finally {
    client.close()
  }
}

type Target = Omit<Scraped, 'stat'>

/** By socket: the question that a daemon has not answered yet. No other is asked meanwhile: each has a descriptor. */
const asked = new Map<string, Promise<Stat | undefined>>()

const ask = (socket: string): Promise<Stat | undefined> => {
  const asking =
    asked.get(socket) ??
    statOf(socket)
      .catch(() => undefined)
      .finally(() => asked.delete(socket))
  asked.set(socket, asking)
  return asking
}

/** Undefined for a daemon that does not answer. */
const scrape = async (target: Target): Promise<Scraped> => {
  const late = new AbortController()
  const silence = setTimeout(ANSWER_TIME, undefined, late).catch(() => undefined)
  const stat = await Promise.race([ask(target.socket), silence])
  late.abort()
  return { ...target, stat }
}

/** Whether the header Host names this machine by an address or a name of its own (tools/inspect/addresses.ts). */
const isOwnHost = ({ headers: { host = '' } }: IncomingMessage): boolean => {
  const name = host
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase()
  return isIP(name) !== 0 || name === 'localhost' || machineNames().some(own => own.toLowerCase() === name)
}

/** Serves the metrics until a signal. */
const serve = async (targets: readonly Target[], listen: string): Promise<void> => {
  const { host, port } = listenAddress(listen)
  let looking: Promise<readonly Scraped[]> | undefined
  const look = (): Promise<readonly Scraped[]> => {
    looking ??= Promise.all(targets.map(scrape)).finally(() => {
      looking = undefined
    })
    return looking
  }
  const answer = (response: ServerResponse, status: number, type: string, text: string): void => {
    response.writeHead(status, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) })
    response.end(text)
  }
  const isOnlyOurs = isLoopback(host)
  const server = createServer(TIMES)
  const connections = limitConnections(server, MAX_CONNECTIONS)
  server.on('request', (request, response) => {
    // requests that do not wait for the answer would fill the memory
    if (connections.isWaiting(request)) return request.socket.destroy()
    request.resume()
    if (isOnlyOurs && !isOwnHost(request))
      return answer(response, 403, 'text/plain', `the host is ${host}, not ${request.headers.host}\n`)
    if (!['GET', 'HEAD'].includes(request.method ?? '') || request.url?.replace(/\?.*$/, '') !== '/metrics')
      return answer(response, 404, 'text/plain', 'the metrics are at /metrics\n')
    const format: Format = request.headers.accept?.includes('application/openmetrics-text')
      ? 'openmetrics'
      : 'prometheus'
    void look().then(all => answer(response, 200, contentTypes[format], exposition(familiesOf(all), format)))
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  const bound = server.address() as AddressInfo
  process.stdout.write(`userdma metrics: http://${urlHost(host)}:${bound.port}/metrics\n`)
  await new Promise<void>(resolve => onEndSignal(() => resolve()))
  server.closeAllConnections()
  server.close()
}

/** The command. */
export const metrics = async (options: MetricsOptions): Promise<void> => {
  let targets: readonly Target[]
  if (options.net === undefined) targets = [{ socket: namedSocket(options.socket) ?? userSocket(), labels: {} }]
  else {
    const { folder, state } = runningNet(options.net, options.at)
    if (await ranInside(folder, state, process.argv.slice(2))) return
    targets = hostsWithDaemon(state.plan).map(({ name }) => ({ socket: folder.socket(name), labels: { host: name } }))
  }
  if (options.listen !== undefined) return serve(targets, options.listen)
  // Without a daemon `statOf` throws its message.
  const all = options.net === undefined ? [{ ...targets[0]!, stat: await statOf(targets[0]!.socket) }] : undefined
  process.stdout.write(exposition(familiesOf(all ?? (await Promise.all(targets.map(scrape)))), 'prometheus'))
}
