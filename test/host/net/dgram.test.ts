/*
 * The errors of UDP sockets of Node. Their datagrams: test/transport/phy/dgram.test.ts.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openDgramSocket } from '../../../src/host/net/dgram.ts'

/** An address of a network for documentation (RFC 5737), which no interface has. */
const NO_INTERFACE = '192.0.2.1'
const [GROUP, PORT] = ['239.255.0.1', 4791]
const ignore = (): void => {}

test('the error of a socket names the call that failed', () => {
  assert.throws(() => openDgramSocket(NO_INTERFACE, PORT, ignore), { call: 'bind', code: 'EADDRNOTAVAIL' })
  assert.throws(() => openDgramSocket(GROUP, PORT, ignore, { memberOn: NO_INTERFACE }), {
    call: 'setsockopt of the multicast membership',
    code: 'ENODEV',
    message: /239\.255\.0\.1 on 192\.0\.2\.1/,
  })
})
