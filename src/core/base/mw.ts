/*
 * Core's own memory windows (IBA 10.6.7, R22): allocation and deallocation.
 */
import { Mw } from '../../spec/classes/mw.ts'
import { MwType } from '../../spec/enums.ts'
import { joinWords } from '../../spec/memory.ts'
import { driverClass } from '../devices/driver.ts'
import { KeyKind } from '../memory/region-table.ts'
import { addWindow, removeWindow } from '../memory/windows.ts'

interface MwState {
  /** Row of the device's MemoryTable. */
  readonly row: number
}

export const mwClass = driverClass<typeof Mw, MwState>(Mw, {
  create({ device, context }, object, { pd, type }) {
    const row = addWindow(device.memory, pd.id, type)
    object.state = { row }
    context.windowCount++
    return { rkey: device.memory.key[row]! }
  },

  query({ device: { memory } }, { state: { row } }) {
    const { TYPE_1, TYPE_2 } = MwType.values
    return {
      rkey: memory.key[row]!,
      type: memory.kind[row] === KeyKind.WINDOW_1 ? TYPE_1 : TYPE_2,
      iova: joinWords(memory.iovaHi[row]!, memory.iovaLo[row]!),
      length: BigInt(memory.length[row]!),
      access: memory.access[row]!,
      qpNum: memory.qp[row]!,
    }
  },

  destroy({ device }, { state, context }) {
    removeWindow(device.memory, state.row)
    if (context !== undefined) context.windowCount--
    return {}
  },
})
