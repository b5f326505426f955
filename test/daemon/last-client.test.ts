/*
 * A daemon with `endWithLastClient` lives while a process may have a descriptor of the daemon. A process that has only
 * inherited a descriptor has no session.
 */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import { startDaemon } from '../../src/daemon/daemon.ts'
import { nextTurn } from '../../src/host/event-loop/next-turn.ts'
import { close } from '../../src/host/net/sockets.ts'
import { CM_NODE, NetlinkOperation, UMAD_NODES } from '../../src/spec/session.ts'
import { scratchFolder } from '../tools.ts'
import { type Client, dial, type ReceivedReply } from './client.ts'

const folder = scratchFolder()
/** More turns of the event loop than the daemon takes to end after its last session. */
const TURNS = 100
const SOCK_RAW = 3

const openings: Record<string, (client: Client) => Promise<ReceivedReply>> = {
  'a device': client => client.open(),
  'a channel of rdma_cm': client => client.open(CM_NODE),
  'a umad file': client => client.open(UMAD_NODES),
  'a netlink socket': client => client.netlink(-1, NetlinkOperation.OPEN, SOCK_RAW, 0n),
}

for (const [name, open] of Object.entries(openings))
  test(`a daemon does not end while a process without a session has ${name}`, async t => {
    const daemon = await startDaemon({
      socket: join(folder, name.replaceAll(' ', '-')),
      config: { devices: [{ name: 'rxe0', address: '127.0.0.1' }], fault: '', link: 'memory' },
      endWithLastClient: true,
    })
    t.after(() => daemon.close())
    let hasEnded = false
    void daemon.ended.then(() => {
      hasEnded = true
    })
    const client = dial(t, daemon)
    await client.hello()
    const { descriptors } = await open(client)
    assert.ok(descriptors.length > 0)
    client.close()
    for (let turn = 0; turn < TURNS; turn++) await nextTurn()
    assert.equal(hasEnded, false)
    for (const fd of descriptors) close(fd)
    await daemon.ended
  })
