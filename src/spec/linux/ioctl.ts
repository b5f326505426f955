/*
 * Linux's ioctl methods on a uverbs file (R42): for each {object, method} of RDMA_VERBS_IOCTL (ib_user_ioctl_cmds.h)
 * the method of our classes, and the layout of each attribute. names.ts has Linux's names and numbers. Other objects
 * and methods are refused with EPROTONOSUPPORT.
 *
 * INVOKE_WRITE carries a write command (write.ts).
 */
import { GidEntry } from '../classes/device/device.ts'
import { PortAttributes } from '../classes/device/port.ts'
import { SRQ_CLASSES } from '../classes/ids.ts'
import { AccessFlags, AdviseFlags, CountersFlags, CqFlags, MrKind, QpFlags, TphMemType, WqFlags } from '../enums.ts'
import type { ErrnoName } from '../errno.ts'
import type { AnyValues, Enumeration, ObjectClass } from '../schema/schema.ts'
import { type Cell, classSelector, embed, type Layout, object, value } from './layout.ts'
import { ioctlNames, LinuxObject, type LinuxObjectName } from './names.ts'
import { LINUX_QP_CLASSES, qpCap } from './structs.ts'

/** The request number of ioctl(2). */
export const RDMA_VERBS_IOCTL = 0xc0181b01
/** Ids of the driver's attributes, UVERBS_ATTR_UHW_IN and UVERBS_ATTR_UHW_OUT. */
export const UHW_IN = 0x1000
export const UHW_OUT = 0x1001

/**
 * - `in`: up to 8 bytes in the attribute itself, more bytes at its address
 * - `records`: records at its address, our argument of kind `list`
 * - `blob`: bytes of any length, our argument of kind `blob`; `blobOut`: the caller's buffer for our result of kind
 *   `blob`, whose length is our argument `outBytes`
 * - `out`: the caller's buffer for bytes; `list`: the caller's buffer for records
 * - `flags`: 4 or 8 bytes in the attribute itself; bits outside `allowed` are refused with EINVAL
 * - `handle`: the handle of an object; `destroy`: the handle of the object to destroy; `fd`: a descriptor
 * - `enum`: a number in the attribute's header, below `allowed`; with cells, a payload
 * - `newHandle`, `newFd`: outputs of a creation
 */
type IoctlAttributeKind =
  | 'in'
  | 'records'
  | 'blob'
  | 'blobOut'
  | 'out'
  | 'list'
  | 'flags'
  | 'handle'
  | 'destroy'
  | 'fd'
  | 'enum'
  | 'newHandle'
  | 'newFd'

export interface IoctlAttribute {
  readonly id: number
  readonly kind: IoctlAttributeKind
  /**
   * Minimum and maximum length in bytes. `isExtensible`: the attribute may be longer. The further bytes of an input
   * must be 0; those of an output are set to 0.
   */
  readonly min: number
  readonly max: number
  readonly isExtensible: boolean
  readonly mandatory: boolean
  readonly cells: readonly Cell[]
  /**
   * `handle`, `fd`, `enum`, `list`, `records`, `blob`, `blobOut`, `flags`: the name of our attribute, or '' for none.
   * 'object': the attribute is the handle of the call's object.
   */
  readonly name: string
  /** `handle`, `destroy`: the allowed classes; none: every handle is refused with EINVAL. */
  readonly classes: readonly string[]
  /** `flags`: the accepted bits. `enum`: the number of values. */
  readonly allowed: number
  /**
   * The attribute is optional in Linux's table, but Linux's handler returns this errno if the attribute is absent
   * although our method of the class has the argument.
   */
  readonly errnoIfAbsent?: ErrnoName
  /** No device here accepts the attribute: the errno if it is present. */
  readonly errnoIfPresent?: ErrnoName
  /**
   * Classes for which Linux's handler refuses the attribute with EINVAL. Other classes whose method lacks the argument
   * ignore it.
   */
  readonly refusedFor?: readonly string[]
  /** `handle`: by classes of the call, those that Linux's handler accepts, if not all of `classes`. */
  readonly classesFor?: Readonly<Record<string, readonly string[]>>
}

export interface Choice {
  readonly attributes: readonly number[]
  /** Arguments of our method that the group implies. */
  readonly impliedArguments: AnyValues
  /** The flags that the method accepts with this group, if fewer than without it. */
  readonly allowedFlags?: number
}

export interface IoctlMethod {
  readonly object: number
  readonly number: number
  /** Linux's name. */
  readonly name: string
  readonly classes: readonly string[]
  /**
   * The name of our method. Undefined: the converter finds the method (INVOKE_WRITE).
   */
  readonly method: string | undefined
  readonly attributes: readonly IoctlAttribute[]
  /** UHW_IN and UHW_OUT are accepted. */
  readonly hasDriverAttributes: boolean
  /** Arguments of our method that the Linux method implies. */
  readonly impliedArguments?: AnyValues
  /** Ids of optional attributes: exactly one of these groups must be passed, and whole; otherwise EINVAL. */
  readonly choices?: readonly Choice[]
  /** The converter in uapi/linux/ioctl.ts for what the attributes' cells do not express. */
  readonly converter?: 'invokeWrite' | 'handles' | 'gidTable'
  /**
   * Of a driver's own object or method (`LinuxAbi.methods`): the class that has it, which is none of spec/classes.ts.
   */
  readonly driverClass?: ObjectClass
}

/** Objects from here on belong to the driver; their methods and attributes begin here too (UVERBS_ID_DRIVER_NS). */
export const DRIVER_OBJECTS = 0x1000

/** `method` (below) replaces `linuxName` with `id`. */
type NamedAttribute = Omit<IoctlAttribute, 'id'> & { readonly linuxName: string }

/** The length of an attribute is a u16. */
const MAX_LENGTH = 0xffff

const blank = { min: 0, max: 0, isExtensible: false, mandatory: true, cells: [], name: '', classes: [], allowed: 0 }
const input = (linuxName: string, size: number, ...cells: Cell[]): NamedAttribute => ({
  ...blank,
  linuxName,
  kind: 'in',
  min: size,
  max: size,
  cells,
})
const output = (linuxName: string, size: number, ...cells: Cell[]): NamedAttribute => ({
  ...blank,
  linuxName,
  kind: 'out',
  min: size,
  max: size,
  cells,
})
const flags = (linuxName: string, name: string, allowed: number): NamedAttribute => ({
  ...blank,
  linuxName,
  kind: 'flags',
  min: 4,
  max: 8,
  name,
  allowed,
})
const handle = (linuxName: string, name: string, classes: readonly string[]): NamedAttribute => ({
  ...blank,
  linuxName,
  kind: 'handle',
  name,
  classes,
})
/** An XRC target, for which libfabric passes one, ignores it; our methods of the other classes refuse one of XRC. */
const sharedQueue = (linuxName: string, name: string): NamedAttribute => ({
  ...handle(linuxName, name, SRQ_CLASSES),
  classesFor: { xrc_tgt_qp: ['xrc_srq'] },
})
const destroy = (linuxName: string, classes: readonly string[]): NamedAttribute => ({
  ...blank,
  linuxName,
  kind: 'destroy',
  name: 'object',
  classes,
})
const fd = (linuxName: string, name: string): NamedAttribute => ({ ...blank, linuxName, kind: 'fd', name })
const newHandle = (linuxName: string): NamedAttribute => ({ ...blank, linuxName, kind: 'newHandle', name: 'object' })
const newFd = (linuxName: string): NamedAttribute => ({ ...blank, linuxName, kind: 'newFd', name: 'object' })
const list = (linuxName: string, name: string, min: number): NamedAttribute => ({
  ...blank,
  linuxName,
  kind: 'list',
  min,
  max: MAX_LENGTH,
  name,
})
const records = (linuxName: string, name: string, min: number): NamedAttribute => ({
  ...list(linuxName, name, min),
  kind: 'records',
})
/** An enumeration of values 0 to `count` - 1. */
const enumerated = (linuxName: string, name: string, count: number): NamedAttribute => ({
  ...blank,
  linuxName,
  kind: 'enum',
  name,
  allowed: count,
})
const optional = (attribute: NamedAttribute): NamedAttribute => ({ ...attribute, mandatory: false })
const extensible = (attribute: NamedAttribute): NamedAttribute => ({ ...attribute, isExtensible: true })
const checkedByHandler = (attribute: NamedAttribute, errnoIfAbsent: ErrnoName): NamedAttribute => ({
  ...attribute,
  mandatory: false,
  errnoIfAbsent,
})
const refused = (attribute: NamedAttribute, errnoIfPresent: ErrnoName): NamedAttribute => ({
  ...attribute,
  mandatory: false,
  errnoIfPresent,
})
const refusedFor = (classes: readonly string[], attribute: NamedAttribute): NamedAttribute => ({
  ...attribute,
  refusedFor: classes,
})
/** An optional attribute of `min` or more bytes. */
const anyBytes = (linuxName: string, kind: 'in' | 'out', min: number): NamedAttribute => ({
  ...blank,
  linuxName,
  kind,
  min,
  max: MAX_LENGTH,
  mandatory: false,
})
/** A queue's memory, which the program passes as struct ib_uverbs_buffer_desc. */
const umem = (linuxName: string): NamedAttribute => extensible(input(linuxName, 32))

/** The driver's attributes (`IoctlMethod.hasDriverAttributes`). */
export const driverAttributes: readonly IoctlAttribute[] = [
  { ...anyBytes('UHW_IN', 'in', 0), id: UHW_IN },
  { ...anyBytes('UHW_OUT', 'out', 0), id: UHW_OUT },
]

const method = <const O extends LinuxObjectName>(
  objectName: O,
  name: Extract<keyof (typeof ioctlNames)[O], string>,
  classes: readonly string[],
  call: string | undefined,
  attributes: readonly NamedAttribute[],
  {
    choices,
    ...options
  }: Partial<Pick<IoctlMethod, 'hasDriverAttributes' | 'impliedArguments' | 'converter'>> & {
    readonly choices?: readonly (Partial<Omit<Choice, 'attributes'>> & { readonly names: readonly string[] })[]
  } = {},
): IoctlMethod => {
  const methods: Readonly<Record<string, readonly string[]>> = ioctlNames[objectName]
  const idOf = (linuxName: string): number => {
    const id = methods[name]!.indexOf(linuxName)
    if (id < 0) throw new Error(`${objectName}.${name} has no attribute ${linuxName} (names.ts)`)
    return id
  }
  return {
    object: LinuxObject[objectName],
    number: Object.keys(methods).indexOf(name),
    name,
    classes,
    method: call,
    attributes: attributes.map(({ linuxName, ...attribute }) => ({ ...attribute, id: idOf(linuxName) })),
    hasDriverAttributes: false,
    ...options,
    ...(choices && {
      choices: choices.map(({ names, ...choice }) => ({
        impliedArguments: {},
        ...choice,
        attributes: names.map(idOf),
      })),
    }),
  }
}

/**
 * The creation of a driver's own object. The attributes, from DRIVER_OBJECTS on: the new handle, then `inputs` and
 * `outputs`.
 */
export const driverCreation = (
  name: string,
  object: number,
  cls: ObjectClass,
  inputs: readonly Cell[],
  outputs: readonly Cell[],
): IoctlMethod => ({
  object,
  number: DRIVER_OBJECTS,
  name,
  classes: [cls.name],
  method: 'create',
  attributes: numbered([newHandle(''), ...inputsOf(inputs), ...outputsOf(outputs)]),
  hasDriverAttributes: false,
  driverClass: cls,
})

interface DriverCells {
  readonly inputs?: readonly Cell[]
  /** A value, or a struct that may be longer. */
  readonly outputs: readonly (Cell | Layout)[]
}

const inputsOf = (cells: readonly Cell[] = []): NamedAttribute[] => cells.map(cell => input('', cell.size, cell))
const outputsOf = (outputs: readonly (Cell | Layout)[]): NamedAttribute[] =>
  outputs.map(one => ('cells' in one ? extensible(output('', one.size, ...one.cells)) : output('', one.size, one)))
/** The ids of a driver's attributes are in their order. */
const numbered = (attributes: readonly NamedAttribute[]): IoctlAttribute[] =>
  attributes.map(({ linuxName: _, ...attribute }, i) => ({ ...attribute, id: DRIVER_OBJECTS + i }))

/**
 * A driver's own method of one of Linux's objects, the `index`-th. The attributes, from DRIVER_OBJECTS on: the handle,
 * then `inputs` and `outputs`. `call`: see `IoctlMethod.method`.
 */
export const driverMethod = (
  name: string,
  object: LinuxObjectName,
  index: number,
  cls: ObjectClass,
  call: string | undefined,
  { inputs, outputs }: DriverCells,
): IoctlMethod => ({
  object: LinuxObject[object],
  number: DRIVER_OBJECTS + index,
  name,
  classes: [cls.name],
  method: call,
  attributes: numbered([handle('', 'object', [cls.name]), ...inputsOf(inputs), ...outputsOf(outputs)]),
  hasDriverAttributes: false,
  driverClass: cls,
})

/**
 * A method of Linux's with optional attributes of a driver, from DRIVER_OBJECTS on: `outputs`, then `inputs`. `cls`:
 * the class with the driver's attributes.
 */
export const withDriverAttributes = <const O extends LinuxObjectName>(
  object: O,
  name: Extract<keyof (typeof ioctlNames)[O], string>,
  cls: ObjectClass,
  { inputs, outputs }: DriverCells,
): IoctlMethod => {
  const base = ioctlMethods.find(one => one.object === LinuxObject[object] && one.name === name)
  if (base === undefined) throw new Error(`there is no method ${object}.${name}`)
  const own = [...outputsOf(outputs), ...inputsOf(inputs)].map(optional)
  return { ...base, attributes: [...base.attributes, ...numbered(own)], driverClass: cls }
}

/** Bytes of any length from `min` on. */
export const driverBlob = (name: string, min: number): NamedAttribute => ({
  ...blank,
  linuxName: '',
  kind: 'blob',
  min,
  max: MAX_LENGTH,
  name,
})
/** The caller's buffer for bytes, of `min` or more. */
export const driverBlobOut = (name: string, min: number): NamedAttribute => ({
  ...driverBlob(name, min),
  kind: 'blobOut',
})
export const driverInput = (cell: Cell): NamedAttribute => input('', cell.size, cell)
export const driverOutput = (cell: Cell): NamedAttribute => output('', cell.size, cell)
/** A struct that may be longer. */
export const driverExtensibleOutput = ({ size, cells }: Layout): NamedAttribute =>
  extensible(output('', size, ...cells))
/** Flags of `allowed`. */
export const driverFlags = (name: string, allowed: number): NamedAttribute => flags('', name, allowed)
/** A handle of an object of one of the classes, as a number. */
export const driverHandle = (name: string, classes: readonly string[]): NamedAttribute => handle('', name, classes)
export const driverFd = (name: string): NamedAttribute => fd('', name)
/** Records of `bytes` each. */
export const driverRecords = (name: string, bytes: number): NamedAttribute => records('', name, bytes)
/** An enumeration of values 0 to `count` - 1, with a payload. */
export const driverEnum = (name: string, count: number, payload: Cell): NamedAttribute => ({
  ...enumerated('', name, count),
  min: payload.size,
  max: payload.size,
  cells: [payload],
})
export const driverNewHandle = newHandle('')
export const driverNewFd = newFd('')
export const optionalAttribute = optional

/**
 * The `index`-th method of a driver's own object, which is our `call` of the class. The ids of the attributes, from
 * DRIVER_OBJECTS on, are in their order.
 */
export const driverObjectMethod = (
  name: string,
  object: number,
  index: number,
  cls: ObjectClass,
  call: string | undefined,
  attributes: readonly NamedAttribute[],
): IoctlMethod => ({
  object,
  number: DRIVER_OBJECTS + index,
  name,
  classes: [cls.name],
  method: call,
  attributes: numbered(attributes),
  hasDriverAttributes: false,
  driverClass: cls,
})

/** The destruction of a driver's own object. */
export const driverDestruction = (name: string, object: number, cls: ObjectClass): IoctlMethod => {
  const { linuxName: _, ...attribute } = destroy('', [cls.name])
  return {
    object,
    number: DRIVER_OBJECTS + 1,
    name,
    classes: [cls.name],
    method: 'destroy',
    attributes: [{ ...attribute, id: DRIVER_OBJECTS }],
    hasDriverAttributes: false,
    driverClass: cls,
  }
}

const allOf = ({ values }: Enumeration): number => Object.values(values).reduce((all, bit) => (all | bit) >>> 0, 0)
const ALL_ACCESS = allOf(AccessFlags)
const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC, RELAXED_ORDERING } = AccessFlags.values
/** Access flags that REG_DMABUF_MR accepts, and REG_MR of a descriptor. */
const DMABUF_ACCESS = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC | RELAXED_ORDERING

const XRC_TARGET = ['xrc_tgt_qp']
const ALL_BUT_XRC_TARGET = LINUX_QP_CLASSES.filter(name => !XRC_TARGET.includes(name))

/** Bytes of struct ib_uverbs_sge. */
const SGE_BYTES = 16

/** Ids of the attributes of INVOKE_WRITE. */
export const InvokeWrite = { CORE_IN: 0, CORE_OUT: 1, WRITE_CMD: 2 } as const

const contextValues = (methodName: 'GET_CONTEXT' | 'QUERY_CONTEXT') => [
  optional(output(`${methodName}_NUM_COMP_VECTORS`, 4, value(0, 4, 'numCompVectors'))),
  optional(output(`${methodName}_CORE_SUPPORT`, 8, value(0, 8, 'coreSupport'))),
]

export const ioctlMethods: readonly IoctlMethod[] = [
  method(
    'DEVICE',
    'INVOKE_WRITE',
    [],
    undefined,
    [anyBytes('CORE_IN', 'in', 4), anyBytes('CORE_OUT', 'out', 0), input('WRITE_CMD', 8)],
    { hasDriverAttributes: true, converter: 'invokeWrite' },
  ),
  method(
    'DEVICE',
    'INFO_HANDLES',
    ['device'],
    'queryHandles',
    [
      input('INFO_OBJECT_ID', 8),
      checkedByHandler(list('INFO_HANDLES_LIST', 'handles', 4), 'EINVAL'),
      checkedByHandler(output('INFO_TOTAL_HANDLES', 4), 'ENOENT'),
    ],
    { converter: 'handles' },
  ),
  method('DEVICE', 'QUERY_PORT', ['port'], 'query', [
    input('QUERY_PORT_PORT_NUM', 8, object(0, 8)),
    extensible(output('QUERY_PORT_RESP', 48, ...embed(0, 'attributes', PortAttributes))),
  ]),
  method(
    'DEVICE',
    'GET_CONTEXT',
    ['device'],
    'open',
    [...contextValues('GET_CONTEXT'), refused(anyBytes('GET_CONTEXT_FD_ARR', 'in', 4), 'EOPNOTSUPP')],
    { hasDriverAttributes: true },
  ),
  method('DEVICE', 'QUERY_CONTEXT', ['device'], 'query', contextValues('QUERY_CONTEXT')),
  method(
    'DEVICE',
    'QUERY_GID_TABLE',
    ['device'],
    'queryGidTable',
    [
      input('QUERY_GID_TABLE_ENTRY_SIZE', 8),
      optional(flags('QUERY_GID_TABLE_FLAGS', '', 0)),
      list('QUERY_GID_TABLE_RESP_ENTRIES', 'entries', 0),
      output('QUERY_GID_TABLE_RESP_NUM_ENTRIES', 8),
    ],
    { converter: 'gidTable' },
  ),
  method('DEVICE', 'QUERY_PORT_SPEED', ['port'], 'querySpeed', [
    input('QUERY_PORT_SPEED_PORT_NUM', 8, object(0, 8)),
    output('QUERY_PORT_SPEED_RESP', 8, value(0, 8, 'speed')),
  ]),
  method('DEVICE', 'QUERY_GID_ENTRY', ['port'], 'queryGidEntry', [
    input('QUERY_GID_ENTRY_PORT', 8, object(0, 8)),
    input('QUERY_GID_ENTRY_GID_INDEX', 8, value(0, 8, 'index')),
    flags('QUERY_GID_ENTRY_FLAGS', '', 0),
    extensible(output('QUERY_GID_ENTRY_RESP_ENTRY', 32, ...embed(0, 'entry', GidEntry))),
  ]),
  method('PD', 'PD_DESTROY', ['pd'], 'destroy', [destroy('DESTROY_PD_HANDLE', ['pd'])]),
  method(
    'CQ',
    'CQ_CREATE',
    ['cq'],
    'create',
    [
      newHandle('CREATE_CQ_HANDLE'),
      input('CREATE_CQ_CQE', 4, value(0, 4, 'cqe')),
      input('CREATE_CQ_USER_HANDLE', 8, value(0, 8, 'userHandle')),
      optional(fd('CREATE_CQ_COMP_CHANNEL', 'channel')),
      input('CREATE_CQ_COMP_VECTOR', 4, value(0, 4, 'compVector')),
      optional(flags('CREATE_CQ_FLAGS', 'flags', CqFlags.values.TIMESTAMP_COMPLETION | CqFlags.values.IGNORE_OVERRUN)),
      output('CREATE_CQ_RESP_CQE', 4, value(0, 4, 'cqe')),
      optional(fd('CREATE_CQ_EVENT_FD', 'asyncFd')),
      refused(input('CREATE_CQ_BUFFER_VA', 8), 'EOPNOTSUPP'),
      refused(input('CREATE_CQ_BUFFER_LENGTH', 8), 'EOPNOTSUPP'),
      refused(fd('CREATE_CQ_BUFFER_FD', ''), 'EOPNOTSUPP'),
      refused(input('CREATE_CQ_BUFFER_OFFSET', 8), 'EOPNOTSUPP'),
      refused(umem('CREATE_CQ_BUF_UMEM'), 'EOPNOTSUPP'),
    ],
    { hasDriverAttributes: true },
  ),
  method('CQ', 'CQ_DESTROY', ['cq'], 'destroy', [
    destroy('DESTROY_CQ_HANDLE', ['cq']),
    output('DESTROY_CQ_RESP', 8, value(0, 4, 'compEvents'), value(4, 4, 'asyncEvents')),
  ]),
  method(
    'QP',
    'QP_CREATE',
    LINUX_QP_CLASSES,
    'create',
    [
      newHandle('CREATE_QP_HANDLE'),
      refusedFor(ALL_BUT_XRC_TARGET, checkedByHandler(handle('CREATE_QP_XRCD_HANDLE', 'xrcd', ['xrcd']), 'ENOENT')),
      refusedFor(XRC_TARGET, checkedByHandler(handle('CREATE_QP_PD_HANDLE', 'pd', ['pd']), 'ENOENT')),
      refusedFor(['xrc_ini_qp'], optional(sharedQueue('CREATE_QP_SRQ_HANDLE', 'srq'))),
      refusedFor(XRC_TARGET, checkedByHandler(handle('CREATE_QP_SEND_CQ_HANDLE', 'sendCq', ['cq']), 'ENOENT')),
      refusedFor(XRC_TARGET, checkedByHandler(handle('CREATE_QP_RECV_CQ_HANDLE', 'recvCq', ['cq']), 'ENOENT')),
      refusedFor(XRC_TARGET, optional(handle('CREATE_QP_IND_TABLE_HANDLE', 'rwqIndTable', ['rwq_ind_table']))),
      input('CREATE_QP_USER_HANDLE', 8, value(0, 8, 'userHandle')),
      extensible(input('CREATE_QP_CAP', 20, ...qpCap(0))),
      input('CREATE_QP_TYPE', 8, classSelector(0, 8)),
      optional(flags('CREATE_QP_FLAGS', 'flags', QpFlags.values.SQ_SIG_ALL)),
      refused(input('CREATE_QP_SOURCE_QPN', 4), 'EOPNOTSUPP'),
      optional(fd('CREATE_QP_EVENT_FD', 'asyncFd')),
      extensible(output('CREATE_QP_RESP_CAP', 20, ...qpCap(0))),
      output('CREATE_QP_RESP_QP_NUM', 4, value(0, 4, 'qpNum')),
      refused(umem('CREATE_QP_BUF_UMEM'), 'EOPNOTSUPP'),
      refused(umem('CREATE_QP_RQ_BUF_UMEM'), 'EOPNOTSUPP'),
      refused(umem('CREATE_QP_SQ_BUF_UMEM'), 'EOPNOTSUPP'),
    ],
    { hasDriverAttributes: true },
  ),
  method('QP', 'QP_DESTROY', LINUX_QP_CLASSES, 'destroy', [
    destroy('DESTROY_QP_HANDLE', LINUX_QP_CLASSES),
    output('DESTROY_QP_RESP', 4, value(0, 4, 'events')),
  ]),
  method(
    'SRQ',
    'SRQ_CREATE',
    SRQ_CLASSES,
    'create',
    [
      newHandle('CREATE_SRQ_HANDLE'),
      handle('CREATE_SRQ_PD_HANDLE', 'pd', ['pd']),
      checkedByHandler(handle('CREATE_SRQ_XRCD_HANDLE', 'xrcd', ['xrcd']), 'ENOENT'),
      checkedByHandler(handle('CREATE_SRQ_CQ_HANDLE', 'cq', ['cq']), 'ENOENT'),
      input('CREATE_SRQ_USER_HANDLE', 8, value(0, 8, 'userHandle')),
      input('CREATE_SRQ_MAX_WR', 4, value(0, 4, 'maxWr')),
      input('CREATE_SRQ_MAX_SGE', 4, value(0, 4, 'maxSge')),
      input('CREATE_SRQ_LIMIT', 4, value(0, 4, 'limit')),
      checkedByHandler(input('CREATE_SRQ_MAX_NUM_TAGS', 4, value(0, 4, 'maxNumTags')), 'ENOENT'),
      input('CREATE_SRQ_TYPE', 8, classSelector(0, 8)),
      optional(fd('CREATE_SRQ_EVENT_FD', 'asyncFd')),
      output('CREATE_SRQ_RESP_MAX_WR', 4, value(0, 4, 'maxWr')),
      output('CREATE_SRQ_RESP_MAX_SGE', 4, value(0, 4, 'maxSge')),
      optional(output('CREATE_SRQ_RESP_SRQ_NUM', 4, value(0, 4, 'srqNum'))),
      refused(umem('CREATE_SRQ_BUF_UMEM'), 'EOPNOTSUPP'),
    ],
    { hasDriverAttributes: true },
  ),
  method('SRQ', 'SRQ_DESTROY', SRQ_CLASSES, 'destroy', [
    destroy('DESTROY_SRQ_HANDLE', SRQ_CLASSES),
    output('DESTROY_SRQ_RESP', 4, value(0, 4, 'events')),
  ]),
  method('MR', 'MR_DESTROY', ['mr'], 'destroy', [destroy('DESTROY_MR_HANDLE', ['mr'])]),
  method('MR', 'QUERY_MR', ['mr'], 'query', [
    handle('QUERY_MR_HANDLE', 'object', ['mr']),
    output('QUERY_MR_RESP_LKEY', 4, value(0, 4, 'lkey')),
    output('QUERY_MR_RESP_RKEY', 4, value(0, 4, 'rkey')),
    output('QUERY_MR_RESP_LENGTH', 8, value(0, 8, 'length')),
    optional(output('QUERY_MR_RESP_IOVA', 8, value(0, 8, 'iova'))),
  ]),
  method(
    'MR',
    'DM_MR_REG',
    ['mr'],
    'create',
    [
      newHandle('REG_DM_MR_HANDLE'),
      input('REG_DM_MR_OFFSET', 8, value(0, 8, 'start')),
      input('REG_DM_MR_LENGTH', 8, value(0, 8, 'length')),
      handle('REG_DM_MR_PD_HANDLE', 'pd', ['pd']),
      optional(flags('REG_DM_MR_ACCESS_FLAGS', 'access', ALL_ACCESS)),
      handle('REG_DM_MR_DM_HANDLE', 'dm', ['dm']),
      output('REG_DM_MR_RESP_LKEY', 4, value(0, 4, 'lkey')),
      output('REG_DM_MR_RESP_RKEY', 4, value(0, 4, 'rkey')),
    ],
    { impliedArguments: { kind: MrKind.values.DEVICE, iova: 0n } },
  ),
  method(
    'MR',
    'REG_DMABUF_MR',
    ['mr'],
    'create',
    [
      newHandle('REG_DMABUF_MR_HANDLE'),
      handle('REG_DMABUF_MR_PD_HANDLE', 'pd', ['pd']),
      input('REG_DMABUF_MR_OFFSET', 8, value(0, 8, 'start')),
      input('REG_DMABUF_MR_LENGTH', 8, value(0, 8, 'length')),
      input('REG_DMABUF_MR_IOVA', 8, value(0, 8, 'iova')),
      input('REG_DMABUF_MR_FD', 4, value(0, 4, 'file')),
      optional(flags('REG_DMABUF_MR_ACCESS_FLAGS', 'access', DMABUF_ACCESS)),
      output('REG_DMABUF_MR_RESP_LKEY', 4, value(0, 4, 'lkey')),
      output('REG_DMABUF_MR_RESP_RKEY', 4, value(0, 4, 'rkey')),
    ],
    { impliedArguments: { kind: MrKind.values.FILE } },
  ),
  method(
    'MR',
    'REG_MR',
    ['mr'],
    'create',
    [
      newHandle('REG_MR_HANDLE'),
      handle('REG_MR_PD_HANDLE', 'pd', ['pd']),
      optional(handle('REG_MR_DMA_HANDLE', 'dmah', ['dmah'])),
      input('REG_MR_IOVA', 8, value(0, 8, 'iova')),
      optional(input('REG_MR_ADDR', 8, value(0, 8, 'start'))),
      input('REG_MR_LENGTH', 8, value(0, 8, 'length')),
      flags('REG_MR_ACCESS_FLAGS', 'access', ALL_ACCESS),
      optional(fd('REG_MR_FD', 'file')),
      optional(input('REG_MR_FD_OFFSET', 8, value(0, 8, 'start'))),
      output('REG_MR_RESP_LKEY', 4, value(0, 4, 'lkey')),
      output('REG_MR_RESP_RKEY', 4, value(0, 4, 'rkey')),
    ],
    {
      choices: [
        { names: ['REG_MR_ADDR'] },
        {
          names: ['REG_MR_FD', 'REG_MR_FD_OFFSET'],
          impliedArguments: { kind: MrKind.values.FILE },
          allowedFlags: DMABUF_ACCESS,
        },
      ],
    },
  ),
  method('MR', 'ADVISE_MR', ['pd'], 'advise', [
    handle('ADVISE_MR_PD_HANDLE', 'object', ['pd']),
    input('ADVISE_MR_ADVICE', 8, value(0, 8, 'advice')),
    flags('ADVISE_MR_FLAGS', 'flags', allOf(AdviseFlags)),
    records('ADVISE_MR_SGE_LIST', 'ranges', SGE_BYTES),
  ]),
  method('AH', 'AH_DESTROY', ['ah'], 'destroy', [destroy('DESTROY_AH_HANDLE', ['ah'])]),
  method('MW', 'MW_DESTROY', ['mw'], 'destroy', [destroy('DESTROY_MW_HANDLE', ['mw'])]),
  method('XRCD', 'XRCD_DESTROY', ['xrcd'], 'destroy', [destroy('DESTROY_XRCD_HANDLE', ['xrcd'])]),
  method('ASYNC_EVENT', 'ASYNC_EVENT_ALLOC', ['async_fd'], 'create', [newFd('ASYNC_EVENT_ALLOC_FD_HANDLE')]),
  method('FLOW', 'FLOW_DESTROY', ['flow'], 'destroy', [destroy('DESTROY_FLOW_HANDLE', ['flow'])]),
  method(
    'WQ',
    'WQ_CREATE',
    ['wq'],
    'create',
    [
      newHandle('CREATE_WQ_HANDLE'),
      handle('CREATE_WQ_PD_HANDLE', 'pd', ['pd']),
      handle('CREATE_WQ_CQ_HANDLE', 'cq', ['cq']),
      input('CREATE_WQ_USER_HANDLE', 8, value(0, 8, 'userHandle')),
      input('CREATE_WQ_TYPE', 8, value(0, 8, 'type')),
      optional(fd('CREATE_WQ_EVENT_FD', 'asyncFd')),
      input('CREATE_WQ_MAX_WR', 4, value(0, 4, 'maxWr')),
      input('CREATE_WQ_MAX_SGE', 4, value(0, 4, 'maxSge')),
      flags('CREATE_WQ_FLAGS', 'flags', allOf(WqFlags)),
      output('CREATE_WQ_RESP_MAX_WR', 4, value(0, 4, 'maxWr')),
      output('CREATE_WQ_RESP_MAX_SGE', 4, value(0, 4, 'maxSge')),
      optional(output('CREATE_WQ_RESP_WQ_NUM', 4, value(0, 4, 'wqNum'))),
    ],
    { hasDriverAttributes: true },
  ),
  method('WQ', 'WQ_DESTROY', ['wq'], 'destroy', [
    destroy('DESTROY_WQ_HANDLE', ['wq']),
    output('DESTROY_WQ_RESP', 4, value(0, 4, 'events')),
  ]),
  method('RWQ_IND_TBL', 'RWQ_IND_TBL_DESTROY', ['rwq_ind_table'], 'destroy', [
    destroy('DESTROY_RWQ_IND_TBL_HANDLE', ['rwq_ind_table']),
  ]),
  method('DM', 'DM_ALLOC', ['dm'], 'create', [
    newHandle('ALLOC_DM_HANDLE'),
    input('ALLOC_DM_LENGTH', 8, value(0, 8, 'length')),
    input('ALLOC_DM_ALIGNMENT', 4, value(0, 4, 'alignment')),
  ]),
  method('DM', 'DM_FREE', ['dm'], 'destroy', [destroy('FREE_DM_HANDLE', ['dm'])]),
  method('DMAH', 'DMAH_ALLOC', ['dmah'], 'create', [
    newHandle('ALLOC_DMAH_HANDLE'),
    optional(input('ALLOC_DMAH_CPU_ID', 4, value(0, 4, 'cpuId'))),
    optional(enumerated('ALLOC_DMAH_TPH_MEM_TYPE', 'tphMemType', Object.keys(TphMemType.values).length)),
    optional(input('ALLOC_DMAH_PH', 1, value(0, 1, 'ph'))),
  ]),
  method('DMAH', 'DMAH_FREE', ['dmah'], 'destroy', [destroy('FREE_DMA_HANDLE', ['dmah'])]),
  method('COUNTERS', 'COUNTERS_CREATE', ['counters'], 'create', [newHandle('CREATE_COUNTERS_HANDLE')]),
  method('COUNTERS', 'COUNTERS_DESTROY', ['counters'], 'destroy', [destroy('DESTROY_COUNTERS_HANDLE', ['counters'])]),
  method('COUNTERS', 'COUNTERS_READ', ['counters'], 'query', [
    handle('READ_COUNTERS_HANDLE', 'object', ['counters']),
    list('READ_COUNTERS_BUFF', 'values', 0),
    optional(flags('READ_COUNTERS_FLAGS', 'flags', allOf(CountersFlags))),
  ]),
]
