/*
 * Management datagrams with the library's generic methods.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { createNetwork, open, RdmaError } from '../../../../src/library/index.ts'
import { QpAddress } from '../../../../src/spec/classes/qp/qp.ts'
import { Classes } from '../../../../src/spec/classes.ts'
import { zeroRecord } from '../../../../src/spec/schema/schema.ts'
import { CLASS_PORT_INFO, MadClass, MadMethod } from '../../../../src/spec/wire/management.ts'
import { ipv4 } from '../../../drivers/rxe/machine.ts'
import { plainMad } from '../../../services/mad-engine/pair.ts'

test("an agent queries the other device's performance management", async () => {
  const network = createNetwork()
  await using device = await open({ network, address: '10.0.0.1' })
  await using _queried = await open({ network, address: '10.0.0.2' })
  using channel = device.create(Classes.mad_channel, {})
  const registration = { channel: channel.handle, mgmtClass: MadClass.PERFORMANCE, classVersion: 1 }
  using agent = device.create(Classes.mad_agent, { ...registration, methods: new Uint8Array(0) })
  const address = { ...zeroRecord(QpAddress), dgid: ipv4(10, 0, 0, 2), sgidIndex: 1, isGlobal: 1, port: 1 }
  const data = plainMad(MadClass.PERFORMANCE, MadMethod.GET, 1)
  // Byte 17 is the low byte of the attribute ID.
  data[17] = CLASS_PORT_INFO
  agent.send({ address, qpn: 1, timeout: 60_000, data })
  let answer: ReturnType<typeof channel.receive> | undefined
  for (let turns = 0; answer === undefined; turns++) {
    assert.ok(turns < 1000, 'no response has arrived')
    try {
      answer = channel.receive({ bufferBytes: 256 })
    } catch (error) {
      assert.ok(error instanceof RdmaError && error.code === 'EAGAIN', String(error))
      await nextTurn()
    }
  }
  // Offset 3: the method. Offset 64: the attribute's first field, base version 1.
  assert.deepEqual([answer.status, answer.data[3], answer.data[64]], [0, MadMethod.GET | MadMethod.RESPONSE, 1])
})
