/* Services that have a transport of their own over verbs: brpc, Ceph's messenger, Gloo. */
import { ERRNO } from '../meanings/errnos.ts'
import type { Reader } from '../shape.ts'

const BRPC = 'apache/brpc 71871ee9 src/brpc/rdma'
const CEPH = 'ceph/ceph src/msg/async/rdma'
const GLOO = 'pytorch/gloo 70dc360 gloo/transport'
/** Of brpc: the connection that a line is about. */
const SOCKET = 'Socket\\{[^}]{0,120}?addr=(?<peer>[^\\s}]{1,80})'

export const brpc: Reader = {
  name: 'brpc',
  shapes: [
    {
      id: 'brpc-completion',
      words: ['Fail to handle RDMA completion, error status('],
      form: new RegExp(
        `Fail to handle RDMA completion, error status\\((?<status>\\d+)\\)(?:: (?:RDMA )?${SOCKET})?`,
        'g',
      ),
      role: 'failure',
      kind: 'completion',
      source: `${BRPC}/rdma_endpoint.cpp:1572`,
      sample: [
        'W0301 12:03:05.123456  4242 rdma_endpoint.cpp:1572] Fail to handle RDMA completion, error status(12): Socket{id=7 fd=9 addr=10.0.0.7:8002:41234} (0x7f01)',
      ],
      gives: { status: '12', peer: '10.0.0.7:8002:41234' },
    },
    {
      id: 'brpc-call-failed',
      words: ['RDMA completion error('],
      form: new RegExp(`RDMA completion error\\((?<status>\\d+)\\)(?: from ${SOCKET})?`, 'g'),
      role: 'failure',
      kind: 'completion',
      source: `${BRPC}/rdma_endpoint.cpp:1574`,
      sample: [
        'E0301 12:03:05.123456  4242 client.cpp:90] RPC call failed: [E3001]RDMA completion error(12) from Socket{id=7 fd=9 addr=10.0.0.7:8002:41234} (0x7f01): RDMA verbs error',
      ],
      gives: { status: '12', peer: '10.0.0.7:8002:41234' },
    },
    {
      id: 'brpc-modify',
      words: ['Fail to modify QP from '],
      form: new RegExp(`Fail to modify QP from \\w{3,5} to (?<state>INIT|RTR|RTS): (?<errno>${ERRNO})`, 'g'),
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_modify_qp' },
      source: `${BRPC}/rdma_endpoint.cpp:1185, 1240, 1258`,
      sample: [
        'W0301 12:03:05.123456  4242 rdma_endpoint.cpp:1240] Fail to modify QP from INIT to RTR: Connection timed out',
      ],
      gives: { call: 'ibv_modify_qp', state: 'RTR', errno: 'Connection timed out' },
    },
    {
      id: 'brpc-post',
      words: ['Fail to ibv_post_'],
      form: new RegExp(`Fail to (?<call>ibv_post_(?:send|recv)): (?<errno>${ERRNO})`, 'g'),
      role: 'failure',
      kind: 'call',
      source: `${BRPC}/rdma_endpoint.cpp:827, 976`,
      sample: [
        'W0301 12:03:05.123456  4242 rdma_endpoint.cpp:827] Fail to ibv_post_send: Cannot allocate memory window=0',
      ],
      gives: { call: 'ibv_post_send', errno: 'Cannot allocate memory' },
    },
    {
      id: 'brpc-create',
      words: ['Fail to create send CQ', 'Fail to create recv CQ', 'Fail to create polling CQ', 'Fail to create QP'],
      form: new RegExp(`Fail to (?<call>create (?:(?:send|recv|polling) CQ|QP))(?:: (?<errno>${ERRNO}))?`, 'g'),
      role: 'failure',
      kind: 'call',
      source: `${BRPC}/rdma_endpoint.cpp:1045, 1052, 1058`,
      sample: ['W0301 12:03:05.123456  4242 rdma_endpoint.cpp:1058] Fail to create QP: Cannot allocate memory'],
      gives: { call: 'create QP', errno: 'Cannot allocate memory' },
    },
    {
      id: 'brpc-register',
      words: ['Fail to register memory', 'Memory not registered for rdma'],
      form: new RegExp(`(?:Fail to register memory(?:: (?<errno>${ERRNO}))?|Memory not registered for rdma)`, 'g'),
      role: 'failure',
      kind: 'call',
      fixed: { call: 'register memory' },
      source: `${BRPC}/rdma_helper.cpp:186; rdma_endpoint.cpp:688`,
      sample: ['E0301 12:03:05.123456  4242 rdma_helper.cpp:186] Fail to register memory: Cannot allocate memory'],
      gives: { call: 'register memory', errno: 'Cannot allocate memory' },
    },
    {
      id: 'brpc-async',
      words: ['rdma async event: '],
      form: /rdma async event: (?<event>[\w ]{4,60})/g,
      role: 'failure',
      kind: 'event',
      source: `${BRPC}/rdma_helper.cpp:262`,
      sample: [
        'W0301 12:03:05.123456  4242 rdma_helper.cpp:262] rdma async event: local access violation work queue error',
      ],
      gives: { event: 'local access violation work queue error' },
    },
    {
      id: 'brpc-open',
      words: ['Fail to open rdma device '],
      form: new RegExp(`Fail to open rdma device (?<device>[\\w.-]{1,64}): (?<errno>${ERRNO})`, 'g'),
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_open_device' },
      source: `${BRPC}/rdma_helper.cpp:436`,
      sample: [
        'E0301 12:00:00.123456  4242 rdma_helper.cpp:436] Fail to open rdma device mlx5_3: Operation not permitted [1]',
      ],
      gives: { device: 'mlx5_3', errno: 'Operation not permitted', call: 'ibv_open_device' },
    },
    {
      id: 'brpc-no-device',
      words: ['Fail to find rdma device', 'Fail to find available RDMA '],
      form: /Fail to find (?:rdma device|available RDMA (?:device ?(?<device>[\w.-]{1,64})?|GID))/g,
      role: 'failure',
      kind: 'no-device',
      source: `${BRPC}/rdma_helper.cpp GlobalRdmaInitializeOrDieImpl`,
      sample: ['E0301 12:03:05.123456  4242 rdma_helper.cpp:470] Fail to find available RDMA device mlx5_9'],
      gives: { device: 'mlx5_9' },
    },
    {
      id: 'brpc-fallback',
      words: [', fallback to tcp:'],
      form: new RegExp(`Fail to (?<text>[\\w ]{5,60}), fallback to tcp:(?:${SOCKET})?`, 'g'),
      role: 'sign',
      source: `${BRPC}/rdma_endpoint.cpp:437, 472, 479`,
      sample: [
        'W0301 12:03:05.123456  4242 rdma_endpoint.cpp:472] Fail to negotiate with server, fallback to tcp:Socket{id=7 fd=9 addr=10.0.0.7:8002:41234} (0x7f01)',
      ],
      gives: { text: 'negotiate with server', peer: '10.0.0.7:8002:41234' },
    },
    {
      id: 'brpc-gid',
      words: ['RDMA GID Index: '],
      form: /RDMA GID Index: (?<gidIndex>\d+)/g,
      role: 'fact',
      fixed: { variable: 'path' },
      source: `${BRPC}/rdma_helper.cpp GlobalRdmaInitializeOrDieImpl`,
      sample: ['I0301 12:00:00.123456  4242 rdma_helper.cpp:490] RDMA GID Index: 3'],
      gives: { variable: 'path', gidIndex: '3' },
    },
  ],
}

export const ceph: Reader = {
  name: 'Ceph',
  shapes: [
    {
      id: 'ceph-completion',
      words: ['WCE status('],
      form: /WCE status\((?<status>\d+)\): (?<text>\w{3,40}) WCE QP number (?<qpn>\d+) Opcode (?<opcode>\d+)/g,
      role: 'failure',
      kind: 'completion',
      source: `${CEPH}/RDMAStack.cc handle_tx_event, handle_rx_event (15 and later)`,
      sample: [
        '2026-03-01T12:03:05.123+0000 7f01 -1 RDMAStack handle_tx_event SQ WR return error, WCE status(10): REM_ACCESS_ERR WCE QP number 4242 Opcode 0 wr_id: 0x55',
      ],
      gives: { status: '10', qpn: '4242', opcode: '0' },
    },
    {
      id: 'ceph-completion-old',
      words: ['work request returned error for buffer('],
      form: /work request returned error for buffer\(\w{1,24}\) status\((?<status>\d+)(?::(?<text>\w{3,40}))?\)/g,
      role: 'failure',
      kind: 'completion',
      source: `${CEPH}/RDMAStack.cc 004fac3f polling, handle_tx_event`,
      sample: [
        '2026-03-01 12:03:05.123456 7f01  1 RDMAStack polling work request returned error for buffer(0x55) status(4:LOC_PROT_ERR)',
      ],
      gives: { status: '4', text: 'LOC_PROT_ERR' },
    },
    {
      id: 'ceph-retries',
      words: ['connection between server and client not working. Disconnect this now'],
      form: /connection between server and client not working\. Disconnect this now/g,
      role: 'failure',
      kind: 'completion',
      fixed: { status: 'RETRY_EXC_ERR' },
      source: `${CEPH}/RDMAStack.cc 004fac3f handle_tx_event`,
      sample: [
        '2026-03-01 12:03:05.123456 7f01  1 RDMAStack handle_tx_event connection between server and client not working. Disconnect this now',
      ],
      gives: { status: 'RETRY_EXC_ERR' },
    },
    {
      id: 'ceph-flush',
      words: ["Work Request Flushed Error: this connection's qp="],
      form: /Work Request Flushed Error: this connection's qp=(?<qpn>\d+) should be down/g,
      role: 'consequence',
      kind: 'completion',
      fixed: { status: 'WR_FLUSH_ERR' },
      source: `${CEPH}/RDMAStack.cc 004fac3f handle_tx_event`,
      sample: [
        "2026-03-01 12:03:05.123456 7f01  1 RDMAStack handle_tx_event Work Request Flushed Error: this connection's qp=4242 should be down while this WR=94 still in flight.",
      ],
      gives: { qpn: '4242', status: 'WR_FLUSH_ERR' },
    },
    {
      id: 'ceph-modify',
      words: ['failed to transition to '],
      form: /failed to transition to (?<state>INIT|RTR|RTS|ERROR) state: \((?<errno>\d+)\)/g,
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_modify_qp' },
      source: `${CEPH}/RDMAConnectedSocketImpl.cc 021bbb76 activate; Infiniband.cc 009ec818 init, to_dead`,
      sample: [
        '2026-03-01 12:03:05.123456 7f01 -1 RDMAConnectedSocketImpl activate failed to transition to RTR state: (22) Invalid argument',
      ],
      gives: { call: 'ibv_modify_qp', state: 'RTR', errno: '22' },
    },
    {
      id: 'ceph-create',
      words: [
        'failed to create queue pair',
        'failed to create receive completion ',
        'failed to allocate infiniband protection domain: ',
      ],
      form: /failed to (?<call>create queue pair|create receive completion \w{5,7}|allocate infiniband protection domain)(?:: )?\((?<errno>\d+)\)/g,
      role: 'failure',
      kind: 'call',
      source: `${CEPH}/Infiniband.cc 009ec818 init`,
      sample: [
        '2026-03-01 12:03:05.123456 7f01 -1 Infiniband init failed to create queue pair(12) Cannot allocate memory',
      ],
      gives: { call: 'create queue pair', errno: '12' },
    },
    {
      id: 'ceph-open',
      words: ['open rdma device failed. '],
      form: /open rdma device failed\. \((?<errno>\d+)\)/g,
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_open_device' },
      source: `${CEPH}/Infiniband.cc 009ec818 Device`,
      sample: ['2026-03-01 12:03:05.123456 7f01 -1 Infiniband Device open rdma device failed. (13) Permission denied'],
      gives: { call: 'ibv_open_device', errno: '13' },
    },
    {
      id: 'ceph-async',
      words: ['ibv_get_async_event: dev='],
      form: /ibv_get_async_event: dev=\w{1,24} evt: (?<event>[\w ]{4,60})/g,
      role: 'failure',
      kind: 'event',
      source: `${CEPH}/RDMAStack.cc 004fac3f handle_async_event`,
      sample: [
        '2026-03-01 12:03:05.123456 7f01  1 RDMAStack handle_async_event ibv_get_async_event: dev=0x55 evt: port error',
      ],
      gives: { event: 'port error' },
    },
    {
      id: 'ceph-memlock',
      words: ['For RDMA to work properly user memlock (ulimit -l)'],
      form: /For RDMA to work properly user memlock \(ulimit -l\) must be big enough/g,
      role: 'sign',
      fixed: { text: 'the limit of locked memory is not infinite' },
      source: `${CEPH}/Infiniband.cc 009ec818 verify_prereq`,
      sample: [
        '2026-03-01 12:03:05.123456 7f01 -1 Infiniband verify_prereq!!! WARNING !!! For RDMA to work properly user memlock (ulimit -l) must be big enough to allow large amount of registered memory. We recommend setting this parameter to infinity',
      ],
      gives: { text: 'the limit of locked memory is not infinite' },
    },
  ],
}

export const gloo: Reader = {
  name: 'Gloo',
  shapes: [
    {
      id: 'gloo-completion',
      words: ['wc->status == IBV_WC_SUCCESS. '],
      form: /wc->status == IBV_WC_SUCCESS\. (?<status>\d+) vs 0\. (?<request>[A-Z][\w ]{2,30}?) for slot \d+/g,
      role: 'failure',
      kind: 'completion',
      source: `${GLOO}/ibverbs/pair.cc handleCompletion; gloo/common/logging.h:153`,
      sample: [
        '[enforce fail at /build/gloo/transport/ibverbs/pair.cc:645] wc->status == IBV_WC_SUCCESS. 12 vs 0. Send for slot 7: transport retry counter exceeded',
      ],
      gives: { status: '12', request: 'Send' },
    },
    {
      id: 'gloo-call',
      words: ['gloo/transport/ibverbs/'],
      form: new RegExp(
        `gloo/transport/ibverbs/\\w{1,40}\\.cc:\\d+\\](?: [\\w !=]{1,60}\\.)? (?<call>ibv_\\w{3,40})(?: failed)?: (?<errno>${ERRNO}|\\d{1,3}\\b)`,
        'g',
      ),
      role: 'failure',
      kind: 'call',
      source: `${GLOO}/ibverbs/buffer.cc:52; pair.cc:48, 241, 295`,
      sample: [
        '[enforce fail at /build/gloo/transport/ibverbs/buffer.cc:51] mr_ != nullptr. ibv_reg_mr: Cannot allocate memory (did you run into the locked memory limit?)',
      ],
      gives: { call: 'ibv_reg_mr', errno: 'Cannot allocate memory' },
    },
    {
      id: 'gloo-no-device',
      words: ['No ibverbs devices present', 'ibverbs/device.cc'],
      form: /(?:No ibverbs devices present|ibverbs\/device\.cc:\d+\] Unable to find device named: (?<device>[\w.-]{1,64}))/g,
      role: 'failure',
      kind: 'no-device',
      source: `${GLOO}/ibverbs/device.cc:84, 116`,
      sample: ['[/build/gloo/transport/ibverbs/device.cc:84] No ibverbs devices present'],
      gives: {},
    },
    {
      id: 'gloo-closed',
      words: ['gloo/transport/tcp/'],
      form: /gloo\/transport\/tcp\/\w{1,40}\.cc:\d+\] (?<text>Connection closed by peer|Socket unexpectedly closed|Read error|writev) \[?(?<peer>[\w.:]{2,60}?)\]?:\d+/g,
      role: 'consequence',
      source: `${GLOO}/tcp/pair.cc:201, 339, 537, 553`,
      sample: ['RuntimeError: [/build/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.7]:12345. '],
      gives: { text: 'Connection closed by peer', peer: '10.0.0.7' },
    },
    {
      id: 'gloo-watchdog',
      words: ['ms for send operation to complete', 'ms for recv operation to complete', ' timeout LID: '],
      form: /(?:Timed out waiting (?<value>\d+)ms for (?<text>send|recv) operation to complete|(?:Read|Send) timeout LID: (?<peerLid>\d+) QPN: (?<peerQpn>\d+))/g,
      role: 'consequence',
      source: `${GLOO}/tcp/unbound_buffer.cc; ${GLOO}/ibverbs/buffer.cc:94, 144; address.cc:43`,
      sample: [
        'RuntimeError: [/build/gloo/transport/tcp/unbound_buffer.cc:129] Timed out waiting 1800000ms for send operation to complete',
      ],
      gives: { value: '1800000', text: 'send' },
    },
  ],
}
