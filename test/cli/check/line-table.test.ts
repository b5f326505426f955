/*
 * The line table of a program, which may be damaged or hostile.
 */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { readLines } from '../../../src/cli/check/line-table.ts'
import { findTool, scratchFolder } from '../../tools.ts'
import { compileWithHeader } from './with-header.ts'

const folder = scratchFolder()
const skip = ['cc', 'nm'].every(name => findTool(name)) ? false : 'cc or nm is missing'

for (const options of [[], ['-gz', '-gdwarf64'], ['-ffunction-sections', '-Wl,--gc-sections']])
  test(`gcc ${['-gdwarf-5', ...options].join(' ')}`, { skip }, async () => {
    const { header, program, address } = compileWithHeader(folder, '-gdwarf-5', ...options)
    assert.deepEqual(
      [...(await readLines(program, [Number(address), 1]))],
      [[Number(address), { file: header, line: 3 }]],
    )
  })

test('reading a damaged file ends, with or without a line', { skip }, async () => {
  const { program, address } = compileWithHeader(folder, '-gdwarf-5')
  const bytes = readFileSync(program)
  const damaged = join(folder, 'damaged')
  const read = async (change: (copy: Buffer) => Buffer): Promise<void> => {
    writeFileSync(damaged, change(Buffer.from(bytes)))
    assert.ok((await readLines(damaged, [Number(address)])).size <= 1)
  }
  // The section of the line table begins with its length, version, and sizes of addresses and selectors.
  const table = bytes.indexOf(Buffer.from([5, 0, 8, 0])) - 4
  assert.ok(table > 0)
  const headers = Number(bytes.readBigUInt64LE(40))
  for (const start of [0, table, headers])
    for (let i = start; i < Math.min(start + 80, bytes.length); i++)
      for (const value of [0, 0xff])
        await read(copy => {
          copy[i] = value
          return copy
        })
  for (const length of [0, 63, 64, table + 40, headers + 100]) await read(copy => copy.subarray(0, length))
})
