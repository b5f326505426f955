/*
 * What ends have in common whose devices the test polls: torment, fault rules for programs, and the test's own clock.
 */
import type { NetworkDevice } from '../../../src/core/driver-contract.ts'
import type { Core } from '../../../src/core/model.ts'
import { createTorment, type Torment } from '../../../src/drivers/soft/torment/torment.ts'
import { createProgramFaults } from '../../../src/faults/program-faults.ts'
import { parseFaults } from '../../../src/faults/rules.ts'
import type { TormentKind } from '../../../src/spec/check/torment.ts'
import { WrOpcode } from '../../../src/spec/work.ts'
import { injectFaults } from '../../../src/tools/clients/faults/inject.ts'
import type { Decisions } from '../../../src/transport/phy/faults/torment-decisions.ts'
import { plainArena } from '../../../src/transport/wire/arena.ts'
import { type driverMachine, testProcess } from '../machine.ts'
import type { End, Options, Pair } from './end.ts'

type Machine = ReturnType<typeof driverMachine>

/** Polls of `settle`: more than any case needs that does not wait for a timer. */
export const POLLS = 50

/** Runs of packets for which the network of a pair has room: few, as each case has memory of its own. */
export const RUNS = 16

export const listenTo = (decisions: Decisions | undefined): Set<TormentKind> => {
  const acted = new Set<TormentKind>()
  decisions?.listen(({ kind }) => acted.add(kind))
  return acted
}

/** The torment of an option, and the kinds that act from now on. */
export const tormentOf = ({ torment: seed }: Options): [Torment | undefined, ReadonlySet<TormentKind>] => {
  if (seed === undefined) return [undefined, new Set()]
  const torment = createTorment({ seed, maxDecisions: Number.POSITIVE_INFINITY }, plainArena(4096))
  return [torment, listenTo(torment.decisions)]
}

/** Fault rules for programs of a core; `end`: asks before each post, as the preload library does. */
const programFaults = (core: Core) => {
  const rules = createProgramFaults()
  const nothing = (): void => {}
  const sources = {
    ...{ wait: () => Promise.resolve(), now: () => 0, processOf: () => testProcess },
    ...{
      setLink: nothing,
      cutOff: nothing,
      moveGid: nothing,
      disturb: () => undefined,
      remove: nothing,
      signal: nothing,
    },
  }
  const faults = injectFaults(core, rules, sources)
  const ask = ({ queues }: NetworkDevice, qpn: number, opcode: number | undefined, id: number): void => {
    if (!faults.hasPosts) return
    const object = queues!.qpOfNumber(qpn)!
    const posting = { context: object.context!, object, qpn, isSend: opcode !== undefined, opcode, wrId: BigInt(id) }
    const errno = faults.onPost(posting, testProcess)
    if (errno !== undefined) throw new Error(`the post is refused: ${errno}`)
  }
  const { SEND, RDMA_WRITE } = WrOpcode.values
  return {
    setFaults(text: string): void {
      rules.setRules(parseFaults(text))
      faults.rulesChanged()
    },
    asking: (end: End, device: NetworkDevice): End => ({
      ...end,
      send(id, ...where) {
        ask(device, end.qpn, SEND, id)
        end.send(id, ...where)
      },
      write(id, ...where) {
        ask(device, end.qpn, RDMA_WRITE, id)
        end.write(id, ...where)
      },
      receive(id, ...where) {
        ask(device, end.qpn, undefined, id)
        end.receive(id, ...where)
      },
    }),
  }
}

/** `acted`: see `tormentOf`. */
export const stepped = (m: Machine, acted: ReadonlySet<TormentKind>, ends: readonly End[]): Pair => {
  const devices = [m.devices[0]!, m.devices.at(-1)!] as const
  const { setFaults, asking } = programFaults(m.core)
  const [a, b] = ends.map((end, i) => asking(end, devices[i]!))
  return {
    a: a!,
    b: b!,
    devices,
    acted,
    until: async isDone => m.runUntil(isDone),
    async settle() {
      for (let turn = 0; turn < POLLS; turn++) for (const device of m.devices) device.poll(m.time.now)
    },
    setFaults,
  }
}
