/*
 * Firmware commands that ask about the device (spec/drivers/mlx5-firmware/device.ts). A capability is told only if the
 * device has what it promises.
 */
import { hasLids } from '../../../core/devices/gids.ts'
import { macOf } from '../../../core/devices/identity.ts'
import type { CallContext } from '../../../core/model.ts'
import {
  answerHeader,
  CapabilityKinds,
  Commands,
  capabilityStructs,
} from '../../../spec/drivers/mlx5-firmware/commands.ts'
import { GidType, PortState } from '../../../spec/enums.ts'
import { isMappedIpv4 } from '../../../transport/wire/address.ts'
import { encodeFields } from '../../../uapi/firmware/fields.ts'
import { VENDOR_ID } from '../attributes.ts'
import { stateOf } from '../state.ts'
import { capabilities } from './capabilities.ts'
import { generalCommand, refuseCommand } from './handler.ts'

const hex = (number: number): string => `0x${number.toString(16)}`

/** Refuses with `unsupportedFeature`: the function manages no others. */
const requireOwn = (input: { readonly other_vport: number } | { readonly other_function: number }): void => {
  for (const [field, value] of Object.entries(input))
    if (field.startsWith('other_') && value !== 0)
      refuseCommand('unsupportedFeature', `${field} ${value}; the function has no others`)
}

const portOf = ({ device }: CallContext) => device.ports[0]!

/** The first two bytes and the other four, as numbers. */
const macWords = (mac: Uint8Array): readonly [number, number] => {
  const view = new DataView(mac.buffer, mac.byteOffset, mac.length)
  return [view.getUint16(0), view.getUint32(2)]
}

const guidNumber = (guid: Uint8Array): bigint => new DataView(guid.buffer, guid.byteOffset, 8).getBigUint64(0)

/** MLX5_ROCE_VERSION_…, and whether the address is IPv4 (MLX5_ROCE_L3_TYPE_…). */
const ROCE_VERSION_1 = 0
const ROCE_VERSION_2 = 2
const L3Type = { IPV4: 0, IPV6: 1 } as const

/** VPORT_STATE_UP, and the administrative state FOLLOW. */
const VPORT_UP = 1
const ADMIN_FOLLOWS = 2
const ETHERNET_MTU = 9978

export const deviceCommands = [
  generalCommand(Commands.QUERY_HCA_CAP, ({ call, opMod, input, outBytes }) => {
    requireOwn(input)
    const kind = opMod >> 1
    if (!CapabilityKinds.includes(kind))
      return refuseCommand(
        'unsupportedModifier',
        `op_mod ${hex(opMod)}: there are no capabilities of kind ${hex(kind)}`,
      )
    const struct = capabilityStructs[kind]
    const values = capabilities(call.device, stateOf(call).soft.limits)[kind]
    if (struct === undefined || values === undefined) return {}
    // programs pass as many bytes as they know
    return { capability: encodeFields(struct, values).subarray(0, outBytes - answerHeader.bytes) }
  }),
  generalCommand(Commands.QUERY_ADAPTER, () => ({ query_adapter_struct: { ieee_vendor_id: VENDOR_ID } })),
  // interface step sequence ID 1, and 0, of which the device is not
  generalCommand(Commands.QUERY_ISSI, () => ({ current_issi: 1, supported_issi_dw0: 0b10 })),
  // no ports are joined
  generalCommand(Commands.QUERY_LAG, () => ({})),
  generalCommand(Commands.QUERY_VPORT_STATE, ({ call, input, opMod }) => {
    requireOwn(input)
    if (opMod !== 0) refuseCommand('unsupportedModifier', `op_mod ${hex(opMod)}; it must be 0, for the own port`)
    const isActive = portOf(call).attributes.state === PortState.values.ACTIVE
    return { admin_state: ADMIN_FOLLOWS, state: isActive ? VPORT_UP : 0 }
  }),
  generalCommand(Commands.QUERY_NIC_VPORT_CONTEXT, ({ call, input }) => {
    requireOwn(input)
    const { nodeGuid, sysImageGuid } = call.device.attributes
    const { identity } = stateOf(call).soft
    return {
      nic_vport_context: {
        roce_en: hasLids(call.device) ? 0 : 1,
        mtu: ETHERNET_MTU,
        system_image_guid: guidNumber(sysImageGuid),
        port_guid: guidNumber(nodeGuid),
        node_guid: guidNumber(nodeGuid),
        permanent_address: macOf(identity),
      },
    }
  }),
  generalCommand(Commands.QUERY_HCA_VPORT_CONTEXT, ({ call, input }) => {
    requireOwn(input)
    if (!hasLids(call.device)) refuseCommand('unsupportedCommand', 'the port is one of Ethernet')
    if (input.port_num > 1) refuseCommand('noSuchIndex', `port_num ${input.port_num}; the port is 1`)
    const { nodeGuid, sysImageGuid } = call.device.attributes
    const port = portOf(call).attributes
    return {
      hca_vport_context: {
        has_smi: 1,
        port_physical_state: port.physState,
        vport_state_policy: ADMIN_FOLLOWS,
        port_state: port.state,
        vport_state: port.state === PortState.values.ACTIVE ? VPORT_UP : 0,
        system_image_guid: guidNumber(sysImageGuid),
        port_guid: guidNumber(portOf(call).gids.entries[0]!.gid.subarray(8)),
        node_guid: guidNumber(nodeGuid),
        cap_mask1: port.portCapFlags,
        lid: port.lid,
        init_type_reply: port.initTypeReply,
        lmc: port.lmc,
        subnet_timeout: port.subnetTimeout,
        sm_lid: port.smLid,
        sm_sl: port.smSl,
        qkey_violation_counter: port.qkeyViolCntr,
        pkey_violation_counter: port.badPkeyCntr,
      },
    }
  }),
  generalCommand(Commands.QUERY_ROCE_ADDRESS, ({ call, input: { roce_address_index: index } }) => {
    if (hasLids(call.device)) refuseCommand('unsupportedCommand', 'the port is one of InfiniBand')
    const { entries } = portOf(call).gids
    const entry = entries[index]
    if (index >= entries.length)
      refuseCommand('noSuchIndex', `roce_address_index ${index}; there are 0 to ${entries.length - 1}`)
    if (entry === undefined) return {}
    const isV2 = entry.type === GidType.values.ROCE_V2
    const [high, low] = macWords(macOf(stateOf(call).soft.identity))
    return {
      roce_address: {
        source_l3_address: entry.gid,
        source_mac_47_32: high,
        source_mac_31_0: low,
        // of v1 as Linux's mlx5_ib leaves it
        roce_l3_type: isV2 && !isMappedIpv4(entry.gid) ? L3Type.IPV6 : L3Type.IPV4,
        roce_version: isV2 ? ROCE_VERSION_2 : ROCE_VERSION_1,
      },
    }
  }),
]
