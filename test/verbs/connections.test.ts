/*
 * Connections by address and port (R17) on every way to a device, and over UDP.
 */
import { describe } from 'node:test'
import { createNetwork, open } from '../../src/verbs/index.ts'
import { loopbackText } from '../loopback.ts'
import { connectionTests } from './connection-suite.ts'
import { eachCarrier } from './ends.ts'

eachCarrier(connectionTests)

describe('over UDP', () =>
  connectionTests(async () => {
    const network = createNetwork({ link: 'udp' })
    const at = (n: number) => open({ network, address: loopbackText(n) })
    return [await at(73), await at(74)]
  }))
