/*
 * Where the page gets its session file from: the server of `userdma inspect` (src/tools/inspect/server.ts), or the page itself
 * if it is one file (src/tools/inspect/html.ts).
 */
import {
  type About,
  type DataState,
  type FaultState,
  HOST_HEADER,
  PART_TYPE,
  SESSION_HEADER,
  type WaitState,
} from '../../src/tools/inspect/protocol.ts'
import type { SessionSource } from '../../src/tools/record/reader.ts'

export interface Source {
  readonly about: About
  /** The bytes of the recording as far as `state` says. */
  open(state: DataState): SessionSource
  /** States of a live recording, the newest only; ends if the server has ended. */
  changes(): AsyncGenerator<DataState>
  /** The fault rules; with `rules` replaces them first. Throws an Error with a sentence. */
  faults(rules?: string): Promise<readonly FaultState[]>
  /** The recording so far as a session file; undefined: it is a file already. Throws an Error. */
  readonly save: (() => Promise<Blob>) | undefined
  /** A link that opens the session once more, at `route`; undefined: the page is a file. Throws an Error. */
  readonly link: ((route: string) => Promise<string>) | undefined
  /** Shows another host, after a reload. */
  choose(host: string): void
  /** What programs of the daemon wait for; nothing for a file. */
  waits(): Promise<readonly WaitState[]>
  /** Bytes that were read so far. */
  readonly bytesRead: number
}

// ---- pages ----

const PAGE_BYTES = 64 * 1024
/** Pages in memory: 32 MB. */
const MAX_PAGES = 512
/** Reads from so many bytes on are of a search through the file: a request for each page would take most of its time. */
const LONG_READ = 4 * PAGE_BYTES

type Load = (offset: number, length: number) => Promise<Uint8Array>

/** Reads pages of bytes, and keeps the newest. */
class PageCache {
  readonly #load: Load
  readonly #loadLong: Load | undefined
  readonly #pages = new Map<number, Promise<Uint8Array>>()

  /** `load`: loads a page. `loadLong`: more bytes at once, which are not kept; undefined: page by page. */
  constructor(load: Load, loadLong?: Load) {
    this.#load = load
    this.#loadLong = loadLong
  }

  /** Forgets the pages of the bytes from `from` to `to`. */
  forget(from: number, to: number): void {
    for (const page of this.#pages.keys())
      if (page * PAGE_BYTES < to && (page + 1) * PAGE_BYTES > from) this.#pages.delete(page)
  }

  #page(number: number): Promise<Uint8Array> {
    let page = this.#pages.get(number)
    if (page === undefined) {
      page = this.#load(number * PAGE_BYTES, PAGE_BYTES)
      page.catch(() => this.#pages.delete(number))
    } else this.#pages.delete(number)
    this.#pages.set(number, page)
    if (this.#pages.size > MAX_PAGES)
      for (const oldest of this.#pages.keys()) {
        this.#pages.delete(oldest)
        break
      }
    return page
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (length >= LONG_READ && this.#loadLong !== undefined) return this.#loadLong(offset, length)
    const first = Math.floor(offset / PAGE_BYTES)
    const last = Math.floor((offset + Math.max(length, 1) - 1) / PAGE_BYTES)
    if (first === last) {
      const page = await this.#page(first)
      return page.subarray(offset - first * PAGE_BYTES, offset + length - first * PAGE_BYTES)
    }
    const bytes = new Uint8Array(length)
    let at = 0
    for (let number = first; number <= last; number++) {
      const page = await this.#page(number)
      const start = Math.max(0, offset - number * PAGE_BYTES)
      const part = page.subarray(start, start + length - at)
      bytes.set(part, at)
      at += part.length
      if (part.length === 0) break
    }
    return bytes.subarray(0, at)
  }
}

const sourceOf = (cache: PageCache, size: number): SessionSource => ({
  size,
  read: (offset, length) =>
    offset >= size ? Promise.resolve(new Uint8Array(0)) : cache.read(offset, Math.min(length, size - offset)),
  forget: (from, to) => cache.forget(from, to),
})

// ---- the server ----

const SESSION = 'userdma session'
/** The host that this tab shows, if there are several. */
const HOST = 'userdma host'

/** Exchanges the token of the link for a session, which survives a reload of this tab. Throws an Error. */
const enter = async (): Promise<string> => {
  const [, token, route = ''] = /^#token=([\w-]+)(\/.*)?$/.exec(location.hash) ?? []
  if (token === undefined) {
    const session = sessionStorage.getItem(SESSION)
    if (session !== null) return session
    throw new Error('this page needs the link that `userdma inspect` prints, with its token')
  }
  // Not in the history: the token is used now.
  history.replaceState(null, '', route === '' ? location.pathname : `#${route}`)
  const reply = await fetch('api/session', { method: 'POST', body: token })
  const text = await reply.text()
  if (!reply.ok) throw new Error(text)
  sessionStorage.setItem(SESSION, text)
  sessionStorage.removeItem(HOST)
  return text
}

const connect = async (): Promise<Source> => {
  const session = await enter()
  const host = sessionStorage.getItem(HOST)
  const headers = { [SESSION_HEADER]: session, ...(host !== null && { [HOST_HEADER]: host }) }
  const request = async (path: string, init: RequestInit = {}): Promise<Response> => {
    const reply = await fetch(`api/${path}`, { ...init, headers })
    if (reply.status === 401) {
      sessionStorage.removeItem(SESSION)
      throw new Error('this page belongs to an `userdma inspect` that has ended: open the link of the new one')
    }
    if (!reply.ok) throw new Error(await reply.text())
    return reply
  }
  const about = (await (await request('about')).json()) as About
  let bytesRead = 0
  const read: Load = async (offset, length) => {
    const bytes = new Uint8Array(await (await request(`data?offset=${offset}&length=${length}`)).arrayBuffer())
    bytesRead += bytes.length
    return bytes
  }
  const cache = new PageCache(read, read)
  return {
    about,
    get bytesRead() {
      return bytesRead
    },
    open: state => sourceOf(cache, state.size),
    async *changes() {
      const { body } = await request('changes')
      let text = ''
      for await (const part of body!.pipeThrough(new TextDecoderStream())) {
        text += part
        const lines = text.split('\n')
        text = lines.pop() ?? ''
        const newest = lines.at(-1)
        if (newest !== undefined) yield JSON.parse(newest) as DataState
      }
    },
    save: about.isLive ? async () => (await request('recording')).blob() : undefined,
    async link(route) {
      const token = await (await request('token', { method: 'POST' })).text()
      return `${location.origin}${location.pathname}#token=${token}${route}`
    },
    choose(chosen) {
      sessionStorage.setItem(HOST, chosen)
      location.reload()
    },
    async waits() {
      return (await (await request('waits')).json()) as readonly WaitState[]
    },
    async faults(rules) {
      const init = rules === undefined ? {} : { method: 'PUT', body: rules }
      return (await (await request('faults', init)).json()) as readonly FaultState[]
    },
  }
}

// ---- a page in one file ----

const unpack = async (text: string): Promise<Uint8Array> => {
  const packed = Uint8Array.from(atob(text.trim()), unit => unit.charCodeAt(0))
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

/** `parts`: elements of PART_TYPE, each of as many bytes as the first says, but the last (src/tools/inspect/html.ts). */
const inline = (parts: readonly HTMLScriptElement[]): Source => {
  const { name = '', size: sizeText = '0', partBytes = '1' } = parts[0]!.dataset
  const size = Number(sizeText)
  const partSize = Number(partBytes)
  let unpacked: { readonly element: HTMLScriptElement; readonly bytes: Promise<Uint8Array> } | undefined
  const cache = new PageCache(async offset => {
    const element = parts[Math.floor(offset / partSize)]
    if (element === undefined) return new Uint8Array(0)
    if (unpacked?.element !== element) unpacked = { element, bytes: unpack(element.textContent ?? '') }
    const part = await unpacked.bytes
    const start = offset % partSize
    return part.subarray(start, start + PAGE_BYTES)
  })
  return {
    about: { name, isLive: false, hasFaults: false, state: { recording: 1, size, isGrowing: false } },
    bytesRead: size,
    open: state => sourceOf(cache, state.size),
    save: undefined,
    link: undefined,
    choose() {},
    async *changes() {},
    async waits() {
      return []
    },
    async faults() {
      throw new Error('a page in a file has no daemon')
    },
  }
}

/** Finds the session of this page. Throws an Error with a sentence for people. */
export const findSource = (): Promise<Source> => {
  const parts = [...document.querySelectorAll<HTMLScriptElement>(`script[type="${PART_TYPE}"]`)]
  return parts.length > 0 ? Promise.resolve(inline(parts)) : connect()
}
