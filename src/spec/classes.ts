/*
 * The list of all classes, with checked references. Ids are in classes/ids.ts.
 */
import { Ah } from './classes/ah.ts'
import { CmChannel } from './classes/connections/cm_channel.ts'
import { CmId, CmMulticast } from './classes/connections/cm_id.ts'
import { Counters } from './classes/counters.ts'
import { Cq } from './classes/cq.ts'
import { DeviceClass } from './classes/device/device.ts'
import { Interface } from './classes/device/interface.ts'
import { IpInterfaceClass, IpSocketClass } from './classes/device/ip.ts'
import { PortClass } from './classes/device/port.ts'
import { SystemClass } from './classes/device/system.ts'
import { Dm } from './classes/dm.ts'
import { Dmah } from './classes/dmah.ts'
import { DriverOps } from './classes/driver_ops.ts'
import { AsyncFd } from './classes/events/async_fd.ts'
import { CompChannel } from './classes/events/comp_channel.ts'
import { EventQueueClass } from './classes/events/event_queue.ts'
import { Flow } from './classes/flow.ts'
import { MadAgentClass } from './classes/mad/mad_agent.ts'
import { MadChannel } from './classes/mad/mad_channel.ts'
import { Mr } from './classes/mr.ts'
import { Mw } from './classes/mw.ts'
import { Pd } from './classes/pd.ts'
import { DciQp, DctQp } from './classes/qp/dc_qp.ts'
import { DriverQp } from './classes/qp/driver_qp.ts'
import { GsiQp } from './classes/qp/gsi_qp.ts'
import { RawPacketQp } from './classes/qp/raw_packet_qp.ts'
import { RcQp } from './classes/qp/rc_qp.ts'
import { RdQp } from './classes/qp/rd_qp.ts'
import { SmiQp } from './classes/qp/smi_qp.ts'
import { UcQp } from './classes/qp/uc_qp.ts'
import { UdQp } from './classes/qp/ud_qp.ts'
import { XrcIniQp, XrcTgtQp } from './classes/qp/xrc_qp.ts'
import { Srq, TmSrq, XrcSrq } from './classes/srq.ts'
import { RwqIndTable, Wq } from './classes/wq.ts'
import { Xrcd } from './classes/xrcd.ts'
import type { ObjectClass } from './schema/schema.ts'
import { checkClasses } from './schema/schema.ts'

/** By name, each with its own type. */
export const Classes = {
  interface: Interface,
  device: DeviceClass,
  port: PortClass,
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
  driver_qp: DriverQp,
  dci_qp: DciQp,
  dct_qp: DctQp,
  flow: Flow,
  counters: Counters,
  dm: Dm,
  dmah: Dmah,
  wq: Wq,
  rwq_ind_table: RwqIndTable,
  event_queue: EventQueueClass,
  system: SystemClass,
  cm_channel: CmChannel,
  cm_id: CmId,
  cm_multicast: CmMulticast,
  mad_channel: MadChannel,
  mad_agent: MadAgentClass,
  ip_interface: IpInterfaceClass,
  ip_socket: IpSocketClass,
  driver_ops: DriverOps,
} as const

/** Sorted by id. */
export const classes: readonly ObjectClass[] = Object.values(Classes).sort((a, b) => a.id - b.id)
checkClasses(classes)
