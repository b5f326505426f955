/*
 * Session messages that add and remove devices, and calls on a driver's descriptors.
 */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { Classes } from '../../src/spec/classes.ts'
import { CtxAssign, CtxInterface, CtxIoctl } from '../../src/spec/drivers/ctx.ts'
import { AsyncEventType } from '../../src/spec/enums.ts'
import { Errno } from '../../src/spec/errno.ts'
import { encodeCall } from '../../src/uapi/object/client.ts'
import { ioctlRequest } from '../../src/uapi/object/format.ts'
import { encodeRecords } from '../../src/uapi/scalar.ts'
import { scratchFolder } from '../tools.ts'
import { type Client, Command, CommandBytes, daemonOf, dial, eventually } from './client.ts'

const folder = scratchFolder()
const rxe0 = { name: 'rxe0', address: '127.0.0.1', node: 0 }
const rxe1 = { name: 'rxe1', address: '127.0.0.2' }
const ctx0 = { name: 'ctx0', address: '' }
/** Bytes of struct ib_uverbs_async_event_desc, and the offset of the type. */
const ASYNC_EVENT_BYTES = 16
const EVENT_TYPE_AT = 8
/** Offset of a returned name in the client's memory. */
const NAME_AT = 2048

const connect = async (t: Parameters<typeof dial>[0], daemon: Parameters<typeof dial>[1]): Promise<Client> => {
  const client = dial(t, daemon)
  await client.hello()
  return client
}

test('devices are added and removed with their files; addresses and nodes can be reused', async t => {
  const daemon = await daemonOf(t, folder)
  const client = await connect(t, daemon)
  const inTree = (path: string): string => join(`${daemon.socket}.tree`, path)
  assert.deepEqual(await client.tool({ kind: 'device', add: rxe1 }), { devices: [rxe0, { ...rxe1, node: 1 }] })
  assert.deepEqual(await client.tool({ kind: 'device', add: ctx0 }), {
    devices: [rxe0, { ...rxe1, node: 1 }, { ...ctx0, node: 2 }],
  })
  assert.equal(readFileSync(inTree('sys/class/infiniband_verbs/uverbs1/ibdev'), 'utf8'), 'rxe1\n')
  assert.ok(existsSync(inTree('sys/class/infiniband/rxe1/ports/1/hw_counters/sent_pkts')))
  assert.equal(readFileSync(inTree('sys/class/infiniband/ctx0/node_desc'), 'utf8'), 'ctx\n')
  assert.equal(existsSync(inTree('sys/class/infiniband/ctx0/ports')), false)

  await client.tool({ kind: 'device', remove: 'rxe1' })
  assert.deepEqual(readdirSync(inTree('sys/class/infiniband')).sort(), ['ctx0', 'rxe0'])
  assert.deepEqual(readdirSync(inTree('dev/infiniband')).sort(), ['rdma_cm', 'umad0', 'userdma', 'uverbs0', 'uverbs2'])
  assert.equal((await client.open(1)).error, Errno.ENOENT)
  assert.equal((await client.refresh()).ret, 0n, 'the session continues')
  assert.deepEqual(
    (await client.stat()).devices.map(({ name }) => name),
    ['rxe0', 'ctx0'],
  )
  assert.deepEqual(await client.tool({ kind: 'device', add: { name: 'rxe7', address: '127.0.0.2' } }), {
    devices: [rxe0, { ...ctx0, node: 2 }, { name: 'rxe7', address: '127.0.0.2', node: 1 }],
  })
})

test('an invalid device, and the removal of an unknown device, are refused without any effect', async t => {
  const client = await connect(t, await daemonOf(t, folder))
  const before = await client.tool({ kind: 'config' })
  for (const [request, reason] of [
    [{ add: { name: 'rxe0', address: '127.0.0.9' } }, /there is a device rxe0 already/],
    [{ add: { name: 'rxe9', address: '127.0.0.1' } }, /rxe0 and rxe9 have the same address/],
    [{ add: { name: 'rxe9', address: 'nowhere' } }, /"nowhere" is not an IPv4 or IPv6 address/],
    [{ add: { name: '../../x', address: '127.0.0.9' } }, /"\.\.\/\.\.\/x": a name begins with/],
    [{ add: { name: 'ctx0', address: '127.0.0.9' } }, /a device of driver ctx has no network/],
    [{ remove: 'rxe9' }, /there is no device rxe9/],
  ] as const) {
    const reply = await client.tool({ kind: 'device', ...request })
    assert.match('error' in reply ? reply.error : '', reason)
  }
  assert.deepEqual(await client.tool({ kind: 'config' }), before)
  await client.tool({ kind: 'device', remove: 'rxe0' })
  const error = 'there is no device rxe0; there are none'
  assert.deepEqual(await client.tool({ kind: 'device', remove: 'rxe0' }), { error })
})

test('calls on a removed device fail with EIO after DEVICE_FATAL, and the memory of its contexts is released', async t => {
  const daemon = await daemonOf(t, folder, ['127.0.0.1', '127.0.0.2'])
  const client = await connect(t, daemon)
  const { context, descriptors } = await client.open(1)
  client.keep(descriptors)
  const { fds } = await client.command(context, Command.GET_CONTEXT, [], 2)
  client.keep(fds)
  assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, CommandBytes.ALLOC_PD)
  const contextOfRxe0 = await client.context(0)
  await client.tool({ kind: 'device', remove: 'rxe1' })
  assert.equal((await client.command(context, Command.ALLOC_PD, [], 1)).ret, -Errno.EIO)
  assert.equal((await client.command(contextOfRxe0, Command.ALLOC_PD, [], 1)).ret, CommandBytes.ALLOC_PD)
  const event = readFileSync(fds[0])
  assert.equal(event.length, ASYNC_EVENT_BYTES, 'one event, then the end of events')
  assert.equal(event.readUInt32LE(EVENT_TYPE_AT), AsyncEventType.values.DEVICE_FATAL)
  client.close()
  const last = await connect(t, daemon)
  await eventually(last, stat => stat.contexts === 0 && stat.descriptors === 0 && stat.mappings.count === 0)
})

/** A context of a ctx device. `openInterface` opens a descriptor of the driver. */
const setUpDriver = async (t: Parameters<typeof dial>[0]) => {
  const daemon = await daemonOf(t, folder)
  const client = await connect(t, daemon)
  await client.tool({ kind: 'device', add: ctx0 })
  const context = await client.context(1)
  const { driver_ops: Ops } = Classes
  const openInterface = async (name: string) => {
    const args = { name: new TextEncoder().encode(name) }
    client.memory.bytes.set(
      encodeCall({ class: Ops, methodName: 'create', method: Ops.methods.create, object: 0, args }),
    )
    return client.ioctl(context, ioctlRequest(Ops.methods.create.call), BigInt(client.memory.address))
  }
  return { daemon, client, context, openInterface }
}

test('a driver’s descriptor takes ioctl, write and mmap; other descriptors are refused', async t => {
  const { client, context, openInterface } = await setUpDriver(t)
  assert.equal(await openInterface('ctx.userdma.9'), -Errno.ENOENT)
  const before = new Set(readdirSync('/proc/self/fd'))
  assert.equal(await openInterface(CtxInterface.V1), 0)
  const sockets = readdirSync('/proc/self/fd').filter(number => !before.has(number))
  const answers: number[] = []
  const at = BigInt(client.memory.address)
  const unmapped = 8n
  const assign = encodeRecords(CtxAssign, [
    { eagerCount: 1, eagerBytes: 64, expectedCount: 0, expectedBytes: 64, jobKey: 0, handle: 0 },
  ])
  for (const fd of sockets.map(Number)) {
    client.memory.bytes.set(assign)
    answers.push(await client.ioctlOn(fd, CtxIoctl.ASSIGN, at))
  }
  // This process has both ends of the event socket. Only the program's end takes the call.
  const fd = Number(sockets[answers.indexOf(0)])
  assert.ok(fd > 0, `one of ${sockets.join(', ')} is the daemon's end: ${answers.join(', ')}`)
  const { ret, descriptors } = await client.mapOn(fd, 0n, 4096n)
  client.keep(descriptors)
  assert.ok(ret >= 4096n && descriptors.length === 1)
  // The driver gets the write, and refuses 3 bytes.
  assert.equal(await client.writeOn(fd, at, 3n), -Errno.EINVAL)
  assert.equal(await client.writeOn(fd, at, 1n << 40n), -Errno.EMSGSIZE)
  assert.equal(await client.writeOn(fd, unmapped, 100n), -Errno.EFAULT)
  assert.equal(await client.ioctlOn(fd, CtxIoctl.EXPECT, at), -Errno.ENOTTY)
  assert.equal(await client.ioctlOn(fd, CtxIoctl.INFO, unmapped), -Errno.EFAULT)
  for (const [offset, length] of [
    [1n, 4096n],
    [0n, 1n << 40n],
    [1n << 63n, 4096n],
    [0n, 0n],
  ])
    assert.equal((await client.mapOn(fd, offset, length)).ret, BigInt(-Errno.EINVAL))
  assert.equal((await client.mapOn(fd, 0n, 4096n, context)).ret, BigInt(-Errno.EBADF))
  // A method on the object's own descriptor has object 0 (R37).
  const { driver_ops: Ops } = Classes
  const query = { class: Ops, methodName: 'query', method: Ops.methods.query, object: 0, args: {} }
  const message = encodeCall(query, { outputBuffers: { name: { address: at + BigInt(NAME_AT), length: 64 } } })
  client.memory.bytes.set(message)
  assert.equal(await client.ioctlOn(fd, ioctlRequest(Ops.methods.query.call), at), 0)
  assert.equal(
    Buffer.from(client.memory.bytes.subarray(NAME_AT, NAME_AT + CtxInterface.V1.length)).toString(),
    CtxInterface.V1,
  )
  for (const otherFd of [0, 1, 9999, -1]) {
    assert.equal(await client.ioctlOn(otherFd, CtxIoctl.INFO, at), -Errno.EBADF)
    assert.equal((await client.mapOn(otherFd, 0n, 4096n)).ret, BigInt(-Errno.EBADF))
  }
  await client.tool({ kind: 'device', remove: 'ctx0' })
  assert.equal(await client.ioctlOn(fd, CtxIoctl.INFO, at), -Errno.EIO)
  assert.equal((await client.mapOn(fd, 0n, 4096n)).ret, BigInt(-Errno.EIO))
})
