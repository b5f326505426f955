/*
 * Ends of a driver with a link and a connection protocol of its own, as examples/drivers/wire.mjs. The test is rdma_cm:
 * it connects by the driver's protocol, over sockets, so that the pair runs in turns of the event loop.
 */
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Connection, ConnectionEnd, ConnectionProtocol } from '../../../src/core/driver-contract.ts'
import { CmConnectionParameters } from '../../../src/spec/classes/connections/cm_parameters.ts'
import { CmEventType, CmPortSpace, QpType } from '../../../src/spec/enums.ts'
import { zeroRecord } from '../../../src/spec/schema/schema.ts'
import type { Scope } from '../../system/programs.ts'
import { driverMachine } from '../machine.ts'
import type { Options, Pair } from './end.ts'
import { mappedEnd } from './mapped.ts'
import { POLLS, RUNS, stepped } from './stepped.ts'

const { CONNECT_REQUEST, CONNECT_RESPONSE, ESTABLISHED } = CmEventType.values
const SERVICE = 7
const MAX_TURNS = 100_000

/** Addresses that other tests and processes do not use. */
const addressOf = (last: number): Uint8Array => {
  const own = [127, 0x80 | (process.pid >> 8), process.pid, last]
  return Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...own])
}

let used = 0

const socketAddress = (gid: Uint8Array, port: number) => ({
  ...{ family: 2, port, address: gid, flowInfo: 0, scope: 0, pkey: 0, serviceId: 0n, serviceMask: 0n },
})

export const wirePair =
  (driver: Parameters<typeof driverMachine>[0]) =>
  async (options: Options, t: Scope): Promise<Pair> => {
    const [one, other] = [++used, ++used].map(addressOf) as [Uint8Array, Uint8Array]
    const addresses = [one, other]
    const m = driverMachine(driver, ['wire0', 'wire1'], '', { addressOf: i => addresses[i - 1]!, runs: RUNS })
    const ends = [0, 1].map(i => mappedEnd(m.core, m.devices[i]!, options))
    const [a, b] = [ends[0]!, ends[1]!]
    for (const [end, peer] of [
      [a, b],
      [b, a],
    ] as const) {
      end.initialize()
      end.target = peer
    }
    const news: number[] = []
    let accepting: Connection | undefined
    const endOf = (local: Uint8Array, remote: Uint8Array): ConnectionEnd => ({
      ...{ portSpace: CmPortSpace.values.TCP, qpType: QpType.values.RC, qkey: 0, startingPsn: 0, flowLabel: 0 },
      ...{ source: socketAddress(local, SERVICE), destination: socketAddress(remote, SERVICE) },
      ...{ localGid: local, remoteGid: remote, trafficClass: 0, ackTimeout: undefined, ece: undefined },
      ...{ packetLifeTime: undefined, chosenPath: undefined, pkey: undefined },
      report: type => news.push(type) > 0,
    })
    const protocols = m.devices.map(({ device }): ConnectionProtocol => {
      const protocol = device.driver.openConnections!(device, {
        request(_request, connection) {
          accepting = connection
          return endOf(other, one)
        },
      })
      t.after(() => protocol.close())
      return protocol
    })
    const turn = async (): Promise<void> => {
      for (const device of m.devices) device.poll(m.time.now++)
      await nextTurn()
    }
    const until = async (isDone: () => boolean): Promise<void> => {
      for (let turns = 0; !isDone(); turns++) {
        if (turns === MAX_TURNS) throw new Error('the devices still have work after many turns')
        await turn()
      }
    }
    const parametersOf = (qpNum: number) => ({ ...zeroRecord(CmConnectionParameters), qpNum })
    const connection = protocols[0]!.create(endOf(one, other))
    connection.connect(parametersOf(a.qpn))
    await until(() => news.includes(CONNECT_REQUEST))
    accepting!.accept(parametersOf(b.qpn))
    await until(() => news.includes(CONNECT_RESPONSE))
    connection.confirm!()
    await until(() => news.includes(ESTABLISHED))

    /** What is sent has an answer, or waits for a receive. */
    const isSettled = (): boolean =>
      m.devices.some(device => device.nextTimeout() !== Number.POSITIVE_INFINITY) ||
      m.devices.every(({ queues }) => queues!.list(0, 1).qps.every(({ facts }) => facts.send.pending === 0))
    return {
      ...stepped(m, new Set(), [a, b]),
      until,
      async settle() {
        for (let turns = 0; turns < POLLS || (turns < MAX_TURNS && !isSettled()); turns++) await turn()
      },
    }
  }
