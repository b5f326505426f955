/*
 * The text of `userdma stat`.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { qpsText, statText, waitsText } from '../../../src/cli/commands/stat.ts'
import type { QpStat } from '../../../src/uapi/tool.ts'

describe('userdma stat', () => {
  it("shows a program's name without control characters", () => {
    const command = 'x\n\x1b[2Jy'
    const queue = { pending: 0, depth: 1 }
    const qp = { device: 'rxe0', qpn: 17, pid: 5, command, type: 'RC', state: 'RTS' }
    const text = qpsText([{ ...qp, send: queue, receive: queue } as QpStat])
    assert.deepEqual(text.split('\n').slice(1), ['rxe0    0x11  5 x [2Jy  RC    RTS    -     0/1   0/1', ''])
    const wait = { device: 'rxe0', pid: 5, command, id: 'lost-wakeup', text: 'CQ 1 waits' } as const
    assert.equal(waitsText([wait]), 'rxe0: (5, x [2Jy) CQ 1 waits\n')
  })

  it('shows queue pairs with peer, shared receive queue and last error, and "-" for what a queue pair lacks', () => {
    const connected = {
      type: 'RC',
      state: 'ERR',
      pid: 5,
      command: 'x',
      peer: { qpn: 18, address: '127.0.0.2', dscp: 26, hopLimit: 5 },
    }
    const own = { type: 'GSI', state: 'RTS', pid: 0, command: '' }
    const qps = [
      {
        ...connected,
        receive: { pending: 2, depth: 4, shared: true },
        lastError: { text: 'SEND wr_id 7: REM_ACCESS' },
      },
      { ...own, receive: { pending: 0, depth: 16 } },
    ].map((qp, i) => ({ ...qp, device: 'rxe0', qpn: 17 - 16 * i, send: { pending: 3, depth: 8 } }))
    assert.equal(
      qpsText(qps as unknown as QpStat[]),
      `DEVICE  QPN   PROCESS  TYPE  STATE  PEER                               SEND  RECEIVE
rxe0    0x11  5 x      RC    ERR    0x12 at 127.0.0.2, DSCP 26, TTL 5  3/8   2/4 shared
    last error: SEND wr_id 7: REM_ACCESS
rxe0    0x1   -        GSI   RTS    -                                  3/8   0/16
`,
    )
    assert.equal(qpsText([]), 'no queue pairs\n')
  })

  it('shows retries, and the source ports of all queue pairs to that peer', () => {
    const queue = { pending: 0, depth: 8 }
    const qps = [
      ['127.0.0.2', 49_301, 12],
      ['127.0.0.2', 49_444, 0],
      ['127.0.0.3', 49_555, 0],
    ].map(([address, sourcePort, retries], i) => ({
      ...{ device: 'rxe0', qpn: 17 + i, pid: 5, command: 'x', type: 'RC', state: 'RTS', send: queue, receive: queue },
      ...{ peer: { qpn: 33 + i, address, sourcePort }, retries },
    }))
    const peers = qpsText(qps as unknown as QpStat[]).match(/0x2\d at .*?(?= {2})/g)
    assert.deepEqual(peers, [
      '0x21 at 127.0.0.2, from UDP port 49301, 12 retries',
      '0x22 at 127.0.0.2, from UDP port 49444',
      '0x23 at 127.0.0.3',
    ])
  })

  it('shows each nonzero value once', () => {
    const stat = {
      pid: 12,
      sessions: 2,
      contexts: 1,
      rings: { count: 3, bytes: 12288 },
      mappings: { count: 1, bytes: 262144 },
      descriptors: 1,
      connections: { identifiers: 0, listeners: 0, connections: 0 },
      memory: { resident: 2 ** 26, heap: 2 ** 23 },
      charged: { bytes: 9216, processes: [4, 5, 6, 7].map(pid => ({ pid, bytes: 4096 - 512 * pid })) },
      waited: {
        events: { microseconds: 2_500_000 },
        movers: { microseconds: 40_500, count: 900, longest: 1200 },
        memory: { microseconds: 0, count: 0, longest: 0 },
        yields: { microseconds: 999, count: 30, longest: 200 },
        naps: { microseconds: 0, count: 0, longest: 0 },
        processor: { microseconds: 1000 },
      },
      waitedFor: [
        { user: 7, microseconds: 30_000, count: 800, longest: 1200 },
        { user: 9, microseconds: 4000, count: 90, longest: 50 },
      ],
      devices: [
        {
          name: 'rxe0',
          address: '127.0.0.1',
          objects: { pd: 1, rc_qp: 2 },
          hw_counters: { sent_pkts: 5, rcvd_pkts: 0 },
          counters: { port_xmit_data: 40 },
          port: { sentPackets: 5, segmentedMessages: 2 },
          transport: { sentPackets: 5, retransmissions: 0 },
          faults: { dropped: 3, delayed: 0 },
        },
      ],
    }
    assert.equal(
      statText(stat, '/run/sock'),
      `daemon 12 at /run/sock
  sessions     2
  contexts     1
  rings        3 (12 KiB)
  mappings     1 (256 KiB)
  descriptors  1
  connections  none
  memory       64 MiB resident, 8 MiB heap
  objects      9 KiB (process 4 2 KiB, process 5 1.5 KiB, process 6 1 KiB, …)
  waited       events 2.5 s, movers 40.5 ms (900 times, longest 1.2 ms), yields 999 µs (30 times, longest 200 µs), processor 1.0 ms
  waited for   user 7 30.0 ms (800 times, longest 1.2 ms), user 9 4.0 ms (90 times, longest 50 µs)
device rxe0 at 127.0.0.1
  objects      pd 1, rc_qp 2
  hw_counters  sent_pkts 5
  counters     port_xmit_data 40
  port         segmentedMessages 2
  transport    none
  faults       dropped 3
`,
    )
  })
})
