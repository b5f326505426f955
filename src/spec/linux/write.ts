/*
 * Linux's write() commands on a uverbs file (R41): the method of each, and the offsets of its attributes
 * (ib_user_verbs.h).
 *
 * A basic command is {u32 command, u16 in_words, u16 out_words} and the request, in 4-byte words; an extended one (bit
 * 31) has {u64 response, u16 provider_in_words, u16 provider_out_words, u32 reserved} in between, in 8-byte words.
 * INVOKE_WRITE of the ioctl dialect carries the same requests. A command that is not listed is EOPNOTSUPP.
 */
import { DeviceAttributes, ExtendedDeviceAttributes } from '../classes/device/device.ts'
import { PortAttributes } from '../classes/device/port.ts'
import { qpAttributes } from '../classes/qp/qp.ts'
import { Mtu, QpFlags, XrcdFlags } from '../enums.ts'
import type { AnyValues, Attribute } from '../schema/schema.ts'
import {
  bit,
  bool,
  descriptor,
  embed,
  filledLength,
  type Layout,
  layout,
  object,
  orElse,
  value,
  valueByBit,
  valueByClass,
  valueWhen,
  whichClass,
  zero,
  zeroBits,
} from './layout.ts'
import { ExtendedCommands, type ExtendedName, WriteCommands, type WriteName } from './names.ts'
import { ahAddress, alternateRest, LINUX_QP_CLASSES, qpCap, qpDest, qpDestAnswer, SRQ_CLASSES } from './structs.ts'

/** Bits of the command number. */
export const COMMAND_MASK = 0xff
export const EXTENDED = 0x80000000

export interface WriteCommand {
  readonly name: WriteName | ExtendedName
  readonly number: number
  readonly extended: boolean
  /** The possible classes; the object's handle or a cell of the request selects one. */
  readonly classes: readonly string[]
  readonly method: string
  readonly in: Layout
  /** Minimum bytes of the request; a longer one must end in zeros. */
  readonly request: number
  /** Undefined: no response, and the request has no pointer to one. */
  readonly out?: Layout
  /** Minimum room for the response. */
  readonly response: number
  /** Bytes after request and response belong to the driver. */
  readonly driver: boolean
  /** Arguments that the command implies. */
  readonly set?: AnyValues
}

const isExtended = (name: WriteName | ExtendedName): name is ExtendedName => Object.hasOwn(ExtendedCommands, name)

const command = (
  name: WriteName | ExtendedName,
  classes: readonly string[],
  method: string,
  rest: {
    in: Layout
    out?: Layout
    request?: number
    response?: number
    driver?: boolean
    set?: AnyValues
  },
): WriteCommand => ({
  name,
  number: isExtended(name) ? ExtendedCommands[name] : WriteCommands[name],
  extended: isExtended(name),
  classes,
  method,
  in: rest.in,
  request: rest.request ?? rest.in.size,
  ...(rest.out === undefined ? {} : { out: rest.out }),
  response: rest.response ?? rest.out?.size ?? 0,
  driver: rest.driver ?? false,
  ...(rest.set === undefined ? {} : { set: rest.set }),
})

/** `response`, the pointer at the start of the request of a command with a response; not an attribute. */
const RESPONSE = 8
const PSN = 0xffffff

const modifyQp = [
  ...qpDest(0, 'address'),
  ...qpDest(32, 'alternatePath'),
  object(64),
  value(72, 4, 'qkey'),
  value(76, 4, 'rqPsn', PSN),
  value(80, 4, 'sqPsn', PSN),
  value(84, 4, 'destQpn', PSN),
  value(88, 4, 'accessFlags'),
  value(92, 2, 'pkeyIndex'),
  ...alternateRest(94, 108, 109),
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
const STANDARD_MASK_BITS = 0x1fffff
/** Attributes that initiators and targets lack: programs that treat all types alike set the bits nevertheless. */
const XRC_IGNORED = {
  xrc_ini_qp: maskBits(qpAttributes.minRnrTimer, qpAttributes.maxDestRdAtomic),
  xrc_tgt_qp: maskBits(qpAttributes.maxRdAtomic, qpAttributes.retryCnt, qpAttributes.rnrRetry),
}
/** Of MODIFY_CQ; of MODIFY_WQ both the flags and their mask. */
const CQ_MODERATE = 1
const WQ_FLAGS = 4
/** MAX_WR, LIMIT */
const SRQ_MASK_BITS = 3

/** Of EX_CREATE_QP, those that Linux knows: from BLOCK_MULTICAST_LOOPBACK to PCI_WRITE_END_PADDING. */
const CREATION_FLAGS = 0xf1e

const SIG_ALL = QpFlags.values.SQ_SIG_ALL
/** ib_uverbs_create_qp after its response pointer; ib_uverbs_ex_create_qp begins with the same. */
const createQp = (at: number) => [
  value(at, 8, 'userHandle'),
  // Of a target this is its domain.
  value(at + 8, 4, 'pd'),
  value(at + 8, 4, 'xrcd'),
  value(at + 12, 4, 'sendCq'),
  value(at + 16, 4, 'recvCq'),
  ...qpCap(at + 24),
  bit(at + 44, 1, 'flags', SIG_ALL),
  whichClass(at + 45, 1),
  valueWhen(at + 46, at + 20, 4, 'srq'),
]
const createQpResponse = [object(0), value(4, 4, 'qpNum'), ...qpCap(8)]

/** An XRC target never sends. */
const SENDERS = LINUX_QP_CLASSES.filter(name => name !== 'xrc_tgt_qp')

/** ib_uverbs_create_srq and ib_uverbs_create_xsrq return the same; the former lacks the queue's number. */
const createSrqResponse = [object(0), value(4, 4, 'maxWr'), value(8, 4, 'maxSge')]

/** ib_uverbs_attach_mcast and ib_uverbs_detach_mcast. */
const multicast = layout(24, value(0, 16, 'gid'), object(16), value(20, 2, 'mlid'))

export const writeCommands: readonly WriteCommand[] = [
  command('GET_CONTEXT', ['device'], 'open', {
    in: layout(RESPONSE),
    out: layout(8, descriptor(0, 'asyncFd'), value(4, 4, 'numCompVectors')),
    driver: true,
    set: { wantAsyncFd: 1 },
  }),
  command('QUERY_DEVICE', ['device'], 'query', {
    in: layout(RESPONSE),
    out: layout(176, embed(0, 'attributes', DeviceAttributes)),
  }),
  command('QUERY_PORT', ['port'], 'query', {
    in: layout(16, object(8, 1)),
    out: layout(40, embed(0, 'attributes', PortAttributes, 40)),
  }),
  command('ALLOC_PD', ['pd'], 'create', { in: layout(RESPONSE), out: layout(4, object(0)), driver: true }),
  command('DEALLOC_PD', ['pd'], 'destroy', { in: layout(4, object(0)) }),
  command('CREATE_AH', ['ah'], 'create', {
    in: layout(56, value(8, 8, 'userHandle'), value(16, 4, 'pd'), ahAddress(24)),
    out: layout(4, object(0)),
    driver: true,
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
    driver: true,
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
      mask: 12,
      maskBits: 7,
    },
    out: layout(8, value(0, 4, 'lkey'), value(4, 4, 'rkey')),
    driver: true,
  }),
  command('DEREG_MR', ['mr'], 'destroy', { in: layout(4, object(0)) }),
  command('ALLOC_MW', ['mw'], 'create', {
    in: layout(16, value(8, 4, 'pd'), value(12, 1, 'type')),
    out: layout(8, object(0), value(4, 4, 'rkey')),
    driver: true,
  }),
  command('DEALLOC_MW', ['mw'], 'destroy', { in: layout(4, object(0)) }),
  command('CREATE_COMP_CHANNEL', ['comp_channel'], 'create', {
    in: layout(RESPONSE),
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
    driver: true,
  }),
  command('RESIZE_CQ', ['cq'], 'modify', {
    in: layout(16, object(8), value(12, 4, 'cqe')),
    out: layout(8, value(0, 4, 'cqe')),
    driver: true,
  }),
  command('DESTROY_CQ', ['cq'], 'destroy', {
    in: layout(16, object(8)),
    out: layout(8, value(0, 4, 'compEvents'), value(4, 4, 'asyncEvents')),
  }),
  command('REQ_NOTIFY_CQ', ['cq'], 'reqNotify', { in: layout(8, object(0), value(4, 4, 'solicitedOnly')) }),
  command('CREATE_QP', LINUX_QP_CLASSES, 'create', {
    in: layout(56, createQp(8)),
    out: layout(32, createQpResponse),
    driver: true,
  }),
  command('QUERY_QP', LINUX_QP_CLASSES, 'query', {
    in: layout(16, object(8), value(12, 4, 'attrMask')),
    out: layout(
      128,
      qpDestAnswer(0, 'address'),
      qpDestAnswer(32, 'alternatePath'),
      qpCap(64),
      value(84, 4, 'qkey'),
      value(88, 4, 'rqPsn'),
      value(92, 4, 'sqPsn'),
      value(96, 4, 'destQpn'),
      value(100, 4, 'accessFlags'),
      value(104, 2, 'pkeyIndex'),
      alternateRest(106, 120, 121),
      value(108, 1, 'state'),
      value(109, 1, 'curState'),
      orElse(value(110, 1, 'pathMtu'), Mtu.values.MTU_256),
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
    in: { ...layout(112, modifyQp), mask: 68, maskBits: STANDARD_MASK_BITS, ignored: XRC_IGNORED },
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
    driver: true,
  }),
  command('MODIFY_SRQ', SRQ_CLASSES, 'modify', {
    in: { ...layout(16, object(0), value(8, 4, 'maxWr'), value(12, 4, 'limit')), mask: 4, maskBits: SRQ_MASK_BITS },
    driver: true,
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
    in: layout(16, descriptor(8, 'file'), value(12, 4, 'flags', XrcdFlags.values.CREAT | XrcdFlags.values.EXCL)),
    out: layout(4, object(0)),
    driver: true,
  }),
  command('CLOSE_XRCD', ['xrcd'], 'destroy', { in: layout(4, object(0)) }),
  command('CREATE_XSRQ', SRQ_CLASSES, 'create', {
    in: layout(
      48,
      value(8, 8, 'userHandle'),
      whichClass(16, 4),
      value(20, 4, 'pd'),
      value(24, 4, 'maxWr'),
      value(28, 4, 'maxSge'),
      value(32, 4, 'limit'),
      value(36, 4, 'maxNumTags'),
      value(40, 4, 'xrcd'),
      value(44, 4, 'cq'),
    ),
    out: layout(16, createSrqResponse, value(12, 4, 'srqNum')),
    driver: true,
  }),
  command('ATTACH_MCAST', ['ud_qp'], 'attachMcast', { in: multicast }),
  command('DETACH_MCAST', ['ud_qp'], 'detachMcast', { in: multicast }),
  command('OPEN_QP', ['xrc_tgt_qp'], 'create', {
    in: layout(32, value(8, 8, 'userHandle'), value(16, 4, 'xrcd'), value(20, 4, 'qpNum'), whichClass(24, 1)),
    out: layout(32, object(0), value(4, 4, 'qpNum')),
    driver: true,
  }),
  command('EX_QUERY_DEVICE', ['device'], 'query', {
    in: layout(8, zero(0, 4, 'EINVAL'), zero(4, 4, 'EINVAL')),
    out: layout(
      304,
      embed(0, 'attributes', DeviceAttributes),
      filledLength(180),
      embed(184, 'extended', ExtendedDeviceAttributes),
    ),
    response: 184,
    driver: true,
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
    driver: true,
  }),
  command('EX_CREATE_QP', LINUX_QP_CLASSES, 'create', {
    // Creation flags and receive tables belong to QP types that do not exist here.
    in: layout(
      64,
      createQp(0),
      zero(47, 1, 'EINVAL'),
      zero(48, 4, 'EINVAL'),
      zeroBits(52, ~CREATION_FLAGS >>> 0, 'EINVAL'),
      zero(52, 4, 'EOPNOTSUPP'),
    ),
    request: 52,
    out: layout(40, createQpResponse, filledLength(36)),
    driver: true,
  }),
  command('EX_MODIFY_QP', LINUX_QP_CLASSES, 'modify', {
    in: { ...layout(120, modifyQp), mask: 68, maskBits: STANDARD_MASK_BITS, ignored: XRC_IGNORED },
    request: 112,
    out: layout(8, filledLength(4)),
    driver: true,
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
      tailSpecs: { size: 12, count: 16, counters: 'counters' },
    },
    out: layout(8, object(4)),
    driver: true,
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
    request: 32,
    out: layout(24, filledLength(4), object(8), value(12, 4, 'maxWr'), value(16, 4, 'maxSge'), value(20, 4, 'wqNum')),
    driver: true,
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
      mask: 0,
      maskBits: 7,
    },
    driver: true,
  }),
  command('DESTROY_WQ', ['wq'], 'destroy', {
    in: layout(8, zero(0, 4, 'EOPNOTSUPP'), object(4)),
    out: layout(16, filledLength(4), value(8, 4, 'events')),
    response: 12,
  }),
  command('CREATE_RWQ_IND_TBL', ['rwq_ind_table'], 'create', {
    in: { ...layout(8, zero(0, 4, 'EOPNOTSUPP')), tail: 'queues', tailLog: 4 },
    out: layout(16, filledLength(4), object(8), value(12, 4, 'tableNum')),
    driver: true,
  }),
  command('DESTROY_RWQ_IND_TBL', ['rwq_ind_table'], 'destroy', {
    in: layout(8, zero(0, 4, 'EOPNOTSUPP'), object(4)),
  }),
  command('MODIFY_CQ', ['cq'], 'modify', {
    in: {
      ...layout(16, object(0), valueByBit(8, 2, 'count', CQ_MODERATE), valueByBit(10, 2, 'period', CQ_MODERATE)),
      mask: 4,
      maskBits: CQ_MODERATE,
    },
  }),
]
