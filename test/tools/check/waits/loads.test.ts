/*
 * Addresses that instructions read. The bytes are those of GNU as.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isOnStack, loadOf } from '../../../../src/tools/check/waits/loads.ts'

const PC = 0x1000n
/** Register n has n · 0x100. */
const registers = Array.from({ length: 32 }, (_, n) => BigInt(n) * 0x100n)

const load = (architecture: string, bytes: string): string => {
  const code = new Uint8Array(16)
  code.set(Buffer.from(bytes.replaceAll(' ', ''), 'hex'))
  const found = loadOf(architecture, { pc: PC, code, registers })
  return found === undefined ? 'none' : `${found.length} at ${found.address.toString(16)}`
}

const x64: readonly (readonly [string, string, string])[] = [
  ['mov (%rax),%eax', '8b 00', '4 at 0'],
  ['mov (%rdi),%al', '8a 07', '1 at 700'],
  ['mov 8(%rbx),%rcx', '48 8b 4b 08', '8 at 308'],
  ['mov -16(%rbp),%rax', '48 8b 45 f0', '8 at 4f0'],
  ['mov 0x1000(%r8),%edx', '41 8b 90 00 10 00 00', '4 at 1800'],
  ['mov (%rdi,%rsi,4),%eax', '8b 04 b7', '4 at 1f00'],
  ['mov (%rsp),%eax', '8b 04 24', '4 at 400'],
  ['mov 0x10(%r12,%r9,8),%rax', '4b 8b 44 cc 10', '8 at 5410'],
  ['mov 0x100,%eax', '8b 04 25 00 01 00 00', '4 at 100'],
  ['mov 0x2f(%rip),%eax', '8b 05 2f 00 00 00', '4 at 1035'],
  ['cmpb $0,(%rax)', '80 38 00', '1 at 0'],
  ['cmpl $0,0x10(%rip)', '83 3d 10 00 00 00 00', '4 at 1017'],
  ['cmpw $1,(%rdx)', '66 83 3a 01', '2 at 200'],
  ['cmp %rax,(%rdx)', '48 39 02', '8 at 200'],
  ['test %cl,(%rdx)', '84 0a', '1 at 200'],
  ['testl $1,4(%rsi)', 'f7 46 04 01 00 00 00', '4 at 604'],
  ['movzbl (%rdi),%eax', '0f b6 07', '1 at 700'],
  ['movzwl (%rdi),%eax', '0f b7 07', '2 at 700'],
  ['movslq (%rdi),%rax', '48 63 07', '4 at 700'],
  ['mov %eax,(%rdi)', '89 07', 'none'],
  ['test %al,%al', '84 c0', 'none'],
  ['add (%rdi),%eax', '03 07', 'none'],
  ['addl $1,(%rdi)', '83 07 01', 'none'],
  ['notl (%rdi)', 'f7 17', 'none'],
  ['lock xchg', 'f0 87 07', 'none'],
  ['pause', 'f3 90', 'none'],
]

const arm64: readonly (readonly [string, string, string])[] = [
  ['ldr w0, [x1]', '20 00 40 b9', '4 at 100'],
  ['ldr x0, [x1, #8]', '20 04 40 f9', '8 at 108'],
  ['ldrb w0, [x1, #3]', '20 0c 40 39', '1 at 103'],
  ['ldrh w0, [sp, #2]', 'e0 07 40 79', '2 at 1f02'],
  ['ldur w0, [x2, #-4]', '40 c0 5f b8', '4 at 1fc'],
  ['ldr x0, [x1, x2, lsl #3]', '20 78 62 f8', '8 at 1100'],
  ['ldr w0, [x1, w2, uxtw]', '20 48 62 b8', '4 at 300'],
  ['ldar w0, [x1]', '20 fc df 88', '4 at 100'],
  ['ldxr x0, [x3]', '60 7c 5f c8', '8 at 300'],
  ['ldaprb w0, [x1]', '20 c0 bf 38', '1 at 100'],
  ['ldrsw x0, [x1]', '20 00 80 b9', '4 at 100'],
  ['str w0, [x1]', '20 00 00 b9', 'none'],
  ['stlr w0, [x1]', '20 fc 9f 88', 'none'],
  ['prfm pldl1keep, [x0]', '00 00 80 f9', 'none'],
  ['ldr q0, [x1]', '20 00 c0 3d', 'none'],
  ['cbz w0, .', '00 00 00 34', 'none'],
]

for (const [architecture, rows] of [
  ['x64', x64],
  ['arm64', arm64],
] as const)
  test(`loads and comparisons of ${architecture}`, () => {
    for (const [text, bytes, expected] of rows) assert.equal(load(architecture, bytes), expected, text)
  })

test('an instruction that is cut off, and other machines, have none', () => {
  const code = Uint8Array.from([0x8b, 0x05, 0x2f])
  assert.equal(loadOf('x64', { pc: PC, code, registers }), undefined)
  assert.equal(loadOf('riscv64', { pc: PC, code: new Uint8Array(16), registers }), undefined)
})

test('variables on the stack are told apart', () => {
  const machine = { pc: PC, code: new Uint8Array(16), registers }
  const at = (address: bigint): boolean => isOnStack('x64', { address, length: 4 }, machine)
  assert.deepEqual(
    [at(0x400n), at(0x4f0n), at(0x390n), at(0x10n), at(0x400n + 2n ** 20n)],
    [true, true, true, false, false],
  )
})
