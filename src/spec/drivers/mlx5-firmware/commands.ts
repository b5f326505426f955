/*
 * The firmware commands that Linux's mlx5_ib lets programs give (devx.c): by its method, the structs, and whether this
 * device has them. The decoding of inputs, the trace, docs/reference/mlx5-commands.md and the fuzz tests come from this
 * table. A command without structs is one that the device does not have: it answers BAD_OP_ERR.
 *
 * Linux checks, before the firmware does, that a command is one of its method's, and that a number in MODIFY and QUERY
 * is the object's: otherwise the call fails with EINVAL.
 */
import {
  atomicCaps,
  cmdHcaCap,
  cmdHcaCap2,
  generalObjInCmdHdr,
  generalObjOutCmdHdr,
  odpCap,
  queryAdapterOut,
  queryHcaCapIn,
  queryHcaCapOut,
  queryHcaVportContextIn,
  queryHcaVportContextOut,
  queryIssiOut,
  queryLagOut,
  queryNicVportContextIn,
  queryNicVportContextOut,
  queryRoceAddressIn,
  queryRoceAddressOut,
  queryVportStateIn,
  queryVportStateOut,
  roceCap,
} from './device.ts'
import { bits, type Struct, struct } from './fields.ts'
import {
  allocFlowCounterIn,
  allocFlowCounterOut,
  createTirIn,
  createTirOut,
  flowTableNicCap,
  queryFlowCounterIn,
  queryFlowCounterOut,
} from './flow.ts'
import {
  allocPdOut,
  allocTransportDomainOut,
  allocXrcdOut,
  createMkeyIn,
  createMkeyOut,
  createPsvIn,
  createPsvOut,
  queryMkeyIn,
  queryMkeyOut,
} from './memory.ts'
import { rts2rtsQpIn } from './queue-values.ts'
import {
  armDctIn,
  armXrcSrqIn,
  createCqIn,
  createCqOut,
  createDctIn,
  createDctOut,
  createQpIn,
  createQpOut,
  createRmpIn,
  createRmpOut,
  modifyCqIn,
  modifyQpIn,
  modifyRmpIn,
  qp2errIn,
  queryCqIn,
  queryCqOut,
  queryDctIn,
  queryDctOut,
  queryQpIn,
  queryQpOut,
  queryRmpIn,
  queryRmpOut,
  queryXrcSrqIn,
  queryXrcSrqOut,
} from './queues.ts'

/** The beginning of each command, and of its answer. */
export const commandHeader = struct(16, {
  opcode: bits(0x0, 16),
  uid: bits(0x10, 16),
  vhca_tunnel_id: bits(0x20, 16),
  op_mod: bits(0x30, 16),
})
export const answerHeader = struct(16, { status: bits(0x0, 8), syndrome: bits(0x20, 32) })
const header = struct(16, {})

/**
 * Kinds of capabilities: the operation modifier of QUERY_HCA_CAP above bit 0, which tells the largest (0) from the
 * present value (1).
 */
export const CapabilityModifier = {
  GENERAL: 0,
  ODP: 2,
  ATOMIC: 3,
  ROCE: 4,
  NIC_FLOW_TABLE: 7,
  GENERAL_2: 0x20,
} as const
/** All kinds that mlx5_ifc.h has. Of one without struct here, all capabilities are 0. */
export const CapabilityKinds: readonly number[] = [
  0x0, 0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x7, 0x8, 0x9, 0xc, 0xd, 0xf, 0x11, 0x13, 0x14, 0x15, 0x1a, 0x1f, 0x20, 0x25, 0x26,
]
export const capabilityStructs: Readonly<Record<number, Struct>> = {
  [CapabilityModifier.GENERAL]: cmdHcaCap,
  [CapabilityModifier.ODP]: odpCap,
  [CapabilityModifier.ATOMIC]: atomicCaps,
  [CapabilityModifier.ROCE]: roceCap,
  [CapabilityModifier.NIC_FLOW_TABLE]: flowTableNicCap,
  [CapabilityModifier.GENERAL_2]: cmdHcaCap2,
}

/** Linux's method that takes the command: DEVX_OTHER, DEVX_OBJ_CREATE, …_MODIFY (and …_ARM), …_QUERY. */
export type CommandMethod = 'general' | 'create' | 'modify' | 'query'

export interface FirmwareCommand<I extends Struct = Struct, O extends Struct = Struct> {
  readonly opcode: number
  readonly method: CommandMethod
  /** Absent: the device does not have the command. */
  readonly in?: I
  readonly out?: O
  /**
   * `create`: the field of `out` with the new object's number. `modify`, `query`: the field of `in` with the object's.
   */
  readonly number?: string
  /** `modify`, `query`: the name of the command that creates such objects. */
  readonly of?: string
  /** Bytes that the input must have, if they are fewer than `in` has: structs of old programs are shorter. */
  readonly minInput?: number
}

const general = <I extends Struct, O extends Struct>(opcode: number, input: I, out: O) =>
  ({ opcode, method: 'general', in: input, out }) as const
const create = <I extends Struct, O extends Struct>(
  opcode: number,
  input: I,
  out: O,
  number: keyof O['fields'] & string,
) => ({ opcode, method: 'create', in: input, out, number }) as const
const ofObject = <M extends 'modify' | 'query', I extends Struct, O extends Struct>(
  opcode: number,
  method: M,
  of: string,
  input: I,
  out: O,
  number: keyof I['fields'] & string,
) => ({ opcode, method, of, in: input, out, number }) as const
const absent = (opcode: number, method: CommandMethod) => ({ opcode, method }) as const

/** By the name in mlx5_ifc.h, without MLX5_CMD_OP_. */
export const Commands = {
  // ---- the device ----
  QUERY_HCA_CAP: general(0x100, queryHcaCapIn, queryHcaCapOut),
  QUERY_ADAPTER: general(0x101, header, queryAdapterOut),
  QUERY_ISSI: general(0x10a, header, queryIssiOut),
  QUERY_VPORT_STATE: general(0x750, queryVportStateIn, queryVportStateOut),
  QUERY_ESW_VPORT_CONTEXT: absent(0x752, 'general'),
  QUERY_NIC_VPORT_CONTEXT: general(0x754, queryNicVportContextIn, queryNicVportContextOut),
  QUERY_ROCE_ADDRESS: general(0x760, queryRoceAddressIn, queryRoceAddressOut),
  QUERY_HCA_VPORT_CONTEXT: general(0x762, queryHcaVportContextIn, queryHcaVportContextOut),
  QUERY_VNIC_ENV: absent(0x76f, 'general'),
  QUERY_VPORT_COUNTER: absent(0x770, 'general'),
  GET_DROPPED_PACKET_LOG: absent(0x80a, 'general'),
  NOP: general(0x80d, header, header),
  QUERY_CONG_STATUS: absent(0x822, 'general'),
  QUERY_CONG_PARAMS: absent(0x824, 'general'),
  QUERY_CONG_STATISTICS: absent(0x826, 'general'),
  QUERY_LAG: general(0x842, header, queryLagOut),

  // ---- memory and small objects ----
  CREATE_MKEY: create(0x200, createMkeyIn, createMkeyOut, 'mkey_index'),
  QUERY_MKEY: ofObject(0x201, 'query', 'CREATE_MKEY', queryMkeyIn, queryMkeyOut, 'mkey_index'),
  CREATE_PSV: create(0x600, createPsvIn, createPsvOut, 'psv0_index'),
  ALLOC_PD: create(0x800, header, allocPdOut, 'pd'),
  ALLOC_TRANSPORT_DOMAIN: create(0x816, header, allocTransportDomainOut, 'transport_domain'),
  ALLOC_XRCD: create(0x80e, header, allocXrcdOut, 'xrcd'),

  // ---- queues ----
  CREATE_CQ: create(0x400, createCqIn, createCqOut, 'cqn'),
  QUERY_CQ: ofObject(0x402, 'query', 'CREATE_CQ', queryCqIn, queryCqOut, 'cqn'),
  MODIFY_CQ: ofObject(0x403, 'modify', 'CREATE_CQ', modifyCqIn, header, 'cqn'),
  CREATE_QP: create(0x500, createQpIn, createQpOut, 'qpn'),
  RST2INIT_QP: ofObject(0x502, 'modify', 'CREATE_QP', modifyQpIn, header, 'qpn'),
  INIT2RTR_QP: ofObject(0x503, 'modify', 'CREATE_QP', modifyQpIn, header, 'qpn'),
  RTR2RTS_QP: ofObject(0x504, 'modify', 'CREATE_QP', modifyQpIn, header, 'qpn'),
  RTS2RTS_QP: { ...ofObject(0x505, 'modify', 'CREATE_QP', rts2rtsQpIn, header, 'qpn'), minInput: modifyQpIn.bytes },
  SQERR2RTS_QP: ofObject(0x506, 'modify', 'CREATE_QP', modifyQpIn, header, 'qpn'),
  '2ERR_QP': ofObject(0x507, 'modify', 'CREATE_QP', qp2errIn, header, 'qpn'),
  '2RST_QP': ofObject(0x50a, 'modify', 'CREATE_QP', qp2errIn, header, 'qpn'),
  QUERY_QP: ofObject(0x50b, 'query', 'CREATE_QP', queryQpIn, queryQpOut, 'qpn'),
  INIT2INIT_QP: ofObject(0x50e, 'modify', 'CREATE_QP', modifyQpIn, header, 'qpn'),
  CREATE_SRQ: absent(0x700, 'create'),
  QUERY_SRQ: absent(0x702, 'query'),
  ARM_RQ: absent(0x703, 'modify'),
  CREATE_XRC_SRQ: absent(0x705, 'create'),
  QUERY_XRC_SRQ: ofObject(0x707, 'query', 'CREATE_XRC_SRQ', queryXrcSrqIn, queryXrcSrqOut, 'xrc_srqn'),
  ARM_XRC_SRQ: ofObject(0x708, 'modify', 'CREATE_XRC_SRQ', armXrcSrqIn, header, 'xrc_srqn'),
  CREATE_DCT: { ...create(0x710, createDctIn, createDctOut, 'dctn'), minInput: 128 },
  QUERY_DCT: ofObject(0x713, 'query', 'CREATE_DCT', queryDctIn, queryDctOut, 'dctn'),
  ARM_DCT_FOR_KEY_VIOLATION: ofObject(0x714, 'modify', 'CREATE_DCT', armDctIn, header, 'dct_number'),
  CREATE_RMP: create(0x90c, createRmpIn, createRmpOut, 'rmpn'),
  MODIFY_RMP: ofObject(0x90d, 'modify', 'CREATE_RMP', modifyRmpIn, header, 'rmpn'),
  QUERY_RMP: ofObject(0x90f, 'query', 'CREATE_RMP', queryRmpIn, queryRmpOut, 'rmpn'),

  // ---- flow steering ----
  CREATE_TIR: create(0x900, createTirIn, createTirOut, 'tirn'),
  ALLOC_FLOW_COUNTER: create(0x939, allocFlowCounterIn, allocFlowCounterOut, 'flow_counter_id'),
  QUERY_FLOW_COUNTER: ofObject(
    0x93b,
    'query',
    'ALLOC_FLOW_COUNTER',
    queryFlowCounterIn,
    queryFlowCounterOut,
    'flow_counter_id',
  ),

  // ---- what the device does not have ----
  CREATE_XRQ: absent(0x717, 'create'),
  QUERY_XRQ: absent(0x719, 'query'),
  ARM_XRQ: absent(0x71a, 'modify'),
  QUERY_XRQ_DC_PARAMS_ENTRY: absent(0x725, 'query'),
  SET_XRQ_DC_PARAMS_ENTRY: absent(0x726, 'modify'),
  QUERY_XRQ_ERROR_PARAMS: absent(0x727, 'query'),
  RELEASE_XRQ_ERROR: absent(0x729, 'modify'),
  MODIFY_XRQ: absent(0x72a, 'modify'),
  ALLOC_Q_COUNTER: absent(0x771, 'create'),
  QUERY_Q_COUNTER: absent(0x773, 'query'),
  CREATE_SCHEDULING_ELEMENT: absent(0x782, 'create'),
  QUERY_SCHEDULING_ELEMENT: absent(0x784, 'query'),
  MODIFY_SCHEDULING_ELEMENT: absent(0x785, 'modify'),
  ATTACH_TO_MCG: absent(0x806, 'create'),
  ADD_VXLAN_UDP_DPORT: absent(0x827, 'create'),
  SET_L2_TABLE_ENTRY: absent(0x829, 'create'),
  QUERY_L2_TABLE_ENTRY: absent(0x82a, 'query'),
  MODIFY_TIR: absent(0x901, 'modify'),
  QUERY_TIR: absent(0x903, 'query'),
  CREATE_SQ: absent(0x904, 'create'),
  MODIFY_SQ: absent(0x905, 'modify'),
  QUERY_SQ: absent(0x907, 'query'),
  CREATE_RQ: absent(0x908, 'create'),
  MODIFY_RQ: absent(0x909, 'modify'),
  QUERY_RQ: absent(0x90b, 'query'),
  CREATE_TIS: absent(0x912, 'create'),
  MODIFY_TIS: absent(0x913, 'modify'),
  QUERY_TIS: absent(0x915, 'query'),
  CREATE_RQT: absent(0x916, 'create'),
  MODIFY_RQT: absent(0x917, 'modify'),
  QUERY_RQT: absent(0x919, 'query'),
  CREATE_FLOW_TABLE: absent(0x930, 'create'),
  QUERY_FLOW_TABLE: absent(0x932, 'query'),
  CREATE_FLOW_GROUP: absent(0x933, 'create'),
  QUERY_FLOW_GROUP: absent(0x935, 'query'),
  SET_FLOW_TABLE_ENTRY: absent(0x936, 'create'),
  QUERY_FLOW_TABLE_ENTRY: absent(0x937, 'query'),
  MODIFY_FLOW_TABLE: absent(0x93c, 'modify'),
  ALLOC_PACKET_REFORMAT_CONTEXT: absent(0x93d, 'create'),
  QUERY_PACKET_REFORMAT_CONTEXT: absent(0x93f, 'query'),
  ALLOC_MODIFY_HEADER_CONTEXT: absent(0x940, 'create'),
  QUERY_MODIFY_HEADER_CONTEXT: absent(0x942, 'query'),
  CREATE_GENERAL_OBJECT: create(0xa00, generalObjInCmdHdr, generalObjOutCmdHdr, 'obj_id'),
  MODIFY_GENERAL_OBJECT: absent(0xa01, 'modify'),
  QUERY_GENERAL_OBJECT: absent(0xa02, 'query'),
  SYNC_STEERING: absent(0xb00, 'general'),
  QUERY_VHCA_STATE: absent(0xb0d, 'general'),
  SYNC_CRYPTO: absent(0xb12, 'general'),
  ALLOW_OTHER_VHCA_ACCESS: absent(0xb16, 'general'),
  GENERATE_WQE: absent(0xb17, 'general'),
} as const satisfies Readonly<Record<string, FirmwareCommand>>
export type CommandName = keyof typeof Commands

/** Linux passes all commands of these numbers to the firmware by DEVX_OTHER (MLX5_CMD_OP_GENERAL_START, …_END). */
export const GENERAL_COMMANDS = { first: 0xb00, end: 0xd00 } as const

const byOpcode = new Map(
  Object.entries<FirmwareCommand>(Commands).map(([name, command]) => [command.opcode, { name, ...command }] as const),
)

/** The command of an opcode; undefined: Linux does not know it. */
export const commandOf = (opcode: number): (FirmwareCommand & { readonly name: string }) | undefined =>
  byOpcode.get(opcode)

/**
 * What the device takes of commands with more in mlx5_ifc.h. Other values are refused, with the field in the reason.
 */
export const commandLimits: Partial<Record<CommandName, string>> = {
  QUERY_HCA_CAP: 'kinds of capabilities that mlx5_ifc.h names; of the own function',
  QUERY_VPORT_STATE: 'of the own function',
  QUERY_NIC_VPORT_CONTEXT: 'of the own function',
  QUERY_HCA_VPORT_CONTEXT: 'of the own function, whose port is one of InfiniBand',
  CREATE_MKEY:
    'modes MTT, KLM (also a block that repeats) and KSM; `umr_en` and `free` of KLM and KSM; `bsf_en` of KLM; for all queue pairs; no encryption (`crypto_en`), `pg_access` or `data_direct`',
  CREATE_CQ: 'no compressed or collapsed entries, and no real-time stamps',
  MODIFY_CQ: 'moderation (period and count); no resize',
  CREATE_QP: 'types RC, UC, UD and DCI; no signatures of requests, tag matching (XRQ) or real-time stamps',
  RTS2RTS_QP: 'also a stream of an initiator, and the UDP source port',
  CREATE_DCT: 'no tag matching',
  CREATE_RMP: 'lists and rings, without strides and signatures',
  MODIFY_RMP: 'the limit (`lwm`)',
  CREATE_TIR: 'to one receive queue (`disp_type` 0), without LRO, TLS and NVMe over TCP',
  QUERY_FLOW_COUNTER: 'into the output only',
  CREATE_GENERAL_OBJECT:
    'reserved numbers of queue pairs (0x2c), one an object, and mappings of paths to queue pairs (0x3a)',
}
