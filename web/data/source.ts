/*
 * Where the page gets its session file from: the server of `userdma inspect` (src/tools/inspect/server.ts), or the page
 * itself if it is one file (src/tools/inspect/html.ts).
 */
import {
  type About,
  type DataState,
  type FaultState,
  HOST_HEADER,
  PART_TYPE,
  SESSION_HEADER,
  type SymbolState,
  type WaitState,
} from '../../src/tools/inspect/protocol.ts'
import type { SessionSource } from '../../src/tools/record/reader.ts'
import { Memory } from './memory.ts'

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
  /** What frames of stacks are, from number `from` on; nothing for a file, which has them itself. */
  symbols(from: number): Promise<readonly SymbolState[]>
  /** What programs of the daemon wait for; nothing for a file. */
  waits(): Promise<readonly WaitState[]>
  /** What the page may keep in memory. */
  readonly memory: Memory
}

// ---- pages ----

const PAGE_BYTES = 64 * 1024
/** Pages that are loaded at once by a read that goes on where the last one ended: a request for each takes longer. */
const AHEAD = 16
/** Reads from so many bytes on are of a search through the file, which need not be kept. */
const LONG_READ = 4 * PAGE_BYTES

type Load = (offset: number, length: number) => Promise<Uint8Array>

/** Reads pages of bytes, and keeps as many of the newest as the memory has room for. */
class PageCache {
  readonly #load: Load
  readonly #memory: Memory
  readonly #ahead: number
  readonly #pages = new Map<number, Promise<Uint8Array>>()
  /** The page after the one that was loaded last. */
  #next = -1

  /** `load`: loads one or several pages, fewer at the end. `ahead`: pages that are loaded at once, at most. */
  constructor(load: Load, memory: Memory, ahead: number) {
    this.#load = load
    this.#memory = memory
    this.#ahead = ahead
  }

  /** Forgets the pages of the bytes from `from` to `to`. */
  forget(from: number, to: number): void {
    for (const page of this.#pages.keys())
      if (page * PAGE_BYTES < to && (page + 1) * PAGE_BYTES > from) this.#pages.delete(page)
  }

  #keep(number: number, page: Promise<Uint8Array>): void {
    this.#pages.delete(number)
    this.#pages.set(number, page)
    page.catch(() => this.#pages.delete(number))
  }

  /** Loads a page, and the next ones if reads go forward. `end`: bytes of the file. */
  #loadFrom(first: number, end: number): Promise<Uint8Array> {
    const wanted = this.#next === first ? Math.min(this.#ahead, Math.ceil(end / PAGE_BYTES) - first) : 1
    let count = 1
    while (count < wanted && !this.#pages.has(first + count)) count++
    const all = this.#load(first * PAGE_BYTES, count * PAGE_BYTES)
    this.#next = first + count
    // A part would keep all of it in memory.
    const partOf = async (i: number): Promise<Uint8Array> => {
      const bytes = await all
      return count === 1 ? bytes : bytes.slice(i * PAGE_BYTES, (i + 1) * PAGE_BYTES)
    }
    const pages = Array.from({ length: count }, (_, i) => partOf(i))
    for (const [i, page] of pages.entries()) this.#keep(first + i, page)
    const most = Math.max(2 * AHEAD, Math.floor(this.#memory.forFile / PAGE_BYTES))
    for (const oldest of this.#pages.keys()) {
      if (this.#pages.size <= most) break
      this.#pages.delete(oldest)
    }
    return pages[0]!
  }

  #page(number: number, end: number): Promise<Uint8Array> {
    const page = this.#pages.get(number)
    if (page === undefined) return this.#loadFrom(number, end)
    this.#pages.delete(number)
    this.#pages.set(number, page)
    return page
  }

  /** `end`: bytes of the file. */
  async read(offset: number, length: number, end: number): Promise<Uint8Array> {
    const first = Math.floor(offset / PAGE_BYTES)
    const last = Math.floor((offset + Math.max(length, 1) - 1) / PAGE_BYTES)
    if (first === last) {
      const page = await this.#page(first, end)
      return page.subarray(offset - first * PAGE_BYTES, offset + length - first * PAGE_BYTES)
    }
    if (length >= LONG_READ) {
      let isKept = true
      for (let number = first; number <= last && isKept; number++) isKept = this.#pages.has(number)
      if (!isKept) return this.#load(offset, length)
    }
    const bytes = new Uint8Array(length)
    let at = 0
    for (let number = first; number <= last; number++) {
      const page = await this.#page(number, end)
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
    offset >= size ? Promise.resolve(new Uint8Array(0)) : cache.read(offset, Math.min(length, size - offset), size),
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
  const read: Load = async (offset, length) =>
    new Uint8Array(await (await request(`data?offset=${offset}&length=${length}`)).arrayBuffer())
  const memory = new Memory()
  // Of a live recording, what comes next is still being written.
  const cache = new PageCache(read, memory, about.isLive ? 1 : AHEAD)
  return {
    about,
    memory,
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
    async symbols(from) {
      return about.isLive ? ((await (await request(`symbols?from=${from}`)).json()) as readonly SymbolState[]) : []
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

/**
 * `parts`: elements of PART_TYPE, each of as many bytes as the first says, but the last (src/tools/inspect/html.ts).
 */
const inline = (parts: readonly HTMLScriptElement[]): Source => {
  const { name = '', size: sizeText = '0', partBytes = '1' } = parts[0]!.dataset
  const size = Number(sizeText)
  const partSize = Number(partBytes)
  let unpacked: { readonly element: HTMLScriptElement; readonly bytes: Promise<Uint8Array> } | undefined
  const partAt = (offset: number): Promise<Uint8Array> => {
    const element = parts[Math.floor(offset / partSize)]
    if (element === undefined) return Promise.resolve(new Uint8Array(0))
    if (unpacked?.element !== element) unpacked = { element, bytes: unpack(element.textContent ?? '') }
    return unpacked.bytes
  }
  const load: Load = async (offset, length) => {
    const bytes = new Uint8Array(length)
    let at = 0
    while (at < length) {
      const start = (offset + at) % partSize
      const part = (await partAt(offset + at)).subarray(start, start + length - at)
      if (part.length === 0) break
      bytes.set(part, at)
      at += part.length
    }
    return bytes.subarray(0, at)
  }
  const memory = new Memory()
  const cache = new PageCache(load, memory, AHEAD)
  return {
    memory,
    about: { name, isLive: false, hasFaults: false, state: { recording: 1, size, isGrowing: false } },
    open: state => sourceOf(cache, state.size),
    save: undefined,
    link: undefined,
    choose() {},
    async *changes() {},
    async symbols() {
      return []
    },
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
