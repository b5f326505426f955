/*
 * Kinds of mistakes in the use of verbs: edits of a program's text that make the mistake, and findings of
 * `userdma check` that name the mistake. A mutant is a program with one mistake. The patterns fit the C programs of
 * programs.ts.
 */
import type { FindingId } from '../../../src/spec/check/findings.ts'
import { callsOf, type Edit, fieldsOf, matchesOf, type Range, statementsWith, valuesOf } from './source.ts'

/** A finding that names the mistake: its ID and, if the ID can have other causes, a pattern of its text. */
export type Naming = FindingId | readonly [id: FindingId, text: RegExp]

interface Kind {
  /** The mistake, as the predicate of "a program". */
  readonly mistake: string
  /** All edits that make the mistake once. `text`: C text without comments (`searchable` in source.ts). */
  edits(text: string): Edit[]
  /** The findings that name the mistake. Empty if the program only waits forever. */
  readonly findings: readonly Naming[]
  /** When the edit breaks no rule. A mutant that then behaves like its program is equivalent, and is not counted. */
  readonly legalIf?: string
}

const remove = (ranges: readonly Range[]): Edit[] => ranges.map(range => ({ ...range, text: '' }))
/** Replaces a statement by an empty one. */
const skip = (ranges: readonly Range[]): Edit[] => ranges.map(range => ({ ...range, text: ';' }))
const change = (text: string, ranges: readonly Range[], replacementOf: (value: string) => string): Edit[] =>
  ranges.map(range => ({ ...range, text: replacementOf(text.slice(range.from, range.to)) }))
/** The expression is wrong in the first, third, … execution: at one end of each connection. */
const atOneEnd =
  (wrong: string) =>
  (value: string): string =>
    `({ static unsigned ends_; ends_++ & 1 ? (${value}) : (${wrong}); })`
/** The argument at `index` of each call of a function whose name matches. */
const argument = (text: string, names: string, index: number): Range[] =>
  callsOf(text, names).flatMap(({ args }) => args[index] ?? [])

/**
 * The value at `index` of each initializer of a scatter/gather element without field names: {address, length, lkey}.
 */
const positionalValues = (text: string, index: number): Range[] =>
  [...text.matchAll(/struct ibv_sge\)? ?(?:\w+ = )?\{(?=[^.\s])/g)].flatMap(match => {
    const listStart = match.index + match[0].length
    const [listAsCall] = callsOf(`f(${text.slice(listStart)}`, 'f')
    const arg = listAsCall?.args.length === 3 ? listAsCall.args[index] : undefined
    const offset = listStart - 'f('.length
    return arg === undefined ? [] : [{ from: arg.from + offset, to: arg.to + offset }]
  })

/** Lengths of scatter/gather elements. */
const lengths = (text: string): Range[] => [
  ...matchesOf(text, /\.addr = [^;{}]*\.length = ([^,;}]+)/),
  ...matchesOf(text, /\bsge\.length = ([^;]+);/),
  ...positionalValues(text, 1),
]
const remoteAddresses = (text: string): Range[] => [
  ...valuesOf(text, 'remote_addr'),
  ...matchesOf(text, /\.wr\.rdma = \{([^,]+),/),
  ...argument(text, 'post', 3).filter(({ from, to }) => /address_of/.test(text.slice(from, to))),
]
const remoteKeys = (text: string): Range[] => matchesOf(text, /(?<![&\w])((?:\w+(?:\[[^\]]+\])?(?:\.|->))+mr->rkey)\b/)
const localKeys = (text: string): Range[] => matchesOf(text, /(?<![&\w])((?:\w+(?:\[[^\]]+\])?(?:\.|->))+mr->lkey)\b/)
/** The expression before `mr`: `end->` of `end->mr->rkey`. */
const owner = (key: string): string => key.replace(/mr->[lr]key$/, '')

/** An expression with the key of a deregistered region of the buffer. */
const oldKey = (key: string): string => {
  const end = owner(key)
  const field = key.slice(-'rkey'.length)
  const access = 'IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC'
  return `({ struct ibv_mr *old_ = ibv_reg_mr(${end}pd, ${end}buffer, 4096, ${access}); uint32_t key_ = old_->${field}; ibv_dereg_mr(old_); key_; })`
}

/** Longer than any region. */
const FAR = '(4 << 20)'

/** Patterns of names of functions in the mutated programs. */
const RECEIVES = 'post_receive|post_receives|post_shared|ibv_post_recv|ibv_post_srq_recv'
const DESTROYS =
  'ibv_dereg_mr|ibv_destroy_\\w+|ibv_dealloc_\\w+|ibv_close_xrcd|destroy_end|destroy_endpoint|free_qp|free_srq|free_window|close_domain'
const STEPS = 'to_init|to_rtr|to_rts|connect_to|connect_ends|connect_uc|join_one|join_both|modify|ibv_modify_qp'

/** An edit for each pair of adjacent statements, which swaps the pair. */
const swapped = (text: string, statements: readonly Range[]): Edit[] =>
  statements.flatMap((first, i) => {
    const second = statements[i + 1]
    if (second === undefined || text.slice(first.to, second.from).trim() !== '') return []
    const between = text.slice(first.to, second.from)
    const swap = text.slice(second.from, second.to) + between + text.slice(first.from, first.to)
    return [{ from: first.from, to: second.to, text: swap }]
  })

const inOrder = (ranges: readonly Range[]): Range[] => [...ranges].sort((a, b) => a.from - b.from)

/** Inserts text before each statement. */
const insertBefore = (text: string, statements: readonly Range[], textFor: (statement: string) => string): Edit[] =>
  statements.map(({ from, to }) => ({ from, to: from, text: `${textFor(text.slice(from, to))} ` }))

/** Inserts text before the end of programs with a connected pair `one` and `other`; `RESULT` is its call. */
const beforeEnd = (text: string, inserted: string): Edit[] =>
  matchesOf(text, /(return destroy_pair\(&one, &other\);)/).map(({ from, to }) => ({
    from,
    to,
    text: `{ ${inserted.replace('RESULT', 'destroy_pair(&one, &other)')}${inserted.includes('RESULT') ? '' : ' return destroy_pair(&one, &other);'} }`,
  }))
const WRITE = 'post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);'
/** Statements that post from `one`, whose peer is `other`. */
const postsOfOne = (text: string): Range[] =>
  statementsWith(text, 'post').filter(
    ({ from, to }) => /^post\(&one,/.test(text.slice(from, to)) && text.includes('&other'),
  )

const kinds = {
  // ---- connections ----
  'sq-psn-ahead': {
    mistake: 'sends from a higher PSN than the peer expects',
    edits: text => change(text, valuesOf(text, 'sq_psn'), value => `((${value}) + 8) & 0xffffff`),
    findings: ['psn-mismatch'],
    legalIf: 'UC and UD accept any first PSN',
  },
  'sq-psn-behind': {
    mistake: 'sends from a lower PSN than the peer expects',
    edits: text => change(text, valuesOf(text, 'sq_psn'), value => `((${value}) - 1) & 0xffffff`),
    findings: ['psn-mismatch'],
    legalIf: 'UC and UD accept any first PSN',
  },
  'rq-psn-wrong': {
    mistake: 'expects another PSN than the peer sends',
    edits: text => change(text, valuesOf(text, 'rq_psn'), value => `((${value}) + 100) & 0xffffff`),
    findings: ['psn-mismatch'],
    legalIf: 'UC accepts any first PSN',
  },
  'mtu-at-one-end': {
    mistake: 'sets another path_mtu at one end',
    edits: text => change(text, valuesOf(text, 'path_mtu'), atOneEnd('IBV_MTU_256')),
    findings: ['path-mtu-mismatch'],
  },
  'peer-number-wrong': {
    mistake: 'connects to a queue pair number that does not exist',
    edits: text => change(text, valuesOf(text, 'dest_qp_num'), value => `(${value}) ^ 0x800000`),
    findings: ['no-peer-qp', 'peer-connected-elsewhere'],
    legalIf: 'nothing is sent from the queue pair',
  },
  'peer-number-own': {
    mistake: 'connects a queue pair to itself',
    edits: text => change(text, matchesOf(text, /dest_qp_num = (peer->(?:qpn|qp->qp_num))/), () => 'end->qp->qp_num'),
    findings: ['connected-to-itself'],
  },
  'attribute-left-out': {
    mistake: 'leaves an attribute out of the mask of ibv_modify_qp',
    edits: text => remove(matchesOf(text, /\bIBV_QP_(?!EX_|INIT_|OPEN_|STATE\b)[A-Z_]+ \|\s*/)),
    findings: [['refused-call', /needs \w+ as well/]],
  },
  'state-skipped': {
    mistake: 'moves to RTS instead of RTR, or to RTR instead of INIT',
    edits: text => [
      ...change(text, matchesOf(text, /qp_state = (IBV_QPS_RTR)/), () => 'IBV_QPS_RTS'),
      ...change(text, matchesOf(text, /qp_state = (IBV_QPS_INIT)/), () => 'IBV_QPS_RTR'),
    ],
    findings: [['refused-call', /cannot go from/]],
  },
  'step-missing': {
    mistake: 'leaves out a step of the connection',
    edits: text => skip(statementsWith(text, STEPS)),
    findings: [
      ['refused-call', /cannot go from|needs \w+ as well/],
      'post-wrong-state',
      'peer-not-ready',
      'peer-connected-elsewhere',
    ],
    legalIf: 'nothing is sent to or from the queue pair',
  },
  'type-at-one-end': {
    mistake: 'creates a UC queue pair at one end of an RC connection',
    edits: text => change(text, matchesOf(text, /qp_type = (IBV_QPT_RC)\b/), atOneEnd('IBV_QPT_UC')),
    findings: [
      'service-mismatch',
      ['bad-request', /this type of queue pair/],
      ['refused-call', /attributes that uc_qp lacks/],
    ],
    legalIf: 'the queue pair is not connected',
  },
  'port-wrong': {
    mistake: 'names a port that the device does not have',
    edits: text => change(text, valuesOf(text, 'port_num'), () => '2'),
    findings: [['refused-call', /\bport(_num)?\b/]],
  },
  'sgid-index-beyond': {
    mistake: 'names a GID index beyond the table',
    edits: text => change(text, valuesOf(text, 'sgid_index'), () => '200'),
    findings: [['refused-call', /GID index/]],
  },
  'sgid-index-other': {
    mistake: 'names the GID of another type of address',
    edits: text => change(text, valuesOf(text, 'sgid_index'), () => '0'),
    findings: [['refused-call', /GID index/]],
  },
  'pkey-index-wrong': {
    mistake: 'names a P_Key index beyond the table',
    edits: text => change(text, matchesOf(text, /\.qp_state = IBV_QPS_INIT/), value => `${value}, .pkey_index = 77`),
    findings: [['refused-call', /pkey_index/]],
  },
  'route-missing': {
    mistake: 'leaves the global route out of the address',
    edits: text => remove(fieldsOf(text, 'is_global')),
    findings: [['refused-call', /global route/]],
  },
  'gid-missing': {
    mistake: "leaves the peer's GID out of the address",
    edits: text => remove(fieldsOf(text, 'dgid')),
    findings: [['refused-call', /destination GID/]],
  },
  'timeout-0': {
    mistake: 'sets timeout to 0',
    edits: text => change(text, valuesOf(text, 'timeout'), () => '0'),
    findings: ['infinite-timeout'],
  },
  'rnr-retry-0': {
    mistake: 'sets rnr_retry to 0',
    edits: text => change(text, valuesOf(text, 'rnr_retry'), () => '0'),
    findings: ['no-receive-posted'],
    legalIf: 'a receive was posted before each message',
  },
  'reads-exceed': {
    mistake: "sets max_rd_atomic beyond the peer's max_dest_rd_atomic",
    edits: text => change(text, valuesOf(text, 'max_rd_atomic'), () => '16'),
    findings: ['rd-atomic-exceeds', ['refused-call', /max_rd_atomic/]],
    legalIf: 'the program waits for its READs and atomics before it posts more than the peer accepts',
  },
  'reads-none': {
    mistake: 'sets max_rd_atomic to 0',
    edits: text => change(text, valuesOf(text, 'max_rd_atomic'), () => '0'),
    findings: ['no-rd-atomic'],
    legalIf: 'the program posts no READ or atomic',
  },
  'reads-not-accepted': {
    mistake: 'sets max_dest_rd_atomic to 0',
    edits: text => change(text, valuesOf(text, 'max_dest_rd_atomic'), () => '0'),
    findings: ['rd-atomic-exceeds'],
    legalIf: 'the program posts no READ or atomic',
  },
  'queue-pair-rights-missing': {
    mistake: 'gives the queue pair no rights',
    edits: text => change(text, valuesOf(text, 'qp_access_flags'), () => '0'),
    findings: ['qp-no-right'],
    legalIf: 'no request needs the rights',
  },
  'qkey-at-one-end': {
    mistake: 'sets another Q_Key at one end',
    edits: text => change(text, valuesOf(text, 'qkey'), atOneEnd('0x11111')),
    findings: ['key-mismatch'],
    legalIf: 'the queue pair receives nothing',
  },
  'qkey-of-message-wrong': {
    mistake: 'sends with a wrong Q_Key',
    edits: text => change(text, valuesOf(text, 'remote_qkey'), value => `(${value}) + 1`),
    findings: ['key-mismatch'],
  },

  // ---- memory ----
  'right-missing': {
    mistake: 'leaves out an access right',
    edits: text =>
      remove(
        matchesOf(
          text,
          /\bIBV_ACCESS_(?:LOCAL_WRITE|REMOTE_READ|REMOTE_WRITE|MW_BIND) \|\s*|\s\| IBV_ACCESS_(?:REMOTE_ATOMIC|REMOTE_WRITE|MW_BIND)\b/,
        ),
      ),
    findings: [
      'rkey-no-right',
      'lkey-no-right',
      'qp-no-right',
      ['refused-call', /LOCAL_WRITE/],
      ['bind-refused', /has no \w+/],
    ],
    legalIf: 'no request needs the right',
  },
  'lkey-missing': {
    mistake: 'leaves lkey out of a scatter/gather element',
    edits: text => change(text, localKeys(text), () => '0'),
    findings: ['unknown-lkey'],
    legalIf: 'the element is inline or empty',
  },
  'rkey-for-lkey': {
    mistake: 'uses the rkey as lkey',
    edits: text => change(text, localKeys(text), value => value.replace(/lkey$/, 'rkey')),
    findings: ['unknown-lkey'],
    legalIf: 'both keys of a region are the same number here, as on most adapters',
  },
  'lkey-for-rkey': {
    mistake: 'sends the lkey instead of the rkey',
    edits: text => change(text, remoteKeys(text), value => value.replace(/rkey$/, 'lkey')),
    findings: ['unknown-rkey'],
    legalIf: 'both keys of a region are the same number here, as on most adapters',
  },
  'rkey-byte-order': {
    mistake: 'sends the rkey in the wrong byte order',
    edits: text => change(text, remoteKeys(text), value => `__builtin_bswap32(${value})`),
    findings: ['unknown-rkey'],
    legalIf: 'no request uses the key',
  },
  'rkey-truncated': {
    mistake: 'sends 16 bits of the rkey',
    edits: text => change(text, remoteKeys(text), value => `(uint16_t)${value}`),
    findings: ['unknown-rkey'],
    legalIf: 'no request uses the key',
  },
  'rkey-stale': {
    mistake: 'uses the rkey of an earlier registration',
    edits: text => change(text, remoteKeys(text), oldKey),
    findings: ['stale-rkey'],
    legalIf: 'no request uses the key',
  },
  'lkey-stale': {
    mistake: 'uses the lkey of an earlier registration',
    edits: text => change(text, localKeys(text), oldKey),
    findings: ['stale-lkey'],
    legalIf: 'the element is inline or empty',
  },
  'address-of-pointer': {
    mistake: 'takes the address of the pointer to the buffer',
    edits: text =>
      change(text, matchesOf(text, /\(uintptr_t\)((?:\w+(?:\[[^\]]+\])?(?:\.|->))+buffer)\b/), value => `&${value}`),
    findings: ['local-out-of-bounds', 'remote-out-of-bounds', ['bind-refused', /is outside region/]],
    legalIf: 'no request uses the address',
  },
  'remote-address-beyond': {
    mistake: "adds an offset beyond the peer's region to the remote address",
    edits: text => change(text, remoteAddresses(text), value => `(${value}) + ${FAR}`),
    findings: ['remote-out-of-bounds'],
    legalIf: 'the request has no bytes, or is a SEND',
  },
  'remote-address-before': {
    mistake: "uses a remote address before the peer's region",
    edits: text => change(text, remoteAddresses(text), value => `(${value}) - ${FAR}`),
    findings: ['remote-out-of-bounds'],
    legalIf: 'the request has no bytes, or is a SEND',
  },
  'length-beyond': {
    mistake: 'gives an element a length beyond its region',
    edits: text => change(text, lengths(text), value => `(${value}) + ${FAR}`),
    findings: ['local-out-of-bounds', 'remote-out-of-bounds', ['request-length', /inline/]],
    legalIf: 'no request uses the element',
  },
  'region-too-short': {
    mistake: 'registers half of the bytes',
    edits: text => change(text, argument(text, 'ibv_reg_mr', 2), value => `(${value}) / 2`),
    findings: ['local-out-of-bounds', 'remote-out-of-bounds', ['bind-refused', /is outside region/]],
    legalIf: 'no request uses the other bytes',
  },
  'region-of-other-domain': {
    mistake: 'registers memory in another protection domain',
    edits: text => change(text, argument(text, 'ibv_reg_mr', 0), value => `ibv_alloc_pd((${value})->context)`),
    findings: ['lkey-other-pd', 'rkey-other-pd', ['bind-refused', /the protection domain has no/]],
    legalIf: 'no request uses the region',
  },
  'unmapped-early': {
    mistake: 'unmaps the buffer before the request uses it',
    edits: text =>
      insertBefore(
        text,
        matchesOf(text, /(?<=\n {4})post\(&\w+,[^;]*;/),
        statement => `munmap(${/&(\w+)/.exec(statement)?.[1]}.buffer, SIZE);`,
      ),
    findings: ['local-unmapped', 'remote-unmapped', 'region-unmapped'],
  },
  'peer-unmapped-early': {
    mistake: "unmaps the peer's buffer before the request arrives",
    edits: text =>
      insertBefore(
        text,
        matchesOf(text, /(?<=\n {4})post\(&\w+,[^;]*address_of\(&\w+\)[^;]*;/),
        statement => `munmap(${/address_of\(&(\w+)\)/.exec(statement)?.[1]}.buffer, SIZE);`,
      ),
    findings: ['remote-unmapped', 'region-unmapped'],
  },
  'deregistered-early': {
    mistake: 'deregisters memory before the completion of its request',
    edits: text =>
      insertBefore(text, matchesOf(text, /(?<=\n {4})completion\(&\w+\);/), statement => {
        const end = /&(\w+)/.exec(statement)?.[1]
        return `ibv_dereg_mr(${end}.mr); ${end}.mr = NULL;`
      }),
    findings: ['region-in-use', 'stale-lkey'],
  },

  // ---- requests ----
  'send-as-write': {
    mistake: 'posts a WRITE instead of a SEND, without a remote address',
    edits: text => change(text, matchesOf(text, /opcode = (IBV_WR_SEND)\b(?!_)/), () => 'IBV_WR_RDMA_WRITE'),
    findings: [
      ['unknown-rkey', /WRITE/],
      ['bad-request', /WRITE/],
    ],
    legalIf: 'the message has no bytes',
  },
  'datagram-read': {
    mistake: 'posts a READ to a queue pair of datagrams',
    edits: text =>
      change(text, matchesOf(text, /opcode = (IBV_WR_SEND(?:_WITH_IMM)?),\n[^;]*wr\.ud/), () => 'IBV_WR_RDMA_READ'),
    findings: [['bad-request', /this type of queue pair has no READ/]],
  },
  unsignaled: {
    mistake: 'waits for the completion of a request that is not signaled',
    edits: text => [
      ...change(text, matchesOf(text, /\bIBV_SEND_SIGNALED\b/), () => '0'),
      ...change(text, valuesOf(text, 'sq_sig_all'), () => '0'),
    ],
    findings: ['never-signaled', 'not-signaled', ['queue-full', /signal/]],
    legalIf: 'nothing waits for the completion',
  },
  'buffer-used-early': {
    mistake: 'changes the buffer of a request right after its post',
    edits: text =>
      matchesOf(text, /(?<=\n {4})(post\(&\w+, IBV_WR_(?:SEND|RDMA_WRITE), all_of\(&\w+\)[^;]*;)/).map(
        ({ from, to }) => ({
          from,
          to,
          text: `${text.slice(from, to)} memset(${/&(\w+)/.exec(text.slice(from, to))?.[1]}.buffer, 0x5a, SIZE);`,
        }),
      ),
    findings: ['send-buffer-changed'],
    legalIf: 'the peer has answered before',
  },
  'inline-too-long': {
    mistake: 'sends a long message inline',
    edits: text => change(text, matchesOf(text, /\bIBV_SEND_SIGNALED\b/), flag => `${flag} | IBV_SEND_INLINE`),
    findings: [
      ['request-length', /inline/],
      ['bad-request', /inline/],
    ],
    legalIf: 'the message is short enough, or the request has no data to send',
  },
  'elements-too-many': {
    mistake: 'announces more scatter/gather elements than the queue takes',
    edits: text => change(text, valuesOf(text, 'num_sge'), () => '40'),
    findings: [['bad-request', /scatter.gather elements/]],
    legalIf: 'the request is not posted',
  },
  'atomic-misaligned': {
    mistake: 'misaligns the address of an atomic',
    edits: text => [
      ...change(text, matchesOf(text, /atomic\.remote_addr = ([^;]+);/), value => `(${value}) + 4`),
      ...change(text, argument(text, 'ibv_wr_atomic_\\w+', 2), value => `(${value}) + 4`),
    ],
    findings: ['atomic-misaligned'],
    legalIf: 'the program posts no atomic',
  },
  'atomic-too-short': {
    mistake: 'gives an atomic 4 bytes for the result',
    edits: text => change(text, matchesOf(text, /\{below\(64\), (8)\}/), () => '4'),
    findings: [['request-length', /atomic/]],
  },
  'receive-missing': {
    mistake: 'leaves out a receive',
    edits: text => skip(statementsWith(text, RECEIVES)),
    findings: ['no-receive-posted', 'endless-rnr', ['message-dropped', /no receive request/]],
  },
  'receive-too-short': {
    mistake: 'posts receives that are too short',
    edits: text => [
      ...change(text, argument(text, 'post_receive', 3), value => `(${value}) / 64`),
      ...change(text, matchesOf(text, /(?:target|into)\b[^;]*\.length = ([^,;]+)/), value => `(${value}) / 64`),
      ...change(text, matchesOf(text, /(CHUNK), ends\[1\]\.mr->lkey/), () => '0'),
    ],
    findings: ['receive-too-short'],
    legalIf: 'the message fits',
  },
  'srq-number-missing': {
    mistake: 'leaves out the number of the shared receive queue',
    edits: text => skip(matchesOf(text, /\n\s*(\w+\.qp_type\.xrc\.remote_srqn = [^;]+;)/)),
    findings: [['invalid-request', /SRQ/]],
    legalIf: 'the queue pair is no XRC initiator',
  },

  'group-qpn': {
    mistake: 'sends to a group with the number of a queue pair',
    edits: text => change(text, matchesOf(text, /\b(0xffffff)\b/), () => '0x11'),
    findings: ['group-qpn'],
    legalIf: 'nothing is sent to a group',
  },

  // ---- windows ----
  'bind-missing': {
    mistake: 'does not bind the window',
    edits: text => skip(matchesOf(text, /((?:check\(ibv_bind_mw|bind[12])\([^;]*;\s*completion\([^;]*;)/)),
    findings: ['window-not-bound', ['stale-rkey', /memory window/]],
  },
  'window-right-missing': {
    mistake: 'binds a window without rights',
    edits: text => [
      ...change(text, valuesOf(text, 'mw_access_flags'), () => '0'),
      ...change(text, matchesOf(text, /PART, (peer_rights)/), () => '0'),
    ],
    findings: ['rkey-no-right', ['bind-refused', /cannot grant|has no/]],
    legalIf: 'no request uses the window',
  },

  // ---- queues and events ----
  'cq-too-small': {
    mistake: 'creates a CQ with one entry',
    edits: text => change(text, argument(text, 'ibv_create_cq', 1), () => '1'),
    findings: ['cq-too-small', 'cq-overrun'],
    legalIf: 'no queue pair uses the CQ',
  },
  'send-cq-of-its-own': {
    mistake: 'gives the sends a CQ of their own, which it does not poll',
    edits: text =>
      change(text, valuesOf(text, 'send_cq'), value => `ibv_create_cq((${value})->context, 8, NULL, NULL, 0)`),
    findings: ['cq-never-polled', 'completions-unpolled'],
    legalIf: 'no send is signaled',
  },
  'send-queue-too-small': {
    mistake: 'creates a send queue with one request',
    edits: text => change(text, valuesOf(text, 'max_send_wr'), () => '1'),
    findings: ['queue-full', 'sends-unpolled'],
    legalIf: 'one request is posted at a time',
  },
  'flags-undefined': {
    mistake: 'sets a bit of send_flags that is not defined',
    edits: text => change(text, valuesOf(text, 'send_flags'), value => `(${value}) | IBV_ACCESS_ON_DEMAND`),
    findings: ['undefined-flags'],
    legalIf: 'no request is posted with the flags',
  },
  'peer-connected-elsewhere': {
    mistake: 'connects one end of a connection to a third queue pair',
    edits: text =>
      change(
        text,
        matchesOf(text, /connect_ends\(&one, (&other)\);/),
        value => `(one.attr.dest_qp_num = 0, other.attr.dest_qp_num = other.qp->qp_num, ${value})`,
      ),
    findings: ['peer-connected-elsewhere', 'connected-to-itself'],
    legalIf: 'nothing is sent to the queue pair',
  },
  'receive-queue-too-small': {
    mistake: 'creates a receive queue with one request',
    edits: text => [
      ...change(text, valuesOf(text, 'max_recv_wr'), () => '1'),
      ...change(text, valuesOf(text, 'max_wr'), () => '1'),
    ],
    findings: ['queue-full'],
    legalIf: 'one receive is posted at a time',
  },
  'elements-too-few': {
    mistake: 'creates queues with one element for each request',
    edits: text => change(text, matchesOf(text, /max_(?:send|recv)_sge = (MAX_SGE|[2-9])/), () => '1'),
    findings: [
      ['refused-call', /sge\b/],
      ['bad-request', /scatter.gather elements/],
    ],
    legalIf: 'requests have one element',
  },
  'completion-not-polled': {
    mistake: 'does not poll a completion',
    edits: text => skip(statementsWith(text, 'completion|wait_for|expect')),
    findings: ['completions-unpolled'],
  },
  'acknowledgement-missing': {
    mistake: 'does not acknowledge an event',
    edits: text => [
      ...skip(statementsWith(text, 'ibv_ack_cq_events|ibv_ack_async_event')),
      ...skip(matchesOf(text, /\n\s*(if \(end->unacknowledged\)\s+ibv_ack_cq_events\([^;]*;)/)),
    ],
    findings: ['events-unacknowledged'],
    legalIf: 'nothing is destroyed afterwards, or there was no event',
  },
  'notification-missing': {
    mistake: 'waits for an event without ibv_req_notify_cq',
    edits: text => skip(statementsWith(text, 'ibv_req_notify_cq')),
    findings: ['lost-wakeup'],
    legalIf: 'the program does not wait for events',
  },
  'poll-after-arming-missing': {
    mistake: 'does not poll after ibv_req_notify_cq',
    edits: text => skip(matchesOf(text, /ibv_req_notify_cq\([^;]*;\s*(found = ibv_poll_cq\([^;]*;)/)),
    findings: ['lost-wakeup'],
    legalIf: 'the program does not wait for events',
  },
  'channel-missing': {
    mistake: 'creates the CQ without its channel',
    edits: text =>
      change(text, argument(text, 'ibv_create_cq', 3), () => 'NULL').filter(
        ({ from, to }) => text.slice(from, to) !== 'NULL',
      ),
    findings: ['lost-wakeup'],
    legalIf: 'the program does not wait for events',
  },

  'poll-too-many': {
    mistake: 'polls more completions than its array has room for',
    edits: text =>
      change(text, argument(text, 'ibv_poll_cq', 1), () => '16').filter(
        ({ from, to }) => text.slice(from, to).trim() === '1',
      ),
    findings: ['array-too-short'],
    legalIf: 'the array is not on the stack, or only one completion comes',
  },
  'end-poll-missing': {
    mistake: 'does not end a poll of an extended CQ',
    edits: text => skip(statementsWith(text, 'ibv_end_poll')),
    findings: ['poll-misused'],
    legalIf: 'the poll has not begun, because the CQ is empty',
  },
  'elements-unset': {
    mistake: 'sets no elements of a request of a batch',
    edits: text => skip(statementsWith(text, 'ibv_wr_set_sge')),
    findings: ['batch-misused'],
    legalIf: 'the request needs no bytes',
  },
  'immediate-byte-order': {
    mistake: 'sets immediate data in the byte order of the host',
    edits: text =>
      change(text, matchesOf(text, /imm_data = ((?:htonl|htobe32)\([^;]*\));/), value => value.replace(/^\w+/, '')),
    findings: ['immediate-byte-order'],
    legalIf: 'the value is 0, or the request is never posted',
  },

  // ---- objects ----
  'descriptor-closed': {
    mistake: 'closes the descriptor of its device',
    edits: text =>
      change(text, statementsWith(text, 'ibv_close_device'), statement =>
        /ibv_close_device\((context|ctx)\)/.test(statement) ? `{ close(context->cmd_fd); ${statement} }` : statement,
      ).filter(({ from, to, text: changed }) => changed !== text.slice(from, to)),
    findings: ['descriptor-closed'],
  },
  'device-list-freed': {
    mistake: 'frees the list of devices before it opens one',
    edits: text => swapped(text, statementsWith(text, 'ibv_open_device|ibv_free_device_list')),
    findings: ['device-list-freed'],
  },
  'destroy-missing': {
    mistake: 'does not destroy an object',
    edits: text => skip(statementsWith(text, DESTROYS)),
    findings: ['leak', 'destroy-busy'],
  },
  'destroy-twice': {
    mistake: 'destroys an object twice',
    edits: text => change(text, statementsWith(text, DESTROYS), statement => `{ ${statement} ${statement} }`),
    findings: ['double-destroy'],
  },
  'destroy-order': {
    mistake: 'destroys objects in the wrong order',
    edits: text => swapped(text, inOrder(statementsWith(text, DESTROYS))),
    findings: ['destroy-busy'],
    legalIf: 'neither object uses the other',
  },
  'exit-early': {
    mistake: 'ends without destroying anything',
    edits: text => change(text, matchesOf(text, /return (destroy_pair\(&one, &other\));/), () => '0'),
    findings: ['leak'],
  },

  // ---- ends, threads and processes ----
  'peer-to-error': {
    mistake: 'moves the queue pair of the peer to ERR before a request',
    edits: text =>
      insertBefore(
        text,
        postsOfOne(text),
        () => '{ struct ibv_qp_attr e_ = {.qp_state = IBV_QPS_ERR}; ibv_modify_qp(other.qp, &e_, IBV_QP_STATE); }',
      ),
    findings: ['peer-in-error', 'peer-gone', 'idle-queues'],
    legalIf: 'the queue pair was in ERR, or is not the peer',
  },
  'memory-given-back': {
    mistake: 'gives the pages of its buffer back before a request (MADV_DONTNEED)',
    edits: text => insertBefore(text, postsOfOne(text), () => 'madvise(one.buffer, SIZE, MADV_DONTNEED);'),
    findings: ['memory-gone'],
    legalIf: 'the request does not use the buffer',
  },
  'receive-twice': {
    mistake: 'posts a receive twice, with one buffer',
    edits: text =>
      change(text, statementsWith(text, 'post_receive|cm_receive'), statement => `{ ${statement} ${statement} }`),
    findings: ['receive-overlap', 'queue-full'],
    legalIf: 'the elements name no bytes',
  },
  'send-missing': {
    mistake: 'leaves out a request for whose completion it waits',
    edits: text => skip(postsOfOne(text)),
    findings: ['idle-queues', 'both-receive', 'peer-gone', 'completions-unpolled', 'lost-wakeup'],
    legalIf: 'the program does not wait for it',
  },
  'counter-of-both': {
    mistake: 'adds to one counter from two queue pairs',
    edits: text => change(text, matchesOf(text, /\bput\([^;]*, (counter \+ 8)\)/), () => 'counter'),
    findings: ['counter-shared'],
  },
  'destroyed-while-sending': {
    mistake: 'destroys a queue pair right after a request',
    edits: text => beforeEnd(text, `${WRITE} ibv_destroy_qp(one.qp); one.qp = NULL;`),
    findings: ['sends-lost', 'completions-unpolled', 'use-after-destroy', 'double-destroy'],
  },
  'polled-after-destroy': {
    mistake: 'polls a CQ that was destroyed',
    edits: text =>
      beforeEnd(
        text,
        'struct ibv_cq *gone_ = one.cq; struct ibv_wc wc_; const int end_ = RESULT; ibv_poll_cq(gone_, 1, &wc_); return end_;',
      ),
    findings: ['use-after-destroy'],
  },
  'wild-pointer': {
    mistake: 'passes a pointer to no memory',
    edits: text => beforeEnd(text, 'ibv_query_device(context, (struct ibv_device_attr *)0x123456789000);'),
    findings: ['program-died', ['refused-call', /0x123456789000/]],
  },
  'fork-while-outstanding': {
    mistake: 'forks while a request is outstanding, without ibv_fork_init',
    edits: text => beforeEnd(text, 'post_receive(&one, all_of(&one)); if (fork() == 0) _exit(0); wait(NULL);'),
    findings: ['fork-outstanding'],
    legalIf: 'the queue pair takes no receive',
  },
  'child-polls': {
    mistake: 'polls the CQ of its parent in a child',
    edits: text =>
      beforeEnd(text, 'if (fork() == 0) { struct ibv_wc wc_; ibv_poll_cq(one.cq, 1, &wc_); _exit(0); } wait(NULL);'),
    findings: ['context-inherited'],
  },
  'acknowledged-twice': {
    mistake: 'acknowledges an event twice',
    edits: text =>
      change(
        text,
        statementsWith(text, 'ibv_ack_cq_events|ibv_ack_async_event'),
        statement => `{ ${statement} ${statement} }`,
      ),
    findings: ['events-overacknowledged', 'events-unacknowledged'],
    legalIf: 'nothing is destroyed afterwards',
  },
  'retry-count-beyond': {
    mistake: 'sets a field of rdma_conn_param beyond its range',
    edits: text => change(text, matchesOf(text, /rdma_conn_param \w+ = \{[^}]*retry_count = (\d+)/), () => '200'),
    findings: ['conn-param-uninitialised'],
    legalIf: 'the call ignores the field',
  },
  'port-byte-order': {
    mistake: 'connects to a port in the byte order of the host',
    edits: text =>
      change(text, matchesOf(text, /sin_port = (rdma_get_src_port\([^)]*\));/), value => `ntohs(${value})`),
    findings: ['port-byte-order'],
    legalIf: 'no connection is requested',
  },
} as const satisfies Record<string, Kind>

export type KindName = keyof typeof kinds
export const kindNames = Object.keys(kinds) as readonly KindName[]
export const kindOf = (name: KindName): Kind => kinds[name]
