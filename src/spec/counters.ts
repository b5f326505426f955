/*
 * Tables of counters: the counters of an engine, and the sysfs files of a port's counters with the source of each
 * value. File names are Linux's: in `hw_counters` those of rxe, and of mlx5 for congestion; in `counters` those of
 * performance management (InfiniBand Architecture Specification, volume 1, clause 16.1).
 */

/** Counters of an engine (src/transport/engine/), over all its queue pairs. */
export const engineCounters = {
  sentPackets: 'packets that queue pairs sent, retransmissions included',
  receivedPackets: 'packets for a queue pair that exists',
  sends: 'SENDs of any kind that succeeded',
  receives: 'receive requests that were completed by a SEND',
  duplicateRequests: 'duplicate requests',
  outOfSequence: 'requests received out of order',
  sentRnr: 'RNR NAKs sent: there was no receive request',
  receivedRnr: 'RNR NAKs received',
  receivedSequenceErrors: 'NAKs received for a lost packet (PSN sequence error)',
  retries: 'times that a queue pair began to send again after a loss or a timeout, one or more packets each time',
  retransmissions: 'times that a queue pair began to send again for any reason, RNR included',
  retryExceeded: 'requests that failed because the peer did not answer (RETRY_EXC)',
  rnrRetryExceeded: 'requests that failed because the peer had no receive (RNR_RETRY_EXC)',
  pkeyViolations: 'packets with another partition key than the queue pair',
  qkeyViolations: 'datagrams with a wrong queue key',
  multicastSent: 'packets sent to a multicast group',
  multicastReceived: 'packets received for a multicast group, with or without local members',
  outOfBuffer: 'raw packets that were dropped because their queue pair had no receive request',
  ecnMarked: "packets for a queue pair that arrived with ECN's mark of congestion",
  cnpSent: 'congestion notification packets (CNPs) sent: the peer should slow down',
  cnpHandled: 'CNPs received that reduced the rate of a queue pair',
  cnpIgnored: 'CNPs received without effect: the device has no rate control',
  dropped: 'packets received that were dropped: old PSN, forged, wrong state, wrong keys',
} as const

export type EngineCounter = keyof typeof engineCounters

export type CounterFolder = 'hw_counters' | 'counters'
type CounterUnit = 'packets' | 'requests' | 'times' | '4 bytes'

interface PortCounterFile {
  readonly folder: CounterFolder
  readonly name: string
  readonly unit: CounterUnit
  /**
   * The value is the sum of these counters: `engine.NAME` (`engineCounters`) or `port.NAME` (transport/phy/port.ts). A
   * counter with a minus sign is subtracted. A counter that the port lacks is 0.
   */
  readonly sources: readonly string[]
  readonly meaning: string
}

const file =
  <F extends CounterFolder>(folder: F) =>
  <N extends string>(name: N, unit: CounterUnit, source: string | readonly string[], meaning: string) =>
    ({ folder, name, unit, sources: typeof source === 'string' ? [source] : source, meaning }) as const
const hw = file('hw_counters')
/** A counter of the performance management agent. */
const pma = file('counters')

const NO_SOURCE: readonly string[] = []

const files = [
  hw('sent_pkts', 'packets', 'engine.sentPackets', engineCounters.sentPackets),
  hw('rcvd_pkts', 'packets', 'engine.receivedPackets', engineCounters.receivedPackets),
  hw('duplicate_request', 'packets', 'engine.duplicateRequests', engineCounters.duplicateRequests),
  hw('out_of_seq_request', 'packets', 'engine.outOfSequence', engineCounters.outOfSequence),
  hw('rcvd_rnr_err', 'packets', 'engine.receivedRnr', engineCounters.receivedRnr),
  hw('send_rnr_err', 'packets', 'engine.sentRnr', engineCounters.sentRnr),
  hw('rcvd_seq_err', 'packets', 'engine.receivedSequenceErrors', engineCounters.receivedSequenceErrors),
  hw('ack_deferred', 'packets', NO_SOURCE, 'responses queued for processing: always 0 here'),
  hw('retry_exceeded_err', 'requests', 'engine.retryExceeded', engineCounters.retryExceeded),
  hw('retry_rnr_exceeded_err', 'requests', 'engine.rnrRetryExceeded', engineCounters.rnrRetryExceeded),
  hw('completer_retry_err', 'times', 'engine.retries', engineCounters.retries),
  hw('send_err', 'packets', 'port.sendErrors', 'packets that the operating system refused to send'),
  hw('link_downed', 'times', 'port.linkDowned', 'times that the link went down'),
  hw('rdma_sends', 'requests', 'engine.sends', engineCounters.sends),
  hw('rdma_recvs', 'requests', 'engine.receives', engineCounters.receives),
  hw('np_ecn_marked_roce_packets', 'packets', 'engine.ecnMarked', engineCounters.ecnMarked),
  hw('np_cnp_sent', 'packets', 'engine.cnpSent', engineCounters.cnpSent),
  hw('rp_cnp_handled', 'packets', 'engine.cnpHandled', engineCounters.cnpHandled),
  hw('rp_cnp_ignored', 'packets', 'engine.cnpIgnored', engineCounters.cnpIgnored),

  pma('port_xmit_data', '4 bytes', 'port.sentBytes', 'bytes sent, BTH to ICRC, divided by 4'),
  pma('port_rcv_data', '4 bytes', 'port.receivedBytes', 'bytes received, BTH to ICRC, divided by 4'),
  pma('port_xmit_packets', 'packets', 'port.sentPackets', 'packets sent'),
  pma('port_rcv_packets', 'packets', 'port.receivedPackets', 'packets received with a correct ICRC'),
  pma(
    'unicast_xmit_packets',
    'packets',
    ['engine.sentPackets', '-engine.multicastSent'],
    'unicast packets that queue pairs sent',
  ),
  pma(
    'unicast_rcv_packets',
    'packets',
    ['port.receivedPackets', '-engine.multicastReceived'],
    'unicast packets received with a correct ICRC',
  ),
  pma('multicast_xmit_packets', 'packets', 'engine.multicastSent', engineCounters.multicastSent),
  pma('multicast_rcv_packets', 'packets', 'engine.multicastReceived', engineCounters.multicastReceived),
  pma('port_xmit_discards', 'packets', 'port.dropped', 'packets that could not be sent: no route, no room, refused'),
  pma('port_rcv_errors', 'packets', 'port.icrcErrors', 'packets received with a wrong ICRC'),
  pma('port_rcv_constraint_errors', 'packets', 'engine.pkeyViolations', engineCounters.pkeyViolations),
  pma('link_downed', 'times', 'port.linkDowned', 'times that the link went down'),
  pma('symbol_error', 'times', NO_SOURCE, 'physical link errors only'),
  pma('link_error_recovery', 'times', NO_SOURCE, 'physical link errors only'),
  pma('local_link_integrity_errors', 'times', NO_SOURCE, 'physical link errors only'),
  pma('excessive_buffer_overrun_errors', 'times', NO_SOURCE, 'link-level credits only, which Ethernet lacks'),
  pma('port_rcv_remote_physical_errors', 'packets', NO_SOURCE, 'InfiniBand switches only'),
  pma('port_rcv_switch_relay_errors', 'packets', NO_SOURCE, 'InfiniBand switches only'),
  pma('port_xmit_constraint_errors', 'packets', NO_SOURCE, 'InfiniBand switches only'),
  pma('VL15_dropped', 'packets', NO_SOURCE, 'InfiniBand management only'),
] as const

export const portCounterFiles: readonly PortCounterFile[] = files

/** The names of a folder's files. */
export type CounterFile<F extends CounterFolder> = Extract<(typeof files)[number], { readonly folder: F }>['name']

/** PortXmitData and PortRcvData count units of 4 bytes (IBA 16.1.3.5). */
export const DATA_UNIT_BYTES = 4

/** The sum of a file's sources is divided by this number. */
const divisor: Readonly<Record<CounterUnit, number>> = { packets: 1, requests: 1, times: 1, '4 bytes': DATA_UNIT_BYTES }

/** The values of a folder's files by file name, from the counts of engine and port. */
export const counterValues = (
  folder: CounterFolder,
  engine: Readonly<Record<string, number>>,
  port: Readonly<Record<string, number>>,
): Record<string, number> => {
  const read = (source: string): number => {
    const [, sign, owner, name = ''] = /^(-?)(\w+)\.(\w+)$/.exec(source) ?? []
    const value = (owner === 'engine' ? engine : port)[name] ?? 0
    return sign === '-' ? -value : value
  }
  return Object.fromEntries(
    portCounterFiles
      .filter(one => one.folder === folder)
      .map(({ name, unit, sources }) => {
        const sum = sources.reduce((total, source) => total + read(source), 0)
        return [name, Math.max(0, Math.floor(sum / divisor[unit]))]
      }),
  )
}

/** The counts of an engine or a port that no file shows. */
export const otherCounts = (
  owner: 'engine' | 'port',
  counts: Readonly<Record<string, number>>,
): Record<string, number> => {
  const shown = new Set(portCounterFiles.flatMap(({ sources }) => sources))
  return Object.fromEntries(Object.entries(counts).filter(([name]) => !shown.has(`${owner}.${name}`)))
}
