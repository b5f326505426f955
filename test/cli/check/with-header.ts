/* A program whose first function is one of a header: gcc's line table names no file for it. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { compileC } from '../../tools.ts'

/**
 * Compiles it in a folder; returns the header, whose line 3 has `inHeader`, the program, and the function's address.
 */
export const compileWithHeader = (folder: string, ...options: readonly string[]) => {
  const [header, source] = [join(folder, 'header.h'), join(folder, 'includes.c')]
  writeFileSync(header, '\n\nstatic __attribute__((noinline)) int inHeader(int x) { return x + 1; }\n')
  writeFileSync(source, '#include "header.h"\nint main(int argc, char **argv) { (void)argv; return inHeader(argc); }\n')
  const program = compileC(join(folder, `includes${options.join('')}`), [source], options)
  const [address = ''] =
    /^[0-9a-f]+(?= t inHeader$)/m.exec(spawnSync('nm', [program], { encoding: 'utf8' }).stdout) ?? []
  return { header, program, address: `0x${address.replace(/^0+/, '')}` }
}
