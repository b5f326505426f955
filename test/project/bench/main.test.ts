/*
 * The command of the benchmarks.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

const bench = (option: string) =>
  spawnSync(process.execPath, [fileURLToPath(new URL('../../../bench/main.js', import.meta.url)), option], {
    encoding: 'utf8',
  })

test('--help prints the options and the rows; an unknown option is refused', () => {
  for (const option of ['--help', '-h']) {
    const { status, stdout, stderr } = bench(option)
    assert.deepEqual([status, stderr], [0, ''])
    assert.match(stdout, /--rounds N.*--json FILE.*\nRows: .*udp rate/s)
  }
  const { status, stderr } = bench('--helps')
  assert.deepEqual([status, stderr], [1, 'bench: option "--helps" is unknown; --help lists the options\n'])
})
