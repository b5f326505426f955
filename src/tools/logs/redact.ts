/*
 * A log without names and addresses, for a bug report: hosts, IPv4 and IPv6 addresses, GIDs, MAC addresses and GUIDs,
 * users in paths. The same name has the same pseudonym in all logs; names of adapters, numbers and texts stay.
 */
import { plainAddress } from './analysis.ts'
import { headerBefore, parseLine, seen } from './line.ts'

const IPV4 = /(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]|-\d)/g
const IPV6 = /(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:]|\.\d)/gi
const OCTETS = /(?<![\w:])(?:[0-9a-f]{2}:){5,19}[0-9a-f]{2}(?![\w:])/gi
const DECIMAL_GID = /(?<![\w:])(?:\d{1,3}:){15}\d{1,3}(?![\w:])/g
const GUID = /(guid\W{0,4})(?:0x)?[0-9a-f]{16}\b/gi
const UUID = /\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/gi
/** Names of peers: `node7<54862>`, and of openib. */
const PEERS = [
  /(?<![\w.%:/-])([A-Za-z][\w.-]{0,200})<\d{1,5}>/g,
  /\b(?:from|to:) ([A-Za-z][\w.-]{0,200}) (?:to:|error polling)/g,
]
const HOME = /\/(home|Users)\/[^/\s:'"]+/g
const ACCOUNT = /\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b/g

/** Times look like addresses, and addresses of nobody say nothing. */
const isKept = (address: string): boolean =>
  /^\d{1,2}:\d{2}(?::\d{2})?$/.test(address) ||
  /^(?:127\.0\.0\.1|0\.0\.0\.0|::1?)$/.test(address) ||
  address.replaceAll(':', '').length === 0

/** The hosts that lines are of, in all of a log. */
export class HostNames {
  readonly names = new Set<string>()
  /** A line of the log. */
  add(text: string): void {
    if (this.names.size >= MAX_NAMES) return
    const line = parseLine(text.slice(0, LOOKED_AT))
    for (const host of [line.host, headerBefore(line.text, 0, line.text.length).host])
      if (host !== undefined) this.names.add(host)
    for (const form of PEERS) for (const [, name] of text.slice(0, PEER_AT).matchAll(form)) this.names.add(name!)
  }
}
const MAX_NAMES = 20_000
/** Characters at the start of a line, where its host stands. */
const LOOKED_AT = 400
/** Characters in which names of peers stand. */
const PEER_AT = 2000

/** A host's short name stands beside its full one. */
const shortName = (name: string): string => (/^[\d.]+$/.test(name) ? name : name.split('.')[0]!)

/** What perftest prints of a GID: octets in decimal. */
const addressIn = (gid: string): string =>
  plainAddress(
    gid
      .split(':')
      .map(octet => Number(octet).toString(16).padStart(2, '0'))
      .join(':'),
  )

export class Redactor {
  readonly #names = new Map<string, string>()
  readonly #counts = new Map<string, number>()
  #hosts: RegExp | undefined

  /** `hosts`: names that must not stay. */
  constructor(hosts: Iterable<string>) {
    const names = [...hosts].filter(name => name.length > 1).sort()
    for (const name of names) this.#pseudonym('host', shortName(name))
    const all = new Set(names.flatMap(name => [name, shortName(name)]))
    const escaped = [...all]
      .sort((a, b) => b.length - a.length)
      .map(name => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'))
    if (escaped.length > 0) this.#hosts = new RegExp(`(?<![\\w-])(?:${escaped.join('|')})(?![\\w-])`, 'gi')
  }

  #pseudonym(kind: string, value: string): string {
    const key = `${kind} ${value.toLowerCase()}`
    const known = this.#names.get(key)
    if (known !== undefined) return known
    const count = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, count)
    const name = `${kind}${count}`
    this.#names.set(key, name)
    return name
  }

  line(text: string): string {
    let line = seen(text)
    if (this.#hosts !== undefined) line = line.replace(this.#hosts, name => this.#pseudonym('host', shortName(name)))
    return (
      line
        .replace(HOME, (_, root: string) => `/${root}/user`)
        .replace(ACCOUNT, 'user@host')
        .replace(UUID, uuid => this.#pseudonym('uuid', uuid))
        .replace(GUID, (guid, before: string) => `${before}${this.#pseudonym('guid', guid.slice(-16))}`)
        .replace(DECIMAL_GID, gid => this.#pseudonym('addr', addressIn(gid)))
        .replace(OCTETS, octets => (isKept(octets) ? octets : this.#pseudonym('mac', octets)))
        // Before IPv6: an IPv4 address in a GID is the same address.
        .replace(IPV4, address => (isKept(address) ? address : this.#pseudonym('addr', address)))
        .replace(IPV6, address => (isKept(address) ? address : `[${this.#pseudonym('addr', address)}]`))
    )
  }
}
