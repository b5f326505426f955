/*
 * The metrics of `userdma metrics`. Counters of `counters` files have the names that node_exporter's infiniband
 * collector gives them (node_infiniband_…, labels device and port), so that dashboards of real adapters show them; the
 * collector counts data in bytes. Those of `hw_counters`, which it does not read, are rdma_NAME_total, as in
 * rdma_exporter.
 */
import type { CounterFile } from '../../spec/counters.ts'

/** Metrics of node_exporter by counter file. Files without a metric there are absent. */
export const infinibandMetrics: Readonly<Partial<Record<CounterFile<'counters'>, string>>> = {
  port_xmit_data: 'port_data_transmitted_bytes_total',
  port_rcv_data: 'port_data_received_bytes_total',
  port_xmit_packets: 'port_packets_transmitted_total',
  port_rcv_packets: 'port_packets_received_total',
  unicast_xmit_packets: 'unicast_packets_transmitted_total',
  unicast_rcv_packets: 'unicast_packets_received_total',
  multicast_xmit_packets: 'multicast_packets_transmitted_total',
  multicast_rcv_packets: 'multicast_packets_received_total',
  port_xmit_discards: 'port_discards_transmitted_total',
  port_rcv_errors: 'port_errors_received_total',
  port_rcv_constraint_errors: 'port_constraint_errors_received_total',
  port_xmit_constraint_errors: 'port_constraint_errors_transmitted_total',
  link_downed: 'link_downed_total',
  link_error_recovery: 'link_error_recovery_total',
}

/** Metrics of node_exporter that are files of a port: the number before the colon, or of `rate` in bytes. */
export const portStateMetrics = {
  state_id: { file: 'state', help: 'state of the port (1: down, 2: init, 3: armed, 4: active)' },
  physical_state_id: { file: 'phys_state', help: 'physical state of the port (3: disabled, 5: link up)' },
  rate_bytes_per_second: { file: 'rate', help: 'rate that the port reports' },
} as const
