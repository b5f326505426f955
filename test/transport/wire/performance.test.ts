/*
 * The performance management agent (IBA 16.1) of a soft device.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { MAD_BYTES, madHeader } from '../../../src/spec/wire/mad.ts'
import {
  ALL_PORT_SELECT,
  ALL_PORTS,
  CLASS_PORT_INFO,
  classPortInfo,
  EXTENDED_WIDTH,
  MAD_STATUS_INVALID_FIELD,
  MadClass,
  MadMethod,
  PERFORMANCE_PORT_OFFSET,
  PERFORMANCE_VERSION,
} from '../../../src/spec/wire/management.ts'
import { getBits, putBits } from '../../../src/transport/wire/bits.ts'
import { answerPerformance, type PerformancePorts } from '../../../src/transport/wire/mad/performance.ts'

const PORT_COUNTERS = 0x12
const PORT_COUNTERS_EXTENDED = 0x1d
const UNKNOWN_ATTRIBUTE = 0x77
/** Offsets of counters in a datagram (IBA 16.1.3.5 and 16.1.4.11). */
const At = { LINK_DOWNED: 71, RCV_ERRORS: 72, XMIT_PACKETS: 96 } as const
const ExtendedAt = { XMIT_DATA: 72 } as const

const request = (attribute: number, port: number, method: number): Uint8Array => {
  const mad = new Uint8Array(MAD_BYTES)
  const view = new DataView(mad.buffer)
  putBits(view, 0, madHeader.baseVersion, 1)
  putBits(view, 0, madHeader.mgmtClass, MadClass.PERFORMANCE)
  putBits(view, 0, madHeader.classVersion, PERFORMANCE_VERSION)
  putBits(view, 0, madHeader.method, method)
  putBits(view, 0, madHeader.attribute, attribute)
  mad[PERFORMANCE_PORT_OFFSET] = port
  return mad
}

const get = (attribute: number, port: number, values: Record<string, number> = {}, method: number = MadMethod.GET) => {
  const mad = request(attribute, port, method)
  const response = answerPerformance(mad, { numbers: [1], counters: () => values })
  return response && new DataView(response.buffer)
}

const statusOf = (response: DataView | undefined) => response && getBits(response, 0, madHeader.status)

test('ClassPortInfo declares that all ports can be selected, and the counters of extended width', () => {
  const response = get(CLASS_PORT_INFO, 0)
  assert.equal(statusOf(response), 0)
  assert.equal(getBits(response!, 0, classPortInfo.capabilities), ALL_PORT_SELECT | EXTENDED_WIDTH)
})

for (const attribute of [PORT_COUNTERS, PORT_COUNTERS_EXTENDED])
  test(`attribute ${attribute} is answered for port 1 and for all ports, and refused for other ports`, () => {
    for (const port of [1, ALL_PORTS]) {
      const response = get(attribute, port)
      assert.deepEqual([statusOf(response), response?.getUint8(PERFORMANCE_PORT_OFFSET)], [0, port])
    }
    for (const port of [0, 2, 254]) assert.equal(statusOf(get(attribute, port)), MAD_STATUS_INVALID_FIELD)
  })

test('counters stop at the maximum of their field', () => {
  const values = { link_downed: 256, port_rcv_errors: 0x1_0000, port_xmit_packets: 2 ** 32, port_xmit_data: 2 ** 40 }
  const counters = get(PORT_COUNTERS, 1, values)!
  assert.equal(counters.getUint8(At.LINK_DOWNED), 0xff)
  assert.equal(counters.getUint16(At.RCV_ERRORS), 0xffff)
  assert.equal(counters.getUint32(At.XMIT_PACKETS), 0xffff_ffff)
  assert.equal(get(PORT_COUNTERS_EXTENDED, 1, values)?.getBigUint64(ExtendedAt.XMIT_DATA), 2n ** 40n)
})

test('other methods and attributes are left to the MAD layer', () => {
  assert.equal(get(PORT_COUNTERS, 1, {}, MadMethod.SET), undefined)
  assert.equal(get(UNKNOWN_ATTRIBUTE, 1), undefined)
})

test('a node of several ports answers for each, sums all, and resets the selected counters', () => {
  const counters = [{ port_rcv_errors: 1, link_downed: 7 }, { port_rcv_errors: 2 }] as Record<string, number>[]
  const ports: PerformancePorts = {
    numbers: [1, 2],
    counters: number => counters[number - 1]!,
    reset: (number, files) => {
      for (const file of files) counters[number - 1]![file] = 0
    },
  }
  const ask = (port: number, method: number = MadMethod.GET) => {
    const mad = request(PORT_COUNTERS, port, method)
    mad[67] = 1 << 3
    return new DataView(answerPerformance(mad, ports)!.buffer).getUint16(At.RCV_ERRORS)
  }
  assert.deepEqual([ask(1), ask(2), ask(ALL_PORTS)], [1, 2, 3])
  assert.equal(ask(ALL_PORTS, MadMethod.SET), 0)
  assert.deepEqual(counters, [{ port_rcv_errors: 0, link_downed: 7 }, { port_rcv_errors: 0 }])
})
