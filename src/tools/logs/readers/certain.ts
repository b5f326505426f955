/*
 * Words that stand for one thing in the log of any program: texts of ibv_wc_status_str, names of verbs' enumerations,
 * and calls with their errno. Only where no reader of a program has understood the line.
 */
import { libibverbsTexts } from '../../../spec/check/statuses.ts'
import { ERRNO } from '../meanings/errnos.ts'
import { certainTexts } from '../meanings/statuses.ts'
import type { Reader } from '../shape.ts'

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
const SOURCE = 'linux-rdma/rdma-core 691953d8 libibverbs/verbs.c, enum_strs.c'
const EVENTS = ['QP_FATAL', 'QP_REQ_ERR', 'QP_ACCESS_ERR', 'DEVICE_FATAL', 'CQ_ERR', 'SRQ_ERR'] as const
const eventTexts = EVENTS.flatMap(name => (libibverbsTexts[name] === undefined ? [] : [libibverbsTexts[name]])).filter(
  text => text.length > 12,
)
/** A vendor error near it, in any spelling. */
const VENDOR = '(?:.{0,80}?vendor[ _](?:err(?:or)?|syndrome|code)[ :=(]*(?<vendor>0x\\w+|\\d+))?'

/** Source code, tests, changes, tables and what libraries only try have these words, and tell of no failure. */
const NO_MESSAGE =
  /^\s*\|.*\|\s*$|\|.*\|.*\||^\s*(?:[-+] ?)?(?:\/\/|\/?\*|#\s*(?:define|include)|case\b|if ?\(|return\b|\[\w+\]\s*=)|\.\w{1,4}:\d+:\d+: (?:warning|note|error|fatal error):| [=!]= |\bfix(?:es|ed)?\b|libfabric:[^<]{1,120}<(?:info|debug|trace)>|UCX +(?:DEBUG|TRACE) /i
/** What a line that tells of a failure has besides the word. */
const NEAR =
  /\b(?:status|errors?|err|errno|fail\w*|complet\w*|[iw]?wc|cqes?|cq|poll\w*|bad|unexpected|got|events?|received|vendor\w*|qp\w*|ibv_\w+|mlx\d\w*)(?![a-z])/i
/** What programs call verbs' calls and objects in their own words. */
const ACTIONS = ['create ', 'allocate ', 'alloc ', 'register ', 'reg ', 'post ']
const CALLS = [
  'modify_qp',
  'reg_mr',
  'create_qp',
  'create_cq',
  'open_device',
  'alloc_pd',
  'post_send',
  'post_recv',
  'post send',
  'post recv',
  'resolve_addr',
  'resolve_route',
]
const OBJECTS = ['QP', 'CQ', 'MR', 'PD', 'SRQ', 'qp', 'cq', 'mr', 'pd', 'srq', 'send', 'recv', 'receive']
const BY_CONTEXT = ['status-text', 'status-name', 'event-text', 'event-name', 'cm-name']

/** Whether a certain word stands in a message of a failure. `line`: as it is in the log. */
export const isMessage = (line: string, before: string, after: string, id: string): boolean => {
  if (NO_MESSAGE.test(line)) return false
  if (!BY_CONTEXT.includes(id)) return true
  // The word is all of the message, as of perror.
  const isWhole = /(?:^|[:)\]>] ?)$/.test(before) && /^\s*(?:$|[,.;([\]\\"'`])/.test(after)
  return isWhole || NEAR.test(before.slice(-200)) || NEAR.test(after.slice(0, 200))
}

export const certain: Reader = {
  name: 'verbs',
  shapes: [
    {
      id: 'status-text',
      words: certainTexts,
      form: new RegExp(`(?<status>${certainTexts.map(escaped).join('|')})${VENDOR}`, 'gi'),
      role: 'failure',
      kind: 'completion',
      base: 10,
      source: SOURCE,
      sample: ['2026-03-01 12:03:05 my-program: poll: transport retry counter exceeded, vendor_err=0x81'],
      gives: { status: 'transport retry counter exceeded', vendor: '0x81' },
    },
    {
      id: 'status-name',
      words: ['IBV_WC_'],
      form: new RegExp(`IBV_WC_(?<status>[A-Z_]+_ERR|REM_INV_RD_REQ_ERR)\\b${VENDOR}`, 'g'),
      role: 'failure',
      kind: 'completion',
      base: 10,
      source: SOURCE,
      sample: ['my-program: wc.status IBV_WC_REM_ACCESS_ERR'],
      gives: { status: 'REM_ACCESS_ERR' },
    },
    {
      id: 'event-text',
      words: eventTexts,
      form: new RegExp(`(?<event>${eventTexts.map(escaped).join('|')})`, 'g'),
      role: 'failure',
      kind: 'event',
      source: SOURCE,
      sample: ['my-program: async event: local access violation work queue error'],
      gives: { event: 'local access violation work queue error' },
    },
    {
      id: 'event-name',
      words: ['IBV_EVENT_'],
      form: /IBV_EVENT_(?<event>[A-Z_]+)/g,
      role: 'failure',
      kind: 'event',
      source: SOURCE,
      sample: ['my-program: async event: IBV_EVENT_QP_ACCESS_ERR'],
      gives: { event: 'QP_ACCESS_ERR' },
    },
    {
      id: 'cm-name',
      words: ['RDMA_CM_EVENT_'],
      form: /RDMA_CM_EVENT_(?<event>REJECTED|UNREACHABLE|ADDR_ERROR|ROUTE_ERROR|CONNECT_ERROR|DEVICE_REMOVAL)(?:.{0,40}?(?:status|error|err)[ :=(]*(?<rejection>-?\d+))?/g,
      role: 'failure',
      kind: 'refused',
      source: 'linux-rdma/rdma-core 691953d8 librdmacm/rdma_cma.h',
      sample: ['my-program: unexpected RDMA_CM_EVENT_REJECTED (status=28)'],
      gives: { event: 'REJECTED', rejection: '28' },
    },
    {
      id: 'call-errno',
      words: [
        'ibv_reg_mr',
        'ibv_modify_qp',
        'ibv_create_',
        'ibv_open_device',
        'ibv_alloc_pd',
        'ibv_post_',
        'rdma_resolve_',
        'rdma_connect',
        'rdma_create_',
        'rdma_bind_addr',
        'rdma_listen',
        'rdma_accept',
        'mlx5dv_',
        'ibv_reg_dmabuf_mr',
        'ibv_get_device_list',
      ],
      form: new RegExp(
        `(?<call>(?:ibv|rdma|mlx5dv)_[a-z_]+)(?:\\([^)]{0,120}\\)|\\(\\))?(?: \\w{1,20}){0,3}?[ :,]*(?:(?:fail(?:ed|ure|s)?|error|returned|=)(?:[ :,(=[]|with|errno|error|code|ret|strerror){0,12}(?<errno>-?\\d{1,3}\\b|E[A-Z]{2,15}\\b|${ERRNO})|: ?(?<text>${ERRNO}))`,
        'g',
      ),
      role: 'failure',
      kind: 'call',
      source: SOURCE,
      sample: ['my-program: ibv_reg_mr failed: Cannot allocate memory'],
      gives: { call: 'ibv_reg_mr', errno: 'Cannot allocate memory' },
    },
    {
      id: 'call-failed',
      words: CALLS.flatMap(call => [`${call} failed`, `${call} error`]),
      form: new RegExp(
        `(?:non-zero status: (?<errno>\\d+) )?(?<call>(?:ibv_|rdma_)?(?:${CALLS.join('|')})) (?:failed|error)(?::? (?<text>-?\\d{1,3}\\b|${ERRNO}))?`,
        'g',
      ),
      role: 'failure',
      kind: 'call',
      source: 'NVSHMEM, and many programs (unverified)',
      sample: ['ibrc.cpp:600: non-zero status: 22 ibv_modify_qp failed'],
      gives: { call: 'ibv_modify_qp', errno: '22' },
    },
    {
      id: 'call-words',
      words: ACTIONS.flatMap(action => OBJECTS.map(object => `${action}${object}`)),
      form: new RegExp(
        `(?:[Cc]ould(?:n't| ?not)|[Ff]ailed to|[Uu]nable to|[Cc]an(?:not|'t)) (?<call>(?:${ACTIONS.join('|')})(?:${OBJECTS.join('|')}))s?\\b(?:(?:[.,]? (?:with )?(?:errno|error) ?[=:]? ?|: ?(?:(?:errno|error) ?[=:]? ?)?)(?<errno>-?\\d{1,3}\\b|${ERRNO}))?`,
        'g',
      ),
      role: 'failure',
      kind: 'call',
      source:
        'linux-rdma/rdma-core v44.0 libibverbs/examples/rc_pingpong.c; linux-rdma/perftest 4.5-0.17, 00b55b66 src/perftest_resources.c:2306; many programs',
      sample: ["Couldn't allocate MR with error=12"],
      gives: { call: 'allocate MR', errno: '12' },
    },
    {
      id: 'no-devices',
      words: [
        'Failed to get IB devices list',
        'No IB devices found',
        'No InfiniBand devices found',
        'no RDMA devices',
        'No RDMA devices',
        'No RDMA device found',
      ],
      form: /[Nn]o (?:IB|InfiniBand|RDMA) devices? ?(?:found)?|Failed to get IB devices list/g,
      role: 'failure',
      kind: 'no-device',
      source: 'linux-rdma/rdma-core 691953d8 libibverbs/examples/devinfo.c',
      sample: ['No IB devices found'],
      gives: {},
    },
    {
      id: 'own-daemon',
      words: [
        ': RETRY_EXC_ERR',
        ': REM_ACCESS_ERR',
        ': REM_INV_REQ_ERR',
        ': REM_OP_ERR',
        ': LOC_PROT_ERR',
        ': LOC_LEN_ERR',
        ': LOC_QP_OP_ERR',
        ': RNR_RETRY_EXC_ERR',
      ],
      form: /(?<device>[\w.-]{1,64}): QP (?<qpn>0x\w+) (?<request>[A-Z]\w*) wr_id \w+: (?<status>[A-Z_]+_ERR): (?<text>.{1,300})/g,
      role: 'failure',
      kind: 'completion',
      family: 'userdma',
      source: "userdma's own: src/tools/check/finding-text.ts",
      sample: [
        'userdma check: error stale-rkey: process 1128 (stale-rkey), rxe0: QP 0xc06aa8 WRITE wr_id 1: REM_ACCESS_ERR: peer QP 0xc06aa9: rkey 0x763f2e72 was deregistered',
      ],
      gives: { device: 'rxe0', qpn: '0xc06aa8', request: 'WRITE', status: 'REM_ACCESS_ERR' },
    },
  ],
}
