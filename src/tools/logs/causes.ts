/*
 * Causes of failures, by class, likeliest first. Each says what speaks for and against it in this log, and has one
 * command that decides on the user's machines. The order among those that the log says nothing about is that of public
 * reports.
 */

import type { Failure, LogAnalysis } from './analysis.ts'
import { type Chain, farDeviceOf, type Shared } from './chains.ts'
import { emptyGidIn } from './facts.ts'
import { errnoLabel } from './meanings/errnos.ts'
import { vendorRow } from './meanings/vendor-errors.ts'

export type FailureClass =
  | 'no-answer'
  | 'no-receive'
  | 'local-memory'
  | 'local-request'
  | 'remote-memory'
  | 'remote-request'
  | 'remote-operation'
  | 'no-peer-qp'
  | 'disconnected'
  | 'aborted'
  | 'flushed'
  | 'qp-setup'
  | 'registration'
  | 'resources'
  | 'no-device'
  | 'firmware'
  | 'adapter-failed'
  | 'refused-access'
  | 'port-down'
  | 'cq-overrun'
  | 'unreachable'
  | 'rejected'
  | 'incompatible'
  | 'storage-timeout'
  | 'queue-full'
  | 'provider'
  | 'other'

const byStatus: Readonly<Record<string, FailureClass>> = {
  RETRY_EXC_ERR: 'no-answer',
  RESP_TIMEOUT_ERR: 'no-answer',
  RNR_RETRY_EXC_ERR: 'no-receive',
  LOC_PROT_ERR: 'local-memory',
  LOC_LEN_ERR: 'local-request',
  LOC_QP_OP_ERR: 'local-request',
  MW_BIND_ERR: 'local-request',
  REM_ACCESS_ERR: 'remote-memory',
  LOC_ACCESS_ERR: 'refused-access',
  REM_INV_REQ_ERR: 'remote-request',
  REM_OP_ERR: 'remote-operation',
  REM_INV_RD_REQ_ERR: 'no-peer-qp',
  REM_ABORT_ERR: 'aborted',
  WR_FLUSH_ERR: 'flushed',
  FATAL_ERR: 'adapter-failed',
}
const byEvent: Readonly<Record<string, FailureClass>> = {
  QP_ACCESS_ERR: 'refused-access',
  QP_REQ_ERR: 'remote-request',
  DEVICE_FATAL: 'adapter-failed',
  DEVICE_REMOVAL: 'adapter-failed',
  PORT_ERR: 'port-down',
  CQ_ERR: 'cq-overrun',
  UNREACHABLE: 'unreachable',
  ADDR_ERROR: 'unreachable',
  ROUTE_ERROR: 'unreachable',
  REJECTED: 'rejected',
}

export const classOf = (failure: Failure): FailureClass => {
  const { kind, status, event, family, vendor, fields } = failure
  const call = fields.call ?? ''
  switch (kind) {
    case 'completion': {
      const meant =
        status ?? (family === undefined || vendor === undefined ? undefined : vendorRow(family, vendor)?.statuses?.[0])
      if (meant !== undefined) return byStatus[meant] ?? 'other'
      return vendor !== undefined && vendor >= 4124 && vendor <= 4126 ? 'no-answer' : 'other'
    }
    case 'call':
      if (failure.shape.isFabric) return failure.errno === 12 ? 'resources' : 'provider'
      // It waits in a read, which fails only if the device is gone.
      if (/get_cq_event/.test(call)) return 'adapter-failed'
      if (/_(?:get_async_event|poll_cq|query_|destroy_|dereg_|dealloc_|close_)/.test(call)) return 'other'
      if (/modify[_ ]qp|create[_ ]ah/i.test(call)) return 'qp-setup'
      if (/post[_ ]/.test(call)) return 'queue-full'
      if (/reg[_ ]|alloc\w*[_ ]mr|create mr|register|mem_map/i.test(call)) return 'registration'
      if (/open_device|get_device|event channel/.test(call)) return 'no-device'
      return /resolv|getting addr|connect|bind|multicast/.test(call) ? 'unreachable' : 'resources'
    case 'command':
      // Of UCX by DevX: INIT2RTR_QP and its neighbours.
      return call === 'obj_modify' && /^50[2-4]$|2(?:INIT|RTR|RTS)_QP/.test(fields.command ?? '')
        ? 'qp-setup'
        : 'firmware'
    case 'command-timeout':
    case 'health':
    case 'device':
      return 'adapter-failed'
    case 'unreachable':
      return failure.errno === 111 ? 'rejected' : kind
    case 'no-device':
    case 'incompatible':
      return kind
    case 'unanswered':
      return 'no-answer'
    case 'gid':
      return 'qp-setup'
    case 'closed':
      return 'disconnected'
    case 'timeout':
      return 'storage-timeout'
    case 'refused':
      return failure.fields.negated !== undefined ? 'rejected' : (byEvent[event ?? ''] ?? 'other')
    default:
      return event === undefined ? 'other' : (byEvent[event] ?? (fields.value === '50a' ? 'no-answer' : 'other'))
  }
}

/** What a cause is judged by. */
export interface Context {
  readonly chain: Chain
  readonly first: Failure
  readonly analysis: LogAnalysis
  /** As the user can type them; in place of what the log does not say, a word in capitals. */
  readonly device: string
  readonly gid: string
  readonly host: string
  readonly peer: string
  /**
   * All of the log have failed at their first request, or within a minute of the program's start; undefined: not known.
   */
  readonly isEarly: boolean | undefined
  readonly hasGpus: boolean
  readonly shared: readonly Shared[]
}

interface Cause {
  readonly id: string
  readonly text: string
  readonly weight: number
  supports(context: Context): readonly string[]
  opposes(context: Context): readonly string[]
  decide(context: Context): string
}

const none = (): readonly string[] => []
const when = (holds: boolean | undefined, text: string): readonly string[] => (holds === true ? [text] : [])

const minutes = (seconds: number): string =>
  seconds < 120
    ? `${Math.round(seconds)} s`
    : seconds < 7200
      ? `${Math.round(seconds / 60)} min`
      : `${(seconds / 3600).toFixed(1)} h`

const sinceText = ({ chain }: Context): string =>
  chain.after === undefined ? '' : `, ${minutes(chain.after)} after the program began`
const early = (context: Context): readonly string[] => {
  const { first, isEarly } = context
  if (isEarly !== true) return []
  return [
    first.fields.wqe !== undefined && Number(first.fields.wqe) === 0
      ? 'the request is the first of its queue pair (wqe 0), or one in 65,536: this connection has never worked'
      : `it fails at the start${sinceText(context)}`,
  ]
}
const late = (context: Context): readonly string[] =>
  when(context.isEarly === false, `it has worked before it failed${sinceText(context)}`)

/** Failures and signs on the host of the peer, or on its address. */
const atPeer = ({ chain, first, peer }: Context, kinds: RegExp): readonly string[] =>
  [...chain.failures, ...chain.signs, ...chain.consequences]
    .filter(
      one =>
        one !== first &&
        (one.host === peer || one.host === first.peer) &&
        one.host !== undefined &&
        one.host !== first.host,
    )
    .filter(one =>
      kinds.test(`${one.kind ?? ''} ${one.event ?? one.status ?? ''} ${one.fields.text ?? ''} ${one.shape.id}`),
    )
    .slice(0, 2)
    .map(one => `on ${one.host}: ${one.text.slice(0, 120)} (${one.source}:${one.line})`)
const signs = ({ chain }: Context, kinds: RegExp): readonly string[] =>
  [...chain.signs, ...chain.failures]
    .filter(one => kinds.test(`${one.event ?? ''} ${one.fields.text ?? ''} ${one.shape.id}`))
    .slice(0, 2)
    .map(
      one => `${one.host === undefined ? '' : `on ${one.host}: `}${one.text.slice(0, 120)} (${one.source}:${one.line})`,
    )

/** Several hosts fail with the same one, which is the peer of the first. */
const oneEnd = ({ shared, first, peer, chain }: Context): readonly string[] => {
  const hosts = new Set(chain.failures.map(({ host }) => host))
  const end = shared.find(
    one => one.end !== undefined && one.of > 2 && (one.end === peer || one.end.endsWith(` of ${peer}`)),
  )
  return when(
    end !== undefined && first.host !== peer && hosts.size > 1,
    `${end?.count} of ${end?.of} failures name ${end?.end}`,
  )
}

const PEER_DOWN = /command|health|device|oom|xid|DEVICE_FATAL|abort/
const LINK = /PORT_ERR|Link down|Cable|link|module|temperature/

/** As part of a command. */
const typed = (peer: string): string => (peer.includes(' ') ? 'PEER' : peer)
const pingpong = ({ device, gid, peer }: Context): string =>
  `ibv_rc_pingpong -d ${device} -g ${gid} on ${peer}, then ibv_rc_pingpong -d ${device} -g ${gid} ${typed(peer)} here`

const PATH: Cause = {
  id: 'path',
  text: 'the two adapters cannot reach each other at these addresses: wrong GID index, VLAN, subnet or route, or a firewall',
  weight: 5,
  supports: early,
  opposes: late,
  decide: context =>
    `${pingpong(context)}: with exactly this adapter and GID index at both ends. A ping proves nothing about it`,
}
const PEER_ENDED: Cause = {
  id: 'peer-ended',
  text: 'the process or adapter at the other end had failed or ended before, so that nothing answers there',
  weight: 4,
  supports: context => [...atPeer(context, PEER_DOWN), ...oneEnd(context)],
  opposes: none,
  decide: ({ peer }) => `the log and \`dmesg -T\` of ${peer} of the same second: what failed there first?`,
}
const LINK_DOWN: Cause = {
  id: 'link',
  text: 'a link on the way went down, or is bad',
  weight: 2,
  supports: context => [...signs(context, LINK), ...oneEnd(context)],
  opposes: early,
  decide: ({ device, peer }) =>
    `cat /sys/class/infiniband/${device}/ports/1/counters/link_downed here and on ${peer}, before and after`,
}
const LOSS: Cause = {
  id: 'loss',
  text: 'the network drops packets: congestion without PFC for the traffic class of the job, or a bad link',
  weight: 3,
  supports: none,
  opposes: early,
  decide: ({ device }) =>
    `cat /sys/class/infiniband/${device}/ports/1/hw_counters/{packet_seq_err,local_ack_timeout_err,out_of_sequence} before and after at both ends; on the ports, ethtool -S INTERFACE | grep -E 'discard|pause'`,
}
const CROSS_RAIL: Cause = {
  id: 'cross-rail',
  text: 'the adapters are of different rails, which the network does not connect',
  weight: 2,
  supports: ({ first, analysis }) => {
    const far = farDeviceOf(first, analysis)
    return when(
      far !== undefined && first.device !== undefined && far !== first.device,
      `${first.device} talks to ${far} of the peer`,
    )
  },
  opposes: ({ first, analysis }) => {
    const far = farDeviceOf(first, analysis)
    return when(far !== undefined && far === first.device, `both ends use ${far}`)
  },
  decide: () => 'run once with NCCL_CROSS_NIC=0 (NCCL), or with one adapter for each process',
}
const SECURITY_GROUP: Cause = {
  id: 'security-group',
  text: 'the security group does not let EFA traffic pass: it must allow all traffic to and from itself, both ways, in one subnet',
  weight: 7,
  supports: ({ first }) => when(first.vendor === 15, 'EFA says 15: the peer has never answered'),
  opposes: ({ first }) =>
    when(first.vendor === 13 || first.vendor === 4124, 'EFA says that the peer has answered before'),
  decide: ({ peer }) => `fi_pingpong -p efa -e rdm on ${peer}, then fi_pingpong -p efa -e rdm ${typed(peer)} here`,
}

/** Vendor errors of ConnectX that mistakes of programs have, in reports. */
const BY_PROGRAM: readonly number[] = [0x52, 0x53, 0x56, 0x32]

const GPU_PCIE: Cause = {
  id: 'gpu-pcie',
  text: 'PCIe or the IOMMU refuses the adapter access to memory of the GPU: ACS is on, the IOMMU translates, or the GPU driver does not fit',
  weight: 4,
  supports: ({ hasGpus, first }) => [
    ...when(hasGpus, 'the program sends from GPUs'),
    ...when(first.vendor === 0x51, 'vendor error 0x51 has come only with memory of GPUs (a few reports)'),
  ],
  opposes: ({ first }) =>
    when(BY_PROGRAM.includes(first.vendor ?? 0), 'in reports of this vendor error the program was wrong'),
  decide: () =>
    'run once with NCCL_NET_GDR_LEVEL=LOC (or without GPUDirect): if it works, sudo lspci -vvv | grep ACSCtl shows `SrcValid+` at a bridge, or /proc/cmdline has iommu without pt',
}
const BAD_LKEY: Cause = {
  id: 'lkey',
  text: 'the program posted a buffer that its region does not hold: a wrong lkey, an address or length outside, no right to write, or memory that was deregistered',
  weight: 5,
  supports: ({ first }) =>
    when(BY_PROGRAM.includes(first.vendor ?? 0), 'in reports of this vendor error the program was wrong'),
  opposes: none,
  decide: () =>
    'userdma check -- PROGRAM names the buffer, its region and the line of code; so does userdma run --host on the adapter',
}

const one = (id: string, text: string, decide: string, weight = 4, supports: Cause['supports'] = none): Cause => ({
  id,
  text,
  weight,
  supports,
  opposes: none,
  decide: () => decide,
})

const MEMLOCK: Cause = {
  id: 'memlock',
  text: 'the process may lock too little memory',
  weight: 4,
  supports: ({ first }) => [
    ...when(first.errno === 12, 'the call failed with ENOMEM'),
    ...when(first.fields.value !== undefined && first.errno === 12, `the limit is ${first.fields.value} kbytes`),
  ],
  opposes: ({ first }) => [
    ...when(first.errno !== undefined && first.errno !== 12, 'the errno is not ENOMEM'),
    ...when(/uar|protection domain|alloc_pd/i.test(first.fields.call ?? ''), 'this object locks no memory'),
  ],
  decide: () =>
    'ulimit -l inside of the job (mpirun sh -c "ulimit -l", in the container, in the service), not in a login shell; it must be unlimited',
}
const PEERMEM: Cause = {
  id: 'peermem',
  text: 'memory of a GPU is registered, and neither nvidia_peermem nor dma-buf works',
  weight: 3,
  supports: ({ hasGpus, first }) => [
    ...when(hasGpus, 'the program uses GPUs'),
    ...when(first.errno === 14 || first.errno === 22, 'EFAULT and EINVAL come from this'),
    ...when(/dmabuf/.test(first.fields.call ?? ''), 'the call registers a dma-buf'),
  ],
  opposes: ({ first, hasGpus }) => [
    ...when(first.errno === 12, 'ENOMEM is a limit'),
    ...when(!hasGpus, 'nothing in the log says that memory of a GPU is used'),
  ],
  decide: () => 'lsmod | grep -E "nvidia_peermem|nv_peer_mem"; then ib_write_bw --use_cuda=0 -d DEVICE',
}

/** Kinds of GIDs that programs have printed. */
const gidsOf = ({ facts }: LogAnalysis): ReadonlySet<string> =>
  new Set(
    facts.flatMap(({ variable, value }) =>
      variable === 'GID' ? [/^(?:254:128:|fe80:)/.test(value) ? 'link-local' : 'routed'] : [],
    ),
  )

const GID_INDEX: Cause = {
  id: 'gid-index',
  text: 'the GID index is wrong for this host or container: its entry is empty, of another network or type',
  weight: 5,
  supports: ({ first, analysis }) => [
    ...when(
      first.fields.state !== 'INIT' && [19, 22, 61].includes(first.errno ?? 0),
      'this errno comes from it when a queue pair goes to RTR',
    ),
    ...when(first.kind === 'gid', 'the program has compared the GIDs of both ends'),
    ...when(emptyGidIn(analysis) !== undefined, 'a GID in the log is all zeros'),
    ...when(gidsOf(analysis).size > 1, 'one end has a link-local GID, the other one of IPv4'),
  ],
  opposes: ({ first, analysis }) => [
    ...when(first.fields.state === 'INIT', 'the queue pair went to INIT, which uses no GID'),
    ...when(first.errno === 110, 'ETIMEDOUT: the local GID is there, and the MAC address of the peer was looked for'),
    ...when(
      emptyGidIn(analysis) === undefined && gidsOf(analysis).size === 1,
      'the GIDs that stand in the log are of one kind',
    ),
  ],
  decide: ({ device, host }) =>
    `on ${host}, where the job runs (inside of its container): grep . /sys/class/infiniband/${device}/ports/1/gids/* | grep -v 0000:0000:0000:0000$, and show_gids ${device} at both ends`,
}
const NO_NEIGHBOUR: Cause = {
  id: 'no-neighbour',
  text: 'ARP or neighbour discovery finds no way between these two addresses: another VLAN or rail, or the interface is down',
  weight: 4,
  supports: ({ first }) => [
    ...when(first.errno === 110, 'ETIMEDOUT: ARP for the peer had no answer'),
    ...when(first.errno === 101 || first.errno === 113, 'the host has no route to the peer'),
  ],
  opposes: ({ first }) => when([19, 22, 61].includes(first.errno ?? 0), 'the call failed before anything was sent'),
  decide: ({ first, peer }) =>
    `ping -I ${(first.fields.localGid ?? 'LOCAL_ADDRESS').replace(/^::ffff:/, '')} ${typed(first.fields.remoteGid ?? peer).replace(/^::ffff:/, '')}, and ip neigh`,
}
const PORT_OR_MTU: Cause = one(
  'port',
  'the port is down, or the path MTU or an attribute is not valid',
  'ibv_devinfo -v: state PORT_ACTIVE, active_mtu at least the path MTU, at both ends',
  2,
  ({ first }) => when(first.errno === 22, 'EINVAL comes from it'),
)

const causesOf: Readonly<Record<FailureClass, readonly Cause[]>> = {
  'no-answer': [PATH, PEER_ENDED, LOSS, LINK_DOWN, CROSS_RAIL],
  'no-receive': [
    one(
      'slow-receiver',
      'the receiver posts its receives too slowly, or too few: its thread hangs or works on something else',
      'the stack of the receiver (py-spy dump, gdb -p) at that time; and the number of receives against that of the sends in flight',
    ),
    one('rnr-retry', 'rnr_retry is finite and too small', 'ibv_query_qp: rnr_retry 7 is without end', 2),
  ],
  'local-memory': [GPU_PCIE, BAD_LKEY],
  'local-request': [
    one(
      'request',
      'the program posted a request that the queue pair cannot execute, or a receive that is too short',
      'userdma check -- PROGRAM names the request and what is wrong with it',
    ),
    one('library', 'a fault of the library or of the firmware', 'the same with a newer version of the library', 2),
  ],
  'remote-memory': [
    {
      id: 'deregistered',
      text: 'the peer had deregistered the memory, or its process had begun to end, when the request came',
      weight: 4,
      supports: context => [...atPeer(context, /completion|abort|oom|call/), ...late(context)],
      opposes: early,
      decide: ({ peer }) => `the log of ${peer} of the same second: does it end, or free the buffer, before?`,
    },
    {
      id: 'rkey',
      text: 'the request has a wrong rkey, address or length, or the region no right for it',
      weight: 4,
      supports: early,
      opposes: late,
      decide: () =>
        'userdma check -- PROGRAM names the region and the difference; on the adapter, userdma run --host --record',
    },
  ],
  'remote-request': [
    one(
      'mtu-or-version',
      'the ends differ: path MTU, versions of the library or plugin, or the number of READs outstanding',
      'compare versions and ibv_devinfo | grep mtu at both ends',
    ),
    one(
      'receive-length',
      'a receive of the peer is shorter than the message',
      'userdma check -- PROGRAM names the receive',
      3,
    ),
    one('library', 'a fault of the library', 'the same with a newer version of the library', 2),
  ],
  'remote-operation': [
    one(
      'peer-memory',
      "the peer's receive or its memory has failed: its own completion has the details",
      'the log of the peer of the same second',
    ),
    one(
      'efa-peer',
      'EFA: the peer has not added the address of the sender',
      'the peer must insert the address (fi_av_insert) before RDMA',
      3,
      ({ first }) => when(first.vendor === 14 && first.family === 'efa', 'EFA says 14: no address handle there'),
    ),
  ],
  'no-peer-qp': [
    PEER_ENDED,
    one(
      'stale-address',
      'the sender has the address of an endpoint from before a restart',
      'compare the QPN that is sent to with that of the peer now',
      3,
    ),
  ],
  aborted: [PEER_ENDED],
  disconnected: [PEER_ENDED],
  flushed: [
    one(
      'first-failure-missing',
      'a request of the same queue pair failed before; its line is not in this log',
      'the log from its start, of both hosts, with the level that shows errors',
    ),
    one(
      'disconnect',
      'the connection was closed in order: flushed requests are then normal',
      'does the program work otherwise? Then ignore these lines',
      4,
    ),
  ],
  'qp-setup': [GID_INDEX, NO_NEIGHBOUR, PORT_OR_MTU],
  registration: [
    MEMLOCK,
    PEERMEM,
    one(
      'limit',
      'a limit of the adapter or kernel: number of regions, vm.max_map_count',
      'sysctl vm.max_map_count; ibv_devinfo -v | grep -E "max_mr|max_mr_size"; rdma resource',
      1,
    ),
  ],
  resources: [
    MEMLOCK,
    one(
      'attributes',
      'the program asks for more than one object may have: entries, requests, SGEs, inline bytes; or for a wrong vector',
      'the attributes of the call against max_cqe, max_qp_wr and max_sge of ibv_devinfo -v',
      3,
      ({ first }) => when(first.errno === 22, 'EINVAL comes from it'),
    ),
    one(
      'limit',
      'a limit of the adapter is reached, by this process or all of the host',
      'rdma resource, against ibv_devinfo -v',
    ),
  ],
  'queue-full': [
    one(
      'too-many',
      'the program posts more requests than the queue was made for, or does not poll the completions of those before',
      'userdma check -- PROGRAM names the queue and its size',
      5,
      ({ first }) => when(first.errno === 12, 'ENOMEM of a post is a full queue, not a lack of memory'),
    ),
  ],
  provider: [
    one(
      'versions',
      "plugin and libfabric do not fit, or libfabric's provider lacks what the plugin asks for",
      'fi_info -t FI_EP_RDM; FI_LOG_LEVEL=warn; the versions of plugin and libfabric that belong together',
      4,
      ({ first }) => when(first.errno === 22, 'EINVAL: libfabric does not take an attribute of the plugin'),
    ),
    one(
      'no-provider',
      'libfabric finds no adapter for its provider: no device in the container, or no driver',
      'fi_info -p efa (or verbs) where the job runs; ls -l /dev/infiniband',
      3,
      ({ first }) => when(first.errno === 61 || first.errno === 19, 'the errno says that there is none'),
    ),
  ],
  'no-device': [
    one(
      'container',
      'the container or job has no RDMA device, or may not use it',
      'ls -l /dev/infiniband; ibv_devices, inside of the container; it needs the device files and IPC_LOCK',
    ),
    one(
      'provider',
      "the image lacks rdma-core's provider library for this adapter, or the driver is not loaded",
      'ibv_devinfo inside and outside; ldconfig -p | grep ibverbs',
      3,
    ),
    one(
      'unusable',
      'the adapter is there, but the program cannot use it: its port is down, the GID index is empty, a queue pair cannot be made, or a list of devices or transports does not have it',
      'ibv_devinfo -v where the job runs: state PORT_ACTIVE, and the GID of that index; UCX_LOG_LEVEL=info says what is left out',
      3,
      context => signs(context, /ucx-adapter-there/),
    ),
  ],
  firmware: [
    one(
      'firmware',
      'the firmware refused a command; why is only in its syndrome',
      'the maker of the adapter, with command, status and syndrome; ethtool -i INTERFACE and the list of known faults of that firmware',
      3,
    ),
    one('limit', 'a limit of the adapter is exceeded', 'rdma resource, against ibv_devinfo -v', 2, ({ first }) =>
      when(/^(?:8|f)$/i.test(first.fields.commandStatus ?? ''), 'the status is that of a limit'),
    ),
    one(
      'version',
      'driver and firmware do not fit',
      'ethtool -i INTERFACE: the versions that belong together',
      2,
      ({ first }) => when(/^5[01]$/.test(first.fields.commandStatus ?? ''), 'the lengths do not fit'),
    ),
  ],
  'adapter-failed': [
    one(
      'adapter',
      'the adapter or its firmware has failed, or PCIe has lost it',
      'dmesg -T of that host around the time, with AER lines; then devlink health show, and the maker of the adapter',
      5,
      ({ first }) => when(!['event', 'completion', 'call'].includes(first.kind ?? ''), 'its driver says so'),
    ),
  ],
  'refused-access': [
    one(
      'rkey',
      "a peer's request was refused here: rkey, address, length or right",
      'the completion of the peer (remote access error); userdma check -- PROGRAM names the region',
      4,
    ),
  ],
  'port-down': [
    one(
      'link',
      'the port lost its link: cable, transceiver, switch port or a restart of the switch',
      'dmesg -T | grep -iE "link|module" of the host; ethtool INTERFACE; the log of the switch',
      5,
      context => signs(context, LINK),
    ),
  ],
  'cq-overrun': [
    one(
      'cq-size',
      'the program polls too slowly, or made the completion queue too small',
      'userdma check -- PROGRAM (finding cq-overrun)',
      5,
    ),
  ],
  unreachable: [
    one(
      'no-route',
      'the address cannot be reached through an RDMA device: no route, no such device, or the peer is down',
      'rping -c -a ADDRESS -v, with rping -s -v at the peer; ip route get ADDRESS, and rdma link, where the job runs',
      4,
      ({ first }) =>
        when(first.errno === 19, 'ENODEV: the interface of the route has no RDMA device, or not in this container'),
    ),
    ...[
      one(
        'no-listener',
        'no program listens there: the server has ended, or was not started yet, or uses another port',
        'ss -tln at the peer: is the port there?',
        3,
      ),
      one('firewall', 'a firewall drops UDP port 4791', 'nft list ruleset; ibv_rc_pingpong with the same addresses', 2),
    ].map(cause => ({
      ...cause,
      opposes: ({ first }: Context) => when(first.event === 'ADDR_ERROR', 'nothing was sent to the peer yet'),
    })),
  ],
  rejected: [],
  incompatible: [
    one(
      'link-layers',
      'the job mixes adapters of InfiniBand and Ethernet',
      'choose adapters of one kind with NCCL_IB_HCA, on all hosts',
      6,
    ),
  ],
  'storage-timeout': [
    one(
      'target',
      'the other end did not answer a request in time: the target, its disks or the network',
      'the log of the target of the same second',
    ),
    PEER_ENDED,
  ],
  other: [],
}

/** Of a rejected connection, by reason. */
const rejected = (reason: number | undefined, errno: number | undefined): readonly Cause[] => {
  const said = (): readonly string[] => [
    reason === undefined ? `the errno is ${errnoLabel(errno!)}` : `the reason of the reject is ${reason}`,
  ]
  if (reason === undefined && errno === 104)
    return [
      one(
        'reset',
        'the peer closed the connection while it was made: its program does not accept, has ended, or is not one of RDMA',
        'the log of the peer of the same second',
        6,
        said,
      ),
    ]
  if (reason === 8 || (reason === undefined && errno === 111))
    return [
      one(
        'no-listener',
        'no program listens at that address and port',
        'at the peer: rdma resource show cm_id, or ss -tln for TCP and iWARP; is the address the right one?',
        6,
        said,
      ),
    ]
  if (reason === 28)
    return [
      one(
        'application',
        'the program at the peer said no, or ended; its private data or log says why',
        'the log of the peer of the same second',
        6,
        said,
      ),
    ]
  if (reason === 10)
    return [
      one(
        'stale',
        'the peer still has a connection of the queue pair from before',
        'connect again later; the log of the peer',
        5,
        said,
      ),
    ]
  if (reason === undefined && errno === undefined)
    return [
      one(
        'no-listener',
        'no program listens at that address and port',
        'at the peer: rdma resource show cm_id; rping -c -a ADDRESS says the reason of the reject: 8 is this',
      ),
      one('application', 'the program at the peer said no, or ended', 'the log of the peer of the same second', 3),
    ]
  return [one('peer', 'the peer refused the connection', 'the log of the peer of the same second')]
}

export interface JudgedCause {
  readonly id: string
  readonly text: string
  /** `likely`: the log speaks for it; `possible`: it says nothing; `unlikely`: it speaks against it. */
  readonly likelihood: 'likely' | 'possible' | 'unlikely'
  readonly supports: readonly string[]
  readonly opposes: readonly string[]
  readonly decide: string
}

export const judgedCauses = (context: Context): readonly JudgedCause[] => {
  const { first } = context
  const kind = classOf(first)
  const isEfa = first.family === 'efa'
  const all =
    kind === 'rejected'
      ? rejected(
          first.rejection ?? (first.fields.negated === undefined ? undefined : Math.abs(Number(first.fields.negated))),
          first.errno,
        )
      : kind === 'no-answer' && isEfa
        ? [SECURITY_GROUP, PEER_ENDED]
        : causesOf[kind]
  return all
    .map(cause => {
      const supports = cause.supports(context)
      const opposes = cause.opposes(context)
      return { cause, supports, opposes, score: cause.weight + 3 * supports.length - 4 * opposes.length }
    })
    .sort((a, b) => b.score - a.score)
    .map(({ cause, supports, opposes }) => ({
      id: cause.id,
      text: cause.text,
      likelihood:
        opposes.length > supports.length ? 'unlikely' : supports.length > opposes.length ? 'likely' : 'possible',
      supports,
      opposes,
      decide: cause.decide(context),
    }))
}

/** What people look at first, and what it is not. */
export const wrongLeads = ({ first, chain }: Context): readonly string[] => {
  const all = [...chain.failures, ...chain.consequences]
  const leads: string[] = []
  if (all.some(({ status, vendor }) => status === 'WR_FLUSH_ERR' || vendor === 0xf9))
    leads.push(
      'flushed requests (status 5; vendor error 249 or 0xf9 of ConnectX) follow from the first failure: they have no cause of their own',
    )
  const decimal = all.find(
    ({ shape, fields }) =>
      shape.base === 10 &&
      /^\d+$/.test(fields.vendor ?? '') &&
      Number(fields.vendor) >= 81 &&
      Number(fields.vendor) <= 89 &&
      shape.family !== 'efa',
  )
  if (decimal !== undefined)
    leads.push(
      `vendor error ${decimal.fields.vendor} is decimal, 0x${Number(decimal.fields.vendor).toString(16)}: it is not 0x${decimal.fields.vendor}`,
    )
  if (classOf(first) === 'no-answer')
    leads.push('a longer timeout or more retries does not help where the two ends cannot talk')
  if (first.fields.negated !== undefined)
    leads.push(`${first.fields.negated} is a reason of the connection manager, not an errno (28 is not ENOSPC)`)
  if (first.errno === 121)
    leads.push('"Remote I/O error" is not about the remote side: the firmware of the local adapter said it')
  if (chain.consequences.some(({ shape }) => /closed|watchdog|unhandled/.test(shape.id)))
    leads.push('closed TCP connections, watchdogs and "Endpoint timeout" are how other processes notice the failure')
  return leads
}
