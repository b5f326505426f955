/*
 * Counters: Linux's names and files, docs/reference/counters.md.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import {
  type CounterFolder,
  counterValues,
  engineCounters,
  otherCounts,
  portCounterFiles,
} from '../../src/spec/counters.ts'
import { loopWaits } from '../../src/spec/loop-waits.ts'
import { repoRoot } from '../paths.ts'

const namesIn = (folder: CounterFolder): string[] =>
  portCounterFiles.filter(one => one.folder === folder).map(({ name }) => name)

/** Counters of Linux 6.1 with rdma_rxe: /sys/class/infiniband/rxe0/ports/1/hw_counters, without `lifespan`. */
const rxeCounters =
  'ack_deferred completer_retry_err duplicate_request link_downed out_of_seq_request rcvd_pkts rcvd_rnr_err ' +
  'rcvd_seq_err rdma_recvs rdma_sends retry_exceeded_err retry_rnr_exceeded_err send_err send_rnr_err sent_pkts'

/** Counters of congestion in the same folder of an mlx5 device. */
const congestionCounters = ['np_cnp_sent', 'np_ecn_marked_roce_packets', 'rp_cnp_handled', 'rp_cnp_ignored']

/** Files of `counters` in Linux's Documentation/ABI/stable/sysfs-class-infiniband. */
const portCounters =
  'VL15_dropped excessive_buffer_overrun_errors link_downed link_error_recovery local_link_integrity_errors ' +
  'multicast_rcv_packets multicast_xmit_packets port_rcv_constraint_errors port_rcv_data port_rcv_errors ' +
  'port_rcv_packets port_rcv_remote_physical_errors port_rcv_switch_relay_errors port_xmit_constraint_errors ' +
  'port_xmit_data port_xmit_discards port_xmit_packets symbol_error unicast_rcv_packets unicast_xmit_packets'

test('each file of Linux exists once', () => {
  const expected = [...rxeCounters.split(' '), ...congestionCounters].sort()
  assert.deepEqual(namesIn('hw_counters').sort(), expected)
  assert.equal(namesIn('counters').sort().join(' '), portCounters)
})

test('the source counters of each file exist', () => {
  const ofPort = [
    ...['sentBytes', 'receivedBytes', 'sentPackets', 'receivedPackets'],
    ...['dropped', 'icrcErrors', 'sendErrors', 'linkDowned'],
  ]
  const known = new Set([
    ...Object.keys(engineCounters).map(name => `engine.${name}`),
    ...ofPort.map(name => `port.${name}`),
  ])
  for (const { name, sources } of portCounterFiles)
    for (const source of sources) assert.ok(known.has(source.replace(/^-/, '')), `${name} from ${source}`)
})

test('values are sums or differences of counters; data is in words of 4 bytes; uncounted values are 0', () => {
  const engine = { sentPackets: 7, retries: 2, multicastSent: 3 }
  const port = { sentPackets: 9, sentBytes: 103, icrcErrors: 1 }
  const hw = counterValues('hw_counters', engine, port)
  assert.equal(Object.keys(hw).join(), namesIn('hw_counters').join())
  assert.deepEqual([hw.sent_pkts, hw.completer_retry_err, hw.send_err, hw.ack_deferred], [7, 2, 0, 0])
  const counters = counterValues('counters', engine, port)
  assert.equal(counters.port_xmit_data, 25, 'words in 103 bytes')
  assert.equal(counters.unicast_xmit_packets, 4, '7 packets - 3 multicast packets')
  assert.equal(counters.multicast_xmit_packets, 3)
  assert.equal(counters.port_rcv_errors, 1)
})

test('otherCounts returns the counters that no file shows', () => {
  assert.deepEqual(otherCounts('engine', { sentPackets: 1, retransmissions: 2, qkeyViolations: 3 }), {
    retransmissions: 2,
    qkeyViolations: 3,
  })
  assert.deepEqual(otherCounts('port', { sentBytes: 1, segmentedMessages: 2 }), { segmentedMessages: 2 })
})

test('docs/reference/counters.md has all counters, with the descriptions of the table', () => {
  const page = readFileSync(join(repoRoot, 'docs', 'reference', 'counters.md'), 'utf8')
  for (const { folder, name, unit, sources, meaning } of portCounterFiles) {
    const sourceList = sources.length === 0 ? '–' : sources.map(source => `\`${source}\``).join(' ')
    assert.ok(page.includes(`| \`${folder}/${name}\` | ${unit} | ${meaning} | ${sourceList} |\n`), `${folder}/${name}`)
  }
  for (const [name, meaning] of Object.entries({ ...engineCounters, ...loopWaits }))
    assert.ok(page.includes(`| \`${name}\` | ${meaning} |\n`), name)
})
