/*
 * A program may use a record of options again after the call, although the call goes on: the library reads the record
 * only at the call.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { connect, createNetwork, listen, open } from '../../../src/library/index.ts'
import { Ah } from '../../../src/spec/classes/ah.ts'
import { RcQp } from '../../../src/spec/classes/qp/rc_qp.ts'
import { AccessFlags, QpState } from '../../../src/spec/enums.ts'
import { addressText, parseAddress } from '../../../src/transport/wire/address.ts'
import { closeAll, completionText, openTwoInProcess, pair } from './endpoints.ts'
import { mailboxOfNumbers } from './mailboxes.ts'

const aborted = AbortSignal.abort(new Error('aborted'))

describe('a record of options may be used again', () => {
  it('after `open`, while the checker is imported', async () => {
    const check: { races: unknown } = { races: true }
    const options = { name: 'first', check: check as { races: boolean } }
    const opening = open(options)
    options.name = 'second'
    // `open` would refuse the number.
    check.races = 1
    const device = await opening
    assert.equal(device.name, 'first')
    await device.close()
  })

  it('after `createNetwork`: the option `check`', async () => {
    const check: { races: unknown } = { races: true }
    const network = createNetwork({ check: check as { races: boolean } })
    // `open` would refuse the number.
    check.races = 1
    await (await open({ network })).close()
  })

  it('after `createNetwork` and `open`: lists of the option `check`', async () => {
    for (const list of ['ignore', 'like']) {
      const names: string[] = []
      const check: object = { [list]: names }
      const network = createNetwork({ check })
      names.push('none')
      await (await open({ network })).close()
      names.length = 0
      const opening = open({ check })
      // `open` would refuse the name.
      names.push('none')
      await (await opening).close()
    }
  })

  it('after `listen`', async () => {
    const [device, otherDevice] = await openTwoInProcess()()
    const options = { device }
    const listening = listen('rdma://0.0.0.0:0', options)
    options.device = otherDevice
    const server = await listening
    assert.equal(server.device, device)
    await server.close()
    for (const { close } of [device, otherDevice]) await close()
  })

  it('after `connect`: the option `qp`', async () => {
    const [serverDevice, clientDevice] = await openTwoInProcess()()
    const server = await listen('rdma://0.0.0.0:0', { device: serverDevice })
    const cq = clientDevice.cq()
    const qp = { sendCq: cq }
    const connecting = connect(`rdma://${serverDevice.address}:${server.port}`, { device: clientDevice, qp })
    qp.sendCq = clientDevice.cq()
    const { value: request } = await server.arrivals().next()
    const serverEnd = await request.accept()
    const clientEnd = await connecting
    const received = serverEnd.qp.receive()
    clientEnd.qp.send([], { id: 7 })
    await received
    assert.equal(cq.poll() && cq.completion.id, 7)
    for (const end of [clientEnd, serverEnd]) await end.close()
    await server.close()
    for (const device of [clientDevice, serverDevice]) await device.close()
  })

  it('after `cq.wait`', async () => {
    const { a, b } = await pair()
    b.qp.receive([], 1)
    const threshold = { completions: 1 }
    const waiting = assert.doesNotReject(a.cq.wait(threshold))
    // Above the maximum: a later arming with this record is refused.
    threshold.completions = 65_536
    // The wait arms the queue in this turn.
    await nextTurn()
    a.qp.send([], { id: 1 })
    await waiting
    assert.equal(await completionText(a.cq), '1 SEND')
    await closeAll(a, b)
  })

  it('during `cq.completions`', async () => {
    const { a, b } = await pair()
    for (let id = 0; id < 2; id++) b.qp.receive([], id)
    const options: { signal?: AbortSignal } = {}
    const completions = a.cq.completions(options)
    for (const id of [1, 2]) {
      a.qp.send([], { id })
      const { value } = await completions.next()
      assert.equal(value.id, id)
      options.signal = aborted
    }
    await closeAll(a, b)
  })

  it('during an iteration over arrivals', async () => {
    const mailbox = mailboxOfNumbers()
    const options: { signal?: AbortSignal } = {}
    const arrivals = mailbox.arrivals(options)
    for (const value of [1, 2]) {
      const arrival = arrivals.next()
      mailbox.put(value)
      assert.equal((await arrival).value, value)
      options.signal = aborted
    }
  })

  it('during an iteration over datagrams', async () => {
    const device = await open()
    const socket = device.ip({ address: '10.9.0.1/24' }).udp()
    const options: { signal?: AbortSignal } = {}
    const datagrams = socket.arrivals(options)
    for (const byte of [1, 2]) {
      const arrival = datagrams.next()
      socket.send(Uint8Array.of(byte), { address: '10.9.0.1', port: socket.port })
      assert.deepEqual((await arrival).value?.payload, Uint8Array.of(byte))
      options.signal = aborted
    }
    await device.close()
  })

  it('after `device.events`', async () => {
    const device = await open()
    const options: { signal?: AbortSignal } = {}
    const events = device.events(options)
    options.signal = aborted
    const ended = assert.doesNotReject(events.next())
    await device.close()
    await ended
  })
})

describe('in a chain, which runs after its function, a record may be used again', () => {
  it('after `register`', async () => {
    const device = await open()
    const pd = device.pd()
    const access = { remoteWrite: true, zeroBased: true }
    const { region } = device.chain(chain => {
      const region = chain.register(pd, new Uint8Array(8), access)
      access.zeroBased = false
      return { region }
    })
    assert.equal(region.address, 0n)
    await device.close()
  })

  it('as the state of a new queue pair', async () => {
    const device = await open()
    const pd = device.pd()
    const sendCq = device.cq()
    const initial = { state: QpState.values.INIT, port: 1, pkeyIndex: 0, qkey: 5 }
    const { first, second } = device.chain(chain => {
      const first = chain.udQp(pd, { sendCq, initial })
      initial.qkey = 6
      return { first, second: chain.udQp(pd, { sendCq, initial }) }
    })
    assert.deepEqual([first.endpoint.qkey, second.endpoint.qkey], [5, 6])
    await device.close()
  })

  it('as the arguments of a call', async () => {
    const device = await open()
    const pd = device.pd()
    const sendCq = device.cq()
    const { REMOTE_READ, REMOTE_WRITE } = AccessFlags.values
    const args = { state: QpState.values.INIT, port: 1, pkeyIndex: 0, accessFlags: REMOTE_READ as number }
    const { first, second } = device.chain(chain => {
      const [first, second] = [chain.rcQp(pd, { sendCq }), chain.rcQp(pd, { sendCq })]
      chain.call(RcQp, 'modify', args, first)
      args.accessFlags = REMOTE_WRITE
      chain.call(RcQp, 'modify', args, second)
      return { first, second }
    })
    assert.deepEqual([first.query().accessFlags, second.query().accessFlags], [REMOTE_READ, REMOTE_WRITE])
    await device.close()
  })

  it('as the address, and its GID, of an address handle', async () => {
    const device = await open()
    const pd = device.pd()
    const dgid = Buffer.from(parseAddress('192.0.2.7') as Uint8Array)
    const address = { dgid, flowLabel: 0, sgidIndex: 1, hopLimit: 64, trafficClass: 0, sl: 0, staticRate: 0 }
    const args = { pd: pd.handle, address: { ...address, isGlobal: 1, port: 1 } }
    const { handle } = device.chain(chain => {
      const handle = chain.create(Ah, args)
      dgid[15] = 8
      args.address.trafficClass = 4
      return { handle }
    })
    const stored = handle.query().address
    assert.deepEqual([addressText(stored.dgid), stored.trafficClass], ['192.0.2.7', 0])
    await device.close()
  })
})
