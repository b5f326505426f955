/*
 * UCX. An mlx5 error is two lines: the syndrome, then the work request with the peer. Flushes are at the level TRACE,
 * so that a log rarely has any. `wqe[0]`: the first request of the queue pair.
 */
import { ERRNO } from '../meanings/errnos.ts'
import type { Reader } from '../shape.ts'

const UCX = 'openucx/ucx'
/** The second line. */
const WQE =
  /(?<text>RC|DCI|UD|SRQ|DCT) QP 0x(?<qpn>\w+) wqe\[(?<wqe>\w+)\]: ?(?<request>[\w ]*?)(?= [-\w]*[-s]| \[|$).{0,600}?(?:\[rqpn 0x(?<peerQpn>\w+)(?=(?:[^\]]{0,200}? (?:sgid_index=|sgix )(?<gidIndex>\w+))?)(?=(?:[^\]]{0,200}? dgid[= ](?<remoteGid>[^\s\]]+))?)(?: rlid (?<peerLid>\d+))?|$)/

export const ucx: Reader = {
  name: 'UCX',
  shapes: [
    {
      id: 'ucx-mlx5',
      words: [' (synd 0x'],
      form: /(?:UCX +\w+ +|^|ERROR +|\.c:\d+ +(?!UCX|ERROR))(?<status>[A-Z][\w -]{2,60}?) on (?<device>[^\s:]+):(?<port>\w+)\/(?<link>\w+) \(synd 0x(?<syndrome>\w+) vend 0x(?<vendor>\w+) hw_synd (?<hwSyndrome>\w+\/\w+)\)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      next: WQE,
      source: `${UCX} v1.8.1, v1.15.0 src/uct/ib/mlx5/ib_mlx5_log.c:133, 172`,
      sample: [
        '[1772366585.123456] [node1:4242 :0]   ib_mlx5_log.c:181  UCX  ERROR Transport retry count exceeded on mlx5_3:1/RoCE (synd 0x15 vend 0x81 hw_synd 0/0)',
        '[1772366585.123460] [node1:4242 :0]   ib_mlx5_log.c:181  UCX  ERROR RC QP 0x1a2b wqe[0]: SEND --e [inl len 26] [rqpn 0x3c4d dlid=0 sl=0 port=1 src_path_bits=0 dgid=::ffff:10.0.0.7 sgid_index=3 traffic_class=106]',
      ],
      gives: {
        status: 'Transport retry count exceeded',
        device: 'mlx5_3',
        port: '1',
        syndrome: '15',
        vendor: '81',
        qpn: '1a2b',
        wqe: '0',
        peerQpn: '3c4d',
        remoteGid: '::ffff:10.0.0.7',
      },
    },
    {
      id: 'ucx-mlx5-old',
      words: [' (synd 0x'],
      form: /Error on (?:\[?(?<device>[^\s:\]]+)(?::(?<port>\w+)[^\]\s]*)?\]? ?)?QP 0x(?<qpn>\w+) wqe\[(?<wqe>\w+)\]: (?<status>[A-Z][\w -]{2,60}?) \(synd 0x(?<syndrome>\w+) vend 0x(?<vendor>\w+)(?: hw_synd (?<hwSyndrome>\w+\/\w+))?\) opcode (?<request>\w*)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      source: `${UCX} v1.4.0, v1.5.2 src/uct/ib/mlx5/ib_mlx5_log.c:111, 113`,
      sample: [
        '[1551430000.123456] [node1:4242 :0]   ib_mlx5_log.c:113  UCX  ERROR Error on QP 0x1a2b wqe[000]: Remote access error (synd 0x13 vend 0x88) opcode RDMA_WRITE',
      ],
      gives: {
        qpn: '1a2b',
        wqe: '000',
        status: 'Remote access error',
        syndrome: '13',
        vendor: '88',
        request: 'RDMA_WRITE',
      },
    },
    {
      id: 'ucx-verbs',
      words: ['send completion with error: '],
      form: /send completion with error: (?<status>[A-Za-z][\w ]{2,60}?) \[?qpn 0x(?<qpn>\w+) wrid 0x[\da-f]+ ?vendor_err 0x(?<vendor>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      next: /\[rqpn 0x(?<peerQpn>\w+)(?=[^\]]{0,200}? dgid=(?<remoteGid>[^\s\]]+))(?=[^\]]{0,200}? sgid_index=(?<gidIndex>\w+))/,
      source: `${UCX} v1.8.1, v1.13.1, v1.15.0 src/uct/ib/rc/verbs/rc_verbs_iface.c:64, 121, 122`,
      sample: [
        '[node1:4242:0:4242] rc_verbs_iface.c:121  send completion with error: transport retry counter exceeded [qpn 0x707e7d wrid 0x83vendor_err 0x81]',
        '[node1:4242:0:4242] rc_verbs_iface.c:121  [rqpn 0xead6ff dlid=0 sl=0 port=1 src_path_bits=0 dgid=::ffff:10.0.0.7 sgid_index=1 traffic_class=106]',
      ],
      gives: {
        status: 'transport retry counter exceeded',
        qpn: '707e7d',
        vendor: '81',
        remoteGid: '::ffff:10.0.0.7',
        gidIndex: '1',
      },
    },
    {
      id: 'ucx-srd',
      words: ['] with error on '],
      form: /completion\[\w+\] with error on (?<device>[^\s/:]+)\S*: (?<status>[A-Za-z][\w ]{2,60}?), vendor_err 0x(?<vendor>\w+) wr_id/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      source: `${UCX} 9466d104 src/uct/ib/base/ib_iface.h:684`,
      sample: [
        '[1772366585.123456] [node1:4242 :0]     srd_iface.c:310  UCX  ERROR send completion[0] with error on rdmap16s27/0x55d0: response timeout error, vendor_err 0xf wr_id 0x1',
      ],
      gives: { device: 'rdmap16s27', status: 'response timeout error', vendor: 'f' },
    },
    {
      id: 'ucx-devx',
      words: [') failed, syndrome ', 'failed on ', ', syndrome 0x'],
      form: /mlx5dv_devx_(?<call>\w+)\((?<command>[\w ]+)[^)]*\) failed(?: on (?<device>[^\s,]+))?, syndrome (?:0x)?(?<syndrome>\w+): (?<errno>[A-Z][\w /]+)/g,
      role: 'failure',
      kind: 'command',
      family: 'mlx5',
      source: `${UCX} 9466d104 src/uct/ib/mlx5/dv/ib_mlx5_dv.c:349, 446, 466; v1.13.1 ib_mlx5_dv.c:243`,
      sample: [
        '[1772366585.123456] [node1:4242 :0]    ib_mlx5_dv.c:466  UCX  ERROR mlx5dv_devx_obj_create(CREATE_CQ) failed on mlx5_3, syndrome 0x5d4a: Remote I/O error',
      ],
      gives: {
        call: 'obj_create',
        command: 'CREATE_CQ',
        device: 'mlx5_3',
        syndrome: '5d4a',
        errno: 'Remote I/O error',
      },
    },
    {
      id: 'ucx-async',
      words: ['IB Async event on '],
      form: /IB Async event on (?<device>[^\s:]+): (?<event>[A-Za-z_][\w ]{2,60}?) on (?:port (?<port>\w+)|QPN 0x(?<qpn>\w+)|\w+ \S+)/g,
      role: 'failure',
      kind: 'event',
      source: `${UCX} 9466d104 src/uct/ib/base/ib_device.c:530`,
      sample: [
        '[1772366585.123456] [node1:4242 :0]      ib_device.c:530  UCX  DIAG  IB Async event on mlx5_3: port error on port 1',
      ],
      gives: { device: 'mlx5_3', event: 'port error', port: '1' },
    },
    {
      id: 'ucx-register',
      words: ['ibv_reg_mr(', 'ibv_reg_dmabuf_mr('],
      form: /(?<call>ibv_reg_(?:dmabuf_)?mr)\([^)]{0,200}\) failed: (?<errno>[A-Z][A-Za-z /]+[a-z])(?:[ .:]+Please set max locked memory \(ulimit -l\) to 'unlimited' \(current: (?<value>\d+) kbytes\))?/g,
      role: 'failure',
      kind: 'call',
      source: `${UCX} 9466d104 src/uct/ib/base/ib_md.c; ib_log.c:249`,
      sample: [
        "[1772366585.123456] [node1:4242 :0]          ib_md.c:300  UCX  ERROR ibv_reg_mr(address=0x7f01, length=4096, access=0xf) failed: Cannot allocate memory : Please set max locked memory (ulimit -l) to 'unlimited' (current: 64 kbytes)",
      ],
      gives: { call: 'ibv_reg_mr', errno: 'Cannot allocate memory', value: '64' },
    },
    {
      id: 'ucx-call',
      words: ['UCX  ERROR ibv_', 'UCX  ERROR rdma_', 'UCX  DIAG  ibv_', 'UCX  ERROR   ibv_create_ah('],
      form: /UCX +\w+ +(?<call>(?:ibv|rdma)_(?!reg_)\w+)\((?:[^)]{0,200}?dgid=(?<remoteGid>[^\s)]+))?.{0,200}?\)(?: for [\w ]{1,60}? on (?<device>[^\s:]+))? failed: (?<errno>[A-Z][A-Za-z /]+[a-z])(?:[ .:]+Please set max locked memory \(ulimit -l\) to 'unlimited' \(current: (?<value>\d+) kbytes\))?/g,
      role: 'failure',
      kind: 'call',
      source: `${UCX} 9466d104 src/uct/ib/base/ib_device.c:1455, ib_md.c:1594`,
      sample: [
        '[1772366585.123456] [node1:4242 :0]      ib_device.c:1455 UCX  ERROR ibv_create_ah(dlid=0 port=1) failed: Connection timed out',
      ],
      gives: { call: 'ibv_create_ah', errno: 'Connection timed out' },
    },
    {
      id: 'ucx-adapter-there',
      words: [' not available, please use one or more of: '],
      form: / not available, please use one or more of: [\w, ]{0,200}\b(?:rc|ud|dc)_/g,
      role: 'sign',
      source: `${UCX} v1.13.1 src/ucp/core/ucp_context.c:1014`,
      sample: [
        "[1796069159.317848] [node1:4242 :0]     ucp_context.c:1014 UCX  WARN  transport 'rc_verbs' is not available, please use one or more of: cma, dc, dc_mlx5, rc_mlx5, self, tcp",
      ],
      gives: {},
    },
    {
      id: 'ucx-create',
      words: [' QP TX wr:'],
      form: new RegExp(`failed to create \\w+ QP TX wr:.{1,200}?: (?<errno>${ERRNO})`, 'g'),
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_create_qp' },
      source: `${UCX} v1.13.1 src/uct/ib/base/ib_iface.c:1010`,
      sample: [
        '[1796069072.593387] [node1:4242 :0]        ib_iface.c:1010 UCX  ERROR iface=0x561e35041010: failed to create UD QP TX wr:256 sge:6 inl:64 resp:0 RX wr:4096 sge:1 resp:0: Cannot allocate memory',
      ],
      gives: { call: 'ibv_create_qp', errno: 'Cannot allocate memory' },
    },
    {
      id: 'ucx-cm',
      words: [' got error event RDMA_CM_EVENT_', ' got error event '],
      form: /got error event (?:RDMA_CM_EVENT_)?(?<event>[A-Z_]+), event status (?:(?<errno>[A-Z][A-Za-z /]+) )?\(?(?<rejection>-?\d+)\)?/g,
      role: 'failure',
      kind: 'refused',
      source: `${UCX} 9466d104 src/uct/ib/rdmacm/rdmacm_cm.c:715`,
      sample: [
        '[1772366585.123456] [node1:4242 :0]     rdmacm_cm.c:715  UCX  ERROR client (ep=0x55, id=0x66) got error event RDMA_CM_EVENT_REJECTED, event status Unknown error (8)',
      ],
      gives: { event: 'REJECTED', rejection: '8' },
    },
    {
      id: 'ucx-ud',
      words: ['Fatal: transport error: Endpoint timeout', 'Fatal: UD endpoint '],
      form: /Fatal: (?:transport error: Endpoint timeout|UD endpoint \w+ to .{1,300}?: unhandled timeout error)/g,
      role: 'failure',
      kind: 'unanswered',
      source: `${UCX} v1.13.1 src/uct/ib/ud/base/ud_ep.c:276; v1.4.0 ud_iface.c:732 (unverified)`,
      sample: [
        '[node1:4242:0:4242]       ud_ep.c:276  Fatal: UD endpoint 0x55f15e633010 to <no debug data>: unhandled timeout error',
      ],
      gives: {},
    },
    {
      id: 'ucx-no-transport',
      words: ['no usable transports/devices'],
      form: /no usable transports\/devices \(asked (?<text>.{1,200}?)\)/g,
      role: 'failure',
      kind: 'no-device',
      source: `${UCX} v1.13.1 src/ucp/core/ucp_context.c:1276`,
      sample: [
        '[1796069007.219485] [node1:4242 :0]     ucp_context.c:1276 UCX  ERROR no usable transports/devices (asked rc_mlx5,ud_mlx5:aux on all devices)',
      ],
      gives: { text: 'rc_mlx5,ud_mlx5:aux on all devices' },
    },
    {
      id: 'ucx-version',
      words: ['UCX  INFO '],
      form: /UCX {2}INFO {2}(?:UCP|UCX) (?:API )?version:? (?:is )?(?<value>\d[\w.]*)/g,
      role: 'fact',
      isStart: true,
      fixed: { variable: 'UCX version' },
      source: `${UCX} src/ucp/core/ucp_context.c (unverified)`,
      sample: ['[1772366585.123456] [node1:4242 :0]     ucp_context.c:2119 UCX  INFO  UCP version is 1.15 (release 0)'],
      gives: { variable: 'UCX version', value: '1.15' },
    },
    {
      id: 'ucx-unhandled',
      words: ['will not be handled', 'Endpoint timeout', 'Endpoint is not connected'],
      form: /(?:error '(?<text>[\w /]+)'(?: on \S+)? will not be handled|error '?Endpoint timeout|Endpoint timeout)/g,
      role: 'consequence',
      source: `${UCX} 9466d104 src/ucp/core/ucp_ep.c:1661`,
      sample: [
        "[1772366585.123470] [node1:4242 :0]         ucp_ep.c:1661 UCX  DIAG  ep 0x7f01: error 'Endpoint timeout' on rc_mlx5/mlx5_3:1 will not be handled since no error callback is installed",
      ],
      gives: { text: 'Endpoint timeout' },
    },
    {
      id: 'nixl',
      words: ['NIXL_ERR_'],
      form: /NIXL_ERR_(?<text>\w+)/g,
      role: 'consequence',
      source: 'unverified',
      sample: ['nixl_agent.cpp: transfer failed: NIXL_ERR_REMOTE_DISCONNECT'],
      gives: { text: 'REMOTE_DISCONNECT' },
    },
  ],
}
