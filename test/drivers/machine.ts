/*
 * Devices of a driver on a memory link in this process, with the test's own clock.
 */
import assert from 'node:assert/strict'
import { identify } from '../../src/core/devices/identity.ts'
import type { FabricOptions, NetworkDevice } from '../../src/core/driver-contract.ts'
import { type Core, createCore, type createLocalSpace } from '../../src/core/index.ts'
import type { CallingProcess } from '../../src/core/model.ts'
import type { RoceSite } from '../../src/drivers/roce-site.ts'
import type { Torment } from '../../src/drivers/soft/torment/torment.ts'
import { parseFaults } from '../../src/faults/rules.ts'
import { withFaults } from '../../src/transport/phy/faults/layer.ts'
import { createMemorySwitch, memorySwitchBytes } from '../../src/transport/phy/memory.ts'
import type { Port } from '../../src/transport/phy/port.ts'
import { plainArena } from '../../src/transport/wire/arena.ts'

export const ipv4 = (last: number): Uint8Array =>
  Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, last])

export const QKEY = 0x1111_1111

/** Of the memory between devices. */
const RUNS = 64
const SMALL_RUNS = 64

/** The process of all callers. */
export const testProcess: CallingProcess = { pid: 1, name: () => 'test' }

/**
 * A program with this memory as core's caller. Its calls name descriptors by core's numbers. `copyOut`: gets its
 * results.
 */
export const callerOn = (
  memory: ReturnType<typeof createLocalSpace>,
  copyOut: (address: bigint, bytes: Uint8Array) => void = () => {},
) => ({
  memory,
  process: testProcess,
  copyIn: (_address: bigint, length: number) => new Uint8Array(length),
  copyOut,
  descriptor: (fd: number) => fd,
  file: () => undefined,
})

/** Runs the machine until the program has polled `count` completions, and returns them. */
export const completionsOf = <C>(
  machine: { runUntil(isDone: () => boolean): void },
  program: { poll(): readonly C[] },
  count: number,
): C[] => {
  const seen: C[] = []
  machine.runUntil(() => {
    seen.push(...program.poll())
    return seen.length >= count
  })
  return seen
}

export interface MachineOptions {
  /** Gets the port of each device. */
  readonly onPort?: ((port: Port, device: number) => void) | undefined
  /** Of all devices. */
  readonly dcqcn?: number | undefined
  readonly torment?: Torment | undefined
  /** Present: all devices have InfiniBand ports. */
  readonly fabric?: FabricOptions | undefined
  /** The address of a device, from 1; default: 127.0.0.1 and so on. */
  readonly addressOf?: (n: number) => Uint8Array
  /** Runs of packets for which the network has room. */
  readonly runs?: number | undefined
}

/**
 * `names`: of the devices. All messages are packets if `fault` has a rule, otherwise they are delivered directly.
 */
export const driverMachine = (
  driver: { createDevice(core: Core, name: string, site: RoceSite): NetworkDevice },
  names: readonly string[],
  fault: string,
  { onPort, dcqcn, torment, fabric, addressOf = ipv4, runs = RUNS }: MachineOptions = {},
) => {
  const core = createCore()
  const arena = plainArena(memorySwitchBytes(runs, SMALL_RUNS))
  const path = fault === '' ? 'direct' : 'packets'
  const link = createMemorySwitch({ arena, runs, smallRuns: SMALL_RUNS, path, icrc: 'demand' })
  const time = { now: 0 }
  const devices = names.map((name, i) => {
    const port = withFaults(link.attach(), name, parseFaults(fault))
    onPort?.(port, i)
    return driver.createDevice(core, name, {
      allocate: plainArena,
      wake: () => {},
      network: {
        identity: identify(addressOf(i + 1), { name: 'lo', index: 1 }),
        now: () => time.now,
        dcqcn,
        attach: () => torment?.port(port, name) ?? port,
        torment,
        fabric,
      },
    })
  })
  /** Polls until nothing is left, and passes time until `isDone`. */
  const runUntil = (isDone: () => boolean): void => {
    for (let turn = 0; turn < 100_000; turn++) {
      let progress = false
      for (const device of devices) progress = device.poll(time.now) || progress
      if (isDone()) return
      if (progress) continue
      const due = Math.min(...devices.map(device => device.nextTimeout()))
      assert.ok(due < Number.POSITIVE_INFINITY, 'nothing is left to do')
      time.now = Math.max(time.now, due)
    }
    assert.fail('the devices still have work after many polls')
  }
  return { core, devices, link, time, runUntil }
}
