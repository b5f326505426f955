/*
 * The address that an instruction reads, if it is a plain load or a comparison with memory: of x86-64 and arm64, as far
 * as compilers use them for loops that wait for a word. Others, such as vectors, strings and atomics that write, are
 * none.
 */

/** Bytes in memory. */
interface Load {
  readonly address: bigint
  readonly length: number
}

/** A thread at an instruction. */
export interface Machine {
  readonly pc: bigint
  /** The instruction and what follows. */
  readonly code: Uint8Array
  /** By their numbers in instructions; of arm64 the last one is the stack pointer. */
  readonly registers: readonly bigint[]
}

const wrapped = (value: bigint): bigint => BigInt.asUintN(64, value)

// ---- x86-64 (Intel's manual, volume 2) ----

const OPERAND_SIZE = 0x66
/** Loads and comparisons by opcode: bytes; 0: as the operand. `digit`: that of the opcode. */
const opcodes: ReadonlyMap<number, { readonly bytes: number; readonly digit?: number; readonly immediate?: number }> =
  new Map([
    [0x8a, { bytes: 1 }],
    [0x8b, { bytes: 0 }],
    [0x63, { bytes: 4 }],
    [0x38, { bytes: 1 }],
    [0x39, { bytes: 0 }],
    [0x3a, { bytes: 1 }],
    [0x3b, { bytes: 0 }],
    [0x84, { bytes: 1 }],
    [0x85, { bytes: 0 }],
    [0x80, { bytes: 1, digit: 7, immediate: 1 }],
    [0x81, { bytes: 0, digit: 7, immediate: 4 }],
    [0x83, { bytes: 0, digit: 7, immediate: 1 }],
    [0xf6, { bytes: 1, digit: 0, immediate: 1 }],
    [0xf7, { bytes: 0, digit: 0, immediate: 4 }],
    [0x0fb6, { bytes: 1 }],
    [0x0fbe, { bytes: 1 }],
    [0x0fb7, { bytes: 2 }],
    [0x0fbf, { bytes: 2 }],
  ])

const onX64 = ({ pc, code, registers }: Machine): Load | undefined => {
  const view = new DataView(code.buffer, code.byteOffset, code.byteLength)
  let at = 0
  const isShort = code[at] === OPERAND_SIZE
  if (isShort) at++
  const rex = (code[at]! & 0xf0) === 0x40 ? code[at++]! : 0
  const first = code[at++]!
  const opcode = opcodes.get(first === 0x0f ? 0x0f00 | code[at++]! : first)
  const modRm = code[at++]!
  const mode = modRm >> 6
  if (opcode === undefined || mode === 3) return undefined
  if (opcode.digit !== undefined && ((modRm >> 3) & 7) !== opcode.digit) return undefined
  let address = 0n
  let isRelative = false
  let base = modRm & 7
  let hasBase = true
  if (base === 4) {
    const sib = code[at++]!
    const index = ((sib >> 3) & 7) | ((rex & 2) << 2)
    if (index !== 4) address += registers[index]! << BigInt(sib >> 6)
    base = sib & 7
    hasBase = !(base === 5 && mode === 0)
  } else if (base === 5 && mode === 0) {
    hasBase = false
    isRelative = true
  }
  if (hasBase) address += registers[base | ((rex & 1) << 3)]!
  if (mode === 1) address += BigInt(view.getInt8(at++))
  else if (mode === 2 || !hasBase) {
    address += BigInt(view.getInt32(at, true))
    at += 4
  }
  const immediate = opcode.immediate === 4 && isShort ? 2 : (opcode.immediate ?? 0)
  if (isRelative) address += pc + BigInt(at + immediate)
  const bytes = opcode.bytes === 0 ? ((rex & 8) !== 0 ? 8 : isShort ? 2 : 4) : opcode.bytes
  return { address: wrapped(address), length: bytes }
}

// ---- arm64 (Arm's manual, C4.1.94: loads and stores) ----

const STACK_POINTER = 31
/** Extensions of an index register: UXTW, LSL, SXTW, SXTX. */
const extended = (value: bigint, option: number): bigint | undefined => {
  if (option === 2) return BigInt.asUintN(32, value)
  if (option === 3 || option === 7) return value
  return option === 6 ? BigInt.asIntN(32, value) : undefined
}

const onArm64 = ({ code, registers }: Machine): Load | undefined => {
  const word = new DataView(code.buffer, code.byteOffset, code.byteLength).getUint32(0, true)
  const bits = (from: number, count: number): number => (word >>> from) & ((1 << count) - 1)
  const has = (mask: number, value: number): boolean => (word & mask) >>> 0 === value
  const size = bits(30, 2)
  const operation = bits(22, 2)
  const base = registers[bits(5, 5)]!
  const load = (offset: bigint): Load => ({ address: wrapped(base + offset), length: 1 << size })
  // LDAR, LDXR and others of one register; LDAPR.
  if (has(0x3f60_0000, 0x0840_0000) || has(0x3fff_fc00, 0x38bf_c000)) return load(0n)
  // A store, or a prefetch.
  if (operation === 0 || (size === 3 && operation === 2)) return undefined
  if (has(0x3f00_0000, 0x3900_0000)) return load(BigInt(bits(10, 12)) << BigInt(size))
  if (has(0x3f20_0c00, 0x3800_0000)) return load(BigInt.asIntN(9, BigInt(bits(12, 9))))
  if (!has(0x3f20_0c00, 0x3820_0800)) return undefined
  const index = bits(16, 5)
  const offset = extended(index === STACK_POINTER ? 0n : registers[index]!, bits(13, 3))
  return offset === undefined ? undefined : load(offset << BigInt(bits(12, 1) * size))
}

/** Bytes from the stack pointer up in which an address is taken for one of the thread's stack. */
const STACK_BYTES = 2n ** 20n
const stackPointers: Readonly<Record<string, number>> = { x64: 4, arm64: STACK_POINTER }

/** Whether the thread reads a variable of its own. */
export const isOnStack = (architecture: string, { address }: Load, { registers }: Machine): boolean => {
  const stackPointer = registers[stackPointers[architecture] ?? 0]!
  return address >= stackPointer - 128n && address < stackPointer + STACK_BYTES
}

const decoders: Readonly<Record<string, (machine: Machine) => Load | undefined>> = { x64: onX64, arm64: onArm64 }

/** What the thread reads; undefined: its instruction is no plain load. `architecture`: as process.arch. */
export const loadOf = (architecture: string, machine: Machine): Load | undefined => {
  try {
    return decoders[architecture]?.(machine)
  } catch (error) {
    // The instruction is cut off at the end of its page.
    if (error instanceof RangeError || error instanceof TypeError) return undefined
    throw error
  }
}
