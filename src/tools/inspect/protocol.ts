/*
 * What the page (web/) and its server say to each other: the requests and their answers. Both import this file, and
 * nothing else of each other; it imports nothing, since it runs in browsers too.
 *
 *   POST /api/session     a session in exchange for a token
 *   GET  /api/about       what is shown (`About`)
 *   GET  /api/data        bytes of the session file: ?offset=…&length=…
 *   GET  /api/changes     of a live recording: a line of JSON for each change (`DataState`), until the client closes
 *   GET  /api/waits       what programs of the daemon wait for (`WaitState`)
 *   GET  /api/symbols     of a live recording: what frames of stacks are (`SymbolState`), from number ?from=… on
 *   GET  /api/faults      the fault rules (`FaultState`); PUT replaces them
 *   GET  /api/recording   of a live recording: a session file with all so far
 *   POST /api/token       a token for another link
 *
 * All but the first have the session in a header. A server may show several hosts, each with data of its own: a header
 * names one. A failure of a request is a sentence, as text.
 */

/** The request header with the session. */
export const SESSION_HEADER = 'x-userdma-session'
/** The request header with the name of a host (`About.hosts`). */
export const HOST_HEADER = 'x-userdma-host'

/** Most bytes of one reply with data. */
export const MAX_READ = 4 * 2 ** 20

/** The type of the elements with parts of the session, in a page that is one file: gzip in base64. */
export const PART_TYPE = 'application/vnd.userdma.session'

/** The state of the recording that the page shows. */
export interface DataState {
  /** Counts recordings: a live one begins again when the daemon was restarted. */
  readonly recording: number
  /** Bytes so far. */
  readonly size: number
  /** Whether more will come. */
  readonly isGrowing: boolean
  /** A sentence for people, for example that the daemon has ended. */
  readonly notice?: string
}

/** A fault rule, and how many packets it has matched and how many faults it has made. */
export interface FaultState {
  readonly rule: string
  readonly matched: number
  readonly faults: number
}

/** What a program waits for. */
export interface WaitState {
  readonly device: string
  readonly pid: number
  readonly command: string
  /** A sentence without its full stop. */
  readonly text: string
}

/** What a frame of a stack is: functions, the innermost first. */
export interface SymbolState {
  /** As in the recording. */
  readonly frame: string
  readonly frames: readonly {
    readonly function: string
    readonly file?: string
    readonly line?: number
    readonly object?: string
    readonly source?: { readonly first: number; readonly lines: readonly string[] }
  }[]
}

/** What the page is told first. */
export interface About {
  readonly name: string
  readonly isLive: boolean
  /** Absent: it is a file. The command line by which a program uses the daemon, without the program. */
  readonly run?: string
  readonly hasFaults: boolean
  readonly state: DataState
  /** The names of all hosts; absent: there is one. */
  readonly hosts?: readonly string[]
}
