/*
 * The performance management agent of a soft device (IBA 16.1): the counters of the port by MAD. It answers Get of
 * ClassPortInfo, PortCounters and PortCountersExtended. Set, which resets counters, is unsupported, because counters in
 * sysfs never decrease.
 */
import { MAD_BASE_VERSION } from '../../spec/wire/mad.ts'
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
  performanceCounters,
} from '../../spec/wire/management.ts'
import { putBits } from '../../transport/wire/bits.ts'
import { madFields, respond } from '../../transport/wire/mad/management.ts'

/** Offset of the class's attribute in a datagram. */
const DATA_AT = 64
/** RespTimeValue: 4.096 µs × 2^18, about a second. */
const RESPONSE_TIME = 18

/**
 * The response to a request of this class; undefined if the method or attribute is not supported. `counters`: the
 * port's, by file name.
 */
export const answerPerformance = (
  mad: Uint8Array,
  counters: () => Readonly<Record<string, number>>,
): Uint8Array | undefined => {
  const { mgmtClass, classVersion, method, attribute } = madFields(mad)
  if (mgmtClass !== MadClass.PERFORMANCE || classVersion !== PERFORMANCE_VERSION || method !== MadMethod.GET)
    return undefined
  const response = respond(mad, 0)
  const view = new DataView(response.buffer)
  if (attribute === CLASS_PORT_INFO) {
    response.fill(0, DATA_AT)
    putBits(view, 0, classPortInfo.baseVersion, MAD_BASE_VERSION)
    putBits(view, 0, classPortInfo.classVersion, PERFORMANCE_VERSION)
    putBits(view, 0, classPortInfo.capabilities, ALL_PORT_SELECT | EXTENDED_WIDTH)
    putBits(view, 0, classPortInfo.responseTime, RESPONSE_TIME)
    return response
  }
  const table = performanceCounters[attribute]
  const port = mad[PERFORMANCE_PORT_OFFSET]
  if (table === undefined) return undefined
  if (port !== 1 && port !== ALL_PORTS) return respond(mad, MAD_STATUS_INVALID_FIELD)
  const values = counters()
  response.fill(0, DATA_AT)
  response[PERFORMANCE_PORT_OFFSET] = port
  for (const { field, file } of table) {
    const value = values[file] ?? 0
    const [, bits] = field
    putBits(view, 0, field, bits === 64 ? BigInt(value) : Math.min(value, 2 ** bits - 1))
  }
  return response
}
