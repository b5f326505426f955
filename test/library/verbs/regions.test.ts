/*
 * Kinds of memory regions in the library. Also many address handles created in one call (R25), a threshold for one
 * arming of a CQ (R36), and remote memory as a plain record (JSON, structuredClone).
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, readSync, writeSync } from 'node:fs'
import { test } from 'node:test'
import { createMemfd } from '../../../src/host/memory/memfd.ts'
import { hasNative } from '../../../src/host/native.ts'
import { GRH_BYTES, type RemoteMemoryData, remoteMemory } from '../../../src/library/index.ts'
import { closeAll, completionText, eachCarrier, pair } from './endpoints.ts'
import { refuses } from './mistakes/mistakes.ts'

const PAGE_BYTES = 4096

eachCarrier(openTwo => {
  test('a peer writes to and reads from a region of a file', {
    skip: !hasNative() && 'no koffi',
  }, async () => {
    const { a, b } = await pair(openTwo)
    const file = createMemfd('userdma-test', 2 * PAGE_BYTES)
    try {
      const access = { remoteRead: true, remoteWrite: true, mwBind: true }
      const region = b.pd.registerFile(file, { offset: PAGE_BYTES, length: PAGE_BYTES, access })
      a.qp.write(Uint8Array.of(1, 2, 3), region.remote(10, 3), { id: 1 })
      assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
      const written = Buffer.alloc(4)
      readSync(file, written, 0, 4, PAGE_BYTES + 10)
      assert.deepEqual([...written], [1, 2, 3, 0])
      writeSync(file, Buffer.of(9), 0, 1, PAGE_BYTES)
      a.qp.read(a.mr.slice(0, 1), region.remote(0, 1), { id: 2 })
      assert.equal(await completionText(a.cq), '2 RDMA_READ')
      assert.equal(a.buffer[0], 9)
      assert.equal(region.query().length, BigInt(PAGE_BYTES))
      assert.throws(() => region.slice(PAGE_BYTES, 1), { code: 'EINVAL' })
      assert.throws(() => b.pd.registerFile(file, { length: 3 * PAGE_BYTES }), { code: 'EINVAL', class: 'mr' })
      assert.throws(() => b.pd.registerFile(99_999, { length: 1 }), { code: 'EBADF' })
      region.close()
    } finally {
      closeSync(file)
    }
    await closeAll(a, b)
  })

  test('each call that registers a buffer refuses a resizable one', async () => {
    const { a, b } = await pair(openTwo)
    const buffer = new Uint8Array(Reflect.construct(ArrayBuffer, [8, { maxByteLength: 16 }]) as ArrayBuffer)
    // `slice` and `remote` register the buffers that they get.
    const region = a.pd.wholeRegion({ remoteRead: true })
    refuses('pd.register', /resizable/, () => a.pd.register(buffer))
    refuses('mr.slice', /resizable/, () => region.slice(buffer))
    refuses('mr.remote', /resizable/, () => region.remote(buffer))
    await closeAll(a, b)
  })

  test('a buffer that is registered twice stays registered when one region is closed', async () => {
    const { a, b } = await pair(openTwo)
    const second = b.pd.register(b.buffer, { remoteWrite: true })
    b.mr.close()
    a.qp.write(Uint8Array.of(7), second.remote(5, 1), { id: 1 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
    assert.equal(b.buffer[5], 7)
    second.close()
    await closeAll(a, b)
  })

  test('a WRITE to the null region has no effect, a READ returns zeros', async () => {
    const { a, b } = await pair(openTwo)
    const nullRegion = b.pd.nullRegion(1 << 20, { remoteRead: true, remoteWrite: true })
    a.qp.write(Uint8Array.of(1), nullRegion.remote(5000, 1), { id: 1 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
    a.buffer.fill(7, 0, 4)
    a.qp.read(a.mr.slice(0, 4), nullRegion.remote(4998, 4), { id: 2 })
    assert.equal(await completionText(a.cq), '2 RDMA_READ')
    assert.deepEqual([...a.buffer.subarray(0, 4)], [0, 0, 0, 0])
    await closeAll(a, b)
  })

  test('a region of all memory covers any buffer', async () => {
    const { a, b } = await pair(openTwo)
    const [source, target] = [new Uint8Array(100).fill(4), new Uint8Array(100)]
    const local = a.pd.wholeRegion()
    const remote = b.pd.wholeRegion({ remoteWrite: true })
    a.qp.write(local.slice(source, 10, 50), remote.remote(target, 20, 50), { id: 1 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
    assert.deepEqual([target[19], target[20], target[69], target[70]], [0, 4, 4, 0])
    assert.throws(() => local.slice(source, 90, 20), { code: 'EINVAL' })
    const part = source.subarray(10, 20)
    // Views of one ArrayBuffer have one registration: a program may make a view for each message.
    assert.deepEqual(local.slice(part, 5), local.slice(source, 15, 5))
    assert.throws(() => local.slice(part, 5, 6), { code: 'EINVAL' })
    local.close()
    await closeAll(a, b)
  })

  test('addresses in a region start at 0 with zeroBased, until it is reregistered without zeroBased', async () => {
    const { a, b } = await pair(openTwo)
    const [source, target] = [new Uint8Array(100).fill(6), new Uint8Array(100)]
    const local = a.pd.register(source, { zeroBased: true })
    const remote = b.pd.register(target, { remoteWrite: true, zeroBased: true })
    a.qp.write(local.slice(1, 2), remote.remote(50, 2), { id: 1 })
    assert.equal(await completionText(a.cq), '1 RDMA_WRITE')
    assert.deepEqual([target[49], target[50], target[51], target[52]], [0, 6, 6, 0])
    assert.deepEqual([remote.address, remote.query().iova], [0n, 0n])

    remote.reregister({ access: { remoteWrite: true } })
    assert.equal(remote.address, remote.query().iova)
    a.qp.write(local.slice(0, 1), remote.remote(9, 1), { id: 2 })
    assert.equal(await completionText(a.cq), '2 RDMA_WRITE')
    assert.equal(target[9], 6)
    await closeAll(a, b)
  })

  test('one call creates 10,000 address handles, a datagram sent with one of them arrives, one call destroys them', async () => {
    const { a, b } = await pair(openTwo)
    const receiver = b.pd.udQp({ sendCq: b.cq, active: true })
    const sender = a.pd.udQp({ sendCq: a.cq, active: true })
    const USED = 7777
    const gids = Array.from({ length: 10_000 }, (_, i) =>
      i === USED ? receiver.endpoint : { gid: `127.9.${i >> 8}.${i & 255}` },
    )
    const ahs = a.pd.addressHandles(gids)
    assert.equal(new Set(ahs.map(({ number }) => number)).size, 10_000)
    receiver.receive(b.mr.slice(), 1)
    sender.send(Uint8Array.of(5), { ah: ahs[USED], qpn: receiver.qpn, qkey: receiver.endpoint.qkey })
    assert.equal(await completionText(b.cq), '1 RECV')
    assert.equal(b.buffer[GRH_BYTES], 5)
    assert.throws(() => a.pd.addressHandles([{ gid: '127.0.0.9' }, { gid: 'x' }]), { code: 'EINVAL' })
    // With a closed handle the call fails, and destroys none.
    ahs[0].close()
    assert.throws(() => a.pd.closeAddressHandles(ahs.slice(0, 2)), { class: 'pd', method: 'destroyAhs' })
    a.pd.closeAddressHandles(ahs.slice(1))
    // closing again has no effect
    ahs[1].close()
    assert.throws(() => ahs[2].query(), { code: 'ERR_CLOSED' })
    await closeAll(a, b)
  })

  test('one arming of a CQ may have its own threshold of completions', async () => {
    const { a, b } = await pair(openTwo)
    for (let id = 0; id < 3; id++) b.qp.receive(b.mr.slice(0, 8), id)
    using events = b.device.eventQueue()
    events.attach(b.cq)
    b.cq.arm({ completions: 3 })
    for (let id = 0; id < 3; id++) {
      assert.equal(events.poll(), undefined)
      a.qp.send(Uint8Array.of(id), { id })
      await completionText(a.cq)
    }
    for await (const { source } of events) {
      assert.equal(source, b.cq)
      break
    }
    for (let id = 0; id < 3; id++) assert.equal(await completionText(b.cq), `${id} RECV`)
    await closeAll(a, b)
  })
})

test('openOwnFile leaves no descriptor open if it fails with EMFILE', () => {
  const program = `
    import { closeSync, openSync } from 'node:fs'
    const { openOwnFile } = await import('${new URL('../../../src/library/network/file.js', import.meta.url).href}')
    const file = openSync(process.execPath)
    const fillers = []
    const fill = () => {
      try {
        for (;;) fillers.push(openSync('/dev/null'))
      } catch (error) {
        if (error.code !== 'EMFILE') throw error
      }
    }
    fill()
    // One descriptor is free: openOwnFile opens the file again, then cannot open a file of /proc.
    closeSync(fillers.pop())
    const count = fillers.length
    try {
      openOwnFile(file)
    } catch ({ code }) {
      // Prints how many descriptors are free again.
      fill()
      console.log(code, fillers.length - count)
    }`
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const { stdout, stderr } = spawnSync(
    'sh',
    ['-c', 'ulimit -n 256; exec "$@"', 'sh', process.execPath, '--input-type=module', '-e', program],
    { env, encoding: 'utf8' },
  )
  assert.deepEqual([stdout, stderr], ['EMFILE 1\n', ''], 'the descriptor is free again')
})

test('remote memory survives JSON and structuredClone, refuses requests beyond its length, and can be sliced', async () => {
  const { a, b } = await pair()
  const original = b.mr.remote(8, 16)
  const copies: RemoteMemoryData[] = [JSON.parse(JSON.stringify(original)), structuredClone(original), { ...original }]
  for (const [i, data] of copies.entries()) {
    // The memory is bytes 8 to 23 of b.buffer.
    a.qp.write(Uint8Array.of(i + 1), data, { id: i })
    assert.equal(await completionText(a.cq), `${i} RDMA_WRITE`)
    assert.equal(b.buffer[8], i + 1)
    a.qp.write(Uint8Array.of(7), remoteMemory(data).slice(15), { id: i })
    assert.equal(await completionText(a.cq), `${i} RDMA_WRITE`)
    assert.equal(b.buffer[23], 7)
    refuses('qp.write', /^2 bytes do not fit the peer's memory of 1 bytes$/, () =>
      a.qp.write(new Uint8Array(2), remoteMemory(data).slice(15)),
    )
    refuses('qp.read', /^17 bytes do not fit/, () => a.qp.read(a.mr.slice(0, 17), data))
  }
  // the last 16 bytes of the address space
  const last = remoteMemory({ address: 2n ** 64n - 16n, rkey: 1, length: 16 })
  assert.deepEqual(remoteMemory(JSON.parse(JSON.stringify(last.slice(15)))), last.slice(15))
  assert.equal(remoteMemory({ ...last, length: 0 }).length, 0)
  refuses('remoteMemory', /^remote memory: 17 bytes at 0xfffffffffffffff0 exceed the address space/, () =>
    remoteMemory({ ...last, length: 17 }),
  )
  refuses('remote.slice', /^2 bytes from offset 15 do not lie/, () => original.slice(15, 2))
  refuses('remoteMemory', /address "5 bytes" is not a bigint or text/, () =>
    remoteMemory({ ...original, address: '5 bytes' }),
  )
  await closeAll(a, b)
})

test('remote() of a region without rights for peers is refused; a window gives the rights itself', async () => {
  const { a, b } = await pair()
  const region = b.pd.register(new Uint8Array(64), { mwBind: true })
  const refusal = {
    code: 'EACCES',
    message:
      /^mr\.remote: the region was registered without rights for peers .*register it with \{ remoteRead: true \}/,
  }
  const buffer = new Uint8Array(8)
  for (const remote of [
    () => region.remote(),
    () => b.pd.nullRegion(8).remote(),
    () => b.pd.wholeRegion().remote(buffer),
  ])
    assert.throws(remote, refusal)
  const shown = b.qp.bind(b.pd.window(), { region, offset: 8, length: 8, access: { remoteWrite: true } })
  assert.equal(await completionText(b.cq), '0 BIND_MW')
  a.qp.write(Uint8Array.of(5), shown)
  assert.equal(await completionText(a.cq), '0 RDMA_WRITE')
  const other = b.pd.register(buffer)
  other.reregister({ access: { remoteWrite: true } })
  assert.equal(other.remote().length, 8)
  await closeAll(a, b)
})
