/*
 * A descriptor of an rdma_cm channel gives access only to the identifiers of this channel (docs/why/threat-model.md).
 */
import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import type { Daemon } from '../../../src/daemon/daemon.ts'
import { close } from '../../../src/host/net/sockets.ts'
import { CmId } from '../../../src/spec/classes/connections/cm_id.ts'
import { CmPortSpace } from '../../../src/spec/enums.ts'
import { Errno } from '../../../src/spec/errno.ts'
import { RDMA_VERBS_IOCTL } from '../../../src/spec/linux/ioctl.ts'
import { CM_NODE } from '../../../src/spec/session.ts'
import { ioctlRequest } from '../../../src/uapi/index.ts'
import { scratchFolder } from '../../tools.ts'
import { type Client, daemonOf, dial, eventually } from '../client.ts'
import { type Channel, CM_HEADER_BYTES, writeCommand } from '../ucma.ts'

const folder = scratchFolder()
const [ENOENT, EINVAL, ENOTTY] = [-Errno.ENOENT, -Errno.EINVAL, -Errno.ENOTTY]
const { TCP } = CmPortSpace.values
/** Linux's numbers of rdma_cm commands (RDMA_USER_CM_CMD_…). */
const Command = { CREATE_ID: 0, DESTROY_ID: 1, MIGRATE_ID: 18 } as const

const openChannel = async (client: Client): Promise<Channel> => {
  const { error, descriptors } = await client.open(CM_NODE)
  assert.equal(error, 0)
  client.keep(descriptors)
  return { client, fd: descriptors[0]! }
}

const connectProgram = async (t: TestContext, daemon: Daemon): Promise<Channel> => {
  const client = dial(t, daemon)
  await client.hello()
  return openChannel(client)
}

// Sizes and offsets of struct rdma_ucm_create_id, rdma_ucm_destroy_id and rdma_ucm_migrate_id.
const CreateId = { bytes: 24, responseAt: 8, portSpaceAt: 16 } as const
const DestroyId = { bytes: 16, responseAt: 0, idAt: 8 } as const
const MigrateId = { bytes: 16, responseAt: 0, idAt: 8, oldFdAt: 12 } as const

const create = async (channel: Channel): Promise<number> => {
  const { bytes, responseAt, portSpaceAt } = CreateId
  const { result, response } = await writeCommand(channel, Command.CREATE_ID, bytes, responseAt, [[portSpaceAt, TCP]])
  assert.equal(result, CM_HEADER_BYTES + bytes)
  return response
}
const destroy = async (channel: Channel, id: number): Promise<number> => {
  const { bytes, responseAt, idAt } = DestroyId
  return (await writeCommand(channel, Command.DESTROY_ID, bytes, responseAt, [[idAt, id]])).result
}
/** Return value of a successful destroy: the bytes written. */
const DESTROYED = CM_HEADER_BYTES + DestroyId.bytes
/** Migrates an identifier of the channel with descriptor `oldFd` to `channel`. */
const migrate = async (channel: Channel, id: number, oldFd: number): Promise<number> => {
  const { bytes, responseAt, idAt, oldFdAt } = MigrateId
  const words: [number, number][] = [
    [idAt, id],
    [oldFdAt, oldFd],
  ]
  return (await writeCommand(channel, Command.MIGRATE_ID, bytes, responseAt, words)).result
}
/** Return value of a successful migration: the bytes written. */
const MIGRATED = CM_HEADER_BYTES + MigrateId.bytes

test('only the channel that created an identifier can use it, until the identifier is migrated', async t => {
  const daemon = await daemonOf(t, folder)
  const a = await connectProgram(t, daemon)
  const second = await openChannel(a.client)
  const b = await connectProgram(t, daemon)
  const id = await create(a)
  const foreign = await create(b)
  assert.equal(foreign, id, 'numbers are per process')
  assert.equal(await destroy(second, id), EINVAL)
  // Migrations with a descriptor of the other program are refused.
  for (const [newChannel, oldFd] of [
    [b, a.fd],
    [a, b.fd],
    [second, b.fd],
    [{ client: b.client, fd: second.fd }, b.fd],
  ] as const)
    assert.equal(await migrate(newChannel, id, oldFd), EINVAL)
  for (const notOpen of [-1, 1_000_000]) assert.equal(await migrate(second, id, notOpen), ENOENT)
  const notAChannel = 0
  assert.equal(await migrate(second, id, notAChannel), EINVAL)
  assert.equal(await migrate(second, id, a.fd), MIGRATED)
  assert.equal(await destroy(a, id), EINVAL)
  assert.equal(await destroy(second, id), DESTROYED)
  assert.equal(await destroy(second, id), ENOENT)
  assert.equal(await destroy(b, foreign), DESTROYED)
})

test('all processes with a copy of a channel can use its identifiers, until the last copy is closed', async t => {
  const daemon = await daemonOf(t, folder)
  const owner = dial(t, daemon)
  await owner.hello()
  const { descriptors } = await owner.open(CM_NODE)
  const [fd] = descriptors as [number]
  const channel = { client: owner, fd }
  const id = await create(channel)
  const other = dial(t, daemon)
  await other.hello()
  const watcher = dial(t, daemon)
  await watcher.hello()
  // As after fork, both processes have the same descriptor number.
  const inherited = { client: other, fd }
  owner.close()
  assert.equal(await destroy(inherited, id), DESTROYED)
  await create(inherited)
  close(fd)
  await eventually(watcher, ({ connections, descriptors: open }) => connections.identifiers === 0 && open === 0)
})

test('the descriptor of a channel serves only rdma_cm commands and methods of the channel', async t => {
  const daemon = await daemonOf(t, folder)
  const { client, fd } = await connectProgram(t, daemon)
  const id = await create({ client, fd })
  const { view, address } = client.memory
  // cm_id.destroy in the object dialect: not a method of the channel. The message has a length, a class and a handle.
  for (let i = 0; i < 64; i++) view.setUint8(i, 0)
  view.setUint16(0, 16, true)
  view.setUint16(2, CmId.id, true)
  for (let handle = 0; handle < 4; handle++) {
    view.setUint32(4, handle, true)
    assert.equal(await client.ioctlOn(fd, ioctlRequest(CmId.methods.destroy.call), BigInt(address)), EINVAL)
  }
  assert.equal(await client.ioctlOn(fd, RDMA_VERBS_IOCTL, BigInt(address)), ENOTTY)
  assert.equal(await destroy({ client, fd }, id), DESTROYED)
})
