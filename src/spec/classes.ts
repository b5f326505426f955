/*
 * All classes of the object model, for core, the codecs and the tracer. Their frozen ids are in classes/ids.ts.
 */
import { Ah } from './classes/ah.ts'
import { AsyncFd } from './classes/async_fd.ts'
import { CmChannel } from './classes/cm_channel.ts'
import { CmId, CmMulticast } from './classes/cm_id.ts'
import { CompChannel } from './classes/comp_channel.ts'
import { Counters } from './classes/counters.ts'
import { Cq } from './classes/cq.ts'
import { Device } from './classes/device.ts'
import { Dm } from './classes/dm.ts'
import { DriverOps } from './classes/driver_ops.ts'
import { EventQueue } from './classes/event_queue.ts'
import { Flow } from './classes/flow.ts'
import { GsiQp } from './classes/gsi_qp.ts'
import { Interface } from './classes/interface.ts'
import { IpInterface, IpSocket } from './classes/ip.ts'
import { MadAgent } from './classes/mad_agent.ts'
import { MadChannel } from './classes/mad_channel.ts'
import { Mr } from './classes/mr.ts'
import { Mw } from './classes/mw.ts'
import { Pd } from './classes/pd.ts'
import { Port } from './classes/port.ts'
import { RawPacketQp } from './classes/raw_packet_qp.ts'
import { RcQp } from './classes/rc_qp.ts'
import { RdQp } from './classes/rd_qp.ts'
import { SmiQp } from './classes/smi_qp.ts'
import { Srq, TmSrq, XrcSrq } from './classes/srq.ts'
import { System } from './classes/system.ts'
import { UcQp } from './classes/uc_qp.ts'
import { UdQp } from './classes/ud_qp.ts'
import { RwqIndTable, Wq } from './classes/wq.ts'
import { XrcIniQp, XrcTgtQp } from './classes/xrc_qp.ts'
import { Xrcd } from './classes/xrcd.ts'
import type { ObjectClass } from './schema/schema.ts'
import { checkClasses } from './schema/schema.ts'

/** By name, each with its own type. */
export const Classes = {
  interface: Interface,
  device: Device,
  port: Port,
  pd: Pd,
  cq: Cq,
  mr: Mr,
  comp_channel: CompChannel,
  async_fd: AsyncFd,
  ah: Ah,
  mw: Mw,
  srq: Srq,
  xrc_srq: XrcSrq,
  tm_srq: TmSrq,
  xrcd: Xrcd,
  rc_qp: RcQp,
  uc_qp: UcQp,
  ud_qp: UdQp,
  xrc_ini_qp: XrcIniQp,
  xrc_tgt_qp: XrcTgtQp,
  raw_packet_qp: RawPacketQp,
  gsi_qp: GsiQp,
  smi_qp: SmiQp,
  rd_qp: RdQp,
  flow: Flow,
  counters: Counters,
  dm: Dm,
  wq: Wq,
  rwq_ind_table: RwqIndTable,
  event_queue: EventQueue,
  system: System,
  cm_channel: CmChannel,
  cm_id: CmId,
  cm_multicast: CmMulticast,
  mad_channel: MadChannel,
  mad_agent: MadAgent,
  ip_interface: IpInterface,
  ip_socket: IpSocket,
  driver_ops: DriverOps,
} as const

/** Sorted by id. */
export const classes: readonly ObjectClass[] = Object.values(Classes).sort((a, b) => a.id - b.id)
checkClasses(classes)

export { ClassId } from './classes/ids.ts'
