/*
 * `userdma metrics`: counters of daemons as metrics for Prometheus, printed once or served at /metrics
 * (docs/how-to/metrics.md); with `--health` also what programs leave undone, as metrics and as JSON at /health. Each
 * scrape asks anew, so that daemons may start and end; scrapes at the same time share one look. Nothing can be changed
 * by the server.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, isIP } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import { openToolSession } from '../../daemon/client/tool-session.ts'
import { namedSocket, userSocket } from '../../daemon/client/user-socket.ts'
import { jsonText } from '../../spec/printable.ts'
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
import { healthJson } from '../waits/health.ts'

type MetricsOptions = OptionsOf<typeof metricsOptions>

/** Milliseconds for a daemon's answer; Prometheus waits 10 s by default. */
const ANSWER_TIME = 5000
/** Milliseconds for a request, and between requests; looked at each second. */
const TIMES = { requestTimeout: 5000, headersTimeout: 5000, keepAliveTimeout: 5000, connectionsCheckingInterval: 1000 }
const MAX_CONNECTIONS = 64

type Target = Omit<Scraped, 'stat' | 'health'> & { readonly isHealthWanted: boolean }

/** What a daemon answers. */
type Answer = Pick<Scraped, 'health'> & { readonly stat: Stat }

const answerOf = async ({ socket, isHealthWanted }: Target): Promise<Answer> => {
  const client = await openToolSession(socket)
  try {
    return { stat: await client.stat(), health: isHealthWanted ? await healthJson(client) : undefined }
  } finally {
    client.close()
  }
}

/** By socket: the question that a daemon has not answered yet. No other is asked meanwhile: each has a descriptor. */
const asked = new Map<string, Promise<Answer | undefined>>()

const ask = (target: Target): Promise<Answer | undefined> => {
  const { socket } = target
  const asking =
    asked.get(socket) ??
    answerOf(target)
      .catch(() => undefined)
      .finally(() => asked.delete(socket))
  asked.set(socket, asking)
  return asking
}

/** Undefined for a daemon that does not answer. */
const scrape = async (target: Target): Promise<Scraped> => {
  const late = new AbortController()
  const silence = setTimeout(ANSWER_TIME, undefined, late).catch(() => undefined)
  const { stat, health } = (await Promise.race([ask(target), silence])) ?? { stat: undefined, health: undefined }
  late.abort()
  return { ...target, stat, health }
}

/** Whether the header Host names this machine by an address or a name of its own (tools/inspect/addresses.ts). */
const isOwnHost = ({ headers: { host = '' } }: IncomingMessage): boolean => {
  const name = host
    .replace(/:\d+$/, '')
    .replace(/^\[(.*)\]$/, '$1')
    .toLowerCase()
  return isIP(name) !== 0 || name === 'localhost' || machineNames().some(own => own.toLowerCase() === name)
}

/** What `stat --health --json` says of each daemon, with its labels; `null` for one that does not answer. */
const healthOf = (all: readonly Scraped[]) => all.map(({ labels, health }) => ({ ...labels, health: health ?? null }))

/** Serves the metrics until a signal. */
const serve = async (targets: readonly Target[], listen: string, health: boolean): Promise<void> => {
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
    const path = request.url?.replace(/\?.*$/, '') ?? ''
    if (!['GET', 'HEAD'].includes(request.method ?? '') || !['/metrics', ...(health ? ['/health'] : [])].includes(path))
      return answer(response, 404, 'text/plain', 'the metrics are at /metrics\n')
    if (path === '/health')
      return void look().then(all => answer(response, 200, 'application/json', `${jsonText(healthOf(all), 2)}\n`))
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
  const { health: isHealthWanted = false } = options
  let targets: readonly Target[]
  if (options.net === undefined)
    targets = [{ socket: namedSocket(options.socket) ?? userSocket(), labels: {}, isHealthWanted }]
  else {
    const { folder, state } = runningNet(options.net, options.at)
    if (await ranInside(folder, state, process.argv.slice(2))) return
    targets = hostsWithDaemon(state.plan).map(({ name }) => ({
      socket: folder.socket(name),
      labels: { host: name },
      isHealthWanted,
    }))
  }
  if (options.listen !== undefined) return serve(targets, options.listen, isHealthWanted)
  // Without a daemon `answerOf` throws its message.
  const all = options.net === undefined ? [{ ...targets[0]!, ...(await answerOf(targets[0]!)) }] : undefined
  process.stdout.write(exposition(familiesOf(all ?? (await Promise.all(targets.map(scrape)))), 'prometheus'))
}
