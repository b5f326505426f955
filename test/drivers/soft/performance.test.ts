/*
 * The performance management agent (IBA 16.1) of a soft device.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { answerPerformance } from '../../../src/drivers/soft/performance.ts'
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

const PORT_COUNTERS = 0x12
const PORT_COUNTERS_EXTENDED = 0x1d
const UNKNOWN_ATTRIBUTE = 0x77
/** Offsets of counters in a datagram (IBA 16.1.3.5 and 16.1.4.11). */
const At = { LINK_DOWNED: 71, RCV_ERRORS: 72, XMIT_PACKETS: 96 } as const
const ExtendedAt = { XMIT_DATA: 72 } as const

const get = (attribute: number, port: number, values: Record<string, number> = {}, method: number = MadMethod.GET) => {
  const mad = new Uint8Array(MAD_BYTES)
  const view = new DataView(mad.buffer)
  putBits(view, 0, madHeader.baseVersion, 1)
  putBits(view, 0, madHeader.mgmtClass, MadClass.PERFORMANCE)
  putBits(view, 0, madHeader.classVersion, PERFORMANCE_VERSION)
  putBits(view, 0, madHeader.method, method)
  putBits(view, 0, madHeader.attribute, attribute)
  mad[PERFORMANCE_PORT_OFFSET] = port
  const response = answerPerformance(mad, () => values)
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
