/*
 * What an EFA device allocates per packet: nothing for datagrams and for messages that end at once. A message that
 * waits is an object; long copies take views of the test's memory (core/memory/local-space.ts).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'

/** Bytes per packet. Numbers that V8 keeps in objects of their own are a few. */
const NOTHING = 64
const TWO_VIEWS = 300
const MESSAGE = 1000

const limits: Readonly<Record<string, number>> = {
  'datagrams within the process': NOTHING,
  'datagrams by packets': NOTHING,
  'SENDs within the process': NOTHING,
  'a long WRITE by packets': TWO_VIEWS,
  'a long READ by packets': TWO_VIEWS,
  'SENDs by packets': MESSAGE,
}

test('nothing is allocated per packet', () => {
  const program = fileURLToPath(new URL('allocation-counts.js', import.meta.url))
  const options = ['--expose-gc', '--min-semi-space-size=64', '--max-semi-space-size=64']
  const { stdout, stderr } = spawnSync(process.execPath, [...options, program], { encoding: 'utf8' })
  const counted = JSON.parse(stdout === '' ? stderr : stdout) as Record<string, number>
  assert.deepEqual(Object.keys(counted), Object.keys(limits))
  for (const [name, bytes] of Object.entries(counted))
    assert.ok(bytes < limits[name]!, `${name}: ${bytes} bytes per packet`)
})
