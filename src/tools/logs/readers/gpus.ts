/* Libraries by which GPUs communicate: NVSHMEM, DeepEP on top of it, and NIXL. */
import { ERRNO } from '../meanings/errnos.ts'
import type { Reader } from '../shape.ts'

const NVSHMEM = 'NVIDIA/nvshmem 2d7d25f src'
const NIXL = 'ai-dynamo/nixl 8770b655 src'

export const nvshmem: Reader = {
  name: 'NVSHMEM',
  shapes: [
    {
      id: 'nvshmem-completion',
      words: ['ibv_poll_cq failed, status: '],
      form: /non-zero status: \d+ ibv_poll_cq failed, status: (?<status>\d+)/g,
      role: 'failure',
      kind: 'completion',
      source: `${NVSHMEM}/modules/transport/ibrc/ibrc.cpp:1072`,
      sample: ['/build/ibrc.cpp:1071: non-zero status: 12 ibv_poll_cq failed, status: 12'],
      gives: { status: '12' },
    },
    {
      id: 'nvshmem-cqe',
      words: ['vendor_err_synd='],
      form: /syndrome=0x(?<syndrome>\w+), vendor_err_synd=0x(?<vendor>\w+), hw_err_synd=(?:0x)?\w+, hw_synd_type=(?:0x)?\w+/g,
      next: /wqe_counter=(?<wqe>\w+), s_wqe_opcode_qpn=0x\w{0,2}?(?<qpn>\w{1,6}),/,
      role: 'failure',
      kind: 'completion',
      base: 16,
      family: 'mlx5',
      source: `${NVSHMEM}/include/non_abi/device/pt-to-pt/ibgda_device.cuh:590`,
      sample: [
        '   syndrome=0x15, vendor_err_synd=0x81, hw_err_synd=0, hw_synd_type=0,',
        '   wqe_counter=0x7, s_wqe_opcode_qpn=0x8006214,',
      ],
      gives: { syndrome: '15', vendor: '81', wqe: '0x7', qpn: '006214' },
    },
    {
      id: 'nvshmem-command',
      words: ['Error in mlx5dv_devx_obj_modify for '],
      form: /Error in mlx5dv_devx_obj_modify for (?<command>\w+) with syndrome (?<syndrome>\w+)/g,
      role: 'failure',
      kind: 'command',
      family: 'mlx5',
      source: `${NVSHMEM}/modules/transport/ibgda/ibgda.cpp:1635, 1682, 1783, 1818`,
      sample: [
        '/build/ibgda.cpp:1782: non-zero status: 121 Error in mlx5dv_devx_obj_modify for INIT2RTR_QP with syndrome 29e0df',
      ],
      gives: { command: 'INIT2RTR_QP', syndrome: '29e0df' },
    },
    {
      id: 'nvshmem-register',
      words: ['NULL value mem registration failed'],
      form: new RegExp(`NULL value mem registration failed(?:\\. Reason: (?<errno>${ERRNO}))?`, 'g'),
      role: 'failure',
      kind: 'call',
      fixed: { call: 'ibv_reg_mr' },
      source: `${NVSHMEM}/modules/transport/common/transport_ib_common.cpp:129`,
      sample: [
        '/build/transport_ib_common.cpp:128: NULL value mem registration failed. Reason: Cannot allocate memory',
      ],
      gives: { call: 'ibv_reg_mr', errno: 'Cannot allocate memory' },
    },
    {
      id: 'nvshmem-null',
      words: [': NULL value '],
      form: /: NULL value (?:Unable to |cannot allocate )?(?<call>create ah|mlx5dv_devx_uar|get_device_list(?= failed)|(?:cq|srq|qp) creation(?= failed)|ibv_(?:alloc|create)_[\w ]{2,30}?(?= failed)|mlx5dv_create_qp(?= failed))/g,
      role: 'failure',
      kind: 'call',
      source: `${NVSHMEM}/include/non_abi/nvshmemx_error.h:83; modules/transport/ibgda/ibgda.cpp, ibrc/ibrc.cpp`,
      sample: ['/build/ibgda.cpp:2234: NULL value Unable to create ah.'],
      gives: { call: 'create ah' },
    },
    {
      id: 'nvshmem-fabric',
      words: ['Error in libfabric operation (', 'CQ reported error ('],
      form: /(?:Error in (?<call>libfabric operation)|CQ reported error) \((?<errno>-?\d+)\)/g,
      role: 'failure',
      kind: 'call',
      isFabric: true,
      source: `${NVSHMEM}/modules/transport/libfabric/libfabric.cpp:160, 234`,
      sample: ['WARN: Error in libfabric operation (-113): No route to host.'],
      gives: { call: 'libfabric operation', errno: '-113' },
    },
    {
      id: 'nvshmem-peermem',
      words: ['neither nv_peer_mem, or nvidia_peermem detected'],
      form: /neither nv_peer_mem, or nvidia_peermem detected/g,
      role: 'sign',
      fixed: { text: 'no nvidia_peermem' },
      source: `${NVSHMEM}/modules/transport/ibrc/ibrc.cpp:1846`,
      sample: ['neither nv_peer_mem, or nvidia_peermem detected. Skipping transport.'],
      gives: { text: 'no nvidia_peermem' },
    },
    {
      id: 'nvshmem-adapter',
      words: ['is not enumerated as an mlx5 device'],
      form: /device (?<device>[\w.-]{1,64}) is not enumerated as an mlx5 device/g,
      role: 'sign',
      source: `${NVSHMEM}/modules/transport/ibgda/ibgda.cpp:4659`,
      sample: ['WARN: device erdma_0 is not enumerated as an mlx5 device. Skipping...'],
      gives: { device: 'erdma_0' },
    },
    {
      id: 'nvshmem-timeout',
      words: ['ibgda_poll_cq timeout:'],
      form: /ibgda_poll_cq timeout:/g,
      role: 'consequence',
      source: `${NVSHMEM}/include/non_abi/device/pt-to-pt/ibgda_device.cuh:466`,
      sample: ['[3] ibgda_poll_cq timeout:'],
      gives: {},
    },
    {
      id: 'nvshmem-init',
      words: ['init failed for transport: IBGDA', 'Unable to initialize any transports'],
      form: /(?<text>init failed for transport: IBGDA|Unable to initialize any transports)/g,
      role: 'consequence',
      source: `${NVSHMEM}/host/transport/transport.cpp:282, 294`,
      sample: ['/build/transport.cpp:nvshmemi_transport_init:275: init failed for transport: IBGDA'],
      gives: { text: 'init failed for transport: IBGDA' },
    },
    {
      id: 'nvshmem-status',
      words: [': non-zero status: '],
      form: /: non-zero status: (?<value>\d+) (?<text>(?!ibv_)[\w ]{3,80})/g,
      role: 'consequence',
      source: `${NVSHMEM}/include/non_abi/nvshmemx_error.h:71, 113; host/transport/transport.cpp:434`,
      sample: ['transport.cpp:400: non-zero status: 7 connect EPS failed'],
      gives: { value: '7', text: 'connect EPS failed' },
    },
  ],
}

export const deepEp: Reader = {
  name: 'DeepEP',
  shapes: [
    {
      id: 'deepep-timeout',
      words: ['DeepEP '],
      form: /DeepEP (?:error|[\w() -]{0,60}?timeout)/g,
      role: 'consequence',
      source:
        'deepseek-ai/DeepEP v1.2.1 csrc/kernels/internode.cu:518, 642, 1744, utils.cuh:513, deep_ep.cpp:465, 836; dd758ca deep_ep/include/deep_ep/common/comm.cuh:174',
      sample: ['DeepEP dispatch RDMA sender timeout, channel: 3, RDMA: 0, nvl: 1, dst RDMA lane: 1, head: 7, tail: 9'],
      gives: {},
    },
  ],
}

export const nixl: Reader = {
  name: 'NIXL',
  shapes: [
    {
      id: 'nixl-completion',
      words: ['CQ read failed on rail '],
      form: new RegExp(
        `CQ read failed on rail \\d+ with error: (?<errno>${ERRNO}|[^:]{1,60}) prov_errno: (?<vendor>\\d+)`,
        'g',
      ),
      role: 'failure',
      kind: 'completion',
      base: 10,
      family: 'efa',
      source: `${NIXL}/utils/libfabric/libfabric_rail.cpp:755`,
      sample: [
        'E0301 12:03:05.123456  4242 libfabric_rail.cpp:755] CQ read failed on rail 3 with error: No route to host prov_errno: 15 len: 0',
      ],
      gives: { errno: 'No route to host', vendor: '15' },
    },
    {
      id: 'nixl-rail',
      words: [' failed for rail '],
      form: new RegExp(`(?<call>fi_[\\w ]{3,40}?) failed for rail \\d+: (?<errno>${ERRNO})(?! - continuing)`, 'g'),
      role: 'failure',
      kind: 'call',
      isFabric: true,
      source: `${NIXL}/utils/libfabric/libfabric_rail.cpp:458, 473, 480, 508`,
      sample: ['E0301 12:03:05.123456  4242 libfabric_rail.cpp:480] fi_domain failed for rail 3: No such device'],
      gives: { call: 'fi_domain', errno: 'No such device' },
    },
    {
      id: 'nixl-handshake',
      words: ['; connection cannot be established.'],
      form: /Handshake from peer '(?<peer>[^']{1,120})' not received after (?<seconds>\d+)s/g,
      role: 'failure',
      kind: 'unreachable',
      source: `${NIXL}/plugins/libfabric/libfabric_backend.cpp:914`,
      sample: [
        "E0301 12:03:05.123456  4242 libfabric_backend.cpp:914] Handshake from peer 'prefill-0' not received after 30s; connection cannot be established.",
      ],
      gives: { peer: 'prefill-0', seconds: '30' },
    },
    {
      id: 'nixl-register',
      words: ['failed to ucp_mem_map: '],
      form: /failed to (?<call>ucp_mem_map): (?<text>[A-Z][\w /-]{3,60})/g,
      role: 'failure',
      kind: 'call',
      source: `${NIXL}/plugins/ucx/ucx_utils.cpp:645`,
      sample: [
        'E0301 12:03:05.123456  4242 ucx_utils.cpp:645] nixlUcxContext ucx: failed to ucp_mem_map: Out of memory',
      ],
      gives: { call: 'ucp_mem_map', text: 'Out of memory' },
    },
    {
      id: 'nixl-error',
      words: [
        'Unexpected UCX error: ',
        'UCX AM send failed with status ',
        'UCX endpoint create failed: ',
        'Transfer completed with CQ error',
        'registration failed for the specified or all potential backends',
      ],
      form: /(?<text>Unexpected UCX error|UCX AM send failed with status|UCX endpoint create failed|Transfer completed with CQ error|registration failed for the specified or all potential backends)/g,
      role: 'consequence',
      source: `${NIXL}/plugins/ucx/ucx_utils.cpp:212, 621, ucx_enums.cpp:58; plugins/libfabric/libfabric_backend.cpp:1655; core/nixl_agent.cpp:506`,
      sample: [
        'E0301 12:03:05.123456  4242 ucx_utils.cpp:212] UCX AM send failed with status -25 (Endpoint is not connected)',
      ],
      gives: { text: 'UCX AM send failed with status' },
    },
    {
      id: 'nixl',
      words: ['NIXL_ERR_'],
      form: /NIXL_ERR_(?<text>\w+)/g,
      role: 'consequence',
      source: `${NIXL}/core/nixl_enum_strings.cpp:78`,
      sample: ['nixl_agent.cpp: transfer failed: NIXL_ERR_REMOTE_DISCONNECT'],
      gives: { text: 'REMOTE_DISCONNECT' },
    },
  ],
}
