/*
 * Linux's ioctl methods on a uverbs file (R42): RDMA_VERBS_IOCTL, {object, method} and attributes
 * (ib_user_ioctl_cmds.h), as methods of our classes. An object or method that is not here is EPROTONOSUPPORT.
 *
 * INVOKE_WRITE carries a write command (write.ts). ADVISE_MR is known, but no device implements it: EOPNOTSUPP if its
 * attributes are valid.
 */
import { GidEntry } from '../classes/device/device.ts'
import { PortAttributes } from '../classes/device/port.ts'
import { AccessFlags, CountersFlags, CqFlags, MrKind, QpFlags, WqFlags } from '../enums.ts'
import type { ErrnoName } from '../errno.ts'
import type { AnyValues, Enumeration } from '../schema/schema.ts'
import { type Cell, embed, object, value, whichClass } from './layout.ts'
import { ioctlNames, LinuxObject, type LinuxObjectName } from './names.ts'
import { LINUX_QP_CLASSES, qpCap, SRQ_CLASSES } from './structs.ts'

/** RDMA_VERBS_IOCTL */
export const RDMA_VERBS_IOCTL = 0xc0181b01
export const UHW_IN = 0x1000
export const UHW_OUT = 0x1001

/**
 * - `in`: bytes, in the attribute itself if at most 8, otherwise at its address; `out`: bytes at a pointer
 * - `flags`: 4 or 8 bytes, inline; bits outside `allowed` are EINVAL
 * - `handle` of an object, `destroy`: of the one to destroy; `fd`: a descriptor; `newHandle`, `newFd`: results of a
 *   create
 * - `list`: room for as many records as fit
 */
export type IoctlAttributeKind = 'in' | 'out' | 'flags' | 'handle' | 'destroy' | 'fd' | 'newHandle' | 'newFd' | 'list'

export interface IoctlAttribute {
  readonly id: number
  readonly kind: IoctlAttributeKind
  /**
   * Minimum and maximum length. `grows`: a longer one is accepted; input must end in zeros, output is filled with
   * zeros.
   */
  readonly min: number
  readonly max: number
  readonly grows: boolean
  readonly mandatory: boolean
  readonly cells: readonly Cell[]
  /** `handle`, `fd`, `list`, `flags`: our attribute; `object` for the object of the call. */
  readonly name: string
  /** `handle`, `destroy`: the allowed classes; empty: no object here can match. */
  readonly classes: readonly string[]
  readonly allowed: number
  /** Required by our method, but checked late by Linux: the errno if it is absent. */
  readonly absent?: ErrnoName
  /** Known, but no device accepts it: the errno if it is present. */
  readonly present?: ErrnoName
}

export interface IoctlMethod {
  readonly object: number
  readonly number: number
  readonly name: string
  readonly classes: readonly string[]
  /** Undefined: no device implements it (EOPNOTSUPP), or its converter finds the method (INVOKE_WRITE). */
  readonly method: string | undefined
  readonly attributes: readonly IoctlAttribute[]
  /** The driver's attributes UHW_IN and UHW_OUT are accepted. */
  readonly driver: boolean
  /** Arguments that the Linux method implies. */
  readonly set?: AnyValues
  /** A named converter of the codec handles the rest. */
  readonly converter?: 'invokeWrite' | 'handles' | 'gidTable'
}

const blank = { min: 0, max: 0, grows: false, mandatory: true, cells: [], name: '', classes: [], allowed: 0 }
const into = (id: number, size: number, ...cells: Cell[]): IoctlAttribute => ({
  ...blank,
  id,
  kind: 'in',
  min: size,
  max: size,
  cells,
})
const out = (id: number, size: number, ...cells: Cell[]): IoctlAttribute => ({
  ...blank,
  id,
  kind: 'out',
  min: size,
  max: size,
  cells,
})
const flags = (id: number, name: string, allowed: number): IoctlAttribute => ({
  ...blank,
  id,
  kind: 'flags',
  min: 4,
  max: 8,
  name,
  allowed,
})
const handle = (id: number, name: string, classes: readonly string[]): IoctlAttribute => ({
  ...blank,
  id,
  kind: 'handle',
  name,
  classes,
})
const destroy = (id: number, classes: readonly string[]): IoctlAttribute => ({
  ...blank,
  id,
  kind: 'destroy',
  name: 'object',
  classes,
})
const fd = (id: number, name: string): IoctlAttribute => ({ ...blank, id, kind: 'fd', name })
const newHandle = (id: number): IoctlAttribute => ({ ...blank, id, kind: 'newHandle', name: 'object' })
const newFd = (id: number): IoctlAttribute => ({ ...blank, id, kind: 'newFd', name: 'object' })
const list = (id: number, name: string, min: number): IoctlAttribute => ({
  ...blank,
  id,
  kind: 'list',
  min,
  max: 0xffff,
  name,
})
const optional = (attribute: IoctlAttribute): IoctlAttribute => ({ ...attribute, mandatory: false })
const grows = (attribute: IoctlAttribute): IoctlAttribute => ({ ...attribute, grows: true })
/** Optional in Linux's table; without it the handler fails with `absent`. */
const late = (attribute: IoctlAttribute, absent: ErrnoName): IoctlAttribute => ({
  ...attribute,
  mandatory: false,
  absent,
})
const required = (attribute: IoctlAttribute): IoctlAttribute => ({ ...attribute, mandatory: true })
const refused = (attribute: IoctlAttribute, present: ErrnoName): IoctlAttribute => ({
  ...attribute,
  mandatory: false,
  present,
})
const anything = (id: number, kind: 'in' | 'out', min: number): IoctlAttribute => ({
  ...blank,
  id,
  kind,
  min,
  max: 0xffff,
  mandatory: false,
})
/** The driver's own attributes, of methods that have them. */
export const driverAttributes: readonly IoctlAttribute[] = [anything(UHW_IN, 'in', 0), anything(UHW_OUT, 'out', 0)]

const method = <const O extends LinuxObjectName>(
  objectName: O,
  name: Extract<keyof (typeof ioctlNames)[O], string>,
  classes: readonly string[],
  call: string | undefined,
  attributes: readonly IoctlAttribute[],
  rest: Partial<Pick<IoctlMethod, 'driver' | 'set' | 'converter'>> = {},
): IoctlMethod => ({
  object: LinuxObject[objectName],
  number: Object.keys(ioctlNames[objectName]).indexOf(name),
  name,
  classes,
  method: call,
  attributes,
  driver: false,
  ...rest,
})

const allOf = ({ values }: Enumeration): number => Object.values(values).reduce((all, bit) => (all | bit) >>> 0, 0)
const ALL_ACCESS = allOf(AccessFlags)
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, RELAXED_ORDERING } = AccessFlags.values
/** Access flags that REG_DMABUF_MR accepts. */
const DMABUF_ACCESS = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | RELAXED_ORDERING

/** ib_uverbs_sge */
const ADVISED_RANGE = 16

/** Attributes of INVOKE_WRITE. */
export const InvokeWrite = { CORE_IN: 0, CORE_OUT: 1, WRITE_CMD: 2 } as const

const contextValues = [
  optional(out(0, 4, value(0, 4, 'numCompVectors'))),
  optional(out(1, 8, value(0, 8, 'coreSupport'))),
]

export const ioctlMethods: readonly IoctlMethod[] = [
  method(
    'DEVICE',
    'INVOKE_WRITE',
    [],
    undefined,
    [anything(InvokeWrite.CORE_IN, 'in', 4), anything(InvokeWrite.CORE_OUT, 'out', 0), into(InvokeWrite.WRITE_CMD, 8)],
    { driver: true, converter: 'invokeWrite' },
  ),
  method(
    'DEVICE',
    'INFO_HANDLES',
    ['device'],
    'queryHandles',
    [into(0, 8), late(out(1, 4), 'ENOENT'), late(list(2, 'handles', 4), 'EINVAL')],
    { converter: 'handles' },
  ),
  method('DEVICE', 'QUERY_PORT', ['port'], 'query', [
    into(0, 8, object(0, 8)),
    grows(out(1, 48, ...embed(0, 'attributes', PortAttributes))),
  ]),
  method('DEVICE', 'GET_CONTEXT', ['device'], 'open', contextValues, { driver: true }),
  method('DEVICE', 'QUERY_CONTEXT', ['device'], 'query', contextValues),
  method(
    'DEVICE',
    'QUERY_GID_TABLE',
    ['device'],
    'queryGidTable',
    [into(0, 8), flags(1, '', 0), list(2, 'entries', 0), out(3, 8)],
    { converter: 'gidTable' },
  ),
  method('DEVICE', 'QUERY_GID_ENTRY', ['port'], 'queryGidEntry', [
    into(0, 8, object(0, 8)),
    into(1, 8, value(0, 8, 'index')),
    flags(2, '', 0),
    grows(out(3, 32, ...embed(0, 'entry', GidEntry))),
  ]),
  method('PD', 'PD_DESTROY', ['pd'], 'destroy', [destroy(0, ['pd'])]),
  method(
    'CQ',
    'CQ_CREATE',
    ['cq'],
    'create',
    [
      newHandle(0),
      into(1, 4, value(0, 4, 'cqe')),
      into(2, 8, value(0, 8, 'userHandle')),
      optional(fd(3, 'channel')),
      into(4, 4, value(0, 4, 'compVector')),
      optional(flags(5, 'flags', CqFlags.values.TIMESTAMP_COMPLETION | CqFlags.values.IGNORE_OVERRUN)),
      out(6, 4, value(0, 4, 'cqe')),
      optional(fd(7, 'asyncFd')),
    ],
    { driver: true },
  ),
  method('CQ', 'CQ_DESTROY', ['cq'], 'destroy', [
    destroy(0, ['cq']),
    grows(out(1, 8, value(0, 4, 'compEvents'), value(4, 4, 'asyncEvents'))),
  ]),
  method(
    'QP',
    'QP_CREATE',
    LINUX_QP_CLASSES,
    'create',
    [
      newHandle(0),
      late(handle(1, 'xrcd', ['xrcd']), 'ENOENT'),
      late(handle(2, 'pd', ['pd']), 'ENOENT'),
      optional(handle(3, 'srq', ['srq'])),
      late(handle(4, 'sendCq', ['cq']), 'ENOENT'),
      late(handle(5, 'recvCq', ['cq']), 'ENOENT'),
      optional(handle(6, 'rwqIndTbl', [])),
      into(7, 8, value(0, 8, 'userHandle')),
      grows(into(8, 20, ...qpCap(0))),
      into(9, 8, whichClass(0, 8)),
      optional(flags(10, 'flags', QpFlags.values.SQ_SIG_ALL)),
      refused(into(11, 4), 'EOPNOTSUPP'),
      optional(fd(12, 'asyncFd')),
      grows(out(13, 20, ...qpCap(0))),
      out(14, 4, value(0, 4, 'qpNum')),
    ],
    { driver: true },
  ),
  method('QP', 'QP_DESTROY', LINUX_QP_CLASSES, 'destroy', [
    destroy(0, LINUX_QP_CLASSES),
    out(1, 4, value(0, 4, 'events')),
  ]),
  method(
    'SRQ',
    'SRQ_CREATE',
    SRQ_CLASSES,
    'create',
    [
      newHandle(0),
      handle(1, 'pd', ['pd']),
      late(handle(2, 'xrcd', ['xrcd']), 'ENOENT'),
      late(handle(3, 'cq', ['cq']), 'ENOENT'),
      into(4, 8, value(0, 8, 'userHandle')),
      into(5, 4, value(0, 4, 'maxWr')),
      into(6, 4, value(0, 4, 'maxSge')),
      into(7, 4, value(0, 4, 'limit')),
      late(into(8, 4, value(0, 4, 'maxNumTags')), 'EINVAL'),
      into(9, 8, whichClass(0, 8)),
      optional(fd(10, 'asyncFd')),
      out(11, 4, value(0, 4, 'maxWr')),
      out(12, 4, value(0, 4, 'maxSge')),
      optional(out(13, 4, value(0, 4, 'srqNum'))),
    ],
    { driver: true },
  ),
  method('SRQ', 'SRQ_DESTROY', SRQ_CLASSES, 'destroy', [destroy(0, SRQ_CLASSES), out(1, 4, value(0, 4, 'events'))]),
  method('MR', 'MR_DESTROY', ['mr'], 'destroy', [destroy(0, ['mr'])]),
  method('MR', 'QUERY_MR', ['mr'], 'query', [
    handle(0, 'object', ['mr']),
    out(1, 4, value(0, 4, 'lkey')),
    out(2, 4, value(0, 4, 'rkey')),
    out(3, 8, value(0, 8, 'length')),
    optional(out(4, 8, value(0, 8, 'iova'))),
  ]),
  method(
    'MR',
    'DM_MR_REG',
    ['mr'],
    'create',
    [
      newHandle(0),
      into(1, 8, value(0, 8, 'start')),
      into(2, 8, value(0, 8, 'length')),
      handle(3, 'pd', ['pd']),
      flags(4, 'access', ALL_ACCESS),
      handle(5, 'dm', ['dm']),
      out(6, 4, value(0, 4, 'lkey')),
      out(7, 4, value(0, 4, 'rkey')),
    ],
    { set: { kind: MrKind.values.DEVICE, iova: 0n } },
  ),
  method(
    'MR',
    'REG_DMABUF_MR',
    ['mr'],
    'create',
    [
      newHandle(0),
      handle(1, 'pd', ['pd']),
      into(2, 8, value(0, 8, 'start')),
      into(3, 8, value(0, 8, 'length')),
      into(4, 8, value(0, 8, 'iova')),
      into(5, 4, value(0, 4, 'file')),
      flags(6, 'access', DMABUF_ACCESS),
      out(7, 4, value(0, 4, 'lkey')),
      out(8, 4, value(0, 4, 'rkey')),
    ],
    { set: { kind: MrKind.values.FILE } },
  ),
  method('MR', 'REG_MR', ['mr'], 'create', [
    newHandle(0),
    handle(1, 'pd', ['pd']),
    optional(handle(2, '', [])),
    into(3, 8, value(0, 8, 'iova')),
    late(into(4, 8, value(0, 8, 'start')), 'EINVAL'),
    into(5, 8, value(0, 8, 'length')),
    flags(6, 'access', ALL_ACCESS),
    refused(fd(7, ''), 'EOPNOTSUPP'),
    refused(into(8, 8), 'EOPNOTSUPP'),
    out(9, 4, value(0, 4, 'lkey')),
    out(10, 4, value(0, 4, 'rkey')),
  ]),
  method('MR', 'ADVISE_MR', ['mr'], undefined, [
    handle(0, '', ['pd']),
    into(1, 8),
    flags(2, '', 0),
    required(anything(3, 'in', ADVISED_RANGE)),
  ]),
  method('AH', 'AH_DESTROY', ['ah'], 'destroy', [destroy(0, ['ah'])]),
  method('MW', 'MW_DESTROY', ['mw'], 'destroy', [destroy(0, ['mw'])]),
  method('XRCD', 'XRCD_DESTROY', ['xrcd'], 'destroy', [destroy(0, ['xrcd'])]),
  method('ASYNC_EVENT', 'ASYNC_EVENT_ALLOC', ['async_fd'], 'create', [newFd(0)]),
  method('FLOW', 'FLOW_DESTROY', ['flow'], 'destroy', [destroy(0, ['flow'])]),
  method(
    'WQ',
    'WQ_CREATE',
    ['wq'],
    'create',
    [
      newHandle(0),
      handle(1, 'pd', ['pd']),
      handle(2, 'cq', ['cq']),
      into(3, 8, value(0, 8, 'userHandle')),
      into(4, 8, value(0, 8, 'type')),
      optional(fd(5, 'asyncFd')),
      into(6, 4, value(0, 4, 'maxWr')),
      into(7, 4, value(0, 4, 'maxSge')),
      flags(8, 'flags', allOf(WqFlags)),
      out(9, 4, value(0, 4, 'maxWr')),
      out(10, 4, value(0, 4, 'maxSge')),
      optional(out(11, 4, value(0, 4, 'wqNum'))),
    ],
    { driver: true },
  ),
  method('WQ', 'WQ_DESTROY', ['wq'], 'destroy', [destroy(0, ['wq']), out(1, 4, value(0, 4, 'events'))]),
  method('RWQ_IND_TBL', 'RWQ_IND_TBL_DESTROY', ['rwq_ind_table'], 'destroy', [destroy(0, ['rwq_ind_table'])]),
  method(
    'DM',
    'DM_ALLOC',
    ['dm'],
    'create',
    [newHandle(0), into(1, 8, value(0, 8, 'length')), into(2, 4, value(0, 4, 'alignment'))],
    { driver: true },
  ),
  method('DM', 'DM_FREE', ['dm'], 'destroy', [destroy(0, ['dm'])]),
  method('COUNTERS', 'COUNTERS_CREATE', ['counters'], 'create', [newHandle(0)], { driver: true }),
  method('COUNTERS', 'COUNTERS_DESTROY', ['counters'], 'destroy', [destroy(0, ['counters'])]),
  method(
    'COUNTERS',
    'COUNTERS_READ',
    ['counters'],
    'query',
    [handle(0, 'object', ['counters']), list(1, 'values', 0), flags(2, 'flags', allOf(CountersFlags))],
    { driver: true },
  ),
]
