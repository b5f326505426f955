/*
 * `userdma stat --watch`.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { rateText, rateTexts, watchStat } from '../../src/cli/watch.ts'
import { NoDaemonError } from '../../src/daemon/client/errors.ts'
import type { ToolSession } from '../../src/daemon/client/tool-session.ts'
import type { DeviceStat } from '../../src/uapi/tool.ts'

/** Seconds between the two counts of a rate. */
const INTERVAL = 2
/** The argument `json` of `watchStat`. */
const NO_JSON = false

/** `dataUnits` counts units of 4 bytes, as port_xmit_data does. */
const device = (packets: number, dataUnits: number, dropped: number): DeviceStat => ({
  name: 'rxe0',
  address: '127.0.0.1',
  objects: {},
  hw_counters: { sent_pkts: packets, rcvd_pkts: 7 },
  counters: { port_xmit_data: dataUnits, port_rcv_data: 0 },
  port: {},
  transport: {},
  faults: { dropped },
})

describe('userdma stat --watch', () => {
  it('shows the changes per second', () => {
    const line = rateText(device(10, 1000, 0), device(1044, 3560, 1), INTERVAL)
    assert.equal(line, 'rxe0  out 5 KiB/s, in 0 B/s, sent_pkts 517/s, faults dropped 0.5/s')
    assert.equal(rateText(device(10, 1000, 0), device(10, 1000, 0), INTERVAL), undefined)
  })

  it('shows bytes without other counts', () => {
    const received = { ...device(10, 1000, 0), counters: { port_xmit_data: 1000, port_rcv_data: 512 } }
    assert.equal(rateText(device(10, 1000, 0), received, INTERVAL), 'rxe0  out 0 B/s, in 1 KiB/s')
  })

  it('shows no rate of a device that was removed and added again', () => {
    assert.equal(rateText(device(1044, 3560, 1), device(10, 1000, 0), INTERVAL), undefined)
    assert.equal(rateText(device(10, 1000, 1), device(10, 1000, 0), INTERVAL), undefined)
  })

  it('compares devices by name when devices are added and removed', () => {
    const named = (name: string, packets: number): DeviceStat => ({ ...device(packets, 0, 0), name })
    const before = [named('gone', 900), named('stays', 10)]
    const after = [named('stays', 14), named('added', 500)]
    assert.deepEqual(rateTexts(before, after, INTERVAL), ['stays  out 0 B/s, in 0 B/s, sent_pkts 2/s', undefined])
  })

  it('ends without an error when the daemon ends before it replies, or before a change', async () => {
    const client: Pick<ToolSession, 'subscribe' | 'ended'> = {
      subscribe: () => Promise.reject(new NoDaemonError('EIO', 'the daemon ended')),
      ended: Promise.resolve(),
    }
    await watchStat(client, 1, NO_JSON)
    await watchStat({ ...client, subscribe: async () => ({ id: 1, end: async () => 0 }) }, 1, NO_JSON)
  })
})
