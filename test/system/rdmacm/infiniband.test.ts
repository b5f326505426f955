/*
 * Unmodified programs of rdma_cm on InfiniBand ports: by the devices' IP addresses, over path records of the subnet
 * administrator.
 */
import assert from 'node:assert/strict'
import { before, describe, it } from 'node:test'
import { casesOf } from '../../long-run.ts'
import { isEmpty, lacking, startDaemon, suiteScope, type TestDaemon } from '../programs.ts'
import { assertGoodRdmacm, type RdmacmCase, rdmacmCases, runRdmacm } from './rdmacm.ts'

const DEVICES = [
  'mlx5_0@127.0.0.41,driver=mlx5,layer=infiniband,guid=0x0002c90300010203',
  'mlx5_1@127.0.0.42,driver=mlx5,layer=infiniband',
]
/** Of the first device. */
const GID = 'fe80::2:c903:1:203'
/** The client is on the other device. */
const fromOther = (line: string): string =>
  line.replace(/^(udaddy|ucmatose) -s SERVER/, '$1 -s SERVER -b CLIENT').replace(/^(rping -c)/, '$1 -I CLIENT')

const onlyHere: readonly RdmacmCase[] = [
  { server: 'mckey -m 239.77.0.1 -b SERVER', client: 'mckey -m 239.77.0.1 -b CLIENT -s' },
  { server: 'mckey -m 239.77.0.1 -p 0x2 -b SERVER', client: 'mckey -m 239.77.0.1 -p 0x2 -b CLIENT -s' },
  { server: `ucmatose -p PORT -f gid -P ib -b ${GID}`, client: `ucmatose -p PORT -f gid -P ib -s ${GID}` },
  { server: `udaddy -f gid -b ${GID}`, client: `udaddy -f gid -s ${GID}` },
  { server: 'mckey -m 239.77.0.1 -c 3 -b SERVER', client: 'mckey -m 239.77.0.1 -c 3 -b CLIENT -s' },
]

const ordinary = ['rping', 'ucmatose', 'udaddy', 'ib_send_bw', 'mckey']
const cases = [...rdmacmCases, ...onlyHere]
const isOrdinary = ({ client }: RdmacmCase): boolean =>
  ordinary.includes(client.split(' ')[0]!) &&
  cases.find(other => other.client.split(' ')[0] === client.split(' ')[0])?.client === client

describe('programs of rdma_cm on InfiniBand ports', { skip: lacking('rping', 'ib_send_bw', 'mckey') }, () => {
  const suite = suiteScope()
  let daemon: TestDaemon
  before(async () => {
    daemon = await startDaemon(suite, { devices: DEVICES })
  })
  const values = { SERVER: '127.0.0.41', CLIENT: '127.0.0.42' }

  for (const one of casesOf(cases, isOrdinary))
    it(one.client, async t => {
      const both = { ...one, client: fromOther(one.client) }
      const { server, client } = await runRdmacm(t, daemon, both, { values })
      assertGoodRdmacm(both, { server, client })
      // mckey ends with status 0 when it could not join.
      if (one.client.startsWith('mckey')) assert.match(server.stdout, /data transfers complete/)
    })

  it('leave nothing behind', async () => {
    await daemon.settled(isEmpty)
  })
})
