/*
 * Layouts of structs that several calls of Linux's dialects share (ib_user_verbs.h), and classes by Linux's numbers of
 * types and objects.
 */

import { SRQ_CLASSES } from '../classes/ids.ts'
import { QP_CLASSES, qpAttributes } from '../classes/qp/qp.ts'
import { QpType, SrqType } from '../enums.ts'
import { type AddressRole, Links } from '../links.ts'
import { bool, type Cell, value, withFallback } from './layout.ts'
import { LinuxObject } from './names.ts'

/** Linux programs cannot create these queue pairs; reliable datagrams have no type number. */
const CLASSES_NOT_IN_LINUX: readonly string[] = ['gsi_qp', 'smi_qp', 'rd_qp']

/** The classes that a QP handle can have. */
export const LINUX_QP_CLASSES = QP_CLASSES.filter(name => !CLASSES_NOT_IN_LINUX.includes(name))

type QpRole = Exclude<AddressRole, 'addresses'>

/**
 * Cells of a destination or alternate path for each link; `lidCells` only for links with LIDs. Linux has one struct and
 * one bit of the attribute mask for all links, and ignores the fields of other links.
 */
const cellsByLink = (
  role: QpRole,
  cells: (name: string) => Cell[],
  lidCells: (name: string) => Cell[] = () => [],
): Cell[] =>
  (['roce', 'ib', 'opa'] as const).flatMap(link => {
    const name = Links[link].attributes[role] as string
    const linkCells = link === 'roce' ? cells(name) : [...cells(name), ...lidCells(name)]
    // An attribute's id is one more than its bit number in the mask.
    const maskBit = 1 << (qpAttributes[role].id - 1)
    return linkCells.map(cell => ({ ...cell, link, maskBit }))
  })

/** ib_uverbs_qp_dest, 32 bytes. */
export const qpDest = (at: number, role: QpRole): Cell[] =>
  cellsByLink(
    role,
    name => [
      value(at, 16, `${name}.dgid`),
      value(at + 16, 4, `${name}.flowLabel`),
      value(at + 24, 1, `${name}.sgidIndex`),
      value(at + 25, 1, `${name}.hopLimit`),
      value(at + 26, 1, `${name}.trafficClass`),
      value(at + 27, 1, `${name}.sl`),
      value(at + 29, 1, `${name}.staticRate`),
      bool(at + 30, `${name}.isGlobal`),
      value(at + 31, 1, `${name}.port`),
    ],
    name => [value(at + 20, 2, `${name}.dlid`), value(at + 28, 1, `${name}.srcPathBits`)],
  )

/** ib_uverbs_qp_dest in a response. On Ethernet is_global is 1 even for types of QPs without a path. */
export const qpDestResponse = (at: number, role: QpRole): Cell[] =>
  qpDest(at, role).map(cell => (cell.kind === 'bool' && cell.link === 'roce' ? withFallback(cell, 1) : cell))

/** Cells of the fields of an alternate path that lie apart from its `qpDest`, at these offsets. */
export const alternatePathFields = (pkeyIndex: number, altPort: number, timeout: number): Cell[] =>
  cellsByLink('alternatePath', name => [
    value(pkeyIndex, 2, `${name}.pkeyIndex`),
    value(altPort, 1, `${name}.altPort`),
    value(timeout, 1, `${name}.timeout`),
  ])

/** ib_uverbs_ah_attr, 32 bytes. */
export const ahAddress = (at: number): Cell[] =>
  cellsByLink(
    'address',
    name => [
      value(at, 16, `${name}.dgid`),
      value(at + 16, 4, `${name}.flowLabel`),
      value(at + 20, 1, `${name}.sgidIndex`),
      value(at + 21, 1, `${name}.hopLimit`),
      value(at + 22, 1, `${name}.trafficClass`),
      value(at + 26, 1, `${name}.sl`),
      value(at + 28, 1, `${name}.staticRate`),
      bool(at + 29, `${name}.isGlobal`),
      value(at + 30, 1, `${name}.port`),
    ],
    name => [value(at + 24, 2, `${name}.dlid`), value(at + 27, 1, `${name}.srcPathBits`)],
  )

/** ib_uverbs_qp_cap, 20 bytes. */
export const qpCap = (at: number): Cell[] => [
  value(at, 4, 'cap.maxSendWr'),
  value(at + 4, 4, 'cap.maxRecvWr'),
  value(at + 8, 4, 'cap.maxSendSge'),
  value(at + 12, 4, 'cap.maxRecvSge'),
  value(at + 16, 4, 'cap.maxInlineData'),
]

/** Classes by QP type. A type without a class is refused with EOPNOTSUPP, an unknown number with EINVAL. */
const QpTypeClasses: Readonly<Record<number, string | undefined>> = {
  ...Object.fromEntries(Object.values(QpType.values).map(type => [type, undefined])),
  [QpType.values.RC]: 'rc_qp',
  [QpType.values.UC]: 'uc_qp',
  [QpType.values.UD]: 'ud_qp',
  [QpType.values.RAW_PACKET]: 'raw_packet_qp',
  [QpType.values.XRC_INI]: 'xrc_ini_qp',
  [QpType.values.XRC_TGT]: 'xrc_tgt_qp',
  [QpType.values.DRIVER]: 'driver_qp',
}

/** Classes of type DRIVER that the driver's bytes of a request select (spec/drivers/linux-abi.ts), by name. */
export const DriverQpTypes: Readonly<Record<string, number | undefined>> = {
  dci_qp: QpType.values.DRIVER,
  dct_qp: QpType.values.DRIVER,
}

const SrqTypeClasses: Readonly<Record<number, string | undefined>> = {
  [SrqType.values.BASIC]: 'srq',
  [SrqType.values.XRC]: 'xrc_srq',
  [SrqType.values.TM]: 'tm_srq',
}

/** `types`: the type numbers that select one of `classes`. `noun`: for error messages. */
export const typeTables = [
  { noun: 'QP', classes: LINUX_QP_CLASSES, types: QpTypeClasses },
  { noun: 'SRQ', classes: SRQ_CLASSES, types: SrqTypeClasses },
] as const

/**
 * The classes of each Linux object for INFO_HANDLES; without classes the list is empty. Other objects, and objects
 * whose classes the device lacks, are refused with ENOENT.
 */
export const LinuxObjectClasses: Readonly<Record<number, readonly string[]>> = {
  [LinuxObject.DEVICE]: [],
  [LinuxObject.PD]: ['pd'],
  [LinuxObject.COMP_CHANNEL]: ['comp_channel'],
  [LinuxObject.CQ]: ['cq'],
  [LinuxObject.QP]: LINUX_QP_CLASSES,
  [LinuxObject.SRQ]: SRQ_CLASSES,
  [LinuxObject.MR]: ['mr'],
  [LinuxObject.AH]: ['ah'],
  [LinuxObject.MW]: ['mw'],
  [LinuxObject.XRCD]: ['xrcd'],
  [LinuxObject.FLOW]: ['flow'],
  [LinuxObject.RWQ_IND_TBL]: ['rwq_ind_table'],
  [LinuxObject.WQ]: ['wq'],
  [LinuxObject.DM]: ['dm'],
  [LinuxObject.COUNTERS]: ['counters'],
  [LinuxObject.ASYNC_EVENT]: ['async_fd'],
  [LinuxObject.DMAH]: ['dmah'],
}
