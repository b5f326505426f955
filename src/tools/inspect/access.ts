/*
 * Who may use the server of the page (docs/why/threat-model.md). Each local user, and each web page in the user's
 * browser, can connect to its port. So a request needs
 * - a `Host` that names this server: a page of another site, whose name was made to resolve to our address, has its
 *   own;
 * - no `Origin`, or our own;
 * - a session, which the page gets in exchange for the token of the link. A token can be used once. It is in the link's
 *   fragment, which browsers do not send, and in no process's arguments. Pages of other sites cannot set the session's
 *   header without a CORS reply, which we never give.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { SESSION_HEADER } from './protocol.ts'

const SECRET_BYTES = 24
/** More links than a user opens. */
const MAX_SECRETS = 64

/** Unguessable texts, of which the newest `MAX_SECRETS` are valid. */
class Secrets {
  readonly #valid: Buffer[] = []

  create(): string {
    const secret = randomBytes(SECRET_BYTES)
    this.#valid.push(secret)
    if (this.#valid.length > MAX_SECRETS) this.#valid.shift()
    return secret.toString('base64url')
  }

  #indexOf(text: string): number {
    const bytes = Buffer.from(text, 'base64url')
    return bytes.length === SECRET_BYTES ? this.#valid.findIndex(secret => timingSafeEqual(secret, bytes)) : -1
  }

  has(text: string): boolean {
    return this.#indexOf(text) >= 0
  }

  /** True once for each secret. */
  take(text: string): boolean {
    const index = this.#indexOf(text)
    if (index >= 0) this.#valid.splice(index, 1)
    return index >= 0
  }
}

interface Access {
  /** A token for a new link. */
  createToken(): string
  /** A session in exchange for a token; undefined: the token is wrong, or was used. */
  exchange(token: string): string | undefined
  /** Why a request is refused, whatever it wants; undefined: it is not. */
  refuseOrigin(request: IncomingMessage): string | undefined
  hasSession(request: IncomingMessage): boolean
}

/** A `Host` with its port: browsers leave out that of HTTP. */
const withPort = (host: string): string => (/:\d+$/.test(host) ? host : `${host}:80`)

/**
 * `hostsOf`: the values of `Host`, such as `127.0.0.1:8080`, by which a browser may name the server on the connection
 * of a request.
 */
export const createAccess = (hostsOf: (request: IncomingMessage) => readonly string[]): Access => {
  const tokens = new Secrets()
  const sessions = new Secrets()
  return {
    createToken: () => tokens.create(),
    exchange: token => (tokens.take(token) ? sessions.create() : undefined),
    refuseOrigin(request) {
      const { headers } = request
      const hosts = hostsOf(request)
      if (headers.host === undefined || !hosts.includes(withPort(headers.host.toLowerCase())))
        return `the request is for host "${headers.host ?? ''}"; this server is ${hosts.join(', ')}: for another name, start \`userdma inspect\` with --host-name NAME`
      if (headers.origin !== undefined && headers.origin !== `http://${headers.host}`)
        return `the request comes from a page of "${headers.origin}"`
      const site = headers['sec-fetch-site']
      if (site !== undefined && site !== 'same-origin' && site !== 'none' && headers['sec-fetch-mode'] !== 'navigate')
        return 'the request comes from a page of another site'
      return undefined
    },
    hasSession({ headers }) {
      const session = headers[SESSION_HEADER]
      return typeof session === 'string' && sessions.has(session)
    },
  }
}
