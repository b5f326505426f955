/*
 * `userdma explain FILE…`: why RDMA failed or was slow, from captures alone.
 *
 * Files may be from somebody else: texts are made printable, and damage ends a file with a line.
 */

import { bytesText } from '../../spec/byte-count.ts'
import type { CaptureSeverity } from '../../spec/captures.ts'
import type { Severity } from '../../spec/check/severity.ts'
import { jsonText, printable } from '../../spec/printable.ts'
import { AddressTable } from '../../tools/captures/addresses.ts'
import { CaptureAnalysis } from '../../tools/captures/analysis.ts'
import type { RawPacket } from '../../tools/captures/file.ts'
import type { CaptureFilter } from '../../tools/captures/filter.ts'
import type { Located } from '../../tools/captures/located.ts'
import { type ReportLine, reportLines, reportObjects } from '../../tools/captures/report.ts'
import { PacketSample, packetNumber } from '../../tools/captures/samples.ts'
import { compareCaptures, type Point } from '../../tools/captures/together.ts'
import { togetherLines, togetherObjects } from '../../tools/captures/together-report.ts'
import { parseAddress } from '../../transport/wire/address.ts'
import { openCapture, readCaptureFile, requireRereadable } from '../capture-file.ts'
import { paintedWord, paintFor } from '../colors.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { explainOptions } from '../command-line/options.ts'
import { UsageError } from '../fail.ts'

type ExplainOptions = OptionsOf<typeof explainOptions>

/** Options that select packets. */
type FilterOptions = Pick<ExplainOptions, 'port' | 'host' | 'qp' | 'from' | 'until'>

/** The severities of captures, with whose color they have. */
const colorOf = { failure: 'error', slow: 'warning', note: 'note' } as const satisfies Record<CaptureSeverity, Severity>

/** The port and the filter of options. Throws UsageError. */
export const filterOf = ({
  port,
  host,
  qp,
  from,
  until,
}: FilterOptions): { readonly port?: number; readonly filter?: CaptureFilter } => {
  const hosts = host?.map(text => {
    const address = parseAddress(text)
    if (address === undefined) throw new UsageError(`--host "${text}" is not an IPv4 or IPv6 address`)
    return address
  })
  const filter: CaptureFilter = {
    ...(hosts !== undefined && { hosts }),
    ...(qp !== undefined && { qpns: qp }),
    ...(from !== undefined && { from: from * 1e9 }),
    ...(until !== undefined && { to: until * 1e9 }),
  }
  return {
    ...(port !== undefined && { port }),
    ...(Object.keys(filter).length > 0 && { filter }),
  }
}

/** Reads a capture into an analysis, with progress. Throws UsageError if it is no capture. */
const readInto = async (
  { reader, finish }: Pick<CaptureAnalysis, 'reader' | 'finish'>,
  name: string,
): Promise<void> => {
  await readCaptureFile(name, reader, 'explain', ({ read, size }) => {
    const total = size > 0 ? ` of ${bytesText(size)}` : ''
    return `${bytesText(read())}${total}, ${reader.packets} packets`
  })
  finish()
  // Nothing was read: a mistake of the user, not a damaged capture.
  if (reader.format === undefined) throw new UsageError(`${name}: ${reader.damage?.reason}`)
}

/** The command. Throws UsageError. */
export const explainCaptures = async (names: readonly string[], options: ExplainOptions): Promise<void> => {
  const { top } = options
  const settings = filterOf(options)
  const paint = paintFor(options, process.stdout)
  const write = (line: string): void => void process.stdout.write(`${line}\n`)
  const writeText = (line: ReportLine): void => {
    if (typeof line === 'string') write(printable(line))
    else write(paintedWord(printable(line.text), line.severity, colorOf[line.severity], paint))
  }
  const isMany = names.length > 1
  if (isMany && names.includes('-'))
    throw new UsageError('several captures are read twice: give files, not - (standard input)')
  if (isMany) for (const name of names) requireRereadable(name)
  const addresses = new AddressTable()
  const points: Point[] = []
  let base: Pick<CaptureAnalysis, 'startSeconds' | 'startNanoseconds'> | undefined
  for (const [i, name] of names.entries()) {
    const sample = new PacketSample()
    const analysis = new CaptureAnalysis({
      ...settings,
      addresses,
      ...(isMany && {
        onPacket: (packet: RawPacket, located: Located, _kind: number, time: number) =>
          sample.add(packetNumber(packet, located), time, located),
      }),
    })
    await readInto({ reader: analysis.reader, finish: () => analysis.finish() }, name)
    if (options.json) for (const object of reportObjects(analysis, name)) write(jsonText(object))
    else {
      if (i > 0) write('')
      for (const line of reportLines(analysis, { name, top })) writeText(line)
    }
    const { startSeconds, startNanoseconds, end } = analysis
    base ??= { startSeconds, startNanoseconds }
    const origin = (startSeconds - base.startSeconds) * 1e9 + (startNanoseconds - base.startNanoseconds)
    // Damage was printed already, and ends the chunks.
    points.push({ name, sample, origin, end, open: async () => (await openCapture(name, () => {})).chunks })
  }
  if (!isMany) return
  const together = await compareCaptures(points, addresses, settings)
  if (options.json) for (const object of togetherObjects(points, addresses, together)) write(jsonText(object))
  else for (const line of togetherLines(points, addresses, together, top)) writeText(line)
}
