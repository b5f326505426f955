/*
 * The performance management agent of a node (IBA 16.1): the counters of its ports by MAD. It answers Get of
 * ClassPortInfo, PortCounters and PortCountersExtended, and Set of the counters, which resets those that the request
 * selects, where the node can.
 */
import { MAD_BASE_VERSION } from '../../../spec/wire/mad.ts'
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
} from '../../../spec/wire/management.ts'
import { putBits } from '../bits.ts'
import { madFields, respond } from './management.ts'

/** Offset of the class's attribute in a datagram. */
const DATA_AT = 64
/** Offset of the mask of counters that a Set resets, lowest bit first. */
const SELECT_AT = 66
/** RespTimeValue: 4.096 µs × 2^18, about a second. */
const RESPONSE_TIME = 18

/** The ports of a node. */
export interface PerformancePorts {
  readonly numbers: readonly number[]
  /** By file name. */
  counters(port: number): Readonly<Record<string, number>>
  /** Absent: counters never decrease. */
  reset?(port: number, counters: readonly string[]): void
}

/** The response to a request of this class; undefined if the method or attribute is not supported. */
export const answerPerformance = (mad: Uint8Array, ports: PerformancePorts): Uint8Array | undefined => {
  const { mgmtClass, classVersion, method, attribute } = madFields(mad)
  const isSet = method === MadMethod.SET && ports.reset !== undefined
  if (mgmtClass !== MadClass.PERFORMANCE || classVersion !== PERFORMANCE_VERSION) return undefined
  if (method !== MadMethod.GET && !isSet) return undefined
  const response = respond(mad, 0)
  const view = new DataView(response.buffer)
  if (attribute === CLASS_PORT_INFO && !isSet) {
    response.fill(0, DATA_AT)
    putBits(view, 0, classPortInfo.baseVersion, MAD_BASE_VERSION)
    putBits(view, 0, classPortInfo.classVersion, PERFORMANCE_VERSION)
    putBits(view, 0, classPortInfo.capabilities, ALL_PORT_SELECT | EXTENDED_WIDTH)
    putBits(view, 0, classPortInfo.responseTime, RESPONSE_TIME)
    return response
  }
  const table = performanceCounters[attribute]
  const port = mad[PERFORMANCE_PORT_OFFSET]!
  if (table === undefined) return undefined
  const selected = port === ALL_PORTS ? ports.numbers : ports.numbers.filter(number => number === port)
  if (selected.length === 0) return respond(mad, MAD_STATUS_INVALID_FIELD)
  if (isSet) {
    const select = view.getUint16(SELECT_AT)
    const files = table.flatMap(({ file }, i) => ((select >> i) & 1 ? [file] : []))
    for (const number of selected) ports.reset?.(number, files)
  }
  const values = selected.map(number => ports.counters(number))
  response.fill(0, DATA_AT)
  response[PERFORMANCE_PORT_OFFSET] = port
  for (const { field, file } of table) {
    const value = values.reduce((sum, each) => sum + (each[file] ?? 0), 0)
    const [, bits] = field
    putBits(view, 0, field, bits === 64 ? BigInt(value) : Math.min(value, 2 ** bits - 1))
  }
  return response
}
