/*
 * Programs that use verbs themselves: perftest, the examples of rdma-core, Mooncake, UCCL; and what ends jobs: PyTorch.
 */
import { ERRNO } from '../meanings/errnos.ts'
import type { Reader } from '../shape.ts'

const CORE = 'linux-rdma/rdma-core 691953d8'
const PERFTEST = 'linux-rdma/perftest'

export const perftest: Reader = {
  name: 'perftest',
  shapes: [
    {
      id: 'perftest-completion',
      words: ['Failed status '],
      form: /Failed status (?<status>\d+): wr_id (?<value>-?\d+) syndrom 0x(?<vendor>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      source: `${PERFTEST} v4.5-0.11 src/perftest_resources.h:102`,
      sample: [' Failed status 12: wr_id 0 syndrom 0x81'],
      gives: { status: '12', value: '0', vendor: '81' },
    },
    {
      id: 'perftest-completion-text',
      words: ['Failed status-'],
      form: /Failed status-(?<text>[\w ]+?) \((?<status>\d+)\): wr_id (?<value>-?\d+) syndrom 0x(?<vendor>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      source: `${PERFTEST} 00b55b66 src/perftest_resources.h:120`,
      sample: [' Failed status-transport retry counter exceeded (12): wr_id 0 syndrom 0x81'],
      gives: { status: '12', vendor: '81', value: '0' },
    },
    {
      id: 'perftest-register',
      words: ["Couldn't allocate MR"],
      form: /Couldn't allocate MR(?: with error=(?<errno>\d+))?/g,
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_reg_mr' },
      source: `${PERFTEST} 00b55b66 src/perftest_resources.c:2306`,
      sample: ["Couldn't allocate MR with error=12"],
      gives: { call: 'ibv_reg_mr', errno: '12' },
    },
    {
      id: 'perftest-create',
      words: ['Unable to create '],
      form: /Unable to create (?:QP|CQ)\.|Unable to create (?:QP|CQ)$/g,
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_create_qp' },
      source: `${PERFTEST} 00b55b66 src/perftest_resources.c (unverified)`,
      sample: ['Unable to create QP.'],
      gives: { call: 'ibv_create_qp' },
    },
    {
      id: 'perftest-connect',
      words: [
        "Unable to Connect the HCA's through the link",
        'Unable to find the Infiniband/RoCE device',
        "Couldn't get context for the device",
        "Couldn't create IB resources",
        'Failed to create QP.',
      ],
      form: /(?<text>Unable to Connect the HCA's through the link|Unable to find the Infiniband\/RoCE device|Couldn't get context for the device|Couldn't create IB resources|^Failed to create QP\.)/g,
      role: 'consequence',
      source: `${PERFTEST} 00b55b66 src/atomic_bw.c:92, 205`,
      sample: [" Unable to Connect the HCA's through the link"],
      gives: { text: "Unable to Connect the HCA's through the link" },
    },
    {
      id: 'perftest-device',
      words: ['Device         : '],
      form: /Device {2,}: (?<value>\w+)/g,
      role: 'fact',
      isStart: true,
      fixed: { variable: 'device' },
      source: `${PERFTEST} 00b55b66 src/perftest_parameters.c`,
      sample: [' Dual-port       : OFF\t\tDevice         : mlx5_0'],
      gives: { variable: 'device', value: 'mlx5_0' },
    },
    {
      id: 'perftest-gid',
      words: [' GID: 254:128:', ' GID: 00:00:00'],
      form: /^GID: (?<value>\d{1,3}(?::\d{1,3}){15})/g,
      role: 'fact',
      fixed: { variable: 'GID' },
      source: `${PERFTEST} 00b55b66 src/perftest_communication.c`,
      sample: [' GID: 254:128:00:00:00:00:00:00:14:186:152:255:254:01:02:03'],
      gives: { variable: 'GID', value: '254:128:00:00:00:00:00:00:14:186:152:255:254:01:02:03' },
    },
    {
      id: 'perftest-path',
      words: [' Mtu             : ', ' GID index       : ', ' Link type       : '],
      form: /(?<variable>Mtu|GID index|Link type) {2,}: (?<value>\w+)/g,
      role: 'fact',
      source: `${PERFTEST} 00b55b66 src/perftest_parameters.c:4638`,
      sample: [' GID index       : 3'],
      gives: { variable: 'GID index', value: '3' },
    },
  ],
}

export const examples: Reader = {
  name: 'rdma-core',
  shapes: [
    {
      id: 'example-completion',
      words: ['Failed status '],
      form: /Failed status (?<text>[a-zA-Z][\w ]*?) \((?<status>\d+)\) for wr_id (?<value>-?\d+)/g,
      role: 'failure',
      kind: 'completion',
      source: `${CORE} libibverbs/examples/rc_pingpong.c:742`,
      sample: ['Failed status transport retry counter exceeded (12) for wr_id 2'],
      gives: { status: '12', value: '2' },
    },
    {
      id: 'example-modify',
      words: ['Failed to modify QP', 'Failed to modify recv QP', 'Failed to modify send QP'],
      form: /Failed to modify (?:recv |send )?QP(?:\[?\d*\]?| \d+)? to (?<state>INIT|RTR|RTS|RESET)(?:, check [\w ,]+)?(?:[:,]?.{0,600}?(?: ret=|: )(?<errno>-?\d+|[A-Z][a-z][A-Za-z ]+[a-z])(?: \[(?<value>-?\d+)\])?$)?/g,
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_modify_qp' },
      source: `${CORE} libibverbs/examples/rc_pingpong.c:138; ${PERFTEST} 00b55b66 src/perftest_resources.c:2999`,
      sample: ['Failed to modify QP to RTR'],
      gives: { call: 'ibv_modify_qp', state: 'RTR' },
    },
    {
      id: 'rping-event',
      words: ['cma event '],
      form: /cma event (?:RDMA_CM_EVENT_)?(?<event>[A-Z_]+), error:? (?<rejection>-?\d+)/g,
      role: 'failure',
      kind: 'refused',
      source: `${CORE} librdmacm/examples/rping.c:222`,
      sample: ['cma event RDMA_CM_EVENT_REJECTED, error 8'],
      gives: { event: 'REJECTED', rejection: '8' },
    },
    {
      id: 'cm-event',
      words: ['event: RDMA_CM_EVENT_'],
      form: /event: RDMA_CM_EVENT_(?<event>[A-Z_]+), error: (?<rejection>-?\d+)/g,
      role: 'failure',
      kind: 'refused',
      source: `${CORE} librdmacm/examples/cmatose.c:341`,
      sample: ['cmatose: event: RDMA_CM_EVENT_UNREACHABLE, error: -110'],
      gives: { event: 'UNREACHABLE', rejection: '-110' },
    },
    {
      id: 'rping-completion',
      words: ['cq completion failed status '],
      form: /cq completion failed status (?<status>\d+)/g,
      role: 'failure',
      kind: 'completion',
      source: `${CORE} librdmacm/examples/rping.c:304`,
      sample: ['cq completion failed status 5'],
      gives: { status: '5' },
    },
  ],
}

export const others: Reader = {
  name: 'program',
  shapes: [
    {
      id: 'gpi-call',
      words: [' (libibverbs)'],
      form: /Error (?<errno>\d+) \([^)]{1,60}\) at \([^)]{1,200}\): ?Failed to (?<call>[\w ]{3,60}?) \(libibverbs\)/g,
      role: 'failure',
      kind: 'call',
      source: 'cc-hpc-itwm/GPI-2 v1.3.0 src/devices/ib/GPI2_IB.c:813 (unverified)',
      sample: [
        '[Rank    0]: Error 22 (Invalid argument) at (/build/GPI-2/src/devices/ib/GPI2_IB.c:813):Failed to modify QP (libibverbs)',
      ],
      gives: { errno: '22', call: 'modify QP' },
    },
    {
      id: 'errno-call',
      words: [') Failed to '],
      form: new RegExp(
        `errno: (?<errno>${ERRNO})\\) Failed to (?<call>(?:create|modify|register|alloc\\w*|open) (?:qp|cq|mr|pd|srq|device))`,
        'gi',
      ),
      role: 'failure',
      kind: 'call',
      source: 'tutorials of RDMA (unverified)',
      sample: ['[ERROR] (setup_ib.c:184:setup_ib: errno: Cannot allocate memory) Failed to create qp'],
      gives: { errno: 'Cannot allocate memory', call: 'create qp' },
    },
    {
      id: 'gluster-channel',
      words: ['event channel creation failed'],
      form: new RegExp(`rdma_cm (?<call>event channel) creation failed(?: \\[(?<errno>${ERRNO})\\])?`, 'g'),
      role: 'failure',
      kind: 'call',
      source: 'gluster/glusterfs release-6 rpc/rpc-transport/rdma/src/rdma.c:4475 (unverified)',
      sample: [
        '[2026-03-01 12:03:05.123456] W [MSGID: 103071] [rdma.c:4475:__gf_rdma_ctx_create] 0-rpc-transport/rdma: rdma_cm event channel creation failed [No such device]',
      ],
      gives: { errno: 'No such device', call: 'event channel' },
    },
    {
      id: 'bad-completion',
      words: ['got bad completion with status: '],
      form: /got bad completion with status: (?<status>\w+), vendor syndrome: (?<vendor>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      source: 'the RDMA Aware Networks Programming User Manual (unverified)',
      sample: ['got bad completion with status: 0xc, vendor syndrome: 0x81'],
      gives: { status: '0xc', vendor: '0x81' },
    },
  ],
}

const MOONCAKE = 'kvcache-ai/Mooncake 3b5a5941 mooncake-transfer-engine/src/transport/rdma_transport'

export const mooncake: Reader = {
  name: 'Mooncake',
  shapes: [
    {
      id: 'mooncake-completion',
      words: ['Process failed for slice ('],
      form: /Process failed for slice \(opcode: (?<opcode>\w+), source_addr: \w+, length: (?<length>\w+), dest_addr: \w+, local_nic: (?<device>[^\s,]+), peer_nic: (?<peer>[^\s,@]+)@(?<peerDevice>[^\s,]+), dest_rkey: \w+.{0,80}?\): (?<status>[\w ]+)/g,
      role: 'failure',
      kind: 'completion',
      source: `${MOONCAKE}/worker_pool.cpp:654`,
      sample: [
        'E0301 12:03:05.123456  4242 worker_pool.cpp:654] Worker: Process failed for slice (opcode: 1, source_addr: 0x7f01, length: 65536, dest_addr: 0x7f02, local_nic: mlx5_3, peer_nic: 10.0.0.7:12345@mlx5_3, dest_rkey: 7, retry_cnt: 0, max_retry_cnt: 7): transport retry counter exceeded',
      ],
      gives: {
        device: 'mlx5_3',
        peer: '10.0.0.7:12345',
        peerDevice: 'mlx5_3',
        status: 'transport retry counter exceeded',
      },
    },
    {
      id: 'mooncake-handshake',
      words: ['[Handshake] Failed to modify QP'],
      form: /\[Handshake\] Failed to modify QP to (?<state>\w+)(?:, check [\w ,]+)?(?:: local=(?<local>[^\s,@]+)@(?<device>[^\s,]+), peer=(?<peer>[^\s,@]+)@(?<peerDevice>[^\s,]+).{0,200}?local_gid=(?<localGid>[^\s,]+), local_gid_index=(?<gidIndex>\d+))?.{0,400}?: (?<errno>[A-Z][a-z][A-Za-z ]+[a-z])(?: \[\d+\])?/g,
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_modify_qp' },
      source: `${MOONCAKE}/rdma_endpoint.cpp:1075, 1194`,
      sample: [
        'E0301 12:03:05.123456  4242 rdma_endpoint.cpp:1194] [Handshake] Failed to modify QP to RTR, check mtu, gid, peer lid, peer qp num: Connection timed out [110]',
      ],
      gives: { call: 'ibv_modify_qp', state: 'RTR', errno: 'Connection timed out' },
    },
    {
      id: 'mooncake-register',
      words: ['Failed to register memory 0x'],
      form: new RegExp(`Failed to register memory 0x\\w+: (?<errno>${ERRNO})`, 'g'),
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_reg_mr' },
      source: `${MOONCAKE}/rdma_context.cpp:602`,
      sample: [
        'E0301 12:00:05.123456  4242 rdma_context.cpp:602] Failed to register memory 0x7f01: Cannot allocate memory [12]',
      ],
      gives: { errno: 'Cannot allocate memory', call: 'ibv_reg_mr' },
    },
    {
      id: 'mooncake-call',
      words: [
        'Failed to create completion ',
        'Failed to create QP: ',
        'Failed to allocate new protection domain',
        'Failed to ibv_post_send: ',
      ],
      form: new RegExp(
        `Failed to (?<call>create completion (?:queue|channel)|create QP|allocate new protection domain|ibv_post_send)(?: on device (?<device>[^\\s:]+))?: (?<errno>${ERRNO})`,
        'g',
      ),
      role: 'failure',
      kind: 'call',
      source: `${MOONCAKE}/rdma_context.cpp:224, 234, 269; rdma_endpoint.cpp:145, 992`,
      sample: [
        'E0301 12:00:05.123456  4242 rdma_context.cpp:269] Failed to create completion queue: Cannot allocate memory [12]',
      ],
      gives: { call: 'create completion queue', errno: 'Cannot allocate memory' },
    },
    {
      id: 'mooncake-event',
      words: ['Received context async event '],
      form: /Received context async event (?<event>[A-Za-z][\w ]{2,60}?) for context (?<device>\S+)/g,
      role: 'failure',
      kind: 'event',
      source: `${MOONCAKE}/worker_pool.cpp:1014`,
      sample: [
        'W0301 12:03:05.123456  4242 worker_pool.cpp:1014] Worker: Received context async event port error for context mlx5_3',
      ],
      gives: { event: 'port error', device: 'mlx5_3' },
    },
    {
      id: 'mooncake-none',
      words: ['RdmaTransport: No available RNIC'],
      form: /RdmaTransport: No available RNIC/g,
      role: 'failure',
      kind: 'no-device',
      source: `${MOONCAKE}/rdma_transport.cpp:1139`,
      sample: ['E0301 12:00:05.123456  4242 rdma_transport.cpp:1139] RdmaTransport: No available RNIC'],
      gives: {},
    },
    {
      id: 'mooncake-port',
      words: [' port not active'],
      form: /Device (?<device>\S+) port not active/g,
      role: 'sign',
      source: `${MOONCAKE}/rdma_context.cpp:1228`,
      sample: ['W0301 12:00:05.123456  4242 rdma_context.cpp:1228] Device mlx5_3 port not active'],
      gives: { device: 'mlx5_3' },
    },
    {
      id: 'mooncake-endpoint',
      words: [
        'Cannot make connection for endpoint: ',
        'Timed out waiting for RDMA ready ACK ',
        'Cannot redispatch slice',
        'Context is not active: ',
        'Too many errors found in local RNIC ',
        'Failed to complete transfers after ',
      ],
      form: /(?<text>Cannot make connection for endpoint|Timed out waiting for RDMA ready ACK|Cannot redispatch slice|Context is not active|Too many errors found in local RNIC|Failed to complete transfers after)/g,
      role: 'consequence',
      source: `${MOONCAKE}/worker_pool.cpp:477, 510, 785, 824; rdma_context.cpp:716; ../kunpeng_transport/ub_context.cpp:429; mooncake-store/src/transfer_task.cpp:882`,
      sample: [
        'W0301 12:03:05.123456  4242 worker_pool.cpp:477] Worker: Cannot make connection for endpoint: 10.0.0.7:12345@mlx5_3',
      ],
      gives: { text: 'Cannot make connection for endpoint' },
    },
    {
      id: 'mooncake-device',
      words: ['GID: (GID_Index '],
      form: /RDMA device: (?<device>\S+), LID: \w+, GID: \(GID_Index (?<gidIndex>\d+)\) (?<localGid>\S+)/g,
      role: 'fact',
      isStart: true,
      fixed: { variable: 'path' },
      source: `${MOONCAKE}/rdma_context.cpp:286`,
      sample: [
        'I0301 12:00:00.123456  4242 rdma_context.cpp:286] RDMA device: mlx5_3, LID: 0, GID: (GID_Index 3) 00:00:00:00:00:00:00:00:00:00:ff:ff:0a:00:00:01',
      ],
      gives: { device: 'mlx5_3', gidIndex: '3', variable: 'path' },
    },
  ],
}

export const jobs: Reader = {
  name: 'PyTorch',
  shapes: [
    {
      id: 'pytorch-watchdog',
      words: ['Watchdog caught collective operation timeout'],
      form: /Watchdog caught collective operation timeout: ?\w*\(SeqNum=(?<value>\d+), OpType=(?<text>\w+)/g,
      role: 'consequence',
      source: 'pytorch/pytorch ProcessGroupNCCL.cpp (2.0, 2.5)',
      sample: [
        '[rank3]:[E1218 20:27:21.426415540 ProcessGroupNCCL.cpp:629] [Rank 3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=1, OpType=BROADCAST, NumelIn=1, NumelOut=1, Timeout(ms)=600000) ran for 600081 milliseconds before timing out.',
      ],
      gives: { value: '1', text: 'BROADCAST' },
    },
    {
      id: 'flight-recorder',
      words: [
        'Received a dump signal due to a collective timeout from ',
        'failure detected by watchdog at work sequence id: ',
        'First PG on this rank to signal dumping',
        "'s watchdog got stuck for ",
      ],
      form: /(?:Received a dump signal due to a collective timeout from +(?<text>this local rank|rank \d+)(?: and .{1,80}?Last enqueued NCCL work: \d+, last completed NCCL work: (?<value>\d+))?|failure detected by watchdog at work sequence id: \d+|First PG on this rank to signal dumping|ProcessGroup\w{1,12}'s watchdog got stuck for \d+ seconds)/g,
      role: 'consequence',
      source:
        'pytorch/pytorch torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp getNCCLWatchdogTimeoutErrorMsg, watchdogHandler, heartbeatMonitor (2.5 and later)',
      sample: [
        '[rank5]:[E703 17:54:18.884528282 ProcessGroupNCCL.cpp:1987] [PG ID 0 PG GUID 0(default_pg) Rank 5] Received a dump signal due to a collective timeout from  rank 7 and we will try our best to dump the debug info. Last enqueued NCCL work: 561, last completed NCCL work: 560.This is most likely caused by incorrect usages of collectives',
      ],
      gives: { text: 'rank 7', value: '560' },
    },
    {
      id: 'pytorch-abort',
      words: [
        'To avoid data inconsistency, we are taking the entire process down',
        'DistBackendError',
        'ChildFailedError',
      ],
      form: /(?:taking the entire process down|DistBackendError|ChildFailedError)/g,
      role: 'consequence',
      source: 'pytorch/pytorch ProcessGroupNCCL.cpp (unverified)',
      sample: ['torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1251'],
      gives: {},
    },
    {
      id: 'uccl-completion',
      words: ['CQE ERROR wr_id='],
      form: /CQE ERROR wr_id=\d+ status=(?<status>\d+)\([\w ]+\) opcode=(?<opcode>\d+) byte_len=(?<length>\d+) vendor_err=0x(?<vendor>\w+) qp_num=0x(?<qpn>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      source: 'uccl-project/uccl ep/src/rdma.cpp',
      sample: [
        'CQE ERROR wr_id=7 status=12(transport retry counter exceeded) opcode=0 byte_len=0 vendor_err=0x81 qp_num=0x1a2b',
      ],
      gives: { status: '12', vendor: '81', qpn: '1a2b', opcode: '0', length: '0' },
    },
  ],
}
