/*
 * Words and single lines that somebody asks about: `synd 0x15 vend 0x81`, `ENOMEM ibv_reg_mr`, `524`, three words of a
 * dump, or a line of any program. A bare number is many things: all kinds that have it are listed.
 */
import { statuses } from '../../spec/check/statuses.ts'
import { rejectText, rejReason } from '../../spec/wire/mad.ts'
import { type Failure, LogAnalysis } from './analysis.ts'
import { dumpWords } from './dump.ts'
import { errnoLabel, errnoMeaning, errnoOf } from './meanings/errnos.ts'
import { commandStatus, healthSyndrome, irdmaEvent, knownCommandSyndromes } from './meanings/firmware.ts'
import { statusNamed, statusNumber, statusOfSyndrome } from './meanings/statuses.ts'
import { familyName, vendorRow, vendorRows } from './meanings/vendor-errors.ts'
import { reportLines, reportOf } from './report.ts'

const hex = (number: number): string => `0x${number.toString(16)}`

/** All kinds of things that have a number, one line each. */
const kindsOf = (number: number, isHexadecimal = false): readonly string[] => {
  const lines: string[] = []
  const status = statusNamed(String(number))
  if (status !== undefined) lines.push(`completion status ${number} (sure): ${status}: ${statuses[status]}`)
  const synd = statusOfSyndrome(number)
  if (synd !== undefined) lines.push(`syndrome ${hex(number)} of a CQE of mlx5, mlx4 or hns (sure): ${synd}`)
  for (const { family, code, row } of vendorRows())
    if (code === number)
      lines.push(
        `vendor error ${hex(number)} of ${familyName(family)}${row.statuses === undefined ? '' : ` with ${row.statuses.join(' or ')}`} (${row.certainty}): ${row.text}`,
      )
  if (Object.values<number>(rejReason).includes(number))
    lines.push(`reject of the connection manager (sure): ${rejectText(number)}`)
  const command = commandStatus(number)
  if (command !== undefined) lines.push(`status ${hex(number)} of a command of mlx5 (sure): ${command.text}`)
  const health = healthSyndrome(number)
  if (health !== undefined) lines.push(`health syndrome ${hex(number)} of mlx5 (sure): ${health.text}`)
  const event = isHexadecimal && number > 0xff ? irdmaEvent(number) : undefined
  if (event !== undefined) lines.push(`event ${hex(number)} of irdma (sure): ${event.text}`)
  for (const [key, [text, certainty]] of knownCommandSyndromes)
    if (key.endsWith(` ${hex(number)}`)) lines.push(`syndrome of ${key} (${certainty}): ${text}`)
  const label = errnoLabel(number)
  if (number > 0 && !label.startsWith('errno')) {
    const each = [
      'ibv_modify_qp',
      'ibv_reg_mr',
      'ibv_create_qp',
      'rdma_resolve_addr',
      'mlx5dv_devx_obj_create',
    ].flatMap(call => {
      const meaning = errnoMeaning(number, call)
      return meaning === undefined ? [] : [`${call}: ${meaning.text} (${meaning.certainty})`]
    })
    // The same for every call, as with 524.
    const distinct = new Set(each.map(text => text.slice(text.indexOf(': ') + 2)))
    lines.push(
      `${label} of a call${distinct.size === 1 && each.length > 3 ? `: ${[...distinct][0]}` : each.length === 0 ? '' : `: ${each.join('; ')}`}`,
    )
  }
  return lines
}

/** The lines about a bare number, decimal or with 0x; [] if nothing has it. */
export const explainNumber = (word: string): readonly string[] => {
  if (!/^(?:0x[0-9a-f]{1,8}|\d{1,9})$/i.test(word)) return []
  const number = Number(word)
  const lines = [...kindsOf(number, /^0x/i.test(word))]
  // Many programs print vendor errors in hexadecimal without 0x.
  if (/^\d{2,}$/.test(word)) {
    const other = Number.parseInt(word, 16)
    const also = kindsOf(other).filter(line => line.startsWith('vendor error'))
    if (also.length > 0)
      lines.push(
        `If the program prints hexadecimal, this is ${hex(other)}, not ${hex(number)}:`,
        ...also.map(line => `  ${line}`),
      )
  }
  return lines
}

/** `vendor err 129`, `synd 0x15`, `status 12`, `ENOMEM`, `ibv_reg_mr`, as far as a text has them. */
const parts = {
  syndrome: /\bsynd(?:rom)?e?[ =:]+0x(?<value>[0-9a-f]{1,2})\b/i,
  vendor:
    /\b(?:vend(?:or)?(?:[_ ]?(?:err(?:or)?|code|syndrome))?|syndrom|vend_err)[ =:]+(?<value>0x[0-9a-f]{1,6}|\d{1,6})\b/i,
  status: /\b(?:status|error)[ =:]+(?<value>\d{1,2})\b/i,
  call: /\b(?<value>(?:ibv|rdma|mlx5dv)_[a-z_0-9]+)/,
} as const

/** The lines about a text; undefined if nothing in it is understood. */
export const explainText = (text: string): readonly string[] | undefined => {
  const dump = dumpWords(text)
  if (dump !== undefined) {
    const { status, vendor, qpn, request, wqe, syndrome, hwSyndrome } = dump
    const name = statusNamed(status ?? '')
    return [
      `The end of an mlx5 CQE with an error: ${request === undefined ? 'a request' : request === 'RECV' ? 'a receive' : `a ${request}`} of QP 0x${qpn}, WQE ${wqe}.`,
      name === undefined
        ? `syndrome 0x${syndrome}: no status of InfiniBand`
        : `syndrome 0x${syndrome} (sure): status ${statusNumber(name)}, ${name}: ${statuses[name]}`,
      ...vendorLine(Number.parseInt(vendor!, 16), name),
      ...(hwSyndrome === '0/0' ? [] : [`hw_synd ${hwSyndrome} (none): no public meaning`]),
    ]
  }
  const analysis = new LogAnalysis()
  const log = analysis.begin('the line')
  log.push(new TextEncoder().encode(`${text}\n`))
  log.end()
  if (analysis.failures.some(isTelling)) return reportLines(reportOf(analysis), 5)
  return explainParts(text)
}

const isTelling = ({ role, kind, status, errno, event, rejection, fields }: Failure): boolean =>
  role !== 'fact' &&
  (kind === undefined ||
    status !== undefined ||
    errno !== undefined ||
    event !== undefined ||
    rejection !== undefined ||
    fields.negated !== undefined ||
    !['completion', 'call'].includes(kind))

const vendorLine = (code: number, status: ReturnType<typeof statusNamed>): readonly string[] => {
  const row = vendorRow('mlx5', code, status)
  return [
    row === undefined
      ? `vendor error ${hex(code)} (none): no public meaning`
      : `vendor error ${hex(code)} (${row.certainty}): ${familyName('mlx5')}: ${row.text}`,
  ]
}

const explainParts = (text: string): readonly string[] | undefined => {
  const value = (part: keyof typeof parts): string | undefined => parts[part].exec(text)?.groups?.value
  const lines: string[] = []
  const syndrome = value('syndrome')
  const status =
    syndrome === undefined ? statusNamed(value('status') ?? '') : statusOfSyndrome(Number.parseInt(syndrome, 16))
  if (status !== undefined)
    lines.push(
      `${syndrome === undefined ? '' : `syndrome 0x${syndrome} (sure): `}status ${statusNumber(status)}, ${status}: ${statuses[status]}`,
    )
  const vendor = value('vendor')
  if (vendor !== undefined) {
    const known = kindsOf(Number(vendor)).filter(line => line.startsWith('vendor error'))
    if (status !== undefined) lines.push(...vendorLine(Number(vendor), status))
    else lines.push(...explainNumber(vendor).filter(line => /vendor error|hexadecimal/.test(line)))
    if (known.length === 0 && status === undefined) lines.push(`vendor error ${vendor} (none): no public meaning`)
  }
  const call = value('call')
  const words = text.split(/[\s,;:()]+/)
  const errno =
    words
      .map(word => (/^E[A-Z]{3,}$|^-\d{1,3}$/.test(word) ? errnoOf(word) : undefined))
      .find(found => found !== undefined) ??
    (call === undefined
      ? undefined
      : words.map(word => (/^\d{1,3}$/.test(word) ? Number(word) : undefined)).find(found => found !== undefined))
  if (errno !== undefined && call !== undefined) {
    const state = words.find(word => /^(?:INIT|RTR|RTS)$/.test(word))
    const meaning = errnoMeaning(errno, call, state)
    lines.push(
      `${errnoLabel(errno)} of ${call}${state === undefined ? '' : ` to ${state}`} (${meaning?.certainty ?? 'none'}): ${meaning?.text ?? 'no meaning beyond its text'}`,
    )
  } else if (errno !== undefined) {
    lines.push(...kindsOf(errno).filter(line => line.startsWith(errnoLabel(errno))))
    // libfabric prints reasons of rejects so.
    if (/(?:^|\s)-\d/.test(text) && Object.values<number>(rejReason).includes(errno))
      lines.push(`or, where libfabric prints prov_err, a reject of the connection manager (sure): ${rejectText(errno)}`)
  }
  return lines.length === 0 ? undefined : lines
}
