/*
 * `userdma export FILE` of a capture. As pcapng: the packets of some hosts, queue pairs or a time, also redacted. In
 * other formats, the session that is made of it.
 */
import { CaptureAnalysis } from '../../tools/captures/analysis.ts'
import { CaptureRedactor, CaptureWriter } from '../../tools/captures/write.ts'
import { openCapture } from '../capture-file.ts'
import { sessionBesideCapture, sessionOfCapture } from '../capture-session.ts'
import type { OptionsOf } from '../command-line/option.ts'
import type { exportOptions } from '../command-line/options.ts'
import { beforeEndBySignal } from '../end-signals.ts'
import { UsageError } from '../fail.ts'
import { createResult, requireDifferentFiles, writeAll } from '../output-file.ts'
import { filterOf } from './explain-capture.ts'
import { exportSession } from './export.ts'

type ExportOptions = OptionsOf<typeof exportOptions>

/** Bytes that are collected before a write. */
const BUFFER = 1 << 20

/** The command with `--capture`: a recording with the packets of a capture. Throws UsageError. */
export const exportBeside = async (name: string, capture: string, options: ExportOptions): Promise<void> => {
  const { path, remove } = await sessionBesideCapture(name, capture, 'export', filterOf(options))
  try {
    await exportSession(name, options, path)
  } finally {
    remove()
  }
}

/** Other formats: those of a session that is made of the capture. */
const exportAsSession = async (name: string, options: ExportOptions): Promise<void> => {
  if (options.redact)
    throw new UsageError(`--redact of a capture is for --to pcapng: write that first, and export it --to ${options.to}`)
  const { path, remove } = await sessionOfCapture(name, 'export', filterOf(options))
  try {
    await exportSession(name, options, path)
  } finally {
    remove()
  }
}

/** The command. Throws UsageError. */
export const exportCapture = async (name: string, options: ExportOptions): Promise<void> => {
  if (options.to !== 'pcapng') return exportAsSession(name, options)
  if (options.output === undefined) throw new UsageError('a capture is written to a file: name it with -o FILE')
  requireDifferentFiles([['--output', options.output]], [['the capture', name]])
  const settings = filterOf(options)
  const result = createResult(options.output)
  const removeHandlers = beforeEndBySignal(() => result.discard())
  try {
    const fd = result.open()
    let parts: Uint8Array[] = []
    let length = 0
    const flush = (): void => {
      for (const part of [Buffer.concat(parts)]) writeAll(fd, part)
      parts = []
      length = 0
    }
    const write = (bytes: Uint8Array): void => {
      parts.push(bytes)
      length += bytes.length
      if (length >= BUFFER) flush()
    }
    const holder: { writer?: CaptureWriter } = {}
    const analysis = new CaptureAnalysis({
      ...settings,
      onPacket: (packet, located, kind) => holder.writer?.add(packet, located, kind),
    })
    const writer = new CaptureWriter(write, options.redact ? new CaptureRedactor(analysis.addresses) : undefined)
    holder.writer = writer
    const { reader } = analysis
    const source = await openCapture(name, reason => reader.fail(reason))
    for await (const chunk of source.chunks) {
      reader.push(chunk)
      if (reader.damage !== undefined) break
    }
    reader.end()
    if (reader.format === undefined) throw new UsageError(`${name}: ${reader.damage?.reason}`)
    flush()
    result.commit()
    const notes = [
      ...(reader.damage === undefined ? [] : [`read up to byte ${reader.damage.offset}: ${reader.damage.reason}`]),
      ...(writer.leftOut > 0 ? [`${writer.leftOut} packets that are not whole RoCEv2 packets were left out`] : []),
    ]
    for (const note of notes) process.stderr.write(`userdma: ${name}: ${note}\n`)
  } catch (error) {
    result.discard()
    throw error
  } finally {
    removeHandlers()
  }
}
