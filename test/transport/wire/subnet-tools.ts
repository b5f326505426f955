/*
 * What InfiniBand's tools sent, received and printed (test/fixtures/subnet/ORIGIN.md).
 */
import { readFileSync } from 'node:fs'
import { MAD_BYTES } from '../../../src/spec/wire/mad.ts'
import { fixture } from '../../paths.ts'

interface ToolRun {
  readonly command: string
  readonly sent: readonly Uint8Array[]
  readonly received: readonly Uint8Array[]
  readonly printed: readonly string[]
}

const madOf = (hex: string): Uint8Array => {
  const mad = new Uint8Array(MAD_BYTES)
  mad.set(Buffer.from(hex, 'hex'))
  return mad
}

export const toolRuns: readonly ToolRun[] = readFileSync(fixture('subnet', 'tools.txt'), 'utf8')
  .split(/^== /m)
  .slice(1)
  .map(text => {
    const [command = '', ...lines] = text.split('\n')
    const after = (mark: string) => lines.filter(line => line.startsWith(mark)).map(line => line.slice(2))
    return { command, sent: after('> ').map(madOf), received: after('< ').map(madOf), printed: after('| ') }
  })

export const toolRun = (command: string): ToolRun => {
  const found = toolRuns.find(run => run.command === command)
  if (found === undefined) throw new Error(`no run of ${command}`)
  return found
}

/** The number behind a label of dots, `Lid:....3`. */
export const printedNumber = ({ printed }: ToolRun, label: string): number => {
  const line = printed.find(each => each.trim().startsWith(label))
  const [, value] = /[:.]{2,}\s*(0x[\da-fA-F]+|\d+)/.exec(line ?? '') ?? []
  if (value === undefined) throw new Error(`no ${label}`)
  return Number(value)
}
