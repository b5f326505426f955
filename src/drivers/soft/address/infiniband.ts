/*
 * Paths of an InfiniBand port: a LID, and a GRH if the address vector is global (IBA 8, 11.2.2.1). Packets have the LID
 * that the port has when the path is opened. A path to a LID that no port has is a path as any other: its packets are
 * lost, and RC ends with RETRY_EXC_ERR.
 */
import { type GidTable, getGid } from '../../../core/devices/gids.ts'
import type { PortAttributes } from '../../../spec/classes/device/port.ts'
import { callError } from '../../../spec/errno.ts'
import { the } from '../../../spec/reason.ts'
import type { RecordOf } from '../../../spec/schema/schema.ts'
import { FIRST_MULTICAST_LID, PERMISSIVE_LID } from '../../../spec/wire/subnet.ts'
import type { FlowAddress, Port } from '../../../transport/phy/port.ts'
import { lidAddress, lidOf } from '../../../transport/wire/address.ts'
import { infinibandGrh } from './grh.ts'
import { type Address, copyAddress, noAddress, openPath, type Paths, requirePort } from './path.ts'

const MAX_HOP_LIMIT = 0xff

/** The port's table of GIDs, and its attributes. */
interface FabricPort {
  readonly gids: GidTable
  readonly attributes: RecordOf<typeof PortAttributes>
}

export const infinibandPaths = (port: Port, own: () => FabricPort): Paths => {
  const check = (address: Address, method: string): void => {
    requirePort(address, method)
    if (address.srcPathBits !== 0)
      throw callError.EINVAL`${the.method(method)}: ${the.addressField('srcPathBits')} ${address.srcPathBits}: the port has one LID (LMC 0)`
    if (address.isGlobal) getGid(own().gids, address.sgidIndex)
  }
  const flowOf = ({ dlid, dgid, isGlobal, sgidIndex, trafficClass, hopLimit, flowLabel, sl }: Address): FlowAddress => {
    const { gids, attributes } = own()
    return {
      source: lidAddress(attributes.lid),
      destination: lidAddress(dlid),
      sourcePort: 0,
      trafficClass: isGlobal ? trafficClass : 0,
      hopLimit: isGlobal ? hopLimit : 0,
      flowLabel: isGlobal ? flowLabel & 0xfffff : 0,
      sl: sl & 15,
      grh: isGlobal ? { source: getGid(gids, sgidIndex).gid, destination: dgid } : undefined,
    }
  }
  return {
    grhBuilder: infinibandGrh,
    groupAddress: (_gid, mlid) => lidAddress(mlid),
    checkGroupLid(mlid) {
      if (mlid < FIRST_MULTICAST_LID || mlid === PERMISSIVE_LID)
        throw callError.EINVAL`${the.method('ud_qp.attachMcast')}: ${the.attribute('mlid')}: ${mlid} is no multicast LID, from ${FIRST_MULTICAST_LID} to ${PERMISSIVE_LID - 1}: on InfiniBand give that of the group, which a join returns`
    },
    isToGroup: ({ destination }) => lidOf(destination) >= FIRST_MULTICAST_LID,
    groupOf: ({ grh, destination }) => grh?.destination ?? destination,
    none: noAddress,
    given: ({ ibAddress }) => ibAddress && copyAddress(ibAddress),
    answer: stored => ({ ibAddress: copyAddress(stored) }),
    noAlternate: () => ({ ibAlternatePath: { ...copyAddress(noAddress), altPort: 0, pkeyIndex: 0, timeout: 0 } }),
    hopLimitOf: ({ hopLimit }) => hopLimit,
    check,
    gidIndexOf: ({ isGlobal, sgidIndex }) => (isGlobal ? sgidIndex : -1),
    open(address, method) {
      check(address, method)
      return openPath(port, flowOf(address), method)
    },
    peerOf: ({ dlid }) => port.peerOf(lidAddress(dlid)),
    peerAddress: ({ dlid }) => lidAddress(dlid),
    datagramAddress: ({ dlid, dgid, isGlobal }) => (isGlobal && dlid >= FIRST_MULTICAST_LID ? dgid : lidAddress(dlid)),
    leadsTo: ({ dlid }, { attributes }) => dlid !== 0 && attributes.lid === dlid,
    back: ({ source, grh, flowLabel, trafficClass, sl = 0 }) => ({
      ...noAddress,
      dlid: lidOf(source),
      sl,
      port: 1,
      ...(grh && { isGlobal: 1, dgid: grh.source, flowLabel, trafficClass, hopLimit: MAX_HOP_LIMIT }),
    }),
    openBack({ source, destination, sl, flowLabel, trafficClass, grh }, method) {
      const back = grh && { source: grh.destination, destination: grh.source }
      const fields = { sourcePort: 0, trafficClass, hopLimit: grh === undefined ? 0 : MAX_HOP_LIMIT, flowLabel, sl }
      return openPath(port, { source: destination, destination: source, ...fields, grh: back }, method)
    },
    ends: ({ source, destination, sl = 0, grh }) => ({
      localGid: grh?.destination ?? noAddress.dgid,
      remoteGid: grh?.source ?? noAddress.dgid,
      lids: { local: lidOf(destination), remote: lidOf(source), sl, isGlobal: grh !== undefined },
    }),
    hasOwnFlows: false,
    openDatagram: ({ lids, remoteGid, flowLabel, trafficClass, hopLimit }) => {
      if (lids === undefined) throw new RangeError('a path of InfiniBand has LIDs')
      const { remote: dlid, sl, isGlobal } = lids
      const grh = { isGlobal: isGlobal ? 1 : 0, dgid: remoteGid, flowLabel, trafficClass, hopLimit }
      return port.openFlow(flowOf({ ...noAddress, ...grh, dlid, sl, port: 1 }))
    },
  }
}
