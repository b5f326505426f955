/*
 * Fuzzes the firmware commands, each opcode and field by field: commands that work, as programs give them, with one
 * field changed, also to the numbers of another program's objects, or with other lengths. Each is answered or refused;
 * nothing throws otherwise, the other program's objects are not reached, and at the end nothing is left.
 */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { addHook, closeContext } from '../../../../src/core/index.ts'
import type { Context, Device, Hook } from '../../../../src/core/model.ts'
import { contextOf } from '../../../../src/drivers/mlx5/context.ts'
import { Devx, DevxObj } from '../../../../src/spec/drivers/mlx5-devx.ts'
import {
  Commands,
  commandHeader,
  commandOf,
  type FirmwareCommand,
} from '../../../../src/spec/drivers/mlx5-firmware/commands.ts'
import type { FieldValues, Struct } from '../../../../src/spec/drivers/mlx5-firmware/fields.ts'
import { CallError } from '../../../../src/spec/errno.ts'
import { decodeFields, encodeFields, encodeFieldsInto } from '../../../../src/uapi/firmware/fields.ts'
import { inLongRun } from '../../../long-run.ts'
import { commandBytes, klm, withCommands } from '../firmware.ts'
import { type Machine, machine, type Program, program } from '../machine.ts'

interface Seed {
  readonly method: 'create' | 'modify' | 'query' | 'command'
  readonly bytes: Uint8Array
  readonly outBytes: number
  readonly handle: number | undefined
}

/** Makes one of everything by commands. */
const useAll = (a: Program): void => {
  const firmware = withCommands(a)
  const pd = [...contextOf(a.context).numbers.get('pd')!.keys()][0]!
  const key = (mode: number, context: object, more: object, restBytes = 0) =>
    firmware.create(
      Commands.CREATE_MKEY,
      {
        memory_key_mkey_entry: { access_mode_1_0: mode, pd, qpn: 0xff_ffff, lw: 1, rr: 1, ...context },
        ...more,
      },
      { restBytes },
    )
  const { handle, out } = key(1, { start_addr: a.address, len: 64n }, { mkey_umem_id: firmware.umem().id })
  firmware.about(Commands.QUERY_MKEY, handle, { mkey_index: out.mkey_index })
  const list = encodeFields(klm, { mkey: a.region.lkey, address: a.address, byte_count: 64 })
  for (const mode of [2, 3])
    key(
      mode,
      { len: 16n, log_page_size: 12, translations_octword_size: 1 },
      { translations_octword_actual_size: 1, klm_pas_mtt: list },
      list.length,
    )
  firmware.create(Commands.CREATE_PSV, { num_psv: 1, pd })
  const changeable = { free: 1, umr_en: 1, bsf_en: 1, bsf_octword_size: 4, translations_octword_size: 4 }
  key(2, { ...changeable, lw: 0, rr: 0 }, {})
  for (const command of [Commands.ALLOC_PD, Commands.ALLOC_XRCD, Commands.ALLOC_TRANSPORT_DOMAIN])
    firmware.create(command, {})
  const counter = firmware.create(Commands.ALLOC_FLOW_COUNTER, { flow_counter_bulk_log_size: 1 })
  const { flow_counter_id } = counter.out
  firmware.about(Commands.QUERY_FLOW_COUNTER, counter.handle, { flow_counter_id, num_of_counters: 2 }, { outBytes: 48 })
  // work queues are of verbs; the command is a seed nevertheless
  assert.throws(() => firmware.create(Commands.CREATE_TIR, { ctx: { inline_rqn: 1 } }))
  for (const command of Object.values(Commands) as readonly FirmwareCommand[])
    if (command.method === 'general' && command.in !== undefined) {
      const given = (): void => void firmware.give('command', commandBytes(command, {}), command.out!.bytes)
      // of InfiniBand ports; a seed nevertheless
      if (command === Commands.QUERY_HCA_VPORT_CONTEXT) assert.throws(given)
      else given()
    }
}

/** Records the commands of all contexts of a device until `stop`. */
const recordSeeds = (device: Device) => {
  const recorded: (Seed & { readonly context: Context })[] = []
  const note =
    (method: Seed['method']): NonNullable<Hook['pre']> =>
    ({ context }, _object, { input, outBytes, handle }) =>
      void recorded.push({
        method,
        context,
        bytes: (input as Uint8Array).slice(),
        outBytes: outBytes as number,
        handle: handle as number | undefined,
      })
  const removers = [
    addHook(device, { class: DevxObj.name, method: 'create', pre: note('create') }),
    ...(['modify', 'query', 'command'] as const).map(method =>
      addHook(device, { class: Devx.name, method, pre: note(method) }),
    ),
  ]
  return {
    stop(): void {
      for (const remove of removers) remove()
    },
    of: (context: Context): readonly Seed[] => recorded.filter(seed => seed.context === context),
  }
}

/** Uses everything, also by queues that are connected with the peer's. */
const useQueues = (a: Program, peer: Program): void => {
  const pool = a.sharedReceives(16, 1, 'RING')
  a.target(pool.object, 5n)
  const [x, y] = [a.queuePair('rc'), peer.queuePair('rc')]
  x.connect(y, 1)
  a.queuePair('ud').activate()
  a.queuePair('dci').start()
}

/** Each field of a struct with values to try, as a change of the values. */
function* changesOf(struct: Struct, values: FieldValues, others: readonly number[]): Generator<FieldValues> {
  for (const [name, field] of Object.entries(struct.fields)) {
    const changed = (value: FieldValues[string]): FieldValues => ({ ...values, [name]: value })
    if (field.kind === 'nested')
      for (const inner of changesOf(field.struct, values[name] as FieldValues, others)) yield changed(inner)
    else if (field.kind === 'long')
      for (const value of [0n, 1n, 0xfffn, (1n << 63n) + 5n, (1n << 64n) - 1n]) yield changed(value)
    else if (field.kind === 'bits') {
      const all = 2 ** field.width - 1
      for (const value of new Set([0, 1, all, all >>> 1, ...(field.width >= 24 ? others : [])])) yield changed(value)
    } else if (field.kind === 'raw') yield changed(new Uint8Array(field.bytes).fill(0xff))
    else {
      yield changed(new Uint8Array())
      yield changed((values[name] as Uint8Array).slice().fill(0xff))
    }
  }
}

const numbersOf = ({ context, region }: Program): number[] => [
  ...[...contextOf(context).numbers.values()].flatMap(table => [...table.keys()]),
  region.lkey,
  region.lkey >>> 8,
  ...context.handles.slots.flatMap(object => {
    const state = object?.state as { number?: unknown; qpn?: unknown } | undefined
    return [state?.number, state?.qpn].filter(number => typeof number === 'number')
  }),
]

/** Whether an object of a program depends on one of another. */
const reaches = (a: Context, b: Context): boolean =>
  a.handles.slots.some(object => object?.parents.some(parent => parent.context === b))

const give = (a: Program, { method, bytes, outBytes, handle }: Seed): number | undefined => {
  const args = { input: bytes, outBytes, ...(handle !== undefined && { handle }) }
  try {
    if (method === 'create') return a.call(DevxObj, 'create', 0, args).object
    a.call(Devx, method, 0, args)
  } catch (error) {
    assert.ok(error instanceof CallError, (error as Error).stack)
  }
  return undefined
}

const settle = (m: Machine): void => {
  for (let i = 0; i < 3; i++) for (const device of m.devices) device.poll(m.time.now)
}

it('firmware commands are answered or refused, whatever is in them', () => {
  const m = machine(2)
  const { device } = m.devices[0]!
  const recorder = recordSeeds(device)
  const [a, victim, peer] = [program(m, 0, { commands: true }), program(m, 0, { commands: true }), program(m, 1)]
  useAll(victim)
  useAll(a)
  useQueues(a, peer)
  recorder.stop()
  const seeds = recorder.of(a.context)
  const names = new Set(seeds.map(({ bytes }) => commandOf(decodeFields(commandHeader, bytes).opcode)!.name))
  for (const name of [
    'CREATE_CQ',
    'CREATE_QP',
    'INIT2RTR_QP',
    'CREATE_RMP',
    'CREATE_DCT',
    'CREATE_MKEY',
    'CREATE_TIR',
    'QUERY_LAG',
  ])
    assert.ok(names.has(name), name)
  const others = numbersOf(victim)
  const before = victim.context.handles.count
  let count = 0
  const attempt = (seed: Seed): void => {
    const handle = give(a, seed)
    if (handle !== undefined) a.call(DevxObj, 'destroy', handle, {})
    if (++count % 512 === 0) settle(m)
  }
  for (const seed of seeds) {
    const { opcode } = decodeFields(commandHeader, seed.bytes)
    const struct = commandOf(opcode)!.in!
    const values = decodeFields(struct, seed.bytes) as FieldValues
    for (const changed of changesOf(struct, values, others.slice(0, inLongRun(1000, 4)))) {
      const bytes = seed.bytes.slice()
      encodeFieldsInto(struct, bytes, changed as never)
      attempt({ ...seed, bytes })
    }
    for (const length of [16, 17, struct.bytes - 1, struct.bytes + 1, 4000]) {
      const bytes = new Uint8Array(length)
      bytes.set(seed.bytes.subarray(0, length))
      attempt({ ...seed, bytes })
    }
    for (const outBytes of [16, 17, 60_000]) attempt({ ...seed, outBytes })
    for (const opMod of [1, 0xffff]) {
      const bytes = seed.bytes.slice()
      encodeFieldsInto(commandHeader, bytes, { op_mod: opMod, uid: 7 })
      attempt({ ...seed, bytes })
    }
  }
  assert.ok(count > 3000, String(count))
  for (let opcode = 0; opcode < 0x1000; opcode++)
    for (const method of ['create', 'command'] as const) {
      const bytes = encodeFields(commandHeader, { opcode }, 400)
      attempt({ method, bytes, outBytes: 5000, handle: undefined })
    }
  assert.equal(victim.context.handles.count, before)
  assert.ok(!reaches(a.context, victim.context))
  settle(m)
  closeContext(a.context)
  closeContext(victim.context)
  settle(m)
  const left = Object.entries(device.counts).filter(([, number]) => number !== 0)
  assert.deepEqual([left, device.memory.liveKeys, a.pages.shared(), m.core.faults], [[], 0, 0, 0])
})
