/*
 * What a reader is made of: shapes of lines, as data. A shape's regular expression names what it finds by the groups
 * below; nothing else of a line is used. Readers know no files, clocks or reports.
 *
 * A shape counts as known if its source line was read: `source` has repository, version and file. Others say
 * `unverified` there, and a table of the documentation lists them.
 */
/** What a line of this shape is for the failure. */
export type Role =
  /** A request, call, command or device has failed. */
  | 'failure'
  /** Follows from a failure elsewhere: flushes, aborts, closed connections, watchdogs. */
  | 'consequence'
  /** Not a failure by itself, but it may be why one came: a cable, a link, a temperature. */
  | 'sign'
  /** Says how the program or machine is set. */
  | 'fact'

/** What kind of thing failed. A closed set: causes are chosen by it. */
export type FailureKind =
  | 'completion'
  | 'call'
  | 'command'
  | 'command-timeout'
  | 'event'
  | 'refused'
  | 'unreachable'
  | 'device'
  | 'health'
  | 'no-device'
  | 'incompatible'
  | 'timeout'
  /** Sent several times without an answer, by a library that counts itself. */
  | 'unanswered'
  /** The program compares the GIDs of both ends. */
  | 'gid'
  /** The other end has closed the connection. */
  | 'closed'

/** Adapters with a table of vendor errors of their own. */
export type Family = 'mlx5' | 'mlx4' | 'efa' | 'irdma' | 'bnxt_re' | 'hns' | 'mana' | 'userdma' | 'none'

/**
 * Names of groups. `vendor`: in the base of the shape, or by its 0x; `errno`: with or without its sign, or as its text;
 * `status`: number, name or text; `rejection`: the reason of a connection manager's reject; `negated`: an errno that is
 * no errno; `completed`: requests that were done before; `peer`: address or host of the other end; `local`: address of
 * this end; `text`: what the program says.
 */
export type FieldName =
  | 'status'
  | 'vendor'
  | 'opcode'
  | 'length'
  | 'qpn'
  | 'peerQpn'
  | 'wqe'
  | 'device'
  | 'peerDevice'
  | 'peerLid'
  | 'port'
  | 'peer'
  | 'local'
  | 'localGid'
  | 'remoteGid'
  | 'gidIndex'
  | 'call'
  | 'errno'
  | 'state'
  | 'event'
  | 'rejection'
  | 'negated'
  | 'syndrome'
  | 'command'
  | 'commandStatus'
  | 'hwSyndrome'
  | 'request'
  | 'variable'
  | 'value'
  | 'mtu'
  | 'bdf'
  | 'link'
  | 'seconds'
  | 'completed'
  | 'text'
export type Fields = Partial<Record<FieldName, string>>

export interface Shape {
  readonly id: string
  /** Every line of the shape has one of these words, letter by letter; at least MIN_WORD characters. */
  readonly words: readonly string[]
  /** Finds it anywhere in the line, and names fields. No nested quantifiers: its time is linear in the line. */
  readonly form: RegExp
  readonly role: Role
  /** Of failures and consequences. */
  readonly kind?: FailureKind
  /** Fields that all lines of the shape have. */
  readonly fixed?: Fields
  /** How `vendor` is printed without 0x. */
  readonly base?: 10 | 16
  readonly family?: Family
  /** The line that follows says more (UCX), with this form. */
  readonly next?: RegExp
  /** A fact that jobs print as they start. Servers do too, but their first request may come much later. */
  readonly isStart?: true
  /** A call of libfabric, not of verbs. */
  readonly isFabric?: true
  /** A CQE of mlx5 follows: four rows of big-endian words, or of bytes with their offset. */
  readonly dump?: 'words' | 'bytes'
  readonly source: string
  /** Lines that somebody could have printed with that source, one after the other. */
  readonly sample: readonly string[]
  /** What is read of it. */
  readonly gives: Fields
}

export interface Reader {
  /** The software, as in reports. */
  readonly name: string
  readonly shapes: readonly Shape[]
}
