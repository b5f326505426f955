/*
 * bench/udp.ts: the processes of a row.
 */
import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Unavailable } from '../../../bench/harness/harness.ts'
import { udpRows } from '../../../bench/udp.ts'
import { hasNative } from '../../../src/host/native.ts'
import { ROCE_UDP_PORT } from '../../../src/spec/wire/headers.ts'

/** An address of the second pair. */
const SECOND_PAIR = '127.0.42.1'

/** Process ids of the child processes of this process. */
const children = (): string => readFileSync(`/proc/self/task/${process.pid}/children`, 'latin1')

test('a row whose second pair cannot start ends its first pair', { skip: !hasNative() }, async () => {
  const row = udpRows.find(({ name }) => name === 'udp qps 100')
  const occupant = createSocket('udp4')
  occupant.bind(ROCE_UDP_PORT, SECOND_PAIR)
  await once(occupant, 'listening')
  const before = children()
  await assert.rejects(async () => row?.prepare(), Unavailable)
  assert.equal(children(), before)
  // It was the second pair: the row starts when the port is free.
  occupant.close()
  const bench = await row?.prepare()
  await bench?.close?.()
})
