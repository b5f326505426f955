/* libfabric (verbs, efa, rxm), Open MPI's openib, MVAPICH, GASNet: what stands between programs and verbs. */
import type { Reader } from '../shape.ts'

const OFI = 'ofiwg/libfabric af8ddbe9'

export const libfabric: Reader = {
  name: 'libfabric',
  shapes: [
    {
      id: 'rxm-event',
      words: ['fi_eq_readerr: err: '],
      form: /fi_eq_readerr: err: (?<text>[\w ]+?) \((?<errno>-?\d+)\), prov_err: [\w ./-]+? \((?<negated>-?\d+)\)/g,
      role: 'failure',
      kind: 'refused',
      source: `${OFI} prov/rxm/src/rxm_conn.c:974, 981; prov/verbs/src/verbs_eq.c:1112`,
      sample: [
        'libfabric:4242:1772366585:ofi_rxm:cq:rxm_handle_error():974<warn> fi_eq_readerr: err: Connection refused (111), prov_err: Unknown error -28 (-28)',
      ],
      gives: { errno: '111', negated: '-28', text: 'Connection refused' },
    },
    {
      id: 'rxm-completion',
      words: ['fi_cq_readerr: err: '],
      form: /fi_cq_readerr: err: (?<text>[\w/ ]+?) \((?<errno>-?\d+)\), prov_err: (?<request>[\w ]+?) \((?<status>\d+)\)/g,
      role: 'failure',
      kind: 'completion',
      source: `${OFI} prov/rxm/src/rxm_cq.c:1769; prov/verbs/src/verbs_cq.c:286`,
      sample: [
        'libfabric:4242:1772366585:ofi_rxm:cq:rxm_handle_comp_error():1769<warn> fi_cq_readerr: err: Input/output error (5), prov_err: transport retry counter exceeded (12)',
      ],
      gives: { errno: '5', status: '12' },
    },
    {
      id: 'vrb-reject',
      words: ['Non-application generated CM Reject '],
      form: /Non-application generated CM Reject (?<rejection>\d+)/g,
      role: 'failure',
      kind: 'refused',
      fixed: { event: 'REJECTED' },
      source: `${OFI} prov/verbs/src/verbs_eq.c:697`,
      sample: [
        'libfabric:4242:1772366585:core:verbs:ep_ctrl:vrb_eq_xrc_rej_event():697<warn> Non-application generated CM Reject 8',
      ],
      gives: { rejection: '8', event: 'REJECTED' },
    },
    {
      id: 'vrb-event',
      words: ['CM error event '],
      form: /CM error event (?:RDMA_CM_EVENT_)?(?<event>\w+), status (?<rejection>-?\d+)/g,
      role: 'failure',
      kind: 'refused',
      source: `${OFI} prov/verbs/src/verbs_eq.c:768`,
      sample: [
        'libfabric:4242:1772366585:core:verbs:ep_ctrl:vrb_eq_xrc_cm_err_event():768<warn> CM error event RDMA_CM_EVENT_UNREACHABLE, status -110',
      ],
      gives: { event: 'UNREACHABLE', rejection: '-110' },
    },
    {
      id: 'vrb-call',
      words: ['rdma_connect failed: ', 'rdma_resolve_route failed: ', 'rdma_create_qp failed: '],
      form: /(?<call>rdma_(?:connect|resolve_route|create_qp)) failed: (?:[A-Z][\w ]+\()?(?<errno>-?\d+)/g,
      role: 'failure',
      kind: 'call',
      source: `${OFI} prov/verbs/src/verbs_eq.c:876, 910, 978`,
      sample: [
        'libfabric:4242:1772366585:core:verbs:ep_ctrl:vrb_eq_addr_resolved_event():910<warn> rdma_resolve_route failed: -110',
      ],
      gives: { call: 'rdma_resolve_route', errno: '-110' },
    },
    {
      id: 'efa-operation',
      words: [' My EFA addr: '],
      form: /(?:err: (?<errno>\d+), message: )?(?<text>[A-Z][\w ,()-]{3,120}?)\.? My EFA addr: (?<local>\S+)(?: My host id: (?<value>\S+))? Peer EFA addr: (?<peer>\S+)(?: Peer host id: \S+)?(?: \((?<vendor>\d+)\))?/g,
      role: 'failure',
      kind: 'completion',
      base: 10,
      family: 'efa',
      source: `${OFI} prov/efa/src/rdm/efa_rdm_util.c:132, efa_rdm_ope.c:660`,
      sample: [
        'libfabric:4242:1772366585:efa:cq:efa_rdm_txe_handle_error():660<warn> err: 110, message: Unresponsive receiver (connection previously established) My EFA addr: fi_addr_efa://[fe80::1]:1:2 My host id: i-01 Peer EFA addr: fi_addr_efa://[fe80::2]:1:2 Peer host id: i-02 (4124)',
      ],
      gives: { errno: '110', vendor: '4124', value: 'i-01' },
    },
    {
      id: 'efa-poll',
      words: ['Encountered error during CQ polling'],
      form: /Encountered error during CQ polling\. err: (?<text>[\w ]+?) \((?<errno>\d+)\), prov_errno: .{1,200}? \((?<vendor>\d+)\)/g,
      role: 'failure',
      kind: 'completion',
      base: 10,
      family: 'efa',
      source: `${OFI} prov/efa/src/efa_cq.c:105`,
      sample: [
        'libfabric:4242:1772366585:efa:cq:efa_cq_handle_error():105<info> Encountered error during CQ polling. err: No route to host (113), prov_errno: Unreachable remote - never received a response (15)',
      ],
      gives: { errno: '113', vendor: '15', text: 'No route to host' },
    },
    {
      id: 'efa-abort',
      words: ['EFA provider has encountered an internal error'],
      form: /EFA provider has encountered an internal error/g,
      role: 'consequence',
      source: `${OFI} prov/efa/src/efa_base_ep.c:835`,
      sample: ['Libfabric EFA provider has encountered an internal error:'],
      gives: {},
    },
  ],
}

export const mpi: Reader = {
  name: 'MPI',
  shapes: [
    {
      id: 'openib-completion',
      words: ['CQ with status '],
      form: /(?:from (?<local>\S+) to: (?<peer>\S+) )?error polling [HL]P CQ with status (?<text>[A-Z ]+?) status number (?<status>\d+) for wr_id \w+ opcode (?<opcode>-?\w+) +vendor error (?<vendor>\w+) qp_idx (?<value>\w+)/g,
      role: 'failure',
      kind: 'completion',
      base: 10,
      source: 'open-mpi/ompi v4.1.8rc1 opal/mca/btl/openib/btl_openib_component.c:3685',
      sample: [
        '[node1][[4242,1],3][btl_openib_component.c:3685:handle_wc] from node1 to: node7 error polling LP CQ with status RETRY EXCEEDED ERROR status number 12 for wr_id 7f01 opcode 32616  vendor error 129 qp_idx 0',
      ],
      gives: { local: 'node1', peer: 'node7', status: '12', opcode: '32616', vendor: '129', value: '0' },
    },
    {
      id: 'mvapich-completion',
      words: ['] Got completion with error '],
      form: /\] Got completion with error (?<status>\d+), vendor code=0x(?<vendor>\w+), dest rank=(?<value>\d+)/g,
      role: 'failure',
      kind: 'completion',
      base: 16,
      source: 'MVAPICH2 2.3 src/mpid/ch3/channels/mrail/src/gen2/ibv_channel_manager.c',
      sample: [
        '[node1:mpi_rank_3][handle_cqe] ibv_channel_manager.c:600: [] Got completion with error 12, vendor code=0x81, dest rank=7',
      ],
      gives: { status: '12', vendor: '81', value: '7' },
    },
    {
      id: 'gasnet-send',
      words: ['> snd status='],
      form: /@ ?(?<value>\d+)> snd status=(?<status>\w+) opcode=(?<opcode>-?\d+) dst_node=(?<text>\d+) dst_qp=(?<qpn>-?\d+)/g,
      role: 'failure',
      kind: 'completion',
      source: 'GASNet 2023.3 ibv-conduit/gasnet_core_sndrcv.c',
      sample: ['@ 3> snd status=TIMEOUT opcode=0 dst_node=7 dst_qp=0'],
      gives: { value: '3', status: 'TIMEOUT', opcode: '0', text: '7', qpn: '0' },
    },
    {
      id: 'mpi-no-pml',
      words: ['PML ucx cannot be selected'],
      form: /PML ucx cannot be selected/g,
      role: 'failure',
      kind: 'no-device',
      source: 'open-mpi/ompi v4.1.4 ompi/mca/pml/base/pml_base_select.c:304',
      sample: ['[node1:22011] PML ucx cannot be selected'],
      gives: {},
    },
    {
      id: 'mpi-abort',
      words: ['MPI_ABORT was invoked', 'mpirun noticed that process rank', 'CANCELLED AT '],
      form: /(?:MPI_ABORT was invoked|mpirun noticed that process rank (?<value>\d+)|\*\*\* (?:JOB|STEP) \S+ .{0,60}CANCELLED)/g,
      role: 'consequence',
      source: "Open MPI's and Slurm's messages (unverified)",
      sample: ['mpirun noticed that process rank 3 with PID 4242 on node node1 exited on signal 6 (Aborted).'],
      gives: { value: '3' },
    },
  ],
}
