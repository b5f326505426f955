/*
 * Layouts of structs that several calls of Linux's dialects share (ib_user_verbs.h), and the numbers in those dialects
 * for what are classes here.
 */
import { QP_CLASSES, qpAttributes } from '../classes/qp/qp.ts'
import { QpType, SrqType } from '../enums.ts'
import { type AddressRole, Links } from '../links.ts'
import { bool, type Cell, orElse, value } from './layout.ts'
import { LinuxObject } from './names.ts'

/** Programs cannot create queue pairs of management services, and Linux has no number for reliable datagrams. */
const NOT_OF_LINUX: readonly string[] = ['gsi_qp', 'smi_qp', 'rd_qp']

/** Classes of a QP handle. */
export const LINUX_QP_CLASSES = QP_CLASSES.filter(name => !NOT_OF_LINUX.includes(name))

type QpRole = Exclude<AddressRole, 'addresses'>

/**
 * Cells of a destination, `lids` where the link has LIDs: Linux has one struct for all links, and the kernel ignores
 * the fields of other links. All links share one bit of an attribute mask.
 */
const byLink = (role: QpRole, cells: (name: string) => Cell[], lids: (name: string) => Cell[] = () => []): Cell[] =>
  (['roce', 'ib', 'opa'] as const).flatMap(link => {
    const name = Links[link].attributes[role] as string
    const own = link === 'roce' ? cells(name) : [...cells(name), ...lids(name)]
    return own.map(cell => ({ ...cell, link, maskBit: 1 << (qpAttributes[role].id - 1) }))
  })

/** ib_uverbs_qp_dest, 32 bytes. */
export const qpDest = (at: number, role: QpRole): Cell[] =>
  byLink(
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

/** The destination in a response: on Ethernet every path is global, also that of a QP without a path. */
export const qpDestAnswer = (at: number, role: QpRole): Cell[] =>
  qpDest(at, role).map(cell => (cell.as === 'bool' && cell.link === 'roce' ? orElse(cell, 1) : cell))

/** Cells of an alternate path beside its `qpDest`. */
export const alternateRest = (pkeyIndex: number, altPort: number, timeout: number): Cell[] =>
  byLink('alternatePath', name => [
    value(pkeyIndex, 2, `${name}.pkeyIndex`),
    value(altPort, 1, `${name}.altPort`),
    value(timeout, 1, `${name}.timeout`),
  ])

/** ib_uverbs_ah_attr, 32 bytes. */
export const ahAddress = (at: number): Cell[] =>
  byLink(
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

/** The class of a QP type; a type without one is EOPNOTSUPP, an unknown number EINVAL. */
export const QpTypeClasses: Readonly<Record<number, string | undefined>> = {
  ...Object.fromEntries(Object.values(QpType.values).map(type => [type, undefined])),
  [QpType.values.RC]: 'rc_qp',
  [QpType.values.UC]: 'uc_qp',
  [QpType.values.UD]: 'ud_qp',
  [QpType.values.RAW_PACKET]: 'raw_packet_qp',
  [QpType.values.XRC_INI]: 'xrc_ini_qp',
  [QpType.values.XRC_TGT]: 'xrc_tgt_qp',
}

/** Classes of an SRQ handle. */
export const SRQ_CLASSES = ['srq', 'xrc_srq', 'tm_srq'] as const

/** The class of an SRQ type. */
export const SrqTypeClasses: Readonly<Record<number, string | undefined>> = {
  [SrqType.values.BASIC]: 'srq',
  [SrqType.values.XRC]: 'xrc_srq',
  [SrqType.values.TM]: 'tm_srq',
}

/** Numbers that select the class of a call, by the call's possible classes. */
export const typeTables = [
  { what: 'QP', classes: LINUX_QP_CLASSES, types: QpTypeClasses },
  { what: 'SRQ', classes: SRQ_CLASSES, types: SrqTypeClasses },
] as const

/** Objects whose handles INFO_HANDLES can list, with their classes; any other object is EINVAL. */
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
}
