/*
 * Linux's write() commands on a uverbs file (R41), with their methods and the offsets of attributes (ib_user_verbs.h).
 * INVOKE_WRITE of the ioctl dialect carries the same requests. Other commands are refused with EOPNOTSUPP.
 *
 * A basic command is {u32 command, u16 in_words, u16 out_words} and the request; a word has 4 bytes. An extended
 * command has bit 31 of `command` set, and {u64 response, u16 provider_in_words, u16 provider_out_words, u32 reserved}
 * before the request; a word has 8 bytes.
 */
import { DeviceAttributes, ExtendedDeviceAttributes } from '../classes/device/device.ts'
import { PortAttributes } from '../classes/device/port.ts'
import { SRQ_CLASSES } from '../classes/ids.ts'
import { qpAttributes } from '../classes/qp/qp.ts'
import { Mtu, QpFlags, XrcdFlags } from '../enums.ts'
import type { AnyValues, Attribute } from '../schema/schema.ts'
import {
  bit,
  bool,
  classSelector,
  descriptor,
  embed,
  filledLength,
  type Layout,
  layout,
  object,
  value,
  valueByBit,
  valueByClass,
  valueIfPresent,
  withFallback,
  zero,
  zeroBits,
} from './layout.ts'
import { ExtendedCommands, type ExtendedName, WriteCommands, type WriteName } from './names.ts'
import { ahAddress, alternatePathFields, LINUX_QP_CLASSES, qpCap, qpDest, qpDestResponse } from './structs.ts'

/** Bits of `command`: the number, and the flag of an extended command. */
export const COMMAND_MASK = 0xff
export const EXTENDED = 0x80000000

export interface WriteCommand {
  readonly name: WriteName | ExtendedName
  readonly number: number
  readonly isExtended: boolean
  /** The object's handle, or a `class` cell of the request, selects one of these classes. */
  readonly classes: readonly string[]
  readonly method: string
  readonly in: Layout
  /** Minimum bytes of the request, without the driver's. Bytes after the struct and its `tail` must be 0. */
  readonly minRequestBytes: number
  /** Undefined: the command has no response. */
  readonly out?: Layout
  readonly minResponseBytes: number
  /** The bytes after request and response belong to the driver. */
  readonly hasDriverBytes: boolean
  /** Arguments of our method that the command implies. */
  readonly impliedArguments?: AnyValues
}

const isExtendedName = (name: WriteName | ExtendedName): name is ExtendedName => Object.hasOwn(ExtendedCommands, name)

const command = (
  name: WriteName | ExtendedName,
  classes: readonly string[],
  method: string,
  options: {
    in: Layout
    out?: Layout
    hasDriverBytes?: boolean
    impliedArguments?: AnyValues
  },
): WriteCommand => ({
  name,
  number: isExtendedName(name) ? ExtendedCommands[name] : WriteCommands[name],
  isExtended: isExtendedName(name),
  classes,
  method,
  in: options.in,
  // For extended commands, Linux fills a short request with zeros, unless a tail follows, and truncates the response
  minRequestBytes: isExtendedName(name) && options.in.tail === undefined ? 0 : options.in.size,
  ...(options.out === undefined ? {} : { out: options.out }),
  minResponseBytes: isExtendedName(name) ? 0 : (options.out?.size ?? 0),
  hasDriverBytes: options.hasDriverBytes ?? false,
  ...(options.impliedArguments === undefined ? {} : { impliedArguments: options.impliedArguments }),
})

/** Bytes of a request that has only the pointer to the response. */
const RESPONSE_POINTER_BYTES = 8
/** Mask of PSNs and QPNs. */
const LOW_24_BITS = 0xffffff

/** Cells of ib_uverbs_modify_qp and ib_uverbs_ex_modify_qp. */
const modifyQp = [
  ...qpDest(0, 'address'),
  ...qpDest(32, 'alternatePath'),
  object(64),
  value(72, 4, 'qkey'),
  value(76, 4, 'rqPsn', LOW_24_BITS),
  value(80, 4, 'sqPsn', LOW_24_BITS),
  value(84, 4, 'destQpn', LOW_24_BITS),
  value(88, 4, 'accessFlags'),
  value(92, 2, 'pkeyIndex'),
  ...alternatePathFields(94, 108, 109),
  value(96, 1, 'state'),
  value(97, 1, 'curState'),
  value(98, 1, 'pathMtu'),
  value(99, 1, 'pathMigState'),
  value(100, 1, 'enSqdAsyncNotify'),
  value(101, 1, 'maxRdAtomic'),
  value(102, 1, 'maxDestRdAtomic'),
  value(103, 1, 'minRnrTimer'),
  value(104, 1, 'port'),
  value(105, 1, 'timeout'),
  value(106, 1, 'retryCnt'),
  value(107, 1, 'rnrRetry'),
]
/** Bits of the attribute mask: an attribute's id is one more than its bit number. */
const maskBits = (...attributes: readonly Attribute[]): number =>
  attributes.reduce((bits, { id }) => bits | (1 << (id - 1)), 0)
/** All bits of ib_qp_attr_mask up to IB_QP_DEST_QPN. */
const STANDARD_MASK_BITS = 0x1fffff
/** Attributes that the class lacks. Programs that treat all QP types alike set their bits. */
const XRC_IGNORED = {
  xrc_ini_qp: maskBits(qpAttributes.minRnrTimer, qpAttributes.maxDestRdAtomic),
  xrc_tgt_qp: maskBits(qpAttributes.maxRdAtomic, qpAttributes.retryCnt, qpAttributes.rnrRetry),
}
/** Mask bit of MODIFY_CQ (IB_CQ_MODERATE). */
const CQ_MODERATE = 1
/** Mask bits of MODIFY_WQ: IB_WQ_STATE, IB_WQ_CUR_STATE, IB_WQ_FLAGS (flags and their mask). */
const WQ_FLAGS = 4
const WQ_MASK_BITS = 7
/** Mask bits of MODIFY_SRQ: IB_SRQ_MAX_WR, IB_SRQ_LIMIT. */
const SRQ_MASK_BITS = 3
/** Flags of REREG_MR: IB_MR_REREG_TRANS, IB_MR_REREG_PD, IB_MR_REREG_ACCESS. */
const REREG_MASK_BITS = 7

/**
 * The `create_flags` of EX_CREATE_QP that Linux knows, from IB_QP_CREATE_BLOCK_MULTICAST_LOOPBACK to
 * IB_QP_CREATE_PCI_WRITE_END_PADDING.
 */
const CREATION_FLAGS = 0xf1e

const SIG_ALL = QpFlags.values.SQ_SIG_ALL
/** Cells of ib_uverbs_create_qp after its response pointer, and the first cells of ib_uverbs_ex_create_qp. */
const createQp = (at: number) => [
  value(at, 8, 'userHandle'),
  // `pd_handle` of an XRC target is its XRC domain.
  value(at + 8, 4, 'pd'),
  value(at + 8, 4, 'xrcd'),
  value(at + 12, 4, 'sendCq'),
  value(at + 16, 4, 'recvCq'),
  ...qpCap(at + 24),
  bit(at + 44, 1, 'flags', SIG_ALL),
  classSelector(at + 45, 1),
  valueIfPresent(at + 46, at + 20, 4, 'srq'),
]
const createQpResponse = [object(0), value(4, 4, 'qpNum'), ...qpCap(8)]

/** An XRC target has no send queue, and queue pairs of DC have no such call. */
const SENDERS = LINUX_QP_CLASSES.filter(name => !['xrc_tgt_qp', 'dci_qp', 'dct_qp'].includes(name))

/** Cells of ib_uverbs_create_srq_resp. */
const createSrqResponse = [object(0), value(4, 4, 'maxWr'), value(8, 4, 'maxSge')]

/** ib_uverbs_attach_mcast and ib_uverbs_detach_mcast. */
const multicast = layout(24, value(0, 16, 'gid'), object(16), value(20, 2, 'mlid'))

export const writeCommands: readonly WriteCommand[] = [
  command('GET_CONTEXT', ['device'], 'open', {
    in: layout(RESPONSE_POINTER_BYTES),
    out: layout(8, descriptor(0, 'asyncFd'), value(4, 4, 'numCompVectors')),
    hasDriverBytes: true,
    impliedArguments: { wantAsyncFd: 1 },
  }),
  command('QUERY_DEVICE', ['device'], 'query', {
    in: layout(RESPONSE_POINTER_BYTES),
    out: layout(176, embed(0, 'attributes', DeviceAttributes)),
  }),
  command('QUERY_PORT', ['port'], 'query', {
    in: layout(16, object(8, 1)),
    out: layout(40, embed(0, 'attributes', PortAttributes, 40)),
  }),
  command('ALLOC_PD', ['pd'], 'create', {
    in: layout(RESPONSE_POINTER_BYTES),
    out: layout(4, object(0)),
    hasDriverBytes: true,
  }),
  command('DEALLOC_PD', ['pd'], 'destroy', { in: layout(4, object(0)) }),
  command('CREATE_AH', ['ah'], 'create', {
    in: layout(56, value(8, 8, 'userHandle'), value(16, 4, 'pd'), ahAddress(24)),
    out: layout(4, object(0)),
    hasDriverBytes: true,
  }),
  command('DESTROY_AH', ['ah'], 'destroy', { in: layout(4, object(0)) }),
  command('REG_MR', ['mr'], 'create', {
    in: layout(
      40,
      value(8, 8, 'start'),
      value(16, 8, 'length'),
      value(24, 8, 'iova'),
      value(32, 4, 'pd'),
      value(36, 4, 'access'),
    ),
    out: layout(12, object(0), value(4, 4, 'lkey'), value(8, 4, 'rkey')),
    hasDriverBytes: true,
  }),
  command('REREG_MR', ['mr'], 'modify', {
    in: {
      ...layout(
        48,
        object(8),
        value(16, 8, 'translation.start'),
        value(24, 8, 'translation.length'),
        value(32, 8, 'translation.iova'),
        value(40, 4, 'pd'),
        value(44, 4, 'access'),
      ),
      maskAt: 12,
      maskBits: REREG_MASK_BITS,
    },
    out: layout(8, value(0, 4, 'lkey'), value(4, 4, 'rkey')),
    hasDriverBytes: true,
  }),
  command('DEREG_MR', ['mr'], 'destroy', { in: layout(4, object(0)) }),
  command('ALLOC_MW', ['mw'], 'create', {
    in: layout(16, value(8, 4, 'pd'), value(12, 1, 'type')),
    out: layout(8, object(0), value(4, 4, 'rkey')),
    hasDriverBytes: true,
  }),
  command('DEALLOC_MW', ['mw'], 'destroy', { in: layout(4, object(0)) }),
  command('CREATE_COMP_CHANNEL', ['comp_channel'], 'create', {
    in: layout(RESPONSE_POINTER_BYTES),
    out: layout(4, descriptor(0, 'object')),
  }),
  command('CREATE_CQ', ['cq'], 'create', {
    in: layout(
      32,
      value(8, 8, 'userHandle'),
      value(16, 4, 'cqe'),
      value(20, 4, 'compVector'),
      descriptor(24, 'channel'),
    ),
    out: layout(8, object(0), value(4, 4, 'cqe')),
    hasDriverBytes: true,
  }),
  command('RESIZE_CQ', ['cq'], 'modify', {
    in: layout(16, object(8), value(12, 4, 'cqe')),
    out: layout(8, value(0, 4, 'cqe')),
    hasDriverBytes: true,
  }),
  command('DESTROY_CQ', ['cq'], 'destroy', {
    in: layout(16, object(8)),
    out: layout(8, value(0, 4, 'compEvents'), value(4, 4, 'asyncEvents')),
  }),
  command('REQ_NOTIFY_CQ', ['cq'], 'reqNotify', { in: layout(8, object(0), value(4, 4, 'solicitedOnly')) }),
  command('CREATE_QP', LINUX_QP_CLASSES, 'create', {
    in: layout(56, createQp(8)),
    out: layout(32, createQpResponse),
    hasDriverBytes: true,
  }),
  command('QUERY_QP', LINUX_QP_CLASSES, 'query', {
    in: layout(16, object(8), value(12, 4, 'attrMask')),
    out: layout(
      128,
      qpDestResponse(0, 'address'),
      qpDestResponse(32, 'alternatePath'),
      qpCap(64),
      value(84, 4, 'qkey'),
      value(88, 4, 'rqPsn'),
      value(92, 4, 'sqPsn'),
      value(96, 4, 'destQpn'),
      value(100, 4, 'accessFlags'),
      value(104, 2, 'pkeyIndex'),
      alternatePathFields(106, 120, 121),
      value(108, 1, 'state'),
      value(109, 1, 'curState'),
      withFallback(value(110, 1, 'pathMtu'), Mtu.values.MTU_256),
      value(111, 1, 'pathMigState'),
      value(112, 1, 'sqDraining'),
      value(113, 1, 'maxRdAtomic'),
      value(114, 1, 'maxDestRdAtomic'),
      value(115, 1, 'minRnrTimer'),
      value(116, 1, 'port'),
      value(117, 1, 'timeout'),
      value(118, 1, 'retryCnt'),
      value(119, 1, 'rnrRetry'),
      bool(122, 'sqSigAll'),
    ),
  }),
  command('MODIFY_QP', LINUX_QP_CLASSES, 'modify', {
    in: { ...layout(112, modifyQp), maskAt: 68, maskBits: STANDARD_MASK_BITS, ignored: XRC_IGNORED },
  }),
  command('DESTROY_QP', LINUX_QP_CLASSES, 'destroy', {
    in: layout(16, object(8)),
    out: layout(4, value(0, 4, 'events')),
  }),
  command('POST_SEND', SENDERS, 'postSend', {
    in: {
      ...layout(24, object(8), value(12, 4, 'wrCount'), value(16, 4, 'sgeCount'), value(20, 4, 'wqeSize')),
      tail: 'requests',
    },
    out: layout(4, value(0, 4, 'badWr')),
  }),
  command('CREATE_SRQ', ['srq'], 'create', {
    in: layout(
      32,
      value(8, 8, 'userHandle'),
      value(16, 4, 'pd'),
      value(20, 4, 'maxWr'),
      value(24, 4, 'maxSge'),
      value(28, 4, 'limit'),
    ),
    out: layout(16, createSrqResponse),
    hasDriverBytes: true,
  }),
  command('MODIFY_SRQ', SRQ_CLASSES, 'modify', {
    in: { ...layout(16, object(0), value(8, 4, 'maxWr'), value(12, 4, 'limit')), maskAt: 4, maskBits: SRQ_MASK_BITS },
    hasDriverBytes: true,
  }),
  command('QUERY_SRQ', SRQ_CLASSES, 'query', {
    in: layout(16, object(8)),
    out: layout(16, value(0, 4, 'maxWr'), value(4, 4, 'maxSge'), value(8, 4, 'limit')),
  }),
  command('DESTROY_SRQ', SRQ_CLASSES, 'destroy', {
    in: layout(16, object(8)),
    out: layout(4, value(0, 4, 'events')),
  }),
  command('OPEN_XRCD', ['xrcd'], 'create', {
    in: layout(
      16,
      descriptor(8, 'file', 'EBADF'),
      value(12, 4, 'flags', XrcdFlags.values.CREAT | XrcdFlags.values.EXCL),
    ),
    out: layout(4, object(0)),
    hasDriverBytes: true,
  }),
  command('CLOSE_XRCD', ['xrcd'], 'destroy', { in: layout(4, object(0)) }),
  command('CREATE_XSRQ', SRQ_CLASSES, 'create', {
    in: layout(
      48,
      value(8, 8, 'userHandle'),
      classSelector(16, 4),
      value(20, 4, 'pd'),
      value(24, 4, 'maxWr'),
      value(28, 4, 'maxSge'),
      value(32, 4, 'limit'),
      value(36, 4, 'maxNumTags'),
      value(40, 4, 'xrcd'),
      value(44, 4, 'cq'),
    ),
    out: layout(16, createSrqResponse, value(12, 4, 'srqNum')),
    hasDriverBytes: true,
  }),
  command('ATTACH_MCAST', ['ud_qp'], 'attachMcast', { in: multicast }),
  command('DETACH_MCAST', ['ud_qp'], 'detachMcast', { in: multicast }),
  command('OPEN_QP', ['xrc_tgt_qp'], 'create', {
    in: layout(32, value(8, 8, 'userHandle'), value(16, 4, 'xrcd'), value(20, 4, 'qpNum'), classSelector(24, 1)),
    out: layout(32, object(0), value(4, 4, 'qpNum')),
    hasDriverBytes: true,
  }),
  command('EX_QUERY_DEVICE', ['device'], 'query', {
    in: layout(8, zero(0, 4, 'EINVAL'), zero(4, 4, 'EINVAL')),
    out: layout(
      304,
      embed(0, 'attributes', DeviceAttributes),
      filledLength(180),
      embed(184, 'extended', ExtendedDeviceAttributes),
    ),
    hasDriverBytes: true,
  }),
  command('EX_CREATE_CQ', ['cq'], 'create', {
    in: layout(
      32,
      value(0, 8, 'userHandle'),
      value(8, 4, 'cqe'),
      value(12, 4, 'compVector'),
      descriptor(16, 'channel'),
      zero(20, 4, 'EINVAL'),
      value(24, 4, 'flags'),
      zero(28, 4, 'EINVAL'),
    ),
    out: layout(16, object(0), value(4, 4, 'cqe'), filledLength(12)),
    hasDriverBytes: true,
  }),
  command('EX_CREATE_QP', LINUX_QP_CLASSES, 'create', {
    // `create_flags` (offset 52): EINVAL for unknown flags, EOPNOTSUPP for known flags, which no QP type here supports.
    in: layout(
      64,
      createQp(0),
      zero(47, 1, 'EINVAL'),
      zero(48, 4, 'EINVAL'),
      zeroBits(52, ~CREATION_FLAGS >>> 0, 'EINVAL'),
      zero(52, 4, 'EOPNOTSUPP'),
    ),
    out: layout(40, createQpResponse, filledLength(36)),
    hasDriverBytes: true,
  }),
  command('EX_MODIFY_QP', LINUX_QP_CLASSES, 'modify', {
    in: { ...layout(120, modifyQp), maskAt: 68, maskBits: STANDARD_MASK_BITS, ignored: XRC_IGNORED },
    out: layout(8, filledLength(4)),
    hasDriverBytes: true,
  }),
  command('CREATE_FLOW', ['flow'], 'create', {
    in: {
      ...layout(
        24,
        zero(0, 4, 'EINVAL'),
        valueByClass(4, 'rawQp', 'udQp'),
        value(8, 4, 'type'),
        value(14, 2, 'priority'),
        zero(17, 2, 'EINVAL'),
        value(19, 1, 'port'),
        value(20, 4, 'flags'),
      ),
      tail: 'specs',
      tailSpecs: { sizeAt: 12, countAt: 16, counters: 'counters' },
    },
    out: layout(8, object(4)),
    hasDriverBytes: true,
  }),
  command('DESTROY_FLOW', ['flow'], 'destroy', { in: layout(8, zero(0, 4, 'EINVAL'), object(4)) }),
  command('CREATE_WQ', ['wq'], 'create', {
    in: layout(
      40,
      zero(0, 4, 'EOPNOTSUPP'),
      value(4, 4, 'type'),
      value(8, 8, 'userHandle'),
      value(16, 4, 'pd'),
      value(20, 4, 'cq'),
      value(24, 4, 'maxWr'),
      value(28, 4, 'maxSge'),
      value(32, 4, 'flags'),
    ),
    out: layout(24, filledLength(4), object(8), value(12, 4, 'maxWr'), value(16, 4, 'maxSge'), value(20, 4, 'wqNum')),
    hasDriverBytes: true,
  }),
  command('MODIFY_WQ', ['wq'], 'modify', {
    in: {
      ...layout(
        24,
        object(4),
        value(8, 4, 'state'),
        value(12, 4, 'curState'),
        value(16, 4, 'flags'),
        valueByBit(20, 4, 'flagsMask', WQ_FLAGS),
      ),
      maskAt: 0,
      maskBits: WQ_MASK_BITS,
    },
    hasDriverBytes: true,
  }),
  command('DESTROY_WQ', ['wq'], 'destroy', {
    in: layout(8, zero(0, 4, 'EOPNOTSUPP'), object(4)),
    out: layout(16, filledLength(4), value(8, 4, 'events')),
  }),
  command('CREATE_RWQ_IND_TBL', ['rwq_ind_table'], 'create', {
    in: { ...layout(8, zero(0, 4, 'EOPNOTSUPP')), tail: 'queues', tailLogAt: 4 },
    out: layout(16, filledLength(4), object(8), value(12, 4, 'tableNum')),
    hasDriverBytes: true,
  }),
  command('DESTROY_RWQ_IND_TBL', ['rwq_ind_table'], 'destroy', {
    in: layout(8, zero(0, 4, 'EOPNOTSUPP'), object(4)),
  }),
  command('MODIFY_CQ', ['cq'], 'modify', {
    in: {
      ...layout(
        16,
        object(0),
        valueByBit(8, 2, 'count', CQ_MODERATE),
        valueByBit(10, 2, 'period', CQ_MODERATE),
        zero(12, 4, 'EINVAL'),
      ),
      maskAt: 4,
      maskBits: CQ_MODERATE,
    },
  }),
]
