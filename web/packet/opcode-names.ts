/*
 * Wireshark's names of opcodes (`RC Acknowledge`), made from those of spec/wire (`RC_ACKNOWLEDGE`), for filters.
 */
import { opcodeByNumber } from '../../src/spec/wire/opcodes.ts'
import { FilterError, type ValueNames } from '../filter/filter.ts'

const WORDS: Readonly<Record<string, string>> = {
  IMM: 'Immediate',
  INV: 'Invalidate',
  RESP: 'Response',
  ACK: 'Acknowledge',
  WRITE: 'RDMA Write',
  READ: 'RDMA Read',
  ATOMIC: 'ATOMIC',
}

const wiresharkName = (name: string): string => {
  const [transport, ...words] = name.split('_')
  if (words.join('_') === 'ATOMIC_WRITE') return `${transport} Atomic Write`
  return [transport, ...words.map(word => WORDS[word] ?? `${word[0]}${word.slice(1).toLowerCase()}`)].join(' ')
}

const names = new Map<number, string>()
const numbers = new Map<string, number>()
for (let code = 0; code < 256; code++) {
  const opcode = opcodeByNumber[code]
  if (opcode === undefined) continue
  names.set(code, wiresharkName(opcode.name))
  for (const name of [opcode.name, wiresharkName(opcode.name)]) numbers.set(name.toLowerCase(), code)
}

const isOpcode = (field: string): boolean => field === 'infiniband.bth.opcode' || field === 'opcode'

/** Names that stand for numbers in filters of packets. */
export const packetValueNames: ValueNames = {
  numberOf(field, text) {
    if (!isOpcode(field)) return undefined
    const code = numbers.get(text.trim().toLowerCase())
    if (code === undefined)
      throw new FilterError(
        `"${text}" is no opcode: a number, or a name such as "RC Acknowledge", "RC RDMA Write First", "UD Send Only"`,
      )
    return code
  },
  nameOf: (field, value) => (isOpcode(field) ? names.get(Number(value)) : undefined),
}
