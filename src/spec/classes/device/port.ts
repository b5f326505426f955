/*
 * Class `port`: a port of the device (R8). The object id is the port's number, from 1; other ids are refused with
 * EINVAL. `query` returns a record with the layout of Linux's ib_uverbs_query_port_resp_ex (R4).
 */
import { LinkLayer, LinkSpeed, LinkWidth, Mtu, PhysState, PortCapFlags, PortFlags, PortState } from '../../enums.ts'
import { at, enumOf, flagsOf, method, objectClass, QUERY, record, u8, u16, u32, u64 } from '../../schema/schema.ts'
import { CallNumber, ClassId } from '../ids.ts'
import { GidEntry } from './device.ts'

export const PortAttributes = {
  portCapFlags: at(0, flagsOf(0, PortCapFlags)),
  maxMsgSz: at(4, u32(0)),
  badPkeyCntr: at(8, u32(0)),
  qkeyViolCntr: at(12, u32(0)),
  gidTblLen: at(16, u32(0)),
  pkeyTblLen: at(20, u16(0)),
  lid: at(22, u16(0)),
  smLid: at(24, u16(0)),
  state: at(26, enumOf(0, PortState, 1)),
  maxMtu: at(27, enumOf(0, Mtu, 1)),
  activeMtu: at(28, enumOf(0, Mtu, 1)),
  lmc: at(29, u8(0)),
  maxVlNum: at(30, u8(0)),
  smSl: at(31, u8(0)),
  subnetTimeout: at(32, u8(0)),
  initTypeReply: at(33, u8(0)),
  activeWidth: at(34, enumOf(0, LinkWidth, 1)),
  activeSpeed: at(35, enumOf(0, LinkSpeed, 1)),
  physState: at(36, enumOf(0, PhysState, 1)),
  linkLayer: at(37, enumOf(0, LinkLayer, 1)),
  flags: at(38, flagsOf(0, PortFlags, 1)),
  portCapFlags2: at(40, u16(0)),
  /** Linux's active_speed_ex, for speeds that do not fit in the 8 bits of `activeSpeed`. */
  activeSpeedEx: at(44, u32(0)),
}

export const PortClass = objectClass('port', ClassId.port, {
  identity: 'fixed',
  methods: {
    query: method(QUERY, { in: {}, out: { attributes: record(64, PortAttributes) } }),
    /** One entry of the GID table. ENODATA if the entry is empty, EINVAL beyond the table's end. */
    queryGidEntry: method(CallNumber.port.queryGidEntry, {
      role: 'asks',
      in: { index: u32(1) },
      out: { entry: record(64, GidEntry) },
      undoable: true,
    }),
    /** The speed of the link, in units of 100 Mb/s; 0 if the port is not active. */
    querySpeed: method(CallNumber.port.querySpeed, { role: 'asks', in: {}, out: { speed: u64(64) }, undoable: true }),
  },
})
